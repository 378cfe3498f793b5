//! What is kept for a client, with or without a connection.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::message::{Copy, Message};
use super::{Broker, ConnectionId, SessionId, Timer};
use crate::packet::QoS;

/// A QoS 1 or 2 message under way to a client.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) packet_id: u16,
    pub(super) state: FlightState,
}

#[derive(Debug)]
pub(super) enum FlightState {
    /// Sent, or to be sent again, and not acknowledged. True when it was sent at least once.
    Message(Copy, bool),
    /// Received by the client; PUBREL was sent and waits for PUBCOMP.
    Released,
}

/// A will that may have to be published.
#[derive(Debug)]
pub(super) struct Will {
    pub(super) topic: Arc<str>,
    pub(super) payload: Box<[u8]>,
    pub(super) properties: crate::packet::PropertyList,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) delay: Duration,
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) client_id: Arc<str>,
    pub(super) connection: Option<ConnectionId>,
    /// How long it outlives its connection.
    pub(super) expiry: Duration,
    /// When it ends, while it has no connection.
    pub(super) ends: Option<Duration>,
    pub(super) subscriptions: HashSet<Box<str>>,
    /// In the order in which they were first sent [4.6.0-1].
    pub(super) flights: VecDeque<Flight>,
    /// How many of the first of them were sent in this connection.
    pub(super) sent: usize,
    pub(super) queue: VecDeque<Copy>,
    /// What queue and flights count against limits.
    pub(super) queue_bytes: usize,
    /// QoS 2 messages from the client that it has not released [4.3.3-10].
    pub(super) receiving: HashSet<u16>,
    pub(super) last_id: u16,
    pub(super) will: Option<Will>,
    pub(super) will_due: Option<Duration>,
    /// When its timer is set for.
    pub(super) due: Option<Duration>,
}

impl Session {
    pub(super) fn new(client_id: Arc<str>) -> Self {
        Self {
            client_id,
            connection: None,
            expiry: Duration::ZERO,
            ends: None,
            subscriptions: HashSet::new(),
            flights: VecDeque::new(),
            sent: 0,
            queue: VecDeque::new(),
            queue_bytes: 0,
            receiving: HashSet::new(),
            last_id: 0,
            will: None,
            will_due: None,
            due: None,
        }
    }

    /// The next packet identifier that is not in use; there always is one, since flights are bounded far
    /// below 65,535 [2.2.1-3].
    pub(super) fn next_packet_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            let id = self.last_id;
            if !self.flights.iter().any(|flight| flight.packet_id == id) {
                return id;
            }
        }
    }
}

impl Broker {
    /// Sets or moves the timer of a session without a connection.
    pub(super) fn arm_session(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let due = match (session.ends, session.will_due) {
            (Some(ends), Some(will)) => Some(ends.min(will)),
            (ends, will) => ends.or(will),
        };
        let before = std::mem::replace(&mut session.due, due);
        if before != due {
            if let Some(before) = before {
                self.timers.remove(&(before, Timer::Session(id)));
            }
            if let Some(due) = due {
                self.timers.insert((due, Timer::Session(id)));
            }
        }
    }

    pub(super) fn session_due(&mut self, now: Duration, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        session.due = None;
        if session.ends.is_some_and(|ends| ends <= now) {
            self.end_session(now, id);
            return;
        }
        if session.will_due.is_some_and(|due| due <= now) {
            session.will_due = None;
            self.publish_will(now, id);
        }
        self.arm_session(id);
    }

    /// Publishes a session's will, if it has one, and forgets it [3.1.2-8], [3.1.2-10].
    pub(super) fn publish_will(&mut self, now: Duration, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let Some(will) = session.will.take() else {
            return;
        };
        let message = Message::new(
            now,
            will.topic,
            will.qos,
            &will.payload,
            &will.properties.as_properties(),
            Arc::clone(&session.client_id),
        );
        // A full set of retained messages loses the will's place in it: nobody is there to be told.
        let _ = self.publish(now, &Arc::new(message), will.retain);
    }

    /// Ends a session and forgets everything that it had. A will that still waits is published first: its
    /// delay ends with the session [3.1.3-9].
    pub(super) fn end_session(&mut self, now: Duration, id: SessionId) {
        self.publish_will(now, id);
        let Some(session) = self.sessions.remove(&id) else {
            return;
        };
        self.by_client.remove(&session.client_id);
        self.queued_bytes = self.queued_bytes.saturating_sub(session.queue_bytes);
        if let Some(due) = session.due {
            self.timers.remove(&(due, Timer::Session(id)));
        }
        for filter in &session.subscriptions {
            self.remove_subscription(id, filter);
        }
    }
}
