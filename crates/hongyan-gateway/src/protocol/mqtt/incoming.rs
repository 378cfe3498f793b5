//! PUBLISH of a client: what a device says about its inbox, and what an app's server sends to a topic.

use std::sync::Arc;

use hongyan_core::{MessageId, Topic};
use hongyan_mqtt::packet::{Ack, Packet, Publish as Publication, QoS, ReasonCode};

use super::{ALIASES_MAX, Client, PublishError, RECEIVE_MAX, Stage};
use crate::protocol::Desk;
use crate::protocol::hongyan::Encoding;
use crate::protocol::hongyan::incoming::{self, ClientMessage};

/// Publications to foreign topics after which a 3.1.1 client, which cannot be told, is closed [3.3.5-2].
const FOREIGN_MAX: u8 = 10;
/// Longest topic name, bytes and levels.
const TOPIC_BYTES_MAX: usize = 512;
const TOPIC_LEVELS_MAX: usize = 16;

/// An answer of the intake to a publication.
pub(super) struct Published {
    packet_id: u16,
    result: Result<MessageId, PublishError>,
}

impl Client {
    pub(super) fn published(&mut self, publication: &Publication<'_>, desk: &mut Desk<'_>) {
        self.heard(desk);
        if publication.retain && self.is_v5() {
            self.fail(ReasonCode::RETAIN_NOT_SUPPORTED, "bad_publish", desk);
            return;
        }
        if publication.qos == QoS::ExactlyOnce {
            self.fail(ReasonCode::QOS_NOT_SUPPORTED, "bad_publish", desk);
            return;
        }
        let topic = match self.real_topic(publication) {
            Ok(topic) => topic,
            Err(reason) => {
                self.fail(reason, "bad_topic", desk);
                return;
            }
        };
        let reason = match (self.stage, topic.as_ref()) {
            (Stage::Server, topic) => match topic.strip_prefix("hy/t/").map(Topic::parse) {
                Some(Ok(topic)) => {
                    self.publish(topic, publication, desk);
                    return;
                }
                Some(Err(_)) => ReasonCode::TOPIC_NAME_INVALID,
                None => ReasonCode::NOT_AUTHORIZED,
            },
            (_, "hy/me/ack") => self.client_message("ack", publication.payload, desk),
            (_, "hy/me/event") => self.client_message("event", publication.payload, desk),
            (_, "hy/me/status") => ReasonCode::SUCCESS,
            _ => ReasonCode::NOT_AUTHORIZED,
        };
        if reason == ReasonCode::NOT_AUTHORIZED && !self.is_v5() {
            self.foreign += 1;
            if self.foreign >= FOREIGN_MAX {
                self.fail(reason, "foreign_topic", desk);
                return;
            }
        }
        self.puback_with(publication.packet_id, reason, desk);
    }

    pub(super) fn puback_with(&self, packet_id: u16, reason: ReasonCode, desk: &mut Desk<'_>) {
        if packet_id != 0 {
            self.say(&Packet::PubAck(Ack::new(packet_id, reason)), desk);
        }
    }

    /// The topic that is meant, by name or alias.
    pub(super) fn real_topic(
        &mut self,
        publication: &Publication<'_>,
    ) -> Result<Box<str>, ReasonCode> {
        let topic = publication.topic;
        if topic.len() > TOPIC_BYTES_MAX || topic.split('/').count() > TOPIC_LEVELS_MAX {
            return Err(ReasonCode::TOPIC_NAME_INVALID);
        }
        let Some(alias) = publication.properties.topic_alias() else {
            return Ok(topic.into());
        };
        if alias == 0 || alias > ALIASES_MAX {
            return Err(ReasonCode::TOPIC_ALIAS_INVALID);
        }
        let aliases = &mut self.rare.get_or_insert_default().aliases;
        if !topic.is_empty() {
            aliases.retain(|(known, _)| *known != alias);
            aliases.push((alias, topic.into()));
        }
        let known = aliases.iter().find(|(known, _)| *known == alias);
        known
            .map(|(_, topic)| topic.clone())
            .ok_or(ReasonCode::PROTOCOL_ERROR)
    }

    /// A client message as it is said over WebSocket, without its type.
    pub(super) fn client_message(
        &mut self,
        t: &str,
        payload: &[u8],
        desk: &mut Desk<'_>,
    ) -> ReasonCode {
        let Some(rest) = payload.trim_ascii_start().strip_prefix(b"{") else {
            return ReasonCode::PAYLOAD_FORMAT_INVALID;
        };
        let mut whole = format!("{{\"t\":\"{t}\",").into_bytes();
        whole.extend_from_slice(rest);
        match incoming::parse(Encoding::Json, &whole) {
            Ok(ClientMessage::AckUpto(place)) => desk.ack_upto(place),
            Ok(ClientMessage::AckIds(ids)) => {
                self.flights.retire(&ids);
                desk.ack_each(ids);
            }
            Ok(ClientMessage::Event {
                id: Some(message),
                stage,
                at,
            }) => desk.event(message, stage, at),
            Ok(ClientMessage::Event { id: None, .. }) => {}
            _ => return ReasonCode::PAYLOAD_FORMAT_INVALID,
        }
        ReasonCode::SUCCESS
    }

    /// A server publishes to a topic of its app.
    pub(super) fn publish(
        &mut self,
        topic: Topic,
        publication: &Publication<'_>,
        desk: &mut Desk<'_>,
    ) {
        let Some(app) = self.app.as_deref().cloned() else {
            return;
        };
        if self.pending >= RECEIVE_MAX {
            self.fail(ReasonCode::RECEIVE_MAXIMUM_EXCEEDED, "too_many", desk);
            return;
        }
        let packet_id = publication.packet_id;
        let ttl_s = publication.properties.message_expiry();
        let payload = publication.payload.to_vec();
        let publisher = Arc::clone(&self.server.publisher);
        let asked = desk.ask(move |_| async move {
            let result = publisher.publish(&app, topic, &payload, ttl_s).await;
            Published { packet_id, result }
        });
        if asked {
            self.pending += 1;
        } else {
            self.puback_with(packet_id, ReasonCode::QUOTA_EXCEEDED, desk);
        }
    }

    pub(super) fn publish_done(&mut self, done: Published, desk: &mut Desk<'_>) {
        self.pending = self.pending.saturating_sub(1);
        match done.result {
            Ok(_) => self.puback_with(done.packet_id, ReasonCode::SUCCESS, desk),
            Err(PublishError::Invalid(why)) => {
                tracing::debug!(%why, "a publication over MQTT is no message");
                if self.is_v5() {
                    self.puback_with(done.packet_id, ReasonCode::PAYLOAD_FORMAT_INVALID, desk);
                } else {
                    self.fail(ReasonCode::PAYLOAD_FORMAT_INVALID, "bad_publish", desk);
                }
            }
            // Unacknowledged: the client sends it again when it comes back [4.4.0-1].
            Err(PublishError::Store(error)) => {
                tracing::warn!(%error, "a publication over MQTT was not stored");
                self.fail(ReasonCode::SERVER_BUSY, "unavailable", desk);
            }
        }
    }
}
