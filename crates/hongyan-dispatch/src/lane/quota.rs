//! A lane and its credential's daily quota: what may be sent, and what becomes of the rest.

use std::collections::HashMap;
use std::time::Duration;

use hongyan_core::app::QuotaOverflow;
use hongyan_core::delivery::{Called, Input};
use hongyan_core::port::QuotaWord;
use hongyan_core::verdict::Verdict;
use hongyan_core::{Device, DeviceId, Reason, Timestamp};

use super::{FULL_RETRY, Lane};
use crate::credentials::Opened;
use crate::plan;
use crate::quota::{Account, Day, Effective, Exhausted, Kind, Taken, Terms, is_bulk};
use crate::shipment::Shipment;
use crate::situation::{AppFacts, Read, app_facts};

/// How long after a vendor's midnight the first held pushes come: no two clocks agree.
const AFTER_MIDNIGHT: Duration = Duration::from_secs(60);

/// A shipment whose device was looked up, so that it may leave.
pub(super) type Ready = (Shipment, Device);

/// The quota of one call.
#[derive(Debug)]
pub(super) struct Share {
    account: Account,
    word: QuotaWord,
    taken: Taken,
}

/// Why a shipment is over the quota.
#[derive(Debug)]
pub(super) struct Over {
    /// When there is more.
    pub(super) opens_at: Timestamp,
    /// The vendor's words, when it said so.
    pub(super) detail: Option<String>,
    /// The call that was made all the same.
    pub(super) called: Option<Called>,
}

/// What the app wants of pushes that a quota keeps back.
#[derive(Debug, Default)]
pub(super) enum Policy {
    #[default]
    Unread,
    Holds,
    Spills(Box<AppFacts>),
}

impl Lane {
    /// Those that the quota lets go, what becomes of the others, and the share that must be settled after the call.
    pub(super) async fn within_quota(
        &self,
        opened: &Opened,
        ready: Vec<Ready>,
    ) -> (Vec<Ready>, Vec<(Shipment, Input)>, Option<Share>) {
        let Some((first, _)) = ready.first() else {
            return (ready, Vec::new(), None);
        };
        let now = self.inner.ports.clock.now();
        let account = self.account();
        let kind = Kind::of(&first.message, opened.channel.as_ref());
        let day = Day::at(now, opened.vendor.day_offset_s());
        let devices: Vec<DeviceId> = ready.iter().map(|(_, d)| d.id.clone()).collect();
        let quotas = &self.inner.quotas;
        let terms = Terms::of(opened.channel.as_ref(), opened.vendor.as_ref());
        let limits = Effective::of(&opened.limits.quota, &terms, day, now);
        let taken = match quotas.take(&account, &limits, day, kind, &devices).await {
            Ok(taken) => taken,
            Err(error) => {
                tracing::warn!(channel = %account.channel, %error, "a lane could not read its quota; its shipments come again");
                let again = Input::NotSent {
                    reason: Reason::VendorUnavailable,
                    retry_at: now.plus(FULL_RETRY),
                    detail: None,
                    called: None,
                };
                let back = ready.into_iter().map(|(s, _)| (s, again.clone()));
                return (Vec::new(), back.collect(), None);
            }
        };
        let (mut fit, mut over) = (Vec::with_capacity(ready.len()), Vec::new());
        for ((shipment, device), granted) in ready.into_iter().zip(&taken.granted) {
            if *granted {
                fit.push((shipment, device));
            } else {
                over.push((shipment, device));
            }
        }
        let mut rest = Vec::with_capacity(over.len());
        let mut policy = Policy::default();
        for (shipment, device) in over {
            let over = Over {
                opens_at: taken.opens_at,
                detail: taken.why.clone(),
                called: None,
            };
            let input = self.over_quota(&shipment, &device, over, &mut policy).await;
            rest.push((shipment, input));
        }
        let share = Share {
            account,
            word: limits.word(),
            taken,
        };
        (fit, rest, Some(share))
    }

    /// Writes down what of the share was used, and what the vendor said about its own quota.
    pub(super) async fn settle_quota(&self, share: &Share, results: &[(DeviceId, Verdict)]) {
        let used: Vec<(DeviceId, bool)> = results
            .iter()
            .map(|(device, v)| (device.clone(), uses_quota(v)))
            .collect();
        // Who took some of a call and said of the rest that there is nothing left means that from now on.
        let exhausted = results.iter().find_map(|(_, v)| match v {
            Verdict::QuotaExhausted { until, detail } => Some(Exhausted {
                until: *until,
                detail: detail.clone(),
            }),
            _ => None,
        });
        let took = |(_, v): &(DeviceId, Verdict)| matches!(v, Verdict::Accepted { .. });
        let accepted = results.iter().any(took);
        let quotas = &self.inner.quotas;
        let Share {
            account,
            word,
            taken,
        } = share;
        let settled = quotas.settle(account, taken, &used).await;
        if let Err(error) = settled {
            tracing::warn!(channel = %account.channel, %error, "a quota could not be settled; it counts as used");
        }
        let heard = quotas.heard(account, *word, taken, exhausted, accepted);
        if let Err(error) = heard.await {
            tracing::warn!(channel = %account.channel, %error, "what a vendor said of its quota could not be written down; its next word will be");
        }
    }

    /// What becomes of a shipment that finds the quota used up. `marketing` and `subscription` wait for the vendor's next day,
    /// or go another way if the app wants it so and there is one; the others go another way or end.
    pub(super) async fn over_quota(
        &self,
        shipment: &Shipment,
        device: &Device,
        over: Over,
        policy: &mut Policy,
    ) -> Input {
        let now = self.inner.ports.clock.now();
        let opens_at = over.opens_at.max(now).plus(AFTER_MIDNIGHT);
        let may_hold = is_bulk(shipment.message.class)
            && opens_at < shipment.delivery.expires_at
            && !self.spills(shipment, device, policy).await;
        // The time that it really gets: so many may wait for the same hour that its turn comes too late.
        let before = shipment.delivery.expires_at;
        let turn = may_hold.then(|| self.reopenings.next(opens_at, now, before));
        if let Some(retry_at) = turn.flatten() {
            return Input::NotSent {
                reason: Reason::QuotaExhausted,
                retry_at,
                detail: over.detail,
                called: over.called,
            };
        }
        // Whose turn would come too late does not wait for it.
        let until = if may_hold { before } else { opens_at };
        let verdict = Verdict::QuotaExhausted {
            until: Some(until.since(now)),
            detail: (over.detail).unwrap_or_else(|| "the day's quota is used up".to_owned()),
        };
        self.answer(shipment, verdict, None, over.called, now)
    }

    /// Whether the app wants such a push to go another way, and there is one.
    async fn spills(&self, shipment: &Shipment, device: &Device, policy: &mut Policy) -> bool {
        if !shipment.message.options.channels.fallback {
            return false;
        }
        let Some(facts) = self.spilling(policy).await else {
            return false;
        };
        let mut delivery = shipment.delivery.clone();
        delivery.tried.push(self.key.1.clone());
        let read = Read {
            facts,
            users: HashMap::new(),
            sessions: HashMap::new(),
            built_in_order: self.inner.credentials.built_in_order(),
            now: self.inner.ports.clock.now(),
        };
        let situation = read.situation(&shipment.message, &delivery, Some(device), None);
        plan::choose(&situation, device).is_ok()
    }

    /// What the app decided, if it wants what a quota keeps back to go another way. Read once for a group.
    async fn spilling<'p>(&self, policy: &'p mut Policy) -> Option<&'p AppFacts> {
        if let Policy::Unread = policy {
            let read = app_facts(&self.inner.ports, &self.inner.learned, &self.key.0).await;
            *policy = match read {
                Ok(facts) if facts.policy.quota_overflow == QuotaOverflow::Spill => {
                    Policy::Spills(Box::new(facts))
                }
                Ok(_) => Policy::Holds,
                Err(error) => {
                    tracing::debug!(%error, "an app's policy could not be read; its pushes wait");
                    Policy::Holds
                }
            };
        }
        match policy {
            Policy::Spills(facts) => Some(facts),
            Policy::Unread | Policy::Holds => None,
        }
    }

    fn account(&self) -> Account {
        let (app, channel, credential) = self.key.clone();
        Account {
            app,
            channel,
            credential,
        }
    }
}

/// Whether the vendor counts it, or may count it.
const fn uses_quota(verdict: &Verdict) -> bool {
    use hongyan_core::verdict::Unsure;
    matches!(
        verdict,
        Verdict::Accepted { .. }
            | Verdict::Retry {
                certainty: Unsure::MaybeTaken,
                ..
            }
    )
}
