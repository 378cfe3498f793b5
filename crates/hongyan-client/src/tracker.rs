//! Which messages the app has, which it has taken, and what may be acknowledged.
//!
//! Pure: the session feeds it what arrives and what the app does, and asks it what to say.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::storage::Record;
use crate::wire::ClientEvent;

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
    /// Its place, where that stands for everything before it.
    cursor: Option<String>,
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

    /// The server cannot read the place: the next connection starts at the device's own.
    pub(crate) fn forget_cursor(&mut self) {
        self.dirty |= self.cursor.take().is_some();
    }

    /// A new connection starts: its order is told anew.
    pub(crate) fn connection_started(&mut self) {
        self.order.clear();
        self.again.clear();
        self.open.retain(|_, stage| *stage == Stage::Handed);
    }

    /// A message or the mark of a recall came; `cursor` is its place, where that stands for everything before it.
    pub(crate) fn arrived(&mut self, id: &str, cursor: Option<String>) -> Arrival {
        if self.seen.contains(id) && !self.open.contains_key(id) {
            self.say_again(id.to_owned());
            self.taken += 1;
            return Arrival::Copy;
        }
        if !self.order.iter().any(|entry| entry.id == id) {
            self.order.push_back(Entry {
                cursor,
                id: id.to_owned(),
                acked: false,
            });
        }
        match self.open.get_mut(id) {
            Some(Stage::Handed) => Arrival::Copy,
            Some(stage @ Stage::Returned) => {
                *stage = Stage::Handed;
                Arrival::New
            }
            None => {
                self.open.insert(id.to_owned(), Stage::Handed);
                Arrival::New
            }
        }
    }

    /// Everything that came so far stands at this place or before it.
    pub(crate) fn passed(&mut self, cursor: String) {
        self.order.push_back(Entry {
            cursor: Some(cursor),
            id: String::new(),
            acked: true,
        });
        self.taken += 1;
    }

    /// The gateway does not know that it was taken: it is said again, by id, since a copy comes out of order and its place
    /// must not stand for those before it.
    fn say_again(&mut self, id: String) {
        if self.again.len() < ACK_IDS_MAX && !self.again.contains(&id) {
            self.again.push(id);
        }
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
            if acks.ids.len() == ACK_IDS_MAX {
                self.taken = 1;
                break;
            }
            match self.order.pop_front() {
                Some(entry) if entry.cursor.is_some() => {
                    acks.upto = entry.cursor;
                    acks.ids.clear();
                }
                Some(entry) if !entry.acked => acks.ids.push(entry.id),
                _ => {}
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
                Some(last) if last.acked && entry.acked => {
                    let cursor = entry.cursor.or_else(|| last.cursor.take());
                    *last = Entry { cursor, ..entry };
                }
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

    fn arrives(tracker: &mut Tracker, n: u32) -> Arrival {
        tracker.arrived(&format!("m{n}"), Some(format!("c{n}")))
    }

    fn tracker() -> Tracker {
        Tracker::new(Record::default(), 8, 2)
    }

    /// Steps: `a1` arrives, `n1` arrives without a place of its own, `p1` everything so far is before place 1, `t1` taken, `r1` returned, `f` flush, `c` new connection.
    fn check(steps: &str, want: &str) {
        let mut tracker = tracker();
        let mut said = Vec::new();
        for step in steps.split(' ') {
            let (what, n) = step.split_at(1);
            match what {
                "a" => match arrives(&mut tracker, n.parse().unwrap()) {
                    Arrival::New => said.push(format!("new{n}")),
                    Arrival::Copy => said.push(format!("copy{n}")),
                },
                "n" => match tracker.arrived(&format!("m{n}"), None) {
                    Arrival::New => said.push(format!("new{n}")),
                    Arrival::Copy => said.push(format!("copy{n}")),
                },
                "p" => tracker.passed(format!("c{n}")),
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
        check("a1 a1 t1 f a1 f", "new1 copy1 [c1|] copy1 [|m1]");
        check("a1 a2 t2 f a2 f", "new1 new2 [|m2] copy2 [|m2]");
        check("a1 t1 c a1 f", "new1 copy1 [|m1]");
        // An old copy behind a new message does not take its place.
        check("a1 t1 f a2 a1 t2 f", "new1 [c1|] new2 copy1 [c2|m1]");
        check("a1 c a1 t1 f", "new1 copy1 [c1|]");
    }

    #[test]
    fn entries_of_unknown_order_move_the_place_together() {
        check("n2 n1 p2 t2 f t1 f f", "new2 new1 [|m2] [c2|] [|]");
        check("n2 n1 p2 t1 f t2 f", "new2 new1 [|m1] [c2|]");
        check("n2 n1 p2 t2 t1 f", "new2 new1 [c2|]");
        // Behind one of an earlier answer, which comes again in this one.
        check(
            "a1 n1 n3 n2 p3 t3 t2 f t1 f",
            "new1 copy1 new3 new2 [|m3,m2] [c3|]",
        );
        // All of it is known: the place moves all the same.
        check("n1 p1 t1 f n1 n2 p2 t2 f", "new1 [c1|] copy1 new2 [c2|m1]");
        check("a1 t1 f n1 p2 f", "new1 [c1|] copy1 [c2|m1]");
        check("n2 n1 p2 t1 c f n2 p2 t2 f", "new2 new1 [|] copy2 [c2|]");
    }

    #[test]
    fn ids_of_one_ack_are_bounded() {
        let mut tracker = tracker();
        let count = ACK_IDS_MAX + 10;
        for n in 0..=count {
            tracker.arrived(&format!("m{n}"), None);
            assert!(n == count || tracker.take(&format!("m{n}")));
        }
        assert_eq!(tracker.acks().ids.len(), ACK_IDS_MAX);
        assert!(tracker.taken_len() > 0);
        assert_eq!(tracker.acks().ids.len(), 10);
        assert_eq!(tracker.acks(), Acks::default());
    }

    #[test]
    fn a_returned_message_holds_the_cursor_and_comes_again() {
        check("a1 a2 r1 t2 f a1 t1 f", "new1 new2 [|m2] new1 [c2|]");
        check("a1 r1 c a1 t1 f", "new1 new1 [c1|]");
    }

    #[test]
    fn memory_is_bounded() {
        let mut tracker = tracker();
        arrives(&mut tracker, 0);
        for n in 1..500 {
            arrives(&mut tracker, n);
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

    /// A gateway that follows the inbox model: it sends what it does not know to be acked, in order.
    #[derive(Default)]
    struct Model {
        acked: std::collections::BTreeSet<u32>,
        /// Taken by the app and recorded: must never be shown again.
        recorded: std::collections::BTreeSet<u32>,
        /// Taken by the app since the last record.
        taken: std::collections::BTreeSet<u32>,
        with_app: Vec<u32>,
        shown: std::collections::BTreeSet<u32>,
    }

    impl Model {
        fn flush(&mut self, tracker: &mut Tracker, ack_arrives: bool) -> Record {
            let number = |text: &str| text[1..].parse::<u32>().unwrap();
            let acks = tracker.acks();
            self.recorded.append(&mut self.taken);
            let told = acks
                .upto
                .iter()
                .flat_map(|upto| 0..=number(upto))
                .chain(acks.ids.iter().map(|id| number(id)));
            for n in told {
                assert!(
                    self.recorded.contains(&n),
                    "m{n} was acked before it was taken"
                );
                if ack_arrives {
                    self.acked.insert(n);
                }
            }
            if ack_arrives {
                let untold: Vec<_> = self.recorded.difference(&self.acked).collect();
                assert!(untold.is_empty(), "{untold:?} were taken and not acked");
            }
            Record {
                v: Record::VERSION,
                cursor: tracker.cursor().map(str::to_owned),
                seen: tracker.seen_order.iter().cloned().collect(),
                events: Vec::new(),
            }
        }

        fn send(&mut self, tracker: &mut Tracker, n: u32) {
            if self.acked.contains(&n) {
                return;
            }
            if arrives(tracker, n) == Arrival::New {
                assert!(
                    !self.recorded.contains(&n),
                    "m{n} was shown again after it was recorded"
                );
                assert!(!self.with_app.contains(&n), "m{n} was shown twice at once");
                self.with_app.push(n);
                self.shown.insert(n);
            }
        }
    }

    proptest::proptest! {
        /// Whatever is cut, repeated, returned or killed: nothing is acked that was not taken, and
        /// nothing is shown again once it was recorded.
        #[test]
        fn acked_means_taken_and_recorded_means_shown_once(
            steps in proptest::collection::vec((0_u8..8, 0_u32..12), 1..120)
        ) {
            let mut tracker = Tracker::new(Record::default(), 64, 2);
            let mut record = Record::default();
            let mut model = Model { acked: [0].into(), recorded: [0].into(), ..Model::default() };
            let mut sent = 0_u32;
            for (step, n) in steps {
                match step {
                    0 | 1 => {
                        sent += 1;
                        model.send(&mut tracker, sent);
                    }
                    2 | 3 if !model.with_app.is_empty() => {
                        let place = n as usize % model.with_app.len();
                        let n = model.with_app.remove(place);
                        assert!(tracker.take(&format!("m{n}")));
                        model.taken.insert(n);
                    }
                    4 => record = {
                        let arrives = n % 3 > 0;
                        let kept = model.flush(&mut tracker, arrives);
                        if !arrives {
                            // Acks are lost with their connection only.
                            tracker.connection_started();
                            (1..=sent).for_each(|n| model.send(&mut tracker, n));
                        }
                        kept
                    },
                    5 if n % 2 == 0 => {
                        tracker.connection_started();
                        for n in 1..=sent {
                            model.send(&mut tracker, n);
                        }
                    }
                    5 => (1..=sent).for_each(|n| model.send(&mut tracker, n)),
                    6 if !model.with_app.is_empty() => {
                        let place = n as usize % model.with_app.len();
                        let n = model.with_app.remove(place);
                        assert!(tracker.give_back(&format!("m{n}")));
                    }
                    7 => {
                        // Killed: what was not recorded may be shown again.
                        tracker = Tracker::new(record.clone(), 64, 2);
                        model.with_app.clear();
                        model.taken.clear();
                        for n in 1..=sent {
                            model.send(&mut tracker, n);
                        }
                    }
                    _ => {}
                }
            }
            // A calm end: everything arrives, is taken and acked.
            tracker.connection_started();
            for n in 1..=sent {
                model.send(&mut tracker, n);
            }
            for n in std::mem::take(&mut model.with_app) {
                assert!(tracker.take(&format!("m{n}")));
                model.taken.insert(n);
            }
            for _ in 0..2 {
                model.flush(&mut tracker, true);
            }
            proptest::prop_assert_eq!(model.acked.len() as u32, sent + 1);
            proptest::prop_assert!((1..=sent).all(|n| model.shown.contains(&n)));
        }
    }
}
