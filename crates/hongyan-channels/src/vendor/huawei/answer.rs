//! What Huawei's answers mean: one table of codes for all API versions.

use std::collections::BTreeMap;

use hongyan_core::port::CheckReport;
use hongyan_core::{Timestamp, Verdict};
use serde_json::Value;

use crate::answer::{
    accepted, credential_bad, mend, rate_limited, refused, retry_after, token_dead, too_large,
    unavailable, unreadable,
};
use crate::http::Answer;
use crate::vendor::{self, Decoded};

/// The business code of an answer, whatever the HTTP status; empty when there is none.
pub(super) fn code_of(answer: &Answer) -> String {
    text_of(answer, "code")
}

fn text_of(answer: &Answer, name: &str) -> String {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    match body.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    }
}

/// Whether the access token or JWT in use is to be replaced and the call repeated.
pub(in crate::vendor) fn asks_for_new_token(answer: &Answer) -> bool {
    matches!(
        code_of(answer).as_str(),
        "80200001" | "80200003" | "80200005"
    )
}

/// One table for v1, v2 and v3; what differs is the shape of a partial failure.
pub(in crate::vendor) fn decode(answer: &Answer, now: Timestamp) -> Decoded {
    let code = code_of(answer);
    let msg = text_of(answer, "msg");
    let after = retry_after(&answer.headers, now);
    let request = Some(text_of(answer, "requestId")).filter(|id| !id.is_empty());
    // A message that is JSON names tokens, which do not belong into an event.
    let words = if msg.trim_start().starts_with('{') {
        code.clone()
    } else {
        format!("{code} {msg}")
    };
    Decoded::all(match (code.as_str(), answer.status) {
        ("80000000", _) => accepted(request.as_deref()),
        ("80100000", _) => {
            return Decoded {
                rest: accepted(request.as_deref()),
                named: named(&msg),
            };
        }
        ("80300007", _) => {
            return Decoded {
                rest: token_dead("80300007 all tokens are invalid"),
                named: named(&msg),
            };
        }
        ("80000001" | "80600003" | "81000001", _) => unavailable(after, &words),
        ("80100017" | "80300029", _) => rate_limited(after, &words),
        ("80300008", _) => too_large(&words),
        // Refused after a renewal as well: the clocks differ. It heals without a person once they agree.
        ("80200003" | "80200005", _) => {
            unavailable(after, &format!("{words}: check this machine's clock"))
        }
        ("80200001", _) => mend(&words, "check the credential and this machine's clock"),
        ("80200006" | "80300002" | "80300036" | "80300037" | "82000012" | "82000013", _) => mend(
            &words,
            "check that app_id, project_id and the credential are of one app, and that Push Kit is on for it",
        ),
        (code, _) if code.starts_with("802") => {
            mend(&words, "check the credential and this machine's clock")
        }
        (code, _) if !code.is_empty() => refused(&words),
        // No code: Huawei's edge answered. 503 is its flow control.
        (_, 429 | 503) => rate_limited(after, &format!("Huawei answered status {}", answer.status)),
        (_, 500..=599) => unavailable(after, &format!("Huawei answered status {}", answer.status)),
        (_, 401 | 403) => mend(
            &format!("Huawei answered status {}", answer.status),
            "check the credential and the app's right to push",
        ),
        (_, 404) => {
            credential_bad("Huawei answered status 404: check app_id, project_id and the endpoint")
        }
        (_, 400) => refused("Huawei answered status 400"),
        (_, status) => unreadable(status),
    })
}

/// The tokens that a partial failure names: a list (v1, v2), or lists by reason (v3).
fn named(msg: &str) -> BTreeMap<String, Verdict> {
    let msg: Value = serde_json::from_str(msg).unwrap_or_default();
    let mut named = BTreeMap::new();
    let mut add = |list: &Value, verdict: Verdict| {
        for token in list
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            named.insert(token.to_owned(), verdict.clone());
        }
    };
    if let Some(list) = msg.get("illegal_tokens") {
        add(list, token_dead("illegal token"));
    }
    for (reason, list) in msg
        .get("illegalTokens")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        add(list, illegal(reason));
    }
    named
}

/// What the reasons of v3 mean for a token.
fn illegal(reason: &str) -> Verdict {
    match reason {
        "tokenFormatError" | "tokenPlatformNotSupport" | "noRight" => token_dead(reason),
        "disableSendHuaweiMsgBecauseOfPenalty" => credential_bad(reason),
        "appinfoError" => unavailable(None, reason),
        // The token is fine; the message may not be sent to it: noPushTypeRight, countryNotSupport and others.
        _ => refused(reason),
    }
}

/// Deaths that mean a wrong app or project when all tokens of a batch die of them.
pub(in crate::vendor) fn wrong_app(detail: &str) -> bool {
    detail.starts_with("80300007") || detail == "illegal token" || detail == "noRight"
}

/// What the verdict on a check message says about the credential.
pub(in crate::vendor) fn checked(verdict: &Verdict) -> CheckReport {
    match verdict {
        Verdict::Accepted { .. } | Verdict::TokenDead { .. } | Verdict::Refused { .. } => {
            CheckReport {
                ok: true,
                detail: "Huawei accepts the credential".to_owned(),
            }
        }
        other => vendor::unproved(other),
    }
}
