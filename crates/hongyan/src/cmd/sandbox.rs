//! `hongyan sandbox`: the vendor simulators and virtual phones alone.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args as ClapArgs;
use hongyan_sandbox::{Options, Sandbox};
use serde_json::json;

use super::output;
use super::remote::Usage;
use crate::shutdown::Signals;

/// Run the vendor simulators and virtual phones alone, until Ctrl-C
#[derive(ClapArgs)]
pub(crate) struct Args {
    /// Directory for the simulators' keys, accounts and phones
    #[arg(long, value_name = "DIR", default_value = "./hongyan-data/sandbox")]
    data: PathBuf,
    /// Where the control interface and the phones page listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7500")]
    control: SocketAddr,
    /// Where the vendors listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7501")]
    vendors: SocketAddr,
    /// Where the message centre listens (SMPP)
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7502")]
    smpp: SocketAddr,
    /// The server that the phones register with and connect to
    #[arg(long, env = "HONGYAN_API", value_name = "URL")]
    api: Option<String>,
    /// Client key (hy_pk_…) with which they register
    #[arg(
        long,
        env = "HONGYAN_CLIENT_KEY",
        hide_env_values = true,
        value_name = "KEY"
    )]
    client_key: Option<String>,
    /// Begin without phones
    #[arg(long)]
    no_phones: bool,
    /// Seed of the dice behind faults
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Say where everything is in JSON, for programs
    #[arg(long)]
    json: bool,
}

impl std::fmt::Debug for Args {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Args")
            .field("data", &self.data)
            .finish_non_exhaustive()
    }
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let server = match (args.api, args.client_key) {
        (Some(api), Some(key)) => Some((api, key)),
        (None, Some(_)) => {
            return Err(Usage(
                "--client-key needs the server's address; give --api too".to_owned(),
            )
            .into());
        }
        // An address alone may come from the environment, and simulators alone are fine.
        (_, None) => None,
    };
    let mut options = Options::new(args.data);
    options.control = args.control;
    options.vendors = args.vendors;
    options.smpp = args.smpp;
    options.server = server;
    options.seed = args.seed;
    if args.no_phones {
        options.phones.clear();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let json = args.json;
    runtime.block_on(Box::pin(async move {
        let mut signals = Signals::take().context("cannot listen for signals")?;
        let sandbox = Sandbox::start(options).await?;
        tell(&sandbox, json)?;
        signals.next().await;
        tokio::select! {
            () = sandbox.stop() => {}
            // A second signal ends it at once; what the phones have is saved as it changes.
            _ = signals.next() => {}
        }
        Ok(())
    }))
}

fn tell(sandbox: &Sandbox, json: bool) -> std::io::Result<()> {
    let handle = sandbox.handle();
    let (control, vendors) = (handle.control_url(), handle.vendors_url());
    if json {
        return output::json_line(&json!({ "sandbox": control, "vendors": vendors }));
    }
    output::line(&format!("phones   {control}/phones"))?;
    output::line(&format!("vendors  {vendors}"))?;
    output::line("\nCtrl-C ends it.")
}
