//! What goes out on a bound stream: entries of the inbox and other stanzas, and what acknowledges them.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::Arc;

use hongyan_core::{Cursor, Message, MessageId, Timestamp};

use super::bound::Live;
use super::entry::{self, Recipient};
use super::machine::{Host, Machine};
use super::sm::Item;
use super::xml::{escape, ns};

/// Messages that are held back while the client is inactive.
const HELD_MAX: usize = 16;
/// Entries that may be unacknowledged: more than messages may be in flight, as marks of recalls, and what was recalled, come on top
/// of those.
const UNACKED_LEN_MAX: usize = 512;
/// How long they are held back, milliseconds.
pub(crate) const HELD_MS: i64 = 600_000;
/// Entries older than this when they go out carry a `<delay/>`, milliseconds.
const FRESH_MS: i64 = 10_000;

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Took {
    Sent,
    /// Only [`Host::want`] asks again.
    Later,
    /// Nothing more until what waits was written or acknowledged.
    Full,
    /// The device has it already.
    Had,
}

/// What is said to the stream of another session.
#[derive(Debug, Clone)]
pub(crate) struct Copied(pub(crate) String);

/// Deliveries that the answers to pings acknowledge.
#[derive(Debug, Default)]
pub(super) struct Pings {
    /// Number of the next one.
    pub(super) next: u32,
    /// What was sent, and before which ping.
    pub(super) sent: VecDeque<(u32, MessageId)>,
}

#[derive(Debug)]
pub(super) struct Held {
    pub(super) message: Arc<Message>,
    place: Cursor,
    dup: bool,
    since: Timestamp,
}

impl Live {
    fn is_full(&self) -> bool {
        let unacked = match &self.sm {
            Some(sm) => sm.entries(),
            None => self.pings.sent.len(),
        };
        unacked >= UNACKED_LEN_MAX
    }
}

impl Machine {
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

    /// Whether the client has acknowledged enough to be sent more entries.
    pub(crate) fn has_room(&self) -> bool {
        !self.live.as_ref().is_some_and(|live| live.is_full())
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
        if !host.has_room(0) || live.is_full() {
            return Took::Full;
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
        match message.recalls {
            Some(recalled) => entry::write_mark(message, recalled, place, to, &mut text),
            None => entry::write(message, place, waited, to, &mut text),
        }
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

    /// A message that is held back was recalled.
    pub(crate) fn unhold(&mut self, id: MessageId) {
        if let Some(live) = &mut self.live {
            live.held.retain(|one| one.message.id != id);
        }
    }

    /// A message is to be taken out of sight.
    pub(crate) fn recall(&mut self, id: MessageId, host: &mut dyn Host) {
        self.unhold(id);
        let Some(live) = &mut self.live else { return };
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
