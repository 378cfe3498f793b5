//! Tencent TPNS, server REST API v3: pushes to tokens, statistics of a push.
//!
//! Sources: Tencent Cloud documents 1024/33764 to 33775 and 34672. Business errors have HTTP status 200; a wrong key may be
//! answered 403 without a body. Dead tokens among living ones are named in `invalid_targe_list`, which is how the service
//! spells it. Tags, accounts and packages are not simulated.
//!
//! Counters grow with what becomes of a push. Receipts are posted to the console's address; their layout is not published,
//! so that it is a rule: `{"receipt": {"list": "…", "push_id": "…", "trace_id": "…", "token": "…", "event": "…",
//! "timestamp": "…", "delivered": "…", "clicked": "…"}}` renames what is there.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use ring::hmac;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Simulator;
use super::counted::Counted;
use crate::accounts::Accounts;
use crate::channel::Channel;
use crate::dice::{Dice, HEX};
use crate::exchange::{Call, Connection, Reply};
use crate::faults::{Endpoint, FaultKind};
use crate::limits;
use crate::push::{Fate, Push, Receipt, message_id, text};
use crate::receipts::{Post, ReceiptAddress};
use crate::tokens::TokenState;
use crate::world::World;

const TOKENS_MAX: usize = 1000;
const MESSAGE_BYTES_MAX: usize = 4096;
const EXPIRE_S_MAX: i64 = 259_200;
const SKEW_S_MAX: i64 = 900;

#[derive(Clone, Serialize, Deserialize)]
struct Account {
    access_id: String,
    secret_key: String,
}

/// The simulator.
pub(crate) struct Tpns {
    account: Account,
    pushes: Mutex<VecDeque<(String, usize)>>,
    counted: Counted,
    rules: Mutex<Rules>,
}

/// What things are called in a receipt.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    #[serde(default)]
    receipt: BTreeMap<String, String>,
}

impl std::fmt::Debug for Tpns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tpns")
            .field("access_id", &self.account.access_id)
            .finish_non_exhaustive()
    }
}

struct Refusal(i64, String);

fn refuse(code: i64, words: impl Into<String>) -> Refusal {
    Refusal(code, words.into())
}

impl Refusal {
    fn reply(self, statistics: bool) -> Reply {
        let Self(code, words) = self;
        let body = if statistics {
            json!({"retCode": code, "errMsg": words})
        } else {
            json!({"seq": 0, "push_id": "", "ret_code": code, "environment": "", "err_msg": words, "result": ""})
        };
        Reply::json(200, &body, format!("refused {code} {words}"))
    }
}

impl Tpns {
    pub(crate) fn open(accounts: &mut Accounts, dice: &Dice) -> Self {
        let account = accounts.of("tpns", || Account {
            access_id: format!("15000{}", dice.text(b"0123456789", 5)),
            secret_key: dice.text(HEX, 32),
        });
        Self {
            account,
            pushes: Mutex::default(),
            counted: Counted::default(),
            rules: Mutex::default(),
        }
    }

    fn authorize(&self, call: &Call, now_s: i64) -> Result<(), Refusal> {
        let Account {
            access_id,
            secret_key,
        } = &self.account;
        let failed = |what: &str| refuse(1_008_003, what);
        if let Some(header) = call.header("authorization") {
            let (scheme, pair) = header.split_once(' ').unwrap_or_default();
            let wanted = STANDARD.encode(format!("{access_id}:{secret_key}"));
            return if scheme.eq_ignore_ascii_case("basic") && pair == wanted {
                Ok(())
            } else {
                Err(failed("auth check error"))
            };
        }
        let header = |name: &str| call.header(name).unwrap_or_default();
        if header("accessid") != access_id {
            return Err(failed("access id not found"));
        }
        let at = header("timestamp");
        let near = at
            .parse::<i64>()
            .is_ok_and(|at| (at - now_s).abs() <= SKEW_S_MAX);
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret_key.as_bytes());
        let mut text = format!("{at}{access_id}").into_bytes();
        text.extend_from_slice(&call.body);
        let mac = hmac::sign(&key, &text);
        let characters: String = mac
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        if header("sign") != STANDARD.encode(characters) {
            return Err(failed("sign check error"));
        }
        if !near {
            return Err(failed("timestamp expired"));
        }
        Ok(())
    }

    fn push(&self, world: &World, body: &Value) -> Result<Reply, Refusal> {
        let missing = |what: &str| refuse(1_008_002, format!("{what} is missing"));
        let wrong = |what: &str| refuse(1_008_007, what.to_owned());
        let kind = text(body, "/message_type");
        if !["notify", "message"].contains(&kind.as_str()) {
            return Err(wrong("message_type must be notify or message"));
        }
        let message = body
            .get("message")
            .filter(|m| m.is_object())
            .ok_or_else(|| missing("message"))?;
        if message.to_string().len() > MESSAGE_BYTES_MAX {
            return Err(wrong("the message is longer than 4096 bytes"));
        }
        let (title, content) = (text(message, "/title"), text(message, "/content"));
        if content.is_empty() || (kind == "notify" && title.is_empty()) {
            return Err(missing("message.title or message.content"));
        }
        if let Some(environment) = body.get("environment").and_then(Value::as_str)
            && !["", "product", "dev"].contains(&environment)
        {
            return Err(wrong("environment must be product or dev"));
        }
        let life_s = match body.get("expire_time") {
            None => EXPIRE_S_MAX,
            Some(value) => value
                .as_i64()
                .filter(|s| (0..=EXPIRE_S_MAX).contains(s))
                .ok_or_else(|| wrong("expire_time must be from 0 to 259200"))?,
        };
        let extras = [
            "/android/custom_content",
            "/ios/custom_content",
            "/ios/custom",
            "/custom_content",
        ]
        .iter()
        .find_map(|at| message.pointer(at))
        .cloned()
        .unwrap_or_default();
        if message
            .pointer("/android/custom_content")
            .is_some_and(|c| !c.is_string())
        {
            return Err(wrong("android.custom_content must be a JSON text"));
        }
        let audience = text(body, "/audience_type");
        if !["token", "token_list"].contains(&audience.as_str()) {
            return Err(wrong("audience_type is not simulated"));
        }
        let list = body
            .get("token_list")
            .and_then(Value::as_array)
            .ok_or_else(|| missing("token_list"))?;
        let mut tokens: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
        if tokens.is_empty() || tokens.len() > TOKENS_MAX {
            return Err(wrong("token_list must have from 1 to 1000 tokens"));
        }
        if audience == "token" {
            tokens.truncate(1);
        }
        let alive = |token: &&str| {
            let state = world
                .tokens
                .get(Channel::Tpns, token)
                .map(|token| token.state);
            state == Some(TokenState::Valid)
        };
        let (good, bad): (Vec<&str>, Vec<&str>) = tokens.iter().partition(|token| alive(token));
        if good.is_empty() {
            return Err(refuse(1_008_006, "token invalid"));
        }
        let id = (1_000_000_000 + world.dice.next() % 9_000_000_000).to_string();
        let mut pushes = self.pushes.lock().unwrap_or_else(PoisonError::into_inner);
        while pushes.len() >= limits::REQUESTS_KEPT_MAX {
            pushes.pop_front();
        }
        pushes.push_back((id.clone(), good.len()));
        drop(pushes);
        let now_ms = world.clock.now_ms();
        for token in good {
            let push = Push {
                message: message_id(&extras),
                title: title.clone(),
                body: content.clone(),
                visible: kind == "notify",
                collapse: message
                    .pointer("/android/n_id")
                    .filter(|n| **n != json!(0))
                    .map(Value::to_string),
                expires_ms: now_ms.saturating_add(life_s.max(800) * 1000),
                stored: life_s > 0,
                receipt: Some(Receipt {
                    channel: Channel::Tpns,
                    url: String::new(),
                    account: self.account.access_id.clone(),
                    id: id.clone(),
                    token: token.to_owned(),
                    param: text(body, "/trace_id"),
                    kinds: u32::MAX,
                }),
            };
            world.deliver(Channel::Tpns, token, push);
        }
        let verdict = if bad.is_empty() {
            "accepted"
        } else {
            "partial"
        };
        let body = json!({"seq": body.get("seq").cloned().unwrap_or(json!(0)), "push_id": id, "ret_code": 0,
            "environment": "product", "err_msg": "", "result": "[]", "invalid_targe_list": bad});
        Ok(Reply::json(200, &body, verdict))
    }

    fn statistics(&self, body: &Value) -> Result<Reply, Refusal> {
        let id = text(body, "/pushId");
        let pushes = self.pushes.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, count) = pushes
            .iter()
            .find(|(of, _)| *of == id)
            .ok_or_else(|| refuse(1_008_015, "push id not exist"))?;
        let numbers = self.counted.of(&id);
        let state = json!({"pushActiveUv": count, "pushOnlineUv": count, "verifySvcUv": numbers.delivered,
                           "callbackVerifySvcUv": 0, "verifyUv": 0, "clickUv": numbers.clicked, "cleanupUv": 0});
        let body = json!({"retCode": 0, "errMsg": "", "pushStatDataAll": [{"channel": "all", "pushState": state}]});
        Ok(Reply::json(200, &body, "accepted"))
    }

    fn decide(&self, world: &World, call: &Call) -> Result<Reply, Refusal> {
        self.authorize(call, world.clock.now_s())?;
        if call.method != Method::POST {
            return Err(refuse(1_008_007, "only POST"));
        }
        let body: Value = serde_json::from_slice(&call.body)
            .map_err(|_| refuse(1_008_001, "the body cannot be parsed"))?;
        if is_statistics(call) {
            self.statistics(&body)
        } else {
            self.push(world, &body)
        }
    }
}

fn is_statistics(call: &Call) -> bool {
    call.path.contains("/statistics/")
}

impl Simulator for Tpns {
    fn channel(&self) -> Channel {
        Channel::Tpns
    }

    fn claims(&self, call: &Call) -> Option<Endpoint> {
        let path = call.path.trim_start_matches('/');
        matches!(
            path,
            "v3/push/app" | "v3/statistics/get_push_task_stat_channel"
        )
        .then_some(Endpoint::Send)
    }

    fn handle(&self, world: &World, _connection: &Connection, call: &Call) -> Reply {
        self.decide(world, call)
            .unwrap_or_else(|refusal| refusal.reply(is_statistics(call)))
    }

    fn fault(&self, _world: &World, call: &Call, kind: FaultKind) -> Reply {
        let refusal = match kind {
            FaultKind::RateLimited => refuse(1_008_028, "too many calls"),
            FaultKind::QuotaExhausted => refuse(1_008_030, "the application is not paid for"),
            FaultKind::TokenInvalid => refuse(1_008_006, "token invalid"),
            FaultKind::AuthExpired => return Reply::empty(403, "403"),
            _ => refuse(1_008_004, "internal call failed"),
        };
        refusal.reply(is_statistics(call))
    }

    fn receipt(
        &self,
        receipt: &Receipt,
        fate: Fate,
        now_ms: i64,
        console: Option<&ReceiptAddress>,
    ) -> Option<Post> {
        self.counted.add(&receipt.id, fate);
        let event = match fate {
            Fate::Delivered => "delivered",
            Fate::Clicked => "clicked",
            Fate::TargetInvalid | Fate::NotShown | Fate::OverQuota => return None,
        };
        let rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let called = |name: &str| {
            rules
                .receipt
                .get(name)
                .map_or(name, String::as_str)
                .to_owned()
        };
        let entry = json!({
            called("push_id"): receipt.id, called("trace_id"): receipt.param, called("token"): receipt.token,
            called("event"): called(event), called("timestamp"): now_ms,
        });
        let body = match rules.receipt.get("list") {
            Some(list) => json!({list.as_str(): [entry]}),
            None => json!([entry]),
        };
        Some(Post::json(&console?.url, &body))
    }

    fn set_rules(&self, rules: &Value) -> Result<(), String> {
        let rules: Rules = serde_json::from_value(rules.clone()).map_err(|e| e.to_string())?;
        *self.rules.lock().unwrap_or_else(PoisonError::into_inner) = rules;
        Ok(())
    }

    fn new_token(&self, unique: &str, _dice: &Dice) -> String {
        format!("0{unique}1f5")
    }

    fn credential(&self, _accounts: &Accounts) -> Value {
        json!({
            "access_id": self.account.access_id, "secret_key": self.account.secret_key,
            "channels": {
                "im": {"xm_ch_id": "100001", "oppo_ch_id": "private"},
                "transaction": {"xm_ch_id": "100002", "oppo_ch_id": "private"},
                "marketing": {"xm_ch_id": "200001"},
            },
            "granted": ["im", "transaction", "subscription"],
        })
    }
}
