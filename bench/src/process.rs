//! Processes under measurement: their CPU time and memory, as Linux tells it.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// CPU time of a process since its start, all threads, user and system; in steps of 10 ms.
///
/// # Errors
/// When `/proc` has no such process.
pub fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("the process {pid} is gone, or this is not Linux"))?;
    // The name in parentheses may hold anything; fields 14 and 15 are the 12th and 13th after it.
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    let ticks: u64 = after
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    let per_s = rustix::param::clock_ticks_per_second().max(1);
    Ok(Duration::from_secs_f64(ticks as f64 / per_s as f64))
}

/// Anonymous memory of a process that is in RAM, bytes: its heaps and stacks, without files.
///
/// # Errors
/// When `/proc` has no such process.
pub fn memory(pid: u32) -> anyhow::Result<u64> {
    field(pid, "Anonymous:")
}

/// All memory of a process that is in RAM, bytes.
///
/// # Errors
/// When `/proc` has no such process.
pub fn resident(pid: u32) -> anyhow::Result<u64> {
    field(pid, "Rss:")
}

fn field(pid: u32, name: &str) -> anyhow::Result<u64> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
        .with_context(|| format!("the process {pid} is gone, or this is not Linux"))?;
    let line = rollup.lines().find(|line| line.starts_with(name));
    let kib: u64 = line
        .and_then(|line| line.split_whitespace().nth(1))
        .and_then(|number| number.parse().ok())
        .context("smaps_rollup has another shape than expected")?;
    Ok(kib * 1024)
}

/// Raises the limit of open files as far as allowed; children inherit it.
///
/// # Errors
/// When fewer than `needed` files may be open.
pub fn allow_files(needed: u64) -> anyhow::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).context("the limit of open files cannot be raised")?;
    if let Some(maximum) = limit.maximum.filter(|maximum| *maximum < needed) {
        bail!(
            "{needed} files have to be open at once and {maximum} may be; ask for fewer connections"
        );
    }
    Ok(())
}

/// A process that ends with this value.
#[derive(Debug)]
pub struct Running {
    child: Child,
    name: &'static str,
}

impl Running {
    /// Starts a program; what it writes to stderr is kept in `log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(name: &'static str, command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let log = std::fs::File::create(log).context("no log file can be written")?;
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| format!("{name} cannot be started"))?;
        Ok(Self { child, name })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the process has written to stdout, to be read once.
    pub fn stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.child.stdout.take()
    }

    /// How the process ended, if it did.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn ended(&mut self) -> std::io::Result<Option<std::process::ExitStatus>> {
        self.child.try_wait()
    }

    /// Waits until something listens on a port of loopback.
    ///
    /// # Errors
    /// When the process ends or nothing listens within ten seconds.
    pub fn wait_for_port(&mut self, port: u16) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Ok(());
            }
            if let Some(status) = self.ended()? {
                bail!("{} ended at once: {status}", self.name);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("{} does not listen on port {port} after 10 s", self.name)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program's path, if it is in `PATH`.
#[must_use]
pub fn find(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    let extra = ["/usr/sbin", "/usr/local/sbin"].map(std::path::PathBuf::from);
    std::env::split_paths(&path)
        .chain(extra)
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

/// A port of loopback that nobody uses now.
///
/// # Errors
/// When there is none.
pub fn free_port() -> anyhow::Result<u16> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").context("no free port")?;
    Ok(listener.local_addr()?.port())
}
