//! The promises of [`hongyan_core::port::Channel`], one case each.
//!
//! A vendor brings a [`Bench`]: the channel, opened for a stand-in of the vendor that answers as it is told, and the
//! vendor's own error table as [`Row`]s.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "this is how a case fails"
)]

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hongyan_core::Verdict;
use hongyan_core::port::{Batch, Channel};
use hongyan_core::verdict::Unsure;
use serde_json::Value;

/// How the stand-in answers send requests from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Script {
    /// It takes everything.
    Accept,
    /// It takes every other recipient (0, 2, 4 …) and calls the tokens between them dead.
    DeadBetween,
    /// It answers this row of the error table to everyone.
    Row(usize),
    /// It calls the access token expired once, then takes everything.
    ExpiredOnce,
    /// It reads requests and never answers.
    Silent,
}

/// One row of a vendor's error table.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// What the vendor says, for the message of a failing case.
    pub name: &'static str,
    /// What the channel must make of it, as [`words`] says it.
    pub want: &'static str,
}

/// A send request as the stand-in saw it, with the tokens taken out.
#[derive(Debug, Clone)]
pub struct Sent {
    /// Method.
    pub method: String,
    /// Path, with `{token}` in place of a token.
    pub path: String,
    /// Headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body as JSON, forms as an object.
    pub body: Value,
    /// The tokens that were in it, in order.
    pub tokens: Vec<String>,
}

/// A channel with a stand-in behind it.
pub trait Bench: Send + Sync {
    /// The channel.
    fn channel(&self) -> Arc<dyn Channel>;

    /// A message for this many recipients, each with a token of its own.
    fn batch(&self, recipients: usize) -> Batch;

    /// Tells the stand-in how to answer.
    fn script(&self, script: Script);

    /// The vendor's error table.
    fn rows(&self) -> Vec<Row>;

    /// What was sent so far.
    fn sent(&self) -> Vec<Sent>;

    /// Requests that the stand-in is working on.
    fn open_requests(&self) -> usize;

    /// How many access tokens were handed out so far; `None` for channels that ask for none.
    fn tokens_handed_out(&self) -> Option<usize>;

    /// Whether the vendor's access tokens expire.
    fn tokens_expire(&self) -> bool;

    /// Whether the vendor names the tokens of a request that it does not take.
    fn names_tokens(&self) -> bool;

    /// Whether the vendor can see that nobody waits for an answer any more: with a stream or a connection for each call,
    /// not in a session that all calls share.
    fn sees_calls_end(&self) -> bool {
        true
    }
}

/// A case of the suite.
pub type Case = fn(Arc<dyn Bench>) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// Every case with its name. Each wants a bench of its own.
pub const CASES: &[(&str, Case)] = &[
    ("one_verdict_for_each_recipient_in_order", |bench| {
        Box::pin(one_verdict_for_each_recipient_in_order(bench))
    }),
    ("a_silent_vendor_costs_the_deadline_and_no_more", |bench| {
        Box::pin(a_silent_vendor_costs_the_deadline_and_no_more(bench))
    }),
    ("every_row_of_the_error_table_has_its_verdict", |bench| {
        Box::pin(every_row_of_the_error_table_has_its_verdict(bench))
    }),
    ("an_expired_access_token_is_renewed_once", |bench| {
        Box::pin(an_expired_access_token_is_renewed_once(bench))
    }),
    ("many_sends_at_once_ask_for_one_access_token", |bench| {
        Box::pin(many_sends_at_once_ask_for_one_access_token(bench))
    }),
    ("preview_is_exactly_what_is_sent", |bench| {
        Box::pin(preview_is_exactly_what_is_sent(bench))
    }),
    ("a_dropped_send_leaks_nothing", |bench| {
        Box::pin(a_dropped_send_leaks_nothing(bench))
    }),
];

/// Long enough for any machine; a case that needs it has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// A verdict in a few words: `accepted`, `token_dead token_invalid`, `retry vendor_unavailable not_taken` …
#[must_use]
pub fn words(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Unasked(word) => format!("unasked {}", words(word)),
        Verdict::Accepted { .. } => "accepted".to_owned(),
        Verdict::TokenDead { reason, .. } => format!("token_dead {reason}"),
        Verdict::Refused { reason, .. } => format!("refused {reason}"),
        Verdict::CredentialBad { .. } => "credential_bad".to_owned(),
        Verdict::QuotaExhausted { .. } => "quota_exhausted".to_owned(),
        Verdict::DeviceLimited { .. } => "device_limited".to_owned(),
        Verdict::Unknown { .. } => "unknown".to_owned(),
        Verdict::Retry {
            reason, certainty, ..
        } => {
            let certainty = match certainty {
                Unsure::NotTaken => "not_taken",
                Unsure::MaybeTaken => "maybe_taken",
            };
            format!("retry {reason} {certainty}")
        }
    }
}

async fn send(bench: &Arc<dyn Bench>, batch: &Batch, deadline: Duration) -> Vec<String> {
    let channel = bench.channel();
    let sending = channel.send(batch, deadline);
    match tokio::time::timeout(PATIENCE, sending).await {
        Ok(verdicts) => verdicts.iter().map(words).collect(),
        Err(_) => vec!["send did not end".to_owned()],
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let ended = tokio::time::timeout(PATIENCE, waiting).await;
    assert!(ended.is_ok(), "waited in vain: {what}");
}

async fn one_verdict_for_each_recipient_in_order(bench: Arc<dyn Bench>) {
    for len in [1, 2, 25] {
        bench.script(Script::Accept);
        let verdicts = send(&bench, &bench.batch(len), PATIENCE).await;
        assert_eq!(verdicts, vec!["accepted"; len]);
        if bench.names_tokens() {
            bench.script(Script::DeadBetween);
            let verdicts = send(&bench, &bench.batch(len), PATIENCE).await;
            let want: Vec<&str> = (0..len)
                .map(|i| match i % 2 {
                    0 => "accepted",
                    _ => "token_dead token_invalid",
                })
                .collect();
            assert_eq!(verdicts, want);
        }
    }
    assert!(send(&bench, &bench.batch(0), PATIENCE).await.is_empty());
}

async fn a_silent_vendor_costs_the_deadline_and_no_more(bench: Arc<dyn Bench>) {
    bench.script(Script::Silent);
    let verdicts = send(&bench, &bench.batch(3), Duration::from_millis(300)).await;
    assert_eq!(verdicts.len(), 3, "{verdicts:?}");
    for verdict in verdicts {
        assert!(verdict.starts_with("retry vendor_unavailable"), "{verdict}");
    }
    bench.script(Script::Accept);
    let verdicts = send(&bench, &bench.batch(1), PATIENCE).await;
    assert_eq!(verdicts, ["accepted"], "the channel recovers");
}

async fn every_row_of_the_error_table_has_its_verdict(bench: Arc<dyn Bench>) {
    for (i, row) in bench.rows().iter().enumerate() {
        bench.script(Script::Row(i));
        let verdicts = send(&bench, &bench.batch(1), PATIENCE).await;
        assert_eq!(verdicts, [row.want], "{}", row.name);
    }
}

async fn an_expired_access_token_is_renewed_once(bench: Arc<dyn Bench>) {
    if !bench.tokens_expire() {
        return;
    }
    bench.script(Script::Accept);
    assert_eq!(send(&bench, &bench.batch(1), PATIENCE).await, ["accepted"]);
    let (sent, handed_out) = (bench.sent().len(), bench.tokens_handed_out());
    bench.script(Script::ExpiredOnce);
    assert_eq!(send(&bench, &bench.batch(1), PATIENCE).await, ["accepted"]);
    assert_eq!(bench.sent().len(), sent + 2, "the call is repeated once");
    let authorization = |place: usize| -> Option<String> {
        let sent = bench.sent();
        let headers = &sent.get(place)?.headers;
        let found = headers.iter().find(|(name, _)| name == "authorization");
        found.map(|(_, value)| value.clone())
    };
    assert_ne!(
        authorization(sent),
        authorization(sent + 1),
        "with another token"
    );
    let renewed = handed_out.map(|n| n + 1);
    assert_eq!(
        bench.tokens_handed_out(),
        renewed,
        "one token was asked for"
    );
}

async fn many_sends_at_once_ask_for_one_access_token(bench: Arc<dyn Bench>) {
    if bench.tokens_handed_out().is_none() {
        return;
    }
    bench.script(Script::Accept);
    let sends: Vec<_> = (0..50)
        .map(|_| {
            let bench = bench.clone();
            tokio::spawn(async move { send(&bench, &bench.batch(1), PATIENCE).await })
        })
        .collect();
    for sending in sends {
        assert_eq!(sending.await.unwrap_or_default(), ["accepted"]);
    }
    assert_eq!(bench.tokens_handed_out(), Some(1));
}

async fn preview_is_exactly_what_is_sent(bench: Arc<dyn Bench>) {
    bench.script(Script::Accept);
    let batch = bench.batch(2);
    let preview = bench.channel().preview(&batch.outbound);
    let Ok(parcel) = preview else {
        unreachable!("the bench's message can be sent: {preview:?}")
    };
    assert_eq!(send(&bench, &batch, PATIENCE).await, ["accepted"; 2]);
    let sent = bench.sent();
    assert!(!sent.is_empty());
    for request in &sent {
        assert_eq!(request.method, parcel.method);
        assert_eq!(request.path, parcel.path);
        assert_eq!(request.body, parcel.body);
        for header in parcel
            .headers
            .iter()
            .filter(|(name, _)| !name.starts_with(':'))
        {
            assert!(request.headers.contains(header), "{header:?} was not sent");
        }
    }
    let mut tokens: Vec<String> = sent.into_iter().flat_map(|s| s.tokens).collect();
    tokens.sort();
    let mut want: Vec<String> = batch
        .recipients
        .iter()
        .filter_map(|r| r.token.expose_str().map(str::to_owned))
        .collect();
    want.sort();
    assert_eq!(tokens, want, "each token once");
}

async fn a_dropped_send_leaks_nothing(bench: Arc<dyn Bench>) {
    // The connection and the access token are there before, as in a lane that works.
    bench.script(Script::Accept);
    assert_eq!(send(&bench, &bench.batch(1), PATIENCE).await, ["accepted"]);
    bench.script(Script::Silent);
    let sending = tokio::spawn({
        let bench = bench.clone();
        async move { send(&bench, &bench.batch(20), PATIENCE).await }
    });
    until("the requests arrive", || bench.open_requests() > 0).await;
    sending.abort();
    if bench.sees_calls_end() {
        until("the vendor sees them end", || bench.open_requests() == 0).await;
    }
    bench.script(Script::Accept);
    assert_eq!(
        send(&bench, &bench.batch(20), PATIENCE).await,
        ["accepted"; 20]
    );
}
