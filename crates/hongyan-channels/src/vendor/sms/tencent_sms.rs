//! Tencent Cloud SMS (`tencent_sms`): approved templates with numbered variables, `SendSms` of version 2021-01-11.
//!
//! Sources: Tencent Cloud documents 382/55981, 40536 (SendSms), 382/43547 and 5807 (status notification), API 3.0
//! signature v3, and the error list of the SDK, read 2026-11. Unverified: limits of a number beyond one in 30 s. The
//! receipt post is not signed: it is trusted by the secret in its address alone, and one that comes again changes nothing. The
//! call is not idempotent: after a lost answer or a server's fault the text may have been sent, and is not sent again.
//!
//! | credential | what |
//! | --- | --- |
//! | `secret_id`, `secret_key`, `token` | key of a sub-account; the token for temporary keys |
//! | `sdk_app_id` | `1400…` |
//! | `sign_name` | the approved signature; needed for mainland numbers |
//! | `templates` | for each class, or `default`: `{"id": "1234", "params": ["{title}", "{body}"], "text": "…{1}…", "sign_name": …}`; `text` is for the count of short messages only |
//! | `param_chars_max` | longest value of a variable, characters; default 500 (accounts of single persons: 12) |
//! | `region` | default `ap-guangzhou` |
//! | `sender_id` | sender of texts abroad |

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use hongyan_core::port::{
    Callback, CallbackError, CallbackRequest, ChannelError, CheckReport, OpenCredential, Outbound,
    Parcel, Receipt, ReceiptKind,
};
use hongyan_core::verdict::Unsure;
use hongyan_core::{Reason, Secret, Timestamp, Verdict, telephone};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use ring::{digest, hmac};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::receipts::{beijing_time, kind_of};
use super::{Common, Encoded, Provider, Templates, Words, counted, number, report, segments};
use crate::acs::{hex, server_time};
use crate::answer::{
    accepted, credential_bad, mend, rate_limited, refused, retry_after, token_dead, too_large,
    unavailable, unreadable, until_beijing_midnight,
};
use crate::config::{self, Fields};
use crate::egress::{Egress, Origin};
use crate::http::{Answer, Call, h1};
use crate::{texts, vendor};

const HOST: &str = "https://sms.tencentcloudapi.com";
const VERSION: &str = "2021-01-11";
const SERVICE: &str = "sms";
const CONTENT_TYPE: &str = "application/json; charset=utf-8";
/// Numbers in one request.
const NUMBERS_MAX: usize = 200;
const PARAM_CHARS_DEFAULT: u64 = 500;
/// Receipts in one post.
const RECEIPTS_MAX: usize = 10_000;

/// What the console shows.
#[derive(Debug)]
pub(super) struct Config {
    secret_id: String,
    secret_key: Secret,
    token: Option<Secret>,
    sdk_app_id: String,
    sign_name: Option<String>,
    templates: Templates<Vec<String>>,
    param_chars_max: usize,
    region: String,
    sender_id: Option<String>,
}

impl Config {
    pub(super) fn read(fields: &mut Fields<'_>) -> Self {
        let header = |text: &str| match HeaderValue::from_str(text) {
            Ok(_) if !text.contains([',', '/', ' ']) => Ok(text.to_owned()),
            _ => Err("has characters that no SecretId has".to_owned()),
        };
        let secret_id = fields.checked("secret_id", "the SecretId of a sub-account", header);
        let secret_key = fields.text("secret_key", "the SecretKey of that account");
        let token = fields.optional_text("token").map(Secret::new);
        let sdk_app_id = fields.checked("sdk_app_id", "the SdkAppId, 1400…", |text| {
            if text.bytes().all(|b| b.is_ascii_digit()) {
                Ok(text.to_owned())
            } else {
                Err("must be digits".to_owned())
            }
        });
        let sign_name = fields.optional_text("sign_name");
        let templates = Templates::read(
            fields,
            |part| part.texts("params").unwrap_or_default(),
            |id| id.bytes().all(|b| b.is_ascii_digit()),
        );
        let region = fields
            .optional_text("region")
            .unwrap_or_else(|| "ap-guangzhou".to_owned());
        if !region
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-')
        {
            fields.fault("region", "is not a region such as ap-guangzhou");
        }
        let param_chars_max = fields.number("param_chars_max", 1..=1000, PARAM_CHARS_DEFAULT);
        Self {
            secret_id: secret_id.unwrap_or_default(),
            secret_key: Secret::new(secret_key),
            token,
            sdk_app_id: sdk_app_id.unwrap_or_default(),
            sign_name,
            templates,
            param_chars_max: usize::try_from(param_chars_max).unwrap_or(500),
            region,
            sender_id: fields.optional_text("sender_id"),
        }
    }

    pub(super) fn shown(&self) -> Map<String, Value> {
        config::shown([
            ("secret_id", Some(self.secret_id.as_str().into())),
            ("sdk_app_id", Some(self.sdk_app_id.as_str().into())),
            ("sign_name", self.sign_name.as_deref().map(Value::from)),
            ("templates", Some(self.templates.shown())),
            ("region", Some(self.region.as_str().into())),
        ])
    }
}

/// `TC3-HMAC-SHA256` over a POST of JSON: the value of `Authorization`. `action` is signed when it is given.
fn authorization(
    (secret_id, secret_key): (&str, &str),
    (service, host, action): (&str, &str, Option<&str>),
    content_type: &str,
    at_s: i64,
    body: &[u8],
) -> String {
    let mut headers = format!("content-type:{content_type}\nhost:{host}\n");
    let mut names = "content-type;host".to_owned();
    if let Some(action) = action {
        headers.push_str(&format!("x-tc-action:{}\n", action.to_ascii_lowercase()));
        names.push_str(";x-tc-action");
    }
    let sha = |bytes: &[u8]| hex(digest::digest(&digest::SHA256, bytes).as_ref());
    let canonical = format!("POST\n/\n\n{headers}\n{names}\n{}", sha(body));
    let day = jiff::Timestamp::from_second(at_s).unwrap_or_default();
    let day = day.strftime("%Y-%m-%d").to_string();
    let scope = format!("{day}/{service}/tc3_request");
    let text = format!(
        "TC3-HMAC-SHA256\n{at_s}\n{scope}\n{}",
        sha(canonical.as_bytes())
    );
    let mac = |key: &[u8], text: &str| {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes())
    };
    let of_day = mac(format!("TC3{secret_key}").as_bytes(), &day);
    let of_service = mac(of_day.as_ref(), service);
    let of_request = mac(of_service.as_ref(), "tc3_request");
    let signature = hex(mac(of_request.as_ref(), &text).as_ref());
    format!(
        "TC3-HMAC-SHA256 Credential={secret_id}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
}

/// What a code means, of a whole call or of one number.
fn judge(code: &str, words: &str, now: Timestamp) -> Verdict {
    let frequency = || Verdict::Refused {
        reason: Reason::FrequencyCap,
        detail: texts::detail(words),
    };
    match code {
        "LimitExceeded.AppDailyLimit" | "LimitExceeded.DailyLimit" => Verdict::QuotaExhausted {
            until: Some(until_beijing_midnight(now)),
            detail: texts::detail(words),
        },
        "LimitExceeded.PhoneNumberCountLimit" => refused(words),
        code if code.starts_with("LimitExceeded.") => frequency(),
        "RequestLimitExceeded" => rate_limited(None, words),
        "InvalidParameterValue.IncorrectPhoneNumber" => token_dead(words),
        "InvalidParameterValue.ContentLengthLimit"
        | "InvalidParameterValue.TemplateParameterLengthLimit" => too_large(words),
        "InvalidParameterValue.SdkAppIdNotExist" => mend(words, "check sdk_app_id"),
        // The person opted out.
        "FailedOperation.PhoneNumberInBlacklist" => Verdict::Refused {
            reason: Reason::PermissionOff,
            detail: texts::detail(words),
        },
        "FailedOperation.MarketingSendTimeConstraint" => Verdict::QuotaExhausted {
            until: Some(until_beijing_eight(now)),
            detail: texts::detail(words),
        },
        "AuthFailure.SignatureExpire" | "InternalError.RequestTimeException" => {
            mend(words, "set this machine's clock")
        }
        "FailedOperation.SignatureIncorrectOrUnapproved"
        | "FailedOperation.TemplateIncorrectOrUnapproved" => mend(
            words,
            "check that the signature and the template are approved in Tencent's console",
        ),
        "FailedOperation.InsufficientBalanceInSmsPackage" => {
            mend(words, "buy texts: the package is used up")
        }
        code if code.starts_with("AuthFailure.") || code.starts_with("UnauthorizedOperation") => {
            mend(
                words,
                "check secret_id, secret_key and the key's right to send",
            )
        }
        // It may have been sent.
        code if code.starts_with("InternalError") => Verdict::Retry {
            reason: Reason::VendorUnavailable,
            after: None,
            detail: texts::detail(words),
            certainty: Unsure::MaybeTaken,
        },
        _ => refused(words),
    }
}

/// Marketing texts go from 8 to 22 o'clock in Beijing.
fn until_beijing_eight(now: Timestamp) -> std::time::Duration {
    let wait = until_beijing_midnight(now) + std::time::Duration::from_secs(8 * 3600);
    let day = std::time::Duration::from_secs(86_400);
    if wait > day { wait - day } else { wait }
}

/// What an answer to `SendSms` means: for all, or by number.
enum Said {
    All(Verdict),
    Each(BTreeMap<String, Verdict>),
}

fn read(answer: &Answer, now: Timestamp) -> Said {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let text = |value: &Value, name: &str| {
        let found = value.get(name).and_then(Value::as_str);
        found.unwrap_or_default().to_owned()
    };
    if let Some(error) = body.pointer("/Response/Error") {
        let code = text(error, "Code");
        return Said::All(judge(
            &code,
            &format!("{code} {}", text(error, "Message")),
            now,
        ));
    }
    let Some(each) = body
        .pointer("/Response/SendStatusSet")
        .and_then(Value::as_array)
    else {
        let after = retry_after(&answer.headers, now);
        let words = format!("Tencent answered status {}", answer.status);
        return Said::All(match answer.status {
            200..=299 => unreadable(answer.status),
            429 => rate_limited(after, &words),
            401 | 403 | 404 => mend(&words, "check secret_id, secret_key, region and endpoint"),
            400..=499 => refused(&words),
            500..=599 => vendor::maybe_taken(unavailable(after, &words)),
            status => unreadable(status),
        });
    };
    let each = each.iter().map(|one| {
        let code = text(one, "Code");
        let verdict = match code.as_str() {
            "Ok" => accepted(one.get("SerialNo").and_then(Value::as_str)),
            "" => unreadable(answer.status),
            _ => judge(&code, &format!("{code} {}", text(one, "Message")), now),
        };
        (text(one, "PhoneNumber"), verdict)
    });
    Said::Each(each.collect())
}

/// What an answer means for its one number.
pub(super) fn decode(answer: &Answer, now: Timestamp) -> Verdict {
    match read(answer, now) {
        Said::All(verdict) => verdict,
        Said::Each(each) => each
            .into_values()
            .next()
            .unwrap_or_else(|| unreadable(answer.status)),
    }
}

/// Tencent Cloud SMS for one app.
#[derive(Debug)]
pub(super) struct Sender {
    config: Config,
    pool: h1::Pool,
    host: String,
    egress: Egress,
    /// By how much our clock differs from theirs, seconds.
    skew_s: AtomicI64,
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
            host: origin.authority(),
            pool: h1::Pool::new(egress, origin),
            egress: egress.clone(),
            config,
            skew_s: AtomicI64::new(0),
        })
    }

    fn headers(&self, action: &str, body: &[u8]) -> Result<HeaderMap, Verdict> {
        let now_s = self.egress.now().millis().div_euclid(1000);
        let at_s = now_s.saturating_add(self.skew_s.load(Ordering::Relaxed));
        let secret = self.config.secret_key.expose_str().unwrap_or_default();
        let authorization = authorization(
            (&self.config.secret_id, secret),
            (SERVICE, &self.host, Some(action)),
            CONTENT_TYPE,
            at_s,
            body,
        );
        let token = self.config.token.as_ref().and_then(Secret::expose_str);
        let mut headers = HeaderMap::new();
        let at = at_s.to_string();
        let pairs = [
            ("content-type", Some(CONTENT_TYPE)),
            ("x-tc-action", Some(action)),
            ("x-tc-version", Some(VERSION)),
            ("x-tc-region", Some(self.config.region.as_str())),
            ("x-tc-timestamp", Some(at.as_str())),
            ("x-tc-token", token),
            ("authorization", Some(authorization.as_str())),
        ];
        for (name, value) in pairs {
            let Some(value) = value else { continue };
            let mut value = HeaderValue::from_str(value).map_err(|_| {
                credential_bad("the credential has characters that no header may have")
            })?;
            value.set_sensitive(matches!(name, "authorization" | "x-tc-token"));
            headers.insert(HeaderName::from_static(name), value);
        }
        Ok(headers)
    }

    /// A signed call; a clock that is wrong is mended once.
    async fn call(&self, action: &str, body: &Value, until: Instant) -> Result<Answer, Verdict> {
        let body = Bytes::from(body.to_string());
        let mut mended = false;
        loop {
            let call = Call {
                method: Method::POST,
                path: "/".to_owned(),
                headers: self.headers(action, &body)?,
                body: body.clone(),
            };
            let answer = self
                .pool
                .call(&call, until)
                .await
                .map_err(|e| e.verdict())?;
            let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            let code = said.pointer("/Response/Error/Code").and_then(Value::as_str);
            let expired = matches!(
                code,
                Some("AuthFailure.SignatureExpire" | "InternalError.RequestTimeException")
            );
            match server_time(&answer.headers).filter(|_| expired && !mended) {
                Some(theirs) => {
                    let skew = theirs.millis().saturating_sub(self.egress.now().millis());
                    self.skew_s.store(skew.div_euclid(1000), Ordering::Relaxed);
                    mended = true;
                }
                None => return Ok(answer),
            }
        }
    }

    async fn send_part(
        &self,
        encoded: &Encoded,
        numbers: &[&str],
        until: Instant,
    ) -> BTreeMap<String, Verdict> {
        let all = |verdict: &Verdict| {
            numbers
                .iter()
                .map(|n| ((*n).to_owned(), verdict.clone()))
                .collect()
        };
        let mut body = encoded.parcel.body.clone();
        if let Some(body) = body.as_object_mut() {
            body.insert("PhoneNumberSet".to_owned(), numbers.to_vec().into());
        }
        let answer = match self.call("SendSms", &body, until).await {
            Ok(answer) => answer,
            Err(verdict) => return all(&verdict),
        };
        match read(&answer, self.egress.now()) {
            Said::All(verdict) => all(&verdict),
            Said::Each(each) => each,
        }
    }
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
        let template = self.config.templates.of(message)?;
        let mut truncated = Vec::new();
        let max = self.config.param_chars_max;
        let params: Vec<String> = template
            .params
            .iter()
            .map(|pattern| texts::shorten("body", &words.fill(pattern), max, &mut truncated))
            .collect();
        let sign_name = template
            .sign_name
            .as_ref()
            .or(self.config.sign_name.as_ref());
        let headers = match &template.text {
            Some(text) => {
                let mut whole = sign_name.map(|s| format!("【{s}】")).unwrap_or_default();
                whole.push_str(text);
                for (at, value) in params.iter().enumerate() {
                    whole = whole.replace(&format!("{{{}}}", at + 1), value);
                }
                let units = whole.encode_utf16().count();
                counted("ucs-2", units, segments::mainland_count(&whole))
            }
            None => Vec::new(),
        };
        let mut body = Map::from_iter([
            (
                "SmsSdkAppId".to_owned(),
                self.config.sdk_app_id.as_str().into(),
            ),
            ("TemplateId".to_owned(), template.id.as_str().into()),
            ("TemplateParamSet".to_owned(), params.into()),
        ]);
        if let Some(sign) = sign_name {
            body.insert("SignName".to_owned(), sign.as_str().into());
        }
        if let Some(sender) = &self.config.sender_id {
            body.insert("SenderId".to_owned(), sender.as_str().into());
        }
        common.merge(
            &mut body,
            outbound,
            &["PhoneNumberSet", "SessionContext", "SmsSdkAppId"],
            &["SignName", "TemplateId", "SenderId"],
        );
        body.insert("SessionContext".to_owned(), message.id.to_string().into());
        Ok(Encoded {
            parcel: Parcel {
                method: "POST",
                path: "/".to_owned(),
                headers,
                body: Value::Object(body),
                truncated,
                downgraded: None,
            },
            parts: Vec::new(),
            message: message.id,
        })
    }

    /// Mainland numbers and others have calls of their own, for Tencent takes no mixture; few messages go to both, so that one is
    /// counted.
    fn requests(&self, _numbers: usize) -> usize {
        1
    }

    async fn send(&self, encoded: &Encoded, numbers: &[&str], until: Instant) -> Vec<Verdict> {
        let (home, abroad): (Vec<&str>, Vec<&str>) = numbers
            .iter()
            .copied()
            .partition(|n| number::is_mainland(n));
        let mut all = BTreeMap::new();
        for part in home.chunks(NUMBERS_MAX).chain(abroad.chunks(NUMBERS_MAX)) {
            all.extend(self.send_part(encoded, part, until).await);
        }
        let missing = || unreadable(200);
        numbers
            .iter()
            .map(|number| all.remove(*number).unwrap_or_else(missing))
            .collect()
    }

    /// Asks for the texts to one number: nothing is sent.
    async fn check(&self, until: Instant) -> CheckReport {
        let now = self.egress.now();
        let body = json!({
            "BeginTime": now.millis().div_euclid(1000), "Offset": 0, "Limit": 1,
            "PhoneNumber": "+8613000000000", "SmsSdkAppId": self.config.sdk_app_id,
        });
        let verdict = match self
            .call("PullSmsSendStatusByPhoneNumber", &body, until)
            .await
        {
            Ok(answer) => {
                let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
                if said.pointer("/Response/PullSmsSendStatusSet").is_some() {
                    accepted(None)
                } else {
                    decode(&answer, now)
                }
            }
            Err(verdict) => verdict,
        };
        report("Tencent Cloud SMS", &verdict)
    }

    fn callback(&self, request: &CallbackRequest<'_>) -> Option<Result<Callback, CallbackError>> {
        let malformed = |what: &str| Some(Err(CallbackError::Malformed(what.to_owned())));
        let reports = match serde_json::from_slice::<Value>(request.body) {
            Ok(Value::Array(reports)) if reports.len() <= RECEIPTS_MAX => reports,
            // An inbound text is one object; it changes nothing.
            Ok(Value::Object(_)) => Vec::new(),
            _ => return malformed("Tencent posts a JSON array of statuses"),
        };
        let receipts = reports.iter().filter_map(receipt);
        Some(Ok(Callback {
            receipts: receipts.collect(),
            signed: false,
            content_type: "application/json",
            body: json!({"result": 0, "errmsg": "OK"}).to_string(),
        }))
    }
}

fn receipt(report: &Value) -> Option<Receipt> {
    let text = |name: &str| report.get(name).and_then(Value::as_str).unwrap_or_default();
    let (serial, status, state) = (text("sid"), text("report_status"), text("errmsg"));
    if serial.is_empty() {
        return None;
    }
    let kind = match (status, kind_of(state)) {
        ("SUCCESS", _) => ReceiptKind::Delivered,
        ("FAIL", ReceiptKind::Other | ReceiptKind::Delivered) => {
            ReceiptKind::Failed(Reason::RetriesExhausted)
        }
        (_, kind) => kind,
    };
    let number = format!("+{}{}", text("nationcode"), text("mobile"));
    Some(Receipt {
        kind,
        // The notification names the text by its serial number alone.
        message: None,
        vendor_id: Some(serial.to_owned()),
        token: telephone::normalise(&number, Some("86"))
            .ok()
            .map(Secret::new),
        at: beijing_time(text("user_receive_time")),
        detail: texts::detail(&format!("{state} {}", text("description"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_the_worked_examples() {
        let check = |got: String, want: &str| {
            assert!(got.ends_with(&format!("Signature={want}")), "{got}");
        };
        check(
            authorization(
                ("AKIDz8krbsJ5yKBZQpn74WFkmLPx3EXAMPLE", "Gu5t9xGARNpq86cd98joQYCN3EXAMPLE"),
                ("cvm", "cvm.tencentcloudapi.com", None),
                CONTENT_TYPE,
                1_551_113_065,
                br#"{"Limit": 1, "Filters": [{"Values": ["\u672a\u547d\u540d"], "Name": "instance-name"}]}"#,
            ),
            "72e494ea809ad7a8c8f7a4507b9bddcbaa8e581f516e8da2f66e2c5a96525168",
        );
        check(
            authorization(
                ("AKID", "testsecret"),
                ("sms", "sms.tencentcloudapi.com", Some("SendSms")),
                CONTENT_TYPE,
                1_700_000_000,
                br#"{"PhoneNumberSet":["+8613711112222"],"SmsSdkAppId":"1400006666","SignName":"TestSign","TemplateId":"1234","TemplateParamSet":["12345"]}"#,
            ),
            "62137ee8ae9d8362bd0ee55adfb4a66ca52773702653238b993e0bf77216b12f",
        );
    }
}
