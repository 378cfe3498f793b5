//! Honor Push: its token endpoint and the send API for mainland China.
//!
//! Sources: developer.honor.com, cn/docs/11002 (downlink message, notification class, push standards). What could not be
//! read there is played as Huawei does it: the body limit, the token limit, the shape of receipts. Fields that the
//! documents do not have are passed over.
//!
//! Rules that can be set: `service` (the right to service messages), `news` (the news licence), `token_life_s`,
//! `clock_skew_s`.

mod schema;

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Simulator;
use super::oauth::{AccessTokens, Worth};
use crate::accounts::{Accounts, PACKAGE};
use crate::channel::Channel;
use crate::clock::beijing_day;
use crate::dice::{BASE64URL, Dice};
use crate::exchange::{Call, Connection, Reply};
use crate::faults::{Endpoint, FaultKind};
use crate::limits;
use crate::push::{self, Fate, Push, Receipt};
use crate::receipts::{Post, ReceiptAddress};
use crate::shape::{Names, Violation, check_object, duration_ms};
use crate::tokens::TokenState;
use crate::world::World;

const BODY_BYTES_MAX: usize = 4096;
const TOKENS_MAX: usize = 1000;
const TTL_MS_MAX: i64 = 1_296_000_000;
const TTL_MS_DEFAULT: i64 = 86_400_000;
/// Requests a second of any app.
const PER_SECOND_MAX: u32 = 3000;
/// Marketing messages of one app to one device and day: with a news licence, and without.
const NEWS_PER_DEVICE_MAX: u32 = 5;
const MARKETING_PER_DEVICE_MAX: u32 = 2;
/// Test messages per app and day.
const TESTS_PER_DAY_MAX: u32 = 1000;

/// What the console shows for an app.
#[derive(Clone, Serialize, Deserialize)]
struct Account {
    package: String,
    app_id: String,
    client_id: String,
    client_secret: String,
    /// Not used by the send API; people mistake it for the client secret.
    app_secret: String,
}

/// What depends on the app's standing.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Rules {
    /// The right to service and communication messages.
    service: bool,
    /// The news licence.
    news: bool,
    token_life_s: i64,
    clock_skew_s: i64,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            service: true,
            news: false,
            token_life_s: 3600,
            clock_skew_s: 600,
        }
    }
}

/// The simulator with its account.
pub(crate) struct Honor {
    account: Account,
    access: AccessTokens,
    rules: Mutex<Rules>,
    day: Mutex<Day>,
    second: Mutex<(i64, u32)>,
}

/// Counters of one Beijing day.
#[derive(Debug, Default)]
struct Day {
    number: i64,
    marketing: HashMap<String, u32>,
    tests: u32,
}

impl std::fmt::Debug for Honor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Honor")
            .field("app_id", &self.account.app_id)
            .finish_non_exhaustive()
    }
}

/// A refusal: the HTTP status, the business code, and why.
#[derive(Debug)]
struct Refusal(u16, i64, String);

impl Refusal {
    fn new(status: u16, code: i64, why: impl Into<String>) -> Self {
        Self(status, code, why.into())
    }

    fn field(why: impl Into<String>) -> Self {
        Self::new(400, 400, why)
    }

    fn reply(self) -> Reply {
        let Self(status, code, why) = self;
        let body = json!({"code": code, "message": why});
        Reply::json(status, &body, format!("refused {code} {why}"))
    }
}

impl From<Violation> for Refusal {
    fn from(Violation { field, why }: Violation) -> Self {
        Self::field(format!("{field} {why}"))
    }
}

impl Honor {
    /// The simulator; its account is made on the first start.
    pub(crate) fn open(accounts: &mut Accounts, dice: &Dice) -> Self {
        const DIGITS: &[u8] = b"0123456789";
        let secret = || uuid::Uuid::new_v4().simple().to_string();
        let account = accounts.of("honor", || Account {
            package: PACKAGE.to_owned(),
            app_id: format!("104{}", dice.text(DIGITS, 6)),
            client_id: secret(),
            client_secret: format!("{}{}", secret(), secret()),
            app_secret: secret(),
        });
        Self {
            account,
            access: AccessTokens::default(),
            rules: Mutex::default(),
            day: Mutex::default(),
            second: Mutex::default(),
        }
    }

    fn rules(&self) -> Rules {
        *lock(&self.rules)
    }

    /// `POST /auth/token` with client credentials.
    fn token(&self, world: &World, call: &Call) -> Reply {
        let form = call.form();
        let field = |name: &str| {
            let found = form.iter().find(|(field, _)| field == name);
            found.map_or("", |(_, value)| value.as_str())
        };
        let kind = call.header("content-type").unwrap_or_default();
        if call.method != Method::POST
            || !kind
                .to_ascii_lowercase()
                .starts_with("application/x-www-form-urlencoded")
        {
            return oauth_error(400, "invalid_request", "a form is wanted");
        }
        if field("grant_type") != "client_credentials" {
            return oauth_error(
                400,
                "unsupported_grant_type",
                "client_credentials is wanted",
            );
        }
        if field("client_id") != self.account.client_id
            || field("client_secret") != self.account.client_secret
        {
            return oauth_error(
                401,
                "unauthorized_client",
                "Invalid client or Invalid client credentials",
            );
        }
        let life_s = self.rules().token_life_s;
        let token = self.access.issue("", world.clock.now_s(), life_s);
        let body = json!({"access_token": token, "expires_in": life_s, "token_type": "Bearer"});
        Reply::json(200, &body, "accepted token issued")
    }

    fn send(&self, world: &World, call: &Call, app_id: &str) -> Result<Reply, Refusal> {
        if call.method != Method::POST {
            return Err(Refusal::new(404, 404, "POST is wanted"));
        }
        if app_id != self.account.app_id {
            return Err(Refusal::new(404, 404, "no such app"));
        }
        self.limit_rate(world)?;
        self.authenticate(world, call)?;
        let body: Map<String, Value> = serde_json::from_slice(&call.body)
            .map_err(|error| Refusal::field(format!("not JSON: {error}")))?;
        check_object(&body, schema::REQUEST, Names::Known, "")?;
        let whole = Value::Object(body);
        check(&whole)?;
        let tokens: Vec<&str> = whole
            .get("token")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        if tokens.is_empty() || tokens.len() > TOKENS_MAX {
            let why = format!("token must have 1 to {TOKENS_MAX} entries");
            return Err(Refusal::new(400, 80_300_010, why));
        }
        check_size(&whole)?;
        Ok(self.deliver(world, &whole, &tokens))
    }

    fn authenticate(&self, world: &World, call: &Call) -> Result<(), Refusal> {
        let refused = |why: &str| Err(Refusal::new(401, 401, why));
        let Some(bearer) = call.bearer() else {
            return refused("Authorization is missing");
        };
        match self.access.worth(bearer, world.clock.now_s()) {
            Worth::Good => {}
            Worth::Expired => return refused("the access token expired"),
            Worth::Unknown => return refused("the access token is not valid"),
        }
        let stamp = call.header("timestamp").unwrap_or_default();
        let shaped = stamp.len() == 13 && stamp.bytes().all(|b| b.is_ascii_digit());
        let Some(stamp) = stamp.parse::<i64>().ok().filter(|_| shaped) else {
            return Err(Refusal::field(
                "header timestamp must be milliseconds, 13 digits",
            ));
        };
        let skew_ms = self.rules().clock_skew_s.saturating_mul(1000);
        if (world.clock.now_ms() - stamp).abs() > skew_ms {
            return Err(Refusal::field("header timestamp is too far from the time"));
        }
        Ok(())
    }

    /// Brings an accepted message to its phones and answers with the tokens that it could not be brought to.
    fn deliver(&self, world: &World, body: &Value, tokens: &[&str]) -> Reply {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let (mut failed, mut expired) = (Vec::new(), Vec::new());
        let test = body.pointer("/android/targetUserType") == Some(&json!(1));
        let importance = push::text(body, "/android/notification/importance");
        let rules = self.rules();
        let service = rules.service && importance == "NORMAL";
        let marketing = !(test || service);
        for token in tokens {
            match world.tokens.get(Channel::Honor, token).map(|it| it.state) {
                Some(TokenState::Valid) => {
                    let push = self.incoming(world, body, &id, token);
                    self.pass(world, token, push, (test, marketing));
                }
                Some(TokenState::OtherApp | TokenState::OtherEnvironment) => failed.push(*token),
                Some(TokenState::Dead { .. } | TokenState::Expired { .. }) | None => {
                    expired.push(*token);
                }
            }
        }
        let bad = failed.len() + expired.len();
        let verdict = match bad {
            0 => "accepted".to_owned(),
            _ => format!(
                "partial, {} expired, {} failed",
                expired.len(),
                failed.len()
            ),
        };
        let body = json!({"code": 200, "message": "success", "data": {
            "sendResult": bad < tokens.len(), "requestId": id,
            "failTokens": failed, "expireTokens": expired,
        }});
        Reply::json(200, &body, verdict)
    }

    /// One push to one phone, unless the day's limits say no: then a receipt tells it.
    fn pass(&self, world: &World, token: &str, push: Push, (test, marketing): (bool, bool)) {
        let over = push.visible
            && ((test && !self.count_test(world))
                || (marketing && world.device_limits() && !self.count_marketing(world, token)));
        match &push.receipt {
            Some(receipt) if over => world.receipts.report(receipt, Fate::OverQuota),
            _ => world.deliver(Channel::Honor, token, push),
        }
    }

    fn incoming(&self, world: &World, body: &Value, id: &str, token: &str) -> Push {
        let own = body.pointer("/android/notification");
        let general = body.get("notification");
        let pick = |name: &str| {
            let found = [own, general].into_iter().flatten();
            let found = found.filter_map(|it| it.get(name)?.as_str()).next();
            found.unwrap_or_default().to_owned()
        };
        let intent = own.map(|own| push::text(own, "/clickAction/intent"));
        let data = body.pointer("/android/data").or_else(|| body.get("data"));
        let number = own
            .and_then(|own| own.get("notifyId"))
            .and_then(Value::as_i64)
            .filter(|id| *id >= 0);
        let named = |name: &str| {
            let found = own.map(|own| push::text(own, &format!("/{name}")));
            found
                .filter(|text| !text.is_empty())
                .map(|text| format!("{name} {text}"))
        };
        let ttl = push::text(body, "/android/ttl");
        Push {
            message: data
                .and_then(push::message_id)
                .or_else(|| push::message_id_in_intent(intent.as_deref().unwrap_or_default())),
            title: pick("title"),
            body: pick("body"),
            visible: own.is_some() || general.is_some(),
            collapse: number
                .map(|id| format!("notify {id}"))
                .or_else(|| named("tag"))
                .or_else(|| named("group")),
            expires_ms: world.clock.now_ms() + duration_ms(&ttl).unwrap_or(TTL_MS_DEFAULT),
            stored: true,
            receipt: Some(Receipt {
                channel: Channel::Honor,
                url: String::new(),
                account: self.account.app_id.clone(),
                id: id.to_owned(),
                token: token.to_owned(),
                param: push::text(body, "/android/biTag"),
                kinds: u32::MAX,
            }),
        }
    }

    fn limit_rate(&self, world: &World) -> Result<(), Refusal> {
        let second = world.clock.now_s();
        let mut counted = lock(&self.second);
        if counted.0 != second {
            *counted = (second, 0);
        }
        counted.1 += 1;
        if counted.1 > PER_SECOND_MAX {
            return Err(Refusal::new(429, 429, "too many requests"));
        }
        Ok(())
    }

    fn today(&self, world: &World) -> MutexGuard<'_, Day> {
        let number = beijing_day(world.clock.now_ms());
        let mut day = lock(&self.day);
        if day.number != number {
            *day = Day {
                number,
                ..Day::default()
            };
        }
        day
    }

    fn count_marketing(&self, world: &World, token: &str) -> bool {
        let most = match self.rules().news {
            true => NEWS_PER_DEVICE_MAX,
            false => MARKETING_PER_DEVICE_MAX,
        };
        let mut day = self.today(world);
        if day.marketing.len() >= limits::TOKENS_MAX {
            return true;
        }
        let count = day.marketing.entry(token.to_owned()).or_default();
        *count += 1;
        *count <= most
    }

    fn count_test(&self, world: &World) -> bool {
        let mut day = self.today(world);
        day.tests += 1;
        day.tests <= TESTS_PER_DAY_MAX
    }
}

impl Simulator for Honor {
    fn channel(&self) -> Channel {
        Channel::Honor
    }

    fn claims(&self, call: &Call) -> Option<Endpoint> {
        match super::segments(call).as_slice() {
            ["auth", "token"]
            | [
                "auth",
                "realms",
                "developer",
                "protocol",
                "openid-connect",
                "token",
            ] => Some(Endpoint::Auth),
            ["api", "v1", _, "sendMessage"] => Some(Endpoint::Send),
            _ => None,
        }
    }

    fn handle(&self, world: &World, _connection: &Connection, call: &Call) -> Reply {
        match super::segments(call).as_slice() {
            [_, _, app_id, "sendMessage"] => self
                .send(world, call, app_id)
                .unwrap_or_else(Refusal::reply),
            _ => self.token(world, call),
        }
    }

    fn fault(&self, world: &World, call: &Call, kind: FaultKind) -> Reply {
        if self.claims(call) == Some(Endpoint::Auth) {
            return match kind {
                FaultKind::AuthExpired | FaultKind::TokenInvalid => {
                    oauth_error(401, "unauthorized_client", "Invalid client credentials")
                }
                FaultKind::RateLimited | FaultKind::QuotaExhausted => Reply::empty(429, "429"),
                _ => Reply::empty(503, "unavailable"),
            };
        }
        let body: Value = serde_json::from_slice(&call.body).unwrap_or_default();
        let tokens = body.get("token").and_then(Value::as_array);
        let tokens: Vec<&str> = tokens
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let answer = |expired: &[&str], verdict: &str| {
            let id = uuid::Uuid::new_v4().simple().to_string();
            let body = json!({"code": 200, "message": "success", "data": {
                "sendResult": expired.is_empty(), "requestId": id, "failTokens": [], "expireTokens": expired,
            }});
            (Reply::json(200, &body, verdict), id)
        };
        match kind {
            FaultKind::RateLimited => Reply::empty(429, "429 too fast"),
            // Honor takes what is too much and tells the truth in a receipt.
            FaultKind::QuotaExhausted => {
                let (reply, id) = answer(&[], "quota_exhausted: accepted, then dropped");
                for token in tokens {
                    if let Some(receipt) = self.incoming(world, &body, &id, token).receipt {
                        world.receipts.report(&receipt, Fate::OverQuota);
                    }
                }
                reply
            }
            FaultKind::TokenInvalid => answer(&tokens, "all tokens expired").0,
            FaultKind::AuthExpired => {
                if let Some(token) = call.bearer() {
                    self.access.expire(token);
                }
                Refusal::new(401, 401, "the access token expired").reply()
            }
            _ => Reply::empty(500, "500 server fault"),
        }
    }

    fn new_token(&self, unique: &str, dice: &Dice) -> String {
        format!("BAEAAAAAB.{unique}{}", dice.text(BASE64URL, 88))
    }

    fn credential(&self, _accounts: &Accounts) -> Value {
        json!({
            "app_id": self.account.app_id, "client_id": self.account.client_id,
            "client_secret": self.account.client_secret,
            "granted": ["im", "transaction", "subscription"],
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
        Some(Post::json(&console?.url, &json!({"statuses": [entry]})))
    }

    fn set_rules(&self, rules: &Value) -> Result<(), String> {
        let rules: Rules = serde_json::from_value(rules.clone()).map_err(|e| e.to_string())?;
        *lock(&self.rules) = rules;
        Ok(())
    }
}

fn oauth_error(status: u16, error: &str, description: &str) -> Reply {
    let body = json!({"error": error, "error_description": description});
    Reply::json(status, &body, format!("refused {error}"))
}

/// What a table of fields cannot say.
fn check(body: &Value) -> Result<(), Refusal> {
    let refused = |why: &str| Err(Refusal::field(why));
    if let Some(ttl) = body.pointer("/android/ttl").and_then(Value::as_str) {
        let whole = ttl.strip_suffix('s').unwrap_or_default();
        let digits = whole.bytes().all(|b| b.is_ascii_digit()) && !whole.starts_with('0');
        if !digits || duration_ms(ttl).is_none_or(|ms| ms > TTL_MS_MAX) {
            return refused("android.ttl must be seconds such as 86400s, at most 1296000s");
        }
    }
    let own = body.pointer("/android/notification");
    let general = body.get("notification");
    let data = body.pointer("/android/data").or_else(|| body.get("data"));
    if own.is_none() && general.is_none() {
        return match data {
            Some(_) => Ok(()),
            None => refused("the message is empty"),
        };
    }
    let Some(own) = own else {
        return refused("android.notification is required for a notification");
    };
    let text = |name: &str| {
        let found = [Some(own), general].into_iter().flatten();
        let mut texts = found.map(|it| push::text(it, name));
        texts.find(|text| !text.is_empty()).unwrap_or_default()
    };
    let (title, shown) = (text("/title"), text("/body"));
    if title.is_empty() || shown.is_empty() {
        return refused("title and body are required");
    }
    if let Some(data) = data.and_then(Value::as_str)
        && serde_json::from_str::<Value>(data).is_err()
    {
        return refused("data of a notification must be JSON text");
    }
    let Some(click) = own.get("clickAction") else {
        return refused("android.notification.clickAction is required");
    };
    let has = |name: &str| !push::text(click, name).is_empty();
    let complete = match click.get("type").and_then(Value::as_i64) {
        Some(1) => has("/intent") || has("/action"),
        Some(2) => push::text(click, "/url").starts_with("https://"),
        _ => true,
    };
    if !complete {
        return refused("clickAction needs intent or action (1) or an https url (2)");
    }
    let big = own.get("style") == Some(&json!(1));
    if big && (push::text(own, "/bigTitle") != title || push::text(own, "/bigBody") != shown) {
        return refused("style 1 needs bigTitle and bigBody equal to title and body");
    }
    Ok(())
}

/// The body without its tokens may have 4,096 bytes.
fn check_size(body: &Value) -> Result<(), Refusal> {
    let mut body = body.clone();
    if let Some(object) = body.as_object_mut() {
        object.remove("token");
    }
    if body.to_string().len() > BODY_BYTES_MAX {
        return Err(Refusal::new(413, 80_300_008, "the body is too large"));
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
