//! `hongyan app`: tenants.

use clap::{Args as ClapArgs, Subcommand};
use serde_json::json;

use super::output::{Column, harmless};
use super::remote::{Reach, Remote, Usage, block_on, pages, put_pairs, told};

const COLUMNS: &[Column] = &[
    ("APP", "id"),
    ("NAME", "name"),
    ("TIME ZONE", "policy.timezone"),
    ("CHANNEL ORDER", "policy.channel_order"),
    ("CREATED", "created_at"),
];

/// Make, show, change and delete apps
#[derive(ClapArgs, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// List the apps
    List {
        /// At most so many
        #[arg(long, default_value_t = 1000)]
        limit: usize,
    },
    /// Show an app
    Show {
        /// The app
        id: String,
    },
    /// Make an app
    Create {
        /// Its id, for ever: a-z 0-9 _ -
        id: String,
        /// A name for people
        #[arg(long)]
        name: Option<String>,
        /// Set a field, such as policy.timezone=Asia/Shanghai; may be repeated
        #[arg(long = "set", short = 's', value_name = "PATH=VALUE")]
        set: Vec<String>,
    },
    /// Change an app
    Update {
        /// The app
        id: String,
        /// Set a field, such as policy.timezone=Asia/Shanghai; null takes the default
        #[arg(long = "set", short = 's', value_name = "PATH=VALUE", required = true)]
        set: Vec<String>,
    },
    /// Delete an app with everything in it
    Delete {
        /// The app
        id: String,
        /// Yes, delete it
        #[arg(long)]
        yes: bool,
    },
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let form = args.remote.form();
    let admin = args.remote.connect(Reach::Server)?;
    block_on(async {
        match args.command {
            Command::List { limit } => {
                let apps = pages(&admin, "/v1/apps", limit).await?;
                form.list(
                    &apps,
                    COLUMNS,
                    "no apps; make one with `hongyan app create`",
                )?;
            }
            Command::Show { id } => form.thing(&admin.app(&id).await.map_err(told)?)?,
            Command::Create { id, name, set } => {
                let mut body = json!({ "id": id });
                if let Some(name) = name {
                    body["name"] = name.into();
                }
                put_pairs(&mut body, &set)?;
                let app = admin.create_app(&body).await.map_err(told)?;
                let words = format!(
                    "made the app {0}; `hongyan key create {0}` makes a key for it",
                    harmless(&id)
                );
                form.done(&app, &words)?;
            }
            Command::Update { id, set } => {
                let mut body = json!({});
                put_pairs(&mut body, &set)?;
                form.thing(&admin.update_app(&id, &body).await.map_err(told)?)?;
            }
            Command::Delete { id, yes } => {
                if !yes {
                    return Err(Usage(format!(
                        "deleting the app {id} deletes its keys, devices and messages; say --yes if that is meant"
                    ))
                    .into());
                }
                let answer = admin.delete_app(&id).await.map_err(told)?;
                form.done(&answer, &format!("deleted the app {}", harmless(&id)))?;
            }
        }
        Ok(())
    })
}
