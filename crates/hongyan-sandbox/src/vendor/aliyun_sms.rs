//! Aliyun SMS, version 2017-05-25.
//!
//! Sources: Alibaba Cloud help pages of SendSms, SendBatchSms, QuerySendDetails, SmsReport and their error codes. A list with
//! one bad number is refused whole. Limits of a number are checked when the sandbox's limits per device are on.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use super::acs::{self, AccessKey, Gate, Refusal};
use super::{Simulator, sms};
use crate::accounts::Accounts;
use crate::channel::Channel;
use crate::dice::Dice;
use crate::exchange::{Call, Connection, Reply};
use crate::faults::{Endpoint, FaultKind};
use crate::push::{Fate, Receipt};
use crate::receipts::{Post, ReceiptAddress};
use crate::world::World;

const VERSION: &str = "2017-05-25";
const SIGN: &str = "鸿雁";
/// Approved templates: id, variables, text.
const TEMPLATES: &[(&str, &[&str], &str)] = &[
    (
        "SMS_100001",
        &["title", "text"],
        "您有新消息：${title} ${text}",
    ),
    (
        "SMS_100002",
        &["title", "text"],
        "订单通知：${title} ${text}",
    ),
    ("SMS_100003", &["text"], "${text} 拒收请回复R"),
    ("SMS_100004", &["code"], "唤醒码${code}"),
];
const NUMBERS_MAX: usize = 1000;
const BATCH_MAX: usize = 100;
const PARAM_CHARS_MAX: usize = 35;
const OUT_ID_BYTES_MAX: usize = 256;
/// A minute between two texts to one number.
const NUMBER_PAUSE_MS: i64 = 60_000;
const SENT_MAX: usize = 10_000;

/// The simulator.
#[derive(Debug)]
pub(crate) struct AliyunSms {
    key: AccessKey,
    gate: Gate,
    sent: Mutex<VecDeque<Sent>>,
}

#[derive(Debug)]
struct Sent {
    number: String,
    at_ms: i64,
    biz_id: String,
    template: String,
    out_id: String,
}

impl AliyunSms {
    pub(crate) fn open(accounts: &mut Accounts, dice: &Dice) -> Self {
        Self {
            key: accounts.of("aliyun_sms", || AccessKey::make(dice)),
            gate: Gate::default(),
            sent: Mutex::default(),
        }
    }

    fn decide(&self, world: &World, call: &Call) -> Result<Reply, Refusal> {
        let passed = self.gate.pass(call, &self.key, world.clock.now_ms())?;
        let parameters = &passed.parameters;
        match passed.action.as_str() {
            "SendSms" => self.send(world, parameters),
            "SendBatchSms" => self.send_batch(world, parameters),
            "QuerySendDetails" => self.details(parameters),
            _ => Err(Refusal::new(
                404,
                "InvalidApi.NotFound",
                "Specified api is not found.",
            )),
        }
    }

    fn send(&self, world: &World, parameters: &BTreeMap<String, String>) -> Result<Reply, Refusal> {
        let list: Vec<&str> = acs::required(parameters, "PhoneNumbers")?
            .split(',')
            .collect();
        if list.len() > NUMBERS_MAX {
            return Err(business("isv.MOBILE_COUNT_OVER_LIMIT"));
        }
        let text = text(
            acs::required(parameters, "SignName")?,
            acs::required(parameters, "TemplateCode")?,
            parameters.get("TemplateParam").map(String::as_str),
        )?;
        let numbers = list
            .iter()
            .map(|number| self.admit(world, number))
            .collect::<Result<Vec<_>, _>>()?;
        let texts = vec![text; numbers.len()];
        self.accept(world, parameters, numbers, texts)
    }

    fn send_batch(
        &self,
        world: &World,
        parameters: &BTreeMap<String, String>,
    ) -> Result<Reply, Refusal> {
        let list = |name: &str| -> Result<Vec<Value>, Refusal> {
            serde_json::from_str(acs::required(parameters, name)?)
                .map_err(|_| business("isv.INVALID_JSON_PARAM"))
        };
        let phones = list("PhoneNumberJson")?;
        let signs = list("SignNameJson")?;
        let params = if parameters.contains_key("TemplateParamJson") {
            list("TemplateParamJson")?
        } else {
            vec![Value::Null; phones.len()]
        };
        if phones.len() > BATCH_MAX || phones.len() != signs.len() || phones.len() != params.len() {
            return Err(business("isv.INVALID_PARAMETERS"));
        }
        let code = acs::required(parameters, "TemplateCode")?;
        let (mut numbers, mut texts) = (Vec::new(), Vec::new());
        for ((phone, sign), param) in phones.iter().zip(&signs).zip(&params) {
            let param = if param.is_null() {
                None
            } else {
                Some(param.to_string())
            };
            texts.push(text(
                sign.as_str().unwrap_or_default(),
                code,
                param.as_deref(),
            )?);
            numbers.push(self.admit(world, phone.as_str().unwrap_or_default())?);
        }
        self.accept(world, parameters, numbers, texts)
    }

    fn admit(&self, world: &World, number: &str) -> Result<String, Refusal> {
        // Abroad: country code and number, without a plus.
        let abroad = |text: &str| sms::normal(&format!("+{text}")).filter(|_| text.len() > 11);
        let number = sms::normal(number)
            .or_else(|| abroad(number))
            .or_else(|| sms::normal(&format!("+{number}")))
            .ok_or_else(|| business("isv.MOBILE_NUMBER_ILLEGAL"))?;
        match sms::judge(world, &number) {
            sms::Number::Good => {}
            sms::Number::TooOften => return Err(business("isv.BUSINESS_LIMIT_CONTROL")),
            sms::Number::Dead | sms::Number::Refused => {
                return Err(business("isv.MOBILE_NUMBER_ILLEGAL"));
            }
        }
        let now_ms = world.clock.now_ms();
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let lately = sent
            .iter()
            .any(|s| s.number == number && now_ms - s.at_ms < NUMBER_PAUSE_MS);
        if lately && world.device_limits() {
            return Err(business("isv.BUSINESS_LIMIT_CONTROL"));
        }
        Ok(number)
    }

    fn accept(
        &self,
        world: &World,
        parameters: &BTreeMap<String, String>,
        numbers: Vec<String>,
        texts: Vec<String>,
    ) -> Result<Reply, Refusal> {
        let out_id = parameters.get("OutId").cloned().unwrap_or_default();
        if out_id.len() > OUT_ID_BYTES_MAX {
            return Err(business("isv.INVALID_PARAMETERS"));
        }
        let biz_id = format!("{}^0", world.dice.next() % 1_000_000_000_000);
        let template = parameters.get("TemplateCode").cloned().unwrap_or_default();
        for (number, text) in numbers.into_iter().zip(texts) {
            let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
            while sent.len() >= SENT_MAX {
                sent.pop_front();
            }
            sent.push_back(Sent {
                number: number.clone(),
                at_ms: world.clock.now_ms(),
                biz_id: biz_id.clone(),
                template: template.clone(),
                out_id: out_id.clone(),
            });
            drop(sent);
            let receipt = Receipt {
                channel: Channel::AliyunSms,
                url: String::new(),
                account: out_id.clone(),
                id: biz_id.clone(),
                token: number.clone(),
                param: String::new(),
                kinds: u32::MAX,
            };
            sms::deliver(world, Channel::AliyunSms, &number, text, receipt);
        }
        let body = json!({"Code": "OK", "Message": "OK", "BizId": biz_id});
        Ok(acs::success(body, "accepted"))
    }

    fn details(&self, parameters: &BTreeMap<String, String>) -> Result<Reply, Refusal> {
        let number = sms::normal(acs::required(parameters, "PhoneNumber")?)
            .ok_or_else(|| business("isv.MOBILE_NUMBER_ILLEGAL"))?;
        let day = acs::required(parameters, "SendDate")?;
        if day.len() != 8 || !day.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(business("isv.INVALID_PARAMETERS"));
        }
        let size = acs::required(parameters, "PageSize")?.parse::<usize>();
        acs::required(parameters, "CurrentPage")?;
        let size = size.ok().filter(|size| (1..=50).contains(size));
        let size = size.ok_or_else(|| business("isv.INVALID_PARAMETERS"))?;
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let list: Vec<Value> = sent
            .iter()
            .filter(|s| s.number == number)
            .take(size)
            .map(|s| json!({"PhoneNum": s.number, "SendStatus": 3, "ErrCode": "DELIVERED", "TemplateCode": s.template, "OutId": s.out_id, "BizId": s.biz_id}))
            .collect();
        let body = json!({"Code": "OK", "Message": "OK", "TotalCount": list.len(),
                          "SmsSendDetailDTOs": {"SmsSendDetailDTO": list}});
        Ok(acs::success(body, "accepted"))
    }
}

/// Errors of the service come with status 200.
fn business(code: &str) -> Refusal {
    Refusal::new(
        200,
        code,
        code.trim_start_matches("isv.")
            .replace('_', " ")
            .to_lowercase(),
    )
}

/// The whole text of a template, if sign and variables are as approved.
fn text(sign: &str, code: &str, params: Option<&str>) -> Result<String, Refusal> {
    if sign != SIGN {
        return Err(business("isv.SMS_SIGNATURE_ILLEGAL"));
    }
    let (_, variables, text) = TEMPLATES
        .iter()
        .find(|(id, ..)| *id == code)
        .ok_or_else(|| business("isv.SMS_TEMPLATE_ILLEGAL"))?;
    let params: Value = match params {
        None => json!({}),
        Some(text) => serde_json::from_str(text).map_err(|_| business("isv.INVALID_JSON_PARAM"))?,
    };
    let mut whole = format!("【{SIGN}】{text}");
    for name in *variables {
        let value = match params.get(*name) {
            None => return Err(business("isv.TEMPLATE_MISSING_PARAMETERS")),
            Some(Value::String(value)) => value,
            Some(_) => return Err(business("isv.INVALID_JSON_PARAM")),
        };
        if value.chars().count() > PARAM_CHARS_MAX {
            return Err(business("isv.PARAM_LENGTH_LIMIT"));
        }
        if value.contains("://") {
            return Err(business("isv.PARAM_NOT_SUPPORT_URL"));
        }
        whole = whole.replace(&format!("${{{name}}}"), value);
    }
    Ok(whole)
}

impl Simulator for AliyunSms {
    fn channel(&self) -> Channel {
        Channel::AliyunSms
    }

    fn claims(&self, call: &Call) -> Option<Endpoint> {
        (acs::version(call).as_deref() == Some(VERSION)).then_some(Endpoint::Send)
    }

    fn handle(&self, world: &World, _connection: &Connection, call: &Call) -> Reply {
        self.decide(world, call)
            .unwrap_or_else(|refusal| refusal.reply())
    }

    fn fault(&self, _world: &World, _call: &Call, kind: FaultKind) -> Reply {
        match kind {
            FaultKind::QuotaExhausted => business("isv.DAY_LIMIT_CONTROL").reply(),
            FaultKind::TokenInvalid => business("isv.MOBILE_NUMBER_ILLEGAL").reply(),
            kind => acs::fault(kind).reply(),
        }
    }

    fn new_token(&self, unique: &str, _dice: &Dice) -> String {
        sms::new_number(unique)
    }

    fn place(&self) -> (&'static str, &'static str) {
        ("sms", "aliyun")
    }

    fn credential(&self, _accounts: &Accounts) -> Value {
        let both = json!({"title": "{title}", "text": "{body}"});
        json!({
            "provider": "aliyun_sms", "access_key_id": self.key.id, "access_key_secret": self.key.secret,
            "sign_name": SIGN,
            "templates": {
                "default": {"id": "SMS_100001", "params": both, "text": TEMPLATES[0].2},
                "transaction": {"id": "SMS_100002", "params": both, "text": TEMPLATES[1].2},
                "marketing": {"id": "SMS_100003", "params": {"text": "{body}"}, "text": TEMPLATES[2].2},
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
        let at = beijing(now_ms);
        let report = json!([{
            "phone_number": receipt.token.trim_start_matches("+86"), "send_time": at, "report_time": at,
            "success": state == "DELIVRD", "err_code": if state == "DELIVRD" { "DELIVERED" } else { state },
            "err_msg": state, "sms_size": "1", "biz_id": receipt.id, "out_id": receipt.account,
        }]);
        Some(Post::json(&console?.url, &report))
    }
}

/// `2017-01-01 08:00:00`, Beijing time.
pub(super) fn beijing(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms)
        .map(|at| at.to_zoned(jiff::tz::TimeZone::fixed(jiff::tz::offset(8))))
        .map(|at| at.strftime("%Y-%m-%d %H:%M:%S").to_string())
        .unwrap_or_default()
}
