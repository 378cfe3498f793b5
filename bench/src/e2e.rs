//! Goal 14: from the request of an app server to a connected device, durably, on a running server.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use indicatif::ProgressBar;
use serde_json::{Value, json};

use crate::dialect::{Dialect, mark};
use crate::drive::bar;
use crate::http::{Http, host, request};
use crate::process;
use crate::quiet::nanos;
use crate::report::Report;
use crate::swarm::{Clients, Swarm};

/// Bytes of a message's text.
const BODY_BYTES: usize = 200;
/// Time for what was accepted to arrive.
const PATIENCE: Duration = Duration::from_secs(60);

/// Send to connected devices through a running server.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Address of the server, http://host:port.
    #[arg(long, default_value = "http://127.0.0.1:7400")]
    api: String,
    /// A server key of an app, with scope send.
    #[arg(long)]
    key: String,
    /// A client key of the same app.
    #[arg(long)]
    client_key: String,
    /// Devices to register and connect.
    #[arg(long, default_value_t = 1_000)]
    devices: u32,
    /// Requests under way at once.
    #[arg(long, default_value_t = 64)]
    callers: u64,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Process id of the server, when it runs on this machine, for its CPU time.
    #[arg(long)]
    pid: Option<u32>,
}

/// What one run did.
#[derive(Debug)]
struct Ran {
    accepted: u64,
    until_all_arrived: Duration,
    cpu: Option<Duration>,
}

/// Measures.
///
/// # Errors
/// What failed, why and what to do.
pub fn run(args: &Args) -> anyhow::Result<Report> {
    if args.devices == 0 || args.callers == 0 {
        bail!("--devices and --callers must be at least 1");
    }
    process::allow_files(u64::from(args.devices) + args.callers + 100)?;
    let host = host(&args.api)?.to_owned();
    let server: SocketAddr = host
        .to_socket_addrs()
        .ok()
        .and_then(|mut all| all.next())
        .with_context(|| format!("{host} has no address"))?;
    let runtime = crate::runtime()?;
    let tokens = runtime.block_on(register(args, &host))?;
    let clients = Clients {
        tokens,
        followers: 0,
        ack_every: 1,
        tls: None,
    };
    let mut swarm = Swarm::open(server, Dialect::Hongyan, clients)?;
    let mut report = Report::default();

    let full = load(args, &runtime, &host, &mut swarm, None)?;
    let rate = full.accepted as f64 / full.until_all_arrived.as_secs_f64();
    row(&mut report, "as fast as it goes", &full, &swarm);
    swarm.reset();
    let half = load(args, &runtime, &host, &mut swarm, Some(rate / 2.0))?;
    row(&mut report, "at half of that rate", &half, &swarm);
    report.histogram("request to device, at half rate", &swarm.latency);
    if swarm.delivered > half.accepted {
        report.note(format!(
            "{} arrived more than once",
            swarm.delivered - half.accepted
        ));
    }
    report.note(
        "the clock runs from before the request is written until the client has read the message",
    );
    Ok(report)
}

fn row(report: &mut Report, name: &str, ran: &Ran, swarm: &Swarm) {
    let rate = ran.accepted as f64 / ran.until_all_arrived.as_secs_f64();
    let at = |quantile| swarm.latency.value_at_quantile(quantile) as f64 / 1e3;
    let mut figures = vec![
        ("messages per second, all delivered", rate),
        ("ms p50", at(0.5)),
        ("ms p99", at(0.99)),
    ];
    if let Some(cpu) = ran.cpu {
        let per_100k = cpu.as_secs_f64() * 1e5 / ran.accepted.max(1) as f64;
        figures.push(("server CPU seconds per 100,000", per_100k));
    }
    report.row(name, figures);
}

/// Registers devices and logs each in as a user of its own; their tokens.
async fn register(args: &Args, host: &str) -> anyhow::Result<Vec<String>> {
    let mut http = Http::connect(host).await?;
    let bar = bar("registering", args.devices.into());
    let mut tokens = Vec::new();
    for number in 0..args.devices {
        let id = format!("bench-{number}");
        let body = json!({"device_id": id, "platform": "android"}).to_string();
        let registered = ask(
            &mut http,
            &request("POST", "/v1/devices", host, &args.client_key, &body),
        )
        .await?;
        let token = registered["device_token"]
            .as_str()
            .context("no device_token was answered")?;
        let (path, body) = (
            format!("/v1/devices/{id}/login"),
            json!({"user": id}).to_string(),
        );
        ask(&mut http, &request("POST", &path, host, token, &body)).await?;
        tokens.push(token.to_owned());
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(tokens)
}

/// One call; when the server asks to wait, it waits.
async fn ask(http: &mut Http, request: &[u8]) -> anyhow::Result<Value> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (status, body) = http.call(request).await?;
        match status {
            200..300 => return Ok(serde_json::from_slice(&body).unwrap_or_default()),
            429 if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
            _ => bail!(
                "the server answered {status}: {}",
                String::from_utf8_lossy(&body)
            ),
        }
    }
}

/// Sends for a while, evenly at `rate` or as fast as answers come, and waits until all arrived.
fn load(
    args: &Args,
    runtime: &tokio::runtime::Runtime,
    host: &str,
    swarm: &mut Swarm,
    rate: Option<f64>,
) -> anyhow::Result<Ran> {
    let accepted = Arc::new(AtomicU64::new(0));
    let refused = Arc::new(AtomicBool::new(false));
    let begin = Instant::now();
    let before = args.pid.map(process::cpu).transpose()?;
    let mut senders = Vec::new();
    for caller in 0..args.callers {
        let sender = Sender {
            caller,
            callers: args.callers,
            devices: args.devices.into(),
            host: host.to_owned(),
            key: args.key.clone(),
            begin,
            end: begin + Duration::from_secs(args.seconds.max(1)),
            rate,
            accepted: Arc::clone(&accepted),
        };
        let refused = Arc::clone(&refused);
        senders.push(runtime.spawn(async move {
            let sent = sender.run().await;
            refused.fetch_or(sent.is_err(), Ordering::Relaxed);
            sent
        }));
    }
    let doing = if rate.is_some() {
        "sending at half rate"
    } else {
        "sending"
    };
    let bar: ProgressBar = bar(doing, args.seconds);
    let mut late = None;
    loop {
        swarm.turn(Duration::from_millis(20))?;
        bar.set_position(begin.elapsed().as_secs());
        let sending = senders.iter().any(|sender| !sender.is_finished());
        if sending {
            continue;
        }
        if refused.load(Ordering::Relaxed) || swarm.delivered >= accepted.load(Ordering::Relaxed) {
            break;
        }
        let deadline = *late.get_or_insert_with(|| Instant::now() + PATIENCE);
        if Instant::now() > deadline {
            let (all, there) = (accepted.load(Ordering::Relaxed), swarm.delivered);
            bail!("{} of {all} accepted messages did not arrive", all - there);
        }
    }
    bar.finish_and_clear();
    for sender in senders {
        runtime.block_on(sender).context("a sender panicked")??;
    }
    let cpu = match (args.pid, before) {
        (Some(pid), Some(before)) => Some(process::cpu(pid)?.saturating_sub(before)),
        _ => None,
    };
    Ok(Ran {
        accepted: accepted.load(Ordering::Relaxed),
        until_all_arrived: begin.elapsed(),
        cpu,
    })
}

/// One caller.
#[derive(Debug)]
struct Sender {
    caller: u64,
    callers: u64,
    devices: u64,
    host: String,
    key: String,
    begin: Instant,
    end: Instant,
    rate: Option<f64>,
    accepted: Arc<AtomicU64>,
}

impl Sender {
    async fn run(self) -> anyhow::Result<()> {
        let mut http = Http::connect(&self.host).await?;
        for n in 0.. {
            let number = n * self.callers + self.caller;
            if let Some(rate) = self.rate {
                let due = self.begin + Duration::from_secs_f64(number as f64 / rate);
                tokio::time::sleep_until(due.into()).await;
            }
            if Instant::now() >= self.end {
                break;
            }
            let to = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16;
            let text = format!("{:x<BODY_BYTES$}", mark(nanos()));
            let body = json!({
                "to": {"user": format!("bench-{}", to % self.devices)},
                "class": "im", "notification": {"title": "bench", "body": text},
            });
            let request = request(
                "POST",
                "/v1/messages",
                &self.host,
                &self.key,
                &body.to_string(),
            );
            let (status, answer) = http.call(&request).await?;
            match status {
                202 => {
                    self.accepted.fetch_add(1, Ordering::Relaxed);
                }
                429 | 503 => tokio::time::sleep(Duration::from_millis(50)).await,
                _ => bail!(
                    "the server answered {status}: {}",
                    String::from_utf8_lossy(&answer)
                ),
            }
        }
        Ok(())
    }
}
