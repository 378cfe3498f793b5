//! `hongyan tail`: what happens, as it happens.

use clap::Args as ClapArgs;
use hongyan_core::event::Stage;
use serde_json::Value;

use super::output::{cell, harmless};
use super::remote::{Reach, Remote, block_on, told};
use super::trace::show_event;

/// Follow what happens to messages, live; ends with Ctrl-C
#[derive(ClapArgs, Debug)]
pub(crate) struct Args {
    /// Only this message
    #[arg(long, value_name = "ID")]
    message: Option<String>,
    /// Only this user
    #[arg(long)]
    user: Option<String>,
    /// Only this device
    #[arg(long)]
    device: Option<String>,
    /// Only this channel
    #[arg(long)]
    channel: Option<String>,
    /// Only this stage, such as delivered or dropped
    #[arg(long, value_parser = stages())]
    stage: Option<String>,
    /// End after so many events
    #[arg(long, short = 'n', value_name = "N")]
    count: Option<u64>,
    /// Begin after this event instead of now
    #[arg(long, value_name = "EVENT")]
    after: Option<String>,
    #[command(flatten)]
    remote: Remote,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let admin = args.remote.connect(Reach::App)?;
    let form = args.remote.form();
    block_on(async move {
        let mut tail = admin.events(&args.filter(), args.after.as_deref());
        let mut left = args.count.unwrap_or(u64::MAX);
        while left > 0 {
            let Some(event) = tail.next().await.map_err(told)? else {
                return Ok(());
            };
            let Ok(event) = serde_json::from_str::<Value>(&event.data) else {
                anyhow::bail!(
                    "the server sent an event that is not JSON; is --api really hongyan?"
                );
            };
            if !args.wants(&event) {
                continue;
            }
            left -= 1;
            show_event(form, &event, About::Anything)?;
        }
        Ok(())
    })
}

/// A word that is no stage would wait for ever.
fn stages() -> clap::builder::PossibleValuesParser {
    Stage::ALL
        .iter()
        .map(|stage| stage.as_str())
        .collect::<Vec<_>>()
        .into()
}

impl Args {
    /// What the server filters by, which is one of these; the rest is left out here.
    fn filter(&self) -> Vec<(&str, Option<&str>)> {
        [
            ("message", &self.message),
            ("device", &self.device),
            ("user", &self.user),
        ]
        .into_iter()
        .map(|(name, value)| (name, value.as_deref()))
        .find(|(_, value)| value.is_some())
        .into_iter()
        .collect()
    }

    fn wants(&self, event: &Value) -> bool {
        [
            ("message", &self.message),
            ("user", &self.user),
            ("device", &self.device),
            ("channel", &self.channel),
            ("stage", &self.stage),
        ]
        .into_iter()
        .all(|(field, want)| want.as_ref().is_none_or(|want| cell(event, field) == *want))
    }
}

/// What all events of a listing are about, and so goes without saying.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum About {
    /// Anything.
    Anything,
    /// One message.
    Message,
    /// One device.
    Device,
}

/// One event in one line: when, what, why, which, how long.
pub(crate) fn event_line(event: &Value, about: About) -> String {
    let mut line = format!("{}  {:<18}", cell(event, "at"), cell(event, "stage"));
    let reason = cell(event, "reason");
    line.push_str(&format!("  {reason:<20}"));
    for (name, path) in [
        ("message", "message"),
        ("user", "user"),
        ("device", "device"),
        ("via", "channel"),
        ("attempt", "attempt"),
        ("until", "until"),
    ] {
        let value = cell(event, path);
        let known = match about {
            About::Anything => false,
            About::Message => path == "message",
            About::Device => path == "device",
        };
        // The first try goes without saying.
        let first = path == "attempt" && (value == "1" || value == "0");
        if !value.is_empty() && !known && !first {
            line.push_str(&format!("  {name}={value}"));
        }
    }
    let took = cell(event, "took_ms");
    if !took.is_empty() {
        line.push_str(&format!("  {took} ms"));
    }
    let detail = cell(event, "detail");
    if !detail.is_empty() {
        line.push_str(&format!("  ({})", harmless(&detail)));
    }
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let event = json!({"at": "10:00", "stage": "dropped", "reason": "token_invalid",
            "message": "m1", "device": "d1", "channel": "apns", "attempt": 2, "took_ms": 31,
            "detail": "410\nUnregistered"});
        assert_eq!(
            event_line(&event, About::Anything),
            "10:00  dropped             token_invalid         message=m1  device=d1  via=apns  attempt=2  31 ms  (410 Unregistered)"
        );
        assert_eq!(
            event_line(
                &json!({"at": "1", "stage": "accepted", "message": "m"}),
                About::Message
            ),
            "1  accepted"
        );
    }
}
