//! Every fault at every vendor: the right word in the trace, nobody else held up, recovery without a restart.

use serde_json::{Value, json};

use crate::harness::{Demo, KINDS, Kind, hello, until};

const FAULTS: [&str; 9] = [
    "unavailable",
    "slow",
    "rate_limited",
    "quota_exhausted",
    "token_invalid",
    "auth_expired",
    "goaway",
    "reset",
    "malformed",
];

/// Calls under way at once in each lane, as the credentials say: few, so that a vendor in trouble has its lane full.
const CONCURRENCY: usize = 2;
/// Messages to the channel in trouble: all slots of its lane, and more that wait for one.
const HELD: usize = 3 * CONCURRENCY;
/// How long a slow vendor holds its answer, milliseconds: shorter than a call's deadline, so that it is an answer.
const HOLD_MS: u64 = 8_000;

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

fn matrix(kind: &Kind) {
    let demo = Demo::apart(&[], &json!({ "concurrency": CONCURRENCY }));
    let bystanders: Vec<_> = KINDS
        .iter()
        .filter(|other| other.channel != kind.channel)
        .map(|other| {
            let user = format!("bystander-{}", other.channel);
            let phone = killed(&demo, other, &user);
            let kind = *other;
            Bystander { kind, user, phone }
        })
        .collect();
    let path = format!("/vendors/{}/faults", kind.channel);
    for fault in FAULTS {
        let user = format!("{fault}-{}", kind.channel);
        let phone = killed(&demo, kind, &user);
        let mut body = json!({ "kind": fault, "rate": 1.0 });
        if fault == "slow" {
            body["delay_ms"] = json!(HOLD_MS);
        }
        let (status, answer) = demo.sandbox("POST", &path, &body);
        assert!((200..300).contains(&status), "{answer}");
        let held: Vec<_> = (0..HELD).map(|_| demo.send(&hello(&user))).collect();
        let id = until("a try", || {
            let tried = |id: &&String| demo.trace(id).iter().any(|e| e["stage"] == "sent_vendor");
            held.iter().find(tried).cloned()
        });
        nobody_else_is_held_up(&demo, &bystanders, fault, &held);
        let recover = || {
            let (status, _) = demo.sandbox("DELETE", &path, &Value::Null);
            assert!((200..300).contains(&status));
        };
        if fault == "slow" {
            // Only the calls under way are held; those that wait for a slot need not be held too.
            recover();
        }
        let reason = match fault {
            // Held for longer than the deadline, a call is broken off.
            "unavailable" | "goaway" | "reset" | "malformed" | "slow" => "vendor_unavailable",
            "rate_limited" => "vendor_rate_limited",
            // Apple and Google have no daily quota: the same answer asks to slow down.
            "quota_exhausted" if ["apns", "fcm"].contains(&kind.channel) => "vendor_rate_limited",
            "quota_exhausted" => "quota_exhausted",
            "token_invalid" => "token_invalid",
            // A fresh token that is refused as expired is a matter of clocks: it is tried again. Xiaomi's key does not expire.
            "auth_expired" if kind.channel == "xiaomi" => "credential_invalid",
            "auth_expired" => "vendor_unavailable",
            _ => "",
        };
        // A slow vendor, and a channel that mends a closed connection by itself, may just take it; Huawei takes what is
        // over its quota and tells by a receipt.
        let taken = || {
            demo.trace(&id)
                .iter()
                .any(|e| e["stage"] == "accepted_by_vendor")
        };
        // A vendor whose answer is lost may have delivered all the same; the phone's own word then comes first.
        let arrived = || {
            demo.trace(&id)
                .iter()
                .any(|e| e["final"] == true && e["reason"] == "delivered")
        };
        until(&format!("{reason} or acceptance under {fault}"), || {
            let told = demo.trace(&id).iter().any(|e| e["reason"] == reason);
            let mends = ["slow", "goaway", "auth_expired"].contains(&fault)
                || (kind.channel == "xiaomi" && fault == "token_invalid")
                || (kind.brand == "huawei" && fault == "quota_exhausted")
                // Apple accepts by its status alone: there is nothing to garble.
                || (kind.channel == "apns" && fault == "malformed");
            let processed = ["slow", "reset", "malformed"].contains(&fault) && arrived();
            (told || processed || (mends && taken())).then_some(())
        });
        recover();
        // It recovers by itself: what waits is sent, what comes next too.
        let user = format!("after-{fault}-{}", kind.channel);
        let phone_after = killed(&demo, kind, &user);
        let next = demo.send(&hello(&user));
        assert_eq!(
            demo.sees(&phone_after, &next),
            kind.channel,
            "after {fault}"
        );
        if ["unavailable", "slow", "reset", "goaway", "malformed"].contains(&fault) {
            for id in &held {
                assert_eq!(demo.sees(&phone, id), kind.channel, "{fault} is outlived");
                assert_eq!(demo.shown(&phone, id).len(), 1);
            }
        }
    }
}

#[test]
fn every_fault_at_apns() {
    matrix(&KINDS[0]);
}

#[test]
fn every_fault_at_fcm() {
    matrix(&KINDS[1]);
}

#[test]
fn every_fault_at_huawei() {
    matrix(&KINDS[2]);
}

#[test]
fn every_fault_at_harmony() {
    matrix(&KINDS[3]);
}

#[test]
fn every_fault_at_xiaomi() {
    matrix(&KINDS[4]);
}
