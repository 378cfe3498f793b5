//! Huawei Push Kit v3 for HarmonyOS 5 and later, and recall of shown notifications.
//!
//! Sources: HarmonyOS Push Kit references "Scenario-based messages" (request structure and
//! parameters, response parameters, message frequency control) and "Message revoke".

mod schema;

use http::Method;
use serde_json::{Value, json};

use super::Simulator;
use super::huawei::{
    Refusal, TOKENS_MAX, TTL_MS_DEFAULT, Way, accepted_and_dropped, answer, authenticate,
    check_size, count_test_v3, deliver, illegal, parse, receipt, texts,
};
use crate::accounts::Accounts;
use crate::channel::Channel;
use crate::dice::{BASE64URL, Dice};
use crate::exchange::{Call, Connection, Reply};
use crate::faults::{Endpoint, FaultKind};
use crate::push::{self, Fate, Push, Receipt};
use crate::receipts::{Post, ReceiptAddress};
use crate::shape::{Names, check_object};
use crate::world::World;

const TEST_TOKENS_MAX: usize = 10;

/// The simulator.
#[derive(Debug)]
pub(crate) struct Harmony;

impl Simulator for Harmony {
    fn channel(&self) -> Channel {
        Channel::Harmony
    }

    fn claims(&self, call: &Call) -> Option<Endpoint> {
        match super::segments(call).as_slice() {
            ["v3", _, "messages:send"] | ["v1", _, "messages:revoke"] => Some(Endpoint::Send),
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
        format!("MAMzLgIkEUiRKLB6{unique}{}", dice.text(BASE64URL, 64))
    }

    fn credential(&self, accounts: &Accounts) -> Value {
        let mut config = json!(accounts.harmony.service_account);
        if let Some(fields) = config.as_object_mut() {
            fields.insert("client_id".to_owned(), json!(accounts.harmony.client_id));
        }
        config
    }

    fn receipt(
        &self,
        receipt: &Receipt,
        fate: Fate,
        now_ms: i64,
        console: Option<&ReceiptAddress>,
    ) -> Option<Post> {
        let result = match fate {
            Fate::Delivered => 0,
            Fate::Clicked => return None,
            Fate::TargetInvalid => 2,
            Fate::NotShown => 6,
            Fate::OverQuota => 256,
        };
        let entry = json!({
            "biTag": receipt.param, "pushType": 0,
            "appPackageName": crate::accounts::PACKAGE,
            "token": receipt.token, "requestId": receipt.id,
            "deliveryStatus": {"result": result, "timestamp": now_ms},
        });
        let console = console?;
        let post = Post::json(&console.url, &json!({"statuses": [entry]}));
        Some(post.signed_as_huawei(console, now_ms))
    }
}

fn handle(world: &World, call: &Call) -> Reply {
    if call.method != Method::POST {
        return Reply::empty(404, "refused method");
    }
    let outcome = if call.path.ends_with("messages:revoke") {
        revoke(world, call)
    } else {
        send(world, call)
    };
    outcome.unwrap_or_else(|refusal| refusal.reply())
}

fn fault(world: &World, call: &Call, kind: FaultKind) -> Reply {
    match kind {
        FaultKind::RateLimited => Reply::empty(503, "503 flow control"),
        FaultKind::QuotaExhausted => accepted_and_dropped(world, call, Channel::Harmony),
        FaultKind::TokenInvalid => {
            let body: Value = serde_json::from_slice(&call.body).unwrap_or_default();
            let tokens = body
                .pointer("/target/token")
                .or_else(|| body.get("token"))
                .map(texts)
                .unwrap_or_default();
            let msg =
                json!({"failure": tokens.len(), "illegalTokens": {"tokenFormatError": tokens}});
            Refusal::new("80300007", msg.to_string()).reply()
        }
        FaultKind::AuthExpired => Refusal::new("80200005", "Jwt token expired.").reply(),
        _ => Refusal {
            status: 500,
            code: "81000001",
            msg: "Internal error.".to_owned(),
        }
        .reply(),
    }
}

fn send(world: &World, call: &Call) -> Result<Reply, Refusal> {
    authenticate(world, call, Way::JwtOnly)?;
    let account = &world.accounts.harmony;
    if call.path.split('/').nth(2) != Some(account.project_id.as_str()) {
        let msg = "Authentication Error. The project of the key and of the path differ.";
        return Err(Refusal::new("80200001", msg));
    }
    let scene = push_type(call)?;
    let body = parse(&call.body)?;
    check_object(&body, schema::REQUEST, Names::Exact, "")?;
    let payload = body
        .get("payload")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    let fields = match scene {
        0 => schema::ALERT,
        1 => schema::CARD,
        2 => schema::VOICE,
        6 => schema::BACKGROUND,
        7 => schema::LIVE_VIEW,
        _ => schema::CALL,
    };
    check_object(&payload, fields, Names::Exact, "payload")?;
    let whole = Value::Object(body.clone());
    check_scene(scene, &whole)?;
    check_size(&body, "/target/token")?;

    let tokens = whole
        .pointer("/target/token")
        .map(texts)
        .unwrap_or_default();
    let test = whole.pointer("/pushOptions/testMessage") == Some(&Value::Bool(true));
    if tokens.is_empty() || tokens.len() > TOKENS_MAX {
        let msg = format!("token count should within 1 and {TOKENS_MAX}.");
        return Err(Refusal::new("80300010", msg));
    }
    if (scene == 1 && tokens.len() > 1) || (test && tokens.len() > TEST_TOKENS_MAX) {
        return Err(Refusal::new(
            "80300030",
            "too many tokens for this kind of message.",
        ));
    }
    if test && !count_test_v3(world) {
        return Err(Refusal::new(
            "80300029",
            "The daily number of test messages is used up.",
        ));
    }

    let (reply, id) = sort(world, &tokens)?;
    let category = push::text(&whole, "/payload/notification/category");
    for token in &tokens {
        if super::huawei::fault_of(world, Channel::Harmony, token).is_none() {
            let push = incoming(world, &whole, scene, &id, token);
            deliver(
                world,
                Channel::Harmony,
                token,
                push,
                !test && category == "MARKETING",
            );
        }
    }
    Ok(reply)
}

/// The answer for a list of tokens, some of which may be no good.
fn sort(world: &World, tokens: &[&str]) -> Result<(Reply, String), Refusal> {
    let illegal = illegal(world, Channel::Harmony, tokens);
    let failed: usize = illegal.values().map(Vec::len).sum();
    if failed == 0 {
        return Ok(answer(200, "80000000", "Success", "accepted"));
    }
    if failed == tokens.len() {
        let msg = json!({"failure": failed, "illegalTokens": illegal});
        return Err(Refusal::new("80300007", msg.to_string()));
    }
    let msg =
        json!({"success": tokens.len() - failed, "failure": failed, "illegalTokens": illegal});
    let verdict = format!("partial 80100000, {failed} illegal tokens");
    Ok(answer(200, "80100000", &msg.to_string(), &verdict))
}

fn push_type(call: &Call) -> Result<u8, Refusal> {
    match call.header("push-type") {
        Some("0") => Ok(0),
        Some("1") => Ok(1),
        Some("2") => Ok(2),
        Some("6") => Ok(6),
        Some("7") => Ok(7),
        Some("10") => Ok(10),
        Some(other) => Err(Refusal::new(
            "80100003",
            format!("Illegal payload, push-type {other:?} is unknown"),
        )),
        None => Err(Refusal::new(
            "80100003",
            "Illegal payload, push-type is missing",
        )),
    }
}

/// What a table of fields cannot say.
fn check_scene(scene: u8, body: &Value) -> Result<(), Refusal> {
    let refused = |msg: &str| Err(Refusal::new("80100003", format!("Illegal payload, {msg}")));
    let category = push::text(body, "/payload/notification/category");
    if scene == 0 && category == "PLAY_VOICE" {
        return refused("category PLAY_VOICE needs push-type 2");
    }
    if scene == 2 && category != "PLAY_VOICE" {
        return refused("push-type 2 needs category PLAY_VOICE");
    }
    if let Some(click) = body.pointer("/payload/notification/clickAction")
        && click.get("actionType") == Some(&json!(1))
        && click.get("action").is_none()
        && click.get("uri").is_none()
    {
        return refused("clickAction with actionType 1 needs action or uri");
    }
    let collapses = body.pointer("/pushOptions/collapseKey").is_some();
    if collapses && !matches!(scene, 0 | 2) {
        return refused("collapseKey is for push-type 0 and 2");
    }
    let mode = body.pointer("/pushOptions/backgroundMode").is_some();
    if mode && scene != 6 {
        return refused("backgroundMode is for push-type 6");
    }
    if scene == 7 && body.pointer("/payload/operation") == Some(&json!(0)) {
        let event = push::text(body, "/payload/event");
        if !["FLIGHT", "TAXI", "TRAIN"].contains(&event.as_str()) {
            return refused("this event cannot be created over REST");
        }
        if push::text(body, "/payload/status").is_empty() {
            return refused("status is missing");
        }
    }
    Ok(())
}

fn incoming(world: &World, body: &Value, scene: u8, id: &str, token: &str) -> Push {
    let none = Value::Null;
    let notification = body.pointer("/payload/notification").unwrap_or(&none);
    let extra = body.pointer("/payload/extraData").unwrap_or(&none);
    let notify = notification
        .get("notifyId")
        .and_then(Value::as_i64)
        .filter(|id| *id >= 0);
    let group = body
        .pointer("/pushOptions/collapseKey")
        .and_then(Value::as_i64);
    let ttl_s = body.pointer("/pushOptions/ttl").and_then(Value::as_i64);
    Push {
        message: notification
            .pointer("/clickAction/data")
            .and_then(push::message_id)
            .or_else(|| push::message_id(extra)),
        title: push::text(notification, "/title"),
        body: push::text(notification, "/body"),
        visible: matches!(scene, 0 | 2),
        collapse: notify.map(|id| format!("notify {id}")).or_else(|| {
            group
                .filter(|key| *key >= 0)
                .map(|key| format!("group {key}"))
        }),
        expires_ms: world.clock.now_ms() + ttl_s.map_or(TTL_MS_DEFAULT, |ttl| ttl * 1000),
        stored: true,
        receipt: Some(receipt(
            world,
            Channel::Harmony,
            id,
            token,
            push::text(body, "/pushOptions/biTag"),
        )),
    }
}

/// `messages:revoke`: takes a shown notification back by its `notifyId`.
fn revoke(world: &World, call: &Call) -> Result<Reply, Refusal> {
    authenticate(world, call, Way::JwtOnly)?;
    if call.path.split('/').nth(2) != Some(world.accounts.harmony.client_id.as_str()) {
        return Err(Refusal::new(
            "80300028",
            "The tokens do not belong to this client id.",
        ));
    }
    if !matches!(push_type(call)?, 0 | 2) {
        return Err(Refusal::new(
            "80100003",
            "Illegal payload, push-type must be 0 or 2",
        ));
    }
    let body = Value::Object(parse(&call.body)?);
    let tokens = body.get("token").map(texts).unwrap_or_default();
    let (Some(notify), false) = (
        body.get("notifyId").and_then(Value::as_i64),
        tokens.is_empty(),
    ) else {
        return Err(Refusal::new(
            "80300032",
            "notifyId and token are both needed.",
        ));
    };
    if tokens.len() > TOKENS_MAX {
        return Err(Refusal::new(
            "80300010",
            "token count should within 1 and 1000.",
        ));
    }
    let (reply, _) = sort(world, &tokens)?;
    for token in tokens {
        if let Some(phone) = world
            .tokens
            .get(Channel::Harmony, token)
            .and_then(|it| it.phone)
        {
            world.phones.withdraw(&phone, &format!("notify {notify}"));
        }
    }
    Ok(reply)
}
