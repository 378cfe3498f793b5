//! Ids of messages: in the order in which they were accepted, also within one millisecond.

use std::sync::{Arc, Mutex, PoisonError};

use hongyan_core::port::Dice;
use hongyan_core::{MessageId, Timestamp};

/// The bits below the variant of a UUID (RFC 9562, section 5.7: `rand_b`).
const TAIL: u128 = (1 << 62) - 1;

/// Gives out UUIDv7 ids, each greater than the one before (RFC 9562, section 6.2, method 2). Which of two messages with
/// one collapse key is the newer is read from their ids.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ids(Arc<Mutex<u128>>);

impl Ids {
    /// The next id. A clock that stands or goes back does not make ids repeat or sort before earlier ones.
    pub(crate) fn next(&self, now: Timestamp, dice: &dyn Dice) -> MessageId {
        let mut random = [0u8; 10];
        dice.fill(&mut random);
        let millis = u64::try_from(now.millis()).unwrap_or(0);
        let fresh = uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid();
        let [.., a, b, c, d] = random;
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *last = if fresh.as_u128() >> 80 > *last >> 80 {
            fresh.as_u128()
        } else {
            after(*last, u32::from_be_bytes([a, b, c, d]))
        };
        MessageId(uuid::Uuid::from_u128(*last))
    }
}

/// An id a random step after another one, so that the next id is no easier to guess than any.
fn after(last: u128, step: u32) -> u128 {
    let tail = (last & TAIL) + 1 + u128::from(step);
    if tail <= TAIL {
        return last & !TAIL | tail;
    }
    // Carries over the bits of variant and version.
    let head = (last >> 80 << 12 | last >> 64 & 0xfff) + 1;
    head >> 12 << 80 | 0x7 << 76 | (head & 0xfff) << 64 | 0b10 << 62 | tail & TAIL
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Falling;

    impl Dice for Falling {
        fn fill(&self, buffer: &mut [u8]) {
            use std::sync::atomic::{AtomicU8, Ordering};
            static NEXT: AtomicU8 = AtomicU8::new(255);
            buffer.fill(NEXT.fetch_sub(3, Ordering::Relaxed));
        }
    }

    #[test]
    fn ids_grow_whatever_clock_and_dice_do() {
        let ids = Ids::default();
        let mut last = MessageId(uuid::Uuid::nil());
        for at in [5, 5, 5, 4, 6, 6, 1, 7] {
            for _ in 0..50 {
                let next = ids.next(Timestamp(at), &Falling);
                assert!(next > last, "{next} after {last}");
                assert_eq!(next.0.get_version_num(), 7);
                assert_eq!(next.0.get_variant(), uuid::Variant::RFC4122);
                last = next;
            }
        }
    }

    #[test]
    fn a_full_tail_carries_over_variant_and_version() {
        let last = uuid::Uuid::parse_str("01890000-0001-7fff-bfff-ffffffffffff").unwrap();
        let next = uuid::Uuid::from_u128(after(last.as_u128(), 0));
        assert_eq!(next.to_string(), "01890000-0002-7000-8000-000000000000");
    }
}
