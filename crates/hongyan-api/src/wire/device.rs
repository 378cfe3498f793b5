//! Devices on the wire.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use hongyan_core::device::{self, Environment, Permission, Platform, TokenState};
use hongyan_core::draft::Fault;
use hongyan_core::limits::{TAG_BYTES_MAX, TAGS_LEN_MAX, TOKEN_BYTES_MAX};
use hongyan_core::port;
use hongyan_core::session::AppState;
use hongyan_core::{ChannelId, CredentialName, DeviceId, Reason, Timestamp, Topic, UserId};

use super::{Moment, Patch, schema};
use crate::options::TEXT_BYTES_MAX;

/// What a device says of itself when it registers: its full state.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Registration {
    /// The installation's own id, normally a UUID; made by the server when absent.
    #[serde(default)]
    #[schemars(with = "Option<String>", length(min = 1, max = 64))]
    pub(crate) device_id: Option<DeviceId>,
    /// What it runs.
    #[schemars(schema_with = "schema::platform")]
    pub(crate) platform: Platform,
    /// Package or bundle id.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub(crate) package: Option<String>,
    /// Maker, such as `xiaomi`.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub(crate) brand: Option<String>,
    /// Model.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub(crate) model: Option<String>,
    /// BCP 47 language tag.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub(crate) locale: Option<String>,
    /// IANA time zone.
    #[serde(default)]
    pub(crate) timezone: Option<String>,
    /// The app's version.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub(crate) app_version: Option<String>,
    /// Whether the person lets the app notify.
    #[serde(default)]
    #[schemars(schema_with = "schema::permission")]
    pub(crate) permission: Permission,
    /// Tags; those that the device has stay when absent.
    #[serde(default)]
    #[schemars(length(max = 100))]
    pub(crate) tags: Option<BTreeSet<String>>,
    /// Vendor tokens; those that the device has stay when absent.
    #[serde(default)]
    pub(crate) tokens: Option<Vec<NamedToken>>,
    /// The token that the device got before. With it, or sent as the bearer, the device keeps its token and its user; without
    /// it (after the app was installed anew), the device gets a new token and is bound to nobody.
    #[serde(default)]
    pub(crate) device_token: Option<DeviceSecret>,
}

/// A device token in a body: never printed.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub(crate) struct DeviceSecret(pub(crate) String);

impl std::fmt::Debug for DeviceSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DeviceSecret(…)")
    }
}

/// What registering gives.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Registered {
    /// The device's id.
    #[schemars(with = "String")]
    pub(crate) device_id: DeviceId,
    /// The token with which the device acts: `hy_dt_…`. Keep it; it is not shown again.
    pub(crate) device_token: String,
}

/// What a device tells true wake-ups from false ones with.
#[derive(Serialize, JsonSchema)]
pub(crate) struct WakeKey {
    /// The device's own secret, base64url without padding.
    pub(crate) key: String,
    /// The app, as its wake-ups name it: 8 hex digits.
    pub(crate) app: String,
    /// How far the time in a wake-up may be from the device's clock, in seconds.
    pub(crate) valid_s: u64,
}

impl From<port::WakeKey> for WakeKey {
    fn from(key: port::WakeKey) -> Self {
        Self {
            key: URL_SAFE_NO_PAD.encode(key.key.expose()),
            app: format!("{:08x}", u32::from_be_bytes(key.app)),
            valid_s: key.valid.as_secs(),
        }
    }
}

/// A vendor token.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct VendorToken {
    /// The vendor's opaque text.
    #[schemars(length(min = 1, max = 4096))]
    pub(crate) token: String,
    /// The vendor's world, where it has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::maybe_environment")]
    pub(crate) environment: Option<Environment>,
    /// Which credential it belongs to; the app's `default` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", length(max = 32))]
    pub(crate) credential: Option<CredentialName>,
}

/// A vendor token with its channel.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NamedToken {
    /// The channel.
    #[schemars(with = "String")]
    pub(crate) channel: ChannelId,
    /// The vendor's opaque text.
    #[schemars(length(min = 1, max = 4096))]
    pub(crate) token: String,
    /// The vendor's world, where it has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::maybe_environment")]
    pub(crate) environment: Option<Environment>,
    /// Which credential it belongs to; the app's `default` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", length(max = 32))]
    pub(crate) credential: Option<CredentialName>,
}

impl NamedToken {
    pub(crate) fn into_core(self, now: Timestamp) -> device::Token {
        device::Token {
            channel: self.channel,
            token: self.token,
            credential: self.credential,
            environment: self.environment,
            state: TokenState::Active,
            paused: false,
            updated_at: now,
        }
    }
}

/// A vendor token as it is shown: the token itself is cut.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ShownToken {
    /// The channel.
    #[schemars(with = "String")]
    pub(crate) channel: ChannelId,
    /// The end of the token, to compare.
    pub(crate) token_tail: String,
    /// The vendor's world.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::maybe_environment")]
    pub(crate) environment: Option<Environment>,
    /// Which credential it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub(crate) credential: Option<CredentialName>,
    /// `active`, `paused` (the device wants no pushes over it for now) or `dead`.
    pub(crate) state: &'static str,
    /// Why it is dead.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::maybe_reason")]
    pub(crate) reason: Option<Reason>,
    /// Since when it is dead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dead_since: Option<Moment>,
    /// When the device last gave it.
    pub(crate) updated_at: Moment,
}

impl From<device::Token> for ShownToken {
    fn from(token: device::Token) -> Self {
        let tail: Vec<char> = token.token.chars().rev().take(6).collect();
        let (state, reason, dead_since) = match token.state {
            TokenState::Active if token.paused => ("paused", None, None),
            TokenState::Active => ("active", None, None),
            TokenState::Dead { reason, at } => ("dead", Some(reason), Some(at.into())),
        };
        Self {
            channel: token.channel,
            // A short token would be shown whole.
            token_tail: if token.token.len() >= 24 {
                tail.into_iter().rev().collect()
            } else {
                String::new()
            },
            environment: token.environment,
            credential: token.credential,
            state,
            reason,
            dead_since,
            updated_at: token.updated_at.into(),
        }
    }
}

/// One installation.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Device {
    /// Its id.
    #[schemars(with = "String")]
    pub(crate) device_id: DeviceId,
    /// What it runs.
    #[schemars(schema_with = "schema::platform")]
    pub(crate) platform: Platform,
    /// Package or bundle id.
    pub(crate) package: Option<String>,
    /// Maker.
    pub(crate) brand: Option<String>,
    /// Model.
    pub(crate) model: Option<String>,
    /// BCP 47 language tag.
    pub(crate) locale: Option<String>,
    /// IANA time zone.
    pub(crate) timezone: Option<String>,
    /// The app's version.
    pub(crate) app_version: Option<String>,
    /// Whether the person lets the app notify.
    #[schemars(schema_with = "schema::permission")]
    pub(crate) permission: Permission,
    /// Tags.
    pub(crate) tags: BTreeSet<String>,
    /// Vendor tokens.
    pub(crate) tokens: Vec<ShownToken>,
    /// The user it is bound to.
    #[schemars(with = "Option<String>")]
    pub(crate) user: Option<UserId>,
    /// Topics that it subscribes to; only when one device is read.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<String>>")]
    pub(crate) topics: Option<Vec<Topic>>,
    /// Whether it is connected now.
    pub(crate) online: bool,
    /// When it registered first.
    pub(crate) created_at: Moment,
    /// When it was last heard of.
    pub(crate) last_seen: Moment,
}

impl Device {
    pub(crate) fn new(device: device::Device, online: bool) -> Self {
        Self {
            device_id: device.id,
            platform: device.platform,
            package: device.package,
            brand: device.brand,
            model: device.model,
            locale: device.locale,
            timezone: device.timezone,
            app_version: device.app_version,
            permission: device.permission,
            tags: device.tags,
            tokens: device.tokens.into_iter().map(ShownToken::from).collect(),
            user: device.user,
            topics: None,
            online,
            created_at: device.created_at.into(),
            last_seen: device.last_seen.into(),
        }
    }
}

/// What to change of a device. Fields that are left out stay; `null` clears.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DeviceChange {
    /// Package or bundle id.
    pub(crate) package: Patch<String>,
    /// Maker.
    pub(crate) brand: Patch<String>,
    /// Model.
    pub(crate) model: Patch<String>,
    /// BCP 47 language tag.
    pub(crate) locale: Patch<String>,
    /// IANA time zone.
    pub(crate) timezone: Patch<String>,
    /// The app's version.
    pub(crate) app_version: Patch<String>,
    /// Whether the person lets the app notify.
    #[schemars(schema_with = "schema::maybe_permission")]
    pub(crate) permission: Patch<Permission>,
    /// All its tags.
    pub(crate) tags: Patch<BTreeSet<String>>,
    /// Tags to add.
    pub(crate) add_tags: Option<BTreeSet<String>>,
    /// Tags to take away.
    pub(crate) remove_tags: Option<BTreeSet<String>>,
    /// Whether its app is in front now, for devices that are connected by a stream or polls. It is not stored.
    #[schemars(with = "Option<String>", extend("enum" = ["foreground", "background"]))]
    pub(crate) state: Option<AppState>,
}

impl DeviceChange {
    /// Whether nothing but `state` is said.
    pub(crate) fn is_state_alone(&self) -> bool {
        let stored = Self {
            state: None,
            ..self.clone()
        };
        stored == Self::default()
    }

    pub(crate) fn apply(self, device: &mut device::Device) {
        self.package.apply(&mut device.package);
        self.brand.apply(&mut device.brand);
        self.model.apply(&mut device.model);
        self.locale.apply(&mut device.locale);
        self.timezone.apply(&mut device.timezone);
        self.app_version.apply(&mut device.app_version);
        self.permission.apply_or_default(&mut device.permission);
        self.tags.apply_or_default(&mut device.tags);
        device.tags.extend(self.add_tags.unwrap_or_default());
        for tag in self.remove_tags.unwrap_or_default() {
            device.tags.remove(&tag);
        }
        lower_brand(device);
    }
}

/// Makers are compared without case.
pub(crate) fn lower_brand(device: &mut device::Device) {
    if let Some(brand) = &mut device.brand {
        *brand = brand.to_lowercase();
    }
}

/// Binds a device to a user.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Login {
    /// The user.
    #[schemars(with = "String", length(min = 1, max = 128))]
    pub(crate) user: UserId,
    /// The app server's signature, when the app's policy wants it: `<key id>.<expiry, Unix seconds>.<mac>` with `mac` =
    /// base64url (no padding) of HMAC-SHA-256 under SHA-256(server key) over `app`, `device`, `user` and expiry, joined by line feeds.
    #[serde(default)]
    pub(crate) user_token: Option<DeviceSecret>,
}

/// One line of an import or export.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImportLine {
    /// The installation's id.
    #[schemars(with = "String", length(min = 1, max = 64))]
    pub(crate) device_id: DeviceId,
    /// What it runs.
    #[schemars(schema_with = "schema::platform")]
    pub(crate) platform: Platform,
    /// Package or bundle id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) package: Option<String>,
    /// Maker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) brand: Option<String>,
    /// Model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) model: Option<String>,
    /// BCP 47 language tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) locale: Option<String>,
    /// IANA time zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) timezone: Option<String>,
    /// The app's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) app_version: Option<String>,
    /// Whether the person lets the app notify.
    #[serde(default)]
    #[schemars(schema_with = "schema::permission")]
    pub(crate) permission: Permission,
    /// Tags.
    #[serde(default)]
    pub(crate) tags: BTreeSet<String>,
    /// Vendor tokens.
    #[serde(default)]
    pub(crate) tokens: Vec<CarriedToken>,
    /// The user it is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub(crate) user: Option<UserId>,
    /// All topics that it subscribes to; those that it has stay when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<String>>", length(max = 200))]
    pub(crate) topics: Option<BTreeSet<Topic>>,
}

/// A vendor token as it is carried from one server to another.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CarriedToken {
    /// The channel.
    #[schemars(with = "String")]
    pub(crate) channel: ChannelId,
    /// The vendor's opaque text.
    #[schemars(length(min = 1, max = 4096))]
    pub(crate) token: String,
    /// The vendor's world, where it has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::maybe_environment")]
    pub(crate) environment: Option<Environment>,
    /// Which credential it belongs to; the app's `default` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", length(max = 32))]
    pub(crate) credential: Option<CredentialName>,
    /// Whether the device wants no pushes over it for now.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) paused: bool,
    /// That the vendor called it dead: it is not tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) dead: Option<DeadToken>,
}

/// Why a token is not tried.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeadToken {
    /// Why.
    #[schemars(schema_with = "schema::reason")]
    pub(crate) reason: Reason,
    /// Since when.
    pub(crate) since: Moment,
}

impl CarriedToken {
    /// The token without its state, as a device gives it.
    pub(crate) fn named(&self) -> NamedToken {
        NamedToken {
            channel: self.channel.clone(),
            token: self.token.clone(),
            environment: self.environment,
            credential: self.credential.clone(),
        }
    }

    pub(crate) fn into_core(self, now: Timestamp) -> device::Token {
        let mut token = self.named().into_core(now);
        token.paused = self.paused;
        if let Some(dead) = self.dead {
            token.state = TokenState::Dead {
                reason: dead.reason,
                at: dead.since.0,
            };
        }
        token
    }
}

impl From<device::Token> for CarriedToken {
    fn from(token: device::Token) -> Self {
        Self {
            channel: token.channel,
            token: token.token,
            environment: token.environment,
            credential: token.credential,
            paused: token.paused,
            dead: match token.state {
                TokenState::Active => None,
                TokenState::Dead { reason, at } => Some(DeadToken {
                    reason,
                    since: at.into(),
                }),
            },
        }
    }
}

impl From<device::Device> for ImportLine {
    fn from(device: device::Device) -> Self {
        Self {
            device_id: device.id,
            platform: device.platform,
            package: device.package,
            brand: device.brand,
            model: device.model,
            locale: device.locale,
            timezone: device.timezone,
            app_version: device.app_version,
            permission: device.permission,
            tags: device.tags,
            tokens: device.tokens.into_iter().map(CarriedToken::from).collect(),
            topics: None,
            user: device.user,
        }
    }
}

/// What an import did.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(crate) struct Imported {
    /// Lines that were read, empty ones included.
    pub(crate) lines: u64,
    /// Lines that were taken: `lines` without those that were refused, left empty or skipped.
    pub(crate) imported: u64,
    /// Devices that they made.
    pub(crate) created: u64,
    /// Devices that were known and that they changed. Of several lines about one device the last counts.
    pub(crate) updated: u64,
    /// Lines that were refused.
    pub(crate) failed: u64,
    /// Why lines were refused: the first thousand.
    pub(crate) errors: Vec<LineError>,
    /// Everything up to this line is stored. After an interruption, send the same file again with `from_line` one higher.
    pub(crate) stored_up_to_line: u64,
    /// Why the import ended early; absent when it is complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stopped: Option<String>,
}

/// A line that was refused.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct LineError {
    /// Its number, from 1.
    pub(crate) line: u64,
    /// Where in the line.
    pub(crate) path: String,
    /// What is wrong.
    pub(crate) problem: String,
}

/// Where an import begins.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImportQuery {
    /// Lines before this one are skipped: they were stored by an earlier call.
    #[serde(default)]
    pub(crate) from_line: u64,
}

/// Where an export begins.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExportQuery {
    /// Begin after this device: the last one of an interrupted export.
    #[serde(default)]
    pub(crate) after: Option<String>,
}

/// Everything that is wrong with a device's state.
pub(crate) fn check(device: &device::Device) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut fault = |path: String, problem: String| faults.push(Fault { path, problem });
    for (path, text) in [
        ("package", &device.package),
        ("brand", &device.brand),
        ("model", &device.model),
        ("locale", &device.locale),
        ("app_version", &device.app_version),
    ] {
        if text.as_ref().is_some_and(|t| t.len() > TEXT_BYTES_MAX) {
            fault(
                path.to_owned(),
                format!("must be at most {TEXT_BYTES_MAX} bytes"),
            );
        }
    }
    if let Some(timezone) = &device.timezone
        && !crate::handler::is_timezone(timezone)
    {
        fault(
            "timezone".to_owned(),
            "must be an IANA time zone, such as Asia/Shanghai".to_owned(),
        );
    }
    if device.tags.len() > TAGS_LEN_MAX {
        fault("tags".to_owned(), format!("must be at most {TAGS_LEN_MAX}"));
    }
    if device
        .tags
        .iter()
        .any(|t| t.is_empty() || t.len() > TAG_BYTES_MAX)
    {
        fault(
            "tags".to_owned(),
            format!("each must be 1 to {TAG_BYTES_MAX} bytes"),
        );
    }
    for (i, token) in device.tokens.iter().enumerate() {
        if !(1..=TOKEN_BYTES_MAX).contains(&token.token.len()) {
            fault(
                format!("tokens[{i}].token"),
                format!("must be 1 to {TOKEN_BYTES_MAX} bytes"),
            );
        }
        if device
            .tokens
            .iter()
            .take(i)
            .any(|other| other.channel == token.channel)
        {
            fault(
                format!("tokens[{i}].channel"),
                "names a channel twice; a device has one token per channel".to_owned(),
            );
        }
    }
    faults
}
