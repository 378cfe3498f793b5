//! One message, one person, every way it can go.

use serde_json::{Value, json};

use crate::harness::{Demo, KINDS, Kind, for_each, hello, until};

#[test]
fn a_foreground_phone_gets_it_on_its_connection_and_no_vendor_is_called() {
    let demo = Demo::start();
    for_each(&KINDS, |kind| {
        let user = format!("front-{}", kind.channel);
        let phone = demo.phone(kind, &user);
        let id = demo.send(&hello(&user));
        assert_eq!(demo.sees(&phone, &id), "connection", "{}", kind.channel);
        assert_eq!(demo.outcomes(&id, 1), ["delivered"]);
        assert!(demo.vendor_requests(kind.channel, &id).is_empty());
    });
}

#[test]
fn a_killed_phone_gets_exactly_one_vendor_push_and_the_click_comes_back() {
    let demo = Demo::start();
    for_each(&KINDS, |kind| {
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
        assert_eq!(
            demo.vendor_requests(kind.channel, &id).len(),
            1,
            "{}",
            kind.channel
        );
        let entry = demo.shown(&phone, &id).remove(0);
        let text = match kind.channel {
            // A text message is one text.
            "sms" => ("", "hello: from afar"),
            _ => ("hello", "from afar"),
        };
        assert_eq!(
            (&entry["title"], &entry["body"]),
            (&json!(text.0), &json!(text.1))
        );
        let (status, answer) = demo.sandbox(
            "POST",
            &format!("/phones/{phone}/tray/{}/click", entry["n"]),
            &Value::Null,
        );
        assert!((200..300).contains(&status), "{answer}");
        until("the click in the trace", || {
            demo.trace(&id)
                .iter()
                .any(|e| e["stage"] == "clicked")
                .then_some(())
        });
        // The person comes back: the inbox hands the message over once more, the tray shows it once.
        demo.set(&phone, &json!({ "state": "foreground" }));
        demo.until_online(&user, true);
        let marker = demo.send(&hello(&user));
        demo.sees(&phone, &marker);
        assert_eq!(demo.shown(&phone, &id).len(), 1, "{}", kind.channel);
    });
}

#[test]
fn the_right_reason_is_in_the_trace() {
    let demo = Demo::start();
    for_each(&KINDS, |kind| {
        let name = |what: &str| format!("{what}-{}", kind.channel);
        // Permission off.
        let user = name("muted");
        let phone = demo.phone(kind, &user);
        demo.set(&phone, &json!({ "permission": "denied" }));
        demo.set(&phone, &json!({ "state": "killed" }));
        demo.until_online(&user, false);
        until("the permission at the server", || {
            let (_, devices) = demo.api("GET", &format!("/v1/users/{user}/devices"), &Value::Null);
            devices.to_string().contains("denied").then_some(())
        });
        let id = demo.send(&hello(&user));
        demo.until_reason(&id, "permission_off");
        assert!(demo.shown(&phone, &id).is_empty());
        assert!(demo.vendor_requests(kind.channel, &id).is_empty());

        // Nobody is logged in.
        let user = name("leaver");
        let phone = demo.phone(kind, &user);
        demo.set(&phone, &json!({ "user": null }));
        demo.until_online(&user, false);
        let id = demo.send(&hello(&user));
        demo.until_reason(&id, "no_device");
        assert!(demo.shown(&phone, &id).is_empty());
        assert!(demo.vendor_requests(kind.channel, &id).is_empty());

        // An uninstalled app: the vendor says that the token is dead, and the registry keeps it in mind.
        let user = name("gone");
        let phone = demo.phone(kind, &user);
        demo.set(&phone, &json!({ "state": "killed" }));
        demo.until_online(&user, false);
        demo.set(&phone, &json!({ "installed": false }));
        let id = demo.send(&hello(&user));
        if ["xiaomi", "umeng", "aliyun"].contains(&kind.channel) {
            // They take it, and tell dead tokens by callback, feed or probe only.
            let outcome = demo.outcomes(&id, 1).remove(0);
            let good = ["accepted_by_vendor", "token_invalid"].contains(&outcome.as_str());
            assert!(good, "{outcome}");
        } else {
            demo.until_reason(&id, "token_invalid");
            let again = demo.send(&hello(&user));
            demo.until_reason(&again, "token_invalid");
            assert!(
                demo.vendor_requests(kind.channel, &again).is_empty(),
                "{}",
                kind.channel
            );
        }

        // Quiet hours around the clock, as far as HH:MM can say it.
        let user = name("sleeper");
        let phone = demo.phone(kind, &user);
        let quiet =
            json!({ "preferences": { "quiet_hours": { "start": "00:00", "end": "23:59" } } });
        let (status, answer) = demo.api("PATCH", &format!("/v1/users/{user}"), &quiet);
        assert!((200..300).contains(&status), "{answer}");
        demo.set(&phone, &json!({ "state": "killed" }));
        demo.until_online(&user, false);
        let mut marketing = hello(&user);
        marketing["class"] = json!("marketing");
        let id = demo.send(&marketing);
        demo.until_reason(&id, "quiet_hours");
        assert!(demo.shown(&phone, &id).is_empty());
        assert!(demo.vendor_requests(kind.channel, &id).is_empty());

        // Its time is over before anybody comes.
        let user = name("late");
        let phone = demo.phone(kind, &user);
        demo.set(&phone, &json!({ "state": "killed" }));
        demo.until_online(&user, false);
        let mut short = hello(&user);
        short["options"] = json!({ "ttl": 1, "delivery": "online_only" });
        let id = demo.send(&short);
        assert_eq!(demo.outcomes(&id, 1), ["expired"]);
        assert!(demo.shown(&phone, &id).is_empty());
    });
}

#[test]
fn a_phone_that_does_not_answer_gets_the_vendor_push_and_shows_it_once() {
    let demo = Demo::start();
    for_each(&KINDS, |kind| {
        let user = format!("silent-{}", kind.channel);
        let phone = demo.phone(kind, &user);
        // A tunnel: the connection stays open at the server, nothing comes through in either direction.
        demo.set(&phone, &json!({ "network": "off" }));
        let mut body = hello(&user);
        body["options"] = json!({ "ack_timeout_ms": 300 });
        let id = demo.send(&body);
        let outcome = demo.outcomes(&id, 1).remove(0);
        let good = ["accepted_by_vendor", "delivered"].contains(&outcome.as_str());
        assert!(good, "{outcome} at {}", kind.channel);
        assert_eq!(demo.vendor_requests(kind.channel, &id).len(), 1);
        demo.set(&phone, &json!({ "network": "on" }));
        demo.sees(&phone, &id);
        demo.until_online(&user, true);
        let marker = demo.send(&hello(&user));
        demo.sees(&phone, &marker);
        assert_eq!(demo.shown(&phone, &id).len(), 1, "{}", kind.channel);
    });
}

#[test]
fn one_call_reaches_many_tokens_where_the_vendor_takes_batches() {
    let demo = Demo::start();
    let takes_batches = |kind: &&Kind| !["apns", "fcm", "webpush", "sms"].contains(&kind.channel);
    let kinds: Vec<_> = KINDS.iter().filter(takes_batches).copied().collect();
    for_each(&kinds, |kind| {
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
        // A receipt may be quicker than the vendor's answer to our call.
        for outcome in demo.outcomes(&id, 20) {
            let good = ["accepted_by_vendor", "delivered"].contains(&outcome.as_str());
            assert!(good, "{outcome} at {}", kind.channel);
        }
        for phone in &phones {
            assert_eq!(demo.sees(phone, &id), kind.channel);
        }
        let calls = demo.vendor_requests(kind.channel, &id).len();
        // All at once, or in two where the router met them while they were being written; some vendors want the text
        // in a call of its own.
        assert!(
            (1..=4).contains(&calls),
            "{calls} calls for 20 tokens at {}",
            kind.channel
        );
    });
}

#[test]
fn a_device_that_changes_hands_never_shows_the_former_users_messages() {
    let demo = Demo::start();
    for_each(&KINDS, |kind| {
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
            until("a try", || demo.is_with_a_lane(id).then_some(()));
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
    });
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

/// The notification of a message that was taken back vanishes, also from a phone that was away then, and had it from the
/// connection or from the vendor.
#[test]
fn a_recall_reaches_a_phone_that_was_away() {
    let demo = Demo::start();
    for_each(&KINDS[..2], |kind| {
        let user = format!("shown-{}", kind.channel);
        let phone = demo.phone(kind, &user);
        demo.until_online(&user, true);
        let over_the_connection = demo.send(&hello(&user));
        demo.sees(&phone, &over_the_connection);
        demo.set(&phone, &json!({ "state": "killed" }));
        demo.until_online(&user, false);
        let over_the_vendor = demo.send(&hello(&user));
        demo.sees(&phone, &over_the_vendor);
        let both = [over_the_connection, over_the_vendor];
        for id in &both {
            let path = format!("/v1/messages/{id}/recall");
            let (status, answer) = demo.api("POST", &path, &json!({}));
            assert!((200..300).contains(&status), "{answer}");
        }
        demo.set(&phone, &json!({ "state": "foreground" }));
        for id in &both {
            until("the notification vanishes", || {
                let shown = demo.shown(&phone, id);
                shown.iter().all(|one| one["gone"] == true).then_some(())
            });
        }
        let last = demo.send(&hello(&user));
        demo.sees(&phone, &last);
    });
}
