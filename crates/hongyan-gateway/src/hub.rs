//! Who is where: finds the session of a device, of a user's devices, of a topic's followers, and
//! passes on what other rooms want of them. It holds no truth: it is rebuilt by connections.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use hongyan_core::message::Audience;
use hongyan_core::port::{Ack, Hint, Owner, Presence, Reader, SessionInfo};
use hongyan_core::session::AppState;
use hongyan_core::{AppId, DeviceId, Message, MessageId, SessionId, Timestamp, Topic, UserId};
use tokio::sync::oneshot;

use self::index::Index;
use self::left::Leavings;
pub(crate) use self::left::Left;
use crate::gate::Gate;
use crate::mailbox::{Command, Mailbox};
use crate::protocol::Kind;
use crate::reactor::End;
use crate::seat::Seat;
use crate::tickets::Tickets;

mod index;
mod left;

/// Sessions that were taken over and are remembered, for as long.
const TAKEN_LEN_MAX: usize = 1024;
const TAKEN_FOR: Duration = Duration::from_secs(5);

/// Sessions that are given an entry by one command: a reactor's turn ends between two.
const NEWS_SESSIONS_MAX: usize = 256;

/// An app and one of its devices, in one text.
fn device_key(app: &str, device: &str) -> String {
    format!("{app}\n{device}")
}

#[derive(Debug, Default)]
struct State {
    index: Index,
    left: Leavings,
    /// Devices of which a session has ended whose acknowledgements may not be written yet, and who waits for that.
    unwritten: HashMap<String, Unwritten>,
    /// Sessions that were taken over or sent away, the latest last.
    taken: VecDeque<(SessionId, Instant)>,
}

impl State {
    /// Remembers for a while that this session's client is to stay away.
    fn note_taken(&mut self, session: SessionId) {
        if self.taken.len() >= TAKEN_LEN_MAX {
            self.taken.pop_front();
        }
        self.taken.push_back((session, Instant::now()));
    }

    /// Takes a session out, unless a newer one of the same device is there, and keeps what it leaves.
    fn end(&mut self, session: SessionId, seat: &Seat, mut left: Left) {
        let now = self.index.find(seat.app(), seat.device());
        // The device has changed hands since: nothing of the former user's is for the next one.
        let is_same = now.is_none_or(|member| member.seat.user() == seat.user());
        if is_same && (left.unfinished.is_some() || left.parked.is_some()) {
            let key = device_key(seat.app(), seat.device());
            if left.until.is_some() {
                let member = now.filter(|member| member.session == session);
                left.session = member.map(|member| Box::new(self.index.info(member)));
            }
            if let Some(before) = self.left.take(&key) {
                // Of another kind of connection: this one took what was its own.
                left.parked = left.parked.or(before.parked);
            }
            self.left.put(key.into(), left);
        }
        if self.index.find_session(session, seat).is_some() {
            self.index.remove(seat.app(), seat.device());
        }
    }
}

/// A session that has ended, and whose last reports are on their way to the store.
#[derive(Debug)]
struct Unwritten {
    session: SessionId,
    /// Dropped when they are there.
    waiting: Vec<oneshot::Sender<()>>,
}

/// Numbers about the gateway now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Devices that are connected.
    pub sessions: usize,
    /// All sockets, also those that did not say who they are.
    pub sockets: usize,
    /// Sockets that did not say who they are.
    pub half_open: usize,
}

/// The gateway's [`Presence`], and what only this node's own rooms may ask of it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Hub(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    mailboxes: Vec<Arc<Mailbox>>,
    sockets: AtomicUsize,
    gate: Arc<Gate>,
    tickets: Tickets,
}

/// What hints mean for one reactor.
#[derive(Debug, Default)]
struct Turn {
    /// Sessions that are given the entry.
    told: Vec<SessionId>,
    /// Sessions that have to look for themselves.
    woken: Vec<SessionId>,
    commands: Vec<Command>,
}

/// A device that was just registered.
#[derive(Debug)]
pub(crate) struct Registered {
    pub(crate) seat: Seat,
    /// Resolves when the session that was there before has ended.
    pub(crate) former: Option<oneshot::Receiver<()>>,
}

impl Hub {
    pub(crate) fn new(mailboxes: Vec<Arc<Mailbox>>, gate: Arc<Gate>) -> Self {
        Self(Arc::new(Inner {
            state: Mutex::new(State::default()),
            mailboxes,
            sockets: AtomicUsize::new(0),
            gate,
            tickets: Tickets::default(),
        }))
    }

    pub(crate) fn tickets(&self) -> &Tickets {
        &self.0.tickets
    }

    /// Numbers for the operator.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            sessions: self.len(),
            sockets: self.0.sockets.load(Ordering::Relaxed),
            half_open: self.0.gate.half_open(),
        }
    }

    /// Tells every session to go elsewhere and closes them spread over the window. Resolves when
    /// all sockets are closed, or a few seconds after the window.
    pub async fn drain(&self, window: Duration) {
        for mailbox in &self.0.mailboxes {
            mailbox.push(Command::Drain(window));
        }
        let deadline = tokio::time::Instant::now() + window + Duration::from_secs(5);
        while self.0.sockets.load(Ordering::Relaxed) > 0 && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Makes the reactors look at the clock: for clocks that jump.
    pub fn poke(&self) {
        for mailbox in &self.0.mailboxes {
            mailbox.push(Command::Poke);
        }
    }

    pub(crate) fn sockets(&self) -> &AtomicUsize {
        &self.0.sockets
    }

    /// Makes a session the device's one; a former one is told that it was taken over.
    pub(crate) fn register(
        &self,
        session: SessionId,
        reader: &Reader,
        kind: Kind,
        app_state: AppState,
        since: Timestamp,
    ) -> Registered {
        let seat = Seat::new(reader);
        let mut state = self.state();
        let former = state.index.remove(seat.app(), seat.device());
        state
            .index
            .add(seat.clone(), session, since, kind, app_state);
        if let Some(former) = &former {
            state.note_taken(former.session);
        }
        let former = former.map(|former| {
            let (done, ended) = oneshot::channel();
            self.mailbox(former.session).push(Command::Close {
                session: former.session,
                end: End::TAKEN,
                done,
            });
            ended
        });
        Registered { seat, former }
    }

    /// Makes the hub keep another copy of a session's seat, unless it was rebound meanwhile. Answers which to keep.
    pub(crate) fn move_seat(&self, session: SessionId, seat: &Seat) -> Seat {
        let mut state = self.state();
        match state.index.find_session(session, seat) {
            Some(member) if member.seat.is(seat) => {
                member.seat = seat.moved();
                member.seat.clone()
            }
            _ => seat.clone(),
        }
    }

    /// What earlier connections of this device left, once. What a protocol keeps waits for a connection of its own kind.
    pub(crate) fn take_left(&self, reader: &Reader, kind: Kind) -> Option<Left> {
        let mut state = self.state();
        let key = device_key(reader.app.as_str(), reader.device.as_str());
        let mut left = state.left.take(&key)?;
        if let Some(parked) = left.parked.take_if(|(of, _)| *of != kind) {
            let waits = Left {
                parked: Some(parked),
                ..Left::default()
            };
            state.left.put(key.into(), waits);
        }
        Some(left)
    }

    /// Ends a session whose last reports are on their way to the store: [`Hub::written`] will follow. Does nothing to a
    /// newer one of the same device.
    pub(crate) fn leave(&self, session: SessionId, seat: &Seat, left: Left) {
        let key = device_key(seat.app(), seat.device());
        let waiting = Vec::new();
        let mut state = self.state();
        let unwritten = Unwritten { session, waiting };
        state.unwritten.insert(key, unwritten);
        state.end(session, seat, left);
    }

    /// Forgets what connections of this device left to the next one.
    pub(crate) fn forget_left(&self, seat: &Seat) {
        let key = device_key(seat.app(), seat.device());
        self.state().left.take(&key);
    }

    /// Says that all that an ended session acknowledged is in the store, or never will be.
    pub(crate) fn written(&self, session: SessionId, seat: &Seat) {
        let key = device_key(seat.app(), seat.device());
        let mut state = self.state();
        if state
            .unwritten
            .get(&key)
            .is_some_and(|one| one.session == session)
        {
            state.unwritten.remove(&key);
        }
    }

    /// Resolves when what former sessions of this device acknowledged is in the store; `None` when it is.
    pub(crate) fn unwritten(&self, reader: &Reader) -> Option<oneshot::Receiver<()>> {
        let key = device_key(reader.app.as_str(), reader.device.as_str());
        let mut state = self.state();
        let one = state.unwritten.get_mut(&key)?;
        let (written, resolves) = oneshot::channel();
        one.waiting.push(written);
        Some(resolves)
    }

    /// Ends a session that reported nothing. Does nothing to a newer one of the same device.
    pub(crate) fn unregister(&self, session: SessionId, seat: &Seat, left: Left) {
        self.state().end(session, seat, left);
    }

    pub(crate) fn session_of(
        &self,
        app: &AppId,
        device: &DeviceId,
        kind: Kind,
    ) -> Option<SessionId> {
        let state = self.state();
        let member = state.index.find(app.as_str(), device.as_str())?;
        (member.kind == kind).then_some(member.session)
    }

    /// Whether this session (in its text form) was taken over, or its device sent away, in the last seconds.
    #[must_use]
    pub fn was_taken(&self, session: Option<&str>) -> bool {
        let Some(session) = session.and_then(|text| u64::from_str_radix(text, 16).ok()) else {
            return false;
        };
        let state = self.state();
        let since = Instant::now().checked_sub(TAKEN_FOR);
        state
            .taken
            .iter()
            .any(|(one, at)| one.0 == session && since.is_none_or(|since| *at >= since))
    }

    /// A device's app went to the front or back, by its own word over HTTP.
    pub fn set_device_state(&self, app: &AppId, device: &DeviceId, state: AppState) {
        let mut all = self.state();
        if let Some(member) = all.index.find_mut(app.as_str(), device.as_str()) {
            member.state = state;
        }
    }

    /// The device acknowledged outside of its connection: its session stops waiting for that.
    pub fn acked(&self, reader: &Reader, ack: Ack) {
        if let Some(session) = self.session(&reader.app, &reader.device) {
            self.mailbox(session).push(Command::Acked { session, ack });
        }
    }

    /// The session of a device, whatever it speaks.
    fn session(&self, app: &AppId, device: &DeviceId) -> Option<SessionId> {
        let state = self.state();
        let member = state.index.find(app.as_str(), device.as_str())?;
        Some(member.session)
    }

    /// Ends a session of which only the id is left. A look at all: for sessions that failed.
    pub(crate) fn forget(&self, session: SessionId) -> Option<Seat> {
        let mut state = self.state();
        let seat = state.index.seat_of(session)?;
        state.index.remove(seat.app(), seat.device());
        Some(seat)
    }

    /// The mark for [`Hub::set_topics`] of topics that are read from now on.
    pub(crate) fn topics_mark(&self, reader: &Reader) -> u8 {
        let (app, device) = (reader.app.as_str(), reader.device.as_str());
        self.state().index.mark(app, device)
    }

    /// Says that a device's topics are about to change, or just did. Until they are read anew its session looks for itself.
    pub(crate) fn topics_change(&self, reader: &Reader) {
        let (app, device) = (reader.app.as_str(), reader.device.as_str());
        if let Some(member) = self.state().index.find_mut(app, device) {
            member.changes();
        }
    }

    /// Sets the topics that wake a session, read after `mark` was taken; ignored when it is no longer the device's one.
    pub(crate) fn set_topics(
        &self,
        session: SessionId,
        reader: &Reader,
        topics: Vec<Topic>,
        mark: u8,
    ) {
        let device = (&reader.app, reader.device.as_str());
        self.state().index.follow(session, device, topics, mark);
    }

    pub(crate) fn set_state(&self, session: SessionId, seat: &Seat, state: AppState) {
        if let Some(member) = self.state().index.find_session(session, seat) {
            member.state = state;
        }
    }

    /// Gives something to a session's protocol; it is dropped when the session is gone.
    pub(crate) fn tell(&self, session: SessionId, what: Box<dyn std::any::Any + Send>) {
        self.mailbox(session).push(Command::Tell { session, what });
    }

    pub(crate) fn mailbox(&self, session: SessionId) -> &Mailbox {
        &self.0.mailboxes[self.reactor_of(session)]
    }

    pub(crate) fn mailboxes(&self) -> &[Arc<Mailbox>] {
        &self.0.mailboxes
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which reactor owns a session.
    fn reactor_of(&self, session: SessionId) -> usize {
        (session.0 >> 56) as usize % self.0.mailboxes.len()
    }

    /// What a hint means for each reactor.
    fn spread(&self, index: &Index, hint: Hint, turns: &mut [Turn]) {
        if hint.owner == Owner::Audience(Audience::All) {
            let hint = Arc::new(hint);
            for turn in turns {
                turn.commands.push(match hint.fresh {
                    Some(_) => Command::NewsApp(Arc::clone(&hint)),
                    None => Command::WakeApp(hint.app.clone()),
                });
            }
            return;
        }
        let is_fresh = hint.fresh.is_some();
        let mut tell = |(session, certain): (SessionId, bool)| {
            let turn = &mut turns[self.reactor_of(session)];
            if is_fresh && certain {
                turn.told.push(session);
            } else {
                turn.woken.push(session);
            }
        };
        let app = hint.app.as_str();
        match &hint.owner {
            Owner::Device(device) => {
                let member = index.find(app, device.as_str());
                member.into_iter().for_each(|m| tell((m.session, true)));
            }
            Owner::User(user) => {
                let sessions = index.of_user(app, user.as_str());
                sessions.for_each(|session| tell((session, true)));
            }
            Owner::Audience(Audience::Topic(topic)) => {
                index.of_topic(app, topic.as_str()).for_each(tell);
            }
            Owner::Audience(Audience::All) => {}
        }
        if turns.iter().all(|turn| turn.told.is_empty()) {
            return;
        }
        let hint = Arc::new(hint);
        for turn in turns {
            for sessions in turn.told.chunks(NEWS_SESSIONS_MAX) {
                turn.commands.push(Command::News {
                    sessions: sessions.to_vec(),
                    hint: Arc::clone(&hint),
                    more: Vec::new(),
                });
            }
            turn.told.clear();
        }
    }

    /// Asks a session to end for good; resolves when it has.
    fn close(&self, session: SessionId, end: End) -> oneshot::Receiver<()> {
        let (done, closed) = oneshot::channel();
        let close = Command::Close { session, end, done };
        self.mailbox(session).push(close);
        closed
    }

    /// Ends the session of a device for good, with all that it would leave.
    async fn send_away(&self, app: &AppId, device: &DeviceId, end: End) {
        let session = {
            let mut state = self.state();
            let key = device_key(app.as_str(), device.as_str());
            state.left.take(&key);
            let member = state.index.find(app.as_str(), device.as_str());
            let session = member.map(|member| member.session);
            if let Some(session) = session {
                state.note_taken(session);
            }
            session
        };
        if let Some(session) = session {
            // An error means that it ended by itself.
            let _ = self.close(session, end).await;
        }
    }

    /// Spreads sessions over the reactors that own them.
    fn by_reactor(&self, sessions: impl Iterator<Item = SessionId>) -> Vec<Vec<SessionId>> {
        let mut spread = vec![Vec::new(); self.0.mailboxes.len()];
        for session in sessions {
            spread[self.reactor_of(session)].push(session);
        }
        spread
    }

    /// Sessions that read an owner's list; `None` when it is all of the app.
    fn readers(&self, app: &AppId, owner: &Owner) -> Option<Vec<SessionId>> {
        let state = self.state();
        let (index, app) = (&state.index, app.as_str());
        Some(match owner {
            Owner::Device(device) => {
                let member = index.find(app, device.as_str());
                member.map(|member| member.session).into_iter().collect()
            }
            Owner::User(user) => index.of_user(app, user.as_str()).collect(),
            Owner::Audience(Audience::Topic(topic)) => {
                let followers = index.of_topic(app, topic.as_str());
                followers.map(|(session, _)| session).collect()
            }
            Owner::Audience(Audience::All) => return None,
        })
    }
}

#[async_trait]
impl Presence for Hub {
    fn sessions(&self, app: &AppId, devices: &[DeviceId]) -> Vec<Option<SessionInfo>> {
        let state = self.state();
        devices
            .iter()
            .map(|device| {
                let member = state.index.find(app.as_str(), device.as_str())?;
                Some(state.index.info(member))
            })
            .collect()
    }

    fn lingering(
        &self,
        app: &AppId,
        devices: &[DeviceId],
        now: Timestamp,
    ) -> Vec<Option<SessionInfo>> {
        let state = self.state();
        let device = |device: &DeviceId| {
            let key = device_key(app.as_str(), device.as_str());
            state.left.lingering(&key, now)
        };
        devices.iter().map(device).collect()
    }

    fn hand(&self, app: &AppId, device: &DeviceId, message: Arc<Message>) -> bool {
        let Some(session) = self.session(app, device) else {
            return false;
        };
        self.mailbox(session)
            .push_hint(Command::Hand { session, message });
        true
    }

    fn notify(&self, hints: Vec<Hint>) {
        let mut turns: Vec<Turn> = Vec::new();
        turns.resize_with(self.0.mailboxes.len(), Turn::default);
        {
            let state = self.state();
            for hint in hints {
                self.spread(&state.index, hint, &mut turns);
            }
        }
        for (mailbox, turn) in self.0.mailboxes.iter().zip(turns) {
            // Those that have to look do so first: what they are to find may stand before what others of these hints bring.
            let wake = (!turn.woken.is_empty()).then_some(Command::Wake(turn.woken));
            let mut commands = wake.into_iter().chain(turn.commands).peekable();
            if commands.peek().is_some() {
                mailbox.push_hints(commands);
            }
        }
    }

    async fn rebind(&self, app: &AppId, device: &DeviceId, user: Option<UserId>) {
        let done = {
            let mut state = self.state();
            let key = device_key(app.as_str(), device.as_str());
            let Some(member) = state.index.find(app.as_str(), device.as_str()) else {
                // What was left is the former user's.
                state.left.take(&key);
                return;
            };
            let session = member.session;
            if member.seat.user() == user.as_ref().map(UserId::as_str) {
                return;
            }
            let reader = Reader {
                app: app.clone(),
                device: device.clone(),
                user,
            };
            let seat = Seat::new(&reader);
            state.index.reseat(seat.clone());
            state.left.take(&key);
            let (done, rebound) = oneshot::channel();
            // Under the lock, so that two rebinds of a device arrive in their order.
            self.mailbox(session).push(Command::Rebind {
                session,
                seat,
                done,
            });
            rebound
        };
        // An error means that the session ended, which is as good.
        let _ = done.await;
    }

    fn recall(&self, app: &AppId, owner: &Owner, message: MessageId) {
        match self.readers(app, owner) {
            Some(sessions) => {
                let spread = self.by_reactor(sessions.into_iter());
                for (mailbox, sessions) in self.0.mailboxes.iter().zip(spread) {
                    if !sessions.is_empty() {
                        mailbox.push(Command::Recall {
                            sessions,
                            id: message,
                        });
                    }
                }
            }
            None => {
                for mailbox in &self.0.mailboxes {
                    mailbox.push(Command::RecallApp {
                        app: app.clone(),
                        id: message,
                    });
                }
            }
        }
    }

    async fn disconnect(&self, app: &AppId, device: &DeviceId) {
        self.send_away(app, device, End::DELETED).await;
    }

    async fn kick(&self, app: &AppId, device: &DeviceId) {
        self.send_away(app, device, End::KICKED).await;
    }

    async fn disconnect_app(&self, app: &AppId) {
        let sessions = {
            let mut state = self.state();
            state.left.forget(&device_key(app.as_str(), ""));
            state.index.of_app(app.as_str())
        };
        let closing = sessions
            .into_iter()
            .map(|one| self.close(one, End::DELETED));
        for closed in closing.collect::<Vec<_>>() {
            // An error means that it ended by itself.
            let _ = closed.await;
        }
    }

    fn resubscribe(&self, app: &AppId, device: &DeviceId) {
        let session = {
            let mut state = self.state();
            let member = state.index.find_mut(app.as_str(), device.as_str());
            member.map(|member| {
                member.changes();
                member.session
            })
        };
        if let Some(session) = session {
            // Not as a hint: what it asks for, no look at everything would do instead.
            self.mailbox(session).push(Command::Resubscribe(session));
        }
    }

    fn len(&self) -> usize {
        self.state().index.len()
    }
}
