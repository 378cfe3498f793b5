//! The embedded engines against the promises of the ports, against damage and against each other.

mod conformance;
mod subject;
