//! Conformance suites for the ports, and stand-ins for neighbours. For tests only.
//!
//! Each suite is a table of cases, one for each promise in a port's comment; every engine and every
//! fake runs all of them. Start reading at [`fake`] and at any `*_suite`.

pub mod fake;
