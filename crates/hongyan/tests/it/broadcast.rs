//! Broadcast channels of APNs, from making one to what becomes of its token when it is gone.

use serde_json::{Value, json};

use crate::harness::{Demo, until};

const CHANNELS: &str = "/v1/channels/apns/credentials/default/broadcasts";

#[test]
fn a_broadcast_channel_is_made_sent_to_and_deleted() {
    let demo = Demo::start();
    let (status, made) = demo.api("POST", CHANNELS, &json!({ "storage": "none" }));
    assert_eq!((status, &made["storage"]), (201, &json!("none")), "{made}");
    let id = made["id"].as_str().unwrap().to_owned();
    let escaped: String = id.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let one = format!("{CHANNELS}/{escaped}");
    assert_eq!(demo.api("GET", &one, &Value::Null), (200, made));
    let (_, list) = demo.api("GET", CHANNELS, &Value::Null);
    assert_eq!(list["items"], json!([{ "id": id }]));

    // A device stands for it.
    let device = json!({
        "device_id": "match-7", "platform": "ios", "brand": "apple", "permission": "granted",
        "tokens": [{ "channel": "apns", "token": format!("broadcast:{id}") }],
    });
    let (status, answer) = demo.api("POST", "/v1/devices", &device);
    assert!((200..300).contains(&status), "{answer}");
    let update = json!({
        "to": { "devices": ["match-7"] }, "class": "im",
        "notification": { "title": "Goal", "body": "1:0" },
        "options": { "vendor": { "apns": {
            "push_type": "liveactivity", "event": "update", "content_state": { "score": "1:0" },
        } } },
    });
    let sent = demo.send(&update);
    demo.until_reason(&sent, "accepted_by_vendor");
    let requests = demo.requests_after("apns", 0);
    let publish = requests.iter().find(|r| {
        r["path"]
            .as_str()
            .unwrap()
            .starts_with("/4/broadcasts/apps/")
    });
    assert_eq!(publish.unwrap()["headers"]["apns-channel-id"], *id);

    // Gone at the vendor: the next push says so, and its token is not used again.
    assert_eq!(demo.api("DELETE", &one, &Value::Null).0, 204);
    let (status, gone) = demo.api("GET", &one, &Value::Null);
    assert_eq!((status, &gone["code"]), (404, &json!("not_found")));
    let late = demo.send(&update);
    demo.until_reason(&late, "token_invalid");
    until("the dead token at the device", || {
        let (_, device) = demo.api("GET", "/v1/devices/match-7", &Value::Null);
        device.to_string().contains("token_invalid").then_some(())
    });

    let (status, other) = demo.api(
        "GET",
        "/v1/channels/fcm/credentials/default/broadcasts",
        &Value::Null,
    );
    assert_eq!((status, &other["code"]), (422, &json!("not_available")));
}
