//! A recall is an entry of the inbox, so that whoever got the message is told in its turn, over every protocol.

use std::sync::atomic::Ordering;

use hongyan_core::port::{Ack, Inbox as _, Owner, Presence as _};
use hongyan_core::session::SessionSaid;
use hongyan_core::{Cursor, MessageId, Timestamp};
use hongyan_gateway::protocol::sse::AckMode;
use hongyan_mqtt::packet::{Connect, Packet, Property, PropertyList, QoS, Version};
use serde_json::{Value, json};

use crate::client::bodies;
use crate::mqtt::{BOTH, Heard, connect, post};
use crate::poll::{answer, ask, waits};
use crate::rig::Rig;
use crate::sse::{open, reader, request};
use crate::store::{app, user};
use crate::xmpp::Spoken;

fn list() -> Owner {
    Owner::User(user("u"))
}

impl Rig {
    /// Recalls a message of the user as dispatch does, with an entry in the hint or without.
    fn recall(&self, id: MessageId, with_entry: bool) -> MessageId {
        let mark = self.store.recall(&list(), id);
        let mut hint = self.news(list());
        hint.fresh = hint.fresh.filter(|_| with_entry);
        self.hub.notify(vec![hint]);
        self.hub.recall(&app(), &list(), id);
        mark
    }

    fn unread(&self) -> usize {
        self.store.unread("d", Some("u"))
    }

    /// The device acknowledges a message by a call of its own.
    fn ack_over_http(&self, id: MessageId) {
        let ack = Ack::Ids(vec![id]);
        let reader = reader();
        let stored = self.store.ack(&reader, ack.clone(), Timestamp(0));
        self.runtime.block_on(stored).unwrap();
        self.hub.acked(&reader, ack);
    }
}

#[test]
fn hw_11_who_is_connected_is_told_once_and_acknowledges_it_like_an_entry() {
    for by_id in [false, true] {
        let rig = Rig::new();
        let mut client = rig.live("d");
        client.expect("idle");
        let id = rig.publish("u", "one");
        let msg = client.expect("msg");
        client.say(json!({"t": "ack", "upto": msg["cursor"]}));
        rig.until("acked", || rig.unread() == 0);
        let mark = rig.recall(id, true);
        let recall = client.expect("recall");
        assert_eq!(recall["id"], json!(id));
        assert_eq!(recall["mark"], json!(mark));
        assert_eq!(rig.unread(), 1, "until it is acknowledged");
        client.say(match by_id {
            true => json!({"t": "ack", "ids": [mark]}),
            false => json!({"t": "ack", "upto": recall["cursor"]}),
        });
        rig.until("the mark is acked", || rig.unread() == 0);
        client.say(json!({"t": "ping", "n": 1}));
        assert_eq!(client.expect("pong")["head"], recall["cursor"]);
        drop(client);
        let mut again = rig.live("d");
        assert!(again.until_idle().is_empty());
        // Nobody is told that a mark was sent.
        let said = rig.sink.said();
        let is_sent =
            |said: &SessionSaid| matches!(said, SessionSaid::Sent(_, ids) if ids.contains(&mark));
        assert!(!said.iter().any(is_sent), "{said:?}");
    }
}

#[test]
fn hw_11_a_client_that_acknowledges_no_marks_goes_on() {
    let rig = Rig::new();
    let mut client = rig.connect();
    client.hello("d", json!({"inflight": 1}));
    client.expect("idle");
    for n in 0..40 {
        let id = rig.publish("u", &n.to_string());
        let msg = client.expect("msg");
        assert_eq!(msg["notification"]["body"], n.to_string());
        client.say(json!({"t": "ack", "ids": [msg["id"]]}));
        rig.until("acked", || rig.unread() == 0);
        rig.recall(id, true);
        assert_eq!(client.expect("recall")["id"], json!(id));
    }
    // The last mark is settled by what comes after it.
    assert_eq!(rig.unread(), 1);
    rig.publish("u", "last");
    let msg = client.expect("msg");
    client.say(json!({"t": "ack", "ids": [msg["id"]]}));
    rig.until("all is settled", || rig.unread() == 0);
    drop(client);
    assert!(rig.live("d").until_idle().is_empty());
}

#[test]
fn hw_11_an_ack_over_http_settles_marks_too() {
    let rig = Rig::new();
    let mut stream = open(&rig, request(None, AckMode::Explicit)).unwrap();
    stream.expect("welcome");
    stream.expect("idle");
    let id = rig.publish("u", "one");
    stream.expect("msg");
    rig.recall(id, true);
    stream.expect("recall");
    let id = rig.publish("u", "two");
    stream.expect("msg");
    rig.ack_over_http(id);
    rig.until("both are settled", || rig.unread() == 0);
}

/// What was acknowledged may have come from a vendor, and the mark is still on its way.
#[test]
fn hw_11_an_ack_over_http_settles_no_mark_of_a_connection_with_its_own_acks() {
    let rig = Rig::new();
    let mut client = rig.live("d");
    client.expect("idle");
    let id = rig.publish("u", "one");
    client.expect("msg");
    rig.recall(id, true);
    let mark = client.expect("recall");
    let id = rig.publish("u", "two");
    client.expect("msg");
    rig.ack_over_http(id);
    let id = rig.publish("u", "three");
    client.expect("msg");
    rig.ack_over_http(id);
    assert_eq!(rig.unread(), 1);
    client.say(json!({"t": "ack", "ids": [mark["mark"]]}));
    rig.until("all is settled", || rig.unread() == 0);
}

#[test]
fn hw_11_who_was_away_is_told_when_it_comes_back_until_it_acknowledges() {
    let rig = Rig::new();
    let mut client = rig.live("d");
    client.expect("idle");
    let id = rig.publish("u", "one");
    let msg = client.expect("msg");
    client.say(json!({"t": "ack", "ids": [msg["id"]]}));
    rig.until("acked", || rig.unread() == 0);
    drop(client);
    rig.until("gone", || rig.hub.is_empty());
    rig.publish("u", "two");
    rig.recall(id, true);
    rig.publish("u", "three");
    for _ in 0..2 {
        // Also with the place that it stored.
        let mut client = rig.connect();
        client.hello("d", json!({"cursor": msg["cursor"]}));
        assert_eq!(client.expect("msg")["notification"]["body"], "two");
        assert_eq!(client.expect("recall")["id"], json!(id));
        assert_eq!(client.expect("msg")["notification"]["body"], "three");
        client.expect("idle");
    }
    let mut client = rig.live("d");
    client.expect("msg");
    let place = client.expect("recall")["cursor"].clone();
    client.say(json!({"t": "ack", "upto": place}));
    rig.until("acked", || rig.unread() == 1);
    drop(client);
    let mut client = rig.live("d");
    assert_eq!(bodies(&client.until_idle()), ["three"]);
}

#[test]
fn hw_11_what_was_not_fetched_is_simply_gone() {
    let rig = Rig::new();
    let id = rig.publish("u", "one");
    rig.recall(id, true);
    let mut client = rig.live("d");
    assert_eq!(client.expect("recall")["id"], json!(id));
    client.expect("idle");
    drop(client);
    rig.until("gone", || rig.hub.is_empty());
    let polled = answer(&rig, ask(&rig, "d", None, 0, 100));
    assert_eq!((polled.messages.len(), polled.recalled.len()), (0, 1));
    let mut stream = open(&rig, request(None, AckMode::Explicit)).unwrap();
    stream.expect("welcome");
    stream.expect("recall");
    stream.expect("idle");
}

#[test]
fn a_session_that_has_to_read_first_may_be_told_twice_and_never_less() {
    let rig = Rig::new();
    let mut client = rig.live("d");
    client.expect("idle");
    let id = rig.publish("u", "one");
    client.expect("msg");
    rig.recall(id, false);
    // At once, or with its place; then certainly with its place.
    let mut told = client.expect("recall");
    if told["cursor"].is_null() {
        assert_eq!(told, json!({"t": "recall", "id": id}));
        told = client.expect("recall");
    }
    assert!(told["cursor"].is_string(), "{told}");
    client.say(json!({"t": "ack", "upto": told["cursor"]}));
    rig.until("both are settled", || rig.unread() == 0);
}

#[test]
fn sse_10_a_stream_has_the_mark_at_its_place() {
    let rig = Rig::new();
    let mut stream = open(&rig, request(None, AckMode::Resume)).unwrap();
    stream.expect("welcome");
    stream.expect("idle");
    let id = rig.publish("u", "one");
    let msg = stream.expect("msg");
    rig.recall(id, true);
    let told = stream.expect("recall");
    assert_eq!(told.data["id"], json!(id));
    assert_eq!(told.id.as_deref(), told.data["cursor"].as_str());
    drop(stream);
    // It came back without having seen it.
    let place = |id: &Option<String>| Cursor::parse(id.as_deref().unwrap()).ok();
    let mut stream = open(&rig, request(place(&msg.id), AckMode::Resume)).unwrap();
    stream.expect("welcome");
    assert_eq!(stream.expect("recall").id, told.id);
    stream.expect("idle");
    drop(stream);
    let mut stream = open(&rig, request(place(&told.id), AckMode::Resume)).unwrap();
    stream.expect("welcome");
    stream.expect("idle");
    rig.until("acked by coming back", || rig.unread() == 0);
}

#[test]
fn lp_9_a_poll_is_answered_with_what_was_recalled() {
    let rig = Rig::new();
    let id = rig.publish("u", "one");
    let first = answer(&rig, ask(&rig, "d", None, 0, 100));
    assert_eq!(first.messages.len(), 1);
    let waiting = ask(&rig, "d", Some(first.cursor), 25, 100);
    rig.until("it waits", waits(&rig));
    rig.until("acked", || rig.unread() == 0);
    let mark = rig.recall(id, true);
    let told = answer(&rig, waiting);
    assert!(told.messages.is_empty());
    let recall: Value = serde_json::from_slice(&told.recalled[0]).unwrap();
    let want = json!({
        "t": "recall", "id": id, "cursor": told.cursor.to_string(), "mark": mark,
    });
    assert_eq!(recall, want);
    // Its cursor acknowledges it; an answer that was lost does not.
    let again = answer(&rig, ask(&rig, "d", Some(first.cursor), 0, 100));
    assert_eq!(again.recalled, told.recalled);
    let none = answer(&rig, ask(&rig, "d", Some(told.cursor), 0, 100));
    assert!(none.recalled.is_empty() && none.messages.is_empty());
    rig.until("acked", || rig.unread() == 0);
}

#[test]
fn lp_9_a_limit_counts_marks_too_and_loses_none() {
    let rig = Rig::new();
    let ids: Vec<_> = (0..3).map(|n| rig.publish("u", &n.to_string())).collect();
    answer(&rig, ask(&rig, "d", None, 0, 100));
    for id in &ids {
        rig.recall(*id, true);
    }
    rig.publish("u", "last");
    let (mut cursor, mut got) = (None, Vec::new());
    for _ in 0..4 {
        let page = answer(&rig, ask(&rig, "d", cursor, 0, 1));
        assert_eq!(page.messages.len() + page.recalled.len(), 1);
        got.push(page.recalled.len());
        cursor = Some(page.cursor);
    }
    assert_eq!(got, [1, 1, 1, 0]);
}

#[test]
fn mq_18_the_mark_comes_where_the_message_came() {
    for version in BOTH {
        let post = post();
        let rig = &post.rig;
        let mut phone = post.subscribed(version);
        let id = rig.publish("u", "one");
        let Heard::Publish { id: packet, .. } = phone.hear() else {
            panic!()
        };
        phone.ack(packet);
        rig.until("acked", || rig.unread() == 0);
        let mark = rig.recall(id, true);
        let Heard::Publish {
            id: packet,
            topic,
            payload,
            said,
            qos: 1,
            ..
        } = phone.hear()
        else {
            panic!()
        };
        assert_eq!(topic, "hy/me/inbox");
        let told: Value = serde_json::from_slice(&payload).unwrap();
        assert_eq!((&told["t"], &told["id"]), (&json!("recall"), &json!(id)));
        if version == Version::V5 {
            let said: Vec<_> = said.iter().map(|(name, of)| (&**name, &**of)).collect();
            let (mark, id) = (mark.to_string(), id.to_string());
            assert_eq!(said, [("id", &*mark), ("recalled", &*id)]);
        }
        assert_eq!(rig.unread(), 1);
        phone.ack(packet);
        rig.until("the mark is acked", || rig.unread() == 0);
        phone.silent();
    }
}

#[test]
fn mq_8_a_recall_makes_no_room() {
    let post = post();
    let rig = &post.rig;
    let mut phone = post.phone(Version::V5);
    let mut list = PropertyList::new();
    list.push(Property::ReceiveMaximum(1)).unwrap();
    phone.say(&Packet::Connect(Connect {
        properties: list.as_properties(),
        ..connect(Version::V5)
    }));
    phone.hear();
    phone.subscribe(&["hy/me/inbox"], QoS::AtLeastOnce);
    phone.hear();
    let id = rig.publish("u", "one");
    let Heard::Publish { id: first, .. } = phone.hear() else {
        panic!()
    };
    rig.recall(id, true);
    rig.publish("u", "two");
    rig.until("it is there", || rig.unread() == 2);
    for _ in 0..3 {
        phone.silent();
    }
    // Then the mark, and what came behind it, one by one.
    phone.ack(first);
    for want in ["recall", "msg"] {
        let Heard::Publish { id, payload, .. } = phone.hear() else {
            panic!()
        };
        let told: Value = serde_json::from_slice(&payload).unwrap();
        assert_eq!(told["t"], want);
        phone.silent();
        phone.ack(id);
    }
    rig.until("all is settled", || rig.unread() == 0);
}

#[test]
fn mq_18_no_message_is_repeated_that_was_recalled_meanwhile() {
    for version in BOTH {
        let post = post();
        let rig = &post.rig;
        let mut phone = post.subscribed(version);
        let id = rig.publish("u", "one");
        assert!(matches!(phone.hear(), Heard::Publish { .. }));
        drop(phone);
        rig.until("gone", || rig.hub.is_empty());
        rig.recall(id, true);
        let (mut phone, present) = post.device(version, false, 600);
        assert!(present);
        let Heard::Publish { dup, payload, .. } = phone.hear() else {
            panic!()
        };
        let told: Value = serde_json::from_slice(&payload).unwrap();
        assert_eq!((dup, &told["t"]), (false, &json!("recall")));
        phone.silent();
    }
}

#[test]
fn xm_19_the_mark_is_a_stanza_that_counts() {
    let spoken = Spoken::new();
    let rig = &spoken.rig;
    let at = spoken.plain();
    let mut client = spoken.bound(at, "d");
    client.manage();
    let id = rig.publish("u", "one");
    client.until("</message>");
    client.say("<a xmlns='urn:xmpp:sm:3' h='2'/>");
    rig.until("acked", || rig.unread() == 0);
    let mark = rig.recall(id, true);
    let told = client.until("</message>");
    let want = format!("<recall xmlns='urn:hongyan:msg:1' id='{id}'/>");
    assert!(told.contains(&want), "{told}");
    assert!(told.contains(&format!("id='{mark}'")), "{told}");
    assert!(told.contains("<stanza-id xmlns='urn:xmpp:sid:0' by='u@localhost'"));
    assert_eq!(rig.unread(), 1);
    client.say("<a xmlns='urn:xmpp:sm:3' h='3'/>");
    rig.until("the mark is acked", || rig.unread() == 0);
}

/// What it was sent is acknowledged another way, and its stream keeps them all.
#[test]
fn xm_09_a_stream_that_acknowledges_nothing_waits_without_reading() {
    let spoken = Spoken::new();
    let rig = &spoken.rig;
    let at = spoken.plain();
    let mut client = spoken.bound(at, "d");
    client.manage();
    for n in 0..512 {
        let id = rig.publish("u", &n.to_string());
        client.until("</message>");
        rig.ack_over_http(id);
    }
    rig.until("acked", || rig.unread() == 0);
    rig.publish("u", "last");
    let mut answered = || {
        client.say("<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>");
        client.until("type='result'");
        rig.store.reads.load(Ordering::SeqCst)
    };
    let before = answered();
    let after = (0..50).map(|_| answered()).last().unwrap();
    assert!(after <= before + 2, "{before} reads became {after}");
    client.say("<a xmlns='urn:xmpp:sm:3' h='513'/>");
    assert_eq!(client.body(), "last");
}
