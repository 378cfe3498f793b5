//! Acknowledgements that a crash has cut in two: the device's place in the inbox was written, the end of the delivery was not.
//! The device does not say it again, so the inbox is asked what it has acknowledged. It does not tell a rejection that was cut in
//! two from an acknowledgement.

use std::time::Duration;

use hongyan_core::delivery::{Delivery, Input};
use hongyan_core::port::Reader;
use hongyan_core::{AppId, DeviceId, MessageId, StoreError, Timestamp};
use tokio::sync::mpsc;

use crate::feedback::{self, Signal};
use crate::router::InFlight;
use crate::service::Ports;

/// How long after the start devices that come back are looked at: a crash ends all connections, and devices come back soon.
/// What waits for the ack of others is looked at when it comes due.
const FOR: Duration = Duration::from_secs(3_600);
/// Devices that came back and wait to be looked at; more are left until their deliveries come due.
pub(crate) const QUEUE_LEN_MAX: usize = 4_096;
/// Open deliveries of a device that are looked at.
const OPEN_LEN_MAX: usize = 500;

/// Those of a device's open deliveries that it has acknowledged.
///
/// # Errors
/// [`StoreError`].
pub(crate) async fn among(
    ports: &Ports,
    app: &AppId,
    device: &DeviceId,
    open: &[Delivery],
) -> Result<Vec<MessageId>, StoreError> {
    if open.is_empty() {
        return Ok(Vec::new());
    }
    let found = ports.registry.devices(app, std::slice::from_ref(device));
    let Some(bound) = found.await?.pop().flatten() else {
        return Ok(Vec::new());
    };
    // Whoever holds it now has a place of their own.
    let is_of_holder =
        |d: &&Delivery| d.binding == bound.binding && (d.user.is_none() || d.user == bound.user);
    let of_holder = open.iter().filter(is_of_holder).map(|d| d.message);
    let ids: Vec<_> = of_holder.collect();
    let reader = Reader {
        app: app.clone(),
        device: device.clone(),
        user: bound.user,
    };
    let now = ports.clock.now();
    ports.inbox.acked(&reader, &ids, now).await
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
