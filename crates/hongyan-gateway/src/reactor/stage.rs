//! A reactor that a test drives turn by turn, with a store of lists in memory that answers when the test says so.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hongyan_core::message::{Audience, Target};
use hongyan_core::port::{Entry, Fresh, Hint, InboxPage, Owner, Presence, Reader};
use hongyan_core::session::AppState;
use hongyan_core::{
    AppId, Cursor, DeviceId, Message, MessageId, Secret, SessionId, Timestamp, Topic, UserId,
};
use hongyan_testkit::fake::ManualClock;
use mio::{Poll, Waker};
use tokio::sync::mpsc;

use super::{Desk, Parts, Reactor, WAKER};
use crate::backend::{Job, Report};
use crate::gate::Gate;
use crate::hub::Hub;
use crate::mailbox::{Adopted, Command, From, Greeted, Mailbox, Page};
use crate::options::Options;
use crate::protocol::{
    Farewell, Hello, Input, Kind, Outgoing, Proof, Protocol, Silence, Speaker, Taken, Welcome,
};
use crate::seat::Seat;

/// What a connection was told, in order.
#[derive(Debug, Default)]
pub(super) struct Heard {
    lines: Mutex<Vec<String>>,
    /// It takes nothing now.
    pub(super) deaf: AtomicBool,
}

impl Heard {
    pub(super) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    fn note(&self, line: String) {
        self.lines.lock().unwrap().push(line);
    }
}

/// A protocol that notes what it is to send.
#[derive(Debug)]
struct Listener(Arc<Heard>);

impl Protocol for Listener {
    fn kind(&self) -> Kind {
        Kind::WebSocket
    }

    fn begin(&mut self, desk: &mut Desk<'_>) {
        desk.hello(Hello {
            proof: Proof::Secret(Secret::new("token")),
            cursor: None,
            inflight: Some(60_000),
            state: AppState::Foreground,
        });
    }

    fn hear(&mut self, _: Input<'_>, _: &mut Desk<'_>) {}

    fn welcome(&mut self, _: &Welcome<'_>, _: &mut Desk<'_>) {}

    fn send(&mut self, one: &Outgoing<'_>, _: &mut Desk<'_>) -> Taken {
        self.0.note(line(one.message));
        Taken::Sent
    }

    fn recall(&mut self, id: MessageId, _: &mut Desk<'_>) {
        self.0.note(format!("recall {}", number(id)));
    }

    fn mark(&mut self, _: MessageId, one: &Outgoing<'_>, desk: &mut Desk<'_>) -> Taken {
        self.send(one, desk)
    }

    fn close(&mut self, _: &Farewell<'_>, _: &mut Desk<'_>) -> u16 {
        1000
    }

    fn silence(&self, _: u64, _: &Options) -> Silence {
        Silence {
            ping_after: None,
            dead_after: None,
        }
    }

    fn takes(&self) -> bool {
        !self.0.deaf.load(Ordering::SeqCst)
    }
}

/// What a connection notes of an entry.
fn line(message: &Message) -> String {
    match (&message.notification, message.recalls) {
        (Some(notification), _) => notification.body.clone(),
        (None, Some(recalled)) => format!("mark {}", number(recalled)),
        (None, None) => panic!("{message:?}"),
    }
}

/// The id of the n-th message, and back.
fn id(n: u64) -> MessageId {
    MessageId(uuid::Uuid::from_u128(u128::from(n) | 7 << 76 | 2 << 62))
}

fn number(id: MessageId) -> u64 {
    id.0.as_u128() as u64 & u64::from(u32::MAX)
}

pub(super) fn app() -> AppId {
    AppId::parse("demo").unwrap()
}

pub(super) fn user() -> Owner {
    Owner::User(UserId::parse("u").unwrap())
}

pub(super) fn own(device: &str) -> Owner {
    Owner::Device(DeviceId::parse(device).unwrap())
}

pub(super) fn all() -> Owner {
    Owner::Audience(Audience::All)
}

pub(super) fn topic() -> Owner {
    Owner::Audience(Audience::Topic(Topic::parse("t").unwrap()))
}

pub(super) fn message(n: u64) -> Arc<Message> {
    let message: Message = serde_json::from_value(serde_json::json!({
        "id": id(n), "app": "demo", "to": {"users": ["u"]},
        "notification": {"title": "t", "body": n.to_string()},
        "accepted_at": 0, "expires_at": i64::MAX,
    }))
    .unwrap();
    Arc::new(message)
}

#[derive(Debug)]
struct Stored {
    owner: Owner,
    place: u64,
    message: Arc<Message>,
}

/// A connection of a device: all of them are one user's and follow one topic.
#[derive(Debug)]
pub(super) struct Phone {
    pub(super) session: SessionId,
    pub(super) reader: Reader,
    pub(super) heard: Arc<Heard>,
}

pub(super) struct Stage {
    pub(super) reactor: Reactor,
    pub(super) hub: Hub,
    pub(super) jobs: mpsc::Receiver<Job>,
    pub(super) clock: Arc<ManualClock>,
    gate: Arc<Gate>,
    _reports: mpsc::Receiver<Vec<Report>>,
    stored: Vec<Stored>,
    recalled: Vec<MessageId>,
    /// Answers of the store that are on their way.
    pub(super) answers: Vec<Command>,
}

impl Stage {
    pub(super) fn new() -> Self {
        Self::with_jobs(4096)
    }

    /// A backend that takes so many requests.
    pub(super) fn with_jobs(len: usize) -> Self {
        let options = Arc::new(Options::default());
        let poll = Poll::new().unwrap();
        let waker = Waker::new(poll.registry(), WAKER).unwrap();
        let mailbox = Arc::new(Mailbox::new(waker));
        let gate = Arc::new(Gate::new(&options));
        let hub = Hub::new(vec![Arc::clone(&mailbox)], Arc::clone(&gate));
        let clock = Arc::new(ManualClock::at(Timestamp(1_000)));
        let (jobs, jobs_in) = mpsc::channel(len);
        let (reports, reports_in) = mpsc::channel(65_536);
        let reactor = Reactor::new(Parts {
            index: 0,
            poll,
            mailbox,
            hub: hub.clone(),
            clock: Arc::clone(&clock) as _,
            options,
            jobs,
            reports,
        });
        Self {
            reactor,
            hub,
            jobs: jobs_in,
            clock,
            gate,
            _reports: reports_in,
            stored: Vec::new(),
            recalled: Vec::new(),
            answers: Vec::new(),
        }
    }

    /// One turn, as if the wait before it had ended.
    pub(super) fn turn(&mut self) {
        self.reactor.look_at_clock();
        self.reactor.turn();
    }

    pub(super) fn advance(&mut self, by: Duration) {
        self.clock.advance(by);
    }

    /// A connection that asks to be greeted: the answer waits.
    pub(super) fn dial(&mut self, device: &str) -> Phone {
        let heard = Arc::new(Heard::default());
        let ip = "127.0.0.1".parse().unwrap();
        self.hub
            .mailbox(SessionId(0))
            .push(Command::Adopt(Box::new(Adopted {
                from: From::Nothing,
                read_ahead: bytes::Bytes::new(),
                speaker: Speaker::Other(Box::new(Listener(Arc::clone(&heard)))),
                permit: self.gate.admit(ip).unwrap(),
            })));
        let session = loop {
            self.turn();
            match self.jobs.try_recv() {
                Ok(Job::Hello { session, .. }) => break session,
                Ok(job) => self.answer(job),
                Err(_) => {}
            }
        };
        let reader = Reader {
            app: app(),
            device: DeviceId::parse(device).unwrap(),
            user: Some(UserId::parse("u").unwrap()),
        };
        let now = Timestamp(0);
        let (kind, state) = (Kind::WebSocket, AppState::Foreground);
        let seat = self.hub.register(session, &reader, kind, state, now).seat;
        self.set_topics(session, &reader);
        let greeted = Box::new(Greeted {
            reader: Arc::new(reader.clone()),
            seat,
            page: self.page(&reader, None, 32),
            unfinished: None,
            parked: None,
            state,
        });
        self.answers.push(Command::Welcome { session, greeted });
        Phone {
            session,
            reader,
            heard,
        }
    }

    fn set_topics(&self, session: SessionId, reader: &Reader) {
        let mark = self.hub.topics_mark(reader);
        let topics = vec![Topic::parse("t").unwrap()];
        self.hub.set_topics(session, reader, topics, mark);
    }

    /// A connection that has read everything.
    pub(super) fn live(&mut self, device: &str) -> Phone {
        let phone = self.dial(device);
        self.settle();
        phone
    }

    /// Stores an entry; its hint, with it.
    pub(super) fn store(&mut self, owner: Owner) -> Hint {
        let message = message(self.stored.len() as u64);
        let mut message = Arc::unwrap_or_clone(message);
        message.to = match &owner {
            Owner::User(user) => Target::Users(vec![user.clone()]),
            Owner::Device(device) => Target::Devices(vec![device.clone()]),
            Owner::Audience(Audience::Topic(topic)) => Target::Topic(topic.clone()),
            Owner::Audience(Audience::All) => Target::All,
        };
        self.put(owner, message)
    }

    fn put(&mut self, owner: Owner, message: Message) -> Hint {
        let message = Arc::new(message);
        let in_list = self
            .stored
            .iter()
            .filter(|one| is_one_list(&one.owner, &owner));
        let after = in_list.map(|one| one.place).max().unwrap_or(0);
        let place = after + 1;
        let mut hint = Hint::new(app(), owner.clone());
        hint.fresh = Some(Fresh {
            after,
            place,
            message: Arc::clone(&message),
        });
        self.stored.push(Stored {
            owner,
            place,
            message,
        });
        hint
    }

    /// Stores an entry and says so.
    pub(super) fn publish(&mut self, owner: Owner) {
        let hint = self.store(owner);
        self.hub.notify(vec![hint]);
    }

    /// Recalls the n-th message, and says so.
    pub(super) fn recall(&mut self, owner: &Owner, n: u64) {
        self.recalled.push(id(n));
        self.hub.recall(&app(), owner, id(n));
    }

    /// Recalls the last entry but so many, if it is a message, as dispatch does: with a mark in its list.
    pub(super) fn recall_last(&mut self, back: u64, with_entry: bool) {
        let len = self.stored.len() as u64;
        let at = len.checked_sub(back + 1);
        let Some(one) = at.and_then(|at| self.stored.get(at as usize)) else {
            return;
        };
        let recalled = one.message.id;
        if one.message.recalls.is_some() || self.recalled.contains(&recalled) {
            return;
        }
        let (owner, mark) = (
            one.owner.clone(),
            one.message.recall_mark(id(len), Timestamp(0)),
        );
        self.recalled.push(recalled);
        let mut hint = self.put(owner.clone(), mark);
        hint.fresh = hint.fresh.filter(|_| with_entry);
        self.hub.notify(vec![hint]);
        self.hub.recall(&app(), &owner, recalled);
    }

    pub(super) fn recalled(&self) -> Vec<u64> {
        self.recalled.iter().map(|id| number(*id)).collect()
    }

    fn page(&self, reader: &Reader, after: Option<Cursor>, limit: usize) -> InboxPage {
        let mut at = after.unwrap_or(Cursor {
            epoch: 1,
            reader: 7,
            user: 0,
            device: 0,
            broadcast: 0,
        });
        let mut page = InboxPage {
            entries: Vec::new(),
            next: at,
            head: at,
            lost: 0,
            reset: false,
            more: false,
        };
        for one in &self.stored {
            let foreign = matches!(&one.owner, Owner::Device(device) if *device != reader.device);
            let part = |cursor: &mut Cursor| match &one.owner {
                Owner::User(_) => std::mem::replace(&mut cursor.user, one.place),
                Owner::Device(_) => std::mem::replace(&mut cursor.device, one.place),
                Owner::Audience(_) => std::mem::replace(&mut cursor.broadcast, one.place),
            };
            if foreign {
                continue;
            }
            part(&mut page.head);
            let mut next = at;
            if part(&mut next) >= one.place || page.more {
                continue;
            }
            if self.recalled.contains(&one.message.id) {
                at = next;
                continue;
            }
            page.more = page.entries.len() == limit;
            if !page.more {
                at = next;
                page.entries.push(Entry {
                    cursor: at,
                    message: Arc::clone(&one.message),
                });
            }
        }
        page.next = if page.more { at } else { page.head };
        page
    }

    /// What the store says to a request, from now on on its way.
    pub(super) fn answer(&mut self, job: Job) {
        let Job::Reads(wanted) = job else { return };
        let pages = wanted.into_iter().map(|one| Page {
            session: one.session,
            page: Some(Box::new(self.page(
                &one.seat.reader(),
                one.read.after,
                one.read.limit,
            ))),
            seat: one.seat,
        });
        self.answers.push(Command::Pages(pages.collect()));
    }

    /// Looks requests up; what was found is on its way.
    pub(super) fn answer_all(&mut self) {
        while let Ok(job) = self.jobs.try_recv() {
            self.answer(job);
        }
    }

    /// The oldest answer arrives.
    pub(super) fn arrive(&mut self) {
        if !self.answers.is_empty() {
            let answer = self.answers.remove(0);
            self.hub.mailbox(SessionId(0)).push(answer);
        }
    }

    /// Until nothing is left to do.
    pub(super) fn settle(&mut self) {
        let mut quiet = 0;
        while quiet < 2 {
            self.turn();
            self.answer_all();
            let busy = !self.answers.is_empty() || self.reactor.wait() == Some(Duration::ZERO);
            quiet = if busy { 0 } else { quiet + 1 };
            while !self.answers.is_empty() {
                self.arrive();
            }
        }
    }

    /// What a device is to be sent, in order.
    pub(super) fn due_to(&self, phone: &Phone) -> Vec<String> {
        let page = self.page(&phone.reader, None, usize::MAX);
        let lines = page.entries.iter().map(|entry| line(&entry.message));
        lines.collect()
    }

    pub(super) fn seat(&self, phone: &Phone) -> Option<Seat> {
        let key = self.reactor.find(phone.session)?;
        self.reactor.connections[key].seat().cloned()
    }
}

fn is_one_list(a: &Owner, b: &Owner) -> bool {
    let is_broadcast = |owner: &Owner| matches!(owner, Owner::Audience(_));
    a == b || is_broadcast(a) && is_broadcast(b)
}
