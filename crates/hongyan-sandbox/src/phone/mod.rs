//! Virtual phones: what a person holds in the hand, from the app's connection to the tray.
//!
//! A phone is a record (`model`), kept under one lock and changed in pure steps; beside it runs one
//! task (`actor`) that makes the world follow the record: registers, logs in and out, opens and
//! drops the long connection, reports what the person did.

mod actor;
pub mod link;
pub(crate) mod live;
mod model;
mod store;
mod wake;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use self::link::Server;
pub use self::model::{AppState, NewPhone, PatchPhone, PhoneView, TrayEntry};
use self::model::{Phone, Shown};
use crate::channel::Channel;
use crate::clock::Clock;
use crate::dice::Dice;
use crate::error::SandboxError;
use crate::limits;
use crate::push::{Fate, Push};
use crate::receipts::Receipts;
use crate::sandbox::stopped;
use crate::tokens::{TokenState, Tokens};

/// How long a change waits until the phone's task has carried it out.
const SETTLE_MAX: Duration = Duration::from_secs(10);

/// All phones; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Phones(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Arc<Clock>,
    dice: Arc<Dice>,
    tokens: Arc<Tokens>,
    receipts: Arc<Receipts>,
    phones: Mutex<BTreeMap<String, Slot>>,
    /// Where they are kept. Held while one is written, so that a newer state never gives way to an older one.
    directory: Mutex<std::path::PathBuf>,
    /// Phones that changed since they were written.
    dirty: Mutex<std::collections::BTreeSet<String>>,
    /// Counts changes; the page and the saver follow it.
    version: watch::Sender<u64>,
    /// The server that the phones belong to, and how often it changed.
    server: watch::Sender<Option<Arc<dyn Server>>>,
    stop: watch::Receiver<bool>,
}

/// A phone with its task.
#[derive(Debug)]
struct Slot {
    phone: Phone,
    wake: Arc<Notify>,
    /// The last wish that the task has carried out, or failed to.
    settled: watch::Sender<u64>,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Phones {
    /// Opens the phones kept in `directory`. Call [`Phones::start`] to bring them to life.
    pub(crate) fn open(
        directory: &Path,
        shared: (Arc<Clock>, Arc<Dice>, Arc<Tokens>, Arc<Receipts>),
        stop: watch::Receiver<bool>,
    ) -> Result<Self, SandboxError> {
        let (clock, dice, tokens, receipts) = shared;
        let mut phones = BTreeMap::new();
        for phone in store::load(directory)? {
            for (channel, token) in &phone.tokens {
                tokens.put(*channel, token, TokenState::Valid, Some(&phone.id))?;
            }
            for (channel, token, since_ms) in &phone.dead_tokens {
                let state = TokenState::Dead {
                    since_ms: *since_ms,
                };
                tokens.put(*channel, token, state, Some(&phone.id))?;
            }
            phones.insert(phone.id.clone(), Slot::new(phone));
        }
        Ok(Self(Arc::new(Inner {
            clock,
            dice,
            tokens,
            receipts,
            phones: Mutex::new(phones),
            directory: Mutex::new(directory.to_owned()),
            dirty: Mutex::default(),
            version: watch::Sender::new(0),
            server: watch::Sender::new(None),
            stop,
        })))
    }

    /// Starts the tasks of the phones that were opened.
    pub(crate) fn start(&self) {
        let ids: Vec<String> = self.lock().keys().cloned().collect();
        for id in ids {
            self.spawn(&id);
        }
    }

    /// Saves phones that changed, until told to stop, and then once more. What a person has seen is written at
    /// once by [`Phones::keep_now`]; this takes the rest.
    pub(crate) async fn keep(&self) {
        let mut version = self.0.version.subscribe();
        let mut stop = self.0.stop.clone();
        loop {
            let last = tokio::select! {
                changed = version.changed() => changed.is_err(),
                () = stopped(&mut stop) => true,
            };
            if !last {
                // Changes come in bursts; one write takes them all.
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_millis(300)) => {}
                    () = stopped(&mut stop) => {}
                }
            }
            let dirty =
                std::mem::take(&mut *self.0.dirty.lock().unwrap_or_else(PoisonError::into_inner));
            let phones = self.clone();
            let write = move || dirty.iter().for_each(|id| phones.keep_now(id));
            if tokio::task::spawn_blocking(write).await.is_err() || last {
                return;
            }
        }
    }

    /// Writes a phone: before a message is acknowledged, so that a kill right after it loses nothing that the
    /// person has seen.
    pub(crate) fn keep_now(&self, id: &str) {
        let directory = self
            .0
            .directory
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let written = match self.read(id, Clone::clone) {
            Ok(phone) => store::save(&directory, &phone),
            Err(_) => store::remove(&directory, id),
        };
        if let Err(error) = written {
            tracing::warn!(%error, "a phone is not saved");
        }
    }

    fn mark(&self, id: &str) {
        self.0
            .dirty
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id.to_owned());
    }

    /// Makes the phones belong to a hongyan server.
    pub(crate) fn attach(&self, server: Arc<dyn Server>) {
        self.0.server.send_replace(Some(server));
    }

    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.0.version.subscribe()
    }

    /// Every phone, in the order in which they were added.
    pub(crate) fn list(&self) -> Vec<PhoneView> {
        let phones = self.lock();
        let mut order: Vec<&Phone> = phones.values().map(|slot| &slot.phone).collect();
        order.sort_by_key(|phone| phone.place);
        order.into_iter().map(Phone::view).collect()
    }

    pub(crate) fn get(&self, id: &str) -> Result<PhoneView, SandboxError> {
        self.read(id, Phone::view)
    }

    pub(crate) fn tray(&self, id: &str) -> Result<Vec<TrayEntry>, SandboxError> {
        self.read(id, |phone| phone.tray.clone())
    }

    /// The vendor tokens of a phone.
    pub(crate) fn tokens(&self, id: &str) -> Result<BTreeMap<Channel, String>, SandboxError> {
        self.read(id, |phone| phone.tokens.clone())
    }

    pub(crate) fn clear_tray(&self, id: &str) -> Result<(), SandboxError> {
        self.change(id, |phone, _| phone.tray.clear())
    }

    /// Adds a phone and waits until it is registered and connected, at most ten seconds; without a
    /// server it is added at once.
    pub(crate) async fn add(&self, new: NewPhone) -> Result<PhoneView, SandboxError> {
        let mut phone = Phone::new(new, self.0.clock.now_ms())?;
        for channel in &phone.channels {
            let state = TokenState::Valid;
            let token = self
                .0
                .tokens
                .issue(*channel, state, Some(&phone.id), &self.0.dice)?;
            phone.tokens.insert(*channel, token);
        }
        let id = phone.id.clone();
        {
            let mut phones = self.lock();
            if phones.len() >= limits::PHONES_MAX {
                return Err(SandboxError::Full {
                    what: "phones",
                    limit: limits::PHONES_MAX,
                });
            }
            phone.place = phones
                .values()
                .map(|slot| slot.phone.place + 1)
                .max()
                .unwrap_or(0);
            phones.insert(id.clone(), Slot::new(phone));
        }
        self.mark(&id);
        self.changed();
        self.spawn(&id);
        self.settle(&id).await;
        self.get(&id)
    }

    /// Throws a phone away: its app is gone, its tokens die, the server is not told.
    pub(crate) fn remove(&self, id: &str) -> Result<(), SandboxError> {
        let slot = self
            .lock()
            .remove(id)
            .ok_or_else(|| SandboxError::NoPhone(id.to_owned()))?;
        if let Some(task) = slot.task {
            task.abort();
        }
        let since_ms = self.0.clock.now_ms();
        for (channel, token) in &slot.phone.tokens {
            self.0
                .tokens
                .set_state(*channel, token, TokenState::Dead { since_ms });
        }
        self.mark(id);
        self.changed();
        Ok(())
    }

    /// Changes a phone and waits until the change is carried out, at most ten seconds.
    pub(crate) async fn patch(
        &self,
        id: &str,
        patch: PatchPhone,
    ) -> Result<PhoneView, SandboxError> {
        let now = self.0.clock.now_ms();
        let came_back = self.edit(id, |phone| {
            let before = (phone.installed, phone.network);
            phone.apply(&patch, now)?;
            if before.0 && !phone.installed {
                for (channel, token) in std::mem::take(&mut phone.tokens) {
                    self.0
                        .tokens
                        .set_state(channel, &token, TokenState::Dead { since_ms: now });
                    phone.bury(channel, token, now);
                }
            }
            if !before.0 && phone.installed {
                phone.reinstall();
                for channel in phone.channels.clone() {
                    let state = TokenState::Valid;
                    let token = self
                        .0
                        .tokens
                        .issue(channel, state, Some(id), &self.0.dice)?;
                    phone.tokens.insert(channel, token);
                }
            }
            Ok(phone.network && !before.1)
        })?;
        if came_back {
            let held = self.edit(id, |phone| Ok(std::mem::take(&mut phone.stored)))?;
            for (channel, push) in held {
                self.show(id, channel, push);
            }
        }
        self.settle(id).await;
        self.get(id)
    }

    /// The person taps an entry of the tray: the app comes to the front, started if need be.
    pub(crate) async fn click(&self, id: &str, n: u64) -> Result<TrayEntry, SandboxError> {
        let now = self.0.clock.now_ms();
        let (entry, receipt) = self.edit(id, |phone| {
            let found = phone.click(n, now);
            found.ok_or_else(|| SandboxError::NoTrayEntry {
                phone: id.to_owned(),
                n,
            })
        })?;
        if let Some(receipt) = receipt {
            self.0.receipts.report(&receipt, Fate::Clicked);
        }
        self.settle(id).await;
        Ok(entry)
    }

    /// A vendor brings a push to the phone.
    pub(crate) fn arrive(&self, id: &str, channel: Channel, push: Push) {
        let now = self.0.clock.now_ms();
        let online = self.edit(id, |phone| {
            if !phone.installed {
                return Ok(false);
            }
            if !phone.network {
                if push.stored {
                    phone.hold(channel, push.clone(), now);
                }
                return Ok(false);
            }
            Ok(true)
        });
        if online.unwrap_or(false) {
            self.show(id, channel, push);
        }
    }

    fn show(&self, id: &str, channel: Channel, push: Push) {
        let now = self.0.clock.now_ms();
        // Zero is "now or never" and has just been now; other lives are compared.
        if push.stored && push.expires_ms < now {
            return;
        }
        let receipt = push.receipt.clone();
        let shown = self.edit(id, |phone| Ok(phone.take_push(channel, push, now)));
        self.keep_now(id);
        if let (Some(receipt), Ok(shown)) = (receipt, shown) {
            let fate = if shown == Shown::Denied {
                Fate::NotShown
            } else {
                Fate::Delivered
            };
            self.0.receipts.report(&receipt, fate);
        }
    }

    /// A vendor takes a shown notification back.
    pub(crate) fn withdraw(&self, id: &str, collapse: &str) {
        let _ = self.change(id, |phone, _| phone.withdraw(collapse));
    }

    /// A vendor takes a shown notification back from every phone that has its channel.
    pub(crate) fn withdraw_everywhere(&self, channel: Channel, collapse: &str) {
        let ids: Vec<String> = self
            .lock()
            .values()
            .filter(|slot| slot.phone.tokens.contains_key(&channel))
            .map(|slot| slot.phone.id.clone())
            .collect();
        for id in ids {
            self.withdraw(&id, collapse);
        }
    }

    /// Wakes every phone's task, as after the clock was moved.
    pub(crate) fn wake_all(&self) {
        for slot in self.lock().values() {
            slot.wake.notify_one();
        }
    }

    /// Waits until every phone's task has ended; they end by themselves after `stop`.
    pub(crate) async fn join(&self) {
        let tasks: Vec<_> = self
            .lock()
            .values_mut()
            .filter_map(|slot| slot.task.take())
            .collect();
        for task in tasks {
            let _ = task.await;
        }
    }

    fn spawn(&self, id: &str) {
        let task = tokio::spawn(actor::run(self.clone(), id.to_owned()));
        match self.lock().get_mut(id) {
            Some(slot) => slot.task = Some(task),
            None => task.abort(),
        }
    }

    /// Waits until the phone's task has carried out what is wished now.
    async fn settle(&self, id: &str) {
        let (wish, mut settled) = {
            let phones = self.lock();
            let Some(slot) = phones.get(id) else { return };
            (slot.phone.wish, slot.settled.subscribe())
        };
        if self.0.server.borrow().is_none() {
            return;
        }
        let waiting = settled.wait_for(|settled| *settled >= wish);
        if tokio::time::timeout(SETTLE_MAX, waiting).await.is_err() {
            tracing::debug!(phone = id, "phone did not settle in time");
        }
    }

    fn settled(&self, id: &str, wish: u64) {
        if let Some(slot) = self.lock().get(id) {
            slot.settled.send_if_modified(|settled| {
                let newer = wish > *settled;
                *settled = (*settled).max(wish);
                newer
            });
        }
    }

    fn read<T>(&self, id: &str, look: impl FnOnce(&Phone) -> T) -> Result<T, SandboxError> {
        let phones = self.lock();
        let slot = phones
            .get(id)
            .ok_or_else(|| SandboxError::NoPhone(id.to_owned()))?;
        Ok(look(&slot.phone))
    }

    /// Changes a phone, makes the change a wish of its task and tells who watches.
    fn edit<T>(
        &self,
        id: &str,
        change: impl FnOnce(&mut Phone) -> Result<T, SandboxError>,
    ) -> Result<T, SandboxError> {
        let outcome = {
            let mut phones = self.lock();
            let slot = phones
                .get_mut(id)
                .ok_or_else(|| SandboxError::NoPhone(id.to_owned()))?;
            let outcome = change(&mut slot.phone);
            slot.phone.wish += 1;
            slot.wake.notify_one();
            outcome
        };
        self.mark(id);
        self.changed();
        outcome
    }

    /// Changes what is known of a phone without wishing anything of its task.
    fn change<T>(
        &self,
        id: &str,
        change: impl FnOnce(&mut Phone, i64) -> T,
    ) -> Result<T, SandboxError> {
        let now = self.0.clock.now_ms();
        let outcome = {
            let mut phones = self.lock();
            let slot = phones
                .get_mut(id)
                .ok_or_else(|| SandboxError::NoPhone(id.to_owned()))?;
            change(&mut slot.phone, now)
        };
        self.mark(id);
        self.changed();
        Ok(outcome)
    }

    fn changed(&self) {
        self.0.version.send_modify(|version| *version += 1);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Slot>> {
        self.0.phones.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    fn new(phone: Phone) -> Self {
        Self {
            phone,
            wake: Arc::new(Notify::new()),
            settled: watch::Sender::new(0),
            task: None,
        }
    }
}
