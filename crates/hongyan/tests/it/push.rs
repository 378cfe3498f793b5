//! Web push over SIGKILL (clause UP-13 of the protocol notes).

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::harness::{Demo, try_http, until};

/// Posts until the server is gone; answers what was accepted.
fn post_all(
    demo: &Demo,
    path: &str,
    life: usize,
    (over, count): (&AtomicBool, &AtomicUsize),
) -> Vec<String> {
    let mut accepted = Vec::new();
    for n in 0..100 {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let body = format!("{life} {n}");
        let answer = try_http("POST", &demo.fact("api"), path, &[], body.as_bytes());
        // A post whose answer was cut off may have been stored or not.
        if answer.is_ok_and(|(status, _)| status == 201) {
            accepted.push(body);
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
    accepted
}

#[test]
fn up_13_what_was_answered_201_is_delivered_after_sigkill() {
    let mut demo = Demo::start();
    let device = json!({ "platform": "desktop" });
    let (status, made) = demo.api_as(&demo.fact("client_key"), "POST", "/v1/devices", &device);
    assert_eq!(status, 200, "{made}");
    let token = made["device_token"].as_str().unwrap().to_owned();
    let channels = format!(
        "/v1/devices/{}/channels",
        made["device_id"].as_str().unwrap()
    );
    let (status, opened) = demo.api_as(&token, "POST", &channels, &json!({}));
    assert_eq!(status, 201, "{opened}");
    let endpoint = opened["endpoint"].as_str().unwrap();
    let path = format!("/up/{}", endpoint.rsplit('/').next().unwrap());
    let mut cursor = String::new();
    for life in 0..5 {
        let (over, count) = (AtomicBool::new(false), AtomicUsize::new(0));
        let mut child = demo.take_server();
        let accepted = std::thread::scope(|scope| {
            let posting = scope.spawn(|| post_all(&demo, &path, life, (&over, &count)));
            // In the middle of the posts, later each time.
            until("some posts", || {
                (count.load(Ordering::Relaxed) > 3 + 7 * life).then_some(())
            });
            child.kill().unwrap();
            child.wait().unwrap();
            over.store(true, Ordering::Relaxed);
            posting.join().unwrap()
        });
        demo.launch();
        let mut left: std::collections::BTreeSet<String> = accepted.into_iter().collect();
        until("everything that was accepted", || {
            let after = match cursor.as_str() {
                "" => String::new(),
                place => format!("&cursor={place}"),
            };
            let poll = format!("/v1/poll?wait=0&limit=100{after}");
            let (status, page) = demo.api_as(&token, "GET", &poll, &Value::Null);
            assert_eq!(status, 200, "{page}");
            for message in page["messages"].as_array().unwrap() {
                let body = URL_SAFE_NO_PAD.decode(message["b64"].as_str().unwrap());
                left.remove(&String::from_utf8(body.unwrap()).unwrap());
            }
            page["cursor"].as_str().unwrap().clone_into(&mut cursor);
            left.is_empty().then_some(())
        });
    }
}
