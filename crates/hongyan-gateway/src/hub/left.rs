//! What connections leave to the next one of their device.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use hongyan_core::port::SessionInfo;
use hongyan_core::{Cursor, Timestamp};

use crate::protocol::{Kind, Parked};

/// Devices of which something is remembered; the oldest is forgotten beyond it, which costs it the `dup` mark, or the
/// session of its protocol.
const LEN_MAX: usize = 65_536;

/// What a connection leaves to the next one of its device.
#[derive(Default)]
pub(crate) struct Left {
    /// The place up to which entries were sent but not all acknowledged.
    pub(crate) unfinished: Option<Cursor>,
    /// What its protocol keeps.
    pub(crate) parked: Option<(Kind, Parked)>,
    /// Until when the device still counts as connected.
    pub(crate) until: Option<Timestamp>,
    /// What was known of the session, while `until` has not come.
    pub(crate) session: Option<Box<SessionInfo>>,
}

impl std::fmt::Debug for Left {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parked = self.parked.as_ref().map(|(kind, _)| kind);
        f.debug_struct("Left")
            .field("unfinished", &self.unfinished)
            .field("parked", &parked)
            .finish()
    }
}

/// What was left, by device, in the order in which it was.
#[derive(Debug, Default)]
pub(super) struct Leavings {
    left: HashMap<Arc<str>, (u64, Left)>,
    /// Also of what was taken since; less than twice [`LEN_MAX`].
    order: VecDeque<(u64, Arc<str>)>,
    last: u64,
}

impl Leavings {
    pub(super) fn take(&mut self, device: &str) -> Option<Left> {
        self.left.remove(device).map(|(_, left)| left)
    }

    /// The session that was cut and may still be resumed.
    pub(super) fn lingering(&self, device: &str, now: Timestamp) -> Option<SessionInfo> {
        let (_, left) = self.left.get(device)?;
        let session = left.session.as_deref();
        session.filter(|_| left.until > Some(now)).cloned()
    }

    pub(super) fn put(&mut self, device: Arc<str>, left: Left) {
        self.last += 1;
        let number = self.last;
        self.left.insert(Arc::clone(&device), (number, left));
        self.order.push_back((number, device));
        while self.left.len() > LEN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            if self.is_current(&oldest) {
                self.left.remove(&oldest.1);
            }
        }
        if self.order.len() >= 2 * LEN_MAX {
            let mut order = std::mem::take(&mut self.order);
            order.retain(|one| self.is_current(one));
            self.order = order;
        }
    }

    /// Forgets what was left by all whose key begins so.
    pub(super) fn forget(&mut self, prefix: &str) {
        self.left.retain(|device, _| !device.starts_with(prefix));
    }

    fn is_current(&self, (number, device): &(u64, Arc<str>)) -> bool {
        matches!(self.left.get(device), Some((current, _)) if current == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_pushes_nothing_out() {
        let mut all = Leavings::default();
        all.put("waits".into(), Left::default());
        for _ in 0..3 * LEN_MAX {
            all.put("comes and goes".into(), Left::default());
            assert!(all.take("comes and goes").is_some());
            assert!(all.order.len() < 2 * LEN_MAX);
        }
        assert!(all.take("waits").is_some());
        assert!(all.take("waits").is_none());
    }

    #[test]
    fn the_oldest_is_forgotten_when_there_is_too_much() {
        let mut all = Leavings::default();
        all.put("again".into(), Left::default());
        all.put("oldest".into(), Left::default());
        // What was left again is young again.
        all.put("again".into(), Left::default());
        for n in 0..LEN_MAX - 2 {
            all.put(n.to_string().into(), Left::default());
        }
        assert_eq!(all.left.len(), LEN_MAX);
        all.put("one more".into(), Left::default());
        assert_eq!(all.left.len(), LEN_MAX);
        assert!(all.take("oldest").is_none());
        assert!(all.take("again").is_some());
    }
}
