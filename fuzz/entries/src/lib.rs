//! Every door through which bytes of strangers come in, as functions that may not panic.
//!
//! The same functions are run by `cargo fuzz` (see `fuzz/README.md`) and, for a bounded number of
//! mutated seeds, by this crate's own test. An entry panics when the parser does, or when one of
//! its promises does not hold; it never judges what is accepted.
//!
//! Start reading at [`ENTRIES`].

mod live;
mod mqtt;
pub mod mutate;
mod push;
mod receipts;
mod requests;
mod secured;
mod stored;
mod xmpp;

/// A door.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// Name of the fuzz target.
    pub name: &'static str,
    /// Takes any bytes.
    pub run: fn(&[u8]),
    /// Good bytes to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All doors.
pub const ENTRIES: &[Entry] = &[
    live::FRAMES,
    live::CLIENT_MESSAGES,
    live::SERVER_MESSAGES,
    live::HANDSHAKE,
    live::CURSORS,
    mqtt::MQTT_PACKETS,
    mqtt::MQTT_BROKER,
    push::VAPID,
    push::PUSH_HEADERS,
    push::MATRIX_NOTIFICATIONS,
    push::AUTOPUSH_MESSAGES,
    secured::TLS_RECORDS,
    requests::MESSAGES,
    requests::REGISTRATIONS,
    requests::ANSWERS,
    requests::SERVERS,
    requests::KEYS,
    requests::IDS,
    requests::CREDENTIALS,
    requests::ADDRESSES,
    receipts::CALLBACKS,
    receipts::SMPP,
    stored::RECORDS,
    stored::BACKUPS,
    xmpp::XMPP_STREAMS,
];

/// Runs one entry by its name.
///
/// # Panics
/// When there is no such entry, and when the entry found a fault.
#[allow(clippy::panic, reason = "a fuzz target fails by panicking")]
pub fn run(name: &str, bytes: &[u8]) {
    match ENTRIES.iter().find(|entry| entry.name == name) {
        Some(entry) => (entry.run)(bytes),
        None => panic!("there is no fuzz target {name}"),
    }
}

fn texts(seeds: &[&str]) -> Vec<Vec<u8>> {
    seeds.iter().map(|seed| seed.as_bytes().to_vec()).collect()
}
