//! What is not a request is refused with a clear word, whatever it is.

use http::Method;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::http_client::call;
use crate::world::world;

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn bodies_that_are_no_json() {
    let w = world().await;
    let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
    let big = format!(
        r#"{{"to":{{"user":"u"}},"data":{{"x":"{}"}}}}"#,
        "y".repeat(100 * 1024)
    );
    let rows: [(&[u8], u16, &str); 13] = [
        (b"", 400, "bad_json"),
        (b"{", 400, "bad_json"),
        (b"nonsense", 400, "bad_json"),
        (
            b"{\"to\":{\"user\":\"u\"},\"data\":{}} trailing",
            400,
            "bad_json",
        ),
        (
            b"{\"to\":{\"user\":\"u\"},\"data\":{\"n\":1e999}}",
            400,
            "invalid_request",
        ),
        (
            b"{\"to\":{\"user\":\"u\"},\"data\":{\"n\":NaN}}",
            400,
            "bad_json",
        ),
        (
            b"{\"to\":{\"user\":\"\xff\xfe\"},\"data\":{}}",
            400,
            "bad_utf8",
        ),
        (
            b"{\"to\":{\"user\":\"\\ud800\"},\"data\":{}}",
            400,
            "invalid_request",
        ),
        (b"null", 400, "invalid_request"),
        (b"[]", 400, "invalid_request"),
        (
            b"{\"data\":{},\"data\":{},\"to\":{\"user\":\"u\"}}",
            400,
            "invalid_request",
        ),
        (deep.as_bytes(), 400, "invalid_request"),
        (big.as_bytes(), 413, "payload_too_large"),
    ];
    for (n, (body, status, code)) in rows.into_iter().enumerate() {
        let answer = call(
            w.address,
            Method::POST,
            "/v1/messages",
            &w.server,
            &[JSON],
            body.to_vec(),
        );
        let answer = answer.await;
        assert_eq!(
            answer.status,
            status,
            "row {n}: {}",
            String::from_utf8_lossy(&answer.body)
        );
        answer.problem(status, code);
    }
    let nested = format!(
        r#"{{"to":{{"user":"u"}},"data":{{"x":{}1{}}}}}"#,
        "[".repeat(200),
        "]".repeat(200)
    );
    let answer = call(
        w.address,
        Method::POST,
        "/v1/messages",
        &w.server,
        &[JSON],
        nested,
    )
    .await;
    answer.problem(400, "invalid_request");
}

#[tokio::test]
async fn a_missing_field_is_named_by_its_path() {
    let w = world().await;
    let rows = [
        (json!({"data": {}}), "to"),
        (
            json!({"to": {"user": "u"}, "notification": {"title": "t", "click": {}}}),
            "notification.click.url",
        ),
    ];
    for (body, path) in rows {
        let answer = w.call(Method::POST, "/v1/messages", &w.server, body).await;
        answer.fault(400, "invalid_request", path);
    }
}

#[tokio::test]
async fn something_else_than_an_object_is_told_in_plain_words() {
    let w = world().await;
    let (list, object) = ("this is a list, expected an object", "expected an object");
    let null = "this is null, expected an object";
    let rows = [
        (json!([]), "body", list),
        (json!(["u"]), "body", list),
        (json!(null), "body", null),
        (json!({"to": []}), "to", list),
        (json!({"to": null}), "to", null),
        (json!({"to": {"user": "u"}, "data": []}), "data", list),
        (
            json!({"to": {"user": "u"}, "options": null}),
            "options",
            null,
        ),
        (
            json!({"to": {"user": "u"}, "options": {"vendor": {"apns": []}}}),
            "options.vendor.apns",
            list,
        ),
        (json!("text"), "body", object),
        (json!({"to": "u"}), "to", object),
        (
            json!({"to": {"user": "u"}, "notification": "hello"}),
            "notification",
            object,
        ),
        (
            json!({"to": {"user": "u"}, "data": {}, "options": 7}),
            "options",
            object,
        ),
    ];
    for (body, path, words) in rows {
        let body = body.to_string();
        let answer = call(
            w.address,
            Method::POST,
            "/v1/messages",
            &w.server,
            &[JSON],
            body,
        )
        .await;
        let said = String::from_utf8_lossy(&answer.body).into_owned();
        answer.fault(400, "invalid_request", path);
        assert!(said.contains(words) && !said.contains("struct"), "{said}");
    }
    // An object that names nobody can be read; it breaks a rule.
    for (to, words) in [
        (json!({}), "but names none"),
        (json!({"user": null}), "but names none"),
        (json!({"user": "u", "all": true}), "but names 2"),
    ] {
        let body = json!({"to": to, "data": {}});
        let answer = w.call(Method::POST, "/v1/messages", &w.server, body).await;
        let said = String::from_utf8_lossy(&answer.body).into_owned();
        answer.fault(422, "invalid", "to");
        assert!(said.contains(words), "{said}");
    }
}

/// Plain clients write the whole body before they read: they get the answer, not a broken pipe.
#[tokio::test]
async fn who_sends_too_much_gets_to_read_the_answer() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let w = world().await;
    let len = 4 * 1024 * 1024;
    let declared = format!("Content-Length: {len}\r\n\r\n{}", " ".repeat(len));
    let chunked = format!(
        "Transfer-Encoding: chunked\r\n\r\n{len:x}\r\n{}\r\n0\r\n\r\n",
        " ".repeat(len)
    );
    for body in [declared, chunked] {
        let mut socket = tokio::net::TcpStream::connect(w.address).await.unwrap();
        let head = format!(
            "POST /v1/messages HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n",
            w.server
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        socket.write_all(body.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        assert!(answer.contains("payload_too_large"), "{answer}");
    }
}

#[tokio::test]
async fn requests_that_go_astray() {
    let w = world().await;
    let body = r#"{"to":{"user":"u"},"data":{}}"#;
    for content_type in ["text/plain", "application/x-www-form-urlencoded", ""] {
        let headers = [("content-type", content_type)];
        let answer = call(
            w.address,
            Method::POST,
            "/v1/messages",
            &w.server,
            &headers,
            body,
        )
        .await;
        answer.problem(415, "unsupported_media_type");
    }
    for path in [
        "/",
        "/v1",
        "/v1/nothing",
        "/v1/templates",
        "/v1/campaigns",
        "/v2/messages",
        "/v1/messages/",
    ] {
        w.get(path, &w.server).await.problem(404, "not_found");
    }
    let wrong = w
        .call(Method::DELETE, "/v1/messages", &w.server, Value::Null)
        .await;
    assert_eq!(wrong.header("allow"), "POST");
    wrong.problem(405, "method_not_allowed");
    let allowed = [
        ("/v1/devices/d1", "GET, HEAD, PATCH, DELETE, OPTIONS"),
        ("/v1/poll", "GET, OPTIONS"),
        ("/v1/stream", "GET"),
        ("/v1/apps", "POST, GET, HEAD"),
    ];
    for (path, want) in allowed {
        let wrong = w.call(Method::PUT, path, &w.server, Value::Null).await;
        assert_eq!(wrong.header("allow"), want, "{path}");
        wrong.problem(405, "method_not_allowed");
    }
    // A look at the head is no poll and no stream: it would take the device's session over.
    let device = w.register("d1").await;
    for (path, want) in [("/v1/poll", "GET, OPTIONS"), ("/v1/stream", "GET")] {
        let head = w.call(Method::HEAD, path, &device, Value::Null).await;
        assert_eq!((head.status.as_u16(), head.header("allow")), (405, want));
    }
    w.get("/v1/devices/%ff", &w.server)
        .await
        .fault(400, "invalid_request", "path");
    w.get("/v1/devices/a%20b", &w.server)
        .await
        .fault(400, "invalid_request", "device");
    for query in ["limit=x", "limit=-1", "nonsense=1", "after=a%20b"] {
        let answer = w.get(&format!("/v1/devices?{query}"), &w.server).await;
        answer.problem(400, "invalid_request");
    }
    w.get("/v1/devices?limit=1000", &w.server).await.expect(200);
}

#[tokio::test]
async fn forged_keys() {
    let w = world().await;
    let device = w.register("d1").await;
    let (head, tail) = w.server.split_at(w.server.len() - 1);
    let flipped = format!("{head}{}", if tail == "A" { "B" } else { "A" });
    let as_admin = w.server.replace("hy_sk_", "hy_admin_");
    let as_server = w.client.replace("hy_pk_", "hy_sk_");
    let as_device = w.server.replace("hy_sk_", "hy_dt_");
    for forged in [
        &flipped,
        &as_admin,
        &as_server,
        &as_device,
        &format!("{device}x"),
        &"x".repeat(8_000),
    ] {
        w.get("/v1/devices/d1", forged)
            .await
            .problem(401, "unauthorized");
    }
    for value in ["Basic aGk6aGk=", "Bearer", "Bearer ", "", "bearer\t"] {
        let headers = [("authorization", value)];
        let answer = call(w.address, Method::GET, "/v1/devices/d1", "", &headers, "").await;
        assert_eq!(answer.header("www-authenticate"), "Bearer");
        answer.problem(401, "unauthorized");
    }
    let twice = [("authorization", "Bearer x")];
    let answer = call(
        w.address,
        Method::GET,
        "/v1/devices/d1",
        &w.server,
        &twice,
        "",
    )
    .await;
    answer.problem(401, "unauthorized");
    let scheme = format!("bEARER {}", w.server);
    let headers = [("authorization", scheme.as_str())];
    call(w.address, Method::GET, "/v1/devices/d1", "", &headers, "")
        .await
        .expect(200);
}

#[tokio::test]
async fn answers_can_be_followed_in_the_log() {
    let w = world().await;
    let answer = w.get("/v1/devices", &w.server).await;
    assert_eq!(answer.header("x-request-id").len(), 20);
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    for (given, kept) in [
        ("trace-1", true),
        ("with space", false),
        (&"x".repeat(65), false),
    ] {
        let headers = [("x-request-id", given)];
        let answer = call(w.address, Method::GET, "/healthz", "", &headers, "").await;
        assert_eq!(answer.header("x-request-id") == given, kept, "{given}");
    }
}

/// Any JSON of moderate size.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[a-z_]{1,8}", inner, 0..4)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

/// A good message with one value somewhere replaced by anything.
fn damaged_message() -> impl Strategy<Value = Value> {
    let paths = prop_oneof![
        Just("/to"),
        Just("/to/user"),
        Just("/class"),
        Just("/notification"),
        Just("/notification/title"),
        Just("/notification/click"),
        Just("/data"),
        Just("/options"),
        Just("/options/ttl"),
        Just("/options/send_at"),
        Just("/options/push"),
        Just("/options/channels/order"),
        Just("/options/vendor"),
    ];
    (paths, any_json()).prop_map(|(path, value)| {
        let mut message = json!({
            "to": {"user": "u"}, "class": "im", "notification": {"title": "t", "click": {"url": "x"}}, "data": {},
            "options": {"ttl": 5, "send_at": "2026-03-01T13:00:00Z", "push": {}, "channels": {"order": []}, "vendor": {}},
        });
        *message.pointer_mut(path).unwrap() = value;
        message
    })
}

#[test]
fn damaged_messages_are_answered_clearly() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let w = runtime.block_on(world());
    let config = ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |(message in damaged_message())| {
        let answer = runtime.block_on(w.post("/v1/messages", &w.server, message.clone()));
        match answer.status.as_u16() {
            202 => prop_assert!(answer.json()["id"].is_string()),
            400 | 413 | 422 => {
                let problem = answer.json();
                prop_assert!(problem["code"].is_string(), "{problem}");
                prop_assert!(!problem["errors"].as_array().unwrap().is_empty(), "{problem} for {message}");
            }
            other => prop_assert!(false, "{other} for {message}"),
        }
    });
    let config = ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |(bytes in proptest::collection::vec(any::<u8>(), 0..200))| {
        let answer = runtime.block_on(call(w.address, Method::POST, "/v1/messages", &w.server, &[JSON], bytes));
        prop_assert_eq!(answer.status.as_u16(), 400);
    });
}

#[tokio::test]
async fn a_body_that_is_compressed_is_not_read() {
    let w = world().await;
    let body = r#"{"to":{"user":"u"},"data":{}}"#;
    let post = async |coding: &'static str| {
        let headers = [JSON, ("content-encoding", coding)];
        call(
            w.address,
            Method::POST,
            "/v1/messages",
            &w.server,
            &headers,
            body,
        )
        .await
    };
    post("gzip").await.problem(415, "unsupported_media_type");
    post("identity").await.expect(202);
}

#[tokio::test]
async fn what_cannot_be_kept_as_it_was_sent_is_refused_with_its_place() {
    let w = world().await;
    let send = async |body: &'static str| {
        call(
            w.address,
            Method::POST,
            "/v1/messages",
            &w.server,
            &[JSON],
            body,
        )
        .await
    };
    send(r#"{"to":{"user":"u"},"data":{"a":{"b":1,"b":2}}}"#)
        .await
        .fault(422, "invalid", "data.a.b");
    send(r#"{"to":{"user":"u"},"data":{"n":[18446744073709551616]}}"#)
        .await
        .fault(422, "invalid", "data.n[0]");
    send(r#"{"to":{"user":"u"},"data":{},"options":{"vendor":{"fcm":{"x":1,"x":1}}}}"#)
        .await
        .fault(422, "invalid", "options.vendor.fcm.x");
    send(r#"{"to":{"user":"u"},"data":{},"options":{"vendor":{"fcm":{"x":1},"fcm":{"y":1}}}}"#)
        .await
        .fault(400, "invalid_request", "options.vendor");
    send(r#"{"to":{"user":"u"},"data":{"n":9007199254740993}}"#)
        .await
        .expect(202);
    let drafts = w.services.drafts.lock().unwrap().clone();
    let kept = serde_json::to_string(drafts[0].data.as_ref().unwrap()).unwrap();
    assert_eq!(kept, r#"{"n":9007199254740993}"#);
}

#[tokio::test]
async fn texts_that_no_vendor_takes_are_refused() {
    let w = world().await;
    for (field, value, path) in [
        ("title", json!("  \t"), "notification"),
        ("sound", json!("a\u{0}b"), "notification.sound"),
        ("image", json!("https://"), "notification.image"),
        ("image", json!("https:///x.png"), "notification.image"),
        ("image", json!("https://a b/x.png"), "notification.image"),
        ("sound", json!("s".repeat(60_000)), "notification.sound"),
        ("group", json!("g".repeat(257)), "notification.group"),
    ] {
        let mut notification = json!({"title": "t"});
        notification[field] = value;
        let body = json!({"to": {"user": "u"}, "notification": notification});
        w.post("/v1/messages", &w.server, body)
            .await
            .fault(422, "invalid", path);
    }
    let good = json!({"to": {"user": "u"}, "notification": {"title": " ", "body": "line\n\u{0}line",
        "image": "https://user@[::1]:8443/x.png?y#z", "sound": "ding.caf"}});
    w.post("/v1/messages", &w.server, good).await.expect(202);
}

#[tokio::test]
async fn queries_have_paths_too_and_limits_hold() {
    let w = world().await;
    for (path, status, code, at) in [
        ("/v1/devices?limit=0", 422, "invalid", "query.limit"),
        ("/v1/devices?limit=100000", 422, "invalid", "query.limit"),
        ("/v1/users/u/trace?limit=0", 422, "invalid", "query.limit"),
        (
            "/v1/devices/d/trace?limit=1001",
            422,
            "invalid",
            "query.limit",
        ),
        (
            "/v1/topics/t/subscribers?limit=0",
            422,
            "invalid",
            "query.limit",
        ),
        (
            "/v1/devices?limit=many",
            400,
            "invalid_request",
            "query.limit",
        ),
        ("/v1/devices?page=1", 400, "invalid_request", "query.page"),
        (
            "/v1/devices?limit=1&limit=2",
            400,
            "invalid_request",
            "query.limit",
        ),
    ] {
        w.get(path, &w.server).await.fault(status, code, at);
    }
    w.get("/v1/apps?limit=1001", &w.admin)
        .await
        .fault(422, "invalid", "query.limit");
}
