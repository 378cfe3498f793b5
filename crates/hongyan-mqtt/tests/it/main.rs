//! The broker by the clauses: MQ-n are hongyan's own, bracketed numbers the standard's.

mod connect;
mod flow;
mod limits;
mod play;
mod properties;
mod publish;
mod session;
mod wills;
mod wire;
