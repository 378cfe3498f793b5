//! The room's state: ports, caches, limiters.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, watch};

use hongyan_core::app::{App, Key};
use hongyan_core::port::{Clock, Dice, Inbox, Ledger, Presence, Pushes, Registry, Work};
use hongyan_core::{AppId, ChannelId, Device, DeviceId, Timestamp};

use crate::limiter::Limiter;
use crate::options::{
    APPS_CACHED_MAX, BUCKETS_MAX, KEYS_CACHED_MAX, Options, PAGE_LEN_MAX, TAILS_MAX,
};
use crate::problem::Problem;
use crate::push::Desk;
use crate::services::{Connect, Services};

/// Writes the metrics of the process as Prometheus text.
pub trait MetricsText: Send + Sync {
    /// The text, version 0.0.4 of the exposition format.
    fn render(&self) -> String;
}

impl<F: Fn() -> String + Send + Sync> MetricsText for F {
    fn render(&self) -> String {
        self()
    }
}

/// What the API works with.
#[derive(Clone)]
#[allow(missing_docs, reason = "each is its port")]
pub struct Ports {
    pub registry: Arc<dyn Registry>,
    pub inbox: Arc<dyn Inbox>,
    pub work: Arc<dyn Work>,
    pub ledger: Arc<dyn Ledger>,
    pub presence: Arc<dyn Presence>,
    pub clock: Arc<dyn Clock>,
    pub dice: Arc<dyn Dice>,
    pub services: Arc<dyn Services>,
    pub connect: Arc<dyn Connect>,
    pub pushes: Arc<dyn Pushes>,
    pub metrics: Arc<dyn MetricsText>,
    /// The channels that are built in, in their usual order.
    pub channels: Vec<ChannelId>,
}

impl std::fmt::Debug for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ports(…)")
    }
}

/// The HTTP API. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Api {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    options: Options,
    ports: Ports,
    ready: AtomicBool,
    closing: watch::Sender<bool>,
    /// Counts how often keys and apps were changed.
    keys_changed: watch::Sender<u64>,
    keys: Cache<[u8; 32], Arc<Key>>,
    apps: Cache<AppId, Arc<App>>,
    origins: Cache<(), Arc<Vec<String>>>,
    by_key: Limiter<[u8; 32]>,
    by_device: Limiter<[u8; 32]>,
    by_client: Limiter<IpAddr>,
    by_stranger: Limiter<IpAddr>,
    tails: Arc<Semaphore>,
    push: Desk,
}

impl Api {
    /// Puts the API together. It is not ready until [`Api::set_ready`].
    #[must_use]
    pub fn new(options: Options, ports: Ports) -> Self {
        Self {
            inner: Arc::new(Inner {
                ready: AtomicBool::new(false),
                closing: watch::Sender::new(false),
                keys_changed: watch::Sender::new(0),
                keys: Cache::new(KEYS_CACHED_MAX),
                apps: Cache::new(APPS_CACHED_MAX),
                origins: Cache::new(1),
                by_key: Limiter::new(options.key_rate, BUCKETS_MAX),
                by_device: Limiter::new(options.device_rate, BUCKETS_MAX),
                by_client: Limiter::new(options.client_rate, BUCKETS_MAX),
                by_stranger: Limiter::new(options.stranger_rate, BUCKETS_MAX),
                tails: Arc::new(Semaphore::new(TAILS_MAX)),
                push: Desk::new(options.push.clone(), Arc::clone(&ports.pushes)),
                options,
                ports,
            }),
        }
    }

    /// Says whether the node may get traffic: `/readyz` answers it.
    pub fn set_ready(&self, ready: bool) {
        self.inner.ready.store(ready, Ordering::Release);
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.inner.ready.load(Ordering::Acquire)
    }

    /// Ends live tails, so that their connections can close.
    pub(crate) fn close_streams(&self) {
        self.inner.closing.send_replace(true);
    }

    pub(crate) fn closing(&self) -> watch::Receiver<bool> {
        self.inner.closing.subscribe()
    }

    /// Changes whenever a key or an app may have changed: whoever was let in asks again.
    pub(crate) fn keys_changed(&self) -> watch::Receiver<u64> {
        self.inner.keys_changed.subscribe()
    }

    pub(crate) fn options(&self) -> &Options {
        &self.inner.options
    }

    pub(crate) fn ports(&self) -> &Ports {
        &self.inner.ports
    }

    pub(crate) fn registry(&self) -> &dyn Registry {
        &*self.inner.ports.registry
    }

    pub(crate) fn services(&self) -> &dyn Services {
        &*self.inner.ports.services
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.inner.ports.clock.now()
    }

    pub(crate) fn tails(&self) -> Arc<Semaphore> {
        Arc::clone(&self.inner.tails)
    }

    pub(crate) fn push(&self) -> &Desk {
        &self.inner.push
    }

    pub(crate) fn by_key(&self) -> &Limiter<[u8; 32]> {
        &self.inner.by_key
    }

    pub(crate) fn by_device(&self) -> &Limiter<[u8; 32]> {
        &self.inner.by_device
    }

    pub(crate) fn by_client(&self) -> &Limiter<IpAddr> {
        &self.inner.by_client
    }

    pub(crate) fn by_stranger(&self) -> &Limiter<IpAddr> {
        &self.inner.by_stranger
    }

    /// The key with this hash. Remembered for a short time; strangers' keys are not.
    pub(crate) async fn key(&self, hash: &[u8; 32]) -> Result<Option<Arc<Key>>, Problem> {
        let now = self.now();
        if let Some(key) = self.inner.keys.get(hash, now) {
            return Ok(Some(key));
        }
        let since = self.inner.keys.clears();
        let Some(key) = self.registry().key_by_hash(hash).await?.map(Arc::new) else {
            return Ok(None);
        };
        let until = self.fresh_until(now);
        self.inner
            .keys
            .put_unless_cleared(since, *hash, Arc::clone(&key), until, now);
        Ok(Some(key))
    }

    /// An app, remembered for a short time.
    pub(crate) async fn app(&self, id: &AppId) -> Result<Option<Arc<App>>, Problem> {
        let now = self.now();
        if let Some(app) = self.inner.apps.get(id, now) {
            return Ok(Some(app));
        }
        let since = self.inner.apps.clears();
        let Some(app) = self.registry().app(id).await?.map(Arc::new) else {
            return Ok(None);
        };
        let until = self.fresh_until(now);
        self.inner
            .apps
            .put_unless_cleared(since, id.clone(), Arc::clone(&app), until, now);
        Ok(Some(app))
    }

    /// Origins that any app allows: before `hello` it is not known which app a page belongs to.
    pub(crate) async fn origins(&self) -> Result<Arc<Vec<String>>, Problem> {
        let now = self.now();
        if let Some(origins) = self.inner.origins.get(&(), now) {
            return Ok(origins);
        }
        let since = self.inner.origins.clears();
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let page = self.registry().apps(after.as_ref(), PAGE_LEN_MAX).await?;
            let last = page.last().map(|app| app.id.clone());
            let full = page.len() == PAGE_LEN_MAX;
            all.extend(page.into_iter().flat_map(|app| app.policy.origins));
            match last {
                Some(last) if full => after = Some(last),
                _ => break,
            }
        }
        all.sort();
        all.dedup();
        let all = Arc::new(all);
        let until = self.fresh_until(now);
        self.inner
            .origins
            .put_unless_cleared(since, (), Arc::clone(&all), until, now);
        Ok(all)
    }

    /// Forgets what is remembered of keys: one was changed or ended beside the API.
    pub fn forget_keys(&self) {
        self.forget_cached();
    }

    /// Forgets what is remembered of keys and apps, because one was changed or deleted.
    pub(crate) fn forget_cached(&self) {
        self.inner.keys.clear();
        self.inner.apps.clear();
        self.inner.origins.clear();
        self.inner
            .keys_changed
            .send_modify(|n| *n = n.wrapping_add(1));
    }

    fn fresh_until(&self, now: Timestamp) -> Timestamp {
        now.plus(self.inner.options.cache_ttl)
    }

    /// A device, or 404.
    pub(crate) async fn device(&self, app: &AppId, id: &DeviceId) -> Result<Device, Problem> {
        self.registry()
            .devices(app, std::slice::from_ref(id))
            .await?
            .pop()
            .flatten()
            .ok_or_else(|| Problem::not_found("device"))
    }
}

/// A bounded map whose entries are good for a short time.
#[derive(Debug)]
pub(crate) struct Cache<K, V> {
    len_max: usize,
    entries: Mutex<Entries<K, V>>,
}

#[derive(Debug)]
struct Entries<K, V> {
    by_key: HashMap<K, (V, Timestamp)>,
    /// How often all was forgotten.
    clears: u64,
}

impl<K: std::hash::Hash + Eq, V: Clone> Cache<K, V> {
    pub(crate) fn new(len_max: usize) -> Self {
        let by_key = HashMap::new();
        Self {
            len_max,
            entries: Mutex::new(Entries { by_key, clears: 0 }),
        }
    }

    pub(crate) fn get(&self, key: &K, now: Timestamp) -> Option<V> {
        let entries = self.lock();
        let found = entries.by_key.get(key).filter(|(_, until)| *until > now);
        found.map(|(value, _)| value.clone())
    }

    pub(crate) fn put(&self, key: K, value: V, until: Timestamp, now: Timestamp) {
        self.put_into(&mut self.lock(), key, value, until, now);
    }

    /// How often all was forgotten so far; read before what is to be remembered is looked up.
    pub(crate) fn clears(&self) -> u64 {
        self.lock().clears
    }

    /// Remembers what was looked up, unless all was forgotten since: what was found may be what changed.
    pub(crate) fn put_unless_cleared(
        &self,
        since: u64,
        key: K,
        value: V,
        until: Timestamp,
        now: Timestamp,
    ) {
        let mut entries = self.lock();
        if entries.clears == since {
            self.put_into(&mut entries, key, value, until, now);
        }
    }

    fn put_into(
        &self,
        entries: &mut Entries<K, V>,
        key: K,
        value: V,
        until: Timestamp,
        now: Timestamp,
    ) {
        let by_key = &mut entries.by_key;
        if by_key.len() >= self.len_max {
            by_key.retain(|_, (_, until)| *until > now);
            if by_key.len() >= self.len_max {
                by_key.clear();
            }
        }
        by_key.insert(key, (value, until));
    }

    pub(crate) fn remove(&self, key: &K) {
        self.lock().by_key.remove(key);
    }

    fn clear(&self) {
        let mut entries = self.lock();
        entries.by_key.clear();
        entries.clears = entries.clears.wrapping_add(1);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Entries<K, V>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_looked_up_before_all_was_forgotten_is_not_remembered() {
        let cache = Cache::new(2);
        let (now, until) = (Timestamp(0), Timestamp(9));
        let since = cache.clears();
        cache.put_unless_cleared(since, "a", 1, until, now);
        assert_eq!(cache.get(&"a", now), Some(1));
        cache.clear();
        cache.put_unless_cleared(since, "a", 1, until, now);
        assert_eq!(cache.get(&"a", now), None);
        cache.put_unless_cleared(cache.clears(), "a", 2, until, now);
        assert_eq!(cache.get(&"a", now), Some(2));
    }
}
