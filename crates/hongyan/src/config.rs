//! The configuration: one tree, declared once, with its words, defaults and bounds.
//!
//! A flag beats the environment, which beats the file, which beats the default. All faults are found at
//! start and reported together, each naming its setting. `hongyan config` prints what holds and where it
//! came from; `docs/configuration.md` is made from the same declarations.

mod load;
pub(crate) mod setting;
mod show;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;

use hongyan_core::Secret;
use setting::{Group, Visitor, group, words};

pub(crate) use load::{Loaded, Origin, Sources};
pub(crate) use show::{effective, reference};

words! {
    /// Which engine keeps the data.
    Engine {
        /// Log-structured, fast, the default.
        Fjall = "fjall",
        /// SQLite: a file that other tools can open.
        Sqlite = "sqlite",
    }
}

words! {
    /// How log lines look.
    LogFormat {
        /// Text for people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

words! {
    /// Who frames HTTP/2 to vendors.
    Http2 {
        /// This program.
        Own = "own",
        /// The `h2` library.
        Library = "library",
    }
}

group! {
    /// The server as a whole.
    Server in "" {
        /// Directory that holds everything the server keeps: store, master key, admin key. Created with mode 0700.
        data: PathBuf = PathBuf::from("hongyan-data"),
    }
}

group! {
    /// API, WebSocket, metrics: everything that is spoken over HTTP.
    Http in "http" {
        /// Where to listen. Only this machine by default; `0.0.0.0:7400` for all addresses.
        listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 7400)),
        /// PEM file with the certificate chain. TLS is on when this and `http.tls_key` are set.
        tls_cert: Option<PathBuf> = None,
        /// PEM file with the private key of the certificate.
        tls_key: Option<PathBuf> = None,
        /// Open HTTP connections; further ones are answered 503. WebSockets do not count, they are the gateway's.
        connections_max: usize = 20_000; 1..=1_000_000,
        /// Where vendors and apps reach this server from outside, `https://host[:port]`. Vendors post their receipts there.
        public_url: Option<String> = None,
        /// Time for the head of a request, milliseconds.
        header_timeout_ms: u64 = 10_000; 100..=600_000,
        /// Time for the body of a request, milliseconds.
        body_timeout_ms: u64 = 30_000; 100..=600_000,
        /// How long a connection may stay open between requests, milliseconds.
        idle_timeout_ms: u64 = 75_000; 1_000..=3_600_000,
        /// Requests in a second with one server or admin key, in the long run; twice as many at once. 0 means no limit.
        key_rate: u32 = 20_000; 0..=1_000_000,
    }
}

group! {
    /// The store on this machine.
    Store in "store" {
        /// The engine. It is chosen when a data directory is first used; moving is `hongyan backup` and `hongyan restore`.
        engine: Engine = Engine::Fjall,
        /// Opens a store that has lost acknowledged writes (after damage to its files), and says how many. Set it for one start only.
        accept_loss: bool = false,
        /// Below this much free space on the disk nothing new is accepted, bytes; below a quarter of it nothing is written at all.
        free_bytes_min: u64 = 268_435_456; 16_777_216..=1_099_511_627_776,
        /// A store up to this size is read in full when it is opened, bytes. Records of a larger one are checked when they are read.
        check_bytes_max: u64 = 268_435_456; 0..=1_099_511_627_776,
    }
}

group! {
    /// The master key, which seals vendor credentials at rest.
    Seal in "seal" {
        /// File with the master key. `master.key` in the data directory when it is not set; that one is made at the first start, with mode 0600.
        key_file: Option<PathBuf> = None,
        /// The master key itself, 32 bytes in base64, for machines that hand secrets over in the environment. Not together with `seal.key_file`.
        key: Option<Secret> = None,
        /// Files of earlier master keys, so that what they sealed can still be opened.
        old_key_files: Vec<PathBuf> = Vec::new(),
    }
}

group! {
    /// Calls to vendors, web hooks and other addresses outside.
    Egress in "egress" {
        /// Allows vendor endpoints on this machine's loopback addresses. For the sandbox and tests; `hongyan demo` sets it.
        allow_loopback: bool = false,
        /// PEM file with certificate authorities to trust besides the public ones.
        extra_ca: Option<PathBuf> = None,
        /// Who frames HTTP/2 to vendors that speak it. `own` costs a fraction of the processor time; `library` is the way back, should a
        /// vendor not understand it.
        http2: Http2 = Http2::Own,
    }
}

group! {
    /// The sandbox: vendor simulators and virtual phones (`hongyan demo`, `hongyan sandbox`).
    Sandbox in "sandbox" {
        /// Where the simulated vendors listen (TLS, HTTP/1.1 and HTTP/2, own authority).
        vendors_listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 7501)),
        /// Where the phones page and the control API listen.
        control_listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 7500)),
        /// Where the simulated message centre listens (SMPP 3.4, without TLS).
        smpp_listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 7502)),
    }
}

group! {
    /// Long connections.
    Gateway in "gateway" {
        /// Threads that serve connections; 0 takes one for each processor.
        reactors: usize = 0; 0..=64,
        /// Connections at once; further ones are answered 503 before the upgrade.
        sessions_max: usize = 1_000_000; 1..=16_000_000,
        /// Connections that have not said who they are yet; further ones are answered 503.
        half_open_max: usize = 10_000; 1..=1_000_000,
        /// The same for one IP address; further ones are answered 429. Raise it behind a proxy.
        half_open_per_ip_max: u32 = 2_000; 1..=1_000_000,
        /// Time for the first message after the upgrade, milliseconds.
        hello_timeout_ms: u64 = 10_000; 100..=600_000,
        /// Silence after which a ping is sent, milliseconds; each connection's own by up to 10 % more or less.
        heartbeat_ms: u64 = 45_000; 1_000..=3_600_000,
        /// Further silence after which a connection is dead, milliseconds.
        heartbeat_grace_ms: u64 = 20_000; 1_000..=3_600_000,
        /// Time without progress after which a slow reader is closed, milliseconds.
        slow_timeout_ms: u64 = 30_000; 1_000..=600_000,
        /// Client messages of one connection in a second, in the long run.
        messages_per_s: u16 = 50; 1..=10_000,
        /// Client messages of one connection at once.
        messages_burst: u16 = 200; 1..=10_000,
        /// Unacknowledged messages of one connection when its client asks for no number.
        inflight: u16 = 32; 1..=256,
    }
}

group! {
    /// Log lines, on stderr.
    Log in "log" {
        /// What to log: a level (`error`, `warn`, `info`, `debug`, `trace`) or directives such as `info,hongyan_gateway=debug`.
        level: String = "info".to_owned(),
        /// How lines look.
        format: LogFormat = LogFormat::Text,
    }
}

group! {
    /// How long each step of an orderly stop may take. A second signal ends the process at once.
    Shutdown in "shutdown" {
        /// Telling sessions to reconnect elsewhere, in slices over this time, milliseconds.
        drain_ms: u64 = 3_000; 0..=600_000,
        /// Letting vendor calls under way finish, milliseconds.
        lanes_ms: u64 = 15_000; 0..=600_000,
        /// Each of the other steps, milliseconds.
        step_ms: u64 = 5_000; 100..=600_000,
    }
}

/// The whole configuration, checked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Config {
    /// The server as a whole.
    pub(crate) server: Server,
    /// API, WebSocket, metrics.
    pub(crate) http: Http,
    /// The store on this machine.
    pub(crate) store: Store,
    /// The master key.
    pub(crate) seal: Seal,
    /// Calls outside.
    pub(crate) egress: Egress,
    /// Vendor simulators and virtual phones.
    pub(crate) sandbox: Sandbox,
    /// Long connections.
    pub(crate) gateway: Gateway,
    /// Log lines.
    pub(crate) log: Log,
    /// Orderly stop.
    pub(crate) shutdown: Shutdown,
}

impl Group for Config {
    fn visit(&mut self, visitor: &mut dyn Visitor) {
        self.server.visit(visitor);
        self.http.visit(visitor);
        self.store.visit(visitor);
        self.seal.visit(visitor);
        self.egress.visit(visitor);
        self.sandbox.visit(visitor);
        self.gateway.visit(visitor);
        self.log.visit(visitor);
        self.shutdown.visit(visitor);
    }
}

impl Config {
    /// Faults between settings, each with the name of the setting to change.
    fn check(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        match (&self.http.tls_cert, &self.http.tls_key) {
            (Some(_), None) => faults.push(("http.tls_key", missing_beside("http.tls_cert"))),
            (None, Some(_)) => faults.push(("http.tls_cert", missing_beside("http.tls_key"))),
            _ => {}
        }
        if self.seal.key.is_some() && self.seal.key_file.is_some() {
            faults.push((
                "seal.key",
                "cannot be set together with seal.key_file: keep one of them".to_owned(),
            ));
        }
        if let Some(url) = &self.http.public_url
            && !(url.starts_with("https://") || url.starts_with("http://"))
        {
            faults.push((
                "http.public_url",
                "must be https://host[:port], as vendors see this server".to_owned(),
            ));
        }
        let listeners = [
            ("http.listen", self.http.listen),
            ("sandbox.vendors_listen", self.sandbox.vendors_listen),
            ("sandbox.control_listen", self.sandbox.control_listen),
            ("sandbox.smpp_listen", self.sandbox.smpp_listen),
        ];
        for (n, (name, address)) in listeners.iter().enumerate() {
            if let Some((other, _)) = listeners[..n]
                .iter()
                .find(|(_, earlier)| earlier == address && address.port() != 0)
            {
                faults.push((
                    *name,
                    format!("is {address}, which {other} has already: give one another port"),
                ));
            }
        }
        if let Err(error) = self.log.level.parse::<tracing_subscriber::EnvFilter>() {
            faults.push(("log.level", format!("cannot be understood: {error}")));
        }
        faults
    }
}

fn missing_beside(other: &str) -> String {
    format!("is missing although {other} is set: TLS needs both")
}
