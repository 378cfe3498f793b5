//! Automation: `cargo xtask <step>`. What CI runs is what anybody can run.
//!
//! Every step is a Rust function here; nothing is hidden in a script. Start reading at [`STEPS`].
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this program's only purpose is to run steps and say how they went"
)]

mod channels;
mod clients;
mod reasons;
mod steps;
mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result};

/// A named piece of work.
type Step = (&'static str, &'static str, fn(&Project) -> Result<()>);

/// All steps, in the order of `ci`; the tests come last, and `clients` uses the binary built for them.
const STEPS: &[Step] = &[
    ("fmt", "formatting is as rustfmt has it", steps::fmt),
    ("tidy", "house rules that no compiler knows", tidy::run),
    ("clippy", "lints, as errors", steps::clippy),
    (
        "doc",
        "documentation builds without a broken link",
        steps::doc,
    ),
    ("deny", "licences, sources, crate edges", steps::deny),
    ("test", "documentation tests, then all tests", steps::test),
    (
        "clients",
        "public clients drive the simulators and the MQTT space",
        clients::run,
    ),
];

/// Steps that change files, not part of `ci`.
const EXTRA: &[Step] = &[(
    "golden",
    "writes the generated pages anew",
    steps::write_golden,
)];

/// Where the repository is.
#[derive(Debug)]
struct Project {
    root: PathBuf,
}

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let steps: Vec<&Step> = match wanted
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        ["ci"] => STEPS.iter().collect(),
        [] => return usage(),
        names => {
            let find = |name: &str| STEPS.iter().chain(EXTRA).find(|step| step.0 == name);
            match names.iter().map(|name| find(name)).collect() {
                Some(steps) => steps,
                None => return usage(),
            }
        }
    };
    match run(&steps) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: cargo xtask ci | <step>…\n");
    for (name, does, _) in STEPS.iter().chain(EXTRA) {
        eprintln!("  {name:8} {does}");
    }
    ExitCode::from(2)
}

fn run(steps: &[&Step]) -> Result<()> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("xtask has no folder above it")?
        .to_owned();
    let project = Project { root };
    for (name, does, step) in steps {
        eprintln!("── {name}: {does}");
        let begun = Instant::now();
        step(&project).with_context(|| format!("step `{name}` failed"))?;
        // The test runner's own summary stays the last thing to be seen.
        if *name != "test" {
            eprintln!("── {name}: done in {:.1} s", begun.elapsed().as_secs_f32());
        }
    }
    Ok(())
}
