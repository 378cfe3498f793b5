//! Apps, keys, credentials, devices, users and topics.

mod delete;
mod device;
pub(crate) mod endpoint;
mod topic;

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use hongyan_core::app::{App, Credential, Key as ApiKey};
use hongyan_core::device::TokenState;
use hongyan_core::port::{Registry, Subscription};
use hongyan_core::{
    AppId, ChannelId, CredentialName, Device, DeviceId, KeyId, PushChannel, PushEndpoint, Reason,
    StoreError, Timestamp, Topic, User, UserId,
};

use crate::embedded::Shelf;
use crate::inbox;
use crate::store::record::{Damage, Key, Parts, after, decode, encode, prefix_end};
use crate::store::{Admission, Pending, Range, Space, Txn, Urgency, View};

pub(crate) use delete::resume_deletions;
pub(crate) use device::bound_devices;
pub(crate) use topic::read_topics;

/// Devices of one user that are read: ten times as many as a user may have.
const DEVICES_OF_USER_MAX: usize = 500;
/// Keys or credentials of an app that are listed.
const LIST_MAX: usize = 10_000;
/// Devices written in one slice of an import, so that it delays a push by one batch at most.
const IMPORT_SLICE: usize = 256;
/// Slices of one import that wait for the writer.
const IMPORT_AHEAD: usize = 2;
/// Subscriptions changed in one slice.
const TOPIC_SLICE: usize = 1_000;
/// A device's bytes in the writer's queue, roughly.
const DEVICE_COST: usize = 1_024;

/// [`Registry`] on the store.
#[derive(Debug)]
pub(crate) struct EmbeddedRegistry(pub(crate) Arc<Shelf>);

/// Refuses a write whose reader saw another version.
fn check_version(
    entity: &'static str,
    current: Option<u64>,
    expected: Option<u64>,
) -> Result<(), StoreError> {
    if current == expected {
        Ok(())
    } else {
        Err(StoreError::Conflict { entity })
    }
}

pub(crate) fn damaged(space: Space, key: &[u8]) -> StoreError {
    Damage::of(space, key, "an id in it is not well-formed").into_store_error()
}

/// `app, device` as a payload.
pub(crate) fn read_pair(
    space: Space,
    key: &[u8],
    payload: &[u8],
) -> Result<(AppId, DeviceId), StoreError> {
    let mut parts = Parts(payload);
    let app = parts.text().and_then(|t| AppId::parse(t).ok());
    let device = parts.text().and_then(|t| DeviceId::parse(t).ok());
    app.zip(device).ok_or_else(|| damaged(space, key))
}

/// The device in a key `app, text, device`.
pub(crate) fn third_id(space: Space, key: &[u8]) -> Result<DeviceId, StoreError> {
    let mut parts = Parts(key);
    let (_, _) = (parts.text(), parts.text());
    let id = parts.text().and_then(|t| DeviceId::parse(t).ok());
    id.ok_or_else(|| damaged(space, key))
}

fn credential_key(app: &AppId, channel: &ChannelId, name: &CredentialName) -> Vec<u8> {
    Key::of(app).text(channel).text(name).done()
}

fn key_of(app: Option<&AppId>, id: &KeyId) -> Vec<u8> {
    Key::of(app.map_or("", AppId::as_str)).text(id).done()
}

impl EmbeddedRegistry {
    fn import_slice(
        &self,
        slice: Vec<device::Prepared>,
    ) -> Result<Pending<(), StoreError>, StoreError> {
        let caches = Arc::clone(&self.0.caches);
        let (admission, cost) = (Admission::Normal, slice.len() * DEVICE_COST);
        let write = move |txn: &mut Txn<'_>| {
            for mut given in slice {
                let former = device::read(txn, &given.device.app, &given.device.id)?;
                if let Some(former) = &former {
                    given.change(|given| {
                        // Whoever made the list may have read before a login or a new token.
                        given.user.clone_from(&former.user);
                        given.binding = former.binding;
                        given.secret_hash = former.secret_hash;
                        given.scram.clone_from(&former.scram);
                        given.version = given.version.max(former.version + 1);
                        given.last_seen = given.last_seen.max(former.last_seen);
                    })?;
                }
                device::write(txn, &caches, former.as_ref(), given)?;
            }
            Ok(())
        };
        self.0
            .store
            .submit(admission, Urgency::Durable, cost, write)
    }

    async fn write<T: Send + 'static>(
        &self,
        cost: usize,
        run: impl FnOnce(&mut Txn<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.0
            .store
            .write(Admission::Normal, Urgency::Durable, cost, run)
            .await
    }
}

#[async_trait]
impl Registry for EmbeddedRegistry {
    async fn put_app(&self, app: App, expected: Option<u64>) -> Result<(), StoreError> {
        let payload = encode("app", &app)?;
        self.write(payload.len(), move |txn| {
            let key = Key::of(&app.id).done();
            if txn.get(Space::Deleting, &key)?.is_some() {
                return Err(StoreError::Conflict { entity: "app" });
            }
            let current = txn.json::<App>(Space::App, &key)?.map(|a| a.version);
            check_version("app", current, expected)?;
            txn.put(Space::App, &key, payload);
            Ok(())
        })
        .await
    }

    async fn app(&self, id: &AppId) -> Result<Option<App>, StoreError> {
        let app = self.0.caches.app(&self.0.store, Key::of(id).as_ref())?;
        Ok(app.map(|a| a.as_ref().clone()))
    }

    async fn apps(&self, after_id: Option<&AppId>, limit: usize) -> Result<Vec<App>, StoreError> {
        let from = after_id.map_or_else(Vec::new, |id| after(Key::of(id).as_ref()));
        self.0
            .read(move |shelf| {
                let rows = shelf
                    .store
                    .range(Space::App, Range::forward(&from, None, limit))?;
                rows.iter().map(|(k, v)| decode(Space::App, k, v)).collect()
            })
            .await
    }

    async fn delete_app(&self, id: &AppId) -> Result<(), StoreError> {
        delete::delete_app(&self.0, id).await
    }

    async fn put_key(&self, key: ApiKey) -> Result<(), StoreError> {
        let payload = encode("key", &key)?;
        self.write(payload.len(), move |txn| {
            let of = key_of(key.app.as_ref(), &key.id);
            if let Some(former) = txn.get(Space::KeyOf, &of)?
                && former != key.hash
            {
                txn.remove(Space::Key, &former);
            }
            txn.put(Space::KeyOf, &of, key.hash);
            txn.put(Space::Key, key.hash, payload);
            Ok(())
        })
        .await
    }

    async fn key_by_hash(&self, hash: &[u8; 32]) -> Result<Option<ApiKey>, StoreError> {
        let key = self.0.caches.key(&self.0.store, hash)?;
        Ok(key.map(|k| k.as_ref().clone()))
    }

    async fn keys(&self, app: Option<&AppId>) -> Result<Vec<ApiKey>, StoreError> {
        let prefix = Key::of(app.map_or("", AppId::as_str)).done();
        self.0
            .read(move |shelf| {
                let mut keys = Vec::new();
                for (_, hash) in shelf.store.prefix(Space::KeyOf, &prefix, LIST_MAX)? {
                    keys.extend(shelf.store.json::<ApiKey>(Space::Key, &hash)?);
                }
                Ok(keys)
            })
            .await
    }

    async fn delete_key(&self, app: Option<&AppId>, id: &KeyId) -> Result<bool, StoreError> {
        let of = key_of(app, id);
        self.write(256, move |txn| {
            let Some(hash) = txn.get(Space::KeyOf, &of)? else {
                return Ok(false);
            };
            txn.remove(Space::KeyOf, &of);
            txn.remove(Space::Key, &hash);
            Ok(true)
        })
        .await
    }

    async fn put_credential(
        &self,
        credential: Credential,
        expected: Option<u64>,
    ) -> Result<(), StoreError> {
        let payload = encode("credential", &credential)?;
        self.write(payload.len(), move |txn| {
            let key = credential_key(&credential.app, &credential.channel, &credential.name);
            let current = txn.json::<Credential>(Space::Credential, &key)?;
            let is_other = |c: &Credential| c.created_at != credential.created_at;
            if current.as_ref().is_some_and(is_other) {
                let entity = "credential";
                return Err(StoreError::Conflict { entity });
            }
            check_version("credential", current.map(|c| c.version), expected)?;
            txn.put(Space::Credential, &key, payload);
            Ok(())
        })
        .await
    }

    async fn credential(
        &self,
        app: &AppId,
        channel: &ChannelId,
        name: &CredentialName,
    ) -> Result<Option<Credential>, StoreError> {
        let key = credential_key(app, channel, name);
        let credential = self.0.caches.credential(&self.0.store, &key)?;
        Ok(credential.map(|c| c.as_ref().clone()))
    }

    async fn credentials(&self, app: &AppId) -> Result<Vec<Credential>, StoreError> {
        let prefix = Key::of(app).done();
        self.0
            .read(move |shelf| {
                let rows = shelf.store.prefix(Space::Credential, &prefix, LIST_MAX)?;
                rows.iter()
                    .map(|(k, v)| decode(Space::Credential, k, v))
                    .collect()
            })
            .await
    }

    async fn delete_credential(
        &self,
        app: &AppId,
        channel: &ChannelId,
        name: &CredentialName,
    ) -> Result<bool, StoreError> {
        let key = credential_key(app, channel, name);
        self.write(256, move |txn| {
            let known = txn.get(Space::Credential, &key)?.is_some();
            if known {
                txn.remove(Space::Credential, &key);
            }
            Ok(known)
        })
        .await
    }

    async fn put_device(&self, given: Device, expected: Option<u64>) -> Result<(), StoreError> {
        let mut given = device::Prepared::of(given)?;
        let caches = Arc::clone(&self.0.caches);
        self.write(DEVICE_COST, move |txn| {
            let former = device::read(txn, &given.device.app, &given.device.id)?;
            check_version("device", former.as_ref().map(|d| d.version), expected)?;
            if let Some(former) = &former {
                given.change(|given| given.last_seen = given.last_seen.max(former.last_seen))?;
            }
            device::write(txn, &caches, former.as_ref(), given)
        })
        .await
    }

    async fn import_devices(&self, devices: Vec<Device>) -> Result<(), StoreError> {
        let mut pending = VecDeque::new();
        let mut devices = devices.into_iter();
        loop {
            let slice: Vec<_> = devices
                .by_ref()
                .take(IMPORT_SLICE)
                .map(device::Prepared::of)
                .collect::<Result<_, _>>()?;
            // While one slice is written the next is made.
            if pending.len() >= IMPORT_AHEAD || slice.is_empty() {
                match pending.pop_front() {
                    Some(former) => Pending::wait(former).await?,
                    None => return Ok(()),
                }
            }
            if !slice.is_empty() {
                pending.push_back(self.import_slice(slice)?);
            }
        }
    }

    async fn devices(
        &self,
        app: &AppId,
        ids: &[DeviceId],
    ) -> Result<Vec<Option<Device>>, StoreError> {
        let keys: Vec<_> = ids.iter().map(|id| device::key(app, id)).collect();
        let read = move |shelf: &Shelf| {
            keys.iter()
                .map(|key| {
                    let device = shelf.caches.device(&shelf.store, key)?;
                    Ok(device.map(|d| d.as_ref().clone()))
                })
                .collect()
        };
        // One device is a point read; more may wait for the disk.
        if ids.len() <= 1 {
            return read(&self.0);
        }
        self.0.read(read).await
    }

    async fn devices_of(
        &self,
        app: &AppId,
        users: &[UserId],
    ) -> Result<Vec<Vec<Device>>, StoreError> {
        let app = app.clone();
        let users = users.to_vec();
        self.0
            .read(move |shelf| {
                let mut all = Vec::with_capacity(users.len());
                for user in users {
                    let key = Key::of(&app).text(&user).done();
                    let ids = shelf
                        .caches
                        .devices_of(&shelf.store, &key, DEVICES_OF_USER_MAX)?;
                    let mut devices = Vec::with_capacity(ids.len());
                    for id in ids.iter() {
                        let key = device::key(&app, id);
                        let device = shelf.caches.device(&shelf.store, &key)?;
                        // The index and the record are read one after the other.
                        devices.extend(
                            device
                                .filter(|d| d.user.as_ref() == Some(&user))
                                .map(|d| d.as_ref().clone()),
                        );
                    }
                    all.push(devices);
                }
                Ok(all)
            })
            .await
    }

    async fn device_by_secret(&self, hash: &[u8; 32]) -> Result<Option<Device>, StoreError> {
        let Some((app, id)) = self.0.caches.secret(&self.0.store, hash)? else {
            return Ok(None);
        };
        let key = device::key(&app, &id);
        let device = self.0.caches.device(&self.0.store, &key)?;
        Ok(device
            .filter(|d| d.secret_hash == *hash)
            .map(|d| d.as_ref().clone()))
    }

    async fn device_by_token(
        &self,
        app: &AppId,
        channel: &ChannelId,
        token: &str,
    ) -> Result<Option<DeviceId>, StoreError> {
        device::holder(&self.0.store, app, channel, token)
    }

    async fn device_page(
        &self,
        app: &AppId,
        after_id: Option<&DeviceId>,
        limit: usize,
    ) -> Result<Vec<Device>, StoreError> {
        let prefix = Key::of(app).done();
        let from = after_id.map_or_else(|| prefix.clone(), |id| after(&device::key(app, id)));
        self.0
            .read(move |shelf| {
                let end = prefix_end(&prefix);
                let range = Range::forward(&from, end.as_deref(), limit);
                let rows = shelf.store.range(Space::Device, range)?;
                rows.iter()
                    .map(|(k, v)| decode(Space::Device, k, v))
                    .collect()
            })
            .await
    }

    async fn delete_device(&self, app: &AppId, id: &DeviceId) -> Result<bool, StoreError> {
        let (app, id) = (app.clone(), id.clone());
        self.write(DEVICE_COST, move |txn| delete::device(txn, &app, &id))
            .await
    }

    async fn touch_device(
        &self,
        app: &AppId,
        id: &DeviceId,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        let key = device::key(app, id);
        let touch = move |txn: &mut Txn<'_>| {
            if let Some(mut device) = txn.json::<Device>(Space::Device, &key)?
                && device.last_seen < at
            {
                device.last_seen = at;
                txn.put(Space::Device, &key, encode("device", &device)?);
            }
            Ok(())
        };
        self.0
            .store
            .write(Admission::Normal, Urgency::Relaxed, DEVICE_COST, touch)
            .await
    }

    async fn kill_token(
        &self,
        app: &AppId,
        id: &DeviceId,
        channel: &ChannelId,
        token: &str,
        reason: Reason,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        let (app, id) = (app.clone(), id.clone());
        let (channel, token) = (channel.clone(), token.to_owned());
        let caches = Arc::clone(&self.0.caches);
        self.write(DEVICE_COST, move |txn| {
            let Some(former) = device::read(txn, &app, &id)? else {
                return Ok(false);
            };
            let mut device = former.clone();
            let Some(held) = device
                .tokens
                .iter_mut()
                .find(|t| t.channel == channel && t.token == token && t.is_active())
            else {
                return Ok(false);
            };
            held.state = TokenState::Dead { reason, at };
            device.version += 1;
            let device = device::Prepared::of(device)?;
            device::write(txn, &caches, Some(&former), device)?;
            Ok(true)
        })
        .await
    }

    async fn put_user(&self, user: User, expected: Option<u64>) -> Result<(), StoreError> {
        let payload = encode("user", &user)?;
        self.write(payload.len(), move |txn| {
            let key = Key::of(&user.app).text(&user.id).done();
            let current = txn.json::<User>(Space::User, &key)?.map(|u| u.version);
            check_version("user", current, expected)?;
            txn.put(Space::User, &key, payload);
            Ok(())
        })
        .await
    }

    async fn users(&self, app: &AppId, ids: &[UserId]) -> Result<Vec<Option<User>>, StoreError> {
        let keys: Vec<_> = ids.iter().map(|id| Key::of(app).text(id).done()).collect();
        let read = move |shelf: &Shelf| {
            keys.iter()
                .map(|key| {
                    let user = shelf.caches.user(&shelf.store, key)?;
                    Ok(user.map(|u| u.as_ref().clone()))
                })
                .collect()
        };
        if ids.len() <= 1 {
            return read(&self.0);
        }
        self.0.read(read).await
    }

    async fn delete_user(&self, app: &AppId, id: &UserId) -> Result<bool, StoreError> {
        let (app, id) = (app.clone(), id.clone());
        let caches = Arc::clone(&self.0.caches);
        self.write(DEVICE_COST * 8, move |txn| {
            delete::user(txn, &caches, &app, &id)
        })
        .await
    }

    async fn subscribe(
        &self,
        app: &AppId,
        topic: &Topic,
        devices: &[DeviceId],
    ) -> Result<(), StoreError> {
        for slice in devices.chunks(TOPIC_SLICE) {
            let (app, topic, slice) = (app.clone(), topic.clone(), slice.to_vec());
            self.write(256 * slice.len(), move |txn| {
                topic::subscribe(txn, &app, &topic, &slice)
            })
            .await?;
        }
        Ok(())
    }

    async fn unsubscribe(
        &self,
        app: &AppId,
        topic: &Topic,
        devices: &[DeviceId],
    ) -> Result<(), StoreError> {
        for slice in devices.chunks(TOPIC_SLICE) {
            let (app, topic, slice) = (app.clone(), topic.clone(), slice.to_vec());
            self.write(256 * slice.len(), move |txn| {
                topic::unsubscribe(txn, &app, &topic, &slice)
            })
            .await?;
        }
        Ok(())
    }

    async fn topics_of(&self, app: &AppId, id: &DeviceId) -> Result<Vec<Subscription>, StoreError> {
        let key = device::key(app, id);
        let topics = self.0.caches.topics(&self.0.store, &key)?;
        Ok(topics.as_ref().clone())
    }

    async fn subscribers(
        &self,
        app: &AppId,
        topic: &Topic,
        after_id: Option<&DeviceId>,
        limit: usize,
    ) -> Result<Vec<DeviceId>, StoreError> {
        let prefix = Key::of(app).text(topic).done();
        let from = after_id.map_or_else(
            || prefix.clone(),
            |id| after(Key::of(app).text(topic).text(id).as_ref()),
        );
        self.0
            .read(move |shelf| {
                let end = prefix_end(&prefix);
                let range = Range::forward(&from, end.as_deref(), limit);
                let rows = shelf.store.range(Space::TopicDevice, range)?;
                rows.iter()
                    .map(|(key, _)| third_id(Space::TopicDevice, key))
                    .collect()
            })
            .await
    }

    async fn put_endpoint(&self, given: PushEndpoint) -> Result<(), StoreError> {
        let json = encode("endpoint", &given)?;
        self.write(json.len(), move |txn| endpoint::write(txn, &given, json))
            .await
    }

    async fn endpoint(&self, hash: &[u8; 32]) -> Result<Option<PushEndpoint>, StoreError> {
        endpoint::read(&self.0.store, hash)
    }

    async fn endpoints_of(
        &self,
        app: &AppId,
        id: &DeviceId,
        after_channel: Option<&PushChannel>,
        limit: usize,
    ) -> Result<Vec<PushEndpoint>, StoreError> {
        let (app, id, after) = (app.clone(), id.clone(), after_channel.cloned());
        self.0
            .read(move |shelf| endpoint::of_device(&shelf.store, &app, &id, after.as_ref(), limit))
            .await
    }

    async fn end_endpoint(
        &self,
        app: &AppId,
        id: &DeviceId,
        channel: &PushChannel,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        let (app, id, channel) = (app.clone(), id.clone(), channel.clone());
        self.write(DEVICE_COST, move |txn| {
            inbox::forget_channel(txn, &app, &id, &channel)?;
            endpoint::end(txn, &app, &id, &channel, at)
        })
        .await
    }
}
