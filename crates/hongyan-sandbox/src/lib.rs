//! A push vendor district on one machine: simulators of the vendors, and virtual phones.
//!
//! The simulators stand where Apple, Google, Huawei and Xiaomi stand. They are written from the
//! vendors' documents, share no code with the senders that they test, and refuse what the real
//! vendor would refuse, in its own words. The phones run the public client crate, hold vendor
//! tokens, and show what a person would see. Nothing here leaves the machine, and nothing here is
//! for production: tokens, keys and accounts are the sandbox's own.
//!
//! Where to start reading: [`Sandbox`] and [`Handle`] (what can be done), `vendor` (who answers
//! which path, and faults), `vendor/apns.rs` as the model of a simulator, `phone/model.rs` (what
//! happens on a phone) and `phone/actor.rs` (how the world is made to follow it).

pub mod limits;

mod accounts;
mod authority;
mod channel;
mod clock;
mod control;
mod dice;
mod error;
mod exchange;
mod faults;
mod files;
mod http_client;
mod jwt;
mod options;
mod phone;
mod push;
mod receipts;
mod requests;
mod sandbox;
mod server;
mod shape;
mod tokens;
mod vendor;
mod world;

pub use accounts::{
    Accounts, ApnsAccount, FcmAccount, GoogleServiceAccount, HarmonyAccount, HuaweiAccount,
    HuaweiServiceAccount, OTHER_PACKAGE, PACKAGE, XiaomiAccount, XiaomiChannel, XiaomiTemplate,
};
pub use channel::{Channel, UnknownChannel};
pub use error::SandboxError;
pub use faults::{Endpoint, Fault, FaultKind};
pub use options::Options;
pub use phone::link;
pub use phone::{AppState, NewPhone, PatchPhone, PhoneView, TrayEntry};
pub use receipts::ReceiptAddress;
pub use requests::Record;
pub use sandbox::{Handle, Sandbox};
pub use tokens::TokenState;
