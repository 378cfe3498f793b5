//! Text messages (`sms`): a text in words, or a wake-up that makes the client fetch from its inbox.
//!
//! Sources: see each provider's file; 3GPP TS 23.038 and 23.040 for counts; SMS signalling is this project's own (`signal`).
//! The device token is a telephone number, E.164; numbers without a country code get the credential's.
//!
//! Rate: 80 requests a second: one for a list of numbers at `aliyun_sms` and `tencent_sms`, one for each number at the others and in mode
//! `signal`. `limits.rate_per_s` sets another.
//!
//! | credential | what |
//! | --- | --- |
//! | `provider` | `aliyun_sms`, `tencent_sms`, `twilio` or `smpp`, with that provider's fields beside it: see the modules |
//! | `mode` | `text` (default): the notification's words. `signal`: a wake-up with a short code and nothing else |
//! | `country` | country code of numbers without one, digits; default `86` |
//! | `text` | where the provider takes free text: what is sent, with `{title}`, `{body}` and `{url}`; default title and body with a colon between. `{wake}` stands for the code of a wake-up, and alone is the default in mode `signal` |
//! | `texts` | the same for one class: a map of class names (`im`, `transaction`, `transaction.finance` …) to texts |
//! | `segments_max` | longest free text, in short messages; default 6; what is longer is cut |
//! | `class_override` | whether a sender may give a marketing message another template, signature or sender |
//! | `wake_key` | mode `signal`: secret from which each device's key is made, together with its id and its device token |
//! | `wake_app` | mode `signal`: the app in the frame, 8 hex digits; default the first of SHA-256 of the app id |
//! | `wake_every_s` | mode `signal`: least time between two wake-ups of one device; default 1800. A message in between waits, unless the device fetches it before |
//! | `wake_valid_s` | mode `signal`: how long a wake-up is worth anything, to the provider and to the device; default 3600 |
//! | `wake_binary` | mode `signal` over SMPP: send the frame to an application port; default true. False: the text code |
//! | `wake_port` | destination port of binary frames; default 16000 |
//!
//! `options.vendor.sms` is merged into the provider's request last; the number cannot be set that way, nor can template,
//! signature and sender of a marketing message unless the credential has `class_override`.
//!
//! In mode `signal` the device asks for its key with `POST /v1/devices/{id}/wake-key`, checks the wake-up with it, connects and
//! fetches: its ack is the proof of delivery. The carrier's receipt for a wake-up proves nothing about the message and is only
//! counted, and a message that is not in the inbox (`offline_only`) is refused. See `hongyan_client::wake`.
//!
//! A text carries no message id, so a phone cannot tell that it showed the message before by another way.

mod aliyun_sms;
mod number;
mod receipts;
mod segments;
mod signal;
mod smpp;
mod templates;
mod tencent_sms;
mod twilio;
mod words;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hongyan_core::message::DeliveryMode;
use hongyan_core::port::{
    Batch, Callback, CallbackError, CallbackRequest, Capability, Channel, ChannelError,
    CheckReport, ConfigError, OpenCredential, Outbound, Parcel, QuotaWord, RateCounts, Receipt,
    ReceiptKind, Recipient, Vendor, WakeKey,
};
use hongyan_core::{ChannelId, DeviceId, Message, Reason, Timestamp, Verdict, telephone};
use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::answer::refused;
use crate::callback::shown_url;
use crate::config::{self, Fields};
use crate::egress::Egress;
use crate::http::Answer;
use crate::vendor;

use self::templates::Templates;
use self::words::{Common, Words};

const NAME: &str = "sms";

/// The least of what the providers take: Tencent's 200 numbers a request; four fifths of the 100 texts a second of a Twilio
/// short code. A credential's own limits may differ.
const CAPABILITY: Capability = Capability {
    payload_bytes_max: 6_400,
    batch_len_max: 200,
    rate_per_s: 80,
    rate_counts: RateCounts::Requests,
    concurrency: 16,
    ttl_max: Duration::from_secs(2 * 86_400),
    recalls: false,
    receipts: true,
    poll_every: Some(Duration::from_secs(1)),
    environments: false,
    repeatable: false,
    quota_word: QuotaWord::AskedAgain,
};

/// A request without its numbers.
#[derive(Debug)]
struct Encoded {
    parcel: Parcel,
    /// The parts that SMPP sends.
    parts: Vec<smpp::Part>,
    /// For the receipts.
    message: hongyan_core::MessageId,
}

/// Headers of a parcel that say how the text is counted; they are not sent.
fn counted(alphabet: &str, units: usize, segments: usize) -> Vec<(String, String)> {
    vec![
        (":encoding".to_owned(), alphabet.to_owned()),
        (":units".to_owned(), units.to_string()),
        (":segments".to_owned(), segments.to_string()),
    ]
}

/// A provider: encodes, authenticates and makes one call.
#[async_trait]
trait Provider: Send + Sync + std::fmt::Debug {
    /// The request for these words.
    fn encode(
        &self,
        common: &Common,
        outbound: &Outbound,
        words: &Words,
    ) -> Result<Encoded, (Reason, String)>;

    /// Sends to numbers in E.164, each once; one verdict each, in order.
    async fn send(&self, encoded: &Encoded, numbers: &[&str], until: Instant) -> Vec<Verdict>;

    /// How many requests so many numbers are.
    fn requests(&self, numbers: usize) -> usize {
        numbers
    }

    /// Proves the credential.
    async fn check(&self, until: Instant) -> CheckReport;

    /// Reads a receipt.
    fn callback(&self, _request: &CallbackRequest<'_>) -> Option<Result<Callback, CallbackError>> {
        None
    }

    /// Receipts that came over the provider's own connection.
    fn news(&self) -> Vec<Receipt> {
        Vec::new()
    }
}

/// A credential that was read.
enum Read {
    Aliyun(aliyun_sms::Config),
    Tencent(tencent_sms::Config),
    Twilio(twilio::Config),
    Smpp(Box<smpp::Config>),
}

fn read(config: &Value) -> Result<(Common, Read, Map<String, Value>), Vec<ConfigError>> {
    let mut fields = Fields::new(config);
    let common = Common::read(&mut fields);
    let provider = fields.text("provider", "aliyun_sms, tencent_sms, twilio or smpp");
    let read = match provider.as_str() {
        "aliyun_sms" => Some(Read::Aliyun(aliyun_sms::Config::read(&mut fields))),
        "tencent_sms" => Some(Read::Tencent(tencent_sms::Config::read(&mut fields))),
        "twilio" => Some(Read::Twilio(twilio::Config::read(&mut fields))),
        "smpp" => Some(Read::Smpp(Box::new(smpp::Config::read(&mut fields)))),
        "" => None,
        _ => {
            fields.fault(
                "provider",
                "must be aliyun_sms, tencent_sms, twilio or smpp",
            );
            None
        }
    };
    // Without a provider nobody knows which of the other fields belong here.
    let Some(read) = read else {
        return Err(fields.finish());
    };
    let faults = fields.finish_strict();
    if !faults.is_empty() {
        return Err(faults);
    }
    let mut shown = match &read {
        Read::Aliyun(config) => config.shown(),
        Read::Tencent(config) => config.shown(),
        Read::Twilio(config) => config.shown(),
        Read::Smpp(config) => config.shown(),
    };
    let mode = if common.signal.is_some() {
        "signal"
    } else {
        "text"
    };
    shown.insert("provider".to_owned(), provider.into());
    shown.insert("mode".to_owned(), mode.into());
    shown.insert("country".to_owned(), common.country.as_str().into());
    Ok((common, read, shown))
}

/// The vendor.
#[derive(Debug)]
pub struct Sms {
    egress: Egress,
}

impl Sms {
    /// The vendor, reached through this egress.
    #[must_use]
    pub fn new(egress: &Egress) -> Self {
        Self {
            egress: egress.clone(),
        }
    }
}

impl Vendor for Sms {
    fn id(&self) -> ChannelId {
        vendor::id(NAME)
    }

    fn capability(&self) -> &Capability {
        &CAPABILITY
    }

    fn check_config(&self, config: &Value) -> Result<Map<String, Value>, Vec<ConfigError>> {
        read(config).map(|(_, _, shown)| shown)
    }

    fn open(&self, credential: OpenCredential) -> Result<Arc<dyn Channel>, ChannelError> {
        let (mut common, read, _) =
            read(&config::parse(&credential.config)?).map_err(|faults| config::refused(&faults))?;
        if let Some(signal) = &mut common.signal {
            signal.bind(&credential.app);
        }
        let egress = &self.egress;
        let provider: Box<dyn Provider> = match read {
            Read::Aliyun(config) => {
                Box::new(aliyun_sms::Sender::open(config, &credential, egress)?)
            }
            Read::Tencent(config) => {
                Box::new(tencent_sms::Sender::open(config, &credential, egress)?)
            }
            Read::Twilio(config) => Box::new(twilio::Sender::open(config, &credential, egress)?),
            Read::Smpp(config) => Box::new(smpp::Sender::open(*config, egress)),
        };
        let wakes = signal::Wakes::new(common.signal.as_ref().map_or(Duration::ZERO, |s| s.every));
        Ok(Arc::new(Sender {
            common,
            provider,
            wakes,
        }))
    }
}

/// Reads bytes of a message centre as its bound session does: how many PDUs they were, and the receipts in them. For
/// those who feed it bytes.
#[must_use]
pub fn hear_smpp(bytes: &[u8]) -> (usize, Vec<Receipt>) {
    smpp::hear(bytes)
}

/// What an answer of any of the providers over HTTP means for one recipient, for those who feed it bytes.
pub(super) fn decode(answer: &Answer, now: Timestamp) -> Verdict {
    for verdict in [
        aliyun_sms::decode(answer, now),
        tencent_sms::decode(answer, now),
    ] {
        if matches!(verdict, Verdict::Accepted { .. }) {
            return verdict;
        }
    }
    twilio::decode(answer, now)
}

/// A channel for one app.
#[derive(Debug)]
struct Sender {
    common: Common,
    provider: Box<dyn Provider>,
    wakes: signal::Wakes,
}

impl Sender {
    fn words(&self, outbound: &Outbound) -> Result<Words, (Reason, String)> {
        let click = outbound
            .message
            .notification
            .as_ref()
            .and_then(|n| n.click.as_ref());
        let text = |text: Option<&String>| text.map(|t| t.trim().to_owned()).unwrap_or_default();
        let words = Words {
            title: text(outbound.title.as_ref()),
            body: text(outbound.body.as_ref()),
            url: click.map(|c| c.url.clone()).unwrap_or_default(),
            ..Words::default()
        };
        if self.common.signal.is_some()
            && outbound.message.options.delivery == DeliveryMode::OfflineOnly
        {
            return Err((
                Reason::PayloadRejected,
                "a wake-up makes the device fetch from its inbox, where a message with delivery offline_only is not"
                    .to_owned(),
            ));
        }
        if self.common.signal.is_none() && words.title.is_empty() && words.body.is_empty() {
            return Err((
                Reason::PayloadRejected,
                "a text message needs words: the message has neither title nor body".to_owned(),
            ));
        }
        Ok(words)
    }

    fn number(&self, recipient: &Recipient) -> Option<String> {
        telephone::normalise(recipient.token.expose_str()?, Some(&self.common.country)).ok()
    }

    async fn send_texts(&self, batch: &Batch, until: Instant) -> Vec<Verdict> {
        let encoded = self
            .words(&batch.outbound)
            .and_then(|words| self.provider.encode(&self.common, &batch.outbound, &words));
        let encoded = match encoded {
            Ok(encoded) => encoded,
            Err(refused) => return vendor::for_all(&batch.recipients, &vendor::refusal(refused)),
        };
        let numbers: Vec<Option<String>> =
            batch.recipients.iter().map(|r| self.number(r)).collect();
        let mut once: Vec<&str> = numbers.iter().flatten().map(String::as_str).collect();
        once.sort_unstable();
        once.dedup();
        let verdicts = if once.is_empty() {
            Vec::new()
        } else {
            self.provider.send(&encoded, &once, until).await
        };
        let by_number: BTreeMap<&str, Verdict> = once.iter().copied().zip(verdicts).collect();
        let whole = numbers
            .iter()
            .map(|number| match number {
                Some(number) => by_number
                    .get(number.as_str())
                    .cloned()
                    .unwrap_or_else(|| refused("the provider said nothing of this number")),
                None => Verdict::no_token("a telephone number"),
            })
            .collect();
        vendor::spare_tokens(whole, |_| true)
    }

    /// The carrier knows that a wake-up came, not whether the device fetched the message.
    fn only_of_the_text(&self, receipts: &mut [Receipt]) {
        if self.common.signal.is_some() {
            for receipt in receipts
                .iter_mut()
                .filter(|r| r.kind == ReceiptKind::Delivered)
            {
                receipt.kind = ReceiptKind::Other;
            }
        }
    }

    /// One wake-up for each device: every code is the device's own.
    async fn send_wakes(
        &self,
        signal: &signal::Config,
        batch: &Batch,
        until: Instant,
    ) -> Vec<Verdict> {
        let calls = batch
            .recipients
            .iter()
            .map(|recipient| self.wake(signal, &batch.outbound, recipient, until))
            .collect();
        vendor::fan_out(calls).await
    }

    async fn wake(
        &self,
        signal: &signal::Config,
        outbound: &Outbound,
        recipient: &Recipient,
        until: Instant,
    ) -> Verdict {
        let Some(number) = self.number(recipient) else {
            return Verdict::no_token("a telephone number");
        };
        if let Err(verdict) = self.wakes.reserve(&recipient.device, outbound.now) {
            return verdict;
        }
        let mut outbound = outbound.clone();
        outbound.expires_at = outbound.expires_at.min(outbound.now.plus(signal.valid));
        let encoded = self.words(&outbound).and_then(|words| {
            let words = signal.words(words, &outbound, recipient);
            self.provider.encode(&self.common, &outbound, &words)
        });
        let verdict = match encoded {
            Ok(encoded) => {
                let verdicts = self
                    .provider
                    .send(&encoded, &[number.as_str()], until)
                    .await;
                verdicts
                    .into_iter()
                    .next()
                    .unwrap_or_else(|| refused("the provider said nothing of this number"))
            }
            Err(refused) => vendor::refusal(refused),
        };
        if !matches!(verdict, Verdict::Accepted { .. }) {
            self.wakes.release(&recipient.device);
        }
        verdict
    }
}

#[async_trait]
impl Channel for Sender {
    /// Every wake-up is a request of its own.
    fn requests(&self, devices: usize) -> usize {
        match self.common.signal {
            Some(_) => devices,
            None => self.provider.requests(devices),
        }
    }

    /// In mode `signal` the code is left out: it is the device's own.
    fn preview(&self, outbound: &Outbound) -> Result<Parcel, (Reason, String)> {
        let mut words = self.words(outbound)?;
        if self.common.signal.is_some() {
            words.wake = "{wake}".to_owned();
        }
        let encoded = self.provider.encode(&self.common, outbound, &words)?;
        let mut parcel = encoded.parcel;
        if let Some(Value::String(url)) = parcel.body.get_mut("StatusCallback") {
            *url = shown_url(url);
        }
        Ok(parcel)
    }

    async fn send(&self, batch: &Batch, deadline: Duration) -> Vec<Verdict> {
        let until = Instant::now() + deadline;
        match &self.common.signal {
            None => self.send_texts(batch, until).await,
            Some(signal) => self.send_wakes(signal, batch, until).await,
        }
    }

    async fn check(&self, deadline: Duration) -> CheckReport {
        self.provider.check(Instant::now() + deadline).await
    }

    async fn recall(
        &self,
        _message: &Message,
        _recipients: &[Recipient],
        _deadline: Duration,
    ) -> Option<Vec<Verdict>> {
        None
    }

    fn callback(&self, request: &CallbackRequest<'_>) -> Option<Result<Callback, CallbackError>> {
        let mut read = self.provider.callback(request)?;
        if let Ok(callback) = &mut read {
            self.only_of_the_text(&mut callback.receipts);
        }
        Some(read)
    }

    async fn poll(&self, _deadline: Duration) -> Result<Vec<Receipt>, ChannelError> {
        let mut news = self.provider.news();
        self.only_of_the_text(&mut news);
        Ok(news)
    }

    fn wake_key(&self, device: &DeviceId, secret_hash: &[u8; 32]) -> Option<WakeKey> {
        let signal = self.common.signal.as_ref()?;
        Some(signal.device_key(device, secret_hash))
    }
}

/// One line for a person about a verdict on a harmless request.
fn report(provider: &str, verdict: &Verdict) -> CheckReport {
    let (ok, detail) = match verdict {
        Verdict::Accepted { .. } => (true, format!("{provider} knows the credential")),
        Verdict::CredentialBad { detail } => (
            false,
            format!("{provider} refuses the credential: {detail}"),
        ),
        Verdict::Retry { detail, .. } => (
            false,
            format!("{provider} could not be asked: {detail}; try again later"),
        ),
        other => (false, format!("{provider} answered: {}", other.detail())),
    };
    CheckReport { ok, detail }
}

#[cfg(test)]
mod tests;
