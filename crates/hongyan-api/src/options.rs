//! What an operator may set about this room, and the fixed numbers of HTTP.

use std::time::Duration;

use crate::limiter::Rate;
use crate::push::PushOptions;

/// Settings of the HTTP side. Every one has a default that suits one machine.
#[derive(Debug, Clone)]
pub struct Options {
    /// Open HTTP connections; sockets that went over to the gateway do not count. Beyond it new ones get 503.
    pub connections_max: usize,
    /// The same for one address (an IPv6 network of 64 bits is one). Behind a proxy all connections come from one.
    pub connections_per_ip_max: u32,
    /// Time for a request's head, from its first byte (or from the connection's opening).
    pub header_timeout: Duration,
    /// Time for a request's body; for streamed bodies, between two pieces.
    pub body_timeout: Duration,
    /// How long a connection may stay open between requests.
    pub idle_timeout: Duration,
    /// Requests with one server or admin key.
    pub key_rate: Rate,
    /// Requests with one device token.
    pub device_rate: Rate,
    /// Registrations with client keys from one address.
    pub client_rate: Rate,
    /// Requests without a valid key from one address.
    pub stranger_rate: Rate,
    /// The domain of XMPP, when it is spoken here: apps are `<app>.<domain>`.
    pub xmpp_domain: Option<String>,
    /// Whether browsers are served (autopush).
    pub autopush: bool,
    /// How long a key or an app's policy is remembered after it was read.
    pub cache_ttl: Duration,
    /// Push endpoints.
    pub push: PushOptions,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connections_max: 20_000,
            connections_per_ip_max: u32::MAX,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            key_rate: Rate {
                per_s: 20_000,
                burst: 40_000,
            },
            device_rate: Rate {
                per_s: 20,
                burst: 200,
            },
            client_rate: Rate {
                per_s: 200,
                burst: 2_000,
            },
            stranger_rate: Rate {
                per_s: 20,
                burst: 200,
            },
            xmpp_domain: None,
            autopush: false,
            cache_ttl: Duration::from_secs(5),
            push: PushOptions::default(),
        }
    }
}

/// Head of a request, bytes: browsers send 2 to 4 KiB, proxies add some.
pub(crate) const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Headers of a request.
pub(crate) const HEADERS_LEN_MAX: usize = 100;
/// Streams on one HTTP/2 connection.
pub(crate) const STREAMS_MAX: u32 = 256;
/// Keys that are remembered.
pub(crate) const KEYS_CACHED_MAX: usize = 4_096;
/// Apps whose policy is remembered.
pub(crate) const APPS_CACHED_MAX: usize = 4_096;
/// Buckets of one limiter.
pub(crate) const BUCKETS_MAX: usize = 65_536;
/// JSON bodies of small things, bytes.
pub(crate) const BODY_BYTES_MAX: usize = 64 * 1024;
/// How much of a body that is too large is still read and forgotten, bytes, so that its sender gets to read the answer.
pub(crate) const DRAIN_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How long that may take.
pub(crate) const DRAIN_TIME: Duration = Duration::from_secs(5);
/// One line of an import, bytes: the same as a registration.
pub(crate) const LINE_BYTES_MAX: usize = BODY_BYTES_MAX;
/// Lines of an import that are written at once.
pub(crate) const IMPORT_LEN: usize = 500;
/// Faulty lines of an import that are listed; the rest is counted.
pub(crate) const IMPORT_ERRORS_MAX: usize = 1_000;
/// Devices in one page of an export.
pub(crate) const EXPORT_PAGE_LEN: usize = 500;
/// Items in one page of a list.
pub(crate) const PAGE_LEN_MAX: usize = 1_000;
/// Items in one page when the caller says nothing.
pub(crate) const PAGE_LEN: usize = 100;
/// Devices that are looked at before a credential is deleted.
pub(crate) const USES_SEEN_MAX: usize = 20_000;
/// Faults that the answer to one batch lists; of the messages after them only `detail` says what is wrong.
pub(crate) const BATCH_FAULTS_LEN_MAX: usize = 2_000;
/// Devices in one bulk subscription.
pub(crate) const SUBSCRIBERS_LEN_MAX: usize = 10_000;
/// Ids in one ack call.
pub(crate) const ACKS_LEN_MAX: usize = 1_000;
/// Events in one client-events call.
pub(crate) const CLIENT_EVENTS_LEN_MAX: usize = 1_000;
/// Live tails at once: each holds a connection and reads the ledger.
pub(crate) const TAILS_MAX: usize = 256;
/// Silence on a live tail before a comment is sent: many proxies cut at 60 s.
pub(crate) const TAIL_BEAT: Duration = Duration::from_secs(15);
/// Days in one report.
pub(crate) const REPORT_DAYS_MAX: i64 = 92;
/// Deliveries in one page of a message's status.
pub(crate) const DELIVERIES_PAGE_LEN: usize = 100;
/// Any short text of a device, bytes.
pub(crate) const TEXT_BYTES_MAX: usize = 256;
/// Keys of one app.
pub(crate) const KEYS_PER_APP_MAX: usize = 1_000;
