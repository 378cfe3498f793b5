//! Text messages (`sms`): a text in words, or a wake-up that makes the client fetch from its inbox.
//!
//! Sources: see each provider's file; 3GPP TS 23.038 and 23.040 for counts; SMS signalling is this project's own (`signal`).
//! The device token is a telephone number, E.164; numbers without a country code get the credential's.
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
//! | `wake_key` | mode `signal`: secret from which each device's key is made |
//! | `wake_app` | mode `signal`: the app in the frame, 8 hex digits; default the first of SHA-256 of the app id |
//! | `wake_every_s` | mode `signal`: least time between two wake-ups of one device; default 1800 |
//! | `wake_binary` | mode `signal` over SMPP: send the frame to an application port; default true. False: the text code |
//! | `wake_port` | destination port of binary frames; default 16000 |
//!
//! `options.vendor.sms` is merged into the provider's request last; the number cannot be set that way, nor can template,
//! signature and sender of a marketing message unless the credential has `class_override`.
//!
//! A text carries no message id, so a phone cannot tell that it showed the message before by another way.

mod aliyun_sms;
mod number;
mod receipts;
mod segments;
mod signal;
mod smpp;
mod tencent_sms;
mod twilio;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hongyan_core::port::{
    Batch, Callback, CallbackError, CallbackRequest, Capability, Channel, ChannelError,
    CheckReport, ConfigError, OpenCredential, Outbound, Parcel, Receipt, Recipient, Truncation,
    Vendor,
};
use hongyan_core::{ChannelId, Class, Message, Reason, Timestamp, Verdict};
use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::answer::{refused, token_dead};
use crate::callback::shown_url;
use crate::config::{self, Fields};
use crate::egress::Egress;
use crate::http::Answer;
use crate::vendor;
use crate::{classes, payload};

const NAME: &str = "sms";

/// The least of what the providers take: Tencent's 200 numbers a request; four fifths of the 100 texts a second of a Twilio
/// short code. A credential's own limits may differ.
const CAPABILITY: Capability = Capability {
    payload_bytes_max: 6_400,
    batch_len_max: 200,
    rate_per_s: 80,
    concurrency: 16,
    ttl_max: Duration::from_secs(2 * 86_400),
    recalls: false,
    receipts: true,
    poll_every: Some(Duration::from_secs(1)),
    environments: false,
    repeatable: false,
};

/// Fields that name who gets it, of any provider.
const TARGETS: [&str; 5] = [
    "To",
    "PhoneNumbers",
    "PhoneNumberJson",
    "PhoneNumberSet",
    "destination_addr",
];

/// Free text is cut to so many short messages unless the credential says otherwise.
const SEGMENTS_DEFAULT: usize = 6;

/// The words that a text is made of.
#[derive(Debug, Clone, Default)]
struct Words {
    title: String,
    body: String,
    url: String,
    wake: String,
    /// The frame of a binary wake-up.
    frame: Option<Vec<u8>>,
}

impl Words {
    /// A pattern with its places filled, in one pass: what a notification says is never read as a place.
    fn fill(&self, pattern: &str) -> String {
        let mut out = String::with_capacity(pattern.len() + self.body.len());
        let mut rest = pattern;
        while let Some(at) = rest.find('{') {
            let (before, from) = rest.split_at(at);
            out.push_str(before);
            let places = [
                ("{title}", &self.title),
                ("{body}", &self.body),
                ("{url}", &self.url),
                ("{wake}", &self.wake),
            ];
            match places.iter().find(|(name, _)| from.starts_with(name)) {
                Some((name, value)) => {
                    out.push_str(value);
                    rest = from.get(name.len()..).unwrap_or_default();
                }
                None => {
                    out.push('{');
                    rest = from.get(1..).unwrap_or_default();
                }
            }
        }
        out.push_str(rest);
        out
    }
}

/// What all providers' credentials have in common.
#[derive(Debug)]
struct Common {
    signal: Option<signal::Config>,
    country: String,
    text: Option<String>,
    texts: BTreeMap<String, String>,
    segments_max: usize,
    class_override: bool,
}

impl Common {
    fn read(fields: &mut Fields<'_>) -> Self {
        let country = fields
            .optional_text("country")
            .unwrap_or_else(|| "86".to_owned());
        let plain = (1..=4).contains(&country.len())
            && !country.starts_with('0')
            && country.bytes().all(|b| b.is_ascii_digit());
        if !plain {
            fields.fault("country", "must be a country code in digits, such as 86");
        }
        let text = fields.optional_text("text");
        let texts = class_texts(fields);
        let segments_max = fields.number("segments_max", 1..=20, SEGMENTS_DEFAULT as u64);
        let signal = match fields.optional_text("mode").as_deref() {
            None | Some("text") => {
                signal::Config::ignore(fields);
                None
            }
            Some("signal") => Some(signal::Config::read(fields)),
            Some(_) => {
                fields.fault("mode", "must be text or signal");
                signal::Config::ignore(fields);
                None
            }
        };
        Self {
            signal,
            country,
            text,
            texts,
            segments_max: usize::try_from(segments_max).unwrap_or(SEGMENTS_DEFAULT),
            class_override: fields.switch("class_override"),
        }
    }

    /// The free text of a message.
    fn text(&self, message: &Message, words: &Words) -> String {
        let of_class = classes::names(message.class, message.class_detail)
            .into_iter()
            .find_map(|name| self.texts.get(&name));
        if let Some(pattern) = of_class.or(self.text.as_ref()) {
            return words.fill(pattern);
        }
        if self.signal.is_some() {
            return words.wake.clone();
        }
        match (words.title.as_str(), words.body.as_str()) {
            ("", only) | (only, "") => only.to_owned(),
            (title, body) => format!("{title}: {body}"),
        }
    }

    /// The free text, cut to what the credential allows; what was cut is noted in short messages.
    fn cut_text(
        &self,
        message: &Message,
        words: &Words,
        header: segments::Header,
        truncated: &mut Vec<Truncation>,
    ) -> (String, segments::Plan) {
        let text = self.text(message, words);
        let whole = segments::plan(&text, header);
        match segments::fit(&text, header, self.segments_max) {
            None => (text, whole),
            Some(cut) => {
                let plan = segments::plan(&cut, header);
                truncated.push(Truncation {
                    field: "body",
                    from: whole.units,
                    to: plan.units,
                });
                (cut, plan)
            }
        }
    }

    /// Merges the sender's own fields; the named ones only when they may be set for this message.
    fn merge(
        &self,
        target: &mut Map<String, Value>,
        outbound: &Outbound,
        never: &[&str],
        not_for_marketing: &[&str],
    ) {
        let mut patch = payload::vendor_fields(outbound, NAME);
        let bound = outbound.message.class == Class::Marketing && !self.class_override;
        patch.retain(|name, _| {
            let is = |other: &&str| other.eq_ignore_ascii_case(name);
            !(TARGETS.iter().chain(never).any(is) || bound && not_for_marketing.iter().any(is))
        });
        payload::merge(target, &patch);
    }
}

fn class_texts(fields: &mut Fields<'_>) -> BTreeMap<String, String> {
    let mut texts = BTreeMap::new();
    match fields.value("texts") {
        None => {}
        Some(Value::Object(object)) => {
            for (class, text) in object {
                match text.as_str() {
                    Some(text) if classes::is_name(class) && !text.trim().is_empty() => {
                        texts.insert(class.clone(), text.to_owned());
                    }
                    _ => fields.fault(
                        &format!("texts/{class}"),
                        "must be a text for a class: im, transaction, transaction.finance …, subscription, marketing",
                    ),
                }
            }
        }
        Some(_) => fields.fault("texts", "must map classes to texts"),
    }
    texts
}

/// Templates by class, as Aliyun and Tencent need them: approved texts in which only variables are free.
#[derive(Debug)]
struct Templates<P>(BTreeMap<String, Template<P>>);

#[derive(Debug)]
struct Template<P> {
    id: String,
    params: P,
    /// The approved text, when the credential has it: for the count of short messages.
    text: Option<String>,
    sign_name: Option<String>,
}

impl<P> Templates<P> {
    /// Reads `templates`: class names, or `default`, to `{id, params, text?, sign_name?}`.
    fn read(
        fields: &mut Fields<'_>,
        params: impl Fn(&mut Fields<'_>) -> P,
        is_id: impl Fn(&str) -> bool,
    ) -> Self {
        let mut templates = BTreeMap::new();
        let object = match fields.value("templates") {
            Some(Value::Object(object)) if !object.is_empty() => object,
            Some(_) => {
                fields.fault("templates", "must map classes, or default, to templates");
                return Self(templates);
            }
            None => {
                fields.fault(
                    "templates",
                    "is missing: the approved template for each class, or for default",
                );
                return Self(templates);
            }
        };
        for (class, value) in object {
            let path = format!("templates/{class}");
            if class != "default" && !classes::is_name(class) {
                fields.fault(
                    &path,
                    "is not a class: im, transaction, transaction.finance …, subscription, marketing, or default",
                );
                continue;
            }
            let mut part = Fields::at(value, path);
            let id = part.checked("id", "the id of the approved template", |text| {
                if is_id(text) {
                    Ok(text.to_owned())
                } else {
                    Err("is not a template id of this provider".to_owned())
                }
            });
            let template = Template {
                id: id.unwrap_or_default(),
                params: params(&mut part),
                text: part.optional_text("text"),
                sign_name: part.optional_text("sign_name"),
            };
            fields.absorb(part.finish_strict());
            templates.insert(class.clone(), template);
        }
        Self(templates)
    }

    fn of(&self, message: &Message) -> Result<&Template<P>, (Reason, String)> {
        let names = classes::names(message.class, message.class_detail);
        names
            .iter()
            .find_map(|name| self.0.get(name))
            .or_else(|| self.0.get("default"))
            .ok_or_else(|| {
                let class = names.first().map_or("", String::as_str);
                let words = format!(
                    "the credential has no template for {class}: have one approved and add it to templates"
                );
                (Reason::ClassNotGranted, words)
            })
    }

    /// For people: class to id.
    fn shown(&self) -> Value {
        let ids = self
            .0
            .iter()
            .map(|(class, t)| (class.clone(), t.id.as_str().into()));
        Value::Object(ids.collect())
    }
}

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
        if self.common.signal.is_none() && words.title.is_empty() && words.body.is_empty() {
            return Err((
                Reason::PayloadRejected,
                "a text message needs words: the message has neither title nor body".to_owned(),
            ));
        }
        Ok(words)
    }

    fn number(&self, recipient: &Recipient) -> Option<String> {
        number::normalise(recipient.token.expose_str()?, &self.common.country)
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
                None => token_dead("the token is not a telephone number"),
            })
            .collect();
        vendor::spare_tokens(whole, |_| true)
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
            return token_dead("the token is not a telephone number");
        };
        if let Err(verdict) = self.wakes.reserve(&recipient.device, outbound.now) {
            return verdict;
        }
        let encoded = self.words(outbound).and_then(|words| {
            let words = signal.words(words, outbound, &recipient.device);
            self.provider.encode(&self.common, outbound, &words)
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
        self.provider.callback(request)
    }

    async fn poll(&self, _deadline: Duration) -> Result<Vec<Receipt>, ChannelError> {
        Ok(self.provider.news())
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
