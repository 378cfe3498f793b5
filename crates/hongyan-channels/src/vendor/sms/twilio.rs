//! Twilio (`twilio`): free text, one number a request.
//!
//! Sources: Twilio's OpenAPI description of api_v2010 (2026-04), its error pages 30003, 30006 and 21635, its page on
//! request validation; the other error codes are well known and were not read again. A callback is signed without a time or a
//! nonce: one that comes again is taken again and changes nothing: bad news of what was delivered are not believed. A request is not
//! idempotent: after a lost answer or a server's fault the text may have been sent, and is not sent again.
//!
//! | credential | what |
//! | --- | --- |
//! | `account_sid` | `AC` and 32 hex digits |
//! | `auth_token` | the account's token; callbacks are signed with it |
//! | `api_key_sid`, `api_key_secret` | an API key to send with, instead of the token |
//! | `from` or `messaging_service_sid` | the sender: a number, a short code, a name; or `MG` and 32 hex digits |
//! | `callback` | where Twilio reports, instead of the server's own callback address |

use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hongyan_core::port::{
    Callback, CallbackError, CallbackRequest, ChannelError, CheckReport, OpenCredential, Outbound,
    Parcel, Receipt, ReceiptKind,
};
use hongyan_core::{MessageId, Reason, Secret, Timestamp, Verdict, telephone};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};
use ring::{digest, hmac};
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::receipts::Told;
use super::{Common, Encoded, Provider, Words, counted, report, segments};
use crate::acs::hex;
use crate::answer::{
    accepted, mend, rate_limited, refused, retry_after, token_dead, too_large, unavailable,
    unreadable,
};
use crate::callback::ReceiptUrl;
use crate::config::{self, Fields};
use crate::egress::{Egress, Origin};
use crate::http::{Answer, Call, h1};
use crate::{texts, vendor};

const HOST: &str = "https://api.twilio.com";
/// Characters of a text.
const TEXT_CHARS_MAX: usize = 1600;
/// Seconds that Twilio keeps a text that waits.
const VALIDITY_S_MAX: u64 = 36_000;
const SIGNATURE: &str = "x-twilio-signature";
/// When a phone that could not be reached is tried again.
const UNREACHABLE_FOR: Duration = Duration::from_secs(600);
/// The query parameter of the callback that names our message.
const MESSAGE: &str = "hy_message";

/// What the console shows.
#[derive(Debug)]
pub(super) struct Config {
    account_sid: String,
    auth_token: Option<Secret>,
    api_key: Option<(String, Secret)>,
    from: Option<String>,
    messaging_service_sid: Option<String>,
    callback: Option<ReceiptUrl>,
}

impl Config {
    pub(super) fn read(fields: &mut Fields<'_>) -> Self {
        let account_sid = fields.checked("account_sid", "AC and 32 hex digits", |text| {
            sid(text, "AC").map(str::to_owned)
        });
        let auth_token = fields.optional_text("auth_token").map(Secret::new);
        let key_sid = fields.optional_text("api_key_sid");
        let key_secret = fields.optional_text("api_key_secret");
        let api_key = match (key_sid, key_secret) {
            (Some(id), Some(secret)) => {
                if let Err(problem) = sid(&id, "SK") {
                    fields.fault("api_key_sid", problem);
                }
                Some((id, Secret::new(secret)))
            }
            (None, None) => {
                if auth_token.is_none() {
                    fields.fault(
                        "auth_token",
                        "is missing: the account's token, or an API key",
                    );
                }
                None
            }
            _ => {
                fields.fault(
                    "api_key_secret",
                    "an API key is a pair: api_key_sid and api_key_secret",
                );
                None
            }
        };
        let from = fields.optional_text("from");
        let service = fields.optional_text("messaging_service_sid");
        match (&from, &service) {
            (None, None) => fields.fault("from", "is missing: a sender, or messaging_service_sid"),
            (Some(_), Some(_)) => {
                fields.fault(
                    "from",
                    "is too much beside messaging_service_sid; name one of them",
                );
            }
            (None, Some(service)) => {
                if let Err(problem) = sid(service, "MG") {
                    fields.fault("messaging_service_sid", problem);
                }
            }
            (Some(_), None) => {}
        }
        let callback = fields.optional_url("callback").map(ReceiptUrl::new);
        Self {
            account_sid: account_sid.unwrap_or_default(),
            auth_token,
            api_key,
            from,
            messaging_service_sid: service,
            callback,
        }
    }

    pub(super) fn shown(&self) -> Map<String, Value> {
        let text = |text: &Option<String>| text.as_deref().map(Value::from);
        config::shown([
            ("account_sid", Some(self.account_sid.as_str().into())),
            ("from", text(&self.from)),
            ("messaging_service_sid", text(&self.messaging_service_sid)),
            (
                "callback",
                self.callback.as_ref().map(|url| url.shown().into()),
            ),
        ])
    }

    /// User and password of HTTP Basic.
    fn basic(&self) -> String {
        let (user, password) = match (&self.api_key, &self.auth_token) {
            (Some((id, secret)), _) => (id, secret.expose_str()),
            (None, token) => (
                &self.account_sid,
                token.as_ref().and_then(Secret::expose_str),
            ),
        };
        let pair = format!("{user}:{}", password.unwrap_or_default());
        format!("Basic {}", STANDARD.encode(pair))
    }
}

fn sid<'a>(text: &'a str, prefix: &str) -> Result<&'a str, String> {
    let hex = text.strip_prefix(prefix).unwrap_or_default();
    if hex.len() == 32 && hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        Ok(text)
    } else {
        Err(format!("must be {prefix} and 32 hex digits"))
    }
}

/// What an answer to a new message means.
pub(super) fn decode(answer: &Answer, now: Timestamp) -> Verdict {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    if matches!(answer.status, 200 | 201)
        && let Some(sid) = body.get("sid").and_then(Value::as_str)
    {
        return match body.get("error_code").and_then(Value::as_u64) {
            Some(code) => judge(code, &format!("{code}"), answer, now),
            None => accepted(Some(sid)),
        };
    }
    let Some(code) = body.get("code").and_then(Value::as_u64) else {
        let words = format!("Twilio answered status {}", answer.status);
        return by_status(answer, &words, now);
    };
    let why = body
        .get("message")
        .and_then(Value::as_str)
        .unwrap_or_default();
    judge(code, &format!("{code} {why}"), answer, now)
}

/// The error code of an answer, whichever way it is told.
fn code_of(answer: &Answer) -> Option<u64> {
    let body: Value = serde_json::from_slice(&answer.body).ok()?;
    let names = ["error_code", "code"];
    names.iter().find_map(|name| body.get(*name)?.as_u64())
}

/// What to do about a refused key.
const KEYS: &str = "check account_sid and auth_token (or the API key and its secret)";

fn by_status(answer: &Answer, words: &str, now: Timestamp) -> Verdict {
    let after = retry_after(&answer.headers, now);
    match answer.status {
        401 | 403 => mend(words, KEYS),
        404 => mend(words, "check account_sid and endpoint"),
        429 => rate_limited(after, words),
        400..=499 => refused(words),
        500..=599 => vendor::maybe_taken(unavailable(after, words)),
        status => unreadable(status),
    }
}

fn judge(code: u64, words: &str, answer: &Answer, now: Timestamp) -> Verdict {
    let after = retry_after(&answer.headers, now);
    match code {
        20003 => mend(words, KEYS),
        20404 => mend(words, "check account_sid and endpoint"),
        21408 => mend(
            words,
            "switch the number's country on in Twilio's console (geo permissions)",
        ),
        21606 | 21659 => mend(
            words,
            "check that the sender is one of this account and may send texts there",
        ),
        30002 => mend(
            words,
            "Twilio suspended the account: settle it in its console",
        ),
        30034 => mend(
            words,
            "register the sender's number for A2P 10DLC with Twilio",
        ),
        20429 | 30001 => rate_limited(after, words),
        20500 => vendor::maybe_taken(unavailable(after, words)),
        21211 | 21612 | 21614 | 21635 | 30005 => token_dead(words),
        // The person answered STOP.
        21610 | 30004 => Verdict::Refused {
            reason: Reason::PermissionOff,
            detail: texts::detail(words),
        },
        21617 => too_large(words),
        // The phone cannot be reached: later, once. Nobody knows why: once more. `Sender::send` counts.
        30003 => unavailable(after.or(Some(UNREACHABLE_FOR)), words),
        30008 => unavailable(after, words),
        21602 | 30006 | 30007 | 30010 => refused(words),
        _ => by_status(answer, words, now),
    }
}

/// What a final status with its error code says.
pub(super) fn kind(status: &str, code: &str) -> ReceiptKind {
    match (status, code) {
        ("delivered", _) => ReceiptKind::Delivered,
        ("read", _) => ReceiptKind::Displayed,
        ("canceled", _) => ReceiptKind::Failed(Reason::Recalled),
        ("undelivered" | "failed", "21211" | "21612" | "21614" | "21635" | "30005") => {
            ReceiptKind::TokenInvalid
        }
        ("undelivered" | "failed", "21610" | "30004") => ReceiptKind::PermissionOff,
        ("undelivered" | "failed", "30003") => ReceiptKind::Failed(Reason::NoChannel),
        ("undelivered" | "failed", "30008") => ReceiptKind::Failed(Reason::VendorUnavailable),
        ("undelivered" | "failed", "30007") => ReceiptKind::Failed(Reason::PayloadRejected),
        ("undelivered" | "failed", "30001") => ReceiptKind::Failed(Reason::VendorRateLimited),
        ("undelivered" | "failed", "30002" | "30034") => {
            ReceiptKind::Failed(Reason::CredentialInvalid)
        }
        ("undelivered" | "failed", _) => ReceiptKind::Failed(Reason::RetriesExhausted),
        _ => ReceiptKind::Other,
    }
}

/// Twilio for one app.
#[derive(Debug)]
pub(super) struct Sender {
    config: Config,
    pool: h1::Pool,
    egress: Egress,
    callback: Option<ReceiptUrl>,
    /// Texts that failed in a way that deserves one more try, and had it.
    tried: Told,
}

impl Sender {
    pub(super) fn open(
        config: Config,
        credential: &OpenCredential,
        egress: &Egress,
    ) -> Result<Self, ChannelError> {
        let endpoint = credential.endpoint.as_deref().unwrap_or(HOST);
        let origin = Origin::parse(endpoint).map_err(|e| ChannelError::Config {
            detail: e.to_string(),
        })?;
        Ok(Self {
            pool: h1::Pool::new(egress, origin),
            egress: egress.clone(),
            callback: config
                .callback
                .clone()
                .or_else(|| credential.callback.clone().map(ReceiptUrl::new)),
            config,
            tried: Told::default(),
        })
    }

    fn path(&self) -> String {
        format!(
            "/2010-04-01/Accounts/{}/Messages.json",
            self.config.account_sid
        )
    }

    async fn call(
        &self,
        method: Method,
        path: String,
        body: String,
        until: Instant,
    ) -> Result<Answer, Verdict> {
        let mut headers = HeaderMap::with_capacity(2);
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
        if let Ok(mut value) = HeaderValue::from_str(&self.config.basic()) {
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let call = Call {
            method,
            path,
            headers,
            body: body.into(),
        };
        self.pool.call(&call, until).await.map_err(|e| e.verdict())
    }

    /// Twilio's codes 30003 and 30008 deserve one more try; the next time they are the end.
    fn at_most_once_more(
        &self,
        encoded: &Encoded,
        number: &str,
        answer: &Answer,
        verdict: Verdict,
    ) -> Verdict {
        let code = code_of(answer);
        let reason = match code {
            Some(30003) => Reason::NoChannel,
            Some(30008) => Reason::VendorUnavailable,
            _ => return verdict,
        };
        let text = format!("{} {number}", encoded.message);
        if self.tried.is_new(&text) {
            return verdict;
        }
        Verdict::Refused {
            reason,
            detail: texts::detail(&format!("{}, twice", verdict.detail())),
        }
    }

    /// Whether the request carries Twilio's signature.
    fn verify(
        &self,
        request: &CallbackRequest<'_>,
        parameters: &[(String, String)],
    ) -> Result<bool, CallbackError> {
        let wrong = |what: &str| CallbackError::Signature(what.to_owned());
        // With an API key alone there is nothing to check with: the secret of the address must do.
        let Some(token) = &self.config.auth_token else {
            return Ok(false);
        };
        let header = request
            .header(SIGNATURE)
            .ok_or_else(|| wrong("X-Twilio-Signature is missing"))?;
        let given = STANDARD
            .decode(header.trim())
            .map_err(|_| wrong("X-Twilio-Signature is not base64"))?;
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, token.expose());
        let holds = urls(request.url).iter().any(|url| {
            let text: Vec<u8> = signed_text(url, parameters);
            hmac::verify(&key, &text, &given).is_ok()
        });
        if holds {
            Ok(true)
        } else {
            Err(wrong(
                "X-Twilio-Signature is of another token, address or body",
            ))
        }
    }
}

/// What Twilio signs with HMAC-SHA1: the address, then each parameter in order of names, without separators.
fn signed_text(url: &str, parameters: &[(String, String)]) -> Vec<u8> {
    let mut sorted: Vec<&(String, String)> = parameters.iter().collect();
    sorted.sort();
    let mut text = url.to_owned();
    for (name, value) in sorted {
        text.push_str(name);
        text.push_str(value);
    }
    text.into_bytes()
}

/// The address as it may have been signed: with and without the usual port.
fn urls(url: &str) -> Vec<String> {
    let mut all = vec![url.to_owned()];
    if let Some((scheme, rest)) = url.split_once("://") {
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let port = if scheme == "https" { ":443" } else { ":80" };
        match authority.strip_suffix(port) {
            Some(bare) => all.push(format!("{scheme}://{bare}{path}")),
            None if !authority.contains(':') => {
                all.push(format!("{scheme}://{authority}{port}{path}"));
            }
            None => {}
        }
    }
    all
}

#[async_trait]
impl Provider for Sender {
    fn encode(
        &self,
        common: &Common,
        outbound: &Outbound,
        words: &Words,
    ) -> Result<Encoded, (Reason, String)> {
        let message = &outbound.message;
        let mut truncated = Vec::new();
        let header = segments::Header::Short;
        let (text, plan) = common.cut_text(message, words, header, &mut truncated);
        let short = texts::shorten("body", &text, TEXT_CHARS_MAX, &mut truncated);
        let plan = if short == text {
            plan
        } else {
            segments::plan(&short, header)
        };
        let validity = vendor::ttl(outbound, super::CAPABILITY.ttl_max).as_secs();
        let mut body = Map::from_iter([
            ("Body".to_owned(), short.into()),
            (
                "ValidityPeriod".to_owned(),
                validity.clamp(1, VALIDITY_S_MAX).to_string().into(),
            ),
        ]);
        match (&self.config.from, &self.config.messaging_service_sid) {
            (Some(from), _) => body.insert("From".to_owned(), from.as_str().into()),
            (None, Some(service)) => {
                body.insert("MessagingServiceSid".to_owned(), service.as_str().into())
            }
            (None, None) => None,
        };
        common.merge(
            &mut body,
            outbound,
            &["To", "StatusCallback"],
            &["From", "MessagingServiceSid", "ContentSid"],
        );
        if let Some(callback) = &self.callback {
            let callback = callback.as_str();
            let joint = if callback.contains('?') { '&' } else { '?' };
            let url = format!("{callback}{joint}{MESSAGE}={}", message.id);
            body.insert("StatusCallback".to_owned(), url.into());
        }
        // A form has texts only.
        for value in body.values_mut() {
            if !value.is_string() {
                *value = value.to_string().into();
            }
        }
        let counts = counted(plan.alphabet.as_str(), plan.units, plan.segments.len());
        Ok(Encoded {
            parcel: Parcel {
                method: "POST",
                path: self.path(),
                headers: counts,
                body: Value::Object(body),
                truncated,
                downgraded: None,
            },
            parts: Vec::new(),
            message: message.id,
        })
    }

    async fn send(&self, encoded: &Encoded, numbers: &[&str], until: Instant) -> Vec<Verdict> {
        let fields = encoded.parcel.body.as_object().into_iter().flatten();
        let form = texts::form(fields.map(|(k, v)| (k.as_str(), v.as_str().unwrap_or_default())));
        let each = numbers.iter().map(|number| {
            let body = format!("{form}&To={}", texts::escaped(number));
            async move {
                match self.call(Method::POST, self.path(), body, until).await {
                    Ok(answer) => {
                        let verdict = decode(&answer, self.egress.now());
                        self.at_most_once_more(encoded, number, &answer, verdict)
                    }
                    Err(verdict) => verdict,
                }
            }
        });
        vendor::fan_out(each.collect()).await
    }

    /// Asks for a message that there is not: nothing is sent.
    async fn check(&self, until: Instant) -> CheckReport {
        let path = self
            .path()
            .replace(".json", &format!("/SM{}.json", "0".repeat(32)));
        let verdict = match self.call(Method::GET, path, String::new(), until).await {
            Ok(answer) if answer.status == 200 => accepted(None),
            Ok(answer) => {
                let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
                match body.get("code").and_then(Value::as_u64) {
                    Some(20404) => accepted(None),
                    _ => decode(&answer, self.egress.now()),
                }
            }
            Err(verdict) => verdict,
        };
        report("Twilio", &verdict)
    }

    fn callback(&self, request: &CallbackRequest<'_>) -> Option<Result<Callback, CallbackError>> {
        Some(self.read_callback(request))
    }
}

impl Sender {
    fn read_callback(&self, request: &CallbackRequest<'_>) -> Result<Callback, CallbackError> {
        let malformed = |what: &str| CallbackError::Malformed(what.to_owned());
        let query = texts::query_of(request.url);
        let of_query = |name: &str| {
            query
                .iter()
                .find(|(n, _)| n == name)
                .map(|(_, v)| v.as_str())
        };
        let kind_of_body = request.header("content-type").unwrap_or_default();
        let parameters = if kind_of_body.starts_with("application/json") {
            // JSON is signed by its hash, which is in the signed address.
            let sum = hex(digest::digest(&digest::SHA256, request.body).as_ref());
            if of_query("bodySHA256").is_some_and(|given| !given.eq_ignore_ascii_case(&sum)) {
                return Err(CallbackError::Signature(
                    "bodySHA256 is of another body".to_owned(),
                ));
            }
            Vec::new()
        } else {
            let text = std::str::from_utf8(request.body)
                .map_err(|_| malformed("the body is not a form in UTF-8"))?;
            texts::parse_form(text)
        };
        let signed = self.verify(request, &parameters)?;
        let text = |name: &str| {
            let found = parameters.iter().find(|(n, _)| n == name);
            found.map(|(_, v)| v.as_str()).unwrap_or_default()
        };
        let sid = [text("MessageSid"), text("SmsSid")]
            .into_iter()
            .find(|s| !s.is_empty());
        let status = [text("MessageStatus"), text("SmsStatus")]
            .into_iter()
            .find(|s| !s.is_empty());
        let answer = |receipts| Callback {
            receipts,
            signed,
            content_type: "text/xml",
            body: "<Response/>".to_owned(),
        };
        let (Some(sid), Some(status)) = (sid, status) else {
            let why = "Twilio posts a form with MessageSid and MessageStatus".to_owned();
            return Err(match signed {
                true => CallbackError::SignedMalformed(why),
                false => CallbackError::Malformed(why),
            });
        };
        let code = text("ErrorCode");
        let words = format!("{status} {code} {}", text("ErrorMessage"));
        Ok(answer(vec![Receipt {
            kind: kind(status, code),
            message: of_query(MESSAGE).and_then(|id| MessageId::parse(id).ok()),
            vendor_id: Some(texts::detail(sid)),
            token: telephone::normalise(text("To"), Some("1"))
                .ok()
                .map(Secret::new),
            at: None,
            detail: texts::detail(words.trim_end()),
        }]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_the_worked_example() {
        let parameters: Vec<(String, String)> = [
            ("To", "+18005551212"),
            ("CallSid", "CA1234567890ABCDE"),
            ("Caller", "+14158675309"),
            ("Digits", "1234"),
            ("From", "+14158675309"),
        ]
        .iter()
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
        .collect();
        let url = "https://mycompany.com/myapp.php?foo=1&bar=2";
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, b"12345");
        let got = STANDARD.encode(hmac::sign(&key, &signed_text(url, &parameters)).as_ref());
        assert_eq!(got, "RSOYDt4T1cUTdK1PDd93/VVr8B8=");
    }

    #[test]
    fn addresses_are_tried_with_and_without_their_port() {
        let check = |url: &str, want: &[&str]| assert_eq!(urls(url), want);
        check(
            "https://a.example/x?y",
            &["https://a.example/x?y", "https://a.example:443/x?y"],
        );
        check(
            "https://a.example:443/x",
            &["https://a.example:443/x", "https://a.example/x"],
        );
        check("http://a.example:8080/x", &["http://a.example:8080/x"]);
        check(
            "http://a.example?y",
            &["http://a.example?y", "http://a.example:80?y"],
        );
    }
}
