//! Applies what sessions, clients and vendors answer to the deliveries.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use hongyan_core::delivery::{Delivery, Happened, Input, Next, State};
use hongyan_core::limits::CONFLICT_RETRIES_MAX;
use hongyan_core::port::{CommitError, Job, JobId, SessionSink, WriteSet};
use hongyan_core::session::{SessionEvent, SessionSaid};
use hongyan_core::{AppId, DeviceId, MessageId, Reason, Stage, StoreError, Timestamp, UserId};
use tokio::sync::mpsc;

use crate::router::InFlight;
use crate::service::Ports;
use crate::situation;

/// Signals that may wait: sessions and lanes wait when it is full, which slows them and nobody else.
const QUEUE_LEN_MAX: usize = 16_384;
/// Signals applied in one write.
const BATCH_LEN_MAX: usize = 1_024;
/// How long to wait after the store failed, before the same signals are tried again.
const AFTER_TROUBLE: Duration = Duration::from_millis(200);

/// Something that happened to one delivery.
#[derive(Debug, Clone)]
pub(crate) struct Signal {
    pub(crate) app: AppId,
    pub(crate) message: MessageId,
    pub(crate) device: DeviceId,
    pub(crate) user: Option<UserId>,
    pub(crate) input: Input,
}

/// Takes signals; cheap to clone.
#[derive(Debug, Clone)]
pub struct Feedback {
    queue: mpsc::Sender<Signal>,
    registry: std::sync::Arc<dyn hongyan_core::port::Registry>,
    clock: std::sync::Arc<dyn hongyan_core::port::Clock>,
}

/// The other end of [`Feedback`].
#[derive(Debug)]
pub struct Signals(mpsc::Receiver<Signal>);

impl Feedback {
    /// A handle for those who report, and the queue that [`crate::Dispatch`] empties.
    #[must_use]
    pub fn new(
        registry: std::sync::Arc<dyn hongyan_core::port::Registry>,
        clock: std::sync::Arc<dyn hongyan_core::port::Clock>,
    ) -> (Self, Signals) {
        let (queue, rest) = mpsc::channel(QUEUE_LEN_MAX);
        (
            Self {
                queue,
                registry,
                clock,
            },
            Signals(rest),
        )
    }

    /// Waits while the queue is full; after shutdown signals are dropped and their deliveries come due again.
    pub(crate) async fn send(&self, signal: Signal) {
        let _stopped = self.queue.send(signal).await;
    }
}

#[async_trait]
impl SessionSink for Feedback {
    async fn accept(&self, events: Vec<SessionEvent>) {
        for event in events {
            let SessionEvent {
                app,
                device,
                user,
                what,
            } = event;
            let signals: Vec<(MessageId, Input)> = match what {
                SessionSaid::Acked(ids) => ids.into_iter().map(|id| (id, Input::Acked)).collect(),
                SessionSaid::Rejected(id) => vec![(id, Input::Rejected)],
                SessionSaid::Client { message, stage, .. } => vec![(message, Input::Client(stage))],
                SessionSaid::Up(_) | SessionSaid::Down(_) => {
                    let now = self.clock.now();
                    if let Err(error) = self.registry.touch_device(&app, &device, now).await {
                        tracing::debug!(%error, "last seen was not noted");
                    }
                    vec![]
                }
                SessionSaid::Sent(..) => vec![],
            };
            for (message, input) in signals {
                let (app, device, user) = (app.clone(), device.clone(), user.clone());
                self.send(Signal {
                    app,
                    message,
                    device,
                    user,
                    input,
                })
                .await;
            }
        }
    }
}

/// Applies signals until the queue is closed.
pub(crate) async fn run(ports: Ports, mut signals: Signals, in_flight: InFlight) {
    let mut batch = Vec::with_capacity(BATCH_LEN_MAX);
    loop {
        batch.clear();
        if signals.0.recv_many(&mut batch, BATCH_LEN_MAX).await == 0 {
            return;
        }
        let mut by_app: HashMap<AppId, Vec<Signal>> = HashMap::new();
        for signal in batch.drain(..) {
            by_app.entry(signal.app.clone()).or_default().push(signal);
        }
        for (app, mut waiting) in by_app {
            while !waiting.is_empty() {
                match settle(&ports, &app, &mut waiting, &in_flight).await {
                    Ok(()) => {}
                    Err(error) => {
                        tracing::warn!(%error, "answers could not be written; trying again");
                        tokio::time::sleep(AFTER_TROUBLE).await;
                    }
                }
            }
        }
    }
}

/// Applies signals of one app; those that must be tried again are left in `waiting`.
async fn settle(
    ports: &Ports,
    app: &AppId,
    waiting: &mut Vec<Signal>,
    in_flight: &InFlight,
) -> Result<(), StoreError> {
    for _ in 0..CONFLICT_RETRIES_MAX {
        let now = ports.clock.now();
        let groups = group(waiting);
        let keys: Vec<_> = groups.iter().map(|g| g.key.clone()).collect();
        let known = ports.ledger.deliveries(app, &keys).await?;
        let mut sets = Vec::with_capacity(groups.len());
        let mut written = Vec::with_capacity(groups.len());
        let mut follow = Vec::new();
        for (group, delivery) in groups.into_iter().zip(known) {
            let found = match delivery {
                Some(delivery) => {
                    let version = delivery.version;
                    Some((delivery, Some(version)))
                }
                None => unrouted(ports, app, &group).await?.map(|d| (d, None)),
            };
            let Some((mut delivery, expected)) = found else {
                in_flight.settled(&group.job(app), u32::MAX);
                continue;
            };
            let was_won = delivery.seen.has(Stage::Delivered);
            let steps: Vec<_> = group
                .signals
                .iter()
                .map(|s| delivery.apply(s.input.clone(), now))
                .collect();
            if steps.iter().all(|s| s.next == Next::Nothing) {
                if !matches!(delivery.state, State::Pushing { .. }) {
                    in_flight.settled(&group.job(app), delivery.version);
                }
                continue;
            }
            if delivery.first_ack && !was_won && delivery.seen.has(Stage::Delivered) {
                follow.extend(cancel_others(ports, &delivery).await?);
            }
            count(&steps);
            let mut set = WriteSet::default();
            if expected.is_none() {
                // The session was faster than the router: the funnel still counts every stage.
                for stage in [Stage::Targeted, Stage::SentOnline] {
                    set.events
                        .push(delivery.event(Happened::new(stage, None), now));
                }
            }
            situation::write(&mut set, &delivery, expected, steps, now);
            sets.push(set);
            written.push((group, expected.unwrap_or(u32::MAX)));
        }
        let results = ports.commit.commit(sets).await;
        let mut again = Vec::new();
        let mut failed = None;
        for ((group, version), result) in written.into_iter().zip(results) {
            match result {
                Ok(_) | Err(CommitError::Known { .. }) => {
                    in_flight.settled(&group.job(app), version);
                }
                Err(CommitError::Stale) => again.extend(group.signals),
                Err(CommitError::Store(error)) => {
                    again.extend(group.signals);
                    failed = Some(error);
                }
            }
        }
        again.extend(follow);
        *waiting = again;
        if let Some(error) = failed {
            return Err(error);
        }
        if waiting.is_empty() {
            return Ok(());
        }
    }
    Err(StoreError::Conflict { entity: "delivery" })
}

#[derive(Debug)]
struct Group {
    key: (MessageId, DeviceId),
    signals: Vec<Signal>,
}

impl Group {
    fn job(&self, app: &AppId) -> JobId {
        Job::deliver_id(app, self.key.0, &self.key.1)
    }
}

/// Signals of one delivery together, in their order.
fn group(waiting: &[Signal]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut at: HashMap<(MessageId, DeviceId), usize> = HashMap::new();
    for signal in waiting.iter() {
        let key = (signal.message, signal.device.clone());
        let i = *at.entry(key.clone()).or_insert_with(|| {
            groups.push(Group {
                key,
                signals: Vec::new(),
            });
            groups.len() - 1
        });
        if let Some(group) = groups.get_mut(i) {
            group.signals.push(signal.clone());
        }
    }
    groups
}

/// The delivery of a message that a session got and answered before the router came to it.
async fn unrouted(
    ports: &Ports,
    app: &AppId,
    group: &Group,
) -> Result<Option<Delivery>, StoreError> {
    let (message_id, device_id) = &group.key;
    let from_client =
        |s: &Signal| matches!(s.input, Input::Acked | Input::Rejected | Input::Client(_));
    let Some(signal) = group.signals.iter().find(|s| from_client(s)) else {
        return Ok(None);
    };
    let Some(message) = ports.inbox.message(app, *message_id).await? else {
        return Ok(None);
    };
    // What a device says of a message that was never meant for its user is not news.
    if !message.may_be_given_to(signal.user.as_ref()) {
        return Ok(None);
    }
    if let hongyan_core::message::Target::Devices(devices) = &message.to
        && !devices.contains(device_id)
    {
        return Ok(None);
    }
    let device = ports
        .registry
        .devices(app, std::slice::from_ref(device_id))
        .await?
        .pop()
        .flatten();
    let to_user = matches!(message.to, hongyan_core::message::Target::Users(_));
    Ok(device.map(|device| Delivery {
        // The device may have changed hands since: it is told of whoever said it.
        user: signal.user.clone().filter(|_| to_user),
        ..Delivery::new(&message, &device, to_user)
    }))
}

/// Ends the deliveries to the user's other devices.
async fn cancel_others(ports: &Ports, acked: &Delivery) -> Result<Vec<Signal>, StoreError> {
    let Some(user) = &acked.user else {
        return Ok(Vec::new());
    };
    let keys: Vec<_> = ports
        .registry
        .devices_of(&acked.app, std::slice::from_ref(user))
        .await?
        .into_iter()
        .flatten()
        .map(|device| (acked.message, device.id))
        .collect();
    Ok(ports
        .ledger
        .deliveries(&acked.app, &keys)
        .await?
        .into_iter()
        .flatten()
        .filter(|d| d.user == acked.user && d.device != acked.device && d.outcome().is_none())
        .map(|d| Signal {
            app: d.app,
            message: d.message,
            device: d.device,
            user: d.user,
            input: Input::End(Reason::Cancelled),
        })
        .collect())
}

fn count(steps: &[hongyan_core::delivery::Step]) {
    for happened in steps.iter().flat_map(|s| &s.happened) {
        if happened.r#final {
            let reason = happened.reason.map_or("", Reason::as_str);
            metrics::counter!("hongyan_dispatch_outcomes_total", "reason" => reason).increment(1);
        }
    }
}

/// Signals that end every open delivery of a device for a user who left it.
pub(crate) async fn end_open(
    ports: &Ports,
    feedback: &Feedback,
    app: &AppId,
    device: &DeviceId,
    user: Option<&UserId>,
    reason: Reason,
) -> Result<(), StoreError> {
    const PAGE: usize = 1_000;
    let keys = ports.ledger.open_of_device(app, device, PAGE).await?;
    for delivery in ports
        .ledger
        .deliveries(app, &keys)
        .await?
        .into_iter()
        .flatten()
    {
        // Without a user given, everything ends: the device is gone.
        if user.is_none() || delivery.user.as_ref() == user {
            feedback
                .send(Signal {
                    app: delivery.app,
                    message: delivery.message,
                    device: delivery.device,
                    user: delivery.user,
                    input: Input::End(reason),
                })
                .await;
        }
    }
    Ok(())
}

/// When the next try may be made: full jitter over an exponential wait, never sooner than the vendor asks.
#[must_use]
pub(crate) fn retry_at(
    now: Timestamp,
    attempt: u16,
    after: Option<Duration>,
    dice: &dyn hongyan_core::port::Dice,
) -> Timestamp {
    use hongyan_core::limits::{RETRY_BASE, RETRY_MAX};
    let ceiling = RETRY_BASE
        .saturating_mul(1 << attempt.min(12))
        .min(RETRY_MAX);
    let half = ceiling / 2;
    let span = u64::try_from(half.as_millis()).unwrap_or(u64::MAX).max(1);
    let wait = half + Duration::from_millis(dice.below(span));
    now.plus(after.map_or(wait, |asked| asked + wait / 4))
}
