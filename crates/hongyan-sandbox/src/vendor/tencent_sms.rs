//! Tencent Cloud SMS, version 2021-01-11.
//!
//! Sources: Tencent Cloud documents 382/55981 and 40536 (SendSms), 382/43547 (status notification), the API 3.0 signature
//! v3. Every answer has HTTP status 200. Limits of a number are checked when the sandbox's limits per device are on.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use ring::{digest, hmac};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Simulator, sms};
use crate::accounts::Accounts;
use crate::channel::Channel;
use crate::dice::Dice;
use crate::exchange::{Call, Connection, Reply};
use crate::faults::{Endpoint, FaultKind};
use crate::limits;
use crate::push::{Fate, Receipt};
use crate::receipts::{Post, ReceiptAddress};
use crate::world::World;

const VERSION: &str = "2021-01-11";
const SIGN: &str = "鸿雁";
/// Approved templates: id, number of variables, text.
const TEMPLATES: &[(&str, usize, &str)] = &[
    ("1001", 2, "您有新消息：{1} {2}"),
    ("1002", 1, "{1} 拒收请回复R"),
];
const NUMBERS_MAX: usize = 200;
const CONTEXT_BYTES_MAX: usize = 512;
const CONTENT_CHARS_MAX: usize = 500;
const SKEW_S_MAX: i64 = 300;
/// Half a minute between two texts to one number.
const NUMBER_PAUSE_MS: i64 = 30_000;

/// What the console shows.
#[derive(Clone, Serialize, Deserialize)]
struct Account {
    secret_id: String,
    secret_key: String,
    sdk_app_id: String,
}

/// The simulator.
pub(crate) struct TencentSms {
    account: Account,
    /// When each number got its last text.
    last: Mutex<HashMap<String, i64>>,
}

impl std::fmt::Debug for TencentSms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TencentSms")
            .field("sdk_app_id", &self.account.sdk_app_id)
            .finish_non_exhaustive()
    }
}

/// A code and its words.
struct Refusal(&'static str, String);

fn refuse(code: &'static str, words: impl Into<String>) -> Refusal {
    Refusal(code, words.into())
}

impl Refusal {
    fn reply(self) -> Reply {
        let body =
            json!({"Response": {"Error": {"Code": self.0, "Message": self.1}, "RequestId": id()}});
        Reply::json(200, &body, format!("refused {}", self.0))
    }
}

fn id() -> String {
    uuid::Uuid::new_v4().to_string()
}

impl TencentSms {
    pub(crate) fn open(accounts: &mut Accounts, dice: &Dice) -> Self {
        const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        let account = accounts.of("tencent_sms", || Account {
            secret_id: format!("AKID{}", dice.text(LETTERS, 32)),
            secret_key: dice.text(LETTERS, 32),
            sdk_app_id: format!("1400{}", dice.text(b"0123456789", 6)),
        });
        Self {
            account,
            last: Mutex::default(),
        }
    }

    fn authorize(&self, call: &Call, now_s: i64) -> Result<(), Refusal> {
        let failed = |what: &str| refuse("AuthFailure.SignatureFailure", what);
        let header = |name: &str| call.header(name).unwrap_or_default().trim().to_owned();
        let authorization = header("authorization");
        let rest = authorization
            .strip_prefix("TC3-HMAC-SHA256 ")
            .ok_or_else(|| failed("Authorization is not TC3-HMAC-SHA256"))?;
        let parts: BTreeMap<&str, &str> = rest
            .split(',')
            .filter_map(|part| part.trim().split_once('='))
            .collect();
        let part = |name: &str| {
            parts
                .get(name)
                .copied()
                .ok_or_else(|| failed("Authorization is incomplete"))
        };
        let (credential, names, given) = (
            part("Credential")?,
            part("SignedHeaders")?,
            part("Signature")?,
        );
        let (secret_id, scope) = credential
            .split_once('/')
            .ok_or_else(|| failed("Credential has no scope"))?;
        if secret_id != self.account.secret_id {
            return Err(refuse(
                "AuthFailure.SecretIdNotFound",
                "the SecretId is not found",
            ));
        }
        let at = header("x-tc-timestamp");
        let at_s: i64 = at
            .parse()
            .map_err(|_| failed("X-TC-Timestamp is not a number"))?;
        let day = jiff::Timestamp::from_second(at_s)
            .map(|at| at.strftime("%Y-%m-%d").to_string())
            .unwrap_or_default();
        if scope != format!("{day}/sms/tc3_request") {
            return Err(failed("the scope is of another day or service"));
        }
        let names: Vec<&str> = names.split(';').collect();
        if !names.contains(&"content-type") || !names.contains(&"host") {
            return Err(failed("content-type and host must be signed"));
        }
        let lines: String = names
            .iter()
            .map(|name| {
                let value = if *name == "host" {
                    call.authority.clone()
                } else {
                    header(name)
                };
                format!("{name}:{}\n", value.to_lowercase())
            })
            .collect();
        let sha = |bytes: &[u8]| hex(digest::digest(&digest::SHA256, bytes).as_ref());
        let canonical = format!(
            "{}\n/\n\n{lines}\n{}\n{}",
            call.method,
            names.join(";"),
            sha(&call.body)
        );
        let text = format!(
            "TC3-HMAC-SHA256\n{at}\n{scope}\n{}",
            sha(canonical.as_bytes())
        );
        let mut key = format!("TC3{}", self.account.secret_key).into_bytes();
        for part in [day.as_str(), "sms", "tc3_request"] {
            let mac = hmac::Key::new(hmac::HMAC_SHA256, &key);
            key = hmac::sign(&mac, part.as_bytes()).as_ref().to_vec();
        }
        let mac = hmac::Key::new(hmac::HMAC_SHA256, &key);
        if hex(hmac::sign(&mac, text.as_bytes()).as_ref()) != given {
            return Err(failed("the signature does not match"));
        }
        if (at_s - now_s).abs() > SKEW_S_MAX {
            return Err(refuse(
                "AuthFailure.SignatureExpire",
                "the signature expired",
            ));
        }
        Ok(())
    }

    fn decide(&self, world: &World, call: &Call) -> Result<Reply, Refusal> {
        self.authorize(call, world.clock.now_s())?;
        let body: Value = serde_json::from_slice(&call.body)
            .map_err(|_| refuse("FailedOperation.JsonParseFail", "the body is not JSON"))?;
        match call.header("x-tc-action").unwrap_or_default() {
            "SendSms" => self.send(world, &body),
            "PullSmsSendStatusByPhoneNumber" => {
                self.known_app(&body)?;
                let body = json!({"Response": {"PullSmsSendStatusSet": [], "RequestId": id()}});
                Ok(Reply::json(200, &body, "accepted"))
            }
            _ => Err(refuse("InvalidAction", "the action is not known")),
        }
    }

    fn known_app(&self, body: &Value) -> Result<(), Refusal> {
        match body.get("SmsSdkAppId").and_then(Value::as_str) {
            Some(app) if app == self.account.sdk_app_id => Ok(()),
            _ => Err(refuse(
                "UnauthorizedOperation.SmsSdkAppIdVerifyFail",
                "the SdkAppId is not yours",
            )),
        }
    }

    fn send(&self, world: &World, body: &Value) -> Result<Reply, Refusal> {
        self.known_app(body)?;
        let texts = |name: &str| -> Vec<String> {
            let list = body
                .get(name)
                .and_then(Value::as_array)
                .into_iter()
                .flatten();
            list.filter_map(|t| t.as_str().map(str::to_owned)).collect()
        };
        let numbers = texts("PhoneNumberSet");
        if numbers.is_empty() {
            return Err(refuse(
                "MissingParameter.EmptyPhoneNumberSet",
                "PhoneNumberSet is empty",
            ));
        }
        if numbers.len() > NUMBERS_MAX {
            return Err(refuse(
                "LimitExceeded.PhoneNumberCountLimit",
                "more than 200 numbers",
            ));
        }
        let context = body
            .get("SessionContext")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if context.len() >= CONTEXT_BYTES_MAX {
            return Err(refuse(
                "InvalidParameterValue.ContentLengthLimit",
                "SessionContext is too long",
            ));
        }
        let home = |number: &&String| sms::normal(number).is_some_and(|n| n.starts_with("+86"));
        let at_home = numbers.iter().filter(home).count();
        let abroad = numbers.iter().filter(|n| sms::normal(n).is_some()).count() - at_home;
        if at_home > 0 && abroad > 0 {
            return Err(refuse(
                "UnsupportedOperation.ContainDomesticAndInternationalPhoneNumber",
                "numbers of the mainland and others in one call",
            ));
        }
        if at_home > 0 && body.get("SignName").and_then(Value::as_str) != Some(SIGN) {
            return Err(refuse(
                "FailedOperation.SignatureIncorrectOrUnapproved",
                "the signature is not approved",
            ));
        }
        let template = body
            .get("TemplateId")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let (_, variables, text) = TEMPLATES
            .iter()
            .find(|(id, ..)| *id == template)
            .ok_or_else(|| {
                refuse(
                    "FailedOperation.TemplateIncorrectOrUnapproved",
                    "the template is not approved",
                )
            })?;
        let params = texts("TemplateParamSet");
        if params.len() != *variables {
            return Err(refuse(
                "InvalidParameterValue.TemplateParameterFormatError",
                "the number of variables is wrong",
            ));
        }
        if params.iter().any(|param| param.contains("://")) {
            return Err(refuse(
                "InvalidParameterValue.ProhibitedUseUrlInTemplateParameter",
                "no URLs in variables",
            ));
        }
        let mut whole = format!("【{SIGN}】{text}");
        for (at, param) in params.iter().enumerate() {
            whole = whole.replace(&format!("{{{}}}", at + 1), param);
        }
        if whole.chars().count() > CONTENT_CHARS_MAX {
            return Err(refuse(
                "InvalidParameterValue.ContentLengthLimit",
                "the text is too long",
            ));
        }
        let segments = match whole.encode_utf16().count() {
            0..=70 => 1,
            units => units.div_ceil(67),
        };
        let mut good = 0;
        let set: Vec<Value> = numbers
            .iter()
            .map(|number| match self.send_one(world, number, &whole, context) {
                Ok(serial) => {
                    good += 1;
                    json!({"SerialNo": serial, "PhoneNumber": number, "Fee": segments, "SessionContext": context,
                           "Code": "Ok", "Message": "send success", "IsoCode": "CN"})
                }
                Err(Refusal(code, words)) => json!({"SerialNo": "", "PhoneNumber": number, "Fee": 0,
                    "SessionContext": context, "Code": code, "Message": words, "IsoCode": "CN"}),
            })
            .collect();
        let verdict = match good {
            0 => "refused".to_owned(),
            good if good == set.len() => "accepted".to_owned(),
            good => format!("partial {good} of {}", set.len()),
        };
        let body = json!({"Response": {"SendStatusSet": set, "RequestId": id()}});
        Ok(Reply::json(200, &body, verdict))
    }

    fn send_one(
        &self,
        world: &World,
        number: &str,
        text: &str,
        context: &str,
    ) -> Result<String, Refusal> {
        let often = || {
            refuse(
                "LimitExceeded.PhoneNumberThirtySecondLimit",
                "one text in 30 s",
            )
        };
        let number = sms::normal(number)
            .ok_or_else(|| refuse("InvalidParameterValue.IncorrectPhoneNumber", "not a number"))?;
        match sms::judge(world, &number) {
            sms::Number::Good => {}
            sms::Number::Dead => {
                return Err(refuse(
                    "InvalidParameterValue.IncorrectPhoneNumber",
                    "not a number",
                ));
            }
            sms::Number::Refused => {
                return Err(refuse(
                    "FailedOperation.PhoneNumberInBlacklist",
                    "the person opted out",
                ));
            }
            sms::Number::TooOften => return Err(often()),
        }
        let now_ms = world.clock.now_ms();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() >= limits::TOKENS_MAX {
            last.clear();
        }
        let before = last.insert(number.clone(), now_ms);
        drop(last);
        if world.device_limits() && before.is_some_and(|at| now_ms - at < NUMBER_PAUSE_MS) {
            return Err(often());
        }
        let serial = format!("2640:{}", world.dice.next());
        let receipt = Receipt {
            channel: Channel::TencentSms,
            url: String::new(),
            account: context.to_owned(),
            id: serial.clone(),
            token: number.clone(),
            param: String::new(),
            kinds: u32::MAX,
        };
        sms::deliver(
            world,
            Channel::TencentSms,
            &number,
            text.to_owned(),
            receipt,
        );
        Ok(serial)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Simulator for TencentSms {
    fn channel(&self) -> Channel {
        Channel::TencentSms
    }

    fn claims(&self, call: &Call) -> Option<Endpoint> {
        let version = call.header("x-tc-version");
        (call.path == "/" && version == Some(VERSION)).then_some(Endpoint::Send)
    }

    fn handle(&self, world: &World, _connection: &Connection, call: &Call) -> Reply {
        self.decide(world, call).unwrap_or_else(Refusal::reply)
    }

    fn fault(&self, _world: &World, _call: &Call, kind: FaultKind) -> Reply {
        match kind {
            FaultKind::RateLimited => refuse("RequestLimitExceeded", "too many requests").reply(),
            FaultKind::QuotaExhausted => {
                refuse("LimitExceeded.AppDailyLimit", "the day's limit").reply()
            }
            FaultKind::TokenInvalid => {
                refuse("InvalidParameterValue.IncorrectPhoneNumber", "not a number").reply()
            }
            FaultKind::AuthExpired => {
                refuse("AuthFailure.SignatureExpire", "the signature expired").reply()
            }
            _ => Reply::empty(503, "503 unavailable"),
        }
    }

    fn new_token(&self, unique: &str, _dice: &Dice) -> String {
        sms::new_number(unique)
    }

    fn place(&self) -> (&'static str, &'static str) {
        ("sms", "tencent")
    }

    fn credential(&self, _accounts: &Accounts) -> Value {
        json!({
            "provider": "tencent_sms", "secret_id": self.account.secret_id, "secret_key": self.account.secret_key,
            "sdk_app_id": self.account.sdk_app_id, "sign_name": SIGN,
            "templates": {
                "default": {"id": "1001", "params": ["{title}", "{body}"], "text": TEMPLATES[0].2},
                "marketing": {"id": "1002", "params": ["{body}"], "text": TEMPLATES[1].2},
            },
        })
    }

    fn receipt(
        &self,
        receipt: &Receipt,
        fate: Fate,
        now_ms: i64,
        console: Option<&ReceiptAddress>,
    ) -> Option<Post> {
        let state = sms::state_of(receipt, fate)?;
        let report = json!([{
            "user_receive_time": super::aliyun_sms::beijing(now_ms), "nationcode": "86",
            "mobile": receipt.token.trim_start_matches("+86"),
            "report_status": if state == "DELIVRD" { "SUCCESS" } else { "FAIL" },
            "errmsg": state, "description": state, "sid": receipt.id,
        }]);
        Some(Post::json(&console?.url, &report))
    }
}
