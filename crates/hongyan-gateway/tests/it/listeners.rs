//! The listeners of MQTT and XMPP over TLS: connections go on with the gateway's own records, as those of the HTTP listener do.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use hongyan_core::{AppId, MessageId, Topic};
use hongyan_gateway::{
    Listener, Mqtt, Options, Publish, PublishError, TlsRecords, Xmpp, XmppOptions,
};
use hongyan_mqtt::packet::{
    Connect, FilterList, Packet, Properties, QoS, Subscribe, SubscribeOptions, Version,
};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};
use rustls::{SupportedProtocolVersion, version};
use rustls_pki_types::{PrivateKeyDer, ServerName};
use tokio::net::TcpListener;

use crate::rig::Rig;

const WAIT: Duration = Duration::from_secs(10);
const OPEN: &str = "<?xml version='1.0'?><stream:stream to='localhost' xmlns='jabber:client' \
                    xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>";

/// Counts whose records connections go on with.
#[derive(Debug, Default)]
struct Tally {
    own: Arc<AtomicU64>,
    rustls: Arc<AtomicU64>,
}

impl Recorder for &'static Tally {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        if key.name() != "hongyan_gateway_tls_connections_total" {
            return Counter::noop();
        }
        let own = key.labels().any(|label| label.value() == "own");
        Counter::from_arc(Arc::clone(if own { &self.own } else { &self.rustls }))
    }
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

/// What was counted while `work` ran: own records, and rustls's. One at a time: the counters are the process's.
fn counted(work: impl FnOnce()) -> (u64, u64) {
    static TALLY: OnceLock<Tally> = OnceLock::new();
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let tally = TALLY.get_or_init(Tally::default);
    // Whoever comes second finds it set.
    let _ = metrics::set_global_recorder(tally);
    let now = || {
        let read = |count: &AtomicU64| count.load(Ordering::SeqCst);
        (read(&tally.own), read(&tally.rustls))
    };
    let before = now();
    work();
    let after = now();
    (after.0 - before.0, after.1 - before.1)
}

#[derive(Debug)]
struct Mute;

#[async_trait]
impl Publish for Mute {
    async fn publish(
        &self,
        _: &AppId,
        _: Topic,
        _: &[u8],
        _: Option<u32>,
    ) -> Result<MessageId, PublishError> {
        Err(PublishError::Invalid("nobody publishes here".to_owned()))
    }
}

struct World {
    rig: Rig,
    server: Arc<ServerConfig>,
    roots: RootCertStore,
}

/// A client whose TLS can be looked into.
struct Phone {
    stream: TcpStream,
    tls: ClientConnection,
    heard: Vec<u8>,
}

impl World {
    fn new(records: TlsRecords) -> Self {
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = certified.cert.der().clone();
        let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
        let server = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        Self {
            rig: Rig::with(Options {
                tls_records: records,
                ..Options::default()
            }),
            server: Arc::new(server),
            roots,
        }
    }

    fn listener(&self) -> (TcpListener, SocketAddr) {
        let _inside = self.rig.runtime.enter();
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let at = socket.local_addr().unwrap();
        (TcpListener::from_std(socket).unwrap(), at)
    }

    fn mqtt(&self) -> SocketAddr {
        let (listener, at) = self.listener();
        let mqtt = Mqtt::new(self.rig.handle.clone(), Arc::new(Mute));
        let tls = Some(Arc::clone(&self.server));
        self.rig
            .runtime
            .spawn(mqtt.listen(listener, tls, std::future::pending()));
        at
    }

    fn xmpp(&self, how: impl FnOnce(Arc<ServerConfig>) -> Listener) -> SocketAddr {
        let (listener, at) = self.listener();
        let clock = Arc::clone(&self.rig.clock) as _;
        let xmpp = Xmpp::new(XmppOptions::default(), self.rig.handle.clone(), clock);
        let how = how(Arc::clone(&self.server));
        self.rig
            .runtime
            .spawn(xmpp.listen(listener, how, std::future::pending()));
        at
    }

    fn secure(&self, stream: TcpStream, version: &'static SupportedProtocolVersion) -> Phone {
        stream.set_read_timeout(Some(WAIT)).unwrap();
        let config = ClientConfig::builder_with_protocol_versions(&[version])
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        Phone {
            tls: ClientConnection::new(Arc::new(config), name).unwrap(),
            stream,
            heard: Vec::new(),
        }
    }

    fn connect(&self, at: SocketAddr, version: &'static SupportedProtocolVersion) -> Phone {
        self.secure(TcpStream::connect(at).unwrap(), version)
    }

    fn gone(&self) {
        self.rig.until("gone", || self.rig.hub.stats().sockets == 0);
    }
}

impl Phone {
    fn say(&mut self, bytes: &[u8]) {
        let mut io = rustls::Stream::new(&mut self.tls, &mut self.stream);
        io.write_all(bytes).unwrap();
        io.flush().unwrap();
    }

    /// Hears until this was said; everything up to there is forgotten.
    fn until(&mut self, what: &[u8]) {
        let found = |heard: &[u8]| heard.windows(what.len()).position(|some| some == what);
        loop {
            if let Some(at) = found(&self.heard) {
                self.heard.drain(..at + what.len());
                return;
            }
            let mut chunk = [0; 4096];
            let mut io = rustls::Stream::new(&mut self.tls, &mut self.stream);
            let n = io.read(&mut chunk).unwrap();
            assert!(n > 0, "{}", String::from_utf8_lossy(&self.heard));
            self.heard.extend_from_slice(&chunk[..n]);
        }
    }

    /// Says that nothing follows; the other side must say so, too, not merely end.
    fn goodbye(mut self) {
        self.tls.send_close_notify();
        let mut io = rustls::Stream::new(&mut self.tls, &mut self.stream);
        io.flush().unwrap();
        let mut rest = Vec::new();
        let end = io.read_to_end(&mut rest);
        assert!(end.is_ok(), "without close_notify: {end:?}");
    }

    fn mqtt_login(&mut self) {
        let mut bytes = Vec::new();
        let packets = [
            Packet::Connect(Connect {
                version: Version::V311,
                clean_start: false,
                keep_alive: 60,
                properties: Properties::NONE,
                client_id: "d",
                will: None,
                user_name: Some("u"),
                password: Some(b"token-d"),
            }),
            Packet::PingReq,
        ];
        for packet in packets {
            packet.encode(Version::V311, &mut bytes).unwrap();
        }
        let mut filters = FilterList::default();
        filters
            .push("hy/me/inbox", SubscribeOptions::new(QoS::AtLeastOnce))
            .unwrap();
        let subscribe = Packet::Subscribe(Subscribe {
            packet_id: 9,
            properties: Properties::NONE,
            filters: filters.as_filters(),
        });
        subscribe.encode(Version::V311, &mut bytes).unwrap();
        self.say(&bytes);
        // PINGRESP, then SUBACK.
        self.until(&[0xd0, 0, 0x90, 3, 0, 9, 1]);
    }

    fn xmpp_login(&mut self) {
        self.say(OPEN.as_bytes());
        self.until(b"</stream:features>");
        // "\0u\0token-d"
        self.say(b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AHUAdG9rZW4tZA==</auth>");
        self.until(b"</success>");
        self.say(OPEN.as_bytes());
        self.until(b"</stream:features>");
        self.say(b"<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq><presence/>");
        self.until(b"</bind></iq>");
    }

    /// A session that updates its keys twice and hears messages under each of them, then ends in order.
    fn lives(mut self, world: &World, can_update: bool) {
        for round in 0..3 {
            let body = format!("round {round}");
            world.rig.publish("u", &body);
            self.until(body.as_bytes());
            if can_update {
                self.tls.refresh_traffic_keys().unwrap();
            }
        }
        self.goodbye();
        world.gone();
    }
}

#[test]
fn mqtt_over_tls_goes_on_with_own_records() {
    let world = World::new(TlsRecords::Own);
    let at = world.mqtt();
    let own = counted(|| {
        let mut phone = world.connect(at, &version::TLS13);
        phone.mqtt_login();
        phone.lives(&world, true);
    });
    assert_eq!(own, (1, 0));
    let old = counted(|| {
        let mut phone = world.connect(at, &version::TLS12);
        phone.mqtt_login();
        phone.lives(&world, false);
    });
    assert_eq!(old, (0, 1), "TLS 1.2 stays with rustls");
}

#[test]
fn xmpp_over_tls_goes_on_with_own_records() {
    let world = World::new(TlsRecords::Own);
    let at = world.xmpp(Listener::Tls);
    let own = counted(|| {
        let mut phone = world.connect(at, &version::TLS13);
        phone.xmpp_login();
        phone.lives(&world, true);
    });
    assert_eq!(own, (1, 0));
    let old = counted(|| {
        let mut phone = world.connect(at, &version::TLS12);
        phone.xmpp_login();
        phone.lives(&world, false);
    });
    assert_eq!(old, (0, 1), "TLS 1.2 stays with rustls");
}

#[test]
fn xmpp_after_starttls_goes_on_with_own_records() {
    let world = World::new(TlsRecords::Own);
    let at = world.xmpp(Listener::StartTls);
    for (version, want) in [(&version::TLS13, (1, 0)), (&version::TLS12, (0, 1))] {
        let records = counted(|| {
            let mut stream = TcpStream::connect(at).unwrap();
            let asks = format!("{OPEN}<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
            stream.write_all(asks.as_bytes()).unwrap();
            let mut heard = Vec::new();
            while !heard.ends_with(b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                heard.push(byte[0]);
            }
            let mut phone = world.secure(stream, version);
            phone.xmpp_login();
            phone.lives(&world, version.version == rustls::ProtocolVersion::TLSv1_3);
        });
        assert_eq!(records, want, "{version:?}");
    }
}

#[test]
fn the_setting_keeps_all_of_them_with_rustls() {
    let world = World::new(TlsRecords::Rustls);
    let records = counted(|| {
        let mut phone = world.connect(world.mqtt(), &version::TLS13);
        phone.mqtt_login();
        phone.lives(&world, true);
        let mut phone = world.connect(world.xmpp(Listener::Tls), &version::TLS13);
        phone.xmpp_login();
        phone.lives(&world, true);
    });
    assert_eq!(records, (0, 2));
}
