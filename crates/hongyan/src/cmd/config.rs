//! `hongyan config`: what holds, and where it came from.

use std::io::Write as _;

use anyhow::Result;

use crate::config::{Sources, effective, reference};

/// Print the effective configuration, without secrets.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    sources: Sources,
    /// Print the reference of all settings (Markdown) instead.
    #[arg(long)]
    reference: bool,
}

/// Prints to stdout; warnings go to stderr.
///
/// # Errors
/// All faults of the configuration.
pub(crate) fn run(args: Args) -> Result<()> {
    let text = if args.reference {
        reference()
    } else {
        let loaded = args.sources.load()?;
        for warning in &loaded.warnings {
            writeln!(std::io::stderr().lock(), "warning: {warning}")?;
        }
        effective(&loaded)
    };
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(())
}
