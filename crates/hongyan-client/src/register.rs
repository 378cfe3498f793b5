//! A device's HTTP calls: registering, tokens, login, events without a connection.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::Error;
use crate::http_client::{Answer, Call, Http};
use crate::net::escape;
use crate::options::Options;
use crate::secret::Secret;
use crate::wire::ClientEvent;

/// Deadline of one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// What a device says of itself (design, vocabulary). Fields that are `None` are not sent.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct DeviceInfo {
    /// The installation's own UUID; the server makes one when it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
    /// `ios android harmony web desktop iot`.
    pub platform: String,
    /// Package or bundle id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// Maker, such as `xiaomi`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub brand: Option<String>,
    /// Model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// BCP 47 language tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locale: Option<String>,
    /// IANA time zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// The app's version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_version: Option<String>,
    /// Whether notifications may be shown: `granted`, `denied` or what the platform says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permission: Option<String>,
    /// The token that the device got before: with it, the device keeps its token and its user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_token: Option<Secret>,
    /// Tags; those that the device has stay when there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Further fields of the API.
    #[serde(flatten)]
    pub more: BTreeMap<String, Value>,
}

/// What registering gives.
#[derive(Debug, Clone, Deserialize)]
pub struct Registered {
    /// The device's id.
    pub device_id: String,
    /// The token with which it acts.
    pub device_token: Secret,
}

/// The HTTP side of one device.
#[derive(Debug, Clone)]
pub struct DeviceSession {
    pub(crate) http: Http,
    device: String,
}

impl DeviceSession {
    /// Registers a device, or registers it again with its full state.
    ///
    /// # Errors
    /// [`Error::Problem`] by the server, or what kept the call from it. Idempotent when `info` names
    /// its `device_id`, and then tried again when it failed on the way.
    pub async fn register(
        options: &Options,
        client_key: impl Into<Secret>,
        info: &DeviceInfo,
    ) -> Result<(Self, Registered), Error> {
        let http = http(options, client_key.into());
        let mut call = Call::post("/v1/devices", info);
        if info.device_id.is_some() {
            call = call.repeatable();
        }
        let registered: Registered = http.call(call).await?;
        let http = http.with_key(registered.device_token.clone());
        Ok((
            Self {
                http,
                device: registered.device_id.clone(),
            },
            registered,
        ))
    }

    /// Acts as a device that was registered before.
    pub fn resume(options: &Options, registered: &Registered) -> Self {
        let http = http(options, registered.device_token.clone());
        Self {
            http,
            device: registered.device_id.clone(),
        }
    }

    /// The device's id.
    #[must_use]
    pub fn device_id(&self) -> &str {
        &self.device
    }

    pub(crate) fn path(&self, rest: &str) -> String {
        format!("/v1/devices/{}{rest}", escape(&self.device))
    }

    /// Reads what the server knows of the device.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn read(&self) -> Answer {
        self.http.call(Call::get(self.path(""))).await
    }

    /// Changes fields of the device, such as `{"permission": "denied"}`.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn update(&self, fields: &Value) -> Answer {
        self.http
            .call(Call::new(Method::PATCH, self.path("")).json(fields))
            .await
    }

    /// Makes the server forget the device.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn forget(&self) -> Result<(), Error> {
        self.http
            .bytes(Call::new(Method::DELETE, self.path("")))
            .await
            .map(drop)
    }

    /// Tells the vendor's token of a channel, with its environment and credential where they matter.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn put_token(
        &self,
        channel: &str,
        token: &str,
        environment: Option<&str>,
        credential: Option<&str>,
    ) -> Result<(), Error> {
        let mut body = json!({ "token": token });
        if let Some(environment) = environment {
            body["environment"] = environment.into();
        }
        if let Some(credential) = credential {
            body["credential"] = credential.into();
        }
        let path = self.path(&format!("/tokens/{}", escape(channel)));
        self.http
            .bytes(Call::new(Method::PUT, path).json(&body))
            .await
            .map(drop)
    }

    /// Takes the vendor's token of a channel back.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn delete_token(&self, channel: &str) -> Result<(), Error> {
        let path = self.path(&format!("/tokens/{}", escape(channel)));
        self.http
            .bytes(Call::new(Method::DELETE, path))
            .await
            .map(drop)
    }

    /// Gets the key of the device's wake-ups (see [`crate::wake`]): after the device's number was given as its token, and
    /// again after every registration that gave another device token.
    ///
    /// # Errors
    /// [`Error`]; a [`Error::Problem`] with status 404 when no channel of the device wakes it.
    pub async fn wake_key(&self) -> Result<crate::wake::Key, Error> {
        let call = Call::post(self.path("/wake-key"), &json!({})).repeatable();
        self.http.call(call).await
    }

    /// Binds the device to a user; `user_token` is the app server's signature where it is asked for.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn login(&self, user: &str, user_token: Option<&Secret>) -> Result<(), Error> {
        let mut body = json!({ "user": user });
        if let Some(token) = user_token {
            body["user_token"] = token.expose().into();
        }
        let call = Call::post(self.path("/login"), &body).repeatable();
        self.http.bytes(call).await.map(drop)
    }

    /// Unbinds the device from its user.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn logout(&self) -> Result<(), Error> {
        let call = Call::post(self.path("/logout"), &json!({})).repeatable();
        self.http.bytes(call).await.map(drop)
    }

    /// Reports events without a live connection, as vendors' pushes need it. The ledger counts each
    /// (message, device, kind) once, so a repeated call does no harm.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn client_events(&self, events: &[ClientEvent]) -> Result<(), Error> {
        let call = Call::post("/v1/client-events", &events).repeatable();
        self.http.bytes(call).await.map(drop)
    }
}

fn http(options: &Options, key: Secret) -> Http {
    Http::new(
        options.base.clone(),
        Some(key),
        options.tls.clone(),
        std::sync::Arc::clone(&options.connector),
        CALL_TIMEOUT,
    )
}
