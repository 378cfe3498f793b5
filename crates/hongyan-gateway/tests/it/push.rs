//! Pushes to channels of devices: what is not stored, and raw bytes over MQTT (clauses UP-n of the protocol notes).

use std::sync::Arc;

use hongyan_core::port::{Owner, Presence as _};
use hongyan_core::{Message, MessageId};
use hongyan_gateway::protocol::sse::AckMode;
use hongyan_mqtt::packet::{QoS, Version};
use serde_json::Value;

use crate::mqtt::{self, Heard};
use crate::rig::Rig;
use crate::store::{app, device, push, user};
use crate::xmpp::Spoken;
use crate::{poll, sse};

const CHANNEL: &str = "6f6b3d5e-0000-4000-8000-000000000001";

fn unstored(n: u128) -> Arc<Message> {
    Arc::new(push(1_000 + n, "d", CHANNEL, b"now or never"))
}

/// Gives it to who is connected.
fn hand(rig: &Rig, n: u128) -> bool {
    rig.hub.hand(&app(), &device("d"), unstored(n))
}

fn assert_is(said: &Value, n: u128) {
    assert_eq!(said["id"], unstored(n).id.to_string(), "{said}");
    assert_eq!(said["ch"], CHANNEL);
    assert_eq!(said["b64"], "bm93IG9yIG5ldmVy");
    assert_eq!(said["urgency"], "high");
}

#[test]
fn up_03_a_ttl_of_zero_reaches_a_websocket_and_costs_no_place() {
    let rig = Rig::new();
    assert!(!hand(&rig, 0), "nobody is there");
    let mut client = rig.live("d");
    client.until_idle();
    assert!(hand(&rig, 1));
    let said = client.expect("msg");
    assert_is(&said, 1);
    // Its place is where everything was sent up to: acknowledging it acknowledges nothing else.
    rig.publish("u", "stored");
    assert_eq!(client.expect("msg")["notification"]["body"], "stored");
    client.say(serde_json::json!({"t": "ack", "upto": said["cursor"]}));
    client.say(serde_json::json!({"t": "ping"}));
    client.expect("pong");
    assert_eq!(rig.store.unread("d", Some("u")), 1);
}

#[test]
fn up_03_a_ttl_of_zero_reaches_an_event_stream() {
    let rig = Rig::new();
    let mut stream = sse::open(&rig, sse::request(None, AckMode::Explicit)).unwrap();
    stream.expect("welcome");
    stream.expect("idle");
    assert!(hand(&rig, 1));
    assert_is(&stream.expect("msg").data, 1);
}

#[test]
fn up_03_a_ttl_of_zero_ends_the_wait_of_a_poll() {
    let rig = Rig::new();
    rig.publish("u", "one");
    let first = poll::answer(&rig, poll::ask(&rig, "d", None, 0, 10));
    let asked = poll::ask(&rig, "d", Some(first.cursor), 25, 10);
    rig.until("the poll waits", || rig.store.unread("d", Some("u")) == 0);
    assert!(hand(&rig, 1));
    let second = poll::answer(&rig, asked);
    assert_eq!(second.messages.len(), 1);
    assert_is(&serde_json::from_slice(&second.messages[0]).unwrap(), 1);
    assert_eq!(second.cursor, first.cursor);
    // Between two polls nobody takes it, and nothing of it stays.
    hand(&rig, 2);
    let third = poll::answer(&rig, poll::ask(&rig, "d", Some(second.cursor), 0, 10));
    assert_eq!(third.messages.len(), 0);
}

#[test]
fn up_03_a_ttl_of_zero_reaches_mqtt_under_the_name_that_is_subscribed() {
    let post = mqtt::post();
    let (mut phone, _) = post.device(Version::V5, false, 600);
    hand(&post.rig, 1);
    phone.silent();
    phone.subscribe(&["hy/me/inbox"], QoS::AtLeastOnce);
    assert_eq!(phone.hear(), Heard::SubAck(vec![1]));
    phone.silent();
    assert!(hand(&post.rig, 2));
    let Heard::Publish {
        payload, topic, id, ..
    } = phone.hear()
    else {
        panic!()
    };
    assert_eq!(topic, "hy/me/inbox");
    assert_is(&serde_json::from_slice(&payload).unwrap(), 2);
    phone.ack(id);
    phone.subscribe(&["hy/me/ch/+"], QoS::AtLeastOnce);
    assert_eq!(phone.hear(), Heard::SubAck(vec![1]));
    assert!(hand(&post.rig, 3));
    let Heard::Publish { payload, topic, .. } = phone.hear() else {
        panic!()
    };
    assert_eq!(topic, format!("hy/me/ch/{CHANNEL}"));
    assert_eq!(payload, b"now or never");
}

#[test]
fn up_03_a_ttl_of_zero_reaches_xmpp() {
    let spoken = Spoken::new();
    let mut client = spoken.bound(spoken.plain(), "d");
    client.say("<presence/>");
    client.until("<presence ");
    spoken.rig.publish("u", "stored");
    client.until("</message>");
    assert!(hand(&spoken.rig, 1));
    let said = client.until("</message>");
    assert!(
        said.contains("bm93IG9yIG5ldmVy") && said.contains(CHANNEL),
        "{said}"
    );
}

/// Every byte there is.
fn bytes() -> Vec<u8> {
    (0..=255).collect()
}

fn pushed(post: &mqtt::Post, channel: &str, body: &[u8]) -> MessageId {
    let id = post.rig.store.push("d", channel, body);
    post.rig.hint(Owner::Device(device("d")));
    id
}

#[test]
fn up_11_mqtt_has_the_bytes_of_a_channel_under_its_name() {
    for version in [Version::V311, Version::V5] {
        let post = mqtt::post();
        let (mut phone, _) = post.device(version, false, 600);
        let name = format!("hy/me/ch/{CHANNEL}");
        phone.subscribe(&[&name], QoS::AtLeastOnce);
        assert_eq!(phone.hear(), Heard::SubAck(vec![1]));
        let message = pushed(&post, CHANNEL, &bytes());
        pushed(&post, "another", b"not subscribed");
        let Heard::Publish {
            payload,
            topic,
            id,
            qos,
            said,
            ..
        } = phone.hear()
        else {
            panic!()
        };
        assert_eq!((topic, qos), (name, 1));
        assert_eq!(payload, bytes());
        let of = |name: &str| {
            let found = said.iter().find(|(n, _)| n == name);
            found.map(|(_, value)| value.clone())
        };
        if version == Version::V5 {
            assert_eq!(of("id"), Some(message.to_string()));
            assert_eq!(of("urgency").as_deref(), Some("high"));
            assert_eq!(of("encoding").as_deref(), Some("aesgcm"));
            assert_eq!(of("encryption").as_deref(), Some("salt=abc"));
            assert_eq!(of("crypto_key").as_deref(), Some("dh=def"));
        }
        phone.silent();
        phone.ack(id);
        post.rig.until("acknowledged", || {
            post.rig.store.unread("d", Some("u")) == 1
        });
        // What was passed over comes once it is subscribed to.
        phone.subscribe(&["hy/me/ch/#"], QoS::AtLeastOnce);
        assert_eq!(phone.hear(), Heard::SubAck(vec![1]));
        let Heard::Publish {
            payload, topic, id, ..
        } = phone.hear()
        else {
            panic!()
        };
        assert_eq!(
            (topic.as_str(), payload.as_slice()),
            ("hy/me/ch/another", &b"not subscribed"[..])
        );
        // An empty push is an empty payload; unacknowledged ones come again to the resumed session.
        pushed(&post, CHANNEL, b"");
        let Heard::Publish { payload, .. } = phone.hear() else {
            panic!()
        };
        assert_eq!(payload, b"");
        drop(phone);
        post.rig.until("gone", || post.rig.hub.stats().sockets == 0);
        let (mut phone, present) = post.device(version, false, 600);
        assert!(present);
        let Heard::Publish {
            dup,
            id: again,
            topic,
            ..
        } = phone.hear()
        else {
            panic!()
        };
        assert_eq!((dup, again, topic.as_str()), (true, id, "hy/me/ch/another"));
    }
}

#[test]
fn up_16_what_was_posted_for_the_former_holder_is_not_handed_to_the_next() {
    let rig = Rig::new();
    let mut client = rig.live("d");
    client.until_idle();
    let held_by = |n: u128, holder: &str| {
        let mut message = push(1_000 + n, "d", CHANNEL, b"now or never");
        if let Some(push) = &mut message.push {
            push.holder = Some(user(holder));
        }
        Arc::new(message)
    };
    rig.hub.hand(&app(), &device("d"), held_by(1, "former"));
    rig.hub.hand(&app(), &device("d"), held_by(2, "u"));
    assert_is(&client.expect("msg"), 2);
}
