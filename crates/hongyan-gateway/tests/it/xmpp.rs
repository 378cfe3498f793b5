//! XMPP over real sockets: STARTTLS, direct TLS, WebSocket, cuts, and what other protocols see.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hongyan_core::port::{Clock as _, Presence as _};
use hongyan_gateway::protocol::Speech;
use hongyan_gateway::{Listener, Options, Socket, Xmpp, XmppOptions};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};
use rustls_pki_types::{PrivateKeyDer, ServerName};
use serde_json::json;

use crate::client::{bodies, frame};
use crate::rig::Rig;
use crate::store::{app, device};

pub(crate) const OPEN: &str = "<?xml version='1.0'?><stream:stream to='localhost' xmlns='jabber:client' \
                    xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>";
pub(crate) const WAIT: Duration = Duration::from_secs(10);

/// A rig with XMPP on it.
pub(crate) struct Spoken {
    pub(crate) rig: Rig,
    xmpp: Xmpp,
    pub(crate) server: Arc<ServerConfig>,
    pub(crate) client: Arc<ClientConfig>,
}

#[derive(Debug)]
pub(crate) enum Io {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// A client that says what it is told to.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) io: Io,
    heard: String,
}

impl Spoken {
    pub(crate) fn new() -> Self {
        Self::with(Options::default(), XmppOptions::default())
    }

    fn with(options: Options, spoken: XmppOptions) -> Self {
        let rig = Rig::with(options);
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = certified.cert.der().clone();
        let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
        let server = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let client = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let clock = Arc::clone(&rig.clock) as _;
        let xmpp = Xmpp::new(spoken, rig.handle.clone(), clock);
        Self {
            rig,
            xmpp,
            server: Arc::new(server),
            client: Arc::new(client),
        }
    }

    pub(crate) fn listen(&self, how: Listener) -> SocketAddr {
        let xmpp = self.xmpp.clone();
        self.rig.runtime.block_on(async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            tokio::spawn(xmpp.listen(listener, how, std::future::pending()));
            address
        })
    }

    pub(crate) fn plain(&self) -> SocketAddr {
        self.listen(Listener::Plain)
    }

    /// A connection behind the opening handshake of a WebSocket.
    pub(crate) fn websocket(&self) -> TcpStream {
        let (client, server) = self.rig.pair();
        client.set_read_timeout(Some(WAIT)).unwrap();
        let permit = self.rig.handle.admit(server.peer_addr().unwrap().ip());
        let socket = Socket::Plain(server);
        self.rig
            .handle
            .adopt(socket, Bytes::new(), Speech::Xmpp, permit.unwrap())
            .unwrap();
        client
    }

    /// Logs in and binds a resource.
    pub(crate) fn bound(&self, at: SocketAddr, device: &str) -> Client {
        let mut client = Client::connect(at);
        client.log_in(device);
        client.bind();
        client
    }
}

impl Client {
    pub(crate) fn connect(at: SocketAddr) -> Self {
        let stream = TcpStream::connect(at).unwrap();
        stream.set_read_timeout(Some(WAIT)).unwrap();
        Self {
            io: Io::Plain(stream),
            heard: String::new(),
        }
    }

    /// Begins TLS on the connection.
    pub(crate) fn secure(self, config: &Arc<ClientConfig>) -> Self {
        let Io::Plain(stream) = self.io else {
            panic!("{self:?}")
        };
        let name = ServerName::try_from("localhost").unwrap();
        let tls = ClientConnection::new(Arc::clone(config), name).unwrap();
        Self {
            io: Io::Tls(Box::new(StreamOwned::new(tls, stream))),
            heard: String::new(),
        }
    }

    pub(crate) fn say(&mut self, text: &str) {
        match &mut self.io {
            Io::Plain(io) => io.write_all(text.as_bytes()),
            Io::Tls(io) => io.write_all(text.as_bytes()).and_then(|()| io.flush()),
        }
        .unwrap();
    }

    /// Reads some more; false at the end.
    fn read(&mut self) -> bool {
        let mut chunk = [0; 4096];
        let n = match &mut self.io {
            Io::Plain(io) => io.read(&mut chunk),
            Io::Tls(io) => io.read(&mut chunk),
        };
        let n = n.unwrap_or_else(|error| {
            assert!(
                error.kind() != std::io::ErrorKind::WouldBlock,
                "nothing came after: {}",
                self.heard
            );
            0
        });
        self.heard
            .push_str(std::str::from_utf8(&chunk[..n]).unwrap());
        n > 0
    }

    /// Everything up to and with this.
    pub(crate) fn until(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = self.heard.find(end) {
                let rest = self.heard.split_off(at + end.len());
                return std::mem::replace(&mut self.heard, rest);
            }
            assert!(self.read(), "it ended before {end}: {}", self.heard);
        }
    }

    /// Everything until the end of the connection.
    pub(crate) fn rest(&mut self) -> String {
        while self.read() {}
        std::mem::take(&mut self.heard)
    }

    pub(crate) fn log_in(&mut self, device: &str) {
        self.log_in_as("u", device);
    }

    pub(crate) fn log_in_as(&mut self, user: &str, device: &str) {
        self.say(OPEN);
        self.until("</stream:features>");
        let text = STANDARD.encode(format!("\0{user}\0token-{device}"));
        self.say(&format!(
            "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{text}</auth>"
        ));
        self.until("</success>");
        self.say(OPEN);
        self.until("</stream:features>");
    }

    pub(crate) fn bind(&mut self) {
        self.say("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>");
        self.until("</bind></iq>");
    }

    /// Turns stream management on; answers the session's id.
    pub(crate) fn manage(&mut self) -> String {
        self.say("<enable xmlns='urn:xmpp:sm:3' resume='true'/><presence/>");
        let said = self.until("max='300'/>");
        self.until("<presence ");
        self.until("/>");
        let id = said.split(" id='").nth(1).unwrap();
        id.split('\'').next().unwrap().to_owned()
    }

    /// The next message's text.
    pub(crate) fn body(&mut self) -> String {
        let text = self.until("</message>");
        let body = text.split("<body>").nth(1).unwrap();
        let body = body.split("</body>").next().unwrap();
        body.trim_start_matches("t\n").to_owned()
    }
}

#[test]
fn xm_01_login_over_starttls_and_over_tls() {
    let spoken = Spoken::new();
    let at = spoken.listen(Listener::StartTls(Arc::clone(&spoken.server)));
    let mut client = Client::connect(at);
    client.say(OPEN);
    let offer = client.until("</stream:features>");
    assert!(
        offer.contains("<required/>") && !offer.contains("mechanism"),
        "{offer}"
    );
    client.say("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
    client.until("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
    let mut client = client.secure(&spoken.client);
    client.log_in("d");
    client.bind();
    let direct = spoken.listen(Listener::Tls(Arc::clone(&spoken.server)));
    let mut second = Client::connect(direct).secure(&spoken.client);
    second.say(OPEN);
    let offer = second.until("</stream:features>");
    assert!(
        offer.contains("SCRAM-SHA-256-PLUS") && offer.contains("tls-exporter"),
        "{offer}"
    );
    drop(second);
    // The same device again: the older stream ends with a conflict.
    let mut third = Client::connect(direct).secure(&spoken.client);
    third.log_in("d");
    third.bind();
    let end = client.rest();
    assert!(
        end.contains("<conflict ") && end.ends_with("</stream:stream>"),
        "{end}"
    );
    third.say("<presence/>");
    spoken.rig.publish("u", "hello");
    assert_eq!(third.body(), "hello");
    third.say("</stream:stream>");
    assert!(third.rest().ends_with("</stream:stream>"));
    drop((client, third));
    spoken
        .rig
        .until("gone", || spoken.rig.hub.stats().sockets == 0);
}

#[test]
fn xm_02_bytes_behind_starttls_are_dropped() {
    let spoken = Spoken::new();
    let at = spoken.listen(Listener::StartTls(Arc::clone(&spoken.server)));
    let mut client = Client::connect(at);
    let injected = format!("{OPEN}<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>{OPEN}");
    client.say(&injected);
    client.until("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
    let mut client = client.secure(&spoken.client);
    client.log_in("d");
    let mut early = Client::connect(at);
    early.say(&format!("{OPEN}<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AHUAdG9rZW4tZA==</auth>"));
    assert!(early.until("</failure>").contains("encryption-required"));
}

#[test]
fn xm_10_a_cut_stream_resumes_with_what_was_not_acknowledged() {
    let spoken = Spoken::new();
    let at = spoken.plain();
    let mut client = spoken.bound(at, "d");
    let id = client.manage();
    let want: Vec<String> = (0..5).map(|n| n.to_string()).collect();
    for body in &want {
        spoken.rig.publish("u", body);
        assert_eq!(client.body(), *body);
    }
    // The echo of the presence is the first stanza.
    client.say("<a xmlns='urn:xmpp:sm:3' h='3'/>");
    spoken
        .rig
        .until("two are acked", || spoken.rig.sink.acked().len() == 2);
    let mut h = 4;
    let mut left = want[3..].to_vec();
    for round in 0..10 {
        drop(client);
        let late = format!("late {round}");
        spoken.rig.publish("u", &late);
        left.push(late);
        client = Client::connect(at);
        client.log_in("d");
        client.say(&format!(
            "<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='{h}'/>"
        ));
        client.until("<resumed ");
        client.until("/>");
        for body in &left {
            assert_eq!(client.body(), *body, "round {round}");
        }
        h += u32::try_from(left.len()).unwrap();
        client.say(&format!("<a xmlns='urn:xmpp:sm:3' h='{h}'/>"));
        spoken.rig.until("all are acked", || {
            spoken.rig.store.unread("d", Some("u")) == 0
        });
        left.clear();
    }
}

#[test]
fn xm_12_without_resumption_the_rest_comes_at_the_next_login() {
    let spoken = Spoken::new();
    let at = spoken.plain();
    spoken.rig.store("u", "one");
    let mut client = spoken.bound(at, "d");
    client.say("<presence/>");
    client.until("<body>t\none</body>");
    drop(client);
    let mut client = spoken.bound(at, "d");
    client.say("<presence/>");
    let text = client.until("</message>");
    assert!(text.contains("one") && text.contains("<delay "), "{text}");
    let ping = client.until("</iq>");
    let id = ping
        .split("id='")
        .nth(1)
        .unwrap()
        .split('\'')
        .next()
        .unwrap();
    client.say(&format!("<iq type='result' id='{id}'/>"));
    spoken
        .rig
        .until("acked", || spoken.rig.store.unread("d", Some("u")) == 0);
}

#[test]
fn xm_13_nothing_is_sent_before_presence_and_nothing_spins() {
    let spoken = Spoken::new();
    let at = spoken.plain();
    for n in 0..3 {
        spoken.rig.store("u", &n.to_string());
    }
    let mut client = spoken.bound(at, "d");
    client.say("<iq type='get' id='q'><ping xmlns='urn:xmpp:ping'/></iq>");
    assert!(!client.until("id='q'").contains("<message"));
    client.say("<presence/>");
    for n in 0..3 {
        assert_eq!(client.body(), n.to_string());
    }
}

#[test]
fn xm_14_pushes_end_and_begin_as_the_client_says() {
    let spoken = Spoken::new();
    let at = spoken.plain();
    for channel in ["fcm", "huawei"] {
        spoken.rig.store.add_token("d", channel);
    }
    let mut client = spoken.bound(at, "d");
    let mut say = |what: &str, node: &str| {
        let id = format!("{what}-{node}-{}", spoken.rig.store.pushed_over("d").len());
        let node = match node {
            "" => String::new(),
            node => format!(" node='{node}'"),
        };
        client.say(&format!(
            "<iq type='set' id='{id}'><{what} xmlns='urn:xmpp:push:0' jid='push.localhost'{node}/></iq>"
        ));
        let said = client.until(&format!("id='{id}'"));
        let refused = said.contains("type='error'");
        (!refused, spoken.rig.store.pushed_over("d").join(" "))
    };
    assert_eq!(say("enable", "fcm"), (true, "fcm huawei".to_owned()));
    assert_eq!(say("disable", "fcm"), (true, "huawei".to_owned()));
    assert_eq!(say("disable", "fcm"), (true, "huawei".to_owned()), "twice");
    assert_eq!(say("enable", "xiaomi"), (false, "huawei".to_owned()));
    assert_eq!(say("disable", ""), (true, String::new()), "all");
    assert_eq!(say("enable", "huawei"), (true, "huawei".to_owned()));
}

#[test]
fn xm_17_an_ack_over_one_protocol_counts_for_the_other() {
    let spoken = Spoken::new();
    let at = spoken.plain();
    spoken.rig.store("u", "one");
    spoken.rig.store("u", "two");
    let mut client = spoken.bound(at, "d");
    client.manage();
    assert_eq!((client.body(), client.body()), ("one".into(), "two".into()));
    client.say("<a xmlns='urn:xmpp:sm:3' h='2'/>");
    spoken
        .rig
        .until("one is acked", || spoken.rig.sink.acked().len() == 1);
    let mut other = spoken.rig.connect();
    other.hello("d", json!({}));
    assert!(client.rest().contains("<conflict "));
    let messages = other.until_idle();
    assert_eq!(bodies(&messages), ["two"]);
    other.say(json!({"t": "ack", "upto": messages[0]["cursor"]}));
    spoken
        .rig
        .until("both are acked", || spoken.rig.sink.acked().len() == 2);
    let mut again = spoken.bound(at, "d");
    again.say("<presence/>");
    spoken.rig.publish("u", "three");
    assert_eq!(again.body(), "three");
}

#[test]
fn xm_06_websocket_frames_are_elements() {
    let spoken = Spoken::new();
    let mut client = spoken.websocket();
    let mut hear = |text: &str, end: &str| {
        client.write_all(&frame(0x81, text.as_bytes())).unwrap();
        let mut heard = Vec::new();
        while !String::from_utf8_lossy(&heard).contains(end) {
            let mut chunk = [0; 4096];
            let n = client.read(&mut chunk).unwrap();
            assert!(n > 0, "{}", String::from_utf8_lossy(&heard));
            heard.extend_from_slice(&chunk[..n]);
        }
        String::from_utf8_lossy(&heard).into_owned()
    };
    let open = "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='localhost' version='1.0'/>";
    assert!(hear(open, "</stream:features>").contains("PLAIN"));
    let auth = STANDARD.encode("\0u\0token-d");
    hear(
        &format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{auth}</auth>"),
        "</success>",
    );
    hear(open, "xmpp-bind");
    hear(
        "<iq xmlns='jabber:client' type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>",
        "<jid>u@localhost/d</jid>",
    );
    spoken.rig.publish("u", "hello");
    hear("<presence xmlns='jabber:client'/>", "hello");
    hear("<a xmlns='x'/><b xmlns='x'/>", "not-well-formed");
}

#[test]
fn strangers_cost_little_and_do_not_stay() {
    let spoken = Spoken::with(
        Options {
            half_open_max: 3,
            ..Options::default()
        },
        XmppOptions {
            login_timeout_ms: 1_000,
            ..XmppOptions::default()
        },
    );
    let at = spoken.plain();
    let mut silent: Vec<Client> = (0..3).map(|_| Client::connect(at)).collect();
    silent[0].say("<?xml version='1.0'?><stream:stream ");
    spoken
        .rig
        .until("three", || spoken.rig.hub.stats().sockets == 3);
    assert_eq!(Client::connect(at).rest(), "", "no more strangers");
    // A connection's time begins when its reactor has it.
    spoken.rig.until("they are sent away", || {
        spoken.rig.advance(Duration::from_secs(2));
        spoken.rig.hub.stats().half_open == 0
    });
    for client in &mut silent {
        client.rest();
    }
    let mut large = Client::connect(at);
    large.say(OPEN);
    large.say(&format!("<a>{}", "x".repeat(17 * 1024)));
    assert!(large.rest().contains("<policy-violation "));
    let mut good = spoken.bound(at, "d");
    good.say("<presence/>");
    spoken.rig.publish("u", "hello");
    assert_eq!(good.body(), "hello");
}

#[test]
fn a_deleted_device_is_sent_away() {
    use hongyan_core::port::Presence as _;
    let spoken = Spoken::new();
    let at = spoken.plain();
    let mut client = spoken.bound(at, "d");
    let (app, device) = (crate::store::app(), crate::store::device("d"));
    spoken
        .rig
        .runtime
        .block_on(spoken.rig.hub.disconnect(&app, &device));
    assert!(client.rest().contains("<not-authorized "));
}

#[test]
fn xm_20_who_may_resume_counts_as_connected_and_has_no_session() {
    let spoken = Spoken::new();
    let rig = &spoken.rig;
    let at = spoken.plain();
    let (app, devices) = (app(), [device("d")]);
    let lingering = || {
        let now = rig.clock.now();
        rig.hub.lingering(&app, &devices, now).remove(0)
    };
    let mut client = spoken.bound(at, "d");
    let id = client.manage();
    assert!(lingering().is_none(), "it is there");
    drop(client);
    rig.until("it is cut", || rig.hub.is_empty());
    assert!(rig.hub.sessions(&app, &devices)[0].is_none());
    assert_eq!(lingering().unwrap().protocol, "xmpp");
    // Back, and gone for good: nothing lingers.
    let mut client = Client::connect(at);
    client.log_in("d");
    client.say(&format!(
        "<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='1'/>"
    ));
    client.until("<resumed ");
    assert!(lingering().is_none());
    client.say("</stream:stream>");
    client.until("</stream:stream>");
    rig.until("it said goodbye", || rig.hub.is_empty());
    assert!(lingering().is_none());
    // It lingers as long as it may be resumed.
    let mut client = spoken.bound(at, "d");
    client.manage();
    drop(client);
    rig.until("it is cut", || rig.hub.is_empty());
    rig.advance(Duration::from_secs(299));
    assert!(lingering().is_some());
    rig.advance(Duration::from_secs(2));
    assert!(lingering().is_none());
}
