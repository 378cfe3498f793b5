//! One lane for each (app, channel, credential): a bulkhead with its own queue, rate, breaker and deadline.
//!
//! A slow or broken vendor fills its own lane only; what does not fit waits in the work store, not in memory.

mod quota;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hongyan_core::delivery::{Happened, Input};
use hongyan_core::limits::{ATTEMPTS_MAX, LANE_QUEUE_LEN_MAX, VENDOR_CALL_DEADLINE};
use hongyan_core::port::{Batch, Outbound, Parcel, Recipient, Truncation, WriteSet};
use hongyan_core::verdict::Unsure;
use hongyan_core::{
    AppId, ChannelId, Class, CredentialName, Reason, Secret, Stage, StoreError, Timestamp, Verdict,
};
use tokio::sync::{Semaphore, mpsc};

use self::quota::Ready;
use crate::breaker::Breaker;
use crate::choice::Learned;
use crate::credentials::{Credentials, Opened};
use crate::feedback::{self, Feedback};
use crate::gate::Gate;
use crate::quota::{Day, Quotas, is_bulk};
use crate::rate::{Bucket, Pace};
use crate::render;
use crate::returns::Returns;
use crate::service::Ports;
use crate::shipment::{Shipment, grouped};

/// A lane without work for this long ends; the next shipment opens a new one.
const IDLE_MAX: Duration = Duration::from_secs(300);
/// A vendor's pause up to this long is waited out in the lane; a longer one sends its shipments back to the work store.
const PAUSE_IN_LANE_MAX: Duration = Duration::from_millis(500);
/// First pause of a lane that its vendor asked to slow down; doubles while it goes on asking. The delivery itself waits as
/// long as the vendor said: many vendors count by device, so that one busy device must not stop the lane for a minute.
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// Longest pause of a lane: recovery is noticed within this.
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// Soonest time at which a shipment that found the lane full may come again.
const FULL_RETRY: Duration = Duration::from_millis(500);
/// Shipments taken out of the queue at once.
const TAKE_LEN_MAX: usize = 1_000;
/// Shipments that may wait in a lane while the process as a whole holds as many as it may: enough that lanes which
/// move go on, whoever fills the rest.
const CROWDED_QUEUE_LEN_MAX: usize = 256;
/// Texts shorter than these, in characters, are within every vendor's limits.
const SHORT_TITLE: usize = 15;
const SHORT_BODY: usize = 50;
/// Grace over the vendor's deadline before the call is given up from outside.
const DEADLINE_GRACE: Duration = Duration::from_secs(1);

/// Tokens that may be called dead one after another, without one that lives between them.
const DEATHS_MAX: usize = 100;

type LaneKey = (AppId, ChannelId, CredentialName);

/// All lanes of this process.
#[derive(Debug, Clone)]
pub(crate) struct Lanes {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    ports: Ports,
    credentials: Credentials,
    feedback: Feedback,
    gate: Gate,
    learned: Learned,
    quotas: Quotas,
    lanes: Mutex<HashMap<LaneKey, Queue>>,
}

/// What waits in a lane: the urgent classes are taken first, and come back in a row of their own.
#[derive(Debug)]
struct Queue {
    urgent: Way,
    bulk: Way,
}

#[derive(Debug)]
struct Way {
    sender: mpsc::Sender<Shipment>,
    returns: Arc<Returns>,
}

impl Queue {
    fn of(&self, class: Class) -> &Way {
        if is_bulk(class) {
            &self.bulk
        } else {
            &self.urgent
        }
    }
}

impl Lanes {
    pub(crate) fn new(
        ports: Ports,
        credentials: Credentials,
        feedback: Feedback,
        gate: Gate,
        learned: Learned,
        quotas: Quotas,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                ports,
                credentials,
                feedback,
                gate,
                learned,
                quotas,
                lanes: Mutex::default(),
            }),
        }
    }

    /// Hands a shipment to its lane. Never waits for a vendor: what does not fit is sent back with a time. `crowded` says
    /// that the process holds as many as it may, so that only lanes with little waiting take more.
    pub(crate) async fn push(&self, shipment: Shipment, crowded: bool) {
        let key = (
            shipment.delivery.app.clone(),
            shipment.channel.clone(),
            shipment.credential.clone(),
        );
        let refused = {
            let mut lanes = self
                .inner
                .lanes
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let queue = lanes
                .entry(key.clone())
                .or_insert_with(|| self.start(key.clone()));
            if queue.bulk.sender.is_closed() {
                // The lane ended for lack of work between two shipments.
                *queue = self.start(key);
            }
            let way = queue.of(shipment.message.class);
            let waiting = way.sender.max_capacity() - way.sender.capacity();
            let refused = if crowded && waiting >= CROWDED_QUEUE_LEN_MAX {
                Some(shipment)
            } else {
                way.sender.try_send(shipment).err().map(|e| e.into_inner())
            };
            refused.map(|shipment| (shipment, Arc::clone(&way.returns)))
        };
        if let Some((shipment, returns)) = refused {
            let input = Input::NotSent {
                reason: Reason::VendorRateLimited,
                retry_at: returns.next(self.inner.ports.clock.now().plus(FULL_RETRY)),
            };
            self.inner.feedback.send(shipment.signal(input)).await;
        }
    }

    fn start(&self, key: LaneKey) -> Queue {
        let way = || {
            let (sender, rest) = mpsc::channel(LANE_QUEUE_LEN_MAX);
            let returns = Arc::new(Returns::new());
            (Way { sender, returns }, rest)
        };
        let (urgent, urgent_rest) = way();
        let (bulk, bulk_rest) = way();
        let lane = Lane {
            inner: Arc::clone(&self.inner),
            key,
            urgent: Arc::clone(&urgent.returns),
            bulk: Arc::clone(&bulk.returns),
            tomorrow: Arc::new(Returns::new()),
        };
        tokio::spawn(async move {
            let channel = lane.key.1.clone();
            if let Err(ended) = tokio::spawn(lane.run(urgent_rest, bulk_rest)).await
                && ended.is_panic()
            {
                // What waited here comes back with the end of its lease; the next shipment opens a new lane.
                tracing::error!(%channel, error = %ended, "a lane panicked");
                metrics::counter!("hongyan_lane_panics_total").increment(1);
            }
        });
        Queue { urgent, bulk }
    }

    /// Lanes that exist now.
    pub(crate) fn len(&self) -> usize {
        self.inner
            .lanes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }
}

/// The health of a lane, shared by its calls.
#[derive(Debug)]
struct Health {
    breaker: Breaker,
    /// Answers in a row that asked to slow down.
    slowed: u32,
    paused_until: Timestamp,
    pace: Pace,
    /// Tokens called dead in a row, over calls.
    deaths: usize,
}

/// A call that may be the probe of an open breaker. When nothing was asked of the vendor in the end, whatever the cause,
/// the probe must not stay open: the next call may be one.
struct Probe<'a> {
    health: &'a Mutex<Health>,
    answered: bool,
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.health
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .breaker
                .not_made();
        }
    }
}

#[derive(Debug, Clone)]
struct Lane {
    inner: Arc<Inner>,
    key: LaneKey,
    urgent: Arc<Returns>,
    bulk: Arc<Returns>,
    /// For those that wait for the vendor's next day: nobody else waits behind them.
    tomorrow: Arc<Returns>,
}

impl Lane {
    async fn run(self, mut urgent: mpsc::Receiver<Shipment>, mut bulk: mpsc::Receiver<Shipment>) {
        let health = Arc::new(Mutex::new(Health {
            breaker: Breaker::default(),
            slowed: 0,
            paused_until: Timestamp(0),
            pace: Pace::default(),
            deaths: 0,
        }));
        let mut pace: Option<(u64, Bucket, Arc<Semaphore>)> = None;
        let mut batch = Vec::new();
        // Groups of the bulk classes that were taken out of the queue and wait for their turn.
        let mut later: VecDeque<Vec<Shipment>> = VecDeque::new();
        loop {
            batch.clear();
            if later.is_empty() {
                let first = tokio::time::timeout(IDLE_MAX, async {
                    tokio::select! {
                        biased;
                        shipment = urgent.recv() => shipment,
                        shipment = bulk.recv() => shipment,
                    }
                });
                let Ok(Some(first)) = first.await else {
                    self.close(urgent, bulk).await;
                    return;
                };
                batch.push(first);
                while batch.len() < TAKE_LEN_MAX
                    && let Ok(shipment) = bulk.try_recv()
                {
                    batch.push(shipment);
                }
            }
            for _ in 0..TAKE_LEN_MAX {
                let Ok(shipment) = urgent.try_recv() else {
                    break;
                };
                batch.push(shipment);
            }
            let (app, channel, credential) = &self.key;
            let opened = match self.inner.credentials.open(app, channel, credential).await {
                Ok(opened) => opened,
                Err(error) => {
                    batch.extend(later.drain(..).flatten());
                    self.cannot_open(std::mem::take(&mut batch), &error).await;
                    continue;
                }
            };
            let capability = opened.vendor.capability();
            let fresh = pace
                .as_ref()
                .is_none_or(|(generation, ..)| *generation != opened.generation);
            if fresh {
                let rate = opened.limits.rate_per_s.unwrap_or(capability.rate_per_s);
                let batch_len = capability.batch_len_max.max(1) as u64;
                for returns in [&self.urgent, &self.bulk, &self.tomorrow] {
                    returns.pace(batch_len.saturating_mul(rate.into()));
                }
                let slots = opened
                    .limits
                    .concurrency
                    .unwrap_or(capability.concurrency)
                    .max(1);
                pace = Some((
                    opened.generation,
                    Bucket::new(rate, self.inner.ports.clock.now()),
                    Arc::new(Semaphore::new(slots as usize)),
                ));
            }
            let Some((_, bucket, slots)) = &mut pace else {
                continue;
            };
            let is_later = |s: &Shipment| is_bulk(s.message.class);
            let (wait, first): (Vec<_>, Vec<_>) = batch.drain(..).partition(is_later);
            let batch_len = capability.batch_len_max.max(1);
            let mut turn = grouped(first, batch_len);
            later.extend(grouped(wait, batch_len));
            if turn.is_empty() {
                turn.extend(later.pop_front());
            }
            for group in turn {
                match self.may_send(&health) {
                    Ok(pause) if pause.is_zero() => {}
                    Ok(pause) => tokio::time::sleep(pause).await,
                    Err((reason, at)) => {
                        self.send_back(group, reason, at).await;
                        continue;
                    }
                }
                let rate = opened.limits.rate_per_s.unwrap_or(capability.rate_per_s);
                let now = self.inner.ports.clock.now();
                bucket.set_rate(lock(&health).pace.of(rate, now));
                while let Err(wait) = bucket.take(self.inner.ports.clock.now()) {
                    tokio::time::sleep(wait).await;
                }
                let Ok(slot) = Arc::clone(slots).acquire_owned().await else {
                    continue;
                };
                let (lane, opened, health) = (self.clone(), opened.clone(), Arc::clone(&health));
                tokio::spawn(async move {
                    lane.send(opened, group, &health).await;
                    drop(slot);
                });
            }
        }
    }

    /// Ends the lane for lack of work.
    async fn close(
        &self,
        mut urgent: mpsc::Receiver<Shipment>,
        mut bulk: mpsc::Receiver<Shipment>,
    ) {
        urgent.close();
        bulk.close();
        self.leave();
        // Whoever slipped in before the queues were closed comes again.
        while let Ok(late) = urgent.try_recv().or_else(|_| bulk.try_recv()) {
            let now = self.inner.ports.clock.now();
            self.send_back(vec![late], Reason::VendorUnavailable, now)
                .await;
        }
    }

    /// Where those of a class come back.
    fn returns(&self, class: Class) -> &Returns {
        if is_bulk(class) {
            &self.bulk
        } else {
            &self.urgent
        }
    }

    /// Takes its queue, which is closed, out of the map, unless another took its place.
    fn leave(&self) {
        let mut lanes = self
            .inner
            .lanes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if lanes
            .get(&self.key)
            .is_some_and(|q| q.bulk.sender.is_closed())
        {
            lanes.remove(&self.key);
        }
    }

    /// After which short pause the vendor may be called; else why not and when to come again.
    fn may_send(&self, health: &Mutex<Health>) -> Result<Duration, (Reason, Timestamp)> {
        let now = self.inner.ports.clock.now();
        let mut health = lock(health);
        let pause = health.paused_until.since(now);
        if pause > PAUSE_IN_LANE_MAX {
            return Err((Reason::VendorRateLimited, health.paused_until));
        }
        match health.breaker.ask(now) {
            Ok(()) => Ok(pause),
            Err(at) => Err((Reason::BreakerOpen, at)),
        }
    }

    async fn send_back(&self, group: Vec<Shipment>, reason: Reason, at: Timestamp) {
        for shipment in group {
            let input = Input::NotSent {
                reason,
                retry_at: self.returns(shipment.message.class).next(at),
            };
            self.inner.feedback.send(shipment.signal(input)).await;
        }
    }

    /// The credential is missing or does not open: final for this channel, since only a person can mend it.
    async fn cannot_open(&self, group: Vec<Shipment>, error: &crate::credentials::CredentialError) {
        use crate::credentials::CredentialError;
        tracing::warn!(channel = %self.key.1, credential = %self.key.2, %error, "a lane cannot open its credential");
        let now = self.inner.ports.clock.now();
        for shipment in group {
            let input = match error {
                CredentialError::Store(_) => Input::NotSent {
                    reason: Reason::VendorUnavailable,
                    retry_at: now.plus(Duration::from_secs(1)),
                },
                _ => self.answer(
                    &shipment,
                    Verdict::CredentialBad {
                        detail: error.to_string(),
                    },
                    None,
                    now,
                ),
            };
            self.inner.feedback.send(shipment.signal(input)).await;
        }
    }

    fn answer(
        &self,
        shipment: &Shipment,
        verdict: Verdict,
        opened: Option<&Opened>,
        now: Timestamp,
    ) -> Input {
        let channels = &shipment.message.options.channels;
        let attempts = opened.and_then(|o| o.limits.attempts);
        let receipts = opened.is_some_and(|o| o.hears);
        let after = match &verdict {
            Verdict::Retry { after, .. } => *after,
            _ => None,
        };
        Input::Verdict {
            channel: self.key.1.clone(),
            retry_at: feedback::retry_at(
                now,
                shipment.delivery.attempt,
                after,
                self.inner.ports.dice.as_ref(),
            ),
            attempts_max: attempts.unwrap_or(ATTEMPTS_MAX),
            fallback: channels.fallback,
            receipt_by: channels
                .fallback_after_ms
                .filter(|_| receipts)
                .map(|ms| now.plus(Duration::from_millis(ms.into()))),
            verdict,
        }
    }

    /// One call to the vendor, from the gate to the feedback.
    async fn send(&self, opened: Opened, group: Vec<Shipment>, health: &Mutex<Health>) {
        let inner = &self.inner;
        let mut probe = Probe {
            health,
            answered: false,
        };
        let pass = inner.gate.enter(
            &self.key.0,
            group
                .iter()
                .map(|s| (s.delivery.device.clone(), s.delivery.binding)),
        );
        let (fit, mut rest) = self.still_meant(group).await;
        let (fit, over, share) = self.within_quota(&opened, fit).await;
        rest.extend(over);
        for (shipment, input) in rest {
            inner.feedback.send(shipment.signal(input)).await;
        }
        let Some((first, _)) = fit.first() else {
            return;
        };
        let now = inner.ports.clock.now();
        let first_try = fit.iter().any(|(s, _)| s.delivery.attempt <= 1);
        let batch = Batch {
            outbound: render::outbound(&first.message, first.package.clone(), now),
            recipients: fit
                .iter()
                .map(|(s, _)| Recipient {
                    device: s.delivery.device.clone(),
                    token: Secret::new(s.token.as_bytes()),
                    environment: s.environment,
                })
                .collect(),
        };
        let channel = Arc::clone(&opened.channel);
        let may_be_cut = may_be_cut(&batch.outbound);
        let strict = may_be_cut && self.is_strict().await;
        let looks = strict || first_try && (opened.limited || may_be_cut);
        let called = tokio::spawn(async move {
            let parcel = looks.then(|| channel.preview(&batch.outbound));
            let changed = parcel
                .and_then(Result::ok)
                .map(Changed::of)
                .unwrap_or_default();
            if strict && !changed.cut.is_empty() {
                let (reason, detail) = render::too_long(&changed.cut);
                let refused = Verdict::Refused { reason, detail };
                let refused = vec![refused; batch.recipients.len()];
                return (Ok(refused), Changed::default());
            }
            let sent = tokio::time::timeout(
                VENDOR_CALL_DEADLINE + DEADLINE_GRACE,
                channel.send(&batch, VENDOR_CALL_DEADLINE),
            )
            .await;
            (sent, changed)
        });
        let lost = |detail: &str| Verdict::Retry {
            reason: Reason::VendorUnavailable,
            after: None,
            detail: detail.to_owned(),
            certainty: Unsure::MaybeTaken,
        };
        let (sent, changed) = match called.await {
            Ok((sent, changed)) => (Ok(sent), changed),
            Err(panic) => (Err(panic), Changed::default()),
        };
        let mut verdicts = match sent {
            Ok(Ok(verdicts)) => verdicts,
            Ok(Err(_elapsed)) => vec![lost("no answer within the deadline"); fit.len()],
            Err(panic) => {
                tracing::error!(channel = %self.key.1, error = %panic, "a channel panicked");
                metrics::counter!("hongyan_lane_panics_total").increment(1);
                vec![lost("internal error while sending"); fit.len()]
            }
        };
        verdicts.resize(fit.len(), lost("the channel gave no verdict"));
        drop(pass);
        let now = inner.ports.clock.now();
        let verdicts = self.learn(health, verdicts, now);
        probe.answered = true;
        self.tell_changed(&fit, &changed, now).await;
        if let Some(share) = &share {
            let results: Vec<_> = fit
                .iter()
                .map(|(_, device)| device.id.clone())
                .zip(verdicts.iter().cloned())
                .collect();
            self.settle_quota(&opened, share, &results).await;
        }
        for ((shipment, device), verdict) in fit.into_iter().zip(verdicts) {
            let verdict = unless_given_since(&shipment, verdict);
            metrics::counter!(
                "hongyan_lane_verdicts_total",
                "channel" => self.key.1.to_string(),
                "reason" => verdict.reason().as_str(),
            )
            .increment(1);
            let input = match verdict {
                Verdict::QuotaExhausted { until, detail } if is_bulk(shipment.message.class) => {
                    let day = Day::at(now, opened.vendor.day_offset_s());
                    let opens_at = until.map_or(day.end, |after| now.plus(after));
                    self.over_quota(&shipment, &device, opens_at, Some(detail))
                        .await
                }
                verdict => {
                    match &verdict {
                        Verdict::TokenDead { reason, .. } => {
                            self.kill_token(&shipment, *reason, now).await;
                        }
                        Verdict::Accepted { .. } => {
                            inner.learned.accepted(&self.key.1, &device, now);
                        }
                        _ => {}
                    }
                    self.answer(&shipment, verdict, Some(&opened), now)
                }
            };
            inner.feedback.send(shipment.signal(input)).await;
        }
    }

    /// Looks each device up once more, inside the gate: what is no longer meant for who holds it stays here.
    async fn still_meant(&self, group: Vec<Shipment>) -> (Vec<Ready>, Vec<(Shipment, Input)>) {
        let ports = &self.inner.ports;
        let now = ports.clock.now();
        let ids: Vec<_> = group.iter().map(|s| s.delivery.device.clone()).collect();
        let again = Input::NotSent {
            reason: Reason::VendorUnavailable,
            retry_at: now.plus(Duration::from_millis(500)),
        };
        let keys: Vec<_> = group
            .iter()
            .map(|s| (s.delivery.message, s.delivery.device.clone()))
            .collect();
        let message = group.first().map(|s| s.message.id);
        let looked = async {
            let devices = ports.registry.devices(&self.key.0, &ids).await?;
            let recalled = match message {
                Some(id) => ports.inbox.recalled(&self.key.0, id).await?.is_some(),
                None => false,
            };
            let deliveries = ports.ledger.deliveries(&self.key.0, &keys).await?;
            Ok::<_, StoreError>((devices, recalled, deliveries))
        };
        let (devices, recalled, deliveries) = match looked.await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "a lane could not look its devices up; its shipments come again");
                let again = |s| (s, again.clone());
                return (vec![], group.into_iter().map(again).collect());
            }
        };
        let (mut fit, mut rest) = (Vec::with_capacity(group.len()), Vec::new());
        for ((shipment, device), stored) in group.into_iter().zip(devices).zip(deliveries) {
            let d = &shipment.delivery;
            // Acked, collapsed or cancelled while it waited here: there is nothing left to say.
            if stored.is_none_or(|stored| stored.state != d.state || stored.attempt != d.attempt) {
                continue;
            }
            let verdict = match &device {
                None => Some(Input::End(Reason::DeviceDeleted)),
                Some(device)
                    if d.user.is_some()
                        && (device.user != d.user || device.binding != d.binding) =>
                {
                    Some(Input::End(Reason::UserLoggedOut))
                }
                Some(_) if recalled => Some(Input::End(Reason::Recalled)),
                Some(_) if now >= d.expires_at => Some(Input::End(Reason::Expired)),
                Some(device) => match device.token(&self.key.1) {
                    Some(t) if t.is_active() && t.token == shipment.token => None,
                    // The token changed on the way: plan again with the new one.
                    _ => Some(Input::NotSent {
                        reason: Reason::TokenInvalid,
                        retry_at: now,
                    }),
                },
            };
            match (verdict, device) {
                (None, Some(device)) => fit.push((shipment, device)),
                (None, None) => rest.push((shipment, Input::End(Reason::DeviceDeleted))),
                (Some(input), _) => rest.push((shipment, input)),
            }
        }
        (fit, rest)
    }

    async fn kill_token(&self, shipment: &Shipment, reason: Reason, now: Timestamp) {
        let killed = self
            .inner
            .ports
            .registry
            .kill_token(
                &self.key.0,
                &shipment.delivery.device,
                &self.key.1,
                &shipment.token,
                reason,
                now,
            )
            .await;
        if let Err(error) = killed {
            tracing::warn!(channel = %self.key.1, %error, "a dead token could not be taken out of use");
        }
    }

    /// Whether the app wants texts refused that are too long.
    async fn is_strict(&self) -> bool {
        match self.inner.ports.registry.app(&self.key.0).await {
            Ok(app) => app.is_some_and(|a| a.policy.strict_payload),
            Err(error) => {
                // Nobody knows that shortening is allowed.
                tracing::warn!(%error, "an app's policy could not be read; texts that are too long are refused");
                true
            }
        }
    }

    /// What was changed for the vendor is told, once for each delivery.
    async fn tell_changed(&self, sent: &[Ready], changed: &Changed, now: Timestamp) {
        let mut told = Vec::new();
        if !changed.cut.is_empty() {
            told.push((
                Stage::Truncated,
                Reason::Truncated,
                render::cut_words(&changed.cut),
            ));
        }
        if let Some(why) = &changed.downgraded {
            told.push((Stage::ClassDowngraded, Reason::ClassDowngraded, why.clone()));
        }
        if told.is_empty() {
            return;
        }
        let mut events = Vec::with_capacity(sent.len());
        for (shipment, _) in sent.iter().filter(|(s, _)| s.delivery.attempt <= 1) {
            for (stage, reason, detail) in &told {
                let happened = Happened {
                    channel: Some(self.key.1.clone()),
                    attempt: shipment.delivery.attempt,
                    detail: Some(detail.clone()),
                    ..Happened::new(*stage, Some(*reason))
                };
                events.push(shipment.delivery.event(happened, now));
            }
        }
        let set = WriteSet {
            events,
            ..WriteSet::default()
        };
        if let Some(Err(error)) = self.inner.ports.commit.commit(vec![set]).await.pop() {
            tracing::warn!(%error, "what was changed for a vendor could not be told");
        }
    }

    /// What the answers say about the vendor's health.
    ///
    /// A vendor that calls token after token dead, over calls, speaks of a wrong credential: then no more tokens die.
    fn learn(
        &self,
        health: &Mutex<Health>,
        mut verdicts: Vec<Verdict>,
        now: Timestamp,
    ) -> Vec<Verdict> {
        let mut health = lock(health);
        for verdict in &mut verdicts {
            match verdict {
                Verdict::TokenDead { detail, .. } => {
                    health.deaths += 1;
                    if health.deaths > DEATHS_MAX {
                        *verdict = Verdict::Refused {
                            reason: Reason::TokenEnvironment,
                            detail: format!(
                                "{} tokens in a row were called dead ({detail}), so they are kept: check the credential, its environment and where the tokens come from",
                                health.deaths
                            ),
                        };
                    }
                }
                Verdict::Accepted { .. } => health.deaths = 0,
                _ => {}
            }
        }
        let mut answered = false;
        let mut failed = false;
        let mut slowed = None;
        for verdict in &verdicts {
            match verdict {
                Verdict::Retry {
                    reason: Reason::VendorRateLimited,
                    after,
                    ..
                } => slowed = slowed.max(Some(after.unwrap_or(PAUSE_MAX))),
                Verdict::Retry { .. } => failed = true,
                _ => answered = true,
            }
        }
        if let Some(asked) = slowed.filter(|_| !answered) {
            let pause = PAUSE_MIN
                .saturating_mul(1 << health.slowed.min(8))
                .min(PAUSE_MAX)
                .min(asked);
            health.slowed = health.slowed.saturating_add(1);
            health.pace.slow_down(now);
            health.paused_until = health.paused_until.max(now.plus(pause));
            answered = true;
        } else if answered {
            health.slowed = 0;
        }
        if answered {
            health.breaker.succeeded();
        } else if failed {
            health.breaker.failed(now);
        }
        verdicts
    }
}

/// What a channel changed of a message, to be told.
#[derive(Debug, Default)]
struct Changed {
    cut: Vec<Truncation>,
    downgraded: Option<String>,
}

impl Changed {
    fn of(parcel: Parcel) -> Self {
        Self {
            cut: parcel.truncated,
            downgraded: parcel.downgraded,
        }
    }
}

fn lock(health: &Mutex<Health>) -> std::sync::MutexGuard<'_, Health> {
    health.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a vendor might shorten a text of it.
fn may_be_cut(outbound: &Outbound) -> bool {
    let longer =
        |text: &Option<String>, len| text.as_ref().is_some_and(|t| t.chars().nth(len).is_some());
    longer(&outbound.title, SHORT_TITLE) || longer(&outbound.body, SHORT_BODY)
}

/// A token that the device gave again after the vendor saw it die is alive: the vendor has not noticed yet.
fn unless_given_since(shipment: &Shipment, verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::TokenDead {
            detail,
            since: Some(since),
            ..
        } if shipment.registered_at > since => Verdict::Retry {
            reason: Reason::VendorUnavailable,
            after: None,
            detail: format!("{detail}, but the device gave it again later"),
            certainty: Unsure::NotTaken,
        },
        verdict => verdict,
    }
}
