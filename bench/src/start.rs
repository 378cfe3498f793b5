//! Goals 16 and 17: bulk import, the memory of an idle server, and its start after a kill.

use std::io::{BufRead as _, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::child::Ports;
use crate::process::{self, Running};
use crate::report::Report;

/// Longest time that a start may take.
const START_MAX: Duration = Duration::from_secs(120);
/// Time after which an idle server's memory is looked at.
const IDLE: Duration = Duration::from_secs(5);

/// Import devices, kill, start again.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Devices to import.
    #[arg(long, default_value_t = 200_000)]
    devices: u32,
    /// Messages to put into inboxes.
    #[arg(long, default_value_t = 500_000)]
    entries: u32,
    /// The server's program; this one when not given.
    #[arg(long)]
    server: Option<PathBuf>,
    /// Where to put the store: the disk under test. A temporary directory below it is removed afterwards.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
}

/// Measures.
///
/// # Errors
/// What failed, why and what to do.
pub fn run(args: &Args, prefix: &[String]) -> anyhow::Result<Report> {
    let this = std::env::current_exe()?;
    let program = args.server.clone().unwrap_or_else(|| this.clone());
    let dir = tempfile::Builder::new()
        .prefix("hongyan-bench-")
        .tempdir_in(&args.dir)
        .with_context(|| format!("{} cannot be written; choose --dir", args.dir.display()))?;
    let data = dir.path().join("data");
    let mut report = Report::default();

    let (server, took) = serve(&program, &data, dir.path())?;
    std::thread::sleep(IDLE);
    let resident = process::resident(server.pid())?;
    drop(server);
    report.row(
        "serve with an empty store",
        vec![
            ("seconds to ready", took.as_secs_f64()),
            ("MiB resident when idle", mib(resident)),
        ],
    );

    let mut command = Command::new(&this);
    command
        .args(prefix)
        .args(["child", "fill", "--data"])
        .arg(&data);
    command.args(["--devices", &args.devices.to_string()]);
    command.args(["--entries", &args.entries.to_string()]);
    let log = dir.path().join("fill.log");
    let mut fill = Running::start("the importer", &mut command, &log)?;
    let mut line = String::new();
    let out = fill.stdout().context("the importer has no output")?;
    std::io::BufReader::new(out).read_line(&mut line)?;
    let filled: Ports = serde_json::from_str(&line).with_context(|| {
        let log = std::fs::read_to_string(&log).unwrap_or_default();
        format!("the importer ended early: {log}")
    })?;
    // Killed, not closed.
    drop(fill);
    report.row(
        format!(
            "import of {} devices, {} inbox entries",
            args.devices, args.entries
        ),
        vec![
            ("devices per second", filled.devices_per_s),
            ("inbox entries per second", filled.entries_per_s),
        ],
    );

    let (server, took) = serve(&program, &data, dir.path())?;
    report.row(
        "serve on that store after a kill",
        vec![
            ("seconds to ready", took.as_secs_f64()),
            ("MiB resident then", mib(process::resident(server.pid())?)),
        ],
    );
    Ok(report)
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Starts a server; how long it took until it was ready.
fn serve(program: &Path, data: &Path, logs: &Path) -> anyhow::Result<(Running, Duration)> {
    let port = process::free_port()?;
    let mut command = Command::new(program);
    command.arg("serve").arg("--data").arg(data);
    command.env("HONGYAN_HTTP_LISTEN", format!("127.0.0.1:{port}"));
    let log = logs.join("serve.log");
    let begin = Instant::now();
    let mut server = Running::start("the server", &mut command, &log)?;
    while begin.elapsed() < START_MAX {
        if ready(port) {
            return Ok((server, begin.elapsed()));
        }
        if let Some(status) = server.ended()? {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            bail!("the server ended with {status}; is --server the hongyan program? {log}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    bail!("the server was not ready after {} s", START_MAX.as_secs())
}

fn ready(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else {
        return false;
    };
    let asked =
        stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    let mut answer = Vec::new();
    asked.is_ok() && stream.read_to_end(&mut answer).is_ok() && answer.starts_with(b"HTTP/1.1 200")
}
