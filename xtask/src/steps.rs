//! Steps that call cargo.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::{Project, channels, reasons};

impl Project {
    pub(crate) fn cargo(&self, args: &[&str]) -> Command {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(args).current_dir(&self.root);
        command
    }

    /// Whether `cargo <name>` is installed.
    fn has(&self, name: &str) -> bool {
        self.cargo(&[name, "--version"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }
}

pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start {command:?}"))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}

pub(crate) fn fmt(project: &Project) -> Result<()> {
    run(&mut project.cargo(&["fmt", "--all", "--check"])).context("run `cargo fmt --all`")
}

pub(crate) fn clippy(project: &Project) -> Result<()> {
    run(&mut project.cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "-D",
        "warnings",
    ]))
}

pub(crate) fn doc(project: &Project) -> Result<()> {
    // Rooms explain themselves by their private parts too, so links to those are wanted.
    run(project
        .cargo(&["doc", "--workspace", "--no-deps", "--locked", "--quiet"])
        .env(
            "RUSTDOCFLAGS",
            "-D warnings -A rustdoc::private_intra_doc_links",
        ))
}

pub(crate) fn deny(project: &Project) -> Result<()> {
    if !project.has("deny") {
        eprintln!("   skipped: cargo-deny is not installed (`cargo install cargo-deny --locked`)");
        return Ok(());
    }
    // Advisories need the network and change by themselves: `cargo deny check advisories` is run apart.
    run(&mut project.cargo(&[
        "deny",
        "--workspace",
        "check",
        "--hide-inclusion-graph",
        "bans",
        "licenses",
        "sources",
    ]))
}

pub(crate) fn test(project: &Project) -> Result<()> {
    if !project.has("nextest") {
        eprintln!("   cargo-nextest is not installed; the tests run with `cargo test`");
        return run(&mut project.cargo(&["test", "--workspace", "--locked"]));
    }
    run(&mut project.cargo(&["test", "--workspace", "--locked", "--doc", "--quiet"]))?;
    run(&mut project.cargo(&["nextest", "run", "--workspace", "--locked"]))
}

/// Golden tests are those whose names end in `_is_up_to_date`; they write instead of comparing when
/// `HONGYAN_GOLDEN=write`.
pub(crate) fn write_golden(project: &Project) -> Result<()> {
    reasons::write(project)?;
    channels::write(project)?;
    run(project
        .cargo(&["test", "--workspace", "--locked", "_is_up_to_date"])
        .env("HONGYAN_GOLDEN", "write"))
}
