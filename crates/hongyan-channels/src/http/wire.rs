//! HTTP/2 by our own framing: one task moves the bytes between a [`Machine`] and the socket.
//!
//! Callers put what they ask for into a queue and wake the task once. It lets those who are about to ask do so first, then writes
//! everything in one go: with many callers most of the cost of a request, which is TLS records, system calls and wake-ups, is shared.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hongyan_core::verdict::Unsure;
use tokio::io::{AsyncRead as _, AsyncWrite as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, Sleep};
use tokio_rustls::client::TlsStream;

use super::h1::Progress;
use super::h2::{Health, IDLE_ROUNDS, PING_EVERY, PING_TIMEOUT, bad_path};
use super::machine::{Failure, ID_MAX, Machine, OUT_BYTES_MAX, code};
use super::{ANSWER_BYTES_MAX, Answer, Ask};
use crate::egress::{CallError, Origin};

/// What is read at once.
const READ_BYTES: usize = 16 * 1024;
/// What may wait to leave.
const UNREAD_BYTES_MAX: usize = 8 * OUT_BYTES_MAX;
/// Turns of reading and writing before other tasks get theirs.
const TURNS_MAX: usize = 16;
/// What the buffer for writing keeps while nothing is to be written.
const OUT_BYTES_KEPT: usize = 64 * 1024;
/// How long a good-bye may take.
const GOODBYE_MAX: Duration = Duration::from_secs(1);
/// Ids that are left when a connection is replaced: those who picked it already still get theirs.
const IDS_SPARE: u32 = 100_000;

type Reply = oneshot::Sender<Result<Answer, Failure>>;

/// The end of a connection that calls are made on. When it is dropped, the connection ends after the calls under way.
pub(super) struct Wire {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Queue>,
    streams_max: AtomicUsize,
    health: Arc<Health>,
}

#[derive(Default)]
struct Queue {
    asked: Vec<(u32, Ask, Reply)>,
    given_up: Vec<u32>,
    last_id: Option<u32>,
    /// Nobody asks any more.
    closed: bool,
    /// The task is gone.
    ended: bool,
    task: Option<Waker>,
    /// The task was woken and has not looked yet.
    woken: bool,
}

impl Queue {
    /// Whom to wake, once.
    fn wake(&mut self) -> Option<Waker> {
        if std::mem::replace(&mut self.woken, true) {
            None
        } else {
            self.task.clone()
        }
    }
}

impl Shared {
    fn with<T>(&self, work: impl FnOnce(&mut Queue) -> T) -> T {
        work(&mut self.queue.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Wire {
    /// Begins a connection on a stream whose handshake agreed on `h2`.
    pub(super) fn open(
        stream: TlsStream<TcpStream>,
        origin: &Origin,
        health: &Arc<Health>,
        freed: &Arc<Notify>,
    ) -> Self {
        let machine = Machine::new(&origin.authority());
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            streams_max: AtomicUsize::new(machine.streams_max()),
            health: health.clone(),
        });
        let task = Task {
            stream,
            machine,
            shared: shared.clone(),
            freed: freed.clone(),
            asked: Vec::new(),
            given_up: Vec::new(),
            waits: false,
            sent: 0,
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            look: Box::pin(tokio::time::sleep(PING_EVERY)),
            watch: Watch::Rounds(0),
        };
        tokio::spawn(task.run());
        Self { shared }
    }

    /// How many streams the peer allows at once.
    pub(super) fn streams_max(&self) -> usize {
        self.shared.streams_max.load(Ordering::Relaxed)
    }

    /// Makes a call; dropping the future resets its stream.
    pub(super) async fn call(
        &self,
        origin: &Origin,
        ask: &Ask,
        progress: &Progress,
    ) -> Result<Answer, CallError> {
        let visible = ask.path.iter().all(u8::is_ascii_graphic);
        if !visible || !ask.path.starts_with(b"/") {
            return Err(bad_path(origin));
        }
        let broken = |problem: String, certainty| CallError::Broken {
            host: origin.host().to_owned(),
            problem,
            certainty,
        };
        let (reply, answer) = oneshot::channel();
        let Some(id) = self.submit(ask, reply) else {
            let problem = "it was closed before the call".to_owned();
            return Err(broken(problem, Unsure::NotTaken));
        };
        progress.sent();
        let mut ticket = Ticket {
            shared: &self.shared,
            id: Some(id),
        };
        let result = answer.await;
        ticket.id = None;
        match result {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Failure::Unprocessed(problem))) => Err(broken(problem, Unsure::NotTaken)),
            Ok(Err(Failure::Lost(problem))) => Err(broken(problem, Unsure::MaybeTaken)),
            Ok(Err(Failure::TooLarge)) => Err(CallError::TooLarge {
                host: origin.host().to_owned(),
                bytes_max: ANSWER_BYTES_MAX,
            }),
            Err(_) => Err(broken("its task ended".to_owned(), Unsure::MaybeTaken)),
        }
    }

    /// Puts a request into the queue; `None` when the connection takes no more.
    fn submit(&self, ask: &Ask, reply: Reply) -> Option<u32> {
        let (id, task) = self.shared.with(|queue| {
            let id = queue.last_id.map_or(1, |last| last + 2);
            if queue.ended || id > ID_MAX - 2 {
                return None;
            }
            queue.last_id = Some(id);
            queue.asked.push((id, ask.clone(), reply));
            Some((id, queue.wake()))
        })?;
        if id > ID_MAX - IDS_SPARE {
            self.shared.health.retired.store(true, Ordering::Relaxed);
        }
        if let Some(task) = task {
            task.wake();
        }
        Some(id)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let task = self.shared.with(|queue| {
            queue.closed = true;
            queue.wake()
        });
        if let Some(task) = task {
            task.wake();
        }
    }
}

/// A call that waits; dropped before its answer, it is given up.
struct Ticket<'a> {
    shared: &'a Shared,
    id: Option<u32>,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let Some(id) = self.id else {
            return;
        };
        let task = self.shared.with(|queue| {
            if queue.ended {
                return None;
            }
            queue.given_up.push(id);
            queue.wake()
        });
        if let Some(task) = task {
            task.wake();
        }
    }
}

struct Task {
    stream: TlsStream<TcpStream>,
    machine: Machine<Reply>,
    shared: Arc<Shared>,
    freed: Arc<Notify>,
    asked: Vec<(u32, Ask, Reply)>,
    given_up: Vec<u32>,
    /// Something is in the queue and others may be about to add to it.
    waits: bool,
    /// How much of the machine's bytes the stream has taken.
    sent: usize,
    buffer: Box<[u8]>,
    look: Pin<Box<Sleep>>,
    watch: Watch,
}

enum Watch {
    /// Rounds without a call under way.
    Rounds(u32),
    /// A ping is on its way; so many were answered before it.
    Asked(u64),
}

/// Why a connection ended.
enum End {
    /// Nobody needs it any more.
    Done,
    /// The peer broke the protocol.
    Fault(super::machine::Fault),
    /// The socket is of no use.
    Broken(String),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

impl Task {
    async fn run(mut self) {
        let end = std::future::poll_fn(|cx| self.poll(cx)).await;
        self.shared.health.retired.store(true, Ordering::Relaxed);
        let problem = match &end {
            End::Done => None,
            End::Fault(fault) => Some(fault.to_string()),
            End::Broken(problem) => Some(problem.clone()),
        };
        if let Some(problem) = &problem {
            tracing::debug!(problem, "an HTTP/2 connection ended");
        }
        let problem = problem.as_deref().unwrap_or("it was closed");
        self.shared.with(|queue| {
            queue.ended = true;
            self.asked.append(&mut queue.asked);
        });
        self.machine.fail(problem);
        // They never left.
        for (id, ask, reply) in self.asked.drain(..) {
            self.machine.submit(id, ask, reply);
        }
        self.deliver();
        self.freed.notify_waiters();
        let code = match end {
            End::Done => code::NONE,
            End::Fault(fault) => fault.code,
            End::Broken(_) => return,
        };
        // The peer may be deaf by now, and is told out of courtesy.
        self.machine.go_away(code);
        let rest = self.machine.out.get(self.sent..).unwrap_or_default();
        let goodbye = async {
            self.stream.write_all(rest).await?;
            self.stream.shutdown().await
        };
        let _ = tokio::time::timeout(GOODBYE_MAX, goodbye).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let waited = std::mem::take(&mut self.waits);
        if let Err(end) = self.watch(cx) {
            return Poll::Ready(end);
        }
        for _ in 0..TURNS_MAX {
            match self.turn(cx, waited) {
                Ok(true) => {}
                Ok(false) => return Poll::Pending,
                Err(end) => return Poll::Ready(end),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether there may be more to do at once. `waited`: others had their time to add to the queue.
    fn turn(&mut self, cx: &mut Context<'_>, waited: bool) -> Result<bool, End> {
        let closed = self.take(cx, waited);
        loop {
            self.machine.pump();
            let more = !self.machine.out.is_empty();
            self.write(cx)?;
            // A full socket wakes this task when it has room again.
            if !more || !self.machine.out.is_empty() {
                break;
            }
        }
        let read = self.read(cx);
        self.deliver();
        let read = read?;
        if self.machine.is_going_away() && !self.shared.health.retired.swap(true, Ordering::Relaxed)
        {
            self.freed.notify_waiters();
        }
        let over = closed || self.machine.is_going_away();
        if over && !self.waits && self.machine.is_idle() {
            return Err(End::Done);
        }
        Ok(read)
    }

    /// Takes what is in the queue; whether nobody will ask any more.
    fn take(&mut self, cx: &mut Context<'_>, waited: bool) -> bool {
        let (closed, empty) = self.shared.with(|queue| {
            if queue
                .task
                .as_ref()
                .is_none_or(|task| !task.will_wake(cx.waker()))
            {
                queue.task = Some(cx.waker().clone());
            }
            let empty = queue.asked.is_empty() && queue.given_up.is_empty();
            if empty || waited {
                queue.woken = false;
                std::mem::swap(&mut self.asked, &mut queue.asked);
                std::mem::swap(&mut self.given_up, &mut queue.given_up);
            }
            (queue.closed, empty)
        });
        if !empty && !waited && !std::mem::replace(&mut self.waits, true) {
            // Behind all who are ready to run, of whom many are about to ask: those who were just answered.
            cx.waker().wake_by_ref();
        }
        for (id, ask, reply) in self.asked.drain(..) {
            self.machine.submit(id, ask, reply);
        }
        for id in self.given_up.drain(..) {
            self.machine.cancel(id);
        }
        closed
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        let mut stream = Pin::new(&mut self.stream);
        while let Some(rest) = self.machine.out.get(self.sent..).filter(|r| !r.is_empty()) {
            match stream.as_mut().poll_write(cx, rest)? {
                Poll::Ready(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Poll::Ready(taken) => self.sent += taken,
                Poll::Pending => return Ok(()),
            }
        }
        if self.sent > 0 {
            self.machine.out.clear();
            self.machine.out.shrink_to(OUT_BYTES_KEPT);
            self.sent = 0;
        }
        // What is left in the TLS session leaves when the socket takes it.
        let _ = stream.poll_flush(cx)?;
        Ok(())
    }

    /// Whether something came.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        // Beyond the requests it is answers to pings and the like, of a peer that does not read them.
        if self.machine.out.len() > UNREAD_BYTES_MAX {
            return Err(End::Broken("the peer does not read".to_owned()));
        }
        let mut buffer = ReadBuf::new(&mut self.buffer);
        match Pin::new(&mut self.stream).poll_read(cx, &mut buffer)? {
            Poll::Pending => return Ok(false),
            Poll::Ready(()) if buffer.filled().is_empty() => {
                return Err(End::Broken("the peer closed it".to_owned()));
            }
            Poll::Ready(()) => {}
        }
        self.machine.receive(buffer.filled()).map_err(End::Fault)?;
        let allowed = self.machine.streams_max();
        if self.shared.streams_max.swap(allowed, Ordering::Relaxed) != allowed {
            self.freed.notify_waiters();
        }
        Ok(true)
    }

    fn deliver(&mut self) {
        for (reply, result) in self.machine.finished.drain(..) {
            // Who gave up meanwhile does not care.
            let _ = reply.send(result);
        }
    }

    /// Looks now and then whether the peer is still there.
    fn watch(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        while self.look.as_mut().poll(cx).is_ready() {
            let next = match self.watch {
                Watch::Asked(before) if self.machine.pongs() <= before => {
                    return Err(End::Broken("it gave no sign of life".to_owned()));
                }
                Watch::Asked(_) => {
                    self.watch = Watch::Rounds(0);
                    PING_EVERY
                }
                Watch::Rounds(rounds) if self.machine.is_idle() && rounds + 1 < IDLE_ROUNDS => {
                    self.watch = Watch::Rounds(rounds + 1);
                    PING_EVERY
                }
                Watch::Rounds(_) => {
                    self.watch = Watch::Asked(self.machine.pongs());
                    self.machine.ping();
                    cx.waker().wake_by_ref();
                    PING_TIMEOUT
                }
            };
            self.look.as_mut().reset(Instant::now() + next);
        }
        Ok(())
    }
}
