//! Receipts from vendors, and the quotas that they and the limits make.

use http::Method;
use serde_json::{Value, json};

use crate::world::world;

#[tokio::test]
async fn a_callback_needs_a_proof_and_is_answered_as_the_vendor_wants() {
    let w = world().await;
    let path = format!("/v1/callbacks/{}/vivo?c=second&k=secret&more=1", w.app());
    let said = w.call(Method::POST, &path, "", json!({"1": {}})).await;
    assert_eq!(said.status, 200);
    let body = String::from_utf8_lossy(&said.body).into_owned();
    assert_eq!(body, format!("vivo POST {path} {{\"1\":{{}}}}"));
    let forged = format!("/v1/callbacks/{}/vivo?k=guess", w.app());
    w.call(Method::POST, &forged, "", json!({}))
        .await
        .problem(403, "forbidden");
    let wrong = format!("/v1/callbacks/{}/NO", w.app());
    w.call(Method::POST, &wrong, "", json!({}))
        .await
        .problem(400, "invalid_request");
}

#[tokio::test]
async fn quotas_are_set_with_a_credential_and_reported() {
    let w = world().await;
    let path = "/v1/channels/apns/credentials/default";
    let limits = |quota: Value| json!({"config": {"key": "k"}, "limits": {"quota": quota}});
    let wrong = limits(json!({"per_day": 5, "reserved": 6}));
    w.call(Method::PUT, path, &w.server, wrong)
        .await
        .problem(422, "invalid");
    let right = limits(json!({"per_day": 100, "marketing_per_device": 2}));
    w.call(Method::PUT, path, &w.server, right)
        .await
        .expect(200);
    let read = w.get(path, &w.server).await.expect(200);
    assert_eq!(
        read["limits"]["quota"],
        json!({"per_day": 100, "reserved": null, "marketing_per_day": null, "marketing_per_device": 2})
    );
    let url = read["callback_url"].as_str().unwrap();
    assert!(
        url.starts_with("https://push.example/v1/callbacks/"),
        "{url}"
    );
    let report = w.get("/v1/reports/quota", &w.server).await.expect(200);
    let row = &report["credentials"][0];
    assert_eq!(row["used"], json!({"im": 3, "marketing": 60}));
    assert_eq!(row["reserved"], 17);
    assert_eq!(row["per_day_from"], "configured");
    assert_eq!(row["marketing_per_day_from"], "vendor");
    let named = json!([{"of": "marketing", "part": "", "limit": 80, "used": 61, "at": "1970-01-01T00:00:01.000Z"}]);
    assert_eq!(row["vendor"], named);
    assert_eq!(row["marketing_runs_out_at"], "1970-01-01T11:06:40.000Z");
    assert_eq!(row["runs_out_at"], Value::Null);
    assert_eq!(row["closed_until"], "1970-01-01T00:00:50.000Z");
    let closed = json!({"im": {"until": "1970-01-01T00:00:50.000Z", "why": "over"}});
    assert_eq!(row["closed"], closed);
}
