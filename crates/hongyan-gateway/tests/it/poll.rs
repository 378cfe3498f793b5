//! Short and long polls (clauses LP-n of the protocol notes).

use std::sync::atomic::Ordering;
use std::time::Duration;

use hongyan_core::Cursor;
use hongyan_core::port::Presence as _;
use hongyan_core::session::SessionSaid;
use hongyan_gateway::protocol::poll::{Answer, Request};
use hongyan_gateway::protocol::sse::Turned;
use hongyan_gateway::protocol::websocket::close;
use hongyan_gateway::{Options, Stats};
use serde_json::Value;

use crate::rig::Rig;
use crate::sse::caller;
use crate::store::{app, device, user};

/// Polls of as many devices at once.
const POLLS: usize = 10_000;

pub(crate) type Asked = tokio::task::JoinHandle<Result<Answer, Turned>>;

pub(crate) fn ask(rig: &Rig, name: &str, cursor: Option<Cursor>, wait_s: u64, limit: u16) -> Asked {
    let handle = rig.handle.clone();
    let who = caller(name);
    let request = Request {
        cursor,
        wait_ms: wait_s * 1000,
        limit,
    };
    rig.runtime.spawn(async move {
        let admit = || handle.admit([127, 0, 0, 1].into());
        handle.poll(who, request, admit).await
    })
}

pub(crate) fn answer(rig: &Rig, asked: Asked) -> Answer {
    rig.runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(10), asked)
            .await
            .expect("an answer in time")
            .unwrap()
            .unwrap()
    })
}

/// A plain poll.
fn now(rig: &Rig, cursor: Option<Cursor>, limit: u16) -> Answer {
    answer(rig, ask(rig, "d", cursor, 0, limit))
}

fn bodies(answer: &Answer) -> Vec<String> {
    let read = |bytes: &Vec<u8>| {
        let message: Value = serde_json::from_slice(bytes).unwrap();
        message["notification"]["body"].as_str().unwrap().to_owned()
    };
    answer.messages.iter().map(read).collect()
}

/// Whether the first poll of the device has been welcomed, and so waits.
pub(crate) fn waits(rig: &Rig) -> impl Fn() -> bool + '_ {
    || {
        let said = rig.sink.said();
        said.iter().any(|said| matches!(said, SessionSaid::Up(_)))
    }
}

#[test]
fn lp_1_an_entry_ends_the_wait() {
    let rig = Rig::new();
    let asked = ask(&rig, "d", None, 25, 100);
    rig.until("the poll waits", waits(&rig));
    rig.publish("u", "one");
    let first = answer(&rig, asked);
    assert_eq!(bodies(&first), ["one"]);
    assert!(!first.more && !first.reset && !first.superseded);
    // The session lives on for the next one.
    let asked = ask(&rig, "d", Some(first.cursor), 25, 100);
    rig.until("the first is acknowledged", || {
        rig.store.unread("d", Some("u")) == 0
    });
    rig.publish("u", "two");
    assert_eq!(bodies(&answer(&rig, asked)), ["two"]);
    let presence = rig.hub.sessions(&app(), &[device("d")]);
    assert_eq!(presence[0].as_ref().unwrap().protocol, "poll");
}

#[test]
fn lp_2_an_empty_answer_after_the_wait_keeps_the_cursor() {
    let rig = Rig::new();
    rig.publish("u", "one");
    let first = now(&rig, None, 100);
    let asked = ask(&rig, "d", Some(first.cursor), 10, 100);
    rig.until("acknowledged", || rig.store.unread("d", Some("u")) == 0);
    rig.advance(Duration::from_secs(9));
    rig.runtime.block_on(tokio::task::yield_now());
    assert!(!asked.is_finished());
    rig.advance(Duration::from_secs(2));
    let empty = answer(&rig, asked);
    assert_eq!(empty.messages.len(), 0);
    assert_eq!(empty.cursor, first.cursor);
    assert!(!empty.more);
    // Nobody polls any more: the device is offline.
    rig.advance(Duration::from_secs(16));
    rig.until("the session ends", || rig.hub.stats().sockets == 0);
}

#[test]
fn a_poll_that_does_not_wait_has_what_the_store_has() {
    let rig = Rig::new();
    let mut cursor = Some(now(&rig, None, 100).cursor);
    for n in 0..20 {
        rig.store("u", &n.to_string());
        let asked = ask(&rig, "d", cursor, 0, 100);
        // Time goes on before the store has answered.
        rig.advance(Duration::from_millis(100));
        let answer = answer(&rig, asked);
        assert_eq!(bodies(&answer), [n.to_string()]);
        cursor = Some(answer.cursor);
    }
}

#[test]
fn lp_3_and_lp_4_a_lost_request_or_answer_changes_nothing() {
    let rig = Rig::new();
    let begin = now(&rig, None, 100).cursor;
    for n in 0..5 {
        rig.publish("u", &n.to_string());
    }
    for _ in 0..3 {
        // As if the answer had been lost: the same cursor again.
        assert_eq!(bodies(&now(&rig, Some(begin), 3)), ["0", "1", "2"]);
    }
    assert_eq!(
        rig.store.unread("d", Some("u")),
        5,
        "an answer acknowledges nothing"
    );
    let next = now(&rig, Some(begin), 3).cursor;
    assert_eq!(bodies(&now(&rig, Some(next), 100)), ["3", "4"]);
    rig.until("what came before is acknowledged", || {
        rig.store.unread("d", Some("u")) == 2
    });
    // Without a cursor: from the device's own place.
    assert_eq!(bodies(&now(&rig, None, 100)), ["3", "4"]);
}

#[test]
fn lp_5_of_two_polls_the_older_is_superseded() {
    let rig = Rig::new();
    let older = ask(&rig, "d", None, 60, 100);
    rig.until("it waits", waits(&rig));
    let newer = ask(&rig, "d", None, 60, 100);
    let first = answer(&rig, older);
    assert!(first.superseded && first.messages.is_empty());
    rig.publish("u", "one");
    assert_eq!(bodies(&answer(&rig, newer)), ["one"]);
}

#[test]
fn lp_5_also_of_two_that_come_before_the_session_is_there() {
    let rig = Rig::new();
    let greeting = rig.store.hold("topics_of");
    let older = ask(&rig, "d", None, 60, 100);
    rig.until("it is greeted", || rig.store.is_held("topics_of"));
    let newer = ask(&rig, "d", None, 60, 100);
    // Whether it comes before the session is there or right behind is all the same.
    for _ in 0..100 {
        rig.runtime.block_on(tokio::task::yield_now());
    }
    drop(greeting);
    let first = answer(&rig, older);
    assert!(first.superseded && first.messages.is_empty());
    rig.publish("u", "one");
    assert_eq!(bodies(&answer(&rig, newer)), ["one"]);
}

#[test]
fn lp_6_limits_chain_every_entry_once_in_order() {
    let rig = Rig::new();
    let big = "y".repeat(30_000);
    let want: Vec<String> = (0..90).map(|n| format!("{n}{big}")).collect();
    for body in &want {
        rig.store("u", body);
    }
    let mut got = Vec::new();
    let mut cursor = None;
    loop {
        let page = now(&rig, cursor, 40);
        let bytes: usize = page.messages.iter().map(Vec::len).sum();
        assert!(page.messages.len() <= 40 && bytes <= 1024 * 1024);
        got.extend(bodies(&page));
        cursor = Some(page.cursor);
        if !page.more {
            break;
        }
    }
    assert_eq!(got, want);
}

#[test]
fn lp_7_what_left_the_ring_unread_is_told() {
    let rig = Rig::new();
    rig.publish("u", "one");
    let before = now(&rig, None, 100);
    assert!(!before.reset);
    rig.store.lost.store(30, Ordering::SeqCst);
    rig.publish("u", "two");
    let told = now(&rig, Some(before.cursor), 100);
    assert_eq!((told.reset, bodies(&told)), (true, vec!["two".to_owned()]));
    rig.store.lost.store(0, Ordering::SeqCst);
    assert!(!now(&rig, Some(told.cursor), 100).reset);
}

#[test]
fn lp_7_a_foreign_cursor_gives_the_own_inbox() {
    let rig = Rig::new();
    rig.store.add_device("e", Some("v"));
    rig.publish("v", "theirs");
    rig.publish("u", "mine");
    let theirs = answer(&rig, ask(&rig, "e", None, 0, 100));
    let answered = now(&rig, Some(theirs.cursor), 100);
    assert!(answered.reset);
    assert_eq!(bodies(&answered), ["mine"]);
    let epoch = Cursor {
        epoch: 99,
        ..answered.cursor
    };
    let answered = now(&rig, Some(epoch), 100);
    assert!(answered.reset);
    assert_eq!(bodies(&answered), ["mine"]);
    assert_eq!(
        rig.store.unread("d", Some("u")),
        1,
        "nothing is acknowledged by it"
    );
}

#[test]
fn lp_8_many_polls_wait_and_leave_nothing() {
    let rig = Rig::with(Options {
        half_open_per_ip_max: 10_000,
        ..Options::default()
    });
    let mut polls: Vec<Asked> = Vec::new();
    while polls.len() < POLLS {
        let more = polls.len()..polls.len() + 1_000;
        polls.extend(more.map(|n| {
            let name = format!("p{n}");
            rig.store.add_device(&name, Some("u"));
            ask(&rig, &name, None, 60, 100)
        }));
        // One session for each and nothing beside: what a session holds is bounded by its type.
        let settled = Stats {
            sessions: polls.len(),
            sockets: polls.len(),
            half_open: 0,
        };
        rig.until("all wait", || rig.hub.stats() == settled);
    }
    rig.publish("u", "one");
    for asked in polls {
        assert_eq!(bodies(&answer(&rig, asked)), ["one"]);
    }
    rig.advance(Duration::from_secs(16));
    rig.until("all sessions end", || rig.hub.stats().sockets == 0);
}

#[test]
fn a_poll_of_a_former_user_gets_nothing_of_theirs() {
    let rig = Rig::new();
    let asked = ask(&rig, "d", None, 60, 100);
    rig.until("it waits", waits(&rig));
    rig.store.bind("d", Some("v"));
    rig.runtime
        .block_on(rig.hub.rebind(&app(), &device("d"), Some(user("v"))));
    let answered = answer(&rig, asked);
    assert!(answered.reset && answered.messages.is_empty());
    rig.publish("u", "not for v");
    rig.publish("v", "for v");
    assert_eq!(bodies(&now(&rig, Some(answered.cursor), 100)), ["for v"]);
}

#[test]
fn an_unknown_device_and_a_takeover_end_a_poll() {
    let rig = Rig::new();
    let refused = rig
        .runtime
        .block_on(ask(&rig, "nobody", None, 5, 1))
        .unwrap();
    assert_eq!(refused.unwrap_err().code, close::UNAUTHORIZED);
    let asked = ask(&rig, "d", None, 60, 100);
    rig.until("it waits", waits(&rig));
    let mut client = rig.live("d");
    assert!(answer(&rig, asked).superseded);
    client.expect("idle");
    // And the other way round.
    let asked = ask(&rig, "d", None, 60, 100);
    assert_eq!(client.closed(), close::TAKEN_OVER);
    rig.publish("u", "one");
    assert_eq!(bodies(&answer(&rig, asked)), ["one"]);
}

#[test]
fn lp_4_what_an_earlier_poll_was_answered_is_marked() {
    let rig = Rig::new();
    let begin = now(&rig, None, 100).cursor;
    rig.publish("u", "one");
    rig.publish("u", "two");
    let dups = |answer: &Answer| -> Vec<bool> {
        let read = |bytes: &Vec<u8>| {
            let message: Value = serde_json::from_slice(bytes).unwrap();
            message["dup"] == true
        };
        answer.messages.iter().map(read).collect()
    };
    let first = now(&rig, Some(begin), 1);
    assert_eq!((bodies(&first).len(), dups(&first)), (1, vec![false]));
    // The answer was lost.
    let again = now(&rig, Some(begin), 100);
    assert_eq!(dups(&again), [true, false]);
    let last = now(&rig, Some(first.cursor), 100);
    assert_eq!(dups(&last), [true]);
    rig.publish("u", "three");
    let new = now(&rig, Some(last.cursor), 100);
    assert_eq!(dups(&new), [false]);
}
