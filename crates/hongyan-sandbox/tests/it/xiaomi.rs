//! Each check of the notes on Xiaomi is a row.

use std::time::Duration;

use hongyan_sandbox::{Channel, PACKAGE, TokenState};
use serde_json::json;

use crate::stage::{Answer, Door, Stage, Wire, form};

const FORM: (&str, &str) = (
    "content-type",
    "application/x-www-form-urlencoded;charset=UTF-8",
);
const SEND: &str = "/v3/message/regid";

fn key(stage: &Stage) -> String {
    format!("key={}", stage.accounts().xiaomi.app_secret)
}

async fn send(wire: &mut Wire, key: &str, path: &str, fields: &[(&str, &str)]) -> Answer {
    wire.call("POST", path, &[("authorization", key), FORM], form(fields))
        .await
        .unwrap()
}

fn regid(stage: &Stage, state: TokenState) -> String {
    stage
        .handle
        .issue_tokens(Channel::Xiaomi, 1, state)
        .unwrap()
        .remove(0)
}

/// The base form with changes; an empty value takes the field out.
fn fields<'a>(regid: &'a str, change: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut fields = vec![
        ("registration_id", regid),
        ("restricted_package_name", PACKAGE),
        ("title", "标题"),
        ("description", "内容"),
        ("notify_id", "7"),
        ("extra.channel_id", "100001"),
        ("extra.hy_id", "m1"),
    ];
    for (name, value) in change {
        fields.retain(|(field, _)| field != name);
        if !value.is_empty() {
            fields.push((name, value));
        }
    }
    fields
}

#[tokio::test]
async fn who_may_send_and_how() {
    let stage = Stage::open().await;
    let regid = regid(&stage, TokenState::Valid);
    let key = key(&stage);
    let upper = key.replace("key=", "KEY=");
    let body = form(&fields(&regid, &[]));
    let rows: [(&str, &str, &[(&str, &str)], &str); 7] = [
        ("POST", SEND, &[("authorization", &key), FORM], "0"),
        (
            "POST",
            "/v2/message/regid",
            &[("authorization", &key), FORM],
            "0",
        ),
        ("POST", SEND, &[FORM], "21301"),
        ("POST", SEND, &[("authorization", &upper), FORM], "21301"),
        (
            "POST",
            SEND,
            &[("authorization", "key=wrong"), FORM],
            "21301",
        ),
        (
            "POST",
            SEND,
            &[
                ("authorization", &key),
                ("content-type", "application/json"),
            ],
            "10007",
        ),
        ("GET", SEND, &[("authorization", &key)], "10021"),
    ];
    for (method, path, headers, code) in rows {
        let answer = stage.call(method, path, headers, body.clone()).await;
        assert_eq!(
            (answer.status, answer.at("/code").as_str()),
            (200, code),
            "{method} {headers:?}"
        );
        let result = if code == "0" { "ok" } else { "error" };
        assert_eq!(answer.at("/result"), result);
        assert_eq!(answer.at("/data/id").starts_with("scm"), code == "0");
    }
    assert_eq!(
        stage.handle.requests(Channel::Xiaomi)[0].body["extra.hy_id"],
        json!("m1")
    );
}

#[tokio::test]
async fn fields_are_held_against_the_documents() {
    let stage = Stage::open().await;
    let regid = regid(&stage, TokenState::Valid);
    let key = key(&stage);
    let mut wire = stage.connect(Door::Http1).await;
    let (t49, t50) = ("题".repeat(49), "题".repeat(50));
    let (d127, d128) = ("文".repeat(127), "文".repeat(128));
    let (payload, long) = ("p".repeat(4096), "v".repeat(1024));
    let url = format!("http://127.0.0.1/{}", "x".repeat(128));
    let param = "x".repeat(257);
    let crowd = vec!["r"; 1001].join(",");
    let many: Vec<String> = (0..11).map(|n| format!("extra.own{n}")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), "1")).collect();
    let template = ("extra.template_id", "P10002");
    let orders = ("extra.channel_id", "100002");
    let rows: Vec<(Vec<(&str, &str)>, &str)> = vec![
        (vec![], "0"),
        (vec![("registration_id", "")], "10016"),
        (vec![("registration_id", &crowd)], "10017"),
        (vec![("restricted_package_name", "")], "10016"),
        (vec![("restricted_package_name", "com.other")], "22022"),
        (vec![("title", "")], "10016"),
        (vec![("title", "  ")], "10016"),
        (vec![("title", &t49)], "0"),
        (vec![("title", &t50)], "65009"),
        (vec![("description", &d127)], "0"),
        (vec![("description", &d128)], "65009"),
        (vec![("payload", &payload)], "65009"),
        (vec![("payload", &payload[1..])], "0"),
        (vec![("pass_through", "1")], "10016"),
        (
            vec![("pass_through", "1"), ("payload", "x"), ("title", "")],
            "0",
        ),
        (vec![("pass_through", "2")], "10017"),
        (vec![("notify_id", "-1")], "22103"),
        (vec![("notify_type", "8")], "10017"),
        (vec![("notify_type", "-1")], "0"),
        (vec![("time_to_live", "1209600001")], "10017"),
        (vec![("time_to_send", "99999999999999")], "10017"),
        (vec![("unknown", "1")], "10008"),
        (vec![("extra.own", &long)], "65015"),
        (many, "65014"),
        (vec![("extra.jobkey", "_x")], "10017"),
        (vec![("extra.jobkey", "job-1")], "0"),
        (vec![("extra.notify_effect", "2")], "10017"),
        (
            vec![
                ("extra.notify_effect", "2"),
                ("extra.intent_uri", "intent:x"),
            ],
            "0",
        ),
        (
            vec![("extra.notify_effect", "3"), ("extra.web_uri", "ftp://x")],
            "10017",
        ),
        (vec![("extra.callback", &url)], "65037"),
        (vec![("extra.callback", "ftp://x")], "65038"),
        (vec![("extra.callback.param", &param)], "65036"),
        (vec![("extra.channel_id", "777")], "27001"),
        (vec![("extra.channel_id", "")], "0"),
        (vec![orders, template], "10017"),
        (
            vec![
                orders,
                template,
                ("extra.template_param", r#"{"order":"1","state":"ok"}"#),
            ],
            "0",
        ),
        (
            vec![
                orders,
                template,
                ("extra.template_param", r#"{"order":"1","state":"😀"}"#),
            ],
            "10017",
        ),
        (
            vec![orders, template, ("extra.template_param", "{")],
            "65030",
        ),
        (vec![template], "27001"),
    ];
    for (change, code) in rows {
        let answer = send(&mut wire, &key, SEND, &fields(&regid, &change)).await;
        assert_eq!(answer.at("/code"), code, "{change:?}: {}", answer.text);
    }
}

#[tokio::test]
async fn newer_rules_can_be_switched_on() {
    let stage = Stage::open().await;
    let regid = regid(&stage, TokenState::Valid);
    let key = key(&stage);
    let mut wire = stage.connect(Door::Http2).await;
    stage.handle.set_xiaomi_rules(true, true);
    let answer = send(
        &mut wire,
        &key,
        SEND,
        &fields(&regid, &[("extra.channel_id", "")]),
    )
    .await;
    assert_eq!(answer.at("/code"), "27001");
    let answer = send(&mut wire, &key, SEND, &fields(&regid, &[])).await;
    assert_eq!(answer.at("/code"), "27001");
    let answer = send(
        &mut wire,
        &key,
        SEND,
        &fields(&regid, &[("extra.channel_id", "200001")]),
    )
    .await;
    assert_eq!(answer.at("/code"), "0");
}

#[tokio::test]
async fn a_channel_has_a_quota_a_day() {
    let stage = Stage::open().await;
    let regid = regid(&stage, TokenState::Valid);
    let key = key(&stage);
    let mut wire = stage.connect(Door::Http2).await;
    stage.handle.set_xiaomi_quota("200001", Some(2));
    let public = fields(&regid, &[("extra.channel_id", "200001")]);
    for code in ["0", "0", "200001"] {
        assert_eq!(send(&mut wire, &key, SEND, &public).await.at("/code"), code);
    }
    let answer = send(&mut wire, &key, SEND, &public).await;
    assert_eq!(
        answer.at("/reason"),
        "exceed quota, quota: 2, have acked: 2"
    );
    assert_eq!(
        send(&mut wire, &key, SEND, &fields(&regid, &[]))
            .await
            .at("/code"),
        "0"
    );
    let item = json!([{"target": regid, "message": {
        "title": "t", "description": "d", "restricted_package_name": PACKAGE,
        "extra": {"channel_id": "200001"},
    }}]);
    let several = [("messages", &*item.to_string())].map(|(a, b)| (a, b.to_owned()));
    let several: Vec<(&str, &str)> = several.iter().map(|(a, b)| (*a, b.as_str())).collect();
    let answer = send(&mut wire, &key, "/v2/multi_messages/regids", &several).await;
    assert_eq!(
        (answer.at("/code"), answer.at("/data/channel_exceed_quota")),
        ("0".into(), "200001".into())
    );
    stage.handle.advance(Duration::from_secs(86_400));
    assert_eq!(send(&mut wire, &key, SEND, &public).await.at("/code"), "0");
}

#[tokio::test]
async fn dead_regids_come_back_through_feedback_once() {
    let stage = Stage::open().await;
    let dead = regid(&stage, TokenState::Dead { since_ms: 1 });
    let alive = regid(&stage, TokenState::Valid);
    let key = key(&stage);
    let mut wire = stage.connect(Door::Http2).await;
    let both = format!("{dead},{alive}");
    let answer = send(&mut wire, &key, SEND, &fields(&both, &[])).await;
    assert_eq!(answer.at("/code"), "0");
    let fetch = "/v1/feedback/fetch_invalid_regids";
    let auth = [("authorization", key.as_str())];
    let answer = stage.call("GET", fetch, &auth, "").await;
    assert_eq!(answer.json()["data"]["list"], json!([dead]));
    let answer = stage.call("GET", fetch, &auth, "").await;
    assert_eq!(answer.json()["data"]["list"], json!([]));
}

#[tokio::test]
async fn a_send_without_a_living_target_fails() {
    let stage = Stage::open().await;
    let dead = regid(&stage, TokenState::Dead { since_ms: 1 });
    let key = key(&stage);
    let mut wire = stage.connect(Door::Http2).await;
    let answer = send(&mut wire, &key, SEND, &fields(&dead, &[])).await;
    assert_eq!(
        (answer.at("/code"), answer.at("/reason")),
        ("20301".to_owned(), "No valid targets!".to_owned())
    );
}

#[tokio::test]
async fn other_calls_answer() {
    let stage = Stage::open().await;
    let key = key(&stage);
    let auth = [("authorization", key.as_str())];
    let mut wire = stage.connect(Door::Http2).await;
    let base = [("restricted_package_name", PACKAGE)];
    let answer = send(&mut wire, &key, "/revoke/message", &base).await;
    assert_eq!(answer.at("/code"), "10016");
    let answer = send(
        &mut wire,
        &key,
        "/revoke/message",
        &[base[0], ("notify_id", "7")],
    )
    .await;
    assert_eq!(answer.at("/code"), "0");
    let answer = stage
        .call("GET", "/v1/trace/message/status?msg_id=no", &auth, "")
        .await;
    assert_eq!(answer.at("/code"), "65028");
    let answer = stage.call("GET", "/v1/regid/nothing", &auth, "").await;
    assert_eq!(answer.at("/code"), "10020");
    let topics = [
        ("topics", "a;$;b"),
        ("topic_op", "UNION"),
        ("restricted_package_name", PACKAGE),
        ("title", "t"),
        ("description", "d"),
    ];
    assert_eq!(
        send(&mut wire, &key, "/v3/message/multi_topic", &topics)
            .await
            .at("/code"),
        "0"
    );
    let mut six = topics;
    six[0].1 = "a;$;b;$;c;$;d;$;e;$;f";
    assert_eq!(
        send(&mut wire, &key, "/v3/message/multi_topic", &six)
            .await
            .at("/code"),
        "65035"
    );
}
