//! Huawei Push Kit for HMS Core (`huawei`): Android and EMUI phones, HarmonyOS up to 4; APIs v1 and v2.
//!
//! Sources: Huawei developer documentation, HMS Core "Downlink messages" REST reference, "FAQ: error codes", "Generating
//! an authentication token from a service account" (read 2026-11). Unverified: which HTTP status a business code comes
//! with, so the code is read whatever the status; other regions' host names, so the credential's endpoint may be set.
//!
//! Rate: 4,800 devices a second, however many share a request. `limits.rate_per_s` sets another.
//!
//! | credential | what |
//! | --- | --- |
//! | `app_id` | the app id of AppGallery Connect |
//! | `client_secret`, `client_id` | OAuth client credentials; the client id is the app id when absent; API v1 |
//! | `service_account` | instead of those: the service account's JSON file (or its fields beside `app_id`); API v2 |
//! | `api`, `project_id` | `v1` or `v2` when it should differ; v2 addresses the project |
//! | `granted`, `strict_classes` | which classes were granted, and whether others are refused: the classes that the app has the self-classification right for |
//! | `categories` | the same in Huawei's own words: others are sent as `MARKETING`, or not at all with `strict_classes`. Absent: Huawei decides |
//! | `class_override` | whether a sender may give a marketing message another category |
//! | `click_intent` | intent URI for taps with `{hy_id}`, `{hy_url}`, `{hy_data}`, `{hy_user}`; absent: a tap opens the app, which gets `message.data` |
//! | `badge_class` | launcher activity, without which Huawei sets no badge |
//! | `receipt_id`, `test` | a configured receipt address; whether all messages are test messages (500 a day) |
//! | `receipt_user`, `receipt_key` | user name and key of the receipts' signature, as in AppGallery Connect; absent: receipts are believed for the secret in their address alone; set: a post without the signature is refused |
//!
//! `options.vendor.huawei` is merged into `message` (or into the whole body when it has the key `message`); the target
//! and `bi_tag` cannot be set that way, and a marketing message keeps its category unless the credential has
//! `class_override`. Receipts are read by `huawei/receipts.rs`, in both versions. A signed one is refused when it is more than
//! five minutes old or was taken before with another body; one that comes again as it was changes nothing.

mod account;
mod answer;
mod credential;
mod message;
mod receipts;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hongyan_core::port::{
    Batch, Callback, CallbackError, CallbackRequest, Capability, Channel, ChannelError,
    CheckReport, ConfigError, CountedAs, OpenCredential, Outbound, Parcel, QuotaWord, RateCounts,
    Recipient, Vendor,
};
use hongyan_core::{ChannelId, Class, ClassDetail, Message, Reason, Verdict};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::answer::unavailable;
use crate::config;
use crate::egress::{Egress, Origin};
use crate::http::{ANSWER_BYTES_MAX, Answer, Call, h1};
use crate::jwt::Minted;
use crate::texts;
use crate::token::{self, AccessToken, Fetched, TokenCache, TokenError};
use crate::vendor::{self, Decoded};

pub(super) use self::account::ServiceAccount;
pub(super) use self::answer::{asks_for_new_token, checked, decode, wrong_app};
use self::credential::{Auth, Config};
pub(super) use self::credential::{Rights, path_part};
use self::message::encode;
pub(super) use self::message::object_at;
pub(super) use self::receipts::{Receipts, read_statuses};

const NAME: &str = "huawei";

/// Huawei counts devices that are pushed to per second, at least 6,000 for an app: four fifths of it. Excess is answered 503.
const CAPABILITY: Capability = Capability {
    payload_bytes_max: BODY_BYTES_MAX,
    batch_len_max: TOKENS_MAX,
    rate_per_s: 4_800,
    rate_counts: RateCounts::Devices,
    concurrency: 64,
    ttl_max: Duration::from_secs(15 * 86_400),
    recalls: false,
    receipts: true,
    poll_every: None,
    environments: false,
    repeatable: true,
    quota_word: QuotaWord::AskedAgain,
};

/// Body without the tokens, bytes.
pub(super) const BODY_BYTES_MAX: usize = 4096;
/// Tokens in one request.
pub(super) const TOKENS_MAX: usize = 1000;
pub(super) const ENDPOINT: &str = "https://push-api.cloud.huawei.com";
/// Token endpoint, and the audience of service account JWTs.
const TOKEN_URI: &str = "https://oauth-login.cloud.huawei.com/oauth2/v3/token";

/// The vendor.
#[derive(Debug)]
pub struct Huawei {
    egress: Egress,
}

impl Huawei {
    /// The vendor, reached through this egress.
    #[must_use]
    pub fn new(egress: &Egress) -> Self {
        Self {
            egress: egress.clone(),
        }
    }
}

impl Vendor for Huawei {
    fn id(&self) -> ChannelId {
        vendor::id(NAME)
    }

    fn capability(&self) -> &Capability {
        &CAPABILITY
    }

    fn check_config(&self, config: &Value) -> Result<Map<String, Value>, Vec<ConfigError>> {
        let read = Config::read(config)?;
        let auth = match &read.auth {
            Auth::OAuth { .. } => "oauth",
            Auth::Account(_) => "service_account",
        };
        let [granted, categories] = read.rights.shown();
        Ok(config::shown([
            ("auth", Some(auth.into())),
            ("app_id", Some(read.shown.app_id.into())),
            ("project_id", read.shown.project_id.map(Value::from)),
            granted,
            categories,
            ("test", read.options.test.then_some(Value::Bool(true))),
        ]))
    }

    fn open(&self, credential: OpenCredential) -> Result<Arc<dyn Channel>, ChannelError> {
        let config = Config::read(&config::parse(&credential.config)?)
            .map_err(|faults| config::refused(&faults))?;
        let endpoint = credential.endpoint.as_deref();
        let unusable = |e: crate::CallError| ChannelError::Config {
            detail: e.to_string(),
        };
        let origin = Origin::parse(endpoint.unwrap_or(ENDPOINT)).map_err(unusable)?;
        Ok(Arc::new(Sender {
            token_url: token::moved(TOKEN_URI, endpoint).map_err(unusable)?,
            pool: h1::Pool::new(&self.egress, origin),
            egress: self.egress.clone(),
            config,
            tokens: TokenCache::default(),
            minted: ServiceAccount::minted(),
        }))
    }
}

/// A channel for one app.
#[derive(Debug)]
struct Sender {
    egress: Egress,
    config: Config,
    token_url: String,
    pool: h1::Pool,
    tokens: TokenCache,
    minted: Minted,
}

/// What the call was authorized with, to replace it when it is refused.
enum Used {
    Access(AccessToken),
    Minted(u64),
}

impl Sender {
    async fn authorization(&self, until: Instant) -> Result<(HeaderValue, Used), Verdict> {
        let now = self.egress.now();
        match &self.config.auth {
            Auth::OAuth { client_id, secret } => {
                let fetch = || self.fetch_token(client_id, secret, until);
                let token = self.tokens.get_until(now, until, fetch).await?;
                Ok((token.header.clone(), Used::Access(token)))
            }
            Auth::Account(account) => account
                .authorization(&self.minted, now)
                .map(|(value, generation)| (value, Used::Minted(generation)))
                .ok_or_else(|| unavailable(None, "the system's source of chance failed")),
        }
    }

    async fn fetch_token(
        &self,
        client_id: &str,
        secret: &hongyan_core::Secret,
        until: Instant,
    ) -> Result<Fetched, TokenError> {
        let form = texts::form([
            ("grant_type", "client_credentials"),
            ("client_id", client_id),
            ("client_secret", secret.expose_str().unwrap_or_default()),
        ]);
        let answer = self
            .egress
            .fetch(
                &self.token_url,
                token::form_call(form),
                ANSWER_BYTES_MAX,
                until,
            )
            .await?;
        token::read(&answer, self.egress.now())
    }

    /// One call; repeated once with a new token when Huawei does not take the one in use.
    async fn post(&self, body: Bytes, until: Instant) -> Result<Answer, Verdict> {
        let mut headers = HeaderMap::with_capacity(2);
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/json;charset=UTF-8"),
        );
        let mut call = Call {
            method: Method::POST,
            path: self.config.path.clone(),
            headers,
            body,
        };
        let mut first = true;
        loop {
            let (value, used) = self.authorization(until).await?;
            call.headers.insert(AUTHORIZATION, value);
            let answer = self
                .pool
                .call(&call, until)
                .await
                .map_err(|e| e.verdict())?;
            if !(first && asks_for_new_token(&answer)) {
                return Ok(answer);
            }
            first = false;
            match used {
                Used::Access(token) => self.tokens.refused(&token),
                Used::Minted(generation) => self.minted.refused(generation, self.egress.now()),
            }
        }
    }
}

#[async_trait]
impl Channel for Sender {
    fn counts_as(&self, class: Class, detail: Option<ClassDetail>) -> CountedAs {
        self.config.rights.counted(class, detail)
    }

    fn preview(&self, outbound: &Outbound) -> Result<Parcel, (Reason, String)> {
        let encoded = encode(&self.config, outbound)?;
        Ok(Parcel {
            method: "POST",
            path: self.config.path.clone(),
            headers: Vec::new(),
            body: encoded.body,
            truncated: Vec::new(),
            downgraded: encoded.downgraded,
        })
    }

    async fn send(&self, batch: &Batch, deadline: Duration) -> Vec<Verdict> {
        let until = Instant::now() + deadline;
        let encoded = match encode(&self.config, &batch.outbound) {
            Ok(encoded) => encoded,
            Err(refused) => return vendor::for_all(&batch.recipients, &vendor::refusal(refused)),
        };
        let mut verdicts = Vec::with_capacity(batch.recipients.len());
        for part in batch.recipients.chunks(TOKENS_MAX) {
            let decoded = match self
                .post(encoded.with_tokens(&vendor::tokens(part)), until)
                .await
            {
                Ok(answer) => decode(&answer, self.egress.now()),
                Err(verdict) => Decoded::all(verdict),
            };
            verdicts.extend(part.iter().map(|recipient| decoded.of(recipient)));
        }
        vendor::spare_tokens(verdicts, wrong_app)
    }

    /// A message that is checked only, to a token that nobody has: Huawei's complaint about the token proves the
    /// credential.
    async fn check(&self, deadline: Duration) -> CheckReport {
        let body = json!({"validate_only": true, "message": {"data": "{}", "android": {},
                          "token": ["hongyan-credential-check"]}});
        let verdict = match self
            .post(body.to_string().into(), Instant::now() + deadline)
            .await
        {
            Ok(answer) => decode(&answer, self.egress.now()).rest,
            Err(verdict) => verdict,
        };
        checked(&verdict)
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
        Some(self.config.receipts.callback(request))
    }
}

#[cfg(test)]
mod tests;
