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
mod line;
mod sweep;
mod talk;
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

pub(crate) use self::desk::Desk;

use self::connection::{Connection, Framing, Phase, place_of, session_id};
use self::desk::End;
use self::early::Early;
use self::sweep::{Sweep, SweepFor};
use self::topics::Unread;
use crate::backend::{Job, Report, What};
use crate::gateway::Socket;
use crate::hub::{Hub, Left};
use crate::mailbox::{Adopted, Command, From, Mailbox, Page};
use crate::options::{Options, TICK_MS, ticks};
use crate::protocol::websocket::close;
use crate::protocol::websocket::frame::{self, Decoder, Fault};
use crate::protocol::{Encoding, Farewell, Input};
use crate::session::Session;
use crate::wheel::{Tick, Timer, Wheel};
use crate::writer::{Io, Output, Way};

/// The waker's token; slab places are far below it.
pub(crate) const WAKER: Token = Token(usize::MAX);

/// Bytes that all connections of a reactor are read into, one after the other.
const READ_BYTES: usize = 64 * 1024;
/// Reads of one connection in one turn; then it goes behind the others.
const READS_PER_TURN: usize = 4;
/// Work in one turn that commands may make, in pages to be sent.
const COMMANDS_PER_TURN: usize = 2048;
/// Sessions in one turn that ask for a page.
const PULLS_PER_TURN: usize = 1024;
/// Reports of messages sent that wait for more of them, and how long.
const HELD_LEN_MAX: usize = 64;
const HELD_MS: i64 = 5;
/// Reports that wait for the backend beyond which sockets are not read.
const REPORTS_MAX: usize = 8192;
/// Empty queues that are kept for the next connection that has something to say.
const POOL_LEN_MAX: usize = 1024;
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
            buffer: vec![0; READ_BYTES],
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
        let mut events = Events::with_capacity(1024);
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
            if catch_unwind(AssertUnwindSafe(|| self.turn())).is_err() {
                metrics::counter!("hongyan_gateway_panics_total").increment(1);
                tracing::error!("a turn of the gateway failed and was abandoned; please report it");
            }
        }
        self.end_all();
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
                if let Some(key) = self.find(session)
                    && let Some(session) = &mut self.connections[key].session
                {
                    match ack {
                        Ack::Upto(place) => {
                            session.ack_upto(place);
                        }
                        Ack::Ids(ids) => session.ack_ids(&ids),
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
            Command::Close {
                session,
                code,
                reason,
                done,
            } => {
                if let Some(key) = self.find(session) {
                    self.close(key, code, reason);
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

    // Input.

    fn read_socket(&mut self, key: usize, closed: bool) {
        let mut buffer = std::mem::take(&mut self.buffer);
        if buffer.is_empty() {
            buffer = vec![0; READ_BYTES];
        }
        let mut again = true;
        for _ in 0..READS_PER_TURN {
            let Some(connection) = self.connections.get_mut(key) else {
                again = false;
                break;
            };
            match connection.io.read(&mut buffer) {
                Ok(0) => {
                    // Whoever said goodbye in TLS is told so, too (RFC 8446 section 6.1).
                    connection.io.shutdown();
                    self.end(key);
                    again = false;
                    break;
                }
                Ok(n) => {
                    connection.heard = self.now;
                    connection.pinged = false;
                    self.take_input(key, &mut buffer[..n]);
                    // A short read has emptied the socket, unless its end is waiting behind.
                    if n < READ_BYTES && !closed && self.is_drained(key) {
                        again = false;
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    again = false;
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.end(key);
                    again = false;
                    break;
                }
            }
        }
        self.buffer = buffer;
        if again {
            self.readable.push((key, closed));
        }
        // TLS may have something to answer on its own.
        if self.connections.get(key).is_some() && !self.is_drained(key) {
            self.mark_dirty(key);
        }
    }

    fn is_drained(&self, key: usize) -> bool {
        self.connections
            .get(key)
            .is_none_or(|connection| connection.io.is_drained())
    }

    fn take_input(&mut self, key: usize, bytes: &mut [u8]) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if matches!(connection.phase, Phase::Broken | Phase::Ending) {
            return;
        }
        let generation = connection.generation;
        if connection.framing == Framing::Raw {
            if connection.phase != Phase::Closing {
                self.speak(key, None, |protocol, desk| {
                    protocol.hear(Input::Bytes(bytes), desk);
                });
            }
            return;
        }
        let mut kept = connection.decoder.take();
        let mut fresh = Decoder::default();
        let decoder = kept.as_deref_mut().unwrap_or(&mut fresh);
        let mut at = 0;
        loop {
            let Some(connection) = self.connections.get(key) else {
                return;
            };
            if connection.generation != generation
                || matches!(connection.phase, Phase::Broken | Phase::Ending)
            {
                return;
            }
            let message_bytes_max = connection.message_bytes_max(&self.parts.options);
            match decoder.decode(bytes, &mut at, message_bytes_max) {
                Ok(Some(incoming)) => self.hear(key, incoming),
                Ok(None) => break,
                Err(fault) => {
                    self.fail(key, fault);
                    return;
                }
            }
        }
        if decoder.is_idle() {
            return;
        }
        if let Some(connection) = self.connections.get_mut(key) {
            connection.decoder = Some(kept.unwrap_or_else(|| Box::new(fresh)));
        }
    }

    fn fail(&mut self, key: usize, fault: Fault) {
        let reason = match fault {
            Fault::Protocol(rule) => rule,
            Fault::NotUtf8 => "text is not valid utf-8",
            Fault::TooBig => "message is too big",
        };
        self.close(key, fault.code(), reason);
        if let Some(connection) = self.connections.get_mut(key) {
            connection.phase = Phase::Broken;
        }
    }

    // Output.

    /// The queue of a connection; it is flushed at the end of the turn.
    fn output(&mut self, key: usize) -> Option<&mut Output> {
        self.mark_dirty(key);
        let connection = self.connections.get_mut(key)?;
        let pool = &mut self.pool;
        Some(
            connection
                .output
                .get_or_insert_with(|| pool.pop().unwrap_or_default()),
        )
    }

    fn mark_dirty(&mut self, key: usize) {
        if let Some(connection) = self.connections.get_mut(key)
            && !connection.dirty
        {
            connection.dirty = true;
            self.dirty.push(key);
        }
    }

    fn flush(&mut self) {
        for key in std::mem::take(&mut self.dirty) {
            self.guard(key, |reactor| reactor.flush_one(key));
        }
    }

    fn flush_one(&mut self, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        connection.dirty = false;
        let flushed = match &mut connection.output {
            Some(output) => output.flush(&mut connection.io),
            None => connection.io.finish(),
        };
        match flushed {
            Ok(true) => {
                if let Some(mut output) = connection.output.take()
                    && output.recycle()
                    && self.pool.len() < POOL_LEN_MAX
                {
                    self.pool.push(output);
                }
                match connection.phase {
                    Phase::Ending => self.end(key),
                    Phase::Broken => connection.io.shutdown(),
                    _ if connection.session.as_ref().is_some_and(Session::wants_read) => {
                        self.queue_pull(key);
                    }
                    _ => {}
                }
            }
            Ok(false) => {
                let now = self.now;
                if let Some(output) = &mut connection.output {
                    output.blocked_since.get_or_insert(now);
                }
                self.arm(key);
            }
            Err(_) => self.end(key),
        }
    }

    // Ends.

    /// Begins to close: nothing but the last words leaves from here on.
    fn close(&mut self, key: usize, code: u16, reason: &'static str) {
        let end = End {
            code,
            word: close_label(code),
            detail: reason,
            error: false,
        };
        self.close_saying(key, end, false);
    }

    /// Says a fatal error, then closes.
    fn refuse(&mut self, key: usize, code: u16, word: &'static str, detail: &'static str) {
        let end = End {
            code,
            word,
            detail,
            error: true,
        };
        self.close_saying(key, end, false);
    }

    /// Begins to close. What the connection's own protocol decided lets go first what the socket takes at once.
    fn close_saying(&mut self, key: usize, end: End, own: bool) {
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        if connection.is_closing() {
            return;
        }
        let blocked = |output: &Output| output.blocked_since.is_some();
        if own && connection.output.as_deref().is_some_and(|o| !blocked(o)) {
            self.flush_one(key);
        }
        let deadline = self.now + ticks(self.parts.options.close_wait_ms);
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        connection.phase = match connection.framing {
            Framing::WebSocket => Phase::Closing,
            Framing::Raw => Phase::Broken,
            Framing::Pipe => Phase::Ending,
        };
        connection.deadline = deadline;
        let framing = connection.framing;
        if let Some(output) = &mut connection.output {
            output.drop_waiting();
        }
        metrics::counter!("hongyan_gateway_closes_total", "code" => close_label(end.code))
            .increment(1);
        let farewell = Farewell {
            code: end.code,
            word: end.word,
            detail: end.detail,
            error: end.error,
        };
        let code = self.speak(key, None, |protocol, desk| protocol.close(&farewell, desk));
        self.leave(key);
        if framing == Framing::WebSocket
            && let Some(output) = self.output(key)
        {
            output.frame(|out| frame::encode_close(code.unwrap_or(end.code), end.detail, out));
        }
        self.mark_dirty(key);
        self.arm(key);
    }

    /// The session is over: the hub forgets it and dispatch is told.
    fn leave(&mut self, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        connection.opening = None;
        let id = session_id(self.parts.index, key, connection.generation);
        let clean = connection.clean;
        let now = self.parts.clock.now();
        let parked = connection.speaker.protocol_mut().and_then(|protocol| {
            protocol
                .park(clean, now)
                .map(|parked| (protocol.kind(), parked))
        });
        let seat = match connection.session.take() {
            Some(session) => {
                let seat = session.seat().clone();
                let left = Left {
                    unfinished: session.unfinished(),
                    parked,
                };
                self.parts.hub.unregister(id, &seat, left);
                Some(seat)
            }
            // Its work failed while the session was in hand.
            None if connection.phase == Phase::Live => self.parts.hub.forget(id),
            None => None,
        };
        if let Some(seat) = seat {
            metrics::gauge!("hongyan_gateway_sessions").decrement(1.0);
            self.reports.push(Report {
                seat,
                what: What::Down(id),
            });
        }
    }

    /// Notes what a session has to say.
    fn report(&mut self, key: usize, what: What) {
        if let Some(seat) = self.connections.get(key).and_then(|c| c.seat()) {
            let seat = seat.clone();
            self.reports.push(Report { seat, what });
        }
    }

    /// Drops a connection at once.
    fn end(&mut self, key: usize) {
        self.leave(key);
        if let Some(mut connection) = self.connections.try_remove(key) {
            if connection.phase == Phase::Ending {
                connection.io.shutdown();
            }
            if let Some(io) = connection.io.socket() {
                let _ = self.parts.poll.registry().deregister(&mut io.tcp);
            }
            self.parts
                .hub
                .sockets()
                .fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
        }
    }

    /// The node stops: a close frame where it can be written at once.
    fn end_all(&mut self) {
        let keys: Vec<usize> = self.connections.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.close(key, close::GOING_AWAY, "the node stops");
            if let Some(connection) = self.connections.get_mut(key) {
                connection.phase = Phase::Ending;
            }
            self.flush_one(key);
            self.end(key);
        }
        let reports = std::mem::take(&mut self.reports);
        if !reports.is_empty() && self.parts.reports.blocking_send(reports).is_err() {
            tracing::warn!("the last reports of sessions were lost: nobody takes them any more");
        }
        self.parts.mailbox.close();
    }

    // Deadlines.

    /// Sets the wheel for the connection's next deadline, if it is sooner than what is set.
    fn arm(&mut self, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let next = connection.next_deadline(&self.parts.options);
        if next < connection.timer {
            let timer = Timer {
                key: key as u32,
                generation: connection.generation,
            };
            connection.timer = self.wheel.set(next, timer);
        }
    }

    fn fire_timers(&mut self) {
        let mut due = std::mem::take(&mut self.due);
        self.wheel.advance(self.now, &mut due);
        for timer in due.drain(..) {
            let key = timer.key as usize;
            let current = self
                .connections
                .get(key)
                .is_some_and(|c| c.generation == timer.generation && c.timer <= self.now);
            if current {
                self.guard(key, |reactor| reactor.fire(key));
            }
        }
        self.due = due;
    }

    fn fire(&mut self, key: usize) {
        let now = self.now;
        let options = Arc::clone(&self.parts.options);
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        connection.timer = Tick::MAX;
        let over = connection.deadline != 0 && connection.deadline <= now;
        match connection.phase {
            Phase::Opening if over => {
                self.close(key, close::TOO_SLOW, "no hello came in time");
            }
            Phase::Opening if connection.due().is_some_and(|due| due <= now) => {
                self.speak(key, None, |protocol, desk| protocol.fire(desk));
            }
            Phase::Greeting if over => {
                self.close(key, close::TRY_AGAIN, "the store did not answer in time");
            }
            Phase::Closing | Phase::Broken | Phase::Ending if over => {
                self.end(key);
                return;
            }
            Phase::Live | Phase::Guest => {
                if over {
                    connection.deadline = 0;
                    self.queue_pull(key);
                }
                self.fire_live(key, &options);
            }
            _ => {}
        }
        self.arm(key);
    }

    fn fire_live(&mut self, key: usize, options: &Options) {
        let now = self.now;
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let blocked = connection
            .output
            .as_ref()
            .and_then(|output| output.blocked_since);
        if blocked.is_some_and(|since| now >= since + ticks(options.slow_timeout_ms)) {
            self.close(
                key,
                close::TOO_SLOW,
                "too slow: the send queue made no progress",
            );
            return;
        }
        if connection.due().is_some_and(|due| due <= now) {
            self.speak(key, None, |protocol, desk| protocol.fire(desk));
        }
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let silence = connection.silence(options);
        let silent = now.saturating_sub(connection.heard);
        let asked = connection.pinged || silence.ping_after.is_none();
        if asked && silence.dead_after.is_some_and(|dead| silent >= dead) {
            // After a pause of this whole process its answer may be here, unread.
            let heard = connection.heard;
            self.read_socket(key, true);
            let Some(connection) = self.connections.get_mut(key) else {
                return;
            };
            if connection.heard == heard && !connection.is_closing() {
                metrics::counter!("hongyan_gateway_dead_total").increment(1);
                if silence.ping_after.is_some() {
                    self.end(key);
                } else {
                    self.refuse(
                        key,
                        close::TOO_SLOW,
                        "silent",
                        "nothing was heard for too long",
                    );
                }
            }
            return;
        }
        if !connection.pinged && silence.ping_after.is_some_and(|wait| silent >= wait) {
            connection.pinged = true;
            self.speak(key, None, |protocol, desk| protocol.ping(desk));
        }
        self.ask_again(key);
    }

    // The backend.

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

/// Close codes as metric labels: a closed list.
fn close_label(code: u16) -> &'static str {
    match code {
        1000 => "1000",
        1001 => "1001",
        1002 => "1002",
        1003 => "1003",
        1007 => "1007",
        1009 => "1009",
        1011 => "1011",
        1012 => "1012",
        1013 => "1013",
        4400 => "4400",
        4401 => "4401",
        4408 => "4408",
        4409 => "4409",
        4410 => "4410",
        4429 => "4429",
        _ => "other",
    }
}

#[cfg(test)]
mod order_tests;
#[cfg(test)]
mod stage;
#[cfg(test)]
mod tests;
