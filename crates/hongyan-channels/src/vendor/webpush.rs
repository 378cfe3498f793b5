//! Web Push (`webpush`): Chrome, Edge, Firefox, Safari and every other browser, and web apps that they installed.
//!
//! Sources: RFC 8030 (the protocol), RFC 8188 and 8291 (encryption), RFC 8292 (VAPID); autopush documentation "HTTP endpoints for
//! notifications" and "Error codes"; Apple, "Sending web push notifications in web apps and browsers"; Microsoft, "Push
//! notification service request and response headers" (read 2026-11). Unverified: Apple's statuses for wrong tokens, and the words
//! with which Mozilla tells a key that is not the subscription's; both only decide between a dead token and a refusal.
//!
//! Rate: 1,000 devices a second at each push service. `limits.rate_per_s` sets another.
//!
//! | credential | what |
//! | --- | --- |
//! | `private_key` | the VAPID key on P-256: PEM, or base64url as web-push tools print it. `hongyan channel vapid` makes one |
//! | `public_key` | its public half in base64url, which pages pass to `subscribe` as `applicationServerKey`; needed when `private_key` is the bare 32 bytes |
//! | `subject` | who answers for the messages: `mailto:` or `https:` |
//! | `hosts` | push services to send to beside those of Google, Mozilla, Apple and Microsoft: host names, `*.example.org` for all below one, `*` for every public host |
//!
//! The token of a device is its subscription as the browser gives it (`JSON.stringify(subscription)`): `{"endpoint": …, "keys":
//! {"p256dh": …, "auth": …}}`. The endpoint has to be https, of a known push service at port 443 or of the credential's `hosts`
//! at any port, at a public address. Each push service, and each entry of `hosts`, has a rate and pauses of its own. With an
//! endpoint of its own a credential sends everything there, with the paths and audiences of the subscriptions.
//!
//! The service worker gets JSON: the keys of [`payload`] and, for a message with a text, `notification` with the fields of
//! `showNotification` (`title`, `body`, `tag`, `image`, `silent`) and `app_badge`. `options.vendor.webpush` is merged into it; these keys are taken out:
//!
//! | key | becomes |
//! | --- | --- |
//! | `ttl` | header `TTL`, seconds |
//! | `urgency` | header `Urgency`: `very-low low normal high` |
//! | `topic` | header `Topic`, at most 32 characters of base64url: replaces what was not delivered yet |
//!
//! A collapse key is also the topic. A message without one has no topic, since Google keeps at most four topics of a
//! device; shown twice it is shown once all the same, because `tag` is the message's own.
//!
//! 404 and 410 are the end of a subscription (RFC 8030, section 7.3). A host that calls one after another gone and took none since,
//! nine when it never took any and else a hundred, is no longer believed: some answer so to whatever is asked.
//!
//! A signed token that a push service does not take is made anew, at most once an hour for each service, and the send repeated. Where
//! the service took an earlier one and refuses the new one too, this machine's clock is wrong: the message is tried again later.
//!
//! A subscription speaks for itself only: whoever registers one chooses its address and its key. So a refused key kills a token only
//! when the same push service took the same signed token from us before, and said that the key is not the subscription's.

mod encryption;
mod peers;
mod subscription;
mod vapid;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hongyan_core::port::{
    Batch, Capability, Channel, ChannelError, CheckReport, ConfigError, OpenCredential, Outbound,
    Parcel, QuotaWord, RateCounts, Recipient, Vendor,
};
use hongyan_core::{ChannelId, Message, Reason, Timestamp, Verdict};
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use self::encryption::{Keys, PLAINTEXT_BYTES_MAX, Unsealed};
use self::peers::{Peer, Peers};
use self::subscription::Subscription;
use self::vapid::Vapid;
pub use self::vapid::generate;
use crate::answer::{
    accepted, device_limited, mend, rate_limited, refused, retry_after, token_dead, too_large,
    unavailable,
};
use crate::config::{self, Fields};
use crate::egress::{CallError, Egress, Origin};
use crate::http::{Answer, Call};
use crate::texts::detail;
use crate::{classes, payload, vendor};

const NAME: &str = "webpush";

/// No push service publishes a rate; each has this one.
const CAPABILITY: Capability = Capability {
    payload_bytes_max: PLAINTEXT_BYTES_MAX,
    batch_len_max: 1,
    rate_per_s: 1_000,
    rate_counts: RateCounts::Devices,
    concurrency: 128,
    ttl_max: TTL_MAX,
    recalls: false,
    receipts: false,
    poll_every: None,
    environments: false,
    repeatable: true,
    quota_word: QuotaWord::AskedAgain,
};

/// Google keeps a message 28 days, the others 30.
const TTL_MAX: Duration = Duration::from_secs(28 * 86_400);
/// Life of a VAPID token; push services take at most 24 hours.
const TOKEN_LIFE: Duration = Duration::from_secs(12 * 3600);
/// A topic, characters.
const TOPIC_CHARS_MAX: usize = 32;
/// Patterns in `hosts`.
const HOSTS_MAX: usize = 64;
/// The push services of the browsers, each a vendor of its own. Where one is served by a host that is known, that host comes
/// before the pattern: whoever registers a subscription can make up names, and their troubles are not the host's.
const SERVICES: &[&str] = &[
    "fcm.googleapis.com",
    "updates.push.services.mozilla.com",
    "*.push.services.mozilla.com",
    "web.push.apple.com",
    "*.push.apple.com",
    "*.notify.windows.com",
];
const SERVICE_PORT: u16 = 443;
/// The pattern of a credential that sends to whatever host a subscription names.
const ANYONE: &str = "*";
/// Whom a check asks: it answers to a subscription that there is not without disturbing anyone.
const CHECKED: &str = "https://updates.push.services.mozilla.com";
const CHECK_PATH: &str = "/wpush/v2/hongyan-check";
const URGENCIES: &[&str] = &["very-low", "low", "normal", "high"];

/// A credential.
#[derive(Debug)]
struct Config {
    vapid: Vapid,
    subject: String,
    hosts: Vec<String>,
}

impl Config {
    fn read(config: &Value) -> Result<Self, Vec<ConfigError>> {
        let mut fields = Fields::new(config);
        let public_key = fields.optional_text("public_key");
        let vapid = fields.checked(
            "private_key",
            "the VAPID key; make one with `hongyan channel vapid`",
            |text| Vapid::read(text, public_key.as_deref()),
        );
        let subject = fields.checked(
            "subject",
            "who answers for the messages, such as mailto:push@example.org",
            |text| {
                let address = text
                    .strip_prefix("mailto:")
                    .is_some_and(|a| a.contains('@'));
                if (address || text.starts_with("https://")) && !text.contains(['<', ' ']) {
                    Ok(text.to_owned())
                } else {
                    Err("must be mailto:name@host or an https URL".to_owned())
                }
            },
        );
        let hosts = fields.texts("hosts").unwrap_or_default();
        if hosts.len() > HOSTS_MAX {
            fields.fault("hosts", format!("has more than {HOSTS_MAX} entries"));
        }
        for host in &hosts {
            let name = host.strip_prefix("*.").unwrap_or(host);
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
            if name != "*" && (name.is_empty() || !name.chars().all(plain)) {
                fields.fault("hosts", format!("{host:?} is not a host name, *.name or *"));
            }
        }
        let faults = fields.finish_strict();
        match (vapid, subject) {
            (Some(vapid), Some(subject)) if faults.is_empty() => Ok(Self {
                vapid,
                subject,
                hosts: hosts.iter().map(|h| h.to_ascii_lowercase()).collect(),
            }),
            _ => Err(faults),
        }
    }

    /// The pattern by which the credential sends to an origin; `None` where it does not.
    fn knows(&self, origin: &Origin) -> Option<&str> {
        service(origin).or_else(|| self.own(origin))
    }

    /// The pattern of the credential's own that an origin falls under; the plainest first.
    fn own(&self, origin: &Origin) -> Option<&str> {
        let hosts = self.hosts.iter().map(String::as_str);
        let fits = hosts.filter(|pattern| matches(pattern, origin.host()));
        fits.max_by_key(|pattern| (!pattern.starts_with('*'), pattern.len()))
    }
}

/// The pattern of a browser's push service; they are at the usual port only.
fn service(origin: &Origin) -> Option<&'static str> {
    let fits = |pattern: &&&str| matches(pattern, origin.host());
    let found = SERVICES.iter().find(fits).copied();
    found.filter(|_| origin.port() == SERVICE_PORT)
}

fn matches(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(end) => host.ends_with(end),
        None => host == pattern,
    }
}

/// Where a subscription leads.
fn origin_of(token: &str) -> Option<Origin> {
    #[derive(serde::Deserialize)]
    struct Told<'a> {
        #[serde(borrow)]
        endpoint: std::borrow::Cow<'a, str>,
    }
    let told: Told<'_> = serde_json::from_str(token).ok()?;
    Origin::parse(&told.endpoint).ok()
}

/// A notification before it is encrypted.
struct Encoded {
    headers: Vec<(&'static str, String)>,
    body: Value,
    bytes: Vec<u8>,
}

fn encode(outbound: &Outbound) -> Result<Encoded, (Reason, String)> {
    let mut extra = payload::vendor_fields(outbound, NAME);
    let headers = headers(outbound, &mut extra)?;
    let mut body = payload::keys(&outbound.message);
    if let Some(notification) = notification(outbound) {
        body.insert("notification".to_owned(), notification);
        if let Some(badge) = outbound.badge {
            body.insert("app_badge".to_owned(), badge.into());
        }
    }
    let id = body.get("hy_id").cloned();
    payload::merge(&mut body, &extra);
    if let Some(id) = id {
        body.insert("hy_id".to_owned(), id);
    }
    let body = Value::Object(body);
    let bytes = body.to_string().into_bytes();
    if bytes.len() > PLAINTEXT_BYTES_MAX {
        return Err((
            Reason::PayloadTooLarge,
            format!(
                "the payload has {} bytes; push services take {PLAINTEXT_BYTES_MAX} before encryption",
                bytes.len()
            ),
        ));
    }
    Ok(Encoded {
        headers,
        body,
        bytes,
    })
}

fn headers(
    outbound: &Outbound,
    extra: &mut Map<String, Value>,
) -> Result<Vec<(&'static str, String)>, (Reason, String)> {
    let rejected = |words: &str| (Reason::PayloadRejected, words.to_owned());
    let options = &outbound.message.options;
    let ttl = match extra.remove("ttl") {
        None | Some(Value::Null) if options.ttl_s == Some(0) => 0,
        None | Some(Value::Null) => vendor::ttl(outbound, TTL_MAX).as_secs(),
        Some(value) => value
            .as_u64()
            .ok_or_else(|| rejected("vendor.webpush.ttl must be a whole number of seconds"))?
            .min(TTL_MAX.as_secs()),
    };
    let urgency = match extra.remove("urgency") {
        None | Some(Value::Null) => classes::of(&outbound.message).webpush_urgency.to_owned(),
        Some(Value::String(text)) if URGENCIES.contains(&text.as_str()) => text,
        Some(_) => {
            return Err(rejected(
                "vendor.webpush.urgency must be very-low, low, normal or high",
            ));
        }
    };
    let topic = match extra.remove("topic") {
        None | Some(Value::Null) => options.collapse_key.as_deref().map(topic_of),
        Some(Value::String(text)) if is_topic(&text) => Some(text),
        Some(_) => {
            return Err(rejected(
                "vendor.webpush.topic must be 1 to 32 characters of base64url",
            ));
        }
    };
    let mut headers = vec![("ttl", ttl.to_string()), ("urgency", urgency)];
    headers.extend(topic.map(|topic| ("topic", topic)));
    Ok(headers)
}

fn is_topic(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    (1..=TOPIC_CHARS_MAX).contains(&text.len()) && text.bytes().all(plain)
}

/// `Topic` of a collapse key.
pub(super) fn topic_of(key: &str) -> String {
    if is_topic(key) {
        key.to_owned()
    } else {
        payload::short_hash(key, TOPIC_CHARS_MAX / 2)
    }
}

/// What the service worker passes to `showNotification`; nothing for a message without a text.
fn notification(outbound: &Outbound) -> Option<Value> {
    if outbound.title.is_none() && outbound.body.is_none() {
        return None;
    }
    let (title, text) = crate::texts::title_and_text(outbound);
    let shown = outbound.message.notification.as_ref();
    let options = &outbound.message.options;
    let mut notification = Map::new();
    notification.insert("title".to_owned(), title.into());
    if text != title {
        notification.insert("body".to_owned(), text.into());
    }
    let tag = options.collapse_key.as_ref().unwrap_or(&outbound.dedup_key);
    notification.insert("tag".to_owned(), tag.as_str().into());
    if let Some(image) = shown.and_then(|n| n.image.as_deref()) {
        notification.insert("image".to_owned(), image.into());
    }
    if !classes::of(&outbound.message).sounds && shown.is_none_or(|n| n.sound.is_none()) {
        notification.insert("silent".to_owned(), true.into());
    }
    Some(Value::Object(notification))
}

/// What a push service wrote: Apple's `reason`, Mozilla's `message` with its number, Google's plain text, Microsoft's header.
fn words_of(answer: &Answer) -> String {
    let said = serde_json::from_slice::<Value>(&answer.body).ok();
    let text = |name: &str| said.as_ref()?.get(name)?.as_str();
    let number = said.as_ref().and_then(|v| v.get("errno")?.as_u64());
    let words = match (text("reason"), text("message"), number) {
        (Some(reason), ..) => reason.to_owned(),
        (_, Some(message), Some(number)) => format!("errno {number} {message}"),
        (_, Some(message), None) => message.to_owned(),
        _ => {
            let header = answer.headers.get("x-wns-error-description");
            let header = header.and_then(|v| v.to_str().ok()).map(str::to_owned);
            header.unwrap_or_else(|| String::from_utf8_lossy(&answer.body).into_owned())
        }
    };
    let line = words.lines().next().unwrap_or_default();
    detail(format!("status {} {line}", answer.status).trim_end())
}

/// Whether the words say that the subscription was made with another key than the one that signed.
fn is_mismatch(words: &str) -> bool {
    const MARKS: &[&str] = &[
        "VapidPkHashMismatch",
        "do not correspond",
        "UnauthorizedRegistration",
        "mismatch",
    ];
    MARKS.iter().any(|mark| words.contains(mark))
}

/// Apple's words for a token that it does not take, whatever their status.
const TOKEN_WORDS: &[&str] = &["BadJwtToken", "BadAuthorizationHeader", "BadVapidPublicKey"];

/// Whether the service did not take the signed token itself: another one may do.
fn is_token_refused(answer: &Answer) -> bool {
    let words = words_of(answer);
    let told = match answer.status {
        401 | 403 => true,
        400 => TOKEN_WORDS.iter().any(|w| words.contains(w)),
        _ => false,
    };
    told && !is_mismatch(&words)
}

/// Whether a service that throttles means this one subscription.
fn is_of_subscription(answer: &Answer) -> bool {
    ["x-wns-status", "x-wns-notificationstatus"]
        .iter()
        .any(|name| {
            let told = answer.headers.get(*name).and_then(|v| v.to_str().ok());
            told.is_some_and(|told| told.eq_ignore_ascii_case("channelthrottled"))
        })
}

pub(super) fn decode(answer: &Answer, now: Timestamp) -> Verdict {
    let words = words_of(answer);
    let after = retry_after(&answer.headers, now);
    let refused_key = || {
        mend(
            &words,
            "check private_key, subject and this machine's clock; subscriptions made with another public key cannot be reached",
        )
    };
    match answer.status {
        200..=299 => {
            let id = answer.headers.get("apns-id");
            let id = id.or_else(|| answer.headers.get("x-wns-msg-id"));
            let id = id.or_else(|| answer.headers.get(LOCATION));
            accepted(id.and_then(|v| v.to_str().ok()))
        }
        300..=399 => unavailable(
            after,
            &format!("{words}: redirects of push services are not followed"),
        ),
        401 | 403 => refused_key(),
        400 if is_mismatch(&words) || TOKEN_WORDS.iter().any(|w| words.contains(w)) => {
            refused_key()
        }
        404 | 410 => token_dead(&words),
        413 => too_large(&words),
        // Microsoft throttles with 406, and says in a header whether the subscription or the app is meant.
        406 | 429 if is_of_subscription(answer) => device_limited(after, &words),
        406 | 429 => rate_limited(after, &words),
        408 | 500..=599 => unavailable(after, &words),
        _ if words.contains("IdleTimeout") => unavailable(after, &words),
        _ => refused(&words),
    }
}

/// The vendor.
#[derive(Debug)]
pub struct Webpush {
    egress: Egress,
}

impl Webpush {
    /// The vendor, reached through this egress.
    #[must_use]
    pub fn new(egress: &Egress) -> Self {
        Self {
            egress: egress.clone(),
        }
    }
}

impl Vendor for Webpush {
    fn id(&self) -> ChannelId {
        vendor::id(NAME)
    }

    fn capability(&self) -> &Capability {
        &CAPABILITY
    }

    /// The push service that the subscription's endpoint is of, by its pattern: whoever registers a subscription chooses its
    /// address, and must not choose how many lanes there are.
    fn peer(&self, token: &str) -> Option<String> {
        service(&origin_of(token)?).map(str::to_owned)
    }

    fn day_offset_s(&self) -> i32 {
        0
    }

    fn check_config(&self, config: &Value) -> Result<Map<String, Value>, Vec<ConfigError>> {
        let read = Config::read(config)?;
        Ok(config::shown([
            ("public_key", Some(read.vapid.public_key.into())),
            ("subject", Some(read.subject.into())),
            (
                "hosts",
                Some(read.hosts.into()).filter(|v: &Value| *v != json!([])),
            ),
        ]))
    }

    fn open(&self, credential: OpenCredential) -> Result<Arc<dyn Channel>, ChannelError> {
        let config = Config::read(&config::parse(&credential.config)?)
            .map_err(|faults| config::refused(&faults))?;
        let instead = match credential.endpoint.as_deref() {
            None => None,
            Some(endpoint) => Some(Origin::parse(endpoint).map_err(|e| ChannelError::Config {
                detail: e.to_string(),
            })?),
        };
        Ok(Arc::new(Sender::new(&self.egress, config, instead)))
    }
}

/// A request that is ready to go.
struct Composed {
    peer: Arc<Peer>,
    origin: Origin,
    /// Of the token that it carries.
    generation: u64,
    call: Call,
}

/// Makes requests as the channel does and sends none: what a measurement of encryption needs.
#[derive(Debug)]
pub struct Composer(Sender);

impl Composer {
    /// For a credential's configuration.
    ///
    /// # Errors
    /// The faults of the configuration.
    pub fn new(egress: &Egress, config: &Value) -> Result<Self, ChannelError> {
        let config = Config::read(config).map_err(|faults| config::refused(&faults))?;
        Ok(Self(Sender::new(egress, config, None)))
    }

    /// The request of a message to a subscription.
    ///
    /// # Errors
    /// The verdict with which a send would have ended before the call.
    pub fn compose(&self, outbound: &Outbound, token: &str) -> Result<Call, Verdict> {
        let encoded = encode(outbound).map_err(vendor::refusal)?;
        let composed = self.0.compose(&encoded, &header_map(&encoded), token)?;
        Ok(composed.call)
    }
}

/// A channel for one VAPID key.
#[derive(Debug)]
struct Sender {
    egress: Egress,
    config: Config,
    peers: Peers,
    /// All calls go to the credential's own endpoint, so that it does not matter where subscriptions lead.
    any_host: bool,
    checked: Option<Origin>,
}

impl Sender {
    fn new(egress: &Egress, config: Config, instead: Option<Origin>) -> Self {
        Self {
            egress: egress.clone(),
            any_host: instead.is_some(),
            checked: instead.clone(),
            peers: Peers::new(egress, instead),
            config,
        }
    }

    /// The header that names us to a push service, and its generation.
    fn authorization(&self, peer: &Peer, origin: &Origin) -> Option<(HeaderValue, u64)> {
        let now = self.egress.now();
        peer.token.get(now, || {
            let expires = now.plus(TOKEN_LIFE).seconds();
            let vapid = &self.config.vapid;
            let text = vapid.authorization(&origin.to_string(), &self.config.subject, expires)?;
            let mut value = HeaderValue::from_str(&text).ok()?;
            value.set_sensitive(true);
            Some(value)
        })
    }

    /// Everything of a send but the call.
    fn compose(
        &self,
        encoded: &Encoded,
        headers: &HeaderMap,
        token: &str,
    ) -> Result<Composed, Verdict> {
        let no_chance = || unavailable(None, "the system gave no random numbers");
        let to = Subscription::parse(token, self.egress.now())
            .map_err(|why| Verdict::no_token(&format!("a subscription: {why}")))?;
        if !self.any_host && self.config.knows(&to.origin).is_none() {
            return Err(elsewhere(&format!(
                "{} is not a known push service; add its host to the credential's hosts",
                to.origin.authority()
            ))
            .unasked());
        }
        let peer = self.peers.at(&to.origin);
        let (authorization, generation) = self
            .authorization(&peer, &to.origin)
            .ok_or_else(no_chance)?;
        let keys = Keys {
            point: &to.point,
            auth: &to.auth,
        };
        let body = encryption::seal(keys, &encoded.bytes).map_err(|why| match why {
            Unsealed::Point => {
                Verdict::no_token("a subscription: keys.p256dh is no point on P-256")
            }
            Unsealed::Here => no_chance(),
        })?;
        let mut headers = headers.clone();
        headers.insert(AUTHORIZATION, authorization);
        if to.is_windows() {
            let now_or_never = headers.get("ttl").is_some_and(|ttl| ttl == "0");
            let policy = if now_or_never { "no-cache" } else { "cache" };
            headers.insert("x-wns-cache-policy", HeaderValue::from_static(policy));
        }
        let call = Call {
            method: Method::POST,
            path: to.path,
            headers,
            body: Bytes::from(body),
        };
        Ok(Composed {
            peer,
            origin: to.origin,
            generation,
            call,
        })
    }

    async fn send_one(
        &self,
        encoded: &Encoded,
        headers: &HeaderMap,
        recipient: &Recipient,
        until: Instant,
    ) -> Verdict {
        let token = recipient.token.expose_str().unwrap_or_default();
        let composed = self.compose(encoded, headers, token);
        let mut composed = match composed {
            Ok(composed) => composed,
            Err(verdict) => return verdict,
        };
        let is_anyones = self.is_anyones(&composed.origin);
        if is_anyones && let Some(left) = composed.peer.silent_for() {
            let words = format!("{} did not answer lately", composed.origin.authority());
            return unavailable(Some(left), &words).unasked();
        }
        let began = Instant::now();
        let answer = match self.call(&mut composed, until).await {
            Ok(answer) => answer,
            Err(verdict) => {
                if is_anyones && matches!(verdict.clone().word(), Verdict::Retry { .. }) {
                    composed.peer.was_silent(began);
                }
                return verdict;
            }
        };
        composed.peer.answered();
        let verdict = self.judge(&composed, &answer);
        match verdict {
            // What is wrong with one of anybody's hosts says nothing of the others.
            Verdict::Retry { .. } if is_anyones => verdict.unasked(),
            verdict => verdict,
        }
    }

    /// What the answer to a send means, by what the push service said before.
    fn judge(&self, composed: &Composed, answer: &Answer) -> Verdict {
        let Composed {
            peer, generation, ..
        } = composed;
        let generation = *generation;
        match decode(answer, self.egress.now()) {
            verdict @ Verdict::Accepted { .. } => {
                peer.took(generation);
                verdict
            }
            Verdict::TokenDead { detail, .. } if !peer.calls_gone() => elsewhere(&format!(
                "{detail}: this host calls every subscription gone and took none since, so they are kept: check where they come from"
            )),
            // The service knows us: what it does not like is this subscription.
            Verdict::CredentialBad { .. } if peer.has_taken(generation) => {
                let words = words_of(answer);
                if is_mismatch(&words) {
                    token_dead(&words)
                } else {
                    elsewhere(&words)
                }
            }
            // It knows the key, but no token of this time: the clocks differ. It heals without a person once they agree.
            Verdict::CredentialBad { .. } if peer.knows_us() && is_token_refused(answer) => {
                let after = retry_after(&answer.headers, self.egress.now());
                let words = words_of(answer);
                unavailable(after, &format!("{words}: check this machine's clock"))
            }
            verdict => verdict,
        }
    }

    /// One call; repeated once with a new token when the service does not take the one in use.
    async fn call(&self, composed: &mut Composed, until: Instant) -> Result<Answer, Verdict> {
        let mut first = true;
        loop {
            let answer = match composed.peer.call(&composed.call, until).await {
                Ok(answer) => answer,
                Err(error @ CallError::Address { .. }) => {
                    return Err(Verdict::no_token(&format!("a subscription: {error}")));
                }
                // What a name resolves to here and now says nothing about the subscription.
                Err(error @ CallError::Forbidden { .. }) => {
                    return Err(elsewhere(&error.to_string()).unasked());
                }
                Err(error) if self.is_of_host(&error, &composed.origin, &composed.peer) => {
                    return Err(error.verdict().unasked());
                }
                Err(error) => return Err(error.verdict()),
            };
            if !first || !is_token_refused(&answer) {
                return Ok(answer);
            }
            first = false;
            if !self.renew(composed) {
                return Ok(answer);
            }
        }
    }

    /// Whether a failed call says something of the one host only, and nothing of the push service.
    fn is_of_host(&self, error: &CallError, origin: &Origin, peer: &Peer) -> bool {
        let Some(pattern) = self.config.knows(origin).filter(|_| !self.any_host) else {
            return false;
        };
        // Below a pattern whoever registers a subscription can make up a name, but none that took something before.
        let is_name = matches!(error, CallError::Unresolved { .. });
        let may_be_made_up = pattern.starts_with('*') && !peer.knows_us();
        pattern == ANYONE || is_name && may_be_made_up
    }

    fn is_anyones(&self, origin: &Origin) -> bool {
        !self.any_host && self.config.knows(origin) == Some(ANYONE)
    }

    /// Gives a request another token than the refused one; false when there is none yet.
    fn renew(&self, composed: &mut Composed) -> bool {
        let Composed { peer, origin, .. } = &*composed;
        peer.token.refused(composed.generation, self.egress.now());
        match self.authorization(peer, origin) {
            Some((value, generation)) if generation != composed.generation => {
                composed.call.headers.insert(AUTHORIZATION, value);
                composed.generation = generation;
                true
            }
            _ => false,
        }
    }
}

/// The subscription is not one that this credential reaches.
fn elsewhere(words: &str) -> Verdict {
    Verdict::Refused {
        reason: Reason::TokenEnvironment,
        detail: detail(words),
    }
}

fn header_map(encoded: &Encoded) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(encoded.headers.len() + 4);
    for (name, value) in &encoded.headers {
        if let Ok(value) = HeaderValue::from_str(value) {
            map.insert(HeaderName::from_static(name), value);
        }
    }
    map.insert(CONTENT_ENCODING, HeaderValue::from_static("aes128gcm"));
    map.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    map
}

#[async_trait]
impl Channel for Sender {
    /// The entry of the credential's own `hosts`.
    fn peer(&self, token: &str) -> Option<String> {
        if self.any_host {
            return None;
        }
        self.config.own(&origin_of(token)?).map(str::to_owned)
    }

    /// The path is the subscription's own; the body is shown as it is before encryption.
    fn preview(&self, outbound: &Outbound) -> Result<Parcel, (Reason, String)> {
        let encoded = encode(outbound)?;
        let mut headers: Vec<(String, String)> = encoded
            .headers
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        headers.push(("content-encoding".to_owned(), "aes128gcm".to_owned()));
        Ok(Parcel {
            method: "POST",
            path: "{token}".to_owned(),
            headers,
            body: encoded.body,
            truncated: Vec::new(),
            downgraded: None,
        })
    }

    async fn send(&self, batch: &Batch, deadline: Duration) -> Vec<Verdict> {
        let until = Instant::now() + deadline;
        let encoded = match encode(&batch.outbound) {
            Ok(encoded) => encoded,
            Err(refused) => return vendor::for_all(&batch.recipients, &vendor::refusal(refused)),
        };
        let headers = header_map(&encoded);
        let calls = batch
            .recipients
            .iter()
            .map(|recipient| self.send_one(&encoded, &headers, recipient, until))
            .collect();
        vendor::fan_out(calls).await
    }

    /// Posts nothing to a subscription that there is not: no push service confirms a key without a subscription that was made
    /// with it, so this proves that the key signs and that a push service can be reached.
    async fn check(&self, deadline: Duration) -> CheckReport {
        let until = Instant::now() + deadline;
        let origin = match &self.checked {
            Some(origin) => Ok(origin.clone()),
            None => Origin::parse(CHECKED),
        };
        let origin = match origin {
            Ok(origin) => origin,
            Err(error) => return report(false, &error.to_string()),
        };
        let peer = self.peers.at(&origin);
        let Some((authorization, _)) = self.authorization(&peer, &origin) else {
            return report(false, "the system gave no random numbers to sign with");
        };
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, authorization);
        headers.insert("ttl", HeaderValue::from_static("0"));
        let call = Call {
            method: Method::POST,
            path: CHECK_PATH.to_owned(),
            headers,
            body: Bytes::new(),
        };
        let host = origin.host();
        match peer.call(&call, until).await {
            Err(error) => report(false, &error.to_string()),
            Ok(answer) => match decode(&answer, self.egress.now()) {
                Verdict::Retry { detail, .. } | Verdict::CredentialBad { detail } => {
                    report(false, &format!("{host}: {detail}"))
                }
                _ => report(
                    true,
                    &format!(
                        "the key signs and {host} answers; whether browsers subscribed with it only a send can tell (applicationServerKey {})",
                        self.config.vapid.public_key
                    ),
                ),
            },
        }
    }

    async fn recall(
        &self,
        _message: &Message,
        _recipients: &[Recipient],
        _deadline: Duration,
    ) -> Option<Vec<Verdict>> {
        None
    }
}

fn report(ok: bool, words: &str) -> CheckReport {
    CheckReport {
        ok,
        detail: words.to_owned(),
    }
}

#[cfg(test)]
mod tests;
