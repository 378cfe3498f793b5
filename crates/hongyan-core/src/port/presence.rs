//! Who is connected, and how to reach them.

use std::sync::Arc;

use async_trait::async_trait;

use crate::port::Owner;
use crate::session::{AppState, SessionEvent};
use crate::{AppId, DeviceId, Message, MessageId, SessionId, Timestamp, UserId};

/// A live connection, as the router sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionInfo {
    /// Its id.
    pub session: SessionId,
    /// Whether the app is in front.
    pub state: AppState,
    /// Since when.
    pub since: Timestamp,
    /// `websocket`, `sse` …
    pub protocol: &'static str,
}

/// Something new for an owner's readers: a wake-up. Losing one costs time, never a message.
#[derive(Debug, Clone, PartialEq)]
pub struct Hint {
    /// The app.
    pub app: AppId,
    /// Whose list grew.
    pub owner: Owner,
    /// The entry, where whoever has everything before it needs to know no more.
    pub fresh: Option<Fresh>,
}

impl Hint {
    /// A wake-up that says no more than that the list grew.
    #[must_use]
    pub const fn new(app: AppId, owner: Owner) -> Self {
        Self {
            app,
            owner,
            fresh: None,
        }
    }
}

/// An entry that was just committed. It may be given without a read to a session whose cursor stands exactly at `after`
/// in this list; all others read their inbox, which alone knows what else there is. Only for messages that take no
/// other's place (no collapse key).
#[derive(Debug, Clone, PartialEq)]
pub struct Fresh {
    /// The place before it, in the owner's list (broadcasts: in all of the app's).
    pub after: u64,
    /// Its place.
    pub place: u64,
    /// The message.
    pub message: Arc<Message>,
}

/// Who is connected. Implemented by the gateway's hub; in a cluster, by hub and bus together.
#[async_trait]
pub trait Presence: Send + Sync + std::fmt::Debug {
    /// The session of each device, in order.
    fn sessions(&self, app: &AppId, devices: &[DeviceId]) -> Vec<Option<SessionInfo>>;

    /// Of devices that have no session: the one that was cut and may still be resumed, in order. To whoever asks the device
    /// counts as connected; nothing reaches it, so that it is pushed to.
    fn lingering(
        &self,
        _app: &AppId,
        devices: &[DeviceId],
        _now: Timestamp,
    ) -> Vec<Option<SessionInfo>> {
        vec![None; devices.len()]
    }

    /// Wakes the sessions that read these lists.
    fn notify(&self, hints: Vec<Hint>);

    /// Binds the device's session, if there is one, to another user (or none). When this resolves, nothing
    /// addressed to the former user can leave to this device any more.
    async fn rebind(&self, app: &AppId, device: &DeviceId, user: Option<UserId>);

    /// Tells sessions that read this owner's list to take the message out of sight, and not to give it any more. Who is
    /// being given its mark ([`Message::recall_mark`]) is not told besides; who acknowledged that already may be told again.
    fn recall(&self, app: &AppId, owner: &Owner, message: MessageId);

    /// Gives a message that is not stored to the device's session, if there is one now; answers whether there is. Nothing comes
    /// again: it is delivered at most once. Where nobody can be connected, nobody is there.
    fn hand(&self, _app: &AppId, _device: &DeviceId, _message: Arc<Message>) -> bool {
        false
    }

    /// Closes the device's session because the device was deleted or its token revoked.
    async fn disconnect(&self, app: &AppId, device: &DeviceId);

    /// Closes the device's session because the app's server wants it out; the device is still there.
    async fn kick(&self, app: &AppId, device: &DeviceId) {
        self.disconnect(app, device).await;
    }

    /// Closes all sessions of an app because it was deleted: another app may have its name later. When this resolves,
    /// nothing leaves to them any more.
    async fn disconnect_app(&self, app: &AppId);

    /// Tells the device's session that its topics changed.
    fn resubscribe(&self, app: &AppId, device: &DeviceId);

    /// Connected sessions now.
    fn len(&self) -> usize;

    /// Whether nobody is connected.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Takes what sessions report. Implemented by dispatch.
#[async_trait]
pub trait SessionSink: Send + Sync + std::fmt::Debug {
    /// Takes the events in order; waits while it is full, which makes the caller read less.
    async fn accept(&self, events: Vec<SessionEvent>);
}
