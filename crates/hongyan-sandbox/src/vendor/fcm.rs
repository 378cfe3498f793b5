//! Firebase Cloud Messaging, HTTP v1, with Google's token endpoint.
//!
//! Sources: Firebase documentation "FCM REST v1 projects.messages", "ErrorCode", "Scale FCM";
//! Google Identity "Using OAuth 2.0 for server to server applications". A token of the right shape
//! that was never given out is answered like a malformed one.

mod schema;

use std::sync::{Mutex, PoisonError};

use http::Method;
use serde_json::{Map, Value, json};

use super::Simulator;
use super::oauth::{AccessTokens, Worth};
use crate::accounts::{Accounts, GOOGLE_TOKEN_URI, PACKAGE};
use crate::channel::Channel;
use crate::dice::{BASE64URL, Dice};
use crate::exchange::{Call, Connection, Reply};
use crate::faults::{Endpoint, FaultKind};
use crate::jwt::Jwt;
use crate::push::{self, Push};
use crate::shape::{Names, Violation, check_object, duration_ms};
use crate::tokens::TokenState;
use crate::world::World;

/// Bytes of keys and values for one device.
const PAYLOAD_BYTES_MAX: usize = 4096;
/// Bytes of keys and values for topics and conditions.
const TOPIC_PAYLOAD_BYTES_MAX: usize = 2048;
const TTL_MS_MAX: i64 = 2_419_200_000;
const ACCESS_TOKEN_S: i64 = 3599;
const CLOCK_SKEW_S_MAX: i64 = 300;
const PROJECT_PER_MINUTE_MAX: u32 = 600_000;
const SCOPES: [&str; 2] = [
    "https://www.googleapis.com/auth/firebase.messaging",
    "https://www.googleapis.com/auth/cloud-platform",
];

/// What the service remembers beyond device tokens.
#[derive(Debug, Default)]
pub(crate) struct State {
    access: AccessTokens,
    /// Minute and messages counted in it.
    minute: Mutex<(i64, u32)>,
}

/// An error answer in Google's form.
struct Refusal {
    code: u16,
    status: &'static str,
    message: String,
    details: Vec<Value>,
    retry_after_s: Option<u32>,
    verdict: String,
}

impl Refusal {
    fn new(code: u16, status: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            status,
            message: message.into(),
            details: Vec::new(),
            retry_after_s: None,
            verdict: format!("refused {status}"),
        }
    }

    /// Adds FCM's own error code.
    fn fcm(mut self, error: &str) -> Self {
        self.details.push(json!({
            "@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError",
            "errorCode": error,
        }));
        self.verdict = format!("refused {error}");
        self
    }

    fn field(field: &str, why: &str) -> Self {
        let mut refusal = Self::new(
            400,
            "INVALID_ARGUMENT",
            format!("Invalid value at '{field}': {why}"),
        );
        refusal.details.push(json!({
            "@type": "type.googleapis.com/google.rpc.BadRequest",
            "fieldViolations": [{"field": field, "description": why}],
        }));
        refusal.verdict = format!("refused INVALID_ARGUMENT {field} {why}");
        refusal
    }

    fn reply(self) -> Reply {
        let mut error = json!({
            "code": self.code, "message": self.message, "status": self.status,
        });
        if !self.details.is_empty()
            && let Some(error) = error.as_object_mut()
        {
            error.insert("details".to_owned(), Value::Array(self.details));
        }
        let reply = Reply::json(self.code, &json!({"error": error}), self.verdict);
        match self.retry_after_s {
            Some(seconds) => reply.with("retry-after", seconds.to_string()),
            None => reply,
        }
    }
}

impl From<Violation> for Refusal {
    fn from(violation: Violation) -> Self {
        Self::field(&violation.field, &violation.why)
    }
}

/// The simulator.
#[derive(Debug)]
pub(crate) struct Fcm;

impl Simulator for Fcm {
    fn channel(&self) -> Channel {
        Channel::Fcm
    }

    fn claims(&self, call: &Call) -> Option<Endpoint> {
        match super::segments(call).as_slice() {
            ["token"] => Some(Endpoint::Auth),
            ["v1", "projects", ..] | ["iid", ..] => Some(Endpoint::Send),
            _ => None,
        }
    }

    fn handle(&self, world: &World, _connection: &Connection, call: &Call) -> Reply {
        handle(world, call)
    }

    fn fault(&self, world: &World, call: &Call, kind: FaultKind) -> Reply {
        fault(world, call, kind)
    }

    fn new_token(&self, unique: &str, dice: &Dice) -> String {
        {
            let head = dice.text(BASE64URL, 22);
            format!("{head}:APA91b{unique}{}", dice.text(BASE64URL, 102))
        }
    }

    fn credential(&self, accounts: &Accounts) -> Value {
        json!(accounts.fcm.service_account)
    }
}

fn handle(world: &World, call: &Call) -> Reply {
    if call.path == "/token" {
        return exchange(world, call);
    }
    match send(world, call) {
        Ok(name) => Reply::json(200, &json!({"name": name}), "accepted"),
        Err(refusal) => refusal.reply(),
    }
}

fn fault(world: &World, call: &Call, kind: FaultKind) -> Reply {
    if call.path == "/token" {
        return match kind {
            FaultKind::AuthExpired | FaultKind::TokenInvalid => grant_error(
                "invalid_grant",
                "Invalid JWT: Token must be a short-lived token",
            ),
            _ => Reply::json(503, &json!({"error": "backend_error"}), "unavailable"),
        };
    }
    let refusal = match kind {
        FaultKind::TokenInvalid => unregistered(),
        FaultKind::AuthExpired => {
            if let Some(token) = call.bearer() {
                world.fcm.access.expire(token);
            }
            unauthenticated("ACCESS_TOKEN_EXPIRED")
        }
        FaultKind::RateLimited => over_quota("Quota exceeded for quota metric 'Send requests'", 10),
        FaultKind::QuotaExhausted => over_quota("Messages per day exhausted", 10),
        _ => {
            let mut refusal =
                Refusal::new(503, "UNAVAILABLE", "The service is currently unavailable.")
                    .fcm("UNAVAILABLE");
            refusal.retry_after_s = Some(10);
            refusal
        }
    };
    refusal.reply()
}

/// `POST /token`: a signed assertion for an access token.
fn exchange(world: &World, call: &Call) -> Reply {
    if call.method != Method::POST {
        return Reply::empty(405, "refused method");
    }
    let form = call.form();
    let field = |name: &str| {
        form.iter()
            .find(|(field, _)| field == name)
            .map_or("", |(_, value)| value.as_str())
    };
    if field("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer" {
        return grant_error("unsupported_grant_type", "Invalid grant_type");
    }
    let account = &world.accounts.fcm.service_account;
    let Some(jwt) = Jwt::parse(field("assertion")) else {
        return grant_error("invalid_grant", "Bad Request");
    };
    if jwt.claim("iss") != Some(account.client_email.as_str()) {
        return grant_error("invalid_grant", "Invalid grant: account not found");
    }
    let signed = jwt.header("alg") == Some("RS256")
        && jwt
            .header("kid")
            .is_none_or(|kid| kid == account.private_key_id)
        && jwt.verified_rs256(&world.keys.fcm);
    if !signed {
        return grant_error("invalid_grant", "Invalid JWT Signature.");
    }
    let aud = jwt.claim("aud").unwrap_or_default();
    if aud != GOOGLE_TOKEN_URI && !is_own(aud, "/token") {
        return grant_error(
            "invalid_grant",
            "Invalid JWT: aud is not the token endpoint",
        );
    }
    let now = world.clock.now_s();
    let (issued, expires) = (jwt.seconds("iat"), jwt.seconds("exp"));
    let timely = matches!((issued, expires), (Some(issued), Some(expires))
        if issued - now <= CLOCK_SKEW_S_MAX
            && now - expires < CLOCK_SKEW_S_MAX
            && expires - issued <= 3600
            && expires > issued);
    if !timely {
        let why = "Invalid JWT: Token must be a short-lived token (60 minutes) and in a \
                   reasonable timeframe. Check your iat and exp values in the JWT claim.";
        return grant_error("invalid_grant", why);
    }
    let scoped = jwt
        .claim("scope")
        .is_some_and(|scope| scope.split(' ').any(|scope| SCOPES.contains(&scope)));
    if !scoped {
        return grant_error(
            "invalid_scope",
            "Invalid OAuth scope or ID token audience provided.",
        );
    }
    let token = world.fcm.access.issue("ya29.c.", now, ACCESS_TOKEN_S);
    let body = json!({
        "access_token": token, "expires_in": ACCESS_TOKEN_S, "token_type": "Bearer",
    });
    Reply::json(200, &body, "accepted token issued")
}

/// Whether a URL is this sandbox's own address with the given path.
pub(super) fn is_own(url: &str, path: &str) -> bool {
    url.strip_prefix("https://")
        .and_then(|rest| rest.strip_suffix(path))
        .is_some_and(|host| {
            let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
            matches!(
                host,
                "127.0.0.1" | "localhost" | "[::1]" | "sandbox.localhost"
            )
        })
}

fn grant_error(error: &str, description: &str) -> Reply {
    let body = json!({"error": error, "error_description": description});
    Reply::json(400, &body, format!("refused {error} {description}"))
}

fn send(world: &World, call: &Call) -> Result<String, Refusal> {
    let not_found = || Refusal::new(404, "NOT_FOUND", "Requested entity was not found.");
    let segments: Vec<&str> = call.path.trim_start_matches('/').split('/').collect();
    let ["v1", "projects", project, "messages:send"] = segments.as_slice() else {
        return Err(not_found());
    };
    if call.method != Method::POST {
        return Err(not_found());
    }
    let token = call
        .bearer()
        .ok_or_else(|| unauthenticated("CREDENTIALS_MISSING"))?;
    match world.fcm.access.worth(token, world.clock.now_s()) {
        Worth::Good => {}
        Worth::Expired => return Err(unauthenticated("ACCESS_TOKEN_EXPIRED")),
        Worth::Unknown => return Err(unauthenticated("ACCESS_TOKEN_TYPE_UNSUPPORTED")),
    }
    if *project != world.accounts.fcm.service_account.project_id {
        let why = "Permission 'cloudmessaging.messages.create' denied on the resource";
        return Err(Refusal::new(403, "PERMISSION_DENIED", why));
    }
    count(world)?;

    let body: Map<String, Value> = serde_json::from_slice(&call.body).map_err(|error| {
        let why = format!("Invalid JSON payload received. {error}");
        Refusal::new(400, "INVALID_ARGUMENT", why)
    })?;
    check_object(&body, schema::REQUEST, Names::Proto, "")?;
    let dry = get(&body, "validate_only") == Some(&Value::Bool(true));
    let empty = Map::new();
    let message = get(&body, "message")
        .and_then(Value::as_object)
        .unwrap_or(&empty);
    let target = check_message(message)?;
    let (channel_token, push) = match target {
        Target::Many => (None, None),
        Target::Token(token) => {
            check_token(world, token, message)?;
            (Some(token), Some(incoming(world, message)))
        }
    };
    let id = if dry {
        "fake_message_id".to_owned()
    } else {
        format!(
            "0:{}%{}",
            world.clock.now_ms() * 1000,
            world.dice.text(crate::dice::HEX, 16)
        )
    };
    if let (Some(token), Some(push), false) = (channel_token, push, dry) {
        world.deliver(Channel::Fcm, token, push);
    }
    Ok(format!("projects/{project}/messages/{id}"))
}

enum Target<'a> {
    Token(&'a str),
    Many,
}

fn check_message(message: &Map<String, Value>) -> Result<Target<'_>, Refusal> {
    let targets: Vec<(&str, &str)> = ["token", "fid", "topic", "condition"]
        .into_iter()
        .filter_map(|name| Some((name, get(message, name)?.as_str()?)))
        .collect();
    let [(kind, target)] = targets.as_slice() else {
        let why = "Recipient of the message is not set or set more than once.";
        return Err(Refusal::field("message", why));
    };
    if *kind == "condition" && !schema::condition(target) {
        return Err(Refusal::field(
            "message.condition",
            "Invalid condition expression provided.",
        ));
    }
    for (path, data) in [
        ("message.data", get(message, "data")),
        (
            "message.android.data",
            get(message, "android")
                .and_then(Value::as_object)
                .and_then(|it| get(it, "data")),
        ),
    ] {
        let keys = data
            .and_then(Value::as_object)
            .map(|data| data.keys())
            .into_iter()
            .flatten();
        for key in keys {
            let reserved = matches!(key.as_str(), "from" | "message_type")
                || key.starts_with("google.")
                || key.starts_with("gcm.notification.");
            if reserved {
                let why = format!("Invalid data payload key: {key}");
                return Err(
                    Refusal::new(400, "INVALID_ARGUMENT", format!("{path}: {why}"))
                        .fcm("INVALID_ARGUMENT"),
                );
            }
        }
    }
    if let Some(ttl) = android(message, "ttl").and_then(Value::as_str)
        && duration_ms(ttl).is_none_or(|ttl| ttl > TTL_MS_MAX)
    {
        let why = "TTL must be a duration from 0s to 2419200s";
        return Err(Refusal::field("message.android.ttl", why));
    }
    let many = matches!(*kind, "topic" | "condition");
    let limit = if many {
        TOPIC_PAYLOAD_BYTES_MAX
    } else {
        PAYLOAD_BYTES_MAX
    };
    if payload_bytes(message) > limit {
        let why = "Android message is too big";
        return Err(Refusal::new(400, "INVALID_ARGUMENT", why).fcm("INVALID_ARGUMENT"));
    }
    Ok(if many {
        Target::Many
    } else {
        Target::Token(target)
    })
}

fn check_token(world: &World, token: &str, message: &Map<String, Value>) -> Result<(), Refusal> {
    let invalid = || {
        let why = "The registration token is not a valid FCM registration token";
        Refusal::new(400, "INVALID_ARGUMENT", why).fcm("INVALID_ARGUMENT")
    };
    let known = world.tokens.get(Channel::Fcm, token).ok_or_else(invalid)?;
    match known.state {
        TokenState::Valid => {}
        TokenState::Dead { .. } | TokenState::Expired { .. } => return Err(unregistered()),
        TokenState::OtherApp | TokenState::OtherEnvironment => {
            return Err(Refusal::new(403, "PERMISSION_DENIED", "SenderId mismatch")
                .fcm("SENDER_ID_MISMATCH"));
        }
    }
    let restricted = android(message, "restricted_package_name").and_then(Value::as_str);
    if restricted.is_some_and(|package| package != PACKAGE) {
        let why = "The registration token does not belong to the restricted package name";
        return Err(Refusal::new(400, "INVALID_ARGUMENT", why).fcm("INVALID_ARGUMENT"));
    }
    Ok(())
}

fn incoming(world: &World, message: &Map<String, Value>) -> Push {
    let none = Value::Null;
    let general = get(message, "notification").unwrap_or(&none);
    let own = android(message, "notification").unwrap_or(&none);
    let pick = |name: &str| {
        own.get(name)
            .or_else(|| general.get(name))
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let data = android(message, "data")
        .or_else(|| get(message, "data"))
        .unwrap_or(&none);
    let ttl_ms = android(message, "ttl")
        .and_then(Value::as_str)
        .and_then(duration_ms)
        .unwrap_or(TTL_MS_MAX);
    // A data message reaches the app, which shows what it finds in it.
    let shown = |name: &str| match pick(name) {
        "" => data
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned(),
        text => text.to_owned(),
    };
    Push {
        message: push::message_id(data),
        title: shown("title"),
        body: shown("body"),
        visible: general.is_object() || own.is_object() || !shown("title").is_empty(),
        collapse: own
            .get("tag")
            .or_else(|| android(message, "collapse_key"))
            .and_then(Value::as_str)
            .map(str::to_owned),
        expires_ms: world.clock.now_ms() + ttl_ms,
        stored: ttl_ms > 0,
        receipt: None,
    }
}

fn unregistered() -> Refusal {
    Refusal::new(404, "NOT_FOUND", "Requested entity was not found.").fcm("UNREGISTERED")
}

fn unauthenticated(reason: &str) -> Refusal {
    let why = "Request had invalid authentication credentials. Expected OAuth 2 access token, \
               login cookie or other valid authentication credential.";
    let mut refusal = Refusal::new(401, "UNAUTHENTICATED", why);
    refusal.details.push(json!({
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": reason, "domain": "googleapis.com",
        "metadata": {"service": "fcm.googleapis.com"},
    }));
    refusal.verdict = format!("refused UNAUTHENTICATED {reason}");
    refusal
}

fn over_quota(description: &str, retry_after_s: u32) -> Refusal {
    let mut refusal = Refusal::new(429, "RESOURCE_EXHAUSTED", description).fcm("QUOTA_EXCEEDED");
    refusal.details.push(json!({
        "@type": "type.googleapis.com/google.rpc.QuotaFailure",
        "violations": [{"subject": "project:hongyan-sandbox", "description": description}],
    }));
    refusal.retry_after_s = Some(retry_after_s);
    refusal
}

/// The project's messages per minute.
fn count(world: &World) -> Result<(), Refusal> {
    let minute = world.clock.now_s().div_euclid(60);
    let mut counted = world
        .fcm
        .minute
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    if counted.0 != minute {
        *counted = (minute, 0);
    }
    if counted.1 >= PROJECT_PER_MINUTE_MAX {
        return Err(over_quota("Messages per minute per project", 60));
    }
    counted.1 += 1;
    Ok(())
}

/// Keys and values of everything that travels to the device.
fn payload_bytes(message: &Map<String, Value>) -> usize {
    fn bytes(value: &Value) -> usize {
        match value {
            Value::Object(object) => object.iter().map(|(key, it)| key.len() + bytes(it)).sum(),
            Value::Array(list) => list.iter().map(bytes).sum(),
            Value::String(text) => text.len(),
            other => other.to_string().len(),
        }
    }
    let data = android(message, "data").or_else(|| get(message, "data"));
    let notification = android(message, "notification");
    [data, get(message, "notification"), notification]
        .into_iter()
        .flatten()
        .map(bytes)
        .sum()
}

fn android<'a>(message: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    get(get(message, "android")?.as_object()?, name)
}

/// A field by its `snake_case` name, also when written in `lowerCamelCase`.
fn get<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    object
        .get(name)
        .or_else(|| {
            let mut camel = String::with_capacity(name.len());
            for (at, part) in name.split('_').enumerate() {
                match (at, part.split_at_checked(1)) {
                    (1.., Some((first, rest))) => {
                        camel.push_str(&first.to_ascii_uppercase());
                        camel.push_str(rest);
                    }
                    _ => camel.push_str(part),
                }
            }
            object.get(&camel)
        })
        .filter(|value| !value.is_null())
}
