//! The checks, in the order in which a start would meet them.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use hongyan_core::Timestamp;
use hongyan_core::app::KeyKind;
use hongyan_dispatch::credentials::{Sealer, bound_to};
use hongyan_embedded::Embedded;
use hongyan_embedded::store::verify;
use indicatif::HumanBytes;

use super::Finding;
use crate::admin_key::ADMIN_KEY_FILE;
use crate::clock::{SystemDice, machine_time};
use crate::config::{Config, Loaded};
use crate::control::{Answer, Ask, Caller, whole};
use crate::data::{self, DataDir};
use crate::seal::{MasterSeal, SealError, key_path};

/// Apps and credentials looked at; more are counted, not opened.
const PAGE: usize = 1_000;
/// Below this many open files, only few devices can be connected.
const OPEN_FILES_FEW: u64 = 10_000;
/// Any time before this is a clock that was never set: 2026-01-01.
const EARLIEST: Timestamp = Timestamp(1_767_225_600_000);
/// Files this far in the future mean that the clock went back: an hour.
const AHEAD_MAX_MS: i64 = 3_600_000;

/// A server that runs on the data directory.
#[derive(Debug, Clone)]
struct Running {
    version: String,
    process: u32,
    disk_bytes: u64,
}

/// All checks.
pub(super) async fn all(loaded: &Loaded, deep: bool) -> Vec<Finding> {
    let config = &loaded.config;
    let running = running(&config.server.data).await;
    let mut findings = vec![configuration(loaded)];
    findings.extend(loaded.warnings.iter().map(|warning| {
        Finding::warning("configuration", warning, "correct or remove the variable")
    }));
    findings.extend(directory(&config.server.data));
    findings.push(disk(config));
    findings.push(clock(&config.server.data, machine_time()));
    findings.push(open_files());
    findings.extend(listeners(config, running.is_some()));
    findings.extend(certificates(config));
    let (key, sealer) = master_key(config);
    findings.push(key);
    findings.push(admin_key(&config.server.data));
    match running {
        Some(running) => findings.push(Finding::good(
            "store",
            format!(
                "in use by the running server (process {}, version {}), {} on disk; its credentials are checked by `hongyan channel check`",
                running.process,
                running.version,
                HumanBytes(running.disk_bytes)
            ),
        )),
        None => findings.extend(store(config, sealer, deep).await),
    }
    findings
}

async fn running(data: &Path) -> Option<Running> {
    let mut caller = Caller::ask(data, &Ask::Status).await.ok()??;
    match caller.next().await.ok()? {
        Answer::Status {
            version,
            process,
            disk_bytes,
            ..
        } => Some(Running {
            version,
            process,
            disk_bytes,
        }),
        _ => None,
    }
}

fn configuration(loaded: &Loaded) -> Finding {
    let set = match loaded.origins.len() {
        0 => "nothing is set, all defaults".to_owned(),
        1 => "1 setting is not at its default".to_owned(),
        n => format!("{n} settings are not at their defaults"),
    };
    Finding::good("configuration", set)
}

fn directory(data: &Path) -> Vec<Finding> {
    let about = "data";
    let shown = data.display();
    let metadata = match fs::metadata(data) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return vec![Finding::good(
                about,
                format!("{shown} does not exist yet; the first start makes it"),
            )];
        }
        Err(error) => {
            return vec![Finding::bad(
                about,
                format!("{shown} cannot be looked at: {error}"),
                "give it to the user that runs the server, or name another with --data",
            )];
        }
    };
    if !metadata.is_dir() {
        return vec![Finding::bad(
            about,
            format!("{shown} is not a directory"),
            "name a directory with --data",
        )];
    }
    let mut findings = Vec::new();
    if metadata.permissions().mode() & 0o077 != 0 {
        findings.push(Finding::warning(
            about,
            format!("other users of this machine may enter {shown}"),
            format!("run `chmod 700 {shown}`"),
        ));
    }
    findings.push(match tempfile_in(data) {
        Ok(()) => Finding::good(about, format!("{shown} can be written")),
        Err(error) => Finding::bad(
            about,
            format!("{shown} cannot be written: {error}"),
            "give it to the user that runs the server, or name another with --data",
        ),
    });
    findings
}

fn tempfile_in(data: &Path) -> io::Result<()> {
    let probe = data.join(format!("doctor-{}", std::process::id()));
    fs::File::create_new(&probe)?;
    fs::remove_file(&probe)
}

/// The nearest folder that exists: the data directory may not be made yet.
fn existing(data: &Path) -> std::path::PathBuf {
    let absolute = std::path::absolute(data).unwrap_or_else(|_| data.to_owned());
    absolute
        .ancestors()
        .find(|path| path.exists())
        .unwrap_or(Path::new("/"))
        .to_owned()
}

fn disk(config: &Config) -> Finding {
    match rustix::fs::statvfs(existing(&config.server.data)) {
        Ok(disk) => disk_space(
            disk.f_bavail.saturating_mul(disk.f_frsize),
            config.store.free_bytes_min,
        ),
        Err(error) => Finding::warning(
            "disk",
            format!("free space cannot be known: {error}"),
            "watch it by other means",
        ),
    }
}

fn disk_space(free: u64, least: u64) -> Finding {
    let what = format!("{} free", HumanBytes(free));
    if free < least {
        let least = HumanBytes(least);
        Finding::bad(
            "disk",
            format!("{what}; below {least} nothing is accepted (store.free_bytes_min)"),
            "free some space, or move the data directory to a larger disk",
        )
    } else if free < least.saturating_mul(4) {
        Finding::warning("disk", what, "plan for more space")
    } else {
        Finding::good("disk", what)
    }
}

fn clock(data: &Path, now: Timestamp) -> Finding {
    let todo = "set the clock, and keep it set by NTP: times to live, quiet hours and vendor tokens depend on it";
    if now < EARLIEST {
        return Finding::bad("clock", format!("it says {}", now.rfc3339()), todo);
    }
    let newest = fs::read_dir(data.join("store"))
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.metadata().ok()?.modified().ok())
        .filter_map(|time| time.duration_since(std::time::UNIX_EPOCH).ok())
        .filter_map(|time| i64::try_from(time.as_millis()).ok())
        .max();
    match newest {
        Some(newest) if newest - now.millis() > AHEAD_MAX_MS => Finding::bad(
            "clock",
            format!(
                "it says {}, but the store was written at {}",
                now.rfc3339(),
                Timestamp(newest).rfc3339()
            ),
            todo,
        ),
        _ => Finding::good("clock", now.rfc3339()),
    }
}

fn open_files() -> Finding {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    match soft_limit(&limits) {
        Some(files) if files < OPEN_FILES_FEW => Finding::warning(
            "open files",
            format!("at most {files}, so fewer connections than that"),
            "raise it (`ulimit -n 1000000`, or LimitNOFILE= of the service)",
        ),
        Some(files) => Finding::good("open files", format!("at most {files}")),
        None => Finding::good("open files", "without a known limit"),
    }
}

/// The soft limit of open files in the text of `/proc/self/limits`.
fn soft_limit(text: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix("Max open files"))?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

fn listeners(config: &Config, running: bool) -> Vec<Finding> {
    let mut findings = vec![listener("http.listen", config.http.listen, running)];
    if !config.http.listen.ip().is_loopback() && config.http.tls_cert.is_none() {
        findings.push(Finding::warning(
            "http.listen",
            "other machines can connect, without TLS",
            "set http.tls_cert and http.tls_key, or let a proxy in front do TLS and listen on loopback",
        ));
    }
    findings
}

fn listener(about: &'static str, address: SocketAddr, running: bool) -> Finding {
    match TcpListener::bind(address) {
        Ok(_) => Finding::good(about, format!("{address} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && running => {
            Finding::good(about, format!("{address} is in use, and a server runs"))
        }
        Err(error) => Finding::bad(
            about,
            format!("{address} cannot be used: {error}"),
            format!("stop what uses it (`ss -ltnp`), or set {about} to another address"),
        ),
    }
}

fn certificates(config: &Config) -> Vec<Finding> {
    let files = [
        ("http.tls_cert", &config.http.tls_cert, "CERTIFICATE-----"),
        ("http.tls_key", &config.http.tls_key, "PRIVATE KEY-----"),
        (
            "egress.extra_ca",
            &config.egress.extra_ca,
            "CERTIFICATE-----",
        ),
    ];
    files
        .into_iter()
        .filter_map(|(about, path, marker)| {
            let path = path.as_deref()?;
            Some(pem(about, path, marker))
        })
        .collect()
}

fn pem(about: &'static str, path: &Path, marker: &str) -> Finding {
    let shown = path.display();
    match fs::read_to_string(path) {
        Ok(text) if text.contains(marker) => Finding::good(about, shown.to_string()),
        Ok(_) => Finding::bad(
            about,
            format!(
                "{shown} has no {}",
                marker.trim_end_matches('-').to_lowercase()
            ),
            "name a PEM file that has",
        ),
        Err(error) => Finding::bad(
            about,
            format!("{shown} cannot be read: {error}"),
            "correct the path, or let the server's user read it",
        ),
    }
}

fn master_key(config: &Config) -> (Finding, Option<MasterSeal>) {
    let about = "master key";
    let data = &config.server.data;
    let of_its_own = config.seal.key.is_none() && config.seal.key_file.is_none();
    if of_its_own && DataDir::of(data) == DataDir::Fresh && !key_path(&config.seal, data).exists() {
        let finding = Finding::good(about, "the first start makes it");
        return (finding, None);
    }
    // A used directory: loading never makes a key.
    let dice = Arc::new(SystemDice::default());
    match MasterSeal::load(&config.seal, data, DataDir::Used, dice) {
        Ok(seal) => {
            let ids = seal.key_ids().join(", ");
            (Finding::good(about, format!("id {ids}")), Some(seal))
        }
        Err(error) => (
            Finding::bad(about, error.to_string(), key_todo(&error)),
            None,
        ),
    }
}

/// A server runs without the file, but nobody can make a key, and no second first key is ever made.
fn admin_key(data: &Path) -> Finding {
    let about = "admin key";
    let path = data.join(ADMIN_KEY_FILE);
    let shown = path.display();
    if path.exists() {
        Finding::good(about, format!("is in {shown}"))
    } else if DataDir::of(data) == DataDir::Fresh {
        Finding::good(about, "the first start makes it")
    } else {
        Finding::warning(
            about,
            format!("{shown} is missing, so commands on this machine have no key"),
            "put its copy back there, readable by its owner only (it is not part of a backup), or give it to commands with --key or HONGYAN_KEY; if it is lost, `hongyan key admin --rotate` makes another and ends it",
        )
    }
}

fn key_todo(error: &SealError) -> &'static str {
    match error {
        SealError::Writable { .. } => "make the file private",
        SealError::Malformed { .. } => "put the right key there",
        _ => "bring the key back from where you keep its copy",
    }
}

async fn store(config: &Config, sealer: Option<MasterSeal>, deep: bool) -> Vec<Finding> {
    if DataDir::of(&config.server.data) == DataDir::Fresh {
        return vec![Finding::good("store", "the first start makes it")];
    }
    let options = data::store_options(config);
    let opened = tokio::task::spawn_blocking(move || Embedded::open(&options)).await;
    let engine = match opened {
        Ok(Ok(engine)) => engine,
        Ok(Err(error)) => return vec![Finding::bad("store", whole(&error), store_todo())],
        Err(error) => return vec![Finding::bad("store", error.to_string(), store_todo())],
    };
    let size = HumanBytes(engine.store().backend().disk_bytes());
    let mut findings = vec![Finding::good("store", format!("opens, {size} on disk"))];
    if deep {
        findings.push(records(&engine).await);
    }
    findings.extend(stale_admin_key(&engine, &config.server.data).await);
    if let Some(sealer) = sealer {
        findings.extend(credentials(&engine, &sealer).await);
    }
    engine.close().await;
    findings
}

/// A key in the file that the store does not know: of another server, or ended since.
async fn stale_admin_key(engine: &Embedded, data: &Path) -> Option<Finding> {
    let path = data.join(ADMIN_KEY_FILE);
    let text = fs::read_to_string(&path).ok()?;
    let hash = hongyan_api::key::hash(text.trim());
    match engine.registry().key_by_hash(&hash).await {
        Ok(Some(key)) if key.kind == KeyKind::Admin => None,
        Ok(_) => Some(Finding::warning(
            "admin key",
            format!("the one in {} does not hold in this store", path.display()),
            "put the right one there, or make another with `hongyan key admin --rotate`, which ends all others",
        )),
        Err(error) => Some(Finding::bad("admin key", whole(&error), store_todo())),
    }
}

fn store_todo() -> &'static str {
    "do what the message says; copy the data directory away before you try anything else"
}

async fn records(engine: &Embedded) -> Finding {
    let backend = Arc::clone(engine.store().backend());
    let walked = tokio::task::spawn_blocking(move || verify::deep(backend.as_ref())).await;
    match walked {
        Ok(Ok(damaged)) if damaged.is_empty() => {
            Finding::good("records", "every record can be read")
        }
        Ok(Ok(damaged)) => Finding::bad(
            "records",
            format!("{} records are damaged", damaged.len()),
            "restore the newest backup, or start once with store.accept_loss = true",
        ),
        Ok(Err(error)) => Finding::bad("records", whole(&error), store_todo()),
        Err(error) => Finding::bad("records", error.to_string(), store_todo()),
    }
}

async fn credentials(engine: &Embedded, sealer: &MasterSeal) -> Vec<Finding> {
    let about = "credentials";
    let registry = engine.registry();
    let apps = match registry.apps(None, PAGE).await {
        Ok(apps) => apps,
        Err(error) => return vec![Finding::bad(about, whole(&error), store_todo())],
    };
    let (mut opened, mut findings) = (0_usize, Vec::new());
    for app in apps {
        let stored = match registry.credentials(&app.id).await {
            Ok(stored) => stored,
            Err(error) => {
                findings.push(Finding::bad(about, whole(&error), store_todo()));
                continue;
            }
        };
        for credential in stored {
            let place = bound_to(&credential.app, &credential.channel, &credential.name);
            match sealer.open(&place, &credential.sealed) {
                Ok(mut secret) => {
                    secret.fill(0);
                    opened += 1;
                }
                Err(error) => findings.push(Finding::bad(
                    about,
                    format!(
                        "{} {} of app {}: {error}",
                        credential.channel, credential.name, credential.app
                    ),
                    "configure the master key that sealed it, or store the credential again",
                )),
            }
        }
    }
    findings.insert(
        0,
        Finding::good(
            about,
            format!(
                "{opened} can be opened; prove them with their vendors by `hongyan channel check`"
            ),
        ),
    );
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmd::doctor::Health;

    fn loaded(data: &Path) -> Loaded {
        let mut loaded = Loaded::default();
        loaded.config.server.data = data.to_owned();
        loaded.config.http.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        loaded.config.store.free_bytes_min = 1;
        loaded
    }

    fn bad(findings: &[Finding]) -> Vec<&'static str> {
        findings
            .iter()
            .filter(|finding| finding.health == Health::Bad)
            .map(|finding| finding.about)
            .collect()
    }

    #[tokio::test]
    async fn a_machine_before_its_first_start_is_healthy_and_stays_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let findings = all(&loaded(&data), true).await;
        assert!(bad(&findings).is_empty(), "{findings:?}");
        assert!(!data.exists());
    }

    #[tokio::test]
    async fn a_used_directory_is_read_in_depth_and_a_lost_key_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let loaded = loaded(dir.path());
        let options = data::store_options(&loaded.config);
        Embedded::open(&options).unwrap().close().await;
        let findings = all(&loaded, true).await;
        assert_eq!(bad(&findings), ["master key"], "{findings:?}");
        assert!(!dir.path().join("master.key").exists());

        let dice = Arc::new(SystemDice::default());
        MasterSeal::load(&loaded.config.seal, dir.path(), DataDir::Fresh, dice).unwrap();
        let findings = all(&loaded, true).await;
        assert!(bad(&findings).is_empty(), "{findings:?}");
        assert!(
            findings
                .iter()
                .any(|finding| finding.about == "credentials")
        );
    }

    #[tokio::test]
    async fn a_used_directory_without_the_admin_key_is_warned_of() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(admin_key(dir.path()).health, Health::Good);
        let loaded = loaded(dir.path());
        let options = data::store_options(&loaded.config);
        Embedded::open(&options).unwrap().close().await;
        let findings = all(&loaded, false).await;
        let of_key = findings.iter().find(|one| one.about == "admin key");
        let of_key = of_key.unwrap();
        assert_eq!(of_key.health, Health::Warning);
        assert!(of_key.todo.as_ref().unwrap().contains("HONGYAN_KEY"));
        fs::write(dir.path().join("admin.key"), "hy_admin_of_another").unwrap();
        assert_eq!(admin_key(dir.path()).health, Health::Good);
        // The file is there, and what is in it does not hold.
        let stale = |findings: Vec<Finding>| {
            let todo = |one: &Finding| one.todo.as_ref().is_some_and(|t| t.contains("--rotate"));
            findings
                .iter()
                .any(|one| one.about == "admin key" && todo(one))
        };
        assert!(stale(all(&loaded, false).await));
        let store = Embedded::open(&options).unwrap();
        let keys = crate::admin_key::AdminKeys {
            data: dir.path().to_owned(),
            registry: store.registry(),
            dice: Arc::new(crate::clock::SystemDice::default()),
            clock: Arc::new(crate::clock::SystemClock::default()),
            api: None,
        };
        keys.rotate().await.unwrap();
        store.close().await;
        assert!(!stale(all(&loaded, false).await));
    }

    #[test]
    fn a_taken_port_is_bad_unless_a_server_runs() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        assert_eq!(listener("x", address, false).health, Health::Bad);
        assert_eq!(listener("x", address, true).health, Health::Good);
    }

    #[test]
    fn a_clock_that_was_never_set_or_went_back_is_bad() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(clock(dir.path(), Timestamp(0)).health, Health::Bad);
        assert_eq!(clock(dir.path(), EARLIEST).health, Health::Good);
        fs::create_dir(dir.path().join("store")).unwrap();
        fs::write(dir.path().join("store/file"), "").unwrap();
        let now = machine_time();
        assert_eq!(clock(dir.path(), now).health, Health::Good);
        if now.millis() - EARLIEST.millis() > AHEAD_MAX_MS {
            assert_eq!(clock(dir.path(), EARLIEST).health, Health::Bad);
        }
    }

    #[test]
    fn little_space_is_noticed_before_it_is_none() {
        for (free, want) in [(9, Health::Bad), (39, Health::Warning), (40, Health::Good)] {
            assert_eq!(disk_space(free, 10).health, want);
        }
    }

    #[test]
    fn the_limit_of_open_files_is_read() {
        let text = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024      4096      files\n";
        assert_eq!(soft_limit(text), Some(1024));
        assert_eq!(soft_limit("Max open files unlimited unlimited files"), None);
    }
}
