//! The form of a message and the rules for its fields.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Class, Refusal, TARGETS_MAX, class};
use crate::exchange::{Call, percent_decode};
use crate::push::{self, Push};
use crate::world::World;

const TITLE_CHARS_MAX: usize = 49;
const DESCRIPTION_CHARS_MAX: usize = 127;
const PAYLOAD_BYTES_MAX: usize = 4096;
const EXTRAS_MAX: usize = 10;
const EXTRA_CHARS_MAX: usize = 1024;
const SEND_AHEAD_MS_MAX: i64 = 7 * 86_400_000;
const TTL_MS_MAX: i64 = 14 * 86_400_000;
const PUBLIC_TTL_MS_MAX: i64 = 86_400_000;
const PRIVATE_TTL_MS_MAX: i64 = 10 * 86_400_000;
const CALLBACK_URL_BYTES_MAX: usize = 128;
const CALLBACK_PARAM_BYTES_MAX: usize = 256;
const TOPICS_MAX: usize = 5;

/// Fields outside `extra.` that a send may carry.
const FIELDS: &[&str] = &[
    "payload",
    "restricted_package_name",
    "pass_through",
    "title",
    "description",
    "notify_type",
    "time_to_live",
    "time_to_send",
    "notify_id",
    "registration_id",
    "alias",
    "user_account",
    "miid",
    "topic",
    "topics",
    "topic_op",
    "region",
    "collapse_key",
];

/// `extra.` keys that Xiaomi reads itself; they do not count as the app's data.
const RESERVED: &[&str] = &[
    "channel_id",
    "channel_name",
    "channel_description",
    "template_id",
    "template_param",
    "sound_uri",
    "ticker",
    "notify_foreground",
    "notify_effect",
    "intent_uri",
    "web_uri",
    "flow_control",
    "jobkey",
    "callback",
    "callback.param",
    "callback.type",
    "locale",
    "locale_not_in",
    "model",
    "model_not_in",
    "app_version",
    "app_version_not_in",
    "connpt",
    "only_send_once",
];

/// The fields of one message.
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    pub(super) fn of(call: &Call) -> Self {
        Self(call.form())
    }

    /// One item of `multi_messages`, whose `extra` keys have no prefix.
    pub(super) fn of_item(item: &Value) -> Result<Self, Refusal> {
        let object = item
            .as_object()
            .ok_or_else(|| Refusal::new(65030, "message is not an object"))?;
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let mut fields = Vec::new();
        for (name, value) in object {
            match (name.as_str(), value) {
                ("extra", Value::Object(extra)) => fields.extend(
                    extra
                        .iter()
                        .map(|(key, value)| (format!("extra.{key}"), text(value))),
                ),
                _ => fields.push((name.clone(), text(value))),
            }
        }
        Ok(Self(fields))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, value)| value.as_str())
    }

    pub(super) fn extra(&self, name: &str) -> Option<&str> {
        self.get(&format!("extra.{name}"))
    }

    pub(super) fn channel(&self) -> String {
        self.extra("channel_id").unwrap_or_default().to_owned()
    }

    pub(super) fn target_noun(&self) -> &'static str {
        if self.get("alias").is_some() {
            "ALIAS"
        } else if self.get("user_account").is_some() {
            "USERACCOUNT"
        } else {
            "REGID"
        }
    }

    /// The comma list of targets, each once or more.
    pub(super) fn targets(&self, field: &str) -> Result<Vec<String>, Refusal> {
        let list: Vec<String> = self
            .get(field)
            .unwrap_or_default()
            .split(',')
            .map(str::trim)
            .filter(|target| !target.is_empty())
            .map(str::to_owned)
            .collect();
        if list.is_empty() {
            return Err(Refusal::new(
                10016,
                format!("missing required parameter {field}"),
            ));
        }
        if list.len() > TARGETS_MAX {
            let reason = format!("{field} has more than {TARGETS_MAX} targets");
            return Err(Refusal::new(10017, reason));
        }
        Ok(list)
    }

    pub(super) fn check_wide(&self, kind: &str) -> Result<(), Refusal> {
        match kind {
            "topic" if self.get("topic").unwrap_or_default().is_empty() => {
                Err(Refusal::new(65013, "topic is empty"))
            }
            "multi_topic" => {
                let topics = self.get("topics").unwrap_or_default();
                let count = topics
                    .split(";$;")
                    .filter(|topic| !topic.is_empty())
                    .count();
                let operation = self.get("topic_op").unwrap_or_default();
                if count == 0 {
                    Err(Refusal::new(65013, "topics is empty"))
                } else if count > TOPICS_MAX {
                    Err(Refusal::new(65035, "more than 5 topics"))
                } else if !["UNION", "INTERSECTION", "EXCEPT"].contains(&operation) {
                    Err(Refusal::new(
                        10017,
                        "topic_op is not UNION, INTERSECTION or EXCEPT",
                    ))
                } else {
                    Ok(())
                }
            }
            _ => Ok(()),
        }
    }

    /// Every rule that does not depend on the target. Answers the channel id, empty for none.
    pub(super) fn check(&self, world: &World) -> Result<String, Refusal> {
        self.check_fields()?;
        self.check_package(world)?;
        self.check_text()?;
        self.check_numbers(world.clock.now_ms())?;
        self.check_extras()?;
        self.check_callback()?;
        self.check_channel(world)
    }

    fn check_fields(&self) -> Result<(), Refusal> {
        let mut seen = BTreeSet::new();
        for (name, _) in &self.0 {
            if !seen.insert(name) {
                return Err(Refusal::new(
                    10008,
                    format!("parameter {name} is given twice"),
                ));
            }
            if !name.starts_with("extra.") && !FIELDS.contains(&name.as_str()) {
                return Err(Refusal::new(10008, format!("unknown parameter {name}")));
            }
        }
        Ok(())
    }

    fn check_package(&self, world: &World) -> Result<(), Refusal> {
        let own = world.accounts.xiaomi.package_name.as_str();
        match self.get("restricted_package_name") {
            None | Some("") => Err(Refusal::new(
                10016,
                "missing required parameter restricted_package_name",
            )),
            Some(packages) if packages.split(',').any(|package| package.trim() != own) => Err(
                Refusal::new(22022, "package name does not belong to the app"),
            ),
            Some(_) => Ok(()),
        }
    }

    fn check_text(&self) -> Result<(), Refusal> {
        let payload = self.get("payload").unwrap_or_default();
        if payload.len() >= PAYLOAD_BYTES_MAX {
            return Err(Refusal::new(65009, "payload is 4 KB or longer"));
        }
        match self.get("pass_through") {
            None | Some("0") => {}
            Some("1") if payload.is_empty() => {
                return Err(Refusal::new(10016, "missing required parameter payload"));
            }
            Some("1") => return Ok(()),
            Some(_) => return Err(Refusal::new(10017, "pass_through is not 0 or 1")),
        }
        for (name, max) in [
            ("title", TITLE_CHARS_MAX),
            ("description", DESCRIPTION_CHARS_MAX),
        ] {
            let text = self.get(name).unwrap_or_default();
            if text.trim().is_empty() {
                return Err(Refusal::new(
                    10016,
                    format!("missing required parameter {name}"),
                ));
            }
            if text.chars().count() > max {
                let reason = format!("{name} is longer than {max} characters");
                return Err(Refusal::new(65009, reason));
            }
        }
        Ok(())
    }

    fn check_numbers(&self, now_ms: i64) -> Result<(), Refusal> {
        let check = |name: &str, low: i64, high: i64, code: i64| match self.get(name) {
            None => Ok(()),
            Some(text) => match text.parse::<i64>() {
                Ok(number) if (low..=high).contains(&number) => Ok(()),
                _ => Err(Refusal::new(code, format!("parameter {name} is invalid"))),
            },
        };
        check("notify_type", -1, 7, 10017)?;
        check("notify_id", 0, i64::from(i32::MAX), 22103)?;
        check("time_to_live", 0, TTL_MS_MAX, 10017)?;
        check(
            "time_to_send",
            0,
            now_ms.saturating_add(SEND_AHEAD_MS_MAX),
            10017,
        )
    }

    fn check_extras(&self) -> Result<(), Refusal> {
        let own: Vec<_> = self
            .0
            .iter()
            .filter_map(|(name, value)| Some((name.strip_prefix("extra.")?, value)))
            .filter(|(name, _)| !RESERVED.contains(name))
            .collect();
        if own.len() > EXTRAS_MAX {
            return Err(Refusal::new(65014, "more than 10 extra pairs"));
        }
        // The limit is read as one for all pairs together, the stricter reading.
        let chars: usize = own
            .iter()
            .map(|(name, value)| name.chars().count() + value.chars().count())
            .sum();
        if chars > EXTRA_CHARS_MAX {
            return Err(Refusal::new(
                65015,
                "extra pairs are longer than 1024 characters",
            ));
        }
        if let Some(job) = self.extra("jobkey") {
            let shaped = (1..=20).contains(&job.len())
                && !job.starts_with('_')
                && job
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
            if !shaped {
                return Err(Refusal::new(10017, "extra.jobkey is invalid"));
            }
        }
        let web = self.extra("web_uri").unwrap_or_default();
        match self.extra("notify_effect") {
            None | Some("1") => Ok(()),
            Some("2") if self.extra("intent_uri").is_some() => Ok(()),
            Some("3") if web.starts_with("http://") || web.starts_with("https://") => Ok(()),
            Some(_) => Err(Refusal::new(
                10017,
                "extra.notify_effect is invalid or incomplete",
            )),
        }
    }

    fn check_callback(&self) -> Result<(), Refusal> {
        if let Some(url) = self.extra("callback") {
            if url.len() > CALLBACK_URL_BYTES_MAX {
                return Err(Refusal::new(65037, "callback URL is longer than 128 bytes"));
            }
            if !(url.starts_with("http://") || url.starts_with("https://")) {
                return Err(Refusal::new(65038, "callback URL is illegal"));
            }
        }
        if self
            .extra("callback.param")
            .is_some_and(|it| it.len() > CALLBACK_PARAM_BYTES_MAX)
        {
            return Err(Refusal::new(
                65036,
                "callback parameter is longer than 256 bytes",
            ));
        }
        match self.extra("callback.type").map(str::parse::<u32>) {
            None | Some(Ok(1..=2047)) => Ok(()),
            Some(_) => Err(Refusal::new(10017, "extra.callback.type is invalid")),
        }
    }

    fn check_channel(&self, world: &World) -> Result<String, Refusal> {
        let rules = *super::lock(&world.xiaomi.rules);
        let channel = self.channel();
        if channel.is_empty() {
            return if rules.channel_required {
                Err(Refusal::new(27001, "channel_id is required for this app"))
            } else {
                Ok(channel)
            };
        }
        if !world.accounts.xiaomi.channels.contains_key(&channel) {
            return Err(Refusal::new(
                27001,
                format!("channel {channel} is not approved"),
            ));
        }
        match self.extra("template_id") {
            None if rules.template_required && class(world, &channel) == Class::Private => {
                Err(Refusal::new(27001, "a private message needs a template"))
            }
            None => Ok(channel),
            Some(id) => {
                self.check_template(world, id, &channel)?;
                Ok(channel)
            }
        }
    }

    /// Exactly the variables of the template, each with 1 to 128 characters.
    fn check_template(&self, world: &World, id: &str, channel: &str) -> Result<(), Refusal> {
        let template = world
            .accounts
            .xiaomi
            .templates
            .get(id)
            .filter(|template| template.channel_id == channel)
            .ok_or_else(|| Refusal::new(27001, format!("template {id} is not of this channel")))?;
        let params: Value = serde_json::from_str(self.extra("template_param").unwrap_or("{}"))
            .map_err(|_| Refusal::new(65030, "extra.template_param is not JSON"))?;
        let params = params
            .as_object()
            .ok_or_else(|| Refusal::new(65030, "extra.template_param is not an object"))?;
        let wanted = variables(&format!("{}{}", template.title, template.content));
        let given: BTreeSet<&str> = params.keys().map(String::as_str).collect();
        if wanted.iter().map(String::as_str).collect::<BTreeSet<_>>() != given {
            let reason = format!("template {id} has other variables than template_param");
            return Err(Refusal::new(10017, reason));
        }
        let fits = params.values().all(|value| {
            value.as_str().is_some_and(|text| {
                (1..=128).contains(&text.chars().count())
                    && !text.trim().is_empty()
                    && !text.chars().any(symbol)
            })
        });
        if fits {
            Ok(())
        } else {
            Err(Refusal::new(10017, "a template variable is invalid"))
        }
    }

    /// Callback URL, parameter and event bits.
    pub(super) fn callback(&self) -> Option<(String, String, u32)> {
        let url = self.extra("callback")?.to_owned();
        let param = self.extra("callback.param").unwrap_or_default().to_owned();
        let kinds = self
            .extra("callback.type")
            .and_then(|it| it.parse().ok())
            .unwrap_or(3);
        Some((url, param, kinds))
    }

    pub(super) fn push(&self, world: &World, class: Class) -> Push {
        let longest = match class {
            Class::Private => PRIVATE_TTL_MS_MAX,
            Class::Public | Class::Default => PUBLIC_TTL_MS_MAX,
        };
        let ttl = self
            .get("time_to_live")
            .and_then(|it| it.parse().ok())
            .unwrap_or(longest);
        let payload = self.get("payload").unwrap_or_default();
        let in_payload = || {
            let decoded = percent_decode(payload.as_bytes());
            push::message_id(&Value::String(payload.to_owned()))
                .or_else(|| push::message_id(&Value::String(decoded)))
        };
        Push {
            message: self
                .extra("hy_id")
                .map(str::to_owned)
                .or_else(in_payload)
                .or_else(|| push::message_id_in_intent(self.extra("intent_uri").unwrap_or(""))),
            title: self.get("title").unwrap_or_default().to_owned(),
            body: self.get("description").unwrap_or_default().to_owned(),
            visible: self.get("pass_through") != Some("1"),
            // Without an id an app shows one notification only: the newest replaces.
            collapse: Some(format!("notify {}", self.get("notify_id").unwrap_or("0"))),
            expires_ms: world.clock.now_ms() + longest.min(ttl),
            stored: self.extra("only_send_once") != Some("1"),
            receipt: None,
        }
    }
}

/// Names written as `{$name$}`.
fn variables(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("{$") {
        let Some((name, after)) = after.split_once("$}") else {
            break;
        };
        names.insert(name.to_owned());
        rest = after;
    }
    names
}

/// Emoji and their like, which template variables must not contain.
fn symbol(c: char) -> bool {
    matches!(u32::from(c), 0x2600..=0x27BF | 0x1F000..=0x1FAFF | 0x2190..=0x21FF | 0x2B00..=0x2BFF)
}

#[cfg(test)]
mod tests {
    use super::variables;

    #[test]
    fn template_variables_are_found() {
        let found: Vec<String> = variables("a {$x$} b {$y$}{$x$} {$z").into_iter().collect();
        assert_eq!(found, ["x", "y"]);
    }
}
