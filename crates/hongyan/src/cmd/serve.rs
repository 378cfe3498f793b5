//! `hongyan serve`: the server.

use crate::config::Sources;
use crate::shutdown::{Cause, Signals};
use crate::wiring::{Node, Sandboxed};

/// Runs the server until it is told to stop.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    sources: Sources,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
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
