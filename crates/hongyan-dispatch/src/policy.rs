//! When a person does not want to be told: pure decisions over data already read.

use hongyan_core::app::AppPolicy;
use hongyan_core::user::QuietHours;
use hongyan_core::{Class, Device, Timestamp, User};
use jiff::tz::TimeZone;

/// The end of the quiet time that `now` lies in, if it lies in one.
///
/// The user's own hours count; the app's stand in for users who set none. The time zone is the
/// user's, else the device's, else the app's; a name that is not in the IANA database counts as absent.
#[must_use]
pub fn quiet_until(
    user: Option<&User>,
    device: &Device,
    policy: &AppPolicy,
    class: Class,
    now: Timestamp,
) -> Option<Timestamp> {
    let hours = user
        .and_then(|u| u.preferences.quiet_hours.as_ref())
        .or(policy.quiet_hours.as_ref())?;
    if !hours.classes.contains(&class) {
        return None;
    }
    let names = [
        user.and_then(|u| u.preferences.timezone.as_deref()),
        device.timezone.as_deref(),
        Some(policy.timezone.as_str()),
    ];
    let zone = names
        .into_iter()
        .flatten()
        .find_map(|name| TimeZone::get(name).ok())
        .unwrap_or(TimeZone::UTC);
    window_end(hours, &zone, now)
}

/// The end of the window that `now` lies in. A window whose begin and end are the same is empty.
fn window_end(hours: &QuietHours, zone: &TimeZone, now: Timestamp) -> Option<Timestamp> {
    let (start, end) = hours.minutes()?;
    let local = jiff::Timestamp::from_millisecond(now.millis())
        .ok()?
        .to_zoned(zone.clone());
    let minute = u16::try_from(local.hour()).ok()? * 60 + u16::try_from(local.minute()).ok()?;
    let inside = if start <= end {
        (start..end).contains(&minute)
    } else {
        minute >= start || minute < end
    };
    if !inside {
        return None;
    }
    let mut date = local.date();
    // The day's end is the next one's beginning.
    let end = end % (24 * 60);
    if minute >= end {
        date = date.tomorrow().ok()?;
    }
    let opens = date
        .at(
            i8::try_from(end / 60).ok()?,
            i8::try_from(end % 60).ok()?,
            0,
            0,
        )
        .to_zoned(zone.clone())
        .ok()?;
    Some(Timestamp(opens.timestamp().as_millisecond()).max(Timestamp(now.millis() + 1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn end(start: &str, end: &str, zone: &str, now: &str) -> Option<String> {
        let hours = QuietHours {
            start: start.into(),
            end: end.into(),
            classes: vec![],
        };
        window_end(
            &hours,
            &TimeZone::get(zone).unwrap(),
            Timestamp::parse_rfc3339(now).unwrap(),
        )
        .map(Timestamp::rfc3339)
    }

    #[test]
    fn windows_are_local_and_may_cross_midnight() {
        let shanghai = "Asia/Shanghai";
        // 23:30 in Shanghai is inside 22:00–08:00 and ends at 08:00 the next day, which is 00:00 UTC.
        assert_eq!(
            end("22:00", "08:00", shanghai, "2026-03-01T15:30:00Z").as_deref(),
            Some("2026-03-02T00:00:00.000Z")
        );
        assert_eq!(
            end("22:00", "08:00", shanghai, "2026-03-01T23:59:00Z").as_deref(),
            Some("2026-03-02T00:00:00.000Z")
        );
        assert_eq!(
            end("22:00", "08:00", shanghai, "2026-03-02T00:00:00Z"),
            None
        );
        assert_eq!(
            end("12:00", "14:00", "UTC", "2026-03-01T13:00:00Z").as_deref(),
            Some("2026-03-01T14:00:00.000Z")
        );
        assert_eq!(end("12:00", "12:00", "UTC", "2026-03-01T12:00:00Z"), None);
        for whole in ["22:00", "00:00"] {
            let midnight = Some("2026-03-02T00:00:00.000Z");
            let until = end(whole, "24:00", "UTC", "2026-03-01T23:00:00Z");
            assert_eq!(until.as_deref(), midnight);
        }
        assert_eq!(end("22:00", "24:00", "UTC", "2026-03-02T00:00:00Z"), None);
        // The night the clocks go forward in Berlin: 02:30 does not exist, the window still ends.
        assert!(end("23:00", "02:30", "Europe/Berlin", "2026-03-28T23:30:00Z").is_some());
    }

    proptest! {
        #[test]
        fn the_end_is_later_and_at_most_a_day_away(s in 0u16..1440, e in 0u16..1440, at in 0i64..4_000_000_000_000) {
            let text = |m: u16| format!("{:02}:{:02}", m / 60, m % 60);
            let hours = QuietHours { start: text(s), end: text(e), classes: vec![] };
            for zone in ["UTC", "Asia/Kolkata", "America/New_York"] {
                if let Some(until) = window_end(&hours, &TimeZone::get(zone).unwrap(), Timestamp(at)) {
                    prop_assert!(until > Timestamp(at));
                    prop_assert!(until.millis() - at <= 25 * 3_600_000);
                }
            }
        }
    }
}
