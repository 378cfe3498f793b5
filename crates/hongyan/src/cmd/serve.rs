//! `hongyan serve`: the server.

use anyhow::Context as _;

use crate::config::Sources;
use crate::shutdown::{Cause, Signals};
use crate::wiring::{Node, Sandboxed};

/// Runs the server until it is told to stop.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    sources: Sources,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    block_on(go(args))
}

async fn go(args: Args) -> anyhow::Result<()> {
    let loaded = args.sources.load()?;
    crate::log::init(&loaded.config.log);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let mut signals = Signals::take()?;
    let node = Node::start(loaded.config, Sandboxed::default()).await?;
    tracing::info!(url = %node.url(), "ready");
    let cause = wait(&mut signals, &node).await;
    end(signals, node.stop(), cause).await
}

/// Runs a server's work on all cores.
pub(crate) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime does not start: are threads or file descriptors used up?")?;
    let done = runtime.block_on(Box::pin(work));
    // What was left behind in its time must not hold the process up.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    done
}

/// Waits for a signal, or for a task that should not have ended.
pub(crate) async fn wait(signals: &mut Signals, node: &Node) -> Cause {
    tokio::select! {
        cause = signals.next() => cause,
        name = node.tasks().fallen() => Cause::Fallen(name),
    }
}

/// Stops in order; a second signal ends it at once.
pub(crate) async fn end(
    mut signals: Signals,
    stop: impl Future<Output = ()>,
    cause: Cause,
) -> anyhow::Result<()> {
    tracing::info!(?cause, "stopping");
    tokio::select! {
        () = stop => {}
        _ = signals.next() => anyhow::bail!("stopped at once by a second signal; what was under way is taken up at the next start"),
    }
    match cause {
        Cause::Fallen(name) => anyhow::bail!("the task {name} ended by itself; the log says why"),
        Cause::Interrupt | Cause::Terminate => Ok(()),
    }
}
