//! Import and export, line by line.

use http::Method;
use serde_json::{Value, json};

use crate::http_client::{Answer, call};
use crate::world::{World, world};

const NDJSON: [(&str, &str); 1] = [("content-type", "application/x-ndjson")];

pub(crate) async fn import(w: &World, query: &str, lines: String) -> Answer {
    call(
        w.address,
        Method::POST,
        &format!("/v1/devices/import{query}"),
        &w.server,
        &NDJSON,
        lines,
    )
    .await
}

#[tokio::test]
async fn lines_are_written_and_faulty_ones_are_named() {
    let w = world().await;
    let lines = [
        r#"{"device_id":"d1","platform":"ios","user":"u1","tokens":[{"channel":"apns","token":"t1"}],"tags":["x"]}"#,
        "",
        r#"{"device_id":"d2","platform":"toaster"}"#,
        "not json",
        r#"{"device_id":"d3","platform":"web","timezone":"Moon"}"#,
        r#"{"device_id":"d4","platform":"android","extra":1}"#,
        r#"{"device_id":"d5","platform":"android","brand":"OPPO"}"#,
    ];
    let done = import(&w, "", lines.join("\n")).await.expect(200);
    assert_eq!(
        (&done["lines"], &done["imported"], &done["failed"]),
        (&json!(7), &json!(2), &json!(4))
    );
    assert_eq!(
        (&done["stored_up_to_line"], &done["stopped"]),
        (&json!(7), &Value::Null)
    );
    let mut faults: Vec<_> = done["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| {
            (
                e["line"].as_u64().unwrap(),
                e["path"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    faults.sort();
    let want = [(3, "platform"), (4, ""), (5, "timezone"), (6, "extra")];
    assert_eq!(faults, want.map(|(n, p)| (n, p.to_owned())));
    let device = w.get("/v1/devices/d1", &w.server).await.expect(200);
    assert_eq!(
        (&device["user"], &device["tags"]),
        (&json!("u1"), &json!(["x"]))
    );
    assert_eq!(
        w.get("/v1/devices/d5", &w.server).await.expect(200)["brand"],
        "oppo"
    );
}

#[tokio::test]
async fn a_device_that_exists_keeps_its_secret_and_changes_hands_properly() {
    let w = world().await;
    let token = w.register("d1").await;
    w.post("/v1/devices/d1/login", &token, json!({"user": "u1"}))
        .await
        .expect(204);
    let line = r#"{"device_id":"d1","platform":"ios","model":"new","user":"u2"}"#;
    for _ in 0..2 {
        let done = import(&w, "", format!("{line}\n")).await.expect(200);
        assert_eq!(done["imported"], 1);
        let device = w.get("/v1/devices/d1", &token).await.expect(200);
        assert_eq!(
            (&device["user"], &device["model"]),
            (&json!("u2"), &json!("new"))
        );
    }
}

#[tokio::test]
async fn what_was_exported_can_be_imported_and_interruptions_are_continued() {
    let w = world().await;
    let count = 1_234;
    let line = |n: usize| {
        format!(
            r#"{{"device_id":"d{n:05}","platform":"android","user":"u{}"}}"#,
            n % 7
        )
    };
    let all: Vec<String> = (0..count).map(line).collect();
    let done = import(&w, "", all[..700].join("\n")).await.expect(200);
    assert_eq!(done["imported"], 700);
    let done = import(&w, "?from_line=701", all.join("\n"))
        .await
        .expect(200);
    assert_eq!(
        (&done["lines"], &done["imported"]),
        (&json!(count), &json!(count - 700))
    );
    let export = async |query: &str| {
        let path = format!("/v1/devices/export{query}");
        let answer = w.get(&path, &w.server).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("content-type")),
            (200, "application/x-ndjson")
        );
        String::from_utf8(answer.body.to_vec()).unwrap()
    };
    let whole = export("").await;
    let ids: Vec<String> = whole
        .lines()
        .map(|l| {
            serde_json::from_str::<Value>(l).unwrap()["device_id"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(ids.len(), count);
    assert!(ids.is_sorted());
    assert_eq!(export("?after=d01000").await.lines().count(), count - 1001);
    w.make_app("copy").await;
    let key = w.make_key("copy", json!({})).await;
    let done = call(
        w.address,
        Method::POST,
        "/v1/devices/import",
        &key,
        &NDJSON,
        whole,
    )
    .await
    .expect(200);
    assert_eq!(
        (&done["imported"], &done["failed"]),
        (&json!(count), &json!(0))
    );
    let page = w
        .get("/v1/devices?limit=1000&after=d00500", &key)
        .await
        .expect(200);
    assert_eq!(page["items"].as_array().unwrap().len(), count - 501);
}

#[tokio::test]
async fn a_line_without_end_does_not_fill_the_memory() {
    let w = world().await;
    let good = r#"{"device_id":"d1","platform":"ios"}"#;
    let done = import(&w, "", format!("{good}\n{}", "x".repeat(70_000)))
        .await
        .expect(200);
    assert_eq!(
        (&done["imported"], &done["stored_up_to_line"]),
        (&json!(1), &json!(1))
    );
    assert!(done["stopped"].as_str().unwrap().contains("line 2"));
    let wrong = [("content-type", "application/json")];
    let answer = call(
        w.address,
        Method::POST,
        "/v1/devices/import",
        &w.server,
        &wrong,
        good,
    )
    .await;
    answer.problem(415, "unsupported_media_type");
}

async fn exported(w: &World, key: &str) -> String {
    let answer = w.get("/v1/devices/export", key).await;
    assert_eq!(answer.status.as_u16(), 200);
    String::from_utf8(answer.body.to_vec()).unwrap()
}

#[tokio::test]
async fn an_export_that_is_imported_elsewhere_exports_the_same() {
    let w = world().await;
    let lines = [
        r#"{"device_id":"d1","platform":"ios","permission":"granted","tags":["x"],"tokens":[{"channel":"apns","token":"t1","environment":"sandbox","credential":"eu"}],"user":"u1","topics":["news","sport"]}"#,
        r#"{"device_id":"d2","platform":"android","permission":"denied","tags":[],"tokens":[{"channel":"fcm","token":"t2","dead":{"reason":"token_invalid","since":"2026-02-01T00:00:00.000Z"}},{"channel":"huawei","token":"t3","paused":true}],"topics":[]}"#,
    ];
    let done = import(&w, "", lines.join("\n")).await.expect(200);
    assert_eq!(
        (&done["imported"], &done["failed"]),
        (&json!(2), &json!(0)),
        "{done}"
    );
    let whole = exported(&w, &w.server).await;
    assert_eq!(whole.lines().collect::<Vec<_>>(), lines);
    let device = w.get("/v1/devices/d2", &w.server).await.expect(200);
    assert_eq!(device["tokens"][0]["state"], "dead");
    assert_eq!(device["tokens"][0]["reason"], "token_invalid");
    w.make_app("copy").await;
    let key = w.make_key("copy", json!({})).await;
    let path = "/v1/devices/import";
    let answer = call(w.address, Method::POST, path, &key, &NDJSON, whole.clone()).await;
    assert_eq!(answer.expect(200)["created"], 2);
    assert_eq!(exported(&w, &key).await, whole);
    // Topics that a line names are all there are; a line without leaves them.
    for (topics, left) in [
        (r#","topics":["sport","arts"]"#, "arts,sport"),
        ("", "arts,sport"),
    ] {
        let line = format!(r#"{{"device_id":"d1","platform":"ios"{topics}}}"#);
        import(&w, "", line).await.expect(200);
        let device = w.get("/v1/devices/d1", &w.server).await.expect(200);
        let mut has: Vec<_> = device["topics"].as_array().unwrap().iter().collect();
        has.sort_by_key(|topic| topic.as_str());
        let has: Vec<_> = has.into_iter().map(|t| t.as_str().unwrap()).collect();
        assert_eq!(has.join(","), left);
    }
    let many: Vec<_> = (0..201).map(|n| format!("t{n}")).collect();
    let line = json!({"device_id": "d1", "platform": "ios", "topics": many});
    let done = import(&w, "", line.to_string()).await.expect(200);
    assert_eq!(done["errors"][0]["path"], "topics");
}

#[tokio::test]
async fn the_counts_of_an_import_are_what_happened() {
    let w = world().await;
    w.register("old").await;
    let lines = [
        r#"{"device_id":"new","platform":"ios","model":"first"}"#,
        r#"{"device_id":"new","platform":"ios","model":"second"}"#,
        // The last good one counts, though a bad one follows.
        r#"{"device_id":"new","platform":"ios","timezone":"Moon"}"#,
        "",
        r#"{"device_id":"old","platform":"ios"}"#,
        r#"{"device_id":"bad","platform":"ios","tokens":[{"channel":"pigeon","token":"t"}]}"#,
    ];
    let done = import(&w, "", lines.join("\n")).await.expect(200);
    let counts = ["lines", "imported", "created", "updated", "failed"].map(|name| &done[name]);
    assert_eq!(counts, [6, 3, 1, 1, 2].map(|n| json!(n)).each_ref());
    let device = w.get("/v1/devices/new", &w.server).await.expect(200);
    assert_eq!(device["model"], "second");
    w.get("/v1/devices/bad", &w.server)
        .await
        .problem(404, "not_found");
}
