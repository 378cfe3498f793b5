//! Receipts: what vendors tell the sender after the fact, posted to the URL the sender gave.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Notify;

use crate::channel::Channel;
use crate::clock::Clock;
use crate::http_client;
use crate::limits;
use crate::push::{Fate, Receipt};

/// Where Huawei posts receipts, as configured in its console.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptAddress {
    /// The callback URL.
    pub url: String,
    /// User name of the callback signature; without it and `key` callbacks are not signed.
    #[serde(default)]
    pub username: Option<String>,
    /// Key of the callback signature.
    #[serde(default)]
    pub key: Option<String>,
}

impl std::fmt::Debug for ReceiptAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReceiptAddress")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// A receipt ready to be posted.
#[derive(Debug)]
struct Post {
    url: String,
    content_type: &'static str,
    body: String,
    signed_as: Option<ReceiptAddress>,
}

/// The receipts that wait, and where Huawei's go.
#[derive(Debug)]
pub(crate) struct Receipts {
    clock: std::sync::Arc<Clock>,
    waiting: Mutex<VecDeque<Post>>,
    wake: Notify,
    huawei: Mutex<Option<ReceiptAddress>>,
}

impl Receipts {
    pub(crate) fn new(clock: std::sync::Arc<Clock>) -> Self {
        Self {
            clock,
            waiting: Mutex::default(),
            wake: Notify::new(),
            huawei: Mutex::default(),
        }
    }

    pub(crate) fn set_huawei(&self, address: Option<ReceiptAddress>) {
        *self.huawei.lock().unwrap_or_else(PoisonError::into_inner) = address;
    }

    pub(crate) fn huawei_address(&self) -> Option<ReceiptAddress> {
        self.huawei
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Tells the sender what became of a push, if it asked for this kind of news.
    pub(crate) fn report(&self, receipt: &Receipt, fate: Fate) {
        let Some(post) = self.post_for(receipt, fate) else {
            return;
        };
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        while waiting.len() >= limits::RECEIPTS_MAX {
            waiting.pop_front();
        }
        waiting.push_back(post);
        drop(waiting);
        self.wake.notify_one();
    }

    fn post_for(&self, receipt: &Receipt, fate: Fate) -> Option<Post> {
        let now = self.clock.now_ms();
        match receipt.channel {
            Channel::Xiaomi => {
                let kind = match fate {
                    Fate::Delivered => 1,
                    Fate::Clicked => 2,
                    Fate::TargetInvalid => 16,
                    Fate::NotShown => 32,
                    Fate::OverQuota => 128,
                };
                if receipt.kinds & kind == 0 {
                    return None;
                }
                let mut entry = json!({
                    "param": receipt.param, "type": kind, "targets": receipt.token,
                    "jobkey": "", "timestamp": now,
                    "barStatus": if fate == Fate::NotShown { "Disable" } else { "Enable" },
                });
                if fate == Fate::OverQuota {
                    entry["extra"] = json!({"ack": "0", "quota": "0"});
                }
                let data = json!({ receipt.id.as_str(): entry }).to_string();
                Some(Post {
                    url: receipt.url.clone(),
                    content_type: "application/x-www-form-urlencoded",
                    body: format!("data={}", form_encode(&data)),
                    signed_as: None,
                })
            }
            Channel::Huawei | Channel::Harmony => {
                let result = match fate {
                    Fate::Delivered => 0,
                    Fate::Clicked => return None,
                    Fate::TargetInvalid => 2,
                    Fate::NotShown => 6,
                    Fate::OverQuota if receipt.channel == Channel::Harmony => 256,
                    Fate::OverQuota => 102,
                };
                let address = self.huawei_address()?;
                let entry = if receipt.channel == Channel::Harmony {
                    json!({
                        "biTag": receipt.param, "pushType": 0,
                        "appPackageName": crate::accounts::PACKAGE,
                        "token": receipt.token, "requestId": receipt.id,
                        "deliveryStatus": {"result": result, "timestamp": now},
                    })
                } else {
                    json!({
                        "biTag": receipt.param, "appid": receipt.account, "token": receipt.token,
                        "status": result, "timestamp": now, "requestId": receipt.id,
                    })
                };
                Some(Post {
                    url: address.url.clone(),
                    content_type: "application/json",
                    body: json!({"statuses": [entry]}).to_string(),
                    signed_as: Some(address),
                })
            }
            Channel::Apns | Channel::Fcm => None,
        }
    }

    /// Posts receipts one after another until dropped. A receipt that fails is lost, as at vendors.
    pub(crate) async fn run(&self) {
        loop {
            let next = self
                .waiting
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop_front();
            let Some(post) = next else {
                self.wake.notified().await;
                continue;
            };
            let mut headers = vec![("content-type", post.content_type.to_owned())];
            if let Some(signature) = post
                .signed_as
                .as_ref()
                .and_then(|address| self.signature(address))
            {
                headers.push(("x-huawei-callback-id", signature));
            }
            let sent = http_client::request("POST", &post.url, &headers, post.body.into()).await;
            if let Err(error) = sent {
                tracing::debug!(%error, "vendor receipt not taken");
            }
        }
    }

    /// `timestamp=…; nonce=…; value=…`, the value over timestamp, nonce and user name.
    fn signature(&self, address: &ReceiptAddress) -> Option<String> {
        let (username, key) = (address.username.as_ref()?, address.key.as_ref()?);
        let timestamp = self.clock.now_ms();
        let nonce = uuid::Uuid::new_v4();
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
        let value = hmac::sign(&key, format!("{timestamp}{nonce}{username}").as_bytes());
        let value = STANDARD.encode(value.as_ref());
        Some(format!(
            "timestamp={timestamp}; nonce={nonce}; value={value}"
        ))
    }
}

fn form_encode(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes()
        .fold(String::with_capacity(text.len() * 2), |mut out, byte| {
            if byte.is_ascii_alphanumeric() || b"-_.*".contains(&byte) {
                out.push(char::from(byte));
            } else {
                let _ = write!(out, "%{byte:02X}");
            }
            out
        })
}
