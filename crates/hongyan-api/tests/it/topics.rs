//! Topics: single and bulk subscriptions.

use http::Method;
use serde_json::{Value, json};

use crate::world::world;

#[tokio::test]
async fn devices_subscribe_and_unsubscribe() {
    let w = world().await;
    let token = w.register("d1").await;
    let path = "/v1/topics/news%2Fsport/subscribers/d1";
    w.call(Method::PUT, path, &token, Value::Null)
        .await
        .expect(204);
    w.call(Method::PUT, path, &w.server, Value::Null)
        .await
        .expect(204);
    let device = w.get("/v1/devices/d1", &token).await.expect(200);
    assert_eq!(device["topics"], json!(["news/sport"]));
    let list = "/v1/topics/news%2Fsport/subscribers";
    assert_eq!(
        w.get(list, &w.server).await.expect(200)["items"],
        json!(["d1"])
    );
    w.call(Method::DELETE, path, &token, Value::Null)
        .await
        .expect(204);
    assert_eq!(w.get(list, &w.server).await.expect(200)["items"], json!([]));
    let other = "/v1/topics/news/subscribers/d2";
    w.call(Method::PUT, other, &token, Value::Null)
        .await
        .problem(403, "forbidden");
    w.call(Method::PUT, other, &w.server, Value::Null)
        .await
        .problem(404, "not_found");
    let bad = "/v1/topics/a%20b/subscribers/d1";
    w.call(Method::PUT, bad, &token, Value::Null)
        .await
        .fault(400, "invalid_request", "topic");
}

#[tokio::test]
async fn many_at_once_and_pages() {
    let w = world().await;
    for id in ["d1", "d2", "d3"] {
        w.register(id).await;
    }
    let path = "/v1/topics/news/subscribers";
    let body = json!({"subscribe": ["d1", "ghost", "d2", "d3"]});
    let done = w.post(path, &w.server, body).await.expect(200);
    assert_eq!(done["subscribed"], 3);
    assert_eq!(done["refused"][0]["device_id"], "ghost");
    let page = w
        .get(&format!("{path}?limit=2"), &w.server)
        .await
        .expect(200);
    assert_eq!(
        (&page["items"], &page["next"]),
        (&json!(["d1", "d2"]), &json!("d2"))
    );
    let page = w
        .get(&format!("{path}?limit=2&after=d2"), &w.server)
        .await
        .expect(200);
    assert_eq!(
        (&page["items"], &page["next"]),
        (&json!(["d3"]), &Value::Null)
    );
    w.post(path, &w.server, json!({"unsubscribe": ["d1", "d2"]}))
        .await
        .expect(200);
    assert_eq!(
        w.get(path, &w.server).await.expect(200)["items"],
        json!(["d3"])
    );
    let many: Vec<String> = (0..10_001).map(|n| format!("d{n}")).collect();
    w.post(path, &w.server, json!({"subscribe": many}))
        .await
        .fault(422, "invalid", "subscribe");
}

#[tokio::test]
async fn a_device_has_a_bounded_number_of_topics() {
    let w = world().await;
    let token = w.register("d1").await;
    let devices = ["d1".parse().unwrap()];
    for n in 0..200 {
        let topic = format!("t{n}").parse().unwrap();
        w.engine
            .registry()
            .subscribe(&w.app(), &topic, &devices)
            .await
            .unwrap();
    }
    let put = async |topic: &str| {
        let path = format!("/v1/topics/{topic}/subscribers/d1");
        w.call(Method::PUT, &path, &token, Value::Null).await
    };
    put("t7").await.expect(204);
    put("t200").await.fault(422, "invalid", "topic");
    let body = json!({"subscribe": ["d1"]});
    let done = w
        .post("/v1/topics/t201/subscribers", &w.server, body)
        .await
        .expect(200);
    assert_eq!(
        (
            &done["subscribed"],
            done["refused"].as_array().unwrap().len()
        ),
        (&json!(0), 1)
    );
}
