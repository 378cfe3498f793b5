//! One lane for each (app, channel, credential): a bulkhead with its own queue, rate, breaker and deadline.
//!
//! A slow or broken vendor fills its own lane only; what does not fit waits in the work store, not in memory. Where a channel
//! leads to several vendors (the push services of browsers) each has a lane.

mod call;
mod measure;
mod quota;
mod unused;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hongyan_core::app::LaneLimits;
use hongyan_core::delivery::{Called, Input};
use hongyan_core::limits::{ATTEMPTS_MAX, LANE_QUEUE_LEN_MAX, VENDOR_CALL_DEADLINE};
use hongyan_core::{AppId, ChannelId, Class, CredentialName, DeviceId, Reason, Timestamp, Verdict};
use tokio::sync::{Semaphore, mpsc};

use self::measure::{batch_len, counts, devices_at_once};
use crate::breaker::{Breaker, Turn};
use crate::carried::Carried;
use crate::choice::Learned;
use crate::credentials::{Credentials, Opened};
use crate::feedback::{self, Feedback};
use crate::gate::Gate;
use crate::quota::{Quotas, is_bulk};
use crate::rate::{Bucket, Pace};
use crate::returns::{Reopenings, Returns};
use crate::service::Ports;
use crate::shipment::{Shipment, grouped};
use unused::Unused;

/// A lane without work for this long ends; the next shipment opens a new one.
const IDLE_MAX: Duration = Duration::from_secs(300);
/// A vendor's pause up to this long is waited out in the lane; a longer one sends its shipments back to the work store.
const PAUSE_IN_LANE_MAX: Duration = Duration::from_millis(500);
/// Longest pause of a lane whose vendor names no time: recovery is noticed within this.
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// Longest pause that a vendor may name.
const PAUSE_NAMED_MAX: Duration = Duration::from_secs(3_600);
/// Soonest time at which a shipment that found the lane full may come again.
const FULL_RETRY: Duration = Duration::from_millis(500);
/// How long to wait for the receipt of a push that may have been taken and is not made again, before another channel follows.
pub(crate) const UNKNOWN_FOR: Duration = Duration::from_secs(300);
/// How often a vendor that names its daily limits is asked for them.
const ASK_LIMITS_EVERY: Duration = Duration::from_secs(600);
/// Shipments taken out of the queue at once.
const TAKE_LEN_MAX: usize = 1_000;
/// Vendors that a credential has lanes of their own for at once; further ones share one.
const PEERS_MAX: usize = 32;
/// Shipments that may wait in a lane while the process as a whole holds as many as it may: enough that lanes which
/// move go on, whoever fills the rest.
const CROWDED_QUEUE_LEN_MAX: usize = 256;

type LaneKey = (AppId, ChannelId, CredentialName);
/// Which of a credential's vendors, where a channel leads to several.
type Peer = Option<Box<str>>;

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
    carried: Carried,
    lanes: Mutex<HashMap<LaneKey, HashMap<Peer, Queue>>>,
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
        carried: Carried,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                ports,
                credentials,
                feedback,
                gate,
                learned,
                quotas,
                carried,
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
        let peer = self.inner.credentials.peer(&key, &shipment.token);
        let mut peer: Peer = peer.map(Into::into);
        let refused = {
            let mut lanes = self
                .inner
                .lanes
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let peers = lanes.entry(key.clone()).or_default();
            if !peers.contains_key(&peer) && peers.len() >= PEERS_MAX {
                peer = None;
            }
            let queue = peers
                .entry(peer.clone())
                .or_insert_with(|| self.start(key.clone(), peer.clone()));
            if queue.bulk.sender.is_closed() {
                // The lane ended for lack of work between two shipments.
                *queue = self.start(key, peer);
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
                detail: None,
                called: None,
            };
            self.inner.feedback.send(shipment.signal(input)).await;
        }
    }

    /// How many pushes wait in the lane of a credential.
    pub(crate) fn waiting(&self, key: &LaneKey) -> usize {
        let lanes = self.inner.lanes.lock();
        let lanes = lanes.unwrap_or_else(PoisonError::into_inner);
        let queues = lanes.get(key).into_iter().flat_map(HashMap::values);
        let ways = queues.flat_map(|queue| [&queue.urgent, &queue.bulk]);
        ways.map(|way| way.sender.max_capacity() - way.sender.capacity())
            .sum()
    }

    fn start(&self, key: LaneKey, peer: Peer) -> Queue {
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
            peer,
            urgent: Arc::clone(&urgent.returns),
            bulk: Arc::clone(&bulk.returns),
            reopenings: Arc::new(Reopenings::new()),
            unused: Arc::default(),
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
        let lanes = self.inner.lanes.lock();
        let lanes = lanes.unwrap_or_else(PoisonError::into_inner);
        lanes.values().map(HashMap::len).sum()
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
    /// Devices for which the vendor took no more, since it took something; at most as many as tell that it means all.
    crowded: HashSet<DeviceId>,
}

#[derive(Debug, Clone)]
struct Lane {
    inner: Arc<Inner>,
    key: LaneKey,
    peer: Peer,
    urgent: Arc<Returns>,
    bulk: Arc<Returns>,
    /// For those that wait for the vendor's next day, or until it takes more: nobody else waits behind them.
    reopenings: Arc<Reopenings>,
    /// What was taken of the rate for pushes that the vendor was not asked for in the end.
    unused: Arc<Unused>,
}

impl Lane {
    async fn run(self, mut urgent: mpsc::Receiver<Shipment>, mut bulk: mpsc::Receiver<Shipment>) {
        let health = Arc::new(Mutex::new(Health {
            breaker: Breaker::default(),
            slowed: 0,
            paused_until: Timestamp(0),
            pace: Pace::default(),
            deaths: 0,
            crowded: HashSet::new(),
        }));
        let mut pace: Option<(u64, LaneLimits, Bucket, Arc<Semaphore>)> = None;
        let mut batch = Vec::new();
        // Which channel was asked for its limits last, and when.
        let mut asked: Option<(u64, Timestamp)> = None;
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
                match first.await {
                    Ok(Some(first)) => batch.push(first),
                    // Another lane would not know of the vendor's pause.
                    Err(_elapsed) if self.paused(&health).is_some() => continue,
                    Ok(None) | Err(_) => {
                        self.close(urgent, bulk).await;
                        return;
                    }
                }
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
            self.ask_limits(&opened, &mut asked);
            let capability = opened.vendor.capability();
            let base_rate = opened.limits.rate_per_s.unwrap_or(capability.rate_per_s);
            let before = pace.as_ref().map(|(of, limits, ..)| (*of, *limits));
            let is_same = before.is_some_and(|(of, _)| of == opened.generation);
            if !is_same {
                // Whom the vendor asked to pause was another credential, or the same with other secrets.
                lock(&health).paused_until = Timestamp(0);
            }
            if before != Some((opened.generation, opened.limits)) {
                let per_s = devices_at_once(&opened).saturating_mul(base_rate.into());
                for returns in [&self.urgent, &self.bulk] {
                    returns.pace(per_s);
                }
                self.reopenings.pace(per_s);
                let most =
                    |limits: &LaneLimits| limits.concurrency.unwrap_or(capability.concurrency);
                // What is under way counts on, unless it is told anew how much may be.
                let kept = pace.take().filter(|_| is_same);
                let (bucket, slots) = match kept {
                    Some((_, limits, bucket, slots)) if most(&limits) == most(&opened.limits) => {
                        (Some(bucket), Some(slots))
                    }
                    Some((_, _, bucket, _)) => (Some(bucket), None),
                    None => (None, None),
                };
                let now = self.inner.ports.clock.now();
                let anew = || Arc::new(Semaphore::new(most(&opened.limits).max(1) as usize));
                pace = Some((
                    opened.generation,
                    opened.limits,
                    bucket.unwrap_or_else(|| Bucket::new(base_rate, now)),
                    slots.unwrap_or_else(anew),
                ));
            }
            let Some((_, _, bucket, slots)) = &mut pace else {
                continue;
            };
            let is_later = |s: &Shipment| is_bulk(s.message.class);
            let (wait, first): (Vec<_>, Vec<_>) = batch.drain(..).partition(is_later);
            let batch_len_max = capability.batch_len_max.max(1);
            later.extend(grouped(wait, batch_len_max));
            let mut turn = VecDeque::from(grouped(first, batch_len_max));
            let is_bulk_turn = turn.is_empty();
            if is_bulk_turn {
                turn.extend(later.pop_front());
            }
            while let Some(mut group) = turn.pop_front() {
                let turn_to_call = match self.may_send(&health) {
                    Ok((pause, turn)) if pause.is_zero() => turn,
                    Ok((pause, turn)) => {
                        tokio::time::sleep(pause).await;
                        turn
                    }
                    Err((reason, at)) => {
                        self.send_back(group, reason, at).await;
                        continue;
                    }
                };
                let taken = loop {
                    // The lane may be asked to slow down while this waits.
                    let now = self.inner.ports.clock.now();
                    let rate = lock(&health).pace.of(base_rate, now);
                    bucket.set_rate(rate);
                    bucket.give_back(self.unused.all());
                    let most = batch_len(&opened, rate);
                    if group.len() > most {
                        let rest = group.split_off(most);
                        let waiting = if is_bulk_turn { &mut later } else { &mut turn };
                        waiting.push_front(rest);
                    }
                    let counts = counts(&opened, group.len());
                    let Err(wait) = bucket.take(counts, now) else {
                        break counts;
                    };
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = self.unused.grows() => {}
                    }
                };
                let Ok(slot) = Arc::clone(slots).acquire_owned().await else {
                    lock(&health).breaker.not_made(turn_to_call);
                    continue;
                };
                // While this waited its turn an earlier call may have been told to pause.
                if let Some(until) = self.paused(&health) {
                    lock(&health).breaker.not_made(turn_to_call);
                    self.unused.add(taken);
                    self.send_back(group, Reason::VendorRateLimited, until)
                        .await;
                    continue;
                }
                let (lane, opened, health) = (self.clone(), opened.clone(), Arc::clone(&health));
                tokio::spawn(async move {
                    lane.send(opened, group, taken, (&health, turn_to_call))
                        .await;
                    drop(slot);
                });
            }
        }
    }

    /// Asks the vendor for its daily limits now and then, beside the sending.
    fn ask_limits(&self, opened: &Opened, asked: &mut Option<(u64, Timestamp)>) {
        let now = self.inner.ports.clock.now();
        let fresh = asked
            .is_some_and(|(of, at)| of == opened.generation && now.since(at) < ASK_LIMITS_EVERY);
        if fresh {
            return;
        }
        *asked = Some((opened.generation, now));
        let (channel, id) = (Arc::clone(&opened.channel), self.key.1.clone());
        tokio::spawn(async move {
            let asking = channel.ask_limits(VENDOR_CALL_DEADLINE);
            match tokio::time::timeout(VENDOR_CALL_DEADLINE, asking).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::info!(channel = %id, %error, "a vendor did not name its limits");
                }
                Err(_elapsed) => {
                    tracing::info!(channel = %id, "a vendor did not name its limits in time")
                }
            }
        });
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
        let Some(peers) = lanes.get_mut(&self.key) else {
            return;
        };
        let ended = |queue: &Queue| queue.bulk.sender.is_closed();
        if peers.get(&self.peer).is_some_and(ended) {
            peers.remove(&self.peer);
        }
        if peers.is_empty() {
            lanes.remove(&self.key);
        }
    }

    /// After which short pause the vendor may be called; else why not and when to come again.
    fn may_send(&self, health: &Mutex<Health>) -> Result<(Duration, Turn), (Reason, Timestamp)> {
        let now = self.inner.ports.clock.now();
        let mut health = lock(health);
        let pause = health.paused_until.since(now);
        if pause > PAUSE_IN_LANE_MAX {
            return Err((Reason::VendorRateLimited, health.paused_until));
        }
        match health.breaker.ask(now) {
            Ok(turn) => Ok((pause, turn)),
            Err(at) => Err((Reason::BreakerOpen, at)),
        }
    }

    /// The end of a pause that is too long to be waited out here.
    fn paused(&self, health: &Mutex<Health>) -> Option<Timestamp> {
        let until = lock(health).paused_until;
        let left = until.since(self.inner.ports.clock.now());
        (left > PAUSE_IN_LANE_MAX).then_some(until)
    }

    async fn send_back(&self, group: Vec<Shipment>, reason: Reason, at: Timestamp) {
        let now = self.inner.ports.clock.now();
        for shipment in group {
            let input = if reason == Reason::VendorRateLimited && at >= shipment.delivery.expires_at
            {
                let detail = "the vendor asked for a pause";
                self.answer(&shipment, outlived(detail, at), None, None, now)
            } else {
                Input::NotSent {
                    reason,
                    retry_at: self.returns(shipment.message.class).next(at),
                    detail: None,
                    called: None,
                }
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
                    detail: None,
                    called: None,
                },
                _ => self.answer(
                    &shipment,
                    Verdict::CredentialBad {
                        detail: error.to_string(),
                    },
                    None,
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
        called: Option<Called>,
        now: Timestamp,
    ) -> Input {
        let channels = &shipment.message.options.channels;
        let attempts = opened.and_then(|o| o.limits.attempts);
        let receipts = opened.is_some_and(|o| o.hears);
        let repeats = opened.is_none_or(|o| o.repeats);
        let verdict = if repeats {
            verdict
        } else {
            verdict.once_only()
        };
        let verdict = match verdict {
            Verdict::Retry {
                reason: reason @ Reason::VendorRateLimited,
                after: Some(after),
                detail,
                certainty,
            } => {
                let after = after.min(PAUSE_NAMED_MAX);
                if now.plus(after) >= shipment.delivery.expires_at {
                    outlived(&detail, now.plus(after))
                } else {
                    Verdict::Retry {
                        reason,
                        after: Some(after),
                        detail,
                        certainty,
                    }
                }
            }
            verdict => verdict,
        };
        let unknown = matches!(verdict, Verdict::Unknown { .. });
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
            receipt_by: match channels.fallback_after_ms {
                Some(ms) if receipts => Some(now.plus(Duration::from_millis(ms.into()))),
                _ => unknown.then(|| now.plus(UNKNOWN_FOR)),
            },
            verdict,
            called,
        }
    }
}

/// What becomes of a message that does not live as long as its vendor's pause: another channel may take it.
fn outlived(detail: &str, until: Timestamp) -> Verdict {
    Verdict::Refused {
        reason: Reason::VendorRateLimited,
        detail: format!(
            "{detail}; the message ends before it may be sent, at {}",
            until.rfc3339()
        ),
    }
}

fn lock(health: &Mutex<Health>) -> std::sync::MutexGuard<'_, Health> {
    health.lock().unwrap_or_else(PoisonError::into_inner)
}
