//! Public clients against our own servers: a second opinion on the simulators of the sandbox, on the protocols that
//! devices speak, on the push endpoints and on the open MQTT space.
//!
//! The libraries are fetched once, in the versions that stand beside the scripts, and stay in `clients` in the
//! target folder, with everything that the last run said. What cannot be fetched fails the step: a second opinion
//! that nobody gave is none.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::{Project, steps};

/// What scripts are played against, and so what they are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Against {
    /// A sandbox alone: the address of its control interface.
    Sandbox,
    /// A server with an open MQTT space: that one's address.
    OpenSpace,
    /// A demo: its `demo.json`.
    Demo,
    /// Servers that the script starts: the program, and a folder for their data.
    Nothing,
}

/// Scripts that are played one after the other.
#[derive(Debug)]
struct Suite {
    against: Against,
    /// Where they are.
    scripts: &'static str,
    /// Where the versions of what they need are.
    libraries: &'static str,
    /// The folder in `clients` that they are installed to.
    home: &'static str,
    names: &'static [&'static str],
    /// A cargo project beside the scripts whose program they run, and what tells them where it is.
    program: Option<(&'static str, &'static str)>,
}

const SANDBOX: &str = "crates/hongyan-sandbox/tests/clients";
const MQTT: &str = "crates/hongyan/tests/clients/mqtt";
const LIVE: &str = "crates/hongyan/tests/clients/live";
const XMPP: &str = "crates/hongyan/tests/clients/xmpp";

const SUITES: &[Suite] = &[
    Suite {
        against: Against::Sandbox,
        scripts: SANDBOX,
        libraries: SANDBOX,
        home: "vendors",
        names: &["public_clients.py", "public_clients.mjs"],
        program: None,
    },
    Suite {
        against: Against::OpenSpace,
        scripts: MQTT,
        libraries: MQTT,
        home: "mqtt",
        names: &["mqtt_clients.py", "mqtt_clients.mjs"],
        program: None,
    },
    Suite {
        against: Against::Demo,
        scripts: XMPP,
        libraries: XMPP,
        home: "xmpp",
        names: &["xmpp_clients.py", "xmpp_clients.mjs", "xmpp_profanity.py"],
        program: None,
    },
    Suite {
        against: Against::Demo,
        scripts: LIVE,
        libraries: LIVE,
        home: "live",
        names: &[
            "live_http.py",
            "live_http.mjs",
            "live_proxy.py",
            "live_mqtt.py",
            "live_mqtt.mjs",
            "live_order.py",
        ],
        program: None,
    },
    Suite {
        against: Against::Nothing,
        scripts: "crates/hongyan-gateway/tests/clients",
        libraries: SANDBOX,
        home: "vendors",
        names: &[
            "push_senders.py",
            "tls_stream.py",
            "firefox.py",
            "distributor.py",
        ],
        program: Some(("push_sender", "HONGYAN_PUSH_SENDER")),
    },
];

/// Programs that scripts start, and the packages that `./test` installs for them.
const PROGRAMS: &[(&str, &str)] = &[
    ("mosquitto_pub", "mosquitto-clients"),
    ("mosquitto_sub", "mosquitto-clients"),
    ("profanity", "profanity"),
    ("curl", "curl"),
    // Where Debian puts it, which is not in everybody's search path.
    ("/usr/sbin/nginx", "nginx"),
    ("firefox-esr", "firefox-esr"),
    ("dbus-daemon", "dbus"),
];

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
    let built = std::env::current_exe().context("cannot tell where this program is")?;
    let place = built
        .ancestors()
        .nth(2)
        .context("this program is not in a target folder")?
        .join("clients");
    for (program, package) in PROGRAMS {
        said(Command::new("which").arg(program)).with_context(|| {
            format!("{program} is missing (`apt install {package}`); `./test` installs it")
        })?;
    }
    let hongyan = hongyan(project, &built)?;
    let mut servers = BTreeMap::new();
    let mut faults = Vec::new();
    for suite in SUITES {
        let libraries = project.root.join(suite.libraries);
        let home = place.join(suite.home);
        let python = install_python(&libraries, &home.join("python"))?;
        let node = install_node(&libraries, &home.join("node"))?;
        let own = suite
            .program
            .map(|(folder, name)| {
                anyhow::Ok((
                    name,
                    build(&project.root.join(suite.scripts).join(folder), &home)?,
                ))
            })
            .transpose()?;
        if suite.against != Against::Nothing && !servers.contains_key(&suite.against) {
            // One at a time: a small machine runs the tests.
            servers.clear();
            servers.insert(
                suite.against,
                Server::start(suite.against, &hongyan, &place)?,
            );
        }
        for name in suite.names {
            let (program, folder) = match name.ends_with(".mjs") {
                true => (Path::new("node"), &node),
                false => (python.as_path(), &home),
            };
            let told = match servers.get(&suite.against) {
                Some(server) => vec![OsString::from(&server.address)],
                None => {
                    let data = place.join("servers").join(name);
                    if data.exists() {
                        fs::remove_dir_all(&data)?;
                    }
                    vec![hongyan.clone().into(), data.into()]
                }
            };
            let mut command = Command::new(program);
            command
                .arg(project.root.join(suite.scripts).join(name))
                .args(told)
                .current_dir(folder)
                .envs(["PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"].map(|name| (name, "1")))
                .env("NODE_PATH", node.join("node_modules"))
                .envs(own.clone())
                // Everything they call is on this machine.
                .envs(["NO_PROXY", "no_proxy"].map(|name| (name, "127.0.0.1,localhost")));
            let log = place.join(name).with_added_extension("log");
            match play(&mut command, &log)? {
                Ok(answers) => eprintln!("   {name}: {answers} answers as they should be"),
                Err(fault) => {
                    eprintln!("   {name}: {fault}\n   all it said is in {}", log.display());
                    faults.push(*name);
                }
            }
        }
    }
    if !faults.is_empty() {
        bail!("hongyan and {} disagree, see above", faults.join(", "));
    }
    Ok(())
}

/// The program that plays the vendors and serves.
fn hongyan(project: &Project, built: &Path) -> Result<PathBuf> {
    if let Some(binary) = std::env::var_os(BINARY) {
        return Ok(binary.into());
    }
    // Just as the step before builds it, so that nothing is built twice.
    steps::run(&mut project.cargo(&["test", "--workspace", "--locked", "--no-run", "--quiet"]))?;
    Ok(built.with_file_name("hongyan"))
}

/// Builds a program that has libraries of Rust; answers where it is.
fn build(folder: &Path, home: &Path) -> Result<PathBuf> {
    let name = folder.file_name().context("a folder has a name")?;
    let target = home.join("rust");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    steps::run(
        Command::new(cargo)
            .args(["build", "--locked", "--quiet", "--manifest-path"])
            .arg(folder.join("Cargo.toml"))
            .arg("--target-dir")
            .arg(&target),
    )
    .with_context(|| {
        format!(
            "the public clients of Rust ({}) cannot be built; they come from the network, once",
            folder.display()
        )
    })?;
    Ok(target
        .join("debug")
        .join(name)
        .with_extension(std::env::consts::EXE_EXTENSION))
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
        format!("the public clients of Python ({}) cannot be installed; they come from the network, once", needed.display())
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
        format!("the public clients of Node.js ({}) cannot be installed; they come from the network, once", scripts.display())
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

/// A server on free ports, with a fresh data directory.
#[derive(Debug)]
struct Server {
    /// What scripts are told: the address to talk to.
    address: String,
    _process: Running,
}

impl Server {
    fn start(against: Against, hongyan: &Path, place: &Path) -> Result<Self> {
        let mut command = Command::new(hongyan);
        let (name, address): (_, fn(&str, &Path) -> Option<String>) = match against {
            Against::Sandbox => {
                command.args(["sandbox", "--json", "--no-phones"]);
                for listener in ["--control", "--vendors", "--smpp"] {
                    command.args([listener, "127.0.0.1:0"]);
                }
                ("sandbox", |text, _| control(text))
            }
            Against::OpenSpace => {
                command.arg("serve");
                for setting in [
                    "http.listen=127.0.0.1:0",
                    "mqtt.open_listen=127.0.0.1:0",
                    "log.format=json",
                ] {
                    command.args(["--set", setting]);
                }
                ("open-mqtt", |text, _| open_space(text))
            }
            Against::Demo | Against::Nothing => {
                command.arg("demo");
                for listener in [
                    "HTTP",
                    "SANDBOX_VENDORS",
                    "SANDBOX_CONTROL",
                    "SANDBOX_SMPP",
                    "XMPP",
                    "MQTT",
                ] {
                    command.env(format!("HONGYAN_{listener}_LISTEN"), "127.0.0.1:0");
                }
                ("demo", |_, data| facts(data))
            }
        };
        let data = place.join(name);
        if data.exists() {
            fs::remove_dir_all(&data)?;
        }
        fs::create_dir_all(place)?;
        command.arg("--data").arg(&data);
        let told = place.join(format!("{name}.json"));
        let log = place.join(format!("{name}.log"));
        let mut process = start(&mut command, &told, &log)?;
        let begun = Instant::now();
        loop {
            let ended = process.ended_within(LOOK)?;
            let text = fs::read_to_string(&told)? + &fs::read_to_string(&log)?;
            if let Some(address) = address(&text, &data) {
                return Ok(Self {
                    address,
                    _process: process,
                });
            }
            if ended.is_some() || begun.elapsed() > START {
                bail!("{command:?} does not say where it listens\n{text}");
            }
        }
    }
}

/// The file that says where everything of a demo is, once it is there in full.
fn facts(data: &Path) -> Option<String> {
    let file = data.join("demo.json");
    let text = fs::read_to_string(&file).ok()?;
    let whole = text.trim_end().ends_with('}');
    whole.then(|| file.display().to_string())
}

/// The control address in the line that the sandbox prints once it listens.
fn control(text: &str) -> Option<String> {
    let line = text.lines().find(|line| line.contains("\"sandbox\":\""))?;
    // Half a line has no end of its value.
    value(line, "\"sandbox\":\"")
}

/// The address in the log line that says that the open MQTT space is ready.
fn open_space(text: &str) -> Option<String> {
    let line = text
        .lines()
        .find(|line| line.contains("the open MQTT space is ready"))?;
    value(line, "\"address\":\"")
}

fn value(line: &str, key: &str) -> Option<String> {
    let (_, rest) = line.split_once(key)?;
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
    fn the_address_is_read_when_it_is_there_in_full() {
        let line =
            "{\"sandbox\":\"http://127.0.0.1:7500\",\"vendors\":\"https://127.0.0.1:7501\"}\n";
        assert_eq!(control(line).as_deref(), Some("http://127.0.0.1:7500"));
        assert_eq!(control(&line[..25]), None);
        assert_eq!(control(""), None);
        let line = "{\"fields\":{\"message\":\"the open MQTT space is ready\",\"address\":\"127.0.0.1:1884\"}}\n";
        let log = "{\"fields\":{\"address\":\"x\"}}\n".to_owned() + line;
        assert_eq!(open_space(&log).as_deref(), Some("127.0.0.1:1884"));
    }
}
