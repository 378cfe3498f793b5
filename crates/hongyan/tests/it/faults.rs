//! Every fault at every vendor: the right word in the trace, nobody else held up, recovery without a restart.

use std::sync::Mutex;

use serde_json::{Value, json};

use crate::harness::{Demo, KINDS, Kind, for_each, hello, until};

const FAULTS: [&str; 9] = [
    "unavailable",
    "slow",
    "rate_limited",
    "token_invalid",
    "auth_expired",
    "goaway",
    "reset",
    "malformed",
    // Last, as some channels believe it for the rest of the vendor's day.
    "quota_exhausted",
];

/// Calls under way at once in each lane, as the credentials say: few, so that a vendor in trouble has its lane full.
const CONCURRENCY: usize = 2;
/// Messages to the channel in trouble: all slots of its lane, and more that wait for one.
const HELD: usize = 3 * CONCURRENCY;
/// How long a slow vendor holds its answer, milliseconds: shorter than a call's deadline, so that it is an answer.
const HOLD_MS: u64 = 8_000;

/// So many servers share the channels.
const QUARTERS: usize = 4;

/// A killed phone of the kind.
fn killed(demo: &Demo, kind: &Kind, user: &str) -> String {
    let phone = demo.phone(kind, user);
    demo.set(&phone, &json!({ "state": "killed" }));
    demo.until_online(user, false);
    phone
}

/// Somebody who is reached by a vendor that works.
struct Bystander {
    kind: Kind,
    user: String,
    phone: String,
}

/// The others do not notice: what is sent to them behind a full lane arrives before that lane moves, at the first try.
fn nobody_else_is_held_up(demo: &Demo, bystanders: &[Bystander], fault: &str, held: &[String]) {
    let sent: Vec<_> = (0..2)
        .flat_map(|_| bystanders)
        .map(|b| (b, demo.send(&hello(&b.user))))
        .collect();
    let mut last = String::new();
    for (bystander, id) in &sent {
        let channel = bystander.kind.channel;
        assert_eq!(demo.sees(&bystander.phone, id), channel, "beside {fault}");
        let accepted = until("the vendor's answer", || {
            let trace = demo.trace(id);
            let accepted = trace.iter().find(|e| e["stage"] == "accepted_by_vendor")?;
            Some(accepted["at"].as_str()?.to_owned())
        });
        last = last.max(accepted);
        assert_eq!(
            demo.vendor_requests(channel, id).len(),
            1,
            "{channel} beside {fault}"
        );
        // Whatever is called vendor_… or breaker_… would be another channel's trouble.
        let trouble = demo.trace(id).into_iter().find(|e| {
            let reason = e["reason"].as_str().unwrap_or_default();
            reason.starts_with("vendor_") || reason.starts_with("breaker_")
        });
        assert_eq!(trouble, None, "{channel} beside {fault}");
    }
    for id in held {
        let trace = demo.trace(id);
        match fault {
            // Times of one clock, the server's; RFC 3339 in UTC sorts as text.
            "slow" => {
                let moved = trace.iter().find(|e| e["stage"] == "accepted_by_vendor");
                let moved = moved.and_then(|e| e["at"].as_str()).unwrap_or("never");
                assert!(
                    last.as_str() < moved,
                    "{last} beside what was held until {moved}"
                );
            }
            "unavailable" | "rate_limited" => {
                let ended = trace.iter().find(|e| e["final"] == true);
                assert_eq!(ended, None, "{fault} lasts");
            }
            _ => {}
        }
    }
}

/// A channel in trouble: whom it would reach, and what waits for it.
struct Struck {
    kind: Kind,
    user: String,
    phone: String,
    held: Vec<String>,
    /// The one of them that was tried first.
    tried: String,
}

fn faults_of(kind: &Kind) -> String {
    format!("/vendors/{}/faults", kind.channel)
}

fn strike(demo: &Demo, kind: &Kind, fault: &str) -> Struck {
    let user = format!("{fault}-{}", kind.channel);
    let phone = killed(demo, kind, &user);
    let mut body = json!({ "kind": fault, "rate": 1.0 });
    if fault == "slow" {
        body["delay_ms"] = json!(HOLD_MS);
    }
    let (status, answer) = demo.sandbox("POST", &faults_of(kind), &body);
    assert!((200..300).contains(&status), "{answer}");
    let held: Vec<_> = (0..HELD).map(|_| demo.send(&hello(&user))).collect();
    let tried = until("a try", || {
        let tried = |id: &&String| demo.is_with_a_lane(id);
        held.iter().find(tried).cloned()
    });
    Struck {
        kind: *kind,
        user,
        phone,
        held,
        tried,
    }
}

fn recover(demo: &Demo, kind: &Kind) {
    let (status, _) = demo.sandbox("DELETE", &faults_of(kind), &Value::Null);
    assert!((200..300).contains(&status));
}

/// The words of the trace that tell this fault at this vendor; `accepted_by_vendor` where the channel mends it by itself, or
/// the vendor takes it all the same.
fn told(kind: &Kind, fault: &str) -> &'static [&'static str] {
    match (fault, kind.channel) {
        // Held for longer than the deadline, a call is broken off. A closed connection is mended by the channel.
        ("slow" | "goaway", _) => &["vendor_unavailable", "accepted_by_vendor"],
        // They accept by their status alone: there is nothing to garble.
        ("malformed", "apns" | "webpush") => &["accepted_by_vendor"],
        ("unavailable" | "reset" | "malformed", _) => &["vendor_unavailable"],
        ("rate_limited", _) => &["vendor_rate_limited"],
        // No daily quota: the same answer asks to slow down.
        ("quota_exhausted", "apns" | "fcm" | "webpush" | "aliyun") => &["vendor_rate_limited"],
        // Taken; the receipt tells.
        ("quota_exhausted", "huawei" | "harmony" | "honor") => {
            &["accepted_by_vendor", "quota_exhausted"]
        }
        // Each provider of texts has its own word.
        ("quota_exhausted", "sms") => &["quota_exhausted", "vendor_rate_limited"],
        ("quota_exhausted", "tpns") => &["credential_invalid"],
        ("quota_exhausted", _) => &["quota_exhausted"],
        ("token_invalid", "aliyun") => &["payload_rejected"],
        ("token_invalid", _) => &["token_invalid"],
        // Keys that do not expire: who says so means another fault of theirs.
        ("auth_expired", "xiaomi" | "jpush" | "tpns" | "meizu") => &["credential_invalid"],
        // A fresh token that is refused as expired is a matter of clocks: it is tried again.
        ("auth_expired", _) => &["vendor_unavailable", "credential_invalid"],
        _ => &[],
    }
}

/// Whether the vendor's word that the day's quota is used up closes the class.
fn closes(channel: &str) -> bool {
    [
        "xiaomi", "oppo", "vivo", "meizu", "jpush", "getui", "umeng", "sms",
    ]
    .contains(&channel)
}

fn is_told_and_recovers(demo: &Demo, struck: &Struck, fault: &str) {
    let Struck { kind, tried, .. } = struck;
    let channel = kind.channel;
    let words = told(kind, fault);
    until(&format!("{words:?} at {channel} under {fault}"), || {
        let trace = demo.trace(tried);
        let told = |e: &Value| {
            let says = |field: &str| words.contains(&e[field].as_str().unwrap_or_default());
            says("reason") || says("stage")
        };
        // A vendor whose answer is lost may have delivered all the same; the phone's own word then comes first.
        let arrived = |e: &Value| e["final"] == true && e["reason"] == "delivered";
        let processed =
            ["slow", "reset", "malformed"].contains(&fault) && trace.iter().any(arrived);
        (processed || trace.iter().any(told)).then_some(())
    });
    recover(demo, kind);
    // It recovers by itself: what waits is sent, what comes next too.
    let user = format!("after-{}", struck.user);
    let phone = killed(demo, kind, &user);
    let next = demo.send(&hello(&user));
    if fault == "quota_exhausted" && closes(channel) {
        // vivo counts whatever else is asked today against the app; others are asked again before long.
        if channel == "vivo" {
            assert_eq!(demo.outcomes(&next, 1), ["quota_exhausted"]);
            return;
        }
        until(&format!("{channel} is asked again"), || {
            let again = demo.send(&hello(&user));
            let ended = demo.outcomes(&again, 1);
            (ended != ["quota_exhausted"]).then_some(())
        });
        return;
    }
    assert_eq!(demo.sees(&phone, &next), channel, "after {fault}");
    if ["unavailable", "slow", "reset", "goaway", "malformed"].contains(&fault) {
        for id in &struck.held {
            if (fault, channel) == ("unavailable", "sms") {
                // A text that a provider in trouble may have sent is not repeated: it waits for its receipt, or ends.
                until("the fate of a text", || {
                    let trace = demo.trace(id);
                    let waits =
                        |e: &Value| e["stage"] == "held" && e["reason"] == "vendor_unavailable";
                    let ended = |e: &Value| e["final"] == true;
                    trace.iter().any(|e| waits(e) || ended(e)).then_some(())
                });
                continue;
            }
            assert_eq!(demo.sees(&struck.phone, id), channel, "{fault} is outlived");
            assert_eq!(demo.shown(&struck.phone, id).len(), 1);
        }
    }
}

/// A quarter of the channels in trouble at once, three quarters beside them.
fn matrix(quarter: usize) {
    let demo = Demo::apart(&[], &json!({ "concurrency": CONCURRENCY }));
    // Two minutes, as a browser's service asks for, are a long time for a test.
    let (status, answer) = demo.sandbox(
        "PUT",
        "/vendors/webpush/rules",
        &json!({ "retry_after_s": 1 }),
    );
    assert!((200..300).contains(&status), "{answer}");
    let part = |at: usize| at % QUARTERS == quarter;
    let (mut troubled, mut others) = (Vec::new(), Vec::new());
    for (at, kind) in KINDS.iter().enumerate() {
        if part(at) { &mut troubled } else { &mut others }.push(*kind);
    }
    let bystanders: Mutex<Vec<Bystander>> = Mutex::default();
    for_each(&others, |kind| {
        let user = format!("bystander-{}", kind.channel);
        let phone = killed(&demo, kind, &user);
        let kind = *kind;
        bystanders
            .lock()
            .unwrap()
            .push(Bystander { kind, user, phone });
    });
    let bystanders = bystanders.into_inner().unwrap();
    for fault in FAULTS {
        println!("{fault}");
        let all: Mutex<Vec<Struck>> = Mutex::default();
        for_each(&troubled, |kind| {
            let struck = strike(&demo, kind, fault);
            all.lock().unwrap().push(struck);
        });
        let all = all.into_inner().unwrap();
        let held: Vec<String> = all.iter().flat_map(|s| s.held.clone()).collect();
        nobody_else_is_held_up(&demo, &bystanders, fault, &held);
        for_each(&troubled, |kind| {
            let struck = all.iter().find(|s| s.kind.channel == kind.channel).unwrap();
            if fault == "slow" {
                // Only the calls under way are held; those that wait for a slot need not be held too.
                recover(&demo, kind);
            }
            is_told_and_recovers(&demo, struck, fault);
        });
    }
}

#[test]
fn every_fault_at_the_first_quarter_of_the_channels() {
    matrix(0);
}

#[test]
fn every_fault_at_the_second_quarter_of_the_channels() {
    matrix(1);
}

#[test]
fn every_fault_at_the_third_quarter_of_the_channels() {
    matrix(2);
}

#[test]
fn every_fault_at_the_last_quarter_of_the_channels() {
    matrix(3);
}
