//! A timing wheel: all deadlines of a reactor in one array of slots.
//!
//! A deadline costs eight bytes and is never cancelled. Who set it looks, when it fires, at what
//! really is due and sets the next one; so hearing from a peer moves no timer at all.

/// Slots of the wheel; must be a multiple of 64. With ticks of 100 ms it reaches 102 s ahead.
const SLOTS: usize = 1024;

/// A moment of the reactor, in ticks since it started. Wraps after thirteen years of 100 ms.
pub(crate) type Tick = u32;

/// Who is to be woken: a slot number of the slab and its generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timer {
    pub(crate) key: u32,
    pub(crate) generation: u32,
}

/// The wheel. Deadlines beyond its reach fire early, at its end, and are set again by their owner.
#[derive(Debug)]
pub(crate) struct Wheel {
    slots: Vec<Vec<Timer>>,
    occupied: [u64; SLOTS / 64],
    now: Tick,
}

impl Wheel {
    pub(crate) fn new() -> Self {
        Self {
            slots: vec![Vec::new(); SLOTS],
            occupied: [0; SLOTS / 64],
            now: 0,
        }
    }

    /// Sets a deadline and returns the tick at which it fires: at least one tick ahead, at most
    /// the reach of the wheel.
    pub(crate) fn set(&mut self, at: Tick, timer: Timer) -> Tick {
        let at = at.clamp(self.now + 1, self.now + SLOTS as Tick - 1);
        let slot = at as usize % SLOTS;
        self.slots[slot].push(timer);
        self.occupied[slot / 64] |= 1 << (slot % 64);
        at
    }

    /// Moves to `now` and appends everything that became due on the way to `due`.
    pub(crate) fn advance(&mut self, now: Tick, due: &mut Vec<Timer>) {
        if now.saturating_sub(self.now) as usize >= SLOTS {
            for slot in &mut self.slots {
                due.append(slot);
            }
            self.occupied = [0; SLOTS / 64];
            self.now = now;
            return;
        }
        while self.now < now {
            self.now += 1;
            let slot = self.now as usize % SLOTS;
            if self.occupied[slot / 64] & 1 << (slot % 64) != 0 {
                self.occupied[slot / 64] &= !(1 << (slot % 64));
                due.append(&mut self.slots[slot]);
                if self.slots[slot].capacity() > 1024 {
                    self.slots[slot] = Vec::new();
                }
            }
        }
    }

    /// The next tick at which something fires, if anything waits.
    pub(crate) fn next(&self) -> Option<Tick> {
        let start = (self.now + 1) as usize % SLOTS;
        let words = SLOTS / 64;
        for step in 0..=words {
            let index = (start / 64 + step) % words;
            let mut word = self.occupied[index];
            if step == 0 {
                word &= u64::MAX << (start % 64);
            } else if step == words {
                word &= !(u64::MAX << (start % 64));
            }
            if word != 0 {
                let slot = index * 64 + word.trailing_zeros() as usize;
                let ahead = (slot + SLOTS - start) % SLOTS;
                return Some(self.now + 1 + ahead as Tick);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn timer(key: u32) -> Timer {
        Timer { key, generation: 0 }
    }

    #[test]
    fn fires_at_its_tick_and_not_before() {
        let mut wheel = Wheel::new();
        assert_eq!(wheel.next(), None);
        assert_eq!(wheel.set(5, timer(1)), 5);
        assert_eq!(wheel.set(0, timer(2)), 1, "the past is the next tick");
        assert_eq!(
            wheel.set(1_000_000, timer(3)),
            1023,
            "beyond the reach is its end"
        );
        assert_eq!(wheel.next(), Some(1));
        let mut due = Vec::new();
        wheel.advance(4, &mut due);
        assert_eq!(due, [timer(2)]);
        assert_eq!(wheel.next(), Some(5));
        wheel.advance(5, &mut due);
        assert_eq!(due, [timer(2), timer(1)]);
        wheel.advance(100_000, &mut due);
        assert_eq!(due.len(), 3, "a long sleep fires everything");
        assert_eq!(wheel.next(), None);
    }

    proptest! {
        #[test]
        fn agrees_with_a_sorted_list(
            steps in proptest::collection::vec((0u32..1500, 0u32..700), 1..60),
        ) {
            let mut wheel = Wheel::new();
            let mut waiting: Vec<(Tick, u32)> = Vec::new();
            for (key, (ahead, step)) in steps.into_iter().enumerate() {
                let at = wheel.set(wheel.now + ahead, timer(key as u32));
                waiting.push((at, key as u32));
                prop_assert_eq!(wheel.next(), waiting.iter().map(|(at, _)| *at).min());
                let now = wheel.now + step;
                let mut due = Vec::new();
                wheel.advance(now, &mut due);
                let mut fired: Vec<u32> = due.iter().map(|timer| timer.key).collect();
                let mut want: Vec<u32> =
                    waiting.iter().filter(|(at, _)| *at <= now).map(|(_, key)| *key).collect();
                waiting.retain(|(at, _)| *at > now);
                fired.sort_unstable();
                want.sort_unstable();
                prop_assert_eq!(fired, want);
            }
        }
    }
}
