//! One message, one person, every way it can go.

use serde_json::{Value, json};

use crate::harness::{Demo, KINDS, hello, until};

#[test]
fn a_foreground_phone_gets_it_on_its_connection_and_no_vendor_is_called() {
    let demo = Demo::start();
    for kind in &KINDS {
        let user = format!("front-{}", kind.channel);
        let phone = demo.phone(kind, &user);
        let id = demo.send(&hello(&user));
        assert_eq!(demo.sees(&phone, &id), "connection", "{}", kind.channel);
        assert_eq!(demo.outcomes(&id, 1), ["delivered"]);
        assert!(demo.vendor_requests(kind.channel, &id).is_empty());
    }
}

#[test]
fn a_killed_phone_gets_exactly_one_vendor_push_and_the_click_comes_back() {
    let demo = Demo::start();
    for kind in &KINDS {
        let user = format!("killed-{}", kind.channel);
        let phone = demo.phone(kind, &user);
        demo.set(&phone, &json!({ "state": "killed" }));
        demo.until_online(&user, false);
        let id = demo.send(&hello(&user));
        assert_eq!(demo.sees(&phone, &id), kind.channel);
        // Where the platform runs the app's code on arrival, its report may overtake the vendor's answer.
        let outcome = demo.outcomes(&id, 1).remove(0);
        let good = ["accepted_by_vendor", "delivered"].contains(&outcome.as_str());
        assert!(good, "{outcome} at {}", kind.channel);
        until("the vendor's answer", || {
            demo.trace(&id)
                .iter()
                .any(|e| e["stage"] == "accepted_by_vendor")
                .then_some(())
        });
        assert_eq!(demo.vendor_requests(kind.channel, &id).len(), 1);
        demo.set(&phone, &json!({ "network": "on" }));
        demo.sees(&phone, &id);
        demo.until_online(&user, true);
        let marker = demo.send(&hello(&user));
        demo.sees(&phone, &marker);
        assert_eq!(demo.shown(&phone, &id).len(), 1, "{}", kind.channel);
    }
}

#[test]
fn one_call_reaches_many_tokens_where_the_vendor_takes_batches() {
    let demo = Demo::start();
    for kind in KINDS
        .iter()
        .filter(|k| ["huawei", "harmony", "xiaomi"].contains(&k.channel))
    {
        let users: Vec<_> = (0..20)
            .map(|n| format!("many-{}-{n}", kind.channel))
            .collect();
        let phones: Vec<_> = users.iter().map(|u| demo.phone(kind, u)).collect();
        for (phone, user) in phones.iter().zip(&users) {
            demo.set(phone, &json!({ "state": "killed" }));
            demo.until_online(user, false);
        }
        let mut body = hello("nobody");
        body["to"] = json!({ "users": users });
        let id = demo.send(&body);
        assert_eq!(
            demo.outcomes(&id, 20),
            vec!["accepted_by_vendor"; 20],
            "{}",
            kind.channel
        );
        for phone in &phones {
            assert_eq!(demo.sees(phone, &id), kind.channel);
        }
        let calls = demo.vendor_requests(kind.channel, &id).len();
        assert!(
            calls < 10,
            "{calls} calls for 20 tokens at {}",
            kind.channel
        );
    }
}

#[test]
fn a_device_that_changes_hands_never_shows_the_former_users_messages() {
    let demo = Demo::start();
    for kind in &KINDS {
        let (a, b) = (format!("a-{}", kind.channel), format!("b-{}", kind.channel));
        let phone = demo.phone(kind, &a);
        // A's pushes wait at a slow vendor while the phone goes to B.
        demo.set(&phone, &json!({ "state": "killed" }));
        demo.until_online(&a, false);
        let slow = json!({ "kind": "unavailable", "rate": 1.0 });
        let path = format!("/vendors/{}/faults", kind.channel);
        let (status, answer) = demo.sandbox("POST", &path, &slow);
        assert!((200..300).contains(&status), "{answer}");
        let ids: Vec<_> = (0..10).map(|_| demo.send(&hello(&a))).collect();
        for id in &ids {
            until("a try", || {
                (!demo.vendor_requests(kind.channel, id).is_empty()).then_some(())
            });
        }
        demo.set(&phone, &json!({ "user": b }));
        demo.sandbox("DELETE", &path, &Value::Null);
        let to_b = demo.send(&hello(&b));
        demo.sees(&phone, &to_b);
        for id in &ids {
            assert_eq!(
                demo.outcomes(id, 1),
                ["user_logged_out"],
                "{}",
                kind.channel
            );
        }
        demo.set(&phone, &json!({ "state": "foreground" }));
        demo.until_online(&b, true);
        let last = demo.send(&hello(&b));
        demo.sees(&phone, &last);
        for id in &ids {
            assert!(
                demo.shown(&phone, id).is_empty(),
                "B sees A's message at {}",
                kind.channel
            );
        }
    }
}

#[test]
fn a_recalled_message_leaves_the_inbox() {
    let demo = Demo::start();
    let user = "forgetful";
    let phone = demo.phone(&KINDS[0], user);
    demo.set(&phone, &json!({ "state": "killed" }));
    demo.until_online(user, false);
    let mut body = hello(user);
    body["options"] = json!({ "delivery": "online_only" });
    let id = demo.send(&body);
    demo.until_reason(&id, "waiting_for_session");
    let (status, answer) = demo.api("POST", &format!("/v1/messages/{id}/recall"), &json!({}));
    assert!((200..300).contains(&status), "{answer}");
    assert_eq!(demo.outcomes(&id, 1), ["recalled"]);
    demo.set(&phone, &json!({ "state": "foreground" }));
    demo.until_online(user, true);
    let marker = demo.send(&hello(user));
    demo.sees(&phone, &marker);
    assert!(demo.shown(&phone, &id).is_empty());
}
