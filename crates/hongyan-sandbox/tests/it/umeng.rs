//! Each check of the notes on Umeng is a row.

use std::time::Duration;

use hongyan_sandbox::{Channel, TokenState};
use md5::{Digest as _, Md5};
use serde_json::{Value, json};

use crate::stage::{Answer, Door, Stage, Wire, now_s};

struct App {
    host: String,
    key: String,
    secret: String,
}

impl App {
    fn of(stage: &Stage) -> Self {
        let credential = stage.handle.credential(Channel::Umeng).unwrap();
        let text = |name: &str| credential[name].as_str().unwrap().to_owned();
        Self {
            host: stage.handle.vendors_address().to_string(),
            key: text("app_key"),
            secret: text("master_secret"),
        }
    }

    fn sign(&self, scheme: &str, path: &str, body: &str) -> String {
        let mut md5 = Md5::new();
        md5.update(format!(
            "POST{scheme}://{}{path}{body}{}",
            self.host, self.secret
        ));
        md5.finalize().iter().map(|b| format!("{b:02x}")).collect()
    }

    async fn call(&self, wire: &mut Wire, path: &str, body: &Value) -> Answer {
        let body = body.to_string();
        let sign = self.sign("https", path, &body);
        let headers = [("content-type", "application/json")];
        let path = format!("{path}?sign={sign}");
        wire.call("POST", &path, &headers, body).await.unwrap()
    }

    fn send(&self, token: &str) -> Value {
        json!({
            "appkey": self.key, "timestamp": now_s().to_string(), "type": "unicast", "device_tokens": token,
            "payload": {"display_type": "notification",
                        "body": {"ticker": "t", "title": "t", "text": "b", "after_open": "go_app"}},
        })
    }
}

fn tokens(stage: &Stage, count: usize, state: TokenState) -> Vec<String> {
    stage
        .handle
        .issue_tokens(Channel::Umeng, count, state)
        .unwrap()
}

#[tokio::test]
async fn the_signature_is_of_the_bytes_as_sent() {
    let stage = Stage::open().await;
    let app = App::of(&stage);
    let mut wire = stage.connect(Door::Http1).await;
    let token = tokens(&stage, 1, TokenState::Valid).remove(0);
    let body = app.send(&token).to_string();
    let spaced = format!(" {body} ");
    let path = "/api/send";
    let right = app.sign("https", path, &body);
    let rows = [
        (body.clone(), format!("?sign={right}"), 200, ""),
        (
            body.clone(),
            format!("?sign={}", app.sign("http", path, &body)),
            200,
            "",
        ),
        (
            spaced.clone(),
            format!("?sign={}", app.sign("https", path, &spaced)),
            200,
            "",
        ),
        (spaced, format!("?sign={right}"), 400, "2027"),
        (body.clone(), String::new(), 400, "2007"),
        (
            body.clone(),
            format!("?sign={}", right.to_uppercase()),
            400,
            "2027",
        ),
        ("{".to_owned(), format!("?sign={right}"), 400, "2008"),
        (json!({}).to_string(), format!("?sign={right}"), 400, "1000"),
        (
            json!({"appkey": "x"}).to_string(),
            format!("?sign={right}"),
            400,
            "2021",
        ),
    ];
    for (body, query, status, code) in rows {
        // Some clients post JSON as a form.
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        let answer = wire
            .call("POST", &format!("{path}{query}"), &headers, body)
            .await
            .unwrap();
        assert_eq!(
            (answer.status, answer.at("/data/error_code").as_str()),
            (status, code)
        );
    }
}

#[tokio::test]
async fn each_field_is_checked() {
    let stage = Stage::open().await;
    let app = App::of(&stage);
    let mut wire = stage.connect(Door::Http2).await;
    let token = tokens(&stage, 1, TokenState::Valid).remove(0);
    let dead = tokens(&stage, 1, TokenState::Dead { since_ms: 1 }).remove(0);
    let foreign = tokens(&stage, 1, TokenState::OtherApp).remove(0);
    let changed = |change: Value| {
        let mut body = app.send(&token);
        body.as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        body
    };
    let shown = |change: Value| {
        let mut body = app.send(&token);
        let shown = body["payload"]["body"].as_object_mut().unwrap();
        shown.extend(change.as_object().unwrap().clone());
        body
    };
    let message = |custom: Value| {
        changed(json!({"payload": {"display_type": "message", "body": {"custom": custom}}}))
    };
    let late = now_s() - 601;
    let rows = [
        (app.send(&token), ""),
        (app.send(&dead), ""),
        (app.send(&foreign), "4014"),
        (app.send("short"), "4010"),
        (app.send(""), "1015"),
        (changed(json!({"type": ""})), "1016"),
        (changed(json!({"type": "carrier pigeon"})), "2048"),
        (
            changed(json!({"device_tokens": format!("{token},{dead}")})),
            "2015",
        ),
        (
            changed(json!({"type": "listcast", "device_tokens": format!("{token},{dead}")})),
            "",
        ),
        (
            changed(json!({"type": "listcast", "device_tokens": vec!["x"; 501].join(",")})),
            "2015",
        ),
        (changed(json!({"timestamp": late.to_string()})), "2028"),
        (changed(json!({"timestamp": "soon"})), "2036"),
        (changed(json!({"timestamp": null})), "2052"),
        (changed(json!({"timestamp": now_s() * 1000})), ""),
        (changed(json!({"payload": null})), "1001"),
        (
            changed(json!({"payload": {"display_type": "notification"}})),
            "1002",
        ),
        (changed(json!({"payload": {"body": {}}})), "1004"),
        (changed(json!({"production_mode": "maybe"})), "1017"),
        (
            changed(json!({"policy": {"expire_time": "tomorrow"}})),
            "2039",
        ),
        (
            changed(json!({"policy": {"expire_time": "2020-01-01 00:00:00"}})),
            "2003",
        ),
        (
            changed(json!({"policy": {"expire_time": "2099-01-01 00:00:00"}})),
            "2040",
        ),
        (changed(json!({"policy": "x"})), "1027"),
        (
            changed(json!({"channel_properties": {"oppo_notify_level": "2"}})),
            "1027",
        ),
        (
            changed(
                json!({"channel_properties": {"oppo_notify_level": "2", "oppo_category": "IM"}}),
            ),
            "",
        ),
        (message(json!("x")), ""),
        (message(json!({"a": 1})), ""),
        (message(json!("")), "1003"),
        (shown(json!({"ticker": ""})), "1008"),
        (shown(json!({"title": ""})), "1009"),
        (shown(json!({"text": ""})), "1010"),
        (shown(json!({"img": "file:x"})), "1005"),
        (shown(json!({"play_sound": "loud"})), "1013"),
        (shown(json!({"play_sound": true})), ""),
        (shown(json!({"set_badge": 100})), "1002"),
        (shown(json!({"after_open": "go_url"})), "1022"),
        (
            shown(json!({"after_open": "go_url", "url": "app:x"})),
            "1007",
        ),
        (shown(json!({"after_open": "go_activity"})), "1024"),
        (shown(json!({"text": "x".repeat(2048)})), "2022"),
        (changed(json!({"type": "filecast"})), "2018"),
        (
            changed(json!({"type": "filecast", "file_id": "PF0"})),
            "2019",
        ),
        (changed(json!({"type": "groupcast"})), "2016"),
        (changed(json!({"type": "groupcast", "filter": {}})), "2031"),
        (changed(json!({"type": "customizedcast"})), "2047"),
        (
            changed(json!({"type": "customizedcast", "alias_type": "u"})),
            "2009",
        ),
        (
            changed(
                json!({"type": "customizedcast", "alias_type": "u", "alias": "a", "file_id": "f"}),
            ),
            "2049",
        ),
    ];
    for (body, code) in rows {
        let answer = app.call(&mut wire, "/api/send", &body).await;
        assert_eq!(
            answer.at("/data/error_code"),
            code,
            "{body}: {}",
            answer.text
        );
        assert_eq!(answer.status, if code.is_empty() { 200 } else { 400 });
    }
}

#[tokio::test]
async fn tasks_have_states_and_are_recognised() {
    let stage = Stage::open().await;
    let app = App::of(&stage);
    let mut wire = stage.connect(Door::Http2).await;
    let tokens = tokens(&stage, 2, TokenState::Valid);
    let about = |change: Value| {
        let mut body = json!({"appkey": app.key, "timestamp": now_s().to_string()});
        body.as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        body
    };
    let content = about(json!({"content": tokens.join("\n")}));
    let file = app
        .call(&mut wire, "/upload", &content)
        .await
        .at("/data/file_id");
    assert!(file.starts_with("PF"));
    let alias = app.call(&mut wire, "/api/upload", &content).await;
    assert_eq!(alias.status, 200);
    let mut send = app.send("");
    send["type"] = "filecast".into();
    send["file_id"] = file.into();
    send["policy"] = json!({"out_biz_no": "n1"});
    let task = app
        .call(&mut wire, "/api/send", &send)
        .await
        .at("/data/task_id");
    let again = app
        .call(&mut wire, "/api/send", &send)
        .await
        .at("/data/task_id");
    assert_eq!(task, again, "the sender's number is known");
    let asked = about(json!({"task_id": task}));
    let answer = app.call(&mut wire, "/api/status", &asked).await;
    assert_eq!(
        (answer.at("/data/status"), answer.at("/data/sent_count")),
        ("2".to_owned(), "2".to_owned())
    );
    assert_eq!(
        app.call(&mut wire, "/api/task/stat", &asked)
            .await
            .at("/data/sent_count"),
        "2"
    );
    assert_eq!(app.call(&mut wire, "/api/cancel", &asked).await.status, 200);
    assert_eq!(
        app.call(&mut wire, "/api/status", &asked)
            .await
            .at("/data/status"),
        "4"
    );
    let unknown = about(json!({"task_id": "us0"}));
    for path in ["/api/status", "/api/cancel"] {
        assert_eq!(
            app.call(&mut wire, path, &unknown)
                .await
                .at("/data/error_code"),
            "1014"
        );
    }
    let missing = app.call(&mut wire, "/api/status", &about(json!({}))).await;
    assert_eq!(missing.at("/data/error_code"), "2053");
    let mut all = app.send("");
    all["type"] = "broadcast".into();
    for n in 0..11 {
        let answer = app.call(&mut wire, "/api/send", &all).await;
        assert_eq!(
            answer.at("/data/error_code"),
            if n < 10 { "" } else { "2012" }
        );
    }
    stage.handle.advance(Duration::from_secs(86_400));
    all["timestamp"] = (now_s() + 86_400).to_string().into();
    assert_eq!(app.call(&mut wire, "/api/send", &all).await.status, 200);
}
