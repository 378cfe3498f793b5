//! One connection: bytes to packets, silence, and the end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Broker, ConnectionId, Options, SessionId, Timer};
use crate::packet::{
    Auth, DecodeError, Disconnect, Packet, Property, PropertyList, ReasonCode, Sender, Version,
    decode,
};

/// How a connection ended, for its will.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// With a goodbye: the will is forgotten [3.1.2-10].
    Normal,
    /// In any other way.
    Lost,
}

#[derive(Debug)]
pub(super) struct Connection {
    /// `None` until its CONNECT was accepted.
    pub(super) version: Option<Version>,
    pub(super) session: Option<SessionId>,
    /// What was received and is not a whole packet, or must wait until output was taken.
    pub(super) input: Vec<u8>,
    pub(super) output: Vec<u8>,
    pub(super) closing: bool,
    pub(super) woken: bool,
    /// When the last packet came.
    pub(super) heard: Duration,
    /// How long it may be silent.
    pub(super) silence: Duration,
    /// When its timer is set for.
    pub(super) due: Duration,
    /// What the client takes under way at once, already within our own bound.
    pub(super) receive_max: usize,
    /// What the client takes as one packet, bytes.
    pub(super) packet_max: usize,
    /// Topic aliases of the client's messages, at alias - 1.
    pub(super) aliases_in: Vec<Option<Arc<str>>>,
    pub(super) aliases_out: HashMap<Arc<str>, u16>,
    pub(super) alias_out_max: usize,
    /// Whether reason strings are welcome.
    pub(super) problem_info: bool,
    /// When the packets so far would have come at the allowed rate.
    pub(super) paid_until: Duration,
}

impl Connection {
    pub(super) fn new(now: Duration, due: Duration, options: &Options) -> Self {
        Self {
            version: None,
            session: None,
            input: Vec::new(),
            output: Vec::new(),
            closing: false,
            woken: false,
            heard: now,
            silence: options.connect_timeout,
            due,
            receive_max: 0,
            packet_max: usize::MAX,
            aliases_in: Vec::new(),
            aliases_out: HashMap::new(),
            alias_out_max: 0,
            problem_info: true,
            paid_until: now,
        }
    }
}

impl Broker {
    /// Takes bytes and does what the packets in them ask for, as long as there is room for the answers.
    pub(super) fn read(&mut self, now: Duration, id: ConnectionId, bytes: &[u8]) {
        let limits = self.options.limits;
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let mut held = std::mem::take(&mut connection.input);
        if !held.is_empty() {
            held.extend_from_slice(bytes);
        }
        let received = if held.is_empty() { bytes } else { &held };
        let mut at = 0;
        loop {
            let Some(connection) = self.connections.get(&id) else {
                return;
            };
            if connection.closing {
                return;
            }
            if connection.output.len() >= self.options.output_bytes {
                break;
            }
            let rest = received.get(at..).unwrap_or_default();
            match decode(rest, Sender::Client, connection.version, &limits) {
                Ok(None) => break,
                Ok(Some((packet, used))) => {
                    at += used;
                    self.packet(now, id, &packet);
                }
                Err(error) => {
                    self.refuse_bytes(now, id, error);
                    return;
                }
            }
        }
        let left = if held.is_empty() {
            bytes.get(at..).unwrap_or_default().to_vec()
        } else {
            held.drain(..at);
            held
        };
        if let Some(connection) = self.connections.get_mut(&id)
            && !left.is_empty()
        {
            connection.input = left;
        }
    }

    fn refuse_bytes(&mut self, now: Duration, id: ConnectionId, error: DecodeError) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        if connection.version.is_some() {
            self.fail(now, id, error.reason, error.what);
        } else {
            error.answer_connect(&mut connection.output);
            connection.closing = true;
            self.wake(id);
        }
    }

    fn packet(&mut self, now: Duration, id: ConnectionId, packet: &Packet<'_>) {
        if !self.pay(now, id) {
            let too_many = ReasonCode::MESSAGE_RATE_TOO_HIGH;
            self.fail(now, id, too_many, "too many packets in a second");
            return;
        }
        if let Packet::Connect(connect) = packet {
            self.connect(now, id, connect);
            return;
        }
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        connection.heard = now;
        let (Some(version), Some(session)) = (connection.version, connection.session) else {
            return;
        };
        match packet {
            Packet::Publish(publish) => self.on_publish(now, id, session, version, publish),
            Packet::PubAck(ack) => self.on_puback(now, session, ack.packet_id),
            Packet::PubRec(ack) => self.on_pubrec(now, id, session, ack),
            Packet::PubRel(ack) => self.on_pubrel(id, session, ack.packet_id),
            Packet::PubComp(ack) => self.on_pubcomp(now, session, ack.packet_id),
            Packet::Subscribe(subscribe) => self.on_subscribe(now, id, session, subscribe),
            Packet::Unsubscribe(unsubscribe) => self.on_unsubscribe(id, session, unsubscribe),
            Packet::PingReq => {
                self.send(id, &Packet::PingResp);
            }
            Packet::Disconnect(disconnect) => self.on_disconnect(now, id, session, disconnect),
            // No connection has an authentication method, so none may send this [4.12.0-6].
            Packet::Auth(Auth { .. }) => {
                let reason = ReasonCode::PROTOCOL_ERROR;
                self.fail(now, id, reason, "there is no authentication under way");
            }
            // The decoder takes these from servers alone, and CONNECT only before.
            Packet::Connect(_)
            | Packet::ConnAck(_)
            | Packet::SubAck(_)
            | Packet::UnsubAck(_)
            | Packet::PingResp => {
                let reason = ReasonCode::PROTOCOL_ERROR;
                self.fail(now, id, reason, "the other side may not send this");
            }
        }
    }

    /// Counts a packet; false when there are too many.
    fn pay(&mut self, now: Duration, id: ConnectionId) -> bool {
        let each = Duration::from_secs(1) / self.options.packets_per_s.max(1);
        let burst = each * self.options.packets_burst.max(1);
        self.connections.get_mut(&id).is_some_and(|connection| {
            connection.paid_until = connection.paid_until.max(now) + each;
            connection.paid_until <= now + burst
        })
    }

    /// Appends a packet to a connection's output. False when it may not be sent because the client takes
    /// no packet as large [3.1.2-24].
    pub(super) fn send(&mut self, id: ConnectionId, packet: &Packet<'_>) -> bool {
        let Some(connection) = self.connections.get_mut(&id) else {
            return false;
        };
        let Some(version) = connection.version else {
            return false;
        };
        let sent = packet.encoded_len(version) <= connection.packet_max
            && packet.encode(version, &mut connection.output).is_ok();
        self.wake(id);
        sent
    }

    /// Ends a connection for a reason, which a 5.0 client is told.
    pub(super) fn fail(
        &mut self,
        now: Duration,
        id: ConnectionId,
        reason: ReasonCode,
        what: &'static str,
    ) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        if connection.closing {
            return;
        }
        if connection.version == Some(Version::V5) {
            let mut properties = PropertyList::new();
            let told = connection.problem_info
                && properties.push(Property::ReasonString(what)).is_ok()
                && self.send(
                    id,
                    &Packet::Disconnect(Disconnect {
                        reason,
                        properties: properties.as_properties(),
                    }),
                );
            if !told {
                self.send(id, &Packet::Disconnect(Disconnect::new(reason)));
            }
        }
        self.close(now, id, End::Lost);
    }

    /// Ends a connection; what waits in its output is still written.
    pub(super) fn close(&mut self, now: Duration, id: ConnectionId, end: End) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.closing = true;
            connection.input = Vec::new();
        }
        self.wake(id);
        self.detach(now, id, end);
    }

    /// Parts a connection from its session: the will is published or waits, the session ends or waits.
    pub(super) fn detach(&mut self, now: Duration, id: ConnectionId, end: End) {
        let taken = self
            .connections
            .get_mut(&id)
            .and_then(|connection| connection.session.take());
        let Some(session_id) = taken else { return };
        let Some(session) = self.sessions.get_mut(&session_id) else {
            return;
        };
        session.connection = None;
        session.sent = 0;
        if end == End::Normal {
            session.will = None;
        }
        if session.expiry.is_zero() {
            self.end_session(now, session_id);
            return;
        }
        session.ends = Some(now + session.expiry);
        let delay = session.will.as_ref().map(|will| will.delay);
        match delay {
            Some(Duration::ZERO) => self.publish_will(now, session_id),
            Some(delay) => session.will_due = Some(now + delay),
            None => {}
        }
        self.arm_session(session_id);
    }

    pub(super) fn connection_due(&mut self, now: Duration, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        if connection.closing {
            return;
        }
        let due = connection.heard + connection.silence;
        if due <= now {
            let reason = ReasonCode::KEEP_ALIVE_TIMEOUT;
            self.fail(now, id, reason, "nothing came for too long");
        } else {
            self.arm_connection(id, due);
        }
    }

    pub(super) fn arm_connection(&mut self, id: ConnectionId, due: Duration) {
        if let Some(connection) = self.connections.get_mut(&id) {
            let before = std::mem::replace(&mut connection.due, due);
            self.timers.remove(&(before, Timer::Connection(id)));
            self.timers.insert((due, Timer::Connection(id)));
        }
    }

    fn on_disconnect(
        &mut self,
        now: Duration,
        id: ConnectionId,
        session: SessionId,
        disconnect: &Disconnect<'_>,
    ) {
        if let Some(seconds) = disconnect.properties.session_expiry()
            && let Some(session) = self.sessions.get_mut(&session)
        {
            // [3.14.2-2]: a session that was to end cannot be kept any more.
            if session.expiry.is_zero() && seconds > 0 {
                let reason = ReasonCode::PROTOCOL_ERROR;
                self.fail(now, id, reason, "a session that ends cannot be kept");
                return;
            }
            session.expiry =
                Duration::from_secs(seconds.into()).min(self.options.session_expiry_max);
        }
        // [3.14.4-3]: only a plain goodbye forgets the will.
        let end = match disconnect.reason {
            ReasonCode::NORMAL_DISCONNECTION => End::Normal,
            _ => End::Lost,
        };
        self.close(now, id, end);
    }
}
