//! Daily quotas of credentials: what may be sent today, what is kept for whom, what a vendor said about it.
//!
//! A day is the vendor's. `im` and `transaction` may use all of it, `subscription` and `marketing` only what is not
//! reserved; a limit on marketing holds what the vendor counts as that, which the channel says. What is taken before a call
//! and not accepted by the vendor is given back, so that the counters are those of the accepted pushes, and of those whose
//! answer was lost: the vendor may have counted them.

mod closing;
mod limits;
mod standing;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use hongyan_core::port::{self, Clock, CountedAs};
use hongyan_core::{AppId, ChannelId, Class, CredentialName, DeviceId, StoreError, Timestamp};

pub use closing::Closed;
use closing::Said;
pub(crate) use closing::{Exhausted, believed_until};
pub use limits::{Effective, Terms};
pub(crate) use limits::{Kind, is_bulk};
pub use standing::Standing;

/// Counters of single devices that are changed at once.
const AT_ONCE: usize = 128;
const DAY_MS: i64 = 86_400_000;

/// Whose quota.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Account {
    /// The app.
    pub app: AppId,
    /// The channel.
    pub channel: ChannelId,
    /// The credential.
    pub credential: CredentialName,
}

impl Account {
    fn key(&self, what: &str) -> String {
        format!("{}/{}/{}/{what}", self.app, self.channel, self.credential)
    }

    fn used_key(&self, class: Class) -> String {
        self.key(&format!("used/{}", class.as_str()))
    }

    /// What of a class was counted otherwise than most of it: a service class as marketing, or marketing as service.
    fn otherwise_key(&self, class: Class) -> String {
        let how = match CountedAs::of(class) {
            CountedAs::Service => "public",
            CountedAs::Marketing => "private",
        };
        self.key(&format!("{how}/{}", class.as_str()))
    }

    fn device_key(&self, device: &DeviceId) -> String {
        self.key(&format!("device/{device}"))
    }
}

/// A vendor's day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Day {
    /// Its first moment.
    pub start: Timestamp,
    /// The first moment of the next.
    pub end: Timestamp,
}

impl Day {
    /// The day that `now` is in, where clocks are `offset_s` seconds ahead of UTC.
    #[must_use]
    pub const fn at(now: Timestamp, offset_s: i32) -> Self {
        let offset = offset_s as i64 * 1000;
        let start = (now.millis() + offset).div_euclid(DAY_MS) * DAY_MS - offset;
        Self {
            start: Timestamp(start),
            end: Timestamp(start + DAY_MS),
        }
    }
}

/// What was taken for a call, one for each recipient in order.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) granted: Vec<bool>,
    /// When there is more, for those that got none.
    pub(crate) opens_at: Timestamp,
    /// Why there is none, when it is the vendor's word.
    pub(crate) why: Option<String>,
    /// Whether the vendor had closed, and this asks whether it still is.
    probe: bool,
    kind: Kind,
    day: Day,
    /// By which it was taken.
    limits: Effective,
}

/// The quotas of all credentials. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Quotas {
    port: Arc<dyn port::Quota>,
    clock: Arc<dyn Clock>,
    said: Arc<Mutex<HashMap<(Account, &'static str), Said>>>,
    /// When a vendor took a push although it had named a limit that was used up: it must have been wrong until then.
    disproved: Arc<Mutex<HashMap<Account, Timestamp>>>,
}

impl Quotas {
    pub(crate) fn new(port: Arc<dyn port::Quota>, clock: Arc<dyn Clock>) -> Self {
        Self {
            port,
            clock,
            said: Arc::default(),
            disproved: Arc::default(),
        }
    }

    /// Takes quota for these devices, as far as there is any. Nothing is taken for a credential without limits.
    pub(crate) async fn take(
        &self,
        account: &Account,
        limits: &Effective,
        day: Day,
        kind: Kind,
        devices: &[DeviceId],
    ) -> Result<Taken, StoreError> {
        let limits = &self.believed(account, limits);
        let mut taken = Taken {
            granted: vec![false; devices.len()],
            opens_at: day.end,
            why: None,
            probe: false,
            kind,
            day,
            limits: *limits,
        };
        let mut asked = devices;
        if let Some(closed) = self.closed(account, limits.word(), kind).await? {
            taken.opens_at = closed.until;
            taken.why = Some(closed.why);
            if !self.may_probe(account, limits.word(), kind) {
                return Ok(taken);
            }
            // One tells as much as all. What the vendor named is part of what is asked about.
            taken.probe = true;
            taken.limits = limits.configured_only();
            asked = devices.get(..1).unwrap_or_default();
        }
        let limits = &taken.limits;
        self.catch_up(account, limits, day, kind).await?;
        let mut got = Vec::new();
        let granted = self
            .take_each(account, limits, day, kind, asked, &mut got)
            .await;
        if granted.is_err() {
            // What was taken before the store failed is not used.
            for (key, count) in got {
                self.back(&key, day, count).await?;
            }
        }
        for (place, granted) in taken.granted.iter_mut().zip(granted?) {
            *place = granted;
        }
        Ok(taken)
    }

    /// Raises the counters of this kind to what went out already: a limit that is set or named in the course of the day, here
    /// or elsewhere as the vendor counts, finds it there. As often as one likes: a counter that has as much stays.
    async fn catch_up(
        &self,
        account: &Account,
        limits: &Effective,
        day: Day,
        kind: Kind,
    ) -> Result<(), StoreError> {
        if kind.shared(limits).next().is_none() {
            return Ok(());
        }
        let booked = self.booked(account, day).await?;
        for (shared, _) in kind.shared(limits) {
            let least = limits.at_least(shared, &booked);
            let key = account.key(shared.as_str());
            if self.port.used(&key, day.start).await? < least {
                self.one(&key, day, least, least).await?;
            }
        }
        Ok(())
    }

    /// Takes from each counter, and writes into `taken` what it took.
    async fn take_each(
        &self,
        account: &Account,
        limits: &Effective,
        day: Day,
        kind: Kind,
        devices: &[DeviceId],
        taken: &mut Vec<(String, u64)>,
    ) -> Result<Vec<bool>, StoreError> {
        let mut granted = vec![true; devices.len()];
        if let Some(limit) = kind.per_device(limits) {
            let keys: Vec<String> = devices.iter().map(|d| account.device_key(d)).collect();
            let mut each = Vec::with_capacity(keys.len());
            // All of a batch in few writes of the store, not one after another.
            for some in keys.chunks(AT_ONCE) {
                let calls = some.iter().map(|key| self.one(key, day, limit, 1));
                each.extend(join_all(calls.collect::<Vec<_>>()).await);
            }
            let mut failed = None;
            for ((place, got), key) in granted.iter_mut().zip(each).zip(keys) {
                match got {
                    Ok(got) => {
                        *place = got == 1;
                        taken.extend((*place).then_some((key, 1)));
                    }
                    Err(error) => failed = Some(error),
                }
            }
            if let Some(error) = failed {
                return Err(error);
            }
        }
        let want = granted.iter().filter(|g| **g).count() as u64;
        let mut have = want;
        let before = taken.len();
        for (shared, limit) in kind.shared(limits) {
            let key = account.key(shared.as_str());
            let got = self.one(&key, day, limit, have).await?;
            // Another counter had more: the rest of it goes back.
            let excess = have - got;
            for (key, count) in taken.iter_mut().skip(before) {
                // Noted first: should the store fail, it counts as used, and nothing goes back twice.
                *count -= excess;
                self.back(key, day, excess).await?;
            }
            taken.push((key, got));
            have = got;
        }
        // Those that come last go without.
        let mut excess = want - have;
        let mut back = Vec::new();
        for (place, device) in granted.iter_mut().zip(devices).rev() {
            if excess == 0 {
                break;
            }
            if *place {
                *place = false;
                excess -= 1;
                back.push(device);
            }
        }
        if kind.per_device(limits).is_some() {
            let keys: HashSet<String> = back.iter().map(|d| account.device_key(d)).collect();
            taken.retain(|(key, _)| !keys.contains(key));
        }
        self.devices_back(account, limits, day, kind, back).await?;
        Ok(granted)
    }

    /// When one more push of this kind to this device may go, if not now; takes nothing.
    pub(crate) async fn opens_at(
        &self,
        account: &Account,
        limits: &Effective,
        day: Day,
        kind: Kind,
        device: &DeviceId,
    ) -> Result<Option<Timestamp>, StoreError> {
        let mut limits = self.believed(account, limits);
        if let Some(closed) = self.closed(account, limits.word(), kind).await? {
            if !closed.asks {
                return Ok(Some(closed.until));
            }
            limits = limits.configured_only();
        }
        let limits = &limits;
        let booked = self.booked(account, day).await?;
        for (shared, limit) in kind.shared(limits) {
            let key = account.key(shared.as_str());
            let taken = self.port.used(&key, day.start).await?;
            if taken.max(limits.at_least(shared, &booked)) >= limit {
                return Ok(Some(day.end));
            }
        }
        if let Some(limit) = kind.per_device(limits) {
            let key = account.device_key(device);
            let taken = self.port.used(&key, day.start).await?;
            return Ok((taken >= limit).then_some(day.end));
        }
        Ok(None)
    }

    /// Settles what was taken: each granted place with whether the vendor accepted it.
    pub(crate) async fn settle(
        &self,
        account: &Account,
        taken: &Taken,
        results: &[(DeviceId, bool)],
    ) -> Result<(), StoreError> {
        let (day, kind, limits) = (taken.day, taken.kind, &taken.limits);
        let accepted = results.iter().filter(|(_, ok)| *ok).count() as u64;
        let unused = results.len() as u64 - accepted;
        if accepted > 0 {
            let key = account.used_key(kind.class);
            self.one(&key, day, u64::MAX, accepted).await?;
            if kind.counted != CountedAs::of(kind.class) {
                let key = account.otherwise_key(kind.class);
                self.one(&key, day, u64::MAX, accepted).await?;
            }
        }
        if unused > 0 {
            for (shared, _) in kind.shared(limits) {
                let key = account.key(shared.as_str());
                self.back(&key, day, unused).await?;
            }
            let devices = results.iter().filter(|(_, ok)| !*ok).map(|(d, _)| d);
            self.devices_back(account, limits, day, kind, devices.collect())
                .await?;
        }
        Ok(())
    }

    async fn devices_back(
        &self,
        account: &Account,
        limits: &Effective,
        day: Day,
        kind: Kind,
        devices: Vec<&DeviceId>,
    ) -> Result<(), StoreError> {
        if kind.per_device(limits).is_none() {
            return Ok(());
        }
        let keys: Vec<String> = devices.into_iter().map(|d| account.device_key(d)).collect();
        for some in keys.chunks(AT_ONCE) {
            let calls = some.iter().map(|key| self.back(key, day, 1));
            for done in join_all(calls.collect::<Vec<_>>()).await {
                done?;
            }
        }
        Ok(())
    }

    async fn one(&self, key: &str, day: Day, limit: u64, want: u64) -> Result<u64, StoreError> {
        if want == 0 {
            return Ok(0);
        }
        let grant = self.port.take(key, day.start, day.end, limit, want).await?;
        Ok(grant.granted)
    }

    async fn back(&self, key: &str, day: Day, count: u64) -> Result<(), StoreError> {
        if count == 0 {
            return Ok(());
        }
        self.port.give_back(key, day.start, count).await
    }
}

#[cfg(test)]
mod tests;
