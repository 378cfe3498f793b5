//! A lane and its credential's daily quota: what may be sent, and what becomes of the rest.

use hongyan_core::app::QuotaOverflow;
use hongyan_core::delivery::Input;
use hongyan_core::verdict::Verdict;
use hongyan_core::{Class, Device, DeviceId, Reason, StoreError, Timestamp};

use super::{FULL_RETRY, Lane};
use crate::choice::has_other;
use crate::credentials::Opened;
use crate::quota::{Account, Day, Taken, is_bulk};
use crate::shipment::Shipment;

/// A shipment whose device was looked up, so that it may leave.
pub(super) type Ready = (Shipment, Device);

/// The quota of one call.
#[derive(Debug)]
pub(super) struct Share {
    account: Account,
    class: Class,
    day: Day,
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
        let class = first.message.class;
        let day = Day::at(now, opened.vendor.day_offset_s());
        let devices: Vec<DeviceId> = ready.iter().map(|(_, d)| d.id.clone()).collect();
        let quotas = &self.inner.quotas;
        let limits = &opened.limits.quota;
        let taken = match quotas.take(&account, limits, day, class, &devices).await {
            Ok(taken) => taken,
            Err(error) => {
                tracing::warn!(channel = %account.channel, %error, "a lane could not read its quota; its shipments come again");
                let again = Input::NotSent {
                    reason: Reason::VendorUnavailable,
                    retry_at: now.plus(FULL_RETRY),
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
            let input = self.over_quota(&shipment, &device, day.end, None).await;
            rest.push((shipment, input));
        }
        let share = Share {
            account,
            class,
            day,
            taken,
        };
        (fit, rest, Some(share))
    }

    /// Writes down what of the share was used, and what the vendor said about its own quota.
    pub(super) async fn settle_quota(
        &self,
        opened: &Opened,
        share: &Share,
        results: &[(DeviceId, Verdict)],
    ) {
        let accepted: Vec<(DeviceId, bool)> = results
            .iter()
            .map(|(device, v)| (device.clone(), uses_quota(v)))
            .collect();
        let exhausted = results.iter().find_map(|(_, v)| match v {
            Verdict::QuotaExhausted { until, .. } => Some(*until),
            _ => None,
        });
        let quotas = &self.inner.quotas;
        let settled = async {
            quotas
                .settle(
                    &share.account,
                    &opened.limits.quota,
                    share.class,
                    &share.taken,
                    &accepted,
                )
                .await?;
            quotas
                .heard(&share.account, share.day, share.class, exhausted)
                .await
        };
        let settled: Result<(), StoreError> = settled.await;
        if let Err(error) = settled {
            tracing::warn!(channel = %share.account.channel, %error, "a quota could not be settled; it counts as used");
        }
    }

    /// What becomes of a shipment that finds the quota used up: it waits for the vendor's next day, or goes another way.
    pub(super) async fn over_quota(
        &self,
        shipment: &Shipment,
        device: &Device,
        opens_at: Timestamp,
        detail: Option<String>,
    ) -> Input {
        let class = shipment.message.class;
        let other = shipment.message.options.channels.fallback
            && has_other(&shipment.delivery, &shipment.message, device, &self.key.1);
        let now = self.inner.ports.clock.now();
        let spills = !is_bulk(class) || self.overflow().await == QuotaOverflow::Spill;
        let opens_at = self.returns.next(opens_at.max(now));
        if (spills && other) || opens_at >= shipment.delivery.expires_at {
            let verdict = Verdict::QuotaExhausted {
                until: Some(opens_at.since(now)),
                detail: detail.unwrap_or_else(|| "the day's quota is used up".to_owned()),
            };
            return self.answer(shipment, verdict, None, now);
        }
        Input::NotSent {
            reason: Reason::QuotaExhausted,
            retry_at: opens_at,
        }
    }

    async fn overflow(&self) -> QuotaOverflow {
        match self.inner.ports.registry.app(&self.key.0).await {
            Ok(app) => app.map(|a| a.policy.quota_overflow).unwrap_or_default(),
            Err(error) => {
                tracing::debug!(%error, "an app's policy could not be read; its pushes wait");
                QuotaOverflow::Hold
            }
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
