//! Aliyun SMS (`aliyun_sms`): approved templates with variables, `SendSms` of version 2017-05-25.
//!
//! Sources: Alibaba Cloud help pages of SendSms, QuerySendDetails, SmsReport and the error codes, read 2026-11.
//! Unverified: the longest variable (`param_chars_max`, default 35). The call is not idempotent: where an answer
//! got lost, is a server's fault (5xx) or says that the nonce was seen before, the text may have been sent, and is not sent
//! again. The receipt post is not signed: it is trusted by the secret in its address alone, and one that comes again changes
//! nothing.
//!
//! | credential | what |
//! | --- | --- |
//! | `access_key_id`, `access_key_secret`, `security_token` | key of a RAM user with the right `dysms:SendSms`; the token for temporary keys |
//! | `sign_name` | the approved signature, without its brackets |
//! | `templates` | for each class, or `default`: `{"id": "SMS_1", "params": {"variable": "{title} {body}"}, "text": "…${variable}…", "sign_name": …}`; `text` is for the count of short messages only |
//! | `param_chars_max` | longest value of a variable, characters |
//! | `region` | host `dysmsapi.<region>.aliyuncs.com` instead of the central one |

use std::collections::BTreeMap;

use async_trait::async_trait;
use hongyan_core::port::{
    Callback, CallbackError, CallbackRequest, ChannelError, CheckReport, OpenCredential, Outbound,
    Parcel, Receipt, ReceiptKind,
};
use hongyan_core::{MessageId, Reason, Secret, Timestamp, Verdict, telephone};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::receipts::{beijing_time, kind_of};
use super::{Common, Encoded, Provider, Templates, Words, counted, number, report, segments};
use crate::acs::{self, AccessKey, Repeats, Service};
use crate::answer::{
    accepted, mend, quota, refused, token_dead, too_large, unreadable, until_beijing_midnight,
};
use crate::config::{self, Fields};
use crate::egress::{Egress, Origin};
use crate::http::Answer;
use crate::{texts, vendor};

const HOST: &str = "https://dysmsapi.aliyuncs.com";
const VERSION: &str = "2017-05-25";
/// Characters of one variable.
const PARAM_CHARS_DEFAULT: u64 = 35;
/// Receipts in one post.
const RECEIPTS_MAX: usize = 10_000;

/// What the console shows.
#[derive(Debug)]
pub(super) struct Config {
    key: AccessKey,
    sign_name: String,
    templates: Templates<BTreeMap<String, String>>,
    param_chars_max: usize,
    region: Option<String>,
}

impl Config {
    pub(super) fn read(fields: &mut Fields<'_>) -> Self {
        let key = AccessKey::read(fields);
        let sign_name = fields.text("sign_name", "the approved signature");
        let templates = Templates::read(fields, params, |id| {
            id.starts_with("SMS_") && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        });
        let param_chars_max = fields.number("param_chars_max", 1..=1000, PARAM_CHARS_DEFAULT);
        let region = fields.optional_text("region");
        let plain = |text: &String| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if region.as_ref().is_some_and(|r| !plain(r)) {
            fields.fault("region", "is not a region id such as ap-southeast-1");
        }
        Self {
            key,
            sign_name,
            templates,
            param_chars_max: usize::try_from(param_chars_max).unwrap_or(35),
            region,
        }
    }

    pub(super) fn shown(&self) -> Map<String, Value> {
        config::shown([
            ("access_key_id", Some(self.key.id.as_str().into())),
            ("sign_name", Some(self.sign_name.as_str().into())),
            ("templates", Some(self.templates.shown())),
            ("region", self.region.as_deref().map(Value::from)),
        ])
    }
}

fn params(fields: &mut Fields<'_>) -> BTreeMap<String, String> {
    let mut params = BTreeMap::new();
    match fields.value("params") {
        None => {}
        Some(Value::Object(object)) => {
            for (name, value) in object {
                match value.as_str() {
                    Some(text) => {
                        params.insert(name.clone(), text.to_owned());
                    }
                    None => fields.fault(&format!("params/{name}"), "must be a text"),
                }
            }
        }
        Some(_) => fields.fault("params", "must map the template's variables to texts"),
    }
    params
}

/// What an answer to `SendSms` means.
pub(super) fn decode(answer: &Answer, now: Timestamp) -> Verdict {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
    let code = text("Code");
    let words = format!("{code} {}", text("Message"));
    if code.is_empty() {
        return match answer.status {
            200..=299 => unreadable(answer.status),
            status => vendor::maybe_taken(acs::by_status(
                answer,
                &format!("Aliyun answered status {status}"),
                now,
            )),
        };
    }
    if let Some(verdict) = acs::gateway(answer, code, &words, now) {
        return vendor::maybe_taken(verdict);
    }
    match code {
        "OK" => accepted(body.get("BizId").and_then(Value::as_str)),
        // A limit of this number: other numbers are not affected.
        "isv.BUSINESS_LIMIT_CONTROL" => Verdict::Refused {
            reason: Reason::FrequencyCap,
            detail: texts::detail(&words),
        },
        "isv.DAY_LIMIT_CONTROL" => Verdict::QuotaExhausted {
            until: Some(until_beijing_midnight(now)),
            detail: texts::detail(&words),
        },
        "isv.MONTH_LIMIT_CONTROL" => quota(&words),
        "isv.MOBILE_NUMBER_ILLEGAL" => token_dead(&words),
        "isv.PARAM_LENGTH_LIMIT" => too_large(&words),
        "isv.SMS_TEMPLATE_ILLEGAL"
        | "isv.SMS_SIGNATURE_ILLEGAL"
        | "isv.SMS_SIGN_ILLEGAL"
        | "isv.SMS_SIGNATURE_SCENE_ILLEGAL"
        | "isv.OUT_OF_SERVICE"
        | "isv.AMOUNT_NOT_ENOUGH"
        | "isv.ACCOUNT_ABNORMAL"
        | "isv.ACCOUNT_NOT_EXISTS"
        | "isv.PRODUCT_UN_SUBSCRIPT"
        | "isv.PRODUCT_UNSUBSCRIBE"
        | "isv.DENY_IP_RANGE"
        | "isp.RAM_PERMISSION_DENY" => mend(
            &words,
            "check sign_name, templates, the account's balance and the RAM user's right dysms:SendSms in Aliyun's console",
        ),
        // They may have sent it all the same.
        "isp.SYSTEM_ERROR" | "isp.GATEWAY_ERROR" | "isp.UNKNOWN" => Verdict::Retry {
            reason: Reason::VendorUnavailable,
            after: None,
            detail: texts::detail(&words),
            certainty: hongyan_core::verdict::Unsure::MaybeTaken,
        },
        code if code.starts_with("isv.") => refused(&words),
        _ => vendor::maybe_taken(acs::by_status(answer, &words, now)),
    }
}

/// Whether one number of several can be the cause, so that the others deserve a call of their own.
fn is_of_one_number(answer: &Answer) -> bool {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    matches!(
        body.get("Code").and_then(Value::as_str),
        Some("isv.MOBILE_NUMBER_ILLEGAL" | "isv.BUSINESS_LIMIT_CONTROL")
    )
}

/// Aliyun SMS for one app.
#[derive(Debug)]
pub(super) struct Sender {
    config: Config,
    service: Service,
    egress: Egress,
}

impl Sender {
    pub(super) fn open(
        config: Config,
        credential: &OpenCredential,
        egress: &Egress,
    ) -> Result<Self, ChannelError> {
        let usual = match &config.region {
            Some(region) => format!("https://dysmsapi.{region}.aliyuncs.com"),
            None => HOST.to_owned(),
        };
        let endpoint = credential.endpoint.as_deref().unwrap_or(&usual);
        let origin = Origin::parse(endpoint).map_err(|e| ChannelError::Config {
            detail: e.to_string(),
        })?;
        Ok(Self {
            service: Service::new(egress, origin, VERSION),
            egress: egress.clone(),
            config,
        })
    }

    async fn call(
        &self,
        encoded: &Encoded,
        numbers: &[&str],
        until: Instant,
    ) -> Result<Answer, Verdict> {
        let mut form = form(&encoded.parcel.body);
        let list: Vec<&str> = numbers.iter().map(|n| as_aliyun_writes(n)).collect();
        form.insert("PhoneNumbers".to_owned(), list.join(","));
        self.service
            .call((&self.config.key, Repeats::Once), "SendSms", &form, until)
            .await
    }
}

/// Mainland numbers without a country code, others with it and without the plus.
fn as_aliyun_writes(number: &str) -> &str {
    match number.strip_prefix("+86") {
        Some(mobile) => mobile,
        None => number::digits(number),
    }
}

fn form(body: &Value) -> BTreeMap<String, String> {
    let object = body.as_object().into_iter().flatten();
    object
        .map(|(name, value)| match value {
            Value::String(text) => (name.clone(), text.clone()),
            other => (name.clone(), other.to_string()),
        })
        .collect()
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
        let params: Map<String, Value> = template
            .params
            .iter()
            .map(|(name, pattern)| {
                let value = words.fill(pattern);
                let max = self.config.param_chars_max;
                (
                    name.clone(),
                    texts::shorten("body", &value, max, &mut truncated).into(),
                )
            })
            .collect();
        let headers = match &template.text {
            Some(text) => {
                let sign = template
                    .sign_name
                    .as_deref()
                    .unwrap_or(&self.config.sign_name);
                let mut whole = format!("【{sign}】{text}");
                for (name, value) in &params {
                    let value = value.as_str().unwrap_or_default();
                    whole = whole.replace(&format!("${{{name}}}"), value);
                }
                let units = whole.encode_utf16().count();
                counted("ucs-2", units, segments::mainland_count(&whole))
            }
            None => Vec::new(),
        };
        let sign_name = template
            .sign_name
            .as_ref()
            .unwrap_or(&self.config.sign_name);
        let mut body = Map::from_iter([
            ("SignName".to_owned(), sign_name.as_str().into()),
            ("TemplateCode".to_owned(), template.id.as_str().into()),
        ]);
        if !params.is_empty() {
            let text = Value::Object(params).to_string();
            body.insert("TemplateParam".to_owned(), text.into());
        }
        common.merge(
            &mut body,
            outbound,
            &[
                "PhoneNumbers",
                "PhoneNumberJson",
                "OutId",
                "Action",
                "Version",
            ],
            &["SignName", "TemplateCode"],
        );
        body.insert("OutId".to_owned(), message.id.to_string().into());
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

    fn requests(&self, _numbers: usize) -> usize {
        1
    }

    async fn send(&self, encoded: &Encoded, numbers: &[&str], until: Instant) -> Vec<Verdict> {
        let answer = match self.call(encoded, numbers, until).await {
            Ok(answer) => answer,
            Err(verdict) => return vec![verdict; numbers.len()],
        };
        let verdict = decode(&answer, self.egress.now());
        if numbers.len() == 1 || !is_of_one_number(&answer) {
            return vec![verdict; numbers.len()];
        }
        // Nothing of the list was sent, because of one number that the answer does not name.
        let each = numbers.iter().map(|number| async move {
            match self.call(encoded, &[*number], until).await {
                Ok(answer) => decode(&answer, self.egress.now()),
                Err(verdict) => verdict,
            }
        });
        vendor::fan_out(each.collect()).await
    }

    /// Asks what was sent to a number today: nothing is sent.
    async fn check(&self, until: Instant) -> CheckReport {
        let now = self.egress.now();
        let day: String = acs::date(Timestamp(now.millis().saturating_add(8 * 3_600_000)))
            .chars()
            .filter(char::is_ascii_digit)
            .take(8)
            .collect();
        let form = BTreeMap::from(
            [
                ("PhoneNumber", "13000000000"),
                ("SendDate", day.as_str()),
                ("PageSize", "1"),
                ("CurrentPage", "1"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        let verdict = match self
            .service
            .call(
                (&self.config.key, Repeats::Harmless),
                "QuerySendDetails",
                &form,
                until,
            )
            .await
        {
            Ok(answer) => decode(&answer, now),
            Err(verdict) => verdict,
        };
        report("Aliyun SMS", &verdict)
    }

    /// `SmsReport`: a JSON array. Inbound texts (`SmsUp`) are counted and change nothing.
    fn callback(&self, request: &CallbackRequest<'_>) -> Option<Result<Callback, CallbackError>> {
        let malformed = |what: &str| Some(Err(CallbackError::Malformed(what.to_owned())));
        let Ok(Value::Array(reports)) = serde_json::from_slice::<Value>(request.body) else {
            return malformed("Aliyun posts a JSON array of reports");
        };
        if reports.len() > RECEIPTS_MAX {
            return malformed("more reports than one post can have");
        }
        let receipts = reports.iter().filter_map(receipt);
        Some(Ok(Callback {
            receipts: receipts.collect(),
            signed: false,
            content_type: "application/json",
            body: json!({"code": 0, "msg": "OK"}).to_string(),
        }))
    }
}

fn receipt(report: &Value) -> Option<Receipt> {
    let text = |name: &str| report.get(name).and_then(Value::as_str).unwrap_or_default();
    let success = match report.get("success")? {
        Value::Bool(success) => *success,
        Value::String(text) => text == "true",
        _ => return None,
    };
    let code = text("err_code");
    let phone = text("phone_number");
    let kind = match (success, kind_of(code)) {
        (true, _) => ReceiptKind::Delivered,
        (false, ReceiptKind::Other | ReceiptKind::Delivered) => {
            ReceiptKind::Failed(Reason::RetriesExhausted)
        }
        (false, kind) => kind,
    };
    Some(Receipt {
        kind,
        message: MessageId::parse(text("out_id")).ok(),
        vendor_id: Some(text("biz_id").to_owned()).filter(|id| !id.is_empty()),
        token: telephone::normalise(phone, Some("86"))
            .ok()
            .map(Secret::new),
        at: beijing_time(text("report_time")),
        detail: texts::detail(&format!("{code} {}", text("err_msg"))),
    })
}
