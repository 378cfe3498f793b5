//! What a device learns that fetches for itself: recalls of what it has, and that it was sent away.

use serde_json::{Value, json};

use crate::harness::{Demo, hello};

/// A device of the test's own, that speaks for itself.
struct Device<'a> {
    demo: &'a Demo,
    id: &'a str,
    token: String,
}

impl<'a> Device<'a> {
    fn new(demo: &'a Demo, id: &'a str, user: &str) -> Self {
        let body = json!({ "device_id": id, "platform": "android", "package": "com.example" });
        let key = demo.fact("client_key");
        let (status, answer) = demo.api_as(&key, "POST", "/v1/devices", &body);
        assert!((200..300).contains(&status), "{answer}");
        let token = answer["device_token"].as_str().unwrap().to_owned();
        let device = Self { demo, id, token };
        let login = format!("/v1/devices/{id}/login");
        let (status, answer) = device.say("POST", &login, &json!({ "user": user }));
        assert_eq!(status, 204, "{answer}");
        device
    }

    fn say(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        self.demo.api_as(&self.token, method, path, body)
    }

    fn poll(&self, cursor: &str, wait: u32) -> Value {
        let path = format!("/v1/poll?wait={wait}&cursor={cursor}");
        let (status, answer) = self.say("GET", &path, &Value::Null);
        assert_eq!(status, 200, "{answer}");
        answer
    }
}

fn ids(answer: &Value, of: &str) -> Vec<String> {
    let all = answer[of].as_array().into_iter().flatten();
    all.map(|one| one["id"].as_str().unwrap().to_owned())
        .collect()
}

fn recall(demo: &Demo, id: &str) {
    let path = format!("/v1/messages/{id}/recall");
    let (status, answer) = demo.api("POST", &path, &json!({}));
    assert!((200..300).contains(&status), "{answer}");
}

#[test]
fn a_device_that_polls_learns_of_recalls_also_over_a_crash() {
    let mut demo = Demo::start();
    let token = {
        let device = Device::new(&demo, "poller", "reader");
        let fetched = demo.send(&hello("reader"));
        let first = device.poll("", 10);
        assert_eq!(ids(&first, "messages"), std::slice::from_ref(&fetched));
        let cursor = first["cursor"].as_str().unwrap().to_owned();
        // What it has, and what it never fetched.
        let unfetched = demo.send(&hello("reader"));
        recall(&demo, &unfetched);
        recall(&demo, &fetched);
        recall(&demo, &fetched);
        let told = device.poll(&cursor, 10);
        assert_eq!(ids(&told, "messages"), [""; 0]);
        assert_eq!(ids(&told, "recalled"), [unfetched, fetched]);
        // A mark is no message to anybody.
        let mark = told["recalled"][0]["mark"].as_str().unwrap();
        let (status, _) = demo.api("GET", &format!("/v1/messages/{mark}"), &Value::Null);
        assert_eq!(status, 404);
        (device.token, told, cursor)
    };
    demo.kill();
    demo.launch();
    let (token, told, cursor) = token;
    let device = Device {
        demo: &demo,
        id: "poller",
        token,
    };
    // The answer was lost, and so is nothing.
    let again = device.poll(&cursor, 0);
    assert_eq!(again["recalled"], told["recalled"]);
    let done = device.poll(told["cursor"].as_str().unwrap(), 0);
    assert_eq!(done["recalled"], Value::Null);
    assert_eq!(ids(&done, "messages"), [""; 0]);
}

#[test]
fn a_device_that_is_kicked_while_it_polls_is_told_so() {
    let demo = Demo::start();
    let device = Device::new(&demo, "kicked", "gone");
    let answer = std::thread::scope(|scope| {
        let poll = scope.spawn(|| {
            loop {
                // Its user was taken from it while it was let in.
                let answer = device.say("GET", "/v1/poll?wait=20", &Value::Null);
                if answer.0 != 409 {
                    return answer;
                }
            }
        });
        demo.until_online("gone", true);
        let waits = std::time::Instant::now();
        loop {
            let path = format!("/v1/devices/{}/kick", device.id);
            let (status, answer) = demo.api("POST", &path, &Value::Null);
            assert_eq!(status, 204, "{answer}");
            if poll.is_finished() {
                return poll.join().unwrap();
            }
            assert!(waits.elapsed().as_secs() < 30, "the poll was not ended");
            std::thread::park_timeout(std::time::Duration::from_millis(50));
        }
    });
    assert_eq!((answer.0, answer.1["code"].as_str()), (403, Some("kicked")));
    // A look at the head of a poll ends nothing.
    let (status, _) = device.say("HEAD", "/v1/poll", &Value::Null);
    assert_eq!(status, 405);
}
