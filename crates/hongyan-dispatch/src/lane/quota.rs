//! A lane and its credential's daily quota: what may be sent, and what becomes of the rest.

use std::collections::HashMap;
use std::time::Duration;

use hongyan_core::app::QuotaOverflow;
use hongyan_core::delivery::{Called, Input};
use hongyan_core::verdict::Verdict;
use hongyan_core::{Device, DeviceId, Reason, StoreError, Timestamp};

use super::{FULL_RETRY, Lane};
use crate::credentials::Opened;
use crate::plan;
use crate::quota::{Account, Day, Effective, Exhausted, Kind, Taken, Terms, is_bulk};
use crate::shipment::Shipment;
use crate::situation::{Read, app_facts};

/// How long after a vendor's midnight the first held pushes come: no two clocks agree.
const AFTER_MIDNIGHT: Duration = Duration::from_secs(60);

/// A shipment whose device was looked up, so that it may leave.
pub(super) type Ready = (Shipment, Device);

/// The quota of one call.
#[derive(Debug)]
pub(super) struct Share {
    account: Account,
    limits: Effective,
    taken: Taken,
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
        for (shipment, device) in over {
            let why = taken.why.clone();
            let input = self
                .over_quota(&shipment, &device, taken.opens_at, why, None)
                .await;
            rest.push((shipment, input));
        }
        let share = Share {
            account,
            limits,
            taken,
        };
        (fit, rest, Some(share))
    }

    /// Writes down what of the share was used, and what the vendor said about its own quota.
    pub(super) async fn settle_quota(&self, share: &Share, results: &[(DeviceId, Verdict)]) {
        let accepted: Vec<(DeviceId, bool)> = results
            .iter()
            .map(|(device, v)| (device.clone(), uses_quota(v)))
            .collect();
        // A vendor that took some of the call has something left: single devices had their fill.
        let some_left = accepted.iter().any(|(_, ok)| *ok);
        let exhausted = results
            .iter()
            .filter(|_| !some_left)
            .find_map(|(_, v)| match v {
                Verdict::QuotaExhausted { until, detail } => Some(Exhausted {
                    until: *until,
                    detail: detail.clone(),
                }),
                _ => None,
            });
        let quotas = &self.inner.quotas;
        let Share {
            account,
            limits,
            taken,
        } = share;
        let settled = async {
            quotas.settle(account, limits, taken, &accepted).await?;
            quotas
                .heard(account, limits.word(), taken, exhausted, some_left)
                .await
        };
        let settled: Result<(), StoreError> = settled.await;
        if let Err(error) = settled {
            tracing::warn!(channel = %share.account.channel, %error, "a quota could not be settled; it counts as used");
        }
    }

    /// What becomes of a shipment that finds the quota used up. `marketing` and `subscription` wait for the vendor's next day,
    /// or go another way if the app wants it so and there is one; the others go another way or end.
    pub(super) async fn over_quota(
        &self,
        shipment: &Shipment,
        device: &Device,
        opens_at: Timestamp,
        detail: Option<String>,
        called: Option<Called>,
    ) -> Input {
        let now = self.inner.ports.clock.now();
        let opens_at = opens_at.max(now).plus(AFTER_MIDNIGHT);
        let holds = is_bulk(shipment.message.class)
            && opens_at < shipment.delivery.expires_at
            && !self.spills(shipment, device).await;
        if holds {
            return Input::NotSent {
                reason: Reason::QuotaExhausted,
                retry_at: self.tomorrow.next(opens_at),
                detail,
                called,
            };
        }
        let verdict = Verdict::QuotaExhausted {
            until: Some(opens_at.since(now)),
            detail: detail.unwrap_or_else(|| "the day's quota is used up".to_owned()),
        };
        self.answer(shipment, verdict, None, called, now)
    }

    /// Whether the app wants such a push to go another way, and there is one.
    async fn spills(&self, shipment: &Shipment, device: &Device) -> bool {
        let app = &self.key.0;
        let facts = match app_facts(&self.inner.ports, &self.inner.learned, app).await {
            Ok(facts) => facts,
            Err(error) => {
                tracing::debug!(%error, "an app's policy could not be read; its pushes wait");
                return false;
            }
        };
        if facts.policy.quota_overflow != QuotaOverflow::Spill
            || !shipment.message.options.channels.fallback
        {
            return false;
        }
        let mut delivery = shipment.delivery.clone();
        delivery.tried.push(self.key.1.clone());
        let read = Read {
            facts: &facts,
            users: HashMap::new(),
            sessions: HashMap::new(),
            built_in_order: self.inner.credentials.built_in_order(),
            now: self.inner.ports.clock.now(),
        };
        let situation = read.situation(&shipment.message, &delivery, Some(device), None);
        plan::choose(&situation, device).is_ok()
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
