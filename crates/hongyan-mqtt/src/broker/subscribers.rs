//! Who subscribed to one filter.

use std::collections::HashMap;

use super::SessionId;
use crate::packet::SubscribeOptions;

/// One subscription of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) options: SubscribeOptions,
    pub(super) id: Option<u32>,
}

/// Sessions that share a subscription: each message goes to one of them.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) name: Box<str>,
    pub(super) members: Vec<(SessionId, Wanted)>,
    /// Whose turn it is; a number that only grows.
    pub(super) turn: std::cell::Cell<usize>,
}

/// The subscriptions of one filter.
#[derive(Debug, Default)]
pub(super) struct Subscribers {
    pub(super) plain: HashMap<SessionId, Wanted>,
    pub(super) groups: Vec<Group>,
}

impl Subscribers {
    /// True when it was not there before.
    pub(super) fn add(&mut self, session: SessionId, wanted: Wanted) -> bool {
        self.plain.insert(session, wanted).is_none()
    }

    /// True when it was not there before.
    pub(super) fn join(&mut self, name: &str, session: SessionId, wanted: Wanted) -> bool {
        let group = match self.groups.iter().position(|group| &*group.name == name) {
            Some(at) => self.groups.get_mut(at),
            None => {
                self.groups.push(Group {
                    name: name.into(),
                    members: Vec::new(),
                    turn: std::cell::Cell::new(0),
                });
                self.groups.last_mut()
            }
        };
        let Some(group) = group else { return false };
        match group.members.iter_mut().find(|(id, _)| *id == session) {
            Some((_, before)) => {
                *before = wanted;
                false
            }
            None => {
                group.members.push((session, wanted));
                true
            }
        }
    }

    pub(super) fn leave(&mut self, name: &str, session: SessionId) {
        for group in &mut self.groups {
            if &*group.name == name {
                group.members.retain(|(id, _)| *id != session);
            }
        }
        self.groups.retain(|group| !group.members.is_empty());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.groups.is_empty()
    }
}
