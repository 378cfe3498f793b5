//! Packet ids of what is in flight, and of what was in flight on the session's former connection.

use hongyan_core::MessageId;
use hongyan_mqtt::packet::QoS;

/// Entries that were sent and not acknowledged. Empty, it owns no memory.
#[derive(Debug, Default)]
pub(super) struct Flights {
    /// In the order in which they were sent; id 0 is QoS 0.
    now: Vec<(u16, MessageId)>,
    /// Of the former connection: they keep their ids when they are sent again [4.4.0-1].
    before: Vec<(u16, MessageId)>,
    last: u16,
    limit: u16,
}

impl Flights {
    /// Sets how many may be in flight.
    pub(super) fn limit(&mut self, limit: u16) {
        self.limit = limit;
    }

    pub(super) fn limit_of(&self) -> u16 {
        self.limit
    }

    /// Whether the client takes no more until it acknowledges.
    pub(super) fn is_full(&self) -> bool {
        self.now.len() >= usize::from(self.limit)
    }

    /// Goes on where another connection of the session ended.
    pub(super) fn resume(&mut self, former: Self) {
        self.last = former.last;
        self.before = former.before;
        let sent = former.now.into_iter().filter(|(id, _)| *id != 0);
        self.before.extend(sent);
        self.bound();
    }

    /// A packet id for an entry, and whether it was sent with it before; nothing when too many are in flight.
    pub(super) fn take_off(&mut self, entry: MessageId, qos: QoS) -> Option<(u16, bool)> {
        if self.is_full() {
            return None;
        }
        if qos == QoS::AtMostOnce {
            self.now.push((0, entry));
            return Some((0, false));
        }
        let former = self.before.iter().position(|(_, one)| *one == entry);
        let (id, again) = match former {
            Some(at) => (self.before.remove(at).0, true),
            None => (self.free_id()?, false),
        };
        self.now.push((id, entry));
        Some((id, again))
    }

    /// Whether an entry was sent on this connection and is not acknowledged.
    pub(super) fn flies(&self, entry: MessageId) -> bool {
        self.now.iter().any(|(_, one)| *one == entry)
    }

    /// The next id that is not in use; there are far more ids than flights.
    fn free_id(&mut self) -> Option<u16> {
        for _ in 0..=u16::MAX {
            self.last = self.last.checked_add(1).unwrap_or(1);
            let used = |(id, _): &(u16, MessageId)| *id == self.last;
            if !self.now.iter().any(used) && !self.before.iter().any(used) {
                return Some(self.last);
            }
        }
        None
    }

    /// The entry of an id that was acknowledged.
    pub(super) fn acked(&mut self, id: u16) -> Option<MessageId> {
        let at = self.now.iter().position(|(one, _)| *one == id && id != 0)?;
        let entry = self.now.remove(at).1;
        self.shrink();
        Some(entry)
    }

    /// Entries that were sent with QoS 0: nobody will acknowledge them.
    pub(super) fn take_unacknowledgeable(&mut self) -> Vec<MessageId> {
        if self.now.iter().all(|(id, _)| *id != 0) {
            return Vec::new();
        }
        let gone = self.now.iter().filter(|(id, _)| *id == 0);
        let gone = gone.map(|(_, entry)| *entry).collect();
        self.now.retain(|(id, _)| *id != 0);
        self.shrink();
        gone
    }

    /// These cannot be sent.
    pub(super) fn forget_ids(&mut self, entries: &[MessageId]) {
        self.now.retain(|(_, entry)| !entries.contains(entry));
        self.before.retain(|(_, entry)| !entries.contains(entry));
        self.shrink();
    }

    /// These are not sent again. What was sent of them on this connection is in flight until its PUBACK [3.3.4-9].
    pub(super) fn retire(&mut self, entries: &[MessageId]) {
        self.before.retain(|(_, entry)| !entries.contains(entry));
        self.shrink();
    }

    /// Everything is read again: what is in flight keeps its ids for when it is sent again.
    pub(super) fn forget(&mut self) {
        let sent = std::mem::take(&mut self.now);
        self.before
            .extend(sent.into_iter().filter(|(id, _)| *id != 0));
        self.bound();
    }

    /// Of a user that has left, perhaps, or acknowledged another way: ids are few and old ones are the first to go.
    fn bound(&mut self) {
        let over = self.before.len().saturating_sub(usize::from(u8::MAX));
        self.before.drain(..over);
    }

    fn shrink(&mut self) {
        if self.now.is_empty() {
            self.now = Vec::new();
        }
        if self.before.is_empty() {
            self.before = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use hongyan_core::MessageId;

    use super::*;

    fn entry(n: u128) -> MessageId {
        MessageId(uuid::Uuid::from_u128(n))
    }

    fn flights(limit: u16) -> Flights {
        Flights {
            limit,
            ..Flights::default()
        }
    }

    #[test]
    fn mq_8_never_more_in_flight_than_the_client_takes() {
        let mut flights = flights(2);
        assert_eq!(
            flights.take_off(entry(1), QoS::AtLeastOnce),
            Some((1, false))
        );
        assert_eq!(
            flights.take_off(entry(2), QoS::AtLeastOnce),
            Some((2, false))
        );
        assert_eq!(flights.take_off(entry(3), QoS::AtLeastOnce), None);
        assert_eq!(flights.acked(1), Some(entry(1)));
        assert_eq!(flights.acked(1), None, "an unknown id is ignored");
        assert_eq!(
            flights.take_off(entry(3), QoS::AtLeastOnce),
            Some((3, false))
        );
    }

    #[test]
    fn mq_4_a_resumed_session_keeps_its_ids() {
        let mut former = flights(10);
        for n in 1..=3 {
            former.take_off(entry(n), QoS::AtLeastOnce);
        }
        former.acked(2);
        let mut flights = flights(10);
        flights.resume(former);
        assert_eq!(
            flights.take_off(entry(1), QoS::AtLeastOnce),
            Some((1, true))
        );
        assert_eq!(
            flights.take_off(entry(3), QoS::AtLeastOnce),
            Some((3, true))
        );
        assert_eq!(
            flights.take_off(entry(4), QoS::AtLeastOnce),
            Some((4, false))
        );
    }

    #[test]
    fn mq_8_what_was_recalled_counts_until_it_is_acknowledged() {
        let mut former = flights(1);
        former.take_off(entry(1), QoS::AtLeastOnce);
        let mut flights = self::flights(1);
        flights.resume(former);
        flights.retire(&[entry(1)]);
        let again = flights.take_off(entry(1), QoS::AtLeastOnce);
        assert_eq!(again, Some((2, false)), "its former id is forgotten");
        flights.retire(&[entry(1)]);
        assert!(flights.is_full());
        assert_eq!(flights.take_off(entry(2), QoS::AtLeastOnce), None);
        assert_eq!(flights.acked(2), Some(entry(1)));
        assert_eq!(
            flights.take_off(entry(2), QoS::AtLeastOnce),
            Some((3, false))
        );
    }

    #[test]
    fn mq_13_ids_wrap_around_what_is_in_flight() {
        let mut flights = flights(10);
        assert_eq!(
            flights.take_off(entry(1), QoS::AtLeastOnce),
            Some((1, false))
        );
        for n in 2..=u128::from(u16::MAX) {
            let (id, _) = flights.take_off(entry(n), QoS::AtLeastOnce).unwrap();
            assert_eq!(flights.acked(id), Some(entry(n)));
        }
        let next = flights.take_off(entry(70_000), QoS::AtLeastOnce);
        assert_eq!(
            next,
            Some((2, false)),
            "0 and the id in flight are passed over"
        );
    }

    #[test]
    fn what_was_sent_with_qos_0_is_done_with_the_next_packet() {
        let mut flights = flights(10);
        flights.take_off(entry(1), QoS::AtMostOnce);
        flights.take_off(entry(2), QoS::AtLeastOnce);
        assert_eq!(flights.take_unacknowledgeable(), [entry(1)]);
        assert_eq!(flights.take_unacknowledgeable(), []);
        assert_eq!(flights.acked(1), Some(entry(2)));
        assert_eq!(flights.now.capacity(), 0, "idle, it owns nothing");
    }
}
