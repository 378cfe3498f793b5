//! Twilio's Messages resource, API 2010-04-01.
//!
//! Sources: Twilio's OpenAPI description of api_v2010, its error pages and its page on request validation. Texts are taken
//! one at a time; every receipt is a signed form post to the `StatusCallback` of the text.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use ring::hmac;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Simulator, sms};
use crate::accounts::Accounts;
use crate::channel::Channel;
use crate::dice::{Dice, HEX};
use crate::exchange::{Call, Connection, Reply};
use crate::faults::{Endpoint, FaultKind};
use crate::limits;
use crate::push::{Fate, Receipt};
use crate::receipts::{Post, ReceiptAddress};
use crate::world::World;

const FROM: &str = "+15005550006";
const BODY_CHARS_MAX: usize = 1600;

/// What the console shows.
#[derive(Clone, Serialize, Deserialize)]
struct Account {
    account_sid: String,
    auth_token: String,
}

/// The simulator.
pub(crate) struct Twilio {
    account: Account,
    messages: Mutex<VecDeque<Value>>,
}

impl std::fmt::Debug for Twilio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Twilio")
            .field("account_sid", &self.account.account_sid)
            .finish_non_exhaustive()
    }
}

struct Refusal(u16, u64, String);

fn refuse(status: u16, code: u64, words: impl Into<String>) -> Refusal {
    Refusal(status, code, words.into())
}

impl Refusal {
    fn reply(self) -> Reply {
        let Self(status, code, message) = self;
        let more = format!("https://www.twilio.com/docs/errors/{code}");
        let body = json!({"code": code, "message": message, "more_info": more, "status": status});
        Reply::json(status, &body, format!("refused {code} {message}"))
    }
}

impl Twilio {
    pub(crate) fn open(accounts: &mut Accounts, dice: &Dice) -> Self {
        let account = accounts.of("twilio", || Account {
            account_sid: format!("AC{}", dice.text(HEX, 32)),
            auth_token: dice.text(HEX, 32),
        });
        Self {
            account,
            messages: Mutex::default(),
        }
    }

    fn decide(&self, world: &World, call: &Call) -> Result<Reply, Refusal> {
        let pair = format!("{}:{}", self.account.account_sid, self.account.auth_token);
        let basic = format!("Basic {}", STANDARD.encode(pair));
        if call.header("authorization") != Some(basic.as_str()) {
            return Err(refuse(401, 20003, "Authenticate"));
        }
        let segments = super::segments(call);
        let [_, _, sid, rest @ ..] = segments.as_slice() else {
            return Err(refuse(404, 20404, "not found"));
        };
        if *sid != self.account.account_sid {
            return Err(refuse(404, 20404, "the requested resource was not found"));
        }
        match (rest, &call.method) {
            (["Messages.json"], &Method::POST) => self.create(world, call),
            (["Messages", file], &Method::GET) => {
                let messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
                let sid = file.trim_end_matches(".json");
                let found = messages
                    .iter()
                    .find(|m| m.get("sid").and_then(Value::as_str) == Some(sid));
                match found {
                    Some(message) => Ok(Reply::json(200, message, "accepted")),
                    None => Err(refuse(404, 20404, "the requested resource was not found")),
                }
            }
            _ => Err(refuse(405, 20004, "Method not allowed")),
        }
    }

    fn create(&self, world: &World, call: &Call) -> Result<Reply, Refusal> {
        let form = call.form();
        let field = |name: &str| {
            let found = form.iter().find(|(n, _)| n == name);
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        let (to, from, text) = (field("To"), field("From"), field("Body"));
        let number = sms::normal(&to)
            .filter(|_| to.starts_with('+'))
            .ok_or_else(|| refuse(400, 21211, format!("Invalid 'To' Phone Number: {to}")))?;
        if from.is_empty() && field("MessagingServiceSid").is_empty() {
            return Err(refuse(400, 21603, "A 'From' phone number is required."));
        }
        if !from.is_empty() && from != FROM {
            return Err(refuse(
                400,
                21606,
                format!("The 'From' phone number {from} is not yours"),
            ));
        }
        if text.is_empty() && field("MediaUrl").is_empty() && field("ContentSid").is_empty() {
            return Err(refuse(400, 21602, "Message body is required."));
        }
        if text.chars().count() > BODY_CHARS_MAX {
            return Err(refuse(
                400,
                21617,
                "The concatenated message body exceeds the 1600 character limit",
            ));
        }
        let validity = field("ValidityPeriod");
        let fits = validity
            .parse::<u32>()
            .is_ok_and(|s| (1..=36_000).contains(&s));
        if !validity.is_empty() && !fits {
            return Err(refuse(400, 20001, "ValidityPeriod must be from 1 to 36000"));
        }
        match sms::judge(world, &number) {
            sms::Number::Good => {}
            sms::Number::Dead => {
                return Err(refuse(
                    400,
                    21614,
                    "'To' number is not a valid mobile number",
                ));
            }
            sms::Number::Refused => {
                return Err(refuse(
                    400,
                    21610,
                    "Attempt to send to unsubscribed recipient",
                ));
            }
            sms::Number::TooOften => return Err(refuse(429, 20429, "Too Many Requests")),
        }
        let sid = format!("SM{}", uuid::Uuid::new_v4().simple());
        let account = self.account.account_sid.clone();
        let message = json!({
            "sid": sid, "account_sid": account, "api_version": "2010-04-01", "body": text, "to": number,
            "from": from, "status": "queued", "direction": "outbound-api", "num_segments": segments(&text).to_string(),
            "num_media": "0", "error_code": null, "error_message": null, "price": null, "price_unit": "USD",
            "date_created": null, "date_updated": null, "date_sent": null, "messaging_service_sid": null,
            "uri": format!("/2010-04-01/Accounts/{account}/Messages/{sid}.json"), "subresource_uris": {},
        });
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        while messages.len() >= limits::REQUESTS_KEPT_MAX {
            messages.pop_front();
        }
        messages.push_back(message.clone());
        drop(messages);
        let receipt = Receipt {
            channel: Channel::Twilio,
            url: field("StatusCallback"),
            account: from,
            id: sid,
            token: number.clone(),
            param: String::new(),
            kinds: u32::MAX,
        };
        sms::deliver(world, Channel::Twilio, &number, text, receipt);
        Ok(Reply::json(201, &message, "accepted"))
    }
}

/// Plain ASCII counts as GSM-7, everything else as UCS-2: near enough for a number in an answer.
fn segments(text: &str) -> usize {
    let count = |units: usize, alone: usize, part: usize| match units {
        units if units <= alone => 1,
        units => units.div_ceil(part),
    };
    if text.is_ascii() {
        count(text.len(), 160, 153)
    } else {
        count(text.encode_utf16().count(), 70, 67)
    }
}

impl Simulator for Twilio {
    fn channel(&self) -> Channel {
        Channel::Twilio
    }

    fn claims(&self, call: &Call) -> Option<Endpoint> {
        call.path
            .starts_with("/2010-04-01/Accounts/")
            .then_some(Endpoint::Send)
    }

    fn handle(&self, world: &World, _connection: &Connection, call: &Call) -> Reply {
        self.decide(world, call).unwrap_or_else(Refusal::reply)
    }

    fn fault(&self, _world: &World, _call: &Call, kind: FaultKind) -> Reply {
        match kind {
            FaultKind::RateLimited => refuse(429, 20429, "Too Many Requests"),
            FaultKind::QuotaExhausted => refuse(429, 30001, "Queue overflow"),
            FaultKind::TokenInvalid => refuse(400, 21211, "Invalid 'To' Phone Number"),
            FaultKind::AuthExpired => refuse(401, 20003, "Authenticate"),
            _ => refuse(503, 20500, "Internal server error"),
        }
        .reply()
    }

    fn new_token(&self, unique: &str, _dice: &Dice) -> String {
        sms::new_number(unique)
    }

    fn place(&self) -> (&'static str, &'static str) {
        ("sms", "default")
    }

    fn credential(&self, _accounts: &Accounts) -> Value {
        json!({
            "provider": "twilio", "account_sid": self.account.account_sid,
            "auth_token": self.account.auth_token, "from": FROM,
        })
    }

    fn receipt(
        &self,
        receipt: &Receipt,
        fate: Fate,
        _now_ms: i64,
        _console: Option<&ReceiptAddress>,
    ) -> Option<Post> {
        let state = sms::state_of(receipt, fate)?;
        if receipt.url.is_empty() {
            return None;
        }
        let (status, code) = match state {
            "DELIVRD" => ("delivered", ""),
            "EXPIRED" => ("undelivered", "30008"),
            _ => ("undelivered", "30005"),
        };
        let mut fields = vec![
            ("AccountSid", self.account.account_sid.as_str()),
            ("ApiVersion", "2010-04-01"),
            ("From", receipt.account.as_str()),
            ("MessageSid", receipt.id.as_str()),
            ("MessageStatus", status),
            ("SmsSid", receipt.id.as_str()),
            ("SmsStatus", status),
            ("To", receipt.token.as_str()),
        ];
        if !code.is_empty() {
            fields.push(("ErrorCode", code));
        }
        fields.sort_unstable();
        let signed: String = fields
            .iter()
            .map(|(name, value)| format!("{name}{value}"))
            .collect();
        let key = hmac::Key::new(
            hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            self.account.auth_token.as_bytes(),
        );
        let mac = hmac::sign(&key, format!("{}{signed}", receipt.url).as_bytes());
        let post = Post::form(&receipt.url, &fields);
        Some(post.with("x-twilio-signature", STANDARD.encode(mac.as_ref())))
    }
}
