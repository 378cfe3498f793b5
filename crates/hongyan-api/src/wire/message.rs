//! Messages on the wire: the body of `POST /v1/messages` and what is answered about them.

use std::collections::{BTreeMap, HashSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use hongyan_core::delivery::{Delivery, State};
use hongyan_core::device::Platform;
use hongyan_core::draft::{Draft, Fault};
use hongyan_core::message::{self, ClickGuard, DeliveryMode, DeviceChoice, Priority, Target};
use hongyan_core::{ChannelId, Class, ClassDetail, DeviceId, MessageId, Reason, Topic, UserId};

use super::exact::{self, Exact};
use super::{Moment, schema};
use crate::problem::{Code, Document, Problem};

/// A message to send. Fields that are not named here are refused.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Message {
    /// For whom: exactly one of its fields.
    pub(crate) to: To,
    /// What it is for. It decides the vendors' own classes and their quotas.
    #[serde(default)]
    #[schemars(schema_with = "schema::class")]
    pub(crate) class: Class,
    /// The kind of a transaction.
    #[serde(default)]
    #[schemars(schema_with = "schema::maybe_class_detail")]
    pub(crate) class_detail: Option<ClassDetail>,
    /// What is shown. A message needs a notification, data or both.
    #[serde(default)]
    pub(crate) notification: Option<Notification>,
    /// What the app gets: any object, at most 32 KiB of JSON. No name twice in one object; numbers without a fraction within
    /// 64 bits, however they are written (`1e20` is not).
    #[serde(default)]
    #[schemars(with = "Option<Map<String, Value>>")]
    pub(crate) data: Option<Exact>,
    /// Not available in this version.
    #[serde(default)]
    pub(crate) template: Option<Value>,
    /// How it travels.
    #[serde(default)]
    pub(crate) options: Options,
}

/// For whom a message is: exactly one of these.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub(crate) struct To {
    /// All devices of this user.
    #[schemars(with = "Option<String>", length(max = 128))]
    pub(crate) user: Option<UserId>,
    /// All devices of these users.
    #[schemars(with = "Option<Vec<String>>", length(min = 1, max = 1000))]
    pub(crate) users: Option<Vec<UserId>>,
    /// This device, whoever holds it.
    #[schemars(with = "Option<String>", length(max = 64))]
    pub(crate) device: Option<DeviceId>,
    /// These devices, whoever holds them.
    #[schemars(with = "Option<Vec<String>>", length(min = 1, max = 1000))]
    pub(crate) devices: Option<Vec<DeviceId>>,
    /// All subscribers of this topic.
    #[schemars(with = "Option<String>", length(max = 128))]
    pub(crate) topic: Option<Topic>,
    /// Not available in this version.
    pub(crate) segment: Option<Value>,
    /// Not available in this version.
    pub(crate) audience: Option<Value>,
    /// Every device of the app; `true`.
    pub(crate) all: Option<bool>,
}

/// What is shown to the person.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Notification {
    /// First line.
    #[schemars(length(max = 256))]
    pub(crate) title: String,
    /// Text.
    #[schemars(length(max = 4096))]
    pub(crate) body: String,
    /// Picture: an https address.
    #[schemars(length(max = 2048), regex(pattern = "^https://[^/?#]"))]
    pub(crate) image: Option<String>,
    /// Number on the icon.
    pub(crate) badge: Option<u32>,
    /// Sound name; `default` is the system's.
    #[schemars(length(max = 256))]
    pub(crate) sound: Option<String>,
    /// What a tap opens.
    pub(crate) click: Option<Click>,
    /// Notifications of one group are shown together.
    #[schemars(length(max = 256))]
    pub(crate) group: Option<String>,
}

/// What a tap opens.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Click {
    /// A deep link or web address.
    #[schemars(length(max = 2048))]
    pub(crate) url: String,
}

/// How a message travels.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Options {
    /// Seconds that it is worth delivering: 0 to seven days; one day when absent. 0 is now or never: vendors are told 0. Less than
    /// ten seconds count as ten here.
    #[schemars(range(max = 604_800))]
    pub(crate) ttl: Option<u32>,
    /// A newer message with the same key takes the place of an undelivered older one.
    #[schemars(length(min = 1, max = 64))]
    pub(crate) collapse_key: Option<String>,
    /// Urgency; by class when absent.
    #[schemars(schema_with = "schema::maybe_priority")]
    pub(crate) priority: Option<Priority>,
    /// Which ways it may take.
    #[schemars(schema_with = "schema::delivery")]
    pub(crate) delivery: DeliveryMode,
    /// How long a session has to acknowledge before the vendor's channel is used; 5000 when absent.
    #[schemars(range(min = 100, max = 60_000))]
    pub(crate) ack_timeout_ms: Option<u32>,
    /// Which of a user's devices.
    #[schemars(schema_with = "schema::device_choice")]
    pub(crate) devices: DeviceChoice,
    /// Not before this time, at most 30 days ahead.
    pub(crate) send_at: Option<Moment>,
    /// What the vendor push looks like.
    pub(crate) push: Push,
    /// Which channels, in which order.
    pub(crate) channels: Channels,
    /// Who may act on a tap.
    #[schemars(schema_with = "schema::click_guard")]
    pub(crate) click_guard: ClickGuard,
    /// Whether the app should skip its splash screen on a tap.
    pub(crate) skip_splash: Option<bool>,
    /// For each channel: merged last into that vendor's payload.
    #[serde(deserialize_with = "exact::by_channel")]
    #[schemars(with = "BTreeMap<String, Map<String, Value>>")]
    pub(crate) vendor: BTreeMap<ChannelId, Exact>,
}

/// What the vendor push looks like, when it should differ from the notification.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Push {
    /// Whether there is a vendor push at all.
    pub(crate) enabled: bool,
    /// Title instead of the notification's.
    #[schemars(length(max = 256))]
    pub(crate) title: Option<String>,
    /// Text instead of the notification's.
    #[schemars(length(max = 4096))]
    pub(crate) body: Option<String>,
    /// Whether the sender's name (the notification's title) is shown.
    pub(crate) show_sender: bool,
    /// Whether the push counts on the icon.
    pub(crate) badge: bool,
    /// Whether it is pushed although the person muted its class or it is their quiet time: for a mention or a call. The
    /// permission of the system is never overridden.
    pub(crate) force: bool,
}

impl Default for Push {
    fn default() -> Self {
        Self {
            enabled: true,
            title: None,
            body: None,
            show_sender: true,
            badge: true,
            force: false,
        }
    }
}

/// Which channels, in which order.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Channels {
    /// Only these, in this order; the app's order when empty.
    #[schemars(with = "Vec<String>", length(max = 32))]
    pub(crate) order: Vec<ChannelId>,
    /// Whether the next channel is tried when one fails for good.
    pub(crate) fallback: bool,
    /// Milliseconds to wait for the receipt of a vendor that gives receipts, before the next channel is tried. Left out: the
    /// vendor's word is enough. Of no effect at channels without receipts: `apns`, `fcm`, `webpush`, `tpns`, `aliyun`, and those
    /// that post them while the server has no public address.
    #[schemars(range(min = 1_000, max = 86_400_000))]
    pub(crate) fallback_after_ms: Option<u32>,
}

impl Default for Channels {
    fn default() -> Self {
        Self {
            order: Vec::new(),
            fallback: true,
            fallback_after_ms: None,
        }
    }
}

impl Message {
    /// The draft that this body means.
    pub(crate) fn into_draft(self) -> Result<Draft, Problem> {
        if self.template.is_some() {
            return Err(not_available("template", "templates"));
        }
        let o = self.options;
        let mut faults = Vec::new();
        for (path, text, max) in [
            (
                "options.push.title",
                &o.push.title,
                hongyan_core::limits::TITLE_CHARS_MAX,
            ),
            (
                "options.push.body",
                &o.push.body,
                hongyan_core::limits::BODY_CHARS_MAX,
            ),
        ] {
            if text.as_ref().is_some_and(|t| t.chars().count() > max) {
                faults.push(Fault {
                    path: path.to_owned(),
                    problem: format!("must be at most {max} characters"),
                });
            }
        }
        let data = self.data.map(|data| data.at("data", &mut faults));
        let vendor = o.vendor.into_iter().map(|(channel, fields)| {
            let fields = fields.at(&format!("options.vendor.{channel}"), &mut faults);
            (channel, fields)
        });
        let vendor = vendor.collect();
        if !faults.is_empty() {
            return Err(Problem::faults(Code::Invalid, faults));
        }
        Ok(Draft {
            to: self.to.into_target()?,
            class: self.class,
            class_detail: self.class_detail,
            notification: self.notification.map(|n| message::Notification {
                title: n.title,
                body: n.body,
                image: n.image,
                badge: n.badge,
                sound: n.sound,
                click: n.click.map(|c| message::Click { url: c.url }),
                group: n.group,
            }),
            data,
            options: message::Options {
                ttl_s: o.ttl,
                collapse_key: o.collapse_key,
                priority: o.priority,
                delivery: o.delivery,
                ack_timeout_ms: o.ack_timeout_ms,
                devices: o.devices,
                send_at: o.send_at.map(|m| m.0),
                push: message::PushOptions {
                    enabled: o.push.enabled,
                    title: o.push.title,
                    body: o.push.body,
                    show_sender: o.push.show_sender,
                    badge: o.push.badge,
                    force: o.push.force,
                },
                channels: message::ChannelOptions {
                    order: o.channels.order,
                    fallback: o.channels.fallback,
                    fallback_after_ms: o.channels.fallback_after_ms,
                },
                click_guard: o.click_guard,
                skip_splash: o.skip_splash,
                vendor,
            },
        })
    }
}

impl To {
    fn into_target(self) -> Result<Target, Problem> {
        let Self {
            user,
            users,
            device,
            devices,
            topic,
            segment,
            audience,
            all,
        } = self;
        let named = usize::from(user.is_some())
            + usize::from(users.is_some())
            + usize::from(device.is_some())
            + usize::from(devices.is_some())
            + usize::from(topic.is_some())
            + usize::from(segment.is_some())
            + usize::from(audience.is_some())
            + usize::from(all.is_some());
        if named != 1 {
            return Err(Problem::at(
                Code::Invalid,
                "to",
                format!(
                    "must name exactly one of user, users, device, devices, topic and all, but names {}",
                    if named == 0 {
                        "none".to_owned()
                    } else {
                        named.to_string()
                    }
                ),
            ));
        }
        if segment.is_some() {
            return Err(not_available("to.segment", "segments"));
        }
        if audience.is_some() {
            return Err(not_available("to.audience", "audiences"));
        }
        if all == Some(false) {
            return Err(Problem::at(
                Code::Invalid,
                "to.all",
                "must be true, or name another target",
            ));
        }
        Ok(if let Some(user) = user {
            Target::Users(vec![user])
        } else if let Some(users) = users {
            Target::Users(once_each(users))
        } else if let Some(device) = device {
            Target::Devices(vec![device])
        } else if let Some(devices) = devices {
            Target::Devices(once_each(devices))
        } else if let Some(topic) = topic {
            Target::Topic(topic)
        } else {
            Target::All
        })
    }
}

/// The first of each, in order: nobody gets a message twice for being named twice.
fn once_each<T: Clone + Eq + std::hash::Hash>(items: Vec<T>) -> Vec<T> {
    let mut seen = HashSet::new();
    items
        .into_iter()
        .filter(|item| seen.insert(item.clone()))
        .collect()
}

fn not_available(path: &str, what: &str) -> Problem {
    Problem::at(
        Code::NotAvailable,
        path,
        format!("{what} are not available in this version; leave the field out"),
    )
}

/// The message is durable.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Accepted {
    /// Its id, a UUIDv7.
    #[schemars(with = "String", extend("format" = "uuid"))]
    pub(crate) id: MessageId,
}

/// Many messages, each to users or devices.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Batch {
    /// The messages, at most 1000.
    #[schemars(with = "Vec<Message>", length(min = 1, max = 1000))]
    pub(crate) messages: Vec<Box<RawValue>>,
}

/// What became of each message of a batch, in order.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct BatchAccepted {
    /// How many were accepted.
    pub(crate) accepted: usize,
    /// How many were refused.
    pub(crate) refused: usize,
    /// For each message its id, or why it was refused.
    pub(crate) results: Vec<BatchResult>,
}

/// What became of one message of a batch: one of the two.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct BatchResult {
    /// Its id: it is durable.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub(crate) id: Option<MessageId>,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<Document>,
}

/// A message's state and counts.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Status {
    /// Its id.
    #[schemars(with = "String", extend("format" = "uuid"))]
    pub(crate) id: MessageId,
    /// `scheduled`, `sending` (devices are still looked for, or deliveries are open), `done` (also when there was nobody to
    /// reach) or `recalled`.
    pub(crate) state: &'static str,
    /// Its class.
    #[schemars(schema_with = "schema::class")]
    pub(crate) class: Class,
    /// When it was accepted.
    pub(crate) accepted_at: Moment,
    /// When it is no longer worth delivering.
    pub(crate) expires_at: Moment,
    /// When it was recalled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) recalled_at: Option<Moment>,
    /// Events by stage: the funnel.
    pub(crate) counts: BTreeMap<&'static str, u64>,
    /// Final outcomes by reason.
    pub(crate) reasons: BTreeMap<&'static str, u64>,
    /// Deliveries to single devices.
    pub(crate) deliveries: Deliveries,
}

/// Deliveries to single devices.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Deliveries {
    /// Devices that were found so far, and users and devices that none was found for.
    pub(crate) total: u64,
    /// Those without a final outcome.
    pub(crate) open: u64,
    /// Those with a final outcome.
    pub(crate) done: u64,
    /// One page of them, when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) items: Option<Vec<DeliveryItem>>,
    /// Give this as `after` to get the next page; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub(crate) next: Option<DeviceId>,
}

/// One delivery.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct DeliveryItem {
    /// The device.
    #[schemars(with = "String")]
    pub(crate) device: DeviceId,
    /// The user it is meant for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub(crate) user: Option<UserId>,
    /// The device's platform.
    #[schemars(schema_with = "schema::platform")]
    pub(crate) platform: Platform,
    /// `planning`, `online`, `held`, `pushing`, `retrying`, `awaiting_receipt` or `done`.
    #[schemars(extend("enum" = [
        "planning", "online", "held", "pushing", "retrying", "awaiting_receipt", "done"
    ]))]
    pub(crate) state: &'static str,
    /// The final outcome; while it is open, why it waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::maybe_reason")]
    pub(crate) reason: Option<Reason>,
    /// The channel that has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub(crate) channel: Option<ChannelId>,
    /// Until when it waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<Moment>,
}

impl From<Delivery> for DeliveryItem {
    fn from(d: Delivery) -> Self {
        let (state, reason, channel, until) = match d.state {
            State::Planning => ("planning", None, None, None),
            State::Online { until } => ("online", None, None, Some(until)),
            State::Held { until, reason } => ("held", Some(reason), None, Some(until)),
            State::Pushing { channel, .. } => ("pushing", None, Some(channel), None),
            State::Retrying { channel, until, .. } => {
                ("retrying", d.last_failure, Some(channel), Some(until))
            }
            State::AwaitingReceipt { channel, until } => {
                ("awaiting_receipt", None, Some(channel), Some(until))
            }
            State::Done { reason, .. } => ("done", Some(reason), None, None),
        };
        Self {
            device: d.device,
            user: d.user,
            platform: d.platform,
            state,
            reason,
            channel,
            until: until.map(Moment),
        }
    }
}

/// How much to say about a message.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StatusQuery {
    /// Whether to list deliveries.
    #[serde(default)]
    pub(crate) deliveries: bool,
    /// List deliveries after this device.
    #[serde(default)]
    pub(crate) after: Option<String>,
}

/// What a recall did.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Recalled {
    /// The message.
    #[schemars(with = "String", extend("format" = "uuid"))]
    pub(crate) id: MessageId,
    /// When it was recalled first.
    pub(crate) recalled_at: Moment,
    /// Deliveries that were stopped by this call.
    pub(crate) stopped: u64,
    /// Deliveries that a vendor withdrew.
    pub(crate) withdrawn: u64,
}
