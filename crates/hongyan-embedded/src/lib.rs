//! The engine ports on one machine, in one process.
//!
//! This room keeps what was accepted: every port stands on one narrow [`store`] with two engines
//! (fjall and SQLite), one writer thread and one commit point. It never calls another room, never
//! reads a wall clock (times arrive as arguments) and lets no engine's type out.
//!
//! Start reading at [`Embedded`], then `commit.rs` (the commit point), `gather.rs` (what a batch writes once for all
//! of its operations), `inbox/`, `work/`, `ledger/` and [`store`]; [`Space`](store::Space) lists what is on the disk.

pub mod store;

mod cached;
mod commit;
mod embedded;
mod gather;
mod inbox;
mod ledger;
mod maintain;
mod quota;
mod registry;
mod work;

pub use embedded::Embedded;
pub use store::backup::{BackupError, Summary, check, restore};
pub use store::{Engine, Fatal, OpenError, Options};
