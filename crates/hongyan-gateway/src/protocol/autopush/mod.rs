//! Mozilla's autopush protocol over WebSocket: a stock Firefox is a device, its subscriptions are the device's channels.
//!
//! A browser says hello with the identity that it was given before, or without one. An identity is stored at its first
//! registration only: before that the connection stays a stranger's, with no session. From then on messages of its channels
//! come as notifications, acknowledged one by one; nothing else of an inbox is for a browser.

mod incoming;
mod setup;

use std::any::Any;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hongyan_core::push::PushEncoding;
use hongyan_core::session::AppState;
use hongyan_core::{Message, PushChannel, Secret, StoreError};
use serde_json::{Map, Value, json};

use self::incoming::Said;
pub use self::incoming::judge;
pub use self::setup::Setup;
use self::setup::{Home, Identity, Known, Registered};
use super::websocket::close;
use super::{
    Desk, Farewell, Hello, Input, Kind, Outgoing, Proof, Protocol, Silence, Taken, Unanswered,
    Welcome,
};
use crate::options::{Options, ticks};
use crate::wheel::Tick;

/// The subprotocol that browsers offer; they do without the answer too.
pub const SUBPROTOCOL: &str = "push-notification";

/// Time for `hello`, milliseconds.
const HELLO_MS: u64 = 5_000;
/// How long a browser without channels may stay, milliseconds: after it, it is sent away until it has a page to serve.
const STRANGER_MS: u64 = 3_600_000;
/// Silence after which a ping is sent, milliseconds: each costs a phone's radio.
const PING_MS: u64 = 240_000;
/// Time for its pong, milliseconds.
const PONG_MS: u64 = 20_000;
/// The window of the two limits below, milliseconds.
const MINUTE_MS: u64 = 60_000;
/// Signs of life that a browser may ask for in a minute.
const PINGS_MAX: u16 = 10;
/// Registrations in a minute.
const REGISTERS_MAX: u16 = 20;
/// Longest message after `hello`, bytes.
const MESSAGE_BYTES_MAX: usize = 16 * 1024;
/// Longest `hello`, bytes.
const HELLO_BYTES_MAX: usize = 4 * 1024;
/// Requests that wait for their turn.
const WAITING_MAX: usize = 64;
/// Firefox does not come back after this code until its network changes or a page subscribes.
const STAY_AWAY: u16 = 4774;

/// Where a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Waits for `hello`.
    Opening,
    /// The store is asked who it is.
    Asked,
    /// Has an identity that is not stored yet.
    Anonymous,
    /// Is a device, with or without its session.
    Known,
}

/// What a browser waits for; asked of the store one after the other.
#[derive(Debug)]
enum Request {
    Register {
        channel: PushChannel,
        key: Option<String>,
    },
    Unregister {
        channel: PushChannel,
    },
}

/// What the store answered.
enum Answer {
    Identity(Result<Identity, StoreError>),
    Registered {
        channel: PushChannel,
        /// The identity, when it was stored by this.
        settled: Option<Known>,
        result: Registered,
    },
    Unregistered {
        channel: PushChannel,
        result: Result<bool, StoreError>,
    },
}

/// So many in a minute.
#[derive(Debug, Default)]
struct Allowance {
    since: Tick,
    taken: u16,
}

impl Allowance {
    fn take(&mut self, now: Tick, most: u16) -> bool {
        if self.taken == 0 || now.saturating_sub(self.since) >= ticks(MINUTE_MS) {
            *self = Self {
                since: now,
                taken: 0,
            };
        }
        self.taken = self.taken.saturating_add(1);
        self.taken <= most
    }
}

/// One connection that speaks it.
#[derive(Debug)]
pub(crate) struct Autopush {
    setup: Arc<Setup>,
    enrolment: Option<Secret>,
    phase: Phase,
    hello_by: Tick,
    uaid: Option<Secret>,
    /// Of an identity that is not stored.
    home: Option<Home>,
    known: Option<Known>,
    open: HashSet<PushChannel>,
    broadcasts: BTreeMap<String, String>,
    waiting: VecDeque<Request>,
    /// A request is with the store.
    asking: bool,
    pings: Allowance,
    registers: Allowance,
}

impl Autopush {
    pub(crate) fn new(setup: Arc<Setup>, enrolment: Option<Secret>) -> Self {
        Self {
            setup,
            enrolment,
            phase: Phase::Opening,
            hello_by: Tick::MAX,
            uaid: None,
            home: None,
            known: None,
            open: HashSet::new(),
            broadcasts: BTreeMap::new(),
            waiting: VecDeque::new(),
            asking: false,
            pings: Allowance::default(),
            registers: Allowance::default(),
        }
    }

    fn say(message: &Value, desk: &mut Desk<'_>) {
        desk.text(|out| out.extend_from_slice(message.to_string().as_bytes()));
    }

    fn hello(&mut self, uaid: Option<String>, desk: &mut Desk<'_>) {
        self.phase = Phase::Asked;
        self.hello_by = Tick::MAX;
        let (setup, enrolment) = (Arc::clone(&self.setup), self.enrolment.clone());
        let uaid = uaid.map(Secret::new);
        self.uaid.clone_from(&uaid);
        let asked = desk.ask(move |ports| async move {
            let found = setup.identify(&ports, enrolment.as_ref(), uaid.as_ref());
            Answer::Identity(found.await)
        });
        if !asked {
            busy(desk);
        }
    }

    fn identified(&mut self, found: Result<Identity, StoreError>, desk: &mut Desk<'_>) {
        match found {
            Ok(Identity::Known(known, open)) => {
                self.open = open;
                self.phase = Phase::Known;
                // What follows is said when the session is up.
                self.begin_session(known, desk);
            }
            Ok(Identity::New(home, uaid)) => {
                self.home = Some(home);
                self.uaid = Some(uaid);
                self.phase = Phase::Anonymous;
                self.say_hello(desk);
            }
            Ok(Identity::Stranger) => desk.close(
                close::UNAUTHORIZED,
                "unauthorized",
                "the path names no app: put a client key or an enrolment into it",
            ),
            Ok(Identity::TooLate) => desk.close(
                close::UNAUTHORIZED,
                "unauthorized",
                "the enrolment makes no more devices: make a new one",
            ),
            Err(error) => {
                tracing::warn!(%error, "a browser's identity could not be read");
                busy(desk);
            }
        }
    }

    fn begin_session(&mut self, known: Known, desk: &mut Desk<'_>) {
        desk.hello(Hello {
            proof: Proof::Device {
                app: known.app.clone(),
                device: known.device.clone(),
                secret_hash: known.secret_hash,
            },
            cursor: None,
            inflight: None,
            state: AppState::Background,
        });
        self.known = Some(known);
    }

    fn say_hello(&mut self, desk: &mut Desk<'_>) {
        let uaid = self.uaid.as_ref().and_then(Secret::expose_str);
        let wanted = std::mem::take(&mut self.broadcasts);
        let hello = json!({
            "messageType": "hello",
            "uaid": uaid.unwrap_or_default(),
            "status": 200,
            "use_webpush": true,
            "broadcasts": self.differing(&wanted),
        });
        Self::say(&hello, desk);
    }

    /// The broadcasts that the browser knows in another version, and those that there are not.
    fn differing(&self, wanted: &BTreeMap<String, String>) -> Map<String, Value> {
        let (mut differing, mut unknown) = (Map::new(), Map::new());
        for (id, version) in wanted {
            match self.setup.broadcasts.get(id) {
                Some(own) if own == version => {}
                Some(own) => drop(differing.insert(id.clone(), json!(own))),
                None => drop(unknown.insert(id.clone(), json!("there is no such broadcast"))),
            }
        }
        if !unknown.is_empty() {
            differing.insert("errors".to_owned(), Value::Object(unknown));
        }
        differing
    }

    fn say_registered(channel: &str, result: Registered, desk: &mut Desk<'_>) {
        let said = match result {
            Registered::At(endpoint) => json!({
                "messageType": "register",
                "channelID": channel,
                "status": 200,
                "pushEndpoint": endpoint,
            }),
            Registered::Refused(status) => json!({
                "messageType": "register",
                "channelID": channel,
                "status": status,
                "pushEndpoint": "",
            }),
        };
        Self::say(&said, desk);
    }

    fn say_unregistered(channel: &str, status: u16, desk: &mut Desk<'_>) {
        let said = json!({"messageType": "unregister", "channelID": channel, "status": status});
        Self::say(&said, desk);
    }

    fn wait(&mut self, request: Request, desk: &mut Desk<'_>) {
        if self.waiting.len() >= WAITING_MAX {
            desk.close(
                close::RATE_LIMITED,
                "rate_limited",
                "too many requests at once",
            );
            return;
        }
        self.waiting.push_back(request);
        self.next(desk);
    }

    /// Asks the store for what waits longest, if it is not asked already.
    fn next(&mut self, desk: &mut Desk<'_>) {
        if self.asking {
            return;
        }
        let Some(request) = self.waiting.pop_front() else {
            return;
        };
        let setup = Arc::clone(&self.setup);
        let asked = match (request, self.known.clone()) {
            (Request::Register { channel, key }, Some(known)) => desk.ask(move |_| async move {
                let result = setup.register(&known, channel.clone(), key).await;
                Answer::Registered {
                    channel,
                    settled: None,
                    result,
                }
            }),
            (Request::Register { channel, key }, None) => {
                let (Some(home), Some(uaid)) = (self.home.clone(), self.uaid.clone()) else {
                    return;
                };
                desk.ask(move |ports| async move {
                    let (settled, result) = match setup.settle(&ports, home, &uaid).await {
                        Ok(Some(known)) => {
                            let result = setup.register(&known, channel.clone(), key).await;
                            (Some(known), result)
                        }
                        Ok(None) => (None, Registered::Refused(401)),
                        Err(error) => {
                            tracing::warn!(%error, "a browser's identity could not be stored");
                            (None, Registered::Refused(500))
                        }
                    };
                    let settled = match (settled, &result) {
                        (Some(known), Registered::Refused(_)) => {
                            // Nothing was registered, so there is nothing to keep.
                            let gone = setup.pushes.forget(&known.app, &known.device).await;
                            gone.is_err().then_some(known)
                        }
                        (settled, _) => settled,
                    };
                    Answer::Registered {
                        channel,
                        settled,
                        result,
                    }
                })
            }
            (Request::Unregister { channel }, Some(known)) => desk.ask(move |_| async move {
                let result = setup
                    .pushes
                    .close(&known.app, &known.device, &channel)
                    .await;
                Answer::Unregistered { channel, result }
            }),
            (Request::Unregister { channel }, None) => {
                Self::say_unregistered(channel.as_str(), 200, desk);
                return self.next(desk);
            }
        };
        self.asking = asked;
        if !asked {
            busy(desk);
        }
    }

    fn answered(&mut self, answer: Answer, desk: &mut Desk<'_>) {
        match answer {
            Answer::Identity(found) => return self.identified(found, desk),
            Answer::Registered {
                channel,
                settled,
                result,
            } => {
                if matches!(result, Registered::At(_)) {
                    self.open.insert(channel.clone());
                }
                Self::say_registered(channel.as_str(), result, desk);
                if let Some(known) = settled {
                    self.phase = Phase::Known;
                    self.begin_session(known, desk);
                }
            }
            Answer::Unregistered { channel, result } => {
                let status = match result {
                    Ok(_) => 200,
                    Err(error) => {
                        tracing::warn!(%error, "a browser's channel could not be closed");
                        500
                    }
                };
                if status == 200 {
                    self.open.remove(&channel);
                }
                Self::say_unregistered(channel.as_str(), status, desk);
            }
        }
        self.asking = false;
        self.next(desk);
    }

    fn act(&mut self, said: Said, desk: &mut Desk<'_>) {
        match said {
            Said::Hello { .. } => desk.close(
                close::BAD_MESSAGE,
                "bad_order",
                "hello is said exactly once",
            ),
            Said::Register {
                channel,
                parsed,
                key,
            } => match parsed {
                None => Self::say_registered(&channel, Registered::Refused(400), desk),
                Some(_) if !self.registers.take(desk.now(), REGISTERS_MAX) => {
                    Self::say_registered(&channel, Registered::Refused(429), desk);
                }
                Some(channel) => self.wait(Request::Register { channel, key }, desk),
            },
            Said::Unregister { channel, parsed } => match parsed {
                None => Self::say_unregistered(&channel, 200, desk),
                Some(channel) => self.wait(Request::Unregister { channel }, desk),
            },
            Said::Ack { done, unreadable } => {
                desk.ack_ids(done);
                for id in unreadable {
                    desk.reject(id);
                }
            }
            Said::Nack => metrics::counter!("hongyan_autopush_nacks_total").increment(1),
            Said::Broadcasts(wanted) => {
                let differing = self.differing(&wanted);
                if !differing.is_empty() {
                    let said = json!({"messageType": "broadcast", "broadcasts": differing});
                    Self::say(&said, desk);
                }
            }
            Said::Ping => {
                if self.pings.take(desk.now(), PINGS_MAX) {
                    Self::say(&json!({}), desk);
                } else {
                    desk.close(close::RATE_LIMITED, "rate_limited", "too many pings");
                }
            }
            Said::Unknown => metrics::counter!("hongyan_autopush_unknown_total").increment(1),
        }
    }
}

fn busy(desk: &mut Desk<'_>) {
    desk.close(
        close::TRY_AGAIN,
        "busy",
        "the gateway is busy; try again later",
    );
}

/// The notification of a message that came over a channel.
fn notification(message: &Message) -> Option<Vec<u8>> {
    let push = message.push.as_deref()?;
    let mut said = json!({
        "messageType": "notification",
        "channelID": push.channel,
        "version": message.id.to_string(),
    });
    if !push.body.is_empty() {
        said["data"] = URL_SAFE_NO_PAD.encode(&push.body).into();
        said["headers"] = match &push.encoding {
            PushEncoding::Aesgcm {
                encryption,
                crypto_key,
            } => json!({"encoding": "aesgcm", "encryption": encryption, "crypto_key": crypto_key}),
            PushEncoding::Aes128gcm => json!({"encoding": "aes128gcm"}),
            // Nothing that a browser could decrypt.
            PushEncoding::Opaque => return None,
        };
    }
    Some(said.to_string().into_bytes())
}

impl Protocol for Autopush {
    fn kind(&self) -> Kind {
        Kind::Autopush
    }

    fn begin(&mut self, desk: &mut Desk<'_>) {
        self.hello_by = desk.now() + ticks(HELLO_MS);
        desk.rearm();
    }

    fn hear(&mut self, input: Input<'_>, desk: &mut Desk<'_>) {
        let Input::Text(bytes) = input else {
            desk.close(
                close::UNSUPPORTED,
                "unsupported",
                "this protocol speaks text messages",
            );
            return;
        };
        let said = match incoming::parse(bytes) {
            Ok(said) => said,
            Err(detail) => {
                desk.close(close::BAD_MESSAGE, "bad_message", detail);
                return;
            }
        };
        match (self.phase, said) {
            (Phase::Opening, Said::Hello { uaid, broadcasts }) => {
                self.broadcasts = broadcasts;
                self.hello(uaid, desk);
            }
            (Phase::Opening | Phase::Asked, _) => {
                desk.close(
                    close::BAD_MESSAGE,
                    "bad_order",
                    "hello comes first, then its answer",
                );
            }
            (Phase::Anonymous | Phase::Known, said) => self.act(said, desk),
        }
    }

    fn welcome(&mut self, _welcome: &Welcome<'_>, desk: &mut Desk<'_>) {
        // A browser that was anonymous at first had its hello answered.
        if self.home.is_none() {
            self.say_hello(desk);
        }
    }

    fn send(&mut self, one: &Outgoing<'_>, desk: &mut Desk<'_>) -> Taken {
        let is_open = |push: &hongyan_core::Push| self.open.contains(&push.channel);
        let wanted = one.message.push.as_deref().is_some_and(is_open);
        let Some(said) = wanted.then(|| notification(one.message)).flatten() else {
            return Taken::Skipped { rejected: true };
        };
        if !desk.has_room(said.len()) {
            return Taken::Full;
        }
        desk.text(|out| out.extend_from_slice(&said));
        Taken::Sent
    }

    /// There is no word for it, and browsers are shown no messages that could be recalled.
    fn mark(&mut self, _: hongyan_core::MessageId, _: &Outgoing<'_>, _: &mut Desk<'_>) -> Taken {
        Taken::Skipped { rejected: true }
    }

    /// More came than is kept. There is no word for it, and the browser goes on with what is there: its other channels have
    /// lost nothing, and whoever has the address of one must not be able to end them.
    fn gap(&mut self, lost: u64, _desk: &mut Desk<'_>) {
        metrics::counter!("hongyan_autopush_lost_total").increment(lost);
    }

    fn told(&mut self, what: Box<dyn Any + Send>, desk: &mut Desk<'_>) {
        match what.downcast::<Answer>() {
            Ok(answer) => self.answered(*answer, desk),
            Err(what) if what.is::<Unanswered>() => busy(desk),
            Err(_) => {}
        }
    }

    fn ping(&mut self, desk: &mut Desk<'_>) {
        desk.websocket_ping();
    }

    fn close(&mut self, farewell: &Farewell<'_>, _desk: &mut Desk<'_>) -> u16 {
        match farewell.code {
            // The same identity is elsewhere: the two would take it from each other for ever.
            close::TAKEN_OVER => STAY_AWAY,
            close::TOO_SLOW if self.phase == Phase::Anonymous => STAY_AWAY,
            close::RESTART => close::GOING_AWAY,
            close::BAD_MESSAGE => close::PROTOCOL,
            close::UNAUTHORIZED | close::DEVICE_GONE | close::FORBIDDEN => close::NORMAL,
            close::TRY_AGAIN | close::TOO_SLOW | close::RATE_LIMITED => close::INTERNAL,
            code => code,
        }
    }

    fn due(&self) -> Option<Tick> {
        (self.phase == Phase::Opening).then_some(self.hello_by)
    }

    fn fire(&mut self, desk: &mut Desk<'_>) {
        if self.phase == Phase::Opening && self.hello_by <= desk.now() {
            desk.close(close::TOO_SLOW, "silent", "no hello came in time");
        }
    }

    fn opening_ms(&self, _options: &Options) -> u64 {
        STRANGER_MS
    }

    fn message_bytes_max(&self, _live: bool, _options: &Options) -> usize {
        match self.phase {
            Phase::Opening | Phase::Asked => HELLO_BYTES_MAX,
            Phase::Anonymous | Phase::Known => MESSAGE_BYTES_MAX,
        }
    }

    fn silence(&self, spread: u64, _options: &Options) -> Silence {
        let ping = ticks(PING_MS * spread / 100);
        Silence {
            ping_after: Some(ping),
            dead_after: Some(ping + ticks(PONG_MS)),
        }
    }
}
