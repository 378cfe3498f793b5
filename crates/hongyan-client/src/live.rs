//! One welcomed connection, from the welcome to its end.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::{self, Message as Frame};

use crate::backoff::Next;
use crate::client::{Command, Event, Status, Stop, TopicChange};
use crate::error::Error;
use crate::link::{Came, Link};
use crate::options::{AckMode, Options, TokenNeed};
use crate::session::{Driver, Ended, Topic, closed, failed};
use crate::tracker::Arrival;
use crate::transport::Transport;
use crate::wire::{self, Incoming, NackCode, Outgoing, Welcome};

/// Pings of the app that may await their pong.
const PINGS_MAX: usize = 16;
/// Messages with the app before a gateway that ignores `inflight` is left.
const OPEN_LEN_MAX: usize = 4096;
/// Client events: the gateway allows 50 messages a second in bursts of 200, acks included.
const EVENT_BURST: u32 = 100;
const EVENT_INTERVAL: Duration = Duration::from_millis(40);
/// How long the loop sleeps at most.
const IDLE_MAX: Duration = Duration::from_secs(3600);
/// Longest heartbeat that is believed, in seconds.
const HEARTBEAT_S_MAX: f64 = 3600.0;
/// Longest drain that is believed.
const DRAIN_MAX: Duration = Duration::from_secs(600);

/// What wakes the loop of a live connection.
enum Wake {
    Came(Came),
    Command(Option<Command>),
    /// The app got an event; with the mark of a recall that it has now.
    Handed(Option<String>),
    Timer,
    AppGone,
}

/// Number, time and who waits for the pong.
type Ping = (u64, Instant, oneshot::Sender<Result<Duration, Error>>);

/// A welcomed connection.
pub(crate) struct Live<'a> {
    driver: &'a mut Driver,
    options: Arc<Options>,
    link: Link,
    heartbeat: Duration,
    received_at: Instant,
    pinged_at: Instant,
    ping_n: u64,
    pings: VecDeque<Ping>,
    topic_waits: Option<Topic>,
    flush_at: Option<Instant>,
    flush_len: usize,
    drain_at: Option<Instant>,
    /// The head that everything received so far explains.
    known_head: Option<String>,
    caught_up: bool,
    suspect: Option<(String, Instant)>,
    event_credit: u32,
    event_at: Instant,
    fatal: Option<String>,
}

impl<'a> Live<'a> {
    pub(crate) fn new(driver: &'a mut Driver, link: Link, welcome: &Welcome) -> Self {
        let now = Instant::now();
        let options = Arc::clone(&driver.options);
        // A heartbeat that is no number, or none, reads as the default.
        let hb = if welcome.hb > 0.0 {
            welcome.hb.min(HEARTBEAT_S_MAX)
        } else {
            45.0
        };
        let inflight = welcome.inflight.unwrap_or(options.inflight).max(1);
        tracing::debug!(device = welcome.device, hb, inflight, "welcome");
        Self {
            link,
            heartbeat: Duration::from_secs_f64(hb).max(Duration::from_millis(1)),
            received_at: now,
            pinged_at: now,
            ping_n: 0,
            pings: VecDeque::new(),
            topic_waits: None,
            flush_at: None,
            flush_len: usize::from(inflight).div_ceil(2),
            drain_at: None,
            known_head: welcome.head.clone(),
            caught_up: false,
            suspect: None,
            event_credit: EVENT_BURST,
            event_at: now,
            fatal: None,
            driver,
            options,
        }
    }

    pub(crate) async fn serve(&mut self) -> Ended {
        match self.work().await {
            Ok(never) => match never {},
            Err(ended) => ended,
        }
    }

    async fn work(&mut self) -> Result<std::convert::Infallible, Ended> {
        loop {
            self.send_events().await?;
            self.send_topic().await?;
            let timer = self.next_timer();
            let settled = self.settled();
            self.link.settle(settled);
            let pauses = self.reading_pauses();
            let driver = &mut *self.driver;
            let wake = tokio::select! {
                came = self.link.next(), if !pauses => Wake::Came(came),
                command = driver.commands.recv() => Wake::Command(command),
                permit = driver.outlet.reserve(), if !driver.overflow.is_empty() => match permit {
                    Ok(permit) => Wake::Handed(driver.overflow.hand(permit)),
                    Err(_) => Wake::AppGone,
                },
                () = driver.outlet.closed() => Wake::AppGone,
                () = sleep_until(timer) => Wake::Timer,
            };
            match wake {
                Wake::Came(Came::Frame(frame)) => self.frame(frame).await?,
                Wake::Came(Came::Http(raw)) => self.heard(raw).await?,
                Wake::Command(Some(command)) => self.command(command).await?,
                Wake::Handed(None) => {}
                Wake::Handed(Some(mark)) => {
                    self.driver.tracker.take(&mark);
                    self.taken().await?;
                }
                Wake::Timer => self.timers().await?,
                Wake::Command(None) | Wake::AppGone => {
                    return Err(self.goodbye(Ended::Stop(Stop::Closed)).await);
                }
            }
        }
    }

    /// Whether the app is so far behind that nothing more is read for it.
    fn reading_pauses(&self) -> bool {
        self.driver.overflow.len() >= usize::from(self.options.inflight.max(1)) + 16
    }

    /// Whether the app has everything behind it, as far as the gateway can know.
    fn settled(&self) -> bool {
        let tracker = &self.driver.tracker;
        tracker.open_len() == 0
            && tracker.taken_len() == 0
            && self.flush_at.is_none()
            && self.driver.overflow.is_empty()
    }

    /// When the connection counts as dead; polls have an end of their own.
    fn dead_at(&self) -> Option<Instant> {
        let polls = self.link.transport() == Transport::Poll;
        (!polls).then(|| self.received_at + 2 * self.heartbeat)
    }

    /// When the gateway is asked whether it is there; a stream says so by itself.
    fn ping_at(&self) -> Option<Instant> {
        let asks = self.link.transport() == Transport::WebSocket;
        asks.then(|| self.received_at.max(self.pinged_at) + self.heartbeat)
    }

    fn next_timer(&self) -> Instant {
        let events = self.driver.tracker.next_event().map(|_| self.event_at);
        let events = events.filter(|_| self.link.takes_events());
        let suspect = self.suspect.as_ref().map(|(_, at)| *at);
        let climb = self.driver.choice.climb_at();
        [
            self.dead_at(),
            self.ping_at(),
            self.flush_at,
            self.drain_at,
            suspect,
            events,
            climb,
        ]
        .into_iter()
        .flatten()
        .fold(Instant::now() + IDLE_MAX, Instant::min)
    }

    async fn timers(&mut self) -> Result<(), Ended> {
        let now = Instant::now();
        if self.reading_pauses() {
            // The silence is ours: the app does not take what came.
            self.received_at = now;
        }
        if self.dead_at().is_some_and(|at| now >= at) {
            return Err(Ended::broken(format!(
                "nothing came for {:?}",
                2 * self.heartbeat
            )));
        }
        let climbs = self.driver.choice.climb_at().is_some_and(|at| now >= at);
        if climbs {
            tracing::debug!("a better transport is tried again");
        }
        if climbs || self.drain_at.is_some_and(|at| now >= at) {
            return Err(self.goodbye(Ended::After(Duration::ZERO)).await);
        }
        if self.flush_at.is_some_and(|at| now >= at) {
            self.flush().await?;
        }
        if self.ping_at().is_some_and(|at| now >= at) {
            self.ping().await?;
        }
        if let Some((head, at)) = self.suspect.take() {
            if now < at {
                self.suspect = Some((head, at));
            } else if self.driver.tracker.open_len() > 0 {
                // The gateway may just be waiting for acks.
                self.suspect = Some((head, now + self.options.timers.tail_check));
            } else if self
                .driver
                .resynced_at
                .is_none_or(|at| now - at >= self.options.timers.tail_resync_min)
            {
                tracing::debug!("the head moved and no message came: fetching the lost tail");
                self.driver.resynced_at = Some(now);
                return Err(self.goodbye(Ended::After(Duration::ZERO)).await);
            } else {
                self.known_head = Some(head);
            }
        }
        Ok(())
    }

    async fn frame(
        &mut self,
        frame: Option<Result<Frame, tungstenite::Error>>,
    ) -> Result<(), Ended> {
        self.received_at = Instant::now();
        let incoming = match frame {
            None => return Err(self.drained_or(Ended::broken("the connection ended"))),
            Some(Err(error)) => {
                let code = match error {
                    tungstenite::Error::Capacity(_) => Some(1009),
                    tungstenite::Error::Utf8(_) => Some(1007),
                    tungstenite::Error::Protocol(_) => Some(1002),
                    _ => None,
                };
                if let Some(code) = code {
                    self.close(code).await;
                }
                return Err(self.drained_or(failed(&error, &self.options)));
            }
            Some(Ok(Frame::Close(frame))) => {
                // The reply is queued; it goes out or it does not.
                let _ = timeout(self.options.timers.close, self.link.flush()).await;
                let ended = closed(frame, self.fatal.take(), &self.options);
                return Err(self.drained_or(ended));
            }
            Some(Ok(Frame::Text(text))) => wire::decode_text(&text),
            Some(Ok(Frame::Binary(bytes))) => wire::decode_binary(&bytes),
            Some(Ok(_)) => return Ok(()),
        };
        self.incoming_or_noise(incoming).await
    }

    async fn heard(&mut self, raw: crate::http_link::Raw) -> Result<(), Ended> {
        let Link::Http(link) = &mut self.link else {
            return Ok(());
        };
        let heard = link.read(raw);
        if heard.alive {
            self.received_at = Instant::now();
        }
        for incoming in heard.incoming {
            self.incoming_or_noise(incoming).await?;
        }
        match heard.ended {
            Some(ended) => Err(self.drained_or(ended)),
            None => Ok(()),
        }
    }

    async fn incoming_or_noise(&mut self, incoming: Result<Incoming, String>) -> Result<(), Ended> {
        match incoming {
            Ok(incoming) => self.incoming(incoming).await,
            Err(error) => {
                self.driver.stats.unreadable.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(error, "unreadable message from the gateway");
                Ok(())
            }
        }
    }

    /// A plain end during a drain keeps the wait that was drawn for it.
    fn drained_or(&self, ended: Ended) -> Ended {
        match (self.drain_at, &ended) {
            (
                Some(at),
                Ended::Next {
                    next: Next::Retry { least },
                    ..
                },
            ) if least.is_zero() => Ended::After(at.saturating_duration_since(Instant::now())),
            _ => ended,
        }
    }

    async fn incoming(&mut self, incoming: Incoming) -> Result<(), Ended> {
        match incoming {
            Incoming::Msg(message) => {
                let place = Some(message.cursor.clone());
                self.message(message, place).await?;
            }
            Incoming::Gap { lost } => self.driver.overflow.push(Event::Gap { lost }),
            Incoming::Recall { id, cursor, mark } => match (cursor, mark) {
                (Some(cursor), Some(mark)) => self.recall(id, mark, Some(cursor)).await?,
                _ => self.driver.overflow.push(Event::Recall { id }),
            },
            Incoming::Mixed(mixed) => self.mixed(*mixed).await?,
            Incoming::Idle { head } => {
                self.known_head = head.or(self.known_head.take());
                self.suspect = None;
                self.caught_up = true;
                self.driver.status.send_replace(Status::Live);
            }
            Incoming::Pong { n, head } => self.pong(n, head),
            Incoming::Drain { after_ms } => {
                let max = Duration::from_millis(after_ms).min(DRAIN_MAX);
                let at = Instant::now() + self.driver.backoff.draw_upto(max);
                self.drain_at = Some(self.drain_at.map_or(at, |old| old.min(at)));
            }
            Incoming::Error { code, msg, fatal } => {
                if code == "auth_expiring" {
                    self.driver.need = TokenNeed::Renew;
                    return Err(self.goodbye(Ended::After(Duration::ZERO)).await);
                }
                if fatal {
                    self.fatal = Some(format!("{code}: {msg}"));
                } else if let Some((change, _, reply)) = self.topic_waits.take() {
                    let what = change.name();
                    let _ = reply.send(Err(Error::Refused {
                        what,
                        code,
                        detail: msg,
                    }));
                } else {
                    tracing::warn!(code, msg, "the gateway reports an error");
                }
            }
            Incoming::SubOk { topic } | Incoming::UnsubOk { topic } => {
                let ours = |wait: &mut Topic| topic.as_ref().is_none_or(|t| *t == wait.1);
                if let Some((_, _, reply)) = self.topic_waits.take_if(ours) {
                    let _ = reply.send(Ok(()));
                }
            }
            Incoming::Welcome(_) | Incoming::Unknown => {}
        }
        Ok(())
    }

    /// Notes that an entry came; with its place where that stands for everything before it.
    fn arrived(&mut self, id: &str, place: Option<String>) -> Arrival {
        if place.is_some() {
            self.known_head.clone_from(&place);
        }
        self.suspect = None;
        self.driver.tracker.arrived(id, place)
    }

    async fn message(
        &mut self,
        message: Box<wire::Message>,
        place: Option<String>,
    ) -> Result<(), Ended> {
        match self.arrived(&message.id, place) {
            Arrival::New => {
                self.driver.stats.messages.fetch_add(1, Ordering::Relaxed);
                self.driver.overflow.push(Event::Message(message));
            }
            Arrival::Copy => {
                self.driver.stats.copies.fetch_add(1, Ordering::Relaxed);
            }
        }
        if self.driver.tracker.open_len() > OPEN_LEN_MAX {
            let next = Next::Retry {
                least: self.options.timers.framing_min,
            };
            let why = format!("the gateway sent more than {OPEN_LEN_MAX} messages without an ack");
            return Err(Ended::Next { next, why });
        }
        self.taken().await
    }

    /// A recall that stands in the inbox. The app has it once it is in its queue.
    async fn recall(
        &mut self,
        id: String,
        mark: String,
        place: Option<String>,
    ) -> Result<(), Ended> {
        if self.arrived(&mark, place) == Arrival::New {
            self.driver.overflow.push_mark(id, mark);
        }
        self.taken().await
    }

    /// Entries whose order among each other is not known: only all of them together move the place.
    async fn mixed(&mut self, mixed: wire::Mixed) -> Result<(), Ended> {
        for message in mixed.messages {
            self.message(Box::new(message), None).await?;
        }
        for recall in mixed.recalled {
            self.recall(recall.id, recall.mark, None).await?;
        }
        self.known_head = Some(mixed.cursor.clone());
        self.driver.tracker.passed(mixed.cursor);
        self.taken().await
    }

    fn pong(&mut self, n: Option<u64>, head: Option<String>) {
        if let Some(place) = self.pings.iter().position(|(m, ..)| Some(*m) == n)
            && let Some((_, at, reply)) = self.pings.remove(place)
        {
            let _ = reply.send(Ok(at.elapsed()));
        }
        let Some(head) = head else { return };
        if !self.caught_up || self.known_head.as_ref() == Some(&head) {
            self.suspect = None;
        } else if self.suspect.is_none() {
            // Messages that the head counts may still be behind this pong.
            self.suspect = Some((head, Instant::now() + self.options.timers.tail_check));
        }
    }

    async fn command(&mut self, command: Command) -> Result<(), Ended> {
        match command {
            Command::Taken(id) => {
                self.driver.tracker.take(&id);
                self.taken().await
            }
            Command::Nack(id, code) => {
                let known = match code {
                    NackCode::Retry => self.driver.tracker.give_back(&id),
                    _ => self.driver.tracker.take(&id),
                };
                if known {
                    self.say(&Outgoing::Nack { id: &id, code }).await?;
                }
                if known && code == NackCode::Retry && self.link.transport() == Transport::Sse {
                    // It only comes again with the next stream.
                    let at = Instant::now() + self.options.timers.poll_pause;
                    self.drain_at = Some(self.drain_at.map_or(at, |old| old.min(at)));
                }
                self.taken().await
            }
            Command::State(state) => {
                self.driver.state = state;
                self.say(&Outgoing::State { state }).await
            }
            Command::Event(_) => {
                self.driver.offline(command);
                self.flush_soon();
                Ok(())
            }
            Command::Ping(reply) => {
                if self.pings.len() >= PINGS_MAX {
                    self.pings.pop_front();
                }
                self.pings
                    .push_back((self.ping_n + 1, Instant::now(), reply));
                self.ping().await
            }
            Command::Close => Err(self.goodbye(Ended::Stop(Stop::Closed)).await),
            Command::Kill => Err(Ended::Stop(Stop::Closed)),
            Command::Topic { .. } | Command::Wake => {
                self.driver.offline(command);
                Ok(())
            }
        }
    }

    /// Plans the next ack, or sends it when half of the credit is used up.
    async fn taken(&mut self) -> Result<(), Ended> {
        match self.driver.tracker.taken_len() {
            0 => Ok(()),
            n if n >= self.flush_len => self.flush().await,
            _ => {
                self.flush_soon();
                Ok(())
            }
        }
    }

    fn flush_soon(&mut self) {
        let at = Instant::now() + self.options.timers.ack_delay;
        self.flush_at = Some(self.flush_at.map_or(at, |old| old.min(at)));
    }

    /// Keeps what was taken, then acknowledges it: in this order, so that nothing acknowledged is
    /// forgotten by a crash.
    async fn flush(&mut self) -> Result<(), Ended> {
        self.flush_at = None;
        let acks = self.driver.tracker.acks();
        self.driver.save().await;
        if self.options.ack == AckMode::Never {
            return Ok(());
        }
        if let Some(upto) = &acks.upto {
            self.say(&Outgoing::Ack {
                upto: Some(upto),
                ids: &[],
            })
            .await?;
        }
        if !acks.ids.is_empty() {
            self.say(&Outgoing::Ack {
                upto: None,
                ids: &acks.ids,
            })
            .await?;
        }
        if self.driver.tracker.taken_len() > 0 {
            self.flush_soon();
        }
        Ok(())
    }

    async fn send_events(&mut self) -> Result<(), Ended> {
        let now = Instant::now();
        if now < self.event_at {
            return Ok(());
        }
        let gained = (now - self.event_at).as_millis() / EVENT_INTERVAL.as_millis();
        let gained = u32::try_from(gained).unwrap_or(u32::MAX);
        self.event_credit = self.event_credit.saturating_add(gained).min(EVENT_BURST);
        self.event_at += EVENT_INTERVAL.saturating_mul(gained);
        while let Some(event) = self.driver.tracker.next_event().cloned() {
            if !self.link.takes_events() {
                return Ok(());
            }
            if self.event_credit == 0 {
                self.event_at = now + EVENT_INTERVAL;
                self.event_credit = 1;
                return Ok(());
            }
            self.event_credit -= 1;
            self.say(&Outgoing::Event(&event)).await?;
            self.driver.tracker.event_sent();
            self.flush_soon();
        }
        Ok(())
    }

    async fn send_topic(&mut self) -> Result<(), Ended> {
        if self.topic_waits.is_some() {
            return Ok(());
        }
        let Some(wait) = self.driver.topics.pop_front() else {
            return Ok(());
        };
        let said = match wait.0 {
            TopicChange::Join => self.say(&Outgoing::Sub { topic: &wait.1 }).await,
            TopicChange::Leave => self.say(&Outgoing::Unsub { topic: &wait.1 }).await,
        };
        self.topic_waits = Some(wait);
        said
    }

    async fn ping(&mut self) -> Result<(), Ended> {
        self.ping_n += 1;
        self.pinged_at = Instant::now();
        self.say(&Outgoing::Ping { n: self.ping_n }).await
    }

    async fn say(&mut self, message: &Outgoing<'_>) -> Result<(), Ended> {
        let saying = self.link.say(message, &self.options);
        match timeout(2 * self.heartbeat, saying).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(ended)) => Err(self.drained_or(ended)),
            Err(_) => Err(Ended::broken("the gateway does not read")),
        }
    }

    /// Acknowledges what was taken, says goodbye and waits for the close.
    async fn goodbye(&mut self, then: Ended) -> Ended {
        while let Ok(command) = self.driver.commands.try_recv() {
            self.driver.offline(command);
        }
        let time = self.options.timers.close;
        let leaving = async {
            self.flush().await?;
            self.link.finish(&self.options).await
        };
        // However it went, the connection is over.
        let _ = timeout(time, leaving).await;
        then
    }

    async fn close(&mut self, code: u16) {
        let _ = timeout(self.options.timers.close, self.link.close(code)).await;
    }

    /// Answers those who wait for replies that cannot come any more.
    pub(crate) fn abandon(mut self) {
        for (_, _, reply) in self.pings.drain(..) {
            let _ = reply.send(Err(Error::Disconnected { what: "ping" }));
        }
        if let Some((change, _, reply)) = self.topic_waits.take() {
            let _ = reply.send(Err(Error::Disconnected {
                what: change.name(),
            }));
        }
        if let Link::Http(link) = self.link {
            for event in link.unsaid_events() {
                self.driver.tracker.push_event(event);
            }
        }
    }
}

impl TopicChange {
    fn name(&self) -> &'static str {
        match self {
            Self::Join => "subscribe",
            Self::Leave => "unsubscribe",
        }
    }
}
