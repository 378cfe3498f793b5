//! Acknowledgements that a crash has cut in two: the device's place in the inbox was written, the end of the delivery was not.
//! The device does not say it again, so the inbox is asked: what was given over a connection and does not wait any more was
//! acknowledged.

use std::time::Duration;

use hongyan_core::delivery::{Delivery, Input, State};
use hongyan_core::port::Reader;
use hongyan_core::{AppId, DeviceId, MessageId, StoreError, Timestamp};
use tokio::sync::mpsc;

use crate::feedback::{self, Signal};
use crate::router::InFlight;
use crate::service::Ports;

/// How long after the start devices that come back are looked at: a crash ends all connections, and devices come back soon.
/// What belongs to others is looked at when it comes due.
const FOR: Duration = Duration::from_secs(3_600);
/// Devices that came back and wait to be looked at; more are left until their deliveries come due.
pub(crate) const QUEUE_LEN_MAX: usize = 4_096;
/// Open deliveries of a device that are looked at.
const OPEN_LEN_MAX: usize = 500;
/// Entries of its inbox that are read at once: a full ring, and some broadcasts.
const PAGE_LEN: usize = 256;
/// Pages that are read; of an inbox with more nothing is concluded.
const PAGES_MAX: usize = 8;

/// Those of a device's open deliveries that were given over a connection and are acknowledged.
///
/// # Errors
/// [`StoreError`].
pub(crate) async fn among(
    ports: &Ports,
    app: &AppId,
    device: &DeviceId,
    open: &[Delivery],
) -> Result<Vec<MessageId>, StoreError> {
    let now = ports.clock.now();
    let given = |d: &&Delivery| {
        // One that another takes the place of does not wait either, though nobody acknowledged it.
        let waits_alone = d.collapse_key.is_none();
        matches!(d.state, State::Online { .. }) && waits_alone && now < d.expires_at
    };
    let mut given: Vec<&Delivery> = open.iter().filter(given).collect();
    if given.is_empty() {
        return Ok(Vec::new());
    }
    let found = ports.registry.devices(app, std::slice::from_ref(device));
    let Some(bound) = found.await?.pop().flatten() else {
        return Ok(Vec::new());
    };
    // Whoever holds it now has a place of their own.
    given.retain(|d| d.binding == bound.binding && (d.user.is_none() || d.user == bound.user));
    let reader = Reader {
        app: app.clone(),
        device: device.clone(),
        user: bound.user,
    };
    let mut after = None;
    for _ in 0..PAGES_MAX {
        let page = ports.inbox.read(&reader, after, PAGE_LEN, now).await?;
        if page.lost > 0 || page.reset {
            return Ok(Vec::new());
        }
        given.retain(|d| page.entries.iter().all(|e| e.message.id != d.message));
        if given.is_empty() {
            return Ok(Vec::new());
        }
        if !page.more {
            return still_kept(ports, app, given).await;
        }
        after = Some(page.next);
    }
    Ok(Vec::new())
}

/// Those whose message is there and was not taken back: what was is not in the inbox for that reason.
async fn still_kept(
    ports: &Ports,
    app: &AppId,
    given: Vec<&Delivery>,
) -> Result<Vec<MessageId>, StoreError> {
    let mut acked = Vec::with_capacity(given.len());
    for delivery in given {
        let id = delivery.message;
        let message = ports.inbox.message(app, id).await?;
        let is_kept = message.is_some_and(|message| message.push.is_none());
        if is_kept && ports.inbox.recalled(app, id).await?.is_none() {
            acked.push(id);
        }
    }
    Ok(acked)
}

/// Ends what devices that come back had acknowledged before, until the queue is closed.
pub(crate) async fn settle(
    ports: &Ports,
    mut back: mpsc::Receiver<(AppId, DeviceId)>,
    in_flight: &InFlight,
) {
    while let Some((app, device)) = back.recv().await {
        if let Err(error) = settle_one(ports, &app, &device, in_flight).await {
            tracing::debug!(%app, %device, %error, "whether a device had acknowledged is asked when it comes due");
        }
    }
}

async fn settle_one(
    ports: &Ports,
    app: &AppId,
    device: &DeviceId,
    in_flight: &InFlight,
) -> Result<(), StoreError> {
    let open = ports.ledger.open_of_device(app, device, None, OPEN_LEN_MAX);
    let open = feedback::readable(ports, app, &open.await?).await?;
    let acked = among(ports, app, device, &open).await?;
    let of = |id: &MessageId| open.iter().find(|d| d.message == *id);
    let signals = acked.iter().filter_map(|id| Some(signal(*id, of(id)?)));
    feedback::apply(ports, app, signals.collect(), in_flight).await
}

/// What the device had said.
pub(crate) fn signal(message: MessageId, delivery: &Delivery) -> Signal {
    Signal {
        app: delivery.app.clone(),
        message,
        device: delivery.device.clone(),
        user: delivery.user.clone(),
        input: Input::Acked,
    }
}

/// Whether a device that comes back now is to be looked at.
pub(crate) fn is_soon_after(start: Timestamp, now: Timestamp) -> bool {
    now.since(start) < FOR
}
