//! Which limits hold a push: pure, over what was configured and what a channel says.

use std::time::Duration;

use hongyan_core::app::DailyQuota;
use hongyan_core::port::{Channel, CountedAs, DailyLimit, LimitOf, QuotaWord, Vendor};
use hongyan_core::{Class, ClassDetail, Message, Timestamp};

use super::Day;
use super::closing::EARLY;

/// How long a limit that a vendor named is believed when it says nothing more.
pub(super) const NAMED_FOR: Duration = Duration::from_secs(2 * 86_400);

/// Whether a class comes after what is reserved for the others.
pub(crate) const fn is_bulk(class: Class) -> bool {
    class.may_wait()
}

/// What of a limit is kept for `im` and `transaction`: the same part of it that is reserved of the limit of all classes, a fifth
/// where nobody says otherwise.
pub(super) fn reserve_of(quota: &DailyQuota, limit: u64) -> u64 {
    let (Some(all), Some(reserved)) = (quota.per_day, quota.reserved) else {
        return limit / 5;
    };
    if limit == all {
        return reserved;
    }
    let part = u128::from(limit) * u128::from(reserved) / u128::from(all.max(1));
    u64::try_from(part).map_or(limit, |part| part.min(limit))
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

    pub(super) fn is_marketing(self) -> bool {
        self.counted == CountedAs::Marketing
    }

    /// The counters that it shares with pushes to other devices, each with its limit, the most particular first.
    pub(super) fn shared(self, limits: &Effective) -> impl Iterator<Item = (Shared, u64)> {
        let counters = Shared::ALL.into_iter().filter(move |s| s.counts(self));
        counters.filter_map(|shared| Some((shared, limits.of_shared(shared)?)))
    }

    pub(super) fn per_device(self, limits: &Effective) -> Option<u64> {
        let limit = limits.quota.marketing_per_device.map(u64::from);
        limit.filter(|_| self.is_marketing())
    }
}

/// A counter of pushes to many devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shared {
    /// Of what the vendor counts as marketing, the bulk classes: they leave something to an urgent class that was not granted.
    BulkMarketing,
    /// What the vendor counts as marketing.
    Marketing,
    /// The bulk classes.
    Bulk,
    /// Everything.
    All,
}

impl Shared {
    /// The most particular first.
    pub(super) const ALL: [Self; 4] = [Self::BulkMarketing, Self::Marketing, Self::Bulk, Self::All];

    /// In keys.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::BulkMarketing => "bulk_marketing",
            Self::Marketing => "marketing",
            Self::Bulk => "bulk",
            Self::All => "all",
        }
    }

    pub(super) fn counts(self, kind: Kind) -> bool {
        (!self.is_of_bulk() || is_bulk(kind.class))
            && (!self.is_of_marketing() || kind.is_marketing())
    }

    const fn is_of_bulk(self) -> bool {
        matches!(self, Self::BulkMarketing | Self::Bulk)
    }

    /// Whether only what the vendor counts as marketing is in it.
    pub(super) const fn is_of_marketing(self) -> bool {
        matches!(self, Self::BulkMarketing | Self::Marketing)
    }
}

/// What the books say of a day, by class in the order of [`Class::ALL`].
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Booked {
    pub(super) used: [u64; Class::ALL.len()],
    /// Of these, what the vendor counted as marketing.
    pub(super) as_marketing: [u64; Class::ALL.len()],
}

impl Booked {
    /// What of it is in a counter.
    pub(super) fn of(&self, shared: Shared) -> u64 {
        let counts = match shared.is_of_marketing() {
            true => self.as_marketing,
            false => self.used,
        };
        let classes = Class::ALL.into_iter().zip(counts);
        let in_it = classes.filter(|(class, _)| !shared.is_of_bulk() || is_bulk(*class));
        in_it.map(|(_, count)| count).sum()
    }
}

/// How a vendor counts the pushes of a class: all alike, or by their details in both ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counts {
    service: bool,
    marketing: bool,
}

impl Counts {
    fn of(class: Class, counts_as: impl Fn(Class, Option<ClassDetail>) -> CountedAs) -> Self {
        let mut counts = Self {
            service: false,
            marketing: false,
        };
        let mut count = |detail| match counts_as(class, detail) {
            CountedAs::Service => counts.service = true,
            CountedAs::Marketing => counts.marketing = true,
        };
        match class {
            Class::Transaction => ClassDetail::ALL.into_iter().map(Some).for_each(count),
            _ => count(None),
        }
        counts
    }
}

/// What a channel says about its vendor's quotas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// The limits that the vendor named.
    pub named: Vec<DailyLimit>,
    /// How each class is counted, in the order of [`Class::ALL`].
    counted: [Counts; Class::ALL.len()],
    word: QuotaWord,
}

impl Terms {
    /// Those of an open channel.
    #[must_use]
    pub fn of(channel: &dyn Channel, vendor: &dyn Vendor) -> Self {
        let counts_as = |class, detail| channel.counts_as(class, detail);
        Self {
            named: channel.limits(),
            counted: Class::ALL.map(|class| Counts::of(class, counts_as)),
            word: vendor.capability().quota_word,
        }
    }

    /// Those of a channel that does not open.
    #[must_use]
    pub fn unopened(vendor: &dyn Vendor) -> Self {
        Self::plain(vendor.capability().quota_word)
    }

    pub(super) fn plain(word: QuotaWord) -> Self {
        Self {
            named: Vec::new(),
            counted: Class::ALL.map(|class| Counts::of(class, |class, _| CountedAs::of(class))),
            word,
        }
    }

    #[cfg(test)]
    pub(super) fn counting(
        self,
        counts_as: impl Fn(Class, Option<ClassDetail>) -> CountedAs,
    ) -> Self {
        Self {
            counted: Class::ALL.map(|class| Counts::of(class, &counts_as)),
            ..self
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
    /// When the vendor named the newest of these.
    pub(super) named_at: Option<Timestamp>,
    /// What the vendor itself counted today under the limits that are its own: of all, and of marketing.
    heard: [u64; 2],
    counted: [Counts; Class::ALL.len()],
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
            // Just after midnight its clock may still count the day before.
            let today = limit.filter(|l| l.at >= day.start.plus(EARLY));
            today.and_then(|l| l.used).unwrap_or(0)
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
            named_at: all.into_iter().chain(marketing).map(|l| l.at).max(),
            heard: [heard(all), heard(marketing)],
            counted: terms.counted,
            word: terms.word,
        }
    }

    /// Without what the vendor named: for a push that asks whether its word still holds, and after one that was taken.
    pub(super) fn configured_only(mut self) -> Self {
        if self.per_day_named {
            self.quota.per_day = None;
        }
        if self.marketing_named {
            self.quota.marketing_per_day = None;
        }
        self.heard = [0, 0];
        self
    }

    /// The limit of a counter.
    pub(super) fn of_shared(&self, shared: Shared) -> Option<u64> {
        let quota = &self.quota;
        let rest = |limit: u64| limit.saturating_sub(reserve_of(quota, limit));
        match shared {
            Shared::All => quota.per_day,
            Shared::Marketing => quota.marketing_per_day,
            Shared::Bulk => quota.per_day.map(rest),
            Shared::BulkMarketing => quota
                .marketing_per_day
                .filter(|_| self.urgent_may_be_marketing())
                .map(rest),
        }
    }

    /// Whether an urgent class, or some kinds of it, was not granted and goes out as marketing: then it finds a part reserved
    /// there, too.
    pub(super) fn urgent_may_be_marketing(&self) -> bool {
        self.kinds()
            .any(|kind| !is_bulk(kind.class) && kind.is_marketing())
    }

    /// Every kind of push that there is with this credential.
    pub(super) fn kinds(&self) -> impl Iterator<Item = Kind> + use<> {
        let classes = Class::ALL.into_iter().zip(self.counted);
        classes.flat_map(|(class, counts)| {
            let kind = |counted| Kind { class, counted };
            let service = counts.service.then(|| kind(CountedAs::Service));
            let marketing = counts.marketing.then(|| kind(CountedAs::Marketing));
            service.into_iter().chain(marketing)
        })
    }

    /// The least that a counter must have: what is in the books, or what the vendor counts itself where that is more.
    pub(super) fn at_least(&self, shared: Shared, booked: &Booked) -> u64 {
        let [all, marketing] = self.heard;
        let heard = match shared {
            Shared::All => all,
            Shared::Marketing => marketing,
            Shared::Bulk | Shared::BulkMarketing => 0,
        };
        booked.of(shared).max(heard)
    }

    /// What the vendor's word that a quota is used up closes.
    pub(crate) const fn word(&self) -> QuotaWord {
        self.word
    }
}
