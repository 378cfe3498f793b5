//! Each check of the notes on JPush is a row.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hongyan_sandbox::{Channel, NewPhone, TokenState};
use serde_json::{Value, json};

use crate::stage::{Answer, Door, Stage, Wire};

fn key(stage: &Stage) -> String {
    stage.handle.credential(Channel::Jpush).unwrap()["app_key"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn basic(stage: &Stage) -> String {
    let credential = stage.handle.credential(Channel::Jpush).unwrap();
    let secret = credential["master_secret"].as_str().unwrap();
    format!(
        "Basic {}",
        STANDARD.encode(format!("{}:{secret}", key(stage)))
    )
}

fn tokens(stage: &Stage, count: usize, state: TokenState) -> Vec<String> {
    stage
        .handle
        .issue_tokens(Channel::Jpush, count, state)
        .unwrap()
}

async fn call(wire: &mut Wire, basic: &str, method: &str, path: &str, body: &Value) -> Answer {
    let headers = [
        ("authorization", basic),
        ("content-type", "application/json;charset:utf-8"),
    ];
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    wire.call(method, path, &headers, body).await.unwrap()
}

fn push(id: &str) -> Value {
    json!({"platform": "all", "audience": {"registration_id": [id]}, "notification": {"alert": "hi"}})
}

/// A body with one place changed; `null` removes.
fn with(body: &Value, place: &str, value: Value) -> Value {
    let mut body = body.clone();
    let (parent, name) = place.rsplit_once('/').unwrap();
    let mut at = &mut body;
    for part in parent.split('/').filter(|part| !part.is_empty()) {
        at = &mut at[part];
    }
    if value.is_null() {
        at.as_object_mut().unwrap().remove(name);
    } else {
        at[name] = value;
    }
    body
}

#[tokio::test]
async fn who_calls_is_checked() {
    let stage = Stage::open().await;
    let mut wire = stage.connect(Door::Http1).await;
    let token = tokens(&stage, 1, TokenState::Valid).remove(0);
    let other = format!("Basic {}", STANDARD.encode("000000000000000000000000:x"));
    let wrong = format!("Basic {}", STANDARD.encode(format!("{}:x", key(&stage))));
    let rows = [
        ("", "/v3/push", 401, "1004"),
        (wrong.as_str(), "/v3/push", 401, "1004"),
        (other.as_str(), "/v3/push", 400, "1008"),
        ("", "/v3/devices/status", 401, "7001"),
        (wrong.as_str(), "/v3/devices/status", 401, "7004"),
        (other.as_str(), "/v3/devices/status", 400, "7008"),
        (wrong.as_str(), "/v3/status/message", 401, "3001"),
    ];
    for (basic, path, status, code) in rows {
        let answer = call(&mut wire, basic, "POST", path, &push(&token)).await;
        assert_eq!(
            (answer.status, answer.at("/error/code")),
            (status, code.to_owned()),
            "{path}"
        );
    }
    let answer = call(&mut wire, &basic(&stage), "POST", "/v3/push", &push(&token)).await;
    assert_eq!(
        (answer.status, answer.at("/sendno")),
        (200, "0".to_owned()),
        "{}",
        answer.text
    );
    for header in [
        "x-rate-limit-limit",
        "x-rate-limit-quota",
        "x-rate-limit-remaining",
        "x-rate-limit-reset",
    ] {
        assert!(answer.headers.contains_key(header), "{header}");
    }
    let answer = call(&mut wire, &basic(&stage), "GET", "/v3/push", &Value::Null).await;
    assert_eq!(
        (answer.status, answer.at("/error/code")),
        (405, "1001".to_owned())
    );
}

#[tokio::test]
async fn each_field_is_checked() {
    let stage = Stage::open().await;
    let mut wire = stage.connect(Door::Http2).await;
    let basic = basic(&stage);
    let good = tokens(&stage, 1, TokenState::Valid).remove(0);
    let dead = tokens(&stage, 1, TokenState::Dead { since_ms: 1 }).remove(0);
    let foreign = tokens(&stage, 1, TokenState::OtherApp).remove(0);
    let body = push(&good);
    let many: Vec<&str> = vec![&good; 1001];
    let long = "x".repeat(4100);
    let android = json!({"alert": "a"});
    let rows = [
        (body.clone(), "0"),
        (json!("text"), "1003"),
        (with(&body, "/platform", Value::Null), "1002"),
        (with(&body, "/platform", json!("ios")), "0"),
        (with(&body, "/platform", json!(["symbian"])), "1003"),
        (with(&body, "/audience", Value::Null), "1002"),
        (
            with(&body, "/audience/registration_id", json!(good)),
            "1003",
        ),
        (with(&body, "/audience/registration_id", json!([])), "1002"),
        (
            with(&body, "/audience/registration_id", json!([""])),
            "1003",
        ),
        (
            with(&body, "/audience/registration_id", json!(many)),
            "1003",
        ),
        (
            with(&body, "/audience/registration_id", json!(["3"])),
            "1003",
        ),
        (
            with(&body, "/audience/registration_id", json!([good, foreign])),
            "1003",
        ),
        (
            with(&body, "/audience/registration_id", json!([dead])),
            "1011",
        ),
        (
            with(&body, "/audience/registration_id", json!([good, dead])),
            "0",
        ),
        (with(&body, "/audience/city", json!(["x"])), "1009"),
        (with(&body, "/audience/tag", json!(["nobody"])), "1011"),
        (with(&body, "/notification", Value::Null), "1002"),
        (with(&body, "/message", json!({"title": "t"})), "1002"),
        (with(&body, "/live_activity", json!({})), "1003"),
        (with(&body, "/notification_3rd", json!({})), "1003"),
        (with(&body, "/extra", json!(1)), "1009"),
        (
            with(
                &body,
                "/notification/android",
                json!({"alert": "a", "own": 1}),
            ),
            "1009",
        ),
        (
            with(
                &body,
                "/notification/android",
                json!({"alert": "a", "priority": 3}),
            ),
            "1003",
        ),
        (
            with(
                &body,
                "/notification/android",
                json!({"alert": "a", "badge_class": "c"}),
            ),
            "1003",
        ),
        (
            with(&body, "/notification/android", json!({"alert": long})),
            "1005",
        ),
        (
            with(
                &body,
                "/notification/android",
                json!({"alert": "a", "intent": {"url": "home"}}),
            ),
            "1003",
        ),
        (
            with(
                &body,
                "/notification/ios",
                json!({"alert": "a", "badge": "+1", "content-available": 1}),
            ),
            "0",
        ),
        (
            with(
                &body,
                "/notification/ios",
                json!({"alert": "a", "badge": "many"}),
            ),
            "1003",
        ),
        (
            with(&body, "/notification", json!({"android": android})),
            "0",
        ),
        (with(&body, "/notification", json!({"android": {}})), "1002"),
        (
            with(&body, "/options", json!({"time_to_live": 864_001})),
            "1003",
        ),
        (with(&body, "/options", json!({"sendno": 0})), "1003"),
        (
            with(&body, "/options", json!({"override_msg_id": 7})),
            "1003",
        ),
        (
            with(&body, "/options", json!({"big_push_duration": 1401})),
            "1003",
        ),
        (
            with(
                &body,
                "/options",
                json!({"active_push": true, "big_push_duration": 1}),
            ),
            "1035",
        ),
        (
            with(
                &body,
                "/options",
                json!({"third_party_channel": {"nokia": {}}}),
            ),
            "1009",
        ),
        (
            with(
                &body,
                "/options",
                json!({"third_party_channel": {"oppo": {"notify_level": 2}}}),
            ),
            "1003",
        ),
        (
            with(
                &body,
                "/options",
                json!({"third_party_channel": {"oppo": {"notify_level": 2, "category": "IM"}}}),
            ),
            "0",
        ),
        (
            with(&body, "/callback", json!({"url": "ftp://x", "type": 3})),
            "1003",
        ),
        (
            with(&body, "/callback", json!({"url": "https://x", "type": "3"})),
            "0",
        ),
        (
            with(&body, "/callback", json!({"url": "https://x", "type": 4})),
            "1003",
        ),
        (with(&body, "/cid", json!("mine")), "1003"),
    ];
    for (body, code) in rows {
        for path in ["/v3/push/validate", "/v3//push"] {
            let answer = call(&mut wire, &basic, "POST", path, &body).await;
            let got = if answer.status == 200 {
                "0".to_owned()
            } else {
                answer.at("/error/code")
            };
            assert_eq!(got, code, "{body}: {}", answer.text);
        }
    }
    let answer = call(&mut wire, &basic, "POST", "/v3/push", &push(&foreign)).await;
    let words = format!("The registration_id {foreign} is invalid!");
    assert_eq!(answer.at("/error/message"), words);
}

#[tokio::test]
async fn a_cid_pushes_once_and_a_push_can_be_withdrawn() {
    let stage = Stage::open().await;
    let mut wire = stage.connect(Door::Http2).await;
    let basic = basic(&stage);
    let phone = NewPhone {
        channels: Some(vec!["jpush".to_owned()]),
        ..NewPhone::of("android", "samsung", "", "u")
    };
    let phone = stage.handle.add_phone(phone).await.unwrap();
    let token = stage.handle.phone_tokens(&phone.id).unwrap()[&Channel::Jpush].clone();
    let answer = call(
        &mut wire,
        &basic,
        "GET",
        "/v3/push/cid?count=3&type=push",
        &Value::Null,
    )
    .await;
    let cids = answer.json()["cidlist"].as_array().unwrap().clone();
    assert_eq!(cids.len(), 3);
    assert!(
        cids[0]
            .as_str()
            .unwrap()
            .starts_with(&format!("{}-", key(&stage)))
    );
    let body = with(&push(&token), "/cid", cids[0].clone());
    let first = call(&mut wire, &basic, "POST", "/v3/push", &body)
        .await
        .at("/msg_id");
    let again = call(&mut wire, &basic, "POST", "/v3/push", &body)
        .await
        .at("/msg_id");
    assert_eq!(first, again);
    assert!(
        first.parse::<u64>().unwrap() < 1 << 53,
        "JavaScript reads it"
    );
    assert_eq!(stage.handle.tray(&phone.id).unwrap().len(), 1);
    stage.handle.advance(Duration::from_secs(86_400));
    let later = call(&mut wire, &basic, "POST", "/v3/push", &body)
        .await
        .at("/msg_id");
    assert_ne!(first, later, "a cid lives a day");
    let path = format!("/v3/push/{later}");
    assert_eq!(
        call(&mut wire, &basic, "DELETE", &path, &Value::Null)
            .await
            .status,
        200
    );
    let tray = stage.handle.tray(&phone.id).unwrap();
    assert_eq!(
        tray.iter().map(|e| e.gone).collect::<Vec<_>>(),
        [false, true]
    );
    let answer = call(&mut wire, &basic, "DELETE", "/v3/push/7", &Value::Null).await;
    assert_eq!(answer.at("/error/code"), "1003");
    let over = with(
        &push(&token),
        "/options",
        json!({"override_msg_id": later.parse::<u64>().unwrap()}),
    );
    assert_eq!(
        call(&mut wire, &basic, "POST", "/v3/push", &over)
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn devices_and_reports_answer() {
    let stage = Stage::open().await;
    let mut wire = stage.connect(Door::Http2).await;
    let basic = basic(&stage);
    let good = tokens(&stage, 2, TokenState::Valid);
    let dead = tokens(&stage, 1, TokenState::Dead { since_ms: 1 }).remove(0);
    let path = format!("/v3/devices/{}", good[0]);
    let about = json!({"alias": "ann", "tags": {"add": ["a", "b"]}, "mobile": "13800000000"});
    assert_eq!(
        call(&mut wire, &basic, "POST", &path, &about).await.status,
        200
    );
    let answer = call(&mut wire, &basic, "GET", &path, &Value::Null).await;
    assert_eq!(
        answer.json(),
        json!({"alias": "ann", "tags": ["a", "b"], "mobile": "13800000000"})
    );
    let gone = format!("/v3/device/{dead}");
    assert_eq!(
        call(&mut wire, &basic, "GET", &gone, &Value::Null)
            .await
            .at("/error/code"),
        "7002"
    );
    let by_alias = json!({"platform": "all", "audience": {"alias": ["ann"], "tag": ["b"]}, "notification": {"alert": "hi"}});
    let id = call(&mut wire, &basic, "POST", "/v3/push", &by_alias)
        .await
        .at("/msg_id");
    let ask =
        json!({"msg_id": id.parse::<u64>().unwrap(), "registration_ids": [good[0], good[1], "x"]});
    let answer = call(&mut wire, &basic, "POST", "/v3/status/message", &ask)
        .await
        .json();
    let status = |id: &str| answer[id]["status"].as_i64().unwrap();
    assert_eq!([status(&good[0]), status(&good[1]), status("x")], [0, 3, 2]);
    let path = format!("/v3/received/detail?msg_ids={id}");
    let answer = call(&mut wire, &basic, "GET", &path, &Value::Null).await;
    assert_eq!(answer.at("/0/jpush_received"), "1");
    let online = json!({"registration_ids": [good[0], "x"]});
    let answer = call(&mut wire, &basic, "POST", "/v3/devices/status", &online).await;
    assert_eq!(answer.json()[&good[0]]["online"], true);
}

#[tokio::test]
async fn limits_are_told() {
    let stage = Stage::open().await;
    let mut wire = stage.connect(Door::Http2).await;
    let basic = basic(&stage);
    let all = json!({"platform": "all", "audience": "all", "notification": {"alert": "hi"}});
    for n in 0..11 {
        let answer = call(&mut wire, &basic, "POST", "/v3/push", &all).await;
        let want = if n < 10 {
            String::new()
        } else {
            "2008".to_owned()
        };
        assert_eq!(answer.at("/error/code"), want);
    }
    let mut limited = false;
    for _ in 0..1300 {
        let answer = call(&mut wire, &basic, "GET", "/v3/push/quota", &Value::Null).await;
        if answer.status == 429 {
            assert_eq!(answer.at("/error/code"), "2002");
            let reset = answer.headers["x-rate-limit-reset"].to_str().unwrap();
            assert!((1..=61).contains(&reset.parse::<u64>().unwrap()));
            limited = true;
            break;
        }
    }
    assert!(limited, "600 a minute are taken");
    stage.handle.advance(Duration::from_secs(60));
    let answer = call(&mut wire, &basic, "GET", "/v3/push/quota", &Value::Null).await;
    assert_eq!(answer.status, 200);
}
