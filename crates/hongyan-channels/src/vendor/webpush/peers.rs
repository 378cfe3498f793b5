//! The push services that are talked to: for each origin its connections and the token that names us there.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::egress::{CallError, Egress, Origin, Protocol};
use crate::http::{Answer, Call, h1, h2};
use crate::jwt::Minted;

/// Origins that are kept; the one that was not used for longest leaves first. Mozilla, Google and Apple have one each,
/// Microsoft a few dozen.
const ORIGINS_MAX: usize = 128;
/// A token is used this long; Apple wants no new one within an hour.
const TOKEN_REUSE: Duration = Duration::from_secs(6 * 3600);

/// One push service.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) token: Minted,
    /// The generation of the token that the service took last.
    taken: AtomicU64,
    many: h2::Pool,
    one: h1::Pool,
    /// Whether it speaks HTTP/1.1 only.
    old: AtomicBool,
}

impl Peer {
    fn new(egress: &Egress, to: &Origin) -> Self {
        Self {
            // A refused token is never replaced before its time, so the pause between two does not matter.
            token: Minted::new(TOKEN_REUSE, TOKEN_REUSE),
            taken: AtomicU64::new(0),
            many: h2::Pool::new(egress, to.clone(), egress.tls(Protocol::Http2)),
            one: h1::Pool::new(egress, to.clone()),
            old: AtomicBool::new(false),
        }
    }

    /// Makes a call; over HTTP/1.1 where the service cannot be reached over HTTP/2.
    pub(super) async fn call(&self, call: &Call, until: Instant) -> Result<Answer, CallError> {
        if self.old.load(Ordering::Relaxed) {
            return self.one.call(call, until).await;
        }
        match self.many.call(&call.clone().into(), until).await {
            Ok((answer, _)) => Ok(answer),
            Err(first @ CallError::Unreachable { .. }) => match self.one.call(call, until).await {
                Ok(answer) => {
                    self.old.store(true, Ordering::Relaxed);
                    Ok(answer)
                }
                Err(CallError::Unreachable { .. }) => Err(first),
                Err(other) => Err(other),
            },
            Err(other) => Err(other),
        }
    }

    /// The service took a token of this generation.
    pub(super) fn took(&self, generation: u64) {
        self.taken.store(generation, Ordering::Relaxed);
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
