//! What comes over MQTT connections.

use std::time::Duration;

use hongyan_mqtt::broker::{Broker, Options};
use hongyan_mqtt::packet::{Limits, Packet, Sender, Version, decode};

use crate::Entry;

/// The packets of one connection: whatever is taken can be written, and means the same when it is read again.
pub(crate) const MQTT_PACKETS: Entry = Entry {
    name: "mqtt_packets",
    run: |bytes| {
        let Some((&kind, mut bytes)) = bytes.split_first() else {
            return;
        };
        let from = if kind & 1 == 0 {
            Sender::Client
        } else {
            Sender::Server
        };
        let mut version = match kind >> 1 & 3 {
            0 => None,
            1 => Some(Version::V311),
            _ => Some(Version::V5),
        };
        while let Ok(Some((packet, used))) = decode(bytes, from, version, &Limits::DEFAULT) {
            assert!((2..=bytes.len()).contains(&used), "a packet has bytes");
            let before = version;
            if let Packet::Connect(connect) = packet {
                version = Some(connect.version);
            }
            if let Some(version) = version {
                let mut again = Vec::new();
                assert!(packet.encode(version, &mut again).is_ok(), "it can be sent");
                assert!(again.len() <= used, "it is written in its shortest form");
                assert_eq!(again.len(), packet.encoded_len(version));
                let read = decode(&again, from, before, &Limits::DEFAULT);
                assert_eq!(read, Ok(Some((packet, again.len()))));
            }
            bytes = &bytes[used..];
        }
    },
    seeds: || {
        let of = |kind: u8, packets: &[&[u8]]| [&[kind], packets.concat().as_slice()].concat();
        vec![
            of(
                0,
                &[
                    b"\x10\x18\0\x04MQTT\x04\xc6\0\x3c\0\x01c\0\x01t\0\x01w\0\x01u\0\0",
                    b"\x82\x09\0\x01\0\x04a/+b\x01",
                    b"\x32\x07\0\x03a/b\0\x02hello",
                    b"\xe0\0",
                ],
            ),
            of(
                0,
                &[
                    b"\x10\x19\0\x04MQTT\x05\x02\0\x3c\x08\x21\0\x14\x11\0\0\0\x0a\0\x04name",
                    b"\x82\x12\0\x01\x02\x0b\x07\0\x0a$share/g/x\x01",
                    b"\x34\x10\0\x01t\0\x07\x09\x01\x01\x02\0\0\0\x05\x23\0\x02",
                    b"\x62\x02\0\x07",
                    b"\xe0\x01\x04",
                ],
            ),
            of(
                5,
                &[
                    b"\x20\x09\0\0\x06\x21\0\x14\x24\x01\x25",
                    b"\x90\x04\0\x01\0\x01",
                    b"\x40\x02\0\x01",
                    b"\xd0\0",
                    b"\xe0\x02\x8e\0",
                ],
            ),
        ]
    },
};

/// Two connections to one broker, in pieces: each piece begins with a byte that says whose it is, how long, and
/// how much time passes before it. When both are gone and all has expired, nothing is left.
pub(crate) const MQTT_BROKER: Entry = Entry {
    name: "mqtt_broker",
    run: |bytes| {
        let mut broker = Broker::new(Options::default());
        let mut now = Duration::ZERO;
        let ids: Vec<_> = (0..2).filter_map(|_| broker.accept(now)).collect();
        let mut rest = bytes;
        while let Some((&head, after)) = rest.split_first() {
            let (piece, after) = after.split_at(usize::from(head >> 2).min(after.len()));
            now += Duration::from_secs(u64::from(head & 2));
            broker.tick(now);
            if let Some(id) = ids.get(usize::from(head & 1)) {
                broker.received(now, *id, piece);
            }
            for id in broker.take_woken() {
                let mut out = Vec::new();
                broker.take_output(now, id, &mut out);
            }
            rest = after;
        }
        for id in ids {
            broker.closed(now, id);
        }
        broker.tick(now + Duration::from_secs(8 * 86_400));
        let stats = broker.stats();
        assert_eq!((stats.connections, stats.sessions), (0, 0));
        assert_eq!((stats.subscriptions, stats.queued_bytes), (0, 0));
    },
    seeds: || {
        let piece = |whose: u8, packet: &[u8]| {
            let head = whose | (packet.len() as u8) << 2;
            [&[head], packet].concat()
        };
        let connect_0 = piece(0, b"\x10\x0d\0\x04MQTT\x04\0\0\x3c\0\x01a");
        let connect_1 = piece(
            1,
            b"\x10\x13\0\x04MQTT\x05\x02\0\x3c\x05\x11\0\0\0\x0a\0\x01b\xc0\0",
        );
        vec![
            [
                connect_0.clone(),
                piece(0, b"\x82\x06\0\x01\0\x01#\x02"),
                connect_1.clone(),
                piece(1, b"\x35\x07\0\x01t\0\x05\0x"),
                piece(1, b"\x62\x02\0\x05"),
                piece(0, b"\x50\x02\0\x01\x70\x02\0\x01"),
            ]
            .concat(),
            [
                connect_1,
                piece(1, b"\x82\x12\0\x01\x02\x0b\x07\0\x0a$share/g/x\x01"),
                connect_0,
                piece(0, b"\x32\x06\0\x01x\0\x05a"),
                piece(1, b"\x40\x02\0\x01\xe0\0"),
            ]
            .concat(),
        ]
    },
};
