//! `hongyan send`: one message, and what became of it.

use std::time::Duration;

use clap::Args as ClapArgs;
use hongyan_client::Admin;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::message::MessageArgs;
use super::output::{self, Form, cell};
use super::remote::{Reach, Remote, block_on, segment, told};
use super::tail::About;
use super::trace::{read_trace, show_event};

/// How often the trace is read while waiting.
const POLL_INTERVAL: Duration = Duration::from_millis(300);

/// Send one message
#[derive(ClapArgs, Debug)]
#[command(after_help = "Example:\n  hongyan send --user u1 --title Hello \"How are you?\" --wait")]
pub(crate) struct Args {
    #[command(flatten)]
    message: MessageArgs,
    /// Send it once, however often this is called within 24 hours
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Show what happens until every device has its outcome
    #[arg(long, short = 'w')]
    wait: bool,
    /// How long to wait for that, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30, requires = "wait")]
    wait_s: u64,
    #[command(flatten)]
    remote: Remote,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let message = args.message.build()?;
    let admin = args.remote.connect(Reach::App)?;
    let form = args.remote.form();
    block_on(async move {
        let sent = match &args.idempotency_key {
            Some(key) => admin.send_once(&message, key).await,
            None => admin.send(&message).await,
        }
        .map_err(told)?;
        if !args.wait {
            let words = format!("accepted {}", output::harmless(&sent.id));
            return Ok(form.done(&json!({ "id": sent.id }), &words)?);
        }
        if form == Form::Text {
            output::line(&format!("accepted {}", output::harmless(&sent.id)))?;
        }
        follow(&admin, &sent.id, form, Duration::from_secs(args.wait_s)).await
    })
}

/// Prints the events of a message as they come, until every device that it was meant for has its outcome.
async fn follow(admin: &Admin, id: &str, form: Form, patience: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + patience;
    let path = format!("/v1/messages/{}/trace", segment(id));
    let mut after = 0;
    loop {
        // The state is read first, so that its events are in the trace.
        let status = admin.message(id).await.map_err(told)?;
        let mut ended_whole = false;
        after = read_trace(admin, &path, after, |event| {
            let whole = event.get("device").is_none_or(Value::is_null);
            ended_whole |= whole && event.get("final") == Some(&Value::Bool(true));
            show_event(form, event, About::Message)
        })
        .await?;
        let state = cell(&status, "state");
        if ended_whole || matches!(state.as_str(), "done" | "expired" | "recalled") {
            return Ok(());
        }
        anyhow::ensure!(
            Instant::now() < deadline,
            "not every device has its outcome after {} s (the message is {state}); look later with `hongyan explain --message {id}`",
            patience.as_secs()
        );
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}
