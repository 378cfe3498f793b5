//! Users: attributes and what they want to be told.

use serde::{Deserialize, Serialize};

use crate::{AppId, Class, Timestamp, UserId};

/// An account.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct User {
    /// The app.
    pub app: AppId,
    /// Its id.
    pub id: UserId,
    /// Free attributes.
    #[serde(default)]
    pub attributes: serde_json::Map<String, serde_json::Value>,
    /// What the person wants.
    #[serde(default)]
    pub preferences: Preferences,
    /// When it was first heard of.
    pub created_at: Timestamp,
    /// Grows with every change.
    #[serde(default)]
    pub version: u64,
}

/// What a person wants to be told, and when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct Preferences {
    /// Classes that are never pushed.
    pub muted_classes: Vec<Class>,
    /// When nothing is pushed.
    pub quiet_hours: Option<QuietHours>,
    /// IANA time zone; the device's when absent.
    pub timezone: Option<String>,
}

/// A daily window in which pushes wait. It may cross midnight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuietHours {
    /// Begin, `HH:MM`, local time.
    pub start: String,
    /// End, `HH:MM`, local time, exclusive; `24:00` is the day's end.
    pub end: String,
    /// The classes that wait; all but `transaction` when absent.
    #[serde(default = "quiet_classes")]
    pub classes: Vec<Class>,
}

const MINUTES_PER_DAY: u16 = 24 * 60;

fn quiet_classes() -> Vec<Class> {
    vec![Class::Im, Class::Subscription, Class::Marketing]
}

impl QuietHours {
    /// Minutes since midnight of begin and end, when both are well formed. The end may be the day's: 1440.
    #[must_use]
    pub fn minutes(&self) -> Option<(u16, u16)> {
        let end = match self.end.as_str() {
            "24:00" => MINUTES_PER_DAY,
            end => minute_of_day(end)?,
        };
        Some((minute_of_day(&self.start)?, end))
    }
}

fn minute_of_day(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let digits = |t: &str| t.len() == 2 && t.bytes().all(|b| b.is_ascii_digit());
    if !digits(hours) || !digits(minutes) {
        return None;
    }
    let (hours, minutes) = (hours.parse::<u16>().ok()?, minutes.parse::<u16>().ok()?);
    (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quiet_hours_are_read_strictly() {
        let q = |s: &str, e: &str| {
            QuietHours {
                start: s.into(),
                end: e.into(),
                classes: vec![],
            }
            .minutes()
        };
        assert_eq!(q("22:00", "08:30"), Some((1320, 510)));
        assert_eq!(q("22:00", "24:00"), Some((1320, 1440)));
        for bad in ["24:00", "7:00", "07:60", "", "aa:bb", "+7:00"] {
            assert_eq!(q(bad, "08:00"), None, "{bad}");
        }
        for bad in ["24:01", "7:00", "25:00", ""] {
            assert_eq!(q("08:00", bad), None, "{bad}");
        }
    }
}
