//! A session: what a connected device was sent, what it acknowledged and what to read next.
//!
//! This is the model that every protocol shares; it has no socket, no clock and no port. Delivery
//! is by pulling: a hint only says that there may be more, [`Session::next_read`] says what to
//! read, and [`Session::take_page`] sends it, so replay and live delivery are the same path and
//! order cannot be lost between them.

use std::collections::VecDeque;

use hongyan_core::message::Target;
use hongyan_core::port::{Entry, Fresh, Hint, InboxPage, Owner};
use hongyan_core::{Cursor, Message, MessageId};

use crate::protocol::Taken;
use crate::seat::Seat;
use crate::wheel::Tick;

/// Most entries in one read: a page of small messages fits one write.
const PAGE_LEN_MAX: usize = 64;
/// Most marks of recalls that are in flight, besides the messages: the oldest is told again on the next connection.
const MARKS_LEN_MAX: usize = 128;

/// A read that the session needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// From here on; `None` is the place that the device acknowledged.
    pub after: Option<Cursor>,
    /// At most so many entries.
    pub limit: usize,
}

/// What became of a page.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Messages that went out, in order.
    pub ids: Vec<MessageId>,
    /// How many marks of recalls went out besides.
    pub marks: usize,
    /// Messages that this connection can never carry.
    pub rejected: Vec<MessageId>,
    /// Everything stored was sent, for the first time: say `idle` with this head.
    pub idle: Option<Cursor>,
}

/// A message that went out and is not acknowledged yet.
#[derive(Debug, Clone)]
struct InFlight {
    id: MessageId,
    place: Cursor,
    /// When it is sent again; `None` when only the next connection sends it again.
    due: Option<Tick>,
    tries: u8,
    /// It is the mark of this message's recall.
    recalls: Option<MessageId>,
    /// It may have been sent on an earlier connection: its acknowledgement says nothing of this one.
    again: bool,
}

/// Exists only while something is unacknowledged, may have been sent on an earlier connection, or is known and not sent.
#[derive(Debug, Default)]
struct Window {
    inflight: VecDeque<InFlight>,
    /// Entries up to here were sent to this device before this connection.
    sent_before: Option<Cursor>,
    /// The newest place that is known, where it is not [`Session::sent`].
    head: Option<Cursor>,
}

impl Window {
    fn is_needed(&self) -> bool {
        !self.inflight.is_empty() || self.sent_before.is_some() || self.head.is_some()
    }

    /// Marks are no messages: a client that does not know them acknowledges none.
    fn messages(&self) -> usize {
        let is_message = |one: &&InFlight| one.recalls.is_none();
        self.inflight.iter().filter(is_message).count()
    }

    /// Keeps no more marks than may be in flight.
    fn bound_marks(&mut self) {
        if self.inflight.len() - self.messages() > MARKS_LEN_MAX
            && let Some(oldest) = self.inflight.iter().position(|one| one.recalls.is_some())
        {
            self.inflight.remove(oldest);
        }
    }

    /// Takes these out, and the marks that were sent before one of them. Answers these marks.
    fn settle(&mut self, ids: &[MessageId]) -> Vec<MessageId> {
        let proves = |one: &InFlight| !one.again && ids.contains(&one.id);
        let had = self.inflight.iter().rposition(proves).unwrap_or(0);
        let mut marks = Vec::new();
        let mut at = 0;
        self.inflight.retain(|one| {
            let is_had = at < had && one.recalls.is_some();
            at += 1;
            let is_acked = ids.contains(&one.id);
            if is_had && !is_acked {
                marks.push(one.id);
            }
            !is_had && !is_acked
        });
        marks
    }
}

/// See the module's page.
#[derive(Debug)]
pub struct Session {
    seat: Seat,
    /// While it is fresh, the newest place that is known.
    sent: Cursor,
    window: Option<Box<Window>>,
    inflight_max: u16,
    /// `sent` means nothing yet: begin at the acknowledged place.
    fresh: bool,
    reading: bool,
    wanted: bool,
    idle_said: bool,
    /// The read under way is void: it began before a restart.
    void: bool,
}

impl Session {
    /// A session whose first read is under way: give it to [`Session::take_page`].
    /// `sent_before` is what this device was sent, or says to have got, on earlier connections.
    #[must_use]
    pub fn new(seat: Seat, head: Cursor, inflight_max: u16, sent_before: Option<Cursor>) -> Self {
        let window = sent_before
            .filter(|place| same_inbox(place, &head))
            .map(|place| {
                Box::new(Window {
                    sent_before: Some(place),
                    ..Window::default()
                })
            });
        Self {
            seat,
            sent: head,
            window,
            inflight_max,
            fresh: true,
            reading: true,
            wanted: false,
            idle_said: false,
            void: false,
        }
    }

    /// Whose inbox it delivers.
    #[must_use]
    pub fn seat(&self) -> &Seat {
        &self.seat
    }

    /// The newest place that is known.
    #[must_use]
    pub fn head(&self) -> Cursor {
        let apart = self.window.as_ref().and_then(|window| window.head);
        apart.unwrap_or(self.sent)
    }

    fn set_head(&mut self, head: Cursor) {
        if head != self.sent {
            self.window.get_or_insert_default().head = Some(head);
        } else if let Some(window) = &mut self.window {
            window.head = None;
            self.tidy();
        }
    }

    /// Drops the window when there is nothing in it.
    fn tidy(&mut self) {
        self.window.take_if(|window| !window.is_needed());
    }

    /// How many messages are unacknowledged; marks of recalls take no room.
    #[must_use]
    pub fn inflight(&self) -> usize {
        self.window.as_ref().map_or(0, |window| window.messages())
    }

    fn has_room_for(&self, message: &Message) -> bool {
        message.recalls.is_some() || self.inflight() < usize::from(self.inflight_max)
    }

    /// The place up to which entries were sent, on this connection or (while it has not read) not at all.
    #[must_use]
    pub fn sent(&self) -> Option<Cursor> {
        (!self.fresh).then_some(self.sent)
    }

    /// Notes that there may be more to read.
    pub fn want(&mut self) {
        self.wanted = true;
    }

    /// What to read now, if something is wanted, nothing is being read and there is room.
    pub fn next_read(&mut self) -> Option<Read> {
        let room = usize::from(self.inflight_max).saturating_sub(self.inflight());
        if !self.wanted || self.reading || room == 0 {
            return None;
        }
        self.wanted = false;
        self.reading = true;
        Some(Read {
            after: (!self.fresh).then_some(self.sent),
            limit: room.min(PAGE_LEN_MAX),
        })
    }

    /// Whether there is something to read that is not being read, room or not.
    #[must_use]
    pub fn wants_read(&self) -> bool {
        self.wanted && !self.reading
    }

    /// Whether a read is under way.
    #[must_use]
    pub fn reads(&self) -> bool {
        self.reading
    }

    /// The read could not be made: it is wanted again.
    pub fn read_failed(&mut self) {
        self.reading = false;
        self.void = false;
        self.wanted = true;
    }

    /// Sends a page. `send` puts an entry on its way (with whether it was sent before) or says that the connection takes
    /// no more for now; the rest is read again later.
    pub fn take_page(
        &mut self,
        page: &InboxPage,
        now: Tick,
        first_wait: Option<Tick>,
        mut send: impl FnMut(&Entry, bool) -> Taken,
    ) -> Sent {
        let sent = self.send_page(page, now, first_wait, &mut send);
        self.set_head(page.head);
        sent
    }

    fn send_page(
        &mut self,
        page: &InboxPage,
        now: Tick,
        first_wait: Option<Tick>,
        send: &mut impl FnMut(&Entry, bool) -> Taken,
    ) -> Sent {
        self.reading = false;
        if std::mem::take(&mut self.void) {
            self.wanted = true;
            return Sent::default();
        }
        let mut sent = Sent::default();
        for entry in &page.entries {
            if self.is_in_flight(entry.message.id) {
                continue;
            }
            let dup = self.was_sent_before(&entry.cursor);
            let room = self.has_room_for(&entry.message);
            let taken = if room { send(entry, dup) } else { Taken::Full };
            match taken {
                Taken::Sent => {}
                Taken::Full => {
                    self.wanted = true;
                    return sent;
                }
                Taken::Later => return sent,
                Taken::Skipped { rejected } => {
                    self.sent = entry.cursor;
                    self.fresh = false;
                    if rejected {
                        sent.rejected.push(entry.message.id);
                    }
                    continue;
                }
            }
            let due = first_wait.map(|wait| now + wait);
            self.take_off(&entry.message, entry.cursor, due);
            self.sent = entry.cursor;
            self.fresh = false;
            match entry.message.recalls {
                Some(_) => sent.marks += 1,
                None => sent.ids.push(entry.message.id),
            }
        }
        self.sent = page.next;
        self.fresh = false;
        if page.more {
            self.wanted = true;
        } else {
            if !self.idle_said && !self.wanted {
                self.idle_said = true;
                sent.idle = Some(page.head);
            }
            self.forget_past();
        }
        sent
    }

    /// Whether a read has brought what a hint tells of, and nothing else is wanted: then the hint is late, and says nothing.
    #[must_use]
    pub fn has_read(&self, hint: &Hint, fresh: &Fresh) -> bool {
        let part = match &hint.owner {
            Owner::User(owner) if self.seat.user() == Some(owner.as_str()) => self.sent.user,
            Owner::Device(owner) if self.seat.device() == owner.as_str() => self.sent.device,
            Owner::Audience(_) => self.sent.broadcast,
            Owner::User(_) | Owner::Device(_) => return false,
        };
        let is_settled = !self.fresh && !self.reading && !self.wanted;
        is_settled && self.seat.app() == hint.app.as_str() && fresh.place <= part
    }

    /// The place at which a fresh entry can be sent without a read: when everything before it was sent, nothing else is
    /// known to be missing, and there is room. `None` says that only a read tells what is next.
    #[must_use]
    pub fn next_place(&self, hint: &Hint, fresh: &Fresh) -> Option<Cursor> {
        let is_settled = !self.fresh && !self.reading && !self.wanted;
        let room = self.has_room_for(&fresh.message);
        if !is_settled || !room || self.seat.app() != hint.app.as_str() {
            return None;
        }
        let user = self.seat.user();
        let is_own = match &fresh.message.to {
            Target::Users(users) => {
                let listed = |hers: &str| users.iter().any(|one| one.as_str() == hers);
                match &hint.owner {
                    Owner::User(_) => true,
                    Owner::Device(_) | Owner::Audience(_) => user.is_some_and(listed),
                }
            }
            Target::Devices(_) | Target::Topic(_) | Target::All => true,
        };
        let mut place = self.sent;
        let part = match &hint.owner {
            Owner::User(owner) if user == Some(owner.as_str()) => &mut place.user,
            Owner::Device(owner) if self.seat.device() == owner.as_str() => &mut place.device,
            Owner::Audience(_) => &mut place.broadcast,
            Owner::User(_) | Owner::Device(_) => return None,
        };
        if !is_own || *part != fresh.after || fresh.place <= fresh.after {
            return None;
        }
        *part = fresh.place;
        (!self.is_in_flight(fresh.message.id)).then_some(place)
    }

    /// A fresh entry went out at its [`Session::next_place`]; it is sent again at `due`.
    pub fn sent_fresh(&mut self, message: &Message, place: Cursor, due: Option<Tick>) {
        self.take_off(message, place, due);
        self.pass(place);
    }

    /// An entry is in flight from now on; what a mark recalls is no longer. A mark comes again on the next connection only.
    fn take_off(&mut self, message: &Message, place: Cursor, due: Option<Tick>) {
        let again = self.was_sent_before(&place);
        let window = self.window.get_or_insert_default();
        if let Some(recalled) = message.recalls {
            window.inflight.retain(|one| one.id != recalled);
        }
        window.inflight.push_back(InFlight {
            id: message.id,
            place,
            due: due.filter(|_| message.recalls.is_none()),
            tries: 1,
            recalls: message.recalls,
            again,
        });
        window.bound_marks();
    }

    /// A fresh entry was left out at its [`Session::next_place`].
    pub fn pass(&mut self, place: Cursor) {
        let head = each(self.head(), place, u64::max);
        self.sent = place;
        self.set_head(head);
    }

    /// Takes an acknowledgement of everything up to a place. Answers the place that the store is
    /// to record: what was sent at most, nothing when the place belongs to another inbox.
    pub fn ack_upto(&mut self, place: Cursor) -> Option<Cursor> {
        if !same_inbox(&place, &self.head()) {
            return None;
        }
        let before = self.window.as_ref().and_then(|window| window.sent_before);
        let reach = match (self.fresh, before) {
            (true, None) => return None,
            (true, Some(before)) => before,
            (false, None) => self.sent,
            (false, Some(before)) => each(self.sent, before, u64::max),
        };
        let place = each(place, reach, u64::min);
        if let Some(window) = &mut self.window {
            window.inflight.retain(|one| !place.covers(&one.place));
        }
        self.tidy();
        Some(place)
    }

    /// Takes acknowledgements of single messages. Answers the marks of recalls that are settled by them, for the store:
    /// those that were sent before one of these, since what is sent arrives in order. So a client acknowledges no marks.
    #[must_use]
    pub fn ack_ids(&mut self, ids: &[MessageId]) -> Vec<MessageId> {
        let window = self.window.as_mut();
        let marks = window.map_or_else(Vec::new, |window| window.settle(ids));
        self.tidy();
        marks
    }

    /// The same, of a protocol that acknowledges each mark by itself: these and no others.
    pub fn ack_each(&mut self, ids: &[MessageId]) {
        if let Some(window) = &mut self.window {
            window.inflight.retain(|one| !ids.contains(&one.id));
        }
        self.tidy();
    }

    /// Forgets a message that was recalled. Answers whether the mark of it is on its way to the device.
    pub fn recall(&mut self, id: MessageId) -> bool {
        self.ack_each(&[id]);
        self.window.as_ref().is_some_and(|window| {
            let mut inflight = window.inflight.iter();
            inflight.any(|one| one.recalls == Some(id))
        })
    }

    /// Sends a message again at `due`; false when it is not in flight.
    pub fn retry(&mut self, id: MessageId, due: Tick) -> bool {
        let Some(window) = &mut self.window else {
            return false;
        };
        let Some(one) = window.inflight.iter_mut().find(|one| one.id == id) else {
            return false;
        };
        one.due = Some(due);
        true
    }

    /// When the next message is due again.
    #[must_use]
    pub fn next_due(&self) -> Option<Tick> {
        self.window
            .as_ref()?
            .inflight
            .iter()
            .filter_map(|one| one.due)
            .min()
    }

    /// Messages that are due again, with their places, at most `limit`. `wait` gives the ticks
    /// until the one after, by the number of tries so far.
    pub fn take_due(
        &mut self,
        now: Tick,
        limit: usize,
        wait: impl Fn(u8) -> Option<Tick>,
    ) -> Vec<(MessageId, Cursor)> {
        let Some(window) = &mut self.window else {
            return Vec::new();
        };
        window
            .inflight
            .iter_mut()
            .filter(|one| one.due.is_some_and(|due| due <= now))
            .take(limit)
            .map(|one| {
                one.tries = one.tries.saturating_add(1);
                one.due = wait(one.tries).map(|wait| now + wait);
                (one.id, one.place)
            })
            .collect()
    }

    /// Whether the message is unacknowledged on this connection.
    #[must_use]
    pub fn is_in_flight(&self, id: MessageId) -> bool {
        self.window
            .as_ref()
            .is_some_and(|window| window.inflight.iter().any(|one| one.id == id))
    }

    /// Reads again: from a place, or from what the device acknowledged. What was in flight is forgotten, but that it was
    /// sent: it comes again as that.
    pub fn restart(&mut self, after: Option<Cursor>) {
        let before = self.unfinished();
        self.read_from(after, before);
    }

    /// The same, of a protocol that repeats nothing on one connection: only what earlier connections were sent is marked.
    pub fn reread(&mut self, after: Option<Cursor>) {
        let before = self.window.as_ref().and_then(|window| window.sent_before);
        self.read_from(after, before);
    }

    fn read_from(&mut self, after: Option<Cursor>, before: Option<Cursor>) {
        let head = self.head();
        let after = after.filter(|place| same_inbox(place, &head));
        let before = before.filter(|before| after.is_none_or(|after| !after.covers(before)));
        self.window = before.map(|place| {
            Box::new(Window {
                sent_before: Some(place),
                ..Window::default()
            })
        });
        self.fresh = after.is_none();
        self.sent = after.unwrap_or(head);
        self.set_head(head);
        self.idle_said = false;
        self.void = self.reading;
        self.wanted = true;
    }

    /// Binds the session to another reader: what was in flight is forgotten, not acknowledged, and
    /// a read under way is void (its page carries the former reader).
    pub fn rebind(&mut self, seat: Seat) {
        self.sent = self.head();
        self.seat = seat;
        self.window = None;
        self.fresh = true;
        self.reading = false;
        self.void = false;
        self.wanted = true;
        self.idle_said = false;
    }

    /// What the device's next connection must know: the place up to which entries were sent but
    /// not all acknowledged.
    #[must_use]
    pub fn unfinished(&self) -> Option<Cursor> {
        let window = self.window.as_ref()?;
        match (window.inflight.is_empty(), window.sent_before) {
            (true, before) => before,
            (false, None) => Some(self.sent),
            (false, Some(before)) => Some(each(self.sent, before, u64::max)),
        }
    }

    fn was_sent_before(&self, place: &Cursor) -> bool {
        self.window
            .as_ref()
            .and_then(|window| window.sent_before)
            .is_some_and(|before| before.covers(place))
    }

    /// Caught up: nothing of the past can come any more.
    fn forget_past(&mut self) {
        if let Some(window) = &mut self.window
            && window
                .sent_before
                .is_some_and(|before| self.sent.covers(&before))
        {
            window.sent_before = None;
        }
        self.tidy();
    }
}

fn same_inbox(a: &Cursor, b: &Cursor) -> bool {
    a.epoch == b.epoch && a.reader == b.reader
}

/// Part by part; both belong to the same inbox.
fn each(a: Cursor, b: Cursor, choose: fn(u64, u64) -> u64) -> Cursor {
    Cursor {
        user: choose(a.user, b.user),
        device: choose(a.device, b.device),
        broadcast: choose(a.broadcast, b.broadcast),
        ..a
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
