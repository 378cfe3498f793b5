//! The state of one stream: from its header to its end. It sees a [`Host`] and no socket.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::Arc;

use hongyan_core::device::ScramKeys;
use hongyan_core::port::Reader;
use hongyan_core::session::AppState;
use hongyan_core::{
    AppId, ChannelId, Cursor, DeviceId, Message, MessageId, SessionId, Stage, Timestamp, UserId,
};

use super::entry::{self, Recipient};
use super::jid;
use super::login::Login;
use super::party::{Party, Peer};
use super::sm::{Item, Kept, Sm, hex};
use super::stream::{Event, Fault, Reader as Stream};
use super::xml::{Element, escape, ns};
use crate::protocol::websocket::close;

/// Longest header or stanza before login, bytes.
pub(crate) const OPENING_BYTES_MAX: usize = 16 * 1024;
/// Longest stanza, bytes; RFC 6120 section 13.12 asks for at least 10,000.
pub(crate) const STANZA_BYTES_MAX: usize = 64 * 1024;
/// Elements that may come while the session is being made.
const EARLY_MAX: usize = 16;
/// Messages that are held back while the client is inactive.
const HELD_MAX: usize = 16;
/// How long they are held back, milliseconds.
pub(crate) const HELD_MS: i64 = 600_000;
/// Entries older than this when they go out carry a `<delay/>`, milliseconds.
const FRESH_MS: i64 = 10_000;

/// What all streams share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The domain; apps are `<app>.<domain>`.
    pub(crate) domain: String,
    /// Seconds that a cut session can be resumed.
    pub(crate) resume_s: u32,
    pub(crate) party: Party,
}

impl Shared {
    /// The domain that a header's `to` names, in lower case, and the app, when it names one.
    pub(crate) fn host(&self, to: &str) -> Option<(String, Option<AppId>)> {
        let to = to.to_ascii_lowercase();
        if to == self.domain {
            return Some((to, None));
        }
        let label = to.strip_suffix(&self.domain)?.strip_suffix('.')?;
        let app = AppId::parse(label).ok()?;
        Some((to, Some(app)))
    }
}

/// What the registry is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Query {
    /// Who has this token.
    Token { try_no: u8, hash: [u8; 32] },
    /// The devices of a user; without an app, of the only app that there is.
    User {
        try_no: u8,
        app: Option<AppId>,
        user: UserId,
    },
    /// Whether the device can be pushed through a channel; `iq` is who wants to know.
    Channel {
        iq: String,
        app: AppId,
        device: DeviceId,
        channel: ChannelId,
    },
}

/// What it answered.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Accounts {
        try_no: u8,
        /// The app that was meant, when it could be told.
        app: Option<AppId>,
        /// `None` when the store did not answer.
        accounts: Option<Vec<Account>>,
    },
    Channel {
        iq: String,
        /// `None` when the store did not answer.
        active: Option<bool>,
    },
}

/// A device that may log in.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub(crate) app: AppId,
    pub(crate) device: DeviceId,
    pub(crate) user: UserId,
    pub(crate) secret_hash: [u8; 32],
    pub(crate) keys: Option<Box<ScramKeys>>,
}

/// What is said to the stream of another session.
#[derive(Debug, Clone)]
pub(crate) struct Copied(pub(crate) String);

/// Where a stream lives.
pub(crate) trait Host {
    fn now(&self) -> Timestamp;
    /// Whether so many bytes may be queued.
    fn has_room(&mut self, bytes: usize) -> bool;
    /// Queues one element, a header or an end tag.
    fn write(&mut self, text: &str);
    /// Asks the registry; false when it is too busy.
    fn ask(&mut self, query: Query) -> bool;
    /// Makes a session of the stream: [`Machine::welcome`] follows, or the end.
    fn hello(&mut self, account: &Account);
    fn parked(&mut self) -> Option<Box<Kept>>;
    fn ack(&mut self, ids: Vec<MessageId>);
    fn event(&mut self, id: MessageId, stage: Stage);
    /// Tells the app something.
    fn said(&mut self, text: String);
    fn state(&mut self, state: AppState);
    /// Asks for entries that were not taken.
    fn want(&mut self);
    /// Takes one element from the client's allowance; false when it was closed.
    fn spend(&mut self) -> bool;
    fn tell(&mut self, session: SessionId, copied: Copied);
    /// Begins TLS once everything is written.
    fn starttls(&mut self);
    /// Ends the connection after what is queued.
    fn close(&mut self, code: u16, word: &'static str, detail: &'static str);
    /// Ends it because the peer said goodbye.
    fn end(&mut self);
    fn random(&self, bytes: &mut [u8]);
}

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Took {
    Sent,
    Later,
    /// The device has it already.
    Had,
}

/// What stands below the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ground {
    /// TCP before STARTTLS.
    Plain,
    /// TCP with TLS, or where plain text is allowed.
    Tcp,
    WebSocket,
}

#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) shared: Arc<Shared>,
    pub(super) stream: Stream,
    /// Exists until a resource is bound.
    pub(super) login: Option<Box<Login>>,
    pub(super) live: Option<Box<Live>>,
    pub(super) ground: Ground,
    /// A header was read and answered.
    open: bool,
    /// Nothing more is said or heard.
    pub(super) closed: bool,
    /// The end tag was said.
    said_close: bool,
}

/// A bound stream.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) reader: Arc<Reader>,
    pub(super) session: SessionId,
    pub(super) domain: Box<str>,
    pub(super) resource: Arc<str>,
    pub(super) since: Timestamp,
    /// What its presence said; nothing before the first one.
    pub(super) priority: Option<i8>,
    pub(super) carbons: bool,
    pub(super) inactive: bool,
    /// Acknowledges what is sent, from when it was enabled.
    pub(super) sm: Option<Box<Sm>>,
    /// Acknowledges what was sent before.
    pub(super) pings: Pings,
    /// Entries that a resumption acknowledged and the first page may still have.
    skip: Vec<MessageId>,
    held: Vec<Held>,
}

/// Deliveries that the answers to pings acknowledge.
#[derive(Debug, Default)]
pub(super) struct Pings {
    /// Number of the next one.
    pub(super) next: u32,
    /// What was sent, and before which ping.
    pub(super) sent: VecDeque<(u32, MessageId)>,
}

#[derive(Debug)]
struct Held {
    message: Arc<Message>,
    place: Cursor,
    dup: bool,
    since: Timestamp,
}

impl Live {
    pub(super) fn bare(&self) -> String {
        let user = self.reader.user.as_ref().map_or("", UserId::as_str);
        format!("{}@{}", jid::escape(user), self.domain)
    }

    pub(super) fn full(&self) -> String {
        format!("{}/{}", self.bare(), self.resource)
    }

    fn takes_entries(&self) -> bool {
        self.priority.is_some_and(|priority| priority >= 0)
    }
}

impl Machine {
    pub(crate) fn new(shared: Arc<Shared>, ground: Ground, binding: Option<[u8; 32]>) -> Self {
        Self {
            shared,
            stream: Stream::default(),
            login: Some(Box::new(Login::new(binding))),
            live: None,
            ground,
            open: false,
            closed: false,
            said_close: false,
        }
    }

    /// Takes bytes of a TCP stream.
    pub(crate) fn hear(&mut self, mut bytes: &[u8], host: &mut dyn Host) {
        while !self.closed {
            let limit = self.bytes_max();
            match self.stream.take(&mut bytes, limit) {
                Ok(Some(event)) => {
                    let ground = self.ground;
                    self.take(event, host);
                    // What came together with `<starttls/>` was not said under TLS.
                    if ground != self.ground {
                        return;
                    }
                }
                Ok(None) => return,
                Err(fault) => self.fault(fault, host),
            }
        }
    }

    /// Takes a WebSocket message.
    pub(crate) fn hear_message(&mut self, text: &[u8], host: &mut dyn Host) {
        if self.closed {
            return;
        }
        match Stream::take_message(text, self.bytes_max()) {
            Ok(Some(event)) => self.take(event, host),
            Ok(None) => {}
            Err(fault) => self.fault(fault, host),
        }
    }

    pub(crate) fn bytes_max(&self) -> usize {
        match self.live {
            Some(_) => STANZA_BYTES_MAX,
            None => OPENING_BYTES_MAX,
        }
    }

    fn fault(&mut self, fault: Fault, host: &mut dyn Host) {
        match fault {
            Fault::NotWellFormed => self.fail("not-well-formed", "", host),
            Fault::RestrictedXml => self.fail("restricted-xml", "", host),
            Fault::BadFormat => self.fail("bad-format", "", host),
            Fault::Policy(why) => self.fail("policy-violation", why, host),
        }
    }

    fn take(&mut self, event: Event, host: &mut dyn Host) {
        match event {
            Event::Open(header) => {
                if self.open {
                    return self.fail("bad-format", "the stream is open already", host);
                }
                let to = header.to.as_deref();
                let known = to.and_then(|to| self.shared.host(to));
                let domain = known
                    .as_ref()
                    .map_or(self.shared.domain.clone(), |k| k.0.clone());
                self.header(&domain, host);
                let major = header.version.as_deref().and_then(|v| v.split('.').next());
                let major = major.and_then(|major| major.parse::<u32>().ok());
                match (header.sound, to, known, major) {
                    (false, ..) => self.fail("invalid-namespace", "", host),
                    (_, None, ..) => self.fail("improper-addressing", "", host),
                    (_, _, None, _) => self.fail("host-unknown", "", host),
                    (_, _, _, None | Some(0)) => self.fail("unsupported-version", "", host),
                    (_, _, Some((domain, app)), _) => {
                        let Some(login) = &mut self.login else { return };
                        if !login.set_host(domain, app) {
                            // It logged in for another domain.
                            return self.fail("host-unknown", "", host);
                        }
                        self.offer(host);
                    }
                }
            }
            Event::Close => {
                self.say_close(host);
                self.closed = true;
                host.end();
            }
            Event::Element(_) if !self.open => {
                let domain = self.shared.domain.clone();
                self.header(&domain, host);
                self.fail("invalid-namespace", "", host);
            }
            Event::Element(element) => {
                if !host.spend() {
                    self.closed = true;
                    return;
                }
                if self.live.is_some() {
                    self.hear_live(element, host);
                } else {
                    self.hear_login(element, host);
                }
            }
        }
    }

    fn header(&mut self, domain: &str, host: &mut dyn Host) {
        let mut id = [0; 16];
        host.random(&mut id);
        let id = hex(&id);
        self.open = true;
        let text = if self.ground == Ground::WebSocket {
            format!(
                "<open xmlns='{}' from='{domain}' id='{id}' version='1.0' xml:lang='en'/>",
                ns::FRAMING
            )
        } else {
            format!(
                "<?xml version='1.0'?><stream:stream xmlns='{}' xmlns:stream='{}' from='{domain}' id='{id}' version='1.0' xml:lang='en'>",
                ns::CLIENT,
                ns::STREAMS
            )
        };
        host.write(&text);
    }

    /// The next header begins the stream anew.
    pub(super) fn restart(&mut self) {
        self.stream.restart();
        self.open = false;
    }

    /// Ends the stream with an error (RFC 6120 section 4.9).
    pub(crate) fn fail(&mut self, condition: &'static str, why: &'static str, host: &mut dyn Host) {
        self.fail_with(condition, "", why, host);
        host.close(close::BAD_MESSAGE, condition, why);
    }

    pub(super) fn fail_with(
        &mut self,
        condition: &str,
        more: &str,
        why: &str,
        host: &mut dyn Host,
    ) {
        if self.said_close {
            return;
        }
        if !self.open {
            let domain = self.shared.domain.clone();
            self.header(&domain, host);
        }
        let text = match why {
            "" => String::new(),
            why => format!(
                "<text xmlns='{}' xml:lang='en'>{}</text>",
                ns::STREAM_ERRORS,
                escape(why)
            ),
        };
        host.write(&format!(
            "<stream:error xmlns:stream='{}'><{condition} xmlns='{}'/>{text}{more}</stream:error>",
            ns::STREAMS,
            ns::STREAM_ERRORS
        ));
        self.say_close(host);
        self.closed = true;
    }

    fn say_close(&mut self, host: &mut dyn Host) {
        if std::mem::replace(&mut self.said_close, true) {
            return;
        }
        host.write(&match self.ground {
            Ground::WebSocket => format!("<close xmlns='{}'/>", ns::FRAMING),
            _ => "</stream:stream>".to_owned(),
        });
    }

    /// The gateway closes the connection: the last words, if they were not said yet.
    pub(crate) fn closing(&mut self, code: u16, detail: &str, host: &mut dyn Host) {
        if self.said_close {
            self.closed = true;
            return;
        }
        let condition = match code {
            close::NORMAL => "",
            close::TAKEN_OVER => "conflict",
            close::GOING_AWAY | close::RESTART => "system-shutdown",
            close::UNAUTHORIZED | close::FORBIDDEN | close::DEVICE_GONE => "not-authorized",
            close::TOO_SLOW if self.live.is_none() => "connection-timeout",
            close::RATE_LIMITED | close::TOO_SLOW => "policy-violation",
            close::TRY_AGAIN => "reset",
            close::INTERNAL => "internal-server-error",
            _ => "undefined-condition",
        };
        match condition {
            "" => self.say_close(host),
            condition => self.fail_with(condition, "", detail, host),
        }
        self.closed = true;
    }

    /// The registry answered.
    pub(crate) fn told(&mut self, answer: Answer, host: &mut dyn Host) {
        match answer {
            Answer::Accounts {
                try_no,
                app,
                accounts,
            } => self.accounts(try_no, app, accounts, host),
            Answer::Channel { iq, active } => self.channel(&iq, active, host),
        }
    }

    /// The session is up.
    pub(crate) fn welcome(
        &mut self,
        session: SessionId,
        reader: &Arc<Reader>,
        host: &mut dyn Host,
    ) {
        let Some(login) = &mut self.login else { return };
        let early = login.welcomed(session, reader);
        self.begin(host);
        for element in early {
            if self.closed {
                return;
            }
            if self.live.is_some() {
                self.hear_live(element, host);
            } else {
                self.hear_login(element, host);
            }
        }
    }

    /// Carries out what waits for the session: a resumption, or a bind.
    pub(super) fn begin(&mut self, host: &mut dyn Host) {
        let Some(login) = &mut self.login else { return };
        let Some((session, reader)) = login.session.clone() else {
            return;
        };
        let kept = host.parked().or(login.kept.take());
        if let Some((previd, h)) = login.resume.take() {
            return self.resume(session, reader, &previd, h, kept, host);
        }
        let Some((iq, resource)) = login.bind.take() else {
            login.kept = kept;
            return;
        };
        let mut live = Live {
            resource: resource
                .unwrap_or_else(|| reader.device.as_str().to_owned())
                .into(),
            domain: login.domain.as_str().into(),
            reader,
            session,
            since: host.now(),
            priority: None,
            carbons: false,
            inactive: false,
            sm: None,
            pings: Pings::default(),
            skip: Vec::new(),
            held: Vec::new(),
        };
        self.enter(&mut live, host);
        let full = live.full();
        self.live = Some(Box::new(live));
        self.login = None;
        host.write(&format!(
            "<iq xmlns='{}' type='result' id='{}'><bind xmlns='{}'><jid>{}</jid></bind></iq>",
            ns::CLIENT,
            escape(&iq),
            ns::BIND,
            escape(&full)
        ));
    }

    fn enter(&self, live: &mut Live, host: &dyn Host) {
        let mut suffix = [0; 3];
        host.random(&mut suffix);
        let peer = Peer {
            session: live.session,
            resource: Arc::clone(&live.resource),
            priority: live.priority,
            carbons: live.carbons,
        };
        if let Some(resource) = self.shared.party.enter(&live.reader, peer, &hex(&suffix)) {
            live.resource = resource;
        }
    }

    fn resume(
        &mut self,
        session: SessionId,
        reader: Arc<Reader>,
        previd: &str,
        h: u32,
        kept: Option<Box<Kept>>,
        host: &mut dyn Host,
    ) {
        let mine = kept.filter(|kept| {
            let id = kept.sm.id.as_ref();
            id.is_some_and(|id| hex(id) == previd)
        });
        let age = mine.as_ref().map(|kept| host.now().since(kept.since));
        let max = std::time::Duration::from_secs(u64::from(self.shared.resume_s));
        let (Some(mut kept), Some(age)) = (mine, age) else {
            host.write(&failed("item-not-found", None));
            return;
        };
        if age > max {
            host.write(&failed("item-not-found", Some(kept.sm.handled)));
            return;
        }
        let had = match kept.sm.acked(h) {
            Ok(had) => had,
            Err(too_high) => return self.too_high(h, too_high.sent, host),
        };
        let Some(login) = self.login.take() else {
            return;
        };
        let again = kept.sm.resend();
        let mut live = Live {
            resource: kept.resource.as_ref().into(),
            domain: login.domain.as_str().into(),
            reader,
            session,
            since: host.now(),
            priority: kept.priority,
            carbons: kept.carbons,
            inactive: false,
            sm: None,
            pings: Pings::default(),
            skip: had.clone(),
            held: Vec::new(),
        };
        self.enter(&mut live, host);
        host.write(&format!(
            "<resumed xmlns='{}' previd='{}' h='{}'/>",
            ns::SM,
            escape(previd),
            kept.sm.handled
        ));
        live.sm = Some(Box::new(kept.sm));
        self.live = Some(Box::new(live));
        if !had.is_empty() {
            host.ack(had);
        }
        for stanza in again {
            self.stanza(stanza.into(), host);
        }
        self.ask(host);
        host.want();
    }

    pub(super) fn too_high(&mut self, h: u32, sent: u32, host: &mut dyn Host) {
        let more = format!(
            "<handled-count-too-high xmlns='{}' h='{h}' send-count='{sent}'/>",
            ns::SM
        );
        self.fail_with("undefined-condition", &more, "", host);
        host.close(close::BAD_MESSAGE, "handled-count-too-high", "");
    }

    /// Sends a stanza that is no entry.
    pub(super) fn stanza(&mut self, text: String, host: &mut dyn Host) {
        host.write(&text);
        let Some(live) = &mut self.live else { return };
        if let Some(sm) = &mut live.sm {
            if sm.is_full() {
                return self.fail("policy-violation", "too much is unacknowledged", host);
            }
            if sm.sent(Item::Stanza(text.into())) {
                self.ask(host);
            }
        }
    }

    /// Asks for an acknowledgement of what was sent and not asked for yet.
    pub(super) fn ask(&mut self, host: &mut dyn Host) {
        if let Some(live) = &mut self.live
            && let Some(sm) = &mut live.sm
            && sm.ask()
        {
            host.write(&format!("<r xmlns='{}'/>", ns::SM));
        }
    }

    /// Puts an entry on its way.
    pub(crate) fn send(
        &mut self,
        message: &Arc<Message>,
        place: Cursor,
        dup: bool,
        host: &mut dyn Host,
    ) -> Took {
        let Some(live) = self.live.as_mut().filter(|live| live.takes_entries()) else {
            return Took::Later;
        };
        if self.closed {
            return Took::Later;
        }
        if live.skip.contains(&message.id) {
            return Took::Had;
        }
        if !host.has_room(0) {
            return Took::Later;
        }
        if live.inactive {
            if !entry::is_urgent(message) && live.held.len() < HELD_MAX {
                live.held.push(Held {
                    message: Arc::clone(message),
                    place,
                    dup,
                    since: host.now(),
                });
                return Took::Sent;
            }
            self.release(host);
        }
        self.put(message, &place, dup, host);
        Took::Sent
    }

    fn put(&mut self, message: &Message, place: &Cursor, dup: bool, host: &mut dyn Host) {
        let Some(live) = &mut self.live else { return };
        let now = host.now();
        let waited = dup
            || message.accepted_at < live.since
            || now.millis().saturating_sub(message.accepted_at.millis()) > FRESH_MS;
        let bare = live.bare();
        let to = Recipient {
            bare: &bare,
            resource: &live.resource,
            domain: &live.domain,
        };
        let mut text = String::with_capacity(1024);
        entry::write(message, place, waited, to, &mut text);
        host.write(&text);
        let ask = match &mut live.sm {
            Some(sm) => sm.sent(Item::Entry(message.id)),
            None => {
                let next = live.pings.next;
                live.pings.sent.push_back((next, message.id));
                false
            }
        };
        if ask {
            self.ask(host);
        }
    }

    /// Sends what was held back.
    pub(crate) fn release(&mut self, host: &mut dyn Host) {
        let held = match &mut self.live {
            Some(live) => std::mem::take(&mut live.held),
            None => return,
        };
        for one in held {
            self.put(&one.message, &one.place, one.dup, host);
        }
    }

    /// Since when the oldest message is held back.
    pub(crate) fn held_since(&self) -> Option<Timestamp> {
        Some(self.live.as_ref()?.held.first()?.since)
    }

    /// Entries were sent and none follow now.
    pub(crate) fn sent(&mut self, host: &mut dyn Host) {
        self.ask(host);
        let Some(live) = &mut self.live else { return };
        let Pings { next, sent } = &live.pings;
        if sent.back().is_some_and(|(ping, _)| ping == next) {
            self.send_ping(host);
        }
    }

    /// Nothing was heard for long.
    pub(crate) fn ping(&mut self, host: &mut dyn Host) {
        match self.live.as_ref().map(|live| live.sm.is_some()) {
            Some(true) => host.write(&format!("<r xmlns='{}'/>", ns::SM)),
            Some(false) => self.send_ping(host),
            None => {}
        }
    }

    fn send_ping(&mut self, host: &mut dyn Host) {
        let Some(live) = &mut self.live else { return };
        let number = live.pings.next;
        live.pings.next = number.wrapping_add(1);
        let text = ping(live, number);
        self.stanza(text, host);
    }

    /// Everything stored was sent.
    pub(crate) fn idle(&mut self) {
        if let Some(live) = &mut self.live {
            live.skip = Vec::new();
        }
    }

    /// A message is to be taken out of sight.
    pub(crate) fn recall(&mut self, id: MessageId, host: &mut dyn Host) {
        let Some(live) = &mut self.live else { return };
        live.held.retain(|one| one.message.id != id);
        let text = format!(
            "<message xmlns='{}' from='{}' to='{}' type='headline'><recall xmlns='{}' id='{id}'/></message>",
            ns::CLIENT,
            live.domain,
            escape(&live.full()),
            entry::NAMESPACE
        );
        self.stanza(text, host);
    }

    /// Another stream of the user said something.
    pub(crate) fn copied(&mut self, copied: Copied, host: &mut dyn Host) {
        if self.live.is_some() && !self.closed {
            self.stanza(copied.0, host);
        }
    }

    /// The connection is over.
    pub(crate) fn park(&mut self, clean: bool, now: Timestamp) -> Option<Box<Kept>> {
        let live = self.live.take()?;
        self.shared.party.leave(&live.reader, live.session);
        let sm = live.sm?;
        if clean || sm.id.is_none() {
            return None;
        }
        Some(Box::new(Kept {
            sm: *sm,
            resource: live.resource.as_ref().into(),
            priority: live.priority,
            carbons: live.carbons,
            since: now,
        }))
    }

    /// The device's user changed: its address did, so its client has to log in again.
    pub(crate) fn rebound(&mut self, host: &mut dyn Host) {
        if let Some(live) = &mut self.live
            && let Some(sm) = &mut live.sm
        {
            sm.id = None;
        }
        self.fail_with("reset", "", "the device's user changed; log in again", host);
        host.close(
            close::RESTART,
            "binding_changed",
            "the device's user changed",
        );
    }

    /// An element that came while the session is being made.
    pub(super) fn keep_early(&mut self, element: Element, host: &mut dyn Host) {
        match &mut self.login {
            Some(login) if login.early.len() < EARLY_MAX => login.early.push(element),
            _ => self.fail("policy-violation", "too much before the answer", host),
        }
    }
}

fn ping(live: &Live, number: u32) -> String {
    let mut text = String::new();
    let _ = write!(
        text,
        "<iq xmlns='{}' type='get' id='hy-{number}' from='{}' to='{}'><ping xmlns='{}'/></iq>",
        ns::CLIENT,
        live.domain,
        escape(&live.full()),
        ns::PING
    );
    text
}

/// A refusal of stream management.
pub(super) fn failed(condition: &str, h: Option<u32>) -> String {
    let h = h.map_or(String::new(), |h| format!(" h='{h}'"));
    format!(
        "<failed xmlns='{}'{h}><{condition} xmlns='{}'/></failed>",
        ns::SM,
        ns::STANZA_ERRORS
    )
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
