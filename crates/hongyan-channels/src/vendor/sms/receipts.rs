//! What became of a text, in the words that carriers use, and a memory of what was there before.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use hongyan_core::Reason;
use hongyan_core::port::ReceiptKind;

/// What is remembered at once.
const TOLD_MAX: usize = 16_384;

/// What a carrier's word for the end of a text means: SMPP's states, which the Chinese operators' protocols share.
pub(super) fn kind_of(state: &str) -> ReceiptKind {
    match state.to_ascii_uppercase().as_str() {
        "DELIVRD" | "DELIVERED" => ReceiptKind::Delivered,
        "EXPIRED" => ReceiptKind::Failed(Reason::Expired),
        "DELETED" => ReceiptKind::Failed(Reason::Recalled),
        "UNDELIV" => ReceiptKind::Failed(Reason::RetriesExhausted),
        "REJECTD" => ReceiptKind::Failed(Reason::PayloadRejected),
        // The number does not exist, as Aliyun and the Chinese operators say it.
        "MOBILE_NOT_ON_SERVICE" | "MK:0001" | "MK:0000" => ReceiptKind::TokenInvalid,
        _ => ReceiptKind::Other,
    }
}

/// What is kept of a text, however long it is.
type Print = [u8; 32];

/// Remembers, bounded, what was there before.
#[derive(Debug, Default)]
pub(super) struct Told {
    inner: Mutex<(HashSet<Print>, VecDeque<Print>)>,
}

impl Told {
    /// Whether this is new; it is old from now on.
    pub(super) fn is_new(&self, text: &str) -> bool {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, order) = &mut *inner;
        let mut print = Print::default();
        let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
        print.copy_from_slice(digest.as_ref());
        if !known.insert(print) {
            return false;
        }
        order.push_back(print);
        while order.len() > TOLD_MAX {
            if let Some(oldest) = order.pop_front() {
                known.remove(&oldest);
            }
        }
        true
    }
}

/// A time as Chinese providers write it, `2017-01-01 08:00:00` in Beijing.
pub(super) fn beijing_time(text: &str) -> Option<hongyan_core::Timestamp> {
    let date = jiff::civil::DateTime::strptime("%Y-%m-%d %H:%M:%S", text.trim()).ok()?;
    let zone = jiff::tz::TimeZone::fixed(jiff::tz::offset(8));
    let at = date.to_zoned(zone).ok()?;
    Some(hongyan_core::Timestamp(at.timestamp().as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_new_once_and_forgotten_in_order() {
        let told = Told::default();
        assert!(told.is_new("a") && !told.is_new("a"));
        for n in 0..TOLD_MAX {
            assert!(told.is_new(&n.to_string()));
        }
        assert!(told.is_new("a"), "the oldest was forgotten");
        assert_eq!(told.inner.lock().unwrap().0.len(), TOLD_MAX);
    }

    #[test]
    fn times_are_beijings() {
        let at = beijing_time("2017-01-01 08:00:00").unwrap();
        assert_eq!(at, hongyan_core::Timestamp(1_483_228_800_000));
        assert_eq!(beijing_time("yesterday"), None);
    }
}
