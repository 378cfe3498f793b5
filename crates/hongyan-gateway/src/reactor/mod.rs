//! A reactor: one thread that owns sockets and runs their sessions.
//!
//! A turn takes, in this order and each within a bound: readiness of sockets, commands from other
//! threads, inbox reads that sessions want, deadlines; then everything that became due for a
//! connection leaves in one write, and what was reported goes to the backend. What does not fit a
//! turn waits for the next one, behind the others.

mod connection;
mod deliver;
mod desk;
mod drain;
mod early;
mod ending;
mod line;
mod socket;
mod sweep;
mod talk;
mod timers;
mod topics;

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hongyan_core::port::{Ack, Clock};
use hongyan_core::{MessageId, SessionId};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

pub(crate) use self::desk::{Desk, End};

use self::connection::{Connection, Framing, place_of, session_id};
use self::early::Early;
use self::sweep::{Sweep, SweepFor};
use self::topics::Unread;
use crate::backend::{Job, Report, What};
use crate::gateway::Socket;
use crate::hub::Hub;
use crate::mailbox::{Adopted, Command, From, Mailbox, Page};
use crate::options::{Options, TICK_MS};
use crate::protocol::Encoding;
use crate::protocol::websocket::frame;
use crate::wheel::{Tick, Timer, Wheel};
use crate::writer::{Io, Output, Way};

/// The waker's token; slab places are far below it.
pub(crate) const WAKER: Token = Token(usize::MAX);

/// Events of sockets that are taken at a time.
const EVENTS_LEN_MAX: usize = 1024;
/// Work in one turn that commands may make, in pages to be sent.
const COMMANDS_PER_TURN: usize = 2048;
/// Sessions in one turn that ask for a page.
const PULLS_PER_TURN: usize = 1024;
/// Reports of messages sent that wait for more of them, and how long.
const HELD_LEN_MAX: usize = 64;
const HELD_MS: i64 = 5;
/// Reports that wait for the backend beyond which sockets are not read.
const REPORTS_MAX: usize = 8192;
/// How soon something that found the backend full is tried again.
const BACKLOG_WAIT: Duration = Duration::from_millis(5);
/// Wait before a read that failed is made again.
const READ_RETRY_MS: u64 = 1000;

/// What a reactor is made of.
pub(crate) struct Parts {
    pub(crate) index: u8,
    pub(crate) poll: Poll,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) hub: Hub,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) options: Arc<Options>,
    pub(crate) jobs: mpsc::Sender<Job>,
    pub(crate) reports: mpsc::Sender<Vec<Report>>,
}

pub(crate) struct Reactor {
    parts: Parts,
    started: i64,
    /// The time of this turn, in milliseconds since it started.
    elapsed: i64,
    now: Tick,
    connections: Slab<Connection>,
    generation: u32,
    wheel: Wheel,
    due: Vec<Timer>,
    buffer: Vec<u8>,
    readable: Vec<(usize, bool)>,
    commands: VecDeque<Command>,
    /// Messages that were recalled last.
    recalled: VecDeque<MessageId>,
    pulls: VecDeque<usize>,
    sweeps: VecDeque<Sweep>,
    dirty: Vec<usize>,
    #[allow(
        clippy::vec_box,
        reason = "the box itself moves between the pool and a connection"
    )]
    pool: Vec<Box<Output>>,
    reports: Vec<Report>,
    /// When the first of the reports began to wait for others.
    held: Option<i64>,
    /// The last wait ended without an event.
    quiet: bool,
    /// The backend was full in this turn.
    backlog: bool,
    /// Where messages for one are encoded.
    scratch: Vec<u8>,
    /// Shared parts of recent broadcasts.
    recent: VecDeque<(MessageId, Encoding, Bytes)>,
    /// Messages that are not stored, for sessions that have not read yet.
    early: Early,
    /// Sessions whose topics are to be read.
    unread: Unread,
    drain: Option<drain::Drain>,
    stopping: bool,
}

impl Reactor {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            started: parts.clock.now().millis(),
            parts,
            elapsed: 0,
            now: 0,
            connections: Slab::new(),
            generation: 0,
            wheel: Wheel::new(),
            due: Vec::new(),
            buffer: vec![0; socket::READ_BYTES],
            readable: Vec::new(),
            commands: VecDeque::new(),
            recalled: VecDeque::new(),
            pulls: VecDeque::new(),
            sweeps: VecDeque::new(),
            early: Early::default(),
            unread: Unread::default(),
            dirty: Vec::new(),
            pool: Vec::new(),
            reports: Vec::new(),
            held: None,
            quiet: false,
            backlog: false,
            scratch: Vec::new(),
            recent: VecDeque::new(),
            drain: None,
            stopping: false,
        }
    }

    /// Runs until it is told to stop.
    pub(crate) fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS_LEN_MAX);
        while !self.stopping {
            let wait = self.wait();
            if let Err(error) = self.parts.poll.poll(&mut events, wait)
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "a reactor cannot wait for its sockets; it tries again");
                std::thread::sleep(Duration::from_millis(50));
            }
            self.look_at_clock();
            self.quiet = events.is_empty() && wait != Some(Duration::ZERO);
            for event in &events {
                let Token(key) = event.token();
                if event.token() == WAKER {
                    continue;
                }
                if event.is_readable() || event.is_read_closed() || event.is_error() {
                    let closed = event.is_read_closed() || event.is_error();
                    self.readable.push((key, closed));
                }
                if event.is_writable() {
                    self.mark_dirty(key);
                }
            }
            self.join_readable();
            if catch_unwind(AssertUnwindSafe(|| self.turn())).is_err() {
                metrics::counter!("hongyan_gateway_panics_total").increment(1);
                tracing::error!("a turn of the gateway failed and was abandoned; please report it");
            }
        }
        self.end_all();
    }

    /// While sockets are not read because the backend is behind, each may become readable again and again.
    fn join_readable(&mut self) {
        if self.readable.len() > self.connections.len() + EVENTS_LEN_MAX {
            self.readable.sort_unstable();
            self.readable.dedup_by(|next, first| {
                let is_same = next.0 == first.0;
                first.1 |= is_same && next.1;
                is_same
            });
        }
    }

    fn turn(&mut self) {
        self.backlog = false;
        self.take_commands();
        if self.reports.len() < REPORTS_MAX {
            for (key, closed) in std::mem::take(&mut self.readable) {
                self.guard(key, |reactor| reactor.read_socket(key, closed));
            }
        }
        self.sweep();
        self.pull();
        self.fire_timers();
        self.drop_early();
        self.ask_topics();
        self.drain_some();
        self.flush();
        self.hand_over();
    }

    /// How long nothing will be due.
    fn wait(&self) -> Option<Duration> {
        // What waits in the mailbox was announced already, once, also where this turn did not come to take it.
        let waits = !self.commands.is_empty() || self.parts.mailbox.is_woken();
        if waits || !self.sweeps.is_empty() || !self.dirty.is_empty() {
            return Some(Duration::ZERO);
        }
        if self.backlog || !self.reports.is_empty() {
            return Some(BACKLOG_WAIT);
        }
        if !self.pulls.is_empty() || !self.readable.is_empty() {
            return Some(Duration::ZERO);
        }
        if self.drain.is_some() {
            return Some(Duration::from_millis(TICK_MS));
        }
        let dues = [self.wheel.next(), self.early.due(), self.unread.due()];
        let next = dues.into_iter().flatten().min()?;
        let elapsed = self.parts.clock.now().millis().saturating_sub(self.started);
        let at = i64::from(next) * TICK_MS as i64;
        Some(Duration::from_millis(
            u64::try_from(at - elapsed).unwrap_or(0).max(1),
        ))
    }

    fn look_at_clock(&mut self) {
        let elapsed = self.parts.clock.now().millis().saturating_sub(self.started);
        self.elapsed = elapsed;
        let now = Tick::try_from(elapsed / TICK_MS as i64).unwrap_or(Tick::MAX / 2);
        self.now = self.now.max(now);
    }

    /// Does a connection's work; a panic in it costs that connection and nothing else.
    fn guard(&mut self, key: usize, work: impl FnOnce(&mut Self)) {
        if catch_unwind(AssertUnwindSafe(|| work(self))).is_err() {
            metrics::counter!("hongyan_gateway_panics_total").increment(1);
            tracing::error!("a session failed inside the gateway and was closed; please report it");
            self.end(key);
        }
    }

    // Commands.

    fn take_commands(&mut self) {
        // What waits in the mailbox is bounded, so that it is left there until all before it is done.
        if self.commands.is_empty() {
            let mut fresh = Vec::new();
            if self.parts.mailbox.take(&mut fresh) {
                self.look(None, SweepFor::Wake);
            }
            self.line_up(fresh);
        }
        let mut work = 0;
        while work < COMMANDS_PER_TURN {
            let Some(command) = self.commands.pop_front() else {
                break;
            };
            work += match &command {
                Command::Pages(pages) => pages.len(),
                Command::News { sessions, more, .. } => sessions.len() * (1 + more.len()),
                Command::Wake(sessions) => 1 + sessions.len() / 16,
                Command::Recall { sessions, .. } => 1 + sessions.len() / 4,
                _ => 1,
            };
            let key = self.key_of(&command);
            self.guard(key, |reactor| reactor.obey(command));
        }
    }

    /// Which connection a panic would cost; a place that does not exist when none.
    fn key_of(&self, command: &Command) -> usize {
        match command {
            Command::Welcome { session, .. }
            | Command::Refuse { session, .. }
            | Command::Tell { session, .. }
            | Command::Hand { session, .. }
            | Command::Acked { session, .. }
            | Command::Writable(session)
            | Command::Gone(session)
            | Command::Again { session, .. }
            | Command::Topic { session, .. }
            | Command::Rebind { session, .. }
            | Command::Close { session, .. } => self.find(*session).unwrap_or(usize::MAX),
            _ => usize::MAX,
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Adopt(adopted) => self.adopt(*adopted),
            Command::Welcome { session, greeted } => self.welcome(session, *greeted),
            Command::Refuse {
                session,
                close,
                code,
                detail,
            } => {
                if let Some(key) = self.find(session) {
                    self.refuse(key, close, code, detail);
                }
            }
            Command::Tell { session, what } => {
                if let Some(key) = self.find(session) {
                    self.speak(key, None, |protocol, desk| protocol.told(what, desk));
                }
            }
            Command::Hand { session, message } => self.hand(session, message),
            Command::Acked { session, ack } => {
                if let Some(key) = self.find(session) {
                    let connection = &mut self.connections[key];
                    let protocol = connection.speaker.protocol();
                    let is_acked_over_http = protocol.is_some_and(|p| p.is_acked_over_http());
                    let Some(session) = &mut connection.session else {
                        return;
                    };
                    match ack {
                        Ack::Upto(place) => {
                            session.ack_upto(place);
                        }
                        // It may have come another way, and what was sent here before it is still on its way.
                        Ack::Ids(ids) if !is_acked_over_http => session.ack_each(&ids),
                        Ack::Ids(ids) => {
                            let marks = session.ack_ids(&ids);
                            if !marks.is_empty() {
                                self.report(key, What::Ack(Ack::Ids(marks)));
                            }
                        }
                    }
                    self.want(key);
                }
            }
            Command::Writable(session) => {
                if let Some(key) = self.find(session) {
                    self.mark_dirty(key);
                }
            }
            Command::Gone(session) => {
                if let Some(key) = self.find(session) {
                    self.end(key);
                }
            }
            Command::Pages(pages) => {
                for Page {
                    session,
                    seat,
                    page,
                } in pages
                {
                    let key = self.find(session).unwrap_or(usize::MAX);
                    self.guard(key, |reactor| reactor.take_page(session, &seat, page));
                }
            }
            Command::Again {
                session,
                seat,
                id,
                place,
                message,
            } => {
                self.send_again(session, &seat, id, place, message);
            }
            Command::Topic {
                session,
                topic,
                result,
            } => self.say_topic(session, &topic, result),
            Command::Wake(sessions) => {
                for session in sessions {
                    if let Some(key) = self.find(session) {
                        self.want(key);
                    }
                }
            }
            Command::WakeApp(app) => {
                self.look(Some(app), SweepFor::Wake);
            }
            Command::News {
                sessions,
                hint,
                more,
            } => {
                for hint in std::iter::once(&hint).chain(&more) {
                    self.take_news(&sessions, hint);
                }
            }
            Command::NewsApp(hint) => {
                self.look(Some(hint.app.clone()), SweepFor::News(hint));
            }
            Command::Recall { sessions, id } => {
                self.note_recall(id);
                for session in sessions {
                    if let Some(key) = self.find(session) {
                        self.recall(key, id);
                    }
                }
            }
            Command::RecallApp { app, id } => {
                self.note_recall(id);
                self.look(Some(app), SweepFor::Recall(id));
            }
            Command::Rebind {
                session,
                seat,
                done,
            } => {
                self.rebind(session, seat);
                let _ = done.send(());
            }
            Command::Close { session, end, done } => {
                if let Some(key) = self.find(session) {
                    let seat = self.connections[key].seat().cloned();
                    self.close_saying(key, end, false);
                    if let Some(seat) = seat.filter(|_| end.is_for_good()) {
                        self.parts.hub.forget_left(&seat);
                    }
                }
                let _ = done.send(());
            }
            Command::Resubscribe(session) => self.resubscribe(session),
            Command::TopicsUnread(session) => self.resubscribe_later(session),
            Command::Drain(window) => self.begin_drain(window),
            Command::Poke => {}
            Command::Stop => self.stopping = true,
        }
    }

    fn adopt(&mut self, adopted: Adopted) {
        let Adopted {
            from,
            read_ahead,
            speaker,
            permit,
        } = adopted;
        let (socket, framing) = match from {
            From::WebSocket(socket) => (Ok(socket), Framing::WebSocket),
            From::Raw(socket) => (Ok(socket), Framing::Raw),
            From::Pipe(pipe) => (Err(Some(pipe)), Framing::Pipe),
            From::Nothing => (Err(None), Framing::Pipe),
        };
        let entry = self.connections.vacant_entry();
        let key = entry.key();
        self.generation = self.generation.wrapping_add(1);
        let id = session_id(self.parts.index, key, self.generation);
        let way = match socket {
            Ok(socket) => {
                let (tcp, tls) = match socket {
                    Socket::Plain(tcp) => (tcp, None),
                    Socket::Tls(tcp, tls) => (tcp, Some(tls)),
                };
                let mut tcp = mio::net::TcpStream::from_std(tcp);
                let interest = Interest::READABLE | Interest::WRITABLE;
                let registry = self.parts.poll.registry();
                match registry.register(&mut tcp, Token(key), interest) {
                    Ok(()) => Some(Way::Socket(Io::new(tcp, tls))),
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be taken over");
                        None
                    }
                }
            }
            Err(Some(pipe)) => pipe.begin(id).then_some(Way::Pipe(Some(pipe))),
            Err(None) => Some(Way::Pipe(None)),
        };
        let Some(way) = way else {
            self.parts
                .hub
                .sockets()
                .fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
            return;
        };
        entry.insert(Connection::new(
            way,
            speaker,
            framing,
            permit,
            self.generation,
            self.now,
            &self.parts.options,
        ));
        metrics::counter!("hongyan_gateway_connections_total").increment(1);
        self.arm(key);
        self.speak(key, None, |protocol, desk| protocol.begin(desk));
        if framing == Framing::Pipe {
            return;
        }
        if !read_ahead.is_empty() {
            let mut bytes = read_ahead.to_vec();
            self.take_input(key, &mut bytes);
        }
        // What came before the registration makes no event of its own on some systems.
        self.readable.push((key, true));
    }

    fn hand_over(&mut self) {
        if self.reports.is_empty() || self.holds() {
            return;
        }
        self.held = None;
        match self
            .parts
            .reports
            .try_send(std::mem::take(&mut self.reports))
        {
            Ok(()) => {}
            Err(TrySendError::Full(reports) | TrySendError::Closed(reports)) => {
                self.reports = reports;
                self.backlog = true;
            }
        }
    }

    /// Whether reports may wait for more to come: nobody is waiting to hear that something was sent, and waking the backend
    /// for each message costs as much as sending it.
    fn holds(&mut self) -> bool {
        let is_patient = |report: &Report| matches!(report.what, What::Sent(..));
        let few = self.reports.len() < HELD_LEN_MAX;
        if self.quiet || self.backlog || !few || !self.reports.iter().all(is_patient) {
            return false;
        }
        let since = *self.held.get_or_insert(self.elapsed);
        self.elapsed - since < HELD_MS
    }

    fn find(&self, session: SessionId) -> Option<usize> {
        let (key, generation) = place_of(session);
        let connection = self.connections.get(key)?;
        (connection.generation == generation).then_some(key)
    }

    fn id(&self, key: usize) -> Option<SessionId> {
        let connection = self.connections.get(key)?;
        Some(session_id(self.parts.index, key, connection.generation))
    }
}

#[cfg(test)]
mod order_tests;
#[cfg(test)]
mod stage;
#[cfg(test)]
mod tests;
