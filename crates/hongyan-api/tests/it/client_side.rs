//! Acks and client events over HTTP, and the way to the live connection.

use hongyan_core::port::{Clock, Reader};
use hongyan_core::session::SessionSaid;
use hongyan_core::{Cursor, MessageId, Stage};
use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::http_client::call;
use crate::services::PLACE;
use crate::world::{NOON, PATIENCE, World, world};

async fn phone(w: &World) -> (String, Reader) {
    let token = w.register("d1").await;
    w.post("/v1/devices/d1/login", &token, json!({"user": "u1"}))
        .await
        .expect(204);
    let reader = Reader {
        app: w.app(),
        device: "d1".parse().unwrap(),
        user: Some("u1".parse().unwrap()),
    };
    (token, reader)
}

#[tokio::test]
async fn acks_reach_inbox_and_services() {
    let w = world().await;
    let (token, reader) = phone(&w).await;
    let ids = [w.send("u1").await, w.send("u1").await, w.send("u1").await];
    let page = w
        .engine
        .inbox()
        .read(&reader, None, 10, w.clock.now())
        .await
        .unwrap();
    assert_eq!(page.entries.len(), 3);
    let upto = page.entries[0].cursor.to_string();
    w.post("/v1/acks", &token, json!({"device": "d1", "upto": upto}))
        .await
        .expect(204);
    w.post(
        "/v1/acks",
        &token,
        json!({"ids": [ids[2], "unknown", uuid::Uuid::now_v7()]}),
    )
    .await
    .expect(204);
    w.post("/v1/acks", &token, json!({"ids": [ids[2]]}))
        .await
        .expect(204);
    let left = w
        .engine
        .inbox()
        .read(&reader, None, 10, w.clock.now())
        .await
        .unwrap();
    let left: Vec<String> = left
        .entries
        .iter()
        .map(|e| e.message.id.to_string())
        .collect();
    assert_eq!(left, [ids[1].clone()]);
    let heard: Vec<_> = w
        .services
        .heard
        .lock()
        .unwrap()
        .iter()
        .map(|e| e.what.clone())
        .collect();
    let acked = |id: &str| SessionSaid::Acked(vec![MessageId::parse(id).unwrap()]);
    assert_eq!(heard, [acked(&ids[0]), acked(&ids[2])], "each once");
}

#[tokio::test]
async fn bad_acks_are_refused() {
    let w = world().await;
    let (token, _) = phone(&w).await;
    let many: Vec<String> = (0..1001).map(|n| n.to_string()).collect();
    for (body, status, code) in [
        (json!({"upto": "not-a-cursor"}), 400, "bad_cursor"),
        (json!({}), 400, "invalid_request"),
        (json!({"upto": "x", "ids": []}), 400, "invalid_request"),
        (json!({"ids": many}), 400, "invalid_request"),
        (json!({"ids": [1]}), 400, "invalid_request"),
        (json!({"device": "d2", "ids": []}), 403, "forbidden"),
    ] {
        w.post("/v1/acks", &token, body).await.problem(status, code);
    }
}

#[tokio::test]
async fn client_events_are_clamped_to_the_past() {
    let w = world().await;
    let (token, _) = phone(&w).await;
    let id = w.send("u1").await;
    let body = json!([
        {"id": id, "kind": "displayed", "at": "2026-03-01T11:59:00Z"},
        {"id": id, "kind": "clicked", "at": "2027-01-01T00:00:00Z"},
        {"id": id, "kind": "opened", "at": 1_000},
        {"id": id, "kind": "dismissed"},
    ]);
    w.post("/v1/client-events", &token, body).await.expect(204);
    let heard = w.services.heard.lock().unwrap().clone();
    let said: Vec<_> = heard
        .iter()
        .map(|event| match &event.what {
            SessionSaid::Client { stage, at, .. } => (*stage, NOON.since(*at).as_secs()),
            other => panic!("{other:?}"),
        })
        .collect();
    let age = NOON.since(hongyan_core::Timestamp(1_000)).as_secs();
    assert_eq!(
        said,
        [
            (Stage::Displayed, 60),
            (Stage::Clicked, 0),
            (Stage::Opened, age),
            (Stage::Dismissed, 0)
        ]
    );
    assert_eq!(heard[0].user, Some("u1".parse().unwrap()));
    for bad in [
        json!([{"id": "x", "kind": "clicked"}]),
        json!([{"id": id, "kind": "stolen"}]),
        json!([{"id": id, "kind": "clicked", "at": "soon"}]),
        json!({"events": []}),
    ] {
        w.post("/v1/client-events", &token, bad)
            .await
            .problem(400, "invalid_request");
    }
}

#[tokio::test]
async fn a_device_gets_a_ticket_and_nobody_else_does() {
    let w = world().await;
    let token = w.register("d1").await;
    let ticket = w.post("/v1/tickets", &token, Value::Null).await.expect(201);
    let text = ticket["ticket"].as_str().unwrap().to_owned();
    assert!(text.starts_with("hy_tk_"), "{text}");
    assert_eq!(ticket["expires_in"], 60);
    let by_server = w.post("/v1/tickets", &w.server, Value::Null).await;
    by_server.problem(403, "forbidden");
    // A ticket is no key.
    w.get("/v1/devices/d1", &text)
        .await
        .problem(401, "unauthorized");
}

#[tokio::test]
async fn a_socket_is_handed_over_with_what_came_early() {
    let w = world().await;
    let mut socket = TcpStream::connect(w.address).await.unwrap();
    let request = "GET /v1/connect HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\n\r\nearly bytes";
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, socket.read_to_end(&mut answer))
        .await
        .unwrap()
        .unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, greeting) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.to_lowercase().contains("\r\nupgrade: websocket"));
    assert!(
        head.to_lowercase()
            .contains("\r\nsec-websocket-protocol: echo")
    );
    assert_eq!(greeting, "echo:early bytes");
}

#[tokio::test]
async fn a_refused_socket_is_told_why() {
    let w = world().await;
    let base = [("connection", "upgrade"), ("upgrade", "websocket")];
    let connect = async |more: &[(&str, &str)]| {
        let headers = [&base[..], more].concat();
        call(w.address, Method::GET, "/v1/connect", "", &headers, "").await
    };
    let old = connect(&[("sec-websocket-version", "8")]).await;
    assert_eq!(old.header("sec-websocket-version"), "13");
    old.problem(426, "upgrade_required");
    let good = ("sec-websocket-version", "13");
    let page = ("origin", "https://a.example");
    connect(&[good, page])
        .await
        .problem(403, "origin_forbidden");
    let policy = json!({"policy": {"origins": ["https://a.example"]}});
    w.call(Method::PATCH, "/v1/apps/demo", &w.admin, policy)
        .await
        .expect(200);
    assert_eq!(connect(&[good, page]).await.status, 101);
    let plain = call(w.address, Method::GET, "/v1/connect", "", &[good], "").await;
    plain.problem(400, "invalid_request");
}

#[tokio::test]
async fn a_stream_is_open_ended_and_never_cached() {
    let w = world().await;
    let (token, _) = phone(&w).await;
    let answer = w
        .get("/v1/stream?ack=resume&inflight=9&device=d1", &token)
        .await;
    assert_eq!(answer.header("content-type"), "text/event-stream");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("x-accel-buffering"), "no");
    assert_eq!(answer.header("content-length"), "");
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    let data = text.strip_prefix("event: welcome\ndata: ").unwrap();
    let asked: Value = serde_json::from_str(data).unwrap();
    let want = json!({"who": "d1", "cursor": null, "inflight": 9, "resume": true, "origin": null});
    assert_eq!(asked, want);
}

#[tokio::test]
async fn a_stream_is_refused_before_it_begins() {
    let w = world().await;
    let (token, _) = phone(&w).await;
    for (path, key, status, code) in [
        ("/v1/stream", "", 401, "unauthorized"),
        ("/v1/stream?ticket=used", "", 401, "unauthorized"),
        ("/v1/stream?session=full", token.as_str(), 503, "busy"),
        ("/v1/stream?device=d2", &token, 403, "forbidden"),
        ("/v1/stream?inflight=0", &token, 400, "invalid_request"),
        ("/v1/stream?cursor=x", &token, 400, "bad_cursor"),
        ("/v1/stream?ack=never", &token, 400, "invalid_request"),
        ("/v1/stream?cursors=x", &token, 400, "invalid_request"),
        ("/v1/stream", &w.server, 403, "forbidden"),
    ] {
        w.get(path, key).await.problem(status, code);
    }
    let gone = w.get("/v1/stream?session=taken", &token).await;
    assert_eq!((gone.status.as_u16(), gone.body.len()), (204, 0));
    let ticket = w.get("/v1/stream?ticket=fresh", "").await;
    assert_eq!(ticket.status, 200);
}

#[tokio::test]
async fn a_poll_takes_its_wait_from_the_query_or_the_preference() {
    let w = world().await;
    let (token, _) = phone(&w).await;
    let answer = w.get("/v1/poll", &token).await;
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("retry-after"), "");
    let body = answer.expect(200);
    assert_eq!(
        body["messages"],
        json!([{"id": "d1", "wait_ms": 25_000, "limit": 100}])
    );
    assert_eq!(body["cursor"], PLACE.to_string());
    assert_eq!(
        (&body["more"], &body["reset"]),
        (&json!(true), &Value::Null)
    );
    let plain = w.get("/v1/poll?wait=0&limit=7", &token).await;
    assert_eq!(plain.header("retry-after"), "30");
    assert_eq!(plain.expect(200)["messages"][0]["limit"], 7);
    let other = Cursor { user: 9, ..PLACE };
    let first = w.get("/v1/poll?wait=0&cursor=", &token).await;
    assert!(first.expect(200)["messages"].is_array());
    let reset = w.get(&format!("/v1/poll?cursor={other}"), &token).await;
    assert_eq!(reset.expect(200)["reset"], true);
    for (path, key, status, code) in [
        ("/v1/poll", "", 401, "unauthorized"),
        ("/v1/poll?device=d2", token.as_str(), 403, "forbidden"),
        ("/v1/poll?wait=61", &token, 400, "invalid_request"),
        ("/v1/poll?limit=0", &token, 400, "invalid_request"),
        ("/v1/poll?limit=501", &token, 400, "invalid_request"),
        ("/v1/poll?cursor=x", &token, 400, "bad_cursor"),
    ] {
        w.get(path, key).await.problem(status, code);
    }
}
