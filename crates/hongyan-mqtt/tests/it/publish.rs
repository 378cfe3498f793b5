//! Messages, subscriptions, retained messages.

use hongyan_mqtt::packet::{
    FilterList, Packet, Properties, Property, Publish, ReasonCode, RetainHandling, Subscribe,
    SubscribeOptions,
};

use crate::play::{BOTH, Client, Play, V5, V311, asked, list, message};

#[test]
fn a_message_reaches_those_who_subscribed_with_the_lower_qos() {
    for version in BOTH {
        for level in 0..3 {
            for wanted in 0..3 {
                let mut play = Play::new();
                let (publisher, reader) = (play.clean(version, "p"), play.clean(version, "r"));
                play.subscribe(reader, "a/+", wanted);
                let id = u16::from(level > 0) * 5;
                play.publish(publisher, message("a/b", "x", level, id));
                play.publish(publisher, message("a", "x", 0, 0));
                let lower = level.min(wanted);
                let number = if lower > 0 { " #1" } else { "" };
                assert_eq!(
                    play.read(reader),
                    [format!("publish a/b qos{lower}{number}: x")]
                );
                let expected: &[&str] = match level {
                    0 => &[],
                    1 => &["puback #5 0x00"],
                    _ => &["pubrec #5 0x00"],
                };
                assert_eq!(play.read(publisher), expected);
            }
        }
    }
}

#[test]
fn mqtt_4_3_3_qos_2_is_handed_over_once() {
    for version in BOTH {
        let mut play = Play::new();
        let (publisher, reader) = (play.clean(version, "p"), play.clean(version, "r"));
        play.subscribe(reader, "t", 2);
        play.publish(publisher, message("t", "x", 2, 5));
        assert_eq!(play.read(publisher), ["pubrec #5 0x00"]);
        // [4.3.3-10]: the same again before PUBREL is no new message.
        let again = Publish {
            dup: true,
            ..message("t", "x", 2, 5)
        };
        play.publish(publisher, again);
        assert_eq!(play.read(publisher), ["pubrec #5 0x00"]);
        play.pubrel(publisher, 5);
        play.pubrel(publisher, 5);
        let unknown = match version {
            V311 => "pubcomp #5 0x00",
            V5 => "pubcomp #5 0x92",
        };
        assert_eq!(play.read(publisher), ["pubcomp #5 0x00", unknown]);
        // After it, the identifier is free again [4.3.3-12].
        play.publish(publisher, message("t", "y", 2, 5));
        assert_eq!(
            play.read(reader),
            ["publish t qos2 #1: x", "publish t qos2 #2: y"]
        );

        play.pubrec(reader, 1);
        play.pubrec(reader, 1);
        assert_eq!(play.read(reader), ["pubrel #1 0x00", "pubrel #1 0x00"]);
        play.pubcomp(reader, 1);
        play.pubrec(reader, 1);
        let unknown = match version {
            V311 => "pubrel #1 0x00",
            V5 => "pubrel #1 0x92",
        };
        assert_eq!(play.read(reader), [unknown]);
        play.pubrec(reader, 2);
        play.pubcomp(reader, 2);
        assert_eq!(play.broker.stats().queued_bytes, 0);
    }
}

#[test]
fn a_refused_pubrec_ends_the_message() {
    let mut play = Play::new();
    let (publisher, reader) = (play.clean(V5, "p"), play.clean(V5, "r"));
    play.subscribe(reader, "t", 2);
    play.publish(publisher, message("t", "x", 2, 5));
    play.read(reader);
    let refused = hongyan_mqtt::packet::Ack::new(1, ReasonCode::QUOTA_EXCEEDED);
    play.send(reader, &Packet::PubRec(refused));
    assert!(play.read(reader).is_empty());
    assert_eq!(play.broker.stats().queued_bytes, 0);
}

#[test]
fn wildcards_do_not_see_dollar_topics_and_the_servers_own_are_not_written_to() {
    let mut play = Play::new();
    let (publisher, reader) = (play.clean(V5, "p"), play.clean(V5, "r"));
    play.subscribe(reader, "#", 0);
    play.subscribe(reader, "+/a", 0);
    play.publish(publisher, message("$own/a", "hidden", 0, 0));
    assert!(play.read(reader).is_empty());
    play.subscribe(reader, "$own/#", 0);
    play.publish(publisher, message("$own/a", "seen", 0, 0));
    assert_eq!(play.read(reader), ["publish $own/a qos0: seen"]);
    play.subscribe(reader, "$SYS/#", 0);
    play.publish(publisher, message("$SYS/a", "x", 1, 1));
    play.publish(publisher, message("$SYS/a", "x", 2, 2));
    play.publish(publisher, message("$SYS/a", "x", 0, 0));
    assert_eq!(play.read(publisher), ["puback #1 0x87", "pubrec #2 0x87"]);
    assert!(play.read(reader).is_empty());
    // 3.1.1 has no word for it [3.1.1 3.3.5-2].
    let three = play.clean(V311, "3");
    play.publish(three, message("$SYS/a", "x", 1, 1));
    assert_eq!(play.read(three), ["puback #1 0x00"]);
    assert!(play.read(reader).is_empty());
}

#[test]
fn mqtt_3_3_4_2_overlapping_subscriptions_give_one_copy_with_all_identifiers() {
    let mut play = Play::new();
    let (publisher, reader) = (play.clean(V5, "p"), play.clean(V5, "r"));
    let id = |number| [Property::SubscriptionId(number)];
    play.subscribe_with(reader, "a/#", asked(0), &id(7));
    play.subscribe_with(reader, "a/+", asked(2), &id(300));
    play.subscribe_with(reader, "a/b", asked(1), &[]);
    play.publish(publisher, message("a/b", "x", 1, 1));
    let both = "SubscriptionId(7) SubscriptionId(300)";
    assert_eq!(
        play.read(reader),
        [format!("publish a/b qos1 #1 {both}: x")]
    );
    // [3.8.4-3]: the same filter again replaces what was asked for.
    play.subscribe_with(reader, "a/+", asked(0), &id(8));
    play.unsubscribe(reader, "a/b");
    play.publish(publisher, message("a/b", "x", 1, 2));
    let both = "SubscriptionId(7) SubscriptionId(8)";
    assert_eq!(play.read(reader), [format!("publish a/b qos0 {both}: x")]);
    assert_eq!(play.broker.stats().subscriptions, 2);
}

#[test]
fn mqtt_3_10_4_unsubscribing_says_what_there_was() {
    let mut play = Play::new();
    for version in BOTH {
        let (publisher, reader) = (play.clean(version, "p"), play.clean(version, "r"));
        play.subscribe(reader, "a/+", 0);
        let (was, was_not) = match version {
            V311 => ("unsuback #8 []", "unsuback #8 []"),
            V5 => ("unsuback #8 [00]", "unsuback #8 [11]"),
        };
        assert_eq!(play.unsubscribe(reader, "a/b"), [was_not]);
        assert_eq!(play.unsubscribe(reader, "a/+"), [was]);
        assert_eq!(play.unsubscribe(reader, "a/+"), [was_not]);
        play.publish(publisher, message("a/b", "x", 0, 0));
        assert!(play.read(reader).is_empty());
    }
}

#[test]
fn many_filters_are_answered_in_their_order() {
    let mut play = Play::new();
    let client = play.clean(V311, "c");
    let mut filters = FilterList::new();
    filters.push("a", asked(2)).unwrap();
    filters.push(&"x/".repeat(16), asked(1)).unwrap();
    filters.push("$share/g", asked(1)).unwrap();
    filters.push("b", asked(0)).unwrap();
    let packet = Subscribe {
        packet_id: 3,
        properties: Properties::NONE,
        filters: filters.as_filters(),
    };
    play.send(client, &Packet::Subscribe(packet));
    assert_eq!(play.read(client), ["suback #3 [02 80 80 00]"]);
    let client = play.clean(V5, "c5");
    let got = play.subscribe_with(client, &"x/".repeat(16), asked(1), &[]);
    assert_eq!(got, ["suback #9 [8f]"]);
}

#[test]
fn mqtt_3_8_3_3_no_local_keeps_what_one_publishes_oneself_away() {
    let mut play = Play::new();
    let (one, other) = (play.clean(V5, "one"), play.clean(V5, "other"));
    let options = SubscribeOptions {
        no_local: true,
        ..asked(0)
    };
    play.subscribe_with(one, "t", options, &[]);
    play.publish(one, message("t", "own", 0, 0));
    play.publish(other, message("t", "foreign", 0, 0));
    assert_eq!(play.read(one), ["publish t qos0: foreign"]);
    play.retain(one, "t", "own");
    let got = play.subscribe_with(one, "t", options, &[]);
    assert_eq!(got, ["suback #9 [00]"]);
}

#[test]
fn mqtt_3_3_1_5_the_last_retained_message_of_a_topic_is_kept() {
    for version in BOTH {
        let mut play = Play::new();
        let (publisher, reader) = (play.clean(version, "p"), play.clean(version, "r"));
        play.subscribe(reader, "a/b", 0);
        play.retain(publisher, "a/b", "1");
        let second = Publish {
            retain: true,
            ..message("a/b", "2", 1, 1)
        };
        play.publish(publisher, second);
        play.retain(publisher, "a/c", "3");
        // To those who subscribed before, it is a message as any other [3.3.1-12].
        assert_eq!(
            play.read(reader),
            ["publish a/b qos0: 1", "publish a/b qos0: 2"]
        );
        let late = play.clean(version, "late");
        let mut got = play.subscribe_with(late, "a/+", asked(2), &[]);
        got[1..].sort();
        let retained = [
            "publish a/b qos1 #1 retain: 2",
            "publish a/c qos0 retain: 3",
        ];
        // The identifier depends on nothing but its turn.
        assert_eq!(got, ["suback #9 [02]", retained[0], retained[1]]);
        // [3.3.1-6], [3.3.1-7]: an empty one takes it away and is not kept itself.
        play.retain(publisher, "a/b", "");
        assert_eq!(play.read(reader), ["publish a/b qos0: "]);
        let later = play.clean(version, "later");
        let got = play.subscribe_with(later, "a/b", asked(1), &[]);
        assert_eq!(got, ["suback #9 [01]"]);
        assert_eq!(play.broker.stats().retained, 1);
    }
}

#[test]
fn mqtt_3_3_1_9_to_11_retain_handling() {
    let mut play = Play::new();
    let client = play.clean(V5, "c");
    play.retain(client, "t", "x");
    let with = |retain_handling| SubscribeOptions {
        retain_handling,
        ..asked(0)
    };
    let mut gets = |handling| play.subscribe_with(client, "t", with(handling), &[]).len() - 1;
    assert_eq!(gets(RetainHandling::Never), 0);
    assert_eq!(gets(RetainHandling::New), 0, "it was there before");
    assert_eq!(gets(RetainHandling::Always), 1);
    assert_eq!(gets(RetainHandling::Always), 1);
    play.unsubscribe(client, "t");
    let mut gets = |handling| play.subscribe_with(client, "t", with(handling), &[]).len() - 1;
    assert_eq!(gets(RetainHandling::New), 1);
    assert_eq!(gets(RetainHandling::New), 0);
}

#[test]
fn mqtt_3_3_1_12_and_13_retain_as_published() {
    let mut play = Play::new();
    let (publisher, reader) = (play.clean(V5, "p"), play.clean(V5, "r"));
    let options = SubscribeOptions {
        retain_as_published: true,
        ..asked(0)
    };
    play.subscribe_with(reader, "t", options, &[]);
    play.retain(publisher, "t", "x");
    play.publish(publisher, message("t", "y", 0, 0));
    assert_eq!(
        play.read(reader),
        ["publish t qos0 retain: x", "publish t qos0: y"]
    );
}

fn share(play: &mut Play, version: hongyan_mqtt::packet::Version, names: &[&str]) -> Vec<Client> {
    names
        .iter()
        .map(|name| {
            let (client, _) = play.kept(version, name);
            play.subscribe(client, "$share/g/t/+", 1);
            client
        })
        .collect()
}

#[test]
fn mqtt_4_8_2_a_shared_subscription_gives_each_message_to_one() {
    for version in BOTH {
        let mut play = Play::new();
        let publisher = play.clean(version, "p");
        let members = share(&mut play, version, &["a", "b", "c"]);
        let alone = play.clean(version, "alone");
        play.subscribe(alone, "$share/other/t/+", 0);
        play.subscribe(alone, "t/#", 0);
        for n in 0..9 {
            play.publish(publisher, message("t/x", &n.to_string(), 1, n + 1));
        }
        let got: Vec<_> = members.iter().map(|client| play.read(*client)).collect();
        assert!(got.iter().all(|got| got.len() == 3), "in turn: {got:?}");
        // Its own subscription and the shared one are two things.
        assert_eq!(play.read(alone).len(), 18);
        // Who is away gets nothing while others are there.
        play.cut(members[0]);
        play.cut(members[1]);
        for n in 0..4 {
            play.publish(publisher, message("t/x", "y", 1, n + 20));
        }
        assert_eq!(play.read(members[2]).len(), 4);
        // When all are away, it waits for one of them.
        play.cut(members[2]);
        play.publish(publisher, message("t/x", "z", 1, 30));
        let back: Vec<_> = ["a", "b", "c"]
            .iter()
            .flat_map(|name| play.kept(version, name).1)
            .filter(|said| said.ends_with(": z"))
            .collect();
        assert_eq!(back.len(), 1, "{back:?}");
    }
}

#[test]
fn shared_subscriptions_get_no_retained_messages_and_end_one_by_one() {
    let mut play = Play::new();
    let publisher = play.clean(V5, "p");
    play.retain(publisher, "t/x", "old");
    let members = share(&mut play, V5, &["a", "b"]);
    assert_eq!(
        play.unsubscribe(members[0], "$share/g/t/+"),
        ["unsuback #8 [00]"]
    );
    assert_eq!(play.unsubscribe(members[0], "t/+"), ["unsuback #8 [11]"]);
    for n in 0..3 {
        play.publish(publisher, message("t/x", "x", 0, n));
    }
    assert_eq!(play.read(members[1]).len(), 3);
    play.unsubscribe(members[1], "$share/g/t/+");
    assert_eq!(play.broker.stats().subscriptions, 0);
}

#[test]
fn payloads_that_claim_to_be_text_are_text() {
    let mut play = Play::new();
    let client = play.clean(V5, "c");
    play.subscribe(client, "t", 0);
    let text = list(&[Property::PayloadFormat(1)]);
    for (n, payload) in [(1, &b"\xff"[..]), (2, "鸿".as_bytes())] {
        let publish = Publish {
            payload,
            properties: text.as_properties(),
            ..message("t", "", 1, n)
        };
        play.publish(client, publish);
    }
    let good = "publish t qos0 PayloadFormat(1): 鸿";
    assert_eq!(
        play.read(client),
        ["puback #1 0x99", good, "puback #2 0x00"]
    );
}

#[test]
fn identifiers_of_messages_that_are_not_released_are_in_use() {
    let mut play = Play::new();
    let client = play.clean(V5, "c");
    play.publish(client, message("t", "x", 2, 5));
    play.publish(client, message("t", "x", 1, 5));
    assert_eq!(play.read(client), ["pubrec #5 0x10", "puback #5 0x91"]);
}
