//! The sandbox from outside: raw HTTP clients against the vendors, a played server for the phones.

mod apns;
mod control;
mod faults;
mod fcm;
mod huawei;
mod phones;
mod stage;
mod xiaomi;
