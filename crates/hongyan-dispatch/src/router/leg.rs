//! What a job leads to: the deliveries of its devices, planned and not yet committed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use hongyan_core::delivery::{Delivery, Input, Next, State};
use hongyan_core::limits::BROADCAST_PAGE_LEN;
use hongyan_core::message::{DeliveryMode, DeviceChoice};
use hongyan_core::port::{Hint, Job, JobKind, Owner, WriteSet};
use hongyan_core::{Device, DeviceId, Event, Message, Reason, Stage, StoreError, Timestamp};

use super::Router;
use super::candidates::Found;
use super::collapse::Newest;
use crate::lane::UNKNOWN_FOR;
use crate::plan::{online_too, plan};
use crate::shipment::Shipment;
use crate::situation::{self, Read};
use crate::{acked, feedback, intake};

/// What a planned job leads to once it is committed.
#[derive(Debug, Default)]
pub(super) struct Leg {
    pub(super) set: WriteSet,
    pub(super) hints: Vec<Hint>,
    pub(super) shipments: Vec<Shipment>,
}

impl Router {
    /// Whether the device acknowledged to a process that ended before it could end the delivery: it is ended now.
    async fn was_acked(&self, message: &Message, delivery: &Delivery) -> Result<bool, StoreError> {
        let is_ours = message.accepted_at >= self.began_at;
        if is_ours || !matches!(delivery.state, State::Online { .. }) {
            return Ok(false);
        }
        let (app, open) = (&delivery.app, std::slice::from_ref(delivery));
        let acked = match acked::among(&self.ports, app, &delivery.device, open).await {
            Ok(acked) => acked,
            // A damaged record of its inbox: the message itself is sound, and goes on as if it had not been acknowledged.
            Err(error @ StoreError::Corrupt { .. }) => {
                tracing::warn!(%app, device = %delivery.device, %error, "whether a device had acknowledged is not known");
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        let signals = acked.iter().map(|id| acked::signal(*id, delivery));
        feedback::apply(&self.ports, app, signals.collect(), &self.in_flight).await?;
        Ok(!acked.is_empty())
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "the rows of one read, used in one place"
    )]
    pub(super) async fn plan_job(
        &self,
        job: &Job,
        message: &Arc<Message>,
        recalled: Option<Timestamp>,
        found: Found,
        known: &mut HashMap<(hongyan_core::MessageId, DeviceId), Delivery>,
        newest: &Newest,
        read: &Read<'_>,
        leg: &mut Leg,
    ) -> Result<(), StoreError> {
        let to_user = job.is_to_user();
        match &job.kind {
            JobKind::Deliver { .. } => {}
            JobKind::Route { owner } => {
                leg.set.jobs_done.push(job.id());
                if intake::appended_by_router(message) && recalled.is_none() {
                    append(message, owner, &found, leg);
                }
                if found.devices.is_empty() && to_user {
                    let mut event = intake::about(message, Stage::Dropped, read.now);
                    event.reason = Some(Reason::NoDevice);
                    event.r#final = true;
                    if let Owner::User(user) = owner {
                        event.user = Some(user.clone());
                    }
                    leg.set.events.push(event);
                }
            }
            JobKind::Broadcast { after } => {
                if after.is_none()
                    && intake::appended_by_router(message)
                    && recalled.is_none()
                    && let Some(audience) = message.to.audience()
                {
                    append(message, &Owner::Audience(audience), &found, leg);
                }
                match found.ids.last() {
                    Some(last) if found.ids.len() == BROADCAST_PAGE_LEN => leg.set.jobs.push(Job {
                        kind: JobKind::Broadcast {
                            after: Some(last.clone()),
                        },
                        due: read.now,
                        leased: false,
                        ..job.clone()
                    }),
                    _ => leg.set.jobs_done.push(job.id()),
                }
            }
        }
        let is_deliver = matches!(job.kind, JobKind::Deliver { .. });
        // An ack may be faster than the router: then it has ended the deliveries that are planned only now.
        let won = to_user
            && message.options.devices == DeviceChoice::FirstAck
            && found.ids.iter().any(|id| {
                known
                    .get(&(job.message, id.clone()))
                    .is_some_and(|d| d.seen.has(Stage::Delivered))
            });
        for id in &found.ids {
            let device = found.devices.get(id);
            let existing = known.get(&(job.message, id.clone()));
            match (existing, device) {
                // Routed before, or acked before it was routed: its own job or end takes care of it.
                (Some(_), _) if !is_deliver => {}
                // A lane has it: the lease only had to be made longer.
                (Some(delivery), _) if self.in_flight.has(&job.id(), delivery.version) => {}
                (Some(delivery), _) if self.was_acked(message, delivery).await? => {
                    leg.set.jobs_done.push(job.id());
                }
                (Some(delivery), device) => {
                    let mut delivery = delivery.clone();
                    let expected = Some(delivery.version);
                    self.plan_delivery(
                        &mut delivery,
                        expected,
                        message,
                        recalled,
                        device,
                        read,
                        leg,
                    );
                }
                (None, Some(device)) if !is_deliver => {
                    let mut delivery = Delivery::new(message, device, to_user);
                    leg.set.events.push(delivery.event(
                        hongyan_core::delivery::Happened::new(Stage::Targeted, None),
                        read.now,
                    ));
                    if won {
                        let step = delivery.apply(Input::End(Reason::Cancelled), read.now);
                        situation::write(&mut leg.set, &delivery, None, vec![step], read.now);
                        continue;
                    }
                    let newer = recalled.is_none()
                        && (newest.is_after(&delivery, message)
                            || self.collapse(&delivery, message, read.now, leg).await?);
                    if newer {
                        let step = delivery.apply(Input::End(Reason::Collapsed), read.now);
                        situation::write(&mut leg.set, &delivery, None, vec![step], read.now);
                        continue;
                    }
                    self.plan_delivery(
                        &mut delivery,
                        None,
                        message,
                        recalled,
                        Some(device),
                        read,
                        leg,
                    );
                }
                (None, None) if !is_deliver => {
                    let mut event = intake::about(message, Stage::Dropped, read.now);
                    event.reason = Some(Reason::NoDevice);
                    event.device = Some(id.clone());
                    event.r#final = true;
                    leg.set.events.push(event);
                }
                // A job without its delivery: nothing is left to do.
                (None, _) => leg.set.jobs_done.push(job.id()),
            }
        }
        Ok(())
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "the rows of one read, used in one place"
    )]
    fn plan_delivery(
        &self,
        delivery: &mut Delivery,
        expected: Option<u32>,
        message: &Arc<Message>,
        recalled: Option<Timestamp>,
        device: Option<&Device>,
        read: &Read<'_>,
        leg: &mut Leg,
    ) {
        let mut steps = Vec::with_capacity(3);
        if expected.is_some() {
            let step = delivery.apply(due(delivery, message, read.now), read.now);
            if delivery.outcome().is_some() && step.next == Next::Done {
                situation::write(&mut leg.set, delivery, expected, vec![step], read.now);
                return;
            }
            steps.push(step);
            if delivery.outcome().is_some() {
                // Settled while its job was on the way: the job only has to go.
                leg.set.jobs_done.push(Job::deliver_id(
                    &delivery.app,
                    delivery.message,
                    &delivery.device,
                ));
                return;
            }
        }
        let situation = read.situation(message, delivery, device, recalled);
        let decision = plan(&situation);
        if let Some(until) = online_too(&situation, &decision) {
            steps.push(delivery.apply(Input::OnlineToo { until }, read.now));
        }
        let step = delivery.apply(Input::Plan(decision), read.now);
        if step.next == Next::Push
            && let Some(device) = device
            && let Some(shipment) = Shipment::of(delivery, message, device, &read.facts.policy)
        {
            leg.shipments.push(shipment);
        }
        steps.push(step);
        situation::write(&mut leg.set, delivery, expected, steps, read.now);
    }
}

/// What the end of a wait means. A delivery that a lost process had handed to a vendor which must not be asked twice is one
/// whose answer got lost.
fn due(delivery: &Delivery, message: &Message, now: Timestamp) -> Input {
    if delivery.handed_to().is_none() {
        return Input::Due;
    }
    let channels = &message.options.channels;
    let wait = channels
        .fallback_after_ms
        .map_or(UNKNOWN_FOR, |ms| Duration::from_millis(ms.into()));
    Input::Lost {
        receipt_by: channels.fallback.then(|| now.plus(wait)),
    }
}

/// Puts a message that intake left out into the inboxes it belongs to.
fn append(message: &Message, owner: &Owner, found: &Found, leg: &mut Leg) {
    if message.options.delivery == DeliveryMode::OfflineOnly {
        return;
    }
    let owners = if message.options.devices == DeviceChoice::Latest {
        found.ids.iter().cloned().map(Owner::Device).collect()
    } else {
        vec![owner.clone()]
    };
    for owner in owners {
        leg.set.inbox.push(intake::entry(message, owner.clone()));
        leg.hints.push(Hint::new(message.app.clone(), owner));
    }
}

/// Ends what belongs to a message whose body has left the store.
pub(super) fn forgotten(
    job: &Job,
    known: &mut HashMap<(hongyan_core::MessageId, DeviceId), Delivery>,
    why: Reason,
    now: Timestamp,
    leg: &mut Leg,
) {
    leg.set.jobs_done.push(job.id());
    let (user, device) = match &job.kind {
        JobKind::Deliver { device } => {
            if let Some(delivery) = known.get_mut(&(job.message, device.clone())) {
                let expected = Some(delivery.version);
                let step = delivery.apply(Input::End(why), now);
                situation::write(&mut leg.set, delivery, expected, vec![step], now);
            }
            return;
        }
        JobKind::Route {
            owner: Owner::User(user),
        } => (Some(user.clone()), None),
        JobKind::Route {
            owner: Owner::Device(device),
        } => (None, Some(device.clone())),
        JobKind::Route {
            owner: Owner::Audience(_),
        }
        | JobKind::Broadcast { .. } => (None, None),
    };
    // Nobody was routed before it was gone: that is told too.
    leg.set.events.push(Event {
        seq: 0,
        at: now,
        app: job.app.clone(),
        stage: Stage::Dropped,
        reason: Some(why),
        message: Some(job.message),
        class: None,
        user,
        device,
        platform: None,
        channel: None,
        attempt: 0,
        until: None,
        took_ms: None,
        detail: None,
        r#final: true,
    });
}
