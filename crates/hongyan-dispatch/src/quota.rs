//! Daily quotas of credentials: what may be sent today, what is kept for whom, what a vendor said about it.
//!
//! A day is the vendor's. `im` and `transaction` may use all of it, `subscription` and `marketing` only what is not
//! reserved. What is taken before a call and not accepted by the vendor is given back, so that the counters are those of the
//! accepted pushes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use hongyan_core::app::DailyQuota;
use hongyan_core::port::{self, Clock, DailyLimit, LimitOf};
use hongyan_core::{AppId, ChannelId, Class, CredentialName, DeviceId, StoreError, Timestamp};

/// A vendor that says "quota reached" this many times in a row is believed for the rest of its day.
const BELIEVED_AFTER: u32 = 5;
/// How long after its midnight a vendor's clock may still be in the day before.
const EARLY: Duration = Duration::from_secs(300);
/// Accounts whose vendors said something today; beyond it nobody more is believed until those of earlier days are forgotten.
const SAID_MAX: usize = 10_000;
/// Counters of single devices that are changed at once.
const AT_ONCE: usize = 128;
const DAY_MS: i64 = 86_400_000;
/// How long a limit that a vendor named is believed when it says nothing more.
const NAMED_FOR: Duration = Duration::from_secs(2 * 86_400);

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

fn closed_key(account: &Account, class: Class) -> String {
    account.key(&format!("closed/{}", class.as_str()))
}

/// Whether a class comes after what is reserved for the others.
pub(crate) const fn is_bulk(class: Class) -> bool {
    matches!(class, Class::Marketing | Class::Subscription)
}

/// What the bulk classes may use in all.
fn bulk_limit(quota: &DailyQuota) -> Option<u64> {
    let rest = quota
        .per_day
        .map(|all| all.saturating_sub(quota.reserved.unwrap_or(all / 5)));
    match (rest, quota.marketing_per_day) {
        (Some(rest), Some(marketing)) => Some(rest.min(marketing)),
        (one, other) => one.or(other),
    }
}

/// The limits of a credential, and which of them are the vendor's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Effective {
    /// What counts.
    pub quota: DailyQuota,
    /// Whether [`DailyQuota::per_day`] is the vendor's.
    pub per_day_named: bool,
    /// Whether [`DailyQuota::marketing_per_day`] is the vendor's.
    pub marketing_named: bool,
    /// What the vendor itself counted today under the limits that are its own.
    counted: [Option<u64>; 2],
}

impl Effective {
    /// What was configured; where nothing was, what the vendor named lately.
    #[must_use]
    pub fn of(configured: &DailyQuota, named: &[DailyLimit], day: Day, now: Timestamp) -> Self {
        let find = |of: LimitOf| {
            let fresh = |l: &&DailyLimit| l.of == of && now.since(l.at) < NAMED_FOR;
            named.iter().filter(fresh).max_by_key(|l| l.at)
        };
        let counted = |limit: Option<&DailyLimit>| {
            let today = limit.filter(|l| l.at >= day.start);
            today.and_then(|l| l.used)
        };
        let all = find(LimitOf::All).filter(|_| configured.per_day.is_none());
        let marketing = find(LimitOf::Marketing).filter(|_| configured.marketing_per_day.is_none());
        Self {
            quota: DailyQuota {
                per_day: configured.per_day.or(all.map(|l| l.limit)),
                marketing_per_day: configured.marketing_per_day.or(marketing.map(|l| l.limit)),
                ..*configured
            },
            per_day_named: all.is_some(),
            marketing_named: marketing.is_some(),
            counted: [counted(all), counted(marketing)],
        }
    }

    /// Only what was configured.
    #[must_use]
    pub const fn configured(quota: DailyQuota) -> Self {
        Self {
            quota,
            per_day_named: false,
            marketing_named: false,
            counted: [None, None],
        }
    }
}

/// What was taken for a call, one for each recipient in order.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) granted: Vec<bool>,
    /// When there is more, for those that got none.
    pub(crate) opens_at: Timestamp,
    day: Day,
}

/// How an account stands today.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The day.
    pub day: Day,
    /// Accepted by the vendor, by class.
    pub used: Vec<(Class, u64)>,
    /// The limit of all classes.
    pub per_day: Option<u64>,
    /// Whether that is the vendor's own word, since none was configured.
    pub per_day_named: bool,
    /// The limit of `marketing` and `subscription` together.
    pub bulk_per_day: Option<u64>,
    /// Whether it comes of the vendor's own word.
    pub bulk_named: bool,
    /// What of the limit is kept for `im` and `transaction`, and not used yet.
    pub reserved: u64,
    /// When the limit of all classes will be reached if the day goes on as it began.
    pub runs_out_at: Option<Timestamp>,
    /// When that of `marketing` and `subscription` will be.
    pub bulk_runs_out_at: Option<Timestamp>,
    /// Until when the vendor takes no more `marketing`, by its own word.
    pub closed_until: Option<Timestamp>,
}

#[derive(Debug)]
struct Said {
    /// The day that it was said on.
    day: Timestamp,
    in_a_row: u32,
    closed_until: Option<Timestamp>,
}

impl Default for Said {
    fn default() -> Self {
        Self {
            day: Timestamp(0),
            in_a_row: 0,
            closed_until: None,
        }
    }
}

/// The quotas of all credentials. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Quotas {
    port: Arc<dyn port::Quota>,
    clock: Arc<dyn Clock>,
    said: Arc<Mutex<HashMap<(Account, Class), Said>>>,
}

impl Quotas {
    pub(crate) fn new(port: Arc<dyn port::Quota>, clock: Arc<dyn Clock>) -> Self {
        Self {
            port,
            clock,
            said: Arc::default(),
        }
    }

    /// Takes quota for these devices, as far as there is any. Nothing is taken for a credential without limits.
    pub(crate) async fn take(
        &self,
        account: &Account,
        limits: &Effective,
        day: Day,
        class: Class,
        devices: &[DeviceId],
    ) -> Result<Taken, StoreError> {
        if let Some(opens_at) = self.closed(account, day, class).await? {
            return Ok(Taken {
                granted: vec![false; devices.len()],
                opens_at,
                day,
            });
        }
        self.catch_up(account, limits, day).await?;
        let quota = &limits.quota;
        let mut taken = Vec::new();
        let granted = self
            .take_each(account, quota, day, class, devices, &mut taken)
            .await;
        if granted.is_err() {
            // What was taken before the store failed is not used.
            for (key, count) in taken {
                self.back(&key, day, count).await?;
            }
        }
        Ok(Taken {
            granted: granted?,
            opens_at: day.end,
            day,
        })
    }

    /// A limit that is set or named in the course of the day counts what went out before it, here or, as the vendor counts,
    /// elsewhere.
    async fn catch_up(
        &self,
        account: &Account,
        limits: &Effective,
        day: Day,
    ) -> Result<(), StoreError> {
        let [all, marketing] = limits.counted;
        let counters = [
            ("all", limits.quota.per_day.is_some(), all),
            ("bulk", bulk_limit(&limits.quota).is_some(), marketing),
        ];
        for (what, has_limit, counted) in counters {
            if !has_limit {
                continue;
            }
            let begun = account.key(&format!("begun/{what}"));
            if self.port.used(&begun, day.start).await? > 0
                || self.one(&begun, day, 1, 1).await? == 0
            {
                continue;
            }
            let mut used = 0;
            for class in Class::ALL {
                if what == "all" || is_bulk(class) {
                    let key = account.key(&format!("used/{}", class.as_str()));
                    used += self.port.used(&key, day.start).await?;
                }
            }
            let before = used.max(counted.unwrap_or(0));
            self.one(&account.key(what), day, u64::MAX, before).await?;
        }
        Ok(())
    }

    /// Takes from each counter, and writes into `taken` what it took.
    async fn take_each(
        &self,
        account: &Account,
        quota: &DailyQuota,
        day: Day,
        class: Class,
        devices: &[DeviceId],
        taken: &mut Vec<(String, u64)>,
    ) -> Result<Vec<bool>, StoreError> {
        let mut granted = vec![true; devices.len()];
        if class == Class::Marketing
            && let Some(limit) = quota.marketing_per_device
        {
            let key = |device| account.key(&format!("device/{device}"));
            let keys: Vec<String> = devices.iter().map(key).collect();
            let mut each = Vec::with_capacity(keys.len());
            // All of a batch in few writes of the store, not one after another.
            for some in keys.chunks(AT_ONCE) {
                let calls = some.iter().map(|key| self.one(key, day, limit.into(), 1));
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
        let shared = [
            ("bulk", bulk_limit(quota).filter(|_| is_bulk(class))),
            ("all", quota.per_day),
        ];
        for (what, limit) in shared {
            if let Some(limit) = limit {
                let key = account.key(what);
                let got = self.one(&key, day, limit, have).await?;
                if what == "all" && have > got && is_bulk(class) && bulk_limit(quota).is_some() {
                    let bulk = account.key("bulk");
                    self.back(&bulk, day, have - got).await?;
                    if let Some((_, count)) = taken.iter_mut().find(|(key, _)| *key == bulk) {
                        *count -= have - got;
                    }
                }
                taken.push((key, got));
                have = got;
            }
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
        self.devices_back(account, quota, day, class, back).await?;
        Ok(granted)
    }

    /// When one more push of this class to this device may go, if not now; takes nothing.
    pub(crate) async fn opens_at(
        &self,
        account: &Account,
        quota: &DailyQuota,
        day: Day,
        class: Class,
        device: &DeviceId,
    ) -> Result<Option<Timestamp>, StoreError> {
        if let Some(opens_at) = self.closed(account, day, class).await? {
            return Ok(Some(opens_at));
        }
        let device = format!("device/{device}");
        let limits = [
            ("all", quota.per_day),
            ("bulk", bulk_limit(quota).filter(|_| is_bulk(class))),
            (
                device.as_str(),
                quota
                    .marketing_per_device
                    .filter(|_| class == Class::Marketing)
                    .map(u64::from),
            ),
        ];
        for (what, limit) in limits {
            if let Some(limit) = limit
                && self.port.used(&account.key(what), day.start).await? >= limit
            {
                return Ok(Some(day.end));
            }
        }
        Ok(None)
    }

    /// Settles what was taken: each granted place with whether the vendor accepted it.
    pub(crate) async fn settle(
        &self,
        account: &Account,
        quota: &DailyQuota,
        class: Class,
        taken: &Taken,
        results: &[(DeviceId, bool)],
    ) -> Result<(), StoreError> {
        let day = taken.day;
        let accepted = results.iter().filter(|(_, ok)| *ok).count() as u64;
        let unused = results.len() as u64 - accepted;
        if accepted > 0 {
            let key = account.key(&format!("used/{}", class.as_str()));
            self.one(&key, day, u64::MAX, accepted).await?;
        }
        if unused > 0 {
            if is_bulk(class) && bulk_limit(quota).is_some() {
                self.back(&account.key("bulk"), day, unused).await?;
            }
            if quota.per_day.is_some() {
                self.back(&account.key("all"), day, unused).await?;
            }
            let devices = results.iter().filter(|(_, ok)| !*ok).map(|(d, _)| d);
            self.devices_back(account, quota, day, class, devices.collect())
                .await?;
        }
        Ok(())
    }

    async fn devices_back(
        &self,
        account: &Account,
        quota: &DailyQuota,
        day: Day,
        class: Class,
        devices: Vec<&DeviceId>,
    ) -> Result<(), StoreError> {
        if class != Class::Marketing || quota.marketing_per_device.is_none() {
            return Ok(());
        }
        let key = |device| account.key(&format!("device/{device}"));
        let keys: Vec<String> = devices.into_iter().map(key).collect();
        for some in keys.chunks(AT_ONCE) {
            let calls = some.iter().map(|key| self.back(key, day, 1));
            let done = join_all(calls.collect::<Vec<_>>()).await;
            done.into_iter().collect::<Result<(), StoreError>>()?;
        }
        Ok(())
    }

    /// The vendor answered a call of this class: it said that its quota is used up, or it did not. Once it has said so
    /// often enough, this class, if it is a bulk class, is closed until `until` or the end of its day; the others are asked each time.
    pub(crate) async fn heard(
        &self,
        account: &Account,
        day: Day,
        class: Class,
        exhausted: Option<Option<Duration>>,
    ) -> Result<(), StoreError> {
        if !is_bulk(class) {
            return Ok(());
        }
        let Some(until) = exhausted else {
            if let Some(said) = self.lock().get_mut(&(account.clone(), class)) {
                said.in_a_row = 0;
            }
            return Ok(());
        };
        let now = self.clock.now();
        // Its clock may still be in the day before.
        if now.since(day.start) < EARLY {
            return Ok(());
        }
        let until = until.map_or(day.end, |after| now.plus(after)).min(day.end);
        let believed = {
            let mut all = self.lock();
            if all.len() >= SAID_MAX {
                all.retain(|_, said| said.day == day.start);
            }
            let key = (account.clone(), class);
            if all.len() >= SAID_MAX && !all.contains_key(&key) {
                return Ok(());
            }
            let said = all.entry(key).or_default();
            if said.day != day.start {
                *said = Said {
                    day: day.start,
                    ..Said::default()
                };
            }
            said.in_a_row += 1;
            let believed = said.in_a_row >= BELIEVED_AFTER;
            if believed {
                said.closed_until = Some(until);
            }
            believed
        };
        if believed {
            // Kept over a restart: some vendors punish those who go on asking.
            self.one(&closed_key(account, class), day, 1, 1).await?;
        }
        Ok(())
    }

    /// Until when a class is closed by the vendor's word.
    async fn closed(
        &self,
        account: &Account,
        day: Day,
        class: Class,
    ) -> Result<Option<Timestamp>, StoreError> {
        if !is_bulk(class) {
            return Ok(None);
        }
        let now = self.clock.now();
        let known = {
            let all = self.lock();
            let key = (account.clone(), class);
            let said = all.get(&key).filter(|said| said.day == day.start);
            said.and_then(|said| said.closed_until)
        };
        if let Some(until) = known {
            return Ok((until > now).then_some(until));
        }
        // Perhaps it was closed before this process began.
        let key = closed_key(account, class);
        let closed = self.port.used(&key, day.start).await? > 0;
        Ok(closed.then_some(day.end))
    }

    /// Forgets what the vendor said today: the credential was stored anew, perhaps with more quota.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn reopen(&self, account: &Account, offset_s: i32) -> Result<(), StoreError> {
        let day = Day::at(self.clock.now(), offset_s);
        for class in Class::ALL.into_iter().filter(|c| is_bulk(*c)) {
            self.lock().remove(&(account.clone(), class));
            let key = closed_key(account, class);
            if self.port.used(&key, day.start).await? > 0 {
                self.back(&key, day, 1).await?;
            }
        }
        Ok(())
    }

    /// How an account stands.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn standing(
        &self,
        account: &Account,
        limits: &Effective,
        offset_s: i32,
    ) -> Result<Standing, StoreError> {
        let quota = &limits.quota;
        let now = self.clock.now();
        let day = Day::at(now, offset_s);
        let mut used = Vec::with_capacity(Class::ALL.len());
        for class in Class::ALL {
            let key = account.key(&format!("used/{}", class.as_str()));
            used.push((class, self.port.used(&key, day.start).await?));
        }
        let sum = |bulk_only: bool| -> u64 {
            let counted = used.iter().filter(|(c, _)| !bulk_only || is_bulk(*c));
            counted.map(|(_, n)| n).sum()
        };
        let bulk_per_day = bulk_limit(quota);
        let reserved = quota
            .per_day
            .map_or(0, |all| quota.reserved.unwrap_or(all / 5))
            .saturating_sub(sum(false) - sum(true));
        Ok(Standing {
            runs_out_at: quota
                .per_day
                .and_then(|limit| runs_out_at(sum(false), limit, day, now)),
            bulk_runs_out_at: bulk_per_day
                .and_then(|limit| runs_out_at(sum(true), limit, day, now)),
            closed_until: self.closed(account, day, Class::Marketing).await?,
            day,
            used,
            per_day: quota.per_day,
            per_day_named: limits.per_day_named,
            bulk_per_day,
            bulk_named: limits.marketing_named
                || (limits.per_day_named && quota.marketing_per_day.is_none()),
            reserved,
        })
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

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(Account, Class), Said>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When `limit` will be reached if the rest of the day goes as it went so far; `None` when that is not today.
fn runs_out_at(used: u64, limit: u64, day: Day, now: Timestamp) -> Option<Timestamp> {
    if used >= limit {
        return Some(now);
    }
    let passed = u128::from(now.since(day.start).as_millis() as u64).max(1);
    let needed = u128::from(limit) * passed / u128::from(used.max(1));
    let at = i64::try_from(needed)
        .ok()
        .and_then(|ms| day.start.millis().checked_add(ms))?;
    (used > 0 && at < day.end.millis()).then_some(Timestamp(at))
}

#[cfg(test)]
mod tests;
