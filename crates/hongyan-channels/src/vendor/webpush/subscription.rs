//! The token of a browser.

use hongyan_core::Timestamp;
use serde_json::Value;

use super::encryption::{AUTH_BYTES, POINT_BYTES};
use super::vapid::decode;
use crate::egress::Origin;

/// A browser's subscription: where to, and for whom.
pub(super) struct Subscription {
    pub(super) origin: Origin,
    pub(super) path: String,
    pub(super) point: [u8; POINT_BYTES],
    pub(super) auth: [u8; AUTH_BYTES],
}

impl Subscription {
    /// Reads what a page sent; the fault says which part is wrong.
    pub(super) fn parse(token: &str, now: Timestamp) -> Result<Self, String> {
        let value: Value = serde_json::from_str(token).map_err(|_| "it is no JSON".to_owned())?;
        let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str);
        let key = |pointer: &str| text(pointer).and_then(decode);
        let endpoint = text("/endpoint").ok_or("it has no endpoint")?;
        let (origin, path) = Origin::split(endpoint).map_err(|e| e.to_string())?;
        if !path.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("its endpoint has characters that no address has".to_owned());
        }
        if value
            .get("expirationTime")
            .and_then(Value::as_f64)
            .is_some_and(|at| Timestamp(at as i64) <= now)
        {
            return Err("it has expired".to_owned());
        }
        let point = key("/keys/p256dh").and_then(|bytes| bytes.try_into().ok());
        let auth = key("/keys/auth").and_then(|bytes| bytes.try_into().ok());
        Ok(Self {
            origin,
            path,
            point: point.ok_or("keys.p256dh is not 65 bytes in base64url")?,
            auth: auth.ok_or("keys.auth is not 16 bytes in base64url")?,
        })
    }

    /// Whether Microsoft's service answers it, which wants one header more.
    pub(super) fn is_windows(&self) -> bool {
        self.origin.host().ends_with(".notify.windows.com") || self.path.starts_with("/w/?token=")
    }
}
