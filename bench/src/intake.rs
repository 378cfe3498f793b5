//! Goals 12 and 13: how many messages are accepted durably, beside a bare log on the same disk.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use hongyan_core::draft::Draft;
use hongyan_core::message::{Notification, Options, Target};
use hongyan_core::port::{Clock, Registry};
use hongyan_core::{AppId, Class, UserId};
use hongyan_dispatch::feedback::Feedback;
use hongyan_dispatch::{Dispatch, Ports};
use hongyan_embedded::{Embedded, Engine};

use crate::drive::{Measured, Plan, drive};
use crate::http::{Http, host, request};
use crate::log_peer::Log;
use crate::quiet::{NoSecrets, Nobody, SystemClock, SystemDice};
use crate::report::Report;

/// Users that messages are spread over.
const USERS: usize = 100_000;
/// Bytes of a message's text, as of a record of the bare log.
const BODY_BYTES: usize = 400;
/// Longest batch that the API takes.
const BATCH_LEN: usize = 1_000;

/// Accept messages durably.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Callers at once; several numbers are measured one after the other.
    #[arg(long, value_delimiter = ',', default_value = "64,1024")]
    callers: Vec<usize>,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Engine of the store: fjall or sqlite.
    #[arg(long, default_value = "fjall")]
    engine: String,
    /// Where to put the stores that are measured: the disk under test. A temporary directory below it is removed afterwards.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Measure a running server instead of the engine: its address, http://host:port.
    #[arg(long, requires = "key")]
    api: Option<String>,
    /// A server key of an app of the running server.
    #[arg(long, requires = "api")]
    key: Option<String>,
    /// Process id of the running server, when it runs on this machine, for its CPU time.
    #[arg(long, requires = "api")]
    pid: Option<u32>,
}

/// Measures.
///
/// # Errors
/// What failed, why and what to do.
pub fn run(args: &Args) -> anyhow::Result<Report> {
    let engine = Engine::parse(&args.engine).context("--engine must be fjall or sqlite")?;
    let runtime = crate::runtime()?;
    let dir = tempfile::Builder::new()
        .prefix("hongyan-bench-")
        .tempdir_in(&args.dir)
        .with_context(|| format!("{} cannot be written; choose --dir", args.dir.display()))?;
    let mut report = Report::default();
    for &callers in &args.callers {
        if callers == 0 {
            bail!("--callers must be at least 1");
        }
        let log = dir.path().join(format!("log-{callers}"));
        let peer = runtime.block_on(bare_log(args, callers, &log))?;
        let name = format!("bare log, {callers} callers");
        add(&mut report, &name, &peer);
        std::fs::remove_file(&log)?;
        let ours = match (&args.api, &args.key) {
            (Some(api), Some(key)) => {
                let one = runtime.block_on(over_http(args, callers, api, key, 1))?;
                let name = format!("POST /v1/messages, {callers} callers");
                add(&mut report, &name, &one);
                one
            }
            _ => {
                let store = dir.path().join(format!("store-{callers}"));
                let engine = runtime.block_on(embedded(args, callers, engine, store))?;
                let name = format!("intake on {}, {callers} callers", args.engine);
                add(&mut report, &name, &engine);
                engine
            }
        };
        report.ratio(format!("rate, {callers} callers"), ours.rate(), peer.rate());
        let p99 = |m: &Measured| m.latency.value_at_quantile(0.99) as f64;
        report.ratio(format!("p99 us, {callers} callers"), p99(&ours), p99(&peer));
        report.ratio(
            format!("CPU-s per 100k, {callers} callers"),
            ours.cpu_per_100k(),
            peer.cpu_per_100k(),
        );
    }
    if let (Some(api), Some(key)) = (&args.api, &args.key) {
        let batch = runtime.block_on(over_http(args, 4, api, key, BATCH_LEN))?;
        add(
            &mut report,
            "POST /v1/messages/batch, 1,000 each, 4 callers",
            &batch,
        );
        if args.pid.is_none() {
            report.note("CPU is that of the load generator; name the server with --pid");
        }
    } else {
        report.note("CPU is that of the whole process, callers included, on both sides");
    }
    Ok(report)
}

fn add(report: &mut Report, name: &str, measured: &Measured) {
    report.row(
        name,
        vec![
            ("messages per second", measured.rate()),
            ("CPU seconds per 100,000", measured.cpu_per_100k()),
        ],
    );
    report.histogram(name, &measured.latency);
}

fn plan(args: &Args, doing: &str, callers: usize) -> Plan {
    Plan {
        doing: format!("{doing}, {callers} callers"),
        callers,
        warm: Duration::from_secs(1),
        take: Duration::from_secs(args.seconds.max(1)),
        pid: args.pid.unwrap_or_else(std::process::id),
    }
}

async fn bare_log(args: &Args, callers: usize, path: &std::path::Path) -> anyhow::Result<Measured> {
    let log = Log::create(path)?;
    let plan = Plan {
        pid: std::process::id(),
        ..plan(args, "bare log", callers)
    };
    drive(plan, move |_, _| {
        let log = log.clone();
        async move {
            log.append(vec![b'x'; BODY_BYTES]).await?;
            Ok(1)
        }
    })
    .await
}

async fn embedded(
    args: &Args,
    callers: usize,
    engine: Engine,
    dir: PathBuf,
) -> anyhow::Result<Measured> {
    let options = hongyan_embedded::Options::new(dir).engine(engine);
    let engine = Embedded::open(&options)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let registry: Arc<dyn Registry> = engine.registry();
    let (feedback, _signals) = Feedback::new(Arc::clone(&registry), Arc::clone(&clock));
    let dispatch = Dispatch::new(
        hongyan_dispatch::Options {
            vendors: Vec::new(),
            sealer: Arc::new(NoSecrets),
            feedback,
            public_url: None,
        },
        Ports {
            registry,
            inbox: engine.inbox(),
            work: engine.work(),
            ledger: engine.ledger(),
            commit: engine.commit(),
            quota: engine.quota(),
            presence: Arc::new(Nobody),
            clock,
            dice: Arc::new(SystemDice::default()),
        },
    );
    let intake = dispatch.intake();
    let app = AppId::parse("bench")?;
    let measured = drive(plan(args, "intake", callers), move |caller, n| {
        let (intake, app) = (intake.clone(), app.clone());
        async move {
            intake
                .accept(&app, vec![draft(user(caller, n))?], None)
                .await?;
            Ok(1)
        }
    })
    .await?;
    engine.close().await;
    Ok(measured)
}

/// Spreads callers and calls over the users without a pattern that a store could like.
fn user(caller: usize, n: u64) -> String {
    let mixed =
        (caller as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ n.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    format!("user-{}", (mixed >> 20) % USERS as u64)
}

fn draft(user: String) -> anyhow::Result<Draft> {
    Ok(Draft {
        to: Target::Users(vec![UserId::parse(&user)?]),
        class: Class::Im,
        class_detail: None,
        notification: Some(Notification {
            title: "bench".to_owned(),
            body: "x".repeat(BODY_BYTES),
            ..Notification::default()
        }),
        data: None,
        options: Options::default(),
    })
}

async fn over_http(
    args: &Args,
    callers: usize,
    api: &str,
    key: &str,
    batch: usize,
) -> anyhow::Result<Measured> {
    let host = host(api)?.to_owned();
    let mut connections = Vec::new();
    for _ in 0..callers {
        connections.push(Arc::new(tokio::sync::Mutex::new(
            Http::connect(&host).await?,
        )));
    }
    let connections = Arc::new(connections);
    let (host, key) = (Arc::<str>::from(host), Arc::<str>::from(key));
    let doing = if batch == 1 {
        "POST /v1/messages"
    } else {
        "POST /v1/messages/batch"
    };
    drive(plan(args, doing, callers), move |caller, n| {
        let connection = Arc::clone(&connections[caller]);
        let (host, key) = (Arc::clone(&host), Arc::clone(&key));
        async move {
            let message = |n| {
                let (to, text) = (user(caller, n), "x".repeat(BODY_BYTES));
                format!(
                    r#"{{"to":{{"user":"{to}"}},"class":"im","notification":{{"title":"bench","body":"{text}"}}}}"#
                )
            };
            let request = if batch == 1 {
                request("POST", "/v1/messages", &host, &key, &message(n))
            } else {
                let first = n * batch as u64;
                let all: Vec<String> = (first..first + batch as u64).map(message).collect();
                let body = format!(r#"{{"messages":[{}]}}"#, all.join(","));
                request("POST", "/v1/messages/batch", &host, &key, &body)
            };
            let (status, answer) = connection.lock().await.call(&request).await?;
            if !(200..300).contains(&status) {
                bail!("the server answered {status}: {}", String::from_utf8_lossy(&answer));
            }
            if batch == 1 {
                return Ok(1);
            }
            let answer: serde_json::Value = serde_json::from_slice(&answer)?;
            if answer["accepted"] != batch {
                bail!("some of a batch were refused: {answer}");
            }
            Ok(batch as u64)
        }
    })
    .await
}
