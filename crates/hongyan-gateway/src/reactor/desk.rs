//! What a protocol may do: everything it sees of the gateway.

use std::any::Any;
use std::sync::Arc;

use bytes::Bytes;
use hongyan_core::port::Ack;
use hongyan_core::session::AppState;
use hongyan_core::{Cursor, Message, MessageId, SessionId, Stage, Timestamp, Topic};

use super::Reactor;
use super::connection::{Framing, Phase};
use crate::backend::{Ask, Job, What};
use crate::gateway::Ports;
use crate::options::{Options, ticks};
use crate::protocol::websocket::close;
use crate::protocol::websocket::frame::{self, Opcode};
use crate::protocol::{Encoding, Hello, Kind, Parked, Protocol};
use crate::seat::Seat;
use crate::wheel::Tick;

/// A redelivery that was asked for comes after this when none is configured.
const RETRY_MS: u64 = 30_000;

/// How a connection is to end once its protocol has finished what it is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) code: u16,
    pub(crate) word: &'static str,
    pub(crate) detail: &'static str,
    pub(crate) error: bool,
}

impl End {
    /// A newer connection of the device took over.
    pub(crate) const TAKEN: Self = Self {
        code: close::TAKEN_OVER,
        word: "taken",
        detail: "taken over by a newer connection of this device",
        error: false,
    };
    /// The device is gone, or its token is.
    pub(crate) const DELETED: Self = Self {
        code: close::DEVICE_GONE,
        word: "device_deleted",
        detail: "the device was deleted or its token revoked; register it again",
        error: true,
    };
    /// The app's server wants the device out.
    pub(crate) const KICKED: Self = Self {
        code: close::FORBIDDEN,
        word: close::KICKED,
        detail: "the app's server sent this device away; connect again after the next login",
        error: true,
    };

    /// Whether the device's next connection is to know nothing of this one.
    pub(super) fn is_for_good(&self) -> bool {
        *self == Self::DELETED || *self == Self::KICKED
    }
}

/// A protocol's hold on its connection.
pub(crate) struct Desk<'a> {
    pub(super) reactor: &'a mut Reactor,
    pub(super) key: usize,
    pub(super) kind: Kind,
    pub(super) end: Option<End>,
    pub(super) parked: Option<Parked>,
    pub(super) rearm: bool,
}

impl Reactor {
    /// Lets a connection's protocol do something. Nothing when the connection is gone or its protocol is at work already.
    pub(super) fn speak<R>(
        &mut self,
        key: usize,
        parked: Option<Parked>,
        work: impl FnOnce(&mut dyn Protocol, &mut Desk<'_>) -> R,
    ) -> Option<R> {
        let connection = self.connections.get_mut(key)?;
        let generation = connection.generation;
        let kind = connection.speaker.protocol()?.kind();
        let mut speaker = connection.speaker.take();
        let mut desk = Desk {
            reactor: self,
            key,
            kind,
            end: None,
            parked,
            rearm: false,
        };
        let result = speaker
            .protocol_mut()
            .map(|protocol| work(protocol, &mut desk));
        let (end, rearm) = (desk.end, desk.rearm);
        let connection = self.connections.get_mut(key)?;
        if connection.generation != generation {
            return None;
        }
        connection.speaker = speaker;
        if rearm {
            self.arm(key);
        }
        if let Some(end) = end {
            self.close_saying(key, end, true);
        }
        result
    }
}

impl Desk<'_> {
    fn connection(&mut self) -> Option<&mut super::connection::Connection> {
        self.reactor.connections.get_mut(self.key)
    }

    // What is.

    pub(crate) fn now(&self) -> Tick {
        self.reactor.now
    }

    pub(crate) fn clock(&self) -> Timestamp {
        self.reactor.parts.clock.now()
    }

    pub(crate) fn options(&self) -> &Options {
        &self.reactor.parts.options
    }

    pub(crate) fn session(&self) -> Option<SessionId> {
        self.reactor.id(self.key)
    }

    /// Whose session it is.
    pub(crate) fn seat(&self) -> Option<Seat> {
        let connection = self.reactor.connections.get(self.key)?;
        connection.seat().cloned()
    }

    pub(crate) fn head(&self) -> Option<Cursor> {
        let connection = self.reactor.connections.get(self.key)?;
        Some(connection.session.as_ref()?.head())
    }

    /// The place up to which entries were sent on this connection.
    pub(crate) fn sent(&self) -> Option<Cursor> {
        let connection = self.reactor.connections.get(self.key)?;
        connection.session.as_ref()?.sent()
    }

    pub(crate) fn inflight(&self) -> usize {
        let connection = self.reactor.connections.get(self.key);
        connection
            .and_then(|c| c.session.as_ref())
            .map_or(0, |session| session.inflight())
    }

    /// Whether the session wants to read more than it was given.
    pub(crate) fn wants_read(&self) -> bool {
        let connection = self.reactor.connections.get(self.key);
        connection
            .and_then(|c| c.session.as_ref())
            .is_some_and(|session| session.wants_read())
    }

    pub(crate) fn is_live(&self) -> bool {
        self.phase() == Some(Phase::Live) && self.end.is_none()
    }

    /// Whether nothing was said yet about who it is.
    pub(crate) fn is_stranger(&self) -> bool {
        self.phase() == Some(Phase::Opening) && self.end.is_none()
    }

    fn phase(&self) -> Option<Phase> {
        self.reactor.connections.get(self.key).map(|c| c.phase)
    }

    pub(crate) fn is_websocket(&self) -> bool {
        let connection = self.reactor.connections.get(self.key);
        connection.is_some_and(|c| c.framing == Framing::WebSocket)
    }

    /// What the device's former connection of this protocol left; only while it is welcomed.
    pub(crate) fn parked(&mut self) -> Option<Parked> {
        self.parked.take()
    }

    // What goes out.

    /// Queues bytes as they are.
    pub(crate) fn frame(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if let Some(output) = self.reactor.output(self.key) {
            output.frame(write);
        }
    }

    /// Queues bytes as they are, whose end is shared.
    pub(crate) fn shared_frame(&mut self, write: impl FnOnce(&mut Vec<u8>), rest: Bytes) {
        if let Some(output) = self.reactor.output(self.key) {
            output.shared_frame(write, rest);
        }
    }

    /// Queues a text: one message on a WebSocket, the bytes as they are elsewhere.
    pub(crate) fn text(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.message(Opcode::Text, write);
    }

    /// Queues bytes: one message on a WebSocket, as they are elsewhere.
    pub(crate) fn binary(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.message(Opcode::Binary, write);
    }

    fn message(&mut self, opcode: Opcode, write: impl FnOnce(&mut Vec<u8>)) {
        if !self.is_websocket() {
            self.frame(write);
            return;
        }
        let mut payload = Vec::new();
        write(&mut payload);
        self.frame(|out| frame::encode(opcode, &payload, out));
    }

    /// Queues a WebSocket ping, which every client answers by itself.
    pub(crate) fn websocket_ping(&mut self) {
        self.frame(|out| frame::encode(Opcode::Ping, b"", out));
    }

    /// A message in hongyan's own form (the part that all sessions share, one object or map), encoded once for a broadcast.
    pub(crate) fn encoded(&mut self, encoding: Encoding, message: &Message) -> Bytes {
        self.reactor.shared(encoding, message)
    }

    /// Whether so many more bytes may wait for the socket. One message always fits an empty queue: the store bounds its
    /// size.
    pub(crate) fn has_room(&mut self, bytes: usize) -> bool {
        let bytes_max = self.reactor.parts.options.queue_bytes_max;
        let len_max = self.reactor.parts.options.queue_len_max;
        self.connection().is_some_and(|connection| {
            connection.output.as_ref().is_none_or(|output| {
                output.is_empty()
                    || (output.bytes() + bytes <= bytes_max && output.frames() < len_max)
            })
        })
    }

    // What the session is told.

    /// Says who it is; once. [`Protocol::welcome`] or [`Protocol::close`] follows.
    pub(crate) fn hello(&mut self, hello: Hello) {
        if self.is_stranger() {
            self.rearm = true;
            if !self.reactor.hello(self.key, hello, self.kind) {
                self.refuse(
                    close::TRY_AGAIN,
                    "busy",
                    "the gateway is busy; try again later",
                );
            }
        }
    }

    /// Keeps a connection that is known but has no inbox: an app's server.
    pub(crate) fn stay(&mut self) {
        if self.is_stranger()
            && let Some(connection) = self.connection()
        {
            connection.phase = Phase::Guest;
            connection.deadline = 0;
            connection.opening = None;
            self.rearm = true;
        }
    }

    /// Everything up to a place was processed.
    pub(crate) fn ack_upto(&mut self, place: Cursor) {
        self.with_session(|reactor, key| {
            let session = reactor.connections[key].session.as_mut()?;
            let place = session.ack_upto(place)?;
            reactor.report(key, What::Ack(Ack::Upto(place)));
            reactor.queue_pull(key);
            Some(())
        });
    }

    /// These were processed, and so were the marks of recalls that were sent before them.
    pub(crate) fn ack_ids(&mut self, mut ids: Vec<MessageId>) {
        self.with_session(|reactor, key| {
            let session = reactor.connections[key].session.as_mut()?;
            ids.extend(session.ack_ids(&ids));
            if !ids.is_empty() {
                reactor.report(key, What::Ack(Ack::Ids(ids)));
                reactor.queue_pull(key);
            }
            Some(())
        });
    }

    /// These were processed, and no others.
    pub(crate) fn ack_each(&mut self, ids: Vec<MessageId>) {
        self.with_session(|reactor, key| {
            let session = reactor.connections[key].session.as_mut()?;
            session.ack_each(&ids);
            if !ids.is_empty() {
                reactor.report(key, What::Ack(Ack::Ids(ids)));
                reactor.queue_pull(key);
            }
            Some(())
        });
    }

    /// This one can never be used: acknowledged with a failed status.
    pub(crate) fn reject(&mut self, id: MessageId) {
        self.with_session(|reactor, key| {
            let session = reactor.connections[key].session.as_mut()?;
            session.ack_each(&[id]);
            reactor.report(key, What::Reject(id));
            reactor.queue_pull(key);
            Some(())
        });
    }

    /// This one is to be sent again later.
    pub(crate) fn retry(&mut self, id: MessageId) {
        let now = self.now();
        let wait = self.options().redeliver_after(1).unwrap_or(ticks(RETRY_MS));
        if let Some(session) = self.connection().and_then(|c| c.session.as_mut())
            && session.retry(id, now + wait)
        {
            self.rearm = true;
        }
    }

    /// What the person did with a message.
    pub(crate) fn event(&mut self, message: MessageId, stage: Stage, at: Option<Timestamp>) {
        self.with_session(|reactor, key| {
            reactor.report(key, What::Client { message, stage, at });
            Some(())
        });
    }

    /// Tells the app something, at most [`hongyan_core::limits::SAID_BYTES_MAX`] bytes.
    pub(crate) fn said(&mut self, text: String) {
        self.with_session(|reactor, key| {
            reactor.report(key, What::Said(text));
            Some(())
        });
    }

    /// The app went to the front or back.
    pub(crate) fn state(&mut self, state: AppState) {
        if let (Some(id), Some(seat)) = (self.session(), self.seat()) {
            self.reactor.parts.hub.set_state(id, &seat, state);
        }
    }

    /// There may be more to read, or room for it.
    pub(crate) fn want(&mut self) {
        self.reactor.want(self.key);
    }

    /// Reads again, from a place or from what the device acknowledged.
    pub(crate) fn restart(&mut self, after: Option<Cursor>) {
        if let Some(session) = self.connection().and_then(|c| c.session.as_mut()) {
            session.restart(after);
            self.reactor.queue_pull(self.key);
        }
    }

    /// The same, of a protocol that repeats nothing on one connection.
    pub(crate) fn reread(&mut self, after: Option<Cursor>) {
        if let Some(session) = self.connection().and_then(|c| c.session.as_mut()) {
            session.reread(after);
            self.reactor.queue_pull(self.key);
        }
    }

    /// Begins or ends to follow a topic; [`Protocol::followed`] tells the outcome. False when the gateway is busy.
    pub(crate) fn follow(&mut self, topic: &Topic, follow: bool) -> bool {
        let (Some(session), Some(seat)) = (self.session(), self.seat()) else {
            return false;
        };
        let job = Job::Topic {
            session,
            seat,
            topic: topic.clone(),
            follow,
        };
        self.reactor.parts.jobs.try_send(job).is_ok()
    }

    /// Asks the store something, off the reactor's thread; the answer comes to [`Protocol::told`]. False when the gateway
    /// is busy.
    pub(crate) fn ask<A, F>(&mut self, question: impl FnOnce(Ports) -> F + Send + 'static) -> bool
    where
        A: Any + Send,
        F: Future<Output = A> + Send + 'static,
    {
        let Some(session) = self.session() else {
            return false;
        };
        let ask = Ask(Box::new(move |ports| {
            let answer = question(ports);
            Box::pin(async move { Box::new(answer.await) as Box<dyn Any + Send> })
        }));
        self.reactor
            .parts
            .jobs
            .try_send(Job::Ask { session, ask })
            .is_ok()
    }

    /// Takes one message from the client's allowance; false when there is none: it is closed for that.
    pub(crate) fn spend(&mut self) -> bool {
        let now = self.now();
        let options = Arc::clone(&self.reactor.parts.options);
        if self
            .connection()
            .is_some_and(|connection| connection.take_token(now, &options))
        {
            return true;
        }
        self.refuse(
            close::RATE_LIMITED,
            "rate_limited",
            "too many messages; slow down",
        );
        false
    }

    /// [`Protocol::due`] may be sooner than it was.
    pub(crate) fn rearm(&mut self) {
        self.rearm = true;
    }

    // The end. What is queued leaves before the last words, as far as the socket takes it at once.

    /// Ends the connection.
    pub(crate) fn close(&mut self, code: u16, word: &'static str, detail: &'static str) {
        self.end.get_or_insert(End {
            code,
            word,
            detail,
            error: false,
        });
    }

    /// Ends the connection with an error that the peer is told.
    pub(crate) fn refuse(&mut self, code: u16, word: &'static str, detail: &'static str) {
        self.end.get_or_insert(End {
            code,
            word,
            detail,
            error: true,
        });
    }

    /// The peer said goodbye.
    pub(crate) fn goodbye(&mut self, detail: &'static str) {
        if let Some(connection) = self.connection() {
            connection.clean = true;
        }
        self.close(close::NORMAL, "bye", detail);
    }

    /// Whether its end was decided.
    pub(crate) fn is_ending(&self) -> bool {
        self.end.is_some()
    }

    fn with_session(&mut self, work: impl FnOnce(&mut Reactor, usize) -> Option<()>) {
        if self.is_live() && self.reactor.connections.contains(self.key) {
            work(self.reactor, self.key);
        }
    }
}
