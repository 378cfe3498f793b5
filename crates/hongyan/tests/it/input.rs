//! What strangers send: a clear answer, nothing lost, nothing falls over.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::harness::{Demo, KINDS, PATIENCE, hello, try_http};

#[test]
fn bad_input_gets_a_clear_error_and_harms_nobody() {
    let demo = Demo::with(&[("HONGYAN_HTTP_HEADER_TIMEOUT_MS", "2000")]);
    let phone = demo.phone(&KINDS[0], "calm");
    let key = demo.fact("server_key");
    let bearer = format!("Bearer {key}");
    let raw = |body: &[u8]| {
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
        ];
        let (status, answer) =
            try_http("POST", &demo.fact("api"), "/v1/messages", &headers, body).unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap_or(Value::Null);
        (status, answer)
    };
    let cases: &[(&[u8], u16, &str)] = &[
        (b"{", 400, ""),
        (b"[]", 400, ""),
        (
            b"{\"to\":{\"user\":\"u\"},\"notification\":{\"title\":\"\xff\"}}",
            400,
            "",
        ),
        (
            br#"{"to":{"user":"u"},"notification":{"title":"t"},"colour":"red"}"#,
            400,
            "colour",
        ),
        (
            br#"{"to":{"user":"u"},"notification":{"title":7}}"#,
            400,
            "notification.title",
        ),
        (
            br#"{"to":{"user":"u","topic":"t"},"notification":{"title":"t"}}"#,
            422,
            "to",
        ),
        (br#"{"to":{},"notification":{"title":"t"}}"#, 422, "to"),
        (br#"{"to":{"user":"u"}}"#, 422, "notification"),
        (
            br#"{"to":{"user":"u"},"class":"urgent","notification":{"title":"t"}}"#,
            400,
            "class",
        ),
        (
            br#"{"to":{"user":"u"},"notification":{"title":"t"},"options":{"ttl":99999999}}"#,
            422,
            "options.ttl",
        ),
    ];
    for (body, status, path) in cases {
        let (got, answer) = raw(body);
        let said = format!("{} -> {answer}", String::from_utf8_lossy(body));
        assert_eq!(got, *status, "{said}");
        assert!(
            answer["code"].is_string() && answer["title"].is_string(),
            "{said}"
        );
        assert!(answer.to_string().contains(path), "{path} is named: {said}");
    }
    let huge =
        json!({ "to": { "user": "u" }, "data": { "x": "y".repeat(200 * 1024) } }).to_string();
    assert_eq!(raw(huge.as_bytes()).0, 413);
    for key in [
        "",
        "hy_sk_forged",
        "hy_admin_forged",
        &demo.fact("client_key"),
    ] {
        let (status, answer) = demo.api_as(key, "POST", "/v1/messages", &hello("calm"));
        assert!([401, 403].contains(&status), "{key}: {answer}");
        assert!(
            !answer.to_string().contains("hy_sk_"),
            "no secret in an answer"
        );
    }
    // Another app's key sees nothing of this one.
    let admin = demo.fact("admin_key");
    let (status, other) = demo.api_as(
        &admin,
        "POST",
        "/v1/apps",
        &json!({ "id": "other", "name": "other" }),
    );
    assert!((200..300).contains(&status), "{other}");
    let (status, made) = demo.api_as(
        &admin,
        "POST",
        "/v1/apps/other/keys",
        &json!({ "kind": "server", "scopes": ["send", "read", "manage"] }),
    );
    assert!((200..300).contains(&status), "{made}");
    let foreign = made["secret"]
        .as_str()
        .or(made["key"].as_str())
        .unwrap()
        .to_owned();
    let id = demo.send(&hello("calm"));
    demo.sees(&phone, &id);
    let (status, _) = demo.api_as(&foreign, "GET", &format!("/v1/messages/{id}"), &Value::Null);
    assert_eq!(status, 404);
    // Sockets that open and say nothing, or never finish, cost nobody else anything.
    let address = demo
        .fact("api")
        .split("://")
        .nth(1)
        .unwrap()
        .trim_end_matches('/')
        .to_owned();
    let mut idle: Vec<TcpStream> = (0..200)
        .map(|_| TcpStream::connect(&address).unwrap())
        .collect();
    for stream in idle.iter_mut().step_by(2) {
        stream
            .write_all(b"GET /v1/connect HTTP/1.1\r\nhost: x\r\nx-slow: ")
            .unwrap();
    }
    let id = demo.send(&hello("calm"));
    assert_eq!(demo.sees(&phone, &id), "connection");
    // Half a request is answered or closed once its time is over, and so is silence.
    for stream in &mut idle {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut end = Vec::new();
        if let Err(error) = stream.read_to_end(&mut end) {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
        }
        let end = String::from_utf8_lossy(&end);
        assert!(end.is_empty() || end.starts_with("HTTP/1.1 408"), "{end}");
    }
    let (status, _) = demo.api("GET", "/v1/users/calm", &Value::Null);
    assert_eq!(status, 200);
}

/// Bodies that are refused leave nothing behind: what was sent in all is far more than what the server may hold more.
#[test]
#[cfg(target_os = "linux")]
fn bad_input_does_not_grow_the_memory() {
    const ROUNDS: usize = 1_000;
    const BODY_KIB: usize = 48;
    const MORE_KIB_MAX: u64 = 32 * 1024;
    let demo = Demo::start();
    let bearer = format!("Bearer {}", demo.fact("server_key"));
    let flood = |rounds: usize| {
        for n in 0..rounds {
            let junk = format!("{n:08}").repeat(BODY_KIB * 128);
            let unknown =
                json!({ "to": { "user": "u" }, "notification": { "title": "t" }, "odd": junk });
            let headers = [
                ("authorization", bearer.as_str()),
                ("content-type", "application/json"),
            ];
            for (path, headers) in [
                ("/v1/messages".to_owned(), &headers[..]),
                (format!("/v1/devices/d{n}/tokens/odd"), &headers[1..]),
                (format!("/v1/callbacks/demo/odd{n}?c=x"), &headers[1..]),
            ] {
                let body = unknown.to_string();
                let (status, _) =
                    try_http("POST", &demo.fact("api"), &path, headers, body.as_bytes()).unwrap();
                assert!((400..500).contains(&status), "{status} for {path}");
            }
        }
    };
    // What a server makes once: connections, buffers, the allocator's own.
    flood(50);
    let before = demo.resident_kib();
    flood(ROUNDS);
    let more = demo.resident_kib().saturating_sub(before);
    let sent = ROUNDS * 3 * BODY_KIB;
    println!("{more} KiB more after {sent} KiB of bad input");
    assert!(
        more < MORE_KIB_MAX,
        "{more} KiB more after {sent} KiB of bad input"
    );
}
