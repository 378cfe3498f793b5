//! Each check of the notes on OPPO is a row.

use std::time::Duration;

use hongyan_sandbox::{Channel, Fault, FaultKind, NewPhone, TokenState};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::stage::{Answer, Door, Stage, Wire, form, now_s};

const FORM: (&str, &str) = (
    "content-type",
    "application/x-www-form-urlencoded;charset=UTF-8",
);
const AUTH: &str = "/server/v1/auth";
const UNICAST: &str = "/server/v1/message/notification/unicast";
const BATCH: &str = "/server/v1/message/notification/unicast_batch";
const SAVE: &str = "/server/v1/message/notification/save_message_content";
const BROADCAST: &str = "/server/v1/message/notification/broadcast";
const FEEDBACK: &str = "/server/v1/feedback/fetch_invalid_regidList";

/// A sender with an access token.
struct Sender {
    stage: Stage,
    wire: Wire,
    token: String,
}

fn keys(stage: &Stage) -> (String, String) {
    let credential = stage.handle.credential(Channel::Oppo).unwrap();
    let text = |name: &str| credential[name].as_str().unwrap().to_owned();
    (text("app_key"), text("master_secret"))
}

fn sign(key: &str, timestamp: &str, secret: &str) -> String {
    let whole = digest(&SHA256, format!("{key}{timestamp}{secret}").as_bytes());
    whole.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

async fn auth(stage: &Stage, fields: &[(&str, &str)]) -> Answer {
    stage.call("POST", AUTH, &[FORM], form(fields)).await
}

impl Sender {
    async fn open() -> Self {
        let stage = Stage::open().await;
        let token = Self::token(&stage, 0).await;
        let wire = stage.connect(Door::Http1).await;
        Self { stage, wire, token }
    }

    async fn token(stage: &Stage, ahead_s: i64) -> String {
        let (key, secret) = keys(stage);
        let timestamp = ((now_s() + ahead_s) * 1000).to_string();
        let sign = sign(&key, &timestamp, &secret);
        let fields = [
            ("app_key", key.as_str()),
            ("timestamp", &timestamp),
            ("sign", &sign),
        ];
        auth(stage, &fields).await.at("/data/auth_token")
    }

    async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let mut fields = fields.to_vec();
        fields.push(("auth_token", &self.token));
        self.wire
            .call("POST", path, &[FORM], form(&fields))
            .await
            .unwrap()
    }

    async fn unicast(&mut self, target: &str, change: Value) -> Answer {
        let message = message(target, change).to_string();
        self.post(UNICAST, &[("message", &message)]).await
    }

    fn ids(&self, count: usize, state: TokenState) -> Vec<String> {
        self.stage
            .handle
            .issue_tokens(Channel::Oppo, count, state)
            .unwrap()
    }

    fn id(&self) -> String {
        self.ids(1, TokenState::Valid).remove(0)
    }
}

/// A message with changes to its notification; `null` takes a field out.
fn message(target: &str, change: Value) -> Value {
    let mut notification = json!({"title": "标题", "content": "内容", "category": "IM", "notify_level": 2,
        "action_parameters": "{\"hy_id\":\"m1\"}", "click_action_type": 0});
    for (name, value) in change.as_object().unwrap() {
        notification[name] = value.clone();
        if value.is_null() {
            notification.as_object_mut().unwrap().remove(name);
        }
    }
    json!({"target_type": 2, "target_value": target, "notification": notification})
}

#[tokio::test]
async fn who_gets_an_access_token() {
    let stage = Stage::open().await;
    let (key, secret) = keys(&stage);
    let at = |ahead_s: i64| ((now_s() + ahead_s) * 1000).to_string();
    let now = at(0);
    let good = sign(&key, &now, &secret);
    let (old, ahead) = (at(-700), at(700));
    let (old_sign, ahead_sign) = (sign(&key, &old, &secret), sign(&key, &ahead, &secret));
    let upper = good.to_uppercase();
    let seconds = now_s().to_string();
    let seconds_sign = sign(&key, &seconds, &secret);
    let rows: [(&str, &str, &str, &str); 10] = [
        (&key, &now, &good, "0"),
        ("", &now, &good, "15"),
        (&key, "", &good, "18"),
        (&key, &now, "", "17"),
        ("other", &now, &good, "14"),
        (&key, &now, &upper, "16"),
        (&key, &now, "00", "16"),
        (&key, &old, &old_sign, "19"),
        (&key, &ahead, &ahead_sign, "19"),
        (&key, &seconds, &seconds_sign, "19"),
    ];
    for (key, timestamp, sign, code) in rows {
        let fields: Vec<(&str, &str)> =
            [("app_key", key), ("timestamp", timestamp), ("sign", sign)]
                .into_iter()
                .filter(|(_, value)| !value.is_empty())
                .collect();
        let answer = auth(&stage, &fields).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.at("/code"), code, "{fields:?}");
    }
    let answer = stage.call("GET", AUTH, &[FORM], "").await;
    assert_eq!(answer.at("/code"), "12");
}

#[tokio::test]
async fn access_tokens_live_a_day() {
    let mut sender = Sender::open().await;
    let id = sender.id();
    let body = message(&id, json!({})).to_string();
    let without = form(&[("message", &body)]);
    let answer = sender.stage.call("POST", UNICAST, &[FORM], without).await;
    assert_eq!(answer.at("/code"), "29");
    let wrong = form(&[("message", &body), ("auth_token", "x")]);
    let answer = sender.stage.call("POST", UNICAST, &[FORM], wrong).await;
    assert_eq!(answer.at("/code"), "11");
    assert_eq!(sender.unicast(&id, json!({})).await.at("/code"), "0");
    sender.stage.handle.advance(Duration::from_secs(86_400));
    assert_eq!(sender.unicast(&id, json!({})).await.at("/code"), "11");
    sender.token = Sender::token(&sender.stage, 86_400).await;
    assert_eq!(sender.unicast(&id, json!({})).await.at("/code"), "0");
}

#[tokio::test]
async fn fields_are_held_against_the_documents() {
    let mut sender = Sender::open().await;
    let id = sender.id();
    let text = |n: usize| "题".repeat(n);
    let url = format!("https://x.example/{}", "x".repeat(200));
    let long = json!({"x": "y".repeat(4000)}).to_string();
    let rows = [
        (json!({}), "0"),
        (json!({"title": null}), "40"),
        (json!({"title": " "}), "40"),
        (json!({"title": text(50)}), "0"),
        (json!({"title": text(51)}), "41"),
        (json!({"sub_title": text(11)}), "41"),
        (json!({"content": null}), "40"),
        (json!({"content": text(50)}), "0"),
        (json!({"content": text(51)}), "41"),
        (json!({"content": text(128), "style": 2}), "0"),
        (json!({"content": text(129), "style": 2}), "41"),
        (json!({"style": 3}), "41"),
        (json!({"style": 4}), "41"),
        (json!({"small_picture_id": "p"}), "31"),
        (json!({"click_action_type": 3}), "41"),
        (json!({"click_action_type": 1}), "40"),
        (
            json!({"click_action_type": 4, "click_action_activity": "a.B"}),
            "0",
        ),
        (json!({"click_action_type": 2}), "40"),
        (
            json!({"click_action_type": 5, "click_action_url": "app://x"}),
            "0",
        ),
        (json!({"action_parameters": "{"}), "41"),
        (json!({"action_parameters": long}), "41"),
        (json!({"show_time_type": 1}), "40"),
        (
            json!({"show_time_type": 1, "show_start_time": 1_700_000_001_000_i64, "show_end_time": 1_700_000_000_000_i64}),
            "41",
        ),
        (json!({"off_line_ttl": 99_999_999}), "0"),
        (json!({"off_line_ttl": -1}), "41"),
        (json!({"off_line": "perhaps"}), "41"),
        (json!({"network_type": 2}), "41"),
        (json!({"call_back_url": url}), "41"),
        (json!({"call_back_url": "ftp://x"}), "41"),
        (json!({"call_back_parameter": text(101)}), "41"),
        (json!({"notify_id": -1}), "41"),
        (json!({"show_ttl": 86_401}), "41"),
        (json!({"app_message_id": "x".repeat(65)}), "41"),
        (json!({"push_time_type": 1}), "41"),
        (json!({"unknown": 1}), "41"),
        (json!({"category": null}), "67"),
        (json!({"category": null, "notify_level": null}), "0"),
        (json!({"category": "OTHER"}), "67"),
        (json!({"notify_level": 3}), "67"),
        (json!({"notify_level": 16}), "0"),
        (json!({"category": "MARKETING"}), "67"),
        (json!({"category": "MARKETING", "notify_level": 1}), "0"),
        (json!({"private_msg_template_id": "T9"}), "31"),
        (json!({"private_msg_template_id": "T10001"}), "41"),
        (
            json!({"private_msg_template_id": "T10001", "private_content_parameters": "{\"text\":\"x\"}"}),
            "0",
        ),
    ];
    for (change, code) in rows {
        let answer = sender.unicast(&id, change.clone()).await;
        assert_eq!(answer.at("/code"), code, "{change}: {}", answer.text);
    }
    let broken = sender.post(UNICAST, &[("message", "{")]).await;
    assert_eq!(broken.at("/code"), "41");
    assert_eq!(sender.post(UNICAST, &[]).await.at("/code"), "40");
    let nowhere = sender.post("/server/v1/message/nothing", &[]).await;
    assert_eq!(nowhere.at("/code"), "20");
    let settings = json!({"old_texts": true, "level_16": false, "granted": ["IM"]});
    sender
        .stage
        .handle
        .set_rules(Channel::Oppo, &settings)
        .unwrap();
    for (change, code) in [
        (json!({"content": text(200)}), "0"),
        (json!({"content": text(201)}), "41"),
        (json!({"notify_level": 16}), "67"),
        (json!({"category": "ORDER"}), "67"),
    ] {
        let answer = sender.unicast(&id, change.clone()).await;
        assert_eq!(answer.at("/code"), code, "{change}");
    }
}

#[tokio::test]
async fn targets_are_told_apart() {
    let mut sender = Sender::open().await;
    let dead = sender.ids(1, TokenState::Dead { since_ms: 1 }).remove(0);
    let gone = sender.ids(1, TokenState::Expired { since_ms: 1 }).remove(0);
    let other = sender.ids(1, TokenState::OtherApp).remove(0);
    let alive = sender.id();
    let rows = [
        (alive.as_str(), "0"),
        (dead.as_str(), "10000"),
        (gone.as_str(), "10001"),
        (other.as_str(), "10000"),
        ("short", "10000"),
    ];
    for (target, code) in rows {
        let answer = sender.unicast(target, json!({})).await;
        assert_eq!(answer.at("/code"), code, "{target}");
    }
    let mut aliased = message("me", json!({}));
    aliased["target_type"] = json!(5);
    let answer = sender
        .post(UNICAST, &[("message", &aliased.to_string())])
        .await;
    assert_eq!(answer.at("/code"), "10002");
    let list: Vec<Value> = rows.iter().map(|(t, _)| message(t, json!({}))).collect();
    let list = json!(list).to_string();
    let answer = sender.post(BATCH, &[("messages", &list)]).await;
    for (at, (target, code)) in rows.iter().enumerate() {
        assert_eq!(answer.at(&format!("/data/{at}/registrationId")), *target);
        let told = answer.at(&format!("/data/{at}/errorCode"));
        assert_eq!(told, code.trim_start_matches('0'), "{target}");
        assert_eq!(
            answer.at(&format!("/data/{at}/messageId")).len(),
            if *code == "0" { 24 } else { 0 }
        );
    }
    let empty = sender.post(BATCH, &[("messages", "[]")]).await;
    assert_eq!(empty.at("/code"), "41");
    // The invalid ones come back once.
    let path = format!("{FEEDBACK}?auth_token={}", sender.token);
    let answer = sender.stage.call("GET", &path, &[], "").await;
    assert_eq!(answer.at("/data/totalCount"), "6", "{}", answer.text);
    let answer = sender.stage.call("GET", &path, &[], "").await;
    assert_eq!(answer.json()["data"]["registration_ids"], json!([]));
}

#[tokio::test]
async fn a_stored_text_goes_to_lists() {
    let mut sender = Sender::open().await;
    let alive = sender.ids(2, TokenState::Valid);
    let dead = sender.ids(1, TokenState::Dead { since_ms: 1 });
    let content = [
        ("title", "标题"),
        ("content", "内容"),
        ("style", "1"),
        ("off_line", "true"),
        ("app_message_id", "a1"),
    ];
    let saved = sender.post(SAVE, &content).await;
    let id = saved.at("/data/message_id");
    assert_eq!(id.len(), 24, "{}", saved.text);
    let again = sender.post(SAVE, &content).await;
    assert_eq!(again.at("/data/message_id"), id, "stored once");
    let list = [alive.join(";"), dead.join(";")].join(";");
    let crowd = vec!["x"; 1001].join(";");
    let rows = [
        (id.as_str(), "2", list.as_str(), "0"),
        (&id, "1", "", "0"),
        (&id, "2", "", "41"),
        (&id, "2", &crowd, "41"),
        (&id, "9", &list, "41"),
        ("ffffffffffffffffffffffff", "2", &list, "31"),
    ];
    for (id, kind, list, code) in rows {
        let fields = [
            ("message_id", id),
            ("target_type", kind),
            ("target_value", list),
        ];
        let answer = sender.post(BROADCAST, &fields).await;
        assert_eq!(answer.at("/code"), code, "{kind} {}", answer.text);
        if code == "0" && kind == "2" {
            assert_eq!(answer.json()["data"]["10000"], json!(dead));
            assert!(!answer.at("/data/task_id").is_empty());
        }
    }
    let settings = json!({"broadcast": false, "refuse_duplicates": true});
    sender
        .stage
        .handle
        .set_rules(Channel::Oppo, &settings)
        .unwrap();
    assert_eq!(sender.post(SAVE, &content).await.at("/code"), "30");
}

#[tokio::test]
async fn marketing_has_a_quota_a_day_and_a_message_is_shown_once() {
    let mut sender = Sender::open().await;
    let handle = sender.stage.handle.clone();
    let id = sender.id();
    let settings = json!({"marketing_per_day": 2});
    handle.set_rules(Channel::Oppo, &settings).unwrap();
    let marketing = json!({"category": "MARKETING", "notify_level": 1});
    for code in ["0", "0", "33"] {
        let answer = sender.unicast(&id, marketing.clone()).await;
        assert_eq!(answer.at("/code"), code);
    }
    assert_eq!(sender.unicast(&id, json!({})).await.at("/code"), "0");
    handle.advance(Duration::from_secs(86_400));
    sender.token = Sender::token(&sender.stage, 86_400).await;
    assert_eq!(sender.unicast(&id, marketing).await.at("/code"), "0");
    assert!(
        handle
            .set_rules(Channel::Oppo, &json!({"typo": 1}))
            .is_err()
    );

    let phone = handle
        .add_phone(NewPhone::of("android", "oppo", "", "u"))
        .await
        .unwrap();
    let id = handle.phone_tokens(&phone.id).unwrap()[&Channel::Oppo].clone();
    for _ in 0..2 {
        let answer = sender.unicast(&id, json!({"app_message_id": "a1"})).await;
        assert_eq!(answer.at("/code"), "0");
    }
    let tray = handle.tray(&phone.id).unwrap();
    assert_eq!(tray.len(), 1);
    assert_eq!((tray[0].title.as_str(), tray[0].copies), ("标题", 1));
    assert_eq!(tray[0].message.as_deref(), Some("m1"));
    let settings = json!({"refuse_duplicates": true});
    handle.set_rules(Channel::Oppo, &settings).unwrap();
    let answer = sender.unicast(&id, json!({"app_message_id": "a1"})).await;
    assert_eq!(answer.at("/code"), "32");
}

#[tokio::test]
async fn trouble_has_oppos_codes() {
    let mut sender = Sender::open().await;
    let id = sender.id();
    for (kind, code) in [
        (FaultKind::Unavailable, "-1"),
        (FaultKind::RateLimited, "55"),
        (FaultKind::QuotaExhausted, "33"),
        (FaultKind::TokenInvalid, "10000"),
        (FaultKind::AuthExpired, "11"),
    ] {
        let fault = Fault::times(kind, 1);
        sender.stage.handle.inject(Channel::Oppo, fault).unwrap();
        let answer = sender.unicast(&id, json!({})).await;
        assert_eq!((answer.status, answer.at("/code")), (200, code.to_owned()));
    }
    let answer = sender.unicast(&id, json!({})).await;
    assert_eq!(answer.at("/code"), "11", "the token is worthless for good");
}
