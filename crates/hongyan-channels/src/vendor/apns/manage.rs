//! Broadcast channels are made, listed, read and deleted at a service of their own (`/1/apps/{bundle}/…`).

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hongyan_core::device::Environment;
use hongyan_core::port::{BroadcastError, BroadcastStorage, Broadcasts};
use hongyan_core::{Timestamp, Verdict};
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Method};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Headers, Sender, decode, reason_of};
use crate::answer::unreadable;
use crate::egress::Origin;
use crate::http::{Answer, Ask};
use crate::texts::detail;

/// Longest id of a broadcast channel, bytes; Apple fixes no size.
const ID_BYTES_MAX: usize = 256;
const CHANNEL_ID: HeaderName = HeaderName::from_static("apns-channel-id");

/// Where channels are managed. A credential's own endpoint takes these calls too, unless it is Apple's host for sending by another port
/// or name, which does not.
pub(super) fn endpoint(own: Option<&str>, environment: Environment) -> &str {
    let elsewhere = own.filter(|own| {
        Origin::parse(own).is_ok_and(|origin| !origin.host().ends_with(".push.apple.com"))
    });
    elsewhere.unwrap_or(match environment {
        Environment::Production => "https://api-manage-broadcast.push.apple.com:2196",
        Environment::Sandbox => "https://api-manage-broadcast.sandbox.push.apple.com:2195",
    })
}

/// Whether a text may be the id of a broadcast channel: base64.
pub(super) fn is_id(id: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"+/=-_".contains(&b);
    (1..=ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(plain)
}

/// What a refusal of these calls means.
pub(super) fn failure(answer: &Answer, now: Timestamp) -> BroadcastError {
    match reason_of(answer).as_str() {
        "ChannelNotRegistered" | "BadChannelId" => BroadcastError::NotFound,
        reason @ "CannotCreateChannelConfig" => BroadcastError::Full {
            detail: format!(
                "{} {reason}: Apple allows 10,000 broadcast channels for an app; delete those that are not used",
                answer.status
            ),
        },
        // There is no device here: what is asked of one is asked of us.
        reason => match decode(answer, now).word() {
            // A success that no call asked for.
            Verdict::Accepted { .. } => BroadcastError::Vendor(unreadable(answer.status)),
            // Words about tokens make no sense here: a status such as 410 is taken for what it says of the call.
            Verdict::TokenDead { .. } => BroadcastError::Vendor(Verdict::CredentialBad {
                detail: detail(&format!("{} {reason}: check the endpoint", answer.status)),
            }),
            verdict => BroadcastError::Vendor(verdict),
        },
    }
}

/// What Apple says of a channel.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Described {
    message_storage_policy: u8,
}

#[derive(Deserialize)]
struct Listed {
    channels: Vec<String>,
}

impl Sender {
    /// One call, answered with this status.
    async fn manage(
        &self,
        method: Method,
        resource: &str,
        id: Option<&str>,
        body: Option<&Value>,
        wanted: u16,
        deadline: Duration,
    ) -> Result<Answer, BroadcastError> {
        let mut headers = Headers::new();
        if let Some(id) = id {
            let id = Some(id).filter(|id| is_id(id));
            let id = id.and_then(|id| HeaderValue::from_str(id).ok());
            headers.push((CHANNEL_ID, id.ok_or(BroadcastError::NotFound)?));
        }
        let body = body.map_or_else(Bytes::new, |body| {
            headers.push((CONTENT_TYPE, HeaderValue::from_static("application/json")));
            body.to_string().into()
        });
        let head = self.head(headers);
        let ask = Ask {
            method,
            path: format!("/1/apps/{}/{resource}", self.config.bundle_id).into(),
            headers: head.headers,
            body,
        };
        let until = Instant::now() + deadline;
        let answer = self
            .call(&self.manage, ask, head.generation, until)
            .await
            .map_err(BroadcastError::Vendor)?;
        if answer.status == wanted {
            Ok(answer)
        } else {
            Err(failure(&answer, self.egress.now()))
        }
    }
}

/// A success that does not hold what it has to.
fn senseless(answer: &Answer) -> BroadcastError {
    BroadcastError::Vendor(unreadable(answer.status))
}

#[async_trait]
impl Broadcasts for Sender {
    async fn create(
        &self,
        storage: BroadcastStorage,
        deadline: Duration,
    ) -> Result<String, BroadcastError> {
        let policy = match storage {
            BroadcastStorage::None => 0,
            BroadcastStorage::Latest => 1,
        };
        let body = json!({"message-storage-policy": policy, "push-type": "LiveActivity"});
        let answer = self
            .manage(Method::POST, "channels", None, Some(&body), 201, deadline)
            .await?;
        let id = answer.headers.get(CHANNEL_ID);
        let id = id.and_then(|id| id.to_str().ok()).filter(|id| is_id(id));
        id.map(str::to_owned).ok_or_else(|| senseless(&answer))
    }

    async fn list(&self, deadline: Duration) -> Result<Vec<String>, BroadcastError> {
        let answer = self
            .manage(Method::GET, "all-channels", None, None, 200, deadline)
            .await?;
        let listed = serde_json::from_slice::<Listed>(&answer.body);
        let ids = listed.map_err(|_| senseless(&answer))?.channels;
        Ok(ids.into_iter().filter(|id| is_id(id)).collect())
    }

    async fn read(&self, id: &str, deadline: Duration) -> Result<BroadcastStorage, BroadcastError> {
        let answer = self
            .manage(Method::GET, "channels", Some(id), None, 200, deadline)
            .await?;
        match serde_json::from_slice::<Described>(&answer.body) {
            Ok(Described {
                message_storage_policy: 0,
            }) => Ok(BroadcastStorage::None),
            Ok(Described {
                message_storage_policy: 1,
            }) => Ok(BroadcastStorage::Latest),
            _ => Err(senseless(&answer)),
        }
    }

    async fn delete(&self, id: &str, deadline: Duration) -> Result<(), BroadcastError> {
        self.manage(Method::DELETE, "channels", Some(id), None, 204, deadline)
            .await
            .map(|_| ())
    }
}
