//! Receipts: what vendors tell the sender after the fact, posted to the URL the sender gave.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Notify;

use crate::channel::Channel;
use crate::clock::Clock;
use crate::http_client;
use crate::limits;
use crate::push::{Fate, Receipt};
use crate::vendor::Simulators;

/// Where a vendor posts receipts, as entered in its console.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptAddress {
    /// The callback URL.
    pub url: String,
    /// User name of Huawei's callback signature; without it and `key` callbacks are not signed.
    #[serde(default)]
    pub username: Option<String>,
    /// What the vendor signs callbacks with: Huawei's key, Meizu's receipt token.
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
#[derive(Debug, Clone)]
pub(crate) struct Post {
    url: String,
    headers: Vec<(&'static str, String)>,
    body: String,
}

impl Post {
    /// A JSON body.
    pub(crate) fn json(url: &str, body: &Value) -> Self {
        Self {
            url: url.to_owned(),
            headers: vec![("content-type", "application/json".to_owned())],
            body: body.to_string(),
        }
    }

    /// A form.
    pub(crate) fn form(url: &str, fields: &[(&str, &str)]) -> Self {
        let pairs: Vec<String> = fields
            .iter()
            .map(|(name, value)| format!("{}={}", form_encode(name), form_encode(value)))
            .collect();
        Self {
            url: url.to_owned(),
            headers: vec![(
                "content-type",
                "application/x-www-form-urlencoded".to_owned(),
            )],
            body: pairs.join("&"),
        }
    }

    /// One more header.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Huawei's signature, when the console has a user name and a key: `timestamp=…; nonce=…; value=…`, the value over
    /// timestamp, nonce and user name.
    pub(crate) fn signed_as_huawei(self, console: &ReceiptAddress, now_ms: i64) -> Self {
        let (Some(username), Some(key)) = (&console.username, &console.key) else {
            return self;
        };
        let nonce = uuid::Uuid::new_v4();
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
        let value = hmac::sign(&key, format!("{now_ms}{nonce}{username}").as_bytes());
        let value = STANDARD.encode(value.as_ref());
        self.with(
            "x-huawei-callback-id",
            format!("timestamp={now_ms}; nonce={nonce}; value={value}"),
        )
    }
}

/// The receipts that wait, and where the vendors' consoles say that they go.
#[derive(Debug)]
pub(crate) struct Receipts {
    clock: std::sync::Arc<Clock>,
    vendors: Simulators,
    waiting: Mutex<VecDeque<Post>>,
    wake: Notify,
    consoles: Mutex<BTreeMap<Channel, ReceiptAddress>>,
}

impl Receipts {
    pub(crate) fn new(clock: std::sync::Arc<Clock>, vendors: Simulators) -> Self {
        Self {
            clock,
            vendors,
            waiting: Mutex::default(),
            wake: Notify::new(),
            consoles: Mutex::default(),
        }
    }

    pub(crate) fn set_console(&self, channel: Channel, address: Option<ReceiptAddress>) {
        let mut consoles = self.consoles.lock().unwrap_or_else(PoisonError::into_inner);
        match address {
            Some(address) => consoles.insert(channel, address),
            None => consoles.remove(&channel),
        };
    }

    /// The address in a vendor's console. HarmonyOS pushes are of Huawei's console, where an app may have its own address.
    pub(crate) fn console(&self, channel: Channel) -> Option<ReceiptAddress> {
        let consoles = self.consoles.lock().unwrap_or_else(PoisonError::into_inner);
        let project = (channel == Channel::Harmony).then_some(&Channel::Huawei);
        let own = consoles.get(&channel);
        own.or_else(|| consoles.get(project?)).cloned()
    }

    /// Tells the sender what became of a push, if it asked for this kind of news.
    pub(crate) fn report(&self, receipt: &Receipt, fate: Fate) {
        let Some(vendor) = self.vendors.of(receipt.channel) else {
            return;
        };
        let console = self.console(receipt.channel);
        let now = self.clock.now_ms();
        if let Some(post) = vendor.receipt(receipt, fate, now, console.as_ref()) {
            self.post(post);
        }
    }

    /// Posts something to the sender.
    pub(crate) fn post(&self, post: Post) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        while waiting.len() >= limits::RECEIPTS_MAX {
            waiting.pop_front();
        }
        waiting.push_back(post);
        drop(waiting);
        self.wake.notify_one();
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
            let sent =
                http_client::request("POST", &post.url, &post.headers, post.body.into()).await;
            if let Err(error) = sent {
                tracing::debug!(%error, "vendor receipt not taken");
            }
        }
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
