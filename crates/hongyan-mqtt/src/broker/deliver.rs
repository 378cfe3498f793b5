//! Messages to clients: what waits, what is under way, what is done.

use std::sync::Arc;
use std::time::Duration;

use super::connection::Connection;
use super::message::Copy;
use super::session::{Flight, FlightState};
use super::{Broker, ConnectionId, SessionId};
use crate::packet::{Ack, Packet, Property, PropertyList, Publish, QoS, ReasonCode, Version};

impl Broker {
    /// Puts a message into a session's queue, unless it is full, and sends what may be sent.
    pub(super) fn enqueue(&mut self, now: Duration, id: SessionId, copy: Copy) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        if session.connection.is_none() && copy.qos == QoS::AtMostOnce {
            return;
        }
        let cost = copy.cost();
        let options = &self.options;
        if session.queue.len() >= options.queue_messages_max
            || session.queue_bytes + cost > options.queue_bytes_max
            || self.queued_bytes + cost > options.queue_bytes_total_max
        {
            self.dropped += 1;
            return;
        }
        session.queue_bytes += cost;
        self.queued_bytes += cost;
        session.queue.push_back(copy);
        self.pump(now, id);
    }

    pub(super) fn pump_connection(&mut self, now: Duration, id: ConnectionId) {
        if let Some(session) = self.connections.get(&id).and_then(|it| it.session) {
            self.pump(now, session);
        }
    }

    /// Sends what was not acknowledged before the connection, then what waits, in order, as far as the
    /// client's receive maximum [3.3.4-9] and the room in its output allow.
    pub(super) fn pump(&mut self, now: Duration, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let Some(connection_id) = session.connection else {
            return;
        };
        let Some(connection) = self.connections.get_mut(&connection_id) else {
            return;
        };
        let Some(version) = connection.version else {
            return;
        };
        let before = connection.output.len();
        let mut freed = 0;
        // Each turn sends something, moves something out of the queue, or ends.
        while !connection.closing && connection.output.len() < self.options.output_bytes {
            let most = connection.receive_max;
            if let Some(flight) = session.flights.get_mut(session.sent) {
                if session.sent >= most {
                    break;
                }
                let fits = match &mut flight.state {
                    FlightState::Released => {
                        let ack = Ack::new(flight.packet_id, ReasonCode::SUCCESS);
                        let pubrel = Packet::PubRel(ack);
                        pubrel.encode(version, &mut connection.output).is_ok()
                    }
                    FlightState::Message(copy, sent) => {
                        let dup = std::mem::replace(sent, true);
                        put(connection, version, now, copy, flight.packet_id, dup)
                    }
                };
                if fits {
                    session.sent += 1;
                } else if let Some(Flight {
                    state: FlightState::Message(copy, _),
                    ..
                }) = session.flights.remove(session.sent)
                {
                    // Too large for this client: as if it had been delivered [3.1.2-25].
                    freed += copy.cost();
                }
                continue;
            }
            let Some(next) = session.queue.front() else {
                break;
            };
            if next.message.is_expired(now) {
                freed += next.cost();
                session.queue.pop_front();
                continue;
            }
            if next.qos == QoS::AtMostOnce {
                freed += next.cost();
                put(connection, version, now, next, 0, false);
                session.queue.pop_front();
                continue;
            }
            if session.flights.len() >= most {
                break;
            }
            let Some(copy) = session.queue.pop_front() else {
                break;
            };
            let packet_id = session.next_packet_id();
            session.flights.push_back(Flight {
                packet_id,
                state: FlightState::Message(copy, false),
            });
        }
        session.queue_bytes = session.queue_bytes.saturating_sub(freed);
        self.queued_bytes = self.queued_bytes.saturating_sub(freed);
        if connection.output.len() > before {
            self.wake(connection_id);
        }
    }

    pub(super) fn on_puback(&mut self, now: Duration, id: SessionId, packet_id: u16) {
        self.land(
            now,
            id,
            packet_id,
            |state| matches!(state, FlightState::Message(copy, _) if copy.qos == QoS::AtLeastOnce),
        );
    }

    pub(super) fn on_pubcomp(&mut self, now: Duration, id: SessionId, packet_id: u16) {
        self.land(now, id, packet_id, |state| {
            matches!(state, FlightState::Released)
        });
    }

    pub(super) fn on_pubrec(
        &mut self,
        now: Duration,
        connection: ConnectionId,
        id: SessionId,
        ack: &Ack<'_>,
    ) {
        let is_message = |state: &FlightState| matches!(state, FlightState::Message(copy, _) if copy.qos == QoS::ExactlyOnce);
        if ack.reason.is_error() {
            self.land(now, id, ack.packet_id, is_message);
            return;
        }
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let flight = session.flights.iter_mut().find(|flight| {
            flight.packet_id == ack.packet_id
                && (is_message(&flight.state) || matches!(flight.state, FlightState::Released))
        });
        let reason = match flight {
            Some(flight) => {
                // From here on the message itself is not needed any more [4.3.3-3].
                let before = std::mem::replace(&mut flight.state, FlightState::Released);
                if let FlightState::Message(copy, _) = before {
                    let cost = copy.cost();
                    session.queue_bytes = session.queue_bytes.saturating_sub(cost);
                    self.queued_bytes = self.queued_bytes.saturating_sub(cost);
                }
                ReasonCode::SUCCESS
            }
            None => ReasonCode::PACKET_ID_NOT_FOUND,
        };
        let ack = Ack::new(ack.packet_id, reason);
        self.send(connection, &Packet::PubRel(ack));
    }

    /// A message is done with, if it is under way in such a state. Whatever else is acknowledged is ignored.
    fn land(
        &mut self,
        now: Duration,
        id: SessionId,
        packet_id: u16,
        is_so: impl Fn(&FlightState) -> bool,
    ) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let place = session
            .flights
            .iter()
            .position(|flight| flight.packet_id == packet_id && is_so(&flight.state));
        let Some(place) = place else { return };
        if let Some(Flight {
            state: FlightState::Message(copy, _),
            ..
        }) = session.flights.remove(place)
        {
            let cost = copy.cost();
            session.queue_bytes = session.queue_bytes.saturating_sub(cost);
            self.queued_bytes = self.queued_bytes.saturating_sub(cost);
        }
        if place < session.sent {
            session.sent -= 1;
        }
        self.pump(now, id);
    }
}

/// Appends a message to a connection's output; false when the client takes no packet as large [3.1.2-24].
fn put(
    connection: &mut Connection,
    version: Version,
    now: Duration,
    copy: &Copy,
    packet_id: u16,
    dup: bool,
) -> bool {
    let message = &copy.message;
    let mut properties = PropertyList::new();
    let (mut topic, mut new_alias) = (&*message.topic, None);
    if version == Version::V5 {
        properties.append(message.properties.as_properties());
        let expiry = message.expiry_left(now).map(Property::MessageExpiry);
        let known = connection.aliases_out.get(&message.topic).copied();
        if known.is_some() {
            topic = "";
        } else if connection.aliases_out.len() < connection.alias_out_max {
            new_alias = u16::try_from(connection.aliases_out.len() + 1).ok();
        }
        let alias = known.or(new_alias).map(Property::TopicAlias);
        let subscriptions = copy.subscriptions.iter().copied();
        let subscriptions = subscriptions.map(Property::SubscriptionId);
        properties.extend(expiry.into_iter().chain(alias).chain(subscriptions));
    }
    let packet = Packet::Publish(Publish {
        dup,
        qos: copy.qos,
        retain: copy.retain,
        topic,
        packet_id,
        properties: properties.as_properties(),
        payload: &message.payload,
    });
    let fits = packet.encoded_len(version) <= connection.packet_max
        && packet.encode(version, &mut connection.output).is_ok();
    if let Some(alias) = new_alias
        && fits
    {
        connection
            .aliases_out
            .insert(Arc::clone(&message.topic), alias);
    }
    fits
}
