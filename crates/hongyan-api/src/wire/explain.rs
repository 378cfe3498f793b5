//! Explanations on the wire.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use hongyan_core::device::Platform;
use hongyan_core::port::Parcel;
use hongyan_core::{ChannelId, CredentialName, DeviceId, Reason, UserId};

use super::{Moment, schema};
use crate::services;

/// What would happen to a message; nothing was sent.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Explanation {
    /// For each device, in routing order.
    pub(crate) devices: Vec<Device>,
    /// Whether there are more devices than are listed.
    pub(crate) more: bool,
}

/// What would happen to one device.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ExplainedDevice")]
pub(crate) struct Device {
    /// The device; absent for a user without devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub(crate) device: Option<DeviceId>,
    /// The user it would be meant for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub(crate) user: Option<UserId>,
    /// What it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::maybe_platform")]
    pub(crate) platform: Option<Platform>,
    /// Whether it is connected.
    pub(crate) connected: bool,
    /// What would happen.
    #[serde(flatten)]
    pub(crate) would: Would,
}

/// One step.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Would {
    /// `online` (to the connection), `both` (to the connection, and at once what `beside` says), `push` (to a vendor), `hold`
    /// (wait) or `end`.
    pub(crate) decision: &'static str,
    /// Why it would wait or end, or why the channel would refuse it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::maybe_reason")]
    pub(crate) reason: Option<Reason>,
    /// Until when it would wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<Moment>,
    /// The vendor's channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub(crate) channel: Option<ChannelId>,
    /// The credential.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub(crate) credential: Option<CredentialName>,
    /// The exact request to the vendor, without tokens and secrets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) request: Option<VendorRequest>,
    /// The words with which the channel would refuse it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) detail: Option<String>,
    /// What would follow if the connection stays silent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) otherwise: Option<Box<Self>>,
    /// What would happen beside the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) beside: Option<Box<Self>>,
}

/// A request to a vendor.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct VendorRequest {
    /// HTTP method.
    pub(crate) method: &'static str,
    /// Path, with `{token}` in place of a token.
    pub(crate) path: String,
    /// Headers that shape delivery.
    pub(crate) headers: Vec<(String, String)>,
    /// Body as JSON.
    pub(crate) body: Value,
    /// Texts that were shortened to the vendor's limit.
    pub(crate) truncated: Vec<Truncated>,
    /// Why it goes out as a lower class than the message has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) downgraded: Option<String>,
}

/// A text that was shortened.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Truncated {
    /// `title` or `body`.
    pub(crate) field: &'static str,
    /// Length before, in the vendor's unit.
    pub(crate) from: usize,
    /// Length after.
    pub(crate) to: usize,
}

impl From<services::Explanation> for Explanation {
    fn from(e: services::Explanation) -> Self {
        Self {
            devices: e.devices.into_iter().map(Device::from).collect(),
            more: e.more,
        }
    }
}

impl From<services::DeviceExplanation> for Device {
    fn from(d: services::DeviceExplanation) -> Self {
        Self {
            device: d.device,
            user: d.user,
            platform: d.platform,
            connected: d.connected,
            would: d.would.into(),
        }
    }
}

impl Would {
    const fn bare(decision: &'static str) -> Self {
        Self {
            decision,
            reason: None,
            until: None,
            channel: None,
            credential: None,
            request: None,
            detail: None,
            otherwise: None,
            beside: None,
        }
    }
}

impl From<services::Would> for Would {
    fn from(would: services::Would) -> Self {
        match would {
            services::Would::Online { until, otherwise } => Self {
                until: Some(until.into()),
                otherwise: Some(Box::new((*otherwise).into())),
                ..Self::bare("online")
            },
            services::Would::Both { beside } => Self {
                beside: Some(Box::new((*beside).into())),
                ..Self::bare("both")
            },
            services::Would::Push {
                channel,
                credential,
                parcel,
            } => {
                // What the channel would refuse ends here: nothing is pushed.
                let (decision, request, reason, detail) = match parcel {
                    Ok(parcel) => ("push", Some(parcel.into()), None, None),
                    Err((reason, detail)) => ("end", None, Some(reason), Some(detail)),
                };
                Self {
                    channel: Some(channel),
                    credential: Some(credential),
                    request,
                    reason,
                    detail,
                    ..Self::bare(decision)
                }
            }
            services::Would::Hold { until, reason } => Self {
                until: Some(until.into()),
                reason: Some(reason),
                ..Self::bare("hold")
            },
            services::Would::End(reason) => Self {
                reason: Some(reason),
                ..Self::bare("end")
            },
        }
    }
}

impl From<Parcel> for VendorRequest {
    fn from(parcel: Parcel) -> Self {
        Self {
            method: parcel.method,
            path: parcel.path,
            headers: parcel.headers,
            body: parcel.body,
            truncated: parcel
                .truncated
                .into_iter()
                .map(|t| Truncated {
                    field: t.field,
                    from: t.from,
                    to: t.to,
                })
                .collect(),
            downgraded: parcel.downgraded,
        }
    }
}
