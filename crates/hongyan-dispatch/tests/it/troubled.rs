//! The engine's ports with trouble in between: a test says which call waits, fails or finds a damaged record.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use hongyan_core::app::{App, Credential, Key};
use hongyan_core::delivery::Delivery;
use hongyan_core::error::Certainty;
use hongyan_core::port::{
    Ack, Commit, CommitError, Committed, CounterRow, EventFilter, Inbox, InboxPage, Job, Ledger,
    Quota, QuotaGrant, Reader, Registry, Subscription, Work, WriteSet,
};
use hongyan_core::{
    AppId, ChannelId, CredentialName, Cursor, Device, DeviceId, Event, KeyId, Message, MessageId,
    PushChannel, PushEndpoint, Reason, StoreError, Timestamp, Topic, User, UserId,
};
use hongyan_dispatch::Ports;
use tokio::sync::Semaphore;

/// What is to go wrong.
#[derive(Debug, Default)]
pub(crate) struct Trouble(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    held: HashMap<&'static str, (Arc<Semaphore>, Arc<Semaphore>)>,
    once: HashSet<&'static str>,
    failing: HashMap<&'static str, usize>,
    corrupt: HashSet<&'static str>,
    calls: HashMap<&'static str, usize>,
    damaged: HashSet<MessageId>,
    damaged_devices: HashSet<DeviceId>,
}

/// A call that waits.
#[derive(Debug)]
pub(crate) struct Held {
    reached: Arc<Semaphore>,
    go: Arc<Semaphore>,
}

impl Held {
    /// Resolves when somebody made the call.
    pub(crate) async fn reached(&self) {
        let wait = tokio::time::timeout(std::time::Duration::from_secs(20), self.reached.acquire());
        wait.await.unwrap().unwrap().forget();
    }
    /// Lets it go on; the next one waits.
    pub(crate) fn go_on_once(&self) {
        self.go.add_permits(1);
    }
    /// Lets it and all later ones go on.
    pub(crate) fn go_on(&self) {
        self.go.add_permits(1_000);
    }
}

impl Trouble {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls of this method wait, before they have done anything.
    pub(crate) fn hold(&self, call: &'static str) -> Held {
        let (reached, go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let both = (Arc::clone(&reached), Arc::clone(&go));
        self.lock().held.insert(call, both);
        Held { reached, go }
    }

    /// The next call of this method waits; those after it do not.
    pub(crate) fn hold_one(&self, call: &'static str) -> Held {
        let held = self.hold(call);
        self.lock().once.insert(call);
        held
    }

    /// The next calls of this method fail.
    pub(crate) fn fail(&self, call: &'static str, times: usize) {
        self.lock().failing.insert(call, times);
    }

    /// Calls of this method find a damaged record.
    pub(crate) fn corrupt(&self, call: &'static str) {
        self.lock().corrupt.insert(call);
    }

    /// The deliveries of this message cannot be read.
    pub(crate) fn damage(&self, message: MessageId) {
        self.lock().damaged.insert(message);
    }

    /// The record of this device cannot be read.
    pub(crate) fn damage_device(&self, device: &DeviceId) {
        self.lock().damaged_devices.insert(device.clone());
    }

    /// How often the method was called.
    pub(crate) fn calls(&self, call: &'static str) -> usize {
        self.lock().calls.get(call).copied().unwrap_or(0)
    }

    async fn at(&self, call: &'static str) -> Result<(), StoreError> {
        let held = {
            let mut state = self.lock();
            *state.calls.entry(call).or_default() += 1;
            match state.once.remove(call) {
                true => state.held.remove(call),
                false => state.held.get(call).cloned(),
            }
        };
        if let Some((reached, go)) = held {
            reached.add_permits(1);
            go.acquire().await.unwrap().forget();
        }
        let mut state = self.lock();
        if state.corrupt.contains(call) {
            return Err(damaged("record"));
        }
        match state.failing.get_mut(call) {
            Some(times) if *times > 0 => {
                *times -= 1;
                Err(away())
            }
            _ => Ok(()),
        }
    }

    fn read(&self, mut ids: impl Iterator<Item = MessageId>) -> Result<(), StoreError> {
        let state = self.lock();
        if ids.any(|id| state.damaged.contains(&id)) {
            return Err(damaged("delivery"));
        }
        Ok(())
    }

    /// Puts itself between.
    pub(crate) fn in_front_of(self: &Arc<Self>, ports: Ports) -> Ports {
        Ports {
            registry: Arc::new(Troubled(ports.registry, Arc::clone(self))),
            inbox: Arc::new(Troubled(ports.inbox, Arc::clone(self))),
            work: Arc::new(Troubled(ports.work, Arc::clone(self))),
            ledger: Arc::new(Troubled(ports.ledger, Arc::clone(self))),
            commit: Arc::new(Troubled(ports.commit, Arc::clone(self))),
            quota: Arc::new(Troubled(ports.quota, Arc::clone(self))),
            ..ports
        }
    }
}

fn damaged(entity: &'static str) -> StoreError {
    StoreError::Corrupt {
        entity,
        source: "as the test said".into(),
    }
}

fn away() -> StoreError {
    StoreError::Unavailable {
        engine: "troubled",
        certainty: Certainty::NothingHappened,
        source: "as the test said".into(),
    }
}

#[derive(Debug)]
struct Troubled<P: ?Sized>(Arc<P>, Arc<Trouble>);

#[async_trait]
impl Commit for Troubled<dyn Commit> {
    async fn commit(&self, sets: Vec<WriteSet>) -> Vec<Result<Committed, CommitError>> {
        match self.1.at("commit").await {
            Ok(()) => {
                let results = self.0.commit(sets).await;
                // Durable, and nobody knows yet; a failure here would be a lie.
                let _never_fails = self.1.at("commit done").await;
                results
            }
            Err(_) => sets.iter().map(|_| Err(away().into())).collect(),
        }
    }
    async fn idempotent(
        &self,
        app: &AppId,
        key: &str,
        now: Timestamp,
    ) -> Result<Option<([u8; 32], Vec<u8>)>, StoreError> {
        self.0.idempotent(app, key, now).await
    }
}

#[async_trait]
impl Quota for Troubled<dyn Quota> {
    async fn take(
        &self,
        key: &str,
        window_start: Timestamp,
        resets_at: Timestamp,
        limit: u64,
        want: u64,
    ) -> Result<QuotaGrant, StoreError> {
        self.1.at("take").await?;
        self.0.take(key, window_start, resets_at, limit, want).await
    }
    async fn give_back(
        &self,
        key: &str,
        window_start: Timestamp,
        count: u64,
    ) -> Result<(), StoreError> {
        self.1.at("give_back").await?;
        self.0.give_back(key, window_start, count).await
    }
    async fn used(&self, key: &str, window_start: Timestamp) -> Result<u64, StoreError> {
        self.0.used(key, window_start).await
    }
}

#[async_trait]
impl Registry for Troubled<dyn Registry> {
    async fn put_endpoint(&self, endpoint: PushEndpoint) -> Result<(), StoreError> {
        self.1.at("put_endpoint").await?;
        self.0.put_endpoint(endpoint).await
    }
    async fn endpoint(&self, hash: &[u8; 32]) -> Result<Option<PushEndpoint>, StoreError> {
        self.1.at("endpoint").await?;
        self.0.endpoint(hash).await
    }
    async fn endpoints_of(
        &self,
        app: &AppId,
        device: &DeviceId,
        after: Option<&PushChannel>,
        limit: usize,
    ) -> Result<Vec<PushEndpoint>, StoreError> {
        self.1.at("endpoints_of").await?;
        self.0.endpoints_of(app, device, after, limit).await
    }
    async fn end_endpoint(
        &self,
        app: &AppId,
        device: &DeviceId,
        channel: &PushChannel,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        self.1.at("end_endpoint").await?;
        self.0.end_endpoint(app, device, channel, at).await
    }
    async fn put_app(&self, app: App, expected: Option<u64>) -> Result<(), StoreError> {
        self.1.at("put_app").await?;
        self.0.put_app(app, expected).await
    }
    async fn app(&self, id: &AppId) -> Result<Option<App>, StoreError> {
        self.1.at("app").await?;
        self.0.app(id).await
    }
    async fn apps(&self, after: Option<&AppId>, limit: usize) -> Result<Vec<App>, StoreError> {
        self.1.at("apps").await?;
        self.0.apps(after, limit).await
    }
    async fn delete_app(&self, id: &AppId) -> Result<(), StoreError> {
        self.1.at("delete_app").await?;
        self.0.delete_app(id).await
    }
    async fn put_key(&self, key: Key) -> Result<(), StoreError> {
        self.1.at("put_key").await?;
        self.0.put_key(key).await
    }
    async fn key_by_hash(&self, hash: &[u8; 32]) -> Result<Option<Key>, StoreError> {
        self.1.at("key_by_hash").await?;
        self.0.key_by_hash(hash).await
    }
    async fn keys(&self, app: Option<&AppId>) -> Result<Vec<Key>, StoreError> {
        self.1.at("keys").await?;
        self.0.keys(app).await
    }
    async fn delete_key(&self, app: Option<&AppId>, id: &KeyId) -> Result<bool, StoreError> {
        self.1.at("delete_key").await?;
        self.0.delete_key(app, id).await
    }
    async fn put_credential(
        &self,
        credential: Credential,
        expected: Option<u64>,
    ) -> Result<(), StoreError> {
        self.1.at("put_credential").await?;
        self.0.put_credential(credential, expected).await
    }
    async fn credential(
        &self,
        app: &AppId,
        channel: &ChannelId,
        name: &CredentialName,
    ) -> Result<Option<Credential>, StoreError> {
        self.1.at("credential").await?;
        self.0.credential(app, channel, name).await
    }
    async fn credentials(&self, app: &AppId) -> Result<Vec<Credential>, StoreError> {
        self.1.at("credentials").await?;
        self.0.credentials(app).await
    }
    async fn delete_credential(
        &self,
        app: &AppId,
        channel: &ChannelId,
        name: &CredentialName,
    ) -> Result<bool, StoreError> {
        self.1.at("delete_credential").await?;
        self.0.delete_credential(app, channel, name).await
    }
    async fn put_device(&self, device: Device, expected: Option<u64>) -> Result<(), StoreError> {
        self.1.at("put_device").await?;
        self.0.put_device(device, expected).await?;
        // Durable, and nobody knows yet.
        self.1.at("put_device done").await
    }
    async fn import_devices(&self, devices: Vec<Device>) -> Result<(), StoreError> {
        self.1.at("import_devices").await?;
        self.0.import_devices(devices).await
    }
    async fn devices(
        &self,
        app: &AppId,
        ids: &[DeviceId],
    ) -> Result<Vec<Option<Device>>, StoreError> {
        self.1.at("devices").await?;
        if ids
            .iter()
            .any(|id| self.1.lock().damaged_devices.contains(id))
        {
            return Err(StoreError::Corrupt {
                entity: "device",
                source: "as the test said".into(),
            });
        }
        self.0.devices(app, ids).await
    }
    async fn devices_of(
        &self,
        app: &AppId,
        users: &[UserId],
    ) -> Result<Vec<Vec<Device>>, StoreError> {
        self.1.at("devices_of").await?;
        self.0.devices_of(app, users).await
    }
    async fn device_by_secret(&self, hash: &[u8; 32]) -> Result<Option<Device>, StoreError> {
        self.1.at("device_by_secret").await?;
        self.0.device_by_secret(hash).await
    }
    async fn device_by_token(
        &self,
        app: &AppId,
        channel: &ChannelId,
        token: &str,
    ) -> Result<Option<DeviceId>, StoreError> {
        self.1.at("device_by_token").await?;
        self.0.device_by_token(app, channel, token).await
    }
    async fn device_page(
        &self,
        app: &AppId,
        after: Option<&DeviceId>,
        limit: usize,
    ) -> Result<Vec<Device>, StoreError> {
        self.1.at("device_page").await?;
        self.0.device_page(app, after, limit).await
    }
    async fn delete_device(&self, app: &AppId, id: &DeviceId) -> Result<bool, StoreError> {
        self.1.at("delete_device").await?;
        self.0.delete_device(app, id).await
    }
    async fn touch_device(
        &self,
        app: &AppId,
        id: &DeviceId,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        self.1.at("touch_device").await?;
        self.0.touch_device(app, id, at).await
    }
    async fn kill_token(
        &self,
        app: &AppId,
        device: &DeviceId,
        channel: &ChannelId,
        token: &str,
        reason: Reason,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        self.1.at("kill_token").await?;
        self.0
            .kill_token(app, device, channel, token, reason, at)
            .await
    }
    async fn put_user(&self, user: User, expected: Option<u64>) -> Result<(), StoreError> {
        self.1.at("put_user").await?;
        self.0.put_user(user, expected).await
    }
    async fn users(&self, app: &AppId, ids: &[UserId]) -> Result<Vec<Option<User>>, StoreError> {
        self.1.at("users").await?;
        self.0.users(app, ids).await
    }
    async fn delete_user(&self, app: &AppId, id: &UserId) -> Result<bool, StoreError> {
        self.1.at("delete_user").await?;
        self.0.delete_user(app, id).await
    }
    async fn subscribe(
        &self,
        app: &AppId,
        topic: &Topic,
        devices: &[DeviceId],
    ) -> Result<(), StoreError> {
        self.1.at("subscribe").await?;
        self.0.subscribe(app, topic, devices).await
    }
    async fn unsubscribe(
        &self,
        app: &AppId,
        topic: &Topic,
        devices: &[DeviceId],
    ) -> Result<(), StoreError> {
        self.1.at("unsubscribe").await?;
        self.0.unsubscribe(app, topic, devices).await
    }
    async fn topics_of(
        &self,
        app: &AppId,
        device: &DeviceId,
    ) -> Result<Vec<Subscription>, StoreError> {
        self.1.at("topics_of").await?;
        self.0.topics_of(app, device).await
    }
    async fn subscribers(
        &self,
        app: &AppId,
        topic: &Topic,
        after: Option<&DeviceId>,
        limit: usize,
    ) -> Result<Vec<DeviceId>, StoreError> {
        self.1.at("subscribers").await?;
        self.0.subscribers(app, topic, after, limit).await
    }
}

#[async_trait]
impl Inbox for Troubled<dyn Inbox> {
    async fn read(
        &self,
        reader: &Reader,
        after: Option<Cursor>,
        limit: usize,
        now: Timestamp,
    ) -> Result<InboxPage, StoreError> {
        self.1.at("read").await?;
        self.0.read(reader, after, limit, now).await
    }
    async fn ack(
        &self,
        reader: &Reader,
        ack: Ack,
        now: Timestamp,
    ) -> Result<Vec<MessageId>, StoreError> {
        self.1.at("ack").await?;
        self.0.ack(reader, ack, now).await
    }
    async fn acked(
        &self,
        reader: &Reader,
        ids: &[MessageId],
        now: Timestamp,
    ) -> Result<Vec<MessageId>, StoreError> {
        self.1.at("acked").await?;
        self.0.acked(reader, ids, now).await
    }
    async fn head(&self, reader: &Reader) -> Result<Cursor, StoreError> {
        self.1.at("head").await?;
        self.0.head(reader).await
    }
    async fn message(
        &self,
        app: &AppId,
        id: MessageId,
    ) -> Result<Option<Arc<Message>>, StoreError> {
        self.1.at("message").await?;
        self.0.message(app, id).await
    }
    async fn messages(
        &self,
        ids: &[(AppId, MessageId)],
    ) -> Result<Vec<Option<Arc<Message>>>, StoreError> {
        self.1.at("messages").await?;
        self.0.messages(ids).await
    }
    async fn pushed_out(&self, app: &AppId, id: MessageId) -> Result<Option<Reason>, StoreError> {
        self.1.at("pushed_out").await?;
        self.0.pushed_out(app, id).await
    }
    async fn recalled(&self, app: &AppId, id: MessageId) -> Result<Option<Timestamp>, StoreError> {
        self.1.at("recalled").await?;
        self.0.recalled(app, id).await
    }
}

#[async_trait]
impl Work for Troubled<dyn Work> {
    async fn lease(
        &self,
        now: Timestamp,
        lease_until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Job>, StoreError> {
        self.1.at("lease").await?;
        self.0.lease(now, lease_until, limit).await
    }
    async fn next_due(&self) -> Result<Option<Timestamp>, StoreError> {
        self.1.at("next_due").await?;
        self.0.next_due().await
    }
    async fn of_message(
        &self,
        app: &AppId,
        message: MessageId,
        limit: usize,
    ) -> Result<Vec<Job>, StoreError> {
        self.1.at("of_message").await?;
        self.0.of_message(app, message, limit).await
    }
    async fn open(&self) -> Result<u64, StoreError> {
        self.1.at("open").await?;
        self.0.open().await
    }
    async fn changed(&self) {
        self.0.changed().await;
    }
}

#[async_trait]
impl Ledger for Troubled<dyn Ledger> {
    async fn events(
        &self,
        app: &AppId,
        filter: EventFilter,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Event>, StoreError> {
        self.1.at("events").await?;
        self.0.events(app, filter, after, limit).await
    }
    async fn head(&self) -> Result<u64, StoreError> {
        self.1.at("head").await?;
        self.0.head().await
    }
    async fn wait_after(&self, seq: u64) {
        self.0.wait_after(seq).await;
    }
    async fn counters(
        &self,
        app: &AppId,
        from: i64,
        to: i64,
    ) -> Result<Vec<CounterRow>, StoreError> {
        self.1.at("counters").await?;
        self.0.counters(app, from, to).await
    }
    async fn message_counters(
        &self,
        app: &AppId,
        message: MessageId,
    ) -> Result<Vec<CounterRow>, StoreError> {
        self.1.at("message_counters").await?;
        self.0.message_counters(app, message).await
    }
    async fn deliveries(
        &self,
        app: &AppId,
        keys: &[(MessageId, DeviceId)],
    ) -> Result<Vec<Option<Delivery>>, StoreError> {
        self.1.at("deliveries").await?;
        self.1.read(keys.iter().map(|(id, _)| *id))?;
        self.0.deliveries(app, keys).await
    }
    async fn deliveries_of(
        &self,
        app: &AppId,
        message: MessageId,
        after: Option<DeviceId>,
        limit: usize,
    ) -> Result<Vec<Delivery>, StoreError> {
        self.1.at("deliveries_of").await?;
        self.0.deliveries_of(app, message, after, limit).await
    }
    async fn open_of_device(
        &self,
        app: &AppId,
        device: &DeviceId,
        after: Option<MessageId>,
        limit: usize,
    ) -> Result<Vec<(MessageId, DeviceId)>, StoreError> {
        self.1.at("open_of_device").await?;
        self.0.open_of_device(app, device, after, limit).await
    }
    async fn open_with_collapse_key(
        &self,
        app: &AppId,
        device: &DeviceId,
        collapse_key: &str,
    ) -> Result<Vec<MessageId>, StoreError> {
        self.1.at("open_with_collapse_key").await?;
        self.0
            .open_with_collapse_key(app, device, collapse_key)
            .await
    }
    async fn expire(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.1.at("expire").await?;
        self.0.expire(before).await
    }
}
