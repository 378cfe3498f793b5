//! The subcommands, one file each.
//!
//! Those that speak to a server find it through [`remote`] and answer through [`output`]: tables for
//! people, JSON for programs.

pub(crate) mod app;
pub(crate) mod backup;
pub(crate) mod bench;
pub(crate) mod channel;
pub(crate) mod config;
pub(crate) mod demo;
pub(crate) mod device;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod key;
pub(crate) mod message;
pub(crate) mod output;
pub(crate) mod remote;
pub(crate) mod report;
pub(crate) mod restore;
pub(crate) mod sandbox;
pub(crate) mod send;
pub(crate) mod serve;
pub(crate) mod tail;
pub(crate) mod trace;
