//! Traces, reports and the live tail.

use hongyan_core::{Event, MessageId, Reason, Stage};
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::http_client::open;
use crate::services::ended;
use crate::world::{PATIENCE, World, world};

/// A message to u1 that reached d1 and was dropped for d2.
async fn story(w: &World) -> (String, MessageId) {
    let id = w.send("u1").await;
    let message = MessageId::parse(&id).unwrap();
    let event = |stage| w.services.event(&w.app(), message, stage);
    let vendor = |event: Event| Event {
        channel: Some("apns".parse().unwrap()),
        ..event
    };
    w.events(vec![
        ended(event(Stage::Delivered), "d1", "u1", Reason::Delivered),
        vendor(Event {
            r#final: false,
            ..ended(event(Stage::Retried), "d2", "u1", Reason::VendorUnavailable)
        }),
        vendor(ended(
            event(Stage::Dropped),
            "d2",
            "u1",
            Reason::PayloadTooLarge,
        )),
    ])
    .await;
    (id, message)
}

fn stages(trace: &Value) -> Vec<&str> {
    trace["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["stage"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn traces_of_a_message_a_user_and_a_device() {
    let w = world().await;
    let (id, _) = story(&w).await;
    let all = w
        .get(&format!("/v1/messages/{id}/trace"), &w.server)
        .await
        .expect(200);
    assert_eq!(
        stages(&all),
        ["accepted", "delivered", "retried", "dropped"]
    );
    let last = &all["events"][3];
    assert_eq!(
        (&last["reason"], &last["channel"]),
        (&json!("payload_too_large"), &json!("apns"))
    );
    assert_eq!(
        (&last["final"], &last["device"]),
        (&json!(true), &json!("d2"))
    );
    let get = async |path: String| w.get(&path, &w.server).await.expect(200);
    let of_device = get(format!("/v1/messages/{id}/trace?device=d2")).await;
    assert_eq!(stages(&of_device), ["retried", "dropped"]);
    let of_user = get(format!("/v1/messages/{id}/trace?user=u1")).await;
    assert_eq!(stages(&of_user), ["delivered", "retried", "dropped"]);
    assert_eq!(stages(&get("/v1/users/u1/trace".to_owned()).await).len(), 3);
    assert_eq!(
        stages(&get("/v1/devices/d1/trace".to_owned()).await),
        ["delivered"]
    );
    let page = get(format!("/v1/messages/{id}/trace?limit=3")).await;
    let rest = get(format!("/v1/messages/{id}/trace?after={}", page["next"])).await;
    assert_eq!(
        (stages(&rest), &rest["next"]),
        (vec!["dropped"], &Value::Null)
    );
    let both = format!("/v1/messages/{id}/trace?user=u1&device=d1");
    w.get(&both, &w.server)
        .await
        .problem(400, "invalid_request");
}

#[tokio::test]
async fn reports_count_by_stage_reason_and_channel() {
    let w = world().await;
    let (id, _) = story(&w).await;
    let funnel = w.get("/v1/reports/funnel", &w.server).await.expect(200);
    assert_eq!(
        (&funnel["from"], &funnel["to"]),
        (&json!("2026-02-23"), &json!("2026-03-01"))
    );
    let count = |report: &Value, stage: &str| {
        let stages = report["stages"].as_array().unwrap().clone();
        stages
            .iter()
            .find(|s| s["stage"] == stage)
            .map_or(0, |s| s["count"].as_u64().unwrap())
    };
    assert_eq!(
        (count(&funnel, "accepted"), count(&funnel, "delivered")),
        (1, 1)
    );
    assert_eq!(
        funnel["reasons"],
        json!({"delivered": 1, "payload_too_large": 1})
    );
    let of_message = w
        .get(&format!("/v1/reports/funnel?message={id}"), &w.server)
        .await
        .expect(200);
    assert_eq!(of_message["stages"], funnel["stages"]);
    let by = w
        .get("/v1/reports/funnel?by=channel&class=im", &w.server)
        .await
        .expect(200);
    let names: Vec<_> = by["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["name"].clone())
        .collect();
    assert_eq!(names, [json!("apns"), json!("connection")]);
    let apns = w
        .get("/v1/reports/funnel?channel=apns", &w.server)
        .await
        .expect(200);
    assert_eq!((count(&apns, "retried"), count(&apns, "delivered")), (1, 0));
    let channels = w
        .get("/v1/reports/channels?from=2026-03-01", &w.server)
        .await
        .expect(200);
    let row = &channels["channels"][0];
    assert_eq!(
        (&row["channel"], &row["retried"], &row["dropped"]),
        (&json!("apns"), &json!(1), &json!(1))
    );
    assert_eq!(
        row["reasons"],
        json!({"payload_too_large": 1, "vendor_unavailable": 1})
    );
    let empty = w
        .get(
            "/v1/reports/channels?from=2026-02-01&to=2026-02-02",
            &w.server,
        )
        .await;
    assert_eq!(empty.expect(200)["channels"], json!([]));
    for query in [
        "from=today",
        "from=2026-03-02&to=2026-03-01",
        "from=2025-01-01",
        "day=1",
    ] {
        let answer = w
            .get(&format!("/v1/reports/funnel?{query}"), &w.server)
            .await;
        answer.problem(400, "invalid_request");
    }
}

/// A reader of the live tail.
struct Tail {
    body: Incoming,
    text: String,
}

impl Tail {
    async fn open(w: &World, query: &str, last: Option<&str>) -> Self {
        let mut request = Request::builder()
            .method(Method::GET)
            .uri(format!("/v1/events{query}"))
            .header("authorization", format!("Bearer {}", w.server));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let answer = open(w.address, request.body(Full::default()).unwrap()).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        assert_eq!(answer.headers()["cache-control"], "no-store");
        let mut tail = Self {
            body: answer.into_body(),
            text: String::new(),
        };
        assert!(
            tail.block().await.unwrap().starts_with(": "),
            "a first comment at once"
        );
        tail
    }

    /// The next block; `None` at the end of the stream.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                return Some(block);
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame())
                .await
                .unwrap()?;
            let data = frame.unwrap().into_data().unwrap();
            self.text.push_str(std::str::from_utf8(&data).unwrap());
        }
    }

    /// The next event: its id and what it says.
    async fn event(&mut self) -> (String, Value) {
        let block = self.block().await.unwrap();
        let (id, data) = block.split_once('\n').unwrap();
        let data = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        (id.strip_prefix("id: ").unwrap().to_owned(), data)
    }
}

#[tokio::test]
async fn the_tail_tells_what_happens_and_goes_on_where_it_was() {
    let w = world().await;
    w.send("before").await;
    let mut tail = Tail::open(&w, "", None).await;
    let first = w.send("u1").await;
    let (id, event) = tail.event().await;
    assert_eq!(
        (&event["message"], &event["stage"]),
        (&json!(first), &json!("accepted"))
    );
    assert_eq!(event["seq"].to_string(), id);
    drop(tail);
    let (second, third) = (w.send("u1").await, w.send("u1").await);
    let mut tail = Tail::open(&w, "", Some(&id)).await;
    assert_eq!(tail.event().await.1["message"], second);
    assert_eq!(tail.event().await.1["message"], third);
    let mut all = Tail::open(&w, "?after=0", None).await;
    let (before, _) = all.event().await;
    assert!(before.parse::<u64>().unwrap() < id.parse().unwrap());
}

#[tokio::test]
async fn the_tail_is_filtered_and_sees_one_app_only() {
    let w = world().await;
    w.make_app("other").await;
    let key = w.make_key("other", json!({})).await;
    let mut tail = Tail::open(&w, "?user=u1&after=0", None).await;
    let mut whole = Tail::open(&w, "?after=0", None).await;
    let body = json!({"to": {"user": "u1"}, "data": {}});
    w.post("/v1/messages", &key, body).await.expect(202);
    let (id, _) = story(&w).await;
    assert_eq!(tail.event().await.1["stage"], "delivered");
    assert_eq!(whole.event().await.1["message"], id);
    for query in ["?user=u1&device=d1", "?message=x", "?after=x", "?all=1"] {
        w.get(&format!("/v1/events{query}"), &w.server)
            .await
            .problem(400, "invalid_request");
    }
    let ahead = w.get("/v1/events?after=1000000", &w.server).await;
    let problem = ahead.problem(400, "bad_cursor");
    assert_eq!(problem["errors"][0]["path"], "query.after");
    assert!(problem.to_string().contains("leave it out"), "{problem}");
    let headers = [("last-event-id", "1000000")];
    let ahead = crate::http_client::call(
        w.address,
        Method::GET,
        "/v1/events",
        &w.server,
        &headers,
        "",
    );
    ahead.await.fault(400, "bad_cursor", "Last-Event-ID");
    let headers = [("last-event-id", "forged")];
    let bad = crate::http_client::call(
        w.address,
        Method::GET,
        "/v1/events",
        &w.server,
        &headers,
        "",
    );
    bad.await.problem(400, "bad_cursor");
}

#[tokio::test]
async fn the_tail_ends_when_the_server_stops() {
    let mut w = world().await;
    let mut tail = Tail::open(&w, "", None).await;
    w.stop.take().unwrap().send(()).unwrap();
    assert_eq!(tail.block().await, None);
    drop(tail);
    tokio::time::timeout(PATIENCE, w.served.take().unwrap())
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn the_tail_ends_when_its_key_is_deleted() {
    let options = hongyan_api::Options {
        // It is told, and does not wait until it would look by itself.
        cache_ttl: std::time::Duration::from_secs(3_600),
        ..Default::default()
    };
    let mut w = crate::world::world_with(options, None).await;
    let made = w
        .post("/v1/apps/demo/keys", &w.admin, json!({"scopes": ["read"]}))
        .await
        .expect(201);
    let sender = std::mem::replace(&mut w.server, made["secret"].as_str().unwrap().to_owned());
    let mut tail = Tail::open(&w, "", None).await;
    w.server = sender;
    w.send("u1").await;
    tail.event().await;
    let path = format!("/v1/apps/demo/keys/{}", made["id"].as_str().unwrap());
    w.call(Method::DELETE, &path, &w.admin, Value::Null)
        .await
        .expect(204);
    assert_eq!(tail.block().await, None);
}
