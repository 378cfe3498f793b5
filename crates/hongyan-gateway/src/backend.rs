//! The slow side: what sessions need of the store, and what they report, on tokio.
//!
//! Requests are answered in any order, at most so many at once. Reports are worked off one after
//! the other by one task, so that everything a device said reaches dispatch in its order; while
//! that task waits, reactors read less.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use hongyan_core::port::{Ack, InboxPage, Reader, SessionSink};
use hongyan_core::session::{AppState, SessionEvent, SessionSaid};
use hongyan_core::{
    AppId, Cursor, Device, MessageId, SessionId, Stage, StoreError, Timestamp, Topic, limits,
};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::gateway::Ports;
use crate::hub::{Hub, Left};
use crate::mailbox::{Again, Command, Greeted, Page};
use crate::protocol::websocket::close;
use crate::protocol::{Kind, Proof};
use crate::seat::Seat;
use crate::session::Read;

/// Acks of different devices that are written at once: one group commit takes them all.
const ACKS_AT_ONCE: usize = 256;
/// Turns of reactors whose reports are worked off together.
const BATCHES_AT_ONCE: usize = 32;
/// Reads of one job that are under way at once.
const READS_AT_ONCE: usize = 16;
/// How long a new connection waits for the end of the one that it takes over.
const TAKEOVER_WAIT: Duration = Duration::from_secs(2);
/// Tries of an acknowledgement before the entries are left to come again.
const ACK_TRIES: usize = 5;

/// What a protocol wants to know of the store; the answer goes back to it.
pub(crate) struct Ask(pub(crate) Question);

/// Instead of an answer to an [`Ask`], when it could not be asked.
#[derive(Debug)]
pub(crate) struct Unanswered;

type Question = Box<dyn FnOnce(Ports) -> Pin<Box<dyn Future<Output = Answer> + Send>> + Send>;
type Answer = Box<dyn Any + Send>;

impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ask")
    }
}

/// What a session needs.
#[derive(Debug)]
pub(crate) enum Job {
    Hello {
        session: SessionId,
        proof: Proof,
        kind: Kind,
        state: AppState,
        /// Of the page that connected, if it is one.
        origin: Option<Box<str>>,
    },
    /// For a protocol.
    Ask {
        session: SessionId,
        ask: Ask,
    },
    /// Sessions of one reactor.
    Reads(Vec<Wanted>),
    Again {
        session: SessionId,
        seat: Seat,
        id: MessageId,
        place: Cursor,
    },
    Topic {
        session: SessionId,
        seat: Seat,
        topic: Topic,
        follow: bool,
    },
    Resubscribe {
        session: SessionId,
        seat: Seat,
    },
}

/// A read that a session wants.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) session: SessionId,
    pub(crate) seat: Seat,
    pub(crate) read: Read,
}

/// What a session has to say.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) seat: Seat,
    pub(crate) what: What,
}

#[derive(Debug)]
pub(crate) enum What {
    Up(SessionId),
    Down(SessionId),
    Sent(SessionId, Vec<MessageId>),
    Ack(Ack),
    Reject(MessageId),
    /// For the app.
    Said(String),
    Client {
        message: MessageId,
        stage: Stage,
        at: Option<Timestamp>,
    },
}

/// What the tasks share.
#[derive(Debug, Clone)]
pub(crate) struct Backend {
    pub(crate) ports: Ports,
    pub(crate) hub: Hub,
}

/// Answers its session when it is dropped unanswered, so that no session waits for ever.
struct Reply<'a> {
    hub: &'a Hub,
    session: SessionId,
    otherwise: Option<Command>,
}

impl Reply<'_> {
    fn send(mut self, command: Command) {
        self.otherwise = None;
        self.hub.mailbox(self.session).push(command);
    }

    /// Somebody else answers.
    fn unneeded(mut self) {
        self.otherwise = None;
    }
}

impl Drop for Reply<'_> {
    fn drop(&mut self) {
        if let Some(command) = self.otherwise.take() {
            self.hub.mailbox(self.session).push(command);
        }
    }
}

/// A refusal: close code, word and detail.
type Refusal = (u16, &'static str, &'static str);

const UNAUTHORIZED: Refusal = (
    close::UNAUTHORIZED,
    "unauthorized",
    "the device token or ticket is unknown, used up or was revoked",
);
const FOREIGN_PAGE: Refusal = (
    close::FORBIDDEN,
    "origin_forbidden",
    "the device's app does not name this page's origin",
);
const DELETED: Refusal = (
    close::DEVICE_GONE,
    "device_deleted",
    "the device was deleted",
);
const AWAY: Refusal = (
    close::TRY_AGAIN,
    "unavailable",
    "the store is away or busy; try again later",
);

impl Backend {
    /// Answers requests until all reactors have ended.
    pub(crate) async fn answer(self, mut jobs: mpsc::Receiver<Job>, concurrency: usize) {
        let mut tasks = JoinSet::new();
        loop {
            tokio::select! {
                job = jobs.recv(), if tasks.len() < concurrency => match job {
                    Some(job) => {
                        let backend = self.clone();
                        tasks.spawn(async move { backend.one(job).await });
                    }
                    None => break,
                },
                Some(ended) = tasks.join_next() => {
                    if ended.is_err_and(|error| error.is_panic()) {
                        metrics::counter!("hongyan_gateway_panics_total").increment(1);
                    }
                }
            }
        }
        while tasks.join_next().await.is_some() {}
    }

    async fn one(&self, job: Job) {
        match job {
            Job::Hello {
                session,
                proof,
                kind,
                state,
                origin,
            } => {
                self.hello(session, &proof, kind, state, origin.as_deref())
                    .await;
            }
            Job::Ask { session, ask } => {
                let what: Answer = Box::new(Unanswered);
                let reply = self.reply(session, Command::Tell { session, what });
                let what = ask.0(self.ports.clone()).await;
                reply.send(Command::Tell { session, what });
            }
            Job::Reads(wanted) => self.reads(wanted).await,
            Job::Again {
                session,
                seat,
                id,
                place,
            } => {
                let reply = self.reply(
                    session,
                    Command::Again {
                        session,
                        seat: seat.clone(),
                        id,
                        place,
                        message: Again::Unknown,
                    },
                );
                let app = AppId::known(seat.app());
                match self.again(&app, id).await {
                    Ok(message) => {
                        reply.send(Command::Again {
                            session,
                            seat,
                            id,
                            place,
                            message,
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%app, %error, "a message read failed")
                    }
                }
            }
            Job::Topic {
                session,
                seat,
                topic,
                follow,
            } => {
                let reply = self.reply(
                    session,
                    Command::Topic {
                        session,
                        topic: topic.clone(),
                        result: Err(("unavailable", "the store is away; try again later")),
                    },
                );
                let reader = seat.reader();
                match self.follow(session, &reader, &topic, follow).await {
                    Ok(result) => reply.send(Command::Topic {
                        session,
                        topic,
                        result,
                    }),
                    Err(error) => {
                        tracing::warn!(app = %reader.app, %error, "a subscription failed")
                    }
                }
            }
            Job::Resubscribe { session, seat } => {
                self.reload_topics(session, &seat.reader()).await;
            }
        }
    }

    /// Reads pages for sessions of one reactor and answers them in one command.
    async fn reads(&self, wanted: Vec<Wanted>) {
        let Some(first) = wanted.first() else { return };
        let session = first.session;
        let failed = wanted.iter().map(|one| Page {
            session: one.session,
            seat: one.seat.clone(),
            page: None,
        });
        let reply = self.reply(session, Command::Pages(failed.collect()));
        let reads: Vec<_> = wanted.into_iter().map(|one| self.read(one)).collect();
        let pages = stream::iter(reads)
            .buffer_unordered(READS_AT_ONCE)
            .collect()
            .await;
        reply.send(Command::Pages(pages));
    }

    async fn read(&self, wanted: Wanted) -> Page {
        let Wanted {
            session,
            seat,
            read,
        } = wanted;
        let reader = seat.reader();
        let now = self.ports.clock.now();
        let page = match self
            .ports
            .inbox
            .read(&reader, read.after, read.limit, now)
            .await
        {
            Ok(page) => Some(Box::new(page)),
            Err(error) => {
                tracing::warn!(app = %reader.app, %error, "an inbox read failed; it is made again");
                None
            }
        };
        Page {
            session,
            seat,
            page,
        }
    }

    fn reply(&self, session: SessionId, otherwise: Command) -> Reply<'_> {
        Reply {
            hub: &self.hub,
            session,
            otherwise: Some(otherwise),
        }
    }

    async fn hello(
        &self,
        session: SessionId,
        proof: &Proof,
        kind: Kind,
        state: AppState,
        origin: Option<&str>,
    ) {
        let refuse = |(close, code, detail): Refusal| Command::Refuse {
            session,
            close,
            code,
            detail,
        };
        let reply = self.reply(session, refuse(AWAY));
        match self.greet(session, proof, kind, state, origin).await {
            Ok(Ok(greeted)) => reply.send(Command::Welcome {
                session,
                greeted: Box::new(greeted),
            }),
            Ok(Err(refusal)) => reply.send(refuse(refusal)),
            Err(error) => tracing::warn!(%error, "a hello could not be answered"),
        }
    }

    async fn greet(
        &self,
        session: SessionId,
        proof: &Proof,
        kind: Kind,
        state: AppState,
        origin: Option<&str>,
    ) -> Result<Result<Greeted, Refusal>, StoreError> {
        let now = self.ports.clock.now();
        let Some(device) = self.authenticate(proof, now).await? else {
            return Ok(Err(UNAUTHORIZED));
        };
        if let Some(origin) = origin
            && !self.allows(&device.app, origin).await?
        {
            return Ok(Err(FOREIGN_PAGE));
        }
        let reader = Arc::new(Reader {
            app: device.app.clone(),
            device: device.id.clone(),
            user: device.user.clone(),
        });
        let registered = self.hub.register(session, &reader, kind, state, now);
        let greeted = self
            .settle((session, kind), device, &reader, registered.former, now)
            .await;
        let greeted = greeted.map(|settled| {
            settled.map(|(page, left)| Greeted {
                reader: Arc::clone(&reader),
                seat: registered.seat.clone(),
                page,
                unfinished: left.unfinished,
                parked: left.parked,
                state,
            })
        });
        if !matches!(greeted, Ok(Ok(_))) {
            self.hub
                .unregister(session, &registered.seat, Left::default());
        }
        greeted
    }

    /// Whether the app names this origin: before the device was known, any app's would do.
    async fn allows(&self, app: &AppId, origin: &str) -> Result<bool, StoreError> {
        let app = self.ports.registry.app(app).await?;
        Ok(app.is_some_and(|app| {
            let mut origins = app.policy.origins.iter();
            origins.any(|one| one == "*" || one == origin)
        }))
    }

    /// The device of a device token or ticket. A ticket is used up by this, whatever comes of it; it is worth nothing
    /// once the device has changed hands.
    async fn authenticate(
        &self,
        proof: &Proof,
        now: Timestamp,
    ) -> Result<Option<Device>, StoreError> {
        let proof = match proof {
            Proof::Secret(secret) => secret,
            Proof::Device {
                app,
                device,
                secret_hash,
            } => {
                let found = self
                    .ports
                    .registry
                    .devices(app, std::slice::from_ref(device))
                    .await?;
                let device = found.into_iter().next().flatten();
                return Ok(device.filter(|d| d.secret_hash == *secret_hash));
            }
        };
        if let Some(holder) = self.hub.tickets().redeem(proof, now) {
            let found = self
                .ports
                .registry
                .devices(&holder.app, &[holder.device])
                .await?;
            let device = found.into_iter().next().flatten();
            return Ok(device.filter(|d| d.user == holder.user));
        }
        let digest = ring::digest::digest(&ring::digest::SHA256, proof.expose());
        match <[u8; 32]>::try_from(digest.as_ref()) {
            Ok(hash) => self.ports.registry.device_by_secret(&hash).await,
            Err(_) => Ok(None),
        }
    }

    /// From here on the hub reaches the session. What changed between the first look at the
    /// registry and the registration is seen by a second look; what changes later is told.
    async fn settle(
        &self,
        (session, kind): (SessionId, Kind),
        first: Device,
        reader: &Arc<Reader>,
        former: Option<tokio::sync::oneshot::Receiver<()>>,
        now: Timestamp,
    ) -> Result<Result<(InboxPage, Left), Refusal>, StoreError> {
        if let Some(former) = former {
            let _ = tokio::time::timeout(TAKEOVER_WAIT, former).await;
        }
        // What is acknowledged is not to come again.
        if let Some(written) = self.hub.unwritten(reader) {
            let _ = tokio::time::timeout(TAKEOVER_WAIT, written).await;
        }
        let again = self
            .ports
            .registry
            .devices(&first.app, std::slice::from_ref(&first.id))
            .await?;
        let Some(device) = again.into_iter().next().flatten() else {
            return Ok(Err(DELETED));
        };
        if device.secret_hash != first.secret_hash {
            return Ok(Err(UNAUTHORIZED));
        }
        if device.user != first.user || device.binding != first.binding {
            return Ok(Err((
                close::RESTART,
                "binding_changed",
                "the device's user changed meanwhile; connect again",
            )));
        }
        self.load_topics(session, reader).await?;
        let left = self.hub.take_left(reader, kind).unwrap_or_default();
        let page = self
            .ports
            .inbox
            .read(reader, None, FIRST_PAGE_LEN, now)
            .await?;
        self.ports
            .registry
            .touch_device(&device.app, &device.id, now)
            .await?;
        Ok(Ok((page, left)))
    }

    async fn load_topics(&self, session: SessionId, reader: &Reader) -> Result<(), StoreError> {
        let mark = self.hub.topics_mark(reader);
        let topics = self
            .ports
            .registry
            .topics_of(&reader.app, &reader.device)
            .await?;
        let topics = topics
            .into_iter()
            .take(limits::TOPICS_PER_DEVICE_MAX)
            .map(|subscription| subscription.topic)
            .collect();
        self.hub.set_topics(session, reader, topics, mark);
        Ok(())
    }

    /// Reads a live session's topics anew. It is done again later when it fails, as nothing is certain until then.
    async fn reload_topics(&self, session: SessionId, reader: &Reader) {
        let unread = self.reply(session, Command::TopicsUnread(session));
        // First this, so that nothing from before a subscription is given without a read; then again for what came
        // before its topics were known.
        self.hub.mailbox(session).push(Command::Wake(vec![session]));
        match self.load_topics(session, reader).await {
            Ok(()) => unread.send(Command::Wake(vec![session])),
            Err(error) => {
                tracing::warn!(app = %reader.app, %error, "topics could not be read; it is tried again");
            }
        }
    }

    async fn follow(
        &self,
        session: SessionId,
        reader: &Reader,
        topic: &Topic,
        follow: bool,
    ) -> Result<Result<(), (&'static str, &'static str)>, StoreError> {
        let devices = std::slice::from_ref(&reader.device);
        if follow {
            let topics = self
                .ports
                .registry
                .topics_of(&reader.app, &reader.device)
                .await?;
            let known = topics
                .iter()
                .any(|subscription| subscription.topic == *topic);
            if !known && topics.len() >= limits::TOPICS_PER_DEVICE_MAX {
                return Ok(Err((
                    "too_many_topics",
                    "a device follows at most 200 topics",
                )));
            }
        }
        // Before, so that nobody relies on what is known while it is written; after, so that what was read meanwhile is not
        // taken for what is written. If this ends in between, the topics are read all the same.
        let unread = self.reply(session, Command::TopicsUnread(session));
        self.hub.topics_change(reader);
        let registry = &self.ports.registry;
        if follow {
            registry.subscribe(&reader.app, topic, devices).await?;
        } else {
            registry.unsubscribe(&reader.app, topic, devices).await?;
        }
        self.hub.topics_change(reader);
        unread.unneeded();
        self.reload_topics(session, reader).await;
        Ok(Ok(()))
    }

    async fn again(&self, app: &AppId, id: MessageId) -> Result<Again, StoreError> {
        if self.ports.inbox.recalled(app, id).await?.is_some() {
            return Ok(Again::Gone);
        }
        let message = self.ports.inbox.message(app, id).await?;
        Ok(
            match message.filter(|message| message.expires_at > self.ports.clock.now()) {
                Some(message) => Again::Send(message),
                None => Again::Gone,
            },
        )
    }

    /// Works off reports until all reactors have ended.
    pub(crate) async fn report(
        self,
        mut reports: mpsc::Receiver<Vec<Report>>,
        sink: Arc<dyn SessionSink>,
    ) {
        let mut batches = Vec::new();
        while reports.recv_many(&mut batches, BATCHES_AT_ONCE).await > 0 {
            let batch: Vec<Report> = batches.drain(..).flatten().collect();
            let acked = self.write_acks(&batch).await;
            for report in &batch {
                if let What::Down(session) = report.what {
                    self.hub.written(session, &report.seat);
                }
            }
            let now = self.ports.clock.now();
            let events: Vec<SessionEvent> = batch
                .into_iter()
                .enumerate()
                .filter_map(|(at, report)| event(report, acked.get(&at), now))
                .collect();
            if !events.is_empty() {
                sink.accept(events).await;
            }
        }
    }

    /// Writes the acks of a batch, those of one device in their order; what each acked newly.
    async fn write_acks(&self, batch: &[Report]) -> HashMap<usize, Vec<MessageId>> {
        let mut by_seat: HashMap<usize, Vec<(usize, Ack)>> = HashMap::new();
        for (at, report) in batch.iter().enumerate() {
            let ack = match &report.what {
                What::Ack(ack) => ack.clone(),
                What::Reject(id) => Ack::Ids(vec![*id]),
                _ => continue,
            };
            by_seat
                .entry(report.seat.address())
                .or_default()
                .push((at, ack));
        }
        if by_seat.is_empty() {
            return HashMap::new();
        }
        let writes: Vec<_> = by_seat
            .into_values()
            .map(|acks| async move {
                let reader = acks.first().map(|(at, _)| batch[*at].seat.reader());
                let mut acked = Vec::with_capacity(acks.len());
                for ((at, ack), reader) in acks.into_iter().zip(reader.iter().cycle()) {
                    acked.push((at, self.write_ack(reader, ack).await));
                }
                acked
            })
            .collect();
        stream::iter(writes)
            .buffer_unordered(ACKS_AT_ONCE)
            .collect::<Vec<_>>()
            .await
            .into_iter()
            .flatten()
            .collect()
    }

    async fn write_ack(&self, reader: &Reader, ack: Ack) -> Vec<MessageId> {
        for _ in 0..ACK_TRIES {
            match self
                .ports
                .inbox
                .ack(reader, ack.clone(), self.ports.clock.now())
                .await
            {
                Ok(ids) => return ids,
                Err(StoreError::Busy { retry_after_ms }) => {
                    tokio::time::sleep(Duration::from_millis(retry_after_ms.clamp(1, 1000))).await;
                }
                Err(error) => {
                    tracing::warn!(app = %reader.app, %error, "an ack was not written; its messages come again");
                    return Vec::new();
                }
            }
        }
        tracing::warn!(app = %reader.app, "the store stayed busy; acked messages come again");
        Vec::new()
    }
}

/// Entries of the first read: it is made before the session says how many it takes, and what does
/// not fit is read again.
const FIRST_PAGE_LEN: usize = 32;

fn event(report: Report, acked: Option<&Vec<MessageId>>, now: Timestamp) -> Option<SessionEvent> {
    let newly = acked.filter(|ids| !ids.is_empty());
    let what = match report.what {
        What::Up(session) => SessionSaid::Up(session),
        What::Down(session) => SessionSaid::Down(session),
        What::Sent(session, ids) => SessionSaid::Sent(session, ids),
        What::Ack(_) => SessionSaid::Acked(newly?.clone()),
        What::Reject(id) => {
            newly?;
            SessionSaid::Rejected(id)
        }
        What::Said(text) => SessionSaid::Said(text),
        What::Client { message, stage, at } => SessionSaid::Client {
            message,
            stage,
            at: at.unwrap_or(now).clamp(Timestamp(0), now),
        },
    };
    let Reader { app, device, user } = report.seat.reader();
    Some(SessionEvent {
        app,
        device,
        user,
        what,
    })
}
