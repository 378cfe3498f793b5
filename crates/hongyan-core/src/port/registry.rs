//! Apps, keys, credentials, devices, users and topics.

use std::time::Duration;

use async_trait::async_trait;

use crate::app::{App, Credential, Key};
use crate::{
    AppId, ChannelId, CredentialName, Device, DeviceId, KeyId, PushChannel, PushEndpoint, Reason,
    StoreError, Timestamp, Topic, User, UserId,
};

/// How long an endpoint that is gone is remembered, so that senders are told to forget it.
pub const ENDPOINT_GONE_TTL: Duration = Duration::from_secs(90 * 86_400);

/// A device's membership of a topic.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Subscription {
    /// The topic.
    pub topic: Topic,
    /// Broadcasts up to this place came before it.
    pub since: u64,
}

/// Apps, keys, credentials, devices, users and topics.
///
/// Promises:
/// - a write is durable when the call returns, and seen by every later read;
/// - versioned records are written only if the version that was read is still current (`expected` `None`: must not exist),
///   else [`StoreError::Conflict`]; the record given carries the new version;
/// - a vendor token belongs to one device: writing it to a device takes it from any other device of the app, which keeps a
///   tombstone with [`Reason::TokenInvalid`];
/// - changing `device.user` moves the device between users and starts its inbox at the new user's newest place;
/// - deleting an app deletes all that it owns; deleting a device frees its tokens, topics and inbox, and ends its endpoints;
/// - a device's channel has at most one endpoint that is not gone: a new one ends the former; gone ones are still found by
///   their hash for [`ENDPOINT_GONE_TTL`], then forgotten;
/// - pages are in id order.
#[async_trait]
pub trait Registry: Send + Sync + std::fmt::Debug {
    /// Writes an app.
    async fn put_app(&self, app: App, expected: Option<u64>) -> Result<(), StoreError>;
    /// Reads an app.
    async fn app(&self, id: &AppId) -> Result<Option<App>, StoreError>;
    /// All apps after an id, at most `limit`.
    async fn apps(&self, after: Option<&AppId>, limit: usize) -> Result<Vec<App>, StoreError>;
    /// Deletes an app and all that it owns.
    async fn delete_app(&self, id: &AppId) -> Result<(), StoreError>;

    /// Writes a key.
    async fn put_key(&self, key: Key) -> Result<(), StoreError>;
    /// The key with this secret hash.
    async fn key_by_hash(&self, hash: &[u8; 32]) -> Result<Option<Key>, StoreError>;
    /// Keys of an app, or the admin keys.
    async fn keys(&self, app: Option<&AppId>) -> Result<Vec<Key>, StoreError>;
    /// Deletes a key; unknown ids do nothing.
    async fn delete_key(&self, app: Option<&AppId>, id: &KeyId) -> Result<bool, StoreError>;

    /// Writes a credential. It is another one, and a conflict, when it was deleted and made anew since it was read: versions
    /// begin again, the time of its making does not.
    async fn put_credential(
        &self,
        credential: Credential,
        expected: Option<u64>,
    ) -> Result<(), StoreError>;
    /// Reads a credential.
    async fn credential(
        &self,
        app: &AppId,
        channel: &ChannelId,
        name: &CredentialName,
    ) -> Result<Option<Credential>, StoreError>;
    /// All credentials of an app, by channel and name.
    async fn credentials(&self, app: &AppId) -> Result<Vec<Credential>, StoreError>;
    /// Deletes a credential.
    async fn delete_credential(
        &self,
        app: &AppId,
        channel: &ChannelId,
        name: &CredentialName,
    ) -> Result<bool, StoreError>;

    /// Writes a device.
    async fn put_device(&self, device: Device, expected: Option<u64>) -> Result<(), StoreError>;
    /// Writes many new or changed devices without version checks: bulk import. A device that exists keeps its user, its
    /// binding and its secret.
    async fn import_devices(&self, devices: Vec<Device>) -> Result<(), StoreError>;
    /// Reads devices, in the order of the ids.
    async fn devices(
        &self,
        app: &AppId,
        ids: &[DeviceId],
    ) -> Result<Vec<Option<Device>>, StoreError>;
    /// Devices of each user, in the order of the users.
    async fn devices_of(
        &self,
        app: &AppId,
        users: &[UserId],
    ) -> Result<Vec<Vec<Device>>, StoreError>;
    /// The device whose token has this hash.
    async fn device_by_secret(&self, hash: &[u8; 32]) -> Result<Option<Device>, StoreError>;
    /// The device that has this vendor token.
    async fn device_by_token(
        &self,
        app: &AppId,
        channel: &ChannelId,
        token: &str,
    ) -> Result<Option<DeviceId>, StoreError>;
    /// Devices of an app after an id, at most `limit`.
    async fn device_page(
        &self,
        app: &AppId,
        after: Option<&DeviceId>,
        limit: usize,
    ) -> Result<Vec<Device>, StoreError>;
    /// Forgets a device.
    async fn delete_device(&self, app: &AppId, id: &DeviceId) -> Result<bool, StoreError>;
    /// Notes that a device was heard of: relaxed, may be lost in a crash.
    async fn touch_device(
        &self,
        app: &AppId,
        id: &DeviceId,
        at: Timestamp,
    ) -> Result<(), StoreError>;
    /// Leaves a tombstone on a token if the device still has exactly this one; answers whether it did.
    async fn kill_token(
        &self,
        app: &AppId,
        device: &DeviceId,
        channel: &ChannelId,
        token: &str,
        reason: Reason,
        at: Timestamp,
    ) -> Result<bool, StoreError>;

    /// Writes a user.
    async fn put_user(&self, user: User, expected: Option<u64>) -> Result<(), StoreError>;
    /// Reads users, in the order of the ids.
    async fn users(&self, app: &AppId, ids: &[UserId]) -> Result<Vec<Option<User>>, StoreError>;
    /// Forgets a user and unbinds their devices.
    async fn delete_user(&self, app: &AppId, id: &UserId) -> Result<bool, StoreError>;

    /// Subscribes devices to a topic; repeated subscriptions keep their beginning.
    async fn subscribe(
        &self,
        app: &AppId,
        topic: &Topic,
        devices: &[DeviceId],
    ) -> Result<(), StoreError>;
    /// Ends subscriptions.
    async fn unsubscribe(
        &self,
        app: &AppId,
        topic: &Topic,
        devices: &[DeviceId],
    ) -> Result<(), StoreError>;
    /// Topics of a device.
    async fn topics_of(
        &self,
        app: &AppId,
        device: &DeviceId,
    ) -> Result<Vec<Subscription>, StoreError>;
    /// Subscribers of a topic after an id, at most `limit`.
    async fn subscribers(
        &self,
        app: &AppId,
        topic: &Topic,
        after: Option<&DeviceId>,
        limit: usize,
    ) -> Result<Vec<DeviceId>, StoreError>;

    /// Writes a new endpoint; the one that its channel had is gone from its `created_at` on. [`StoreError::NotFound`] when the
    /// device does not exist.
    async fn put_endpoint(&self, endpoint: PushEndpoint) -> Result<(), StoreError>;
    /// The endpoint whose token has this hash, also when it is gone.
    async fn endpoint(&self, hash: &[u8; 32]) -> Result<Option<PushEndpoint>, StoreError>;
    /// A device's endpoints that are not gone, in channel order after a channel, at most `limit`.
    async fn endpoints_of(
        &self,
        app: &AppId,
        device: &DeviceId,
        after: Option<&PushChannel>,
        limit: usize,
    ) -> Result<Vec<PushEndpoint>, StoreError>;
    /// Ends the endpoint of a device's channel; answers whether there was one.
    async fn end_endpoint(
        &self,
        app: &AppId,
        device: &DeviceId,
        channel: &PushChannel,
        at: Timestamp,
    ) -> Result<bool, StoreError>;
}
