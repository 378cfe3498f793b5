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
pub(crate) use setting::Address;
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
    /// Who handles the records of TLS 1.3 connections.
    TlsRecords {
        /// The gateway, on demand: an idle connection keeps two secrets instead of a whole TLS state.
        Own = "own",
        /// rustls, as for TLS 1.2.
        Rustls = "rustls",
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
        /// Open HTTP connections from one address (an IPv6 /64 is one); 0 means no limit of its own. Leave it at 0 behind a proxy, from which all connections come.
        connections_per_ip_max: u32 = 0; 0..=1_000_000,
        /// Where vendors and apps reach this server from outside, `https://host[:port]`. Vendors post their receipts there; pages from there may connect without being named by an app.
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
    /// Web push endpoints (RFC 8030) and UnifiedPush. Senders reach them at `http.public_url`.
    Push in "push" {
        /// Takes only channels that are bound to a VAPID key.
        require_vapid: bool = false,
        /// Takes bodies at `/up/` that say nothing of their encryption, as old UnifiedPush senders do.
        opaque: bool = true,
        /// Takes notifications of Matrix homeservers at `/_matrix/push/v1/notify` for `/up/` addresses of this server. Needs `push.opaque`.
        matrix: bool = true,
        /// VAPID public keys (base64url, 87 characters) from which nothing is taken: posts that prove one are answered 403. Posts to channels that are bound to no key may name none; `push.require_vapid` ends those.
        barred_keys: Vec<String> = Vec::new(),
        /// Messages in a second to one endpoint, in the long run; ten times as many at once. 0 means no limit.
        endpoint_rate: u32 = 10; 0..=100_000,
        /// Requests in a second from one address, in the long run; ten times as many at once. 0 means no limit.
        peer_rate: u32 = 500; 0..=1_000_000,
    }
}

group! {
    /// Browsers as devices: Mozilla's protocol at `/autopush`.
    Autopush in "autopush" {
        /// The app that browsers belong to. Without it browsers are not served; one whose address ends in a client key (`/autopush/hy_pk_…`) belongs to that key's app, one with an enrolment (`/autopush/hy_en_…`) to that user.
        app: Option<String> = None,
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
        /// Who handles the records of TLS 1.3 connections after their handshake, which is always rustls's. `own` saves some kilobytes for each idle connection; `rustls` is the way back if a client should not get along with it.
        tls_records: TlsRecords = TlsRecords::Own,
    }
}

group! {
    /// XMPP for clients: STARTTLS, TLS, and over WebSocket at `/xmpp` of `http.listen`.
    Xmpp in "xmpp" {
        /// Where to listen for streams that begin TLS themselves (STARTTLS); port 5222 is usual. Not spoken while neither this nor `xmpp.tls_listen` is set.
        listen: Option<Address> = None,
        /// Where to listen for streams over TLS from the first byte; port 5223 is usual.
        tls_listen: Option<Address> = None,
        /// The domain of addresses: a user is `user@<app>.<domain>`, and with a single app also `user@<domain>`.
        domain: String = "localhost".to_owned(),
        /// PEM file with the certificate chain for the domain and what is below it. `http.tls_cert` when it is not set.
        tls_cert: Option<PathBuf> = None,
        /// PEM file with the private key of the certificate. `http.tls_key` when it is not set.
        tls_key: Option<PathBuf> = None,
        /// Lets clients log in at `xmpp.listen` without TLS; only where that is a loopback address.
        allow_plaintext: bool = false,
        /// How long a session whose connection was cut can be resumed, seconds.
        resume_s: u32 = 300; 10..=3_600,
    }
}

group! {
    /// MQTT 3.1.1 and 5.0: devices, and an open space for publishing and subscribing.
    Mqtt in "mqtt" {
        /// Where devices connect without TLS; port 1883 is usual. For this machine and private networks.
        listen: Option<Address> = None,
        /// Where devices connect over TLS; port 8883 is usual.
        tls_listen: Option<Address> = None,
        /// PEM file with the certificate chain for MQTT. `http.tls_cert` when it is not set.
        tls_cert: Option<PathBuf> = None,
        /// PEM file with the private key of the certificate. `http.tls_key` when it is not set.
        tls_key: Option<PathBuf> = None,
        /// Where to listen for clients of the open space, which has nothing to do with apps and devices: everybody there publishes
        /// and subscribes to any topic, and nothing outlives the process. MQTT, and MQTT over WebSocket at `/mqtt`, on one port.
        /// Not spoken while it is not set. A loopback address, unless `mqtt.open_user` and `mqtt.open_password` are set.
        open_listen: Option<Address> = None,
        /// Whether `mqtt.open_listen` speaks TLS, with the certificate of the settings above.
        open_tls: bool = false,
        /// The user name that clients of the open space must give.
        open_user: Option<String> = None,
        /// The password that goes with it.
        open_password: Option<Secret> = None,
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
    /// Push endpoints.
    pub(crate) push: Push,
    /// Browsers.
    pub(crate) autopush: Autopush,
    /// Vendor simulators and virtual phones.
    pub(crate) sandbox: Sandbox,
    /// Long connections.
    pub(crate) gateway: Gateway,
    /// XMPP.
    pub(crate) xmpp: Xmpp,
    /// MQTT.
    pub(crate) mqtt: Mqtt,
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
        self.push.visit(visitor);
        self.autopush.visit(visitor);
        self.sandbox.visit(visitor);
        self.gateway.visit(visitor);
        self.xmpp.visit(visitor);
        self.mqtt.visit(visitor);
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
        if let Some(app) = &self.autopush.app
            && hongyan_core::AppId::parse(app).is_err()
        {
            faults.push(("autopush.app", "is not the id of an app".to_owned()));
        }
        let keys = self.push.barred_keys.iter();
        if keys
            .map(|key| hongyan_api::vapid_key_hash(key))
            .any(|hash| hash.is_none())
        {
            faults.push((
                "push.barred_keys",
                "must be uncompressed points of P-256 in base64url, 87 characters each".to_owned(),
            ));
        }
        self.check_xmpp(&mut faults);
        self.check_mqtt(&mut faults);
        let mut listeners = vec![
            ("http.listen", self.http.listen),
            ("sandbox.vendors_listen", self.sandbox.vendors_listen),
            ("sandbox.control_listen", self.sandbox.control_listen),
            ("sandbox.smpp_listen", self.sandbox.smpp_listen),
        ];
        let more = [
            ("xmpp.listen", self.xmpp.listen),
            ("xmpp.tls_listen", self.xmpp.tls_listen),
            ("mqtt.listen", self.mqtt.listen),
            ("mqtt.tls_listen", self.mqtt.tls_listen),
            ("mqtt.open_listen", self.mqtt.open_listen),
        ];
        listeners.extend(
            more.into_iter()
                .filter_map(|(name, at)| Some((name, at?.0))),
        );
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

    fn check_mqtt(&self, faults: &mut Vec<(&'static str, String)>) {
        let mqtt = &self.mqtt;
        match (&mqtt.tls_cert, &mqtt.tls_key) {
            (Some(_), None) => faults.push(("mqtt.tls_key", missing_beside("mqtt.tls_cert"))),
            (None, Some(_)) => faults.push(("mqtt.tls_cert", missing_beside("mqtt.tls_key"))),
            _ => {}
        }
        let both = "is missing: clients of the open space give both a name and a password";
        match (&mqtt.open_user, &mqtt.open_password) {
            (Some(_), None) => faults.push(("mqtt.open_password", both.to_owned())),
            (None, Some(_)) => faults.push(("mqtt.open_user", both.to_owned())),
            _ => {}
        }
        if let Some(Address(address)) = mqtt.open_listen
            && !address.ip().is_loopback()
            && mqtt.open_password.is_none()
        {
            faults.push((
                "mqtt.open_listen",
                format!("is {address}, which others can reach: set mqtt.open_user and mqtt.open_password, or listen on 127.0.0.1"),
            ));
        }
    }

    fn check_xmpp(&self, faults: &mut Vec<(&'static str, String)>) {
        match (&self.xmpp.tls_cert, &self.xmpp.tls_key) {
            (Some(_), None) => faults.push(("xmpp.tls_key", missing_beside("xmpp.tls_cert"))),
            (None, Some(_)) => faults.push(("xmpp.tls_cert", missing_beside("xmpp.tls_key"))),
            _ => {}
        }
        let label = |label: &str| {
            let sound = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            (1..=63).contains(&label.len()) && label.chars().all(sound)
        };
        if self.xmpp.domain.len() > 200 || !self.xmpp.domain.split('.').all(label) {
            faults.push((
                "xmpp.domain",
                "must be a domain in lower case, such as push.example.com".to_owned(),
            ));
        }
        let loopback = |at: Address| at.0.ip().is_loopback();
        if self.xmpp.allow_plaintext && !self.xmpp.listen.is_some_and(loopback) {
            faults.push((
                "xmpp.allow_plaintext",
                "needs xmpp.listen at a loopback address: tokens must not travel in plain"
                    .to_owned(),
            ));
        }
    }
}

fn missing_beside(other: &str) -> String {
    format!("is missing although {other} is set: TLS needs both")
}
