//! What 5.0 says beside the message: MQ-11, MQ-12, and topic aliases.

use std::time::Duration;

use hongyan_mqtt::packet::{Connect, Property, Publish};

use crate::play::{Play, V5, V311, asked, connect, list, message};

#[test]
fn mq_12_properties_pass_unchanged_and_in_order() {
    let mut play = Play::new();
    let (publisher, reader) = (play.clean(V5, "p"), play.clean(V5, "r"));
    let old = play.clean(V311, "old");
    play.subscribe(reader, "t", 1);
    play.subscribe(old, "t", 1);
    let properties = list(&[
        Property::UserProperty("b", "1"),
        Property::ContentType("text/plain"),
        Property::UserProperty("a", "2"),
        Property::PayloadFormat(1),
        Property::UserProperty("b", "1"),
        Property::ResponseTopic("answers"),
        Property::CorrelationData(b"\0\xff"),
    ]);
    let publish = Publish {
        properties: properties.as_properties(),
        ..message("t", "x", 1, 1)
    };
    play.publish(publisher, publish);
    let told: String = properties
        .as_properties()
        .iter()
        .map(|property| format!(" {property:?}"))
        .collect();
    assert_eq!(play.read(reader), [format!("publish t qos1 #1{told}: x")]);
    assert_eq!(play.read(old), ["publish t qos1 #1: x"]);
}

#[test]
fn mq_11_expiry_shrinks_with_waiting_and_what_expired_never_comes() {
    let mut play = Play::new();
    let publisher = play.clean(V5, "p");
    let (reader, _) = play.kept(V5, "r");
    play.subscribe(reader, "t", 1);
    play.cut(reader);
    for (n, seconds) in [(1, 5), (2, 10), (3, 0)] {
        let (properties, payload) = (list(&[Property::MessageExpiry(seconds)]), n.to_string());
        let publish = Publish {
            properties: properties.as_properties(),
            retain: n == 2,
            ..message("t", &payload, 1, n)
        };
        play.publish(publisher, publish);
    }
    play.publish(publisher, message("t", "for ever", 1, 4));
    play.pass(Duration::from_millis(6_500));
    let (reader, said) = play.kept(V5, "r");
    let due = "publish t qos1 #1 MessageExpiry(4): 2";
    assert_eq!(said[1..], [due, "publish t qos1 #2: for ever"]);
    // The same for what is retained.
    let got = play.subscribe_with(reader, "t", asked(0), &[]);
    assert_eq!(got[1..], ["publish t qos0 retain MessageExpiry(4): 2"]);
    play.seconds(4);
    let got = play.subscribe_with(reader, "t", asked(0), &[]);
    assert_eq!(got, ["suback #9 [00]"]);
    play.seconds(60);
    assert_eq!(play.broker.stats().retained, 0, "it is not kept for ever");
}

#[test]
fn topic_aliases_of_a_client() {
    let mut play = Play::new();
    let (publisher, reader) = (play.clean(V5, "p"), play.clean(V5, "r"));
    play.subscribe(reader, "#", 0);
    let send = |play: &mut Play, topic: &str, alias| {
        let properties = list(&[Property::TopicAlias(alias)]);
        let publish = Publish {
            properties: properties.as_properties(),
            ..message(topic, "x", 0, 0)
        };
        play.publish(publisher, publish);
    };
    send(&mut play, "a", 1);
    send(&mut play, "", 1);
    send(&mut play, "b", 1);
    send(&mut play, "c", 10);
    send(&mut play, "", 1);
    let topics = ["a", "a", "b", "c", "b"].map(|topic| format!("publish {topic} qos0: x"));
    assert_eq!(play.read(reader), topics);
    // It stands for nothing.
    send(&mut play, "", 2);
    assert_eq!(play.read(publisher), ["disconnect 0x82", "closed"]);
    // Above the maximum, and for another connection.
    let publisher = play.clean(V5, "p");
    let properties = list(&[Property::TopicAlias(11)]);
    let publish = Publish {
        properties: properties.as_properties(),
        ..message("a", "x", 0, 0)
    };
    play.publish(publisher, publish);
    assert_eq!(play.read(publisher), ["disconnect 0x94", "closed"]);
}

#[test]
fn topic_aliases_of_the_server_stay_within_what_the_client_takes() {
    let mut play = Play::new();
    let publisher = play.clean(V5, "p");
    let properties = list(&[Property::TopicAliasMaximum(1)]);
    let reader = play.connect(&Connect {
        properties: properties.as_properties(),
        ..connect(V5, "r")
    });
    play.subscribe(reader, "#", 0);
    for topic in ["a", "a", "b", "b", "a"] {
        play.publish(publisher, message(topic, "x", 0, 0));
    }
    let expected = [
        "publish a qos0 TopicAlias(1): x",
        "publish  qos0 TopicAlias(1): x",
        "publish b qos0: x",
        "publish b qos0: x",
        "publish  qos0 TopicAlias(1): x",
    ];
    assert_eq!(play.read(reader), expected);
}
