//! Broadcast channels: create, read, delete, list (`/1/apps/…`) and publish (`/4/broadcasts/…`).

use std::collections::BTreeMap;
use std::sync::PoisonError;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use serde_json::{Value, json};

use super::{Refusal, authenticate, canonical_uuid, refuse, refused};
use crate::accounts::{OTHER_PACKAGE, PACKAGE};
use crate::exchange::{Call, Connection, Reply};
use crate::limits;
use crate::world::World;

const BROADCAST_BYTES_MAX: usize = 5120;
const CHANNEL_ID_BYTES_MAX: usize = 128;

/// Channels by bundle id and channel id, with their storage policy.
pub(super) type Channels = BTreeMap<String, BTreeMap<String, u8>>;

pub(super) fn handle(world: &World, connection: &Connection, call: &Call) -> Reply {
    let id = call
        .header("apns-request-id")
        .filter(|id| canonical_uuid(id))
        .map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned);
    decide(world, connection, call)
        .unwrap_or_else(|refusal| refused(&refusal))
        .with("apns-request-id", id)
}

fn decide(world: &World, connection: &Connection, call: &Call) -> Result<Reply, Refusal> {
    let segments: Vec<&str> = call.path.trim_start_matches('/').split('/').collect();
    let (bundle, verb) = match segments.as_slice() {
        ["4", "broadcasts", "apps", bundle] => (*bundle, "publish"),
        ["1", "apps", bundle, "channels"] => (*bundle, "channels"),
        ["1", "apps", bundle, "all-channels"] => (*bundle, "list"),
        _ => return Err(refuse(404, "BadPath")),
    };
    authenticate(world, connection, call)?;
    if bundle != PACKAGE && bundle != OTHER_PACKAGE {
        let suffixed = bundle.starts_with(PACKAGE);
        return Err(if suffixed {
            refuse(400, "TopicDisallowed")
        } else {
            refuse(403, "TopicMismatch")
        });
    }
    // The team switched broadcasts on for the first of its apps only.
    if bundle != PACKAGE {
        return Err(refuse(400, "FeatureNotEnabled"));
    }
    match (verb, &call.method) {
        ("publish", &Method::POST) => publish(world, call, bundle),
        ("channels", &Method::POST) => create(world, call, bundle),
        ("channels", &Method::GET) => {
            let (_, policy) = named(world, call, bundle)?;
            let body = json!({"message-storage-policy": policy, "push-type": "LiveActivity"});
            Ok(Reply::json(200, &body, "accepted channel read"))
        }
        ("channels", &Method::DELETE) => {
            let (id, _) = named(world, call, bundle)?;
            if let Some(channels) = lock(world).get_mut(bundle) {
                channels.remove(&id);
            }
            Ok(Reply::empty(204, "accepted channel deleted"))
        }
        ("list", &Method::GET) => {
            let ids: Vec<String> = lock(world)
                .get(bundle)
                .map(|channels| channels.keys().cloned().collect())
                .unwrap_or_default();
            Ok(Reply::json(
                200,
                &json!({"channels": ids}),
                "accepted channel list",
            ))
        }
        _ => Err(refuse(405, "MethodNotAllowed")),
    }
}

fn create(world: &World, call: &Call, bundle: &str) -> Result<Reply, Refusal> {
    let Ok(Value::Object(body)) = serde_json::from_slice(&call.body) else {
        return Err(refuse(400, "BadRequestPayload"));
    };
    if body
        .keys()
        .any(|key| key != "message-storage-policy" && key != "push-type")
    {
        return Err(refuse(400, "BadRequestParams"));
    }
    match body.get("push-type").and_then(Value::as_str) {
        None => return Err(refuse(400, "MissingPushType")),
        Some(kind) if kind.eq_ignore_ascii_case("LiveActivity") => {}
        Some(_) => return Err(refuse(400, "InvalidPushType")),
    }
    let policy = match body.get("message-storage-policy").map(Value::as_u64) {
        None => return Err(refuse(400, "MissingChannelQueueSize")),
        Some(Some(0)) => 0,
        Some(Some(1)) => 1,
        Some(_) => return Err(refuse(400, "BadRequestParams")),
    };
    let id = make(world, bundle, policy).ok_or_else(|| refuse(400, "CannotCreateChannelConfig"))?;
    Ok(Reply::empty(201, "accepted channel created").with("apns-channel-id", id))
}

/// A new channel's id, unless the app has too many.
pub(super) fn make(world: &World, bundle: &str, policy: u8) -> Option<String> {
    let mut apps = lock(world);
    let channels = apps.entry(bundle.to_owned()).or_default();
    if channels.len() >= limits::APNS_CHANNELS_MAX {
        return None;
    }
    let id = STANDARD.encode(uuid::Uuid::new_v4().as_bytes());
    channels.insert(id.clone(), policy);
    Some(id)
}

fn publish(world: &World, call: &Call, bundle: &str) -> Result<Reply, Refusal> {
    match call.header("apns-push-type") {
        None => return Err(refuse(400, "MissingPushType")),
        Some(kind) if kind.eq_ignore_ascii_case("liveactivity") => {}
        Some(_) => return Err(refuse(400, "InvalidPushType")),
    }
    if !call
        .header("apns-priority")
        .is_some_and(|text| ["1", "5", "10"].contains(&text))
    {
        return Err(refuse(400, "BadPriority"));
    }
    let expiration = call
        .header("apns-expiration")
        .and_then(|text| text.parse::<i64>().ok())
        .filter(|at| *at >= 0)
        .ok_or_else(|| refuse(400, "BadExpirationDate"))?;
    let (_, policy) = named(world, call, bundle)?;
    if policy == 0 && expiration != 0 {
        return Err(refuse(400, "BadExpirationDate"));
    }
    if call.body.is_empty() {
        return Err(refuse(400, "PayloadEmpty"));
    }
    if call.body.len() > BROADCAST_BYTES_MAX {
        return Err(refuse(413, "PayloadTooLarge"));
    }
    if !matches!(serde_json::from_slice(&call.body), Ok(Value::Object(_))) {
        return Err(refuse(400, "BadRequestPayload"));
    }
    Ok(Reply::empty(200, "accepted broadcast"))
}

/// The channel that the header names, with its policy.
fn named(world: &World, call: &Call, bundle: &str) -> Result<(String, u8), Refusal> {
    let id = call
        .header("apns-channel-id")
        .ok_or_else(|| refuse(400, "MissingChannelId"))?;
    if id.len() > CHANNEL_ID_BYTES_MAX || STANDARD.decode(id).is_err() {
        return Err(refuse(400, "BadChannelId"));
    }
    match lock(world).get(bundle).and_then(|of| of.get(id)) {
        Some(policy) => Ok((id.to_owned(), *policy)),
        None => Err(refuse(400, "ChannelNotRegistered")),
    }
}

fn lock(world: &World) -> std::sync::MutexGuard<'_, Channels> {
    world
        .apns
        .channels
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}
