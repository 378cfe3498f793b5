//! What the vendors' receipts have in common: times in several shapes, lists of tokens in one text, our message's id.

use hongyan_core::port::CallbackError;
use hongyan_core::{MessageId, Timestamp};
use serde_json::Value;

/// Receipts in one post; a vendor reports far fewer at once.
pub(crate) const RECEIPTS_MAX: usize = 10_000;

/// Below this a number of 1970-based time is seconds, above it milliseconds.
const SECONDS_BELOW: i64 = 100_000_000_000;
const BEIJING_S: i32 = 8 * 3600;

/// The JSON of a post.
pub(crate) fn json(body: &[u8]) -> Result<Value, CallbackError> {
    serde_json::from_slice(body)
        .map_err(|_| CallbackError::Malformed("the body is not JSON".to_owned()))
}

/// A time as number, as text of a number (milliseconds or seconds), or as `2026-01-31 08:00:00` in Beijing.
pub(crate) fn at(value: Option<&Value>) -> Option<Timestamp> {
    let number = match value? {
        Value::Number(number) => number.as_i64()?,
        Value::String(text) => match text.trim().parse() {
            Ok(number) => number,
            Err(_) => return date(text.trim()),
        },
        _ => return None,
    };
    match number {
        ..=0 => None,
        1..SECONDS_BELOW => Some(Timestamp(number.saturating_mul(1000))),
        _ => Some(Timestamp(number)),
    }
}

fn date(text: &str) -> Option<Timestamp> {
    if let Some(at) = Timestamp::parse_rfc3339(text) {
        return Some(at);
    }
    let local: jiff::civil::DateTime = text.parse().ok()?;
    let beijing = jiff::tz::Offset::from_seconds(BEIJING_S).ok()?;
    let at = beijing.to_timestamp(local).ok()?;
    Some(Timestamp(at.as_millisecond()))
}

/// The tokens of a list that is joined by commas, with or without spaces.
pub(crate) fn tokens(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|t| !t.is_empty())
}

/// Our message, when the vendor gave our parameter back.
pub(crate) fn message(param: Option<&Value>) -> Option<MessageId> {
    MessageId::parse(param?.as_str()?.trim()).ok()
}

/// A text, also when it was written as a number; empty when it is not there.
pub(crate) fn text(value: Option<&Value>) -> String {
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_are_read_in_every_shape() {
        let check = |value: Value, want: Option<i64>| {
            assert_eq!(at(Some(&value)), want.map(Timestamp), "{value}");
        };
        check(json!(1_700_000_000_000_i64), Some(1_700_000_000_000));
        check(json!("1700000000000"), Some(1_700_000_000_000));
        check(json!("1700000000"), Some(1_700_000_000_000));
        check(json!("2023-11-15 06:13:20"), Some(1_700_000_000_000));
        check(json!("2023-11-14T22:13:20Z"), Some(1_700_000_000_000));
        check(json!("yesterday"), None);
        check(json!(-5), None);
        check(json!({}), None);
        assert_eq!(at(None), None);
    }

    #[test]
    fn lists_are_split_and_trimmed() {
        let list: Vec<&str> = tokens("a, b,,c ").collect();
        assert_eq!(list, ["a", "b", "c"]);
    }
}
