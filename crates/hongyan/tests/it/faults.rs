//! Every fault at every vendor: the right word in the trace, nobody else held up, recovery without a restart.

use std::time::Instant;

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

/// A killed phone of the kind.
fn killed(demo: &Demo, kind: &Kind, user: &str) -> String {
    let phone = demo.phone(kind, user);
    demo.set(&phone, &json!({ "state": "killed" }));
    demo.until_online(user, false);
    phone
}

fn matrix(kind: &Kind) {
    let demo = Demo::start();
    let other = if kind.channel == "fcm" {
        &KINDS[0]
    } else {
        &KINDS[1]
    };
    let bystander = killed(&demo, other, "bystander");
    let path = format!("/vendors/{}/faults", kind.channel);
    for fault in FAULTS {
        let user = format!("{fault}-{}", kind.channel);
        let phone = killed(&demo, kind, &user);
        let body = json!({ "kind": fault, "rate": 1.0 });
        let (status, answer) = demo.sandbox("POST", &path, &body);
        assert!((200..300).contains(&status), "{answer}");
        let id = demo.send(&hello(&user));
        until("a try", || {
            let tried = demo.trace(&id).iter().any(|e| e["stage"] == "sent_vendor");
            tried.then_some(())
        });
        // The others do not notice.
        let began = Instant::now();
        let aside = demo.send(&hello("bystander"));
        assert_eq!(demo.sees(&bystander, &aside), other.channel);
        let waited = began.elapsed();
        assert!(
            waited.as_secs() < 10,
            "{fault} at {} held up {} for {waited:?}",
            kind.channel,
            other.channel
        );
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
            (told || arrived() || (mends && taken())).then_some(())
        });
        let (status, _) = demo.sandbox("DELETE", &path, &Value::Null);
        assert!((200..300).contains(&status));
        // It recovers by itself: what waits is sent, what comes next too.
        let user = format!("after-{fault}-{}", kind.channel);
        let phone_after = killed(&demo, kind, &user);
        let next = demo.send(&hello(&user));
        assert_eq!(
            demo.sees(&phone_after, &next),
            kind.channel,
            "after {fault}"
        );
        if ["unavailable", "reset", "goaway", "malformed"].contains(&fault) {
            assert_eq!(demo.sees(&phone, &id), kind.channel, "{fault} is outlived");
            assert_eq!(demo.shown(&phone, &id).len(), 1);
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
