//! The process's metrics, written as Prometheus text on `/metrics`.
//!
//! [`ALL`] is the list of them: what the page says of each, and `docs/metrics.md`, come from there.

use std::fmt::Write as _;
use std::sync::OnceLock;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

#[cfg(test)]
mod tests;

static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();

/// What a metric does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Only grows while the process runs.
    Counter,
    /// Goes up and down.
    Gauge,
}

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

/// One metric.
#[derive(Debug)]
struct Metric {
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    help: &'static str,
    /// When somebody should look; empty when it is for graphs only.
    #[allow(dead_code, reason = "said in docs/metrics.md, which a test makes")]
    alarm: &'static str,
}

const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    alarm: &'static str,
) -> Metric {
    Metric {
        name,
        kind: Kind::Counter,
        labels,
        help,
        alarm,
    }
}

const fn gauge(name: &'static str, help: &'static str, alarm: &'static str) -> Metric {
    Metric {
        name,
        kind: Kind::Gauge,
        labels: &[],
        help,
        alarm,
    }
}

const PANIC: &str = "any growth: it stayed where it was, and is a fault of hongyan to be reported";
const DAMAGE: &str = "any growth: see the log for the record, and `hongyan doctor`";

/// All metrics, by room.
#[rustfmt::skip]
const ALL: &[Metric] = &[
    counter("hongyan_api_panics_total", &[], "Requests that failed inside the server and were answered 500.", PANIC),
    counter("hongyan_api_requests_total", &["method", "route", "status"], "Answered requests to the API, by the route's pattern.", "the share of status 5xx above 1 % for 5 minutes; 429 or 503 that do not end"),
    counter("hongyan_autopush_lost_total", &[], "Web pushes that browsers did not get because more came than is kept.", ""),
    counter("hongyan_autopush_nacks_total", &[], "Pushes that a browser could not use.", ""),
    counter("hongyan_autopush_unknown_total", &[], "Words of browsers that are not known.", ""),
    counter("hongyan_callbacks_refused_total", &["channel", "why"], "Calls to the vendors' receipt addresses that were refused.", "growth of a channel that is in use: its secret or signing key may be wrong"),
    counter("hongyan_dispatch_outcomes_total", &["reason"], "Final outcomes, one for each end in the ledger.", "the share of a reason that you do not expect, such as `credential_invalid`, `no_credential`, `vendor_unavailable` or `retries_exhausted`"),
    counter("hongyan_dispatch_unreadable_total", &[], "Records that could not be read and were passed over.", DAMAGE),
    counter("hongyan_gateway_closes_total", &["code"], "Connections that the server closed, by WebSocket close code.", "4xxx that grow with a release of your app; a burst of 1013 (no place)"),
    counter("hongyan_gateway_connections_total", &[], "Connections that the gateway took.", ""),
    counter("hongyan_gateway_dead_total", &[], "Connections that were given up because nothing was heard of them.", ""),
    counter("hongyan_gateway_hints_lost_total", &[], "Hints to sessions that found no room; the messages are found by the next heartbeat.", "steady growth: the reactors do not keep up"),
    counter("hongyan_gateway_messages_total", &[], "Messages that went out over connections.", ""),
    counter("hongyan_gateway_panics_total", &[], "Sessions that failed inside the gateway and were closed.", PANIC),
    counter("hongyan_gateway_recalls_lost_total", &[], "Recalls that a session was not told at once; its inbox has no such message any more.", ""),
    counter("hongyan_gateway_redeliveries_total", &[], "Messages that were sent again over the same connection because no acknowledgement came.", ""),
    gauge("hongyan_gateway_sessions", "Live sessions of devices.", "a sudden fall"),
    counter("hongyan_gateway_tls_connections_total", &["records"], "Connections over TLS, by who opens their records: `own` or `rustls`.", ""),
    counter("hongyan_gateway_unstored_lost_total", &[], "Pushes that are not stored (TTL 0) and found no room on the way to their session.", ""),
    counter("hongyan_intake_messages_total", &[], "Messages that were accepted.", "none where there always are some"),
    counter("hongyan_lane_panics_total", &[], "Calls to vendors that failed inside the server; their deliveries are tried again.", PANIC),
    counter("hongyan_lane_verdicts_total", &["channel", "reason"], "Answers of vendors for single devices, by what they mean.", "a channel whose share of `accepted_by_vendor` falls; `credential_invalid` of any channel"),
    counter("hongyan_listener_accept_errors_total", &["listener"], "Connections that could not be accepted.", "any growth: mostly too few file descriptors (`ulimit -n`)"),
    counter("hongyan_listener_handshakes_failed_total", &["listener"], "TLS handshakes that failed or took too long.", "a jump after a change of certificates"),
    counter("hongyan_listener_panics_total", &["listener"], "Connections whose task failed and was closed.", PANIC),
    counter("hongyan_listener_refused_total", &["listener"], "Connections for which there was no place.", "any growth: raise the limit of the listener, or find who opens so many"),
    counter("hongyan_push_browsers_forgotten_total", &[], "Browsers that were not seen for long and were forgotten.", ""),
    counter("hongyan_push_channels_opened_total", &[], "Web push endpoints that were opened.", ""),
    counter("hongyan_push_messages_total", &[], "Web pushes that were taken.", ""),
    counter("hongyan_push_odd_sub_total", &[], "VAPID tokens whose `sub` is no mailto: or https: address; they are taken all the same.", ""),
    counter("hongyan_push_pushed_out_total", &["reason"], "Waiting web pushes that gave way to newer ones.", ""),
    counter("hongyan_push_requests_total", &["status"], "Answered requests of web push senders.", "the share of status 5xx above 1 % for 5 minutes"),
    counter("hongyan_push_unstored_total", &["result"], "Web pushes with TTL 0: `handed` to a session, or `nobody` was there.", ""),
    counter("hongyan_receipts_deaths_held_total", &["channel"], "Tokens that receipts called dead and that were kept because there were too many at once.", "any growth: the vendor's receipts may be wrong, see the log"),
    counter("hongyan_receipts_total", &["channel", "kind", "known"], "Receipts of vendors; `known` is `no` when there is no such push.", "`known=\"no\"` that grows with the pushes: receipts of another app or server come here"),
    counter("hongyan_store_batches_total", &[], "Batches that the store wrote.", ""),
    counter("hongyan_store_operation_panics_total", &[], "Operations that failed inside the store and were refused.", PANIC),
    counter("hongyan_store_operations_total", &[], "Operations in those batches.", ""),
    gauge("hongyan_store_queue_len_now", "Operations that wait for the store's writer.", "above 1000 for a minute: the disk does not keep up"),
    counter("hongyan_tasks_panics_total", &["task"], "Tasks of the server that failed.", PANIC),
];

/// The page's text: what moved, and of the rest what it would be.
#[derive(Debug, Clone)]
pub(crate) struct Page(PrometheusHandle);

impl Page {
    /// Prometheus text, version 0.0.4.
    pub(crate) fn render(&self) -> String {
        let mut text = self.0.render();
        for metric in ALL {
            if !text.contains(&format!("# TYPE {} ", metric.name)) {
                let (name, word) = (metric.name, metric.kind.word());
                let _ = writeln!(text, "# HELP {name} {}\n# TYPE {name} {word}", metric.help);
            }
        }
        text
    }
}

/// Installs the recorder at the first call; answers the same page ever after.
///
/// # Errors
/// When another recorder was installed before.
pub(crate) fn page() -> anyhow::Result<Page> {
    if let Some(handle) = HANDLE.get() {
        return Ok(Page(handle.clone()));
    }
    let handle = PrometheusBuilder::new().install_recorder()?;
    describe();
    Ok(Page(HANDLE.get_or_init(|| handle).clone()))
}

/// Says of each metric what it is. Those without labels begin with zero, so that their first growth is seen as one.
fn describe() {
    for metric in ALL {
        match metric.kind {
            Kind::Counter => {
                metrics::describe_counter!(metric.name, metric.help);
                if metric.labels.is_empty() {
                    metrics::counter!(metric.name).increment(0);
                }
            }
            Kind::Gauge => {
                metrics::describe_gauge!(metric.name, metric.help);
                metrics::gauge!(metric.name).increment(0.0);
            }
        }
    }
}
