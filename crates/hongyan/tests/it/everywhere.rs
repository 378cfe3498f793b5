//! Every way out at once, as the demo has them and a black box sees them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::harness::{Demo, hello, until};

/// A killed phone that one channel reaches, and its user.
struct Far {
    channel: String,
    user: String,
    phone: String,
}

/// The demo's phones by channel: platform and brand.
fn channels(demo: &Demo) -> BTreeMap<String, (String, String)> {
    let (status, phones) = demo.sandbox("GET", "/phones", &Value::Null);
    assert_eq!(status, 200, "{phones}");
    let mut channels = BTreeMap::new();
    for phone in phones.as_array().unwrap() {
        let text = |name: &str| phone[name].as_str().unwrap().to_owned();
        for channel in phone["channels"].as_array().unwrap() {
            let channel = channel.as_str().unwrap().to_owned();
            channels.insert(channel, (text("platform"), text("brand")));
        }
    }
    channels
}

/// One killed phone for each channel.
fn everybody(demo: &Demo) -> Vec<Far> {
    let mut all = Vec::new();
    for (channel, (platform, brand)) in channels(demo) {
        let user = format!("only-{channel}");
        let body = json!({
            "platform": platform, "brand": brand, "user": user, "channels": [channel],
        });
        let (status, phone) = demo.sandbox("POST", "/phones", &body);
        assert!((200..300).contains(&status), "{phone}");
        let phone = phone["id"].as_str().unwrap().to_owned();
        demo.until_online(&user, true);
        demo.set(&phone, &json!({ "state": "killed" }));
        all.push(Far {
            channel,
            user,
            phone,
        });
    }
    for far in &all {
        demo.until_online(&far.user, false);
    }
    all
}

#[test]
fn every_channel_has_a_phone_a_credential_that_holds_and_brings_the_message_once() {
    let demo = Demo::start();
    let (status, list) = demo.api("GET", "/v1/credentials", &Value::Null);
    assert_eq!(status, 200, "{list}");
    let mut with_credential = Vec::new();
    for credential in list["items"].as_array().unwrap() {
        let text = |name: &str| credential[name].as_str().unwrap();
        let path = format!(
            "/v1/channels/{}/credentials/{}/check",
            text("channel"),
            text("name")
        );
        let (status, checked) = demo.api("POST", &path, &Value::Null);
        assert_eq!(
            (status, &checked["ok"]),
            (200, &json!(true)),
            "{path} {checked}"
        );
        with_credential.push(text("channel").to_owned());
    }
    with_credential.sort();
    with_credential.dedup();
    let far = everybody(&demo);
    let reached: Vec<_> = far.iter().map(|f| f.channel.clone()).collect();
    assert_eq!(reached, with_credential, "a phone for every channel");
    assert_eq!(reached.len(), 16, "{reached:?}");
    for class in ["im", "transaction", "subscription", "marketing"] {
        let sent: Vec<_> = far
            .iter()
            .map(|f| {
                let mut message = hello(&f.user);
                message["class"] = json!(class);
                (f, demo.send(&message))
            })
            .collect();
        for (f, id) in &sent {
            assert_eq!(demo.sees(&f.phone, id), f.channel, "{class}");
            let entry = demo.shown(&f.phone, id).remove(0);
            assert_eq!(entry["copies"], 1, "{class} by {}: {entry}", f.channel);
        }
    }
}

/// Vendors that run no code of the app on arrival: only their receipts can tell that it arrived at a killed phone.
const WITH_RECEIPTS: [&str; 8] = [
    "harmony", "honor", "huawei", "meizu", "oppo", "sms", "vivo", "xiaomi",
];

#[test]
fn receipts_find_their_way_into_the_trace() {
    let demo = Demo::start();
    let far = everybody(&demo);
    for f in far
        .iter()
        .filter(|f| WITH_RECEIPTS.contains(&f.channel.as_str()))
    {
        let id = demo.send(&hello(&f.user));
        assert_eq!(demo.sees(&f.phone, &id), f.channel);
        until(&format!("{}'s receipt", f.channel), || {
            demo.trace(&id)
                .iter()
                .any(|e| e["stage"] == "delivered")
                .then_some(())
        });
    }
    // A stranger's receipt changes nothing, and learns nothing.
    for path in [
        "/v1/callbacks/demo/xiaomi",
        "/v1/callbacks/demo/nothing",
        "/v1/callbacks/nobody/xiaomi?k=guess",
    ] {
        let (status, answer) = demo.api_as("", "POST", path, &json!({}));
        assert_eq!(
            (status, &answer["code"]),
            (403, &json!("forbidden")),
            "{path}"
        );
    }
}

#[test]
fn three_channels_hang_and_nobody_else_notices() {
    const HANG: [&str; 3] = ["fcm", "jpush", "vivo"];
    let demo = Demo::start();
    let far = everybody(&demo);
    let (hanging, working): (Vec<_>, Vec<_>) =
        far.iter().partition(|f| HANG.contains(&f.channel.as_str()));
    assert!(working.len() >= 13, "{}", working.len());
    for f in &hanging {
        let fault = json!({ "kind": "slow", "rate": 1.0, "delay_ms": 8_000 });
        let path = format!("/vendors/{}/faults", f.channel);
        let (status, answer) = demo.sandbox("POST", &path, &fault);
        assert!((200..300).contains(&status), "{answer}");
    }
    let held: Vec<_> = hanging
        .iter()
        .flat_map(|f| (0..5).map(|_| demo.send(&hello(&f.user))))
        .collect();
    let sent: Vec<_> = (0..3)
        .flat_map(|_| working.iter())
        .map(|f| (f, demo.send(&hello(&f.user))))
        .collect();
    let accepted = |id: &str| {
        let trace = demo.trace(id);
        let event = trace.iter().find(|e| e["stage"] == "accepted_by_vendor")?;
        Some(event["at"].as_str()?.to_owned())
    };
    let mut last = String::new();
    for (f, id) in &sent {
        assert_eq!(demo.sees(&f.phone, id), f.channel);
        last = last.max(until("the vendor's answer", || accepted(id)));
        let retried = demo.trace(id).into_iter().find(|e| e["stage"] == "retried");
        assert_eq!(retried, None, "{}", f.channel);
    }
    // Times of one clock, the server's; RFC 3339 in UTC sorts as text.
    for id in &held {
        let moved = accepted(id).unwrap_or_else(|| "never".to_owned());
        assert!(last < moved, "{last} beside what hung until {moved}");
    }
}
