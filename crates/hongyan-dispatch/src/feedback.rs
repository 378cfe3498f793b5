//! Applies what sessions, clients and vendors answer to the deliveries.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use hongyan_core::delivery::{Delivery, Happened, Input, Next, State};
use hongyan_core::limits::CONFLICT_RETRIES_MAX;
use hongyan_core::message::Target;
use hongyan_core::port::{CommitError, Job, JobId, SessionSink, WriteSet};
use hongyan_core::session::{SessionEvent, SessionSaid};
use hongyan_core::{
    AppId, Device, DeviceId, Event, Message, MessageId, Reason, Stage, StoreError, Timestamp,
    UserId,
};
use tokio::sync::mpsc;

use crate::acked;
use crate::router::InFlight;
use crate::service::Ports;
use crate::situation;
use crate::unreadable::{self, Lost};

/// Signals that may wait: sessions and lanes wait when it is full, which slows them and nobody else.
const QUEUE_LEN_MAX: usize = 16_384;
/// What devices told their apps and is not written yet: sessions wait when it is full.
const SAID_LEN_MAX: usize = 1_024;
/// Signals applied in one write.
const BATCH_LEN_MAX: usize = 1_024;
/// Open deliveries of a device that are ended in one step.
const END_PAGE_LEN: usize = 500;
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

impl Signal {
    /// Whether the device said it, rather than a vendor or we.
    const fn is_from_client(&self) -> bool {
        matches!(
            self.input,
            Input::Acked | Input::Rejected | Input::Client(_)
        )
    }

    /// Whether somebody else than the person it is meant for says it: such news do not end an open delivery.
    fn is_foreign_to(&self, delivery: &Delivery) -> bool {
        self.is_from_client()
            && delivery.user.is_some()
            && delivery.user != self.user
            && delivery.outcome().is_none()
    }
}

/// Takes signals; cheap to clone.
#[derive(Debug, Clone)]
pub struct Feedback {
    queue: mpsc::Sender<Signal>,
    said: mpsc::Sender<Event>,
    back: mpsc::Sender<(AppId, DeviceId)>,
    began_at: Timestamp,
    registry: std::sync::Arc<dyn hongyan_core::port::Registry>,
    clock: std::sync::Arc<dyn hongyan_core::port::Clock>,
}

/// The other end of [`Feedback`].
#[derive(Debug)]
pub struct Signals {
    queue: mpsc::Receiver<Signal>,
    words: mpsc::Receiver<Event>,
    back: mpsc::Receiver<(AppId, DeviceId)>,
}

impl Feedback {
    /// A handle for those who report, and the queue that [`crate::Dispatch`] empties.
    #[must_use]
    pub fn new(
        registry: std::sync::Arc<dyn hongyan_core::port::Registry>,
        clock: std::sync::Arc<dyn hongyan_core::port::Clock>,
    ) -> (Self, Signals) {
        let (queue, rest) = mpsc::channel(QUEUE_LEN_MAX);
        let (said, words) = mpsc::channel(SAID_LEN_MAX);
        let (back, came_back) = mpsc::channel(acked::QUEUE_LEN_MAX);
        (
            Self {
                queue,
                said,
                back,
                began_at: clock.now(),
                registry,
                clock,
            },
            Signals {
                queue: rest,
                words,
                back: came_back,
            },
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
                what @ (SessionSaid::Up(_) | SessionSaid::Down(_)) => {
                    let now = self.clock.now();
                    let is_up = matches!(what, SessionSaid::Up(_));
                    if is_up && acked::is_soon_after(self.began_at, now) {
                        // When too many come back at once, the rest is asked when it comes due.
                        let _full = self.back.try_send((app.clone(), device.clone()));
                    }
                    if let Err(error) = self.registry.touch_device(&app, &device, now).await {
                        tracing::debug!(%error, "last seen was not noted");
                    }
                    vec![]
                }
                SessionSaid::Sent(..) => vec![],
                SessionSaid::Said(text) => {
                    let told = said(self.clock.now(), &app, (user.clone(), device.clone()), text);
                    let _stopped = self.said.send(told).await;
                    vec![]
                }
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

/// What a device told its app, for the ledger.
fn said(at: Timestamp, app: &AppId, by: (Option<UserId>, DeviceId), text: String) -> Event {
    Event {
        seq: 0,
        at,
        app: app.clone(),
        stage: Stage::Said,
        reason: None,
        message: None,
        class: None,
        user: by.0,
        device: Some(by.1),
        platform: None,
        channel: None,
        attempt: 0,
        until: None,
        took_ms: None,
        detail: Some(text),
        r#final: false,
    }
}

/// Writes what devices told their apps, as often as the store fails, until the queue is closed.
async fn note(ports: &Ports, mut words: mpsc::Receiver<Event>) {
    let mut events = Vec::new();
    while words.recv_many(&mut events, BATCH_LEN_MAX).await > 0 {
        let events = std::mem::take(&mut events);
        loop {
            let set = WriteSet {
                events: events.clone(),
                ..WriteSet::default()
            };
            let written = ports.commit.commit(vec![set]).await.pop();
            let Some(Err(CommitError::Store(error))) = written else {
                break;
            };
            tracing::warn!(%error, "what devices said could not be written; trying again");
            tokio::time::sleep(AFTER_TROUBLE).await;
        }
    }
}

/// Applies signals until the queue is closed.
pub(crate) async fn run(ports: Ports, signals: Signals, in_flight: InFlight) {
    let Signals { queue, words, back } = signals;
    tokio::join!(
        apply_all(&ports, queue, &in_flight),
        note(&ports, words),
        acked::settle(&ports, back, &in_flight)
    );
}

async fn apply_all(ports: &Ports, mut queue: mpsc::Receiver<Signal>, in_flight: &InFlight) {
    let mut batch = Vec::with_capacity(BATCH_LEN_MAX);
    loop {
        batch.clear();
        if queue.recv_many(&mut batch, BATCH_LEN_MAX).await == 0 {
            return;
        }
        let mut by_app: HashMap<AppId, Vec<Signal>> = HashMap::new();
        for signal in batch.drain(..) {
            by_app.entry(signal.app.clone()).or_default().push(signal);
        }
        for (app, mut waiting) in by_app {
            settle_all(ports, &app, &mut waiting, in_flight).await;
        }
    }
}

/// Applies signals of one app, as often as the store fails. What is damaged is passed over, so that the rest goes on.
async fn settle_all(ports: &Ports, app: &AppId, waiting: &mut Vec<Signal>, in_flight: &InFlight) {
    while !waiting.is_empty() {
        match settle(ports, app, waiting, in_flight).await {
            Ok(()) => {}
            Err(StoreError::Corrupt { .. }) => settle_each(ports, app, waiting, in_flight).await,
            Err(error) => {
                tracing::warn!(%error, "answers could not be written; trying again");
                tokio::time::sleep(AFTER_TROUBLE).await;
            }
        }
    }
}

/// Applies the signals of each delivery alone: which record is damaged shows, and ends there. Those that the store
/// failed otherwise are left in `waiting`.
async fn settle_each(ports: &Ports, app: &AppId, waiting: &mut Vec<Signal>, in_flight: &InFlight) {
    let groups = group(waiting);
    waiting.clear();
    for mut one in groups {
        let Err(error) = settle(ports, app, &mut one.signals, in_flight).await else {
            continue;
        };
        let told = match &error {
            StoreError::Corrupt { .. } => give_up(ports, app, &one, &error).await,
            _ => Err(error),
        };
        match told {
            Ok(()) => in_flight.settled(&one.job(app), u32::MAX),
            Err(error) => {
                tracing::warn!(%error, "answers could not be written; trying again");
                waiting.append(&mut one.signals);
            }
        }
    }
    if !waiting.is_empty() {
        tokio::time::sleep(AFTER_TROUBLE).await;
    }
}

/// The answer to a delivery cannot be applied, because something of it is damaged.
async fn give_up(
    ports: &Ports,
    app: &AppId,
    one: &Group,
    why: &StoreError,
) -> Result<(), StoreError> {
    let (message, device) = &one.key;
    if unreadable::is_lost(ports, app, *message, Some(device)).await {
        let lost = Lost {
            app,
            message: *message,
            device: Some(device),
            user: one.signals.iter().find_map(|s| s.user.as_ref()),
        };
        return lost.bury(ports, one.job(app), why).await;
    }
    // The delivery itself is sound, or there is none: it comes due again by itself.
    tracing::error!(%app, %message, %device, error = %why, "a damaged record keeps an answer from being applied; it is passed over");
    metrics::counter!("hongyan_dispatch_unreadable_total").increment(1);
    Ok(())
}

/// Applies signals of one app at once, for those who must know that they are durable.
pub(crate) async fn apply(
    ports: &Ports,
    app: &AppId,
    mut signals: Vec<Signal>,
    in_flight: &InFlight,
) -> Result<(), StoreError> {
    if signals.is_empty() {
        return Ok(());
    }
    settle(ports, app, &mut signals, in_flight).await
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
            let signals = group.signals.iter();
            let meant: Vec<Signal> = signals
                .filter(|s| !s.is_foreign_to(&delivery))
                .cloned()
                .collect();
            let steps: Vec<_> = meant
                .into_iter()
                .map(|s| delivery.apply(s.input, now))
                .collect();
            if steps.iter().all(|s| s.next == Next::Nothing) {
                if !matches!(delivery.state, State::Pushing { .. }) {
                    in_flight.settled(&group.job(app), delivery.version);
                }
                continue;
            }
            if delivery.first_ack && !was_won && delivery.seen.has(Stage::Delivered) {
                match cancel_others(ports, &delivery).await {
                    Ok(others) => follow.extend(others),
                    // One that cannot be read does not keep the others from being told.
                    Err(error @ StoreError::Corrupt { .. }) => {
                        tracing::error!(%app, message = %delivery.message, %error, "the user's other deliveries cannot be read");
                    }
                    Err(error) => return Err(error),
                }
            }
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
            // A lane that had it before has it still: nobody but the router gives it to one.
            let with_a_lane = matches!(delivery.state, State::Pushing { .. });
            let noted = with_a_lane.then_some(delivery.version);
            written.push((group, expected.unwrap_or(u32::MAX), noted));
        }
        let results = ports.commit.commit(sets).await;
        let mut again = Vec::new();
        let mut failed = None;
        for ((group, version, noted), result) in written.into_iter().zip(results) {
            match (result, noted) {
                (Ok(_), Some(noted)) => in_flight.noted(&group.job(app), version, noted),
                (Ok(_), None) | (Err(CommitError::Known { .. }), _) => {
                    in_flight.settled(&group.job(app), version);
                }
                (Err(CommitError::Stale), _) => again.extend(group.signals),
                (Err(CommitError::Store(error)), _) => {
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
    let Some(signal) = group.signals.iter().find(|s| s.is_from_client()) else {
        return Ok(None);
    };
    let Some(message) = ports.inbox.message(app, *message_id).await? else {
        return Ok(None);
    };
    // What a device says of the mark of a recall, or of a message that was never meant for its user, is not news.
    if message.recalls.is_some() || !message.may_be_given_to(signal.user.as_ref()) {
        return Ok(None);
    }
    let device = ports
        .registry
        .devices(app, std::slice::from_ref(device_id))
        .await?
        .pop()
        .flatten();
    let Some(device) = device else {
        return Ok(None);
    };
    if !addresses(ports, &message, &device).await? {
        return Ok(None);
    }
    let to_user = matches!(message.to, Target::Users(_));
    Ok(Some(Delivery {
        // The device may have changed hands since: it is told of whoever said it.
        user: signal.user.clone().filter(|_| to_user),
        ..Delivery::new(&message, &device, to_user)
    }))
}

/// Whether a device is among those that a message is for; users are told apart by who speaks.
async fn addresses(ports: &Ports, message: &Message, device: &Device) -> Result<bool, StoreError> {
    Ok(match &message.to {
        Target::Users(_) => true,
        Target::Devices(devices) => devices.contains(&device.id),
        Target::Topic(topic) => {
            let topics = ports.registry.topics_of(&message.app, &device.id).await?;
            topics.iter().any(|of| of.topic == *topic)
        }
        // A device that registered later has never been given it.
        Target::All => device.created_at <= message.rank().0,
    })
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

/// Signals that end every open delivery of a device for a user who left it.
pub(crate) async fn end_open(
    ports: &Ports,
    feedback: &Feedback,
    app: &AppId,
    device: &DeviceId,
    user: Option<&UserId>,
    reason: Reason,
) -> Result<(), StoreError> {
    let mut after = None;
    loop {
        let keys = ports
            .ledger
            .open_of_device(app, device, after, END_PAGE_LEN)
            .await?;
        after = keys.last().map(|(message, _)| *message);
        for delivery in readable(ports, app, &keys).await? {
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
        if keys.len() < END_PAGE_LEN {
            return Ok(());
        }
    }
}

/// The deliveries of these keys that can be read; a damaged one ends when it is due.
pub(crate) async fn readable(
    ports: &Ports,
    app: &AppId,
    keys: &[(MessageId, DeviceId)],
) -> Result<Vec<Delivery>, StoreError> {
    match ports.ledger.deliveries(app, keys).await {
        Ok(all) => return Ok(all.into_iter().flatten().collect()),
        Err(StoreError::Corrupt { .. }) => {}
        Err(error) => return Err(error),
    }
    let mut sound = Vec::with_capacity(keys.len());
    for key in keys {
        match ports
            .ledger
            .deliveries(app, std::slice::from_ref(key))
            .await
        {
            Ok(one) => sound.extend(one.into_iter().flatten()),
            Err(error @ StoreError::Corrupt { .. }) => {
                tracing::error!(%app, message = %key.0, device = %key.1, %error, "an open delivery cannot be read");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(sound)
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
