//! `hongyan doctor`: looks at everything a server needs, and says what to do about what is wrong.
//!
//! Each check is a function that answers findings; nothing is changed, except that looking into the store of a
//! stopped server recovers it as a start would.

mod checks;

use std::io::Write as _;

use anyhow::{Result, bail};
use serde::Serialize;

use super::remote::block_on;
use crate::config::Sources;

/// Check configuration, data, clock, ports, keys and credentials, and say what to do.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    sources: Sources,
    /// Also read every record of the store (takes as long as reading all of it).
    #[arg(long)]
    deep: bool,
    /// Print the findings as JSON.
    #[arg(long)]
    json: bool,
}

/// How a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Health {
    /// As it should be.
    Good,
    /// It works, but an operator should know.
    Warning,
    /// The server would not start or not work.
    Bad,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// What was looked at.
    pub(crate) about: &'static str,
    /// How it is.
    pub(crate) health: Health,
    /// What is so.
    pub(crate) what: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) todo: Option<String>,
}

impl Finding {
    fn good(about: &'static str, what: impl Into<String>) -> Self {
        let (what, todo) = (what.into(), None);
        Self {
            about,
            health: Health::Good,
            what,
            todo,
        }
    }

    fn warning(about: &'static str, what: impl Into<String>, todo: impl Into<String>) -> Self {
        Self {
            health: Health::Warning,
            todo: Some(todo.into()),
            ..Self::good(about, what)
        }
    }

    fn bad(about: &'static str, what: impl Into<String>, todo: impl Into<String>) -> Self {
        Self {
            health: Health::Bad,
            ..Self::warning(about, what, todo)
        }
    }
}

/// Prints the findings.
///
/// # Errors
/// When something is bad, so that scripts notice.
pub(crate) fn run(args: Args) -> Result<()> {
    block_on(examine(args))
}

async fn examine(args: Args) -> Result<()> {
    let findings = match args.sources.load() {
        Ok(loaded) => checks::all(&loaded, args.deep).await,
        Err(faults) => faults
            .0
            .into_iter()
            .map(|fault| {
                Finding::bad(
                    "configuration",
                    fault,
                    "correct the setting; docs/configuration.md lists them all",
                )
            })
            .collect(),
    };
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&findings)?)?;
    } else {
        out.write_all(text(&findings).as_bytes())?;
    }
    let bad = findings
        .iter()
        .filter(|finding| finding.health == Health::Bad)
        .count();
    if bad > 0 {
        bail!(
            "{bad} of {} checks found something that must be changed",
            findings.len()
        );
    }
    Ok(())
}

/// One line a finding, and one below it that says what to do.
fn text(findings: &[Finding]) -> String {
    let width = findings
        .iter()
        .map(|finding| finding.about.len())
        .max()
        .unwrap_or(0);
    findings
        .iter()
        .map(|finding| {
            let mark = match finding.health {
                Health::Good => "ok  ",
                Health::Warning => "warn",
                Health::Bad => "BAD ",
            };
            let todo = finding
                .todo
                .as_ref()
                .map(|todo| format!("     {:width$}  → {todo}\n", ""))
                .unwrap_or_default();
            format!("{mark} {:width$}  {}\n{todo}", finding.about, finding.what)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finding_that_is_not_good_says_what_to_do() {
        let findings = [
            Finding::good("clock", "2026-01-01"),
            Finding::bad("http.listen", "127.0.0.1:7400 is taken", "set another"),
        ];
        assert_eq!(
            text(&findings),
            "ok   clock        2026-01-01\n\
             BAD  http.listen  127.0.0.1:7400 is taken\n                  → set another\n"
        );
    }
}
