//! The description of the API: complete, and changed only on purpose.

use std::path::Path;

use serde_json::{Value, json};

use crate::world::world;

/// `HONGYAN_REFRESH=1 cargo test -p hongyan-api openapi` writes the file anew.
#[test]
fn the_document_is_the_committed_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/openapi.json");
    let now = format!("{}\n", hongyan_api::openapi::text());
    if std::env::var_os("HONGYAN_REFRESH").is_some() {
        std::fs::write(&path, &now).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == now,
        "the API changed; look at it, then refresh {}",
        path.display()
    );
}

/// Every reference in the document, with where it stands.
fn references(at: &str, value: &Value, out: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                if let ("$ref", Some(to)) = (name.as_str(), field.as_str()) {
                    out.push((at.to_owned(), to.to_owned()));
                }
                references(&format!("{at}/{name}"), field, out);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(at, item, out)),
        _ => {}
    }
}

#[test]
fn the_document_is_whole() {
    let api = hongyan_api::openapi::value();
    assert_eq!(api["openapi"], "3.1.1");
    let mut all = Vec::new();
    references("", api, &mut all);
    assert!(all.len() > 50);
    for (at, to) in all {
        let target = to
            .strip_prefix('#')
            .and_then(|pointer| api.pointer(pointer));
        assert!(target.is_some(), "{at} points to {to}, which is not there");
    }
    let mut ids = Vec::new();
    for (path, methods) in api["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let text = |field: &str| operation[field].as_str().unwrap_or_default().to_owned();
            assert!(
                !text("summary").is_empty() && !text("description").is_empty(),
                "{method} {path}"
            );
            ids.push(text("operationId"));
            for parameter in operation["parameters"].as_array().unwrap() {
                let words = parameter["description"].as_str().unwrap_or_default();
                assert!(
                    parameter["in"] == "path" || !words.is_empty(),
                    "{method} {path} {parameter}"
                );
            }
        }
    }
    let count = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), count, "operation ids are unique");
}

/// The routes that the design names; the document has them all, and the server answers every route of the document.
#[tokio::test]
async fn every_route_is_described_and_every_description_answers() {
    let w = world().await;
    let api = hongyan_api::openapi::value();
    for (method, path) in [
        ("post", "/v1/apps"),
        ("get", "/v1/apps/{app}"),
        ("patch", "/v1/apps/{app}"),
        ("delete", "/v1/apps/{app}"),
        ("post", "/v1/apps/{app}/keys"),
        ("get", "/v1/apps/{app}/keys"),
        ("delete", "/v1/apps/{app}/keys/{key}"),
        ("put", "/v1/channels/{channel}/credentials/{name}"),
        ("get", "/v1/channels/{channel}/credentials"),
        ("post", "/v1/channels/{channel}/credentials/{name}/check"),
        ("post", "/v1/devices"),
        ("patch", "/v1/devices/{device}"),
        ("put", "/v1/devices/{device}/tokens/{channel}"),
        ("post", "/v1/devices/{device}/login"),
        ("post", "/v1/devices/{device}/logout"),
        ("post", "/v1/devices/{device}/kick"),
        ("post", "/v1/devices/import"),
        ("get", "/v1/devices/export"),
        ("put", "/v1/users/{user}"),
        ("get", "/v1/users/{user}/presence"),
        ("post", "/v1/topics/{topic}/subscribers"),
        ("put", "/v1/topics/{topic}/subscribers/{device}"),
        ("post", "/v1/messages"),
        ("post", "/v1/messages/batch"),
        ("post", "/v1/messages/explain"),
        ("get", "/v1/messages/{message}"),
        ("get", "/v1/messages/{message}/trace"),
        ("get", "/v1/users/{user}/trace"),
        ("get", "/v1/devices/{device}/trace"),
        ("post", "/v1/messages/{message}/recall"),
        ("get", "/v1/reports/funnel"),
        ("get", "/v1/reports/channels"),
        ("get", "/v1/events"),
        ("get", "/v1/connect"),
        ("post", "/v1/acks"),
        ("post", "/v1/client-events"),
        ("get", "/healthz"),
        ("get", "/readyz"),
        ("get", "/metrics"),
        ("get", "/openapi.json"),
    ] {
        assert!(
            api["paths"][path][method].is_object(),
            "{method} {path} is not described"
        );
    }
    for (path, methods) in api["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let real = path.replace(['{', '}'], "");
            let method = method.to_uppercase().parse().unwrap();
            let answer = w.call(method, &real, "", Value::Null).await;
            // Without a key every route that needs one says 401: it is there.
            let open = operation["security"] == json!([]);
            // A stream looks itself, as a ticket in the query will do.
            let asks = !open || path == "/v1/stream";
            assert_eq!(answer.status == 401, asks, "{path}: {}", answer.status);
            assert!(
                answer.status != 404 && answer.status != 405,
                "{path}: {}",
                answer.status
            );
        }
    }
}

#[tokio::test]
async fn the_node_describes_itself() {
    let w = world().await;
    assert_eq!(w.get("/healthz", "").await.expect(200)["status"], "ok");
    assert_eq!(w.get("/readyz", "").await.expect(200)["status"], "ready");
    w.api.set_ready(false);
    w.get("/readyz", "").await.problem(503, "unavailable");
    w.get("/healthz", "").await.expect(200);
    let metrics = w.get("/metrics", "").await;
    assert!(
        metrics
            .header("content-type")
            .starts_with("text/plain; version=0.0.4")
    );
    assert!(String::from_utf8_lossy(&metrics.body).contains("up 1"));
    assert_eq!(
        w.get("/openapi.json", "").await.expect(200),
        *hongyan_api::openapi::value()
    );
    let page = w.get("/docs", "").await;
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    let page = String::from_utf8(page.body.to_vec()).unwrap();
    for outside in [
        "<script",
        "src=",
        "http://cdn",
        "https://cdn",
        "@import",
        "<link",
    ] {
        assert!(
            !page.contains(outside),
            "the page needs nothing else: {outside}"
        );
    }
    for anchor in [
        "id=\"post_messages\"",
        "id=\"idempotency_key_reused\"",
        "collapse_key",
        "hy_dt_",
    ] {
        assert!(page.contains(anchor), "{anchor}");
    }
}

/// What is left out of an answer when there is nothing to say is not promised; what is always there is.
#[test]
fn replies_promise_what_they_always_hold() {
    let schemas = &hongyan_api::openapi::value()["components"]["schemas"];
    let required = |name: &str, field: &str| {
        let schema = &schemas[name];
        assert!(schema["properties"][field].is_object(), "{name} {field}");
        let required = schema["required"].as_array();
        required.is_some_and(|all| all.contains(&json!(field)))
    };
    for (name, field) in [
        ("Event", "reason"),
        ("Event", "platform"),
        ("ShownToken", "environment"),
        ("ShownToken", "reason"),
        ("Polled", "reset"),
        ("Polled", "superseded"),
        ("Polled", "recalled"),
        ("Problem", "errors"),
        ("DeliveryItem", "reason"),
        ("DevicePresence", "state"),
    ] {
        assert!(!required(name, field), "{name} may be without {field}");
    }
    assert!(
        !required("Policy", "timezone"),
        "a request may leave it out"
    );
    assert!(required("PolicyReply", "timezone"), "an answer has it");
    let states = &schemas["DeliveryItem"]["properties"]["state"]["enum"];
    let states = states.as_array().unwrap();
    assert!(states.contains(&json!("awaiting_receipt")), "{states:?}");
}
