//! `hongyan key`: the keys of an app.

use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::output::{self, Column, Form, cell, harmless};
use super::remote::{Reach, Remote, block_on, told};

const COLUMNS: &[Column] = &[
    ("KEY", "id"),
    ("KIND", "kind"),
    ("SCOPES", "scopes"),
    ("NAME", "name"),
    ("CREATED", "created_at"),
];

/// Make, list and end the keys of an app
#[derive(ClapArgs, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    remote: Remote,
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
    let form = args.remote.form();
    let admin = args.remote.connect(Reach::Server)?;
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
            Command::Delete { id, handle } => {
                let answer = admin.delete_key(&id, &handle).await.map_err(told)?;
                form.done(&answer, &format!("ended the key {}", harmless(&handle)))?;
            }
        }
        Ok(())
    })
}

fn show_new(form: Form, key: &Value) -> std::io::Result<()> {
    form.thing(key)?;
    if form == Form::Text && !cell(key, "secret").is_empty() {
        output::line("\nKeep the secret now: it cannot be shown again.")?;
    }
    Ok(())
}
