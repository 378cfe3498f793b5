//! What a connection hears and answers.

use std::sync::Arc;

use hongyan_core::port::Ack;
use hongyan_core::{SessionId, Topic};

use super::connection::Phase;
use super::{Reactor, frame};
use crate::backend::{Job, Report, What};
use crate::mailbox::Greeted;
use crate::options::ticks;
use crate::protocol::Encoding;
use crate::protocol::websocket::close;
use crate::protocol::websocket::frame::{Incoming, Opcode};
use crate::protocol::websocket::incoming::{self, ClientMessage, Hello};
use crate::protocol::websocket::outgoing::{self, Place, Replay, ServerMessage};
use crate::session::Session;

impl Reactor {
    pub(super) fn hear(&mut self, key: usize, incoming: Incoming<'_>) {
        let now = self.now;
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if connection.phase == Phase::Closing {
            if matches!(incoming, Incoming::Close(..)) {
                connection.phase = Phase::Ending;
                self.mark_dirty(key);
            }
            return;
        }
        let counts = !matches!(incoming, Incoming::Close(..));
        if counts && !connection.take_token(now, &self.parts.options) {
            self.refuse(
                key,
                close::RATE_LIMITED,
                "rate_limited",
                "too many messages; slow down",
            );
            return;
        }
        let encoding = connection.encoding;
        match incoming {
            Incoming::Ping(payload) => {
                if let Some(output) = self.output(key) {
                    output.frame(|out| frame::encode(Opcode::Pong, payload, out));
                }
            }
            Incoming::Pong(_) => {}
            Incoming::Close(code, _) => {
                self.close(key, code.unwrap_or(close::NORMAL), "");
                if let Some(connection) = self.connections.get_mut(key) {
                    connection.phase = Phase::Ending;
                }
            }
            Incoming::Text(bytes) if encoding == Encoding::Json => self.read(key, bytes),
            Incoming::Binary(bytes) if encoding == Encoding::Cbor => self.read(key, bytes),
            Incoming::Text(_) => {
                self.close(
                    key,
                    close::UNSUPPORTED,
                    "this subprotocol speaks binary messages",
                );
            }
            Incoming::Binary(_) => {
                self.close(
                    key,
                    close::UNSUPPORTED,
                    "this subprotocol speaks text messages",
                );
            }
        }
    }

    fn read(&mut self, key: usize, bytes: &[u8]) {
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        let phase = connection.phase;
        match incoming::parse(connection.encoding, bytes) {
            Ok(ClientMessage::Hello(hello)) if phase == Phase::Opening => self.hello(key, hello),
            Ok(ClientMessage::Hello(_)) => {
                self.refuse(
                    key,
                    close::BAD_MESSAGE,
                    "bad_order",
                    "hello is said exactly once",
                );
            }
            Ok(_) if phase != Phase::Live => {
                self.refuse(
                    key,
                    close::BAD_MESSAGE,
                    "bad_order",
                    "hello comes first, then welcome",
                );
            }
            Ok(message) => self.act(key, message),
            Err(error) => match error.close {
                Some(code) => self.refuse(key, code, error.code, error.detail),
                None if phase != Phase::Live => {
                    self.refuse(key, close::BAD_MESSAGE, "bad_order", "hello comes first");
                }
                None => self.say_error(key, error.code, error.detail, None),
            },
        }
    }

    fn hello(&mut self, key: usize, hello: Hello) {
        let Some(id) = self.id(key) else { return };
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let Some(opening) = &mut connection.opening else {
            return;
        };
        opening.cursor = hello.cursor;
        if let Some(inflight) = hello.inflight {
            opening.inflight = inflight;
        }
        let origin = opening.permit.origin();
        connection.phase = Phase::Greeting;
        let job = Job::Hello {
            session: id,
            token: hello.token,
            state: hello.state,
            origin,
        };
        if self.parts.jobs.try_send(job).is_err() {
            self.refuse(
                key,
                close::TRY_AGAIN,
                "busy",
                "the gateway is busy; try again later",
            );
        }
    }

    pub(super) fn welcome(&mut self, id: SessionId, greeted: Greeted) {
        let Greeted {
            reader,
            page,
            unfinished,
            state,
        } = greeted;
        let greeting = self
            .find(id)
            .filter(|key| self.connections[*key].phase == Phase::Greeting)
            .and_then(|key| Some((key, self.connections[key].opening.take()?)));
        let Some((key, opening)) = greeting else {
            // It left while it was greeted.
            self.parts.hub.unregister(id, &reader, unfinished);
            return;
        };
        let known = opening
            .cursor
            .filter(|place| place.epoch == page.head.epoch && place.reader == page.head.reader);
        let before = match (known, unfinished) {
            (Some(known), Some(unfinished)) if known.covers(&unfinished) => Some(known),
            (known, None) => known,
            (_, unfinished) => unfinished,
        };
        let connection = &mut self.connections[key];
        connection.phase = Phase::Live;
        connection.deadline = 0;
        connection.session = Some(Session::new(
            Arc::clone(&reader),
            page.head,
            opening.inflight,
            before,
        ));
        let encoding = connection.encoding;
        metrics::gauge!("hongyan_gateway_sessions").increment(1.0);
        tracing::debug!(app = %reader.app, device = %reader.device, ?state, "session up");
        self.reports.push(Report {
            reader: Arc::clone(&reader),
            what: What::Up(id),
        });
        let welcome = ServerMessage::Welcome {
            session: &format!("{:016x}", id.0),
            device: reader.device.as_str(),
            head: Place(page.head),
            hb: self.parts.options.heartbeat_ms.div_ceil(1000),
            inflight: opening.inflight,
            replay: if known.is_some() {
                Replay::Resume
            } else {
                Replay::Full
            },
            now: self.parts.clock.now(),
        };
        if let Some(output) = self.output(key) {
            output.frame(|out| outgoing::encode(encoding, &welcome, out));
        }
        self.take_page(id, &reader, Some(Box::new(page)));
        self.arm(key);
    }

    fn act(&mut self, key: usize, message: ClientMessage) {
        let (now, Some(id)) = (self.now, self.id(key)) else {
            return;
        };
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let encoding = connection.encoding;
        let Some(session) = &mut connection.session else {
            return;
        };
        let reader = Arc::clone(session.reader());
        let mut report = |what| {
            self.reports.push(Report {
                reader: Arc::clone(&reader),
                what,
            })
        };
        match message {
            ClientMessage::AckUpto(place) => {
                if let Some(place) = session.ack_upto(place) {
                    report(What::Ack(Ack::Upto(place)));
                    self.queue_pull(key);
                }
            }
            ClientMessage::AckIds(ids) => {
                session.ack_ids(&ids);
                if !ids.is_empty() {
                    report(What::Ack(Ack::Ids(ids)));
                    self.queue_pull(key);
                }
            }
            ClientMessage::Nack {
                id: Some(id),
                retry: true,
            } => {
                let wait = self
                    .parts
                    .options
                    .redeliver_after(1)
                    .unwrap_or(ticks(30_000));
                if session.retry(id, now + wait) {
                    self.arm(key);
                }
            }
            ClientMessage::Nack {
                id: Some(id),
                retry: false,
            } => {
                session.ack_ids(&[id]);
                report(What::Reject(id));
                self.queue_pull(key);
            }
            ClientMessage::Event {
                id: Some(message),
                stage,
                at,
            } => {
                report(What::Client { message, stage, at });
            }
            ClientMessage::Nack { id: None, .. } | ClientMessage::Event { id: None, .. } => {}
            ClientMessage::State(state) => self.parts.hub.set_state(id, &reader, state),
            ClientMessage::Subscribe(topic) => self.follow(key, id, topic, true),
            ClientMessage::Unsubscribe(topic) => self.follow(key, id, topic, false),
            ClientMessage::Ping(n) => {
                let pong = ServerMessage::Pong {
                    n,
                    head: Place(session.head()),
                };
                session.want();
                if let Some(output) = self.output(key) {
                    output.frame(|out| outgoing::encode(encoding, &pong, out));
                }
                self.queue_pull(key);
            }
            ClientMessage::Bye => self.close(key, close::NORMAL, "bye"),
            // Said twice: refused by the caller.
            ClientMessage::Hello(_) => {}
        }
    }

    fn follow(&mut self, key: usize, session: SessionId, topic: Topic, follow: bool) {
        let Some(reader) = self
            .connections
            .get(key)
            .and_then(|c| c.reader().map(Arc::clone))
        else {
            return;
        };
        let job = Job::Topic {
            session,
            reader,
            topic: topic.clone(),
            follow,
        };
        if self.parts.jobs.try_send(job).is_err() {
            self.say_error(
                key,
                "busy",
                "the gateway is busy; try again later",
                Some(&topic),
            );
        }
    }

    pub(super) fn say_topic(
        &mut self,
        session: SessionId,
        topic: &Topic,
        result: Result<(), (&'static str, &'static str)>,
    ) {
        let Some(key) = self.find(session) else {
            return;
        };
        match result {
            Ok(()) => {
                self.say(key, &ServerMessage::SubOk { topic });
                self.want(key);
            }
            Err((code, detail)) => self.say_error(key, code, detail, Some(topic)),
        }
    }

    /// Says something on a live connection.
    pub(super) fn say(&mut self, key: usize, message: &ServerMessage<'_>) {
        let Some(connection) = self.connections.get(key).filter(|c| !c.is_closing()) else {
            return;
        };
        let encoding = connection.encoding;
        if let Some(output) = self.output(key) {
            output.frame(|out| outgoing::encode(encoding, message, out));
        }
    }

    fn say_error(&mut self, key: usize, code: &str, msg: &str, topic: Option<&Topic>) {
        self.say(
            key,
            &ServerMessage::Error {
                code,
                msg,
                fatal: false,
                topic,
            },
        );
    }

    /// Says a fatal error, then closes.
    pub(super) fn refuse(&mut self, key: usize, close: u16, code: &str, detail: &str) {
        let error = ServerMessage::Error {
            code,
            msg: detail,
            fatal: true,
            topic: None,
        };
        self.close_saying(key, close, detail, Some(&error));
    }

    /// What a rebind promises: when this returns, nothing of the former user can leave.
    pub(super) fn rebind(&mut self, id: SessionId, reader: Arc<hongyan_core::port::Reader>) {
        let Some(key) = self.find(id) else { return };
        let connection = &mut self.connections[key];
        if connection.phase == Phase::Greeting {
            self.refuse(
                key,
                close::RESTART,
                "binding_changed",
                "the device's user changed meanwhile; connect again",
            );
            return;
        }
        if connection.session.is_none() {
            return;
        }
        if connection.output.is_some() {
            self.flush_one(key);
        }
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if connection.output.is_some() {
            // Something of the former user is still queued behind a slow reader.
            self.end(key);
            return;
        }
        if let Some(session) = &mut connection.session {
            session.rebind(reader);
        }
        self.queue_pull(key);
    }
}
