//! Send, batch, explain, status, recall.

use hongyan_core::message::{DeliveryMode, Target};
use hongyan_core::port::{JobKind, WriteSet};
use hongyan_core::{Class, Reason, Stage, StoreError, Timestamp};
use http::Method;
use serde_json::{Value, json};

use crate::http_client::{Answer, call};
use crate::services::ended;
use crate::world::{NOON, World, world};

async fn send_with(w: &World, key: &str, body: &Value) -> Answer {
    let headers = [
        ("content-type", "application/json; charset=utf-8"),
        ("idempotency-key", key),
    ];
    call(
        w.address,
        Method::POST,
        "/v1/messages",
        &w.server,
        &headers,
        body.to_string(),
    )
    .await
}

/// The whole body of the design document, with what exists.
fn full() -> Value {
    json!({
        "to": {"user": "u1"},
        "class": "transaction", "class_detail": "order",
        "notification": {"title": "t", "body": "b", "image": "https://x.example/i.png", "badge": 3, "sound": "default",
                         "click": {"url": "app://chat/42"}, "group": "chat-42"},
        "data": {"any": {"json": [1, null, true]}},
        "options": {"ttl": 86400, "collapse_key": "chat-42", "priority": "high", "delivery": "both", "ack_timeout_ms": 5000,
                    "devices": "first_ack", "send_at": "2026-03-02T09:00:00+08:00",
                    "push": {"enabled": true, "title": "p", "body": "q", "show_sender": false, "badge": false},
                    "channels": {"order": ["huawei", "fcm"], "fallback": false},
                    "click_guard": "anyone", "skip_splash": true,
                    "vendor": {"apns": {"aps": {"x": 1}}, "fcm": {}, "xiaomi": {}}}
    })
}

#[tokio::test]
async fn every_field_of_a_message_arrives() {
    let w = world().await;
    let sent = w.post("/v1/messages", &w.server, full()).await.expect(202);
    let id = uuid::Uuid::parse_str(sent["id"].as_str().unwrap()).unwrap();
    assert_eq!(id.get_version_num(), 7);
    let draft = w.services.drafts.lock().unwrap()[0].clone();
    assert_eq!(draft.to, Target::Users(vec!["u1".parse().unwrap()]));
    assert_eq!(draft.class, Class::Transaction);
    let n = draft.notification.unwrap();
    assert_eq!(
        (n.badge, n.click.unwrap().url.as_str()),
        (Some(3), "app://chat/42")
    );
    assert_eq!(draft.data.unwrap()["any"]["json"], json!([1, null, true]));
    let o = draft.options;
    assert_eq!(
        (o.ttl_s, o.delivery, o.skip_splash),
        (Some(86_400), DeliveryMode::Both, Some(true))
    );
    assert_eq!(o.send_at, Timestamp::parse_rfc3339("2026-03-02T01:00:00Z"));
    assert_eq!(
        (o.push.title.as_deref(), o.push.show_sender),
        (Some("p"), false)
    );
    assert_eq!((o.channels.order.len(), o.channels.fallback), (2, false));
    assert_eq!(o.vendor[&"apns".parse().unwrap()]["aps"], json!({"x": 1}));
}

#[tokio::test]
async fn a_message_goes_to_exactly_one_kind_of_target() {
    let w = world().await;
    let send = async |to: Value| {
        w.post("/v1/messages", &w.server, json!({"to": to, "data": {}}))
            .await
    };
    for to in [
        json!({"user": "u"}),
        json!({"users": ["a", "b", "a"]}),
        json!({"device": "d"}),
        json!({"devices": ["d"]}),
        json!({"topic": "news/1"}),
        json!({"all": true}),
        json!({"user": "u", "topic": null}),
    ] {
        send(to).await.expect(202);
    }
    let twice = w.services.drafts.lock().unwrap()[1].to.clone();
    assert_eq!(
        twice,
        Target::Users(vec!["a".parse().unwrap(), "b".parse().unwrap()])
    );
    let none: [&str; 0] = [];
    let many: Vec<String> = (0..1001).map(|n| format!("u{n}")).collect();
    for (to, status, code, path) in [
        (json!({}), 422, "invalid", "to"),
        (json!({"user": "u", "topic": "t"}), 422, "invalid", "to"),
        (json!({"all": false}), 422, "invalid", "to.all"),
        (json!({"users": none}), 422, "invalid", "to.users"),
        (json!({"users": many}), 422, "invalid", "to.users"),
        (json!({"segment": "s"}), 422, "not_available", "to.segment"),
        (
            json!({"audience": {"tag": "x"}}),
            422,
            "not_available",
            "to.audience",
        ),
        (json!({"user": ""}), 400, "invalid_request", "to.user"),
        (json!({"user": 5}), 400, "invalid_request", "to.user"),
        (
            json!({"users": ["ok", 7]}),
            400,
            "invalid_request",
            "to.users[1]",
        ),
        (
            json!({"everyone": true}),
            400,
            "invalid_request",
            "to.everyone",
        ),
        (json!("u1"), 400, "invalid_request", "to"),
    ] {
        send(to.clone()).await.fault(status, code, path);
    }
}

#[tokio::test]
async fn faults_have_their_path() {
    let w = world().await;
    for (change, status, path) in [
        (json!({"option": {}}), 400, "option"),
        (json!({"class": "spam"}), 400, "class"),
        (json!({"class_detail": "order"}), 422, "class_detail"),
        (json!({"data": [1]}), 400, "data"),
        (json!({"data": {"x": "y".repeat(33 * 1024)}}), 422, "data"),
        (
            json!({"notification": {"title": "t".repeat(257)}}),
            422,
            "notification.title",
        ),
        (
            json!({"notification": {"title": "t", "image": "http://x"}}),
            422,
            "notification.image",
        ),
        (
            json!({"notification": {"tilte": "t"}}),
            400,
            "notification.tilte",
        ),
        (
            json!({"notification": {"title": "t", "click": {}}}),
            400,
            "notification.click.url",
        ),
        (json!({"options": {"ttl": -1}}), 400, "options.ttl"),
        (json!({"options": {"ttl": 604801}}), 422, "options.ttl"),
        (
            json!({"options": {"ack_timeout_ms": 1}}),
            422,
            "options.ack_timeout_ms",
        ),
        (
            json!({"options": {"send_at": "tomorrow"}}),
            400,
            "options.send_at",
        ),
        (
            json!({"options": {"send_at": "2036-01-01T00:00:00Z"}}),
            422,
            "options.send_at",
        ),
        (
            json!({"options": {"push": {"enabled": "yes"}}}),
            400,
            "options.push.enabled",
        ),
        (
            json!({"options": {"push": {"title": "t".repeat(257)}}}),
            422,
            "options.push.title",
        ),
        (
            json!({"options": {"channels": {"order": ["AP NS"]}}}),
            400,
            "options.channels.order[0]",
        ),
        (
            json!({"options": {"vendor": {"apns": 1}}}),
            400,
            "options.vendor.apns",
        ),
        (
            json!({"options": {"collapse_key": ""}}),
            422,
            "options.collapse_key",
        ),
    ] {
        let mut body = json!({"to": {"user": "u"}, "data": {}});
        body.as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        let code = if status == 400 {
            "invalid_request"
        } else {
            "invalid"
        };
        w.post("/v1/messages", &w.server, body)
            .await
            .fault(status, code, path);
    }
    let body = json!({"to": {"user": "u"}, "template": {"id": "x"}});
    w.post("/v1/messages", &w.server, body)
        .await
        .fault(422, "not_available", "template");
    assert!(
        w.services.drafts.lock().unwrap().is_empty(),
        "nothing was accepted"
    );
}

#[tokio::test]
async fn the_same_key_is_answered_the_same() {
    let w = world().await;
    let body = json!({"to": {"user": "u"}, "data": {"n": 1}});
    let first = send_with(&w, "k1", &body).await;
    assert_eq!(first.header("idempotency-replayed"), "");
    let first = first.expect(202);
    let again = send_with(&w, "k1", &body).await;
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(again.expect(202), first);
    let other = json!({"to": {"user": "u"}, "data": {"n": 2}});
    send_with(&w, "k1", &other)
        .await
        .problem(409, "idempotency_key_reused");
    assert_ne!(send_with(&w, "k2", &body).await.expect(202), first);
    w.make_app("other").await;
    let key = w.make_key("other", json!({})).await;
    let headers = [
        ("content-type", "application/json"),
        ("idempotency-key", "k1"),
    ];
    let answer = call(
        w.address,
        Method::POST,
        "/v1/messages",
        &key,
        &headers,
        other.to_string(),
    )
    .await;
    answer.expect(202);
    for bad in ["", &"k".repeat(256), "Schlüssel"] {
        send_with(&w, bad, &body)
            .await
            .fault(400, "invalid_request", "Idempotency-Key");
    }
}

#[tokio::test]
async fn each_message_of_a_batch_is_judged_by_itself() {
    let w = world().await;
    let messages = json!([
        {"to": {"user": "u1"}, "data": {}},
        {"to": {"user": "u2"}},
        {"to": {"topic": "t"}, "data": {}},
        {"to": {"device": "d"}, "data": {}, "x": 1},
        {"to": {"users": ["u3", "u4"]}, "data": {}},
    ]);
    let done = w
        .post(
            "/v1/messages/batch",
            &w.server,
            json!({"messages": messages}),
        )
        .await
        .expect(202);
    assert_eq!(
        (&done["accepted"], &done["refused"]),
        (&json!(2), &json!(3))
    );
    let results = done["results"].as_array().unwrap();
    for (n, want) in [(1, "notification"), (2, "to"), (3, "x")] {
        assert_eq!(results[n]["error"]["errors"][0]["path"], want);
        assert!(results[n]["id"].is_null());
    }
    for n in [0, 4] {
        let id = results[n]["id"].as_str().unwrap();
        w.get(&format!("/v1/messages/{id}"), &w.server)
            .await
            .expect(200);
    }
    for body in [
        json!({"messages": []}),
        json!({"messages": vec![json!({}); 1001]}),
    ] {
        w.post("/v1/messages/batch", &w.server, body)
            .await
            .fault(422, "invalid", "messages");
    }
    w.post("/v1/messages/batch", &w.server, messages)
        .await
        .problem(400, "invalid_request");
}

/// What is said of a batch does not grow with what is wrong in it.
#[tokio::test]
async fn the_faults_of_a_batch_are_bounded() {
    let w = world().await;
    let vendor: serde_json::Map<_, _> = (0..200)
        .map(|i| (format!("nobody{i}"), json!({})))
        .collect();
    let one = json!({"to": {"user": "u1"}, "data": {}, "options": {"vendor": vendor}});
    let body = json!({"messages": vec![one; 100]});
    let done = w.post("/v1/messages/batch", &w.server, body).await;
    let done = done.expect(202);
    assert_eq!(done["refused"], 100);
    let results = done["results"].as_array().unwrap();
    let listed = |r: &Value| r["error"]["errors"].as_array().map_or(0, Vec::len);
    assert_eq!(results.iter().map(listed).sum::<usize>(), 2_000);
    for result in results {
        let words = result["error"]["detail"].as_str().unwrap();
        assert!(words.starts_with("200 values are wrong"), "{words}");
    }
}

#[tokio::test]
async fn a_batch_is_idempotent_too() {
    let w = world().await;
    let body = json!({"messages": [{"to": {"user": "u1"}, "data": {}}, {"to": {}}, {"to": {"user": "u2"}, "data": {}}]});
    let headers = [
        ("content-type", "application/json"),
        ("idempotency-key", "b1"),
    ];
    let send = async || {
        call(
            w.address,
            Method::POST,
            "/v1/messages/batch",
            &w.server,
            &headers,
            body.to_string(),
        )
        .await
    };
    let first = send().await.expect(202);
    let again = send().await;
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(again.expect(202), first);
}

#[tokio::test]
async fn explain_tells_and_sends_nothing() {
    let w = world().await;
    let token = w.register("d1").await;
    w.post("/v1/devices/d1/login", &token, json!({"user": "u1"}))
        .await
        .expect(204);
    let told = w
        .post("/v1/messages/explain", &w.server, full())
        .await
        .expect(200);
    let device = &told["devices"][0];
    assert_eq!(
        (&device["device"], &device["decision"]),
        (&json!("d1"), &json!("online"))
    );
    let push = &device["otherwise"];
    assert_eq!(
        (&push["decision"], &push["channel"]),
        (&json!("push"), &json!("apns"))
    );
    assert_eq!(push["request"]["path"], "/3/device/{token}");
    assert!(w.services.drafts.lock().unwrap().is_empty());
    let bad = json!({"to": {"user": "u"}});
    w.post("/v1/messages/explain", &w.server, bad)
        .await
        .fault(422, "invalid", "notification");
}

#[tokio::test]
async fn a_message_has_a_state_and_counts() {
    let w = world().await;
    let id = w.send("u1").await;
    let path = format!("/v1/messages/{id}");
    let status = w.get(&path, &w.server).await.expect(200);
    assert_eq!(
        (&status["state"], &status["counts"]),
        (&json!("done"), &json!({"accepted": 1})),
        "nothing is planned for it any more, and nobody was there"
    );
    assert_eq!(
        status["deliveries"],
        json!({"total": 0, "open": 0, "done": 0})
    );
    assert_eq!(status["expires_at"], "2026-03-02T12:00:00.000Z");
    let message = hongyan_core::MessageId::parse(&id).unwrap();
    let event = |stage| w.services.event(&w.app(), message, stage);
    w.events(vec![
        event(Stage::Targeted),
        event(Stage::Targeted),
        ended(event(Stage::Delivered), "d1", "u1", Reason::Delivered),
    ])
    .await;
    let status = w.get(&path, &w.server).await.expect(200);
    assert_eq!(status["state"], "sending");
    assert_eq!(
        status["deliveries"],
        json!({"total": 2, "open": 1, "done": 1})
    );
    w.events(vec![ended(
        event(Stage::Dropped),
        "d2",
        "u1",
        Reason::PermissionOff,
    )])
    .await;
    let status = w
        .get(&format!("{path}?deliveries=true"), &w.server)
        .await
        .expect(200);
    assert_eq!(status["state"], "done");
    assert_eq!(
        status["reasons"],
        json!({"delivered": 1, "permission_off": 1})
    );
    assert_eq!(
        status["deliveries"]["items"],
        json!([]),
        "only dispatch writes deliveries"
    );
    // The counts are even, but a page of devices is still to come.
    let looking = |kind| hongyan_core::port::Job {
        app: w.app(),
        message,
        kind,
        due: hongyan_core::Timestamp(0),
        leased: false,
    };
    let page = looking(JobKind::Broadcast { after: None });
    let last = looking(JobKind::Deliver {
        device: hongyan_core::DeviceId::parse("d1").unwrap(),
    });
    for (jobs, jobs_done, state) in [
        (vec![page.clone()], vec![], "sending"),
        (vec![last], vec![page.id()], "done"),
    ] {
        let set = WriteSet {
            jobs,
            jobs_done,
            ..WriteSet::default()
        };
        let commit = w.engine.commit();
        commit.commit(vec![set]).await.remove(0).unwrap();
        let status = w.get(&path, &w.server).await.expect(200);
        assert_eq!(status["state"], state);
    }
    w.get("/v1/messages/nonsense", &w.server)
        .await
        .fault(400, "invalid_request", "message");
    let nobody = format!("/v1/messages/{}", uuid::Uuid::now_v7());
    w.get(&nobody, &w.server).await.problem(404, "not_found");
}

#[tokio::test]
async fn an_end_without_a_device_settles_no_delivery() {
    let w = world().await;
    let id = w.send("u1").await;
    let path = format!("/v1/messages/{id}");
    let message = hongyan_core::MessageId::parse(&id).unwrap();
    let event = |stage| w.services.event(&w.app(), message, stage);
    let alone = |device: &str, reason| hongyan_core::Event {
        platform: None,
        ..ended(event(Stage::Dropped), device, "u2", reason)
    };
    let targeted = hongyan_core::Event {
        r#final: false,
        reason: None,
        ..ended(event(Stage::Targeted), "d1", "u1", Reason::Delivered)
    };
    let nobody = hongyan_core::Event {
        device: None,
        ..alone("d0", Reason::NoDevice)
    };
    for (events, state, deliveries) in [
        // One user has a device, the other none, and a named device is not there.
        (vec![targeted.clone()], "sending", [1, 1, 0]),
        (vec![nobody], "sending", [2, 1, 1]),
        (vec![alone("d9", Reason::NoDevice)], "sending", [3, 1, 2]),
        (
            vec![ended(
                event(Stage::Delivered),
                "d1",
                "u1",
                Reason::Delivered,
            )],
            "done",
            [3, 0, 3],
        ),
        // A delivery whose record cannot be read has ended all the same.
        (
            vec![targeted, alone("d1", Reason::RecordUnreadable)],
            "done",
            [4, 0, 4],
        ),
    ] {
        w.events(events).await;
        let status = w.get(&path, &w.server).await.expect(200);
        let [total, open, done] = deliveries;
        assert_eq!(
            (&status["state"], &status["deliveries"]),
            (
                &json!(state),
                &json!({"total": total, "open": open, "done": done})
            )
        );
    }
}

#[tokio::test]
async fn a_scheduled_message_says_so() {
    let w = world().await;
    let later = NOON.plus(std::time::Duration::from_secs(3600)).rfc3339();
    let body = json!({"to": {"user": "u"}, "data": {}, "options": {"send_at": later}});
    let id = w.post("/v1/messages", &w.server, body).await.expect(202)["id"].clone();
    let path = format!("/v1/messages/{}", id.as_str().unwrap());
    assert_eq!(
        w.get(&path, &w.server).await.expect(200)["state"],
        "scheduled"
    );
    w.clock.advance(std::time::Duration::from_secs(3600));
    assert_eq!(w.get(&path, &w.server).await.expect(200)["state"], "done");
}

#[tokio::test]
async fn a_recalled_message_stays_recalled() {
    let w = world().await;
    let id = w.send("u1").await;
    let path = format!("/v1/messages/{id}/recall");
    let done = w.post(&path, &w.server, Value::Null).await.expect(200);
    assert_eq!(
        (&done["stopped"], &done["recalled_at"]),
        (&json!(1), &json!("2026-03-01T12:00:00.000Z"))
    );
    let status = w
        .get(&format!("/v1/messages/{id}"), &w.server)
        .await
        .expect(200);
    assert_eq!(
        (&status["state"], &status["recalled_at"]),
        (&json!("recalled"), &done["recalled_at"])
    );
    let nobody = format!("/v1/messages/{}/recall", uuid::Uuid::now_v7());
    w.post(&nobody, &w.server, Value::Null)
        .await
        .problem(404, "not_found");
}

#[tokio::test]
async fn trouble_below_is_told_with_when_to_come_back() {
    let w = world().await;
    let body = json!({"to": {"user": "u"}, "data": {}});
    let unavailable = StoreError::Unavailable {
        engine: "fjall",
        certainty: hongyan_core::Certainty::Unknown,
        source: "disk on fire at /secret/path".into(),
    };
    for (error, code) in [
        (
            StoreError::Busy {
                retry_after_ms: 1500,
            },
            "busy",
        ),
        (StoreError::DiskFull, "disk_full"),
        (unavailable, "unavailable"),
    ] {
        *w.services.refuse.lock().unwrap() = Some(error);
        let answer = w.post("/v1/messages", &w.server, body.clone()).await;
        let wait: u64 = answer.header("retry-after").parse().unwrap();
        assert!(wait >= 1 && (code != "busy" || wait == 2));
        assert!(!String::from_utf8_lossy(&answer.body).contains("secret"));
        answer.problem(503, code);
    }
    w.services
        .panics
        .store(true, std::sync::atomic::Ordering::SeqCst);
    w.post("/v1/messages", &w.server, body.clone())
        .await
        .problem(500, "internal");
    w.services
        .panics
        .store(false, std::sync::atomic::Ordering::SeqCst);
    w.post("/v1/messages", &w.server, body).await.expect(202);
}

#[tokio::test]
async fn a_channel_that_does_not_exist_is_refused_with_those_that_do() {
    let w = world().await;
    let order = json!({"to": {"user": "u"}, "notification": {"title": "t"},
        "options": {"channels": {"order": ["fcm", "carrierpigeon"]}}});
    let known = "there is no channel carrierpigeon; there are apns, fcm, huawei, sms, xiaomi";
    for path in ["/v1/messages", "/v1/messages/explain"] {
        let refused = w.post(path, &w.server, order.clone()).await;
        let problem = refused.problem(422, "invalid");
        assert_eq!(problem["errors"][0]["path"], "options.channels.order[1]");
        assert!(problem.to_string().contains(known), "{problem}");
    }
    let vendor = json!({"to": {"user": "u"}, "notification": {"title": "t"},
        "options": {"vendor": {"apns": {}, "carrierpigeon": {"a": 1}}}});
    let refused = w.post("/v1/messages", &w.server, vendor).await;
    let problem = refused.problem(422, "invalid");
    assert_eq!(problem["errors"][0]["path"], "options.vendor.carrierpigeon");
    assert!(problem.to_string().contains(known), "{problem}");
    let many = json!({"messages": [order]});
    let batch = w
        .post("/v1/messages/batch", &w.server, many)
        .await
        .expect(202);
    assert_eq!(batch["accepted"], 0);
    let token = json!([{"channel": "carrierpigeon", "token": "t1"}]);
    let device = json!({"device_id": "d9", "platform": "android", "tokens": token});
    let refused = w.post("/v1/devices", &w.server, device).await;
    refused.fault(422, "invalid", "tokens[0].channel");
    let device = json!({"device_id": "d9", "platform": "android"});
    w.post("/v1/devices", &w.server, device).await.expect(200);
    let token = json!({"token": "t1"});
    let path = "/v1/devices/d9/tokens/carrierpigeon";
    w.call(Method::PUT, path, &w.server, token)
        .await
        .fault(422, "invalid", "path.channel");
}
