//! Goals 9 and 11 (the latter in [`crate::webpush`]): what it costs to send to APNs (payload, call, verdict), beside a hyper client that sends
//! bytes made before and looks at nothing but the status.

use std::io::BufRead as _;
use std::process::Command;
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

use crate::child::Ports;
use crate::drive::{Measured, Plan, drive};
use crate::process::Running;
use crate::quiet::SystemClock;
use crate::report::Report;

/// Tokens that are sent to.
const TOKENS: u64 = 100_000;
const BODY: &str = r#"{"aps":{"alert":{"title":"Order 42","body":"is on its way"},"sound":"default"},"id":"01890a5d-ac96-774b-bcce-b302099a8057"}"#;

/// Send to a vendor that accepts everything.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Sends under way at once.
    #[arg(long, default_value_t = 256)]
    callers: usize,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

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

    let runtime = crate::runtime()?;
    let peer = runtime.block_on(hyper_client(args, &ports))?;
    let ours = runtime.block_on(apns(args, &ports))?;
    let mut report = Report::default();
    crate::webpush::run(Duration::from_secs(args.seconds.max(1)), &mut report)?;
    for (name, measured) in [("hyper client, HTTP/2", &peer), ("apns channel", &ours)] {
        report.row(
            name,
            vec![
                ("sends per second", measured.rate()),
                ("CPU seconds per 100,000", measured.cpu_per_100k()),
            ],
        );
        report.histogram(name, &measured.latency);
    }
    report.ratio("CPU-s per 100k", ours.cpu_per_100k(), peer.cpu_per_100k());
    report.ratio("sends per second", ours.rate(), peer.rate());
    report
        .note("CPU is that of the sending process, callers included; the sink is another process");
    Ok(report)
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
    roots.add(CertificateDer::from_pem_slice(ports.ca.as_bytes())?)?;
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

async fn apns(args: &Args, ports: &Ports) -> anyhow::Result<Measured> {
    let clock = Arc::new(SystemClock::default());
    let options = egress::Options {
        allow_loopback: true,
        roots_pem: Some(ports.ca.clone()),
        ..egress::Options::default()
    };
    let egress = Egress::new(&options, Arc::clone(&clock) as _)?;
    let vendors = vendor::all(&egress);
    let vendor = vendors.iter().find(|vendor| vendor.id().as_str() == "apns");
    let config = serde_json::json!({
        "key_id": "ABC123DEFG", "team_id": "DEF123GHIJ", "bundle_id": "com.example.app",
        "private_key": rcgen::KeyPair::generate()?.serialize_pem(),
    });
    let channel = vendor
        .context("there is no apns channel")?
        .open(OpenCredential {
            app: AppId::parse("bench")?,
            name: CredentialName::parse("default")?,
            config: Secret::new(config.to_string()),
            endpoint: Some(format!("https://localhost:{}", ports.clients)),
            callback: None,
        })?;
    let outbound = outbound(clock.now())?;
    drive(plan(args, "apns channel"), move |caller, n| {
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
