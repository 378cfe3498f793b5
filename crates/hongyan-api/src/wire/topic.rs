//! Topics on the wire.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use hongyan_core::DeviceId;

/// Devices to subscribe and unsubscribe.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SubscribersChange {
    /// Devices to subscribe.
    #[schemars(with = "Vec<String>", length(max = 10000))]
    pub(crate) subscribe: Vec<DeviceId>,
    /// Devices to unsubscribe.
    #[schemars(with = "Vec<String>", length(max = 10000))]
    pub(crate) unsubscribe: Vec<DeviceId>,
}

/// What a bulk subscription did.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct SubscribersChanged {
    /// Devices that are subscribed now.
    pub(crate) subscribed: usize,
    /// Devices that are not subscribed now.
    pub(crate) unsubscribed: usize,
    /// Devices that do not exist, or have too many topics.
    pub(crate) refused: Vec<RefusedDevice>,
}

/// A device that could not be subscribed.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RefusedDevice {
    /// The device.
    #[schemars(with = "String")]
    pub(crate) device_id: DeviceId,
    /// Why.
    pub(crate) problem: String,
}
