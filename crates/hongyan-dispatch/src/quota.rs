//! Daily quotas of credentials: what may be sent today, what is kept for whom, what a vendor said about it.
//!
//! A day is the vendor's. `im` and `transaction` may use all of it, `subscription` and `marketing` only what is not
//! reserved; a limit on marketing holds what the vendor counts as that, which the channel says. What is taken before a call
//! and not accepted by the vendor is given back, so that the counters are those of the accepted pushes.

mod closing;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use hongyan_core::app::DailyQuota;
use hongyan_core::port::{self, Channel, Clock, CountedAs, DailyLimit, LimitOf, QuotaWord, Vendor};
use hongyan_core::{
    AppId, ChannelId, Class, CredentialName, DeviceId, Message, StoreError, Timestamp,
};

pub use closing::Closed;
use closing::Said;
pub(crate) use closing::{Exhausted, believed_until};

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

    fn used_key(&self, class: Class) -> String {
        self.key(&format!("used/{}", class.as_str()))
    }

    /// What went out of a service class and was counted as marketing.
    fn public_key(&self, class: Class) -> String {
        self.key(&format!("public/{}", class.as_str()))
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

/// Whether a class comes after what is reserved for the others.
pub(crate) const fn is_bulk(class: Class) -> bool {
    matches!(class, Class::Marketing | Class::Subscription)
}

/// What `marketing` and `subscription` may use together of a limit that all classes share.
fn unreserved(quota: &DailyQuota) -> Option<u64> {
    quota
        .per_day
        .map(|all| all.saturating_sub(quota.reserved.unwrap_or(all / 5)))
}

/// A push, as far as quotas are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) class: Class,
    pub(crate) counted: CountedAs,
}

impl Kind {
    /// The kind of a message where it goes out through this channel.
    pub(crate) fn of(message: &Message, channel: &dyn Channel) -> Self {
        Self {
            class: message.class,
            counted: channel.counts_as(message.class, message.class_detail),
        }
    }

    fn is_marketing(self) -> bool {
        self.counted == CountedAs::Marketing
    }

    /// The counters that it shares with pushes to other devices, each with its limit, the most particular first.
    fn shared(self, limits: &Effective) -> impl Iterator<Item = (&'static str, u64)> {
        let quota = &limits.quota;
        let marketing = limits.marketing_for(self.class);
        let marketing = marketing.filter(|_| self.is_marketing());
        let bulk = unreserved(quota).filter(|_| is_bulk(self.class));
        [
            ("marketing", marketing),
            ("bulk", bulk),
            ("all", quota.per_day),
        ]
        .into_iter()
        .filter_map(|(what, limit)| Some((what, limit?)))
    }

    fn per_device(self, limits: &Effective) -> Option<u64> {
        let limit = limits.quota.marketing_per_device.map(u64::from);
        limit.filter(|_| self.is_marketing())
    }
}

/// What a channel says about its vendor's quotas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// The limits that the vendor named.
    pub named: Vec<DailyLimit>,
    /// How each class is counted, in the order of [`Class::ALL`].
    counted: [CountedAs; Class::ALL.len()],
    word: QuotaWord,
}

impl Terms {
    /// Those of an open channel.
    #[must_use]
    pub fn of(channel: &dyn Channel, vendor: &dyn Vendor) -> Self {
        Self {
            named: channel.limits(),
            counted: Class::ALL.map(|class| channel.counts_as(class, None)),
            word: vendor.capability().quota_word,
        }
    }

    /// Those of a channel that does not open.
    #[must_use]
    pub fn unopened(vendor: &dyn Vendor) -> Self {
        Self {
            named: Vec::new(),
            counted: Class::ALL.map(CountedAs::of),
            word: vendor.capability().quota_word,
        }
    }
}

/// The limits of a credential, and which of them are the vendor's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effective {
    /// What counts.
    pub quota: DailyQuota,
    /// Whether [`DailyQuota::per_day`] is the vendor's.
    pub per_day_named: bool,
    /// Whether [`DailyQuota::marketing_per_day`] is the vendor's.
    pub marketing_named: bool,
    /// What the vendor itself counted today under the limits that are its own: of all, and of marketing.
    heard: [Option<u64>; 2],
    counted: [CountedAs; Class::ALL.len()],
    word: QuotaWord,
}

impl Effective {
    /// What was configured; where nothing was, what the vendor named lately.
    #[must_use]
    pub fn of(configured: &DailyQuota, terms: &Terms, day: Day, now: Timestamp) -> Self {
        let find = |of: LimitOf| {
            let fresh = |l: &&DailyLimit| l.of == of && now.since(l.at) < NAMED_FOR;
            terms.named.iter().filter(fresh).max_by_key(|l| l.at)
        };
        let heard = |limit: Option<&DailyLimit>| {
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
            heard: [heard(all), heard(marketing)],
            counted: terms.counted,
            word: terms.word,
        }
    }

    /// What a class may use of the limit on marketing. An urgent class that goes out as marketing, because it was not granted,
    /// finds a part reserved there, too.
    fn marketing_for(&self, class: Class) -> Option<u64> {
        let limit = self.quota.marketing_per_day?;
        let urgent_too = Class::ALL
            .into_iter()
            .zip(self.counted)
            .any(|(class, counted)| !is_bulk(class) && counted == CountedAs::Marketing);
        Some(match is_bulk(class) && urgent_too {
            true => limit.saturating_sub(self.quota.reserved.unwrap_or(limit / 5)),
            false => limit,
        })
    }

    /// What the vendor's word that a quota is used up closes.
    pub(crate) const fn word(&self) -> QuotaWord {
        self.word
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
    /// The most that `marketing` may use.
    pub marketing_per_day: Option<u64>,
    /// Whether it comes of the vendor's own word.
    pub marketing_named: bool,
    /// What of the limit is kept for `im` and `transaction`, and not used yet.
    pub reserved: u64,
    /// When the limit of all classes will be reached if the day goes on as it began.
    pub runs_out_at: Option<Timestamp>,
    /// When nothing will be left for `marketing`.
    pub marketing_runs_out_at: Option<Timestamp>,
    /// The classes of which the vendor takes no more for now, by its own word.
    pub closed: Vec<(Class, Closed)>,
}

/// The quotas of all credentials. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Quotas {
    port: Arc<dyn port::Quota>,
    clock: Arc<dyn Clock>,
    said: Arc<Mutex<HashMap<(Account, &'static str), Said>>>,
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
        kind: Kind,
        devices: &[DeviceId],
    ) -> Result<Taken, StoreError> {
        let mut taken = Taken {
            granted: vec![false; devices.len()],
            opens_at: day.end,
            why: None,
            probe: false,
            kind,
            day,
        };
        let mut asked = devices;
        if let Some(closed) = self.closed(account, limits.word, day, kind).await? {
            taken.opens_at = closed.until;
            taken.why = Some(closed.why);
            if !self.may_probe(account, limits.word, kind) {
                return Ok(taken);
            }
            // One tells as much as all.
            taken.probe = true;
            asked = devices.get(..1).unwrap_or_default();
        }
        self.catch_up(account, limits, day).await?;
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

    /// A limit that is set or named in the course of the day counts what went out before it, here or, as the vendor counts,
    /// elsewhere.
    async fn catch_up(
        &self,
        account: &Account,
        limits: &Effective,
        day: Day,
    ) -> Result<(), StoreError> {
        let [all, marketing] = limits.heard;
        let quota = &limits.quota;
        let counters = [
            ("all", quota.per_day, all),
            ("bulk", unreserved(quota), None),
            ("marketing", quota.marketing_per_day, marketing),
        ];
        for (what, limit, heard) in counters {
            if limit.is_none() {
                continue;
            }
            let begun = account.key(&format!("begun/{what}"));
            if self.port.used(&begun, day.start).await? > 0
                || self.one(&begun, day, 1, 1).await? == 0
            {
                continue;
            }
            let used = match what {
                "marketing" => self.used_as_marketing(account, day).await?,
                what => {
                    let mut used = 0;
                    for class in Class::ALL {
                        if what == "all" || is_bulk(class) {
                            used += self.port.used(&account.used_key(class), day.start).await?;
                        }
                    }
                    used
                }
            };
            let before = used.max(heard.unwrap_or(0));
            self.one(&account.key(what), day, u64::MAX, before).await?;
        }
        Ok(())
    }

    /// What the vendor took today and counts as marketing.
    async fn used_as_marketing(&self, account: &Account, day: Day) -> Result<u64, StoreError> {
        let mut used = 0;
        for class in Class::ALL {
            let key = match class {
                Class::Marketing => account.used_key(class),
                class => account.public_key(class),
            };
            used += self.port.used(&key, day.start).await?;
        }
        Ok(used)
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
        for (what, limit) in kind.shared(limits) {
            let key = account.key(what);
            let got = self.one(&key, day, limit, have).await?;
            // Another counter had more: the rest of it goes back.
            let excess = have - got;
            for (key, count) in taken.iter_mut().skip(before) {
                self.back(key, day, excess).await?;
                *count -= excess;
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
        if let Some(closed) = self.closed(account, limits.word, day, kind).await?
            && !closed.asks
        {
            return Ok(Some(closed.until));
        }
        let device = format!("device/{device}");
        let own = kind.per_device(limits).map(|limit| (device, limit));
        let shared = kind
            .shared(limits)
            .map(|(what, limit)| (what.to_owned(), limit));
        for (what, limit) in shared.chain(own) {
            if self.port.used(&account.key(&what), day.start).await? >= limit {
                return Ok(Some(day.end));
            }
        }
        Ok(None)
    }

    /// Settles what was taken: each granted place with whether the vendor accepted it.
    pub(crate) async fn settle(
        &self,
        account: &Account,
        limits: &Effective,
        taken: &Taken,
        results: &[(DeviceId, bool)],
    ) -> Result<(), StoreError> {
        let (day, kind) = (taken.day, taken.kind);
        let accepted = results.iter().filter(|(_, ok)| *ok).count() as u64;
        let unused = results.len() as u64 - accepted;
        if accepted > 0 {
            let key = account.used_key(kind.class);
            self.one(&key, day, u64::MAX, accepted).await?;
            if kind.is_marketing() && kind.class != Class::Marketing {
                let key = account.public_key(kind.class);
                self.one(&key, day, u64::MAX, accepted).await?;
            }
        }
        if unused > 0 {
            for (what, _) in kind.shared(limits) {
                self.back(&account.key(what), day, unused).await?;
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
        let mut closed = Vec::new();
        for (class, counted) in Class::ALL.into_iter().zip(limits.counted) {
            used.push((
                class,
                self.port.used(&account.used_key(class), day.start).await?,
            ));
            let kind = Kind { class, counted };
            let word = self.closed(account, limits.word, day, kind).await?;
            closed.extend(word.map(|closed| (class, closed)));
        }
        let sum = |bulk_only: bool| -> u64 {
            let counted = used.iter().filter(|(c, _)| !bulk_only || is_bulk(*c));
            counted.map(|(_, n)| n).sum()
        };
        let as_marketing = self.used_as_marketing(account, day).await?;
        let (rest, marketing) = (unreserved(quota), limits.marketing_for(Class::Marketing));
        let reserved = quota
            .per_day
            .map_or(0, |all| quota.reserved.unwrap_or(all / 5))
            .saturating_sub(sum(false) - sum(true));
        let runs_out = |used, limit: Option<u64>| runs_out_at(used, limit?, day, now);
        let ends = [runs_out(sum(true), rest), runs_out(as_marketing, marketing)];
        Ok(Standing {
            runs_out_at: runs_out(sum(false), quota.per_day),
            marketing_runs_out_at: ends.into_iter().flatten().min(),
            closed,
            day,
            per_day: quota.per_day,
            per_day_named: limits.per_day_named,
            marketing_per_day: rest.into_iter().chain(marketing).min(),
            marketing_named: match (rest, marketing) {
                (Some(rest), Some(marketing)) if rest < marketing => limits.per_day_named,
                (_, Some(_)) => limits.marketing_named,
                _ => limits.per_day_named,
            },
            used,
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
