//! How a credential stands in its vendor's day, for the report.

use hongyan_core::port::CountedAs;
use hongyan_core::{Class, StoreError, Timestamp};

use super::limits::{Booked, Shared, reserve_of};
use super::{Account, Closed, Day, Effective, Quotas, is_bulk};

/// How an account stands today.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The day.
    pub day: Day,
    /// Accepted by the vendor, by class; what may have been, when its answer was lost, counts too.
    pub used: Vec<(Class, u64)>,
    /// The limit of all classes.
    pub per_day: Option<u64>,
    /// Whether that is the vendor's own word, since none was configured.
    pub per_day_named: bool,
    /// The most that `marketing` may use.
    pub marketing_per_day: Option<u64>,
    /// Whether it comes of the vendor's own word.
    pub marketing_named: bool,
    /// What of the limit of all classes is kept for `im` and `transaction`, and not used yet.
    pub reserved: u64,
    /// What of the limit on marketing is kept for pushes of `im` and `transaction` that go out as marketing, and not used yet.
    pub marketing_reserved: u64,
    /// When the limit of all classes will be reached if the day goes on as it began.
    pub runs_out_at: Option<Timestamp>,
    /// When nothing will be left for `marketing`.
    pub marketing_runs_out_at: Option<Timestamp>,
    /// The classes of which the vendor takes no more for now, or of some kinds of which, by its own word.
    pub closed: Vec<(Class, Closed)>,
}

impl Quotas {
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
        let limits = &self.believed(account, limits);
        let quota = &limits.quota;
        let now = self.clock.now();
        let day = Day::at(now, offset_s);
        let mut closed: Vec<(Class, Closed)> = Vec::new();
        for kind in limits.kinds() {
            let Some(word) = self.closed(account, limits.word(), kind).await? else {
                continue;
            };
            match closed.iter_mut().find(|(class, _)| *class == kind.class) {
                Some((_, known)) if known.until >= word.until => {}
                Some((_, known)) => *known = word,
                None => closed.push((kind.class, word)),
            }
        }
        let booked = self.booked(account, day).await?;
        let rest = limits.of_shared(Shared::Bulk);
        let marketing = limits
            .of_shared(Shared::BulkMarketing)
            .or(limits.of_shared(Shared::Marketing));
        let reserved = quota.per_day.map_or(0, |all| reserve_of(quota, all));
        let marketing_reserved = quota
            .marketing_per_day
            .filter(|_| limits.urgent_may_be_marketing())
            .map_or(0, |limit| reserve_of(quota, limit));
        let of = |shared| limits.at_least(shared, &booked);
        let ends = |shared| runs_out_at(of(shared), limits.of_shared(shared)?, day, now);
        Ok(Standing {
            runs_out_at: ends(Shared::All),
            marketing_runs_out_at: Shared::ALL.into_iter().filter_map(ends).min(),
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
            used: Class::ALL.into_iter().zip(booked.used).collect(),
            reserved: reserved.saturating_sub(urgent(&booked.used)),
            marketing_reserved: marketing_reserved.saturating_sub(urgent(&booked.as_marketing)),
        })
    }

    /// What the books say of a day.
    pub(super) async fn booked(&self, account: &Account, day: Day) -> Result<Booked, StoreError> {
        let mut booked = Booked::default();
        let places = booked.used.iter_mut().zip(&mut booked.as_marketing);
        for (class, (used, as_marketing)) in Class::ALL.into_iter().zip(places) {
            *used = self.port.used(&account.used_key(class), day.start).await?;
            let key = account.otherwise_key(class);
            let otherwise = self.port.used(&key, day.start).await?;
            *as_marketing = match CountedAs::of(class) {
                CountedAs::Service => otherwise,
                CountedAs::Marketing => used.saturating_sub(otherwise),
            };
        }
        Ok(booked)
    }
}

/// What the urgent classes have of it.
fn urgent(counts: &[u64; Class::ALL.len()]) -> u64 {
    let classes = Class::ALL.into_iter().zip(counts);
    let urgent = classes.filter(|(class, _)| !is_bulk(*class));
    urgent.map(|(_, count)| count).sum()
}

/// When `limit` will be reached if the rest of the day goes as it went so far; `None` when that is not today.
pub(super) fn runs_out_at(used: u64, limit: u64, day: Day, now: Timestamp) -> Option<Timestamp> {
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
