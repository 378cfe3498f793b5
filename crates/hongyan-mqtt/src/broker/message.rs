//! A message as it is kept, shared by all sessions that wait for it.

use std::sync::Arc;
use std::time::Duration;

use crate::packet::{Properties, Property, PropertyList, QoS};

/// What one message costs beside its bytes: allocations, and its places in queues.
const OVERHEAD: usize = 160;

/// A published message.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) topic: Arc<str>,
    pub(super) payload: Box<[u8]>,
    /// Those that are passed on unchanged, in their order [3.3.2-4], [3.3.2-15] to [3.3.2-18].
    pub(super) properties: PropertyList,
    pub(super) qos: QoS,
    pub(super) expires: Option<Duration>,
    /// The client identifier of who published it, for No Local.
    pub(super) publisher: Arc<str>,
}

impl Message {
    pub(super) fn new(
        now: Duration,
        topic: Arc<str>,
        qos: QoS,
        payload: &[u8],
        properties: &Properties<'_>,
        publisher: Arc<str>,
    ) -> Self {
        let mut passed_on = PropertyList::new();
        passed_on.extend(properties.iter().filter(|property| {
            matches!(
                property,
                Property::PayloadFormat(_)
                    | Property::ContentType(_)
                    | Property::ResponseTopic(_)
                    | Property::CorrelationData(_)
                    | Property::UserProperty(..)
            )
        }));
        let expires = properties
            .message_expiry()
            .map(|seconds| now + Duration::from_secs(seconds.into()));
        Self {
            topic,
            payload: payload.into(),
            properties: passed_on,
            qos,
            expires,
            publisher,
        }
    }

    /// What it counts against limits, bytes.
    pub(super) fn cost(&self) -> usize {
        OVERHEAD
            + self.topic.len()
            + self.payload.len()
            + self.properties.as_properties().as_bytes().len()
    }

    pub(super) fn is_expired(&self, now: Duration) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    /// What is left of its lifetime, seconds, rounded up and at least 1 [3.3.2-6].
    pub(super) fn expiry_left(&self, now: Duration) -> Option<u32> {
        let left = self.expires?.saturating_sub(now);
        let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
        Some(u32::try_from(seconds).unwrap_or(u32::MAX).max(1))
    }
}

/// A message on its way to one session.
#[derive(Debug, Clone)]
pub(super) struct Copy {
    pub(super) message: Arc<Message>,
    /// The lower of the message's and the subscription's.
    pub(super) qos: QoS,
    pub(super) retain: bool,
    /// Subscription identifiers of all subscriptions that it came by [3.3.4-3] to [3.3.4-5].
    pub(super) subscriptions: Vec<u32>,
}

impl Copy {
    pub(super) fn cost(&self) -> usize {
        self.message.cost() + self.subscriptions.len() * 4
    }
}
