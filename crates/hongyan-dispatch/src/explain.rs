//! What would happen to a message, by the same decisions that then make it happen.

use std::sync::Arc;

use hongyan_core::app::QuotaOverflow;
use hongyan_core::delivery::{Decision, Delivery};
use hongyan_core::device::Platform;
use hongyan_core::draft::{Draft, Fault};
use hongyan_core::message::{Audience, DeviceChoice, Target};
use hongyan_core::port::Parcel;
use hongyan_core::{
    AppId, ChannelId, CredentialName, Device, DeviceId, Message, MessageId, Reason, StoreError,
    Timestamp, UserId,
};

use crate::choice::Learned;
use crate::credentials::{CredentialError, Credentials};
use crate::plan::{self, plan};
use crate::quota::{Account, Day, Effective, Kind, Quotas, Terms, is_bulk};
use crate::render;
use crate::router::latest;
use crate::service::Ports;
use crate::situation::{self, Read};

/// Devices of a broadcast that are explained; the rest is only counted as "more".
const BROADCAST_SAMPLE: usize = 100;

/// What would happen to one device.
#[derive(Debug, Clone)]
pub struct DeviceExplanation {
    /// The device; none for a user without devices.
    pub device: Option<DeviceId>,
    /// The user it would be meant for.
    pub user: Option<UserId>,
    /// What it runs.
    pub platform: Option<Platform>,
    /// Whether it is connected.
    pub connected: bool,
    /// What would happen.
    pub would: Would,
}

/// What would happen.
#[derive(Debug, Clone)]
pub enum Would {
    /// It goes to the session; `otherwise` is what follows if the session stays silent until then.
    Online {
        /// End of the wait for the ack.
        until: Timestamp,
        /// What follows.
        otherwise: Box<Would>,
    },
    /// It goes to the session, and at once what follows here happens beside it.
    Both {
        /// A push or its wait.
        beside: Box<Would>,
    },
    /// It goes to a vendor.
    Push {
        /// The channel.
        channel: ChannelId,
        /// The credential.
        credential: CredentialName,
        /// The exact request, or why the channel would refuse it.
        parcel: Result<Parcel, (Reason, String)>,
    },
    /// It waits.
    Hold {
        /// Until when.
        until: Timestamp,
        /// For what.
        reason: Reason,
    },
    /// It ends.
    End(Reason),
}

/// What would happen to a message.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// For each device, in routing order.
    pub devices: Vec<DeviceExplanation>,
    /// Whether there are more devices than are listed.
    pub more: bool,
}

/// A message cannot be explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// The draft is not well formed.
    #[error("the message has {} faults", .0.len())]
    Invalid(Vec<Fault>),
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Explains messages; sends nothing.
#[derive(Debug, Clone)]
pub struct Explainer {
    pub(crate) ports: Ports,
    pub(crate) credentials: Credentials,
    pub(crate) learned: Learned,
    pub(crate) quotas: Quotas,
}

impl Explainer {
    /// What would happen to the draft if it were sent now.
    ///
    /// # Errors
    /// [`ExplainError`].
    pub async fn explain(&self, app: &AppId, draft: Draft) -> Result<Explanation, ExplainError> {
        let now = self.ports.clock.now();
        let faults = draft.check(now);
        if !faults.is_empty() {
            return Err(ExplainError::Invalid(faults));
        }
        let message = Arc::new(draft.into_message(app.clone(), MessageId(uuid::Uuid::nil()), now));
        let facts = situation::app_facts(&self.ports, &self.learned, app).await?;
        let (targets, more) = self.targets(app, &message).await?;
        let read = Read {
            users: situation::users_of(
                &self.ports,
                app,
                targets.iter().filter_map(|t| t.found.as_ref()),
            )
            .await?,
            sessions: situation::sessions_of(
                &self.ports,
                app,
                targets.iter().filter_map(|t| t.device.clone()).collect(),
            ),
            facts: &facts,
            built_in_order: self.credentials.built_in_order(),
            now,
        };
        let to_user = matches!(message.to, Target::Users(_));
        let mut devices = Vec::with_capacity(targets.len());
        for target in targets {
            let would = match &target.found {
                None => Would::End(Reason::NoDevice),
                Some(device) => {
                    let delivery = Delivery::new(&message, device, to_user);
                    self.decide(&message, &read, &delivery, device).await?
                }
            };
            devices.push(DeviceExplanation {
                connected: target
                    .device
                    .as_ref()
                    .is_some_and(|d| read.sessions.contains_key(d)),
                platform: target.found.as_ref().map(|d| d.platform),
                device: target.device,
                user: target.user,
                would,
            });
        }
        Ok(Explanation { devices, more })
    }

    async fn decide(
        &self,
        message: &Arc<Message>,
        read: &Read<'_>,
        delivery: &Delivery,
        device: &Device,
    ) -> Result<Would, StoreError> {
        let situation = read.situation(message, delivery, Some(device), None);
        let decision = plan(&situation);
        if plan::online_too(&situation, &decision).is_some() {
            let given = Delivery {
                online_tried: true,
                ..delivery.clone()
            };
            let beside = self.would(message, read, &given, device, read.now).await?;
            let beside = Box::new(beside);
            return Ok(Would::Both { beside });
        }
        if let Decision::Online { until } = decision {
            let silent = Delivery {
                online_tried: true,
                ..delivery.clone()
            };
            let otherwise = self.would(message, read, &silent, device, until).await?;
            let otherwise = Box::new(otherwise);
            return Ok(Would::Online { until, otherwise });
        }
        self.would(message, read, delivery, device, read.now).await
    }

    /// What would happen beside the session, as planned at a time.
    async fn would(
        &self,
        message: &Arc<Message>,
        read: &Read<'_>,
        delivery: &Delivery,
        device: &Device,
        at: Timestamp,
    ) -> Result<Would, StoreError> {
        let mut delivery = delivery.clone();
        // Each round gives one of the device's channels up.
        for _ in 0..=device.tokens.len() {
            let mut situation = read.situation(message, &delivery, Some(device), None);
            situation.now = at;
            let (channel, credential) = match plan(&situation) {
                Decision::Online { until } => {
                    let otherwise = Box::new(Would::End(Reason::Expired));
                    return Ok(Would::Online { until, otherwise });
                }
                Decision::Hold { until, reason } => return Ok(Would::Hold { until, reason }),
                Decision::End(reason) => return Ok(Would::End(reason)),
                Decision::Push {
                    channel,
                    credential,
                } => (channel, credential),
            };
            let outbound = render::outbound(message, device.package.clone(), read.now);
            let mut next = delivery.clone();
            next.tried.push(channel.clone());
            let mut situation = read.situation(message, &next, Some(device), None);
            situation.now = at;
            let other =
                message.options.channels.fallback && plan::choose(&situation, device).is_ok();
            let opened = match self
                .credentials
                .open(&message.app, &channel, &credential)
                .await
            {
                Ok(opened) => opened,
                Err(CredentialError::Store(error)) => return Err(error),
                Err(_) if other => {
                    next.last_failure = Some(Reason::CredentialInvalid);
                    delivery = next;
                    continue;
                }
                Err(error) => {
                    return Ok(Would::Push {
                        channel,
                        credential,
                        parcel: Err((Reason::CredentialInvalid, error.to_string())),
                    });
                }
            };
            let account = Account {
                app: message.app.clone(),
                channel: channel.clone(),
                credential: credential.clone(),
            };
            let day = Day::at(read.now, opened.vendor.day_offset_s());
            let terms = Terms::of(opened.channel.as_ref(), opened.vendor.as_ref());
            let limits = Effective::of(&opened.limits.quota, &terms, day, read.now);
            let kind = Kind::of(message, opened.channel.as_ref());
            let opens_at = self
                .quotas
                .opens_at(&account, &limits, day, kind, &device.id)
                .await?;
            let Some(opens_at) = opens_at else {
                let strict = read.facts.policy.strict_payload;
                let fit = render::fit(opened.channel.as_ref(), &outbound);
                let shown = fit.map(|(_, mut parcel)| {
                    let secret =
                        self.credentials
                            .callback_secret(&message.app, &channel, &credential);
                    hide(&mut parcel.body, &secret);
                    parcel
                });
                let parcel = match shown {
                    Ok(parcel) if strict && !parcel.truncated.is_empty() => {
                        Err(render::too_long(&parcel.truncated))
                    }
                    parcel => parcel,
                };
                if let (Err((reason, _)), true) = (&parcel, other) {
                    next.last_failure = Some(*reason);
                    delivery = next;
                    continue;
                }
                return Ok(Would::Push {
                    channel,
                    credential,
                    parcel,
                });
            };
            let bulk = is_bulk(message.class);
            let spills = !bulk || read.facts.policy.quota_overflow == QuotaOverflow::Spill;
            if bulk && !(spills && other) && opens_at < message.expires_at {
                return Ok(Would::Hold {
                    until: opens_at,
                    reason: Reason::QuotaExhausted,
                });
            }
            if !other {
                return Ok(Would::End(Reason::QuotaExhausted));
            }
            next.last_failure = Some(Reason::QuotaExhausted);
            delivery = next;
        }
        Ok(Would::End(Reason::QuotaExhausted))
    }

    async fn targets(
        &self,
        app: &AppId,
        message: &Message,
    ) -> Result<(Vec<TargetDevice>, bool), StoreError> {
        let registry = &self.ports.registry;
        let found = |d: Device| TargetDevice {
            device: Some(d.id.clone()),
            user: d.user.clone(),
            found: Some(d),
        };
        let mut targets = Vec::new();
        match &message.to {
            Target::Users(users) => {
                for (user, mut devices) in users.iter().zip(registry.devices_of(app, users).await?)
                {
                    if message.options.devices == DeviceChoice::Latest {
                        let ids: Vec<_> = devices.iter().map(|d| d.id.clone()).collect();
                        let sessions = situation::sessions_of(&self.ports, app, ids);
                        let keep = latest(devices.iter(), |id| sessions.contains_key(id)).cloned();
                        devices.retain(|d| Some(&d.id) == keep.as_ref());
                    }
                    if devices.is_empty() {
                        targets.push(TargetDevice {
                            device: None,
                            user: Some(user.clone()),
                            found: None,
                        });
                    }
                    targets.extend(devices.into_iter().map(found));
                }
            }
            Target::Devices(ids) => {
                for (id, device) in ids.iter().zip(registry.devices(app, ids).await?) {
                    targets.push(device.map_or_else(
                        || TargetDevice {
                            device: Some(id.clone()),
                            user: None,
                            found: None,
                        },
                        found,
                    ));
                }
            }
            Target::Topic(_) | Target::All => {
                let devices = match message.to.audience() {
                    Some(Audience::Topic(topic)) => {
                        let ids = registry
                            .subscribers(app, &topic, None, BROADCAST_SAMPLE + 1)
                            .await?;
                        registry
                            .devices(app, &ids)
                            .await?
                            .into_iter()
                            .flatten()
                            .collect()
                    }
                    _ => {
                        registry
                            .device_page(app, None, BROADCAST_SAMPLE + 1)
                            .await?
                    }
                };
                let more = devices.len() > BROADCAST_SAMPLE;
                targets.extend(devices.into_iter().take(BROADCAST_SAMPLE).map(found));
                return Ok((targets, more));
            }
        }
        Ok((targets, false))
    }
}

/// Takes the secret of the callback address out of what is shown: whoever may send need not be able to speak for a vendor.
fn hide(body: &mut serde_json::Value, secret: &str) {
    use serde_json::Value;
    match body {
        Value::String(text) if text.contains(secret) => *text = text.replace(secret, "…"),
        Value::Array(items) => items.iter_mut().for_each(|item| hide(item, secret)),
        Value::Object(fields) => fields.values_mut().for_each(|value| hide(value, secret)),
        _ => {}
    }
}

#[derive(Debug)]
struct TargetDevice {
    device: Option<DeviceId>,
    user: Option<UserId>,
    found: Option<Device>,
}
