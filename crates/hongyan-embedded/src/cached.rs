//! The hot lookups, kept parsed, and forgotten as soon as a write that changed them is visible.

use std::sync::Arc;

use hongyan_core::app::{App, Credential, Key as ApiKey};
use hongyan_core::port::Subscription;
use hongyan_core::{
    AppId, Device, DeviceId, Message, MessageId, Reason, StoreError, Timestamp, User,
};

use crate::inbox::{Place, newest};
use crate::store::cache::Cache;
use crate::store::record::{Key, Parts, decode, signed};
use crate::store::{Space, Txn, View};

/// Parsed messages, bytes of their stored form.
const MESSAGE_BYTES: usize = 32 << 20;
/// Parsed devices, bytes of their stored form.
const DEVICE_BYTES: usize = 32 << 20;
/// Newest places: the writer needs that of every owner it appends for.
const HEAD_BYTES: usize = 16 << 20;
/// Each of the small ones.
const SMALL_BYTES: usize = 8 << 20;

/// A message and whether it was recalled.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) message: Arc<Message>,
    pub(crate) recalled: Option<Timestamp>,
}

/// One cache for each hot keyspace.
#[derive(Debug)]
pub(crate) struct Caches {
    apps: Cache<Arc<App>>,
    keys: Cache<Arc<ApiKey>>,
    credentials: Cache<Arc<Credential>>,
    devices: Cache<Arc<Device>>,
    secrets: Cache<(AppId, DeviceId)>,
    users: Cache<Arc<User>>,
    user_devices: Cache<Arc<Vec<DeviceId>>>,
    topics: Cache<Arc<Vec<Subscription>>>,
    messages: Cache<Stored>,
    heads: Cache<u64>,
    places: Cache<Arc<Place>>,
}

impl Caches {
    pub(crate) fn new() -> Self {
        Self {
            apps: Cache::new(SMALL_BYTES),
            keys: Cache::new(SMALL_BYTES),
            credentials: Cache::new(SMALL_BYTES),
            devices: Cache::new(DEVICE_BYTES),
            secrets: Cache::new(SMALL_BYTES),
            users: Cache::new(SMALL_BYTES),
            user_devices: Cache::new(SMALL_BYTES),
            topics: Cache::new(SMALL_BYTES),
            messages: Cache::new(MESSAGE_BYTES),
            heads: Cache::new(HEAD_BYTES),
            places: Cache::new(SMALL_BYTES),
        }
    }

    /// Forgets what a batch changed. Runs in the writer, after the batch is visible and before
    /// anybody is told.
    pub(crate) fn changed(&self, space: Space, key: &[u8], payload: Option<&[u8]>) {
        match space {
            Space::App => self.apps.forget(key),
            Space::Key => self.keys.forget(key),
            Space::Credential => self.credentials.forget(key),
            Space::Device => self.devices.forget(key),
            Space::DeviceSecret => self.secrets.forget(key),
            Space::User => self.users.forget(key),
            Space::UserDevice => self.user_devices.forget(two_texts(key)),
            Space::DeviceTopic => self.topics.forget(two_texts(key)),
            Space::Message => self.messages.forget(key),
            Space::Head => match payload.and_then(|p| Parts(p).number()) {
                // The next append asks for it.
                Some(head) => self.heads.replace(key, head, 8),
                None => self.heads.forget(key),
            },
            // An app's rings go without a word about their newest places.
            Space::Ring if payload.is_none() => {
                self.heads
                    .forget(key.split_last().map_or(key, |(_, ring)| ring));
            }
            Space::Place => self.places.forget(key),
            _ => {}
        }
    }

    pub(crate) fn app(&self, view: &impl View, key: &[u8]) -> Loaded<Arc<App>> {
        json(&self.apps, view, Space::App, key)
    }

    pub(crate) fn key(&self, view: &impl View, key: &[u8]) -> Loaded<Arc<ApiKey>> {
        json(&self.keys, view, Space::Key, key)
    }

    pub(crate) fn credential(&self, view: &impl View, key: &[u8]) -> Loaded<Arc<Credential>> {
        json(&self.credentials, view, Space::Credential, key)
    }

    pub(crate) fn device(&self, view: &impl View, key: &[u8]) -> Loaded<Arc<Device>> {
        json(&self.devices, view, Space::Device, key)
    }

    pub(crate) fn user(&self, view: &impl View, key: &[u8]) -> Loaded<Arc<User>> {
        json(&self.users, view, Space::User, key)
    }

    pub(crate) fn place(&self, view: &impl View, key: &[u8]) -> Loaded<Arc<Place>> {
        json(&self.places, view, Space::Place, key)
    }

    pub(crate) fn secret(&self, view: &impl View, hash: &[u8]) -> Loaded<(AppId, DeviceId)> {
        load(&self.secrets, view, hash, || {
            let Some(payload) = view.get(Space::DeviceSecret, hash)? else {
                return Ok(None);
            };
            let ids = crate::registry::read_pair(Space::DeviceSecret, hash, &payload)?;
            Ok(Some((ids, payload.len())))
        })
    }

    /// The newest place of a broadcast log; 0 when there is none yet.
    pub(crate) fn head(&self, view: &impl View, key: &[u8]) -> Result<u64, StoreError> {
        let head = load(&self.heads, view, key, || {
            Ok(view.number(Space::Head, key)?.map(|n| (n, 8)))
        })?;
        Ok(head.unwrap_or(0))
    }

    /// The newest place of a ring; 0 when there is none yet.
    pub(crate) fn ring_head(&self, view: &impl View, ring: &[u8]) -> Result<u64, StoreError> {
        let head = load(&self.heads, view, ring, || {
            Ok(Some((newest(view, ring)?, 8)))
        })?;
        Ok(head.unwrap_or(0))
    }

    /// As [`Caches::ring_head`], as the batch under way has it.
    pub(crate) fn ring_head_in(&self, txn: &Txn<'_>, ring: &[u8]) -> Result<u64, StoreError> {
        match txn.changed(Space::Head, ring) {
            Some(Some(head)) => Ok(Parts(head).number().unwrap_or(0)),
            // The batch removed it.
            Some(None) => Ok(0),
            None => match self.heads.get(ring) {
                Ok(head) => Ok(head),
                Err(_) => newest(txn, ring),
            },
        }
    }

    /// The newest place of an owner as the batch under way has it. Between two batches the cache is what the store is.
    pub(crate) fn head_in(&self, txn: &Txn<'_>, key: &[u8]) -> Result<u64, StoreError> {
        if txn.changed(Space::Head, key).is_none()
            && let Ok(head) = self.heads.get(key)
        {
            return Ok(head);
        }
        Ok(txn.number(Space::Head, key)?.unwrap_or(0))
    }

    /// Devices of a user (`app, user`), at most `limit`.
    pub(crate) fn devices_of(
        &self,
        view: &impl View,
        key: &[u8],
        limit: usize,
    ) -> Result<Arc<Vec<DeviceId>>, StoreError> {
        let ids = load(&self.user_devices, view, key, || {
            let rows = view.prefix(Space::UserDevice, key, limit)?;
            let mut ids = Vec::with_capacity(rows.len());
            for (row, _) in rows {
                ids.push(crate::registry::third_id(Space::UserDevice, &row)?);
            }
            let cost = ids.len() * 48;
            Ok(Some((Arc::new(ids), cost)))
        })?;
        Ok(ids.unwrap_or_default())
    }

    /// Topics of a device (`app, device`).
    pub(crate) fn topics(
        &self,
        view: &impl View,
        key: &[u8],
    ) -> Result<Arc<Vec<Subscription>>, StoreError> {
        let topics = load(&self.topics, view, key, || {
            let topics = crate::registry::read_topics(view, key)?;
            let cost = topics.len() * 48;
            Ok(Some((Arc::new(topics), cost)))
        })?;
        Ok(topics.unwrap_or_default())
    }

    pub(crate) fn message(&self, view: &impl View, app: &AppId, id: MessageId) -> Loaded<Stored> {
        let key = message_key(app, id);
        // Messages do not change but by recall, so that even the writer may look here.
        if !view.is_settled()
            && let Ok(stored) = self.messages.get(&key)
        {
            return Ok(Some(stored));
        }
        load(&self.messages, view, &key, || {
            let payload = view.get(Space::Message, &key)?;
            let Some(payload) = payload.filter(|p| pushed_out(p).is_none()) else {
                return Ok(None);
            };
            let stored = read_message(&key, &payload)?;
            Ok(Some((stored, payload.len())))
        })
    }
}

type Loaded<V> = Result<Option<V>, StoreError>;

fn load<V: Clone>(
    cache: &Cache<V>,
    view: &impl View,
    key: &[u8],
    read: impl FnOnce() -> Loaded<(V, usize)>,
) -> Loaded<V> {
    if !view.is_settled() {
        // Inside the writer the cache is behind, and what is read is not committed yet.
        return Ok(read()?.map(|(value, _)| value));
    }
    let ticket = match cache.get(key) {
        Ok(value) => return Ok(Some(value)),
        Err(ticket) => ticket,
    };
    let Some((value, cost)) = read()? else {
        return Ok(None);
    };
    cache.put(ticket, key, value.clone(), cost);
    Ok(Some(value))
}

fn json<T: serde::de::DeserializeOwned>(
    cache: &Cache<Arc<T>>,
    view: &impl View,
    space: Space,
    key: &[u8],
) -> Loaded<Arc<T>> {
    load(cache, view, key, || {
        let Some(payload) = view.get(space, key)? else {
            return Ok(None);
        };
        let value = decode(space, key, &payload)?;
        Ok(Some((Arc::new(value), payload.len())))
    })
}

/// The part of a key up to the end of its second text.
fn two_texts(key: &[u8]) -> &[u8] {
    let mut parts = Parts(key);
    if parts.text().is_none() || parts.text().is_none() {
        return key;
    }
    &key[..key.len() - parts.rest().len()]
}

pub(crate) fn message_key(app: &AppId, id: MessageId) -> Vec<u8> {
    Key::of(app).raw(id.0.as_bytes()).done()
}

/// What a stored message begins with: when it was recalled, `i64::MIN` for never, or why it was pushed out; the number
/// of its first event, 0 until that is known. Its JSON follows, and nothing when it was pushed out.
pub(crate) const MESSAGE_HEAD: usize = 16;

/// Stands for the time of a recall in a push that too many others came after.
const OVERFLOWED: i64 = i64::MIN + 1;
/// The same of one whose place another of its topic took.
const COLLAPSED: i64 = i64::MIN + 2;

/// The head of a message that is new.
pub(crate) fn message_head() -> [u8; MESSAGE_HEAD] {
    let mut head = [0; MESSAGE_HEAD];
    mark_recalled(&mut head, None);
    head
}

/// Notes in a stored message when it was recalled.
pub(crate) fn mark_recalled(payload: &mut [u8], recalled: Option<Timestamp>) {
    let recalled = recalled.map_or(i64::MIN, Timestamp::millis);
    if let Some(at) = payload.first_chunk_mut() {
        *at = signed(recalled).to_be_bytes();
    }
}

/// What is left of a stored message that was pushed out.
pub(crate) fn pushed_out_head(payload: &[u8], reason: Reason) -> [u8; MESSAGE_HEAD] {
    let mut head = message_head();
    if let Some(seq) = first_event(payload) {
        mark_first_event(&mut head, seq);
    }
    let mark = match reason {
        Reason::Collapsed => COLLAPSED,
        _ => OVERFLOWED,
    };
    mark_recalled(&mut head, Some(Timestamp(mark)));
    head
}

/// Why a stored message was pushed out, if it was.
pub(crate) fn pushed_out(payload: &[u8]) -> Option<Reason> {
    match Parts(payload).signed() {
        Some(OVERFLOWED) => Some(Reason::Overflowed),
        Some(COLLAPSED) => Some(Reason::Collapsed),
        _ => None,
    }
}

/// Notes in a stored message the number of its first event.
pub(crate) fn mark_first_event(payload: &mut [u8], seq: u64) {
    if let Some(at) = payload.get_mut(8..MESSAGE_HEAD) {
        at.copy_from_slice(&seq.to_be_bytes());
    }
}

/// The number of the first event of a stored message, if the message names it.
pub(crate) fn first_event(payload: &[u8]) -> Option<u64> {
    let seq = Parts(payload.get(8..)?).number()?;
    (seq > 0).then_some(seq)
}

pub(crate) fn read_message(key: &[u8], payload: &[u8]) -> Result<Stored, StoreError> {
    let mut parts = Parts(payload);
    let recalled = parts.signed().unwrap_or(i64::MIN);
    parts.number();
    Ok(Stored {
        message: Arc::new(decode(Space::Message, key, parts.rest())?),
        recalled: (recalled != i64::MIN).then_some(Timestamp(recalled)),
    })
}
