//! Clauses HW-1 to HW-10: the inbox over hongyan.v1.

use std::io::Write;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use hongyan_core::Stage;
use hongyan_core::port::{Owner, Presence as _};
use hongyan_core::session::SessionSaid;
use hongyan_gateway::{Encoding, Options};
use serde_json::json;

use crate::client::bodies;
use crate::rig::{FAR, Rig};
use crate::store::{app, device, user};
use hongyan_core::port::Registry as _;

#[test]
fn hw_1_hello_comes_first_and_in_time() {
    let rig = Rig::new();
    for early in [
        json!({"t": "ping"}),
        json!({"t": "ack", "ids": []}),
        json!({"t": "fly"}),
    ] {
        let mut client = rig.connect();
        client.say(early);
        let error = client.expect("error");
        assert_eq!(error["fatal"], true);
        assert_eq!(client.closed(), 4400);
    }
    let mut client = rig.connect();
    client.say(json!({"t": "hello", "v": 1, "auth": {"token": "forged"}}));
    assert_eq!(client.expect("error")["code"], "unauthorized");
    assert_eq!(client.closed(), 4401);

    let mut client = rig.connect();
    client.raw(&crate::client::frame(0x89, b"here"));
    client.frame().unwrap();
    rig.advance(Duration::from_secs(11));
    assert_eq!(client.closed(), 4408);

    let mut client = rig.live("d");
    client.expect("idle");
    client.say(json!({"t": "hello", "v": 1, "auth": {"token": "token-d"}}));
    assert_eq!(client.expect("error")["code"], "bad_order");
    assert_eq!(client.closed(), 4400);
}

#[test]
fn a_ticket_opens_one_connection_of_its_device_as_it_was_bound() {
    let rig = Rig::new();
    let ticket = |text: &str| {
        let record = rig
            .runtime
            .block_on(
                rig.store
                    .devices(&crate::store::app(), &[crate::store::device("d")]),
            )
            .unwrap()
            .remove(0)
            .unwrap();
        let now = hongyan_core::Timestamp(1_000_000);
        assert!(
            rig.handle
                .issue_ticket(&hongyan_core::Secret::new(text), &record, now)
        );
    };
    let hello = |text: &str| json!({"t": "hello", "v": 1, "auth": {"ticket": text}});
    ticket("one");
    let mut client = rig.connect();
    client.say(hello("one"));
    assert_eq!(client.expect("welcome")["device"], "d");
    let mut again = rig.connect();
    again.say(hello("one"));
    assert_eq!(again.closed(), 4401, "used up");
    // The device changes hands before the ticket is used.
    ticket("two");
    rig.store.bind("d", Some("other"));
    let mut late = rig.connect();
    late.say(hello("two"));
    assert_eq!(late.closed(), 4401);
}

#[test]
fn hw_2_a_thousand_entries_in_order_within_the_window() {
    let rig = Rig::new();
    for n in 0..1000 {
        rig.store("u", &n.to_string());
    }
    let mut client = rig.connect();
    client.hello("d", json!({"inflight": 10}));
    let mut unacked = 0;
    for n in 0..1000 {
        let message = client.expect("msg");
        assert_eq!(message["notification"]["body"], n.to_string());
        assert!(message.get("dup").is_none());
        unacked += 1;
        assert!(unacked <= 10);
        if n % 7 == 6 {
            client.say(json!({"t": "ack", "upto": message["cursor"]}));
            unacked = 0;
        }
    }
    client.expect("idle");
    rig.until("all acked but the tail", || rig.sink.acked().len() == 994);
    rig.until("all are reported", || rig.sink.sent().len() == 1000);
}

#[test]
fn hw_2_nothing_beyond_the_window_without_acks() {
    let rig = Rig::new();
    for n in 0..20 {
        rig.store("u", &n.to_string());
    }
    let mut client = rig.connect();
    client.hello("d", json!({"inflight": 5}));
    let ids: Vec<_> = (0..5).map(|_| client.expect("msg")["id"].clone()).collect();
    client.say(json!({"t": "ping", "n": 1}));
    client.expect("pong");
    client.say(json!({"t": "ack", "ids": [ids[3], ids[1]]}));
    assert_eq!(
        bodies(&[client.expect("msg"), client.expect("msg")]),
        ["5", "6"]
    );
    client.say(json!({"t": "ping", "n": 2}));
    client.expect("pong");
}

#[test]
fn hw_3_unacked_entries_come_again_marked() {
    let rig = Rig::new();
    for n in 0..6 {
        rig.store("u", &n.to_string());
    }
    let mut client = rig.connect();
    client.hello("d", json!({"inflight": 4}));
    for _ in 0..4 {
        client.expect("msg");
    }
    drop(client);
    rig.until("the session is gone", || rig.hub.stats().sessions == 0);
    let mut client = rig.connect();
    client.hello("d", json!({}));
    let messages = client.until_idle();
    assert_eq!(bodies(&messages), ["0", "1", "2", "3", "4", "5"]);
    let dups: Vec<bool> = messages.iter().map(|m| m.get("dup").is_some()).collect();
    assert_eq!(dups, [true, true, true, true, false, false]);
}

#[test]
fn hw_4_acked_entries_do_not_come_again() {
    let rig = Rig::new();
    for n in 0..6 {
        rig.store("u", &n.to_string());
    }
    let mut client = rig.live("d");
    let messages = client.until_idle();
    let upto = json!({"t": "ack", "upto": messages[2]["cursor"]});
    client.say(upto.clone());
    client.say(upto);
    client.say(json!({"t": "ack", "upto": messages[0]["cursor"]}));
    client.say(json!({"t": "ack", "ids": ["unknown", "0198f2f0-0000-7000-8000-00000000ffff"]}));
    rig.until("three are acked", || rig.sink.acked().len() == 3);
    drop(client);
    let mut client = rig.live("d");
    let left = client.until_idle();
    assert_eq!(bodies(&left), ["3", "4", "5"]);
    // A made-up place in the future acks what was sent and no more.
    let text = left[2]["cursor"].as_str().unwrap();
    let mut future = hongyan_core::Cursor::parse(text).unwrap();
    future.user += 1000;
    future.broadcast += 1000;
    client.say(json!({"t": "ack", "upto": future.to_string()}));
    rig.until("all six are acked", || rig.sink.acked().len() == 6);
    rig.publish("u", "later");
    assert_eq!(client.expect("msg")["notification"]["body"], "later");
}

/// The store takes its time with what was acknowledged last; the next connection waits for that.
#[test]
fn hw_4_not_even_when_the_connection_ends_with_the_ack() {
    let rig = Rig::new();
    let mut client = rig.live("d");
    client.expect("idle");
    for n in 0..3 {
        rig.publish("u", &n.to_string());
    }
    let ids: Vec<_> = (0..3).map(|_| client.expect("msg")["id"].clone()).collect();
    let write = rig.store.hold("ack");
    client.say(json!({"t": "ack", "ids": ids}));
    rig.until("the ack is on its way", || rig.store.is_held("ack"));
    let reads = rig.store.reads.load(Ordering::SeqCst);
    drop(client);
    let mut next = rig.connect();
    next.say(json!({"t": "hello", "v": 1, "auth": {"token": "token-d"}}));
    rig.until("it is the device's session", || {
        rig.hub.sessions(&app(), &[device("d")])[0].is_some()
    });
    assert_eq!(rig.store.reads.load(Ordering::SeqCst), reads);
    drop(write);
    next.expect("welcome");
    assert!(next.until_idle().is_empty());
}

#[test]
fn hw_5_nothing_is_lost_between_replay_and_live() {
    let rig = Rig::new();
    for n in 0..50 {
        rig.store("u", &n.to_string());
    }
    let mut client = rig.connect();
    client.hello("d", json!({"inflight": 256}));
    for n in 50..150 {
        rig.publish("u", &n.to_string());
    }
    let mut heard = Vec::new();
    while heard.len() < 150 {
        let value = client.hear();
        if value["t"] == "msg" {
            heard.push(value);
        }
    }
    let want: Vec<String> = (0..150).map(|n| n.to_string()).collect();
    assert_eq!(bodies(&heard), want);
}

#[test]
fn hw_6_takeover() {
    let rig = Rig::new();
    rig.store("u", "one");
    let mut first = rig.live("d");
    let message = first.expect("msg");
    let mut second = rig.live("d");
    assert_eq!(bodies(&second.until_idle()), ["one"]);
    // What the loser says after its end is not heard.
    first.expect("idle");
    assert_eq!(first.close_code(), 4409);
    first.say(json!({"t": "ack", "upto": message["cursor"]}));
    first.raw(&crate::client::frame(0x88, &4409u16.to_be_bytes()));
    assert_eq!(first.frame(), None);
    assert_eq!(rig.store.unread("d", Some("u")), 1);
    assert_eq!(rig.hub.stats().sessions, 1);
    rig.publish("u", "two");
    assert_eq!(second.expect("msg")["notification"]["body"], "two");
}

#[test]
fn hw_7_expired_entries_are_passed_over() {
    let rig = Rig::new();
    rig.store("u", "a");
    rig.store.append(Owner::User(user("u")), "expired", 10);
    rig.store("u", "b");
    let mut client = rig.live("d");
    let messages = client.until_idle();
    assert_eq!(bodies(&messages), ["a", "b"]);
    client.say(json!({"t": "ack", "upto": messages[1]["cursor"]}));
    rig.until("nothing is left", || rig.store.unread("d", Some("u")) == 0);
}

#[test]
fn hw_8_a_foreign_cursor_means_full_replay() {
    let rig = Rig::new();
    rig.store("u", "a");
    let mut client = rig.live("d");
    let message = client.until_idle().remove(0);
    let known = hongyan_core::Cursor::parse(message["cursor"].as_str().unwrap()).unwrap();
    let foreign = hongyan_core::Cursor { epoch: 77, ..known };
    let mut client = rig.connect();
    let welcome = client.hello("d", json!({"cursor": foreign.to_string()}));
    assert_eq!(welcome["replay"], "full");
    assert_eq!(bodies(&client.until_idle()), ["a"]);
    let mut client = rig.connect();
    let welcome = client.hello("d", json!({"cursor": known.to_string()}));
    assert_eq!(welcome["replay"], "resume");
    let again = client.until_idle();
    assert_eq!(again[0]["dup"], true, "the client says that it has it");
    let mut client = rig.connect();
    client.say(json!({"t": "hello", "v": 1, "auth": {"token": "token-d"}, "cursor": "made up"}));
    assert_eq!(client.expect("error")["code"], "bad_cursor");
    assert_eq!(client.closed(), 4400);
}

#[test]
fn hw_9_a_slow_reader_is_closed_and_loses_nothing() {
    let queue = 256 * 1024;
    // A long wait for the close, as the clock leaps here.
    let options = Options {
        queue_bytes_max: queue,
        close_wait_ms: 600_000,
        ..Options::default()
    };
    let rig = Rig::with(options);
    let body = "x".repeat(64 * 1024);
    for _ in 0..250 {
        rig.store("u", &body);
    }
    let mut client = rig.connect();
    client.hello("d", json!({"inflight": 256}));
    // It reads no more, though it is alive. Time passes until the gateway has enough of it.
    let down = || {
        rig.sink
            .said()
            .iter()
            .any(|what| matches!(what, SessionSaid::Down(_)))
    };
    rig.until("messages were sent", || rig.sink.sent().len() > 2);
    let alive = client.stream.try_clone().unwrap();
    let leaps = std::cell::Cell::new(0);
    rig.until("closed in time", || {
        leaps.set(leaps.get() + 1);
        if leaps.get() % 10 == 1 {
            let _ = (&alive).write_all(&crate::client::frame(0x89, b""));
        }
        rig.advance(Duration::from_millis(500));
        down()
    });
    let sent = rig.sink.sent().len();
    assert!(
        sent < 250,
        "{sent} of 250 were taken by the kernel and a bounded queue"
    );
    // What was begun arrives whole, what was queued is dropped for the close.
    assert_eq!(client.close_code(), 4408);
    assert_eq!(
        rig.store.unread("d", Some("u")),
        250,
        "the entries are kept"
    );
}

#[test]
fn hw_10_an_ack_is_the_devices_own() {
    let rig = Rig::new();
    let a = rig.store("u", "a");
    rig.store("u", "b");
    let mut client = rig.live("d");
    client.until_idle();
    client.say(json!({"t": "ack", "ids": [a]}));
    // The other protocols read the same inbox: through another encoding only "b" is left.
    rig.until("one is acked", || rig.store.unread("d", Some("u")) == 1);
    let mut other = rig.connect_as(Encoding::Cbor, Bytes::new());
    other.hello("d", json!({}));
    assert_eq!(bodies(&other.until_idle()), ["b"]);
    assert_eq!(rig.sink.acked(), [a]);
}

#[test]
fn both_encodings_do_the_same() {
    for encoding in [Encoding::Json, Encoding::Cbor] {
        let rig = Rig::new();
        rig.store("u", "雁");
        let mut client = rig.connect_as(encoding, Bytes::new());
        let welcome = client.hello("d", json!({"state": "background"}));
        assert_eq!(welcome["device"], "d");
        assert_eq!(welcome["hb"], 45);
        assert_eq!(welcome["inflight"], 32);
        assert_eq!(welcome["now"], 1_000_000);
        let message = client.until_idle().remove(0);
        assert_eq!(message["notification"], json!({"title": "t", "body": "雁"}));
        client.say(json!({"t": "ack", "upto": message["cursor"]}));
        client.say(json!({"t": "ping"}));
        let pong = client.expect("pong");
        assert_eq!(pong["head"], message["cursor"]);
        assert!(pong.get("n").is_none());
        client.say(json!({"t": "fly"}));
        assert_eq!(client.expect("error")["code"], "unknown_type");
        rig.until("acked", || rig.sink.acked().len() == 1);
    }
}

#[test]
fn events_reach_the_sink_in_order() {
    let rig = Rig::new();
    let id = rig.store("u", "a");
    let mut client = rig.live("d");
    client.until_idle();
    client.say(json!({"t": "event", "id": id, "kind": "displayed", "at": 5}));
    client.say(json!({"t": "event", "id": id, "kind": "clicked", "at": 9_999_999_999_999i64}));
    client.say(json!({"t": "event", "id": "not ours", "kind": "clicked"}));
    client.say(json!({"t": "nack", "id": id, "code": "bad_payload"}));
    client.say(json!({"t": "nack", "id": id, "code": "bad_payload"}));
    client.say(json!({"t": "bye"}));
    assert_eq!(client.closed(), 1000);
    let down = || {
        rig.sink
            .said()
            .iter()
            .any(|what| matches!(what, SessionSaid::Down(_)))
    };
    rig.until("down", down);
    let said = rig.sink.said();
    let SessionSaid::Up(session) = said[0] else {
        panic!("{said:?}")
    };
    let client = |stage, at| SessionSaid::Client {
        message: id,
        stage,
        at: hongyan_core::Timestamp(at),
    };
    assert_eq!(
        said,
        [
            SessionSaid::Up(session),
            SessionSaid::Sent(session, vec![id]),
            client(Stage::Displayed, 5),
            client(Stage::Clicked, 1_000_000),
            SessionSaid::Rejected(id),
            SessionSaid::Down(session),
        ]
    );
}

#[test]
fn unacked_messages_are_sent_again_while_connected() {
    let rig = Rig::new();
    rig.store("u", "a");
    let gone = rig.store("u", "recalled");
    let mut client = rig.live("d");
    assert_eq!(client.until_idle().len(), 2);
    rig.store.mark_recalled(gone);
    let mut again = 0;
    let mut hear = |client: &mut crate::client::Client| {
        let frame = client.frame().unwrap();
        if frame.opcode == 1 {
            let text = String::from_utf8(frame.payload).unwrap();
            assert!(
                text.contains("\"dup\":true") && text.contains("\"a\""),
                "{text}"
            );
            again += 1;
        }
        (frame.opcode, again)
    };
    let mut heard = 0;
    // The last wait is for nothing: three times are enough on one connection.
    for (so_far, wait) in [(1, 31), (2, 61), (3, 121), (3, 600)] {
        // The gateway pings in between; an answer keeps the connection alive.
        for _ in 0..wait / 10 + 1 {
            rig.advance(Duration::from_secs(10));
            client.say(json!({"t": "state", "state": "foreground"}));
            client.raw(&crate::client::frame(0x89, b"p"));
            // The answer says that the gateway has seen this time.
            loop {
                let (opcode, so_far) = hear(&mut client);
                heard = so_far;
                if opcode == 10 {
                    break;
                }
            }
        }
        // What became due is read from the store first, so it may come after the answer.
        while heard < so_far {
            heard = hear(&mut client).1;
        }
        assert_eq!(heard, so_far);
    }
}

#[test]
fn silence_is_pinged_and_then_dead() {
    let rig = Rig::new();
    let mut client = rig.live("d");
    client.expect("idle");
    rig.advance(Duration::from_secs(39));
    rig.advance(Duration::from_secs(11));
    assert_eq!(client.frame().unwrap().opcode, 9);
    rig.advance(Duration::from_secs(21));
    assert_eq!(client.frame(), None);
    rig.until("gone", || rig.hub.stats().sessions == 0);
}

#[test]
fn too_many_messages_close_4429() {
    let rig = Rig::new();
    let mut client = rig.live("d");
    client.expect("idle");
    let many: Vec<u8> = (0..400)
        .flat_map(|_| client.message(&json!({"t": "ping"})))
        .collect();
    client.raw(&many);
    assert_eq!(client.close_code(), 4429);
}

#[test]
fn topics_are_followed_and_left() {
    let rig = Rig::new();
    let mut client = rig.live("d");
    client.expect("idle");
    client.say(json!({"t": "sub", "topic": "news"}));
    assert_eq!(client.expect("sub_ok")["topic"], "news");
    rig.store.append(Rig::topic("news"), "extra", FAR);
    rig.hint(Rig::topic("news"));
    let message = client.expect("msg");
    assert_eq!(message["topic"], "news");
    client.say(json!({"t": "unsub", "topic": "news"}));
    client.expect("sub_ok");
    rig.store.append(Rig::topic("news"), "unseen", FAR);
    rig.hint(Rig::topic("news"));
    client.say(json!({"t": "sub", "topic": "a b"}));
    assert_eq!(client.expect("error")["code"], "bad_topic");
}

#[test]
fn a_store_that_is_away_costs_time_only() {
    let rig = Rig::new();
    let mut client = rig.live("d");
    client.expect("idle");
    rig.store
        .broken
        .store(true, std::sync::atomic::Ordering::SeqCst);
    let reads = rig.store.reads.load(std::sync::atomic::Ordering::SeqCst);
    rig.publish("u", "a");
    rig.until("a read failed", || {
        rig.store.reads.load(std::sync::atomic::Ordering::SeqCst) > reads
    });
    let mut other = rig.connect();
    other.say(json!({"t": "hello", "v": 1, "auth": {"token": "token-d"}}));
    assert_eq!(other.expect("error")["code"], "unavailable");
    assert_eq!(other.closed(), 1013);
    rig.store
        .broken
        .store(false, std::sync::atomic::Ordering::SeqCst);
}

#[test]
fn a_page_connects_for_devices_of_an_app_that_names_it() {
    let rig = Rig::new();
    rig.connect_from("https://own.example")
        .hello("d", json!({}));
    // Another app's page passes the handshake, when the app is not known yet.
    let mut foreign = rig.connect_from("https://other.example");
    foreign.say(json!({"t": "hello", "v": 1, "auth": {"token": "token-d"}}));
    assert_eq!(foreign.expect("error")["code"], "origin_forbidden");
    assert_eq!(foreign.closed(), 4403);
    // Whoever is not a page needs no origin.
    rig.connect().hello("d", json!({}));
}
