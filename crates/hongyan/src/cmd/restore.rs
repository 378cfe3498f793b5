//! `hongyan restore`: a data directory from a backup, for either engine.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use hongyan_embedded::Summary;
use indicatif::HumanBytes;

use super::backup::bar;
use super::remote::block_on;
use crate::admin_key::ADMIN_KEY_FILE;
use crate::config::{Config, Engine, Sources};
use crate::data::DataDir;
use crate::seal;

/// Bring a backup back into an empty data directory, for either engine.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    sources: Sources,
    /// The backup.
    file: PathBuf,
    /// Only read the backup to its end and say whether it is whole.
    #[arg(long)]
    check: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// Checks the whole file first; a store that is there already is never touched.
///
/// # Errors
/// What failed, why, and what to do.
pub(crate) fn run(args: Args) -> Result<()> {
    block_on(bring_back(args))
}

async fn bring_back(args: Args) -> Result<()> {
    let config = args.sources.load()?.config;
    let data = config.server.data.clone();
    let file = args.file.clone();
    let bar = bar(if args.check { "checking" } else { "restoring" });
    if args.check {
        let summary = blocking(move || Ok(hongyan_embedded::check(&file)?)).await?;
        bar.finish_and_clear();
        return report(&args, summary, "the backup is whole");
    }
    if DataDir::prepare(&data).with_context(|| format!("cannot use {}", data.display()))?
        == DataDir::Used
    {
        bail!(
            "there is a store in {} already; restore into an empty data directory, or move that one away",
            data.display()
        );
    }
    let engine = match config.store.engine {
        Engine::Fjall => hongyan_embedded::Engine::Fjall,
        Engine::Sqlite => hongyan_embedded::Engine::Sqlite,
    };
    let target = data.clone();
    let summary = blocking(move || Ok(hongyan_embedded::restore(&file, &target, engine)?)).await?;
    bar.finish_and_clear();
    report(&args, summary, &format!("restored into {}", data.display()))?;
    let words = missing_keys(&config);
    std::io::stderr().lock().write_all(words.as_bytes())?;
    Ok(())
}

/// What a restored directory still lacks: a line for each.
fn missing_keys(config: &Config) -> String {
    let data = &config.server.data;
    let mut words = String::new();
    let master = seal::key_path(&config.seal, data);
    if config.seal.key.is_none() && !master.exists() {
        words += &format!(
            "the master key is not part of a backup: put it back as {} before you start the server\n",
            master.display()
        );
    }
    let admin = data.join(ADMIN_KEY_FILE);
    if !admin.exists() {
        words += &format!(
            "the admin key is not part of a backup, and no new one is made: put it back as {}, or give it to commands with --key or HONGYAN_KEY\n",
            admin.display()
        );
    }
    words
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .context("the work was broken off")?
}

fn report(args: &Args, summary: Summary, done: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if args.json {
        let answer = serde_json::json!({
            "records": summary.records, "bytes": summary.bytes, "number": summary.number, "restored": !args.check,
        });
        writeln!(out, "{answer}")?;
    } else {
        let size = HumanBytes(summary.bytes);
        writeln!(out, "{done}: {} records, {size}", summary.records)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_keys_that_a_backup_lacks_are_asked_for_while_they_are_missing() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.server.data = dir.path().to_owned();
        let path = |name| dir.path().join(name).display().to_string();
        let words = missing_keys(&config);
        assert!(words.contains(&path("master.key")), "{words}");
        assert!(words.contains(&path("admin.key")), "{words}");
        std::fs::write(path("master.key"), "").unwrap();
        let words = missing_keys(&config);
        assert!(!words.contains("master.key"), "{words}");
        assert!(words.contains(&path("admin.key")), "{words}");
        std::fs::write(path("admin.key"), "").unwrap();
        assert_eq!(missing_keys(&config), "");
    }
}
