//! `hongyan backup`: a consistent copy of everything stored, also while the server runs.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use hongyan_embedded::{Embedded, Summary};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use super::remote::block_on;
use crate::config::Sources;
use crate::control::{Answer, Ask, Caller, already_there};
use crate::data::{self, DataDir};

/// Copy everything stored to one file, also while the server runs.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    sources: Sources,
    /// The file to write; it must not exist.
    file: PathBuf,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// Asks the running server, or opens the store when none runs. The file is whole or is not there.
///
/// # Errors
/// What failed, why, and what to do.
pub(crate) fn run(args: Args) -> Result<()> {
    block_on(copy(args))
}

async fn copy(args: Args) -> Result<()> {
    let config = args.sources.load()?.config;
    let data = &config.server.data;
    if DataDir::of(data) == DataDir::Fresh {
        bail!(
            "there is no store in {}; name the data directory with --data",
            data.display()
        );
    }
    let path = std::path::absolute(&args.file).context("the working directory is gone")?;
    if path.exists() {
        bail!(already_there(&path));
    }
    let bar = bar("copying");
    let asked = Caller::ask(data, &Ask::Backup { path: path.clone() })
        .await
        .context("the running server does not answer; look at its log")?;
    let summary = match asked {
        Some(caller) => by_server(caller, &bar).await?,
        None => by_ourselves(&data::store_options(&config), &path, &bar).await?,
    };
    bar.finish_and_clear();
    report(&args, &path, summary)
}

/// A spinner with bytes, on stderr; invisible when stderr is no terminal.
pub(super) fn bar(doing: &'static str) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{spinner} {msg} {bytes} ({bytes_per_sec}, {elapsed})")
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
    let bar = ProgressBar::new_spinner()
        .with_style(style)
        .with_message(doing);
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

async fn by_server(mut caller: Caller, bar: &ProgressBar) -> Result<Summary> {
    loop {
        match caller
            .next()
            .await
            .context("the server ended first; its log says why")?
        {
            Answer::Progress { bytes } => bar.set_position(bytes),
            Answer::Backup {
                records,
                bytes,
                number,
            } => {
                return Ok(Summary {
                    records,
                    bytes,
                    number,
                });
            }
            Answer::Failed { problem } => bail!("the server could not write the backup: {problem}"),
            Answer::Status { .. } | Answer::RotatedAdmin { .. } => {
                bail!("the server answered something else; is it of this version?")
            }
        }
    }
}

async fn by_ourselves(
    options: &hongyan_embedded::Options,
    path: &Path,
    bar: &ProgressBar,
) -> Result<Summary> {
    let options = options.clone();
    let opened = tokio::task::spawn_blocking(move || Embedded::open(&options));
    let store = opened.await.context("the work was broken off")??;
    let unfinished = path.with_extension("unfinished");
    let copied = watch_file(store.backup(path.to_owned()), &unfinished, bar).await;
    store.close().await;
    Ok(copied?)
}

/// Moves the bar by the length of a growing file until the work is done.
async fn watch_file<T>(work: impl Future<Output = T>, file: &Path, bar: &ProgressBar) -> T {
    tokio::pin!(work);
    let mut every = tokio::time::interval(Duration::from_millis(200));
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = every.tick() => {
                bar.set_position(std::fs::metadata(file).map_or(0, |file| file.len()));
            }
        }
    }
}

fn report(args: &Args, path: &Path, summary: Summary) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if args.json {
        let answer = serde_json::json!({
            "path": path, "records": summary.records, "bytes": summary.bytes, "number": summary.number,
        });
        writeln!(out, "{answer}")?;
        return Ok(());
    }
    writeln!(
        out,
        "{}: {} records, {}\nIt holds device tokens: keep it private. The master key is not in it: keep a copy of that apart.",
        path.display(),
        summary.records,
        HumanBytes(summary.bytes),
    )?;
    Ok(())
}
