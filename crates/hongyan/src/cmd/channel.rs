//! `hongyan channel`: vendor credentials.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args as ClapArgs, Subcommand};
use hongyan_client::Admin;
use serde_json::{Value, json};

use super::output::{Column, Form, cell, harmless};
use super::remote::{Reach, Remote, Usage, block_on, put, put_pairs, read_json, told};

const COLUMNS: &[Column] = &[
    ("CHANNEL", "channel"),
    ("NAME", "name"),
    ("ENDPOINT", "endpoint"),
    ("RATE/S", "limits.rate_per_s"),
    ("CONFIG", "config"),
    ("UPDATED", "updated_at"),
];
const CHECK_COLUMNS: &[Column] = &[
    ("CHANNEL", "channel"),
    ("NAME", "name"),
    ("RESULT", "result"),
    ("DETAIL", "detail"),
];
const BROADCAST_COLUMNS: &[Column] = &[("ID", "id")];
/// Longest file that a credential's field is read from, in bytes: keys and certificates are far shorter.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// Set, check and delete the credentials of vendor channels
#[derive(ClapArgs, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// List the credentials, of a channel or all
    List {
        /// The channel, such as apns
        channel: Option<String>,
    },
    /// Show a credential, without its secrets
    Show {
        /// The channel
        channel: String,
        /// The credential
        #[arg(default_value = "default")]
        name: String,
    },
    /// Set a credential; with limits alone, the rest of a stored one stays as it is
    #[command(
        after_help = "Example:\n  hongyan channel set apns --set team_id=T --set key_id=K --set bundle_id=org.example.app --secret-file private_key=AuthKey.p8\n  hongyan channel set apns --rate 500"
    )]
    Set {
        /// The channel
        channel: String,
        /// The credential
        #[arg(default_value = "default")]
        name: String,
        /// JSON file with the vendor's configuration (- for stdin)
        #[arg(long, short = 'f', value_name = "FILE")]
        file: Option<PathBuf>,
        /// Set a field of the configuration; may be repeated
        #[arg(long = "set", short = 's', value_name = "FIELD=VALUE")]
        set: Vec<String>,
        /// Set a field to a file's text, which keeps secrets out of the shell's history
        #[arg(long, value_name = "FIELD=FILE")]
        secret_file: Vec<String>,
        /// Where the vendor is, when not at its usual address
        #[arg(long, value_name = "URL")]
        endpoint: Option<String>,
        /// Requests to the vendor per second; devices where the vendor counts those
        #[arg(long, value_name = "N")]
        rate: Option<u32>,
        /// Requests under way at once
        #[arg(long, value_name = "N")]
        concurrency: Option<u32>,
        /// Tries of one delivery
        #[arg(long, value_name = "N")]
        attempts: Option<u16>,
        /// Pushes in one of the vendor's days
        #[arg(long, value_name = "N")]
        per_day: Option<u32>,
        /// Of these, how many are kept for im and transaction
        #[arg(long, value_name = "N")]
        reserved: Option<u32>,
        /// Pushes in a day that the vendor counts as marketing
        #[arg(long, value_name = "N")]
        marketing_per_day: Option<u32>,
        /// Pushes to one device in a day that the vendor counts as marketing
        #[arg(long, value_name = "N")]
        marketing_per_device: Option<u32>,
    },
    /// Prove a credential with its vendor, or all of them
    Check {
        /// The channel; all credentials of all channels when left out
        channel: Option<String>,
        /// The credential
        #[arg(default_value = "default")]
        name: String,
    },
    /// Make a key for Web Push and print the configuration that `set webpush -f -` takes
    #[command(
        after_help = "Example:\n  hongyan channel vapid --subject mailto:push@example.org > webpush.json\n  hongyan channel set webpush -f webpush.json\n\nPages pass public_key to pushManager.subscribe as applicationServerKey. Keep the file: with another key\nevery browser has to subscribe again."
    )]
    Vapid {
        /// Who answers for the messages: a mailto: or https: address that push services can turn to
        #[arg(long, value_name = "URL")]
        subject: String,
    },
    /// Make, list and delete broadcast channels at the vendor: one push reaches all that follow one
    Broadcast {
        #[command(subcommand)]
        command: Broadcast,
    },
    /// Delete a credential
    Delete {
        /// The channel
        channel: String,
        /// The credential
        name: String,
        /// Also when devices, waiting pushes or the app's channel order need it
        #[arg(long)]
        force: bool,
    },
}

#[derive(Subcommand, Debug)]
enum Broadcast {
    /// Make a broadcast channel; its id is the answer, and `broadcast:<id>` the token of a device that stands for it
    Create {
        /// The channel: apns
        channel: String,
        /// The credential
        #[arg(default_value = "default")]
        name: String,
        /// What the vendor keeps for devices that are away; it cannot be changed later
        #[arg(long, value_name = "WHAT", value_parser = ["none", "latest"])]
        storage: String,
    },
    /// List the broadcast channels
    List {
        /// The channel: apns
        channel: String,
        /// The credential
        #[arg(default_value = "default")]
        name: String,
    },
    /// Show a broadcast channel and what it stores
    Show {
        /// The channel: apns
        channel: String,
        /// The broadcast channel
        id: String,
        /// The credential
        #[arg(default_value = "default")]
        name: String,
    },
    /// Delete a broadcast channel for good
    Delete {
        /// The channel: apns
        channel: String,
        /// The broadcast channel
        id: String,
        /// The credential
        #[arg(default_value = "default")]
        name: String,
    },
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let form = args.remote.form();
    if let Command::Vapid { subject } = &args.command {
        return vapid(subject);
    }
    let admin = args.remote.connect(Reach::App)?;
    block_on(async {
        match args.command {
            Command::List { channel } => {
                let list = match channel {
                    Some(channel) => admin.credentials(&channel).await.map_err(told)?,
                    None => admin
                        .raw(http::Method::GET, "/v1/credentials", None)
                        .await
                        .map_err(told)?,
                };
                form.list(
                    &list,
                    COLUMNS,
                    "no credentials; set one with `hongyan channel set`",
                )?;
            }
            Command::Show { channel, name } => {
                form.thing(&admin.credential(&channel, &name).await.map_err(told)?)?;
            }
            Command::Set {
                channel,
                name,
                file,
                set,
                secret_file,
                endpoint,
                rate,
                concurrency,
                attempts,
                per_day,
                reserved,
                marketing_per_day,
                marketing_per_device,
            } => {
                // Without a configuration, that of the stored credential stays, with its secrets.
                let stays = file.is_none() && set.is_empty() && secret_file.is_empty();
                if stays && endpoint.is_some() {
                    return Err(Usage(
                        "--endpoint goes with the configuration, as it says where the secrets are sent: give --file, --set or --secret-file too"
                            .to_owned(),
                    )
                    .into());
                }
                let mut body = if stays {
                    json!({})
                } else {
                    json!({ "config": config(file, &set, &secret_file)? })
                };
                if let Some(endpoint) = endpoint {
                    body["endpoint"] = endpoint.into();
                }
                let limits = [
                    ("limits.rate_per_s", rate),
                    ("limits.concurrency", concurrency),
                    ("limits.attempts", attempts.map(u32::from)),
                    ("limits.quota.per_day", per_day),
                    ("limits.quota.reserved", reserved),
                    ("limits.quota.marketing_per_day", marketing_per_day),
                    ("limits.quota.marketing_per_device", marketing_per_device),
                ];
                for (path, value) in limits {
                    if let Some(value) = value {
                        put(&mut body, path, value.into())?;
                    }
                }
                if body == json!({}) {
                    return Err(Usage(
                        "there is nothing to set: give --file, --set, --secret-file or a limit such as --rate"
                            .to_owned(),
                    )
                    .into());
                }
                let answer = if stays {
                    admin.update_credential(&channel, &name, &body).await
                } else {
                    admin.put_credential(&channel, &name, &body).await
                };
                let answer = answer.map_err(told)?;
                let (channel, name) = (harmless(&channel), harmless(&name));
                let words = format!(
                    "set {channel}/{name}; prove it with `hongyan channel check {channel} {name}`"
                );
                form.done(&answer, &words)?;
            }
            Command::Check { channel: None, .. } => check_all(&admin, form).await?,
            Command::Check {
                channel: Some(channel),
                name,
            } => {
                let answer = admin
                    .check_credential(&channel, &name)
                    .await
                    .map_err(told)?;
                let detail = cell(&answer, "detail");
                anyhow::ensure!(
                    answer.get("ok") != Some(&Value::Bool(false)),
                    "the vendor does not take {channel}/{name}: {detail}"
                );
                form.done(&answer, format!("the vendor takes it. {detail}").trim_end())?;
            }
            Command::Broadcast { command } => broadcast(&admin, form, command).await?,
            // Made here, without a server.
            Command::Vapid { .. } => {}
            Command::Delete {
                channel,
                name,
                force,
            } => {
                let answer = if force {
                    admin.force_delete_credential(&channel, &name).await
                } else {
                    admin.delete_credential(&channel, &name).await
                };
                let answer = answer.map_err(|error| {
                    let in_use = error.code() == Some("in_use");
                    let error = told(error);
                    if in_use {
                        anyhow::anyhow!("{error} (here: --force)")
                    } else {
                        error
                    }
                })?;
                let words = format!("deleted {}/{}", harmless(&channel), harmless(&name));
                form.done(&answer, &words)?;
            }
        }
        Ok(())
    })
}

/// Proves every credential, one line for each; fails when one does not hold.
async fn check_all(admin: &Admin, form: Form) -> anyhow::Result<()> {
    let list = admin
        .raw(http::Method::GET, "/v1/credentials", None)
        .await
        .map_err(told)?;
    let items = list.get("items").and_then(Value::as_array);
    let mut rows = Vec::new();
    for item in items.into_iter().flatten() {
        let (channel, name) = (cell(item, "channel"), cell(item, "name"));
        let answer = match admin.check_credential(&channel, &name).await {
            Ok(answer) => answer,
            Err(error) => json!({"ok": false, "detail": told(error).to_string()}),
        };
        let ok = answer.get("ok") == Some(&Value::Bool(true));
        rows.push(json!({
            "channel": channel, "name": name, "ok": ok, "result": if ok { "ok" } else { "FAILS" },
            "detail": cell(&answer, "detail"),
        }));
    }
    let failed = rows.iter().filter(|r| r["ok"] == false).count();
    let count = rows.len();
    let list = json!({ "items": rows });
    form.list(
        &list,
        CHECK_COLUMNS,
        "no credentials; set one with `hongyan channel set`",
    )?;
    anyhow::ensure!(
        failed == 0,
        "{failed} of {} credentials do not hold; the lines above say why",
        count
    );
    Ok(())
}

async fn broadcast(admin: &Admin, form: Form, command: Broadcast) -> anyhow::Result<()> {
    match command {
        Broadcast::Create {
            channel,
            name,
            storage,
        } => {
            let body = json!({ "storage": storage });
            let answer = admin
                .create_broadcast(&channel, &name, &body)
                .await
                .map_err(told)?;
            let words = format!("made {}", harmless(&cell(&answer, "id")));
            form.done(&answer, &words)?;
        }
        Broadcast::List { channel, name } => {
            let list = admin.broadcasts(&channel, &name).await.map_err(told)?;
            let none = "no broadcast channels; make one with `hongyan channel broadcast create`";
            form.list(&list, BROADCAST_COLUMNS, none)?;
        }
        Broadcast::Show { channel, id, name } => {
            let answer = admin.broadcast(&channel, &name, &id).await.map_err(told)?;
            form.thing(&answer)?;
        }
        Broadcast::Delete { channel, id, name } => {
            let answer = admin
                .delete_broadcast(&channel, &name, &id)
                .await
                .map_err(told)?;
            form.done(&answer, &format!("deleted {}", harmless(&id)))?;
        }
    }
    Ok(())
}

/// Prints a new key pair as a credential's configuration.
fn vapid(subject: &str) -> anyhow::Result<()> {
    let address = |rest: &str| !rest.is_empty() && !rest.contains(char::is_whitespace);
    let is_mail = |rest: &str| {
        address(rest)
            && rest
                .split_once('@')
                .is_some_and(|(a, b)| !a.is_empty() && !b.is_empty())
    };
    let good = subject.strip_prefix("mailto:").is_some_and(is_mail)
        || subject.strip_prefix("https://").is_some_and(address);
    if !good {
        return Err(Usage(format!(
            "--subject {subject:?} is not an address that push services can turn to: write mailto:you@example.org or https://example.org"
        ))
        .into());
    }
    let (private_key, public_key) = hongyan_channels::vendor::webpush::generate()
        .context("the system gave no random numbers to make a key of")?;
    super::output::json(&json!({
        "private_key": private_key, "public_key": public_key, "subject": subject,
    }))?;
    Ok(())
}

fn config(file: Option<PathBuf>, set: &[String], files: &[String]) -> anyhow::Result<Value> {
    let mut config = match file {
        Some(path) => read_json(&path)?,
        None => json!({}),
    };
    if !config.is_object() {
        return Err(Usage("the configuration has to be a JSON object".to_owned()).into());
    }
    put_pairs(&mut config, set)?;
    for pair in files {
        let Some((field, path)) = pair.split_once('=') else {
            return Err(Usage(format!("{pair:?} is not of the form FIELD=FILE")).into());
        };
        let meta = std::fs::metadata(path).with_context(|| format!("cannot read {path}"))?;
        anyhow::ensure!(
            meta.len() <= SECRET_BYTES_MAX,
            "{path} is longer than {SECRET_BYTES_MAX} bytes; is it the right file?"
        );
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
        put(&mut config, field, text.into())?;
    }
    Ok(config)
}
