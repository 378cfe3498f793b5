//! The body of a send: payload, policy and options.

use serde_json::{Map, Value};

use super::{Platform, Refusal};
use crate::world::World;

const ANDROID_BYTES_MAX: usize = 2048;
const IOS_BYTES_MAX: usize = 2012;
const BIG_BODY_CHARS_MAX: usize = 120;
const FILTER_BYTES_MAX: usize = 3000;
const CHINA_MS: i64 = 8 * 3_600_000;
const WEEK_MS: i64 = 7 * 86_400_000;

/// Everything that does not depend on who is there.
pub(super) fn check(
    world: &World,
    platform: Platform,
    body: &Map<String, Value>,
    task: bool,
) -> Result<(), Refusal> {
    let payload = match body.get("payload") {
        Some(payload @ Value::Object(_)) => payload,
        _ => return Err(Refusal::new("1001", "payload is missing")),
    };
    let max = match platform {
        Platform::Android => ANDROID_BYTES_MAX,
        Platform::Ios => IOS_BYTES_MAX,
    };
    if payload.to_string().len() > max {
        return Err(Refusal::new("2022", "payload is too long"));
    }
    match platform {
        Platform::Android => android(payload)?,
        Platform::Ios => ios(payload)?,
    }
    match body.get("production_mode") {
        None | Some(Value::Bool(_)) => {}
        Some(Value::String(text)) if text == "true" || text == "false" => {}
        Some(_) => {
            return Err(Refusal::new(
                "1017",
                "production_mode is neither true nor false",
            ));
        }
    }
    if body
        .get("filter")
        .is_some_and(|f| f.to_string().len() > FILTER_BYTES_MAX)
    {
        return Err(Refusal::new("2031", "filter is too long"));
    }
    properties(body.get("channel_properties"))?;
    policy(world, body, task)
}

fn android(payload: &Value) -> Result<(), Refusal> {
    let Some(body @ Value::Object(_)) = payload.get("body") else {
        return Err(Refusal::new("1002", "body is missing"));
    };
    if payload.get("extra").is_some_and(|extra| !extra.is_object()) {
        return Err(Refusal::new("1026", "extra is not JSON"));
    }
    match payload.get("display_type").and_then(Value::as_str) {
        Some("message") => match body.get("custom") {
            Some(Value::String(text)) if !text.is_empty() => Ok(()),
            Some(Value::Object(_)) => Ok(()),
            _ => Err(Refusal::new("1003", "custom is missing")),
        },
        Some("notification") => notification(body),
        _ => Err(Refusal::new("1004", "display_type is missing or wrong")),
    }
}

fn notification(body: &Value) -> Result<(), Refusal> {
    let text = |name: &str| crate::push::text(body, &format!("/{name}"));
    let http = |text: &str| text.starts_with("http://") || text.starts_with("https://");
    for (name, code) in [("ticker", "1008"), ("title", "1009"), ("text", "1010")] {
        if text(name).is_empty() {
            return Err(Refusal::new(code, format!("{name} is missing")));
        }
    }
    if text("big_body").chars().count() > BIG_BODY_CHARS_MAX {
        return Err(Refusal::new("2022", "big_body is too long"));
    }
    for (name, code) in [("img", "1005"), ("expand_image", "1005")] {
        if body.get(name).is_some() && !http(&text(name)) {
            return Err(Refusal::new(code, format!("{name} is no http URL")));
        }
    }
    for (name, code) in [
        ("play_vibrate", "1011"),
        ("play_lights", "1012"),
        ("play_sound", "1013"),
    ] {
        let fits = match body.get(name) {
            None | Some(Value::Bool(_)) => true,
            Some(Value::String(text)) => text == "true" || text == "false",
            Some(_) => false,
        };
        if !fits {
            return Err(Refusal::new(
                code,
                format!("{name} is neither true nor false"),
            ));
        }
    }
    for name in ["set_badge", "add_badge"] {
        let badge = body.get(name).map(|badge| badge.as_i64());
        if badge.is_some_and(|badge| !badge.is_some_and(|n| (1..=99).contains(&n))) {
            return Err(Refusal::new("1002", format!("{name} is not 1 to 99")));
        }
    }
    match text("after_open").as_str() {
        "" | "go_app" => Ok(()),
        "go_url" if text("url").is_empty() => Err(Refusal::new("1022", "url is missing")),
        "go_url" if !http(&text("url")) => Err(Refusal::new("1007", "url is no http URL")),
        "go_activity" if text("activity").is_empty() => {
            Err(Refusal::new("1024", "activity is missing"))
        }
        "go_custom" if body.get("custom").is_none() => {
            Err(Refusal::new("1003", "custom is missing"))
        }
        "go_url" | "go_activity" | "go_custom" => Ok(()),
        _ => Err(Refusal::new("1002", "after_open is unknown")),
    }
}

fn ios(payload: &Value) -> Result<(), Refusal> {
    let Some(aps @ Value::Object(_)) = payload.get("aps") else {
        return Err(Refusal::new("2025", "aps is missing"));
    };
    if payload.get("d").is_some() || payload.get("p").is_some() {
        return Err(Refusal::new("5002", "d and p are reserved"));
    }
    let silent = aps.get("content-available").and_then(Value::as_i64) == Some(1);
    match aps.get("alert") {
        None if !silent => Err(Refusal::new("2025", "aps.alert is missing")),
        None | Some(Value::String(_) | Value::Object(_)) => Ok(()),
        Some(_) => Err(Refusal::new("2025", "aps.alert is malformed")),
    }
}

fn properties(properties: Option<&Value>) -> Result<(), Refusal> {
    let Some(properties) = properties else {
        return Ok(());
    };
    let text = |name: &str| match properties.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    };
    let words = |name: &str, words: &[&str]| {
        let given = text(name);
        given.is_empty() || words.contains(&given.as_str())
    };
    let right = properties.is_object()
        && words("huawei_channel_importance", &["LOW", "NORMAL"])
        && words("honor_channel_importance", &["LOW", "NORMAL"])
        && words("oppo_notify_level", &["1", "2", "16"])
        && (text("oppo_notify_level").is_empty() || !text("oppo_category").is_empty())
        && words("meizu_msg_type", &["0", "1"])
        && words("vivo_classification", &["0", "1"]);
    if right {
        Ok(())
    } else {
        Err(Refusal::new("1027", "channel_properties are malformed"))
    }
}

/// A time of the policy, `yyyy-MM-dd HH:mm:ss` in China, in milliseconds.
pub(super) fn time(body: &Map<String, Value>, name: &str) -> Option<i64> {
    let text = body.get("policy")?.get(name)?.as_str()?;
    let at = jiff::civil::DateTime::strptime("%Y-%m-%d %H:%M:%S", text).ok()?;
    let utc = at.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some(utc.timestamp().as_millisecond() - CHINA_MS)
}

fn policy(world: &World, body: &Map<String, Value>, task: bool) -> Result<(), Refusal> {
    let policy = match body.get("policy") {
        None => return Ok(()),
        Some(policy @ Value::Object(_)) => policy,
        Some(_) => return Err(Refusal::new("1027", "policy is not JSON")),
    };
    let now = world.clock.now_ms();
    let mut starts = now;
    if policy.get("start_time").is_some() && task {
        starts = time(body, "start_time")
            .ok_or_else(|| Refusal::new("2001", "start_time is malformed"))?;
        if starts < now {
            return Err(Refusal::new("2002", "start_time is past"));
        }
        if starts > now + WEEK_MS {
            return Err(Refusal::new("2046", "start_time is more than a week ahead"));
        }
    }
    if policy.get("expire_time").is_some() {
        let ends = time(body, "expire_time")
            .ok_or_else(|| Refusal::new("2039", "expire_time is malformed"))?;
        if ends < now - 1000 || ends < starts - 1000 {
            return Err(Refusal::new(
                "2003",
                "expire_time is before the start or now",
            ));
        }
        if ends > starts + WEEK_MS {
            return Err(Refusal::new(
                "2040",
                "expire_time is more than a week ahead",
            ));
        }
    }
    let speed = policy.get("max_send_num");
    if speed.is_some_and(|s| s.as_i64().is_none_or(|n| n < 1000)) {
        return Err(Refusal::new("2024", "max_send_num is below 1000"));
    }
    Ok(())
}
