//! The push gateway of Matrix for UnifiedPush: a homeserver posts a notification with the addresses of apps, which are
//! endpoints of this server. Each gets the request as its message, as apps of UnifiedPush expect it. Addresses of other servers
//! are rejected: nothing that a sender names is ever called.

use std::time::Duration;

use axum::response::Response;
use bytes::Bytes;
use hongyan_core::port::Post;
use hongyan_core::push::{PUSH_BODY_BYTES_MAX, PushEncoding, Urgency};
use hongyan_core::{PushEndpoint, Timestamp};
use ring::digest::{SHA256, digest};
use serde_json::{Map, Value, json};

use super::answer::Refusal;
use super::{Call, Desk, REFUSED_UNREAD, json as answer_json};
use crate::body::collect;
use crate::problem::Code;

/// How long a notification is worth delivering, seconds: a chat message is read the day after too.
const TTL_S: u32 = 86_400;
/// How long it is remembered that a device was told of an event: homeservers try again for so long.
const REMEMBERED: Duration = Duration::from_secs(3_600);
/// Devices of one request; homeservers name one.
const DEVICES_MAX: usize = 16;

/// What apps ask before they give an address of this server to their homeserver.
pub(super) fn discovery() -> Response {
    answer_json(r#"{"unifiedpush":{"gateway":"matrix"}}"#)
}

/// A notification as it came.
struct Notification {
    whole: Map<String, Value>,
    urgency: Urgency,
    devices: Vec<Value>,
}

impl Notification {
    fn event(&self) -> Option<&str> {
        self.whole.get("notification")?.get("event_id")?.as_str()
    }

    /// Whether it is about an event, which a device is told of once; another may say the same twice and mean it.
    fn is_of_event(&self) -> bool {
        self.event().is_some()
    }

    fn key(&self, endpoint: &PushEndpoint, device: &Value, body: &[u8]) -> [u8; 32] {
        let app = device.get("app_id").and_then(Value::as_str);
        let said = match self.event() {
            Some(event) => digest(&SHA256, event.as_bytes()),
            None => digest(&SHA256, body),
        };
        let app = digest(&SHA256, app.unwrap_or_default().as_bytes());
        let whole = [endpoint.hash.as_slice(), app.as_ref(), said.as_ref()].concat();
        let mut key = [0u8; 32];
        key.copy_from_slice(digest(&SHA256, &whole).as_ref());
        key
    }
}

fn parse(body: &[u8]) -> Result<Notification, &'static str> {
    let whole: Map<String, Value> =
        serde_json::from_slice(body).map_err(|_| "the body must be a JSON object")?;
    let notification = whole
        .get("notification")
        .and_then(Value::as_object)
        .ok_or("the field notification must be an object")?;
    let devices = notification
        .get("devices")
        .and_then(Value::as_array)
        .filter(|devices| devices.len() <= DEVICES_MAX)
        .ok_or("the field notification.devices must be a list of at most 16 devices")?;
    let key_of = |device: &Value| device.get("pushkey").is_some_and(Value::is_string);
    if !devices.iter().all(key_of) {
        return Err("every device must have a pushkey");
    }
    let urgency = match notification.get("prio").and_then(Value::as_str) {
        Some("low") => Urgency::Low,
        _ => Urgency::High,
    };
    Ok(Notification {
        urgency,
        devices: devices.clone(),
        whole,
    })
}

/// The token in an address of this server.
fn token<'a>(root: &str, pushkey: &'a str) -> Option<&'a str> {
    let path = pushkey.strip_prefix(root)?;
    let path = path.split(['?', '#']).next().unwrap_or(path);
    ["/up/", "/wpush/v1/"]
        .iter()
        .find_map(|form| path.strip_prefix(form))
}

pub(super) async fn notify(call: Call) -> Result<Response, Refusal> {
    let desk = call.api.push();
    let time = desk.options.body_timeout;
    let body = collect(&call.head.headers, call.body, REFUSED_UNREAD, time).await;
    let body = body.map_err(|problem| match problem.code() {
        Code::PayloadTooLarge => Refusal::too_large(PUSH_BODY_BYTES_MAX),
        Code::RequestTimeout => Refusal::too_slow(),
        _ => Refusal::broken_body(problem.detail()),
    })?;
    let notification = parse(&body).map_err(Refusal::broken_body)?;
    let (posts, rejected) = planned(desk, &notification, &body).await?;
    // What is refused is refused as a whole: a homeserver tries all of it again.
    let now = call.api.now();
    for one in posts.iter().filter(|one| !one.is_done(desk, now)) {
        desk.by_endpoint
            .take(one.endpoint.hash, now)
            .map_err(Refusal::too_many)?;
    }
    let keys: Vec<[u8; 32]> = posts.iter().map(|one| one.key).collect();
    let mut trouble = None;
    let mut done = Vec::with_capacity(posts.len());
    for one in posts {
        if trouble.is_some() || one.is_done(desk, now) {
            continue;
        }
        let post = Post {
            ttl_s: TTL_S,
            urgency: notification.urgency,
            topic: None,
            encoding: PushEncoding::Opaque,
            body: one.body,
        };
        match desk.pushes.post(&one.endpoint, post).await {
            Ok(_) if notification.is_of_event() => {
                desk.handed_on.put(one.key, (), now.plus(REMEMBERED), now);
            }
            Ok(_) => done.push(one.key),
            Err(error) => trouble = Some(error),
        }
    }
    let Some(trouble) = trouble else {
        if !notification.is_of_event() {
            // Said to all now: the same said again is meant.
            for key in keys {
                desk.handed_on.remove(&key);
            }
        }
        return Ok(answer_json(json!({ "rejected": rejected }).to_string()));
    };
    for key in done {
        desk.handed_on.put(key, (), now.plus(REMEMBERED), now);
    }
    Err(trouble.into())
}

/// What one device is to get.
struct Planned {
    endpoint: PushEndpoint,
    body: Bytes,
    /// The same when the same is asked for again.
    key: [u8; 32],
}

impl Planned {
    fn is_done(&self, desk: &Desk, now: Timestamp) -> bool {
        desk.handed_on.get(&self.key, now).is_some()
    }
}

/// What the devices of a notification are to get, and the addresses that nothing can ever be posted to.
async fn planned(
    desk: &Desk,
    notification: &Notification,
    body: &Bytes,
) -> Result<(Vec<Planned>, Vec<String>), Refusal> {
    let (mut posts, mut rejected) = (Vec::new(), Vec::new());
    for device in &notification.devices {
        let pushkey = device.get("pushkey").and_then(Value::as_str);
        let pushkey = pushkey.unwrap_or_default();
        let endpoint = match token(desk.pushes.root(), pushkey) {
            Some(token) => desk.pushes.find(token).await?,
            None => None,
        };
        // A homeserver has no VAPID key, so that it can never post to an endpoint that is bound to one.
        let Some(endpoint) = endpoint.filter(|e| e.gone_since.is_none() && e.vapid.is_none())
        else {
            rejected.push(pushkey.to_owned());
            continue;
        };
        let body = if notification.devices.len() == 1 {
            body.clone()
        } else {
            // Nobody is told the addresses of others.
            let mut own = notification.whole.clone();
            own["notification"]["devices"] = json!([device]);
            Bytes::from(Value::Object(own).to_string())
        };
        if body.len() > PUSH_BODY_BYTES_MAX {
            return Err(Refusal::too_large(PUSH_BODY_BYTES_MAX));
        }
        let key = notification.key(&endpoint, device, &body);
        posts.push(Planned {
            endpoint,
            body,
            key,
        });
    }
    Ok((posts, rejected))
}

/// Reads a notification, as a homeserver's. For those who feed it bytes.
#[must_use]
pub fn judge(body: &[u8]) -> bool {
    parse(body).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_this_server_have_a_token_and_others_none() {
        let of = |pushkey| token("https://push.example/base", pushkey);
        assert_eq!(of("https://push.example/base/up/abc"), Some("abc"));
        assert_eq!(of("https://push.example/base/up/abc?x=1#y"), Some("abc"));
        assert_eq!(of("https://push.example/base/wpush/v1/abc"), Some("abc"));
        for foreign in [
            "https://push.example/up/abc",
            "https://push.example.evil/base/up/abc",
            "http://push.example/base/up/abc",
            "/up/abc",
            "abc",
            "",
        ] {
            assert_eq!(of(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn what_is_no_notification_is_not_read() {
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"notification":5}"#,
            r#"{"notification":{}}"#,
            r#"{"notification":{"devices":[{}]}}"#,
            r#"{"notification":{"devices":[{"pushkey":5}]}}"#,
        ] {
            assert!(!judge(bad.as_bytes()), "{bad}");
        }
        assert!(judge(br#"{"notification":{"devices":[{"pushkey":"x"}]}}"#));
        let many = vec![json!({"pushkey": "x"}); DEVICES_MAX + 1];
        let many = json!({"notification": {"devices": many}}).to_string();
        assert!(!judge(many.as_bytes()));
    }
}
