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
        // Only its word counts: a final event without a device ends the message for one of its users, not for all.
        after = read_trace(admin, &path, after, |event| {
            show_event(form, event, About::Message)
        })
        .await?;
        let state = cell(&status, "state");
        if matches!(state.as_str(), "done" | "recalled") {
            let total = status.pointer("/deliveries/total").and_then(Value::as_u64);
            if form == Form::Text && total == Some(0) {
                output::line("no device was there to get it")?;
            }
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

#[cfg(test)]
mod tests {
    use hongyan_client::Secret;
    use hongyan_client::net::Tls;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// Takes one call on a connection of its own.
    async fn answer(listener: &TcpListener, path: &str, body: Value) {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with(&format!("GET {path}")), "{head}");
        let body = body.to_string();
        let text = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(text.as_bytes()).await.unwrap();
    }

    #[tokio::test]
    async fn one_user_without_devices_does_not_end_the_wait_for_the_others() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            for state in ["sending", "done"] {
                answer(
                    &listener,
                    "/v1/messages/m ",
                    json!({"id": "m", "state": state}),
                )
                .await;
                let end = json!({"seq": 1, "stage": "dropped", "reason": "no_device", "user": "u2", "final": true});
                answer(&listener, "/v1/messages/m/trace", json!({"events": [end]})).await;
            }
        });
        let key = Secret::from("hy_sk_test");
        let admin = Admin::with(&api, key, Tls::default(), Duration::from_secs(10)).unwrap();
        follow(&admin, "m", Form::Json, Duration::from_secs(20))
            .await
            .unwrap();
        let asked_to_the_end = tokio::time::timeout(Duration::from_secs(5), server).await;
        asked_to_the_end.unwrap().unwrap();
    }
}
