//! `hongyan device`: devices one by one and in bulk.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args as ClapArgs, Subcommand};
use futures_util::stream;
use hongyan_client::Admin;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufWriter};

use super::output::{self, Column, Form, cell, harmless};
use super::remote::{Reach, Remote, block_on, pages, put_pairs, segment, told};
use super::tail::About;
use super::trace::show_trace;

const COLUMNS: &[Column] = &[
    ("DEVICE", "device_id"),
    ("USER", "user"),
    ("ONLINE", "online"),
    ("PLATFORM", "platform"),
    ("BRAND", "brand"),
    ("PERMISSION", "permission"),
    ("APP VERSION", "app_version"),
    ("LAST SEEN", "last_seen"),
];
/// Pieces in which a file is read.
const PIECE_BYTES: usize = 64 * 1024;

/// Show, change, import and export devices
#[derive(ClapArgs, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// List the devices, of a user or all
    List {
        /// The user
        user: Option<String>,
        /// At most so many
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Show a device
    Show {
        /// The device
        id: String,
    },
    /// Change a device
    Update {
        /// The device
        id: String,
        /// Set a field, such as permission=denied; may be repeated
        #[arg(long = "set", short = 's', value_name = "PATH=VALUE", required = true)]
        set: Vec<String>,
    },
    /// Show what happened to the messages of a device
    Trace {
        /// The device
        id: String,
    },
    /// Set a vendor's token of a device
    Token {
        /// The device
        id: String,
        /// The channel, such as fcm
        channel: String,
        /// The token; absent to delete it
        token: Option<String>,
        /// production or sandbox, where the vendor has both
        #[arg(long)]
        environment: Option<String>,
        /// The credential that it belongs to
        #[arg(long)]
        credential: Option<String>,
    },
    /// Bind a device to a user
    Login {
        /// The device
        id: String,
        /// The user
        user: String,
    },
    /// Unbind a device from its user
    Logout {
        /// The device
        id: String,
    },
    /// Unbind a device and end its connection
    Kick {
        /// The device
        id: String,
    },
    /// Forget a device
    Delete {
        /// The device
        id: String,
    },
    /// Import devices from a file with one JSON object a line
    Import {
        /// The file (- for stdin)
        file: PathBuf,
        /// Begin at this line: where an import broke off
        #[arg(long, value_name = "LINE", default_value_t = 1)]
        from_line: u64,
    },
    /// Export all devices, one JSON object a line
    Export {
        /// Where to; stdout when absent
        #[arg(long, short = 'o', value_name = "FILE")]
        output: Option<PathBuf>,
        /// Begin after this device: where an export broke off
        #[arg(long, value_name = "DEVICE")]
        after: Option<String>,
    },
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let form = args.remote.form();
    let admin = args.remote.connect(Reach::App)?;
    block_on(async {
        let done = |answer: Value, words: String| form.done(&answer, &words);
        match args.command {
            Command::List {
                user: Some(user), ..
            } => {
                let devices = admin.user_devices(&user).await.map_err(told)?;
                form.list(&devices, COLUMNS, "the user has no devices")?;
            }
            Command::List { user: None, limit } => {
                let devices = pages(&admin, "/v1/devices", limit).await?;
                form.list(
                    &devices,
                    COLUMNS,
                    "no devices; they come when apps register",
                )?;
            }
            Command::Show { id } => form.thing(&admin.device(&id).await.map_err(told)?)?,
            Command::Update { id, set } => {
                let mut body = json!({});
                put_pairs(&mut body, &set)?;
                let answer = admin.update_device(&id, &body).await.map_err(told)?;
                done(answer, format!("changed the device {}", harmless(&id)))?;
            }
            Command::Trace { id } => {
                let path = format!("/v1/devices/{}/trace", segment(&id));
                show_trace(&admin, &path, form, About::Device).await?;
            }
            Command::Token {
                id,
                channel,
                token,
                environment,
                credential,
            } => {
                let channel_name = harmless(&channel);
                let Some(token) = token else {
                    let answer = admin
                        .delete_device_token(&id, &channel)
                        .await
                        .map_err(told)?;
                    return Ok(done(answer, format!("deleted the {channel_name} token"))?);
                };
                let mut body = json!({ "token": token });
                for (name, value) in [("environment", environment), ("credential", credential)] {
                    if let Some(value) = value {
                        body[name] = value.into();
                    }
                }
                let answer = admin
                    .put_device_token(&id, &channel, &body)
                    .await
                    .map_err(told)?;
                done(answer, format!("set the {channel_name} token"))?;
            }
            Command::Login { id, user } => {
                let answer = admin.login_device(&id, &user).await.map_err(told)?;
                done(
                    answer,
                    format!("bound {} to {}", harmless(&id), harmless(&user)),
                )?;
            }
            Command::Logout { id } => {
                let answer = admin.logout_device(&id).await.map_err(told)?;
                done(answer, format!("unbound {}", harmless(&id)))?;
            }
            Command::Kick { id } => {
                let answer = admin.kick_device(&id).await.map_err(told)?;
                done(
                    answer,
                    format!("unbound {} and ended its connection", harmless(&id)),
                )?;
            }
            Command::Delete { id } => {
                let answer = admin.delete_device(&id).await.map_err(told)?;
                done(answer, format!("forgot {}", harmless(&id)))?;
            }
            Command::Import { file, from_line } => import(&admin, &file, from_line, form).await?,
            Command::Export { output, after } => export(&admin, output, after.as_deref()).await?,
        }
        Ok(())
    })
}

/// A bar on stderr while it is a terminal.
fn bar(total: Option<u64>) -> ProgressBar {
    let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
    let template = match total {
        Some(_) => "{bar:32} {bytes}/{total_bytes} {bytes_per_sec} {eta} left  {msg}",
        None => "{spinner} {human_pos} devices {elapsed}",
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn spinner(template: &str) -> ProgressBar {
    match ProgressStyle::with_template(template) {
        Ok(style) => ProgressBar::new_spinner().with_style(style),
        Err(_) => ProgressBar::new_spinner(),
    }
}

async fn import(admin: &Admin, path: &Path, from_line: u64, form: Form) -> anyhow::Result<()> {
    let unreadable = || format!("cannot read {}", path.display());
    type Source = Box<dyn tokio::io::AsyncRead + Send + Unpin>;
    let (source, length): (Source, _) = if path == Path::new("-") {
        (Box::new(tokio::io::stdin()), None)
    } else {
        let file = tokio::fs::File::open(path).await.with_context(unreadable)?;
        let metadata = file.metadata().await.with_context(unreadable)?;
        anyhow::ensure!(
            !metadata.is_dir(),
            "{} is a directory; name a file with one device a line",
            path.display()
        );
        (Box::new(file), Some(metadata.len()))
    };
    let progress = match length {
        Some(length) => bar(Some(length)),
        None => spinner("{spinner} {bytes} {elapsed}"),
    };
    let sending = progress.clone();
    let pieces = stream::try_unfold(source, move |mut source| {
        let sending = sending.clone();
        async move {
            let mut piece = bytes::BytesMut::with_capacity(PIECE_BYTES);
            let read = source.read_buf(&mut piece).await?;
            sending.inc(read as u64);
            Ok((read > 0).then(|| (piece.freeze(), source)))
        }
    });
    let answer = admin.import_devices(pieces, from_line).await;
    progress.finish_and_clear();
    let answer = answer.map_err(told)?;
    match form {
        Form::Json => form.thing(&answer)?,
        Form::Text => {
            for fault in answer
                .get("errors")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                output::line(&fault_line(fault))?;
            }
            let count = |name| cell(&answer, name);
            output::line(&format!(
                "devices made: {}, changed: {}; lines taken: {}, refused: {}",
                count("created"),
                count("updated"),
                count("imported"),
                count("failed")
            ))?;
        }
    }
    let stopped = cell(&answer, "stopped");
    let stored = answer
        .get("stored_up_to_line")
        .and_then(Value::as_u64)
        .unwrap_or(0);
    anyhow::ensure!(
        stopped.is_empty(),
        "the import ended early: {stopped}; go on with `--from-line {}`",
        stored + 1
    );
    anyhow::ensure!(
        answer.get("failed").and_then(Value::as_u64).unwrap_or(0) == 0,
        "some lines were refused; correct them and import them again"
    );
    Ok(())
}

fn fault_line(fault: &Value) -> String {
    let (line, path) = (cell(fault, "line"), cell(fault, "path"));
    let sign = if path.is_empty() { "" } else { ": " };
    format!("line {line}: {path}{sign}{}", cell(fault, "problem"))
}

async fn export(admin: &Admin, path: Option<PathBuf>, after: Option<&str>) -> anyhow::Result<()> {
    let mut lines = admin.export_devices(after).await.map_err(told)?;
    let mut out: BufWriter<Box<dyn tokio::io::AsyncWrite + Unpin>> = match &path {
        Some(path) => {
            let file = tokio::fs::File::create(path)
                .await
                .with_context(|| format!("cannot write {}", path.display()))?;
            BufWriter::new(Box::new(file))
        }
        None => BufWriter::new(Box::new(tokio::io::stdout())),
    };
    let progress = bar(None);
    let mut last = after.unwrap_or_default().to_owned();
    loop {
        let line = match lines.next_line().await {
            Ok(Some(line)) => line,
            Ok(None) => break,
            Err(error) => {
                out.flush().await?;
                let error = told(error);
                anyhow::bail!("{error}; go on with `--after {last}`");
            }
        };
        if let Ok(device) = serde_json::from_slice::<Value>(&line) {
            last = cell(&device, "device_id");
        }
        out.write_all(&line).await?;
        out.write_all(b"\n").await?;
        progress.inc(1);
    }
    out.flush().await?;
    progress.finish_and_clear();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_name_the_line_of_the_file() {
        let fault = json!({"line": 3, "path": "platform", "problem": "is missing"});
        assert_eq!(fault_line(&fault), "line 3: platform: is missing");
    }
}
