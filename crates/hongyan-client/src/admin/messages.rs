//! Messages: send, explain, follow, recall.

use http::HeaderName;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Admin, with_query};
use crate::error::Error;
use crate::http_client::{Answer, Call};
use crate::net::escape;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The server took a message over.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct Accepted {
    /// The message's id.
    pub id: String,
}

impl Admin {
    /// Sends one message under an idempotency key of its own, so that a call that broke is made
    /// again without sending twice.
    ///
    /// # Errors
    /// [`Error::Problem`] names the wrong fields of the body.
    pub async fn send(&self, message: &Value) -> Result<Accepted, Error> {
        self.send_once(message, &uuid::Uuid::now_v7().to_string())
            .await
    }

    /// Sends one message under the caller's idempotency key: the same key and body give the same
    /// answer for 24 hours.
    ///
    /// # Errors
    /// As [`Admin::send`]; status 409 when the key was used with another body.
    pub async fn send_once(&self, message: &Value, key: &str) -> Result<Accepted, Error> {
        let call = Call::post("/v1/messages", message)
            .header(IDEMPOTENCY_KEY, key)
            .repeatable();
        self.http.call(call).await
    }

    /// Sends up to 1,000 personal messages; the answer holds one result for each.
    ///
    /// # Errors
    /// [`Error`]. Not repeated by itself when the connection broke.
    pub async fn send_batch(&self, messages: &[Value]) -> Answer {
        let call = Call::post("/v1/messages/batch", &json!({ "messages": messages }));
        self.http.call(call).await
    }

    /// What would happen to each device, and why; nothing is sent.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn explain(&self, message: &Value) -> Answer {
        self.http
            .call(Call::post("/v1/messages/explain", message).repeatable())
            .await
    }

    /// State and funnel counts of a message.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn message(&self, id: &str) -> Answer {
        self.http
            .call(Call::get(format!("/v1/messages/{}", escape(id))))
            .await
    }

    /// Every event of a message in order, for all, one user or one device.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn trace(&self, id: &str, user: Option<&str>, device: Option<&str>) -> Answer {
        let path = format!("/v1/messages/{}/trace", escape(id));
        self.http
            .call(Call::get(with_query(
                &path,
                &[("user", user), ("device", device)],
            )))
            .await
    }

    /// Every event of a user's messages.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn user_trace(&self, user: &str) -> Answer {
        self.http
            .call(Call::get(format!("/v1/users/{}/trace", escape(user))))
            .await
    }

    /// Every event of a device's messages.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn device_trace(&self, device: &str) -> Answer {
        self.http
            .call(Call::get(format!("/v1/devices/{}/trace", escape(device))))
            .await
    }

    /// Stops what has not left, and takes back the rest where that is possible.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn recall(&self, id: &str) -> Answer {
        let path = format!("/v1/messages/{}/recall", escape(id));
        self.http
            .call(Call::post(path, &json!({})).repeatable())
            .await
    }
}
