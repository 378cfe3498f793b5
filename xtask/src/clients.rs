//! Public client libraries of Python and Node.js against a sandbox, and browsers and senders against a server: a second
//! opinion on the simulators and on the push endpoints.
//!
//! The libraries are fetched once, in the versions that stand beside the scripts, and stay in `clients` in the
//! target folder, with everything that the last run said. What cannot be fetched fails the step: a second opinion
//! that nobody gave is none.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::{Project, steps};

/// Scripts that drive a server of their own, by the same libraries, and what each takes.
const OF_THE_SERVER: &[&str] = &["push_senders.py", "firefox.py"];

/// Where those are.
const SERVER_SCRIPTS: &str = "crates/hongyan-gateway/tests/clients";

/// Where the scripts and the versions of what they need are.
const SCRIPTS: &str = "crates/hongyan-sandbox/tests/clients";

/// Names another `hongyan` to run than the one that is built for the tests.
const BINARY: &str = "HONGYAN_BINARY";

/// How long the sandbox may take to start; it makes its keys first. Seconds on a busy machine.
const START: Duration = Duration::from_secs(60);

/// How long one script may take; two seconds are usual.
const SCRIPT: Duration = Duration::from_secs(120);

/// How often a process is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// What every good line of a script begins with.
const GOOD: &str = "ok ";

pub(crate) fn run(project: &Project) -> Result<()> {
    let scripts = project.root.join(SCRIPTS);
    let built = std::env::current_exe().context("cannot tell where this program is")?;
    let place = built
        .ancestors()
        .nth(2)
        .context("this program is not in a target folder")?
        .join("clients");
    let python = install_python(&scripts, &place.join("python"))?;
    let node = install_node(&scripts, &place.join("node"))?;

    let binary = hongyan(project, &built)?;
    let sandbox = Sandbox::start(&binary, &place)?;
    let mut faults = Vec::new();
    for (name, program, folder) in [
        ("public_clients.py", python.as_path(), &place),
        ("public_clients.mjs", Path::new("node"), &node),
    ] {
        let mut command = Command::new(program);
        command
            .arg(scripts.join(name))
            .arg(&sandbox.control)
            .current_dir(folder)
            .env("PYTHONUNBUFFERED", "1")
            // Everything they call is on this machine.
            .envs(["NO_PROXY", "no_proxy"].map(|name| (name, "127.0.0.1,localhost")));
        let log = place.join(name).with_added_extension("log");
        match play(&mut command, &log)? {
            Ok(answers) => eprintln!("   {name}: {answers} answers as they should be"),
            Err(fault) => {
                let sandbox_log = place.join("sandbox.log");
                eprintln!(
                    "   {name}: {fault}\n   all it said is in {}, the sandbox's log in {}",
                    log.display(),
                    sandbox_log.display()
                );
                faults.push(name);
            }
        }
    }
    drop(sandbox);
    for name in OF_THE_SERVER {
        let mut command = Command::new(&python);
        command
            .arg(project.root.join(SERVER_SCRIPTS).join(name))
            .arg(&binary)
            .arg(place.join("servers").join(name))
            .current_dir(&node)
            .env("PYTHONUNBUFFERED", "1")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .envs(["NO_PROXY", "no_proxy"].map(|name| (name, "127.0.0.1,localhost")));
        let log = place.join(name).with_added_extension("log");
        match play(&mut command, &log)? {
            Ok(answers) => eprintln!("   {name}: {answers} answers as they should be"),
            Err(fault) => {
                eprintln!("   {name}: {fault}\n   all it said is in {}", log.display());
                faults.push(name);
            }
        }
    }
    if !faults.is_empty() {
        bail!(
            "{} disagree with what they drove, see above",
            faults.join(", ")
        );
    }
    Ok(())
}

/// The program that plays the vendors.
fn hongyan(project: &Project, built: &Path) -> Result<PathBuf> {
    if let Some(binary) = std::env::var_os(BINARY) {
        return Ok(binary.into());
    }
    // Just as the step before builds it, so that nothing is built twice.
    steps::run(&mut project.cargo(&["test", "--workspace", "--locked", "--no-run", "--quiet"]))?;
    Ok(built.with_file_name("hongyan"))
}

/// An environment with the libraries; answers its interpreter.
fn install_python(scripts: &Path, place: &Path) -> Result<PathBuf> {
    let can = "import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 10))";
    said(Command::new("python3").args(["-c", can])).context(
        "the public clients need Python 3.10 or later with venv (`apt install python3-venv`); `./test` installs it",
    )?;
    let version = said(Command::new("python3").arg("--version"))?;
    let needed = scripts.join("requirements.txt");
    let python = place.join("bin/python");
    once(place, &[&needed], &version, || {
        steps::run(Command::new("python3").args(["-m", "venv"]).arg(place))?;
        steps::run(
            Command::new(&python)
                .args(["-m", "pip", "install", "--quiet", "--no-input"])
                .args(["--disable-pip-version-check", "--retries", "2"])
                .arg("--requirement")
                .arg(&needed),
        )
    })
    .with_context(|| {
        format!("the public clients of Python ({SCRIPTS}/requirements.txt) cannot be installed; they come from the network, once")
    })?;
    Ok(python)
}

/// A folder with the modules; answers the folder.
fn install_node(scripts: &Path, place: &Path) -> Result<PathBuf> {
    let version = said(Command::new("node").arg("--version")).context(NODE)?;
    let major = version.trim_start_matches('v').split('.').next();
    if !major.is_some_and(|major| major.parse().is_ok_and(|major: u32| major >= 18)) {
        bail!("{NODE}, here is {version}");
    }
    said(Command::new("npm").arg("--version")).context(NODE)?;
    let needed = ["package.json", "package-lock.json", ".npmrc"].map(|name| scripts.join(name));
    once(place, &needed.each_ref(), &version, || {
        for file in &needed {
            let name = file.file_name().context("a file has a name")?;
            fs::copy(file, place.join(name))?;
        }
        steps::run(
            Command::new("npm")
                .stdout(Stdio::null())
                .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
                .args(["--no-update-notifier", "--loglevel=error"])
                .args(["--fetch-retries=1", "--fetch-timeout=60000"])
                .current_dir(place),
        )
    })
    .with_context(|| {
        format!("the public clients of Node.js ({SCRIPTS}/package.json) cannot be installed; they come from the network, once")
    })?;
    Ok(place.to_owned())
}

const NODE: &str = "the public clients need Node.js 18 or later with npm (`apt install nodejs npm`); `./test` installs them";

/// Fills a folder, unless it was filled for the same files and the same version.
fn once(
    place: &Path,
    needed: &[&PathBuf],
    version: &str,
    fill: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let mut wanted = version.to_owned();
    for file in needed {
        wanted += &fs::read_to_string(file).with_context(|| file.display().to_string())?;
    }
    // Written last: a folder that was left half full does not have it.
    let stamp = place.join("filled-for");
    if fs::read_to_string(&stamp).is_ok_and(|there| there == wanted) {
        return Ok(());
    }
    if place.exists() {
        fs::remove_dir_all(place)?;
    }
    fs::create_dir_all(place)?;
    fill()?;
    Ok(fs::write(stamp, wanted)?)
}

/// What a program says, without its line end.
fn said(command: &mut Command) -> Result<String> {
    let output = command
        .stderr(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} ended with {}", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Runs a script to its end: how many answers were good, or what was not.
fn play(command: &mut Command, log: &Path) -> Result<Result<usize, String>> {
    let mut script = start(command, log, log)?;
    let status = script.ended_within(SCRIPT)?;
    drop(script);
    let text = String::from_utf8_lossy(&fs::read(log)?).into_owned();
    Ok(judge(&text, status))
}

fn judge(text: &str, status: Option<ExitStatus>) -> Result<usize, String> {
    let (good, bad): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.starts_with(GOOD));
    let why = match status {
        None => format!("did not end within {} s", SCRIPT.as_secs()),
        Some(status) if !status.success() => format!("ended with {status}"),
        Some(_) if good.is_empty() => "checked nothing".to_owned(),
        Some(_) => return Ok(good.len()),
    };
    Err(format!("{why}\n{}", bad.join("\n")))
}

/// A process that ends with this value.
#[derive(Debug)]
struct Running(Child);

/// Starts a program that writes to files, so that nobody has to read while it runs.
fn start(command: &mut Command, output: &Path, errors: &Path) -> Result<Running> {
    let new = |path: &Path| File::create(path).with_context(|| path.display().to_string());
    let out = new(output)?;
    let err = if errors == output {
        out.try_clone()?
    } else {
        new(errors)?
    };
    let child = command
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .spawn()
        .with_context(|| format!("cannot start {command:?}"))?;
    Ok(Running(child))
}

impl Running {
    fn ended_within(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        let begun = Instant::now();
        loop {
            let status = self.0.try_wait()?;
            if status.is_some() || begun.elapsed() > limit {
                return Ok(status);
            }
            thread::sleep(LOOK);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails for one that ended by itself, which is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A sandbox on free ports, with fresh keys.
#[derive(Debug)]
struct Sandbox {
    /// Address of its control interface.
    control: String,
    _process: Running,
}

impl Sandbox {
    fn start(hongyan: &Path, place: &Path) -> Result<Self> {
        let data = place.join("sandbox");
        if data.exists() {
            fs::remove_dir_all(&data)?;
        }
        let (told, log) = (place.join("sandbox.json"), place.join("sandbox.log"));
        let mut command = Command::new(hongyan);
        command
            .args(["sandbox", "--json", "--no-phones", "--data"])
            .arg(&data);
        for listener in ["--control", "--vendors", "--smpp"] {
            command.args([listener, "127.0.0.1:0"]);
        }
        let mut process = start(&mut command, &told, &log)?;
        let begun = Instant::now();
        loop {
            let ended = process.ended_within(LOOK)?;
            if let Some(control) = control(&fs::read_to_string(&told)?) {
                return Ok(Self {
                    control,
                    _process: process,
                });
            }
            if ended.is_some() || begun.elapsed() > START {
                let log = fs::read_to_string(&log)?;
                bail!("{command:?} does not say where it listens\n{log}");
            }
        }
    }
}

/// The control address in the line that the sandbox prints once it listens.
fn control(line: &str) -> Option<String> {
    let rest = line.strip_suffix('\n')?.split_once("\"sandbox\":\"")?.1;
    Some(rest.split_once('"')?.0.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    fn exit(code: i32) -> Option<ExitStatus> {
        Some(ExitStatus::from_raw(code << 8))
    }

    #[test]
    fn only_a_script_that_ends_well_and_checked_something_is_good() {
        let text = "ok   a 1\nchatter\nok   b 2\n";
        assert_eq!(judge(text, exit(0)), Ok(2));
        let failed = judge("ok   a 1\nFAIL b 2\nTraceback\n", exit(1));
        assert!(failed.is_err_and(|fault| fault.ends_with("\nFAIL b 2\nTraceback")));
        assert!(judge("chatter\n", exit(0)).is_err());
        assert!(judge(text, None).is_err());
    }

    #[test]
    fn the_address_is_read_from_a_whole_line_only() {
        let line =
            "{\"sandbox\":\"http://127.0.0.1:7500\",\"vendors\":\"https://127.0.0.1:7501\"}\n";
        assert_eq!(control(line).as_deref(), Some("http://127.0.0.1:7500"));
        assert_eq!(control(line.trim_end()), None);
        assert_eq!(control(""), None);
    }
}
