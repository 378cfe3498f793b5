//! Entries of the inbox on their way to a client, and its acknowledgements.

use hongyan_core::MessageId;
use hongyan_mqtt::packet::{Ack, Packet, Property, PropertyList, Publish as Publication};

use super::{Client, LANDED_MAX};
use crate::protocol::hongyan::Encoding;
use crate::protocol::hongyan::outgoing::{self, ServerMessage};
use crate::protocol::{Desk, Outgoing, Taken};

impl Client {
    /// Any further packet says that what was sent with QoS 0 has left.
    pub(super) fn heard(&mut self, desk: &mut Desk<'_>) {
        let ids = self.flights.take_unacknowledgeable();
        if !ids.is_empty() {
            self.landed(&ids);
            desk.ack_each(ids);
        }
    }

    /// These are not to be sent again on this connection, though a read may bring them before their acknowledgement is stored.
    fn landed(&mut self, ids: &[MessageId]) {
        if self.rereads {
            let landed = &mut self.rare.get_or_insert_default().landed;
            landed.extend_from_slice(ids);
            let over = landed.len().saturating_sub(LANDED_MAX);
            landed.drain(..over);
        }
    }

    fn has_landed(&self, id: MessageId) -> bool {
        let rare = self.rare.as_ref();
        rare.is_some_and(|rare| rare.landed.contains(&id))
    }

    pub(super) fn puback(&mut self, ack: &Ack<'_>, desk: &mut Desk<'_>) {
        self.heard(desk);
        let Some(id) = self.flights.acked(ack.packet_id) else {
            return;
        };
        self.landed(&[id]);
        if ack.reason.is_error() {
            desk.reject(id);
        } else {
            desk.ack_each(vec![id]);
        }
    }

    /// Publishes an entry, under the name that a subscription matches.
    pub(super) fn deliver(&mut self, one: &Outgoing<'_>, desk: &mut Desk<'_>) -> Taken {
        if self.subscriptions.is_empty() {
            return Taken::Later;
        }
        let Some(found) = self.subscriptions.find(one.message) else {
            self.passed_over = true;
            self.rereads = true;
            return Taken::Skipped { rejected: false };
        };
        if self.flights.flies(one.message.id) {
            // Read again because of another subscription; it is repeated after a reconnect only [4.4.0-1].
            return Taken::Sent;
        }
        if self.has_landed(one.message.id) {
            return Taken::Skipped { rejected: false };
        }
        let raw = found.raw(one.message);
        // A push that goes out under its channel's name is the bytes that were posted.
        let shared = match (raw, one.message.recalls) {
            (Some(push), _) => push.body.clone(),
            (None, Some(recalled)) => {
                let mark = ServerMessage::mark(recalled, one.place, one.message.id);
                outgoing::json(&mark).into()
            }
            (None, None) => desk.encoded(Encoding::Json, one.message),
        };
        if !desk.has_room(shared.len() + 512) {
            return Taken::Full;
        }
        let id = one.message.id;
        let Some((packet_id, again)) = self.flights.take_off(id, found.qos) else {
            return Taken::Full;
        };
        let payload = match (raw, one.message.recalls) {
            (Some(_), _) | (_, Some(_)) => shared,
            (None, None) => {
                let own = outgoing::msg_begin(Encoding::Json, &shared, one.place, one.dup);
                [own.as_slice(), &shared[1.min(shared.len())..]]
                    .concat()
                    .into()
            }
        };
        let mut list = PropertyList::new();
        if self.is_v5() {
            let left_ms = one.message.expires_at.millis() - desk.clock().millis();
            let left_s = u64::try_from(left_ms).unwrap_or(0).div_ceil(1000).max(1);
            let id_text = id.to_string();
            let recalled = one.message.recalls.map(|recalled| recalled.to_string());
            let properties = [
                Property::MessageExpiry(u32::try_from(left_s).unwrap_or(u32::MAX)),
                Property::UserProperty("id", &id_text),
            ];
            let what: &[Property<'_>] = match raw {
                Some(_) => &[],
                None => &[
                    Property::PayloadFormat(1),
                    Property::ContentType("application/json"),
                ],
            };
            let push = raw
                .map(super::subscriptions::properties)
                .unwrap_or_default();
            let recalled = recalled.as_deref();
            let recalled = recalled.map(|id| Property::UserProperty("recalled", id));
            let ids = found.ids.iter().map(|id| Property::SubscriptionId(*id));
            let all = properties.into_iter().chain(what.iter().copied());
            for property in all.chain(recalled).chain(push).chain(ids) {
                let _ = list.push(property);
            }
        }
        let publication = Packet::Publish(Publication {
            dup: again,
            qos: found.qos,
            retain: false,
            topic: &found.topic,
            packet_id,
            properties: list.as_properties(),
            payload: &payload,
        });
        if publication.encoded_len(self.version) > self.packet_bytes_max as usize {
            // [3.1.2-24]: it is not sent, and counts as done with [3.1.2-25].
            self.flights.forget_ids(&[id]);
            return Taken::Skipped { rejected: true };
        }
        self.say(&publication, desk);
        Taken::Sent
    }
}
