//! Push services of browsers: RFC 8030 with VAPID (RFC 8292) and message encryption (RFC 8291).
//!
//! Sources: the RFCs; autopush documentation "HTTP endpoints for notifications" and "Error codes"; Apple "Sending web
//! push notifications in web apps and browsers"; Microsoft "Push notification service request and response headers". One listener
//! plays all four big services: a subscription's path says which, and each refuses in its own words. The order
//! of checks is ours. Receipts and the cancelling of messages are not offered: receipts by none of the four either. How long
//! one is to stay away is Mozilla's two minutes, a minute when throttled; the rule `retry_after_s` makes it something else.
//! The rule `maker` makes every new subscription one of that maker's browsers.

mod opened;

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use p256::SecretKey;
use p256::elliptic_curve::sec1::ToEncodedPoint as _;
use ring::hmac;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Simulator;
use crate::accounts::Accounts;
use crate::channel::Channel;
use crate::dice::Dice;
use crate::exchange::{Call, Connection, Reply};
use crate::faults::{Endpoint, FaultKind};
use crate::jwt::{EcKey, Jwt};
use crate::push::{self, Push};
use crate::tokens::TokenState;
use crate::world::World;

const BODY_BYTES_MAX: usize = 4096;
const TTL_S_MAX: i64 = 30 * 86_400;
const TOKEN_LIFE_S_MAX: i64 = 86_400;
const TOPIC_CHARS_MAX: usize = 32;
const URGENCIES: [&str; 4] = ["very-low", "low", "normal", "high"];
/// Of the decrypted text in the verdict, bytes.
const SHOWN_BYTES_MAX: usize = 4096;

/// The sender's key pair, which the subscriptions of its site are bound to, and the seed of the browsers' keys.
#[derive(Clone, Serialize, Deserialize)]
struct Account {
    private_key: String,
    public_key: String,
    subject: String,
    seed: String,
}

impl Account {
    fn make() -> Self {
        let seed = uuid::Uuid::new_v4().simple().to_string();
        let key = secret_key(&seed, "application server");
        Self {
            private_key: URL_SAFE_NO_PAD
                .encode(key.as_ref().map(SecretKey::to_bytes).unwrap_or_default()),
            public_key: key.as_ref().map(point).unwrap_or_default(),
            subject: "mailto:push@example.com".to_owned(),
            seed,
        }
    }
}

/// A P-256 key that follows from a seed and a name. One in four thousand million digests is no key; then the next is taken.
fn secret_key(seed: &str, name: &str) -> Option<SecretKey> {
    (0..=u8::MAX).find_map(|n| SecretKey::from_slice(&derived(seed, &format!("{name} {n}"))).ok())
}

fn derived(seed: &str, name: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, seed.as_bytes());
    hmac::sign(&key, name.as_bytes()).as_ref().to_vec()
}

fn point(key: &SecretKey) -> String {
    URL_SAFE_NO_PAD.encode(key.public_key().to_encoded_point(false).as_bytes())
}

/// Whose push service it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Maker {
    Mozilla,
    Google,
    Apple,
    Microsoft,
}

impl Maker {
    /// The browser of a subscription follows from its id.
    fn of(id: &str) -> Self {
        match id.bytes().next().unwrap_or_default() % 4 {
            0 => Self::Mozilla,
            1 => Self::Google,
            2 => Self::Apple,
            _ => Self::Microsoft,
        }
    }

    /// The id with its first digit changed so that it is of this browser.
    fn marked(self, id: &str) -> String {
        let digit = match self {
            Self::Mozilla => '0',
            Self::Google => '1',
            Self::Apple => '2',
            Self::Microsoft => '3',
        };
        let rest: String = id.chars().skip(1).collect();
        format!("{digit}{rest}")
    }

    fn path(self, id: &str) -> String {
        match self {
            Self::Mozilla => format!("/wpush/v2/{id}"),
            Self::Google => format!("/wp/{id}"),
            Self::Apple => format!("/apple/{id}"),
            Self::Microsoft => format!("/w/?token={id}"),
        }
    }
}

/// The subscription that a request is for.
fn addressed(call: &Call) -> Option<(Maker, &str)> {
    match super::segments(call).as_slice() {
        ["wpush", "v1" | "v2", id] => Some((Maker::Mozilla, id)),
        ["wp", id] => Some((Maker::Google, id)),
        ["apple", id] => Some((Maker::Apple, id)),
        ["w", ""] => Some((
            Maker::Microsoft,
            call.query.strip_prefix("token=").unwrap_or_default(),
        )),
        _ => None,
    }
}

/// Why a message is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Why {
    Method,
    Ttl(&'static str),
    Urgency,
    Topic,
    Body(&'static str),
    TooLarge,
    NoKey(&'static str),
    BadKey(&'static str),
    OtherKey,
    Unknown,
    Gone,
    Throttled,
    Busy,
    CachePolicy,
}

/// The simulator.
pub(crate) struct Webpush {
    account: Account,
    origin: String,
    rules: Mutex<Rules>,
}

/// What a test may have otherwise.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Rules {
    /// What `Retry-After` says, seconds.
    retry_after_s: Option<u64>,
    /// Whose browsers new subscriptions are of; without it they are of all four, by their ids.
    maker: Option<Maker>,
}

impl fmt::Debug for Webpush {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webpush")
            .field("public_key", &self.account.public_key)
            .finish_non_exhaustive()
    }
}

impl Webpush {
    /// The push services at an address, with the account that was kept or a new one.
    pub(crate) fn open(accounts: &mut Accounts, address: SocketAddr) -> Self {
        Self {
            account: accounts.of("webpush", Account::make),
            origin: format!("https://{address}"),
            rules: Mutex::default(),
        }
    }

    fn rules(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn key(&self, id: &str) -> Option<SecretKey> {
        secret_key(&self.account.seed, &format!("browser {id}"))
    }

    fn auth(&self, id: &str) -> Vec<u8> {
        let mut auth = derived(&self.account.seed, &format!("auth {id}"));
        auth.truncate(16);
        auth
    }

    /// The subscription as the browser gives it to the page.
    fn subscription(&self, id: &str) -> String {
        let key = self.key(id).as_ref().map(point).unwrap_or_default();
        json!({
            "endpoint": format!("{}{}", self.origin, Maker::of(id).path(id)),
            "expirationTime": null,
            "keys": {"p256dh": key, "auth": URL_SAFE_NO_PAD.encode(self.auth(id))},
        })
        .to_string()
    }

    fn take(&self, world: &World, call: &Call, maker: Maker, id: &str) -> Result<Taken, Why> {
        if call.method != Method::POST {
            return Err(Why::Method);
        }
        let key = self.sender_of(world, call)?;
        let token = self.subscription(id);
        let known = world.tokens.get(Channel::Webpush, &token);
        match known.map(|token| token.state) {
            None | Some(TokenState::OtherEnvironment) => return Err(Why::Unknown),
            Some(TokenState::Dead { .. } | TokenState::Expired { .. }) => return Err(Why::Gone),
            Some(TokenState::OtherApp) => return Err(Why::OtherKey),
            Some(TokenState::Valid) if key != self.account.public_key => {
                return Err(Why::OtherKey);
            }
            Some(TokenState::Valid) => {}
        }
        let headers = Headers::read(call, maker)?;
        let plain = self.opened(call, id)?;
        let now = world.clock.now_ms();
        let said: Value = serde_json::from_slice(&plain)
            .unwrap_or_else(|_| String::from_utf8_lossy(&plain).into_owned().into());
        let push = Push {
            message: push::message_id(&said),
            title: push::text(&said, "/notification/title"),
            body: said
                .as_str()
                .map_or_else(|| push::text(&said, "/notification/body"), str::to_owned),
            visible: said.is_string() || said.get("notification").is_some(),
            collapse: headers.topic.map(str::to_owned).or_else(|| {
                let tag = said.pointer("/notification/tag")?;
                tag.as_str().map(str::to_owned)
            }),
            expires_ms: now.saturating_add(headers.ttl_s.saturating_mul(1000)),
            stored: headers.ttl_s > 0,
            receipt: None,
        };
        world.deliver(Channel::Webpush, &token, push);
        Ok(Taken {
            ttl_s: headers.ttl_s,
            said: if plain.is_empty() { Value::Null } else { said },
        })
    }

    /// The public key of a sender who named itself as RFC 8292 asks.
    fn sender_of(&self, world: &World, call: &Call) -> Result<String, Why> {
        let given = call
            .header("authorization")
            .ok_or(Why::NoKey("there is no Authorization"))?;
        let (scheme, rest) = given.split_once(' ').unwrap_or((given, ""));
        if !scheme.eq_ignore_ascii_case("vapid") {
            return Err(Why::NoKey("the scheme is not vapid"));
        }
        let part = |name: &str| {
            let mut parts = rest.split(',').map(str::trim);
            parts.find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
        };
        let (Some(token), Some(key)) = (part("t"), part("k")) else {
            return Err(Why::NoKey("the parameters t and k are missing"));
        };
        let key = key.trim_end_matches('=');
        let bytes = URL_SAFE_NO_PAD
            .decode(key)
            .ok()
            .filter(|bytes| bytes.len() == 65)
            .ok_or(Why::BadKey("k is not a point of 65 bytes"))?;
        let jwt = Jwt::parse(token).ok_or(Why::BadKey("t is not a JWT"))?;
        if jwt.header("alg") != Some("ES256") || !jwt.verified_es256(&EcKey::from_point(bytes)) {
            return Err(Why::BadKey("the signature of t is not of k"));
        }
        // One address has several names; the sender uses the one of the subscription.
        let named = format!("https://{}", call.authority);
        if !jwt
            .claim("aud")
            .is_some_and(|aud| aud == self.origin || aud == named)
        {
            return Err(Why::BadKey("aud is not the origin of this service"));
        }
        let now = world.clock.now_s();
        match jwt.seconds("exp") {
            None => return Err(Why::BadKey("exp is missing")),
            Some(at) if at <= now => return Err(Why::BadKey("exp has passed")),
            Some(at) if at > now + TOKEN_LIFE_S_MAX => {
                return Err(Why::BadKey("exp is more than 24 hours ahead"));
            }
            Some(_) => {}
        }
        let named = |sub: &str| sub.starts_with("mailto:") || sub.starts_with("https:");
        if !jwt.claim("sub").is_some_and(named) {
            return Err(Why::BadKey("sub is neither mailto: nor https:"));
        }
        Ok(key.to_owned())
    }

    fn opened(&self, call: &Call, id: &str) -> Result<Vec<u8>, Why> {
        if call.body.is_empty() {
            return Ok(Vec::new());
        }
        if call.body.len() > BODY_BYTES_MAX {
            return Err(Why::TooLarge);
        }
        match call.header("content-encoding") {
            Some("aes128gcm") => {}
            Some("aesgcm") => return Err(Why::Body("is in the coding of an old draft, aesgcm")),
            _ => return Err(Why::Body("is not in the coding aes128gcm")),
        }
        let key = self.key(id).ok_or(Why::Unknown)?;
        opened::open(&key, &self.auth(id), &call.body).map_err(Why::Body)
    }
}

/// What was taken.
struct Taken {
    ttl_s: i64,
    said: Value,
}

struct Headers<'a> {
    ttl_s: i64,
    topic: Option<&'a str>,
}

impl<'a> Headers<'a> {
    fn read(call: &'a Call, maker: Maker) -> Result<Self, Why> {
        let ttl = call.header("ttl").ok_or(Why::Ttl("is missing"))?;
        let ttl: i64 = match ttl.parse() {
            Ok(ttl) if ttl >= 0 => ttl,
            _ => return Err(Why::Ttl("is not a number of seconds")),
        };
        if call
            .header("urgency")
            .is_some_and(|u| !URGENCIES.contains(&u))
        {
            return Err(Why::Urgency);
        }
        let topic = call.header("topic");
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if topic.is_some_and(|t| t.is_empty() || t.len() > TOPIC_CHARS_MAX || !t.bytes().all(plain))
        {
            return Err(Why::Topic);
        }
        let policy = call.header("x-wns-cache-policy");
        if maker == Maker::Microsoft && policy != Some("no-cache") && ttl == 0 {
            return Err(Why::CachePolicy);
        }
        Ok(Self {
            ttl_s: ttl.min(TTL_S_MAX),
            topic,
        })
    }
}

impl Simulator for Webpush {
    fn channel(&self) -> Channel {
        Channel::Webpush
    }

    fn claims(&self, call: &Call) -> Option<Endpoint> {
        addressed(call).map(|_| Endpoint::Send)
    }

    fn handle(&self, world: &World, _connection: &Connection, call: &Call) -> Reply {
        let Some((maker, id)) = addressed(call) else {
            return self.refused(Maker::Mozilla, &Why::Unknown);
        };
        match self.take(world, call, maker, id) {
            Ok(taken) => {
                let mut said = taken.said.to_string();
                while said.len() > SHOWN_BYTES_MAX {
                    said.pop();
                }
                let place = format!("{}/m/{}", self.origin, uuid::Uuid::new_v4().simple());
                let reply = Reply::empty(201, format!("accepted, decrypted {said}"))
                    .with("ttl", taken.ttl_s.to_string());
                let unique = uuid::Uuid::new_v4().to_string();
                match maker {
                    Maker::Apple => reply.with("apns-id", unique),
                    Maker::Microsoft => reply
                        .with("x-wns-status", "received")
                        .with("x-wns-msg-id", unique),
                    Maker::Google | Maker::Mozilla => reply.with("location", place),
                }
            }
            Err(why) => self.refused(maker, &why),
        }
    }

    fn fault(&self, _world: &World, call: &Call, kind: FaultKind) -> Reply {
        let maker = addressed(call).map_or(Maker::Mozilla, |(maker, _)| maker);
        let why = match kind {
            FaultKind::TokenInvalid => Why::Gone,
            FaultKind::AuthExpired => Why::BadKey("exp has passed"),
            FaultKind::RateLimited | FaultKind::QuotaExhausted => Why::Throttled,
            _ => Why::Busy,
        };
        self.refused(maker, &why)
    }

    fn set_rules(&self, rules: &Value) -> Result<(), String> {
        let rules = serde_json::from_value(rules.clone()).map_err(|e| e.to_string())?;
        *self.rules() = rules;
        Ok(())
    }

    fn new_token(&self, unique: &str, _dice: &Dice) -> String {
        match self.rules().maker {
            Some(maker) => self.subscription(&maker.marked(unique)),
            None => self.subscription(unique),
        }
    }

    fn credential(&self, _accounts: &Accounts) -> Value {
        json!({
            "private_key": self.account.private_key, "public_key": self.account.public_key,
            "subject": self.account.subject,
        })
    }
}

impl Webpush {
    /// A refusal as each of the four puts it.
    fn refused(&self, maker: Maker, why: &Why) -> Reply {
        let reply = match maker {
            Maker::Mozilla => by_mozilla(why),
            Maker::Google => by_google(why),
            Maker::Apple => by_apple(why),
            Maker::Microsoft => by_microsoft(why),
        };
        let usual = match why {
            Why::Throttled => 60,
            Why::Busy => 120,
            _ => return reply,
        };
        let seconds = self.rules().retry_after_s.unwrap_or(usual);
        reply.with("retry-after", seconds.to_string())
    }
}

fn verdict(why: &Why) -> String {
    match why {
        Why::Ttl(what) => format!("refused TTL {what}"),
        Why::Body(what) => format!("refused the body {what}"),
        Why::NoKey(what) | Why::BadKey(what) => format!("refused {what}"),
        other => format!("refused {other:?}"),
    }
}

fn by_mozilla(why: &Why) -> Reply {
    let (status, errno, message) = match why {
        Why::Method => (405, 999, "Method Not Allowed"),
        Why::Ttl("is missing") => (400, 111, "Missing TTL value"),
        Why::Ttl(_) => (400, 112, "Invalid TTL value"),
        Why::Topic => (400, 113, "Invalid Topic value"),
        Why::Urgency | Why::CachePolicy => (400, 999, "Bad Request"),
        Why::Body(_) => (400, 110, "Invalid Encryption headers"),
        Why::TooLarge => (413, 104, "Message exceeds the maximum size"),
        Why::NoKey(_) => (401, 109, "Missing VAPID token"),
        Why::BadKey(_) => (401, 109, "Invalid VAPID token"),
        Why::OtherKey => (401, 109, "VAPID public key mismatch"),
        Why::Unknown => (404, 102, "Invalid URL endpoint"),
        Why::Gone => (410, 106, "Invalid subscription"),
        Why::Throttled => (429, 201, "Too many requests"),
        Why::Busy => (503, 201, "Use exponential back-off for retries"),
    };
    let error = http::StatusCode::from_u16(status).ok();
    let error = error.and_then(|s| s.canonical_reason()).unwrap_or_default();
    let body = json!({
        "code": status, "errno": errno, "error": error, "message": message,
        "more_info": "http://autopush.readthedocs.io/en/latest/http.html#error-codes",
    });
    let reply = Reply::json(status, &body, verdict(why));
    match why {
        Why::Gone => reply.with("cache-control", "max-age=86400"),
        _ => reply,
    }
}

fn by_google(why: &Why) -> Reply {
    let (status, text) = match why {
        Why::Method => (405, "method not allowed\n"),
        Why::NoKey(_) => (401, "authorization header must be specified.\n"),
        Why::BadKey(_) => (403, "invalid JWT provided\n"),
        Why::OtherKey => (
            403,
            "the VAPID credentials in the authorization header do not correspond to the credentials used to create the subscriptions.\n",
        ),
        Why::Unknown | Why::Gone => (410, "push subscription has unsubscribed or expired.\n"),
        Why::TooLarge => (413, "payload too large\n"),
        Why::Throttled => (429, "too many requests\n"),
        Why::Busy => (503, "service unavailable\n"),
        _ => (400, "invalid push message\n"),
    };
    let mut reply = Reply::empty(status, verdict(why)).with("content-type", "text/plain");
    reply.body = text.into();
    reply
}

fn by_apple(why: &Why) -> Reply {
    let (status, reason) = match why {
        Why::Method => (405, "MethodNotAllowed"),
        Why::Ttl(_) => (400, "BadTtl"),
        Why::Urgency => (400, "BadUrgency"),
        Why::Topic => (400, "BadWebPushTopic"),
        Why::Body(_) | Why::CachePolicy => (400, "BadWebPushRequest"),
        Why::TooLarge => (413, "PayloadTooLarge"),
        Why::NoKey(_) => (403, "BadAuthorizationHeader"),
        Why::BadKey(_) => (403, "BadJwtToken"),
        Why::OtherKey => (400, "VapidPkHashMismatch"),
        Why::Unknown => (404, "BadPath"),
        Why::Gone => (410, "Unregistered"),
        Why::Throttled => (429, "TooManyRequests"),
        Why::Busy => (503, "ServiceUnavailable"),
    };
    Reply::json(status, &json!({ "reason": reason }), verdict(why))
        .with("apns-id", uuid::Uuid::new_v4().to_string())
}

fn by_microsoft(why: &Why) -> Reply {
    let (status, state) = match why {
        Why::Method => (405, "dropped"),
        Why::NoKey(_) => (401, "dropped"),
        Why::BadKey(_) | Why::OtherKey => (403, "dropped"),
        Why::Unknown => (404, "dropped"),
        Why::Gone => (410, "dropped"),
        Why::TooLarge => (413, "dropped"),
        Why::Throttled => (406, "channelthrottled"),
        Why::Busy => (503, "dropped"),
        _ => (400, "dropped"),
    };
    let words = match why {
        Why::CachePolicy => "Ttl value conflicts with X-WNS-Cache-Policy.".to_owned(),
        Why::OtherKey => "The VAPID key is not the one of the channel: key mismatch.".to_owned(),
        other => verdict(other),
    };
    Reply::empty(status, verdict(why))
        .with("x-wns-status", state)
        .with("x-wns-notificationstatus", state)
        .with("x-wns-error-description", words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscriptions_are_claimed_by_their_paths_and_nothing_else_is() {
        let account = Account::make();
        let simulator = Webpush {
            account,
            origin: "https://127.0.0.1:1".to_owned(),
            rules: Mutex::default(),
        };
        let mut makers = Vec::new();
        for id in ["0a", "1a", "2a", "3a"] {
            let subscription: Value = serde_json::from_str(&simulator.subscription(id)).unwrap();
            let endpoint = subscription["endpoint"].as_str().unwrap();
            let path = endpoint.strip_prefix("https://127.0.0.1:1").unwrap();
            let (path, query) = path.split_once('?').unwrap_or((path, ""));
            let call = Call {
                path: path.to_owned(),
                query: query.to_owned(),
                ..Call::default()
            };
            assert!(simulator.claims(&call).is_some(), "{path}");
            let (maker, got) = addressed(&call).unwrap();
            assert_eq!((maker, got), (Maker::of(id), id));
            makers.push(maker);
        }
        makers.dedup();
        assert_eq!(makers.len(), 4);
        for path in ["/", "/wpush/v3/a", "/v1/x", "/3/device/a", "/token", "/m/x"] {
            let call = Call {
                path: path.to_owned(),
                ..Call::default()
            };
            assert!(simulator.claims(&call).is_none(), "{path}");
        }
    }
}
