//! Apple Push Notification service, provider side: `/3/device`, broadcasts and channel management.
//!
//! Sources: Apple Developer Documentation, "Sending notification requests to APNs", "Handling
//! notification responses from APNs", "Establishing a token-based connection to APNs",
//! "Establishing a certificate-based connection to APNs", "Sending channel management requests to
//! APNs" and "Sending broadcast push notification requests to APNs". The order of checks is ours;
//! Apple publishes none. An alert on `/3/device` whose body is not JSON is refused with
//! `BadRequestPayload`, which Apple documents for channels only.

mod channels;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};

use http::Method;
use serde_json::{Value, json};

use super::Simulator;
use crate::accounts::{Accounts, OTHER_PACKAGE, PACKAGE};
use crate::channel::Channel;
use crate::dice::{Dice, HEX};
use crate::exchange::{Call, Connection, ProviderToken, Reply};
use crate::faults::{Endpoint, FaultKind};
use crate::jwt::Jwt;
use crate::push::{self, Push};
use crate::tokens::TokenState;
use crate::world::World;

const PAYLOAD_BYTES_MAX: usize = 4096;
const PAYLOAD_VOIP_BYTES_MAX: usize = 5120;
const COLLAPSE_ID_BYTES_MAX: usize = 64;
/// Age at which a provider token is refused, seconds.
const PROVIDER_TOKEN_S_MAX: i64 = 3600;
/// Time between two new provider tokens of one connection, milliseconds.
const PROVIDER_TOKEN_PAUSE_MS: i64 = 20 * 60 * 1000;
/// Longest storage without `apns-expiration`, milliseconds.
const STORED_MS_MAX: i64 = 30 * 86_400 * 1000;

/// Push types with the suffix of their topic; `None` for `mdm`, whose topic is its own.
const PUSH_TYPES: &[(&str, Option<&str>)] = &[
    ("alert", Some("")),
    ("background", Some("")),
    ("voip", Some(".voip")),
    ("complication", Some(".complication")),
    ("fileprovider", Some(".pushkit.fileprovider")),
    ("mdm", None),
    ("liveactivity", Some(".push-type.liveactivity")),
    ("location", Some(".location-query")),
    ("pushtotalk", Some(".voip-ptt")),
    ("widgets", Some(".push-type.widgets")),
    ("controls", Some(".push-type.controls")),
];

/// What the service remembers beyond tokens.
#[derive(Debug, Default)]
pub(crate) struct State {
    channels: Mutex<channels::Channels>,
    /// When an injected `auth_expired` last told a sender to mint anew; such a sender is not
    /// punished for doing so.
    forced_refresh_ms: AtomicI64,
}

/// A refusal: status, reason and, for dead tokens, since when.
struct Refusal {
    status: u16,
    reason: &'static str,
    since_ms: Option<i64>,
}

const fn refuse(status: u16, reason: &'static str) -> Refusal {
    Refusal {
        status,
        reason,
        since_ms: None,
    }
}

/// Makes a broadcast channel of the demo app, as Apple's console does.
pub(crate) fn make_channel(world: &World, stores: bool) -> Option<String> {
    channels::make(world, PACKAGE, u8::from(stores))
}

/// The simulator.
#[derive(Debug)]
pub(crate) struct Apns;

impl Simulator for Apns {
    fn channel(&self) -> Channel {
        Channel::Apns
    }

    fn claims(&self, call: &Call) -> Option<Endpoint> {
        match super::segments(call).as_slice() {
            ["3", "device", ..] | ["4", "broadcasts", ..] | ["1", "apps", ..] => {
                Some(Endpoint::Send)
            }
            _ => None,
        }
    }

    fn handle(&self, world: &World, connection: &Connection, call: &Call) -> Reply {
        handle(world, connection, call)
    }

    fn fault(&self, world: &World, call: &Call, kind: FaultKind) -> Reply {
        fault(world, call, kind)
    }

    fn new_token(&self, unique: &str, dice: &Dice) -> String {
        format!("{unique}{}", dice.text(HEX, 32))
    }

    fn credential(&self, accounts: &Accounts) -> Value {
        let apns = &accounts.apns;
        json!({
            "team_id": apns.team_id, "key_id": apns.key_id, "private_key": apns.private_key,
            "bundle_id": apns.bundle_id, "environment": apns.environment,
        })
    }
}

fn handle(world: &World, connection: &Connection, call: &Call) -> Reply {
    match call.path.strip_prefix("/3/device") {
        Some(rest) => {
            let id = apns_id(call);
            match send(world, connection, call, rest) {
                Ok(()) => {
                    let reply = Reply::empty(200, "accepted").with("apns-id", id);
                    if development(call) {
                        let unique = uuid::Uuid::new_v4().to_string();
                        reply.with("apns-unique-id", unique)
                    } else {
                        reply
                    }
                }
                Err(refusal) => refused(&refusal).with("apns-id", id),
            }
        }
        None => channels::handle(world, connection, call),
    }
}

fn fault(world: &World, call: &Call, kind: FaultKind) -> Reply {
    let refusal = match kind {
        FaultKind::TokenInvalid => Refusal {
            status: 410,
            reason: "Unregistered",
            since_ms: Some(world.clock.now_ms()),
        },
        FaultKind::AuthExpired => {
            world
                .apns
                .forced_refresh_ms
                .store(world.clock.now_ms(), Ordering::Relaxed);
            refuse(403, "ExpiredProviderToken")
        }
        FaultKind::RateLimited | FaultKind::QuotaExhausted => refuse(429, "TooManyRequests"),
        _ => refuse(503, "ServiceUnavailable"),
    };
    refused(&refusal).with("apns-id", apns_id(call))
}

fn refused(refusal: &Refusal) -> Reply {
    let body = match refusal.since_ms {
        Some(since) => json!({"reason": refusal.reason, "timestamp": since}),
        None => json!({"reason": refusal.reason}),
    };
    Reply::json(refusal.status, &body, format!("refused {}", refusal.reason))
}

fn send(world: &World, connection: &Connection, call: &Call, rest: &str) -> Result<(), Refusal> {
    if call.method != Method::POST {
        return Err(refuse(405, "MethodNotAllowed"));
    }
    let token = match rest.strip_prefix('/') {
        None | Some("") => return Err(refuse(400, "MissingDeviceToken")),
        Some(token) if token.contains('/') => return Err(refuse(404, "BadPath")),
        Some(token) => token.to_ascii_lowercase(),
    };
    let headers = Headers::read(call)?;
    let provider = authenticate(world, connection, call)?;
    let topic = check_topic(&headers, provider)?;

    let limit = if headers.push_type == Some("voip") {
        PAYLOAD_VOIP_BYTES_MAX
    } else {
        PAYLOAD_BYTES_MAX
    };
    if call.body.is_empty() {
        return Err(refuse(400, "PayloadEmpty"));
    }
    if call.body.len() > limit {
        return Err(refuse(413, "PayloadTooLarge"));
    }
    let Ok(payload @ Value::Object(_)) = serde_json::from_slice::<Value>(&call.body) else {
        return Err(refuse(400, "BadRequestPayload"));
    };
    check_token(world, call, &token, &topic)?;

    let now = world.clock.now_ms();
    let expires_ms = match headers.expiration {
        Some(0) => now,
        Some(at) => at.saturating_mul(1000).min(now + STORED_MS_MAX),
        None => now + STORED_MS_MAX,
    };
    world.deliver(
        Channel::Apns,
        &token,
        notification(
            &payload,
            headers.collapse_id,
            expires_ms,
            headers.expiration != Some(0),
        ),
    );
    Ok(())
}

fn notification(payload: &Value, collapse: Option<&str>, expires_ms: i64, stored: bool) -> Push {
    let alert = payload.pointer("/aps/alert");
    let (title, body) = match alert {
        Some(Value::String(body)) => (String::new(), body.clone()),
        Some(alert) => (push::text(alert, "/title"), push::text(alert, "/body")),
        None => (String::new(), String::new()),
    };
    Push {
        message: push::message_id(payload),
        title,
        body,
        visible: alert.is_some(),
        collapse: collapse.map(str::to_owned),
        expires_ms,
        stored,
        receipt: None,
    }
}

/// The headers that say how to deliver, each checked for its form.
struct Headers<'a> {
    topic: Option<&'a str>,
    push_type: Option<&'a str>,
    expiration: Option<i64>,
    collapse_id: Option<&'a str>,
}

impl<'a> Headers<'a> {
    fn read(call: &'a Call) -> Result<Self, Refusal> {
        const SINGLE: [&str; 8] = [
            "authorization",
            "apns-id",
            "apns-expiration",
            "apns-priority",
            "apns-topic",
            "apns-collapse-id",
            "apns-push-type",
            "apns-channel-id",
        ];
        if SINGLE
            .iter()
            .any(|name| call.headers.get_all(*name).iter().count() > 1)
        {
            return Err(refuse(400, "DuplicateHeaders"));
        }
        if call.header("apns-id").is_some_and(|id| !canonical_uuid(id)) {
            return Err(refuse(400, "BadMessageId"));
        }
        let expiration = match call.header("apns-expiration") {
            None => None,
            Some(text) => match text.parse::<i64>() {
                Ok(at) if at >= 0 => Some(at),
                _ => return Err(refuse(400, "BadExpirationDate")),
            },
        };
        let priority = call.header("apns-priority");
        if priority.is_some_and(|priority| !["1", "5", "10"].contains(&priority)) {
            return Err(refuse(400, "BadPriority"));
        }
        let collapse_id = call.header("apns-collapse-id");
        if collapse_id.is_some_and(|id| id.len() > COLLAPSE_ID_BYTES_MAX) {
            return Err(refuse(400, "BadCollapseId"));
        }
        let push_type = call.header("apns-push-type");
        if push_type.is_some_and(|kind| !PUSH_TYPES.iter().any(|(name, _)| *name == kind)) {
            return Err(refuse(400, "InvalidPushType"));
        }
        // Priority 10 is also what an absent header means.
        if push_type == Some("background") && priority.unwrap_or("10") == "10" {
            return Err(refuse(400, "BadPriority"));
        }
        Ok(Self {
            topic: call.header("apns-topic"),
            push_type,
            expiration,
            collapse_id,
        })
    }
}

/// How the provider proved who it is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Provider {
    Token,
    Certificate,
}

fn authenticate(world: &World, connection: &Connection, call: &Call) -> Result<Provider, Refusal> {
    // With a client certificate the authorization header is ignored.
    if let Some(certificate) = &connection.client_certificate {
        return if *certificate == world.keys.apns_certificate {
            Ok(Provider::Certificate)
        } else {
            Err(refuse(403, "BadCertificate"))
        };
    }
    let token = call
        .bearer()
        .ok_or_else(|| refuse(403, "MissingProviderToken"))?;
    let now_s = world.clock.now_s();
    let held = connection
        .provider_token
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    if let Some(held) = &held
        && held.text == token
    {
        return if now_s - held.issued_s > PROVIDER_TOKEN_S_MAX {
            Err(refuse(403, "ExpiredProviderToken"))
        } else {
            Ok(Provider::Token)
        };
    }

    let invalid = || refuse(403, "InvalidProviderToken");
    let jwt = Jwt::parse(token).ok_or_else(invalid)?;
    let account = &world.accounts.apns;
    if jwt.header("alg") != Some("ES256")
        || jwt.header("kid") != Some(account.key_id.as_str())
        || jwt.claim("iss") != Some(account.team_id.as_str())
        || !jwt.verified_es256(&world.keys.apns)
    {
        return Err(invalid());
    }
    let issued_s = jwt.seconds("iat").ok_or_else(invalid)?;
    if now_s - issued_s > PROVIDER_TOKEN_S_MAX {
        return Err(refuse(403, "ExpiredProviderToken"));
    }
    if issued_s - now_s > PROVIDER_TOKEN_S_MAX {
        return Err(invalid());
    }
    let now_ms = world.clock.now_ms();
    let forced_ms = world.apns.forced_refresh_ms.load(Ordering::Relaxed);
    if let Some(held) = held
        && now_ms - held.accepted_ms < PROVIDER_TOKEN_PAUSE_MS
        && held.accepted_ms > forced_ms
    {
        return Err(refuse(429, "TooManyProviderTokenUpdates"));
    }
    *connection
        .provider_token
        .lock()
        .unwrap_or_else(PoisonError::into_inner) = Some(ProviderToken {
        text: token.to_owned(),
        issued_s,
        accepted_ms: now_ms,
    });
    Ok(Provider::Token)
}

/// The bundle id that the topic names, if this provider may send to it.
fn check_topic(headers: &Headers<'_>, provider: Provider) -> Result<String, Refusal> {
    let topic = match (headers.topic, provider) {
        (Some(topic), _) => topic,
        (None, Provider::Certificate) => PACKAGE,
        (None, Provider::Token) => return Err(refuse(400, "MissingTopic")),
    };
    let shaped = !topic.is_empty()
        && topic.len() <= 255
        && topic
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-'));
    if !shaped {
        return Err(refuse(400, "BadTopic"));
    }
    let suffix = headers
        .push_type
        .and_then(|kind| PUSH_TYPES.iter().find(|(name, _)| *name == kind))
        .and_then(|(_, suffix)| *suffix)
        .unwrap_or("");
    let Some(bundle) = topic.strip_suffix(suffix) else {
        return Err(refuse(400, "TopicDisallowed"));
    };
    // The team owns both apps; the certificate is for the first one only and lists its bare topic.
    let allowed = match provider {
        Provider::Token => bundle == PACKAGE || bundle == OTHER_PACKAGE,
        Provider::Certificate => topic == PACKAGE,
    };
    if allowed {
        Ok(bundle.to_owned())
    } else {
        Err(refuse(400, "TopicDisallowed"))
    }
}

fn check_token(world: &World, call: &Call, token: &str, bundle: &str) -> Result<(), Refusal> {
    let hex = token.len().is_multiple_of(2) && token.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !hex {
        return Err(refuse(400, "BadDeviceToken"));
    }
    let Some(known) = world.tokens.get(Channel::Apns, token) else {
        return Err(refuse(400, "BadDeviceToken"));
    };
    if (known.state == TokenState::OtherEnvironment) != development(call) {
        return Err(refuse(400, "BadDeviceToken"));
    }
    if known.app() != bundle {
        return Err(refuse(400, "DeviceTokenNotForTopic"));
    }
    match known.state {
        TokenState::Dead { since_ms } => Err(Refusal {
            status: 410,
            reason: "Unregistered",
            since_ms: Some(since_ms),
        }),
        TokenState::Expired { since_ms } => Err(Refusal {
            status: 410,
            reason: "ExpiredToken",
            since_ms: Some(since_ms),
        }),
        _ => Ok(()),
    }
}

/// Whether the request came to the development world. One listener plays both; Apple's sandbox has
/// `sandbox` in its host name, and so has the listener's second name, `sandbox.localhost`.
fn development(call: &Call) -> bool {
    call.authority.contains("sandbox") || call.authority.contains("development")
}

fn apns_id(call: &Call) -> String {
    call.header("apns-id")
        .filter(|id| canonical_uuid(id))
        .map_or_else(
            || uuid::Uuid::new_v4().to_string().to_uppercase(),
            str::to_owned,
        )
}

fn canonical_uuid(text: &str) -> bool {
    text.len() == 36 && uuid::Uuid::try_parse(text).is_ok()
}
