//! Xiaomi's table of answers, dev.mi.com page pId=1560.

use hongyan_core::{Timestamp, Verdict};
use serde_json::Value;

use crate::answer::{
    accepted, mend, quota, rate_limited, refused, retry_after, token_dead, too_large, unavailable,
    unreadable, until_beijing_midnight,
};
use crate::http::Answer;

pub(in crate::vendor) fn decode(answer: &Answer, now: Timestamp) -> Verdict {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
    let code = match body.get("code") {
        Some(Value::Number(number)) => number.as_i64(),
        Some(Value::String(text)) => text.parse().ok(),
        _ => None,
    };
    let after = retry_after(&answer.headers, now);
    let why = if text("reason").is_empty() {
        text("description")
    } else {
        text("reason")
    };
    let words = code.map_or_else(String::new, |code| format!("{code} {why}"));
    let Some(code) = code else {
        let words = format!("Xiaomi answered status {}", answer.status);
        return match answer.status {
            429 => rate_limited(after, &words),
            500..=599 => unavailable(after, &words),
            401 | 403 => mend(&words, "check app_secret and region"),
            404 => mend(&words, "check region and endpoint"),
            400..=499 => refused(&words),
            status => unreadable(status),
        };
    };
    match code {
        0 => accepted(body.pointer("/data/id").and_then(Value::as_str)),
        10018 | 65009 => too_large(&words),
        // The answer to a send whose every regId is gone (wildfirechat/push_server, issue 5).
        20301 if why == "No valid targets!" => token_dead(&words),
        10029 | 65003 | 65007 => token_dead(&words),
        10034 | 200_001 => quota_until_midnight(now, &words),
        10022 | 10023 | 10024 | 10027 | 10028 | 10030 | 10032 | 10039 | 22101 | 26004 | 26005
        | 65006 => rate_limited(after, &words),
        -1 | 1 | 10001 | 10002 | 10003 | 10009 | 10010 | 10011 | 10037 | 20215 | 20216 | 20301
        | 20315 | 20607 | 22102 | 26003 | 65029 | 65040 => unavailable(after, &words),
        10004
        | 10005
        | 10006
        | 10013
        | 10014
        | 10020
        | 10021
        | 10026
        | 10031
        | 10033
        | 10036
        | 10038
        | 21301
        | 21302
        | 21303
        | 22000..=22008
        | 22020
        | 22021
        | 22022
        | 26006
        | 27001
        | 66108 => mend(&words, how_to_mend(code)),
        100
        | 10007
        | 10008
        | 10012
        | 10016
        | 10017
        | 10025
        | 10035
        | 20209
        | 21305
        | 22100
        | 22103
        | 65008
        | 65010..=65017
        | 65028
        | 65030
        | 65035..=65038
        | 65041 => refused(&words),
        // Codes that the table does not have: the notes ask for another try.
        _ => unavailable(after, &words),
    }
}

/// The daily limit that an answer names and what is used of it: in the success of a send, or in the words of its refusal.
pub(super) fn day_limit(answer: &Answer) -> Option<(i64, Option<i64>)> {
    let body: Value = serde_json::from_slice(&answer.body).ok()?;
    let number = |name: &str| match body.pointer(&format!("/data/{name}"))? {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    if let Some(limit) = number("day_quota") {
        return Some((limit, number("day_acked")));
    }
    if body.get("code").and_then(Value::as_i64) != Some(200_001) {
        return None;
    }
    // `exceed quota, quota: N, have acked: M`
    let words = body.get("reason")?.as_str()?;
    let after = |mark: &str| -> Option<i64> {
        let (_, rest) = words.split_once(mark)?;
        let digits = rest.trim_start().split(|c: char| !c.is_ascii_digit());
        digits.into_iter().next()?.parse().ok()
    };
    Some((after(" quota:")?, after("acked:")))
}

/// What to do about a refused credential.
const fn how_to_mend(code: i64) -> &'static str {
    match code {
        10006 | 10013 | 21301..=21303 | 22006..=22008 => "check app_secret and region",
        22000..=22005 | 22020 | 22021 => "check that the app is enabled in Xiaomi's console",
        22022 | 66108 => "check package: it is not of this app_secret",
        26006 => "wait for Xiaomi's review of the app, or ask for it in the console",
        27001 => "check channels: one is not approved, or not of this app",
        10004 => "add this machine's address to the app's IP list",
        10020 | 10021 => "check region and endpoint",
        _ => "ask Xiaomi why the app may not push: its console says what is limited",
    }
}

fn quota_until_midnight(now: Timestamp, words: &str) -> Verdict {
    match quota(words) {
        Verdict::QuotaExhausted { detail, .. } => Verdict::QuotaExhausted {
            until: Some(until_beijing_midnight(now)),
            detail,
        },
        other => other,
    }
}
