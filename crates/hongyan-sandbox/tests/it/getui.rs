//! Each check of the notes on Getui is a row.

use std::time::Duration;

use hongyan_sandbox::{Channel, TokenState};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::stage::{Answer, Door, Stage, Wire, now_s};

struct App {
    base: String,
    key: String,
    secret: String,
}

impl App {
    fn of(stage: &Stage) -> Self {
        let credential = stage.handle.credential(Channel::Getui).unwrap();
        let text = |name: &str| credential[name].as_str().unwrap().to_owned();
        Self {
            base: format!("/v2/{}", text("app_id")),
            key: text("app_key"),
            secret: text("master_secret"),
        }
    }

    fn auth(&self, timestamp: i64) -> Value {
        let text = format!("{}{timestamp}{}", self.key, self.secret);
        let sign = digest(&SHA256, text.as_bytes());
        let sign: String = sign.as_ref().iter().map(|b| format!("{b:02x}")).collect();
        json!({"sign": sign, "timestamp": timestamp.to_string(), "appkey": self.key})
    }

    async fn call(&self, wire: &mut Wire, token: &str, path: &str, body: &Value) -> Answer {
        let method = if body.is_null() { "GET" } else { "POST" };
        let headers = [
            ("token", token),
            ("content-type", "application/json;charset=utf-8"),
        ];
        let text = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let path = format!("{}{path}", self.base);
        wire.call(method, &path, &headers, text).await.unwrap()
    }

    async fn token(&self, wire: &mut Wire) -> String {
        let answer = self
            .call(wire, "", "/auth", &self.auth(now_s() * 1000))
            .await;
        assert_eq!(answer.at("/code"), "0", "{}", answer.text);
        answer.at("/data/token")
    }
}

fn tokens(stage: &Stage, count: usize, state: TokenState) -> Vec<String> {
    stage
        .handle
        .issue_tokens(Channel::Getui, count, state)
        .unwrap()
}

fn request_id() -> String {
    static N: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let n = N.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    format!("request-{n:010}")
}

fn push(cid: &str) -> Value {
    json!({
        "request_id": request_id(), "audience": {"cid": [cid]}, "settings": {"ttl": 3_600_000},
        "push_message": {"notification": {"title": "t", "body": "b", "click_type": "startapp"}},
    })
}

#[tokio::test]
async fn tokens_are_given_for_a_signature_and_expire() {
    let stage = Stage::open().await;
    let app = App::of(&stage);
    let mut wire = stage.connect(Door::Http1).await;
    let now = now_s() * 1000;
    let mut wrong = app.auth(now);
    wrong["sign"] = "0".into();
    let mut other = app.auth(now);
    other["appkey"] = "other".into();
    let mut number = app.auth(now);
    number["timestamp"] = now.into();
    let rows = [
        (app.auth(now), "0"),
        (number, "0"),
        (wrong, "20001"),
        (other, "20001"),
        (app.auth(now - 601_000), "20001"),
        (json!({}), "20001"),
        (json!("text"), "1"),
    ];
    for (body, code) in rows {
        let answer = app.call(&mut wire, "", "/auth", &body).await;
        assert_eq!(answer.at("/code"), code, "{body}: {}", answer.text);
    }
    let token = app.token(&mut wire).await;
    let cid = tokens(&stage, 1, TokenState::Valid).remove(0);
    for (token, status, code) in [("", 401, "10001"), ("x", 401, "10001"), (&token, 200, "0")] {
        let answer = app
            .call(&mut wire, token, "/push/single/cid", &push(&cid))
            .await;
        assert_eq!(
            (answer.status, answer.at("/code")),
            (status, code.to_owned())
        );
    }
    stage.handle.advance(Duration::from_secs(86_401));
    let answer = app
        .call(&mut wire, &token, "/push/single/cid", &push(&cid))
        .await;
    assert_eq!(answer.at("/code"), "10001");
    for _ in 0..100 {
        app.call(&mut wire, "", "/auth", &json!({})).await;
    }
    let answer = app.call(&mut wire, "", "/auth", &json!({})).await;
    assert_eq!(answer.at("/code"), "10003", "a hundred a minute");
}

#[tokio::test]
async fn each_field_is_checked() {
    let stage = Stage::open().await;
    let app = App::of(&stage);
    let mut wire = stage.connect(Door::Http2).await;
    let token = app.token(&mut wire).await;
    let cid = tokens(&stage, 1, TokenState::Valid).remove(0);
    let dead = tokens(&stage, 1, TokenState::Dead { since_ms: 1 }).remove(0);
    let foreign = tokens(&stage, 1, TokenState::OtherApp).remove(0);
    let changed = |place: &str, value: Value| {
        let mut body = push(&cid);
        *body.pointer_mut(place).unwrap() = value;
        body
    };
    let notification = |change: Value| {
        let mut body = push(&cid);
        let shown = body["push_message"]["notification"]
            .as_object_mut()
            .unwrap();
        shown.extend(change.as_object().unwrap().clone());
        body
    };
    let ups = |options: Value| {
        let mut body = push(&cid);
        body["push_channel"] =
            json!({"android": {"ups": {"transmission": "x", "options": options}}});
        body
    };
    let both = json!({"notification": {"title": "t", "body": "b", "click_type": "none"}, "transmission": "x"});
    let rows = [
        (push(&cid), "0", ""),
        (push(&foreign), "20001", "target user is invalid"),
        (push("nobody"), "20001", "target user is invalid"),
        (push(&dead), "0", ""),
        (
            changed("/request_id", json!("short")),
            "20001",
            "size over limit",
        ),
        (
            changed("/request_id", json!("")),
            "20001",
            "can not be empty",
        ),
        (
            changed("/audience/cid", json!([])),
            "20001",
            "can not be empty",
        ),
        (
            changed("/audience/cid", json!([cid, foreign])),
            "20001",
            "size over limit",
        ),
        (
            changed("/settings/ttl", json!(259_200_001)),
            "20001",
            "is invalid",
        ),
        (
            changed("/push_message", json!({})),
            "20001",
            "please choose one of",
        ),
        (
            changed("/push_message", both),
            "20001",
            "please choose one of",
        ),
        (
            notification(json!({"title": "t".repeat(51)})),
            "20001",
            "size over limit",
        ),
        (notification(json!({"title": ""})), "20001", "is invalid"),
        (
            notification(json!({"click_type": "url"})),
            "20001",
            "url can not be empty",
        ),
        (
            notification(json!({"click_type": "dance"})),
            "20001",
            "is invalid",
        ),
        (
            notification(json!({"channel_level": 5})),
            "20001",
            "is invalid",
        ),
        (
            notification(json!({"big_text": "x", "big_image": "https://x"})),
            "20001",
            "choose one of",
        ),
        (notification(json!({"own": 1})), "0", ""),
        (
            ups(json!({"HW": {"/message/android/category": "IM"}})),
            "0",
            "",
        ),
        (
            ups(json!({"HW": {"category": "IM"}})),
            "20001",
            "is invalid",
        ),
        (ups(json!({"NOKIA": {}})), "20001", "is invalid"),
        (json!("text"), "1", "not json"),
    ];
    for (body, code, words) in rows {
        let answer = app.call(&mut wire, &token, "/push/single/cid", &body).await;
        assert_eq!(answer.at("/code"), code, "{body}: {}", answer.text);
        assert!(answer.at("/msg").contains(words), "{body}: {}", answer.text);
    }
    let answer = app
        .call(&mut wire, &token, "/push/single/cid", &push(&dead))
        .await;
    assert!(answer.text.contains("successed_ignore"), "{}", answer.text);
    let answer = app.call(&mut wire, &token, "/nothing", &json!({})).await;
    assert_eq!((answer.status, answer.at("/code")), (404, "404".to_owned()));
    let answer = app
        .call(&mut wire, &token, "/push/single/cid", &Value::Null)
        .await;
    assert_eq!((answer.status, answer.at("/code")), (405, "405".to_owned()));
}

#[tokio::test]
async fn a_stored_message_goes_to_many_while_it_lives() {
    let stage = Stage::open().await;
    let app = App::of(&stage);
    let mut wire = stage.connect(Door::Http2).await;
    let token = app.token(&mut wire).await;
    let mut stored = push("");
    stored.as_object_mut().unwrap().remove("audience");
    let answer = app
        .call(&mut wire, &token, "/push/list/message", &stored)
        .await;
    let task = answer.at("/data/taskid");
    assert!(task.starts_with("RASL_"), "{}", answer.text);
    let good = tokens(&stage, 2, TokenState::Valid);
    let foreign = tokens(&stage, 1, TokenState::OtherApp).remove(0);
    let list = |cids: Value| json!({"audience": {"cid": cids}, "taskid": task, "is_async": false});
    let mixed = list(json!([good[0], good[1], foreign]));
    let answer = app.call(&mut wire, &token, "/push/list/cid", &mixed).await;
    let want = json!({good[0].as_str(): "successed_online", good[1].as_str(): "successed_online"});
    assert_eq!(answer.json()["data"][&task], want);
    let rows = [
        (list(json!([foreign])), "target user is invalid"),
        (list(json!([good[0], good[0]])), "contains duplicate"),
        (list(json!(vec!["x"; 1001])), "size over limit"),
        (
            json!({"audience": {"cid": [good[0]]}, "taskid": "RASL_x"}),
            "taskid is invalid",
        ),
    ];
    for (body, words) in rows {
        let answer = app.call(&mut wire, &token, "/push/list/cid", &body).await;
        assert_eq!(answer.at("/code"), "20001");
        assert!(answer.at("/msg").contains(words), "{}", answer.text);
    }
    let asked = format!("/user/detail/{},{foreign}", good[0]);
    let answer = app.call(&mut wire, &token, &asked, &Value::Null).await;
    assert_eq!(answer.json()["data"]["invalidCids"], json!([foreign]));
    stage.handle.advance(Duration::from_secs(3601));
    let late = app
        .call(&mut wire, &token, "/push/list/cid", &list(json!([good[0]])))
        .await;
    assert!(late.at("/msg").contains("taskid"), "{}", late.text);
}

#[tokio::test]
async fn a_repeated_request_id_is_dropped_in_silence() {
    let stage = Stage::open().await;
    let app = App::of(&stage);
    let mut wire = stage.connect(Door::Http2).await;
    let token = app.token(&mut wire).await;
    let phone = hongyan_sandbox::NewPhone {
        channels: Some(vec!["getui".to_owned()]),
        ..hongyan_sandbox::NewPhone::of("android", "samsung", "", "u")
    };
    let phone = stage.handle.add_phone(phone).await.unwrap();
    let cid = stage.handle.phone_tokens(&phone.id).unwrap()[&Channel::Getui].clone();
    let body = push(&cid);
    for _ in 0..2 {
        let answer = app.call(&mut wire, &token, "/push/single/cid", &body).await;
        assert_eq!(answer.at("/code"), "0");
        assert!(answer.text.contains("successed_"), "{}", answer.text);
    }
    assert_eq!(stage.handle.tray(&phone.id).unwrap().len(), 1);
    let batch = json!({"is_async": false, "msg_list": [push(&cid), push("nobody")]});
    let answer = app
        .call(&mut wire, &token, "/push/single/batch/cid", &batch)
        .await;
    assert_eq!(answer.json()["data"].as_object().unwrap().len(), 1);
}
