//! Who is where: finds the session of a device, of a user's devices, of a topic's followers, and
//! passes on what other rooms want of them. It holds no truth: it is rebuilt by connections.

use std::borrow::Borrow;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use hongyan_core::message::Audience;
use hongyan_core::port::{Ack, Hint, Owner, Presence, Reader, SessionInfo};
use hongyan_core::session::AppState;
use hongyan_core::{
    AppId, Cursor, DeviceId, Message, MessageId, SessionId, Timestamp, Topic, UserId,
};
use tokio::sync::oneshot;

use crate::gate::Gate;
use crate::mailbox::{Command, Mailbox};
use crate::protocol::websocket::close;
use crate::protocol::{Kind, Parked};
use crate::tickets::Tickets;

/// Devices of which something is remembered for their next connection; the oldest is forgotten beyond it, which costs it
/// the `dup` mark, or the session of its protocol.
const LEFT_LEN_MAX: usize = 65_536;

/// Sessions that were taken over and are remembered, for as long.
const TAKEN_LEN_MAX: usize = 1024;
const TAKEN_FOR: Duration = Duration::from_secs(5);

type DeviceKey = (AppId, DeviceId);

/// A reader as the key of its device, so that the ids are not kept twice.
#[derive(Debug, Clone)]
struct ByDevice(Arc<Reader>);

/// What both a [`ByDevice`] and a pair of borrowed ids are: the key of a device.
trait Names {
    fn names(&self) -> (&AppId, &DeviceId);
}

impl Names for ByDevice {
    fn names(&self) -> (&AppId, &DeviceId) {
        (&self.0.app, &self.0.device)
    }
}

impl Names for (&AppId, &DeviceId) {
    fn names(&self) -> (&AppId, &DeviceId) {
        *self
    }
}

impl Hash for dyn Names + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.names().hash(state);
    }
}

impl PartialEq for dyn Names + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.names() == other.names()
    }
}

impl Eq for dyn Names + '_ {}

impl Hash for ByDevice {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.names().hash(state);
    }
}

impl PartialEq for ByDevice {
    fn eq(&self, other: &Self) -> bool {
        self.names() == other.names()
    }
}

impl Eq for ByDevice {}

impl<'a> Borrow<dyn Names + 'a> for ByDevice {
    fn borrow(&self) -> &(dyn Names + 'a) {
        self
    }
}

#[derive(Debug)]
struct Member {
    session: SessionId,
    since: Timestamp,
    /// Most devices follow none; then a word is all that it costs.
    #[allow(
        clippy::box_collection,
        reason = "one word instead of three in every member"
    )]
    topics: Option<Box<Vec<Topic>>>,
    kind: Kind,
    state: AppState,
}

impl Member {
    fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.topics.iter().flat_map(|topics| topics.iter())
    }
}

#[derive(Debug, Default)]
struct Index {
    apps: BTreeSet<AppId>,
    devices: HashMap<ByDevice, Member>,
    users: BTreeSet<(AppId, UserId, SessionId)>,
    topics: BTreeSet<(AppId, Topic, SessionId)>,
    left: HashMap<DeviceKey, Left>,
    left_order: VecDeque<DeviceKey>,
    /// Sessions that were taken over, the latest last.
    taken: VecDeque<(SessionId, Instant)>,
}

/// What a connection leaves to the next one of its device.
#[derive(Default)]
pub(crate) struct Left {
    /// The place up to which entries were sent but not all acknowledged.
    pub(crate) unfinished: Option<Cursor>,
    /// What its protocol keeps.
    pub(crate) parked: Option<(Kind, Parked)>,
}

impl std::fmt::Debug for Left {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parked = self.parked.as_ref().map(|(kind, _)| kind);
        f.debug_struct("Left")
            .field("unfinished", &self.unfinished)
            .field("parked", &parked)
            .finish()
    }
}

/// Numbers about the gateway now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Devices that are connected.
    pub sessions: usize,
    /// All sockets, also those that did not say who they are.
    pub sockets: usize,
    /// Sockets that did not say who they are.
    pub half_open: usize,
}

/// The gateway's [`Presence`], and what only this node's own rooms may ask of it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Hub(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    index: Mutex<Index>,
    mailboxes: Vec<Arc<Mailbox>>,
    sockets: AtomicUsize,
    gate: Arc<Gate>,
    tickets: Tickets,
}

/// A device that was just registered.
#[derive(Debug)]
pub(crate) struct Registered {
    /// Resolves when the session that was there before has ended.
    pub(crate) former: Option<oneshot::Receiver<()>>,
}

impl Hub {
    pub(crate) fn new(mailboxes: Vec<Arc<Mailbox>>, gate: Arc<Gate>) -> Self {
        Self(Arc::new(Inner {
            index: Mutex::new(Index::default()),
            mailboxes,
            sockets: AtomicUsize::new(0),
            gate,
            tickets: Tickets::default(),
        }))
    }

    pub(crate) fn tickets(&self) -> &Tickets {
        &self.0.tickets
    }

    /// Numbers for the operator.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            sessions: self.len(),
            sockets: self.0.sockets.load(Ordering::Relaxed),
            half_open: self.0.gate.half_open(),
        }
    }

    /// Tells every session to go elsewhere and closes them spread over the window. Resolves when
    /// all sockets are closed, or a few seconds after the window.
    pub async fn drain(&self, window: Duration) {
        for mailbox in &self.0.mailboxes {
            mailbox.push(Command::Drain(window));
        }
        let deadline = tokio::time::Instant::now() + window + Duration::from_secs(5);
        while self.0.sockets.load(Ordering::Relaxed) > 0 && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Makes the reactors look at the clock: for clocks that jump.
    pub fn poke(&self) {
        for mailbox in &self.0.mailboxes {
            mailbox.push(Command::Poke);
        }
    }

    pub(crate) fn sockets(&self) -> &AtomicUsize {
        &self.0.sockets
    }

    /// Makes a session the device's one; a former one is told that it was taken over.
    pub(crate) fn register(
        &self,
        session: SessionId,
        reader: &Arc<Reader>,
        kind: Kind,
        state: AppState,
        since: Timestamp,
    ) -> Registered {
        let mut index = self.index();
        let former = index.remove(&reader.app, &reader.device);
        index.add(reader, session, since, kind, state);
        if let Some(former) = &former {
            if index.taken.len() >= TAKEN_LEN_MAX {
                index.taken.pop_front();
            }
            index.taken.push_back((former.session, Instant::now()));
        }
        let former = former.map(|former| {
            let (done, ended) = oneshot::channel();
            self.mailbox(former.session).push(Command::Close {
                session: former.session,
                code: close::TAKEN_OVER,
                reason: "taken over by a newer connection of this device",
                done,
            });
            ended
        });
        Registered { former }
    }

    /// What earlier connections of this device left, once. What a protocol keeps waits for a connection of its own kind.
    pub(crate) fn take_left(&self, reader: &Reader, kind: Kind) -> Option<Left> {
        let mut index = self.index();
        let key = (reader.app.clone(), reader.device.clone());
        let mut left = index.left.remove(&key)?;
        if let Some(parked) = left.parked.take_if(|(of, _)| *of != kind) {
            let waits = Left {
                unfinished: None,
                parked: Some(parked),
            };
            index.left.insert(key, waits);
        }
        Some(left)
    }

    /// Ends a session. Does nothing to a newer one of the same device.
    pub(crate) fn unregister(&self, session: SessionId, reader: &Reader, mut left: Left) {
        let mut index = self.index();
        let key = (reader.app.clone(), reader.device.clone());
        if let Some(before) = index.left.get_mut(&key) {
            // Of another kind of connection: this one took what was its own.
            left.parked = left.parked.or(before.parked.take());
        }
        if left.unfinished.is_some() || left.parked.is_some() {
            if index.left_order.len() >= LEFT_LEN_MAX
                && let Some(oldest) = index.left_order.pop_front()
            {
                index.left.remove(&oldest);
            }
            if index.left.insert(key.clone(), left).is_none() {
                index.left_order.push_back(key.clone());
            }
        }
        if index
            .member(&reader.app, &reader.device)
            .is_some_and(|member| member.session == session)
        {
            index.remove(&reader.app, &reader.device);
        }
    }

    pub(crate) fn session_of(
        &self,
        app: &AppId,
        device: &DeviceId,
        kind: Kind,
    ) -> Option<SessionId> {
        let index = self.index();
        let member = index.member(app, device)?;
        (member.kind == kind).then_some(member.session)
    }

    /// Whether this session (in its text form) was taken over in the last seconds.
    #[must_use]
    pub fn was_taken(&self, session: Option<&str>) -> bool {
        let Some(session) = session.and_then(|text| u64::from_str_radix(text, 16).ok()) else {
            return false;
        };
        let index = self.index();
        let since = Instant::now().checked_sub(TAKEN_FOR);
        index
            .taken
            .iter()
            .any(|(one, at)| one.0 == session && since.is_none_or(|since| *at >= since))
    }

    /// A device's app went to the front or back, by its own word over HTTP.
    pub fn set_device_state(&self, app: &AppId, device: &DeviceId, state: AppState) {
        let key: &dyn Names = &(app, device);
        if let Some(member) = self.index().devices.get_mut(key) {
            member.state = state;
        }
    }

    /// The device acknowledged outside of its connection: its session stops waiting for that.
    pub fn acked(&self, reader: &Reader, ack: Ack) {
        let session = {
            let index = self.index();
            index
                .member(&reader.app, &reader.device)
                .map(|member| member.session)
        };
        if let Some(session) = session {
            self.mailbox(session).push(Command::Acked { session, ack });
        }
    }

    /// Ends a session of which only the id is left. A look at all: for sessions that failed.
    pub(crate) fn forget(&self, session: SessionId) -> Option<Arc<Reader>> {
        let mut index = self.index();
        let (ByDevice(reader), _) = index
            .devices
            .iter()
            .find(|(_, member)| member.session == session)?;
        let reader = Arc::clone(reader);
        index.remove(&reader.app, &reader.device);
        Some(reader)
    }

    /// Sets the topics that wake a session; ignored when it is no longer the device's one.
    pub(crate) fn set_topics(&self, session: SessionId, reader: &Reader, topics: Vec<Topic>) {
        let mut guard = self.index();
        let index = &mut *guard;
        let key: &dyn Names = &(&reader.app, &reader.device);
        let Some(member) = index.devices.get_mut(key).filter(|m| m.session == session) else {
            return;
        };
        for topic in member.topics() {
            index
                .topics
                .remove(&(reader.app.clone(), topic.clone(), session));
        }
        let topics: Vec<Topic> = topics
            .into_iter()
            .map(|topic| {
                // The text of a topic is kept once for all its followers.
                let known = index
                    .topics
                    .range((reader.app.clone(), topic.clone(), SessionId(0))..)
                    .next()
                    .filter(|(app, other, _)| *app == reader.app && *other == topic)
                    .map(|(_, other, _)| other.clone());
                let topic = known.unwrap_or(topic);
                index
                    .topics
                    .insert((reader.app.clone(), topic.clone(), session));
                topic
            })
            .collect();
        member.topics = (!topics.is_empty()).then(|| Box::new(topics));
    }

    /// One text for an app's id, whatever record it was read from.
    pub(crate) fn share_app(&self, app: &AppId) -> AppId {
        let mut index = self.index();
        if let Some(known) = index.apps.get(app) {
            return known.clone();
        }
        index.apps.insert(app.clone());
        app.clone()
    }

    pub(crate) fn set_state(&self, session: SessionId, reader: &Reader, state: AppState) {
        let key: &dyn Names = &(&reader.app, &reader.device);
        if let Some(member) = self.index().devices.get_mut(key)
            && member.session == session
        {
            member.state = state;
        }
    }

    /// Gives something to a session's protocol; it is dropped when the session is gone.
    pub(crate) fn tell(&self, session: SessionId, what: Box<dyn std::any::Any + Send>) {
        self.mailbox(session).push(Command::Tell { session, what });
    }

    pub(crate) fn mailbox(&self, session: SessionId) -> &Mailbox {
        let at = (session.0 >> 56) as usize;
        &self.0.mailboxes[at % self.0.mailboxes.len()]
    }

    pub(crate) fn mailboxes(&self) -> &[Arc<Mailbox>] {
        &self.0.mailboxes
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.0.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Spreads sessions over the reactors that own them.
    fn by_reactor(&self, sessions: impl Iterator<Item = SessionId>) -> Vec<Vec<SessionId>> {
        let mut spread = vec![Vec::new(); self.0.mailboxes.len()];
        for session in sessions {
            let at = (session.0 >> 56) as usize % spread.len();
            spread[at].push(session);
        }
        spread
    }

    /// Sessions that read an owner's list; `None` when it is all of the app.
    fn readers(&self, app: &AppId, owner: &Owner) -> Option<Vec<SessionId>> {
        let index = self.index();
        Some(match owner {
            Owner::Device(device) => index
                .member(app, device)
                .map(|member| member.session)
                .into_iter()
                .collect(),
            Owner::User(user) => {
                let from = (app.clone(), user.clone(), SessionId(0));
                let to = (app.clone(), user.clone(), SessionId(u64::MAX));
                index
                    .users
                    .range(from..=to)
                    .map(|(_, _, session)| *session)
                    .collect()
            }
            Owner::Audience(Audience::Topic(topic)) => {
                let from = (app.clone(), topic.clone(), SessionId(0));
                let to = (app.clone(), topic.clone(), SessionId(u64::MAX));
                index
                    .topics
                    .range(from..=to)
                    .map(|(_, _, session)| *session)
                    .collect()
            }
            Owner::Audience(Audience::All) => return None,
        })
    }
}

impl Index {
    fn member(&self, app: &AppId, device: &DeviceId) -> Option<&Member> {
        let key: &dyn Names = &(app, device);
        self.devices.get(key)
    }

    fn add(
        &mut self,
        reader: &Arc<Reader>,
        session: SessionId,
        since: Timestamp,
        kind: Kind,
        state: AppState,
    ) {
        if let Some(user) = &reader.user {
            self.users
                .insert((reader.app.clone(), user.clone(), session));
        }
        let member = Member {
            session,
            since,
            topics: None,
            kind,
            state,
        };
        self.devices.insert(ByDevice(Arc::clone(reader)), member);
    }

    /// Removes a device with everything that leads to it.
    fn remove(&mut self, app: &AppId, device: &DeviceId) -> Option<Member> {
        let key: &dyn Names = &(app, device);
        let (ByDevice(reader), member) = self.devices.remove_entry(key)?;
        if let Some(user) = &reader.user {
            self.users
                .remove(&(app.clone(), user.clone(), member.session));
        }
        for topic in member.topics() {
            self.topics
                .remove(&(app.clone(), topic.clone(), member.session));
        }
        Some(member)
    }
}

#[async_trait]
impl Presence for Hub {
    fn sessions(&self, app: &AppId, devices: &[DeviceId]) -> Vec<Option<SessionInfo>> {
        let index = self.index();
        devices
            .iter()
            .map(|device| {
                let member = index.member(app, device)?;
                Some(SessionInfo {
                    session: member.session,
                    state: member.state,
                    since: member.since,
                    protocol: member.kind.name(),
                })
            })
            .collect()
    }

    fn hand(&self, app: &AppId, device: &DeviceId, message: Arc<Message>) -> bool {
        let Some(session) = self.index().member(app, device).map(|one| one.session) else {
            return false;
        };
        self.mailbox(session)
            .push_hint(Command::Hand { session, message });
        true
    }

    fn notify(&self, hints: Vec<Hint>) {
        let mut wake = vec![Vec::new(); self.0.mailboxes.len()];
        for hint in hints {
            match self.readers(&hint.app, &hint.owner) {
                Some(sessions) => {
                    for (all, some) in wake.iter_mut().zip(self.by_reactor(sessions.into_iter())) {
                        all.extend(some);
                    }
                }
                None => {
                    for mailbox in &self.0.mailboxes {
                        mailbox.push_hint(Command::WakeApp(hint.app.clone()));
                    }
                }
            }
        }
        for (mailbox, sessions) in self.0.mailboxes.iter().zip(wake) {
            if !sessions.is_empty() {
                mailbox.push_hint(Command::Wake(sessions));
            }
        }
    }

    async fn rebind(&self, app: &AppId, device: &DeviceId, user: Option<UserId>) {
        let done = {
            let mut guard = self.index();
            let index = &mut *guard;
            let key: &dyn Names = &(app, device);
            let Some((ByDevice(former), member)) = index.devices.remove_entry(key) else {
                return;
            };
            if former.user == user {
                index.devices.insert(ByDevice(former), member);
                return;
            }
            let session = member.session;
            if let Some(user) = &former.user {
                index
                    .users
                    .remove(&(former.app.clone(), user.clone(), session));
            }
            if let Some(user) = &user {
                index
                    .users
                    .insert((former.app.clone(), user.clone(), session));
            }
            let reader = Arc::new(Reader {
                app: former.app.clone(),
                device: former.device.clone(),
                user,
            });
            index.devices.insert(ByDevice(Arc::clone(&reader)), member);
            index.left.remove(&(app.clone(), device.clone()));
            let (done, rebound) = oneshot::channel();
            // Under the lock, so that two rebinds of a device arrive in their order.
            self.mailbox(session).push(Command::Rebind {
                session,
                reader,
                done,
            });
            rebound
        };
        // An error means that the session ended, which is as good.
        let _ = done.await;
    }

    fn recall(&self, app: &AppId, owner: &Owner, message: MessageId) {
        match self.readers(app, owner) {
            Some(sessions) => {
                let spread = self.by_reactor(sessions.into_iter());
                for (mailbox, sessions) in self.0.mailboxes.iter().zip(spread) {
                    if !sessions.is_empty() {
                        mailbox.push(Command::Recall {
                            sessions,
                            id: message,
                        });
                    }
                }
            }
            None => {
                for mailbox in &self.0.mailboxes {
                    mailbox.push(Command::RecallApp {
                        app: app.clone(),
                        id: message,
                    });
                }
            }
        }
    }

    async fn disconnect(&self, app: &AppId, device: &DeviceId) {
        let session = {
            let mut index = self.index();
            index.left.remove(&(app.clone(), device.clone()));
            index.member(app, device).map(|member| member.session)
        };
        let Some(session) = session else { return };
        let (done, closed) = oneshot::channel();
        self.mailbox(session).push(Command::Close {
            session,
            code: close::DEVICE_GONE,
            reason: "the device was deleted or its token revoked",
            done,
        });
        let _ = closed.await;
    }

    fn resubscribe(&self, app: &AppId, device: &DeviceId) {
        let session = self
            .index()
            .member(app, device)
            .map(|member| member.session);
        if let Some(session) = session {
            self.mailbox(session)
                .push_hint(Command::Resubscribe(session));
        }
    }

    fn len(&self) -> usize {
        self.index().devices.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_hub_keeps_of_a_session_is_small() {
        // One entry by device and one by user: with the reader, its three texts and the slab's
        // entry this is what an idle connection costs. Both maps are filled to two thirds or so.
        assert!(std::mem::size_of::<(ByDevice, Member)>() <= 40);
        assert!(std::mem::size_of::<(AppId, UserId, SessionId)>() <= 40);
    }
}
