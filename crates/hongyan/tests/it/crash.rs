//! SIGKILL at random moments: what was answered `202` reaches its one final outcome, and its person once.
//!
//! Vendors and phones are another process, which lives on: what a killed server asked of a vendor stays counted.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hongyan_core::Timestamp;
use serde_json::{Value, json};

use crate::harness::{self, Demo, Kind, hello, now_ms, reach, try_http, until};

/// Calls to five vendors are enough to be killed in the middle of.
const KINDS: [Kind; 5] = {
    let [a, b, c, d, e, ..] = harness::KINDS;
    [a, b, c, d, e]
};

/// Callers that send while the server lives.
const DRIVERS: usize = 2;
/// Messages of one caller in one life of the server, so that a fast machine does not turn a round into a load test.
const SENT_MAX: usize = 40;
/// Messages after which trays and requests are read: well below the 500 entries of a tray and the 10,000 requests of a
/// vendor, which are all that the sandbox keeps.
const READ_EVERY: usize = 300;
/// Calls under way at once in each lane, as the credentials say.
const CONCURRENCY: u64 = 1;

/// How many kills; a longer soak by `HONGYAN_CRASH_ROUNDS`.
fn rounds(usual: usize) -> usize {
    std::env::var("HONGYAN_CRASH_ROUNDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(usual)
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_shown_twice() {
    survives("fjall", rounds(50));
}

#[test]
fn the_same_on_sqlite() {
    survives("sqlite", rounds(50) / 5);
}

/// A provider of texts sends a repeat as another text: what was under way at a kill may have been sent, and is not sent again.
#[test]
fn a_text_that_a_killed_server_was_sending_is_not_sent_again() {
    let mut demo = Demo::apart(&[], &json!({}));
    let kind = harness::KINDS.iter().find(|k| k.channel == "sms").unwrap();
    let phone = demo.phone(kind, "texted");
    demo.set(&phone, &json!({ "state": "killed" }));
    demo.until_online("texted", false);
    let slow = json!({ "kind": "slow", "rate": 1.0, "count": 1, "delay_ms": 8_000 });
    let (status, answer) = demo.sandbox("POST", "/vendors/sms/faults", &slow);
    assert!((200..300).contains(&status), "{answer}");
    // One for each provider of texts; the call takes one away.
    let faults = |demo: &Demo| {
        let (_, left) = demo.sandbox("GET", "/vendors/sms/faults", &Value::Null);
        left.as_array().unwrap().len()
    };
    let injected = faults(&demo);
    let id = demo.send(&hello("texted"));
    let sent = |demo: &Demo| {
        let trace = demo.trace(&id);
        trace.iter().filter(|e| e["stage"] == "sent_vendor").count()
    };
    until("the call", || (faults(&demo) < injected).then_some(()));
    demo.kill();
    demo.launch();
    demo.until_reason(&id, "vendor_unavailable");
    let trace = demo.trace(&id);
    let told = |e: &Value| {
        let detail = e["detail"].as_str().unwrap_or_default();
        e["reason"] == "vendor_unavailable" && detail.contains("the server was stopped")
    };
    assert!(trace.iter().any(told), "{trace:?}");
    // The next goes out, so whatever was to be sent again would have been.
    let next = demo.send(&hello("texted"));
    assert_eq!(demo.sees(&phone, &next), "sms");
    assert_eq!(sent(&demo), 1, "{:?}", demo.trace(&id));
    assert!(demo.vendor_requests("sms", &id).len() <= 1);
    assert_eq!(demo.vendor_requests("sms", &next).len(), 1);
}

/// A message that was answered `202`.
#[derive(Debug)]
struct Accepted {
    id: String,
    /// Whom it is for.
    who: usize,
    /// How many kills there had been.
    life: usize,
}

/// What the sandbox saw, read in pieces.
#[derive(Debug, Default)]
struct Seen {
    /// The number of the newest request, for each vendor.
    newest: [u64; KINDS.len()],
    /// When a vendor was asked to show a message, milliseconds, for each message and vendor.
    calls: HashMap<(String, usize), Vec<i64>>,
    /// Trays of the phones, by entry.
    trays: [BTreeMap<u64, Value>; KINDS.len()],
}

impl Seen {
    fn read(&mut self, demo: &Demo, phones: &[String]) {
        for (vendor, kind) in KINDS.iter().enumerate() {
            for request in demo.requests_after(kind.channel, self.newest[vendor]) {
                let n = request["n"].as_u64().unwrap();
                assert_eq!(n, self.newest[vendor] + 1, "a request was not counted");
                self.newest[vendor] = n;
                let at = Timestamp::parse_rfc3339(request["at"].as_str().unwrap()).unwrap();
                for id in ids_in(&request["body"].to_string()) {
                    let calls = self.calls.entry((id, vendor)).or_default();
                    calls.push(at.millis());
                }
            }
        }
        for (tray, phone) in self.trays.iter_mut().zip(phones) {
            let entries = demo.tray(phone);
            let n_of = |entry: &Value| entry["n"].as_u64().unwrap();
            let known = tray.last_key_value().map_or(0, |(n, _)| *n);
            let first = entries.first().map_or(0, n_of);
            assert!(
                first <= known + 1,
                "tray entries left before they were read"
            );
            tray.extend(entries.into_iter().map(|entry| (n_of(&entry), entry)));
        }
    }

    /// A message that its person has not seen.
    fn lacks<'a>(&self, accepted: &'a [Accepted]) -> Option<&'a Accepted> {
        let of = |e: &Value| e["message"].as_str().map(str::to_owned);
        let shown = self.trays.iter().map(|tray| tray.values().filter_map(of));
        let shown: Vec<HashSet<_>> = shown.map(Iterator::collect).collect();
        accepted.iter().find(|m| !shown[m.who].contains(&m.id))
    }
}

/// The message ids in a text: every id is a UUID, and a body names its own once or more.
fn ids_in(text: &str) -> HashSet<String> {
    let is_id = |word: &&str| word.len() == 36 && word.bytes().filter(|b| *b == b'-').count() == 4;
    text.split(|c: char| !c.is_ascii_hexdigit() && c != '-')
        .filter(is_id)
        .map(str::to_owned)
        .collect()
}

/// Sends for as long as the server lives; answers what was answered `202`.
fn drive(demo: &Demo, users: &[String], first: usize, stop: &AtomicBool) -> Vec<(String, usize)> {
    let (api, bearer) = (
        demo.fact("api"),
        format!("Bearer {}", demo.fact("server_key")),
    );
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
    ];
    let mut accepted = Vec::new();
    for n in 0..SENT_MAX {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let who = (first + n) % users.len();
        let body = hello(&users[who]).to_string();
        let answer = try_http("POST", &api, "/v1/messages", &headers, body.as_bytes());
        if let Ok((202, answer)) = answer {
            let answer: Value = serde_json::from_slice(&answer).unwrap();
            accepted.push((answer["id"].as_str().unwrap().to_owned(), who));
        }
    }
    accepted
}

fn survives(engine: &str, rounds: usize) {
    let limits = json!({ "concurrency": CONCURRENCY });
    let mut demo = Demo::apart(&[("HONGYAN_STORE_ENGINE", engine)], &limits);
    let users: Vec<_> = KINDS
        .iter()
        .map(|k| format!("crash-{}", k.channel))
        .collect();
    let phones: Vec<_> = KINDS
        .iter()
        .zip(&users)
        .map(|(k, u)| demo.phone(k, u))
        .collect();
    // Two stay connected, the others are reached by their vendors.
    for (phone, user) in phones.iter().zip(&users).skip(2) {
        demo.set(phone, &json!({ "state": "killed" }));
        demo.until_online(user, false);
    }
    let mut accepted: Vec<Accepted> = Vec::new();
    let mut kills = Vec::new();
    let (mut seen, mut read) = (Seen::default(), 0);
    let mut seed = 0x5eed_u64;
    for life in 0..rounds {
        // The moment of the kill: somewhere within a third of a second of traffic.
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let moment = Duration::from_millis(20 + (seed >> 33) % 300);
        let stop = AtomicBool::new(false);
        let mut victim = demo.take_server();
        let sent: Mutex<Vec<(String, usize)>> = Mutex::default();
        std::thread::scope(|threads| {
            for driver in 0..DRIVERS {
                let (demo, users, stop, sent) = (&demo, &users, &stop, &sent);
                threads.spawn(move || {
                    // Everybody gets messages first at some time, not always the same.
                    let got = drive(demo, users, driver + life, stop);
                    sent.lock().unwrap().extend(got);
                });
            }
            let begin = Instant::now();
            while begin.elapsed() < moment {
                std::thread::yield_now();
            }
            victim.kill().unwrap();
            victim.wait().unwrap();
            stop.store(true, Ordering::Relaxed);
        });
        kills.push(now_ms());
        let sent = sent.into_inner().unwrap();
        accepted.extend(sent.into_iter().map(|(id, who)| Accepted { id, who, life }));
        if accepted.len() - read > READ_EVERY {
            seen.read(&demo, &phones);
            read = accepted.len();
        }
        demo.launch();
    }
    assert!(
        accepted.len() > rounds,
        "the drivers sent {}",
        accepted.len()
    );

    // Nothing is lost: everything that was answered 202 reaches one outcome, a good one.
    let mut survived = HashMap::new();
    for message in &accepted {
        let user = &users[message.who];
        let (reason, at) = outcome(&demo, &message.id);
        let good = ["delivered", "accepted_by_vendor"].contains(&reason.as_str());
        assert!(good, "{} for {user} ended as {reason}", message.id);
        let before = kills.iter().filter(|kill| **kill <= at).count();
        survived.insert(
            &message.id,
            (before.max(message.life) - message.life, reason, at),
        );
    }

    // Every person sees each message once, also those whose 202 the kill cut off.
    let all_shown = reach(|| {
        seen.read(&demo, &phones);
        seen.lacks(&accepted).is_none().then_some(())
    });
    if all_shown.is_none() {
        let lacks: &Accepted = seen.lacks(&accepted).unwrap();
        let (user, trace) = (&users[lacks.who], demo.trace(&lacks.id));
        panic!("{user} does not see {lacks:?}: {trace:#?}");
    }
    for (tray, user) in seen.trays.iter().zip(&users) {
        let mut once = HashSet::new();
        for entry in tray.values() {
            assert!(once.insert(&entry["message"]), "{user} sees twice: {entry}");
        }
    }

    // What a vendor is asked twice, it is asked because of a kill. A delivery is asked again only in a later life of the
    // server than the one whose answer was lost, and never once its outcome is on the disk.
    let (mut asked, mut again) = (0, 0);
    for ((id, vendor), calls) in &seen.calls {
        asked += 1;
        again += calls.len() as u64 - 1;
        let Some((kills_survived, reason, at)) = survived.get(id) else {
            continue;
        };
        let channel = KINDS[*vendor].channel;
        assert!(
            calls.len() <= 1 + kills_survived,
            "{channel} was asked {} times for {id}, which lived through {kills_survived} kills",
            calls.len(),
        );
        if reason == "accepted_by_vendor" {
            let late = calls.iter().filter(|call| *call > at).count();
            assert_eq!(late, 0, "{channel} was asked for {id} after its outcome");
        }
    }
    // How many that may be: at a kill each lane, one for each vendor, has at most its concurrency of calls under way, with
    // one recipient each (a user has one phone), and about as many answers that wait for the write which is under way.
    let bound = rounds as u64 * KINDS.len() as u64 * CONCURRENCY * 2;
    println!(
        "{engine}: {} accepted over {rounds} kills, {asked} pushes asked of vendors, {again} of them again (at most {bound})",
        accepted.len(),
    );
    assert!(
        asked > 0 && again <= bound,
        "{again} of {asked} pushes came twice"
    );
}

/// The one outcome of a message to one phone, and when it was, milliseconds.
fn outcome(demo: &Demo, id: &str) -> (String, i64) {
    demo.outcomes(id, 1);
    let finals: Vec<_> = demo
        .trace(id)
        .into_iter()
        .filter(|e| e["final"] == true)
        .collect();
    assert_eq!(finals.len(), 1, "{id} ended {finals:?}");
    let at = Timestamp::parse_rfc3339(finals[0]["at"].as_str().unwrap()).unwrap();
    (
        finals[0]["reason"].as_str().unwrap().to_owned(),
        at.millis(),
    )
}
