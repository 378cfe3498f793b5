//! The API client and the device's HTTP calls over real sockets.

use std::time::Duration;

use bytes::Bytes;
use hongyan_client::net::Tls;
use hongyan_client::{
    Admin, ClientEvent, DeviceInfo, DeviceSession, Error, EventKind, NewChannel, Options,
    Registered,
};
use serde_json::json;

use crate::http_server::{Reply, Server};

fn ok(value: &serde_json::Value) -> Reply {
    Reply::Text(200, "application/json", value.to_string())
}

#[tokio::test]
async fn a_send_that_broke_is_repeated_under_its_key() {
    let server = Server::start([Reply::Cut, ok(&json!({"id": "m1"}))]).await;
    let admin = Admin::new(&server.base, "hy_sk_x").unwrap();
    let sent = admin.send(&json!({"to": {"user": "u1"}})).await.unwrap();
    assert_eq!(sent.id, "m1");
    let asked = server.asked();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0].line, "POST /v1/messages");
    assert_eq!(asked[0].authorization, "Bearer hy_sk_x");
    assert!(asked[0].idempotency_key.is_some());
    assert_eq!(asked[0].idempotency_key, asked[1].idempotency_key);
    assert_eq!(asked[0].body, asked[1].body);
}

#[tokio::test]
async fn an_unsafe_call_that_broke_is_not_repeated() {
    let server = Server::start([Reply::Cut, ok(&json!({}))]).await;
    let admin = Admin::new(&server.base, "k").unwrap();
    let error = admin.create_app(&json!({"id": "shop"})).await.unwrap_err();
    assert!(matches!(error, Error::Broken { .. }), "{error}");
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn problems_are_told_with_their_fields() {
    let problem = json!({"type": "about:blank", "title": "invalid body", "status": 422,
        "code": "invalid_body", "detail": "one field is wrong",
        "errors": [{"path": "options.ttl", "message": "must be at least 1"}]});
    let reply = Reply::Text(422, "application/problem+json", problem.to_string());
    let server = Server::start([reply]).await;
    let admin = Admin::new(&server.base, "k").unwrap();
    let error = admin.explain(&json!({})).await.unwrap_err();
    assert_eq!(
        (error.status(), error.code()),
        (Some(422), Some("invalid_body"))
    );
    assert!(
        error
            .to_string()
            .contains("options.ttl: must be at least 1"),
        "{error}"
    );
}

#[tokio::test]
async fn nobody_there_and_no_answer_are_different_errors() {
    let nobody = Admin::new("http://127.0.0.1:1", "k").unwrap();
    let error = nobody.health().await.unwrap_err();
    assert!(
        error.nothing_happened() && matches!(error, Error::Unreachable { .. }),
        "{error}"
    );
    let server = Server::start([Reply::Silence]).await;
    let limit = Duration::from_millis(50);
    let admin = Admin::with(&server.base, "k", Tls::default(), limit).unwrap();
    let error = admin.apps().await.unwrap_err();
    assert!(
        !error.nothing_happened() && matches!(error, Error::Timeout { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn names_cannot_leave_their_place_in_the_path() {
    let server = Server::start([ok(&json!({}))]).await;
    let admin = Admin::new(&server.base, "k").unwrap();
    admin.user("a/../b?c").await.unwrap();
    assert_eq!(server.asked()[0].line, "GET /v1/users/a%2F..%2Fb%3Fc");
}

#[tokio::test]
async fn the_tail_resumes_where_it_broke_off() {
    let stream = |text: &str| Reply::Text(200, "text/event-stream", text.to_owned());
    let server = Server::start([
        stream("retry: 1\nid: 1\nevent: a\ndata: {\"n\":1}\n\nid: 2\ndata: x\n\nid: 3\ndata: cut"),
        Reply::Text(503, "text/plain", String::new()),
        stream("id: 3\ndata: whole\n\n"),
        Reply::Text(204, "text/plain", String::new()),
    ])
    .await;
    let admin = Admin::new(&server.base, "k").unwrap();
    let mut tail = admin.events(&[("app", Some("demo"))], None);
    let mut got = Vec::new();
    while let Some(event) = tail.next().await.unwrap() {
        got.push(format!("{} {} {}", event.id, event.event, event.data));
    }
    assert_eq!(got, ["1 a {\"n\":1}", "2 message x", "3 message whole"]);
    let resumed: Vec<_> = server
        .asked()
        .into_iter()
        .map(|a| a.last_event_id)
        .collect();
    let two = Some("2".to_owned());
    assert_eq!(resumed, [None, two.clone(), two, Some("3".to_owned())]);
}

#[tokio::test]
async fn devices_go_in_and_out_as_lines() {
    let lines = Reply::Text(200, "application/x-ndjson", "a\r\n\nb".to_owned());
    let server = Server::start([ok(&json!({"lines": 2, "failed": 0})), lines]).await;
    let admin = Admin::new(&server.base, "k").unwrap();
    let pieces = [
        Bytes::from_static(b"{\"device_"),
        Bytes::from_static(b"id\":1}\n{}\n"),
    ];
    let pieces = futures_util::stream::iter(pieces.map(Ok));
    let answer = admin.import_devices(pieces, 7).await.unwrap();
    assert_eq!(answer["lines"], 2);
    assert_eq!(
        server.asked()[0].line,
        "POST /v1/devices/import?from_line=7"
    );
    assert_eq!(server.asked()[0].body, "{\"device_id\":1}\n{}\n");
    let mut export = admin.export_devices(Some("d 1")).await.unwrap();
    assert_eq!(export.next_line().await.unwrap().unwrap(), "a");
    assert_eq!(export.next_line().await.unwrap().unwrap(), "b");
    assert_eq!(export.next_line().await.unwrap(), None);
    assert_eq!(server.asked()[1].line, "GET /v1/devices/export?after=d%201");
}

#[tokio::test]
async fn a_device_registers_and_then_acts_with_its_token() {
    let registered = json!({"device_id": "d1", "device_token": "secret-token"});
    let none = || Reply::Text(204, "text/plain", String::new());
    let server = Server::start([ok(&registered), none(), none(), none(), none()]).await;
    let options = Options::new(&server.base).unwrap();
    let info = DeviceInfo {
        platform: "android".into(),
        ..DeviceInfo::default()
    };
    let (device, registered) = DeviceSession::register(&options, "hy_pk_x", &info)
        .await
        .unwrap();
    assert!(!format!("{registered:?} {device:?}").contains("secret-token"));
    device
        .put_token("fcm", "tok", None, Some("main"))
        .await
        .unwrap();
    device.login("u1", None).await.unwrap();
    let event = ClientEvent {
        id: "m1".into(),
        kind: EventKind::Clicked,
        at: "2026-01-01T00:00:00Z".parse().unwrap(),
    };
    device.client_events(&[event]).await.unwrap();
    device.logout().await.unwrap();
    let asked = server.asked();
    let lines: Vec<_> = asked.iter().map(|a| a.line.as_str()).collect();
    assert_eq!(
        lines,
        [
            "POST /v1/devices",
            "PUT /v1/devices/d1/tokens/fcm",
            "POST /v1/devices/d1/login",
            "POST /v1/client-events",
            "POST /v1/devices/d1/logout"
        ]
    );
    assert_eq!(asked[0].authorization, "Bearer hy_pk_x");
    assert_eq!(asked[1].authorization, "Bearer secret-token");
    assert_eq!(asked[1].body, r#"{"credential":"main","token":"tok"}"#);
    assert_eq!(
        asked[3].body,
        r#"[{"id":"m1","kind":"clicked","at":"2026-01-01T00:00:00Z"}]"#
    );
}

#[tokio::test]
async fn a_device_opens_lists_and_closes_its_channels() {
    let channel = json!({"channel": "c1", "endpoint": "https://push.example/up/secret",
        "bound": false, "created_at": "2026-01-01T00:00:00Z"});
    let gone = Reply::Text(404, "application/problem+json", "{}".to_owned());
    let server = Server::start([
        Reply::Cut,
        ok(&channel),
        ok(&json!({"items": [channel]})),
        Reply::Text(204, "", String::new()),
        gone,
    ])
    .await;
    let options = Options::new(&server.base).unwrap();
    let registered = json!({"device_id": "d1", "device_token": "hy_dt_x"});
    let registered: Registered = serde_json::from_value(registered).unwrap();
    let device = DeviceSession::resume(&options, &registered);
    let new = NewChannel {
        token_hash: Some("h".to_owned()),
        ..NewChannel::default()
    };
    let opened = device.open_channel(&new).await.unwrap();
    assert_eq!(opened.endpoint, "https://push.example/up/secret");
    assert!(!format!("{opened:?}").contains("secret"));
    assert_eq!(device.channels().await.unwrap(), [opened]);
    device.close_channel("c1").await.unwrap();
    device.close_channel("c1").await.unwrap();
    let asked: Vec<_> = server
        .asked()
        .into_iter()
        .map(|a| (a.line, a.body))
        .collect();
    let open = (
        "POST /v1/devices/d1/channels".to_owned(),
        r#"{"token_hash":"h"}"#.to_owned(),
    );
    let close = (
        "DELETE /v1/devices/d1/channels/c1".to_owned(),
        String::new(),
    );
    let list = ("GET /v1/devices/d1/channels".to_owned(), String::new());
    assert_eq!(asked, [open.clone(), open, list, close.clone(), close]);
}
