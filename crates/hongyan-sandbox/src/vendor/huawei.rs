//! Huawei Push Kit v1 and v2 (HMS Core), its OAuth endpoint and topics; and what v3 shares with
//! them: the answers, the JWT check, the sorting of tokens and the marketing limit.
//!
//! Sources: Huawei developer documentation, HMS Core "Downlink messages" REST reference, HarmonyOS
//! "Generating an authentication token from a service account", "FAQ: error codes". Business codes
//! come with HTTP 200, those of authentication with 401 and of parameters with 400. Fields that the
//! reference does not know are refused as a structure error.

mod schema;
mod topics;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use http::Method;
use serde_json::{Map, Value, json};

pub(super) use self::schema::https;
use super::Simulator;
use super::fcm::is_own;
use super::oauth::{AccessTokens, Worth};
use crate::accounts::{Accounts, HUAWEI_TOKEN_URI};
use crate::channel::Channel;
use crate::clock::beijing_day;
use crate::dice::{BASE64URL, Dice};
use crate::exchange::{Call, Connection, Reply};
use crate::faults::{Endpoint, FaultKind};
use crate::jwt::Jwt;
use crate::limits;
use crate::push::{self, Fate, Push, Receipt};
use crate::receipts::{Post, ReceiptAddress};
use crate::shape::{Names, Violation, check_object, duration_ms};
use crate::tokens::TokenState;
use crate::world::World;

pub(super) const BODY_BYTES_MAX: usize = 4096;
pub(super) const TOKENS_MAX: usize = 1000;
pub(super) const TTL_MS_MAX: i64 = 1_296_000_000;
pub(super) const TTL_MS_DEFAULT: i64 = 86_400_000;
const ACCESS_TOKEN_S: i64 = 3600;
const JWT_S_MAX: i64 = 86_400;
const CLOCK_SKEW_S_MAX: i64 = 300;
/// Marketing messages of one app to one device and day, without a news licence.
const MARKETING_PER_DEVICE_MAX: u32 = 2;
/// Test messages of v1 (`target_user_type` 1) per app and day.
const TEST_V1_PER_DAY_MAX: u32 = 500;
/// Test messages of v3 per project and day.
const TEST_V3_PER_DAY_MAX: u32 = 1000;

/// Categories that may be sent; the demo app has the self-classification right for all of them.
pub(super) const CATEGORIES: &[&str] = &[
    "IM",
    "VOIP",
    "MISS_CALL",
    "SUBSCRIPTION",
    "TRAVEL",
    "HEALTH",
    "WORK",
    "ACCOUNT",
    "EXPRESS",
    "FINANCE",
    "DEVICE_REMINDER",
    "SYSTEM_REMINDER",
    "MAIL",
    "PLAY_VOICE",
    "MARKETING",
];

/// What the service remembers beyond device tokens.
#[derive(Debug, Default)]
pub(crate) struct State {
    access: AccessTokens,
    day: Mutex<Day>,
    topics: Mutex<topics::Topics>,
}

/// Counters of one Beijing day.
#[derive(Debug, Default)]
struct Day {
    number: i64,
    marketing: HashMap<String, u32>,
    tests: HashMap<Channel, u32>,
}

/// A refusal with Huawei's code.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) code: &'static str,
    pub(super) msg: String,
}

impl Refusal {
    pub(super) fn new(code: &'static str, msg: impl Into<String>) -> Self {
        let status = match code.get(..3) {
            Some("802") => 401,
            Some("801") => 400,
            _ => 200,
        };
        Self {
            status,
            code,
            msg: msg.into(),
        }
    }

    pub(super) fn reply(&self) -> Reply {
        let why = format!("refused {} {}", self.code, self.msg);
        answer(self.status, self.code, &self.msg, &why).0
    }
}

impl From<Violation> for Refusal {
    fn from(violation: Violation) -> Self {
        let Violation { field, why } = violation;
        Self::new("80100003", format!("Illegal payload, {field} {why}"))
    }
}

/// `{code, msg, requestId}`; returns the request id too.
pub(super) fn answer(status: u16, code: &str, msg: &str, verdict: &str) -> (Reply, String) {
    let id = format!("{}", uuid::Uuid::new_v4().as_u128() % 10_u128.pow(24));
    let body = json!({"code": code, "msg": msg, "requestId": id});
    (Reply::json(status, &body, verdict), id)
}

/// The simulator.
#[derive(Debug)]
pub(crate) struct Huawei;

impl Simulator for Huawei {
    fn channel(&self) -> Channel {
        Channel::Huawei
    }

    fn claims(&self, call: &Call) -> Option<Endpoint> {
        match super::segments(call).as_slice() {
            ["oauth2", "v3", "token"] => Some(Endpoint::Auth),
            ["v1", "projects", ..] => None,
            ["v1" | "v2", _, "messages:send"] => Some(Endpoint::Send),
            ["v1", _, verb] if verb.starts_with("topic:") => Some(Endpoint::Send),
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
        format!("IQAAAACy0{unique}{}", dice.text(BASE64URL, 85))
    }

    fn credential(&self, accounts: &Accounts) -> Value {
        let huawei = &accounts.huawei;
        json!({
            "app_id": huawei.app_id, "client_id": huawei.client_id, "client_secret": huawei.client_secret,
        })
    }

    fn receipt(
        &self,
        receipt: &Receipt,
        fate: Fate,
        now_ms: i64,
        console: Option<&ReceiptAddress>,
    ) -> Option<Post> {
        let status = match fate {
            Fate::Delivered => 0,
            Fate::Clicked => return None,
            Fate::TargetInvalid => 2,
            Fate::NotShown => 6,
            Fate::OverQuota => 102,
        };
        let entry = json!({
            "biTag": receipt.param, "appid": receipt.account, "token": receipt.token,
            "status": status, "timestamp": now_ms, "requestId": receipt.id,
        });
        let console = console?;
        let post = Post::json(&console.url, &json!({"statuses": [entry]}));
        Some(post.signed_as_huawei(console, now_ms))
    }
}

fn handle(world: &World, call: &Call) -> Reply {
    if call.path == "/oauth2/v3/token" {
        return token(world, call);
    }
    if call.method != Method::POST {
        return Reply::empty(404, "refused method");
    }
    let outcome = match call.path.rsplit_once('/') {
        Some((_, verb)) if verb.starts_with("topic:") => topics::handle(world, call, verb),
        _ => send(world, call),
    };
    outcome.unwrap_or_else(|refusal| refusal.reply())
}

fn fault(world: &World, call: &Call, kind: FaultKind) -> Reply {
    if call.path == "/oauth2/v3/token" {
        return match kind {
            FaultKind::AuthExpired | FaultKind::TokenInvalid => bad_client(),
            FaultKind::RateLimited | FaultKind::QuotaExhausted => {
                oauth_error(403, 1104, 0, "too many token requests")
            }
            _ => Reply::empty(503, "unavailable"),
        };
    }
    match kind {
        FaultKind::RateLimited => Reply::empty(503, "503 flow control"),
        FaultKind::QuotaExhausted => accepted_and_dropped(world, call, Channel::Huawei),
        FaultKind::TokenInvalid => Refusal::new("80300007", "All the tokens are invalid.").reply(),
        FaultKind::AuthExpired => {
            if let Some(token) = call.bearer() {
                world
                    .huawei
                    .access
                    .expire(token.strip_suffix("/Q==").unwrap_or(token));
            }
            Refusal::new("80200003", "Access token expired.").reply()
        }
        _ => Refusal {
            status: 500,
            code: "81000001",
            msg: "Internal error.".to_owned(),
        }
        .reply(),
    }
}

/// Over the day's limit Huawei says success and the receipt tells that nothing was shown.
pub(super) fn accepted_and_dropped(world: &World, call: &Call, channel: Channel) -> Reply {
    let (reply, id) = answer(
        200,
        "80000000",
        "Success",
        "quota_exhausted: accepted, then dropped",
    );
    let body: Value = serde_json::from_slice(&call.body).unwrap_or_default();
    let tokens = body
        .pointer("/message/token")
        .or_else(|| body.pointer("/target/token"));
    for token in tokens
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        let tag = match channel {
            Channel::Harmony => push::text(&body, "/pushOptions/biTag"),
            _ => push::text(&body, "/message/android/bi_tag"),
        };
        world
            .receipts
            .report(&receipt(world, channel, &id, token, tag), Fate::OverQuota);
    }
    reply
}

pub(super) fn receipt(
    world: &World,
    channel: Channel,
    id: &str,
    token: &str,
    tag: String,
) -> Receipt {
    Receipt {
        channel,
        url: String::new(),
        account: world.accounts.huawei.app_id.clone(),
        id: id.to_owned(),
        token: token.to_owned(),
        param: tag,
        kinds: u32::MAX,
    }
}

/// `POST /oauth2/v3/token` with client credentials.
fn token(world: &World, call: &Call) -> Reply {
    let form = call.form();
    let field = |name: &str| {
        form.iter()
            .find(|(field, _)| field == name)
            .map_or("", |(_, value)| value.as_str())
    };
    if call.method != Method::POST {
        return Reply::empty(404, "refused method");
    }
    if field("grant_type") != "client_credentials" {
        return oauth_error(400, 1102, 20045, "grant_type is invalid");
    }
    let account = &world.accounts.huawei;
    if field("client_id") != account.client_id || field("client_secret") != account.client_secret {
        return bad_client();
    }
    let token = world
        .huawei
        .access
        .issue("DQEB", world.clock.now_s(), ACCESS_TOKEN_S);
    // Huawei escapes the slash; the text is written by hand to show it to JSON parsers.
    let body = format!(
        r#"{{"access_token":"{token}\/Q==","expires_in":{ACCESS_TOKEN_S},"token_type":"Bearer"}}"#
    );
    let mut reply = Reply::json(200, &Value::Null, "accepted token issued");
    reply.body = body.into();
    reply
}

fn bad_client() -> Reply {
    oauth_error(400, 1101, 20001, "invalid client_id or client_secret")
}

fn oauth_error(status: u16, error: u32, sub_error: u32, description: &str) -> Reply {
    let body = json!({"error": error, "sub_error": sub_error, "error_description": description});
    Reply::json(status, &body, format!("refused {error} {description}"))
}

/// Which credentials a path takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// v1, v2: an OAuth token or a service account's JWT.
    Either,
    /// v3 and recall: a service account's JWT only.
    JwtOnly,
}

pub(super) fn authenticate(world: &World, call: &Call, way: Way) -> Result<(), Refusal> {
    let refused = |msg: &str| Err(Refusal::new("80200001", msg));
    let Some(bearer) = call.bearer() else {
        return refused("Authentication Error.");
    };
    let now = world.clock.now_s();
    if bearer.bytes().filter(|byte| *byte == b'.').count() != 2 {
        if way == Way::JwtOnly {
            return refused("Authentication Error. OAuth is not supported by this version.");
        }
        let bearer = bearer.strip_suffix("/Q==").unwrap_or(bearer);
        return match world.huawei.access.worth(bearer, now) {
            Worth::Good => Ok(()),
            Worth::Expired => Err(Refusal::new("80200003", "Access token expired.")),
            Worth::Unknown => refused("Authentication Error."),
        };
    }
    let account = &world.accounts.harmony.service_account;
    let Some(jwt) = Jwt::parse(bearer) else {
        return refused("Authentication Error.");
    };
    let aud = jwt.claim("aud").unwrap_or_default();
    let believed = jwt.header("alg") == Some("PS256")
        && jwt.header("kid") == Some(account.key_id.as_str())
        && jwt.claim("iss") == Some(account.sub_account.as_str())
        && (aud == HUAWEI_TOKEN_URI || is_own(aud, "/oauth2/v3/token"))
        && jwt.verified_ps256(&world.keys.huawei);
    if !believed {
        return refused("Authentication Error.");
    }
    let (Some(issued), Some(expires)) = (jwt.seconds("iat"), jwt.seconds("exp")) else {
        return refused("Authentication Error. iat and exp are required.");
    };
    if expires - issued > JWT_S_MAX {
        return Err(Refusal::new(
            "80300036",
            "The validity period of the JWT exceeds one day.",
        ));
    }
    if now >= expires {
        return Err(Refusal::new("80200005", "Jwt token expired."));
    }
    if issued - now > CLOCK_SKEW_S_MAX {
        return refused("Authentication Error. The JWT is from the future.");
    }
    Ok(())
}

fn send(world: &World, call: &Call) -> Result<Reply, Refusal> {
    authenticate(world, call, Way::Either)?;
    let segments: Vec<&str> = call.path.trim_start_matches('/').split('/').collect();
    let account = &world.accounts.huawei;
    let owner = match segments.as_slice() {
        ["v1", id, _] => *id == account.client_id,
        ["v2", id, _] => *id == account.project_id,
        _ => false,
    };
    if !owner {
        let msg = "Authentication Error. The token does not belong to this app.";
        return Err(Refusal::new("80200001", msg));
    }
    let body = parse(&call.body)?;
    check_object(&body, schema::REQUEST, Names::Exact, "")?;
    let message = body.get("message").cloned().unwrap_or_default();
    check_message(&message)?;
    check_size(&body, "/message/token")?;
    let dry = body.get("validate_only") == Some(&Value::Bool(true));

    let Some(tokens) = message.get("token") else {
        let verdict = if dry {
            "accepted validate_only"
        } else {
            "accepted for a topic"
        };
        return Ok(answer(200, "80000000", "Success", verdict).0);
    };
    let tokens = texts(tokens);
    if tokens.is_empty() || tokens.len() > TOKENS_MAX {
        let msg = format!("token count should within 1 and {TOKENS_MAX}.");
        return Err(Refusal::new("80300010", msg));
    }
    let test = message.pointer("/android/target_user_type") == Some(&json!(1));
    if test && !dry && !count_test(world, Channel::Huawei, TEST_V1_PER_DAY_MAX) {
        return Err(Refusal::new(
            "80300002",
            "The daily number of test messages is used up.",
        ));
    }

    let (good, illegal): (Vec<&str>, Vec<&str>) = tokens
        .iter()
        .partition(|token| fault_of(world, Channel::Huawei, token).is_none());
    if good.is_empty() {
        return Err(Refusal::new("80300007", "All the tokens are invalid."));
    }
    let (reply, id) = if illegal.is_empty() {
        answer(200, "80000000", "Success", "accepted")
    } else {
        let msg = json!({
            "success": good.len(), "failure": illegal.len(), "illegal_tokens": illegal,
        });
        let verdict = format!("partial 80100000, {} illegal tokens", illegal.len());
        answer(200, "80100000", &msg.to_string(), &verdict)
    };
    if !dry {
        let category = push::text(&message, "/android/category");
        let marketing = !test && (category == "MARKETING" || category.is_empty());
        for token in good {
            let push = incoming(world, &message, &id, token);
            deliver(world, Channel::Huawei, token, push, marketing);
        }
    }
    Ok(reply)
}

/// Brings an accepted push to its phone unless the device had its share of marketing today.
/// A token named twice brings two copies, as Huawei does.
pub(super) fn deliver(world: &World, channel: Channel, token: &str, push: Push, marketing: bool) {
    if marketing && push.visible && world.device_limits() && !count_marketing(world, token) {
        if let Some(receipt) = &push.receipt {
            world.receipts.report(receipt, Fate::OverQuota);
        }
        return;
    }
    world.deliver(channel, token, push);
}

fn check_message(message: &Value) -> Result<(), Refusal> {
    let targets = ["token", "topic", "condition"];
    if targets
        .iter()
        .filter(|name| message.get(**name).is_some())
        .count()
        != 1
    {
        let msg = "Illegal payload, exactly one of token, topic and condition is needed";
        return Err(Refusal::new("80100003", msg));
    }
    let android = message.get("android").unwrap_or(&Value::Null);
    if let Some(ttl) = android.get("ttl").and_then(Value::as_str) {
        match duration_ms(ttl) {
            Some(1..=TTL_MS_MAX) => {}
            _ => return Err(Refusal::new("80100004", "Illegal expire time.")),
        }
    }
    if let Some(key) = android.get("collapse_key").and_then(Value::as_i64)
        && !(-1..=100).contains(&key)
    {
        return Err(Refusal::new("80100013", "Illegal collapse_key."));
    }
    let own = android.get("notification");
    let general = message.get("notification");
    if own.is_none() && general.is_none() {
        if message.get("data").is_none() && android.get("data").is_none() {
            return Err(Refusal::new(
                "80100003",
                "Illegal payload, the message is empty",
            ));
        }
        return Ok(());
    }
    for name in ["title", "body"] {
        let given = [own, general].into_iter().flatten().any(|notification| {
            notification
                .get(name)
                .and_then(Value::as_str)
                .is_some_and(|text| !text.is_empty())
        });
        if !given {
            let msg = format!("Illegal payload, android.notification.{name} is empty");
            return Err(Refusal::new("80100003", msg));
        }
    }
    let click = own
        .and_then(|own| own.get("click_action"))
        .ok_or_else(|| Refusal::new("80100003", "Illegal payload, click_action is missing"))?;
    let has = |name: &str| click.get(name).is_some();
    let complete = match click.get("type").and_then(Value::as_i64) {
        Some(1) => has("intent") || has("action"),
        Some(2) => push::text(click, "/url").starts_with("https://"),
        _ => true,
    };
    if !complete {
        let msg = "Illegal payload, click_action needs intent or action (1) or an https url (2)";
        return Err(Refusal::new("80100003", msg));
    }
    Ok(())
}

fn incoming(world: &World, message: &Value, id: &str, token: &str) -> Push {
    let own = message.pointer("/android/notification");
    let pick = |name: &str| {
        [own, message.get("notification")]
            .into_iter()
            .flatten()
            .find_map(|it| it.get(name).and_then(Value::as_str))
            .unwrap_or_default()
            .to_owned()
    };
    let data = message
        .pointer("/android/data")
        .or_else(|| message.get("data"));
    let intent = own
        .map(|own| push::text(own, "/click_action/intent"))
        .unwrap_or_default();
    let ttl = push::text(message, "/android/ttl");
    let collapse = message
        .pointer("/android/collapse_key")
        .and_then(Value::as_i64);
    let notify_id = own
        .and_then(|own| own.get("notify_id"))
        .and_then(Value::as_i64);
    Push {
        message: data
            .and_then(push::message_id)
            .or_else(|| push::message_id_in_intent(&intent)),
        title: pick("title"),
        body: pick("body"),
        visible: own.is_some() || message.get("notification").is_some(),
        collapse: notify_id.map(|id| format!("notify {id}")).or_else(|| {
            collapse
                .filter(|key| *key >= 0)
                .map(|key| format!("group {key}"))
        }),
        expires_ms: world.clock.now_ms() + duration_ms(&ttl).unwrap_or(TTL_MS_DEFAULT),
        stored: true,
        receipt: Some(receipt(
            world,
            Channel::Huawei,
            id,
            token,
            push::text(message, "/android/bi_tag"),
        )),
    }
}

pub(super) fn parse(body: &[u8]) -> Result<Map<String, Value>, Refusal> {
    serde_json::from_slice(body)
        .map_err(|error| Refusal::new("80100003", format!("Illegal payload, not JSON: {error}")))
}

/// The body without its tokens may have 4096 bytes.
pub(super) fn check_size(body: &Map<String, Value>, tokens: &str) -> Result<(), Refusal> {
    let mut body = Value::Object(body.clone());
    if let Some(tokens) = body.pointer_mut(tokens) {
        *tokens = Value::Null;
    }
    if body.to_string().len() > BODY_BYTES_MAX {
        return Err(Refusal::new("80300008", "Push message size is too long."));
    }
    Ok(())
}

pub(super) fn texts(list: &Value) -> Vec<&str> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

/// Why a token cannot be sent to, in the words of v3; `None` when it can.
pub(super) fn fault_of(world: &World, channel: Channel, token: &str) -> Option<&'static str> {
    let shaped = (16..=4096).contains(&token.len())
        && token
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_+/=".contains(&byte));
    if !shaped {
        return Some("tokenFormatError");
    }
    match world.tokens.get(channel, token).map(|token| token.state) {
        Some(TokenState::Valid) => None,
        Some(TokenState::OtherApp | TokenState::OtherEnvironment) => Some("noRight"),
        Some(TokenState::Dead { .. } | TokenState::Expired { .. }) => Some("tokenFormatError"),
        // A token of the other API generation counts as a token without right.
        None => {
            let other = if channel == Channel::Harmony {
                Channel::Huawei
            } else {
                Channel::Harmony
            };
            Some(if world.tokens.get(other, token).is_some() {
                "noRight"
            } else {
                "tokenFormatError"
            })
        }
    }
}

/// Tokens by the reason for which they cannot be sent to.
pub(super) fn illegal<'a>(
    world: &World,
    channel: Channel,
    tokens: &[&'a str],
) -> BTreeMap<&'static str, Vec<&'a str>> {
    let mut by_reason = BTreeMap::<_, Vec<&str>>::new();
    for token in tokens {
        if let Some(reason) = fault_of(world, channel, token) {
            by_reason.entry(reason).or_default().push(token);
        }
    }
    by_reason
}

fn today(world: &World) -> std::sync::MutexGuard<'_, Day> {
    let number = beijing_day(world.clock.now_ms());
    let mut day = world
        .huawei
        .day
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    if day.number != number {
        *day = Day {
            number,
            ..Day::default()
        };
    }
    day
}

fn count_marketing(world: &World, token: &str) -> bool {
    let mut day = today(world);
    if day.marketing.len() >= limits::TOKENS_MAX {
        return true;
    }
    let count = day.marketing.entry(token.to_owned()).or_default();
    *count += 1;
    *count <= MARKETING_PER_DEVICE_MAX
}

fn count_test(world: &World, channel: Channel, max: u32) -> bool {
    let mut day = today(world);
    let count = day.tests.entry(channel).or_default();
    *count += 1;
    *count <= max
}

/// Counts a test message of v3 and says whether it still may go.
pub(super) fn count_test_v3(world: &World) -> bool {
    count_test(world, Channel::Harmony, TEST_V3_PER_DAY_MAX)
}
