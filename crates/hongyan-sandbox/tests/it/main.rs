//! The sandbox from outside: raw HTTP clients against the vendors, a played server for the phones.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::type_complexity,
    clippy::disallowed_methods,
    reason = "a test that cannot go on has failed; its rows are tuples; its time is the machine's"
)]

mod apns;
mod control;
mod faults;
mod fcm;
mod getui;
mod honor;
mod huawei;
mod jpush;
mod meizu;
mod oppo;
mod phones;
mod receipts;
mod sms;
mod stage;
mod umeng;
mod vivo;
mod webpush;
mod xiaomi;
