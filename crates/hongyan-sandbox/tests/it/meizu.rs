//! Each check of the notes on Meizu is a row.

use std::collections::BTreeMap;
use std::time::Duration;

use hongyan_sandbox::{Channel, TokenState};
use md5::{Digest as _, Md5};
use serde_json::{Value, json};

use crate::stage::{Answer, Door, Stage, Wire, form};

const FORM: (&str, &str) = (
    "content-type",
    "application/x-www-form-urlencoded;charset=UTF-8",
);
const SEND: &str = "varnished/pushByPushId";

fn sign(fields: &BTreeMap<&str, &str>, secret: &str) -> String {
    let text: String = fields.iter().map(|(n, v)| format!("{n}={v}")).collect();
    let sum = Md5::digest(format!("{text}{secret}"));
    sum.iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Sender {
    wire: Wire,
    app_id: String,
    secret: String,
}

impl Sender {
    async fn new(stage: &Stage) -> Self {
        let account = &stage.accounts().others["meizu"];
        Self {
            wire: stage.connect(Door::Http1).await,
            app_id: account["app_id"].as_str().unwrap().to_owned(),
            secret: account["app_secret"].as_str().unwrap().to_owned(),
        }
    }

    async fn call(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let mut fields: BTreeMap<&str, &str> = fields.iter().copied().collect();
        fields.insert("appId", &self.app_id);
        let sign = sign(&fields, &self.secret);
        fields.insert("sign", &sign);
        let fields: Vec<_> = fields.into_iter().collect();
        let path = format!("/garcia/api/server/push/{path}");
        let answer = self.wire.call("POST", &path, &[FORM], form(&fields)).await;
        answer.unwrap()
    }

    async fn send(&mut self, message: &Value, ids: &[String]) -> Answer {
        let (text, ids) = (message.to_string(), ids.join(","));
        self.call(SEND, &[("messageJson", &text), ("pushIds", &ids)])
            .await
    }
}

fn tokens(stage: &Stage, count: usize, state: TokenState) -> Vec<String> {
    let issued = stage.handle.issue_tokens(Channel::Meizu, count, state);
    issued.unwrap()
}

fn message(kind: u8) -> Value {
    json!({"noticeBarInfo": {"noticeMsgType": kind, "title": "t", "content": "c"}})
}

#[test]
fn the_signature_is_the_papers() {
    let fields = BTreeMap::from([("appId", "100999"), ("pushIds", "A1"), ("taskId", "20457")]);
    assert_eq!(
        sign(&fields, "demoAppSecret"),
        "d6669d5ccd116ec5b95307774625ec5f"
    );
}

#[tokio::test]
async fn who_may_send_and_how() {
    let stage = Stage::open().await;
    let token = tokens(&stage, 1, TokenState::Valid);
    let mut sender = Sender::new(&stage).await;
    let answer = sender.send(&message(1), &token).await;
    assert_eq!(
        (answer.at("/code"), answer.json()["value"].clone()),
        ("200".into(), json!({}))
    );
    assert_eq!(answer.at("/msgId").len(), 32);
    let secret = std::mem::replace(&mut sender.secret, "wrong".to_owned());
    assert_eq!(sender.send(&message(1), &token).await.at("/code"), "1006");
    sender.secret = secret;
    let app_id = std::mem::replace(&mut sender.app_id, "1".to_owned());
    assert_eq!(sender.send(&message(1), &token).await.at("/code"), "110000");
    sender.app_id = app_id;
    let path = format!("/garcia/api/server/push/{SEND}");
    let answer = stage.call("GET", &path, &[], "").await;
    assert_eq!(answer.at("/code"), "1005");
    let crowd = vec!["A".repeat(20); 101];
    assert_eq!(sender.send(&message(1), &crowd).await.at("/code"), "1005");
    let text = message(1).to_string();
    let none = sender.call(SEND, &[("messageJson", &text)]).await;
    assert_eq!(none.at("/code"), "110004");
    let broken = sender
        .call(SEND, &[("messageJson", "{"), ("pushIds", &token[0])])
        .await;
    assert_eq!(broken.at("/code"), "1005");
}

#[tokio::test]
async fn fields_are_held_against_the_documents() {
    let stage = Stage::open().await;
    let token = tokens(&stage, 1, TokenState::Valid);
    let mut sender = Sender::new(&stage).await;
    let (t32, t33) = ("题".repeat(32), "题".repeat(33));
    let (c100, c101) = ("文".repeat(100), "文".repeat(101));
    let (url, param) = (format!("https://{}", "x".repeat(121)), "p".repeat(65));
    let rows = [
        (
            json!({"noticeBarInfo": {"title": t32, "content": c100}}),
            "200",
        ),
        (
            json!({"noticeBarInfo": {"title": t33, "content": "c"}}),
            "1005",
        ),
        (
            json!({"noticeBarInfo": {"title": "t", "content": c101}}),
            "1005",
        ),
        (
            json!({"noticeBarInfo": {"title": "", "content": "c"}}),
            "1005",
        ),
        (json!({"noticeBarInfo": {"title": "t"}}), "1005"),
        (
            json!({"noticeBarInfo": {"title": "t", "content": "c", "noticeMsgType": 2}}),
            "1005",
        ),
        (json!({"clickTypeInfo": {"clickType": 1}}), "1005"),
        (
            json!({"clickTypeInfo": {"clickType": 1, "activity": "a.B"}}),
            "200",
        ),
        (json!({"clickTypeInfo": {"clickType": 2}}), "1005"),
        (
            json!({"clickTypeInfo": {"clickType": 2, "url": "app://x"}}),
            "200",
        ),
        (
            json!({"clickTypeInfo": {"clickType": 3, "customAttribute": "x".repeat(1001)}}),
            "1005",
        ),
        (
            json!({"pushTimeInfo": {"offLine": 1, "validTime": 73}}),
            "1005",
        ),
        (
            json!({"pushTimeInfo": {"offLine": 1, "validTime": 0}}),
            "1005",
        ),
        (json!({"pushTimeInfo": {"offLine": 0}}), "200"),
        (json!({"advanceInfo": {"notifyKey": "aA0_-bcd"}}), "200"),
        (json!({"advanceInfo": {"notifyKey": "aA0_-bcde"}}), "1005"),
        (json!({"advanceInfo": {"notifyKey": "ä"}}), "1005"),
        (
            json!({"advanceInfo": {"fixStartDisplayTime": "2026-11-23 10:00:00"}}),
            "200",
        ),
        (
            json!({"advanceInfo": {"fixStartDisplayTime": "2026-11-23"}}),
            "1005",
        ),
        (json!({"noticeExpandInfo": {"noticeExpandType": 1}}), "1005"),
        (
            json!({"noticeExpandInfo": {"noticeExpandType": 1, "noticeExpandContent": "x"}}),
            "200",
        ),
        (json!({"vipInfo": {"subtitle": "s"}}), "1005"),
        (json!({"extra": {"callback": url}}), "1005"),
        (
            json!({"extra": {"callback": "https://x", "callback.param": param}}),
            "1005",
        ),
        (
            json!({"extra": {"callback": "https://x", "callback.type": "3"}}),
            "200",
        ),
        (
            json!({"extra": {"callback": "https://x", "callback.type": 4}}),
            "1005",
        ),
        (json!({"unknown": 1}), "200"),
    ];
    for (change, code) in rows {
        let mut whole = message(1);
        let fields = change.as_object().unwrap().clone();
        whole.as_object_mut().unwrap().extend(fields);
        let answer = sender.send(&whole, &token).await;
        assert_eq!(answer.at("/code"), code, "{change}: {}", answer.text);
    }
    let vip = json!({"vip": true});
    stage.handle.set_rules(Channel::Meizu, &vip).unwrap();
    let mut whole = message(1);
    whole["vipInfo"] = json!({"subtitle": "s"});
    assert_eq!(sender.send(&whole, &token).await.at("/code"), "200");
}

#[tokio::test]
async fn bad_targets_are_named_by_their_codes() {
    let stage = Stage::open().await;
    let mut sender = Sender::new(&stage).await;
    let good = tokens(&stage, 1, TokenState::Valid);
    let off = tokens(&stage, 1, TokenState::Valid);
    let dead = tokens(&stage, 1, TokenState::Dead { since_ms: 1 });
    let other = tokens(&stage, 1, TokenState::OtherApp);
    let rules = json!({"switched_off": off});
    stage.handle.set_rules(Channel::Meizu, &rules).unwrap();
    let all = [good, off.clone(), dead.clone(), other.clone()].concat();
    let answer = sender.send(&message(1), &all).await.json();
    assert_eq!(answer["code"], "200");
    let want = json!({"110002": dead, "110003": other, "110010": off});
    assert_eq!(answer["value"], want);
}

#[tokio::test]
async fn a_device_has_its_share_of_a_day_and_of_a_minute() {
    let stage = Stage::open().await;
    stage.handle.set_device_limits(true);
    let mut sender = Sender::new(&stage).await;
    let token = tokens(&stage, 1, TokenState::Valid);
    let full = json!({"110011": token});
    for want in [&json!({}), &json!({}), &json!({}), &full] {
        let answer = sender.send(&message(0), &token).await.json();
        assert_eq!(&answer["value"], want);
    }
    for want in [json!({}), json!({}), json!({"520": token})] {
        let answer = sender.send(&message(1), &token).await.json();
        assert_eq!(answer["value"], want);
    }
    stage.handle.advance(Duration::from_secs(86_400));
    let answer = sender.send(&message(0), &token).await.json();
    assert_eq!(answer["value"], json!({}));
    let rules = json!({"per_day": 3});
    stage.handle.set_rules(Channel::Meizu, &rules).unwrap();
    let two = [token.clone(), token.clone()].concat();
    assert_eq!(sender.send(&message(1), &two).await.at("/code"), "200");
    assert_eq!(sender.send(&message(1), &token).await.at("/code"), "110019");
}

#[tokio::test]
async fn tasks_are_sent_by_their_id() {
    let stage = Stage::open().await;
    let mut sender = Sender::new(&stage).await;
    let token = tokens(&stage, 1, TokenState::Valid);
    let text = message(1).to_string();
    let fields = [("messageJson", text.as_str()), ("pushType", "0")];
    let task = sender
        .call("pushTask/getTaskId", &fields)
        .await
        .at("/value/taskId");
    let send = "task/varnished/pushByPushId";
    let fields = [("taskId", task.as_str()), ("pushIds", token[0].as_str())];
    assert_eq!(sender.call(send, &fields).await.at("/code"), "200");
    let cancel = [("taskId", task.as_str()), ("pushType", "0")];
    let answer = sender.call("pushTask/cancel", &cancel).await;
    assert_eq!(answer.at("/value/result"), "true");
    assert_eq!(sender.call(send, &fields).await.at("/code"), "110032");
    let alias = [("messageJson", text.as_str()), ("alias", "a1")];
    let answer = sender.call("varnished/pushByAlias", &alias).await.json();
    assert_eq!(answer["value"], json!({"110005": ["a1"]}));
}
