//! Sessions over a TLS connection that the HTTP server hands over after its handshake: with a
//! rustls client, and with the programs of others.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hongyan_gateway::{Encoding, Options, Socket, Tls, TlsRecords};
use hongyan_listener::secure;
use rustls::crypto::ring::default_provider;
use rustls::{ClientConfig, ClientConnection, KeyLog, RootCertStore, ServerConfig};
use rustls::{ServerConnection, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::json;

use crate::client::{Client, bodies, frame};
use crate::rig::Rig;

#[derive(Debug, Default)]
struct Keeper(Mutex<[Vec<u8>; 2]>);

impl KeyLog for Keeper {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        let mut kept = self.0.lock().unwrap();
        match label {
            "CLIENT_TRAFFIC_SECRET_0" => kept[0] = secret.to_vec(),
            "SERVER_TRAFFIC_SECRET_0" => kept[1] = secret.to_vec(),
            _ => {}
        }
    }
}

/// A server's settings.
struct Site {
    config: ServerConfig,
    certificate: CertificateDer<'static>,
}

impl Site {
    fn new() -> Self {
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = certified.cert.der().clone();
        let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        config.enable_secret_extraction = true;
        Self {
            config,
            certificate,
        }
    }

    fn client(&self, version: &'static SupportedProtocolVersion) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth()
    }

    /// The server's side of a handshake. It reads records one by one, so that rustls is never
    /// given the begin of one that follows.
    fn handshake(&self, stream: &mut TcpStream) -> Tls {
        let keeper = Arc::new(Keeper::default());
        let mut config = self.config.clone();
        config.key_log = Arc::clone(&keeper) as _;
        let mut tls = ServerConnection::new(Arc::new(config)).unwrap();
        while tls.is_handshaking() {
            let mut record = vec![0; 5];
            stream.read_exact(&mut record).unwrap();
            let len = u16::from_be_bytes([record[3], record[4]]);
            record.resize(5 + usize::from(len), 0);
            stream.read_exact(&mut record[5..]).unwrap();
            let mut rest = &record[..];
            while !rest.is_empty() {
                tls.read_tls(&mut rest).unwrap();
                tls.process_new_packets().unwrap();
            }
            while tls.wants_write() {
                tls.write_tls(stream).unwrap();
            }
        }
        let [client, server] = keeper.0.lock().unwrap().clone();
        Tls::from(secure::Tls {
            connection: tls,
            secrets: Some(secure::Secrets {
                client: client.into(),
                server: server.into(),
            }),
            partial: Vec::new(),
        })
    }

    fn adopt(&self, rig: &Rig, mut stream: TcpStream) {
        let tls = self.handshake(&mut stream);
        let permit = rig.handle.admit(stream.peer_addr().unwrap().ip()).unwrap();
        let socket = Socket::Tls(stream, Box::new(tls));
        rig.handle
            .adopt(socket, Bytes::new(), Encoding::Json, permit)
            .unwrap();
    }

    /// A connection whose TLS handshake is done.
    fn connect(&self, rig: &Rig, version: &'static SupportedProtocolVersion) -> Client {
        let (near, far) = rig.pair();
        let name = ServerName::try_from("localhost").unwrap();
        let client = Arc::new(self.client(version));
        let mut tls = ClientConnection::new(client, name).unwrap();
        let mut near_io = near.try_clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| self.adopt(rig, far));
            while tls.is_handshaking() || tls.wants_write() {
                tls.complete_io(&mut near_io).unwrap();
            }
        });
        Client::new(near, Encoding::Json).secured(tls)
    }
}

fn secured(rig: &Rig) -> Client {
    Site::new().connect(rig, &rustls::version::TLS13)
}

fn live_session(records: TlsRecords, version: &'static SupportedProtocolVersion) {
    let rig = Rig::with(Options {
        tls_records: records,
        ..Options::default()
    });
    for n in 0..40 {
        rig.store("u", &format!("{n}{}", "x".repeat(30_000)));
    }
    let mut client = Site::new().connect(&rig, version);
    client.hello("d", json!({"inflight": 256}));
    let messages = client.until_idle();
    let numbers: Vec<String> = bodies(&messages)
        .iter()
        .map(|body| body.trim_end_matches('x').to_owned())
        .collect();
    let want: Vec<String> = (0..40).map(|n| n.to_string()).collect();
    assert_eq!(numbers, want);
    client.say(json!({"t": "ack", "upto": messages[39]["cursor"]}));
    rig.until("all are acked", || rig.sink.acked().len() == 40);
    rig.publish("u", "live");
    assert_eq!(bodies(&[client.expect("msg")]), ["live"]);
    client.say(json!({"t": "ping", "n": 7, "pad": "y".repeat(40_000)}));
    assert_eq!(client.expect("pong")["n"], 7);
    client.say(json!({"t": "bye"}));
    assert_eq!(client.closed(), 1000);
}

#[test]
fn a_session_over_tls() {
    live_session(TlsRecords::Own, &rustls::version::TLS13);
}

#[test]
fn a_session_over_tls_that_stays_with_rustls() {
    live_session(TlsRecords::Rustls, &rustls::version::TLS13);
    live_session(TlsRecords::Own, &rustls::version::TLS12);
}

#[test]
fn a_broken_record_ends_the_connection() {
    let rig = Rig::new();
    let mut client = secured(&rig);
    client.hello("d", json!({}));
    client
        .stream
        .write_all(&[0x17, 3, 3, 0, 5, 1, 2, 3, 4, 5])
        .unwrap();
    rig.until("gone", || rig.hub.stats().sockets == 0);
}

#[test]
fn a_client_that_goes_away_inside_a_record_is_noticed() {
    let rig = Rig::new();
    let mut client = secured(&rig);
    client.hello("d", json!({}));
    client.stream.write_all(&[0x17, 3, 3, 1, 0, 1, 2]).unwrap();
    client.stream.shutdown(std::net::Shutdown::Both).unwrap();
    rig.until("gone", || rig.hub.stats().sockets == 0);
}

// The programs of others.

/// A program that ends with the test.
struct Program {
    child: Child,
    stdin: Option<ChildStdin>,
    said: Arc<Mutex<Vec<u8>>>,
}

impl Program {
    /// Nothing when there is no such program here.
    fn start(command: &mut Command) -> Option<Self> {
        let started = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = match started {
            Ok(child) => child,
            Err(error) => {
                skip(&format!("{command:?} cannot be started: {error}"));
                return None;
            }
        };
        let said = Arc::new(Mutex::new(Vec::new()));
        let outputs: [Box<dyn Read + Send>; 2] = [
            Box::new(child.stdout.take().unwrap()),
            Box::new(child.stderr.take().unwrap()),
        ];
        for mut output in outputs {
            let said = Arc::clone(&said);
            std::thread::spawn(move || {
                let mut some = [0; 4096];
                while let Ok(n @ 1..) = output.read(&mut some) {
                    said.lock().unwrap().extend_from_slice(&some[..n]);
                }
            });
        }
        Some(Self {
            stdin: child.stdin.take(),
            child,
            said,
        })
    }

    fn type_in(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(bytes).unwrap();
        stdin.flush().unwrap();
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.said.lock().unwrap()).into_owned()
    }

    /// Waits until it has said something so many times.
    fn hears(&self, what: &str, times: usize) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.text().matches(what).count() < times {
            assert!(Instant::now() < deadline, "no {what}: {}", self.text());
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
fn skip(why: &str) {
    eprintln!("skipped: {why}");
}

fn hello() -> Vec<u8> {
    frame(0x81, br#"{"t":"hello","v":1,"auth":{"token":"token-d"}}"#)
}

/// `K` and `k` make OpenSSL update its keys, with and without asking for ours.
#[test]
fn openssl_gets_along_with_every_suite() {
    for suite in [
        "TLS_AES_128_GCM_SHA256",
        "TLS_AES_256_GCM_SHA384",
        "TLS_CHACHA20_POLY1305_SHA256",
    ] {
        let rig = Rig::new();
        let address = rig.address().to_string();
        let Some(mut openssl) = Program::start(
            Command::new("openssl")
                .args(["s_client", "-tls1_3", "-connect", &address])
                .args(["-ciphersuites", suite]),
        ) else {
            return;
        };
        Site::new().adopt(&rig, rig.accept());
        openssl.hears(suite, 1);
        openssl.type_in(&hello());
        openssl.hears("\"t\":\"idle\"", 1);
        let mut pongs = 0;
        for (round, key) in ["k", "K", "K", "k"].into_iter().enumerate() {
            openssl.type_in(key.as_bytes());
            openssl.hears("KEYUPDATE", round + 1);
            for _ in 0..2 {
                pongs += 1;
                let ping = format!(r#"{{"t":"ping","n":{pongs}}}"#);
                openssl.type_in(&frame(0x81, ping.as_bytes()));
                openssl.hears("\"t\":\"pong\"", pongs);
            }
            rig.publish("u", &format!("round {round} of {suite}"));
            openssl.hears(&format!("round {round} of {suite}"), 1);
        }
        // The end of its input makes it say goodbye.
        openssl.stdin = None;
        rig.until("gone", || rig.hub.stats().sockets == 0);
        let text = openssl.text();
        assert!(!text.contains(":error:"), "{text}");
    }
}

const PYTHON: &str = r#"
import socket, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
context.minimum_version = ssl.TLSVersion.TLSv1_3
stream = context.wrap_socket(socket.create_connection(("127.0.0.1", int(sys.argv[1]))))
heard = b""
def until(what):
    global heard
    while what not in heard:
        some = stream.recv(65536)
        if not some:
            raise SystemExit("the end instead of %r" % what)
        heard += some
def frame(text):
    length = len(text)
    head = bytes([0x80 | length]) if length < 126 else bytes([0xfe]) + length.to_bytes(2, "big")
    return b"\x81" + head + b"\0\0\0\0" + text
for byte in frame(b'{"t":"hello","v":1,"auth":{"token":"token-d"}}'):
    stream.send(bytes([byte]))
until(b'"t":"idle"')
assert heard.count(b"A" * 50000) == 1
stream.sendall(frame(b'{"t":"ping","n":1,"pad":"' + b"x" * 60000 + b'"}') * 3)
while heard.count(b'"t":"pong"') < 3:
    heard += stream.recv(65536)
stream.unwrap()
print("said goodbye both ways")
"#;

#[test]
fn pythons_ssl_gets_along() {
    let rig = Rig::new();
    rig.store("u", &"A".repeat(50_000));
    let port = rig.address().port().to_string();
    let Some(python) = Program::start(Command::new("python3").args(["-c", PYTHON, &port])) else {
        return;
    };
    Site::new().adopt(&rig, rig.accept());
    python.hears("said goodbye both ways", 1);
    rig.until("gone", || rig.hub.stats().sockets == 0);
}
