//! Goals 1 to 8: idle connections of each protocol, with TLS and without, connecting, heartbeats, fan-out and unicast,
//! beside tokio-tungstenite, tokio-rustls, nats-server and mosquitto.

use std::io::{BufRead as _, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tempfile::TempDir;

use crate::child::{Ports, memory};
use crate::dialect::{Dialect, mark, mqtt};
use crate::drive::bar;
use crate::link;
use crate::process::{self, Running};
use crate::quiet::nanos;
use crate::report::Report;
use crate::swarm::{Clients, Swarm};

/// Bytes of a message's text.
const BODY_BYTES: usize = 200;
/// Rounds of heartbeats.
const BEATS: u32 = 5;
/// Messages of a burst.
const BURST_LEN: usize = 8;
/// Messages that a client takes before it acknowledges them: half of its credit, as the SDK does.
const ACK_EVERY: u32 = 16;
/// Unicasts under way at once when saturating.
const WINDOW: u64 = 256;
/// Time for what is under way to arrive.
const PATIENCE: Duration = Duration::from_secs(30);

/// Hold and feed connections of each protocol.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Connections to each server.
    #[arg(long, default_value_t = 19_000)]
    connections: usize,
    /// How many of them follow the topic that is fanned out to.
    #[arg(long, default_value_t = 10_000)]
    fanout: usize,
    /// Seconds of each measurement of messages.
    #[arg(long, default_value_t = 8)]
    seconds: u64,
    /// Servers to measure; nats and mosquitto are left out when they are not in PATH.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "hongyan,tungstenite,nats,mosquitto,hongyan-mqtt,hongyan-sse,hongyan-poll,hongyan-xmpp,hongyan-autopush,hongyan-tls,tokio-rustls"
    )]
    servers: Vec<Kind>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    Hongyan,
    Tungstenite,
    Nats,
    Mosquitto,
    /// The gateway's MQTT.
    HongyanMqtt,
    /// Its server-sent events.
    HongyanSse,
    /// Its long polls.
    HongyanPoll,
    /// Its XMPP.
    HongyanXmpp,
    /// Its connections of browsers.
    HongyanAutopush,
    /// Over TLS 1.3.
    HongyanTls,
    /// The same with all records in rustls.
    HongyanRustls,
    /// TLS 1.3 without anything that a gateway does.
    TokioRustls,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Hongyan => "hongyan gateway",
            Self::Tungstenite => "tokio-tungstenite, 1 KiB buffer",
            Self::Nats => "nats-server, WebSocket",
            Self::Mosquitto => "mosquitto, MQTT/TCP",
            Self::HongyanMqtt => "hongyan gateway, MQTT/TCP",
            Self::HongyanSse => "hongyan gateway, SSE",
            Self::HongyanPoll => "hongyan gateway, long polls",
            Self::HongyanXmpp => "hongyan gateway, XMPP/TCP",
            Self::HongyanAutopush => "hongyan gateway, autopush",
            Self::HongyanTls => "hongyan gateway, TLS 1.3",
            Self::HongyanRustls => "hongyan gateway, TLS 1.3 kept in rustls",
            Self::TokioRustls => "tokio-rustls, 4 KiB buffer",
        }
    }

    const fn dialect(self) -> Dialect {
        match self {
            Self::Hongyan | Self::HongyanTls | Self::HongyanRustls => Dialect::Hongyan,
            Self::Tungstenite | Self::TokioRustls => Dialect::Bare,
            Self::Nats => Dialect::Nats,
            Self::Mosquitto => Dialect::Mqtt,
            Self::HongyanMqtt => Dialect::DeviceMqtt,
            Self::HongyanSse => Dialect::Sse,
            Self::HongyanPoll => Dialect::Poll,
            Self::HongyanXmpp => Dialect::Xmpp,
            Self::HongyanAutopush => Dialect::Autopush,
        }
    }

    /// What is measured with messages: with TLS and with bare peers it is connections alone, and a web push is for one
    /// browser only.
    const fn messages(self) -> Messages {
        match self {
            Self::Tungstenite | Self::HongyanTls | Self::HongyanRustls | Self::TokioRustls => {
                Messages::None
            }
            Self::HongyanAutopush => Messages::Unicast,
            _ => Messages::All,
        }
    }

    /// Whether it is the gateway as it is meant to be run.
    const fn is_ours(self) -> bool {
        matches!(
            self,
            Self::Hongyan
                | Self::HongyanMqtt
                | Self::HongyanSse
                | Self::HongyanPoll
                | Self::HongyanXmpp
                | Self::HongyanAutopush
                | Self::HongyanTls
        )
    }

    const fn has_tls(self) -> bool {
        matches!(
            self,
            Self::HongyanTls | Self::HongyanRustls | Self::TokioRustls
        )
    }

    /// The arguments of the child that plays it.
    fn role(self, args: &Args) -> Vec<String> {
        let gateway = |tls: &[&str]| {
            let (devices, followers) = (args.connections.to_string(), args.fanout.to_string());
            let mut role = vec!["gateway", "--devices", &devices, "--followers", &followers];
            role.extend(tls);
            role.into_iter().map(str::to_owned).collect()
        };
        match self {
            Self::Hongyan => gateway(&[]),
            Self::HongyanSse | Self::HongyanPoll => gateway(&[]),
            Self::HongyanMqtt => gateway(&["--speech", "mqtt"]),
            Self::HongyanXmpp => gateway(&["--speech", "xmpp"]),
            Self::HongyanAutopush => gateway(&["--speech", "autopush"]),
            Self::HongyanTls => gateway(&["--tls", "own"]),
            Self::HongyanRustls => gateway(&["--tls", "rustls"]),
            Self::TokioRustls => ["tokio-rustls", "--buffer", "4096"]
                .map(str::to_owned)
                .into(),
            _ => ["tungstenite", "--buffer", "1024"]
                .map(str::to_owned)
                .into(),
        }
    }
}

/// Which messages a server is measured with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Messages {
    None,
    Unicast,
    All,
}

/// A server under measurement.
#[derive(Debug)]
struct Server {
    running: Running,
    kind: Kind,
    clients: u16,
    publisher: u16,
    /// The certificate to trust, PEM.
    ca: String,
    _files: TempDir,
}

/// What one server did. Times in CPU microseconds; rates in deliveries per second.
#[derive(Debug, Clone)]
struct Found {
    kind: Kind,
    figures: Vec<(&'static str, f64)>,
}

impl Found {
    fn get(&self, name: &str) -> Option<f64> {
        self.figures
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, figure)| *figure)
    }
}

const IDLE: &str = "bytes per idle connection";
const CONNECT: &str = "CPU us per connect";
const BEAT: &str = "CPU us per heartbeat";
const FAN_CPU: &str = "fan-out at half rate: CPU-s per 100k deliveries";
const FAN_P99: &str = "fan-out at half rate: p99 ms";
const FAN_RATE: &str = "fan-out, one at a time: deliveries per second";
const BURST_CPU: &str = "fan-out in bursts of 8: CPU-s per 100k deliveries";
const BURST_RATE: &str = "fan-out in bursts of 8: deliveries per second";
const ONE_CPU: &str = "unicast at half rate: CPU-s per 100k deliveries";
const ONE_P99: &str = "unicast at half rate: p99 ms";
const ONE_RATE: &str = "unicast: deliveries per second";

/// Measures every server in turn.
///
/// # Errors
/// What failed, why and what to do.
pub fn run(args: &Args, prefix: &[String]) -> anyhow::Result<Report> {
    if args.connections == 0 || args.fanout == 0 {
        bail!("--connections and --fanout must be at least 1");
    }
    process::allow_files(args.connections as u64 + 200)?;
    let mut report = Report::default();
    let mut all: Vec<Found> = Vec::new();
    for &kind in &args.servers {
        let Some(server) = start(kind, args, prefix)? else {
            report.note(format!("{} was left out: it is not in PATH", kind.name()));
            continue;
        };
        let found = measure(&server, args, &mut report)
            .with_context(|| format!("{} was not measured to the end", kind.name()))?;
        report.row(kind.name(), found.figures.clone());
        all.push(found);
    }
    for ours in all.iter().filter(|found| found.kind.is_ours()) {
        let peers = all
            .iter()
            .filter(|peer| !peer.kind.is_ours() && peer.kind.has_tls() == ours.kind.has_tls());
        for peer in peers {
            let names = format!("{} / {}", ours.kind.name(), peer.kind.name());
            for (name, figure) in &ours.figures {
                if let Some(theirs) = peer.get(name) {
                    report.ratio(format!("{name}: {names}"), *figure, theirs);
                }
            }
        }
    }
    let idle = |kind| {
        let found = all.iter().find(|found| found.kind == kind)?;
        found.get(IDLE)
    };
    if let (Some(plain), Some(tls)) = (idle(Kind::Hongyan), idle(Kind::HongyanTls)) {
        let more = tls - plain;
        report.note(format!("TLS costs an idle connection {more:.0} bytes more"));
    }
    report.note("the clients share the machine with the server; rates are those of both together");
    Ok(report)
}

fn start(kind: Kind, args: &Args, prefix: &[String]) -> anyhow::Result<Option<Server>> {
    let files = tempfile::tempdir()?;
    let log = files.path().join("log");
    match kind {
        Kind::Hongyan
        | Kind::Tungstenite
        | Kind::HongyanMqtt
        | Kind::HongyanSse
        | Kind::HongyanPoll
        | Kind::HongyanXmpp
        | Kind::HongyanAutopush
        | Kind::HongyanTls
        | Kind::HongyanRustls
        | Kind::TokioRustls => {
            let mut command = Command::new(std::env::current_exe()?);
            command.args(prefix).arg("child").args(kind.role(args));
            let mut running = Running::start(kind.name(), &mut command, &log)?;
            let out = running.stdout().context("the child has no output")?;
            let mut line = String::new();
            std::io::BufReader::new(out).read_line(&mut line)?;
            let ports: Ports = serde_json::from_str(&line).with_context(|| {
                let log = std::fs::read_to_string(&log).unwrap_or_default();
                format!("the child did not start: {log}")
            })?;
            Ok(Some(Server {
                running,
                kind,
                clients: ports.clients,
                publisher: ports.publisher,
                ca: ports.ca,
                _files: files,
            }))
        }
        Kind::Nats => external(kind, "nats-server", files, |clients, publisher| {
            format!(
                "listen: \"127.0.0.1:{publisher}\"\nping_interval: \"10m\"\n\
                 websocket {{ listen: \"127.0.0.1:{clients}\", no_tls: true }}\n"
            )
        }),
        Kind::Mosquitto => external(kind, "mosquitto", files, |clients, _| {
            format!(
                "listener {clients} 127.0.0.1\nallow_anonymous true\npersistence false\n\
                 set_tcp_nodelay true\nmax_queued_messages 0\n"
            )
        }),
    }
}

fn external(
    kind: Kind,
    program: &'static str,
    files: TempDir,
    config: impl Fn(u16, u16) -> String,
) -> anyhow::Result<Option<Server>> {
    let Some(path) = process::find(program) else {
        return Ok(None);
    };
    let clients = process::free_port()?;
    let publisher = if kind == Kind::Nats {
        process::free_port()?
    } else {
        clients
    };
    let file = files.path().join("config");
    std::fs::write(&file, config(clients, publisher))?;
    let log = files.path().join("log");
    let mut running = Running::start(
        kind.name(),
        Command::new(path).arg("-c").arg(&file),
        Path::new(&log),
    )?;
    running.wait_for_port(clients)?;
    Ok(Some(Server {
        running,
        kind,
        clients,
        publisher,
        ca: String::new(),
        _files: files,
    }))
}

impl Server {
    fn cpu(&self) -> anyhow::Result<Duration> {
        process::cpu(self.running.pid())
    }

    /// Runs something; the server's CPU time in it.
    fn cost(&self, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Duration> {
        let before = self.cpu()?;
        work()?;
        Ok(self.cpu()?.saturating_sub(before))
    }
}

fn measure(server: &Server, args: &Args, report: &mut Report) -> anyhow::Result<Found> {
    let pid = server.running.pid();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, server.clients));
    std::thread::sleep(Duration::from_millis(500));
    let empty = process::memory(pid)?;
    let count = args.connections;
    let mut figures = Vec::new();

    let before = server.cpu()?;
    let followers = args.fanout.min(count);
    let dialect = server.kind.dialect();
    let token = match dialect {
        Dialect::Autopush => memory::uaid,
        _ => memory::token,
    };
    let clients = Clients {
        tokens: (0..count as u32).map(token).collect(),
        followers,
        ack_every: ACK_EVERY,
        tls: server
            .kind
            .has_tls()
            .then(|| link::config(&server.ca))
            .transpose()?,
    };
    let mut swarm = Swarm::open(address, dialect, clients)?;
    let connecting = server.cpu()?.saturating_sub(before);
    settle(&mut swarm, Duration::from_secs(3))?;
    let held = process::memory(pid)?.saturating_sub(empty);
    figures.push((IDLE, held as f64 / count as f64));
    figures.push((CONNECT, connecting.as_secs_f64() * 1e6 / count as f64));

    if dialect.has_beats() {
        let beating = server.cost(|| beat(&mut swarm))?;
        figures.push((
            BEAT,
            beating.as_secs_f64() * 1e6 / (count as f64 * f64::from(BEATS)),
        ));
    }

    let messages = server.kind.messages();
    if messages != Messages::None {
        let mut publisher = Publisher::connect(server)?;
        let mut run = Run {
            server,
            args,
            swarm: &mut swarm,
            publisher: &mut publisher,
        };
        if messages == Messages::All {
            run.fan_out(followers, &mut figures, report)?;
        }
        run.unicast(&mut figures, report)?;
    }
    Ok(Found {
        kind: server.kind,
        figures,
    })
}

fn settle(swarm: &mut Swarm, time: Duration) -> anyhow::Result<()> {
    let until = Instant::now() + time;
    while Instant::now() < until {
        swarm.turn(Duration::from_millis(50))?;
    }
    Ok(())
}

fn beat(swarm: &mut Swarm) -> anyhow::Result<()> {
    swarm.reset();
    let bar = bar("heartbeats", u64::from(BEATS));
    for round in 1..=BEATS {
        swarm.beat()?;
        let deadline = Instant::now() + PATIENCE;
        while swarm.beats < u64::from(round) * swarm.len() as u64 {
            swarm.turn(Duration::from_millis(50))?;
            if Instant::now() > deadline {
                bail!("only {} heartbeats were answered", swarm.beats);
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}

/// One connection that sends what all others receive.
#[derive(Debug)]
struct Publisher {
    stream: TcpStream,
    kind: Kind,
    out: Vec<u8>,
}

impl Publisher {
    fn connect(server: &Server) -> anyhow::Result<Self> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, server.publisher))?;
        stream.set_nodelay(true)?;
        match server.kind {
            Kind::Nats => {
                stream.write_all(b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\n")?
            }
            Kind::Mosquitto => {
                let mut connect = Vec::new();
                mqtt::connect("publisher", &mut connect);
                stream.write_all(&connect)?;
                stream.read_exact(&mut [0; 4])?;
            }
            _ => {}
        }
        Ok(Self {
            stream,
            kind: server.kind,
            out: Vec::new(),
        })
    }

    /// Queues a message for the topic, or for one client.
    fn add(&mut self, to: Option<u64>) {
        let text = format!("{:x<BODY_BYTES$}", mark(nanos()));
        let line = match (self.kind, to) {
            (Kind::Nats, None) => format!("PUB t {}\r\n{text}\r\n", text.len()),
            (Kind::Nats, Some(to)) => format!("PUB u.{to} {}\r\n{text}\r\n", text.len()),
            (Kind::Mosquitto, to) => {
                let topic = to.map_or("t".to_owned(), |to| format!("u/{to}"));
                mqtt::publish(&topic, &text, &mut self.out);
                return;
            }
            (_, None) => format!("t {text}\n"),
            (_, Some(to)) => format!("u {to} {text}\n"),
        };
        self.out.extend_from_slice(line.as_bytes());
    }

    fn send(&mut self) -> anyhow::Result<()> {
        self.stream.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }
}

/// The measurements of messages.
#[derive(Debug)]
struct Run<'a> {
    server: &'a Server,
    args: &'a Args,
    swarm: &'a mut Swarm,
    publisher: &'a mut Publisher,
}

/// Where messages go.
#[derive(Debug, Clone, Copy)]
enum To {
    Topic { followers: u64, burst: usize },
    Anyone,
}

impl Run<'_> {
    fn fan_out(
        &mut self,
        followers: usize,
        figures: &mut Vec<(&'static str, f64)>,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let one = To::Topic {
            followers: followers as u64,
            burst: 1,
        };
        let (rate, _) = self.saturate(one, "fan-out, as fast as it goes")?;
        figures.push((FAN_RATE, rate));
        let cpu = self.pace(one, rate / 2.0, "fan-out at half rate")?;
        figures.push((FAN_CPU, cpu));
        figures.push((FAN_P99, self.p99()));
        report.histogram(
            format!("{}: fan-out at half rate", self.server.kind.name()),
            &self.swarm.latency,
        );
        let bursts = To::Topic {
            followers: followers as u64,
            burst: BURST_LEN,
        };
        let (rate, cpu) = self.saturate(bursts, "fan-out in bursts")?;
        figures.push((BURST_RATE, rate));
        figures.push((BURST_CPU, cpu));
        Ok(())
    }

    fn unicast(
        &mut self,
        figures: &mut Vec<(&'static str, f64)>,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let (rate, _) = self.saturate(To::Anyone, "unicast, as fast as it goes")?;
        figures.push((ONE_RATE, rate));
        let cpu = self.pace(To::Anyone, rate / 2.0, "unicast at half rate")?;
        figures.push((ONE_CPU, cpu));
        figures.push((ONE_P99, self.p99()));
        report.histogram(
            format!("{}: unicast at half rate", self.server.kind.name()),
            &self.swarm.latency,
        );
        Ok(())
    }

    fn p99(&self) -> f64 {
        self.swarm.latency.value_at_quantile(0.99) as f64 / 1e3
    }

    /// Queues the next messages; how many deliveries they make.
    fn add(&mut self, to: To, n: u64) -> u64 {
        match to {
            To::Topic { followers, burst } => {
                for _ in 0..burst {
                    self.publisher.add(None);
                }
                followers * burst as u64
            }
            To::Anyone => {
                let mixed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16;
                self.publisher.add(Some(mixed % self.swarm.len() as u64));
                1
            }
        }
    }

    /// Sends the next when the last have arrived: deliveries per second, and CPU seconds for 100,000.
    fn saturate(&mut self, to: To, doing: &str) -> anyhow::Result<(f64, f64)> {
        self.swarm.reset();
        let window = match to {
            To::Topic { .. } => 0,
            To::Anyone => WINDOW - 1,
        };
        let bar = bar(doing, self.args.seconds);
        let (before, begin) = (self.server.cpu()?, Instant::now());
        let (mut expected, mut n) = (0, 0);
        while begin.elapsed() < Duration::from_secs(self.args.seconds) {
            while expected <= self.swarm.delivered + window {
                expected += self.add(to, n);
                n += 1;
            }
            self.publisher.send()?;
            self.swarm.turn(Duration::from_millis(50))?;
            bar.set_position(begin.elapsed().as_secs());
        }
        let (delivered, elapsed) = (self.swarm.delivered.max(1), begin.elapsed());
        let cpu = self.server.cpu()?.saturating_sub(before);
        bar.finish_and_clear();
        self.drain(expected)?;
        let per_100k = cpu.as_secs_f64() * 1e5 / delivered as f64;
        Ok((delivered as f64 / elapsed.as_secs_f64(), per_100k))
    }

    /// Sends at an even rate of deliveries per second: CPU seconds for 100,000 of them.
    fn pace(&mut self, to: To, rate: f64, doing: &str) -> anyhow::Result<f64> {
        self.swarm.reset();
        let bar = bar(doing, self.args.seconds);
        let (before, begin) = (self.server.cpu()?, Instant::now());
        let (mut expected, mut n) = (0, 0);
        while begin.elapsed() < Duration::from_secs(self.args.seconds) {
            let due = begin.elapsed().as_secs_f64() * rate;
            while (expected as f64) < due {
                expected += self.add(to, n);
                n += 1;
            }
            self.publisher.send()?;
            let next = begin + Duration::from_secs_f64(expected as f64 / rate);
            let wait = next.saturating_duration_since(Instant::now());
            self.swarm.turn(wait.min(Duration::from_millis(50)))?;
            bar.set_position(begin.elapsed().as_secs());
        }
        bar.finish_and_clear();
        self.drain(expected)?;
        let cpu = self.server.cpu()?.saturating_sub(before);
        Ok(cpu.as_secs_f64() * 1e5 / expected.max(1) as f64)
    }

    fn drain(&mut self, expected: u64) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.swarm.delivered < expected {
            self.swarm.turn(Duration::from_millis(50))?;
            if Instant::now() > deadline {
                let lost = expected - self.swarm.delivered;
                bail!("{lost} of {expected} messages did not arrive");
            }
        }
        Ok(())
    }
}
