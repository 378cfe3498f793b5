//! Hints that carry their entry: what they spare, and what they must not change.

use std::sync::atomic::Ordering;
use std::time::Duration;

use hongyan_core::message::Audience;
use hongyan_core::port::{Owner, Presence};
use hongyan_gateway::Options;
use serde_json::{Value, json};

use crate::client::Client;
use crate::rig::{FAR, Rig};
use crate::store::{app, device, user};

pub(crate) fn of(name: &str) -> Owner {
    Owner::User(user(name))
}

fn body(value: &Value) -> &str {
    value["notification"]["body"].as_str().unwrap()
}

/// Bodies that come, up to this one.
pub(crate) fn until(client: &mut Client, last: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    while found.last().is_none_or(|one| one != last) {
        let value = client.hear();
        if value["t"] == "msg" {
            client.say(json!({"t": "ack", "upto": value["cursor"]}));
            found.push(body(&value).to_owned());
        }
    }
    found
}

impl Rig {
    /// A session of device `d` that has read everything.
    pub(crate) fn caught_up(&self) -> Client {
        let mut client = self.live("d");
        client.until_idle();
        client
    }

    /// Stores a message and says so with its entry.
    pub(crate) fn publish_news(&self, owner: &Owner, body: &str) {
        self.store.append(owner.clone(), body, FAR);
        self.hub.notify(vec![self.news(owner.clone())]);
    }
}

#[test]
fn who_has_everything_is_given_the_entry_without_a_read() {
    let rig = Rig::new();
    let mut client = rig.caught_up();
    let reads = rig.store.reads.load(Ordering::SeqCst);
    for n in 0..20 {
        rig.publish_news(&of("u"), &format!("{n}"));
        assert_eq!(until(&mut client, &format!("{n}")), [format!("{n}")]);
    }
    assert_eq!(rig.store.reads.load(Ordering::SeqCst), reads);
    rig.until("acked", || rig.store.unread("d", Some("u")) == 0);
}

#[test]
fn who_lacks_something_reads_first() {
    let rig = Rig::new();
    let mut client = rig.caught_up();
    rig.store("u", "a");
    rig.store("u", "b");
    rig.publish_news(&of("u"), "c");
    assert_eq!(until(&mut client, "c"), ["a", "b", "c"]);
}

#[test]
fn hints_that_overtake_each_other_change_no_order() {
    let rig = Rig::new();
    let mut client = rig.caught_up();
    for round in 0..20 {
        let mut hints: Vec<_> = (0..5)
            .map(|n| {
                rig.store("u", &format!("{round}.{n}"));
                rig.news(of("u"))
            })
            .collect();
        hints.rotate_left(round % 5);
        for hint in hints {
            rig.hub.notify(vec![hint.clone()]);
            rig.hub.notify(vec![hint]);
        }
        let want: Vec<String> = (0..5).map(|n| format!("{round}.{n}")).collect();
        assert_eq!(until(&mut client, &format!("{round}.4")), want);
    }
}

#[test]
fn lists_that_grow_at_once_come_whole_and_in_order() {
    let rig = Rig::new();
    let mut client = rig.caught_up();
    let lists = [
        of("u"),
        Owner::Device(device("d")),
        Owner::Audience(Audience::All),
    ];
    for round in 0..10 {
        for (n, owner) in lists.iter().enumerate() {
            rig.publish_news(owner, &format!("{round}.{n}"));
        }
        let mut found = Vec::new();
        while found.len() < lists.len() {
            let value = client.hear();
            assert_eq!(value["t"], "msg");
            client.say(json!({"t": "ack", "upto": value["cursor"]}));
            found.push(body(&value).to_owned());
        }
        let want: Vec<String> = (0..lists.len()).map(|n| format!("{round}.{n}")).collect();
        assert_eq!(found, want);
    }
}

#[test]
fn a_full_window_holds_entries_back_until_there_is_room() {
    let rig = Rig::with(Options {
        inflight: 2,
        ..Options::default()
    });
    let mut client = rig.caught_up();
    for n in 0..6 {
        rig.publish_news(&of("u"), &format!("{n}"));
    }
    let first = client.expect("msg");
    let second = client.expect("msg");
    assert_eq!((body(&first), body(&second)), ("0", "1"));
    client.say(json!({"t": "ping", "n": 1}));
    client.expect("pong");
    client.say(json!({"t": "ack", "upto": second["cursor"]}));
    assert_eq!(until(&mut client, "5"), ["2", "3", "4", "5"]);
}

#[test]
fn a_hint_that_is_late_brings_nothing_of_the_former_user() {
    let rig = Rig::new();
    let mut client = rig.caught_up();
    rig.store("u", "never");
    let late = rig.news(of("u"));
    rig.store.bind("d", Some("v"));
    rig.runtime
        .block_on(rig.hub.rebind(&app(), &device("d"), Some(user("v"))));
    rig.hub.notify(vec![late]);
    rig.publish_news(&of("v"), "hers");
    assert_eq!(until(&mut client, "hers"), ["hers"]);
}

#[test]
fn a_recall_that_overtakes_its_message_keeps_it_back() {
    let rig = Rig::new();
    let mut client = rig.caught_up();
    let id = rig.store("u", "never");
    let late = rig.news(of("u"));
    rig.store.mark_recalled(id);
    rig.hub.recall(&app(), &of("u"), id);
    rig.hub.notify(vec![late]);
    rig.publish_news(&of("u"), "next");
    assert_eq!(until(&mut client, "next"), ["next"]);
}

#[test]
fn an_entry_that_has_expired_is_not_given() {
    let rig = Rig::new();
    let mut client = rig.caught_up();
    rig.store.append(of("u"), "never", 1_000_100);
    let late = rig.news(of("u"));
    rig.advance(Duration::from_secs(1));
    rig.hub.notify(vec![late]);
    rig.publish_news(&of("u"), "next");
    assert_eq!(until(&mut client, "next"), ["next"]);
}

#[test]
fn followers_get_what_a_topic_gets_together_and_in_order() {
    let rig = Rig::new();
    let topic = Rig::topic("news");
    let mut clients = Vec::new();
    for n in 0..40 {
        rig.store.add_device(&format!("d{n}"), None);
        let mut client = rig.live(&format!("d{n}"));
        client.until_idle();
        client.say(json!({"t": "sub", "topic": "news"}));
        client.expect("sub_ok");
        clients.push(client);
    }
    for round in 0..5 {
        let hints = (0..20)
            .map(|n| {
                rig.store
                    .append(topic.clone(), &format!("{round}.{n}"), FAR);
                rig.news(topic.clone())
            })
            .collect();
        rig.hub.notify(hints);
        let want: Vec<String> = (0..20).map(|n| format!("{round}.{n}")).collect();
        for client in &mut clients {
            assert_eq!(until(client, &format!("{round}.19")), want);
        }
    }
}

#[test]
fn who_left_a_topic_is_not_given_its_news() {
    let rig = Rig::new();
    let topic = Rig::topic("news");
    let mut client = rig.caught_up();
    client.say(json!({"t": "sub", "topic": "news"}));
    client.expect("sub_ok");
    rig.publish_news(&topic, "a");
    assert_eq!(until(&mut client, "a"), ["a"]);
    // The registry knows, and the hub was told that something changed; its session has not looked yet.
    rig.store.set_topics("d", &[]);
    rig.hub.resubscribe(&app(), &device("d"));
    rig.publish_news(&topic, "never");
    rig.publish_news(&of("u"), "next");
    assert_eq!(until(&mut client, "next"), ["next"]);
}
