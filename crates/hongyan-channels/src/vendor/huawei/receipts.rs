//! Receipts of Huawei in both versions: the list `statuses`, with the result at the top of an entry (V1) or under
//! `deliveryStatus` or `formStatus` (V2), and their signature.
//!
//! Source: Huawei developer documentation, "Sending receipts for downlink messages" and HarmonyOS "Message receipt" (read
//! 2026-11). The header `x-huawei-callback-id` is `timestamp=<ms>; nonce=<text>; value=<base64>`, the value HMAC-SHA256
//! over timestamp, nonce and user name. Newer keys are base64 and older ones plain text, so that both are tried. The
//! console's test call comes without the header: with a key set, a post without one is taken only when it tells nothing.
//! A signed post may come again as it was, since storing it may have failed; with another body its signature is used up. Nonces
//! are remembered as long as the channel is open; beyond that the
//! five minutes of a signature bound its use. Unverified: what V1 says over the daily limit, 102 or 201.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hongyan_core::port::{Callback, CallbackError, CallbackRequest, Receipt, ReceiptKind};
use hongyan_core::{Reason, Secret, Timestamp};
use ring::hmac;
use serde_json::Value;

use crate::callback::{self, Nonces};
use crate::config::Fields;
use crate::texts;

const HEADER: &str = "x-huawei-callback-id";
/// Older texts name the fields of the answer otherwise; all four are given.
const HEARD: &str = r#"{"code":"0","message":"success","errno":"0","errmsg":"success"}"#;

/// What a credential says about receipts, and the signatures that were taken.
#[derive(Debug)]
pub(in crate::vendor) struct Receipts {
    signer: Option<Signer>,
    nonces: Nonces,
}

/// How receipts are signed.
struct Signer {
    user: String,
    /// The key as it is, and decoded.
    keys: Vec<hmac::Key>,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").finish_non_exhaustive()
    }
}

impl Receipts {
    /// Reads `receipt_user` and `receipt_key`; faults are kept in `fields`.
    pub(in crate::vendor) fn read(fields: &mut Fields<'_>) -> Self {
        let user = fields.optional_text("receipt_user");
        let key = fields.optional_text("receipt_key");
        if user.is_some() != key.is_some() {
            let (missing, other) = match user {
                Some(_) => ("receipt_key", "receipt_user"),
                None => ("receipt_user", "receipt_key"),
            };
            fields.fault(
                missing,
                format!("is missing: {other} is there, and a signature needs both"),
            );
        }
        let signer = user.zip(key).map(|(user, key)| {
            let plain = Some(key.as_bytes().to_vec());
            let keys = [STANDARD.decode(&key).ok(), plain].into_iter().flatten();
            Signer {
                user,
                keys: keys
                    .map(|bytes| hmac::Key::new(hmac::HMAC_SHA256, &bytes))
                    .collect(),
            }
        });
        Self {
            signer,
            nonces: Nonces::default(),
        }
    }

    /// Reads a post.
    pub(in crate::vendor) fn callback(
        &self,
        request: &CallbackRequest<'_>,
    ) -> Result<Callback, CallbackError> {
        let nonce = match (&self.signer, request.header(HEADER)) {
            (Some(signer), Some(header)) => {
                let (nonce, at) = signer.verify(header)?;
                callback::timely(at, request.now)?;
                Some(nonce)
            }
            _ => None,
        };
        let read = read_statuses(request.body, kind);
        let receipts = match nonce {
            None => read?,
            Some(nonce) => {
                let receipts = read.map_err(though_signed)?;
                // Huawei posts again what we could not store; the signature does not cover the body.
                if !self.nonces.takes(nonce, request.body, request.now) {
                    return Err(CallbackError::Replayed);
                }
                receipts
            }
        };
        // The console's test call has neither a signature nor receipts.
        if self.signer.is_some() && nonce.is_none() && !receipts.is_empty() {
            return Err(CallbackError::Signature(format!(
                "it has no header {HEADER}: switch the signature on in AppGallery Connect, or take receipt_user and receipt_key out of the credential"
            )));
        }
        Ok(Callback {
            receipts,
            signed: nonce.is_some(),
            content_type: "application/json",
            body: HEARD.to_owned(),
        })
    }
}

/// Says of what cannot be read that it was signed: the fault is the body's, not the key's.
fn though_signed(error: CallbackError) -> CallbackError {
    match error {
        CallbackError::Malformed(why) => {
            CallbackError::SignedMalformed(format!("its signature holds, but {why}"))
        }
        other => other,
    }
}

impl Signer {
    /// The nonce and the time of a header whose signature holds.
    fn verify<'a>(&self, header: &'a str) -> Result<(&'a str, Timestamp), CallbackError> {
        let part = |name: &str| {
            header.split(';').find_map(|part| {
                let (key, value) = part.trim().split_once('=')?;
                (key == name).then_some(value)
            })
        };
        let wrong = |what: &str| CallbackError::Signature(what.to_owned());
        let (Some(timestamp), Some(nonce), Some(value)) =
            (part("timestamp"), part("nonce"), part("value"))
        else {
            return Err(wrong("the header lacks timestamp, nonce or value"));
        };
        let signed = format!("{timestamp}{nonce}{}", self.user);
        let value = STANDARD.decode(value).unwrap_or_default();
        // Both keys are always tried, so that the time tells nothing.
        let holds = self.keys.iter().fold(false, |holds, key| {
            callback::same(hmac::sign(key, signed.as_bytes()).as_ref(), &value) | holds
        });
        if !holds {
            return Err(wrong(
                "the value is wrong: compare receipt_user and receipt_key with AppGallery Connect",
            ));
        }
        let at = timestamp
            .parse()
            .map_err(|_| wrong("its time is not a number"))?;
        Ok((nonce, Timestamp(at)))
    }
}

/// The entries of `statuses`; `kind` says what a result means.
pub(in crate::vendor) fn read_statuses(
    body: &[u8],
    kind: impl Fn(i64) -> ReceiptKind,
) -> Result<Vec<Receipt>, CallbackError> {
    let body = callback::json(body)?;
    let statuses = body
        .get("statuses")
        .and_then(Value::as_array)
        .ok_or_else(|| CallbackError::Malformed("it has no list statuses".to_owned()))?;
    Ok(statuses.iter().map(|entry| receipt(entry, &kind)).collect())
}

fn receipt(entry: &Value, kind: impl Fn(i64) -> ReceiptKind) -> Receipt {
    let parts = ["deliveryStatus", "formStatus"];
    let inner = parts.iter().find_map(|name| entry.get(*name));
    let text = |names: [&str; 2]| {
        let places = [inner, Some(entry)].into_iter().flatten();
        let mut found = places.flat_map(|place| names.iter().filter_map(|name| place.get(*name)));
        found
            .find_map(|value| match value {
                Value::String(text) => Some(text.clone()),
                Value::Number(number) => Some(number.to_string()),
                _ => None,
            })
            .unwrap_or_default()
    };
    let filled = |text: String| Some(text).filter(|t| !t.is_empty());
    let result = text(["result", "status"]);
    let at: Option<i64> = text(["timestamp", "time"]).parse().ok();
    Receipt {
        kind: result.parse().map_or(ReceiptKind::Other, kind),
        message: callback::message(&text(["biTag", "bi_tag"])),
        vendor_id: filled(texts::detail(&text(["requestId", "request_id"]))),
        token: filled(text(["token", "pushToken"])).map(Secret::new),
        at: at.map(Timestamp),
        detail: texts::detail(&format!("result {result}")),
    }
}

/// What the numbers of both versions mean.
fn kind(result: i64) -> ReceiptKind {
    match result {
        0 => ReceiptKind::Delivered,
        // The app is gone; the token is not the device's (any more).
        2 | 5 => ReceiptKind::TokenInvalid,
        // Switched off by the person, by its channel, or in a child's mode.
        6 => ReceiptKind::PermissionOff,
        // Off line for 30 days; another person of the device, or an unknown profile.
        10 => ReceiptKind::Failed(Reason::NoChannel),
        22 | 144 => ReceiptKind::Failed(Reason::UserLoggedOut),
        14 | 188 => ReceiptKind::Failed(Reason::VendorUnavailable),
        15 | 156 => ReceiptKind::Failed(Reason::Collapsed),
        // Too much for the device, for marketing, for test messages, for a card or a live view.
        102 | 201 | 256 | 262 | 265 => ReceiptKind::Failed(Reason::QuotaExhausted),
        158 | 269 => ReceiptKind::Failed(Reason::Duplicate),
        264 => ReceiptKind::Failed(Reason::PreferenceMuted),
        // A page, a card, a live view or a text that is not as it should be; an app that is punished.
        31 | 151 | 155 | 259 | 261 | 268 => ReceiptKind::Failed(Reason::PayloadRejected),
        // 27 held for the app's process, 51 until the device is unlocked, 191 only the badge failed; and what is new.
        _ => ReceiptKind::Other,
    }
}

#[cfg(test)]
mod tests;
