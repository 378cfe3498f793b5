//! The state of one stream: from its header to its end. It sees a [`Host`] and no socket.

use std::sync::Arc;

use hongyan_core::device::ScramKeys;
use hongyan_core::session::AppState;
use hongyan_core::{AppId, ChannelId, DeviceId, MessageId, SessionId, Stage, Timestamp, UserId};

use super::bound::Live;
use super::deliver::Copied;
use super::login::Login;
use super::party::Party;
use super::sm::{Kept, hex};
use super::stream::{Event, Fault, Reader as Stream};
use super::xml::{escape, ns};
use crate::protocol::websocket::close;

/// Longest header or stanza before login, bytes.
pub(crate) const OPENING_BYTES_MAX: usize = 16 * 1024;
/// Longest stanza, bytes; RFC 6120 section 13.12 asks for at least 10,000.
pub(crate) const STANZA_BYTES_MAX: usize = 64 * 1024;

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
    /// Turns pushes through a channel on or off, or through all; `iq` is who wants to know that it is done.
    Push {
        iq: String,
        app: AppId,
        device: DeviceId,
        channel: Option<ChannelId>,
        on: bool,
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
    Push {
        iq: String,
        /// Whether there is such a channel; `None` when the store did not answer.
        known: Option<bool>,
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
    pub(crate) fn closing(&mut self, code: u16, word: &str, detail: &str, host: &mut dyn Host) {
        if self.said_close {
            self.closed = true;
            return;
        }
        let condition = match code {
            close::NORMAL => "",
            close::TAKEN_OVER => "conflict",
            close::GOING_AWAY | close::RESTART => "system-shutdown",
            close::FORBIDDEN if word == close::KICKED => "policy-violation",
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
            Answer::Push { iq, known } => self.pushed(&iq, known, host),
        }
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
