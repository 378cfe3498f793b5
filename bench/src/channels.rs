//! Goals 9 to 11 (the last in [`crate::webpush`]): what it costs to send to APNs and to Xiaomi (payload, call, verdict), beside a hyper client that sends
//! bytes made before and looks at nothing but the status, and beside the libraries of `bench/peers`, when that program is found.

use std::io::BufRead as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use hongyan_channels::{Egress, egress, vendor};
use hongyan_core::message::{Notification, Options, Target};
use hongyan_core::port::{Batch, Channel, Clock as _, OpenCredential, Outbound, Recipient};
use hongyan_core::{
    AppId, Class, CredentialName, DeviceId, Message, MessageId, Secret, Timestamp, UserId, Verdict,
};
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use serde_json::{Value, json};

use crate::child::Ports;
use crate::drive::{Measured, Plan, drive};
use crate::process::{self, Running};
use crate::quiet::SystemClock;
use crate::report::Report;

/// Tokens that are sent to.
const TOKENS: u64 = 100_000;
const BODY: &str = r#"{"aps":{"alert":{"title":"Order 42","body":"is on its way"},"sound":"default"},"id":"01890a5d-ac96-774b-bcce-b302099a8057"}"#;

/// Send to vendors that accept everything.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Sends under way at once.
    #[arg(long, default_value_t = 256)]
    callers: usize,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// The program with the peers (`bench/peers`); one of the name `hongyan-bench-peers` in PATH is found without this.
    #[arg(long)]
    peers: Option<PathBuf>,
    /// Send over HTTP/2 with the `h2` library instead of our own framing.
    #[arg(long)]
    library: bool,
}

/// Sends at once to a vendor over HTTP/1.1: each takes a connection.
const CALLERS_HTTP1_MAX: usize = 64;

/// Measures.
///
/// # Errors
/// What failed, why and what to do.
pub fn run(args: &Args, prefix: &[String]) -> anyhow::Result<Report> {
    let files = tempfile::tempdir()?;
    let log = files.path().join("log");
    let mut command = Command::new(std::env::current_exe()?);
    command.args(prefix).args(["child", "sink"]);
    let mut sink = Running::start("the sink", &mut command, &log)?;
    let out = sink.stdout().context("the sink has no output")?;
    let mut line = String::new();
    std::io::BufReader::new(out).read_line(&mut line)?;
    let ports: Ports = serde_json::from_str(&line).context("the sink did not start")?;

    let ca = files.path().join("ca.pem");
    std::fs::write(&ca, &ports.ca).context("the certificate cannot be written")?;
    let others = Others {
        program: args.peers.clone().or_else(|| process::find(PEERS)),
        ca,
        seconds: args.seconds.max(1),
    };

    let runtime = crate::runtime()?;
    let mut report = Report::default();
    let seconds = Duration::from_secs(args.seconds.max(1));
    let ours = crate::webpush::run(seconds, &mut report)?;
    if let Some(ece) = others.run("ece", None)? {
        let rate = figure(&ece, "per_cpu_second")?;
        report.row(
            "ece, encryption alone",
            vec![("messages per second and core", rate)],
        );
        report.ratio("Web Push messages, ece", ours, rate);
    }

    let callers = args.callers.max(1);
    let hyper = runtime.block_on(hyper_client(args, &ports))?;
    let a2 = others.run("a2", Some((ports.clients, callers)))?;
    let apns = runtime.block_on(apns(args, &ports))?;
    measured(&mut report, "hyper client, HTTP/2", &hyper);
    measured(&mut report, "apns channel", &apns);
    let ours = apns.cpu_per_100k();
    report.ratio("APNs, CPU-s per 100k, hyper", ours, hyper.cpu_per_100k());
    if let Some(a2) = &a2 {
        let theirs = other(&mut report, "a2", a2)?;
        report.ratio("APNs, CPU-s per 100k, a2", ours, theirs);
    }

    let few = callers.min(CALLERS_HTTP1_MAX);
    let reqwest = others.run("reqwest", Some((ports.publisher, few)))?;
    let xiaomi = runtime.block_on(xiaomi(args, &ports, few))?;
    measured(&mut report, "xiaomi channel, HTTPS/1.1", &xiaomi);
    if let Some(reqwest) = &reqwest {
        let theirs = other(&mut report, "reqwest, HTTPS/1.1", reqwest)?;
        let ours = xiaomi.cpu_per_100k();
        report.ratio("HTTPS/1.1, CPU-s per 100k, reqwest", ours, theirs);
    }
    if others.program.is_none() {
        report.note(format!(
            "{PEERS} was not found, so a2, reqwest and ece were not run; see docs/performance.md"
        ));
    }
    report
        .note("CPU is that of the sending process, callers included; the sink is another process");
    Ok(report)
}

/// The program of `bench/peers`.
const PEERS: &str = "hongyan-bench-peers";

struct Others {
    program: Option<PathBuf>,
    ca: PathBuf,
    seconds: u64,
}

impl Others {
    /// Runs one library, against a port with so many callers; nothing when the program was not found.
    fn run(&self, peer: &str, load: Option<(u16, usize)>) -> anyhow::Result<Option<Value>> {
        let Some(program) = &self.program else {
            return Ok(None);
        };
        let mut command = Command::new(program);
        command
            .arg(peer)
            .args(["--seconds", &self.seconds.to_string()]);
        if let Some((port, callers)) = load {
            command
                .args(["--port", &port.to_string()])
                .args(["--callers", &callers.to_string()])
                .arg("--ca")
                .arg(&self.ca);
        }
        let output = command
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("{} cannot be started", program.display()))?;
        if !output.status.success() {
            bail!("the peer {peer} failed: {}", output.status);
        }
        let line = serde_json::from_slice(&output.stdout);
        line.map(Some)
            .with_context(|| format!("the peer {peer} printed no JSON"))
    }
}

fn figure(found: &Value, name: &str) -> anyhow::Result<f64> {
    let figure = found.get(name).and_then(Value::as_f64);
    figure.with_context(|| format!("a peer did not say {name}"))
}

/// Adds a library's row; its CPU seconds.
fn other(report: &mut Report, name: &str, found: &Value) -> anyhow::Result<f64> {
    let cpu = figure(found, "cpu_per_100k")?;
    report.row(
        name,
        vec![
            ("sends per second", figure(found, "per_second")?),
            ("CPU seconds per 100,000", cpu),
        ],
    );
    Ok(cpu)
}

fn measured(report: &mut Report, name: &str, measured: &Measured) {
    report.row(
        name,
        vec![
            ("sends per second", measured.rate()),
            ("CPU seconds per 100,000", measured.cpu_per_100k()),
        ],
    );
    report.histogram(name, &measured.latency);
}

fn plan(args: &Args, doing: &str) -> Plan {
    Plan {
        doing: doing.to_owned(),
        callers: args.callers.max(1),
        warm: Duration::from_secs(1),
        take: Duration::from_secs(args.seconds.max(1)),
        pid: std::process::id(),
    }
}

fn token(caller: usize, n: u64) -> String {
    format!("{:064x}", (caller as u64 * 7_919 + n) % TOKENS)
}

async fn hyper_client(args: &Args, ports: &Ports) -> anyhow::Result<Measured> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ports.ca.as_bytes()) {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", ports.clients)).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from("localhost")?;
    let stream = tokio_rustls::TlsConnector::from(Arc::new(tls))
        .connect(name, stream)
        .await?;
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let origin = Arc::<str>::from(format!("https://localhost:{}", ports.clients));
    drive(plan(args, "hyper client"), move |caller, n| {
        let (sender, origin) = (sender.clone(), Arc::clone(&origin));
        async move { post(sender, &format!("{origin}/3/device/{}", token(caller, n))).await }
    })
    .await
}

async fn post(mut sender: SendRequest<Full<Bytes>>, url: &str) -> anyhow::Result<u64> {
    let request = Request::post(url)
        .header(
            "authorization",
            "bearer eyJhbGciOiJFUzI1NiIsImtpZCI6IkFCQzEyM0RFRkcifQ.e30.c2ln",
        )
        .header("apns-topic", "com.example.app")
        .header("apns-push-type", "alert")
        .header("apns-priority", "10")
        .body(Full::new(Bytes::from_static(BODY.as_bytes())))?;
    sender.ready().await?;
    let response = sender.send_request(request).await?;
    if response.status() != 200 {
        bail!("the sink answered {}", response.status());
    }
    response.into_body().collect().await?;
    Ok(1)
}

/// A channel that sends to the sink.
fn channel(
    args: &Args,
    ports: &Ports,
    name: &str,
    config: &Value,
    port: u16,
) -> anyhow::Result<(Arc<dyn Channel>, Outbound)> {
    let clock = Arc::new(SystemClock::default());
    let options = egress::Options {
        allow_loopback: true,
        roots_pem: Some(ports.ca.clone()),
        http2: if args.library {
            egress::Http2::Library
        } else {
            egress::Http2::Own
        },
        ..egress::Options::default()
    };
    let egress = Egress::new(&options, Arc::clone(&clock) as _)?;
    let vendors = vendor::all(&egress);
    let vendor = vendors.iter().find(|vendor| vendor.id().as_str() == name);
    let channel = vendor
        .with_context(|| format!("there is no channel {name}"))?
        .open(OpenCredential {
            app: AppId::parse("bench")?,
            name: CredentialName::parse("default")?,
            config: Secret::new(config.to_string()),
            endpoint: Some(format!("https://localhost:{port}")),
            callback: None,
        })?;
    Ok((channel, outbound(clock.now())?))
}

async fn apns(args: &Args, ports: &Ports) -> anyhow::Result<Measured> {
    let config = json!({
        "key_id": "ABC123DEFG", "team_id": "DEF123GHIJ", "bundle_id": "com.example.app",
        "private_key": rcgen::KeyPair::generate()?.serialize_pem(),
    });
    let (channel, outbound) = channel(args, ports, "apns", &config, ports.clients)?;
    drive(plan(args, "apns channel"), move |caller, n| {
        let (channel, outbound) = (Arc::clone(&channel), outbound.clone());
        async move { send(channel, outbound, token(caller, n)).await }
    })
    .await
}

async fn xiaomi(args: &Args, ports: &Ports, callers: usize) -> anyhow::Result<Measured> {
    let config = json!({
        "app_secret": "secret-of-the-app-in-some-length", "package": "com.example.app",
    });
    let (channel, outbound) = channel(args, ports, "xiaomi", &config, ports.publisher)?;
    let plan = Plan {
        callers,
        ..plan(args, "xiaomi channel")
    };
    drive(plan, move |caller, n| {
        let (channel, outbound) = (Arc::clone(&channel), outbound.clone());
        async move { send(channel, outbound, token(caller, n)).await }
    })
    .await
}

/// The message that all channels send.
pub(crate) fn outbound(now: Timestamp) -> anyhow::Result<Outbound> {
    let message = Message {
        id: MessageId(uuid::Uuid::from_u128(7 << 76 | 2 << 62)),
        app: AppId::parse("bench")?,
        to: Target::Users(vec![UserId::parse("u")?]),
        class: Class::Im,
        class_detail: None,
        notification: Some(Notification {
            title: "Order 42".to_owned(),
            body: "is on its way".to_owned(),
            ..Notification::default()
        }),
        data: None,
        push: None,
        recalls: None,
        options: Options::default(),
        accepted_at: now,
        expires_at: now.plus(Duration::from_secs(3_600)),
    };
    Ok(Outbound {
        title: Some("Order 42".to_owned()),
        body: Some("is on its way".to_owned()),
        badge: None,
        package: None,
        expires_at: message.expires_at,
        now,
        dedup_key: message.id.to_string(),
        message: Arc::new(message),
    })
}

async fn send(channel: Arc<dyn Channel>, outbound: Outbound, token: String) -> anyhow::Result<u64> {
    let batch = Batch {
        outbound,
        recipients: vec![Recipient {
            device: DeviceId::parse("d")?,
            token: Secret::new(token),
            environment: None,
            secret_hash: [0; 32],
        }],
    };
    match channel
        .send(&batch, Duration::from_secs(10))
        .await
        .as_slice()
    {
        [Verdict::Accepted { .. }] => Ok(1),
        other => bail!("the channel judged {other:?}"),
    }
}
