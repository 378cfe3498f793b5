//! A listener over real sockets, and every way not to become a connection.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that meets the unexpected has failed"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hongyan_listener::{Arrival, Door, Full, Listener, Place, Places, Refusal};
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout};

const PATIENCE: Duration = Duration::from_secs(10);
const FULL: &[u8] = b"full";

/// Says back what it hears, one byte at a time. `!` makes it panic.
#[derive(Debug, Clone)]
struct Echo {
    places: Arc<Places>,
    opened: Arc<AtomicUsize>,
}

impl Door for Echo {
    type Place = Place;

    fn admit(&self, peer: SocketAddr) -> Result<Place, Refusal> {
        let full = |full| Refusal {
            words: match full {
                Full::All => FULL,
                Full::Address => b"you again",
            },
        };
        self.places.take(peer.ip()).map_err(full)
    }

    async fn welcome(self, arrival: Arrival, _place: Place) {
        let Ok(mut transport) = arrival.secure().await else {
            return;
        };
        self.opened.fetch_add(1, Ordering::Relaxed);
        while let Ok(byte) = transport.read_u8().await {
            assert_ne!(byte, b'!', "this is what the test asked for");
            if transport.write_all(&[byte]).await.is_err() || transport.flush().await.is_err() {
                return;
            }
        }
    }
}

struct World {
    at: SocketAddr,
    places: Arc<Places>,
    opened: Arc<AtomicUsize>,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<JoinSet<()>>,
}

async fn world(places: Places, opening: Duration, tls: bool) -> World {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = socket.local_addr().unwrap();
    let (places, opened) = (Arc::new(places), Arc::new(AtomicUsize::new(0)));
    let (stop, stopped) = oneshot::channel::<()>();
    let listener = Listener {
        name: "test",
        socket,
        tls: tls.then(|| Arc::new(settings())),
        opening,
    };
    let echo = Echo {
        places: Arc::clone(&places),
        opened: Arc::clone(&opened),
    };
    let running = tokio::spawn(listener.run(echo, async {
        let _ = stopped.await;
    }));
    World {
        at,
        places,
        opened,
        stop: Some(stop),
        running,
    }
}

fn settings() -> rustls::ServerConfig {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap()
}

fn roomy() -> Places {
    Places::new(100, 100)
}

/// Whether a connection is served.
async fn is_served(stream: &mut TcpStream) -> bool {
    let _ = stream.write_all(b"x").await;
    let mut said = [0];
    let read = timeout(PATIENCE, stream.read_exact(&mut said));
    read.await.expect("an answer or the end in time").is_ok() && said == *b"x"
}

async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    let end = timeout(PATIENCE, stream.read_to_end(&mut said)).await;
    let _ = end.expect("the end in time");
    said
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_full_house_says_so_and_places_come_back() {
    let w = world(Places::new(2, 100), PATIENCE, false).await;
    let mut guests = Vec::new();
    for _ in 0..2 {
        let mut guest = TcpStream::connect(w.at).await.unwrap();
        assert!(is_served(&mut guest).await);
        guests.push(guest);
    }
    let mut third = TcpStream::connect(w.at).await.unwrap();
    assert_eq!(rest(&mut third).await, FULL);
    guests.clear();
    until("the places are free", || w.places.taken() == 0).await;
    let mut again = TcpStream::connect(w.at).await.unwrap();
    assert!(is_served(&mut again).await);
}

#[tokio::test]
async fn one_address_does_not_take_all_places() {
    let w = world(Places::new(100, 1), PATIENCE, false).await;
    let mut first = TcpStream::connect(w.at).await.unwrap();
    assert!(is_served(&mut first).await);
    let mut second = TcpStream::connect(w.at).await.unwrap();
    assert_eq!(rest(&mut second).await, b"you again");
}

#[tokio::test]
async fn a_handshake_that_is_not_made_ends_in_time() {
    let w = world(roomy(), Duration::from_millis(100), true).await;
    // The begin of a record with a ClientHello; whoever says nothing at all; whoever says something else.
    let beginnings: [&[u8]; 3] = [&[22, 3, 1, 2, 0, 1, 0, 1], b"", b"GET / HTTP/1.1\r\n\r\n"];
    for beginning in beginnings {
        let mut stream = TcpStream::connect(w.at).await.unwrap();
        stream.write_all(beginning).await.unwrap();
        rest(&mut stream).await;
    }
    // Byte by byte: the time is that of the whole, not of each piece.
    let mut stream = TcpStream::connect(w.at).await.unwrap();
    let trickle = async {
        for byte in [22, 3, 1, 64, 0].into_iter().chain(std::iter::repeat(0)) {
            if stream.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, trickle).await.expect("the end in time");
    until("nobody has a place", || w.places.taken() == 0).await;
    assert_eq!(w.opened.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_panic_costs_one_connection() {
    let w = world(roomy(), PATIENCE, false).await;
    let mut well = TcpStream::connect(w.at).await.unwrap();
    assert!(is_served(&mut well).await);
    let mut ill = TcpStream::connect(w.at).await.unwrap();
    ill.write_all(b"!").await.unwrap();
    rest(&mut ill).await;
    assert!(is_served(&mut well).await);
    let mut next = TcpStream::connect(w.at).await.unwrap();
    assert!(is_served(&mut next).await);
    until("its place is free", || w.places.taken() == 2).await;
}

#[tokio::test]
async fn stopping_answers_what_is_under_way() {
    let mut w = world(roomy(), PATIENCE, false).await;
    let mut guest = TcpStream::connect(w.at).await.unwrap();
    assert!(is_served(&mut guest).await);
    w.stop.take().unwrap().send(()).unwrap();
    let mut under_way = timeout(PATIENCE, w.running).await.unwrap().unwrap();
    assert!(TcpStream::connect(w.at).await.is_err(), "the door is shut");
    assert!(is_served(&mut guest).await, "whoever is in stays");
    drop(guest);
    timeout(PATIENCE, under_way.join_next()).await.unwrap();
    assert!(under_way.is_empty() && w.places.taken() == 0);
}

/// The soft limit of open files is this process's own: nobody else's descriptors run out, but other tests in this process would
/// fail, so that it is lowered for as long as it takes only.
#[tokio::test]
async fn without_file_descriptors_it_waits_and_goes_on() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let w = world(roomy(), PATIENCE, false).await;
    let limit = getrlimit(Resource::Nofile);
    let mut client = TcpStream::connect(w.at).await.unwrap();
    assert!(is_served(&mut client).await);
    let waiting = tokio::net::TcpSocket::new_v4().unwrap();
    let mut files = Vec::new();
    let few = Rlimit {
        current: Some(256),
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, few).unwrap();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        files.push(file);
    }
    // The kernel takes the connection; the process cannot have it.
    let mut waiting = waiting.connect(w.at).await.unwrap();
    for _ in 0..100 {
        assert!(is_served(&mut client).await, "those who are in go on");
    }
    assert_eq!(w.opened.load(Ordering::Relaxed), 1);
    files.clear();
    setrlimit(Resource::Nofile, limit).unwrap();
    assert!(is_served(&mut waiting).await, "it is tried again");
}
