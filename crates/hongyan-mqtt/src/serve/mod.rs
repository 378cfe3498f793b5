//! A broker over real sockets: TCP, TLS, and WebSocket on the same port.
//!
//! Who begins with `GET` is taken for a WebSocket client (path `/mqtt`, subprotocol `mqtt`): no MQTT packet
//! begins so. One task serves one connection; its two halves never wait for each other, so that a client
//! that does not read is noticed while it still sends.

mod stream;
mod transport;

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hongyan_listener::{Arrival, Door, Listener, Place, Places, Refusal};
use rustls::ServerConfig;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::broker::{Broker, ConnectionId, Flow};
use crate::packet::ReasonCode;
use stream::Prefixed;
use transport::{Read, Reader, Writer};

/// Time without progress after which a client that does not read is closed.
const SLOW: Duration = Duration::from_secs(30);

/// How long a closed connection may take to be closed by its client, too: until then what it still sends is
/// thrown away, since a reset could overtake the last packets sent to it.
const LINGER: Duration = Duration::from_secs(1);

/// How long clients may take to leave when the server stops.
const LEAVE: Duration = Duration::from_secs(2);

/// Longest and shortest time between two looks at what is due.
const TICK: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

/// Bytes read at once.
const READ_BYTES: usize = 8 * 1024;

/// Serves a broker on a listener until `shutdown` resolves; then tells the clients and ends within a few seconds.
/// With `tls` every connection is TLS.
///
/// Further connections than [`crate::broker::Options::connections_max`] are closed at once.
pub async fn serve(
    listener: TcpListener,
    broker: Broker,
    tls: Option<Arc<ServerConfig>>,
    shutdown: impl Future<Output = ()>,
) {
    let options = broker.options();
    // Brokers see many devices behind one address.
    let places = Arc::new(Places::new(options.connections_max, u32::MAX));
    let listener = Listener {
        name: "mqtt_open",
        socket: listener,
        tls,
        opening: options.connect_timeout,
    };
    let shared = Arc::new(Shared {
        begin: Instant::now(),
        broker: Mutex::new(broker),
        signals: Mutex::new(HashMap::new()),
    });
    let space = Space {
        shared: Arc::clone(&shared),
        places,
    };
    let mut clients = tokio::select! {
        clients = listener.run(space, shutdown) => clients,
        never = tick(&shared) => match never {},
    };
    shared.with(|broker, now| broker.shut_down(now));
    // What does not leave in time is cut with the set.
    let _ = timeout(LEAVE, async {
        while clients.join_next().await.is_some() {}
    })
    .await;
}

/// Where connections come in.
#[derive(Debug, Clone)]
struct Space {
    shared: Arc<Shared>,
    places: Arc<Places>,
}

impl Door for Space {
    type Place = Place;

    fn admit(&self, peer: SocketAddr) -> Result<Place, Refusal> {
        // Before CONNECT there is no word for it.
        let full = |_| Refusal { words: b"" };
        self.places.take(peer.ip()).map_err(full)
    }

    async fn welcome(self, arrival: Arrival, _place: Place) {
        client(&self.shared, arrival).await;
    }
}

async fn tick(shared: &Shared) -> Infallible {
    loop {
        let due = shared.with(|broker, now| {
            broker.tick(now);
            broker.next_due().map(|due| due.saturating_sub(now))
        });
        sleep(due.unwrap_or(TICK.1).clamp(TICK.0, TICK.1)).await;
    }
}

/// A broker that many tasks use, and how each of them is woken.
#[derive(Debug)]
struct Shared {
    begin: Instant,
    broker: Mutex<Broker>,
    signals: Mutex<HashMap<ConnectionId, Arc<Signals>>>,
}

/// What the halves of one connection wait for.
#[derive(Debug, Default)]
struct Signals {
    output: Notify,
    room: Notify,
    ended: Notify,
}

impl Shared {
    fn with<T>(&self, what: impl FnOnce(&mut Broker, Duration) -> T) -> T {
        let (result, woken) = {
            let mut broker = lock(&self.broker);
            let result = what(&mut broker, self.begin.elapsed());
            (result, broker.take_woken())
        };
        if !woken.is_empty() {
            let signals = lock(&self.signals);
            for one in woken.iter().filter_map(|id| signals.get(id)) {
                one.output.notify_one();
            }
        }
        result
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn client(shared: &Shared, arrival: Arrival) {
    let due = arrival.due();
    // Who takes no part in the handshake is no client yet: nothing is said.
    let opened = Box::pin(timeout_at(due, open(shared, arrival))).await;
    let Ok(Some((first, reader, writer))) = opened else {
        return;
    };
    let Some(id) = shared.with(|broker, now| broker.accept(now)) else {
        return;
    };
    let signals = Arc::new(Signals::default());
    lock(&shared.signals).insert(id, Arc::clone(&signals));
    let _leaving = Leaving { shared, id };
    shared.with(|broker, now| broker.received(now, id, &first));
    tokio::select! {
        () = write(shared, &signals, id, writer) => {}
        never = read(shared, &signals, id, reader) => match never {},
    }
}

/// Takes a connection out of the broker when its task ends, in whatever way.
struct Leaving<'a> {
    shared: &'a Shared,
    id: ConnectionId,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        lock(&self.shared.signals).remove(&self.id);
        self.shared.with(|broker, now| broker.closed(now, self.id));
    }
}

async fn open(shared: &Shared, arrival: Arrival) -> Option<(Vec<u8>, Reader, Writer)> {
    let mut stream = arrival.secure().await.ok()?;
    let mut first = vec![0; READ_BYTES];
    let length = stream
        .read(&mut first)
        .await
        .ok()
        .filter(|read| *read > 0)?;
    first.truncate(length);
    if first.first() != Some(&b'G') {
        let (reader, writer) = tokio::io::split(stream);
        return Some((first, Reader::Plain(reader), Writer::Plain(writer)));
    }
    let stream = Prefixed::new(first, stream);
    let (anyone, packet_max) = {
        let broker = lock(&shared.broker);
        let options = broker.options();
        let anyone = options.access == crate::broker::Access::Anyone;
        (anyone, options.limits.packet_bytes_max as usize)
    };
    let (reader, writer) = transport::upgrade(stream, packet_max, anyone).await?;
    Some((Vec::new(), reader, writer))
}

/// Hands what comes to the broker. It does not end: a client that sends no more may still be sent something.
async fn read(
    shared: &Shared,
    signals: &Signals,
    id: ConnectionId,
    mut reader: Reader,
) -> Infallible {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        while !lock(&shared.broker).wants_input(id) {
            signals.room.notified().await;
        }
        match reader.read(&mut buffer).await {
            Read::Bytes(bytes) => shared.with(|broker, now| broker.received(now, id, bytes)),
            Read::Text => shared.with(|broker, now| {
                broker.refuse(now, id, ReasonCode::PROTOCOL_ERROR);
            }),
            Read::End => break,
        }
    }
    signals.ended.notify_one();
    shared.with(|broker, now| broker.hang_up(now, id));
    std::future::pending().await
}

/// Writes what the broker has to say, until it closes the connection or nobody takes it.
async fn write(shared: &Shared, signals: &Signals, id: ConnectionId, mut writer: Writer) {
    loop {
        let mut output = Vec::new();
        let flow = shared.with(|broker, now| broker.take_output(now, id, &mut output));
        signals.room.notify_one();
        if !output.is_empty() {
            if !writer.write(output).await {
                return;
            }
            continue;
        }
        if flow == Flow::Close {
            break;
        }
        signals.output.notified().await;
    }
    let _ = timeout(LINGER, async {
        writer.close().await;
        signals.ended.notified().await;
    })
    .await;
}
