//! The push services that are talked to: for each origin its connections and the token that names us there.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hongyan_core::limits::VENDOR_CALL_DEADLINE;
use tokio::time::Instant;

use crate::egress::{CallError, Egress, Origin, Protocol};
use crate::http::{Answer, Call, h1, h2};
use crate::jwt::Minted;

/// Origins that are kept; the one that was not used for longest leaves first. Mozilla, Google and Apple have one each,
/// Microsoft a few dozen.
const ORIGINS_MAX: usize = 128;
/// A token is used this long.
const TOKEN_REUSE: Duration = Duration::from_secs(6 * 3600);
/// Least time between two tokens that are made because one was refused: Apple wants no new one within an hour.
const TOKEN_FORCE_PAUSE: Duration = Duration::from_secs(3600);

/// Subscriptions that one service may call gone in a row while it never took anything, and once it did: some hosts answer 404 to
/// whatever is asked.
const GONE_AT_FIRST_MAX: u64 = 9;
const GONE_MAX: u64 = 100;
/// How long a service that could not be reached over HTTP/2 is spoken to over HTTP/1.1.
const OLD_FOR: Duration = Duration::from_secs(600);
/// Calls in a row that a host of anybody's does not answer before it is left alone, for how long at first, and at most.
const SILENT_MAX: u32 = 3;
const SILENT_MIN: Duration = Duration::from_secs(1);
const SILENT_FOR_MAX: Duration = Duration::from_secs(60);

/// One push service.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) token: Minted,
    /// The generation of the latest token that the service took; 0 when it never took any.
    taken: AtomicU64,
    many: h2::Pool,
    one: h1::Pool,
    /// Until when it is taken to speak HTTP/1.1 only.
    old: Mutex<Option<Instant>>,
    /// Subscriptions that it called gone since it took something.
    gone: AtomicU64,
    silence: Mutex<Silence>,
}

/// How often in a row there was no answer, and until when nobody asks for one.
#[derive(Debug, Default)]
struct Silence {
    times: u32,
    /// When that was last counted.
    counted: Option<Instant>,
    until: Option<Instant>,
}

impl Silence {
    /// How long it lasts. When it is over one call goes ahead of the others.
    fn left(&mut self, now: Instant) -> Option<Duration> {
        let until = self.until?;
        if now < until {
            return Some(until - now);
        }
        self.until = Some(now + VENDOR_CALL_DEADLINE);
        None
    }

    /// Calls that were under way together count once.
    fn goes_on(&mut self, began: Instant, now: Instant) {
        if self.counted.is_some_and(|counted| began < counted) {
            return;
        }
        self.counted = Some(now);
        self.times = self.times.saturating_add(1);
        if let Some(over) = self.times.checked_sub(SILENT_MAX) {
            let pause = SILENT_MIN.saturating_mul(1 << over.min(8));
            self.until = Some(now + pause.min(SILENT_FOR_MAX));
        }
    }
}

impl Peer {
    fn new(egress: &Egress, to: &Origin) -> Self {
        Self {
            token: Minted::new(TOKEN_REUSE, TOKEN_FORCE_PAUSE),
            taken: AtomicU64::new(0),
            many: h2::Pool::new(egress, to.clone(), egress.tls(Protocol::Http2)),
            one: h1::Pool::new(egress, to.clone()),
            old: Mutex::default(),
            gone: AtomicU64::new(0),
            silence: Mutex::default(),
        }
    }

    /// Makes a call; over HTTP/1.1 where the service cannot be reached over HTTP/2.
    pub(super) async fn call(&self, call: &Call, until: Instant) -> Result<Answer, CallError> {
        let is_old = self.old().is_some_and(|until| Instant::now() < until);
        if is_old {
            return self.one.call(call, until).await;
        }
        match self.many.call(&call.clone().into(), until).await {
            Ok((answer, _)) => Ok(answer),
            Err(first @ CallError::Unreachable { .. }) => match self.one.call(call, until).await {
                Ok(answer) => {
                    *self.old() = Some(Instant::now() + OLD_FOR);
                    Ok(answer)
                }
                Err(CallError::Unreachable { .. }) => Err(first),
                Err(other) => Err(other),
            },
            Err(other) => Err(other),
        }
    }

    /// How long it is still left alone: one that does not answer keeps a place for a call from the others.
    pub(super) fn silent_for(&self) -> Option<Duration> {
        self.silence().left(Instant::now())
    }

    /// It did not answer a call that began then.
    pub(super) fn was_silent(&self, began: Instant) {
        self.silence().goes_on(began, Instant::now());
    }

    /// It answered, whatever it said.
    pub(super) fn answered(&self) {
        *self.silence() = Silence::default();
    }

    fn silence(&self) -> std::sync::MutexGuard<'_, Silence> {
        self.silence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn old(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.old.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It called a subscription gone; whether to believe it.
    pub(super) fn calls_gone(&self) -> bool {
        let before = self.gone.fetch_add(1, Ordering::Relaxed);
        let never_took = self.taken.load(Ordering::Relaxed) == 0;
        before
            < if never_took {
                GONE_AT_FIRST_MAX
            } else {
                GONE_MAX
            }
    }

    /// The service took a token of this generation.
    pub(super) fn took(&self, generation: u64) {
        self.gone.store(0, Ordering::Relaxed);
        self.taken.fetch_max(generation, Ordering::Relaxed);
    }

    /// Whether the service ever took a token of ours, so that it knows the key.
    pub(super) fn knows_us(&self) -> bool {
        self.taken.load(Ordering::Relaxed) > 0
    }

    /// Whether the service took this very token before.
    pub(super) fn has_taken(&self, generation: u64) -> bool {
        self.taken.load(Ordering::Relaxed) == generation
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Peers {
    egress: Egress,
    /// Where all calls go, whatever the subscriptions say.
    instead: Option<Origin>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    peers: HashMap<Origin, (Arc<Peer>, u64)>,
    uses: u64,
}

impl Peers {
    pub(super) fn new(egress: &Egress, instead: Option<Origin>) -> Self {
        Self {
            egress: egress.clone(),
            instead,
            known: Mutex::default(),
        }
    }

    /// The push service at an origin.
    pub(super) fn at(&self, origin: &Origin) -> Arc<Peer> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.uses += 1;
        let now = known.uses;
        if let Some((peer, used)) = known.peers.get_mut(origin) {
            *used = now;
            return peer.clone();
        }
        if known.peers.len() >= ORIGINS_MAX {
            let oldest = known.peers.iter().min_by_key(|(_, (_, used))| *used);
            if let Some(oldest) = oldest.map(|(origin, _)| origin.clone()) {
                known.peers.remove(&oldest);
            }
        }
        let to = self.instead.as_ref().unwrap_or(origin);
        let peer = Arc::new(Peer::new(&self.egress, to));
        known.peers.insert(origin.clone(), (peer.clone(), now));
        peer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vendor::fixture;

    #[test]
    fn a_service_that_calls_everybody_gone_is_not_believed() {
        let peers = Peers::new(&fixture::egress(), None);
        let peer = peers.at(&Origin::parse("https://p.example").unwrap());
        for n in 0..30 {
            assert_eq!(peer.calls_gone(), n < GONE_AT_FIRST_MAX, "{n}");
        }
        peer.took(1);
        for n in 0..GONE_MAX + 5 {
            assert_eq!(peer.calls_gone(), n < GONE_MAX, "{n}");
        }
        peer.took(1);
        assert!(peer.calls_gone());
    }

    #[test]
    fn origins_are_kept_within_bounds_and_the_least_used_leaves() {
        let peers = Peers::new(&fixture::egress(), None);
        let origin = |n: usize| Origin::parse(&format!("https://p{n}.example")).unwrap();
        let first = peers.at(&origin(0));
        let second = peers.at(&origin(1));
        for n in 2..=ORIGINS_MAX {
            assert!(Arc::ptr_eq(&first, &peers.at(&origin(0))));
            peers.at(&origin(n));
        }
        assert!(Arc::ptr_eq(&first, &peers.at(&origin(0))));
        assert!(!Arc::ptr_eq(&second, &peers.at(&origin(1))));
        assert_eq!(peers.known.lock().unwrap().peers.len(), ORIGINS_MAX);
    }
}
