use hongyan_core::Class;

use super::*;
use crate::vendor::fixture;

const POINT: &str =
    "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
const AUTH: &str = "BTBZMqHH6r4Tts7J_aSIgg";

fn config() -> Value {
    let (private_key, public_key) = generate().unwrap();
    json!({"private_key": private_key, "public_key": public_key, "subject": "mailto:a@example.org"})
}

#[test]
fn golden_notification() {
    let encoded = encode(&fixture::outbound()).unwrap();
    assert_eq!(
        encoded.headers,
        [("ttl", "3600".to_owned()), ("urgency", "high".to_owned())]
    );
    let user = payload::user_hash(
        &hongyan_core::AppId::parse("demo").unwrap(),
        &hongyan_core::UserId::parse("u1").unwrap(),
    );
    let id = "018f0000-0000-7000-8000-000000000001";
    assert_eq!(
        encoded.body,
        json!({
            "notification": {"title": "Order 42", "body": "is on its way", "tag": id},
            "app_badge": 3, "hy_id": id, "hy_data": {"order": 42}, "hy_url": "app://order/42", "hy_user": user,
        })
    );
}

#[test]
fn golden_data_alone() {
    let encoded = encode(&fixture::data_only()).unwrap();
    assert!(encoded.body.get("notification").is_none());
    assert_eq!(encoded.body["hy_data"], json!({"order": 42}));
}

#[test]
fn each_class_has_its_urgency_and_marketing_is_silent() {
    for (class, urgency, silent) in [
        (Class::Im, "high", false),
        (Class::Transaction, "high", false),
        (Class::Subscription, "normal", false),
        (Class::Marketing, "low", true),
    ] {
        let mut message = fixture::message();
        message.class = class;
        let encoded = encode(&fixture::of(message)).unwrap();
        assert_eq!(encoded.headers[1], ("urgency", urgency.to_owned()));
        let marked = encoded.body["notification"].get("silent").is_some();
        assert_eq!(marked, silent, "{class:?}");
    }
}

#[test]
fn a_collapse_key_is_the_topic_and_the_tag() {
    let hashed = payload::short_hash("a chat", 16);
    assert_eq!(hashed.len(), TOPIC_CHARS_MAX);
    for (key, topic) in [("chat-42", "chat-42"), ("a chat", hashed.as_str())] {
        let mut message = fixture::message();
        message.options.collapse_key = Some(key.to_owned());
        message.options.ttl_s = Some(0);
        let encoded = encode(&fixture::of(message)).unwrap();
        assert_eq!(encoded.headers[0].1, "0");
        assert_eq!(encoded.headers[2], ("topic", topic.to_owned()));
        assert_eq!(encoded.body["notification"]["tag"], key);
    }
}

#[test]
fn the_senders_fields_are_merged_last() {
    let extra = json!({
        "ttl": 9_999_999, "urgency": "very-low", "topic": "T", "hy_id": "forged",
        "notification": {"icon": "https://x/i.png", "title": null}, "web_push": 8030,
    });
    let encoded = encode(&fixture::with_vendor(NAME, &extra)).unwrap();
    let want = [("ttl", "2419200"), ("urgency", "very-low"), ("topic", "T")];
    assert_eq!(encoded.headers, want.map(|(n, v)| (n, v.to_owned())));
    assert_eq!(encoded.body["web_push"], 8030);
    assert_eq!(encoded.body["notification"]["icon"], "https://x/i.png");
    assert!(encoded.body["notification"].get("title").is_none());
    assert_ne!(encoded.body["hy_id"], "forged");
}

#[test]
fn what_push_services_would_refuse_is_never_sent() {
    let mut message = fixture::message();
    message.data = json!({"x": "y".repeat(4000)}).as_object().cloned();
    let refused = encode(&fixture::of(message)).err().unwrap();
    assert_eq!(refused.0, Reason::PayloadTooLarge);
    for bad in [
        json!({"ttl": -1}),
        json!({"ttl": "1"}),
        json!({"urgency": "now"}),
        json!({"topic": ""}),
        json!({"topic": "a b"}),
        json!({"topic": "x".repeat(33)}),
    ] {
        let (reason, _) = encode(&fixture::with_vendor(NAME, &bad)).err().unwrap();
        assert_eq!(reason, Reason::PayloadRejected, "{bad}");
    }
}

#[test]
fn subscriptions_are_read_as_browsers_write_them() {
    let endpoint = "https://updates.push.services.mozilla.com/wpush/v2/gAAA";
    let read = |token: Value| Subscription::parse(&token.to_string(), fixture::NOW);
    for (p256dh, auth) in [
        (POINT.to_owned(), AUTH.to_owned()),
        (format!("{POINT}="), format!("{AUTH}==")),
        (
            POINT.replace('-', "+").replace('_', "/"),
            AUTH.replace('_', "/"),
        ),
    ] {
        let keys = json!({"p256dh": p256dh, "auth": auth});
        let read = read(json!({"endpoint": endpoint, "expirationTime": null, "keys": keys}));
        let read = read.map_err(|e| panic!("{e}")).ok().unwrap();
        assert_eq!(read.path, "/wpush/v2/gAAA");
        assert_eq!(
            read.origin.to_string(),
            "https://updates.push.services.mozilla.com"
        );
        assert!(!read.is_windows());
    }
    let keys = json!({"p256dh": POINT, "auth": AUTH});
    for (bad, words) in [
        (json!("text"), "endpoint"),
        (json!({"keys": keys}), "endpoint"),
        (
            json!({"endpoint": "http://fcm.googleapis.com/x", "keys": keys}),
            "https",
        ),
        (
            json!({"endpoint": "https://fcm.googleapis.com/\u{e9}", "keys": keys}),
            "characters",
        ),
        (json!({"endpoint": endpoint}), "p256dh"),
        (
            json!({"endpoint": endpoint, "keys": {"p256dh": AUTH, "auth": AUTH}}),
            "p256dh",
        ),
        (
            json!({"endpoint": endpoint, "keys": {"p256dh": POINT, "auth": "AAAA"}}),
            "auth",
        ),
        (
            json!({"endpoint": endpoint, "expirationTime": 1, "keys": keys}),
            "expired",
        ),
    ] {
        let problem = read(bad.clone()).err().unwrap();
        assert!(problem.contains(words), "{bad}: {problem}");
    }
    assert!(Subscription::parse("not json", fixture::NOW).is_err());
}

#[test]
fn only_known_push_services_are_called() {
    let mut config = config();
    config["hosts"] = json!(["Push.Example.org", "*.ntfy.example"]);
    let config = Config::read(&config).unwrap();
    for (host, known) in [
        ("fcm.googleapis.com", true),
        ("fcm.googleapis.com:443", true),
        ("fcm.googleapis.com:1", false),
        ("updates.push.services.mozilla.com", true),
        ("web.push.apple.com", true),
        ("web.push.apple.com:8443", false),
        ("wns2-par02p.notify.windows.com", true),
        ("push.example.org", true),
        ("push.example.org:8443", true),
        ("a.ntfy.example", true),
        ("ntfy.example", false),
        ("evilpush.apple.com.example", false),
        ("evilnotify.windows.com", false),
        ("xfcm.googleapis.com", false),
    ] {
        let origin = Origin::parse(&format!("https://{host}/x")).unwrap();
        assert_eq!(config.knows(&origin).is_some(), known, "{host}");
    }
}

/// What is wrong with a host that somebody made up must not close the lane of a service.
#[test]
fn failures_are_the_services_or_one_hosts() {
    let mut config = config();
    config["hosts"] = json!(["push.example", "*.example", "*"]);
    let config = Config::read(&config).unwrap();
    let sender = Sender::new(&fixture::egress(), config, None);
    let (host, problem) = (String::new(), String::new());
    let unresolved = CallError::Unresolved {
        host: host.clone(),
        problem: problem.clone(),
    };
    let unreachable = CallError::Unreachable { host, problem };
    let check = |host: &str, of_host: [bool; 2], once_taken: [bool; 2]| {
        let origin = Origin::parse(&format!("https://{host}")).unwrap();
        let peer = sender.peers.at(&origin);
        let told =
            || [&unresolved, &unreachable].map(|error| sender.is_of_host(error, &origin, &peer));
        assert_eq!(told(), of_host, "{host}");
        peer.took(1);
        assert_eq!(told(), once_taken, "{host}, which took something");
    };
    let never = [false, false];
    check("fcm.googleapis.com", never, never);
    check("updates.push.services.mozilla.com", never, never);
    check("web.push.apple.com", never, never);
    check("x.notify.windows.com", [true, false], never);
    check("x.push.apple.com", [true, false], never);
    check("push.example", never, never);
    check("x.example", [true, false], never);
    check("x.test", [true, true], [true, true]);
}

#[test]
fn verdict_table() {
    let check = |status: u16, body: &str, want: &str| {
        let verdict = decode(&fixture::answer(status, body), fixture::NOW);
        assert_eq!(fixture::words(&verdict), want, "{status} {body}");
    };
    for status in [200, 201, 202] {
        check(status, "", "accepted");
    }
    for status in [301, 307, 308, 500, 502, 503, 504, 408] {
        check(status, "", "retry vendor_unavailable not_taken");
    }
    check(
        400,
        "{\"errno\":111,\"message\":\"TTL\"}",
        "refused payload_rejected",
    );
    for reason in [
        "BadTtl",
        "BadUrgency",
        "BadWebPushRequest",
        "BadWebPushTopic",
    ] {
        let body = json!({ "reason": reason }).to_string();
        check(400, &body, "refused payload_rejected");
    }
    for reason in [
        "VapidPkHashMismatch",
        "BadJwtToken",
        "BadAuthorizationHeader",
        "BadVapidPublicKey",
    ] {
        let body = json!({ "reason": reason }).to_string();
        check(400, &body, "credential_bad");
        check(403, &body, "credential_bad");
    }
    check(
        400,
        r#"{"reason":"IdleTimeout"}"#,
        "retry vendor_unavailable not_taken",
    );
    check(400, "UnauthorizedRegistration", "credential_bad");
    check(401, "", "credential_bad");
    check(403, "", "credential_bad");
    check(404, "", "token_dead token_invalid");
    check(
        410,
        "push subscription has unsubscribed or expired.\n",
        "token_dead token_invalid",
    );
    check(405, "", "refused payload_rejected");
    check(413, "", "refused payload_too_large");
    check(406, "", "retry vendor_rate_limited not_taken");
    check(429, "", "retry vendor_rate_limited not_taken");
    let mut slow = fixture::answer(429, "");
    let wait = HeaderValue::from_static("900");
    slow.headers.insert("retry-after", wait);
    let verdict = decode(&slow, fixture::NOW);
    assert_eq!(
        fixture::words(&verdict),
        "retry vendor_rate_limited 900s not_taken"
    );
    let whose = |word: &'static str| {
        let mut slow = fixture::answer(406, "");
        let header = HeaderValue::from_static(word);
        slow.headers.insert("x-wns-notificationstatus", header);
        fixture::words(&decode(&slow, fixture::NOW))
    };
    assert_eq!(whose("channelthrottled"), "device_limited");
    assert_eq!(whose("appthrottled"), "retry vendor_rate_limited not_taken");
}

#[test]
fn configurations_are_checked_and_shown_without_secrets() {
    let vendor = Webpush::new(&fixture::egress());
    let good = config();
    let shown = Value::Object(vendor.check_config(&good).unwrap());
    assert_eq!(shown["public_key"], good["public_key"]);
    assert!(
        !shown
            .to_string()
            .contains(good["private_key"].as_str().unwrap())
    );
    let shown =
        vendor.check_config(&json!({"private_key": fixture::ec_pem(), "subject": "https://a.b"}));
    assert_eq!(shown.unwrap()["public_key"].as_str().unwrap().len(), 87);
    let bad = json!({"private_key": "x", "subject": "me", "hosts": ["a b", "*"], "typo": 1});
    let faults = vendor.check_config(&bad).unwrap_err();
    assert_eq!(
        fixture::paths(&faults),
        ["private_key", "subject", "hosts", "typo"]
    );
    let faults = vendor.check_config(&json!({})).unwrap_err();
    assert!(faults[0].problem.contains("hongyan channel vapid"));
}

/// Whoever registers a subscription chooses its address, not how many lanes there are.
#[test]
fn each_push_service_is_a_vendor_of_its_own() {
    let vendor = Webpush::new(&fixture::egress());
    let mut config = config();
    config["hosts"] = json!(["Push.Example", "*.example", "*"]);
    let opened = vendor.open(OpenCredential {
        app: hongyan_core::AppId::parse("demo").unwrap(),
        name: hongyan_core::CredentialName::parse("default").unwrap(),
        config: hongyan_core::Secret::new(config.to_string()),
        endpoint: None,
        callback: None,
    });
    let channel = opened.unwrap();
    let check = |endpoint: &str, shared: Option<&str>, own: Option<&str>| {
        let token = json!({"endpoint": endpoint, "keys": {"p256dh": "x", "auth": "y"}});
        let token = token.to_string();
        let told = vendor.peer(&token);
        assert_eq!(told.as_deref(), shared, "{endpoint}");
        let told = told.or_else(|| channel.peer(&token));
        assert_eq!(told.as_deref(), shared.or(own), "{endpoint}");
    };
    let mozilla = "updates.push.services.mozilla.com";
    check(
        "https://Updates.push.services.mozilla.com/wpush/v2/x",
        Some(mozilla),
        None,
    );
    for n in 1..50 {
        let pattern = Some("*.notify.windows.com");
        check(&format!("https://x{n}.notify.windows.com/w"), pattern, None);
        let pattern = Some("*.push.services.mozilla.com");
        check(
            &format!("https://x{n}.push.services.mozilla.com/"),
            pattern,
            None,
        );
        check(&format!("https://{mozilla}:{n}/"), None, Some("*"));
        check(
            &format!("https://push.example:{n}/a"),
            None,
            Some("push.example"),
        );
        check(&format!("https://a{n}.example/"), None, Some("*.example"));
        check(&format!("https://a{n}.test/"), None, Some("*"));
    }
    check("http://push.example/a", None, None);
    assert_eq!(vendor.peer("not json"), None);
    assert_eq!(channel.peer("not json"), None);
}
