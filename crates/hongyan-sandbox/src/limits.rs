//! Every bound of the sandbox: its number, its unit and its reason.

/// Requests kept per channel for `GET /vendors/{channel}/requests`; older ones leave first.
pub const REQUESTS_KEPT_MAX: usize = 10_000;
/// Bytes of a request body that the record keeps; vendor bodies are far smaller.
pub const RECORDED_BODY_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a vendor request body that are read at all (1,000 Huawei tokens of 4 KiB would fit).
pub const BODY_BYTES_MAX: usize = 5 * 1024 * 1024;
/// Bytes of a control request body.
pub const CONTROL_BODY_BYTES_MAX: usize = 1024 * 1024;
/// Connections to the vendor listener at a time.
pub const CONNECTIONS_MAX: usize = 4_096;
/// HTTP/2 streams per connection that may be open at a time, as announced in SETTINGS.
pub const STREAMS_MAX: u32 = 1_000;
/// Seconds a TLS handshake may take.
pub const HANDSHAKE_S_MAX: u64 = 10;
/// Tokens known over all vendors; each costs about 300 bytes.
pub const TOKENS_MAX: usize = 1_000_000;
/// Tokens that one control request may ask for.
pub const TOKENS_PER_REQUEST_MAX: usize = 100_000;
/// Faults active per channel.
pub const FAULTS_MAX: usize = 32;
/// Milliseconds that a `slow` fault holds an answer when it names no other delay.
pub const SLOW_MS_DEFAULT: u64 = 3_000;
/// Longest delay of a `slow` fault, milliseconds.
pub const SLOW_MS_MAX: u64 = 120_000;
/// OAuth access tokens kept per vendor; the oldest leaves first.
pub const ACCESS_TOKENS_MAX: usize = 4_096;
/// Broadcast channels per app that APNs allows.
pub const APNS_CHANNELS_MAX: usize = 10_000;
/// Virtual phones; the page stays readable and a laptop stays cool.
pub const PHONES_MAX: usize = 500;
/// Tray entries per phone; the oldest leaves first.
pub const TRAY_MAX: usize = 500;
/// Message ids that a phone remembers as seen, to show each once.
pub const SEEN_MAX: usize = 5_000;
/// Pushes that a vendor holds for one offline phone.
pub const STORED_PUSHES_MAX: usize = 120;
/// Entries of Xiaomi's feedback queue of invalid regIds.
pub const FEEDBACK_MAX: usize = 100_000;
/// Vendor receipts waiting to be posted; the oldest leaves first.
pub const RECEIPTS_MAX: usize = 10_000;
/// Orders waiting for one phone's connection task.
pub const PHONE_ORDERS_MAX: usize = 256;
