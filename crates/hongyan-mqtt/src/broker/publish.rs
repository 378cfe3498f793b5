//! Messages from clients, and to whom they go.

use std::sync::Arc;
use std::time::Duration;

use super::message::{Copy, Message};
use super::subscribers::{Subscribers, Wanted};
use super::{Broker, ConnectionId, SessionId, Timer};
use crate::packet::{Ack, Packet, Publish, QoS, ReasonCode, Version};
use crate::topic;

/// How often retained messages are looked through for expired ones.
const SWEEP: Duration = Duration::from_secs(60);

/// QoS 2 messages that a 3.1.1 client may leave without release; it cannot be told of a smaller number.
const RECEIVING_MAX: usize = 1_000;

/// Whether the topic is the server's own.
pub(super) fn is_reserved(name: &str) -> bool {
    ["$SYS", "$share"].iter().any(|own| {
        name.strip_prefix(own)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

impl Broker {
    pub(super) fn on_publish(
        &mut self,
        now: Duration,
        id: ConnectionId,
        session_id: SessionId,
        version: Version,
        publish: &Publish<'_>,
    ) {
        let Some(topic) = self.resolve_topic(now, id, publish) else {
            return;
        };
        let Some(session) = self.sessions.get_mut(&session_id) else {
            return;
        };
        match publish.qos {
            QoS::ExactlyOnce => {
                // Sent again: it was published before [4.3.3-10].
                if session.receiving.contains(&publish.packet_id) {
                    let ack = Ack::new(publish.packet_id, ReasonCode::SUCCESS);
                    self.send(id, &Packet::PubRec(ack));
                    return;
                }
                let most = match version {
                    Version::V5 => self.options.receive_max.into(),
                    Version::V311 => RECEIVING_MAX,
                };
                if session.receiving.len() >= most {
                    let reason = ReasonCode::RECEIVE_MAXIMUM_EXCEEDED;
                    self.fail(now, id, reason, "too many messages are not released");
                    return;
                }
            }
            QoS::AtLeastOnce if session.receiving.contains(&publish.packet_id) => {
                let reason = ReasonCode::PACKET_ID_IN_USE;
                self.acknowledge(id, session_id, publish, reason);
                return;
            }
            QoS::AtLeastOnce | QoS::AtMostOnce => {}
        }
        let client_id = Arc::clone(&session.client_id);
        let reason = match judge(&topic, publish) {
            Err(reason) => reason,
            Ok(()) => {
                let message = Arc::new(Message::new(
                    now,
                    topic,
                    publish.qos,
                    publish.payload,
                    &publish.properties,
                    client_id,
                ));
                let mut published = self.publish(now, &message, publish.retain);
                if published.is_err() && version == Version::V311 {
                    // It cannot be told, so it gets as much as there is.
                    published = self.publish(now, &message, false);
                }
                match published {
                    Ok(true) => ReasonCode::SUCCESS,
                    Ok(false) => ReasonCode::NO_MATCHING_SUBSCRIBERS,
                    Err(reason) => reason,
                }
            }
        };
        self.acknowledge(id, session_id, publish, reason);
    }

    /// The topic of a message, by its name or its alias; `None` when the connection ended over it.
    fn resolve_topic(
        &mut self,
        now: Duration,
        id: ConnectionId,
        publish: &Publish<'_>,
    ) -> Option<Arc<str>> {
        let Some(alias) = publish.properties.topic_alias() else {
            return Some(publish.topic.into());
        };
        if alias > self.options.topic_alias_max {
            let reason = ReasonCode::TOPIC_ALIAS_INVALID;
            self.fail(now, id, reason, "the topic alias is above the maximum");
            return None;
        }
        let place = usize::from(alias.saturating_sub(1));
        let aliases = &mut self.connections.get_mut(&id)?.aliases_in;
        if publish.topic.is_empty() {
            let known = aliases.get(place).cloned().flatten();
            if known.is_none() {
                let reason = ReasonCode::PROTOCOL_ERROR;
                self.fail(now, id, reason, "the topic alias stands for nothing");
            }
            return known;
        }
        let topic: Arc<str> = publish.topic.into();
        // Too long a topic is refused and not kept.
        if topic::is_within_limits(&topic) {
            if aliases.len() <= place {
                aliases.resize(place + 1, None);
            }
            if let Some(known) = aliases.get_mut(place) {
                *known = Some(Arc::clone(&topic));
            }
        }
        Some(topic)
    }

    /// Answers a message as its QoS asks for. 3.1.1 has no word for a refusal: it is acknowledged all the
    /// same [3.1.1 3.3.5-2].
    fn acknowledge(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        publish: &Publish<'_>,
        reason: ReasonCode,
    ) {
        let ack = Ack::new(publish.packet_id, reason);
        match publish.qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => {
                self.send(id, &Packet::PubAck(ack));
            }
            QoS::ExactlyOnce => {
                let version = self.connections.get(&id).and_then(|it| it.version);
                // A refused message is over with its PUBREC [4.3.3-9]; 3.1.1 goes on with it.
                if (!reason.is_error() || version == Some(Version::V311))
                    && let Some(session) = self.sessions.get_mut(&session)
                {
                    session.receiving.insert(publish.packet_id);
                }
                self.send(id, &Packet::PubRec(ack));
            }
        }
    }

    pub(super) fn on_pubrel(&mut self, id: ConnectionId, session: SessionId, packet_id: u16) {
        let known = self
            .sessions
            .get_mut(&session)
            .is_some_and(|session| session.receiving.remove(&packet_id));
        let reason = match known {
            true => ReasonCode::SUCCESS,
            false => ReasonCode::PACKET_ID_NOT_FOUND,
        };
        self.send(id, &Packet::PubComp(Ack::new(packet_id, reason)));
    }

    /// Retains a message, when asked to, and gives it to everybody who subscribed to it. True when somebody did.
    ///
    /// # Errors
    /// [`ReasonCode::QUOTA_EXCEEDED`] when it cannot be retained; nobody got it then.
    pub(super) fn publish(
        &mut self,
        now: Duration,
        message: &Arc<Message>,
        retain: bool,
    ) -> Result<bool, ReasonCode> {
        if retain {
            self.retain(now, message)?;
        }
        let copies = self.copies(message, retain);
        let matched = !copies.is_empty();
        for (session, copy) in copies {
            self.enqueue(now, session, copy);
        }
        Ok(matched)
    }

    /// Keeps a message as the last of its topic; an empty one takes the last away [3.3.1-5], [3.3.1-6].
    fn retain(&mut self, now: Duration, message: &Arc<Message>) -> Result<(), ReasonCode> {
        let before = self
            .retained
            .get(&message.topic)
            .map(|before| before.cost());
        if message.payload.is_empty() {
            self.retained.remove(&message.topic);
            self.retained_bytes -= before.unwrap_or(0);
            return Ok(());
        }
        let bytes = self.retained_bytes - before.unwrap_or(0) + message.cost();
        let is_full = before.is_none() && self.retained.len() >= self.options.retained_max;
        if is_full || bytes > self.options.retained_bytes_max {
            return Err(ReasonCode::QUOTA_EXCEEDED);
        }
        self.retained.insert(&message.topic, Arc::clone(message));
        self.retained_bytes = bytes;
        if message.expires.is_some() && !self.sweeping {
            self.sweeping = true;
            self.timers.insert((now + SWEEP, Timer::Retained));
        }
        Ok(())
    }

    /// Takes expired retained messages out.
    pub(super) fn sweep_retained(&mut self, now: Duration) {
        let (mut expired, mut waiting) = (Vec::new(), false);
        self.retained.for_each(&mut |message| {
            if message.is_expired(now) {
                expired.push(Arc::clone(message));
            } else {
                waiting |= message.expires.is_some();
            }
        });
        for message in expired {
            if self.retained.remove(&message.topic).is_some() {
                self.retained_bytes -= message.cost();
            }
        }
        self.sweeping = waiting;
        if waiting {
            self.timers.insert((now + SWEEP, Timer::Retained));
        }
    }

    /// One copy for each session with a subscription of its own, whatever the number of these, and one for
    /// each shared subscription [3.3.4-1], [4.8.2-4].
    fn copies(&self, message: &Arc<Message>, retain: bool) -> Vec<(SessionId, Copy)> {
        let mut plain: Vec<(SessionId, Wanted)> = Vec::new();
        let mut copies = Vec::new();
        let copy = |wanted: &[(SessionId, Wanted)]| {
            let qos = wanted.iter().map(|(_, wanted)| wanted.options.qos).max();
            Copy {
                message: Arc::clone(message),
                qos: qos.unwrap_or(QoS::AtMostOnce).min(message.qos),
                retain: retain
                    && wanted
                        .iter()
                        .any(|(_, wanted)| wanted.options.retain_as_published),
                subscriptions: wanted.iter().filter_map(|(_, wanted)| wanted.id).collect(),
            }
        };
        self.subscribers
            .match_name(&message.topic, &mut |subscribers: &Subscribers| {
                for (id, wanted) in &subscribers.plain {
                    let is_local = wanted.options.no_local
                        && self
                            .sessions
                            .get(id)
                            .is_some_and(|session| session.client_id == message.publisher);
                    if !is_local {
                        plain.push((*id, *wanted));
                    }
                }
                for group in &subscribers.groups {
                    if let Some((id, wanted)) = self.next_of(group) {
                        copies.push((id, copy(&[(id, wanted)])));
                    }
                }
            });
        plain.sort_by_key(|(id, wanted)| (*id, wanted.id));
        for wanted in plain.chunk_by(|(one, _), (other, _)| one == other) {
            if let Some((id, _)) = wanted.first() {
                copies.push((*id, copy(wanted)));
            }
        }
        copies
    }

    /// Whose turn it is in a shared subscription: one that is connected, if any is.
    fn next_of(&self, group: &super::subscribers::Group) -> Option<(SessionId, Wanted)> {
        let turn = group.turn.get();
        group.turn.set(turn.wrapping_add(1));
        let start = turn.checked_rem(group.members.len())?;
        let (before, from) = group.members.split_at_checked(start)?;
        let mut in_turn = from.iter().chain(before);
        let connected = in_turn.clone().find(|(id, _)| {
            self.sessions
                .get(id)
                .is_some_and(|session| session.connection.is_some())
        });
        connected.or_else(|| in_turn.next()).copied()
    }
}

/// Whether a message may be published.
fn judge(topic: &str, publish: &Publish<'_>) -> Result<(), ReasonCode> {
    if !topic::is_within_limits(topic) {
        return Err(ReasonCode::TOPIC_NAME_INVALID);
    }
    if is_reserved(topic) {
        return Err(ReasonCode::NOT_AUTHORIZED);
    }
    if publish.properties.payload_format() == Some(1)
        && std::str::from_utf8(publish.payload).is_err()
    {
        return Err(ReasonCode::PAYLOAD_FORMAT_INVALID);
    }
    Ok(())
}
