//! Stand-ins for neighbours: a clock that is moved by hand, dice that repeat, a vendor that says what it is told
//! to say, a presence that is set.

mod clock;
mod presence;
mod vendor;

pub use clock::{ManualClock, SeededDice};
pub use presence::FakePresence;
pub use vendor::{FakeVendor, Sent};
