//! The hub's index: sessions by device, by user and by topic.
//!
//! A member stands once in a slab and keeps its names once, in its seat. What leads to it are tables of slab places, four
//! bytes each (and one of the table's own), that compare by looking at the member. Devices of one user are chained through their members.

use std::hash::{BuildHasher, Hasher, RandomState};

use hashbrown::HashTable;
use hongyan_core::port::SessionInfo;
use hongyan_core::session::AppState;
use hongyan_core::{AppId, SessionId, Timestamp, Topic};
use slab::Slab;

use crate::protocol::Kind;
use crate::seat::Seat;

/// No place: the end of a chain, or no topic.
const NONE: u32 = u32::MAX;

/// Milliseconds of a unit of [`Member::since`].
const SINCE_UNIT_MS: i64 = 100;

/// What is known of a connected device.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) seat: Seat,
    pub(super) session: SessionId,
    /// Topics but the first: few devices follow more than one, and a word is all that it costs the others.
    #[allow(
        clippy::box_collection,
        reason = "one word instead of three in every member"
    )]
    more_topics: Option<Box<Vec<u32>>>,
    /// The first topic, or none.
    topic: u32,
    /// The next member of the same user, or none.
    next: u32,
    /// When it was registered, in units after the index began.
    since: u32,
    pub(super) kind: Kind,
    pub(super) state: AppState,
    /// Counts the changes of its topics that were announced; wraps.
    changes: u8,
    /// `changes` when what it follows here was read, or 255 before if it was longer ago.
    known: u8,
}

impl Member {
    fn topics(&self) -> impl Iterator<Item = u32> + '_ {
        let first = (self.topic != NONE).then_some(self.topic);
        let more = self
            .more_topics
            .iter()
            .flat_map(|more| more.iter().copied());
        first.into_iter().chain(more)
    }

    /// Its topics change, or are about to: until they were read anew, nobody relies on what is known of them here.
    /// Answers a mark for [`Index::follow`].
    pub(super) fn changes(&mut self) -> u8 {
        self.changes = self.changes.wrapping_add(1);
        if self.changes == self.known {
            self.known = self.known.wrapping_add(1);
        }
        self.changes
    }

    /// How many changes were announced after this mark was taken.
    fn since_mark(&self, mark: u8) -> u8 {
        self.changes.wrapping_sub(mark)
    }

    fn is_of(&self, app: &str, device: &str) -> bool {
        self.seat.device() == device && self.seat.app() == app
    }
}

/// Who follows a topic.
#[derive(Debug)]
struct Crowd {
    app: AppId,
    topic: Topic,
    followers: HashTable<u32>,
}

/// See the module's page.
#[derive(Debug)]
pub(super) struct Index {
    hasher: RandomState,
    began: Option<Timestamp>,
    members: Slab<Member>,
    devices: HashTable<u32>,
    /// The first member of each user's chain.
    users: HashTable<u32>,
    crowds: Slab<Crowd>,
    topics: HashTable<u32>,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            began: None,
            members: Slab::new(),
            devices: HashTable::new(),
            users: HashTable::new(),
            crowds: Slab::new(),
            topics: HashTable::new(),
        }
    }
}

/// A name within an app.
fn hash(hasher: &RandomState, app: &str, name: &str) -> u64 {
    let mut state = hasher.build_hasher();
    state.write(app.as_bytes());
    state.write_u8(0xff);
    state.write(name.as_bytes());
    state.finish()
}

/// Spreads slab places, which are chosen by nobody outside.
fn spread(place: u32) -> u64 {
    u64::from(place).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Index {
    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// The member of a device.
    pub(super) fn find(&self, app: &str, device: &str) -> Option<&Member> {
        self.members.get(self.place(app, device)?)
    }

    /// The same, to be changed.
    pub(super) fn find_mut(&mut self, app: &str, device: &str) -> Option<&mut Member> {
        let place = self.place(app, device)?;
        self.members.get_mut(place)
    }

    /// The same, when its session is this one.
    pub(super) fn find_session(&mut self, session: SessionId, seat: &Seat) -> Option<&mut Member> {
        self.find_mut(seat.app(), seat.device())
            .filter(|member| member.session == session)
    }

    fn place(&self, app: &str, device: &str) -> Option<usize> {
        let is_it = |place: &u32| {
            let member = self.members.get(*place as usize);
            member.is_some_and(|member| member.is_of(app, device))
        };
        let place = self.devices.find(hash(&self.hasher, app, device), is_it)?;
        Some(*place as usize)
    }

    /// Since when a member is connected, to a tenth of a second.
    pub(super) fn since(&self, member: &Member) -> Timestamp {
        let began = self.began.map_or(0, Timestamp::millis);
        Timestamp(began + i64::from(member.since) * SINCE_UNIT_MS)
    }

    /// What others may know of a member.
    pub(super) fn info(&self, member: &Member) -> SessionInfo {
        SessionInfo {
            session: member.session,
            state: member.state,
            since: self.since(member),
            protocol: member.kind.name(),
        }
    }

    /// Adds a device that is not there.
    pub(super) fn add(
        &mut self,
        seat: Seat,
        session: SessionId,
        now: Timestamp,
        kind: Kind,
        state: AppState,
    ) {
        let began = *self.began.get_or_insert(now);
        let since = (now.millis() - began.millis()) / SINCE_UNIT_MS;
        let member = Member {
            seat,
            session,
            more_topics: None,
            topic: NONE,
            next: NONE,
            since: u32::try_from(since.max(0)).unwrap_or(u32::MAX),
            kind,
            state,
            changes: 0,
            known: 0,
        };
        let hash_of = |place: &u32| match self.members.get(*place as usize) {
            Some(member) => hash(&self.hasher, member.seat.app(), member.seat.device()),
            None => 0,
        };
        let own = hash(&self.hasher, member.seat.app(), member.seat.device());
        let place = self.members.vacant_key() as u32;
        self.devices.insert_unique(own, place, hash_of);
        self.members.insert(member);
        self.chain(place);
    }

    /// Removes a device with everything that leads to it.
    pub(super) fn remove(&mut self, app: &str, device: &str) -> Option<Member> {
        let place = self.place(app, device)? as u32;
        self.unchain(place);
        self.unfollow(place);
        let is_it = |other: &u32| *other == place;
        let own = hash(&self.hasher, app, device);
        if let Ok(entry) = self.devices.find_entry(own, is_it) {
            entry.remove();
        }
        self.members.try_remove(place as usize)
    }

    /// The member of a session of which only the id is left. Looks at all.
    pub(super) fn seat_of(&self, session: SessionId) -> Option<Seat> {
        let mut members = self.members.iter().map(|(_, member)| member);
        let member = members.find(|member| member.session == session)?;
        Some(member.seat.clone())
    }

    /// The sessions of an app. A look at all: for apps that are deleted.
    pub(super) fn of_app(&self, app: &str) -> Vec<SessionId> {
        let members = self.members.iter().map(|(_, member)| member);
        let members = members.filter(|member| member.seat.app() == app);
        members.map(|member| member.session).collect()
    }

    // Users.

    /// Gives a member another seat of the same device.
    pub(super) fn reseat(&mut self, seat: Seat) {
        let Some(place) = self.place(seat.app(), seat.device()) else {
            return;
        };
        self.unchain(place as u32);
        if let Some(member) = self.members.get_mut(place) {
            member.seat = seat;
        }
        self.chain(place as u32);
    }

    fn first_of(&self, app: &str, user: &str) -> Option<u32> {
        let of_user = |place: &u32| self.is_of_user(*place, app, user);
        let first = self.users.find(hash(&self.hasher, app, user), of_user)?;
        Some(*first)
    }

    fn is_of_user(&self, place: u32, app: &str, user: &str) -> bool {
        let member = self.members.get(place as usize);
        member.is_some_and(|m| m.seat.user() == Some(user) && m.seat.app() == app)
    }

    /// Puts a member into its user's chain.
    fn chain(&mut self, place: u32) {
        let Some(seat) = self.members.get(place as usize).map(|m| m.seat.clone()) else {
            return;
        };
        let (app, Some(user)) = (seat.app(), seat.user()) else {
            return;
        };
        // The member itself is in no chain yet, so that nothing but another one of the user is found.
        match self.first_of(app, user) {
            Some(first) => {
                let after = self.members.get_mut(first as usize);
                let next = after.map_or(NONE, |first| std::mem::replace(&mut first.next, place));
                if let Some(member) = self.members.get_mut(place as usize) {
                    member.next = next;
                }
            }
            None => {
                let hash_of = |place: &u32| {
                    let member = self.members.get(*place as usize);
                    let user = member.and_then(|m| Some((m.seat.app(), m.seat.user()?)));
                    user.map_or(0, |(app, user)| hash(&self.hasher, app, user))
                };
                let own = hash(&self.hasher, app, user);
                self.users.insert_unique(own, place, hash_of);
            }
        }
    }

    /// Takes a member out of its user's chain.
    fn unchain(&mut self, place: u32) {
        let Some(member) = self.members.get_mut(place as usize) else {
            return;
        };
        let next = std::mem::replace(&mut member.next, NONE);
        let seat = member.seat.clone();
        let (app, Some(user)) = (seat.app(), seat.user()) else {
            return;
        };
        let Some(first) = self.first_of(app, user) else {
            return;
        };
        if first != place {
            let mut at = first;
            while let Some(member) = self.members.get_mut(at as usize) {
                if member.next == place {
                    member.next = next;
                    return;
                }
                at = member.next;
            }
            return;
        }
        let is_it = |other: &u32| *other == place;
        if let Ok(mut entry) = self.users.find_entry(hash(&self.hasher, app, user), is_it) {
            if next == NONE {
                entry.remove();
            } else {
                *entry.get_mut() = next;
            }
        }
    }

    /// Sessions of a user.
    pub(super) fn of_user(&self, app: &str, user: &str) -> impl Iterator<Item = SessionId> + '_ {
        let mut at = self.first_of(app, user).unwrap_or(NONE);
        std::iter::from_fn(move || {
            let member = self.members.get(at as usize)?;
            at = member.next;
            Some(member.session)
        })
    }

    // Topics.

    /// Sessions that follow a topic, and whether that is certain: whether no change of their topics is under way.
    pub(super) fn of_topic(
        &self,
        app: &str,
        topic: &str,
    ) -> impl Iterator<Item = (SessionId, bool)> + '_ {
        let crowd = self.crowd(app, topic).and_then(|at| self.crowds.get(at));
        let followers = crowd.into_iter().flat_map(|crowd| crowd.followers.iter());
        followers.filter_map(|place| {
            let member = self.members.get(*place as usize)?;
            Some((member.session, member.changes == member.known))
        })
    }

    fn crowd(&self, app: &str, topic: &str) -> Option<usize> {
        let is_it = |at: &u32| {
            let crowd = self.crowds.get(*at as usize);
            crowd.is_some_and(|c| c.topic.as_str() == topic && c.app.as_str() == app)
        };
        let at = self.topics.find(hash(&self.hasher, app, topic), is_it)?;
        Some(*at as usize)
    }

    /// The mark for [`Index::follow`] of topics that are read from now on.
    pub(super) fn mark(&self, app: &str, device: &str) -> u8 {
        self.find(app, device).map_or(0, |member| member.changes)
    }

    /// Sets what a session follows, read after `mark` was taken; ignored when it is no longer the device's one, and when
    /// what is known was read later.
    pub(super) fn follow(
        &mut self,
        session: SessionId,
        (app, device): (&AppId, &str),
        topics: Vec<Topic>,
        mark: u8,
    ) {
        let Some(place) = self.place(app.as_str(), device) else {
            return;
        };
        let is_news = |member: &Member| {
            let (age, known_age) = (member.since_mark(mark), member.since_mark(member.known));
            member.session == session && age <= known_age
        };
        if !self.members.get(place).is_some_and(is_news) {
            return;
        }
        let place = place as u32;
        self.unfollow(place);
        let mut all = Vec::with_capacity(topics.len());
        for topic in topics {
            let at = self.join(app, topic, place);
            if !all.contains(&at) {
                all.push(at);
            }
        }
        if let Some(member) = self.members.get_mut(place as usize) {
            let mut all = all.into_iter();
            member.known = mark;
            member.topic = all.next().unwrap_or(NONE);
            member.more_topics = (all.len() > 0).then(|| Box::new(all.collect()));
        }
    }

    /// Adds a follower; answers the place of the crowd.
    fn join(&mut self, app: &AppId, topic: Topic, place: u32) -> u32 {
        let at = match self.crowd(app.as_str(), topic.as_str()) {
            Some(at) => at,
            None => {
                let own = hash(&self.hasher, app.as_str(), topic.as_str());
                let at = self.crowds.insert(Crowd {
                    app: app.clone(),
                    topic,
                    followers: HashTable::new(),
                });
                let hash_of = |at: &u32| match self.crowds.get(*at as usize) {
                    Some(crowd) => hash(&self.hasher, crowd.app.as_str(), crowd.topic.as_str()),
                    None => 0,
                };
                self.topics.insert_unique(own, at as u32, hash_of);
                at
            }
        };
        if let Some(crowd) = self.crowds.get_mut(at) {
            let known = crowd
                .followers
                .find(spread(place), |p| *p == place)
                .is_some();
            if !known {
                let hash_of = |place: &u32| spread(*place);
                crowd.followers.insert_unique(spread(place), place, hash_of);
            }
        }
        at as u32
    }

    /// Takes a member out of all crowds.
    fn unfollow(&mut self, place: u32) {
        let Some(member) = self.members.get_mut(place as usize) else {
            return;
        };
        let topics: Vec<u32> = member.topics().collect();
        member.topic = NONE;
        member.more_topics = None;
        for at in topics {
            let Some(crowd) = self.crowds.get_mut(at as usize) else {
                continue;
            };
            if let Ok(entry) = crowd.followers.find_entry(spread(place), |p| *p == place) {
                entry.remove();
            }
            if !crowd.followers.is_empty() {
                continue;
            }
            if let Some(crowd) = self.crowds.try_remove(at as usize) {
                let own = hash(&self.hasher, crowd.app.as_str(), crowd.topic.as_str());
                if let Ok(entry) = self.topics.find_entry(own, |other| *other == at) {
                    entry.remove();
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
