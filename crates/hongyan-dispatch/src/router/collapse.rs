//! Messages with the same collapse key: only the newest goes on.

use std::collections::HashMap;

use hongyan_core::delivery::{Delivery, Input};
use hongyan_core::port::{Job, JobKind};
use hongyan_core::{DeviceId, Message, Reason, StoreError, Timestamp, UserId};

use super::Router;
use super::candidates::Found;
use super::leg::Leg;
use crate::situation;

/// The newest message of each device and collapse key among those that are planned together: the others give way to it
/// without ever having been with anybody.
#[derive(Debug, Default)]
pub(super) struct Newest(
    HashMap<(DeviceId, Option<UserId>, String), (Timestamp, hongyan_core::MessageId)>,
);

impl Newest {
    pub(super) fn of(jobs: &[Job], messages: &situation::Known, candidates: &[Found]) -> Self {
        let mut newest = HashMap::new();
        for (job, found) in jobs.iter().zip(candidates) {
            // What was recalled takes nobody's place.
            let Some((message, None)) = messages.get(&job.message) else {
                continue;
            };
            let Some(key) = &message.options.collapse_key else {
                continue;
            };
            if matches!(job.kind, JobKind::Deliver { .. }) {
                continue;
            }
            for device in found.devices.values() {
                let user = device.user.clone().filter(|_| job.is_to_user());
                let rank = message.rank();
                let at = newest
                    .entry((device.id.clone(), user, key.clone()))
                    .or_insert(rank);
                *at = rank.max(*at);
            }
        }
        Self(newest)
    }

    pub(super) fn is_after(&self, delivery: &Delivery, message: &Message) -> bool {
        let Some(key) = &delivery.collapse_key else {
            return false;
        };
        let of = (delivery.device.clone(), delivery.user.clone(), key.clone());
        self.0.get(&of).is_some_and(|rank| *rank > message.rank())
    }
}

impl Router {
    /// Ends the undelivered older deliveries to this device with the same collapse key. Answers whether there is a newer
    /// one already, to which this delivery has to give way.
    pub(super) async fn collapse(
        &self,
        planned: &Delivery,
        message: &Message,
        now: Timestamp,
        leg: &mut Leg,
    ) -> Result<bool, StoreError> {
        let Some(key) = &planned.collapse_key else {
            return Ok(false);
        };
        let ledger = &self.ports.ledger;
        let mut others = ledger
            .open_with_collapse_key(&planned.app, &planned.device, key)
            .await?;
        others.retain(|id| *id != planned.message);
        if others.is_empty() {
            return Ok(false);
        }
        let bodies: Vec<_> = others.iter().map(|m| (planned.app.clone(), *m)).collect();
        let bodies = self.ports.inbox.messages(&bodies).await?;
        let keys: Vec<_> = others
            .into_iter()
            .map(|m| (m, planned.device.clone()))
            .collect();
        let deliveries = ledger.deliveries(&planned.app, &keys).await?;
        for (delivery, body) in deliveries.into_iter().zip(bodies) {
            // Only what is meant for the same person is replaced.
            let Some(mut delivery) = delivery.filter(|d| d.user == planned.user) else {
                continue;
            };
            // What has no body any more is older than anything.
            if body.is_some_and(|body| body.rank() > message.rank()) {
                return Ok(true);
            }
            let expected = Some(delivery.version);
            let step = delivery.apply(Input::End(Reason::Collapsed), now);
            situation::write(&mut leg.set, &delivery, expected, vec![step], now);
        }
        Ok(false)
    }
}
