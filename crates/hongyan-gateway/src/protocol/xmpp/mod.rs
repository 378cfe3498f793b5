//! XMPP for clients (RFC 6120, 6121, 7395): a device's inbox as messages, acknowledged by stream
//! management (XEP-0198).
//!
//! [`machine`] is the stream's state, without a socket; here it meets the gateway. [`serve`] takes
//! connections in: what comes before TLS is spoken there, so that a reactor never has to turn a
//! socket from plain to TLS.
//!
//! A user's address is `user@<app>.<domain>`; when there is only one app, `user@<domain>` means the
//! same. The password is a device token, and with it the device is chosen.

mod bound;
mod deliver;
mod entry;
mod jid;
mod login;
mod machine;
mod party;
mod scram;
mod serve;
mod sm;
mod stanza;
mod stream;
mod xml;

use std::any::Any;
use std::sync::Arc;

use hongyan_core::device::Token;
use hongyan_core::port::Reader;
use hongyan_core::session::AppState;
use hongyan_core::{
    AppId, ChannelId, Cursor, Device, DeviceId, MessageId, SessionId, Stage, StoreError, Timestamp,
};
use ring::rand::SecureRandom as _;

use self::deliver::{Copied, Took};
use self::machine::{Account, Answer, Host, Machine, Query};
use self::sm::Kept;
use super::{
    Desk, Farewell, Hello, Input, Kind, Outgoing, Parked, Proof, Protocol, Silence, Taken,
    Unanswered, Welcome,
};
use crate::gateway::Ports;
use crate::options::{Options, ticks};
use crate::protocol::websocket::close;
use crate::wheel::Tick;

pub(crate) use self::serve::Server;
pub use self::serve::{Listener, Xmpp};

/// Reads bytes of strangers as a TCP stream in pieces of this size, or as one WebSocket message when it is 0: what was
/// read, and why it ended. For the fuzz targets.
#[doc(hidden)]
#[must_use]
pub fn probe(bytes: &[u8], piece: usize) -> (Vec<String>, Option<String>) {
    let (mut reader, mut read) = (stream::Reader::default(), Vec::new());
    if piece == 0 {
        return match stream::Reader::take_message(bytes, machine::OPENING_BYTES_MAX) {
            Ok(event) => (event.iter().map(|e| format!("{e:?}")).collect(), None),
            Err(fault) => (read, Some(format!("{fault:?}"))),
        };
    }
    for mut piece in bytes.chunks(piece) {
        loop {
            match reader.take(&mut piece, machine::OPENING_BYTES_MAX) {
                Ok(Some(stream::Event::Element(element))) => {
                    let mut text = String::new();
                    element.write("", &mut text);
                    read.push(text);
                }
                Ok(Some(event)) => {
                    read.push(format!("{event:?}"));
                    if event == stream::Event::Close {
                        return (read, None);
                    }
                }
                Ok(None) => break,
                Err(fault) => return (read, Some(format!("{fault:?}"))),
            }
        }
    }
    (read, None)
}

/// Settings of XMPP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XmppOptions {
    /// The domain, in lower case; apps are `<app>.<domain>`.
    pub domain: String,
    /// Seconds that a session whose connection was cut can be resumed.
    pub resume_s: u32,
    /// Time for everything before a resource is bound, milliseconds.
    pub login_timeout_ms: u64,
    /// Silence after which the client is asked whether it lives, milliseconds.
    pub idle_ms: u64,
    /// Further silence after which it is dead, milliseconds.
    pub grace_ms: u64,
}

impl Default for XmppOptions {
    fn default() -> Self {
        Self {
            domain: "localhost".to_owned(),
            resume_s: 300,
            login_timeout_ms: 30_000,
            idle_ms: 120_000,
            grace_ms: 30_000,
        }
    }
}

/// How often a device is read again because somebody else changed it meanwhile.
const TURN_TRIES: u8 = 8;

/// One stream.
#[derive(Debug)]
pub(crate) struct Speaking {
    machine: Machine,
    server: Arc<serve::Server>,
    /// When held messages are to leave.
    due: Option<Tick>,
}

impl Speaking {
    fn new(machine: Machine, server: Arc<serve::Server>) -> Self {
        Self {
            machine,
            server,
            due: None,
        }
    }

    fn with(&mut self, desk: &mut Desk<'_>, work: impl FnOnce(&mut Machine, &mut dyn Host)) {
        let mut host = OnDesk {
            desk,
            server: &self.server,
        };
        work(&mut self.machine, &mut host);
        match (self.machine.held_since(), self.due) {
            (None, _) => self.due = None,
            (Some(_), Some(_)) => {}
            (Some(_), None) => {
                let wait = u64::try_from(deliver::HELD_MS).unwrap_or(u64::MAX);
                self.due = Some(desk.now() + ticks(wait));
                desk.rearm();
            }
        }
    }
}

impl Protocol for Speaking {
    fn kind(&self) -> Kind {
        Kind::Xmpp
    }

    fn hear(&mut self, input: Input<'_>, desk: &mut Desk<'_>) {
        self.with(desk, |machine, host| match input {
            Input::Bytes(bytes) => machine.hear(bytes, host),
            Input::Text(text) => machine.hear_message(text, host),
            Input::Binary(_) => machine.fail("not-well-formed", "XMPP is spoken in text", host),
        });
    }

    fn welcome(&mut self, welcome: &Welcome<'_>, desk: &mut Desk<'_>) {
        self.with(desk, |machine, host| {
            machine.welcome(welcome.session, welcome.reader, host);
        });
    }

    fn takes(&self) -> bool {
        self.machine.has_room()
    }

    fn send(&mut self, one: &Outgoing<'_>, desk: &mut Desk<'_>) -> Taken {
        let mut took = Took::Later;
        self.with(desk, |machine, host| {
            took = machine.send(one.message, one.place, one.dup, host);
        });
        match took {
            Took::Sent => Taken::Sent,
            Took::Later => Taken::Later,
            Took::Full => Taken::Full,
            Took::Had => Taken::Skipped { rejected: false },
        }
    }

    fn mark(&mut self, recalled: MessageId, one: &Outgoing<'_>, desk: &mut Desk<'_>) -> Taken {
        self.machine.unhold(recalled);
        self.send(one, desk)
    }

    fn sent(&mut self, _count: usize, _more: bool, desk: &mut Desk<'_>) {
        self.with(desk, |machine, host| machine.sent(host));
    }

    fn recall(&mut self, id: MessageId, desk: &mut Desk<'_>) {
        self.with(desk, |machine, host| machine.recall(id, host));
    }

    fn idle(&mut self, _head: Cursor, _desk: &mut Desk<'_>) {
        self.machine.idle();
    }

    fn told(&mut self, what: Box<dyn Any + Send>, desk: &mut Desk<'_>) {
        let what = match what.downcast::<Copied>() {
            Ok(copied) => return self.with(desk, |machine, host| machine.copied(*copied, host)),
            Err(what) => what,
        };
        let answer = match what.downcast::<Answer>() {
            Ok(answer) => *answer,
            Err(what) if what.is::<Unanswered>() => {
                return self.with(desk, |machine, host| machine.unanswered(host));
            }
            Err(_) => return,
        };
        self.with(desk, |machine, host| machine.told(answer, host));
    }

    fn ping(&mut self, desk: &mut Desk<'_>) {
        self.with(desk, |machine, host| machine.ping(host));
    }

    fn rebound(&mut self, _reader: &Arc<Reader>, desk: &mut Desk<'_>) {
        self.with(desk, |machine, host| machine.rebound(host));
    }

    fn close(&mut self, farewell: &Farewell<'_>, desk: &mut Desk<'_>) -> u16 {
        self.with(desk, |machine, host| {
            machine.closing(farewell.code, farewell.word, farewell.detail, host);
        });
        farewell.code
    }

    fn park(&mut self, clean: bool, _now: hongyan_core::Timestamp) -> Option<Parked> {
        let kept = self.machine.park(clean, self.server.now())?;
        Some(kept)
    }

    fn lingers(&self, _now: hongyan_core::Timestamp) -> Option<Timestamp> {
        // As in `park`: what it kept may be resumed by that clock.
        let resume_s = self.server.options.resume_s;
        let resume = std::time::Duration::from_secs(u64::from(resume_s));
        Some(self.server.now().plus(resume))
    }

    fn due(&self) -> Option<Tick> {
        self.due
    }

    fn fire(&mut self, desk: &mut Desk<'_>) {
        self.due = None;
        self.with(desk, |machine, host| {
            machine.release(host);
            machine.sent(host);
        });
    }

    fn opening_ms(&self, _options: &Options) -> u64 {
        self.server.options.login_timeout_ms
    }

    fn message_bytes_max(&self, live: bool, _options: &Options) -> usize {
        // The stream error is said by the machine, so it has to see that a message is too large.
        let max = if live {
            machine::STANZA_BYTES_MAX
        } else {
            machine::OPENING_BYTES_MAX
        };
        max + 1024
    }

    fn silence(&self, spread: u64, _options: &Options) -> Silence {
        let ping = ticks(self.server.options.idle_ms * spread / 100);
        Silence {
            ping_after: Some(ping),
            dead_after: Some(ping + ticks(self.server.options.grace_ms)),
        }
    }
}

/// A machine's view of the gateway.
struct OnDesk<'a, 'b> {
    desk: &'a mut Desk<'b>,
    server: &'a serve::Server,
}

impl Host for OnDesk<'_, '_> {
    fn now(&self) -> Timestamp {
        self.desk.clock()
    }

    fn has_room(&mut self, bytes: usize) -> bool {
        self.desk.has_room(bytes)
    }

    fn write(&mut self, text: &str) {
        self.desk.text(|out| out.extend_from_slice(text.as_bytes()));
    }

    fn ask(&mut self, query: Query) -> bool {
        self.desk.ask(move |ports| look_up(ports, query))
    }

    fn hello(&mut self, account: &Account) {
        self.desk.hello(Hello {
            proof: Proof::Device {
                app: account.app.clone(),
                device: account.device.clone(),
                secret_hash: account.secret_hash,
            },
            cursor: None,
            inflight: None,
            state: AppState::Foreground,
        });
    }

    fn parked(&mut self) -> Option<Box<Kept>> {
        self.desk.parked()?.downcast().ok()
    }

    fn ack(&mut self, ids: Vec<MessageId>) {
        self.desk.ack_ids(ids);
    }

    fn event(&mut self, id: MessageId, stage: Stage) {
        self.desk.event(id, stage, None);
    }

    fn said(&mut self, text: String) {
        self.desk.said(text);
    }

    fn state(&mut self, state: AppState) {
        self.desk.state(state);
    }

    fn want(&mut self) {
        self.desk.want();
    }

    fn spend(&mut self) -> bool {
        // A WebSocket message was paid for when it came.
        self.desk.is_websocket() || self.desk.spend()
    }

    fn tell(&mut self, session: SessionId, copied: Copied) {
        self.server.hub.tell(session, Box::new(copied));
    }

    fn starttls(&mut self) {
        // Spoken before the gateway has the connection.
        self.close(close::INTERNAL, "starttls", "TLS cannot begin here");
    }

    fn close(&mut self, code: u16, word: &'static str, detail: &'static str) {
        self.desk.close(code, word, detail);
    }

    fn end(&mut self) {
        self.desk.goodbye("bye");
    }

    fn random(&self, bytes: &mut [u8]) {
        random(bytes);
    }
}

/// Draws what nobody may guess. Without a source of chance nothing is given out that would have to be one.
fn random(bytes: &mut [u8]) {
    if ring::rand::SystemRandom::new().fill(bytes).is_err() {
        tracing::error!("the system gives no random bytes");
        std::process::abort();
    }
}

async fn look_up(ports: Ports, query: Query) -> Answer {
    match query {
        Query::Token { try_no, hash } => {
            let found = ports.registry.device_by_secret(&hash).await;
            Answer::Accounts {
                try_no,
                app: None,
                accounts: noted(found)
                    .map(|device| device.into_iter().filter_map(account).collect()),
            }
        }
        Query::User { try_no, app, user } => {
            let app = match app {
                Some(app) => Some(app),
                None => noted(only_app(&ports).await).flatten(),
            };
            let Some(app) = app else {
                return Answer::Accounts {
                    try_no,
                    app: None,
                    accounts: Some(Vec::new()),
                };
            };
            let found = ports.registry.devices_of(&app, &[user]).await;
            let accounts = noted(found).map(|users| {
                let devices = users.into_iter().flatten();
                let able = devices.filter(|device| device.scram().is_some());
                able.take(scram::DEVICES_MAX).filter_map(account).collect()
            });
            Answer::Accounts {
                try_no,
                app: Some(app),
                accounts,
            }
        }
        Query::Push {
            iq,
            app,
            device,
            channel,
            on,
        } => {
            let turned = turn_pushes(&ports, &app, &device, channel.as_ref(), on).await;
            Answer::Push {
                iq,
                known: noted(turned),
            }
        }
    }
}

/// Turns pushes through one of a device's channels on or off, or through all; answers whether it has such a channel.
async fn turn_pushes(
    ports: &Ports,
    app: &AppId,
    device: &DeviceId,
    channel: Option<&ChannelId>,
    on: bool,
) -> Result<bool, StoreError> {
    for _ in 0..TURN_TRIES {
        let ids = std::slice::from_ref(device);
        let found = ports.registry.devices(app, ids).await?.pop().flatten();
        let Some(mut record) = found else {
            return Ok(false);
        };
        let meant = |token: &&mut Token| {
            token.is_active() && channel.is_none_or(|channel| *channel == token.channel)
        };
        let (mut known, mut changed) = (channel.is_none(), false);
        for token in record.tokens.iter_mut().filter(meant) {
            known = true;
            changed |= token.paused == on;
            token.paused = !on;
        }
        if !changed {
            return Ok(known);
        }
        let read = record.version;
        record.version = read + 1;
        match ports.registry.put_device(record, Some(read)).await {
            Ok(()) => return Ok(known),
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Err(StoreError::Conflict { entity: "device" })
}

/// The app that the bare domain means.
async fn only_app(ports: &Ports) -> Result<Option<AppId>, StoreError> {
    let mut apps = ports.registry.apps(None, 2).await?;
    Ok(match apps.len() {
        1 => apps.pop().map(|app| app.id),
        _ => None,
    })
}

fn noted<T>(found: Result<T, StoreError>) -> Option<T> {
    match found {
        Ok(found) => Some(found),
        Err(error) => {
            tracing::warn!(%error, "an XMPP login could not be looked up");
            None
        }
    }
}

/// What a login needs of a device; nobody can log in on one that belongs to no user.
fn account(device: Device) -> Option<Account> {
    let keys = device.scram().cloned().map(Box::new);
    Some(Account {
        app: device.app,
        device: device.id,
        user: device.user?,
        secret_hash: device.secret_hash,
        keys,
    })
}
