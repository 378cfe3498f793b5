//! Measures how fast the rooms are, and beside what.
//!
//! Every subject runs its peer in the same run on the same machine and prints the ratio, as rates
//! of one machine say little about another. It never decides whether a build is good: nothing here
//! is a test. What is measured runs in a process of its own where memory counts ([`child`]); CPU
//! and memory are read from `/proc`, so subjects with processes need Linux.
//!
//! Start reading at [`intake`], the smallest subject; then [`gateway`] with [`swarm`] (many
//! connections on one thread) and [`dialect`] (what they speak).

pub mod bulkhead;
pub mod channels;
pub mod child;
pub mod dialect;
pub mod drive;
pub mod e2e;
pub mod gateway;
pub mod http;
pub mod intake;
pub mod link;
pub mod log_peer;
pub mod process;
pub mod quiet;
pub mod report;
pub mod start;
pub mod swarm;
pub mod webpush;

use anyhow::Context as _;

/// Measure speed, beside peers in the same run.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
    /// Print the figures as JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Accept messages durably: the embedded engine beside a bare log, or a running server.
    Intake(intake::Args),
    /// Hold and feed WebSocket connections: the gateway beside other servers.
    Gateway(gateway::Args),
    /// Send to vendors: APNs and Xiaomi beside other clients; encrypt Web Push beside plain library calls.
    Channels(channels::Args),
    /// What a channel that hangs does to the messages of another one.
    Bulkhead(bulkhead::Args),
    /// From an app server's request to a connected device, on a running server.
    E2e(e2e::Args),
    /// Import devices, kill, start again; memory of an idle server.
    Start(start::Args),
    /// A process under measurement.
    #[command(hide = true)]
    Child(child::Args),
}

/// Runs one subject and prints what it found on stdout, progress on stderr. Blocks. `prefix` is what
/// stands before the subject's name on this program's command line, for the processes it starts.
///
/// # Errors
/// What failed, why and what to do.
pub fn run(args: Args, prefix: &[&str]) -> anyhow::Result<()> {
    let prefix: Vec<String> = prefix.iter().map(|&word| word.to_owned()).collect();
    measure(args, &prefix)
}

fn measure(args: Args, prefix: &[String]) -> anyhow::Result<()> {
    let report = match args.what {
        What::Intake(args) => intake::run(&args)?,
        What::Gateway(args) => gateway::run(&args, prefix)?,
        What::Channels(args) => channels::run(&args, prefix)?,
        What::Bulkhead(args) => bulkhead::run(&args)?,
        What::E2e(args) => e2e::run(&args)?,
        What::Start(args) => start::run(&args, prefix)?,
        What::Child(args) => return child::run(&args),
    };
    report.print(args.json)
}

/// A runtime as the server has it.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the system gave no threads for a runtime")
}
