//! Who of a user is here over XMPP: for resources that must differ, for messages between a user's
//! own devices, and for carbons (XEP-0280).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hongyan_core::port::Reader;
use hongyan_core::{AppId, SessionId, UserId};

/// Devices of one user that are listed.
const PEERS_MAX: usize = 50;

/// One bound stream.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) session: SessionId,
    pub(crate) resource: Arc<str>,
    /// What its presence said; nothing before the first one.
    pub(crate) priority: Option<i8>,
    pub(crate) carbons: bool,
}

/// Everybody on this node.
#[derive(Debug, Default)]
pub(crate) struct Party(Mutex<HashMap<(AppId, UserId), Vec<Peer>>>);

impl Party {
    fn all(&self) -> MutexGuard<'_, HashMap<(AppId, UserId), Vec<Peer>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a stream. When another one of the user has its resource already, `suffix` is added.
    pub(crate) fn enter(&self, reader: &Reader, mut peer: Peer, suffix: &str) -> Option<Arc<str>> {
        let user = reader.user.clone()?;
        let mut all = self.all();
        let peers = all.entry((reader.app.clone(), user)).or_default();
        peers.retain(|one| one.session != peer.session);
        if peers.iter().any(|one| one.resource == peer.resource) {
            peer.resource = format!("{}-{suffix}", peer.resource).into();
        }
        let resource = Arc::clone(&peer.resource);
        if peers.len() < PEERS_MAX {
            peers.push(peer);
        }
        Some(resource)
    }

    pub(crate) fn change(&self, reader: &Reader, session: SessionId, to: impl FnOnce(&mut Peer)) {
        let Some(user) = reader.user.clone() else {
            return;
        };
        if let Some(peers) = self.all().get_mut(&(reader.app.clone(), user))
            && let Some(peer) = peers.iter_mut().find(|one| one.session == session)
        {
            to(peer);
        }
    }

    pub(crate) fn leave(&self, reader: &Reader, session: SessionId) {
        let Some(user) = reader.user.clone() else {
            return;
        };
        let key = (reader.app.clone(), user);
        let mut all = self.all();
        if let Some(peers) = all.get_mut(&key) {
            peers.retain(|one| one.session != session);
            if peers.is_empty() {
                all.remove(&key);
            }
        }
    }

    pub(crate) fn of(&self, reader: &Reader) -> Vec<Peer> {
        let Some(user) = reader.user.clone() else {
            return Vec::new();
        };
        let all = self.all();
        all.get(&(reader.app.clone(), user))
            .cloned()
            .unwrap_or_default()
    }
}
