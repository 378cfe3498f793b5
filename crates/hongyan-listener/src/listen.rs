//! The accept loop, and what a connection goes through before its protocol has it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::secure;
use crate::transport::Transport;

/// First and longest pause after the system gave no connection: mostly there are no file descriptors left, and the next try
/// fails at once as well.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// A listening socket and what holds for its connections.
#[derive(Debug)]
pub struct Listener {
    /// What it is called in metrics and traces; from a closed list.
    pub name: &'static str,
    /// The socket.
    pub socket: TcpListener,
    /// The settings of TLS, when it is spoken here. What `enable_secret_extraction` means: [`secure::accept`].
    pub tls: Option<Arc<ServerConfig>>,
    /// Time from a connection's first moment until its TLS handshake is done, whatever is spoken before.
    pub opening: Duration,
}

/// A pause of the accept loop.
#[derive(Debug, Clone, Copy)]
struct Pause {
    until: Instant,
    length: Duration,
}

/// Who decides about connections and takes them.
pub trait Door: Clone + Send + Sync + 'static {
    /// The right to be here.
    type Place: Send + 'static;

    /// Finds a place for a connection. It is called in the accept loop: it must not block.
    ///
    /// # Errors
    /// [`Refusal`], when there is none; the connection is closed.
    fn admit(&self, peer: SocketAddr) -> Result<Self::Place, Refusal>;

    /// Has the connection until this resolves, in a task of its own. A panic costs that connection.
    fn welcome(
        self,
        arrival: Arrival,
        place: Self::Place,
    ) -> impl Future<Output = ()> + Send + 'static;
}

/// There is no place for a connection.
#[derive(Debug, Clone, Copy)]
pub struct Refusal {
    /// What it is told, where that can be said before TLS; empty where the protocol has no word for it yet.
    pub words: &'static [u8],
}

impl Listener {
    /// Accepts until `stop` resolves, then closes the socket and answers the connections that are under way. Dropping these
    /// cuts them; waiting for them needs a deadline.
    pub async fn run<D: Door>(self, door: D, stop: impl Future<Output = ()>) -> JoinSet<()> {
        let name = self.name;
        let mut under_way = JoinSet::new();
        let mut pause = None;
        tokio::pin!(stop);
        loop {
            let accepted = tokio::select! {
                accepted = accept(&self.socket, pause) => accepted,
                Some(ended) = under_way.join_next(), if !under_way.is_empty() => {
                    note(name, ended);
                    continue;
                }
                () = &mut stop => break,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    pause = self.failed(&error, pause);
                    continue;
                }
            };
            pause = None;
            let place = match door.admit(peer) {
                Ok(place) => place,
                Err(refusal) => {
                    metrics::counter!("hongyan_listener_refused_total", "listener" => name)
                        .increment(1);
                    if self.tls.is_none() && !refusal.words.is_empty() {
                        // Whoever is too fast to hear it learns as much from the end.
                        let _ = stream.try_write(refusal.words);
                    }
                    continue;
                }
            };
            // Everything that leaves is a whole turn; waiting for more would only cost time.
            let _ = stream.set_nodelay(true);
            let arrival = Arrival {
                name,
                stream,
                peer,
                tls: self.tls.clone(),
                due: Instant::now() + self.opening,
            };
            under_way.spawn(door.clone().welcome(arrival, place));
        }
        under_way
    }

    /// A connection could not be accepted; how long to wait before the next try.
    fn failed(&self, error: &io::Error, last: Option<Pause>) -> Option<Pause> {
        metrics::counter!("hongyan_listener_accept_errors_total", "listener" => self.name)
            .increment(1);
        if matches!(
            error.kind(),
            io::ErrorKind::ConnectionAborted
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionRefused
                | io::ErrorKind::Interrupted
        ) {
            // That one is gone; the next one need not wait for it.
            return last;
        }
        if last.is_none() {
            tracing::warn!(listener = self.name, %error, "no connection can be accepted; is the limit of open files reached?");
        }
        let length = last.map_or(PAUSE.0, |last| (last.length * 2).min(PAUSE.1));
        Some(Pause {
            until: Instant::now() + length,
            length,
        })
    }
}

async fn accept(socket: &TcpListener, pause: Option<Pause>) -> io::Result<(TcpStream, SocketAddr)> {
    if let Some(pause) = pause {
        sleep_until(pause.until).await;
    }
    socket.accept().await
}

fn note(name: &'static str, ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        metrics::counter!("hongyan_listener_panics_total", "listener" => name).increment(1);
        tracing::error!(
            listener = name,
            "the task of a connection failed and was closed; please report it"
        );
    }
}

/// A connection that was let in and is not open yet.
#[derive(Debug)]
pub struct Arrival {
    name: &'static str,
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<Arc<ServerConfig>>,
    due: Instant,
}

impl Arrival {
    /// Where it comes from.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The bare socket, for what a protocol says before TLS.
    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// The time by which it must be open.
    #[must_use]
    pub fn due(&self) -> Instant {
        self.due
    }

    /// Opens it: with the TLS handshake where TLS is spoken.
    ///
    /// # Errors
    /// When the handshake fails or is not done in time.
    pub async fn secure(self) -> io::Result<Transport> {
        let Some(tls) = self.tls else {
            return Ok(Transport::Plain(self.stream));
        };
        // Handshakes are large and the tasks that wait for them are many.
        let handshake = Box::pin(secure::accept(&tls, self.stream));
        let secured = match timeout_at(self.due, handshake).await {
            Ok(Ok(secure)) => Ok(Transport::Tls(Box::new(secure))),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the TLS handshake was not done in time",
            )),
        };
        if secured.is_err() {
            metrics::counter!("hongyan_listener_handshakes_failed_total", "listener" => self.name)
                .increment(1);
        }
        secured
    }
}
