//! A registry and an inbox in memory, as small as the gateway's needs.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use hongyan_core::app::{App, Credential, Key};
use hongyan_core::device::{Device, Platform, ScramKeys};
use hongyan_core::message::{Audience, Target};
use hongyan_core::port::{
    Ack, Entry, Fresh, Inbox, InboxPage, Owner, Reader, Registry, SessionSink, Subscription,
};
use hongyan_core::push::{Push, PushEncoding, Urgency};
use hongyan_core::session::{SessionEvent, SessionSaid};
use hongyan_core::{
    AppId, ChannelId, CredentialName, Cursor, DeviceId, KeyId, Message, MessageId, PushChannel,
    PushEndpoint, Reason, StoreError, Timestamp, Topic, User, UserId,
};
use tokio::sync::oneshot;

#[derive(Debug, Default)]
pub(crate) struct Store {
    state: Mutex<State>,
    /// What pages say of entries that left the ring unread.
    pub(crate) lost: AtomicU64,
    pub(crate) reads: AtomicUsize,
    pub(crate) broken: AtomicBool,
    /// The registry answers nothing about topics.
    pub(crate) topics_broken: AtomicBool,
    pub(crate) topics_refused: AtomicUsize,
    held: Mutex<HashMap<String, oneshot::Receiver<()>>>,
}

#[derive(Debug, Default)]
struct State {
    devices: HashMap<DeviceId, Device>,
    secrets: HashMap<[u8; 32], DeviceId>,
    topics: BTreeSet<(DeviceId, Topic)>,
    lists: HashMap<Owner, Vec<(u64, Arc<Message>)>>,
    order: u64,
    acked: HashMap<(DeviceId, Option<UserId>), Acked>,
    recalled: HashSet<MessageId>,
    keys: HashMap<[u8; 32], Key>,
}

#[derive(Debug, Default, Clone)]
struct Acked {
    user: u64,
    device: u64,
    broadcast: u64,
    ids: HashSet<MessageId>,
}

pub(crate) fn app() -> AppId {
    AppId::parse("demo").unwrap()
}

pub(crate) fn device(name: &str) -> DeviceId {
    DeviceId::parse(name).unwrap()
}

pub(crate) fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

pub(crate) fn hash(secret: &str) -> [u8; 32] {
    ring::digest::digest(&ring::digest::SHA256, secret.as_bytes())
        .as_ref()
        .try_into()
        .unwrap()
}

/// A push of a device's channel.
pub(crate) fn push(n: u128, device: &str, channel: &str, body: &[u8]) -> Message {
    let mut message: Message = serde_json::from_value(serde_json::json!({
        "id": uuid::Uuid::from_u128(n | 7 << 76 | 2 << 62), "app": "demo",
        "to": {"devices": [device]}, "accepted_at": 0, "expires_at": i64::MAX,
    }))
    .unwrap();
    message.push = Some(Box::new(Push {
        channel: hongyan_core::PushChannel::parse(channel).unwrap(),
        endpoint: [0; 32],
        body: body.to_vec().into(),
        encoding: PushEncoding::Aesgcm {
            encryption: "salt=abc".to_owned(),
            crypto_key: "dh=def".to_owned(),
        },
        urgency: Urgency::High,
        topic: None,
        holder: None,
    }));
    message
}

impl Store {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Makes the next call of this name wait until what is answered here is dropped.
    pub(crate) fn hold(&self, call: &str) -> oneshot::Sender<()> {
        let (release, held) = oneshot::channel();
        self.held.lock().unwrap().insert(call.to_owned(), held);
        release
    }

    /// Whether a call that is to be held waits already.
    pub(crate) fn is_held(&self, call: &str) -> bool {
        !self.held.lock().unwrap().contains_key(call)
    }

    async fn wait_if_held(&self, call: &str) {
        let held = self.held.lock().unwrap().remove(call);
        if let Some(held) = held {
            let _ = held.await;
        }
    }

    fn topics_are_there(&self) -> Result<(), StoreError> {
        if !self.topics_broken.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.topics_refused.fetch_add(1, Ordering::SeqCst);
        Err(StoreError::Busy { retry_after_ms: 1 })
    }

    /// Registers a device whose token is `token-<name>`.
    pub(crate) fn add_device(&self, name: &str, bound_to: Option<&str>) {
        let record: Device = serde_json::from_value(serde_json::json!({
            "app": "demo", "id": name, "platform": "android", "user": bound_to,
            "secret_hash": hash(&format!("token-{name}")).to_vec(),
            "created_at": 0, "last_seen": 0,
        }))
        .unwrap();
        assert_eq!(record.platform, Platform::Android);
        let mut state = self.lock();
        state.secrets.insert(record.secret_hash, device(name));
        state.devices.insert(device(name), record);
    }

    /// Gives a device a vendor's token.
    pub(crate) fn add_token(&self, name: &str, channel: &str) {
        let token = serde_json::from_value(serde_json::json!({
            "channel": channel, "token": "t", "updated_at": 0,
        }));
        let mut state = self.lock();
        let record = state.devices.get_mut(&device(name)).unwrap();
        record.tokens.push(token.unwrap());
    }

    /// The channels over which a device takes pushes.
    pub(crate) fn pushed_over(&self, name: &str) -> Vec<String> {
        let state = self.lock();
        let tokens = state.devices[&device(name)].tokens.iter();
        tokens
            .filter(|token| token.takes_pushes())
            .map(|token| token.channel.to_string())
            .collect()
    }

    /// Lets a device log in by SCRAM.
    pub(crate) fn add_scram(&self, name: &str, keys: ScramKeys) {
        let mut state = self.lock();
        state.devices.get_mut(&device(name)).unwrap().scram = Some(Box::new(keys));
    }

    /// A server key of the app with all scopes.
    pub(crate) fn add_server_key(&self, secret: &str) {
        let key: Key = serde_json::from_value(serde_json::json!({
            "id": "k1", "app": "demo", "kind": "server", "scopes": ["send", "read", "manage"],
            "hash": hash(secret).to_vec(), "created_at": 0,
        }))
        .unwrap();
        self.lock().keys.insert(hash(secret), key);
    }

    pub(crate) fn bind(&self, name: &str, bound_to: Option<&str>) {
        let mut state = self.lock();
        let record = state.devices.get_mut(&device(name)).unwrap();
        record.user = bound_to.map(user);
        record.binding += 1;
    }

    pub(crate) fn append(&self, owner: Owner, body: &str, expires_at: i64) -> MessageId {
        let mut state = self.lock();
        state.order += 1;
        let order = state.order;
        let id = MessageId(uuid::Uuid::from_u128(u128::from(order) | 7 << 76 | 2 << 62));
        let to = match &owner {
            Owner::User(user) => Target::Users(vec![user.clone()]),
            Owner::Device(device) => Target::Devices(vec![device.clone()]),
            Owner::Audience(Audience::Topic(topic)) => Target::Topic(topic.clone()),
            Owner::Audience(Audience::All) => Target::All,
        };
        let mut message: Message = serde_json::from_value(serde_json::json!({
            "id": id, "app": "demo", "to": {"users": ["x"]},
            "notification": {"title": "t", "body": body},
            "accepted_at": 0, "expires_at": expires_at,
        }))
        .unwrap();
        message.to = to;
        state
            .lists
            .entry(owner)
            .or_default()
            .push((order, Arc::new(message)));
        id
    }

    /// Stores a push for one of a device's channels.
    pub(crate) fn push(&self, device: &str, channel: &str, body: &[u8]) -> MessageId {
        let mut state = self.lock();
        state.order += 1;
        let order = state.order;
        let message = push(u128::from(order), device, channel, body);
        let id = message.id;
        let owner = Owner::Device(crate::store::device(device));
        let list = state.lists.entry(owner).or_default();
        list.push((order, Arc::new(message)));
        id
    }

    /// What a device follows, behind the gateway's back.
    pub(crate) fn set_topics(&self, name: &str, topics: &[&str]) {
        let mut state = self.lock();
        state.topics.retain(|(of, _)| *of != device(name));
        let all = topics.iter().map(|one| Topic::parse(one).unwrap());
        state.topics.extend(all.map(|topic| (device(name), topic)));
    }

    /// The newest entry of a list, as a hint carries it.
    pub(crate) fn newest(&self, owner: &Owner) -> Fresh {
        let state = self.lock();
        let list = &state.lists[owner];
        let (place, message) = list.last().unwrap();
        Fresh {
            after: list.len().checked_sub(2).map_or(0, |at| list[at].0),
            place: *place,
            message: Arc::clone(message),
        }
    }

    /// Recalls an entry of a list, as dispatch does: the list has a mark of it from then on. Answers the mark's id.
    pub(crate) fn recall(&self, owner: &Owner, id: MessageId) -> MessageId {
        let mut state = self.lock();
        state.recalled.insert(id);
        state.order += 1;
        let order = state.order;
        let mark = MessageId(uuid::Uuid::from_u128(u128::from(order) | 7 << 76 | 2 << 62));
        let list = state.lists.get_mut(owner).unwrap();
        let recalled = list.iter().find(|(_, one)| one.id == id).unwrap();
        let message = recalled.1.recall_mark(mark, Timestamp(0));
        list.push((order, Arc::new(message)));
        mark
    }

    pub(crate) fn mark_recalled(&self, id: MessageId) {
        self.lock().recalled.insert(id);
    }

    /// What the device could still fetch.
    pub(crate) fn unread(&self, name: &str, bound_to: Option<&str>) -> usize {
        let reader = Reader {
            app: app(),
            device: device(name),
            user: bound_to.map(user),
        };
        self.page(&reader, None, usize::MAX, Timestamp(0))
            .entries
            .len()
    }

    fn page(
        &self,
        reader: &Reader,
        after: Option<Cursor>,
        limit: usize,
        now: Timestamp,
    ) -> InboxPage {
        let state = self.lock();
        let acked = state
            .acked
            .get(&(reader.device.clone(), reader.user.clone()))
            .cloned()
            .unwrap_or_default();
        let begin = acked.place(reader);
        let fits = |c: &Cursor| c.epoch == begin.epoch && c.reader == begin.reader;
        let reset = after.is_some_and(|c| !fits(&c));
        let start = after.filter(fits).unwrap_or(begin);
        let mut all: Vec<(u64, u8, Arc<Message>)> = Vec::new();
        let mut head = begin;
        for (kind, (order, message)) in state.mine(reader) {
            *part(&mut head, kind) = (*part(&mut head, kind)).max(order);
            if order > *part(&mut start.clone(), kind) {
                all.push((order, kind, message));
            }
        }
        all.sort_by_key(|(order, ..)| *order);
        let mut next = start;
        let mut entries = Vec::new();
        let mut more = false;
        for (order, kind, message) in all {
            if entries.len() >= limit {
                more = true;
                break;
            }
            *part(&mut next, kind) = order;
            // Below the acked place nothing is noted of single entries.
            let is_noted = order > *part(&mut begin.clone(), kind);
            let gone = message.expires_at <= now
                || (is_noted && acked.ids.contains(&message.id))
                || state.recalled.contains(&message.id);
            if !gone {
                entries.push(Entry {
                    cursor: next,
                    message,
                });
            }
        }
        InboxPage {
            entries,
            next,
            head,
            lost: self.lost.load(Ordering::SeqCst),
            reset,
            more,
        }
    }
}

impl State {
    /// What is meant for a reader, with the kind of list that it stands in.
    fn mine(&self, reader: &Reader) -> Vec<(u8, (u64, Arc<Message>))> {
        let lists = self.lists.iter().filter_map(|(owner, list)| {
            let (kind, mine) = match owner {
                Owner::User(user) => (0, reader.user.as_ref() == Some(user)),
                Owner::Device(device) => (1, *device == reader.device),
                Owner::Audience(Audience::All) => (2, true),
                Owner::Audience(Audience::Topic(topic)) => {
                    let followed = (reader.device.clone(), topic.clone());
                    (2, self.topics.contains(&followed))
                }
            };
            mine.then_some((kind, list))
        });
        let all = lists.flat_map(|(kind, list)| list.iter().map(move |one| (kind, one.clone())));
        all.collect()
    }
}

impl Acked {
    fn place(&self, reader: &Reader) -> Cursor {
        Cursor {
            epoch: 1,
            reader: reader_hash(reader),
            user: self.user,
            device: self.device,
            broadcast: self.broadcast,
        }
    }
}

fn part(cursor: &mut Cursor, kind: u8) -> &mut u64 {
    match kind {
        0 => &mut cursor.user,
        1 => &mut cursor.device,
        _ => &mut cursor.broadcast,
    }
}

fn reader_hash(reader: &Reader) -> u32 {
    let text = format!("{}/{}/{:?}", reader.app, reader.device, reader.user);
    text.bytes().fold(17, |h: u32, b| {
        h.wrapping_mul(31).wrapping_add(u32::from(b))
    })
}

#[async_trait]
impl Inbox for Store {
    async fn read(
        &self,
        reader: &Reader,
        after: Option<Cursor>,
        limit: usize,
        now: Timestamp,
    ) -> Result<InboxPage, StoreError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        if self.broken.load(Ordering::SeqCst) {
            return Err(StoreError::Busy { retry_after_ms: 1 });
        }
        Ok(self.page(reader, after, limit, now))
    }

    async fn ack(
        &self,
        reader: &Reader,
        ack: Ack,
        _now: Timestamp,
    ) -> Result<Vec<MessageId>, StoreError> {
        self.wait_if_held("ack").await;
        let before = self.page(reader, None, usize::MAX, Timestamp(i64::MIN));
        let mut state = self.lock();
        let key = (reader.device.clone(), reader.user.clone());
        let acked = state.acked.entry(key.clone()).or_default();
        match ack {
            Ack::Upto(place) => {
                if place.reader != before.head.reader || place.epoch != 1 {
                    return Ok(Vec::new());
                }
                acked.user = acked.user.max(place.user);
                acked.device = acked.device.max(place.device);
                acked.broadcast = acked.broadcast.max(place.broadcast);
                Ok(before
                    .entries
                    .iter()
                    .filter(|entry| place.covers(&entry.cursor))
                    .map(|entry| entry.message.id)
                    .collect())
            }
            Ack::Ids(ids) => {
                let known: Vec<_> = before
                    .entries
                    .iter()
                    .map(|entry| entry.message.id)
                    .filter(|id| ids.contains(id))
                    .collect();
                acked.ids.extend(&known);
                // The acked place goes as far as everything is acked.
                let mut place = before.head;
                for (kind, (order, message)) in state.mine(reader) {
                    let acked = &state.acked[&key];
                    if order > *part(&mut acked.place(reader), kind)
                        && !acked.ids.contains(&message.id)
                    {
                        let stop = part(&mut place, kind);
                        *stop = (*stop).min(order - 1);
                    }
                }
                let acked = state.acked.entry(key).or_default();
                acked.user = acked.user.max(place.user);
                acked.device = acked.device.max(place.device);
                acked.broadcast = acked.broadcast.max(place.broadcast);
                Ok(known)
            }
        }
    }

    async fn acked(
        &self,
        _: &Reader,
        _: &[MessageId],
        _: Timestamp,
    ) -> Result<Vec<MessageId>, StoreError> {
        // Nothing is planned over it.
        Ok(Vec::new())
    }

    async fn head(&self, reader: &Reader) -> Result<Cursor, StoreError> {
        Ok(self.page(reader, None, 0, Timestamp(0)).head)
    }

    async fn message(
        &self,
        _app: &AppId,
        id: MessageId,
    ) -> Result<Option<Arc<Message>>, StoreError> {
        let state = self.lock();
        let found = state
            .lists
            .values()
            .flatten()
            .find(|(_, message)| message.id == id);
        Ok(found.map(|(_, message)| Arc::clone(message)))
    }

    async fn messages(
        &self,
        ids: &[(AppId, MessageId)],
    ) -> Result<Vec<Option<Arc<Message>>>, StoreError> {
        let mut found = Vec::new();
        for (app, id) in ids {
            found.push(self.message(app, *id).await?);
        }
        Ok(found)
    }

    async fn recalled(&self, _app: &AppId, id: MessageId) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.lock().recalled.contains(&id).then_some(Timestamp(0)))
    }

    async fn pushed_out(&self, _: &AppId, _: MessageId) -> Result<Option<Reason>, StoreError> {
        // Its lists are as long as they get.
        Ok(None)
    }
}

const UNUSED: Result<(), StoreError> = Err(StoreError::NotFound { entity: "unused" });

#[async_trait]
impl Registry for Store {
    async fn put_endpoint(&self, _: PushEndpoint) -> Result<(), StoreError> {
        UNUSED
    }
    async fn endpoint(&self, _: &[u8; 32]) -> Result<Option<PushEndpoint>, StoreError> {
        Ok(None)
    }
    async fn endpoints_of(
        &self,
        _: &AppId,
        _: &DeviceId,
        _: Option<&PushChannel>,
        _: usize,
    ) -> Result<Vec<PushEndpoint>, StoreError> {
        Ok(Vec::new())
    }
    async fn end_endpoint(
        &self,
        _: &AppId,
        _: &DeviceId,
        _: &PushChannel,
        _: Timestamp,
    ) -> Result<bool, StoreError> {
        Ok(false)
    }
    async fn put_app(&self, _: App, _: Option<u64>) -> Result<(), StoreError> {
        UNUSED
    }
    async fn app(&self, id: &AppId) -> Result<Option<App>, StoreError> {
        Ok(Some(App {
            id: id.clone(),
            name: String::new(),
            policy: hongyan_core::app::AppPolicy {
                origins: vec!["https://own.example".to_owned()],
                ..Default::default()
            },
            created_at: Timestamp(0),
            version: 1,
        }))
    }
    async fn apps(&self, _: Option<&AppId>, _: usize) -> Result<Vec<App>, StoreError> {
        let only = self.app(&app()).await?;
        Ok(only.into_iter().collect())
    }
    async fn delete_app(&self, _: &AppId) -> Result<(), StoreError> {
        UNUSED
    }
    async fn put_key(&self, _: Key) -> Result<(), StoreError> {
        UNUSED
    }
    async fn key_by_hash(&self, hash: &[u8; 32]) -> Result<Option<Key>, StoreError> {
        Ok(self.lock().keys.get(hash).cloned())
    }
    async fn keys(&self, _: Option<&AppId>) -> Result<Vec<Key>, StoreError> {
        Ok(Vec::new())
    }
    async fn delete_key(&self, _: Option<&AppId>, _: &KeyId) -> Result<bool, StoreError> {
        Ok(false)
    }
    async fn put_credential(&self, _: Credential, _: Option<u64>) -> Result<(), StoreError> {
        UNUSED
    }
    async fn credential(
        &self,
        _: &AppId,
        _: &ChannelId,
        _: &CredentialName,
    ) -> Result<Option<Credential>, StoreError> {
        Ok(None)
    }
    async fn credentials(&self, _: &AppId) -> Result<Vec<Credential>, StoreError> {
        Ok(Vec::new())
    }
    async fn delete_credential(
        &self,
        _: &AppId,
        _: &ChannelId,
        _: &CredentialName,
    ) -> Result<bool, StoreError> {
        Ok(false)
    }
    async fn put_device(&self, record: Device, _: Option<u64>) -> Result<(), StoreError> {
        let mut state = self.lock();
        state.secrets.insert(record.secret_hash, record.id.clone());
        state.devices.insert(record.id.clone(), record);
        Ok(())
    }
    async fn import_devices(&self, _: Vec<Device>) -> Result<(), StoreError> {
        UNUSED
    }
    async fn devices(
        &self,
        _: &AppId,
        ids: &[DeviceId],
    ) -> Result<Vec<Option<Device>>, StoreError> {
        let state = self.lock();
        Ok(ids
            .iter()
            .map(|id| state.devices.get(id).cloned())
            .collect())
    }
    async fn devices_of(&self, _: &AppId, ids: &[UserId]) -> Result<Vec<Vec<Device>>, StoreError> {
        let state = self.lock();
        let of = |id| {
            let all = state.devices.values();
            all.filter(|device| device.user.as_ref() == Some(id))
                .cloned()
                .collect()
        };
        Ok(ids.iter().map(of).collect())
    }
    async fn device_by_secret(&self, hash: &[u8; 32]) -> Result<Option<Device>, StoreError> {
        let state = self.lock();
        let name = state.secrets.get(hash);
        let found = name.and_then(|name| state.devices.get(name));
        Ok(found.filter(|device| device.secret_hash == *hash).cloned())
    }
    async fn device_by_token(
        &self,
        _: &AppId,
        _: &ChannelId,
        _: &str,
    ) -> Result<Option<DeviceId>, StoreError> {
        Ok(None)
    }
    async fn device_page(
        &self,
        _: &AppId,
        _: Option<&DeviceId>,
        _: usize,
    ) -> Result<Vec<Device>, StoreError> {
        Ok(Vec::new())
    }
    async fn delete_device(&self, _: &AppId, id: &DeviceId) -> Result<bool, StoreError> {
        Ok(self.lock().devices.remove(id).is_some())
    }
    async fn touch_device(&self, _: &AppId, _: &DeviceId, _: Timestamp) -> Result<(), StoreError> {
        Ok(())
    }
    async fn kill_token(
        &self,
        _: &AppId,
        _: &DeviceId,
        _: &ChannelId,
        _: &str,
        _: Reason,
        _: Timestamp,
    ) -> Result<bool, StoreError> {
        Ok(false)
    }
    async fn put_user(&self, _: User, _: Option<u64>) -> Result<(), StoreError> {
        UNUSED
    }
    async fn users(&self, _: &AppId, _: &[UserId]) -> Result<Vec<Option<User>>, StoreError> {
        Ok(Vec::new())
    }
    async fn delete_user(&self, _: &AppId, _: &UserId) -> Result<bool, StoreError> {
        Ok(false)
    }
    async fn subscribe(
        &self,
        _: &AppId,
        topic: &Topic,
        ids: &[DeviceId],
    ) -> Result<(), StoreError> {
        self.topics_are_there()?;
        self.lock()
            .topics
            .extend(ids.iter().map(|id| (id.clone(), topic.clone())));
        Ok(())
    }
    async fn unsubscribe(
        &self,
        _: &AppId,
        topic: &Topic,
        ids: &[DeviceId],
    ) -> Result<(), StoreError> {
        self.wait_if_held(&format!("unsubscribe {topic}")).await;
        let mut state = self.lock();
        for id in ids {
            state.topics.remove(&(id.clone(), topic.clone()));
        }
        Ok(())
    }
    async fn topics_of(&self, _: &AppId, id: &DeviceId) -> Result<Vec<Subscription>, StoreError> {
        self.topics_are_there()?;
        let mine = {
            let state = self.lock();
            let mine = state.topics.iter().filter(|(device, _)| device == id);
            mine.map(|(_, topic)| Subscription {
                topic: topic.clone(),
                since: 0,
            })
            .collect()
        };
        self.wait_if_held("topics_of").await;
        Ok(mine)
    }
    async fn subscribers(
        &self,
        _: &AppId,
        _: &Topic,
        _: Option<&DeviceId>,
        _: usize,
    ) -> Result<Vec<DeviceId>, StoreError> {
        Ok(Vec::new())
    }
}

/// Remembers what sessions reported.
#[derive(Debug, Default)]
pub(crate) struct Sink(Mutex<Vec<SessionEvent>>);

impl Sink {
    pub(crate) fn events(&self) -> Vec<SessionEvent> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn said(&self) -> Vec<SessionSaid> {
        self.events().into_iter().map(|event| event.what).collect()
    }

    pub(crate) fn acked(&self) -> Vec<MessageId> {
        let said = self.said().into_iter();
        said.flat_map(|what| match what {
            SessionSaid::Acked(ids) => ids,
            _ => Vec::new(),
        })
        .collect()
    }

    pub(crate) fn sent(&self) -> Vec<MessageId> {
        let said = self.said().into_iter();
        said.flat_map(|what| match what {
            SessionSaid::Sent(_, ids) => ids,
            _ => Vec::new(),
        })
        .collect()
    }
}

#[async_trait]
impl SessionSink for Sink {
    async fn accept(&self, events: Vec<SessionEvent>) {
        self.0.lock().unwrap().extend(events);
    }
}
