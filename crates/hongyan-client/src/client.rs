//! The app's side of the device connection: a handle to say things with, and an inbox.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};

use crate::error::Error;
use crate::options::{AckMode, Options, TokenSource};
use crate::session::Driver;
use crate::transport::Transport;
use crate::wire::{AppState, ClientEvent, EventKind, Message, NackCode};

/// How many commands of the app may wait for the driver.
const COMMANDS_MAX: usize = 64;

/// Most events that one [`Client::fetch`] takes.
pub const FETCH_MAX: usize = 1_024;
/// How long nothing comes after the connection is live until [`Client::fetch`] believes that nothing more waits.
const FETCH_QUIET: Duration = Duration::from_millis(200);

/// What arrives for the app.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A message, once.
    Message(Box<Message>),
    /// Remove the message from sight if it was shown.
    Recall {
        /// The message.
        id: String,
    },
    /// Older messages left the inbox before this device fetched them.
    Gap {
        /// How many, if known.
        lost: Option<u64>,
    },
}

/// What the connection is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// A connection is being made.
    Connecting {
        /// How many attempts came before it since the last long-lived connection.
        attempt: u32,
    },
    /// Connected; stored messages are coming.
    Replaying {
        /// The gateway's name of the session.
        session: String,
        /// Whether the gateway did not know the cursor and replays everything.
        full: bool,
        /// How it is connected.
        transport: Transport,
    },
    /// Connected and caught up.
    Live,
    /// Not connected.
    Waiting {
        /// How long until the next attempt.
        wait: Duration,
        /// Why the last connection ended.
        why: String,
    },
    /// The client will not connect any more.
    Stopped(Stop),
}

/// Why a client stopped for good.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stop {
    /// The app closed it, or dropped the inbox.
    Closed,
    /// A newer connection of the same device took over (4409).
    TakenOver,
    /// The device is blocked, not of this user, or was sent away by the app's server (4403).
    Blocked,
    /// The gateway did not understand this client (4400).
    NotUnderstood(String),
    /// The token was refused and no new one could be had (4401, 4410).
    NoToken(String),
}

impl std::fmt::Display for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Closed => f.write_str("closed by the app"),
            Self::TakenOver => f.write_str("a newer connection of this device took over"),
            Self::Blocked => {
                f.write_str("the device is blocked, not of this user, or was sent away")
            }
            Self::NotUnderstood(why) => write!(f, "the gateway did not understand: {why}"),
            Self::NoToken(why) => f.write_str(why),
        }
    }
}

/// Counters of one client since its start.
#[derive(Debug, Default)]
pub struct Stats {
    /// Number of the transport in use, or 0.
    pub(crate) transport: AtomicU8,
    pub(crate) connections: AtomicU64,
    pub(crate) messages: AtomicU64,
    pub(crate) copies: AtomicU64,
    pub(crate) unreadable: AtomicU64,
    pub(crate) saves_failed: AtomicU64,
    pub(crate) events_dropped: AtomicU64,
}

impl Stats {
    /// The transport in use; none while there is no connection.
    #[must_use]
    pub fn transport(&self) -> Option<Transport> {
        Transport::from_number(self.transport.load(Ordering::Relaxed))
    }
    /// Connections that were welcomed; with long polling, sequences of polls.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
    /// Messages that arrived for the first time.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }
    /// Copies that were dropped.
    #[must_use]
    pub fn copies(&self) -> u64 {
        self.copies.load(Ordering::Relaxed)
    }
    /// Messages of the gateway that could not be read.
    #[must_use]
    pub fn unreadable(&self) -> u64 {
        self.unreadable.load(Ordering::Relaxed)
    }
    /// Times that the storage did not keep the record.
    #[must_use]
    pub fn saves_failed(&self) -> u64 {
        self.saves_failed.load(Ordering::Relaxed)
    }
    /// Client events that were dropped because too many waited.
    #[must_use]
    pub fn events_dropped(&self) -> u64 {
        self.events_dropped.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
pub(crate) enum TopicChange {
    Join,
    Leave,
}

/// What the app asks of the driver.
#[derive(Debug)]
pub(crate) enum Command {
    Taken(String),
    Nack(String, NackCode),
    Event(ClientEvent),
    State(AppState),
    Topic {
        change: TopicChange,
        topic: String,
        reply: oneshot::Sender<Result<(), Error>>,
    },
    Ping(oneshot::Sender<Result<Duration, Error>>),
    Wake,
    Close,
    Kill,
}

/// A device's connection that keeps itself alive; cheap to clone.
///
/// The connection runs in a task of its own until the [`Inbox`] is dropped or [`Client::close`] is
/// called.
#[derive(Debug, Clone)]
pub struct Client {
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<Status>,
    stats: Arc<Stats>,
}

impl Client {
    /// Starts connecting. Has to be called within a tokio runtime.
    pub fn start(options: Options, tokens: Arc<dyn TokenSource>) -> (Self, Inbox) {
        let (commands, commands_out) = mpsc::channel(COMMANDS_MAX);
        let inflight = options.inflight.clamp(1, 256);
        let (outlet, events) = mpsc::channel(usize::from(inflight));
        let (status_in, status) = watch::channel(Status::Connecting { attempt: 0 });
        let stats = Arc::new(Stats::default());
        let ack = options.ack;
        let driver = Driver::new(
            options,
            tokens,
            commands_out,
            outlet,
            status_in,
            Arc::clone(&stats),
        );
        tokio::spawn(Box::pin(driver.run()));
        (
            Self {
                commands: commands.clone(),
                status,
                stats,
            },
            Inbox {
                events,
                commands,
                ack,
            },
        )
    }

    /// Connects for a moment: takes what waits for the device, acknowledges it and goes. For devices that were woken, see
    /// [`crate::wake`]. Give the same [`Options::storage`] as to other connections of the device, so that nothing is taken twice.
    ///
    /// It ends when the inbox is empty, at the latest after `at_most`, and after [`FETCH_MAX`] events; what it did not take
    /// waits for the next time.
    ///
    /// # Errors
    /// [`Error::Stopped`] when the gateway does not let the device in, [`Error::Disconnected`] when the inbox could not be
    /// reached in time. Never when something was taken.
    pub async fn fetch(
        options: Options,
        tokens: Arc<dyn TokenSource>,
        at_most: Duration,
    ) -> Result<Vec<Event>, Error> {
        let options = Options {
            ack: AckMode::OnReceive,
            ..options
        };
        let (client, mut inbox) = Self::start(options, tokens);
        let mut events = Vec::new();
        let end = tokio::time::sleep(at_most);
        tokio::pin!(end);
        let mut caught_up = false;
        let outcome = loop {
            if events.len() >= FETCH_MAX {
                break Ok(());
            }
            tokio::select! {
                biased;
                event = inbox.recv() => match event {
                    Some(event) => events.push(event),
                    None => break Err(client.stopped()),
                },
                () = &mut end => break Err(Error::Disconnected { what: "fetch" }),
                // What came before the connection was live may still be on its way from the driver.
                () = tokio::time::sleep(FETCH_QUIET), if caught_up => break Ok(()),
                now = client.caught_up(), if !caught_up => match now {
                    Ok(()) => caught_up = true,
                    Err(error) => break Err(error),
                },
            }
        };
        client.close().await;
        match outcome {
            Err(error) if events.is_empty() && !caught_up => Err(error),
            _ => Ok(events),
        }
    }

    /// What the connection is doing now.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Follows what the connection is doing; only the newest status is kept.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Waits until the connection is live and caught up.
    ///
    /// # Errors
    /// [`Error::Stopped`] when the client stops before.
    pub async fn caught_up(&self) -> Result<(), Error> {
        let mut status = self.status.clone();
        let now = status
            .wait_for(|s| matches!(s, Status::Live | Status::Stopped(_)))
            .await
            .map(|s| s.clone());
        match now {
            Ok(Status::Live) => Ok(()),
            Ok(Status::Stopped(why)) => Err(Error::Stopped {
                why: why.to_string(),
            }),
            _ => Err(Error::Stopped {
                why: "its task ended".to_owned(),
            }),
        }
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Acknowledges a message, for [`AckMode::Manual`]. Unknown ids are ignored.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn ack(&self, id: &str) -> Result<(), Error> {
        self.command(Command::Taken(id.to_owned())).await
    }

    /// Says that a message was not taken, before it was acknowledged.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn nack(&self, id: &str, code: NackCode) -> Result<(), Error> {
        self.command(Command::Nack(id.to_owned(), code)).await
    }

    /// Reports what a person did; waits for a connection, across restarts when there is a storage.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn event(&self, id: &str, kind: EventKind) -> Result<(), Error> {
        let event = ClientEvent {
            id: id.to_owned(),
            kind,
            at: Timestamp::now(),
        };
        self.command(Command::Event(event)).await
    }

    /// Reports that the message was on the screen.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn displayed(&self, id: &str) -> Result<(), Error> {
        self.event(id, EventKind::Displayed).await
    }

    /// Reports that the message was tapped.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn clicked(&self, id: &str) -> Result<(), Error> {
        self.event(id, EventKind::Clicked).await
    }

    /// Says whether a person looks at the app; said again on every connection.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn set_state(&self, state: AppState) -> Result<(), Error> {
        self.command(Command::State(state)).await
    }

    /// Joins a topic.
    ///
    /// # Errors
    /// [`Error::Refused`] by the gateway, [`Error::Disconnected`] without a reply, [`Error::Stopped`].
    pub async fn subscribe(&self, topic: &str) -> Result<(), Error> {
        self.topic(TopicChange::Join, topic).await
    }

    /// Leaves a topic.
    ///
    /// # Errors
    /// As [`Client::subscribe`].
    pub async fn unsubscribe(&self, topic: &str) -> Result<(), Error> {
        self.topic(TopicChange::Leave, topic).await
    }

    async fn topic(&self, change: TopicChange, topic: &str) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Topic {
            change,
            topic: topic.to_owned(),
            reply,
        })
        .await?;
        answer.await.unwrap_or_else(|_| Err(self.stopped()))
    }

    /// Measures the way to the gateway and back.
    ///
    /// # Errors
    /// [`Error::Disconnected`] without a connection, [`Error::Stopped`].
    pub async fn ping(&self) -> Result<Duration, Error> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Ping(reply)).await?;
        answer.await.unwrap_or_else(|_| Err(self.stopped()))
    }

    /// Ends a wait before a reconnect: for "the network is back" and "the app came to the front".
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn wake(&self) -> Result<(), Error> {
        self.command(Command::Wake).await
    }

    /// Acknowledges what was taken, says goodbye and stops; waits until that is done.
    pub async fn close(&self) {
        if self.command(Command::Close).await.is_ok() {
            self.gone().await;
        }
    }

    /// Stops as if the process were killed: no ack, no goodbye. For simulations.
    pub async fn kill(&self) {
        if self.command(Command::Kill).await.is_ok() {
            self.gone().await;
        }
    }

    async fn gone(&self) {
        let mut status = self.status.clone();
        // An error means that the driver's task is gone, which is what was awaited.
        let _ = status.wait_for(|s| matches!(s, Status::Stopped(_))).await;
    }

    async fn command(&self, command: Command) -> Result<(), Error> {
        self.commands
            .send(command)
            .await
            .map_err(|_| self.stopped())
    }

    fn stopped(&self) -> Error {
        let why = match &*self.status.borrow() {
            Status::Stopped(stop) => stop.to_string(),
            _ => "its task ended".to_owned(),
        };
        Error::Stopped { why }
    }
}

/// Where messages come out, in order.
///
/// What the app does not take stays unacknowledged; the gateway then sends no more than `inflight`.
#[derive(Debug)]
pub struct Inbox {
    events: mpsc::Receiver<Event>,
    commands: mpsc::Sender<Command>,
    ack: AckMode,
}

impl Inbox {
    /// Waits for the next event; `None` when the client has stopped.
    ///
    /// With [`AckMode::OnReceive`] the message counts as taken when this returns: it is recorded,
    /// then acknowledged, within [`crate::Timers::ack_delay`]. A process that is killed within that
    /// time may see the message again; one that must not uses [`AckMode::Manual`] and its own record.
    ///
    /// Cancel safe: an event is either returned or stays.
    pub async fn recv(&mut self) -> Option<Event> {
        if self.ack != AckMode::OnReceive {
            return self.events.recv().await;
        }
        // The place for the command comes first, so that nothing awaits between pop and return.
        match self.commands.reserve().await {
            Ok(permit) => {
                let event = self.events.recv().await?;
                if let Event::Message(message) = &event {
                    permit.send(Command::Taken(message.id.clone()));
                }
                Some(event)
            }
            Err(_) => self.events.recv().await,
        }
    }
}
