//! What a vendor's answer has in common with all others: when to come again, and what went wrong in words.

use std::time::Duration;

use hongyan_core::verdict::Unsure;
use hongyan_core::{Reason, Timestamp, Verdict};
use http::HeaderMap;

use crate::texts::detail;

/// Longest wait that a vendor's `Retry-After` may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(86_400);

/// `Retry-After`: seconds or an HTTP date (RFC 9110 section 10.2.3).
pub(crate) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers
        .get(http::header::RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date = jiff::fmt::rfc2822::DateTimeParser::new()
                .parse_timestamp(text)
                .ok()?;
            Timestamp(date.as_millisecond()).since(now)
        }
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

pub(crate) fn accepted(vendor_id: Option<&str>) -> Verdict {
    Verdict::Accepted {
        vendor_id: vendor_id.map(detail),
    }
}

pub(crate) fn token_dead(words: &str) -> Verdict {
    Verdict::TokenDead {
        reason: Reason::TokenInvalid,
        detail: detail(words),
        since: None,
    }
}

pub(crate) fn refused(words: &str) -> Verdict {
    Verdict::Refused {
        reason: Reason::PayloadRejected,
        detail: detail(words),
    }
}

pub(crate) fn too_large(words: &str) -> Verdict {
    Verdict::Refused {
        reason: Reason::PayloadTooLarge,
        detail: detail(words),
    }
}

pub(crate) fn credential_bad(words: &str) -> Verdict {
    Verdict::CredentialBad {
        detail: detail(words),
    }
}

/// The credential must be mended, and this is how; the vendor's own words give way to it.
pub(crate) fn mend(words: &str, how: &str) -> Verdict {
    const WORDS_BYTES_MAX: usize = 160;
    let words = words.trim();
    let mut end = words.len().min(WORDS_BYTES_MAX);
    while !words.is_char_boundary(end) {
        end -= 1;
    }
    let words = words.get(..end).unwrap_or_default();
    credential_bad(&format!("{words}: {how}"))
}

pub(crate) fn quota(words: &str) -> Verdict {
    Verdict::QuotaExhausted {
        until: None,
        detail: detail(words),
    }
}

/// The vendor answered that it cannot: it did not take the message.
pub(crate) fn unavailable(after: Option<Duration>, words: &str) -> Verdict {
    Verdict::Retry {
        reason: Reason::VendorUnavailable,
        after,
        detail: detail(words),
        certainty: Unsure::NotTaken,
    }
}

/// The vendor asked the whole credential to slow down, and to come again no sooner than `after` when that is its own word: it
/// did not take the message.
pub(crate) fn rate_limited(after: Option<Duration>, words: &str) -> Verdict {
    Verdict::Retry {
        reason: Reason::VendorRateLimited,
        after,
        detail: detail(words),
        certainty: Unsure::NotTaken,
    }
}

/// The vendor takes no more for this one device for a while.
pub(crate) fn device_limited(after: Option<Duration>, words: &str) -> Verdict {
    Verdict::DeviceLimited {
        after,
        detail: detail(words),
    }
}

/// The answer makes no sense: the vendor may have taken the message.
pub(crate) fn unreadable(status: u16) -> Verdict {
    Verdict::Retry {
        reason: Reason::VendorUnavailable,
        after: None,
        detail: format!("the vendor's answer (status {status}) cannot be read"),
        certainty: Unsure::MaybeTaken,
    }
}

/// How long until the next midnight in Beijing, where the Chinese vendors' quotas begin anew.
pub(crate) fn until_beijing_midnight(now: Timestamp) -> Duration {
    const DAY_MS: i64 = 86_400_000;
    const BEIJING_MS: i64 = 8 * 3_600_000;
    let left = DAY_MS - (now.millis().saturating_add(BEIJING_MS)).rem_euclid(DAY_MS);
    Duration::from_millis(u64::try_from(left).unwrap_or(0))
}

/// How long until the clocks in Beijing next show this hour, 0 to 23.
pub(crate) fn until_beijing_hour(now: Timestamp, hour: u32) -> Duration {
    const DAY: Duration = Duration::from_secs(86_400);
    let past_midnight = DAY.saturating_sub(until_beijing_midnight(now));
    let wanted = Duration::from_secs(u64::from(hour.min(23)) * 3600);
    match wanted.checked_sub(past_midnight) {
        Some(left) if !left.is_zero() => left,
        _ => (wanted + DAY).saturating_sub(past_midnight),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date() {
        let now = Timestamp::parse_rfc3339("1994-11-06T08:49:07Z").unwrap();
        let check = |text: &'static str, want: Option<u64>| {
            let mut headers = HeaderMap::new();
            headers.insert("retry-after", HeaderValue::from_static(text));
            assert_eq!(
                retry_after(&headers, now),
                want.map(Duration::from_secs),
                "{text}"
            );
        };
        check("7", Some(7));
        check("Sun, 06 Nov 1994 08:49:37 GMT", Some(30));
        check("Sun, 06 Nov 1994 08:00:00 GMT", Some(0));
        check("9999999999", Some(86_400));
        check("soon", None);
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn the_beijing_day_ends_at_16_utc() {
        let check = |text: &str, want: u64| {
            let now = Timestamp::parse_rfc3339(text).unwrap();
            assert_eq!(
                until_beijing_midnight(now),
                Duration::from_secs(want),
                "{text}"
            );
        };
        check("2026-11-22T15:59:00Z", 60);
        check("2026-11-22T16:00:00Z", 86_400);
        check("2026-11-22T00:00:00Z", 16 * 3600);
        let morning = |text: &str, want: u64| {
            let now = Timestamp::parse_rfc3339(text).unwrap();
            assert_eq!(
                until_beijing_hour(now, 7),
                Duration::from_secs(want),
                "{text}"
            );
        };
        morning("2026-11-22T15:00:00Z", 8 * 3600);
        morning("2026-11-22T16:00:00Z", 7 * 3600);
        morning("2026-11-22T22:59:59Z", 1);
        morning("2026-11-22T23:00:00Z", 24 * 3600);
    }
}
