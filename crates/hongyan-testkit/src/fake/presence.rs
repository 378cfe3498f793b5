//! A presence that a test sets, and that remembers what it was told.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use hongyan_core::port::{Hint, Owner, Presence, SessionInfo};
use hongyan_core::session::AppState;
use hongyan_core::{AppId, DeviceId, Message, MessageId, SessionId, Timestamp, UserId};

/// See the module.
#[derive(Debug, Default)]
pub struct FakePresence {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    sessions: HashMap<(AppId, DeviceId), SessionInfo>,
    hints: Vec<Hint>,
    rebound: Vec<(DeviceId, Option<UserId>)>,
    recalled: Vec<MessageId>,
    closed: Vec<DeviceId>,
    handed: Vec<Arc<Message>>,
}

impl FakePresence {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects a device.
    pub fn connect(&self, app: &AppId, device: &DeviceId) {
        let info = SessionInfo {
            session: SessionId(1),
            state: AppState::Foreground,
            since: Timestamp(0),
            protocol: "fake",
        };
        self.lock()
            .sessions
            .insert((app.clone(), device.clone()), info);
    }

    /// Disconnects a device.
    pub fn gone(&self, app: &AppId, device: &DeviceId) {
        self.lock().sessions.remove(&(app.clone(), device.clone()));
    }

    /// The hints so far.
    #[must_use]
    pub fn hints(&self) -> Vec<Hint> {
        self.lock().hints.clone()
    }

    /// The bindings that sessions were told of.
    #[must_use]
    pub fn rebound(&self) -> Vec<(DeviceId, Option<UserId>)> {
        self.lock().rebound.clone()
    }

    /// The messages that sessions were told to take out of sight.
    #[must_use]
    pub fn recalled(&self) -> Vec<MessageId> {
        self.lock().recalled.clone()
    }

    /// The messages that sessions were handed without a store.
    #[must_use]
    pub fn handed(&self) -> Vec<Arc<Message>> {
        self.lock().handed.clone()
    }

    /// The devices whose sessions were closed.
    #[must_use]
    pub fn closed(&self) -> Vec<DeviceId> {
        self.lock().closed.clone()
    }
}

#[async_trait]
impl Presence for FakePresence {
    fn sessions(&self, app: &AppId, devices: &[DeviceId]) -> Vec<Option<SessionInfo>> {
        let state = self.lock();
        devices
            .iter()
            .map(|d| state.sessions.get(&(app.clone(), d.clone())).cloned())
            .collect()
    }

    fn notify(&self, hints: Vec<Hint>) {
        self.lock().hints.extend(hints);
    }

    async fn rebind(&self, _app: &AppId, device: &DeviceId, user: Option<UserId>) {
        self.lock().rebound.push((device.clone(), user));
    }

    fn recall(&self, _app: &AppId, _owner: &Owner, message: MessageId) {
        self.lock().recalled.push(message);
    }

    fn hand(&self, app: &AppId, device: &DeviceId, message: Arc<Message>) -> bool {
        let mut state = self.lock();
        let is_there = state.sessions.contains_key(&(app.clone(), device.clone()));
        if is_there {
            state.handed.push(message);
        }
        is_there
    }

    async fn disconnect(&self, app: &AppId, device: &DeviceId) {
        self.gone(app, device);
        self.lock().closed.push(device.clone());
    }

    async fn disconnect_app(&self, app: &AppId) {
        let mut state = self.lock();
        let of_app = |(of, _): &(AppId, DeviceId)| of == app;
        let devices: Vec<_> = state
            .sessions
            .keys()
            .filter(|key| of_app(key))
            .cloned()
            .collect();
        for key in devices {
            state.sessions.remove(&key);
            state.closed.push(key.1);
        }
    }

    fn resubscribe(&self, _app: &AppId, _device: &DeviceId) {}

    fn len(&self) -> usize {
        self.lock().sessions.len()
    }
}
