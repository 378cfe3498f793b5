//! Peers of `hongyan bench channels`: other libraries under the same load, one each run. The bench starts this program when it
//! finds it, and reads one line of JSON.

mod apns;
#[path = "../../src/drive.rs"]
#[allow(dead_code, reason = "shared with the bench, which uses all of it")]
mod drive;
#[path = "../../src/process.rs"]
#[allow(dead_code, reason = "shared with the bench, which uses all of it")]
mod process;
mod vendor;
mod webpush;

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser as _;
use serde_json::json;

/// One library under load; prints one line of JSON.
#[derive(Debug, clap::Parser)]
struct Cli {
    #[command(subcommand)]
    peer: Peer,
}

#[derive(Debug, clap::Subcommand)]
enum Peer {
    /// a2: sends to an APNs that accepts everything.
    A2(Load),
    /// reqwest: posts to an HTTPS/1.1 vendor that accepts everything.
    Reqwest(Load),
    /// ece: encrypts a Web Push message, on one thread.
    Ece {
        /// Seconds to measure.
        #[arg(long)]
        seconds: u64,
    },
}

/// What a sender is driven with.
#[derive(Debug, clap::Args)]
pub(crate) struct Load {
    /// The vendor's port on loopback.
    #[arg(long)]
    port: u16,
    /// A file with the certificate to trust, PEM.
    #[arg(long)]
    ca: PathBuf,
    /// Sends under way at once.
    #[arg(long)]
    callers: usize,
    /// Seconds to measure.
    #[arg(long)]
    seconds: u64,
}

impl Load {
    fn plan(&self, doing: &str) -> drive::Plan {
        drive::Plan {
            doing: doing.to_owned(),
            callers: self.callers,
            warm: Duration::from_secs(1),
            take: Duration::from_secs(self.seconds),
            pid: std::process::id(),
        }
    }
}

fn main() -> anyhow::Result<()> {
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("the system gave no threads for a runtime")
    };
    let line = match Cli::parse().peer {
        Peer::A2(load) => line(&runtime()?.block_on(apns::run(load))?),
        Peer::Reqwest(load) => line(&runtime()?.block_on(vendor::run(load))?),
        Peer::Ece { seconds } => {
            json!({"per_cpu_second": webpush::run(Duration::from_secs(seconds))?})
        }
    };
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}

fn line(measured: &drive::Measured) -> serde_json::Value {
    json!({
        "per_second": measured.rate(), "cpu_per_100k": measured.cpu_per_100k(),
        "p50_us": measured.latency.value_at_quantile(0.5), "p99_us": measured.latency.value_at_quantile(0.99),
    })
}
