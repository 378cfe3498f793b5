//! `hongyan key`: the keys of an app, and the admin key anew.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use hongyan_embedded::Embedded;
use serde_json::{Value, json};

use super::output::{self, Column, Form, cell, harmless};
use super::remote::{Reach, Typed, Usage, block_on, told};
use crate::admin_key::{ADMIN_KEY_FILE, AdminKeys};
use crate::clock::{SystemClock, SystemDice};
use crate::config::Sources;
use crate::control::{Answer, Ask, Caller};
use crate::data::{self, DataDir};

const COLUMNS: &[Column] = &[
    ("KEY", "id"),
    ("KIND", "kind"),
    ("SCOPES", "scopes"),
    ("NAME", "name"),
    ("CREATED", "created_at"),
];

/// Make, list and end the keys of an app; replace the admin key
#[derive(ClapArgs, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    remote: Typed,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// List the keys of an app
    List {
        /// The app
        id: String,
    },
    /// Make a key; its secret is shown this once
    Create {
        /// The app
        id: String,
        /// Who will hold it
        #[arg(long, value_enum, default_value_t = Kind::Server)]
        kind: Kind,
        /// What a server key may do, by commas; everything when absent
        #[arg(long, value_enum, value_delimiter = ',')]
        scopes: Vec<Scope>,
        /// A name for people
        #[arg(long)]
        name: Option<String>,
    },
    /// Replace the admin key, on the server's machine: for one that was lost, or seen by others
    #[command(
        after_help = "Works by access to the data directory (--data), while the server runs and while it does not.\nAll admin keys end; keys of apps stay as they are."
    )]
    Admin {
        /// Make a new admin key, write it to DIR/admin.key, show it this once, and end all others
        #[arg(long, required = true)]
        rotate: bool,
        /// The server's configuration file
        #[arg(long, value_name = "FILE", env = "HONGYAN_CONFIG")]
        config: Option<PathBuf>,
    },
    /// End a key
    Delete {
        /// The app
        id: String,
        /// The key's public handle, not its secret
        #[arg(value_name = "KEY_ID")]
        handle: String,
    },
}

#[derive(ValueEnum, Debug, Clone, Copy)]
enum Kind {
    /// The app's own server
    Server,
    /// Its clients: may only register devices
    Client,
}

#[derive(ValueEnum, Debug, Clone, Copy)]
enum Scope {
    /// Send messages
    Send,
    /// Read devices, messages, traces and reports
    Read,
    /// Manage credentials, devices, templates and campaigns
    Manage,
}

/// The word that the API uses.
fn word(value: &impl ValueEnum) -> String {
    value
        .to_possible_value()
        .map(|v| v.get_name().to_owned())
        .unwrap_or_default()
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let form = args.remote.remote.form();
    if let Command::Admin { config, .. } = &args.command {
        let sources = Sources {
            config: config.clone(),
            data: args.remote.here()?.data().map(Path::to_owned),
            set: Vec::new(),
        };
        return block_on(rotate(form, sources));
    }
    let admin = args.remote.remote.connect(Reach::Server)?;
    block_on(async {
        match args.command {
            Command::List { id } => {
                let keys = admin.keys(&id).await.map_err(told)?;
                form.list(
                    &keys,
                    COLUMNS,
                    "no keys; make one with `hongyan key create`",
                )?;
            }
            Command::Create {
                id,
                kind,
                scopes,
                name,
            } => {
                let mut body = json!({ "kind": word(&kind) });
                if !scopes.is_empty() {
                    body["scopes"] = scopes.iter().map(word).collect::<Vec<_>>().into();
                }
                if let Some(name) = name {
                    body["name"] = name.into();
                }
                let key = admin.create_key(&id, &body).await.map_err(told)?;
                show_new(form, &key)?;
            }
            // Done above, without a key.
            Command::Admin { .. } => {}
            Command::Delete { id, handle } => {
                let answer = admin.delete_key(&id, &handle).await.map_err(told)?;
                form.done(&answer, &format!("ended the key {}", harmless(&handle)))?;
            }
        }
        Ok(())
    })
}

/// Asks the running server, or opens the store when none runs.
async fn rotate(form: Form, sources: Sources) -> anyhow::Result<()> {
    let config = sources.load()?.config;
    let data = &config.server.data;
    if DataDir::of(data) == DataDir::Fresh {
        return Err(Usage(format!(
            "there is no store in {}; name the server's data directory with --data",
            data.display()
        ))
        .into());
    }
    let asked = Caller::ask(data, &Ask::RotateAdmin)
        .await
        .context("the running server does not answer; look at its log")?;
    let ended = match asked {
        Some(mut caller) => {
            let answer = caller.next().await;
            match answer.context("the server ended first; its log says why")? {
                Answer::RotatedAdmin { ended } => ended,
                Answer::Failed { problem } => anyhow::bail!("the server made no key: {problem}"),
                _ => anyhow::bail!("the server answered something else; is it of this version?"),
            }
        }
        None => {
            let options = data::store_options(&config);
            let opened = tokio::task::spawn_blocking(move || Embedded::open(&options));
            let store = opened.await.context("the work was broken off")??;
            let keys = AdminKeys {
                data: data.clone(),
                registry: store.registry(),
                dice: Arc::new(SystemDice::default()),
                clock: Arc::new(SystemClock::default()),
                api: None,
            };
            let ended = keys.rotate().await;
            store.close().await;
            ended?
        }
    };
    let file = data.join(ADMIN_KEY_FILE);
    let key = std::fs::read_to_string(&file)
        .with_context(|| format!("cannot read {}", file.display()))?;
    let (key, shown) = (key.trim(), file.display().to_string());
    let words = format!(
        "made a new admin key and ended {ended}; it is in {}, for commands on this machine\n\n{}",
        harmless(&shown),
        harmless(key)
    );
    form.done(
        &json!({ "admin_key": key, "ended": ended, "file": shown }),
        &words,
    )?;
    Ok(())
}

fn show_new(form: Form, key: &Value) -> std::io::Result<()> {
    form.thing(key)?;
    if form == Form::Text && !cell(key, "secret").is_empty() {
        output::line("\nKeep the secret now: it cannot be shown again.")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn read(line: &str) -> Typed {
        Cli::try_parse_from(line.split(' ')).unwrap().args.remote
    }

    #[test]
    fn the_directory_that_is_named_is_the_one() {
        let check = |line: &str, want: Option<&str>| {
            let typed = read(line);
            assert_eq!(typed.here().unwrap().data(), want.map(Path::new), "{line}");
        };
        check("key admin --rotate", None);
        check(
            "key admin --rotate --data ./hongyan-data",
            Some("./hongyan-data"),
        );
        check("key --data /srv/a admin --rotate", Some("/srv/a"));
    }

    #[test]
    fn flags_that_do_nothing_are_refused() {
        for flag in ["--api", "--key", "--app", "--ca"] {
            for line in [
                format!("key admin --rotate {flag} x"),
                format!("key {flag} x admin --rotate"),
            ] {
                let error = read(&line).here().unwrap_err();
                assert!(error.0.starts_with(flag), "{error}");
            }
        }
    }
}
