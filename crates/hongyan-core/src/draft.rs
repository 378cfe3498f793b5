//! A message as the app server asks for it, before it is accepted.

use crate::limits::{
    ACK_TIMEOUT_MS_RANGE, BODY_CHARS_MAX, COLLAPSE_KEY_BYTES_MAX, DATA_BYTES_MAX,
    FALLBACK_AFTER_MS_RANGE, NAME_BYTES_MAX, SEND_AHEAD_MAX, TARGETS_LEN_MAX, TITLE_CHARS_MAX,
    TTL_DEFAULT, TTL_MAX, TTL_MIN, URL_BYTES_MAX,
};
use crate::message::{DeliveryMode, DeviceChoice, Notification, Options, Target};
use crate::{AppId, Class, ClassDetail, Message, MessageId, Timestamp};

/// A message that nobody has promised anything about yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// For whom.
    pub to: Target,
    /// What it is for.
    pub class: Class,
    /// The kind of a transaction.
    pub class_detail: Option<ClassDetail>,
    /// What is shown.
    pub notification: Option<Notification>,
    /// What the app gets.
    pub data: Option<serde_json::Map<String, serde_json::Value>>,
    /// How it travels.
    pub options: Options,
}

/// What is wrong with a draft, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Path in the request body, such as `options.ttl`.
    pub path: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl Draft {
    /// Everything that is wrong with it; empty when it may be accepted.
    #[must_use]
    pub fn check(&self, now: Timestamp) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut fault = |path: &str, problem: String| {
            faults.push(Fault {
                path: path.to_owned(),
                problem,
            });
        };
        let named = match &self.to {
            Target::Users(users) => Some(("to.users", users.len())),
            Target::Devices(devices) => Some(("to.devices", devices.len())),
            Target::Topic(_) | Target::All => None,
        };
        if let Some((path, len)) = named
            && !(1..=TARGETS_LEN_MAX).contains(&len)
        {
            fault(path, format!("must name 1 to {TARGETS_LEN_MAX}, not {len}"));
        }
        if self.notification.is_none() && self.data.is_none() {
            fault(
                "notification",
                "a message needs a notification, data or both".to_owned(),
            );
        }
        if self.class_detail.is_some() && self.class != Class::Transaction {
            fault("class_detail", "is for class transaction only".to_owned());
        }
        if let Some(n) = &self.notification {
            if n.title.trim().is_empty() && n.body.trim().is_empty() {
                let words = "needs a title or a body that is not blank";
                fault("notification", words.to_owned());
            }
            over(
                &mut fault,
                "notification.title",
                n.title.chars().count(),
                TITLE_CHARS_MAX,
                "characters",
            );
            over(
                &mut fault,
                "notification.body",
                n.body.chars().count(),
                BODY_CHARS_MAX,
                "characters",
            );
            if let Some(image) = &n.image {
                over(
                    &mut fault,
                    "notification.image",
                    image.len(),
                    URL_BYTES_MAX,
                    "bytes",
                );
                if !is_https_url(image) {
                    let words = "must be an https URL, such as https://example.com/picture.png";
                    fault("notification.image", words.to_owned());
                }
            }
            if let Some(click) = &n.click {
                over(
                    &mut fault,
                    "notification.click.url",
                    click.url.len(),
                    URL_BYTES_MAX,
                    "bytes",
                );
            }
            for (path, name) in [
                ("notification.sound", &n.sound),
                ("notification.group", &n.group),
            ] {
                let len = name.as_ref().map_or(0, String::len);
                over(&mut fault, path, len, NAME_BYTES_MAX, "bytes");
            }
        }
        if let Some(data) = &self.data {
            let len = serde_json::to_vec(data).map_or(usize::MAX, |d| d.len());
            over(&mut fault, "data", len, DATA_BYTES_MAX, "bytes of JSON");
        }
        self.check_names(&mut fault);
        self.check_options(now, &mut fault);
        faults
    }

    /// No name and no address may hold the character NUL: systems that a message goes through take it for an end. Texts may,
    /// as they are a person's own.
    fn check_names(&self, fault: &mut impl FnMut(&str, String)) {
        let of_notification = self.notification.iter().flat_map(|n| {
            [
                ("notification.image", n.image.as_ref()),
                ("notification.sound", n.sound.as_ref()),
                ("notification.click.url", n.click.as_ref().map(|c| &c.url)),
                ("notification.group", n.group.as_ref()),
            ]
        });
        let of_options = [("options.collapse_key", self.options.collapse_key.as_ref())];
        for (path, text) in of_notification.chain(of_options) {
            if text.is_some_and(|text| text.contains('\0')) {
                fault(path, "must not contain the character U+0000".to_owned());
            }
        }
    }

    fn check_options(&self, now: Timestamp, fault: &mut impl FnMut(&str, String)) {
        let o = &self.options;
        if let Some(ttl) = o.ttl_s
            && u64::from(ttl) > TTL_MAX.as_secs()
        {
            fault(
                "options.ttl",
                format!("must be 0 to {} seconds", TTL_MAX.as_secs()),
            );
        }
        if let Some(key) = &o.collapse_key
            && !(1..=COLLAPSE_KEY_BYTES_MAX).contains(&key.len())
        {
            fault(
                "options.collapse_key",
                format!("must be 1 to {COLLAPSE_KEY_BYTES_MAX} bytes"),
            );
        }
        let (low, high) = ACK_TIMEOUT_MS_RANGE;
        if let Some(ms) = o.ack_timeout_ms
            && !(low..=high).contains(&ms)
        {
            fault("options.ack_timeout_ms", format!("must be {low} to {high}"));
        }
        let (low, high) = FALLBACK_AFTER_MS_RANGE;
        if let Some(ms) = o.channels.fallback_after_ms
            && !(low..=high).contains(&ms)
        {
            fault(
                "options.channels.fallback_after_ms",
                format!("must be {low} to {high}"),
            );
        }
        if o.channels.fallback_after_ms.is_some() && !o.channels.fallback {
            fault(
                "options.channels.fallback_after_ms",
                "has no sense with fallback: false".to_owned(),
            );
        }
        if let Some(at) = o.send_at
            && at > now.plus(SEND_AHEAD_MAX)
        {
            fault(
                "options.send_at",
                format!(
                    "must be within {} days from now",
                    SEND_AHEAD_MAX.as_secs() / 86_400
                ),
            );
        }
        if o.devices != DeviceChoice::All && !matches!(self.to, Target::Users(_)) {
            fault(
                "options.devices",
                "is for messages to users only".to_owned(),
            );
        }
        if !o.push.enabled && o.delivery == DeliveryMode::OfflineOnly {
            fault(
                "options.push.enabled",
                "cannot be false with offline_only delivery".to_owned(),
            );
        }
    }

    /// The message that is accepted now under this id.
    #[must_use]
    pub fn into_message(self, app: AppId, id: MessageId, now: Timestamp) -> Message {
        let ttl = self
            .options
            .ttl_s
            .map_or(TTL_DEFAULT, |s| std::time::Duration::from_secs(s.into()))
            .max(TTL_MIN);
        let begins = self.options.send_at.map_or(now, |at| at.max(now));
        Message {
            id,
            app,
            to: self.to.each_once(),
            class: self.class,
            class_detail: self.class_detail,
            notification: self.notification,
            data: self.data,
            push: None,
            recalls: None,
            options: self.options,
            accepted_at: now,
            expires_at: begins.plus(ttl),
        }
    }
}

/// Whether it has a host, and nothing that no address has.
fn is_https_url(text: &str) -> bool {
    text.strip_prefix("https://").is_some_and(|rest| {
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = host.rsplit('@').next().unwrap_or_default();
        let named = host.split(':').next().unwrap_or_default();
        let bracketed = host.starts_with('[');
        let plain = |c: char| !c.is_whitespace() && !c.is_control();
        (bracketed || !named.is_empty()) && rest.chars().all(plain)
    })
}

fn over(fault: &mut impl FnMut(&str, String), path: &str, len: usize, max: usize, unit: &str) {
    if len > max {
        fault(path, format!("has {len} {unit}; at most {max} are allowed"));
    }
}
