//! One delivery on its way through a lane.

use std::collections::HashMap;
use std::sync::Arc;

use hongyan_core::app::AppPolicy;
use hongyan_core::delivery::{Delivery, Input, State};
use hongyan_core::device::Environment;
use hongyan_core::port::{Job, JobId};
use hongyan_core::{ChannelId, CredentialName, Device, Message, MessageId, Timestamp};

use crate::feedback::Signal;
use crate::router::InFlight;

/// One delivery on its way to a vendor.
#[derive(Debug)]
pub(crate) struct Shipment {
    held: Option<Held>,
    pub(crate) delivery: Delivery,
    pub(crate) message: Arc<Message>,
    pub(crate) channel: ChannelId,
    pub(crate) credential: CredentialName,
    pub(crate) token: String,
    /// When the device last gave the token.
    pub(crate) registered_at: Timestamp,
    pub(crate) environment: Option<Environment>,
    pub(crate) package: Option<String>,
    /// Whether the app wants texts refused that are too long for the vendor.
    pub(crate) strict_payload: bool,
}

/// A shipment's place among those in flight. A shipment that is dropped without an answer, whatever the cause, gives
/// it up, so that the end of its lease brings the delivery back.
#[derive(Debug)]
struct Held {
    in_flight: InFlight,
    job: JobId,
    version: u32,
    answered: bool,
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.answered {
            self.in_flight.settled(&self.job, self.version);
        }
    }
}

impl Shipment {
    /// The shipment of a delivery that was just planned to be pushed.
    pub(crate) fn of(
        delivery: &Delivery,
        message: &Arc<Message>,
        device: &Device,
        policy: &AppPolicy,
    ) -> Option<Self> {
        let State::Pushing {
            channel,
            credential,
        } = &delivery.state
        else {
            return None;
        };
        let token = device.token(channel)?;
        Some(Self {
            held: None,
            delivery: delivery.clone(),
            message: Arc::clone(message),
            channel: channel.clone(),
            credential: credential.clone(),
            token: token.token.clone(),
            registered_at: token.updated_at,
            environment: token.environment,
            package: device.package.clone(),
            strict_payload: policy.strict_payload,
        })
    }

    pub(crate) fn job_id(&self) -> JobId {
        Job::deliver_id(
            &self.delivery.app,
            self.delivery.message,
            &self.delivery.device,
        )
    }

    /// The delivery's version when it was handed over.
    pub(crate) const fn version(&self) -> u32 {
        self.delivery.version
    }

    /// Ties it to its place among those in flight.
    pub(crate) fn held_in(mut self, in_flight: &InFlight) -> Self {
        self.held = Some(Held {
            in_flight: in_flight.clone(),
            job: self.job_id(),
            version: self.version(),
            answered: false,
        });
        self
    }

    /// Its delivery has a new version, and is still on its way here.
    pub(crate) fn moved_on(&mut self) {
        let (job, version) = (self.job_id(), self.version());
        if let Some(held) = &mut self.held {
            held.version = version;
            held.in_flight.add(job, version);
        }
    }

    /// The answer; its place in flight is given up when that is written.
    pub(crate) fn signal(mut self, input: Input) -> Signal {
        if let Some(held) = &mut self.held {
            held.answered = true;
        }
        Signal {
            app: self.delivery.app,
            message: self.delivery.message,
            device: self.delivery.device,
            user: self.delivery.user,
            input,
        }
    }

    /// Shipments with the same key have the same payload and may share a request.
    fn batch_key(&self) -> (MessageId, Option<Environment>, Option<String>) {
        (self.message.id, self.environment, self.package.clone())
    }
}

/// Shipments that share a payload, in pieces of at most `max`, in the order of their first shipment.
pub(crate) fn grouped(shipments: Vec<Shipment>, max: usize) -> Vec<Vec<Shipment>> {
    let mut groups: Vec<Vec<Shipment>> = Vec::new();
    let mut open: HashMap<(MessageId, Option<Environment>, Option<String>), usize> = HashMap::new();
    for shipment in shipments {
        let key = shipment.batch_key();
        match open.get(&key).and_then(|i| groups.get_mut(*i)) {
            Some(group) if group.len() < max => group.push(shipment),
            _ => {
                open.insert(key, groups.len());
                groups.push(vec![shipment]);
            }
        }
    }
    groups
}
