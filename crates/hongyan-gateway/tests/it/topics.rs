//! What a device follows, changed by several at once and while the registry is away.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hongyan_core::limits::TOPICS_PER_DEVICE_MAX;
use hongyan_core::port::{Clock, Presence};
use serde_json::json;

use crate::client::Client;
use crate::news::{of, until};
use crate::rig::Rig;
use crate::store::{app, device};

/// A session of device `d` that follows these.
fn following(rig: &Rig, topics: &[&str]) -> Client {
    rig.store.set_topics("d", topics);
    rig.caught_up()
}

/// Publishes to a topic until nobody had to read for it: then it is certain again who follows it.
fn until_certain(rig: &Rig, client: &mut Client, topic: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    for n in 0.. {
        assert!(Instant::now() < deadline, "its followers read for ever");
        let reads = rig.store.reads.load(Ordering::SeqCst);
        rig.publish_news(&Rig::topic(topic), &format!("{topic} {n}"));
        until(client, &format!("{topic} {n}"));
        if rig.store.reads.load(Ordering::SeqCst) == reads {
            return;
        }
    }
}

#[test]
fn topics_that_were_read_before_another_change_are_not_relied_on() {
    let rig = Rig::new();
    let mut client = following(&rig, &["x", "y"]);
    // Both changes are announced; the one of `y` is not written yet when the other's topics are read.
    let write = rig.store.hold("unsubscribe y");
    client.say(json!({"t": "unsub", "topic": "y"}));
    rig.until("y is to be left", || rig.store.is_held("unsubscribe y"));
    let read = rig.store.hold("topics_of");
    client.say(json!({"t": "unsub", "topic": "x"}));
    rig.until("topics were read", || rig.store.is_held("topics_of"));
    drop(write);
    assert_eq!(client.expect("sub_ok")["topic"], "y");
    // What was read before comes after.
    drop(read);
    assert_eq!(client.expect("sub_ok")["topic"], "x");
    rig.publish_news(&Rig::topic("y"), "never");
    rig.publish_news(&of("u"), "next");
    assert_eq!(until(&mut client, "next"), ["next"]);
}

#[test]
fn a_topic_too_many_changes_nothing() {
    let rig = Rig::new();
    let names: Vec<String> = (0..TOPICS_PER_DEVICE_MAX)
        .map(|n| format!("t{n}"))
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut client = following(&rig, &names);
    client.say(json!({"t": "sub", "topic": "one-more"}));
    assert_eq!(client.expect("error")["code"], "too_many_topics");
    until_certain(&rig, &mut client, "t7");
}

#[test]
fn a_change_that_failed_is_looked_up_later() {
    let rig = Rig::new();
    let mut client = following(&rig, &["x"]);
    rig.store.topics_broken.store(true, Ordering::SeqCst);
    client.say(json!({"t": "unsub", "topic": "y"}));
    client.expect("sub_ok");
    rig.store.topics_broken.store(false, Ordering::SeqCst);
    rig.advance(Duration::from_secs(1));
    until_certain(&rig, &mut client, "x");
}

#[test]
fn a_subscription_is_found_when_the_registry_is_back() {
    let rig = Rig::new();
    let mut client = rig.caught_up();
    rig.store.topics_broken.store(true, Ordering::SeqCst);
    // Subscribed over HTTP.
    rig.store.set_topics("d", &["x"]);
    rig.hub.resubscribe(&app(), &device("d"));
    rig.until("it was tried", || {
        rig.store.topics_refused.load(Ordering::SeqCst) > 0
    });
    rig.store.topics_broken.store(false, Ordering::SeqCst);
    // Nobody knows yet who follows it, so that nobody is woken.
    rig.publish_news(&Rig::topic("x"), "extra");
    let began = rig.clock.now();
    rig.until("its topics were read again", || {
        if rig.clock.now() < began.plus(Duration::from_secs(30)) {
            rig.advance(Duration::from_millis(100));
        }
        !rig.sink.sent().is_empty()
    });
    assert_eq!(until(&mut client, "extra"), ["extra"]);
}
