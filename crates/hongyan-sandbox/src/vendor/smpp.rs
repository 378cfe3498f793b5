//! A short message service centre that speaks SMPP 3.4, on a listener of its own.
//!
//! Ids are hex in answers and decimal in the text of receipts; every other receipt has its fields as TLVs too. Parts are put
//! together before the phone gets the text. Bad days: `unavailable` is a system error, `quota_exhausted` a full queue,
//! `auth_expired` a session that is not bound, `goaway` an unbind, `reset` a connection that drops before the answer,
//! `malformed` a length that no PDU has; faults of the endpoint `auth` refuse the bind.

mod session;
mod wire;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc;

pub(crate) use self::session::run;
use self::wire::Submit;
use super::{Simulator, sms};
use crate::accounts::Accounts;
use crate::channel::Channel;
use crate::dice::{Dice, HEX};
use crate::exchange::{Call, Connection, Reply};
use crate::faults::{Endpoint, FaultKind};
use crate::push::{Fate, Push, Receipt};
use crate::receipts::{Post, ReceiptAddress};
use crate::world::World;

/// A PDU on its way out.
type Outgoing = Vec<u8>;

/// Texts whose parts are not all there.
const PARTIAL_MAX: usize = 1_000;
/// Receipts that wait for a session.
const WAITING_MAX: usize = 1_000;

#[derive(Clone, Serialize, Deserialize)]
struct Account {
    system_id: String,
    password: String,
}

#[derive(Debug)]
struct Session {
    number: u64,
    receives: bool,
    sender: mpsc::Sender<Outgoing>,
}

/// A text whose parts arrive.
#[derive(Debug, Default)]
struct Partial {
    parts: BTreeMap<u8, Vec<u8>>,
    ids: Vec<String>,
}

#[derive(Debug, Default)]
struct State {
    sessions: Vec<Session>,
    next_session: u64,
    next_id: u32,
    next_sequence: u32,
    partial: HashMap<(String, u16, u8), Partial>,
    waiting: VecDeque<Outgoing>,
}

/// The centre.
pub(crate) struct Smsc {
    account: Account,
    address: SocketAddr,
    state: Mutex<State>,
}

impl std::fmt::Debug for Smsc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Smsc")
            .field("system_id", &self.account.system_id)
            .finish_non_exhaustive()
    }
}

impl Smsc {
    pub(crate) fn open(accounts: &mut Accounts, address: SocketAddr, dice: &Dice) -> Self {
        let account = accounts.of("smpp", || Account {
            system_id: "hongyan".to_owned(),
            password: dice.text(HEX, 8),
        });
        Self {
            account,
            address,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The `command_status` of a bind.
    fn judge(&self, name: &str, password: &str) -> u32 {
        if name != self.account.system_id {
            0x0F
        } else if password != self.account.password {
            0x0E
        } else {
            0
        }
    }

    fn enter(&self, receives: bool, sender: mpsc::Sender<Outgoing>) -> u64 {
        let mut state = self.state();
        state.next_session += 1;
        let number = state.next_session;
        if receives {
            while let Some(pdu) = state.waiting.pop_front() {
                if let Err(mpsc::error::TrySendError::Full(pdu)) = sender.try_send(pdu) {
                    state.waiting.push_front(pdu);
                    break;
                }
            }
        }
        state.sessions.push(Session {
            number,
            receives,
            sender,
        });
        number
    }

    fn leave(&self, number: u64) {
        self.state()
            .sessions
            .retain(|session| session.number != number);
    }

    /// Takes a submission and gives its id; the error is the `command_status`.
    fn take(&self, world: &World, read: &Submit) -> Result<String, u32> {
        let number = sms::normal(&format!("+{}", read.destination)).ok_or(0x0B_u32)?;
        if read.destination_ton != 1 {
            return Err(0x50);
        }
        if read.source.is_empty() {
            return Err(0x0A);
        }
        match sms::judge(world, &number) {
            sms::Number::Good => {}
            sms::Number::Dead => return Err(0x0B),
            sms::Number::Refused => return Err(0x45),
            sms::Number::TooOften => return Err(0x58),
        }
        let mut state = self.state();
        // Ids with letters, so that hex and decimal differ.
        state.next_id = state.next_id.max(0x1A) + 1;
        let id = format!("{:08X}", state.next_id);
        let whole = match read.part {
            None => Some((read.text.clone(), id.clone())),
            Some((reference, total, place)) => {
                if state.partial.len() >= PARTIAL_MAX {
                    state.partial.clear();
                }
                let key = (number.clone(), reference, total);
                let partial = state.partial.entry(key.clone()).or_default();
                partial.parts.insert(place, read.text.clone());
                partial.ids.push(id.clone());
                if partial.parts.len() == usize::from(total) {
                    let done = state.partial.remove(&key).unwrap_or_default();
                    let text = done.parts.into_values().flatten().collect();
                    Some((text, done.ids.join(",")))
                } else {
                    None
                }
            }
        };
        drop(state);
        if let Some((bytes, ids)) = whole {
            let receipt = Receipt {
                channel: Channel::Smpp,
                url: read.source.clone(),
                account: self.account.system_id.clone(),
                id: ids,
                token: number.clone(),
                param: String::new(),
                kinds: u32::from(read.registered & 1),
            };
            let text = wire::text(read.data_coding, &bytes);
            if read.port.is_some() {
                // For the app, not for the person.
                let push = Push {
                    body: text,
                    expires_ms: world.clock.now_ms().saturating_add(3_600_000),
                    stored: true,
                    receipt: Some(receipt),
                    ..Push::default()
                };
                world.deliver(Channel::Smpp, &number, push);
            } else {
                sms::deliver(world, Channel::Smpp, &number, text, receipt);
            }
        }
        Ok(id)
    }

    /// Sends the receipts of all parts over a session that takes them.
    fn tell(&self, receipt: &Receipt, state_word: &str, now_ms: i64) {
        let minute = jiff::Timestamp::from_millisecond(now_ms)
            .map(|at| at.strftime("%y%m%d%H%M").to_string())
            .unwrap_or_default();
        for id in receipt.id.split(',') {
            let number = u32::from_str_radix(id, 16).unwrap_or_default();
            let body = wire::receipt(
                (receipt.token.trim_start_matches('+'), &receipt.url),
                (id, &number.to_string()),
                state_word,
                &minute,
                number % 2 == 0,
            );
            let mut state = self.state();
            state.next_sequence += 1;
            let pdu = wire::framed(wire::DELIVER_SM, 0, state.next_sequence, &body);
            let mut left = Some(pdu);
            for session in state.sessions.iter().filter(|session| session.receives) {
                let Some(pdu) = left.take() else { break };
                if let Err(error) = session.sender.try_send(pdu) {
                    left = Some(error.into_inner());
                }
            }
            if let Some(pdu) = left {
                while state.waiting.len() >= WAITING_MAX {
                    state.waiting.pop_front();
                }
                state.waiting.push_back(pdu);
            }
        }
    }
}

/// The simulator, as the others see it.
#[derive(Debug)]
pub(crate) struct Smpp(pub(crate) Arc<Smsc>);

impl Simulator for Smpp {
    fn channel(&self) -> Channel {
        Channel::Smpp
    }

    /// Nothing: it has a listener of its own.
    fn claims(&self, _call: &Call) -> Option<Endpoint> {
        None
    }

    fn handle(&self, _world: &World, _connection: &Connection, _call: &Call) -> Reply {
        Reply::empty(404, "refused not over HTTP")
    }

    fn fault(&self, _world: &World, _call: &Call, _kind: FaultKind) -> Reply {
        Reply::empty(404, "refused not over HTTP")
    }

    fn new_token(&self, unique: &str, _dice: &Dice) -> String {
        sms::new_number(unique)
    }

    fn place(&self) -> (&'static str, &'static str) {
        ("sms", "smpp")
    }

    fn credential(&self, _accounts: &Accounts) -> Value {
        let smsc = &self.0;
        json!({
            "provider": "smpp", "host": smsc.address.ip().to_string(), "port": smsc.address.port(),
            "system_id": smsc.account.system_id, "password": smsc.account.password, "source": "10690",
        })
    }

    /// Receipts go over the session; nothing is posted.
    fn receipt(
        &self,
        receipt: &Receipt,
        fate: Fate,
        now_ms: i64,
        _console: Option<&ReceiptAddress>,
    ) -> Option<Post> {
        if receipt.kinds != 0
            && let Some(state) = sms::state_of(receipt, fate)
        {
            self.0.tell(receipt, state, now_ms);
        }
        None
    }
}
