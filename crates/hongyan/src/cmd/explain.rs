//! `hongyan explain`: what would happen, or what happened, and why.

use clap::Args as ClapArgs;
use serde_json::Value;

use super::message::MessageArgs;
use super::output::{self, Column, Form, cell, harmless, rows};
use super::remote::{Reach, Remote, Usage, block_on, segment, told, with_query};
use super::tail::About;
use super::trace::show_trace;

/// Say what would happen to each device and why; or what happened to a message
#[derive(ClapArgs, Debug)]
#[command(
    after_help = "Examples:\n  hongyan explain --user u1 \"How are you?\"      nothing is sent\n  hongyan explain --message ID --user u1        why did she not get it?"
)]
pub(crate) struct Args {
    #[command(flatten)]
    draft: MessageArgs,
    /// Explain a message that was sent, for all, one --user or one --device
    #[arg(long, short = 'm', value_name = "ID")]
    message: Option<String>,
    /// Show the vendors' payloads too
    #[arg(long, short = 'p')]
    payloads: bool,
    #[command(flatten)]
    remote: Remote,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let form = args.remote.form();
    if let Some(id) = &args.message {
        let (user, device) = args.draft.only_user_or_device()?;
        if args.payloads {
            return Err(Usage(
                "--payloads is for messages that are not sent yet: leave --message out".to_owned(),
            )
            .into());
        }
        let admin = args.remote.connect(Reach::App)?;
        return block_on(async {
            let path = format!("/v1/messages/{}/trace", segment(id));
            let path = with_query(&path, &[("user", user), ("device", device)]);
            show_trace(&admin, &path, form, About::Message).await?;
            Ok(())
        });
    }
    let message = args.draft.build()?;
    let admin = args.remote.connect(Reach::App)?;
    block_on(async {
        let plan = admin.explain(&message).await.map_err(told)?;
        match form {
            Form::Json => form.thing(&plan)?,
            Form::Text => plan_text(&plan, args.payloads)?,
        }
        Ok(())
    })
}

const COLUMNS: &[Column] = &[
    ("DEVICE", "device"),
    ("USER", "user"),
    ("PLATFORM", "platform"),
    ("CONNECTED", "connected"),
    ("DECISION", "decision"),
    ("CHANNEL", "channel"),
    ("CREDENTIAL", "credential"),
    ("REASON", "reason"),
    ("UNTIL", "until"),
    ("DETAIL", "detail"),
    ("BESIDE IT", "beside.decision"),
    ("BESIDE VIA", "beside.channel"),
    ("IF SILENT", "otherwise.decision"),
    ("THEN VIA", "otherwise.channel"),
    ("THEN", "otherwise.reason"),
];

fn plan_text(plan: &Value, payloads: bool) -> anyhow::Result<()> {
    Form::Text.list(plan, COLUMNS, "no device would get it")?;
    if plan.get("more") == Some(&Value::Bool(true)) {
        output::line("and more devices, which are not listed")?;
    }
    for device in rows(plan).iter().filter(|_| payloads) {
        let requests = [
            device.get("request"),
            device.pointer("/beside/request"),
            device.pointer("/otherwise/request"),
        ];
        for request in requests.into_iter().flatten() {
            let name = cell(device, "device");
            // JSON text escapes what could steer the terminal, but for marks beyond ASCII.
            output::line(&format!("\n{name}"))?;
            for line in format!("{request:#}").lines() {
                output::line(&harmless(line))?;
            }
        }
    }
    Ok(())
}

impl MessageArgs {
    /// The one user or device of a trace.
    fn only_user_or_device(&self) -> Result<(Option<&str>, Option<&str>), Usage> {
        if self.has_content() {
            return Err(Usage(
                "--message names a message that was sent: give one --user or one --device beside it, and nothing of a new message"
                    .to_owned(),
            ));
        }
        match (self.users(), self.devices()) {
            ([], []) => Ok((None, None)),
            ([user], []) => Ok((Some(user), None)),
            ([], [device]) => Ok((None, Some(device))),
            _ => Err(Usage(
                "with --message give one --user or one --device, or none".to_owned(),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn a_message_that_was_sent_is_not_made_anew() {
        for line in [
            "-m ID hello",
            "-m ID --topic t",
            "-m ID --ttl 5",
            "-m ID -p",
            "-m ID -u a,b",
        ] {
            let line = std::iter::once("x").chain(line.split(' '));
            let args = Line::try_parse_from(line).unwrap().args;
            assert!(run(args).unwrap_err().is::<Usage>());
        }
    }
}
