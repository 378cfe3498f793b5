//! Apple Push Notification service (`apns`): iOS, iPadOS, macOS, tvOS, watchOS, visionOS.
//!
//! Sources: Apple Developer Documentation, "Sending notification requests to APNs", "Generating a remote notification",
//! "Handling notification responses from APNs", "Establishing a token-based connection to APNs", "Pushing background
//! updates to your App", "Starting and updating Live Activities with ActivityKit push notifications", "Sending broadcast push
//! notification requests to APNs", "Sending channel management requests to APNs" (read 2026-11). Unverified: which of its two
//! hosts Apple prefers for broadcasts.
//!
//! Rate: 100,000 devices a second, each a request of its own. `limits.rate_per_s` sets another.
//!
//! | credential | what |
//! | --- | --- |
//! | `bundle_id` | the app's bundle id, which is the topic |
//! | `key_id`, `team_id`, `private_key` | token authentication: the two ids of 10 characters and the text of the `.p8` file |
//! | `certificate`, `private_key` | instead of those: a PEM certificate and its PEM key |
//! | `environment` | `production` (default) or `sandbox`, for tokens that do not say which they belong to |
//! | `other_bundle_ids` | further apps of the team that this key serves: devices with that package get that topic |
//! | `broadcast_hosts` | true: broadcasts go to `api-broadcast…push.apple.com`, as Apple's samples have it, instead of the usual host |
//!
//! The push type is `alert`, or `background` for a message without a text. A sender may choose others and set Apple's own
//! fields in `options.vendor.apns`; these keys are taken out of it, everything else is merged into the payload:
//!
//! | key | becomes |
//! | --- | --- |
//! | `push_type` | `apns-push-type`: `alert background voip complication fileprovider mdm liveactivity location pushtotalk widgets controls`, with the topic suffix that belongs to it |
//! | `topic`, `priority`, `expiration`, `collapse_id` | the header of that name |
//! | `subtitle` | `aps.alert.subtitle` |
//! | `interruption_level`, `relevance_score`, `category`, `sound`, `thread_id`, `target_content_id`, `filter_criteria`, `mutable_content`, `content_available`, `event`, `content_state`, `timestamp`, `stale_date`, `dismissal_date`, `attributes_type`, `attributes`, `input_push_channel`, `input_push_token` | the `aps` key, with hyphens |
//!
//! iOS gives an app tokens of several kinds. The app's own is registered as it is; each of the others is registered, for a
//! device of its own, with the push type before it, and takes only messages that ask for that push type. An app's own token gets whatever a
//! message asks for; where Apple does not take it for that, the token lives on.
//!
//! | token | what |
//! | --- | --- |
//! | `<hex>` | the app's own: `alert` and `background` |
//! | `liveactivity:<hex>` | a push-to-start token (`event` `start`), or the update token of one activity (`update`, `end`) |
//! | `voip:<hex>`, `pushtotalk:<hex>`, `location:<hex>`, `widgets:<hex>`, `controls:<hex>`, `complication:<hex>`, `fileprovider:<hex>`, `mdm:<hex>` | tokens of that kind |
//! | `broadcast:<id>` | a broadcast channel of iOS 18: one `liveactivity` push updates or ends the activity on every device that follows it. Made as below or in Apple's console |
//!
//! Broadcast channels of the credential's `bundle_id` and `environment` are managed with `hongyan channel broadcast`, or at
//! `/v1/channels/apns/credentials/{name}/broadcasts`. At most 10,000 are allowed for an app in each environment. Their ids are Apple's and have
//! `+`, `/` and `=` in them: in a path they are percent-encoded.
//!
//! | call | does |
//! | --- | --- |
//! | `POST …/broadcasts` `{"storage": "none"}` | makes a channel that stores nothing, for frequent updates; `"latest"` keeps the latest message for up to 8 hours. It cannot be changed later. An unknown fate (`unavailable`) may have made one: list before trying again |
//! | `GET …/broadcasts`, `GET …/broadcasts/{id}` | the ids of all; what one stores |
//! | `DELETE …/broadcasts/{id}` | deletes it for good; its token then ends as `token_invalid` with the next push |
//!
//! Broadcasts have to be switched on for the app id in the developer account. Apple serves these calls on ports 2195 (sandbox)
//! and 2196 of `api-manage-broadcast…push.apple.com`, which a firewall has to let out; an `endpoint` that is not Apple's takes them too.
//!
//! Every push to a device has an `apns-id` that is made of the message's id and the token: all tries of it have the same one.
//!
//! A Live Activity's `timestamp` is when the message was accepted, or was to be sent: a late try never outdates a newer update.
//!
//! When ten or more tokens of one batch are all answered `BadDeviceToken`, the environment or the credential is wrong, not
//! the tokens: the verdict is then `token_environment` without the death of a token. `DeviceTokenNotForTopic` never kills one: a
//! bundle id that is wrong here, or missing, looks the same as a token of somebody else's app.

mod encoding;
mod manage;
mod plain;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hongyan_core::device::Environment;
use hongyan_core::port::{
    Batch, Broadcasts, Capability, Channel, ChannelError, CheckReport, ConfigError, OpenCredential,
    Outbound, Parcel, QuotaWord, RateCounts, Recipient, Vendor,
};
use hongyan_core::{ChannelId, Message, Reason, Timestamp, Verdict};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Method};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use self::encoding::{BROADCAST_BYTES_MAX, Encoded, apns_id, encode, push_type_of};
pub(super) use self::encoding::{aps_without_alert, collapse_text};
use crate::answer::{
    accepted, device_limited, mend, rate_limited, refused, retry_after, token_dead, too_large,
    unavailable,
};
use crate::config::{self, Fields};
use crate::egress::{Egress, Identity, Origin, Protocol};
use crate::http::{Answer, Ask, h2};
use crate::jwt::{Minted, Signer};
use crate::texts::detail;
use crate::vendor;

const NAME: &str = "apns";
const ACTIVITY: &str = "liveactivity";
/// Where broadcasts are published, before the bundle id.
const BROADCASTS: &str = "/4/broadcasts/apps/";

/// Apple publishes no rate, and takes one device a request; the numbers of streams and connections are what its notes advise to keep reusing.
const CAPABILITY: Capability = Capability {
    payload_bytes_max: 4096,
    batch_len_max: 100,
    rate_per_s: 100_000,
    rate_counts: RateCounts::Devices,
    concurrency: 128,
    ttl_max: Duration::from_secs(30 * 86_400),
    recalls: false,
    receipts: false,
    poll_every: None,
    environments: true,
    repeatable: true,
    quota_word: QuotaWord::AskedAgain,
};

/// A provider token is used this long; Apple refuses it after 60 minutes and dislikes new ones before 20.
const TOKEN_REUSE: Duration = Duration::from_secs(45 * 60);
const TOKEN_FORCE_PAUSE: Duration = Duration::from_secs(20 * 60);
/// First wait after `TooManyRequests` for one device, where Apple names none.
const DEVICE_PAUSE: Duration = Duration::from_secs(60);

/// What Apple hands out for an app.
#[derive(Debug)]
struct Config {
    auth: Auth,
    /// The client certificate of [`Auth::Certificate`], until the TLS settings take it.
    identity: Option<Identity>,
    bundle_id: String,
    other_bundle_ids: Vec<String>,
    environment: Environment,
    broadcast_hosts: bool,
}

enum Auth {
    Token {
        key_id: String,
        team_id: String,
        signer: Box<Signer>,
    },
    Certificate,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Token { .. } => "Token",
            Self::Certificate => "Certificate",
        })
    }
}

impl Config {
    fn read(config: &Value) -> Result<Self, Vec<ConfigError>> {
        let mut fields = Fields::new(config);
        let bundle_id = fields.text("bundle_id", "the app's bundle id, which is the topic");
        let other_bundle_ids = fields.texts("other_bundle_ids").unwrap_or_default();
        let environment = match fields.optional_text("environment").as_deref() {
            None | Some("production") => Environment::Production,
            Some("sandbox" | "development") => Environment::Sandbox,
            Some(_) => {
                fields.fault("environment", "must be production or sandbox");
                Environment::Production
            }
        };
        let broadcast_hosts = fields.switch("broadcast_hosts");
        let mut identity = None;
        let auth = if config.get("certificate").is_some() && config.get("key_id").is_none() {
            let certificate = fields.text("certificate", "the PEM certificate");
            identity = fields.checked("private_key", "the certificate's PEM private key", |key| {
                Identity::from_pem(&certificate, key)
            });
            Some(Auth::Certificate)
        } else {
            let ten = |text: &str| {
                if text.len() == 10 && text.bytes().all(|b| b.is_ascii_alphanumeric()) {
                    Ok(text.to_owned())
                } else {
                    Err("must be 10 letters and digits".to_owned())
                }
            };
            let key_id = fields.checked("key_id", "the 10 characters of the key's id", ten);
            let team_id = fields.checked("team_id", "the 10 characters of the team's id", ten);
            let signer = fields.checked("private_key", "the text of the .p8 file", Signer::es256);
            match (key_id, team_id, signer) {
                (Some(key_id), Some(team_id), Some(signer)) => Some(Auth::Token {
                    key_id,
                    team_id,
                    signer: Box::new(signer),
                }),
                _ => None,
            }
        };
        let faults = fields.finish_strict();
        match auth {
            Some(auth) if faults.is_empty() => Ok(Self {
                auth,
                identity,
                bundle_id,
                other_bundle_ids,
                environment,
                broadcast_hosts,
            }),
            _ => Err(faults),
        }
    }

    /// The topic's base: the devices' own bundle id where this credential serves it.
    fn bundle_id(&self, outbound: &Outbound) -> &str {
        outbound
            .package
            .as_ref()
            .and_then(|p| self.other_bundle_ids.iter().find(|b| *b == p))
            .unwrap_or(&self.bundle_id)
    }
}

/// What a token of the registry stands for.
#[derive(Debug, PartialEq, Eq)]
enum Address<'a> {
    /// A token of a device, in hexadecimal, and the push type that it is for; `None` for the app's own.
    Device(Option<&'static str>, &'a str),
    /// A broadcast channel.
    Broadcast(&'a str),
}

impl<'a> Address<'a> {
    fn parse(token: &'a str) -> Result<Self, String> {
        let (kind, rest) = match token.split_once(':') {
            None => (None, token),
            Some(("broadcast", id)) => {
                return if manage::is_id(id) {
                    Ok(Self::Broadcast(id))
                } else {
                    Err("the channel id behind broadcast: is not base64".to_owned())
                };
            }
            Some((kind, rest)) => match push_type_of(kind) {
                Some(push_type) => (Some(push_type.name), rest),
                None => return Err(format!("{} is no push type", detail(kind))),
            },
        };
        let hex = rest.len() % 2 == 0 && rest.bytes().all(|b| b.is_ascii_hexdigit());
        if rest.is_empty() || !hex {
            return Err("it is not hexadecimal".to_owned());
        }
        Ok(Self::Device(kind, rest))
    }
}

/// The token is for another kind of push, or of another app: it lives on.
fn of_another_kind(words: &str) -> Verdict {
    Verdict::Refused {
        reason: Reason::TokenEnvironment,
        detail: detail(words),
    }
}

/// Apple's reason in an error answer; empty when there is none.
fn reason_of(answer: &Answer) -> String {
    serde_json::from_slice::<Value>(&answer.body)
        .ok()
        .and_then(|v| v.get("reason")?.as_str().map(str::to_owned))
        .unwrap_or_default()
}

pub(super) fn decode(answer: &Answer, now: Timestamp) -> Verdict {
    let reason = reason_of(answer);
    let after = retry_after(&answer.headers, now);
    let status = answer.status;
    let words = if reason.is_empty() {
        format!("APNs answered status {status}")
    } else {
        format!("{status} {reason}")
    };
    match (status, reason.as_str()) {
        (200, _) => accepted(
            answer
                .headers
                .get("apns-id")
                .and_then(|id| id.to_str().ok()),
        ),
        (_, "BadDeviceToken") => token_dead(&words),
        // It may as well be the topic that is wrong, and Apple says so of every token of an app that is missing here.
        (_, "DeviceTokenNotForTopic") => of_another_kind(&format!(
            "{words}: the token is of another app; name its bundle id in bundle_id or other_bundle_ids, and as the device's package"
        )),
        (410, _) | (_, "Unregistered" | "ExpiredToken") => dead_since(answer, &words),
        (413, _) | (_, "PayloadTooLarge") => too_large(&words),
        (_, "TooManyRequests") => device_limited(after.or(Some(DEVICE_PAUSE)), &words),
        (_, "TooManyProviderTokenUpdates") | (429, _) => rate_limited(after, &words),
        // Refused after a renewal as well: the clocks differ. It heals without a person once they agree.
        (_, "ExpiredProviderToken") => {
            unavailable(after, &format!("{words}: check this machine's clock"))
        }
        (_, "IdleTimeout" | "Shutdown" | "UnrelatedKeyIdInToken") => unavailable(after, &words),
        (_, "ChannelNotRegistered" | "BadChannelId") => token_dead(&words),
        (_, "FeatureNotEnabled") => mend(
            &words,
            "switch broadcast on for the app id in the developer account",
        ),
        (_, "TopicDisallowed" | "BadTopic" | "MissingTopic" | "TopicMismatch") => {
            mend(&words, "check bundle_id and what the key may send to")
        }
        (_, "InvalidProviderToken") => {
            mend(&words, "check key_id, team_id, private_key and the clock")
        }
        (_, "BadPath" | "MethodNotAllowed") => mend(&words, "check the endpoint"),
        (401 | 403, _) => mend(
            &words,
            "check key_id, team_id, private_key (or the certificate), bundle_id and environment",
        ),
        (500..=599, _) => unavailable(after, &words),
        (404 | 405, _) => mend(&words, "check the endpoint"),
        _ => refused(&words),
    }
}

/// The token is dead, since when APNs says (milliseconds).
fn dead_since(answer: &Answer, words: &str) -> Verdict {
    let known = serde_json::from_slice::<Value>(&answer.body)
        .ok()
        .and_then(|v| v.get("timestamp")?.as_i64())
        .map(Timestamp);
    match (known, token_dead(words)) {
        (Some(at), Verdict::TokenDead { reason, detail, .. }) => Verdict::TokenDead {
            reason,
            detail: format!("{detail} since {}", at.rfc3339()),
            since: Some(at),
        },
        (_, verdict) => verdict,
    }
}

/// Whether a death may in truth be a wrong environment.
fn wrong_environment(detail: &str) -> bool {
    detail.ends_with("BadDeviceToken")
}

/// The vendor.
#[derive(Debug)]
pub struct Apns {
    egress: Egress,
}

impl Apns {
    /// The vendor, reached through this egress.
    #[must_use]
    pub fn new(egress: &Egress) -> Self {
        Self {
            egress: egress.clone(),
        }
    }
}

impl Vendor for Apns {
    fn id(&self) -> ChannelId {
        vendor::id(NAME)
    }

    fn day_offset_s(&self) -> i32 {
        0
    }

    fn capability(&self) -> &Capability {
        &CAPABILITY
    }

    fn check_config(&self, config: &Value) -> Result<Map<String, Value>, Vec<ConfigError>> {
        let read = Config::read(config)?;
        let environment = match read.environment {
            Environment::Production => "production",
            Environment::Sandbox => "sandbox",
        };
        let (auth, key_id, team_id) = match read.auth {
            Auth::Token {
                key_id, team_id, ..
            } => ("token", Some(key_id.into()), Some(team_id.into())),
            Auth::Certificate => ("certificate", None, None),
        };
        Ok(config::shown([
            ("auth", Some(auth.into())),
            ("key_id", key_id),
            ("team_id", team_id),
            ("bundle_id", Some(read.bundle_id.into())),
            (
                "other_bundle_ids",
                Some(read.other_bundle_ids.into()).filter(|v| *v != json!([])),
            ),
            ("environment", Some(environment.into())),
            ("broadcast_hosts", read.broadcast_hosts.then(|| true.into())),
        ]))
    }

    fn open(&self, credential: OpenCredential) -> Result<Arc<dyn Channel>, ChannelError> {
        let mut config = Config::read(&config::parse(&credential.config)?)
            .map_err(|faults| config::refused(&faults))?;
        let tls = match config.identity.take() {
            None => self.egress.tls(Protocol::Http2),
            Some(identity) => {
                self.egress
                    .tls_with(Protocol::Http2, identity)
                    .map_err(|source| ChannelError::Failed {
                        what: "the certificate and its key cannot be used together",
                        source: Box::new(source),
                    })?
            }
        };
        let at = |endpoint: &str| -> Result<h2::Pool, ChannelError> {
            let origin = Origin::parse(endpoint).map_err(|e| ChannelError::Config {
                detail: e.to_string(),
            })?;
            Ok(h2::Pool::new(&self.egress, origin, tls.clone()))
        };
        let endpoint = credential.endpoint.as_deref();
        let pool = |usual: &str| at(endpoint.unwrap_or(usual));
        let manage_pool = at(manage::endpoint(endpoint, config.environment))?;
        let broadcasts = if config.broadcast_hosts {
            Some((
                pool("https://api-broadcast.push.apple.com")?,
                pool("https://api-broadcast.sandbox.push.apple.com")?,
            ))
        } else {
            None
        };
        Ok(Arc::new(Sender {
            production: pool("https://api.push.apple.com")?,
            sandbox: pool("https://api.sandbox.push.apple.com")?,
            broadcasts,
            manage: manage_pool,
            egress: self.egress.clone(),
            config,
            token: Minted::new(TOKEN_REUSE, TOKEN_FORCE_PAUSE),
        }))
    }
}

/// A channel for one credential: two pools of connections, because the environments are separate worlds.
#[derive(Debug)]
struct Sender {
    egress: Egress,
    config: Config,
    production: h2::Pool,
    sandbox: h2::Pool,
    /// Production and sandbox, when broadcasts have hosts of their own.
    broadcasts: Option<(h2::Pool, h2::Pool)>,
    /// Where broadcast channels of the credential's environment are made and deleted.
    manage: h2::Pool,
    token: Minted,
}

impl Sender {
    /// The provider token in use; `None` with a certificate.
    fn authorization(&self) -> Option<(HeaderValue, u64)> {
        let Auth::Token {
            key_id,
            team_id,
            signer,
        } = &self.config.auth
        else {
            return None;
        };
        let now = self.egress.now();
        self.token.get(now, || {
            let claims = json!({"iss": team_id, "iat": now.seconds()});
            let jwt = signer.sign(json!({"kid": key_id}), &claims)?;
            let mut value = HeaderValue::from_str(&format!("bearer {jwt}")).ok()?;
            value.set_sensitive(true);
            Some(value)
        })
    }

    fn pool(&self, path: &str, environment: Option<Environment>) -> &h2::Pool {
        let (production, sandbox) = match &self.broadcasts {
            Some((production, sandbox)) if path.starts_with(BROADCASTS) => (production, sandbox),
            _ => (&self.production, &self.sandbox),
        };
        match environment.unwrap_or(self.config.environment) {
            Environment::Production => production,
            Environment::Sandbox => sandbox,
        }
    }

    /// Adds the provider token.
    fn head(&self, mut headers: Headers) -> Head {
        let generation = match self.authorization() {
            Some((value, generation)) => {
                set(&mut headers, AUTHORIZATION, value);
                generation
            }
            None => 0,
        };
        Head {
            headers: Arc::new(headers),
            generation,
        }
    }

    async fn send_one(
        &self,
        outbound: &Outbound,
        encoded: &Encoded,
        head: &Head,
        recipient: &Recipient,
        until: Instant,
    ) -> Verdict {
        let token = recipient.token.expose_str().unwrap_or_default().trim();
        let (kind, hex) = match Address::parse(token) {
            Err(why) => return Verdict::no_token(&format!("one of APNs: {why}")),
            Ok(Address::Broadcast(id)) => {
                let environment = recipient.environment;
                let publish = self.publish(outbound, encoded, head, id, environment, until);
                // Rare and large, so it is not part of every call's future.
                return Box::pin(publish).await;
            }
            Ok(Address::Device(kind, hex)) => (kind, hex),
        };
        let asked = encoded.push_type.name;
        if let Some(kind) = kind.filter(|kind| *kind != asked) {
            return of_another_kind(&format!("the token is for {kind} pushes, not {asked}"));
        }
        if let Err(refused) = encoded.fits(encoded.push_type.bytes_max) {
            return vendor::refusal(refused);
        }
        let hex = hex.to_ascii_lowercase();
        let id = apns_id(outbound.message.id, &hex).to_string();
        let head = head.with_id(&id);
        let path = format!("/3/device/{hex}");
        let answer = self
            .post(path, &head, &encoded.bytes, recipient.environment, until)
            .await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(verdict) => return verdict,
        };
        // An app's own token does not take every kind of push, and is none the worse for that.
        let own = kind.is_none() && !matches!(asked, "alert" | "background");
        match decode(&answer, self.egress.now()) {
            Verdict::TokenDead { detail, .. } if own && answer.status != 410 => of_another_kind(
                &format!("{detail}: a token for {asked} pushes is registered as {asked}:<token>"),
            ),
            // Apple repeats it; where that is missing, it is known all the same.
            Verdict::Accepted { vendor_id: None } => accepted(Some(&id)),
            verdict => verdict,
        }
    }

    /// Publishes on a broadcast channel. A channel that stores nothing takes no expiration, so that is tried when Apple
    /// does not like the message's.
    async fn publish(
        &self,
        outbound: &Outbound,
        encoded: &Encoded,
        head: &Head,
        id: &str,
        environment: Option<Environment>,
        until: Instant,
    ) -> Verdict {
        if encoded.push_type.name != ACTIVITY {
            return of_another_kind("a broadcast channel takes liveactivity pushes only");
        }
        if encoded.starts_an_activity() {
            return refused("a broadcast cannot start an activity; it updates or ends it");
        }
        if let Err(refused) = encoded.fits(BROADCAST_BYTES_MAX) {
            return vendor::refusal(refused);
        }
        let Ok(id) = HeaderValue::from_str(id) else {
            return Verdict::no_token("a channel id that a header takes");
        };
        let path = format!("{BROADCASTS}{}", self.config.bundle_id(outbound));
        let mut headers = (*head.headers).clone();
        headers.retain(|(name, _)| name != "apns-topic");
        headers.push((HeaderName::from_static("apns-channel-id"), id));
        let now_or_never = HeaderValue::from_static("0");
        loop {
            let head = self.head(headers.clone());
            let answer = self
                .post(path.clone(), &head, &encoded.bytes, environment, until)
                .await;
            let answer = match answer {
                Ok(answer) => answer,
                Err(verdict) => return verdict,
            };
            let name = HeaderName::from_static("apns-expiration");
            let given = set(&mut headers, name, now_or_never.clone());
            let again = reason_of(&answer) == "BadExpirationDate"
                && given.is_some_and(|given| given != now_or_never);
            if !again {
                return decode(&answer, self.egress.now());
            }
        }
    }

    async fn post(
        &self,
        path: String,
        head: &Head,
        body: &Bytes,
        environment: Option<Environment>,
        until: Instant,
    ) -> Result<Answer, Verdict> {
        let pool = self.pool(&path, environment);
        let call = Ask {
            method: Method::POST,
            path: path.into(),
            headers: head.headers.clone(),
            body: body.clone(),
        };
        self.call(pool, call, head.generation, until).await
    }

    /// One call; repeated once when the provider token had expired or the server was going away.
    async fn call(
        &self,
        pool: &h2::Pool,
        mut call: Ask,
        mut generation: u64,
        until: Instant,
    ) -> Result<Answer, Verdict> {
        let mut first = true;
        loop {
            let (answer, route) = pool.call(&call, until).await.map_err(|e| e.verdict())?;
            if answer.status < 300 || !first {
                return Ok(answer);
            }
            first = false;
            match reason_of(&answer).as_str() {
                "ExpiredProviderToken" => {
                    self.token.refused(generation, self.egress.now());
                    let renewed = self.head((*call.headers).clone());
                    (call.headers, generation) = (renewed.headers, renewed.generation);
                }
                "Shutdown" | "IdleTimeout" | "UnrelatedKeyIdInToken" => route.retire(),
                _ => return Ok(answer),
            }
        }
    }
}

/// The headers of a call, with the provider token of this generation.
struct Head {
    headers: Arc<Headers>,
    generation: u64,
}

impl Head {
    /// The same for one device, under this id.
    fn with_id(&self, id: &str) -> Self {
        let mut headers = Vec::with_capacity(self.headers.len() + 1);
        headers.extend(self.headers.iter().cloned());
        if let Ok(mut id) = HeaderValue::from_str(id) {
            // No other request has it, so it must not push the others' headers out of the connection's table.
            id.set_sensitive(true);
            headers.push((HeaderName::from_static("apns-id"), id));
        }
        Self {
            headers: Arc::new(headers),
            generation: self.generation,
        }
    }
}

type Headers = Vec<(HeaderName, HeaderValue)>;

/// Gives a header this value; its value before.
fn set(headers: &mut Headers, name: HeaderName, value: HeaderValue) -> Option<HeaderValue> {
    match headers.iter_mut().find(|(known, _)| *known == name) {
        Some((_, place)) => Some(std::mem::replace(place, value)),
        None => {
            headers.push((name, value));
            None
        }
    }
}

/// The headers of an encoded message, which has none any more.
fn listed(encoded: &mut Encoded) -> Headers {
    let mut headers = Vec::with_capacity(encoded.headers.len() + 2);
    for (name, value) in std::mem::take(&mut encoded.headers) {
        if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(value)) {
            headers.push((HeaderName::from_static(name), value));
        }
    }
    let json = HeaderValue::from_static("application/json");
    headers.push((CONTENT_TYPE, json));
    headers
}

#[async_trait]
impl Channel for Sender {
    fn preview(&self, outbound: &Outbound) -> Result<Parcel, (Reason, String)> {
        let encoded = encode(&self.config, outbound)?;
        encoded.fits(encoded.push_type.bytes_max)?;
        let body = encoded.shown();
        Ok(Parcel {
            method: "POST",
            path: "/3/device/{token}".to_owned(),
            headers: encoded
                .headers
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
            body,
            truncated: Vec::new(),
            downgraded: None,
        })
    }

    async fn send(&self, batch: &Batch, deadline: Duration) -> Vec<Verdict> {
        let until = Instant::now() + deadline;
        let mut encoded = match encode(&self.config, &batch.outbound) {
            Ok(encoded) => encoded,
            Err(refused) => return vendor::for_all(&batch.recipients, &vendor::refusal(refused)),
        };
        let head = self.head(listed(&mut encoded));
        let send_one =
            |recipient| self.send_one(&batch.outbound, &encoded, &head, recipient, until);
        if let [only] = batch.recipients.as_slice() {
            return vec![send_one(only).await];
        }
        let calls = batch.recipients.iter().map(send_one).collect();
        let verdicts = vendor::fan_out(calls).await;
        vendor::spare_tokens(verdicts, wrong_environment)
    }

    /// Sends a background push to a token that no device has: `BadDeviceToken` proves the credential.
    async fn check(&self, deadline: Duration) -> CheckReport {
        let until = Instant::now() + deadline;
        let mut headers = Headers::new();
        for (name, value) in [
            ("apns-push-type", "background"),
            ("apns-topic", self.config.bundle_id.as_str()),
            ("apns-priority", "5"),
            ("apns-expiration", "0"),
        ] {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.push((HeaderName::from_static(name), value));
            }
        }
        let body = Bytes::from_static(b"{\"aps\":{\"content-available\":1}}");
        let path = format!("/3/device/{}", "0".repeat(64));
        let head = self.head(headers);
        match self.post(path, &head, &body, None, until).await {
            Ok(answer) if answer.status == 200 => report(true, "APNs accepts the credential"),
            Ok(answer) => match decode(&answer, self.egress.now()) {
                Verdict::TokenDead { .. } => report(true, "APNs accepts the credential"),
                other => vendor::unproved(&other),
            },
            Err(verdict) => vendor::unproved(&verdict),
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

    fn broadcasts(self: Arc<Self>) -> Option<Arc<dyn Broadcasts>> {
        Some(self)
    }
}

fn report(ok: bool, detail: &str) -> CheckReport {
    CheckReport {
        ok,
        detail: detail.to_owned(),
    }
}

#[cfg(test)]
mod tests;
