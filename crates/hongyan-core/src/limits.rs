//! Every number that bounds something, with its unit and why.

use std::time::Duration;

/// How long a message with a time to live of 0 ("now or never") is tried here; vendors are told 0.
pub const TTL_MIN: Duration = Duration::from_secs(10);

/// `data` of a message, bytes of JSON: the largest that still fits a client frame with ease.
pub const DATA_BYTES_MAX: usize = 32 * 1024;
/// Request body of a single message, bytes: data, texts and vendor extras with room to spare.
pub const MESSAGE_BODY_BYTES_MAX: usize = 96 * 1024;
/// Messages in one batch call.
pub const BATCH_LEN_MAX: usize = 1_000;
/// Request body of a batch, bytes.
pub const BATCH_BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Users or devices named in one message: larger audiences are topics or segments.
pub const TARGETS_LEN_MAX: usize = 1_000;
/// Title, characters: longer than any vendor shows.
pub const TITLE_CHARS_MAX: usize = 256;
/// Body, characters.
pub const BODY_CHARS_MAX: usize = 4_096;
/// Name of a sound or of a group of notifications, bytes: file names and thread ids are far shorter.
pub const NAME_BYTES_MAX: usize = 256;
/// Any URL, bytes.
pub const URL_BYTES_MAX: usize = 2_048;
/// Collapse key, bytes: APNs allows 64.
pub const COLLAPSE_KEY_BYTES_MAX: usize = 64;
/// Vendor token, bytes: FCM's are the longest, its notes advise 4,096.
pub const TOKEN_BYTES_MAX: usize = 4_096;
/// Tags of a device.
pub const TAGS_LEN_MAX: usize = 100;
/// One tag, bytes.
pub const TAG_BYTES_MAX: usize = 64;
/// Attributes of a user, bytes of JSON.
pub const ATTRIBUTES_BYTES_MAX: usize = 16 * 1024;
/// Devices of one user; the one seen longest ago is unbound beyond it.
pub const DEVICES_PER_USER_MAX: usize = 50;
/// Topics of one device.
pub const TOPICS_PER_DEVICE_MAX: usize = 200;
/// Personal messages that a user's inbox keeps; older ones leave the ring.
pub const INBOX_LEN_MAX: u64 = 100;
/// Slots of the ring: a power of two above [`INBOX_LEN_MAX`].
pub const INBOX_SLOTS: u64 = 128;
/// Acked places above the cumulative one that are remembered per device.
pub const ACKED_ABOVE_MAX: usize = 256;
/// Time to live when the message sets none.
pub const TTL_DEFAULT: Duration = Duration::from_secs(86_400);
/// Longest time to live: the inbox keeps seven days.
pub const TTL_MAX: Duration = Duration::from_secs(7 * 86_400);
/// How far ahead `send_at` may lie.
pub const SEND_AHEAD_MAX: Duration = Duration::from_secs(30 * 86_400);
/// How long a session has to acknowledge when the message says nothing.
pub const ACK_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// Shortest and longest `ack_timeout_ms`.
pub const ACK_TIMEOUT_MS_RANGE: (u32, u32) = (100, 60_000);
/// How long an `Idempotency-Key` is remembered.
pub const IDEMPOTENCY_TTL: Duration = Duration::from_secs(86_400);
/// Length of an `Idempotency-Key`, bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
/// Tries of one delivery at one channel before `retries_exhausted`.
pub const ATTEMPTS_MAX: u16 = 8;
/// First wait between tries; doubles, with full jitter.
pub const RETRY_BASE: Duration = Duration::from_millis(500);
/// Body of a vendor's callback, bytes: a thousand receipts with long tokens.
pub const CALLBACK_BODY_BYTES_MAX: usize = 1024 * 1024;
/// Shortest and longest `fallback_after_ms`.
pub const FALLBACK_AFTER_MS_RANGE: (u32, u32) = (1_000, 86_400_000);
/// Longest wait between tries, unless the vendor asks for more.
pub const RETRY_MAX: Duration = Duration::from_secs(300);
/// Parcels waiting in one lane; beyond it they wait in the work store.
pub const LANE_QUEUE_LEN_MAX: usize = 4_096;
/// How long one vendor call may take.
pub const VENDOR_CALL_DEADLINE: Duration = Duration::from_secs(15);
/// How long a leased job belongs to the process that took it.
pub const LEASE: Duration = Duration::from_secs(60);
/// Jobs taken in one lease.
pub const LEASE_LEN_MAX: usize = 512;
/// Deliveries planned and not yet settled in one process.
pub const IN_FLIGHT_MAX: usize = 65_536;
/// Devices of a broadcast planned in one page.
pub const BROADCAST_PAGE_LEN: usize = 500;
/// How often a version conflict is tried again before it is an error.
pub const CONFLICT_RETRIES_MAX: usize = 16;
/// How long events and traces are kept.
pub const LEDGER_TTL: Duration = Duration::from_secs(14 * 86_400);
/// Events in one page of a trace or tail.
pub const EVENTS_PAGE_LEN_MAX: usize = 1_000;
/// What a device tells its app at once, bytes: a chat line, kept whole in an event.
pub const SAID_BYTES_MAX: usize = 2_048;
/// Text of a vendor's answer kept in an event, bytes.
pub const DETAIL_BYTES_MAX: usize = 512;
