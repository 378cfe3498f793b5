//! Users on the wire.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use hongyan_core::device::Platform;
use hongyan_core::session::AppState;
use hongyan_core::{Class, DeviceId, UserId, user};

use super::{Moment, Patch, schema};

/// An account.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct User {
    /// Its id.
    #[schemars(with = "String")]
    pub(crate) id: UserId,
    /// Free attributes.
    pub(crate) attributes: Map<String, Value>,
    /// What the person wants.
    pub(crate) preferences: Preferences,
    /// When it was first heard of.
    pub(crate) created_at: Moment,
}

impl From<user::User> for User {
    fn from(user: user::User) -> Self {
        Self {
            id: user.id,
            attributes: user.attributes,
            preferences: user.preferences.into(),
            created_at: user.created_at.into(),
        }
    }
}

/// What a person wants to be told, and when.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Preferences {
    /// Classes that are never pushed.
    #[schemars(schema_with = "schema::classes")]
    pub(crate) muted_classes: Vec<Class>,
    /// When nothing is pushed.
    pub(crate) quiet_hours: Option<QuietHours>,
    /// IANA time zone; the device's when absent.
    pub(crate) timezone: Option<String>,
}

impl From<user::Preferences> for Preferences {
    fn from(p: user::Preferences) -> Self {
        Self {
            muted_classes: p.muted_classes,
            quiet_hours: p.quiet_hours.map(QuietHours::from),
            timezone: p.timezone,
        }
    }
}

impl From<Preferences> for user::Preferences {
    fn from(p: Preferences) -> Self {
        Self {
            muted_classes: p.muted_classes,
            quiet_hours: p.quiet_hours.map(Into::into),
            timezone: p.timezone,
        }
    }
}

/// A daily window in which pushes wait. It may cross midnight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct QuietHours {
    /// Begin, `HH:MM`, local time.
    #[schemars(regex(pattern = "^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    pub(crate) start: String,
    /// End, `HH:MM`, local time, exclusive; `24:00` is the day's end.
    #[schemars(regex(pattern = "^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$"))]
    pub(crate) end: String,
    /// The classes that wait.
    #[serde(default = "QuietHours::classes")]
    #[schemars(schema_with = "schema::quiet_classes")]
    pub(crate) classes: Vec<Class>,
}

impl QuietHours {
    fn classes() -> Vec<Class> {
        vec![Class::Im, Class::Subscription, Class::Marketing]
    }
}

impl From<user::QuietHours> for QuietHours {
    fn from(q: user::QuietHours) -> Self {
        Self {
            start: q.start,
            end: q.end,
            classes: q.classes,
        }
    }
}

impl From<QuietHours> for user::QuietHours {
    fn from(q: QuietHours) -> Self {
        Self {
            start: q.start,
            end: q.end,
            classes: q.classes,
        }
    }
}

/// Everything about a user; what is left out is empty.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct UserState {
    /// Free attributes, at most 16 KiB of JSON.
    pub(crate) attributes: Map<String, Value>,
    /// What the person wants.
    pub(crate) preferences: Preferences,
}

/// What to change of a user. Fields that are left out stay; `null` clears.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct UserChange {
    /// Attributes to set; an attribute that is `null` goes.
    pub(crate) attributes: Option<Map<String, Value>>,
    /// Preferences to change.
    pub(crate) preferences: Patch<PreferencesChange>,
}

/// What to change of preferences.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PreferencesChange {
    /// Classes that are never pushed.
    #[schemars(schema_with = "schema::classes")]
    pub(crate) muted_classes: Patch<Vec<Class>>,
    /// When nothing is pushed.
    pub(crate) quiet_hours: Patch<QuietHours>,
    /// IANA time zone.
    pub(crate) timezone: Patch<String>,
}

impl PreferencesChange {
    pub(crate) fn apply(self, preferences: &mut Preferences) {
        self.muted_classes
            .apply_or_default(&mut preferences.muted_classes);
        self.quiet_hours.apply(&mut preferences.quiet_hours);
        self.timezone.apply(&mut preferences.timezone);
    }
}

/// Who is online where.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Presence {
    /// The user.
    #[schemars(with = "String")]
    pub(crate) user: UserId,
    /// Whether any device is connected.
    pub(crate) online: bool,
    /// Every device of the user.
    pub(crate) devices: Vec<DevicePresence>,
}

/// One device's connection.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct DevicePresence {
    /// The device.
    #[schemars(with = "String")]
    pub(crate) device_id: DeviceId,
    /// What it runs.
    #[schemars(schema_with = "schema::platform")]
    pub(crate) platform: Platform,
    /// Whether it is connected.
    pub(crate) online: bool,
    /// Whether the app is in front, when connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::maybe_app_state")]
    pub(crate) state: Option<AppState>,
    /// Since when it is connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) since: Option<Moment>,
    /// Over which protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) protocol: Option<&'static str>,
    /// When it was last heard of.
    pub(crate) last_seen: Moment,
}
