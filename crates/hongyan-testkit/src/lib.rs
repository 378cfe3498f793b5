//! Conformance suites for the ports, and stand-ins for neighbours. For tests only.
//!
//! Each suite is a table of cases, one for each promise in a port's comment; every engine and every
//! fake runs all of them. Start reading at [`fake`] and at any `*_suite`.

pub mod channel_suite;
pub mod commit_suite;
pub mod fake;
pub mod inbox_suite;
pub mod ledger_suite;
pub mod push_suite;
pub mod quota_suite;
pub mod registry_suite;
pub mod sample;
pub mod suite;
pub mod work_suite;
