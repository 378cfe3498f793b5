//! Which messages the app has, which it has taken, and what may be acknowledged.
//!
//! Pure: the session feeds it what arrives and what the app does, and asks it what to say.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::storage::Record;
use crate::wire::{ClientEvent, Message};

/// How many ids one ack may carry (websocket.md section 4).
pub(crate) const ACK_IDS_MAX: usize = 256;

/// What to do with a message that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// Hand it to the app.
    New,
    /// The app has it or had it: drop this copy.
    Copy,
}

/// Where a message is between arrival and the gateway's knowledge that it was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// With the app.
    Handed,
    /// Sent back; the gateway will send it again.
    Returned,
}

#[derive(Debug)]
struct Entry {
    cursor: String,
    id: String,
    /// An ack by id was written on this connection.
    acked: bool,
}

/// What to write after the record was saved.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Acks {
    pub(crate) upto: Option<String>,
    pub(crate) ids: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Tracker {
    cursor: Option<String>,
    open: HashMap<String, Stage>,
    /// Entries of this connection in order, from the oldest that was not taken.
    order: VecDeque<Entry>,
    seen: HashSet<String>,
    seen_order: VecDeque<String>,
    seen_max: usize,
    events: VecDeque<ClientEvent>,
    events_max: usize,
    again: Vec<String>,
    dirty: bool,
    taken: usize,
}

impl Tracker {
    pub(crate) fn new(record: Record, seen_max: usize, events_max: usize) -> Self {
        let mut tracker = Self {
            cursor: record.cursor,
            open: HashMap::new(),
            order: VecDeque::new(),
            seen: HashSet::new(),
            seen_order: VecDeque::new(),
            seen_max: seen_max.max(1),
            events: VecDeque::new(),
            events_max: events_max.max(1),
            again: Vec::new(),
            dirty: false,
            taken: 0,
        };
        for id in record.seen {
            tracker.remember(id);
        }
        for event in record.events {
            tracker.push_event(event);
        }
        tracker.dirty = false;
        tracker
    }

    /// The place to resume from.
    pub(crate) fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref()
    }

    /// A new connection starts: its order is told anew.
    pub(crate) fn connection_started(&mut self) {
        self.order.clear();
        self.again.clear();
        self.open.retain(|_, stage| *stage == Stage::Handed);
    }

    pub(crate) fn arrived(&mut self, message: &Message) -> Arrival {
        let listed = self.order.iter().any(|entry| entry.id == message.id);
        if !listed {
            self.order.push_back(Entry {
                cursor: message.cursor.clone(),
                id: message.id.clone(),
                acked: false,
            });
        }
        match self.open.get_mut(&message.id) {
            Some(Stage::Handed) => return Arrival::Copy,
            Some(stage @ Stage::Returned) => {
                *stage = Stage::Handed;
                return Arrival::New;
            }
            None => {}
        }
        if self.seen.contains(&message.id) {
            // The gateway does not know that it was taken: say it again.
            if listed && self.again.len() < ACK_IDS_MAX {
                self.again.push(message.id.clone());
            }
            self.taken += 1;
            return Arrival::Copy;
        }
        self.open.insert(message.id.clone(), Stage::Handed);
        Arrival::New
    }

    /// The app has taken the message. Says whether that was news.
    pub(crate) fn take(&mut self, id: &str) -> bool {
        if self.open.get(id) != Some(&Stage::Handed) {
            return false;
        }
        self.open.remove(id);
        self.remember(id.to_owned());
        self.taken += 1;
        true
    }

    /// The app wants the message later. Says whether it had it.
    pub(crate) fn give_back(&mut self, id: &str) -> bool {
        match self.open.get_mut(id) {
            Some(stage @ Stage::Handed) => {
                *stage = Stage::Returned;
                true
            }
            _ => false,
        }
    }

    /// How many were taken since the last acks.
    pub(crate) fn taken_len(&self) -> usize {
        self.taken
    }

    /// How many the gateway counts as unacknowledged, as far as we know.
    pub(crate) fn open_len(&self) -> usize {
        self.open.len()
    }

    /// Computes what may be acknowledged and moves the cursor; to be written after the save.
    pub(crate) fn acks(&mut self) -> Acks {
        self.taken = 0;
        let mut acks = Acks::default();
        while self
            .order
            .front()
            .is_some_and(|entry| !self.open.contains_key(&entry.id))
        {
            if let Some(entry) = self.order.pop_front() {
                acks.upto = Some(entry.cursor);
            }
        }
        if let Some(upto) = &acks.upto {
            self.cursor = Some(upto.clone());
            self.dirty = true;
        }
        for entry in &mut self.order {
            if acks.ids.len() == ACK_IDS_MAX {
                self.taken = 1;
                break;
            }
            if !entry.acked && !self.open.contains_key(&entry.id) {
                entry.acked = true;
                acks.ids.push(entry.id.clone());
            }
        }
        for id in std::mem::take(&mut self.again) {
            if acks.ids.len() < ACK_IDS_MAX && !acks.ids.contains(&id) {
                acks.ids.push(id);
            }
        }
        self.compact();
        acks
    }

    /// Merges runs of entries that are acknowledged behind one that is not.
    fn compact(&mut self) {
        let mut kept: VecDeque<Entry> = VecDeque::with_capacity(self.order.len());
        for entry in self.order.drain(..) {
            match kept.back_mut() {
                Some(last) if last.acked && entry.acked => *last = entry,
                _ => kept.push_back(entry),
            }
        }
        self.order = kept;
    }

    /// Keeps an event for the connection. Says whether an older one had to go.
    pub(crate) fn push_event(&mut self, event: ClientEvent) -> bool {
        let twin = self
            .events
            .iter()
            .any(|e| e.id == event.id && e.kind == event.kind);
        if twin {
            return false;
        }
        self.dirty = true;
        let full = self.events.len() >= self.events_max;
        if full {
            self.events.pop_front();
        }
        self.events.push_back(event);
        full
    }

    pub(crate) fn next_event(&self) -> Option<&ClientEvent> {
        self.events.front()
    }

    pub(crate) fn event_sent(&mut self) {
        self.events.pop_front();
        self.dirty = true;
    }

    /// The record to save, if anything changed since the last one.
    pub(crate) fn record_if_changed(&mut self) -> Option<Record> {
        if !std::mem::take(&mut self.dirty) {
            return None;
        }
        Some(Record {
            v: Record::VERSION,
            cursor: self.cursor.clone(),
            seen: self.seen_order.iter().cloned().collect(),
            events: self.events.iter().cloned().collect(),
        })
    }

    fn remember(&mut self, id: String) {
        if self.seen.insert(id.clone()) {
            self.seen_order.push_back(id);
            self.dirty = true;
        }
        while self.seen_order.len() > self.seen_max {
            if let Some(old) = self.seen_order.pop_front() {
                self.seen.remove(&old);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(n: u32) -> Message {
        crate::wire::decode_text(&format!(r#"{{"t":"msg","cursor":"c{n}","id":"m{n}"}}"#))
            .map(|m| match m {
                crate::wire::Incoming::Msg(m) => *m,
                _ => panic!("not a msg"),
            })
            .unwrap()
    }

    fn tracker() -> Tracker {
        Tracker::new(Record::default(), 8, 2)
    }

    /// Steps: `a1` arrives, `t1` taken, `r1` returned, `f` flush, `c` new connection.
    fn check(steps: &str, want: &str) {
        let mut tracker = tracker();
        let mut said = Vec::new();
        for step in steps.split(' ') {
            let (what, n) = step.split_at(1);
            match what {
                "a" => match tracker.arrived(&message(n.parse().unwrap())) {
                    Arrival::New => said.push(format!("new{n}")),
                    Arrival::Copy => said.push(format!("copy{n}")),
                },
                "t" => assert!(tracker.take(&format!("m{n}"))),
                "r" => assert!(tracker.give_back(&format!("m{n}"))),
                "c" => tracker.connection_started(),
                _ => {
                    let acks = tracker.acks();
                    said.push(format!(
                        "[{}|{}]",
                        acks.upto.unwrap_or_default(),
                        acks.ids.join(",")
                    ));
                }
            }
        }
        assert_eq!(said.join(" "), want, "{steps}");
    }

    #[test]
    fn acks_are_cumulative() {
        check("a1 a2 a3 t1 t2 f t3 f f", "new1 new2 new3 [c2|] [c3|] [|]");
        check("a1 a2 a3 t2 t3 f t1 f", "new1 new2 new3 [|m2,m3] [c3|]");
    }

    #[test]
    fn copies_are_dropped_and_said_again() {
        check("a1 a1 t1 f a1 f", "new1 copy1 [c1|] copy1 [c1|]");
        check("a1 a2 t2 f a2 f", "new1 new2 [|m2] copy2 [|m2]");
        check("a1 t1 c a1 f", "new1 copy1 [c1|]");
        check("a1 c a1 t1 f", "new1 copy1 [c1|]");
    }

    #[test]
    fn a_returned_message_holds_the_cursor_and_comes_again() {
        check("a1 a2 r1 t2 f a1 t1 f", "new1 new2 [|m2] new1 [c2|]");
        check("a1 r1 c a1 t1 f", "new1 new1 [c1|]");
    }

    #[test]
    fn memory_is_bounded() {
        let mut tracker = tracker();
        tracker.arrived(&message(0));
        for n in 1..500 {
            tracker.arrived(&message(n));
            tracker.take(&format!("m{n}"));
            tracker.acks();
        }
        assert!(tracker.order.len() <= 2, "{}", tracker.order.len());
        assert_eq!(tracker.seen.len(), 8);
        assert_eq!(tracker.seen_order.len(), 8);
    }

    #[test]
    fn events_are_bounded_and_survive() {
        let event = |id: &str| ClientEvent {
            id: id.into(),
            kind: crate::wire::EventKind::Clicked,
            at: jiff::Timestamp::UNIX_EPOCH,
        };
        let mut tracker = tracker();
        assert!(!tracker.push_event(event("a")));
        assert!(!tracker.push_event(event("a")));
        assert!(!tracker.push_event(event("b")));
        assert!(tracker.push_event(event("c")));
        let record = tracker.record_if_changed().unwrap();
        assert_eq!(tracker.record_if_changed(), None);
        let again = Tracker::new(record, 8, 2);
        assert_eq!(again.next_event(), Some(&event("b")));
    }
}
