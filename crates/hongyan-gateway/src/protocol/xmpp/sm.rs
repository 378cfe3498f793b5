//! Stream management (XEP-0198): what was sent and not acknowledged, and how it survives a cut.

use std::collections::VecDeque;

use hongyan_core::{MessageId, Timestamp};

/// Stanzas after which an acknowledgement is asked for.
const ASK_AFTER: u8 = 10;
/// Stanzas that may be unacknowledged.
const QUEUE_LEN_MAX: usize = 1_024;
/// Bytes of unacknowledged stanzas that are not entries of the inbox.
const QUEUE_BYTES_MAX: usize = 256 * 1024;
/// The same of a session whose connection was cut: very many may be kept at once, for whoever cares to cut them. One with
/// more cannot be resumed; its entries are in the inbox anyway.
const KEPT_BYTES_MAX: usize = 16 * 1024;

/// An unacknowledged stanza: entries are in the inbox anyway, others are kept whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    Entry(MessageId),
    Stanza(Box<str>),
}

/// The client's count is above what was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooHigh {
    pub(crate) sent: u32,
}

/// A stream with acknowledgements.
#[derive(Debug, Default)]
pub(crate) struct Sm {
    /// Names the session for a later resumption; absent when the client wants none.
    pub(crate) id: Option<[u8; 16]>,
    /// Stanzas of the client that were handled.
    pub(crate) handled: u32,
    /// Stanzas of ours that the client has.
    acked: u32,
    queue: VecDeque<Item>,
    /// Of these, entries.
    entries: usize,
    bytes: usize,
    unasked: u8,
}

impl Sm {
    #[must_use]
    pub(crate) fn new(id: Option<[u8; 16]>) -> Self {
        Self {
            id,
            ..Self::default()
        }
    }

    /// Notes a stanza on its way; true when it is time to ask for an acknowledgement.
    pub(crate) fn sent(&mut self, item: Item) -> bool {
        match &item {
            Item::Entry(_) => self.entries += 1,
            Item::Stanza(text) => self.bytes += text.len(),
        }
        self.queue.push_back(item);
        self.unasked = self.unasked.saturating_add(1);
        self.unasked >= ASK_AFTER
    }

    /// How many entries are unacknowledged.
    pub(crate) fn entries(&self) -> usize {
        self.entries
    }

    /// Whether the client acknowledges too little to go on.
    pub(crate) fn is_full(&self) -> bool {
        self.queue.len() >= QUEUE_LEN_MAX || self.bytes >= QUEUE_BYTES_MAX
    }

    /// Whether it may be kept for a resumption.
    pub(crate) fn is_resumable(&self) -> bool {
        self.id.is_some() && self.bytes <= KEPT_BYTES_MAX
    }

    /// Whether there is something to ask for; it counts as asked then.
    pub(crate) fn ask(&mut self) -> bool {
        std::mem::take(&mut self.unasked) > 0
    }

    /// Takes the client's count; answers the entries that it newly has. A count below the last one
    /// is old news.
    pub(crate) fn acked(&mut self, h: u32) -> Result<Vec<MessageId>, TooHigh> {
        let fresh = h.wrapping_sub(self.acked) as usize;
        if fresh > self.queue.len() {
            // Behind us on the circle: said before.
            if self.acked.wrapping_sub(h) <= u32::MAX / 2 {
                return Ok(Vec::new());
            }
            let waiting = u32::try_from(self.queue.len()).unwrap_or(u32::MAX);
            return Err(TooHigh {
                sent: self.acked.wrapping_add(waiting),
            });
        }
        self.acked = h;
        let mut entries = Vec::new();
        for item in self.queue.drain(..fresh) {
            match item {
                Item::Entry(id) => {
                    self.entries -= 1;
                    entries.push(id);
                }
                Item::Stanza(text) => self.bytes -= text.len(),
            }
        }
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
        Ok(entries)
    }

    /// After a cut: entries are read from the inbox again, the others are answered to be sent
    /// again now.
    pub(crate) fn resend(&mut self) -> Vec<Box<str>> {
        (self.entries, self.bytes) = (0, 0);
        let queue = std::mem::take(&mut self.queue);
        let stanzas = queue.into_iter().filter_map(|item| match item {
            Item::Stanza(text) => Some(text),
            Item::Entry(_) => None,
        });
        stanzas.collect()
    }

    #[cfg(test)]
    pub(crate) fn set_acked(&mut self, acked: u32) {
        self.acked = acked;
    }
}

/// A session whose connection was cut.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) sm: Sm,
    /// The account; nobody else resumes it.
    pub(crate) bare: Box<str>,
    pub(crate) resource: Box<str>,
    pub(crate) priority: Option<i8>,
    pub(crate) carbons: bool,
    pub(crate) since: Timestamp,
}

/// An id as text.
pub(crate) fn hex(id: &[u8]) -> String {
    id.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(n: u128) -> Item {
        Item::Entry(MessageId::parse(&format!("{:032x}", n)).unwrap())
    }

    #[test]
    fn xm_09_counts_wrap_and_never_run_ahead() {
        let mut sm = Sm::new(None);
        sm.set_acked(u32::MAX - 1);
        for n in 0..4 {
            sm.sent(entry(n));
        }
        assert_eq!(sm.acked(u32::MAX).unwrap().len(), 1);
        assert_eq!(sm.acked(1).unwrap().len(), 2);
        assert_eq!(sm.acked(0).unwrap().len(), 0, "old news");
        assert_eq!(sm.acked(3), Err(TooHigh { sent: 2 }));
        assert_eq!(sm.acked(2).unwrap().len(), 1);
        assert_eq!(sm.acked(2).unwrap().len(), 0);
    }

    #[test]
    fn a_session_that_is_kept_is_small() {
        let mut sm = Sm::new(Some([7; 16]));
        for n in 0..QUEUE_LEN_MAX as u128 {
            sm.sent(entry(n));
        }
        assert!(sm.is_resumable(), "entries are kept by the inbox");
        sm.sent(Item::Stanza("x".repeat(KEPT_BYTES_MAX).into()));
        assert!(sm.is_resumable());
        sm.sent(Item::Stanza("x".into()));
        assert!(!sm.is_resumable());
        assert!(!Sm::new(None).is_resumable());
    }

    #[test]
    fn only_other_stanzas_are_kept_whole() {
        let mut sm = Sm::new(None);
        sm.sent(Item::Stanza("<a/>".into()));
        sm.sent(entry(1));
        sm.sent(Item::Stanza("<b/>".into()));
        sm.acked(1).unwrap();
        assert_eq!(sm.resend(), ["<b/>".into()]);
        assert!(sm.acked(1).unwrap().is_empty());
        let mut asked = 0;
        for n in 0..20 {
            if sm.sent(entry(n)) && sm.ask() {
                asked += 1;
            }
        }
        assert_eq!(asked, 2);
        for _ in 0..QUEUE_LEN_MAX {
            sm.sent(entry(0));
        }
        assert!(sm.is_full());
    }
}
