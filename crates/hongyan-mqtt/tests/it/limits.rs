//! Every bound, and what is said when it is reached; and random turns that must not break anything.

use std::time::Duration;

use hongyan_mqtt::packet::{Property, Publish};
use proptest::prelude::*;

use crate::play::{Client, Play, V5, V311, asked, list, message};

#[test]
fn connections_and_sessions_are_bounded() {
    let mut play = Play::with(|options| {
        options.connections_max = 3;
        options.sessions_max = 2;
    });
    let (first, _) = play.kept(V5, "1");
    play.kept(V5, "2");
    let (third, said) = play.try_connect(&crate::play::connect(V5, "3"));
    assert_eq!(said, ["connack 0x97", "closed"]);
    assert!(play.broker.accept(play.now).is_none());
    play.cut(third);
    let (third, said) = play.try_connect(&crate::play::connect(V311, "3"));
    assert_eq!(said, ["connack 0x88", "closed"], "3.1.1's code 3");
    play.cut(third);
    // A session that is there may be taken up, and one that ends makes room.
    play.cut(first);
    let (first, said) = play.kept(V5, "1");
    assert!(said[0].contains("present"));
    play.cut(first);
    play.seconds(3_601);
    play.clean(V5, "3");
}

#[test]
fn subscriptions_are_bounded() {
    let mut play = Play::with(|options| {
        options.subscriptions_max = 2;
        options.subscriptions_total_max = 3;
    });
    let (one, other) = (play.clean(V5, "1"), play.clean(V311, "2"));
    play.subscribe(one, "a", 0);
    play.subscribe(one, "b", 0);
    let got = play.subscribe_with(one, "c", asked(0), &[]);
    assert_eq!(got, ["suback #9 [97]"]);
    play.subscribe(one, "a", 1);
    play.subscribe(other, "a", 0);
    let got = play.subscribe_with(other, "b", asked(0), &[]);
    assert_eq!(got, ["suback #9 [80]"]);
    play.unsubscribe(one, "a");
    play.subscribe(one, "c", 0);
}

#[test]
fn the_queue_of_a_session_is_bounded() {
    let mut play = Play::with(|options| {
        options.queue_messages_max = 10;
        options.queue_bytes_max = 1_000_000;
    });
    let publisher = play.clean(V5, "p");
    let (reader, _) = play.kept(V5, "r");
    play.subscribe(reader, "t", 1);
    play.cut(reader);
    for n in 1..=15 {
        play.publish(publisher, message("t", &n.to_string(), 1, n));
    }
    assert_eq!(play.broker.stats().dropped, 5);
    let (_, said) = play.kept(V5, "r");
    assert_eq!(said.len(), 11);
    assert!(said[10].ends_with(": 10"), "the oldest are kept");
}

#[test]
fn the_bytes_that_wait_are_bounded() {
    for (one, all, kept) in [(2_000, 1_000_000, 3), (1_000_000, 2_000, 3)] {
        let mut play = Play::with(|options| {
            options.queue_bytes_max = one;
            options.queue_bytes_total_max = all;
        });
        let publisher = play.clean(V5, "p");
        let (reader, _) = play.kept(V5, "r");
        play.subscribe(reader, "t", 1);
        play.cut(reader);
        for n in 1..=9 {
            play.publish(publisher, message("t", &"x".repeat(400), 1, n));
        }
        assert!(play.broker.stats().queued_bytes <= 2_000);
        let (_, said) = play.kept(V5, "r");
        assert_eq!(said.len(), 1 + kept);
    }
}

#[test]
fn retained_messages_are_bounded() {
    let mut play = Play::with(|options| options.retained_max = 2);
    let client = play.clean(V5, "c");
    let retained = |topic, id| Publish {
        retain: true,
        ..message(topic, "x", 1, id)
    };
    for (n, topic) in [(1, "a"), (2, "b"), (3, "c"), (4, "a")] {
        play.publish(client, retained(topic, n));
    }
    let said = play.read(client);
    let codes: Vec<_> = said
        .iter()
        .map(|one| one.split(' ').next_back().unwrap())
        .collect();
    assert_eq!(codes, ["0x10", "0x10", "0x97", "0x10"]);
    // 3.1.1 cannot be told: the message is passed on and not kept.
    let old = play.clean(V311, "old");
    play.subscribe(old, "c", 0);
    play.publish(old, retained("c", 1));
    assert_eq!(play.read(old), ["publish c qos0: x", "puback #1 0x00"]);
    assert_eq!(play.broker.stats().retained, 2);
    play.retain(client, "a", "");
    play.publish(client, retained("c", 5));
    assert_eq!(play.read(client), ["puback #5 0x00"]);

    let mut play = Play::with(|options| options.retained_bytes_max = 1_000);
    let client = play.clean(V5, "c");
    let long = "x".repeat(600);
    for (n, topic) in [(1, "a"), (2, "b"), (3, "a")] {
        let publish = Publish {
            payload: long.as_bytes(),
            ..retained(topic, n)
        };
        play.publish(client, publish);
    }
    let said = play.read(client);
    assert_eq!(said, ["puback #1 0x10", "puback #2 0x97", "puback #3 0x10"]);
}

#[test]
fn topics_are_bounded() {
    let mut play = Play::new();
    let client = play.clean(V5, "c");
    for (n, topic) in [(1, "a".repeat(513)), (2, "a/".repeat(16))] {
        play.publish(client, message(&topic, "x", 1, n));
        assert_eq!(play.read(client), [format!("puback #{n} 0x90")]);
    }
}

#[derive(Debug, Clone)]
enum Turn {
    Connect(usize, bool, bool),
    Cut(usize),
    Bye(usize),
    Subscribe(usize, usize, u8),
    Unsubscribe(usize, usize),
    Publish(usize, usize, u8, bool),
    AckAll(usize),
    Bytes(usize, Vec<u8>),
    Pass(u64),
}

const FILTERS: [&str; 6] = ["a", "a/b", "#", "a/+", "$share/g/a/+", "$share/h/#"];
const TOPICS: [&str; 3] = ["a", "a/b", "$x"];

fn turn() -> impl Strategy<Value = Turn> {
    let client = 0..3_usize;
    prop_oneof![
        (client.clone(), any::<bool>(), any::<bool>()).prop_map(|(c, v, k)| Turn::Connect(c, v, k)),
        client.clone().prop_map(Turn::Cut),
        client.clone().prop_map(Turn::Bye),
        (client.clone(), 0..FILTERS.len(), 0..3_u8).prop_map(|(c, f, q)| Turn::Subscribe(c, f, q)),
        (client.clone(), 0..FILTERS.len()).prop_map(|(c, f)| Turn::Unsubscribe(c, f)),
        (client.clone(), 0..TOPICS.len(), 0..3_u8, any::<bool>())
            .prop_map(|(c, t, q, r)| Turn::Publish(c, t, q, r)),
        client.clone().prop_map(Turn::AckAll),
        (client, prop::collection::vec(any::<u8>(), 1..12)).prop_map(|(c, b)| Turn::Bytes(c, b)),
        (0..2_000_u64).prop_map(Turn::Pass),
    ]
}

proptest! {
    /// Whatever clients do, nothing is left when all have gone and all has expired.
    #[test]
    fn nothing_is_left_behind(turns in prop::collection::vec(turn(), 0..120)) {
        let mut play = Play::with(|options| {
            options.queue_messages_max = 20;
            options.retained_max = 2;
            options.session_expiry_max = Duration::from_secs(1_000);
        });
        let mut clients: [Option<Client>; 3] = [None; 3];
        let mut number = 0;
        for turn in turns {
            match turn {
                Turn::Connect(c, five, keep) => {
                    let version = if five { V5 } else { V311 };
                    let properties = list(&[
                        Property::SessionExpiry(u32::from(keep) * 500),
                        Property::TopicAliasMaximum(1),
                        Property::ReceiveMaximum(2),
                    ]);
                    let name = format!("c{c}");
                    let (client, said) = play.try_connect(&hongyan_mqtt::packet::Connect {
                        clean_start: !keep,
                        properties: properties.as_properties(),
                        will: Some(crate::play::will("a/b", "gone")),
                        ..crate::play::connect(version, &name)
                    });
                    prop_assert!(said[0].starts_with("connack 0x00"), "{:?}", said);
                    if let Some(old) = clients[c].replace(client) {
                        play.read(old);
                        play.cut(old);
                    }
                }
                Turn::Cut(c) => if let Some(client) = clients[c].take() {
                    play.cut(client);
                },
                Turn::Bye(c) => if let Some(client) = clients[c].take() {
                    play.read(client);
                    play.bytes(client, b"\xe0\0");
                    play.read(client);
                    play.cut(client);
                },
                Turn::Subscribe(c, f, q) => if let Some(client) = clients[c] {
                    play.subscribe_with(client, FILTERS[f], asked(q), &[]);
                },
                Turn::Unsubscribe(c, f) => if let Some(client) = clients[c] {
                    play.unsubscribe(client, FILTERS[f]);
                },
                Turn::Publish(c, t, q, retain) => if let Some(client) = clients[c] {
                    number = number % 50 + 1;
                    let packet_id = if q == 0 { 0 } else { number };
                    play.publish(client, Publish { retain, ..message(TOPICS[t], "x", q, packet_id) });
                    if q == 2 {
                        play.pubrel(client, packet_id);
                    }
                },
                Turn::AckAll(c) => if let Some(client) = clients[c] {
                    for id in 1..20 {
                        play.puback(client, id);
                        play.pubrec(client, id);
                        play.pubcomp(client, id);
                    }
                },
                Turn::Bytes(c, bytes) => if let Some(client) = clients[c].take() {
                    play.bytes(client, &bytes);
                    play.cut(client);
                },
                Turn::Pass(millis) => play.pass(Duration::from_millis(millis)),
            }
            let stats = play.broker.stats();
            prop_assert!(stats.sessions <= 3 && stats.retained <= 2);
        }
        for client in clients.into_iter().flatten() {
            play.cut(client);
        }
        play.seconds(2_000);
        let stats = play.broker.stats();
        prop_assert_eq!(
            (stats.connections, stats.sessions, stats.subscriptions, stats.queued_bytes),
            (0, 0, 0, 0)
        );
        prop_assert_eq!(play.broker.next_due(), None, "no timer is left");
    }
}
