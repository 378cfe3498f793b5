//! A full publish/subscribe space for one listener, as a pure state machine.
//!
//! Bytes and times go in, bytes come out: it has no socket, no clock and no thread, so that every turn of
//! it can be played in a test. Everything that connections are told lies in [`Broker::take_output`];
//! [`Broker::take_woken`] says for which of them there is something. [`crate::serve`] drives it over real sockets.
//!
//! All memory has a bound in [`Options`]. One that publishes is never held up by one that reads slowly: what
//! does not fit into a session's queue is dropped and counted ([`Stats::dropped`]).
//!
//! Time is a [`Duration`] since any moment of the caller's, and never goes back.

mod access;
mod connect;
mod connection;
mod deliver;
mod message;
mod options;
mod publish;
mod session;
mod subscribe;
mod subscribers;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use connection::Connection;
use message::Message;
use session::Session;
use subscribers::Subscribers;

use crate::packet::ReasonCode;
use crate::topic::Trie;

pub use access::Access;
pub use options::Options;

/// A connection of this broker, as long as it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct SessionId(u64);

/// What falls due. Each owner has at most one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Connection(ConnectionId),
    Session(SessionId),
    Retained,
}

/// What is to be done with a connection after its output was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Go on.
    Open,
    /// Close it when everything that was taken is written, and say so with [`Broker::closed`].
    Close,
}

/// How much is in a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Connections, also those that have not said who they are.
    pub connections: usize,
    /// Sessions, connected or not.
    pub sessions: usize,
    /// Subscriptions of all sessions.
    pub subscriptions: usize,
    /// Retained messages.
    pub retained: usize,
    /// Bytes of messages that wait in sessions; one that waits in two counts twice.
    pub queued_bytes: usize,
    /// Messages that were not kept for a session because its queue was full, since the start.
    pub dropped: u64,
}

/// The publish/subscribe space of one listener.
#[derive(Debug)]
pub struct Broker {
    options: Options,
    connections: BTreeMap<ConnectionId, Connection>,
    sessions: HashMap<SessionId, Session>,
    by_client: HashMap<Arc<str>, SessionId>,
    subscribers: Trie<Subscribers>,
    subscriptions: usize,
    retained: Trie<Arc<Message>>,
    retained_bytes: usize,
    /// Whether the timer for expired retained messages is set.
    sweeping: bool,
    queued_bytes: usize,
    dropped: u64,
    timers: BTreeSet<(Duration, Timer)>,
    woken: Vec<ConnectionId>,
    next_id: u64,
    assigned: u64,
}

impl Broker {
    /// An empty space.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            connections: BTreeMap::new(),
            sessions: HashMap::new(),
            by_client: HashMap::new(),
            subscribers: Trie::default(),
            subscriptions: 0,
            retained: Trie::default(),
            retained_bytes: 0,
            sweeping: false,
            queued_bytes: 0,
            dropped: 0,
            timers: BTreeSet::new(),
            woken: Vec::new(),
            next_id: 0,
            assigned: 0,
        }
    }

    /// What it was made with.
    pub const fn options(&self) -> &Options {
        &self.options
    }

    /// A new connection; `None` when there are too many, and it is to be closed at once.
    pub fn accept(&mut self, now: Duration) -> Option<ConnectionId> {
        if self.connections.len() >= self.options.connections_max {
            return None;
        }
        self.next_id += 1;
        let id = ConnectionId(self.next_id);
        let due = now + self.options.connect_timeout;
        self.connections
            .insert(id, Connection::new(now, due, &self.options));
        self.timers.insert((due, Timer::Connection(id)));
        Some(id)
    }

    /// Bytes that a connection received, in any pieces. Bytes of a connection that is to be closed are
    /// thrown away.
    pub fn received(&mut self, now: Duration, id: ConnectionId, bytes: &[u8]) {
        self.read(now, id, bytes);
    }

    /// A connection is gone, for whatever reason. A client that had not said goodbye gets its will published.
    pub fn closed(&mut self, now: Duration, id: ConnectionId) {
        self.detach(now, id, connection::End::Lost);
        if let Some(connection) = self.connections.remove(&id) {
            self.timers.remove(&(connection.due, Timer::Connection(id)));
        }
    }

    /// A client sends no more. What waits for it is still to be written, then the connection is closed; its
    /// will is published as by [`Broker::closed`].
    pub fn hang_up(&mut self, now: Duration, id: ConnectionId) {
        self.close(now, id, connection::End::Lost);
    }

    /// A client broke the rules of the transport, such as a text frame on a WebSocket: it is told (5.0) and
    /// closed.
    pub fn refuse(&mut self, now: Duration, id: ConnectionId, reason: ReasonCode) {
        self.fail(now, id, reason, "the transport's rules were broken");
    }

    /// Does what is due. Call it at [`Broker::next_due`], or more often.
    pub fn tick(&mut self, now: Duration) {
        // What falls due again is later than now, so this ends.
        while let Some((due, timer)) = self.timers.first().copied()
            && due <= now
        {
            self.timers.remove(&(due, timer));
            match timer {
                Timer::Connection(id) => self.connection_due(now, id),
                Timer::Session(id) => self.session_due(now, id),
                Timer::Retained => self.sweep_retained(now),
            }
        }
    }

    /// When [`Broker::tick`] has something to do; `None` while nothing waits for time.
    pub fn next_due(&self) -> Option<Duration> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// Moves what is to be written to a connection to the end of `out`. As much as
    /// [`Options::output_bytes`] and one packet at a time; ask again when that is written.
    pub fn take_output(&mut self, now: Duration, id: ConnectionId, out: &mut Vec<u8>) -> Flow {
        let Some(connection) = self.connections.get_mut(&id) else {
            return Flow::Close;
        };
        connection.woken = false;
        if out.is_empty() {
            std::mem::swap(out, &mut connection.output);
        } else {
            out.append(&mut connection.output);
        }
        connection.output = Vec::new();
        if connection.closing {
            return Flow::Close;
        }
        // There is room again: for what was held back, then for what it had sent meanwhile.
        self.pump_connection(now, id);
        self.read(now, id, &[]);
        Flow::Open
    }

    /// Whether a connection's bytes are wanted. False while it does not read what it is sent: its driver
    /// stops reading until output was taken.
    pub fn wants_input(&self, id: ConnectionId) -> bool {
        self.connections.get(&id).is_some_and(|connection| {
            connection.closing || connection.output.len() < self.options.output_bytes
        })
    }

    /// Connections that have output, or are to be closed, since the last call. Each once.
    pub fn take_woken(&mut self) -> Vec<ConnectionId> {
        std::mem::take(&mut self.woken)
    }

    /// Tells every client that the server stops, and closes. Sessions end with the process, and wills are
    /// not published: nobody would be there to read them.
    pub fn shut_down(&mut self, now: Duration) {
        let ids: Vec<_> = self.connections.keys().copied().collect();
        for session in self.sessions.values_mut() {
            session.will = None;
        }
        for id in ids {
            self.fail(
                now,
                id,
                ReasonCode::SERVER_SHUTTING_DOWN,
                "the server stops",
            );
        }
    }

    /// How much is in it.
    pub fn stats(&self) -> Stats {
        Stats {
            connections: self.connections.len(),
            sessions: self.sessions.len(),
            subscriptions: self.subscriptions,
            retained: self.retained.len(),
            queued_bytes: self.queued_bytes,
            dropped: self.dropped,
        }
    }

    fn wake(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id)
            && !connection.woken
        {
            connection.woken = true;
            self.woken.push(id);
        }
    }
}
