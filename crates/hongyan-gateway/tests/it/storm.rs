//! Everything at once: devices that connect, ack, cut, take over and change hands while messages
//! come in. Nobody may get another's message, lose one, or get them out of order.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use hongyan_core::port::Presence;
use serde_json::json;

use crate::client::Client;
use crate::rig::Rig;
use crate::store::{app, device, user};

const DEVICES: usize = 6;
const ROUNDS: usize = 40;
const MESSAGES: usize = 150;

/// Repeats itself for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % n
    }
}

/// Reads at most `most` messages of `owner`; acks some of them.
fn read(
    client: &mut Client,
    owner: &str,
    most: usize,
    dice: &mut Dice,
    seen: &mut BTreeSet<usize>,
) {
    let mut last = None;
    for _ in 0..most {
        let value = client.hear();
        match value["t"].as_str().unwrap() {
            "msg" => {
                let body = value["notification"]["body"].as_str().unwrap();
                let (name, number) = body.split_once(':').unwrap();
                assert_eq!(name, owner, "a message of another user");
                let number: usize = number.parse().unwrap();
                assert!(
                    last.is_none_or(|last| last < number),
                    "{last:?} before {number}"
                );
                last = Some(number);
                seen.insert(number);
                match dice.below(4) {
                    0 => client.say(json!({"t": "ack", "upto": value["cursor"]})),
                    1 => client.say(json!({"t": "ack", "ids": [value["id"]]})),
                    _ => {}
                }
            }
            "idle" => {
                client.say(json!({"t": "ping", "n": 1}));
            }
            "pong" => return,
            other => panic!("{other}: {value}"),
        }
    }
}

#[test]
fn storm() {
    let rig = Rig::new();
    for n in 0..DEVICES {
        rig.store
            .add_device(&format!("s{n}"), Some(&format!("w{n}")));
    }
    let publishing = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let (rig, publishing) = (&rig, &publishing);
        let publisher = scope.spawn(move || {
            for number in 0..MESSAGES {
                for n in 0..DEVICES {
                    rig.publish(&format!("w{n}"), &format!("w{n}:{number}"));
                }
                std::thread::yield_now();
            }
            publishing.store(false, Ordering::SeqCst);
        });
        let devices: Vec<_> = (0..DEVICES)
            .map(|n| {
                scope.spawn(move || {
                    let (name, owner) = (format!("s{n}"), format!("w{n}"));
                    let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ (n as u64 + 1) << 32);
                    let mut seen = BTreeSet::new();
                    let mut kept: Option<Client> = None;
                    for _ in 0..ROUNDS {
                        // A kept connection is taken over by this one.
                        let mut client = rig.connect();
                        client.hello(&name, json!({"inflight": 1 + dice.below(8)}));
                        // The window may be smaller than what is asked for here.
                        client.say(json!({"t": "ping", "n": 0}));
                        read(
                            &mut client,
                            &owner,
                            1 + dice.below(20),
                            &mut dice,
                            &mut seen,
                        );
                        match dice.below(3) {
                            0 => drop(client),
                            1 => {
                                client.say(json!({"t": "bye"}));
                                client.close_code();
                            }
                            _ => kept = Some(client),
                        }
                    }
                    drop(kept);
                    seen
                })
            })
            .collect();
        publisher.join().unwrap();
        for (n, thread) in devices.into_iter().enumerate() {
            let mut seen = thread.join().unwrap();
            // In the end it reads and acks all that is left.
            let mut client = rig.connect();
            client.hello(&format!("s{n}"), json!({"inflight": 8}));
            loop {
                let value = client.hear();
                if value["t"] == "idle" {
                    break;
                }
                let body = value["notification"]["body"].as_str().unwrap();
                seen.insert(body.split_once(':').unwrap().1.parse().unwrap());
                client.say(json!({"t": "ack", "upto": value["cursor"]}));
            }
            assert_eq!(
                seen,
                (0..MESSAGES).collect(),
                "device {n} has every message"
            );
            let owner = format!("w{n}");
            rig.until("acked", || {
                rig.store.unread(&format!("s{n}"), Some(&owner)) == 0
            });
        }
        assert!(!publishing.load(Ordering::SeqCst));
    });
}

/// Says that it is over when it is dropped.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_device_changes_hands_in_the_storm() {
    let rig = Rig::new();
    rig.store.add_device("h", Some("a"));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (rig, done) = (&rig, &done);
        let publisher = scope.spawn(move || {
            let mut number = 0;
            while !done.load(Ordering::SeqCst) {
                for name in ["a", "b"] {
                    rig.publish(name, &format!("{name}:{number}"));
                }
                number += 1;
                std::thread::sleep(std::time::Duration::from_micros(200));
            }
        });
        // Ends the publisher when this thread fails, too.
        let ends = Ends(done);
        let mut client = rig.connect();
        client.hello("h", json!({"inflight": 256}));
        for round in 0..100 {
            let next = if round % 2 == 0 { "b" } else { "a" };
            rig.store.bind("h", Some(next));
            rig.runtime
                .block_on(rig.hub.rebind(&app(), &device("h"), Some(user(next))));
            // What left before is ahead of this pong; behind it only the new user's may come.
            client.say(json!({"t": "ping", "n": round}));
            let mut last = None;
            loop {
                let value = client.hear();
                if value["t"] == "pong" && value["n"] == round {
                    break;
                }
                if value["t"] == "msg" {
                    last = Some(value["cursor"].clone());
                }
            }
            // Else what came before the pong could fill the window for good.
            if let Some(place) = last {
                client.say(json!({"t": "ack", "upto": place}));
            }
            let mut heard = 0;
            while heard < 3 {
                let value = client.hear();
                if value["t"] == "msg" {
                    let body = value["notification"]["body"].as_str().unwrap();
                    assert!(body.starts_with(next), "{body} in round {round} for {next}");
                    client.say(json!({"t": "ack", "upto": value["cursor"]}));
                    heard += 1;
                }
            }
            // The allowance of messages grows with the clock.
            rig.advance(std::time::Duration::from_millis(200));
        }
        drop(ends);
        publisher.join().unwrap();
    });
}
