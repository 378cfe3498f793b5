//! What a connection hears and answers.

use std::sync::Arc;

use hongyan_core::{SessionId, Topic};

use super::connection::Phase;
use super::{Reactor, frame};
use crate::backend::{Job, Report, What};
use crate::hub::Left;
use crate::mailbox::Greeted;
use crate::options::ticks;
use crate::protocol::websocket::close;
use crate::protocol::websocket::frame::{Incoming, Opcode};
use crate::protocol::{Hello, Input, Kind, Welcome};
use crate::seat::Seat;
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
            Incoming::Text(bytes) => {
                self.speak(key, None, |protocol, desk| {
                    protocol.hear(Input::Text(bytes), desk);
                });
            }
            Incoming::Binary(bytes) => {
                self.speak(key, None, |protocol, desk| {
                    protocol.hear(Input::Binary(bytes), desk);
                });
            }
        }
    }

    /// Asks the store who it is; false when the gateway is busy.
    pub(super) fn hello(&mut self, key: usize, hello: Hello, kind: Kind) -> bool {
        let Some(session) = self.id(key) else {
            return true;
        };
        let Some(connection) = self.connections.get_mut(key) else {
            return true;
        };
        let Some(opening) = &mut connection.opening else {
            return true;
        };
        opening.cursor = hello.cursor;
        if let Some(inflight) = hello.inflight {
            opening.inflight = inflight;
        }
        let origin = opening.permit.origin();
        connection.phase = Phase::Greeting;
        connection.deadline = self.now + ticks(self.parts.options.hello_timeout_ms);
        let job = Job::Hello {
            session,
            proof: hello.proof,
            kind,
            state: hello.state,
            origin,
        };
        self.parts.jobs.try_send(job).is_ok()
    }

    pub(super) fn welcome(&mut self, id: SessionId, greeted: Greeted) {
        let Greeted {
            reader,
            seat,
            page,
            unfinished,
            parked,
            state,
        } = greeted;
        let greeting = self
            .find(id)
            .filter(|key| self.connections[*key].phase == Phase::Greeting)
            .and_then(|key| Some((key, self.connections[key].opening.take()?)));
        let Some((key, opening)) = greeting else {
            // It left while it was greeted.
            let left = Left {
                unfinished,
                parked,
                ..Left::default()
            };
            self.parts.hub.unregister(id, &seat, left);
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
        let seat = self.parts.hub.move_seat(id, &seat);
        let connection = &mut self.connections[key];
        connection.phase = Phase::Live;
        connection.deadline = 0;
        connection.session = Some(Session::new(
            seat.clone(),
            page.head,
            opening.inflight,
            before,
        ));
        if let (true, Some(session)) = (opening.wanted, &mut connection.session) {
            session.want();
        }
        metrics::gauge!("hongyan_gateway_sessions").increment(1.0);
        tracing::debug!(app = %reader.app, device = %reader.device, ?state, "session up");
        self.reports.push(Report {
            seat: seat.clone(),
            what: What::Up(id),
        });
        let welcome = Welcome {
            session: id,
            reader: &reader,
            head: page.head,
            resumed: known.is_some(),
            inflight: opening.inflight,
        };
        let parked = parked.map(|(_, parked)| parked);
        self.speak(key, parked, |protocol, desk| {
            protocol.welcome(&welcome, desk);
        });
        self.take_page(id, &seat, Some(Box::new(page)));
        self.resubscribe_greeted(id);
        self.arm(key);
    }

    pub(super) fn say_topic(
        &mut self,
        session: SessionId,
        topic: &Topic,
        result: Result<(), (&'static str, &'static str)>,
    ) {
        let live = |key: &usize| !self.connections[*key].is_closing();
        if let Some(key) = self.find(session).filter(live) {
            self.speak(key, None, |protocol, desk| {
                protocol.followed(topic, result, desk);
            });
        }
    }

    /// What a rebind promises: when this returns, nothing of the former user can leave.
    pub(super) fn rebind(&mut self, id: SessionId, seat: Seat) {
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
            session.rebind(seat.clone());
        }
        let reader = Arc::new(seat.reader());
        self.speak(key, None, |protocol, desk| protocol.rebound(&reader, desk));
        self.queue_pull(key);
    }
}
