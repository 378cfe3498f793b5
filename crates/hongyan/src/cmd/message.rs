//! A message from flags, for `send` and `explain`.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::remote::{Usage, put, put_pairs, read_json};

/// What is sent to whom.
#[derive(Args, Debug)]
pub(crate) struct MessageArgs {
    /// Text of the notification
    #[arg(value_name = "TEXT")]
    body: Option<String>,
    /// Title of the notification
    #[arg(long, short = 't')]
    title: Option<String>,
    /// Address that a tap opens
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Data for the app, a JSON object
    #[arg(long, value_name = "JSON")]
    payload: Option<String>,
    /// What it is for: im, transaction, subscription or marketing
    #[arg(long, short = 'c', value_name = "CLASS")]
    class: Option<String>,
    /// Read the message from a JSON file (- for stdin); flags change it
    #[arg(long, short = 'f', value_name = "FILE")]
    file: Option<PathBuf>,
    /// Set any field of the message, such as options.ttl=60; may be repeated
    #[arg(long = "set", short = 's', value_name = "PATH=VALUE")]
    set: Vec<String>,

    /// A user; several by commas or by repeating
    #[arg(long, short = 'u', value_delimiter = ',', help_heading = "To")]
    user: Vec<String>,
    /// A device; several by commas or by repeating
    #[arg(long, short = 'd', value_delimiter = ',', help_heading = "To")]
    device: Vec<String>,
    /// The subscribers of a topic
    #[arg(long, help_heading = "To")]
    topic: Option<String>,
    /// A saved segment
    #[arg(long, help_heading = "To")]
    segment: Option<String>,
    /// Every device of the app
    #[arg(long, help_heading = "To")]
    all: bool,

    /// How long it may wait, in seconds
    #[arg(long, value_name = "SECONDS", help_heading = "Delivery")]
    ttl: Option<u64>,
    /// Takes the place of the one before with the same key
    #[arg(long, value_name = "KEY", help_heading = "Delivery")]
    collapse: Option<String>,
    /// online_first, online_only, offline_only or both
    #[arg(long, value_name = "HOW", help_heading = "Delivery")]
    delivery: Option<String>,
    /// Channels in the order to try, by commas
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "CHANNELS",
        help_heading = "Delivery"
    )]
    channels: Vec<String>,
    /// When to send it, such as 2026-01-01T09:00:00+08:00
    #[arg(long, value_name = "TIME", help_heading = "Delivery")]
    send_at: Option<String>,
}

impl MessageArgs {
    /// The body of the request. Values are judged by the server, which knows the rules.
    pub(crate) fn build(&self) -> anyhow::Result<Value> {
        let mut message = match &self.file {
            Some(path) => read_json(path)?,
            None => json!({}),
        };
        if !message.is_object() {
            return Err(Usage("the message has to be a JSON object".to_owned()).into());
        }
        if let Some(to) = self.target()? {
            put(&mut message, "to", to)?;
        }
        if message.get("to").is_none() {
            let why = "the message has no target; give one of --user, --device, --topic, --segment, --all";
            return Err(Usage(why.to_owned()).into());
        }
        let texts = [
            ("notification.title", &self.title),
            ("notification.body", &self.body),
            ("notification.click.url", &self.url),
            ("class", &self.class),
            ("options.collapse_key", &self.collapse),
            ("options.delivery", &self.delivery),
            ("options.send_at", &self.send_at),
        ];
        for (path, text) in texts {
            if let Some(text) = text {
                put(&mut message, path, text.as_str().into())?;
            }
        }
        if let Some(ttl) = self.ttl {
            put(&mut message, "options.ttl", ttl.into())?;
        }
        if !self.channels.is_empty() {
            put(&mut message, "options.channels.order", json!(self.channels))?;
        }
        if let Some(payload) = &self.payload {
            let payload = serde_json::from_str(payload)
                .map_err(|e| Usage(format!("--payload is not JSON: {e}")))?;
            put(&mut message, "data", payload)?;
        }
        put_pairs(&mut message, &self.set)?;
        Ok(message)
    }

    /// Whether anything but users and devices was given.
    pub(crate) fn has_content(&self) -> bool {
        let texts = [
            &self.body,
            &self.title,
            &self.url,
            &self.payload,
            &self.class,
            &self.topic,
            &self.segment,
            &self.collapse,
            &self.delivery,
            &self.send_at,
        ];
        texts.iter().any(|text| text.is_some())
            || self.file.is_some()
            || self.all
            || self.ttl.is_some()
            || !(self.set.is_empty() && self.channels.is_empty())
    }

    /// The users that were named.
    pub(crate) fn users(&self) -> &[String] {
        &self.user
    }

    /// The devices that were named.
    pub(crate) fn devices(&self) -> &[String] {
        &self.device
    }

    fn target(&self) -> Result<Option<Value>, Usage> {
        let mut targets = Vec::new();
        match self.user.as_slice() {
            [] => {}
            [user] => targets.push(json!({ "user": user })),
            users => targets.push(json!({ "users": users })),
        }
        match self.device.as_slice() {
            [] => {}
            [device] => targets.push(json!({ "device": device })),
            devices => targets.push(json!({ "devices": devices })),
        }
        targets.extend(self.topic.iter().map(|topic| json!({ "topic": topic })));
        targets.extend(
            self.segment
                .iter()
                .map(|segment| json!({ "segment": segment })),
        );
        if self.all {
            targets.push(json!({ "all": true }));
        }
        if targets.len() > 1 {
            let why = "a message goes to one of --user, --device, --topic, --segment, --all";
            return Err(Usage(why.to_owned()));
        }
        Ok(targets.pop())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        message: MessageArgs,
    }

    fn check(line: &str, want: Value) {
        let args = std::iter::once("x").chain(line.split_whitespace());
        let got = Line::try_parse_from(args).unwrap().message.build();
        match got {
            Ok(message) => assert_eq!(message, want, "{line}"),
            Err(error) => assert_eq!(error.to_string(), want.as_str().unwrap_or("?"), "{line}"),
        }
    }

    #[test]
    fn flags_become_a_message() {
        check(
            "-u u1 -t Hi there -c im --ttl 60 --channels apns,fcm --payload {\"a\":1}",
            json!({"to": {"user": "u1"}, "class": "im",
                "notification": {"title": "Hi", "body": "there"}, "data": {"a": 1},
                "options": {"ttl": 60, "channels": {"order": ["apns", "fcm"]}}}),
        );
        check(
            "--user a,b x",
            json!({"to": {"users": ["a", "b"]}, "notification": {"body": "x"}}),
        );
        check(
            "--all --set options.badge=3 x",
            json!({"to": {"all": true},
            "notification": {"body": "x"}, "options": {"badge": 3}}),
        );
        check(
            "x",
            json!(
                "the message has no target; give one of --user, --device, --topic, --segment, --all"
            ),
        );
        check(
            "-u a --all x",
            json!("a message goes to one of --user, --device, --topic, --segment, --all"),
        );
    }
}
