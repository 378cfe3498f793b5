//! Many client connections on one thread, so that the clients cost little beside the server.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustls::ClientConfig;

use crate::dialect::{Client, Dialect, Heard, Phase, Speaker, http};
use crate::drive::{bar, histogram};
use crate::link::Link;
use crate::quiet::nanos;

/// Connections that are being opened at once.
const OPENING_LEN: usize = 128;
/// Time in which all connections have to be open.
const OPEN_WITHIN: Duration = Duration::from_secs(180);

#[derive(Debug)]
struct Connection {
    link: Link,
    speaker: Speaker,
    /// The begin of a unit that is not whole yet; no memory while there is none.
    input: Vec<u8>,
    output: Vec<u8>,
}

/// Who connects.
#[derive(Debug, Clone)]
pub struct Clients {
    /// The device token of each, where the protocol has one.
    pub tokens: Vec<String>,
    /// How many of them, from the first, follow the topic.
    pub followers: usize,
    /// Messages that a client takes before it acknowledges them.
    pub ack_every: u32,
    /// TLS, when the server speaks it.
    pub tls: Option<Arc<ClientConfig>>,
}

impl Clients {
    fn of(&self, key: usize, dialect: Dialect) -> Client<'_> {
        Client {
            dialect,
            follow: key < self.followers,
            token: &self.tokens[key],
        }
    }
}

/// A connection for requests beside the streams: where acknowledgements go that have no way back.
#[derive(Debug)]
struct Aside {
    stream: std::net::TcpStream,
    output: Vec<u8>,
    answers: Vec<u8>,
}

impl Aside {
    fn connect(server: SocketAddr) -> anyhow::Result<Self> {
        let stream = std::net::TcpStream::connect(server)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            output: Vec::new(),
            answers: vec![0; 64 * 1024],
        })
    }

    /// Sends what waits, and drops the answers.
    fn turn(&mut self) -> anyhow::Result<()> {
        loop {
            match self.stream.read(&mut self.answers) {
                Ok(0) => bail!("the server ended the connection of acknowledgements"),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("acknowledgements broke"),
            }
        }
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(written) => drop(self.output.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("acknowledgements broke"),
            }
        }
        Ok(())
    }
}

/// Connections of one kind to one server.
#[derive(Debug)]
pub struct Swarm {
    poll: Poll,
    events: Events,
    connections: Vec<Connection>,
    dialect: Dialect,
    clients: Clients,
    aside: Option<Aside>,
    buffer: Vec<u8>,
    ready: usize,
    gone: usize,
    /// Messages that arrived.
    pub delivered: u64,
    /// Heartbeats that were answered.
    pub beats: u64,
    /// From sending to arrival, microseconds.
    pub latency: Histogram<u64>,
}

impl Swarm {
    /// Opens connections until all are authenticated and subscribed.
    ///
    /// # Errors
    /// When the server refuses or drops one, or they are not ready in time.
    pub fn open(server: SocketAddr, dialect: Dialect, clients: Clients) -> anyhow::Result<Self> {
        let count = clients.tokens.len();
        let aside = match dialect {
            Dialect::Sse => Some(Aside::connect(server)?),
            _ => None,
        };
        let mut swarm = Self {
            poll: Poll::new().context("the system gave no event queue")?,
            events: Events::with_capacity(4096),
            connections: Vec::with_capacity(count),
            dialect,
            clients,
            aside,
            buffer: vec![0; 256 * 1024],
            ready: 0,
            gone: 0,
            delivered: 0,
            beats: 0,
            latency: histogram()?,
        };
        let deadline = Instant::now() + OPEN_WITHIN;
        let bar = bar("connecting", count as u64);
        while swarm.ready < count {
            while swarm.connections.len() < count
                && swarm.connections.len() - swarm.ready < OPENING_LEN
            {
                swarm.add(server)?;
            }
            swarm.turn(Duration::from_millis(100))?;
            bar.set_position(swarm.ready as u64);
            if Instant::now() > deadline {
                bail!(
                    "only {} of {count} connections were ready in time",
                    swarm.ready
                );
            }
        }
        bar.finish_and_clear();
        Ok(swarm)
    }

    fn add(&mut self, server: SocketAddr) -> anyhow::Result<()> {
        let mut stream = TcpStream::connect(server)
            .context("a connection cannot be opened; are files or ports used up? ask for fewer")?;
        let key = self.connections.len();
        self.poll.registry().register(
            &mut stream,
            Token(key),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        self.connections.push(Connection {
            link: Link::new(stream, self.clients.tls.as_ref())?,
            speaker: Speaker::new(key as u32, self.clients.ack_every),
            input: Vec::new(),
            output: Vec::new(),
        });
        Ok(())
    }

    /// How many connections there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// Forgets what was counted.
    pub fn reset(&mut self) {
        self.delivered = 0;
        self.beats = 0;
        self.latency.reset();
    }

    /// Every connection sends a heartbeat.
    ///
    /// # Errors
    /// When a connection breaks.
    pub fn beat(&mut self) -> anyhow::Result<()> {
        for key in 0..self.connections.len() {
            Speaker::beat(self.dialect, &mut self.connections[key].output);
            self.write(key)?;
            if key % 256 == 0 {
                self.turn(Duration::ZERO)?;
            }
        }
        Ok(())
    }

    /// Waits for something to happen, at most so long, and works it off.
    ///
    /// # Errors
    /// When the server ends a connection.
    pub fn turn(&mut self, at_most: Duration) -> anyhow::Result<()> {
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        match self.poll.poll(&mut events, Some(at_most)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        for event in &events {
            let key = event.token().0;
            if event.is_writable() {
                if self.connections[key].speaker.phase == Phase::Connecting {
                    self.connected(key)?;
                }
                self.write(key)?;
            }
            if event.is_readable() || event.is_read_closed() {
                self.read(key)?;
            }
        }
        self.events = events;
        if let Some(aside) = &mut self.aside {
            aside.turn()?;
        }
        if self.gone > 0 {
            bail!("the server ended {} connections", self.gone);
        }
        Ok(())
    }

    fn connected(&mut self, key: usize) -> anyhow::Result<()> {
        let connection = &mut self.connections[key];
        if let Some(error) = connection.link.tcp.take_error()? {
            return Err(error).context("the server refused a connection");
        }
        if connection.link.tcp.peer_addr().is_ok() {
            connection.link.tcp.set_nodelay(true)?;
            let client = self.clients.of(key, self.dialect);
            connection.speaker.open(client, &mut connection.output);
        }
        Ok(())
    }

    fn write(&mut self, key: usize) -> anyhow::Result<()> {
        let connection = &mut self.connections[key];
        while !connection.output.is_empty() {
            match connection.link.write(&connection.output) {
                Ok(written) => drop(connection.output.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("a connection broke while writing"),
            }
        }
        connection.output = Vec::new();
        connection
            .link
            .flush()
            .context("a connection broke while writing")
    }

    fn read(&mut self, key: usize) -> anyhow::Result<()> {
        let mut heard = Heard::default();
        loop {
            let connection = &mut self.connections[key];
            let read = match connection.link.read(&mut self.buffer) {
                Ok(0) => {
                    self.gone += 1;
                    break;
                }
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).context("a connection broke while reading"),
            };
            let before = connection.speaker.phase;
            let client = self.clients.of(key, self.dialect);
            let Connection {
                speaker,
                input,
                output,
                ..
            } = connection;
            let fresh = &self.buffer[..read];
            if input.is_empty() {
                let taken = speaker.hear(client, fresh, &mut heard, output);
                input.extend_from_slice(&fresh[taken..]);
            } else {
                input.extend_from_slice(fresh);
                let taken = speaker.hear(client, input, &mut heard, output);
                input.drain(..taken);
                if input.is_empty() {
                    *input = Vec::new();
                }
            }
            let after = speaker.phase;
            if before != Phase::Ready && after == Phase::Ready {
                self.ready += 1;
            }
            if after == Phase::Gone {
                self.gone += 1;
                break;
            }
            self.write(key)?;
            if read < self.buffer.len() && self.connections[key].link.is_plain() {
                // Drained: what comes later wakes again.
                break;
            }
        }
        if let (Some(upto), Some(aside)) = (&heard.upto, &mut self.aside) {
            http::acknowledge(upto, &self.clients.tokens[key], &mut aside.output);
        }
        self.beats += heard.beats as u64;
        self.delivered += heard.sent.len() as u64;
        if !heard.sent.is_empty() {
            let now = nanos();
            for sent in heard.sent {
                self.latency
                    .saturating_record((now.saturating_sub(sent) / 1_000).max(1));
            }
        }
        Ok(())
    }
}
