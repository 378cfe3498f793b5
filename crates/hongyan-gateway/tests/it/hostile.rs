//! Slow, silent, greedy and vanished clients of every protocol: each costs bounded memory, ends in bounded time with its
//! protocol's own word, disturbs nobody, and loses no message.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hongyan_core::port::{
    Enrolled, Enrolment, NewChannel, OpenChannel, OpenError, Post, PushState, Pushes,
};
use hongyan_core::{
    AppId, DeviceId, MessageId, PushChannel, PushEndpoint, Secret, StoreError, Topic, UserId,
};
use hongyan_gateway::protocol::sse::{AckMode, Request};
use hongyan_gateway::{
    Autopush, Encoding, Mqtt, Options, Publish, PublishError, Socket, Speech, Xmpp, XmppOptions,
};
use hongyan_mqtt::packet::{
    Connect, FilterList, Packet, Properties, QoS, Subscribe, SubscribeOptions, Version,
};
use serde_json::json;

use crate::client::{bodies, frame};
use crate::rig::Rig;
use crate::sse::caller;

const WAIT: Duration = Duration::from_secs(10);
const BIND: &str = "<iq xmlns='jabber:client' type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>";
const PRESENCE: &str = "<presence xmlns='jabber:client'/>";
const HEADER: &str = "<?xml version='1.0'?><stream:stream to='localhost' xmlns='jabber:client' \
                      xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>";
const FRAMED: &str =
    "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='localhost' version='1.0'/>";

/// A protocol over a socket, and what a client of it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spoken {
    WebSocket,
    Mqtt,
    MqttOverWebSocket,
    Xmpp,
    XmppOverWebSocket,
    Autopush,
}

use Spoken::{Autopush as Browser, MqttOverWebSocket, WebSocket, XmppOverWebSocket};

const ALL: [Spoken; 6] = [
    WebSocket,
    Spoken::Mqtt,
    MqttOverWebSocket,
    Spoken::Xmpp,
    XmppOverWebSocket,
    Browser,
];
/// Those whose clients log in as a device that exists already.
const OF_DEVICES: [Spoken; 5] = [
    WebSocket,
    Spoken::Mqtt,
    MqttOverWebSocket,
    Spoken::Xmpp,
    XmppOverWebSocket,
];

fn mqtt(packets: &[Packet<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for packet in packets {
        packet.encode(Version::V5, &mut bytes).unwrap();
    }
    bytes
}

fn connect(device: &str) -> Vec<u8> {
    let password = format!("token-{device}");
    mqtt(&[Packet::Connect(Connect {
        version: Version::V5,
        clean_start: false,
        keep_alive: 60,
        properties: Properties::NONE,
        client_id: device,
        will: None,
        user_name: Some("u"),
        password: Some(password.as_bytes()),
    })])
}

fn auth(device: &str) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(format!("\0u\0token-{device}"));
    format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{text}</auth>")
}

impl Spoken {
    fn framed(self, bytes: Vec<u8>) -> Vec<u8> {
        match self {
            MqttOverWebSocket => frame(0x82, &bytes),
            WebSocket | XmppOverWebSocket | Browser => frame(0x81, &bytes),
            Self::Mqtt | Self::Xmpp => bytes,
        }
    }

    /// The first thing that a client says.
    fn opening(self) -> Vec<u8> {
        self.framed(match self {
            WebSocket => br#"{"t":"hello","v":1,"auth":{"token":"token-d"}}"#.to_vec(),
            Self::Mqtt | MqttOverWebSocket => connect("d"),
            Self::Xmpp => HEADER.into(),
            XmppOverWebSocket => FRAMED.into(),
            Browser => br#"{"messageType":"hello","use_webpush":true}"#.to_vec(),
        })
    }

    /// The begin of a first message that is over its limit, and the word that ends the connection.
    fn oversized(self) -> (Vec<u8>, &'static [u8]) {
        const TOO_BIG: &[u8] = &[0x03, 0xf1];
        match self {
            WebSocket | Browser => (frame(0x81, &[b' '; 20_000])[..100].to_vec(), TOO_BIG),
            MqttOverWebSocket => (frame(0x82, &[0; 20_000])[..100].to_vec(), TOO_BIG),
            XmppOverWebSocket => (frame(0x81, &[b' '; 20_000])[..100].to_vec(), TOO_BIG),
            // A CONNECT of 20,000 bytes that has said its version.
            Self::Mqtt => (
                b"\x10\xa0\x9c\x01\0\x04MQTT\x05".to_vec(),
                &[0x20, 3, 0, 0x95, 0],
            ),
            Self::Xmpp => {
                let text = format!("{HEADER}<a>{}", "x".repeat(20_000));
                (text.into_bytes(), b"<policy-violation ")
            }
        }
    }

    /// What a client that is logged in may say at any time.
    fn small(self) -> Vec<u8> {
        self.framed(match self {
            WebSocket => br#"{"t":"ping","n":1}"#.to_vec(),
            Self::Mqtt | MqttOverWebSocket => mqtt(&[Packet::PingReq]),
            Self::Xmpp | XmppOverWebSocket => {
                b"<iq xmlns='jabber:client' type='get' id='q'><ping xmlns='urn:xmpp:ping'/></iq>"
                    .to_vec()
            }
            Browser => b"{}".to_vec(),
        })
    }

    /// How a client that is too loud is sent away.
    fn too_loud(self) -> &'static [u8] {
        match self {
            WebSocket => &[0x11, 0x4d],
            Self::Mqtt | MqttOverWebSocket => &[0xe0, 1, 0x96],
            Self::Xmpp | XmppOverWebSocket => b"<policy-violation ",
            Browser => &[0x03, 0xf3],
        }
    }

    /// How one that does not read is.
    fn too_slow(self) -> &'static [u8] {
        match self {
            WebSocket => &[0x11, 0x38],
            Self::Mqtt | MqttOverWebSocket => &[0xe0, 1, 0x97],
            Self::Xmpp | XmppOverWebSocket => b"<policy-violation ",
            Browser => unreachable!("not tried here"),
        }
    }
}

/// Nobody opens channels here.
#[derive(Debug)]
struct NoPushes;

#[async_trait]
impl Pushes for NoPushes {
    fn root(&self) -> &str {
        "https://push.example"
    }
    async fn enrolment(&self, _: &AppId, _: &UserId) -> Result<Enrolment, StoreError> {
        unreachable!("nobody enrols")
    }
    async fn enrolled(&self, _: &Secret) -> Result<Option<Enrolled>, StoreError> {
        Ok(None)
    }
    async fn enrol(&self, _: &DeviceId, _: &Enrolled) -> Result<bool, StoreError> {
        Ok(false)
    }
    async fn forget(&self, _: &AppId, _: &DeviceId) -> Result<bool, StoreError> {
        Ok(false)
    }
    async fn open(&self, _: NewChannel) -> Result<OpenChannel, OpenError> {
        unreachable!("nobody registers")
    }
    async fn list(&self, _: &AppId, _: &DeviceId) -> Result<Vec<OpenChannel>, OpenError> {
        Ok(Vec::new())
    }
    async fn close(&self, _: &AppId, _: &DeviceId, _: &PushChannel) -> Result<bool, StoreError> {
        Ok(false)
    }
    async fn find(&self, _: &str) -> Result<Option<PushEndpoint>, StoreError> {
        Ok(None)
    }
    async fn post(&self, _: &PushEndpoint, _: Post) -> Result<MessageId, StoreError> {
        unreachable!("nobody posts")
    }
    async fn withdraw(&self, _: &[u8; 32], _: MessageId) -> Result<bool, StoreError> {
        Ok(false)
    }
    async fn state(&self, _: &[u8; 32], _: MessageId) -> Result<Option<PushState>, StoreError> {
        Ok(None)
    }
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

/// A gateway that speaks everything, behind sockets whose buffers are small.
struct World {
    rig: Rig,
    mqtt: Mqtt,
    /// Speaks where it has no listener.
    _xmpp: Xmpp,
    plain_xmpp: std::net::SocketAddr,
    listener: TcpListener,
}

fn world(options: Options) -> World {
    let rig = Rig::with(options);
    let mqtt = Mqtt::new(rig.handle.clone(), Arc::new(Mute));
    let clock = Arc::clone(&rig.clock) as _;
    let xmpp = Xmpp::new(XmppOptions::default(), rig.handle.clone(), clock);
    rig.handle.serve_autopush(Autopush {
        app: Some(crate::store::app()),
        pushes: Arc::new(NoPushes),
        broadcasts: Default::default(),
    });
    let _inside = rig.runtime.enter();
    let small = || {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        // What is accepted has the buffers of its listener.
        socket.set_send_buffer_size(8 * 1024).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        socket.listen(2048).unwrap()
    };
    let spoken = small();
    let plain_xmpp = spoken.local_addr().unwrap();
    rig.runtime.spawn(xmpp.clone().listen(
        spoken,
        hongyan_gateway::Listener::Plain,
        std::future::pending(),
    ));
    let listener = small().into_std().unwrap();
    listener.set_nonblocking(false).unwrap();
    drop(_inside);
    World {
        rig,
        mqtt,
        _xmpp: xmpp,
        plain_xmpp,
        listener,
    }
}

impl World {
    /// A client's end of a connection that the gateway has.
    fn dial(&self, spoken: Spoken) -> Peer {
        let at = match spoken {
            Spoken::Xmpp => self.plain_xmpp,
            _ => self.listener.local_addr().unwrap(),
        };
        let stream = self.rig.runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(8 * 1024).unwrap();
            socket.connect(at).await.unwrap().into_std().unwrap()
        });
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(WAIT)).unwrap();
        stream.set_write_timeout(Some(WAIT)).unwrap();
        let peer = Peer {
            spoken,
            stream,
            heard: Vec::new(),
        };
        if spoken == Spoken::Xmpp {
            return peer;
        }
        let server = self.listener.accept().unwrap().0;
        let permit = self
            .rig
            .handle
            .admit(server.peer_addr().unwrap().ip())
            .unwrap();
        let socket = Socket::Plain(server);
        let speech: Speech = match spoken {
            WebSocket => Encoding::Json.into(),
            MqttOverWebSocket => Speech::Mqtt,
            XmppOverWebSocket => Speech::Xmpp,
            Browser => Speech::Autopush(None),
            Spoken::Mqtt => {
                self.mqtt.adopt(socket, permit).unwrap();
                return peer;
            }
            Spoken::Xmpp => unreachable!(),
        };
        let handle = &self.rig.handle;
        handle.adopt(socket, Bytes::new(), speech, permit).unwrap();
        peer
    }

    /// The same, logged in as a device (a browser as nobody) that takes its inbox.
    fn live(&self, spoken: Spoken, device: &str) -> Peer {
        let mut peer = self.dial(spoken);
        match spoken {
            WebSocket => {
                let hello = json!({"t": "hello", "v": 1, "auth": {"token": format!("token-{device}")}, "inflight": 256});
                peer.say(hello.to_string().into_bytes());
                peer.until(b"\"welcome\"");
            }
            Spoken::Mqtt | MqttOverWebSocket => {
                peer.say(connect(device));
                // CONNACK.
                peer.until(&[0x20]);
                let mut filters = FilterList::default();
                let options = SubscribeOptions::new(QoS::AtLeastOnce);
                filters.push("hy/me/inbox", options).unwrap();
                peer.say(mqtt(&[Packet::Subscribe(Subscribe {
                    packet_id: 9,
                    properties: Properties::NONE,
                    filters: filters.as_filters(),
                })]));
                peer.until(&[0x90, 4, 0, 9, 0, 1]);
            }
            Spoken::Xmpp | XmppOverWebSocket => {
                let header = if spoken == Spoken::Xmpp {
                    HEADER
                } else {
                    FRAMED
                };
                peer.say(header.into());
                peer.until(b"</stream:features>");
                peer.say(auth(device).into_bytes());
                peer.until(b"</success>");
                peer.say(header.into());
                peer.until(b"</stream:features>");
                peer.say(BIND.into());
                peer.until(b"</bind></iq>");
                peer.say(PRESENCE.into());
                peer.until(b"<presence ");
            }
            Browser => {
                peer.raw(&spoken.opening());
                peer.until(b"\"uaid\"");
            }
        }
        peer
    }

    /// Lets time pass until all connections are gone.
    fn until_gone(&self, step: Duration) {
        self.rig.until("all are gone", || {
            self.rig.advance(step);
            let stats = self.rig.hub.stats();
            (stats.sockets, stats.half_open, stats.sessions) == (0, 0, 0)
        });
    }

    /// Waits until the gateway has so many connections.
    fn until_taken(&self, sockets: usize) {
        self.rig.until("they are taken in", || {
            self.rig.hub.stats().sockets == sockets
        });
    }
}

#[derive(Debug)]
struct Peer {
    spoken: Spoken,
    stream: TcpStream,
    heard: Vec<u8>,
}

impl Peer {
    fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    fn say(&mut self, bytes: Vec<u8>) {
        let bytes = self.spoken.framed(bytes);
        self.raw(&bytes);
    }

    fn read(&mut self) -> bool {
        let mut chunk = [0; 16 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(n) => {
                self.heard.extend_from_slice(&chunk[..n]);
                n > 0
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("{:?}: nothing came: {error}", self.spoken),
        }
    }

    /// Hears until this was said, and forgets everything up to there.
    fn until(&mut self, what: &[u8]) {
        let mut from = 0;
        loop {
            let found = self.heard[from..]
                .windows(what.len())
                .position(|some| some == what);
            if let Some(at) = found {
                self.heard.drain(..from + at + what.len());
                return;
            }
            from = self.heard.len().saturating_sub(what.len());
            let spoken = self.spoken;
            assert!(
                self.read(),
                "{spoken:?}: {}",
                String::from_utf8_lossy(&self.heard)
            );
        }
    }

    /// All that comes until the end.
    fn rest(&mut self) -> Vec<u8> {
        while self.read() {}
        std::mem::take(&mut self.heard)
    }

    /// Reads what waited up to the last word; nothing follows it. A WebSocket ends after the client's close only.
    fn ends_saying(&mut self, word: &[u8]) {
        self.until(word);
        if matches!(self.spoken, Spoken::Mqtt | Spoken::Xmpp) {
            self.rest();
        }
    }
}

#[test]
fn whoever_says_nothing_is_sent_away() {
    let world = world(Options::default());
    let mut silent: Vec<Peer> = ALL.iter().map(|spoken| world.dial(*spoken)).collect();
    world.until_taken(silent.len());
    world.until_gone(Duration::from_secs(2));
    for peer in &mut silent {
        peer.rest();
    }
}

#[test]
fn a_greeting_byte_by_byte_gets_no_more_time_than_silence() {
    let world = world(Options::default());
    let mut slow: Vec<Peer> = ALL.iter().map(|spoken| world.dial(*spoken)).collect();
    world.until_taken(slow.len());
    // Each byte comes after a second, and the last one never.
    let said = std::cell::Cell::new(0);
    world.rig.until("all are gone", || {
        world.rig.advance(Duration::from_secs(1));
        for peer in &slow {
            let opening = peer.spoken.opening();
            if said.get() + 1 < opening.len() {
                // Whoever was sent away cannot say any more.
                let _ = (&peer.stream).write_all(&opening[said.get()..=said.get()]);
            }
        }
        said.set(said.get() + 1);
        let stats = world.rig.hub.stats();
        (stats.sockets, stats.half_open) == (0, 0)
    });
    for peer in &mut slow {
        peer.rest();
    }
    // All the pieces, in time, make a greeting.
    for spoken in OF_DEVICES {
        let mut peer = world.dial(spoken);
        for byte in spoken.opening() {
            peer.raw(&[byte]);
        }
        assert!(peer.read(), "{spoken:?} is answered");
    }
}

#[test]
fn what_is_over_its_limit_ends_the_connection_before_it_is_there() {
    let world = world(Options::default());
    for spoken in ALL {
        let (bytes, word) = spoken.oversized();
        let mut peer = world.dial(spoken);
        peer.raw(&bytes);
        peer.ends_saying(word);
        drop(peer);
        world.until_gone(Duration::from_secs(1));
    }
}

#[test]
fn whoever_is_too_loud_is_told_so_and_sent_away() {
    let world = world(Options::default());
    for spoken in ALL {
        let mut peer = world.live(spoken, "d");
        // Time stands still: only what may come at once is taken.
        let flood = spoken.small().repeat(2_000);
        let writer = peer.stream.try_clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                // It is cut off somewhere in between.
                let _ = (&writer).write_all(&flood);
            });
            peer.until(spoken.too_loud());
        });
        drop(peer);
        world.until_gone(Duration::from_secs(1));
    }
}

#[test]
fn whoever_does_not_read_is_closed_and_loses_nothing() {
    const COUNT: usize = 60;
    let queue = 128 * 1024;
    for spoken in OF_DEVICES {
        let world = world(Options {
            queue_bytes_max: queue,
            // The clock leaps; last words wait as long as it takes to read up to them.
            close_wait_ms: 600_000,
            ..Options::default()
        });
        let mut peer = world.live(spoken, "d");
        let body = "x".repeat(32 * 1024);
        for n in 0..COUNT {
            world.rig.publish("u", &format!("{n}:{body}"));
        }
        world
            .rig
            .until("some were sent", || !world.rig.sink.sent().is_empty());
        world.rig.until("its session is over", || {
            world.rig.advance(Duration::from_secs(2));
            world.rig.hub.stats().sessions == 0
        });
        let sent = world.rig.sink.sent().len();
        assert!(
            sent < COUNT,
            "{spoken:?}: {sent} messages fit a bounded queue"
        );
        peer.ends_saying(spoken.too_slow());
        drop(peer);
        // Whatever way it comes back, it finds all of them.
        let mut again = world.rig.connect();
        again.hello("d", json!({"inflight": 256}));
        let all = bodies(&again.until_idle());
        let numbers: Vec<usize> = all
            .iter()
            .map(|body| body.split_once(':').unwrap().0.parse().unwrap())
            .collect();
        assert_eq!(numbers, (0..COUNT).collect::<Vec<_>>(), "{spoken:?}");
    }
}

#[test]
fn a_stream_that_nobody_reads_is_closed_and_loses_nothing() {
    const COUNT: usize = 60;
    let world = world(Options {
        queue_bytes_max: 128 * 1024,
        ..Options::default()
    });
    let rig = &world.rig;
    let permit = rig.handle.admit([127, 0, 0, 1].into()).unwrap();
    let request = Request {
        caller: caller("d"),
        cursor: None,
        inflight: Some(256),
        ack: AckMode::Explicit,
    };
    let stream = rig
        .runtime
        .block_on(rig.handle.open_stream(request, permit))
        .unwrap_or_else(|turned| panic!("{turned:?}"));
    let body = "x".repeat(32 * 1024);
    for n in 0..COUNT {
        rig.publish("u", &format!("{n}:{body}"));
    }
    rig.until("some were sent", || !rig.sink.sent().is_empty());
    world.until_gone(Duration::from_secs(2));
    assert!(rig.sink.sent().len() < COUNT);
    drop(stream);
    let mut again = rig.connect();
    again.hello("d", json!({"inflight": 256}));
    assert_eq!(again.until_idle().len(), COUNT);
}

#[test]
fn whoever_vanished_is_noticed() {
    for spoken in ALL {
        let world = world(Options::default());
        let peer = world.live(spoken, "d");
        // It is there, as far as TCP knows, and answers nothing any more.
        world.until_gone(Duration::from_secs(5));
        drop(peer);
    }
}

/// Memory of this process that is in use, in bytes; nothing where the system does not tell.
fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

#[test]
fn a_thousand_of_them_disturb_nobody_and_leave_nothing_behind() {
    const CROWD: usize = 1_000;
    let world = world(Options::default());
    let mut seen: Vec<u64> = Vec::new();
    for round in 0..3 {
        let mut crowd = Vec::with_capacity(CROWD);
        for n in 0..CROWD {
            let spoken = ALL[n % ALL.len()];
            let mut peer = world.dial(spoken);
            let opening = spoken.opening();
            match n / ALL.len() % 3 {
                // Says nothing.
                0 => {}
                // Never comes to the end of its greeting.
                1 => peer.raw(&opening[..opening.len() - 1]),
                // Says too much at once; it may be cut off while it does.
                _ => {
                    let _ = peer.stream.write_all(&spoken.oversized().0);
                }
            }
            crowd.push(peer);
        }
        for good in OF_DEVICES {
            let mut peer = world.live(good, "d");
            let body = format!("round {round} over {good:?}");
            world.rig.publish("u", &body);
            peer.until(body.as_bytes());
        }
        drop(crowd);
        world.until_gone(Duration::from_secs(1));
        seen.extend(resident());
    }
    // What is kept for reuse is there after the first round; a leak of one buffer each would be 16 MB in a round.
    if let [_, second, third] = seen[..] {
        let grown = third.saturating_sub(second);
        assert!(grown < 8 * 1024 * 1024, "{seen:?}");
    }
}
