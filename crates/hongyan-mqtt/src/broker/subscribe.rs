//! SUBSCRIBE and UNSUBSCRIBE.

use std::sync::Arc;
use std::time::Duration;

use super::message::Copy;
use super::subscribers::Wanted;
use super::{Broker, ConnectionId, SessionId};
use crate::packet::{
    Filter, Packet, Properties, ReasonCode, RetainHandling, SubAck, Subscribe, UnsubAck,
    Unsubscribe,
};
use crate::topic;

impl Broker {
    pub(super) fn on_subscribe(
        &mut self,
        now: Duration,
        id: ConnectionId,
        session_id: SessionId,
        subscribe: &Subscribe<'_>,
    ) {
        let number = subscribe.properties.subscription_id();
        let mut codes = Vec::new();
        let mut wants_retained = Vec::new();
        for filter in &subscribe.filters {
            let code = match self.subscribe(session_id, &filter, number) {
                Ok(is_new) => {
                    let wants = match filter.options.retain_handling {
                        RetainHandling::Always => true,
                        RetainHandling::New => is_new,
                        RetainHandling::Never => false,
                    };
                    // A shared subscription gets none (section 4.8.2).
                    if wants && topic::share(filter.filter).is_none() {
                        wants_retained.push(filter);
                    }
                    filter.options.qos as u8
                }
                Err(reason) => reason.0,
            };
            codes.push(code);
        }
        let suback = Packet::SubAck(SubAck {
            packet_id: subscribe.packet_id,
            properties: Properties::NONE,
            codes: &codes,
        });
        self.send(id, &suback);
        for filter in wants_retained {
            self.give_retained(now, session_id, &filter, number);
        }
    }

    /// Makes or replaces a subscription [3.8.4-3]. True when it is new.
    fn subscribe(
        &mut self,
        session_id: SessionId,
        filter: &Filter<'_>,
        number: Option<u32>,
    ) -> Result<bool, ReasonCode> {
        let share = topic::share(filter.filter);
        if !topic::is_within_limits(filter.filter) || !topic::is_valid_share(filter.filter) {
            return Err(ReasonCode::TOPIC_FILTER_INVALID);
        }
        let session = self
            .sessions
            .get_mut(&session_id)
            .ok_or(ReasonCode::UNSPECIFIED)?;
        if !session.subscriptions.contains(filter.filter) {
            if session.subscriptions.len() >= self.options.subscriptions_max
                || self.subscriptions >= self.options.subscriptions_total_max
            {
                return Err(ReasonCode::QUOTA_EXCEEDED);
            }
            session.subscriptions.insert(filter.filter.into());
            self.subscriptions += 1;
        }
        let wanted = Wanted {
            options: filter.options,
            id: number,
        };
        Ok(match share {
            Some(share) => self
                .subscribers
                .get_or_default(share.filter)
                .join(share.name, session_id, wanted),
            None => self
                .subscribers
                .get_or_default(filter.filter)
                .add(session_id, wanted),
        })
    }

    /// Gives the retained messages of a filter to one session [3.3.1-9] to [3.3.1-11].
    fn give_retained(
        &mut self,
        now: Duration,
        session_id: SessionId,
        filter: &Filter<'_>,
        number: Option<u32>,
    ) {
        let Some(session) = self.sessions.get(&session_id) else {
            return;
        };
        let mut found = Vec::new();
        self.retained.match_filter(filter.filter, &mut |message| {
            let is_local = filter.options.no_local && message.publisher == session.client_id;
            if !is_local && !message.is_expired(now) {
                found.push(Arc::clone(message));
            }
        });
        for message in found {
            let copy = Copy {
                qos: message.qos.min(filter.options.qos),
                message,
                retain: true,
                subscriptions: number.into_iter().collect(),
            };
            self.enqueue(now, session_id, copy);
        }
    }

    pub(super) fn on_unsubscribe(
        &mut self,
        id: ConnectionId,
        session_id: SessionId,
        unsubscribe: &Unsubscribe<'_>,
    ) {
        let mut codes = Vec::new();
        for filter in &unsubscribe.filters {
            let existed = self
                .sessions
                .get_mut(&session_id)
                .is_some_and(|session| session.subscriptions.remove(filter));
            codes.push(if existed {
                self.remove_subscription(session_id, filter);
                ReasonCode::SUCCESS.0
            } else {
                ReasonCode::NO_SUBSCRIPTION_EXISTED.0
            });
        }
        let unsuback = Packet::UnsubAck(UnsubAck {
            packet_id: unsubscribe.packet_id,
            properties: Properties::NONE,
            codes: &codes,
        });
        self.send(id, &unsuback);
    }

    /// Takes a subscription that a session has had out of the tree.
    pub(super) fn remove_subscription(&mut self, session: SessionId, filter: &str) {
        let share = topic::share(filter);
        let place = share.map_or(filter, |share| share.filter);
        let Some(subscribers) = self.subscribers.get_mut(place) else {
            return;
        };
        match share {
            Some(share) => subscribers.leave(share.name, session),
            None => {
                subscribers.plain.remove(&session);
            }
        }
        let is_empty = subscribers.is_empty();
        if is_empty {
            self.subscribers.remove(place);
        }
        self.subscriptions = self.subscriptions.saturating_sub(1);
    }
}
