//! How other threads speak to a reactor.

use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hongyan_core::port::{Ack, Hint, InboxPage, Reader};
use hongyan_core::session::AppState;
use hongyan_core::{AppId, Cursor, Message, MessageId, SessionId, Topic};
use mio::Waker;
use tokio::sync::oneshot;

use crate::gate::Permit;
use crate::gateway::Socket;
use crate::pipe::Pipe;
use crate::protocol::{Kind, Parked, Speaker};
use crate::reactor::End;
use crate::seat::Seat;

/// Commands beyond which hints are dropped and every session looks for itself instead. The other
/// commands are bounded by what asked for them: requests under way, permits, waiting callers.
const QUEUE_LEN_MAX: usize = 65_536;

/// Commands with entries that wait; beyond them sessions read for themselves, so that the queue holds few messages.
const NEWS_LEN_MAX: usize = 1024;

/// A connection that was just taken in.
#[derive(Debug)]
pub(crate) struct Adopted {
    pub(crate) from: From,
    pub(crate) read_ahead: Bytes,
    pub(crate) speaker: Speaker,
    pub(crate) permit: Permit,
}

/// Where a connection comes from.
#[derive(Debug)]
pub(crate) enum From {
    /// A socket behind a WebSocket's opening handshake.
    WebSocket(Socket),
    /// A socket of its own listener.
    Raw(Socket),
    /// An HTTP answer's body.
    Pipe(Pipe),
    /// In process.
    Nothing,
}

/// The device was authenticated and registered, and its first page was read.
pub(crate) struct Greeted {
    pub(crate) reader: Arc<Reader>,
    pub(crate) seat: Seat,
    pub(crate) page: InboxPage,
    /// What the device was sent on earlier connections to this node.
    pub(crate) unfinished: Option<Cursor>,
    /// What the device's former connection of the same protocol left.
    pub(crate) parked: Option<(Kind, Parked)>,
    pub(crate) state: AppState,
}

impl std::fmt::Debug for Greeted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Greeted")
            .field("reader", &self.reader)
            .field("parked", &self.parked.is_some())
            .finish_non_exhaustive()
    }
}

/// An answer to a read; without a page it failed.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) session: SessionId,
    pub(crate) seat: Seat,
    pub(crate) page: Option<Box<InboxPage>>,
}

/// What a reactor is asked to do.
#[derive(Debug)]
pub(crate) enum Command {
    Adopt(Box<Adopted>),
    Welcome {
        session: SessionId,
        greeted: Box<Greeted>,
    },
    Refuse {
        session: SessionId,
        close: u16,
        code: &'static str,
        detail: &'static str,
    },
    Pages(Vec<Page>),
    /// For the connection's protocol.
    Tell {
        session: SessionId,
        what: Box<dyn Any + Send>,
    },
    /// A message that is not stored: given once to who is connected now.
    Hand {
        session: SessionId,
        message: Arc<Message>,
    },
    /// The device acknowledged over HTTP; it is written already.
    Acked {
        session: SessionId,
        ack: Ack,
    },
    /// A pipe has room again.
    Writable(SessionId),
    /// Nobody reads the pipe any more.
    Gone(SessionId),
    Again {
        session: SessionId,
        seat: Seat,
        id: MessageId,
        place: Cursor,
        message: Again,
    },
    Topic {
        session: SessionId,
        topic: Topic,
        result: Result<(), (&'static str, &'static str)>,
    },
    Wake(Vec<SessionId>),
    WakeApp(AppId),
    /// Hints with entries, in their order, for sessions that may be given them at once.
    News {
        sessions: Vec<SessionId>,
        hint: Arc<Hint>,
        /// Hints of the same list that were joined to the first.
        more: Vec<Arc<Hint>>,
    },
    /// The same for all sessions of its app.
    NewsApp(Arc<Hint>),
    Recall {
        sessions: Vec<SessionId>,
        id: MessageId,
    },
    RecallApp {
        app: AppId,
        id: MessageId,
    },
    Rebind {
        session: SessionId,
        seat: Seat,
        done: oneshot::Sender<()>,
    },
    Close {
        session: SessionId,
        end: End,
        done: oneshot::Sender<()>,
    },
    Resubscribe(SessionId),
    /// What it follows could not be read: to be tried again.
    TopicsUnread(SessionId),
    Drain(Duration),
    /// Look at the clock.
    Poke,
    Stop,
}

/// A message that is due again.
#[derive(Debug)]
pub(crate) enum Again {
    Send(Arc<Message>),
    /// Expired, recalled or no longer stored.
    Gone,
    /// The store did not answer: later.
    Unknown,
}

impl Command {
    fn is_news(&self) -> bool {
        matches!(self, Self::News { .. } | Self::NewsApp(_))
    }

    /// The same without an entry.
    fn without_news(self) -> Self {
        match self {
            Self::News { sessions, .. } => Self::Wake(sessions),
            Self::NewsApp(hint) => Self::WakeApp(hint.app.clone()),
            other => other,
        }
    }
}

#[derive(Debug, Default)]
struct Queue {
    commands: Vec<Command>,
    /// How many of them are news.
    news: usize,
}

/// The queue into one reactor.
#[derive(Debug)]
pub(crate) struct Mailbox {
    /// `None` when the reactor has ended: commands are dropped, and with them whoever waits.
    queue: Mutex<Option<Queue>>,
    waker: Waker,
    woken: AtomicBool,
    hints_lost: AtomicBool,
}

impl Mailbox {
    pub(crate) fn new(waker: Waker) -> Self {
        Self {
            queue: Mutex::new(Some(Queue::default())),
            waker,
            woken: AtomicBool::new(false),
            hints_lost: AtomicBool::new(false),
        }
    }

    pub(crate) fn push(&self, command: Command) {
        if let Some(queue) = &mut *self.lock() {
            queue.commands.push(command);
        }
        self.wake();
    }

    /// Pushes a command that may be replaced by a look at everything.
    pub(crate) fn push_hint(&self, command: Command) {
        self.push_hints([command]);
    }

    /// The same with many.
    pub(crate) fn push_hints(&self, commands: impl IntoIterator<Item = Command>) {
        if let Some(queue) = &mut *self.lock() {
            for mut command in commands {
                if queue.commands.len() >= QUEUE_LEN_MAX {
                    self.hints_lost.store(true, Ordering::Relaxed);
                    metrics::counter!("hongyan_gateway_hints_lost_total").increment(1);
                    continue;
                }
                if command.is_news() {
                    if queue.news >= NEWS_LEN_MAX {
                        command = command.without_news();
                    } else {
                        queue.news += 1;
                    }
                }
                queue.commands.push(command);
            }
        }
        self.wake();
    }

    /// The reactor has ended.
    pub(crate) fn close(&self) {
        self.lock().take();
    }

    fn lock(&self) -> MutexGuard<'_, Option<Queue>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        if !self.woken.swap(true, Ordering::AcqRel)
            && let Err(error) = self.waker.wake()
        {
            tracing::warn!(%error, "a reactor could not be woken; its timers will");
        }
    }

    /// Whether something was pushed since the last time that all was taken: nobody wakes the reactor for more of it.
    pub(crate) fn is_woken(&self) -> bool {
        self.woken.load(Ordering::Acquire)
    }

    /// Moves everything that waits to `into`; true when hints were lost since the last time.
    pub(crate) fn take(&self, into: &mut Vec<Command>) -> bool {
        self.woken.store(false, Ordering::Release);
        if let Some(queue) = &mut *self.lock() {
            into.append(&mut queue.commands);
            queue.news = 0;
            if queue.commands.capacity() > 4096 {
                queue.commands = Vec::new();
            }
        }
        self.hints_lost.swap(false, Ordering::Relaxed)
    }
}
