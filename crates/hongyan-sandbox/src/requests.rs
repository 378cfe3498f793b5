//! What each simulator received, for `GET /vendors/{channel}/requests`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::channel::Channel;
use crate::clock::rfc3339;
use crate::exchange::{Call, parse_form};
use crate::limits;

/// One request as the simulator saw and judged it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Number within the channel, growing by one: a gap shows what was dropped.
    pub n: u64,
    /// When it arrived, RFC 3339 in UTC.
    pub at: String,
    /// Method, such as `POST`.
    pub method: String,
    /// Path with query.
    pub path: String,
    /// Headers in lower case; several values of one name joined by `, `. Credentials are cut.
    pub headers: BTreeMap<String, String>,
    /// JSON as it was sent; a form as an object of its fields; anything else as text.
    pub body: Value,
    /// `accepted …`, `partial …`, `refused …` or `fault …` and the vendor's reason.
    pub verdict: String,
    /// HTTP status; 0 when none was sent (reset, GOAWAY).
    pub status: u16,
}

/// The last requests of each channel, oldest dropped.
#[derive(Debug)]
pub(crate) struct Requests {
    rings: [Mutex<Ring>; Channel::ALL.len()],
    kept_max: usize,
}

#[derive(Debug, Default)]
struct Ring {
    kept: VecDeque<Record>,
    /// How many there were, kept or not.
    count: u64,
}

impl Requests {
    pub(crate) fn new(kept_max: usize) -> Self {
        Self {
            rings: Default::default(),
            kept_max: kept_max.min(limits::REQUESTS_KEPT_MAX),
        }
    }

    pub(crate) fn add(
        &self,
        channel: Channel,
        now_ms: i64,
        call: &Call,
        verdict: &str,
        status: u16,
    ) {
        if self.kept_max == 0 {
            return;
        }
        let mut record = Record {
            n: 0,
            at: rfc3339(now_ms),
            method: call.method.to_string(),
            path: if call.query.is_empty() {
                call.path.clone()
            } else {
                format!("{}?{}", call.path, call.query)
            },
            headers: headers(call),
            body: body(call),
            verdict: verdict.to_owned(),
            status,
        };
        let mut ring = self.of(channel);
        while ring.kept.len() >= self.kept_max {
            ring.kept.pop_front();
        }
        ring.count += 1;
        record.n = ring.count;
        ring.kept.push_back(record);
    }

    pub(crate) fn list(&self, channel: Channel, after: u64) -> Vec<Record> {
        let ring = self.of(channel);
        let begin = ring.kept.partition_point(|record| record.n <= after);
        ring.kept.range(begin..).cloned().collect()
    }

    pub(crate) fn clear(&self, channel: Channel) {
        self.of(channel).kept.clear();
    }

    fn of(&self, channel: Channel) -> std::sync::MutexGuard<'_, Ring> {
        #[allow(clippy::indexing_slicing, reason = "one place per variant")]
        self.rings[channel.index()]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn headers(call: &Call) -> BTreeMap<String, String> {
    let mut headers = BTreeMap::<String, String>::new();
    for (name, value) in &call.headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        let value = if ["authorization", "authtoken", "auth_token"].contains(&name.as_str()) {
            shortened(&value)
        } else {
            value.into_owned()
        };
        headers
            .entry(name.as_str().to_owned())
            .and_modify(|held| {
                held.push_str(", ");
                held.push_str(&value);
            })
            .or_insert(value);
    }
    headers
}

fn body(call: &Call) -> Value {
    if call.body.is_empty() {
        return Value::Null;
    }
    let kind = call.header("content-type").unwrap_or_default();
    if kind.starts_with("application/x-www-form-urlencoded") {
        return Value::Object(
            parse_form(&call.body)
                .into_iter()
                .map(|(name, value)| {
                    let secret =
                        matches!(name.as_str(), "client_secret" | "assertion" | "auth_token");
                    let value = if secret { shortened(&value) } else { value };
                    (name, Value::String(value))
                })
                .collect(),
        );
    }
    let kept = call
        .body
        .get(..limits::RECORDED_BODY_BYTES_MAX)
        .unwrap_or(&call.body);
    serde_json::from_slice(kept)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(kept).into_owned()))
}

/// Enough of a credential to tell two apart, too little to use one.
fn shortened(value: &str) -> String {
    let (scheme, secret) = value
        .split_once([' ', '='])
        .map_or(("", value), |(scheme, secret)| {
            if scheme.len() <= 6 {
                (value.get(..=scheme.len()).unwrap_or_default(), secret)
            } else {
                ("", value)
            }
        });
    let head: String = secret.chars().take(6).collect();
    format!("{scheme}{head}…")
}

#[cfg(test)]
mod tests {
    use super::shortened;

    #[test]
    fn credentials_are_cut() {
        assert_eq!(
            shortened("bearer eyJhbGciOiJFUzI1NiJ9.abc.def"),
            "bearer eyJhbG…"
        );
        assert_eq!(shortened("key=AbCdEfGhIjKl"), "key=AbCdEf…");
        assert_eq!(shortened("0123456789abcdef=="), "012345…");
    }
}
