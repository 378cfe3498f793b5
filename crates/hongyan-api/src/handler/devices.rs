//! Devices: registration, state, vendor tokens, login.

use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::TryFutureExt as _;
use schemars::{Schema, SchemaGenerator};

use hongyan_core::app::{KeyKind, Scope};
use hongyan_core::device;
use hongyan_core::limits::CONFLICT_RETRIES_MAX;
use hongyan_core::port::SessionInfo;
use hongyan_core::{AppId, ChannelId, DeviceId, StoreError, Timestamp, UserId};

use super::numbers::Countries;
use super::revival::Revival;
use super::{no_faults, unknown_channels};
use crate::api::Api;
use crate::auth::Caller;
use crate::body::Json;
use crate::key::{self, TokenKind};
use crate::problem::{Code, Problem};
use crate::reply::{Done, IntoReply, Reply};
use crate::route::Call;
use crate::wire::device::{
    Device, DeviceChange, Login, NamedToken, Registered, Registration, VendorToken, WakeKey, check,
    lower_brand,
};
use crate::wire::{List, Page, Patch};

/// Registers a device, or registers it again.
///
/// Whoever knows a client key and a device id is not yet the device: without its device token, a device that exists gets a new
/// token and is bound to nobody, so that nothing of its former user can be read by a stranger.
pub(crate) async fn register(
    call: Call<(), Json<Registration>>,
) -> Result<Reply<Registered>, Problem> {
    let app = call.app()?;
    let mut state = call.body.value;
    let proof = state.device_token.take().map(|secret| secret.0);
    let id = match (&call.caller, state.device_id.take()) {
        (Caller::Device(device), named) => {
            crate::auth::same_device(device, named.as_ref())?;
            device.id.clone()
        }
        (_, Some(id)) => id,
        (_, None) => fresh_id(&call.api)?,
    };
    let tokens = state.tokens.iter().flatten().enumerate();
    let channels = tokens.map(|(i, t)| (format!("tokens[{i}].channel"), &t.channel));
    no_faults(unknown_channels(&call.api, channels))?;
    if let Some(tokens) = &mut state.tokens {
        let countries = Countries::read(&call.api, &app, tokens.iter()).await?;
        no_faults(countries.normalise_all(tokens))?;
    }
    let bearer = bearer_of(&call.caller, &call.parts.headers);
    let now = call.api.now();
    for _ in 0..CONFLICT_RETRIES_MAX {
        let old = call
            .api
            .registry()
            .devices(&app, std::slice::from_ref(&id))
            .await?
            .pop()
            .flatten();
        let kept = old.as_ref().and_then(|old| {
            [proof.as_ref(), bearer.as_ref()]
                .into_iter()
                .flatten()
                .find(|text| key::hash(text) == old.secret_hash)
                .cloned()
        });
        if old.is_some() && kept.is_none() && proof.is_some() {
            return Err(Problem::at(
                Code::Forbidden,
                "device_token",
                "is not this device's token; leave it out to get a new one",
            ));
        }
        let strange =
            kept.is_none() && !matches!(call.caller, Caller::Server(_) | Caller::Admin(_));
        if let Some(bound) = &old
            && bound.user.is_some()
            && strange
        {
            call.api.services().logout(&app, &id).await?;
            continue;
        }
        let rotated = old.is_some() && kept.is_none();
        let (device_token, hash) = match kept {
            Some(text) => {
                let hash = key::hash(&text);
                (text, hash)
            }
            None => {
                let minted = key::mint(TokenKind::Device, &*call.api.ports().dice);
                (minted.text, minted.hash)
            }
        };
        let read = old.as_ref().map(|old| old.version);
        let held = old.as_ref().map_or(&[][..], |old| &old.tokens);
        let given = state.tokens.as_deref().unwrap_or_default();
        let revival = Revival::read(&call.api, &app, held, given).await?;
        let moved = old
            .as_ref()
            .is_some_and(|old| old.timezone != state.timezone);
        let device = registered(&app, &id, &state, old, &revival, hash, now);
        no_faults(check(&device))?;
        match call.api.registry().put_device(device, read).await {
            Ok(()) => {
                if rotated {
                    // The connection was opened with the token that is no longer good.
                    call.api.ports().presence.disconnect(&app, &id).await;
                }
                if moved {
                    plan_again(&call.api, &app, &id).await;
                }
                return Ok(Reply::new(Registered {
                    device_id: id,
                    device_token,
                }));
            }
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(StoreError::Conflict { entity: "device" }.into())
}

/// Plans again what is held for a device whose time zone changed. The change itself is stored: if this fails, what is held waits
/// for the window that it was held for.
pub(super) async fn plan_again(api: &Api, app: &AppId, device: &DeviceId) {
    if let Err(error) = api.services().timezone_changed(app, device).await {
        tracing::warn!(%app, %device, %error, "what is held for a device with a new time zone is not planned again");
    }
}

/// The record after a registration.
fn registered(
    app: &AppId,
    id: &DeviceId,
    state: &Registration,
    old: Option<device::Device>,
    revival: &Revival,
    secret_hash: [u8; 32],
    now: Timestamp,
) -> device::Device {
    let (old_tags, old_tokens) = old.as_ref().map_or_else(Default::default, |old| {
        (old.tags.clone(), old.tokens.clone())
    });
    let tokens = match &state.tokens {
        None => old_tokens,
        Some(tokens) => tokens
            .iter()
            .cloned()
            .map(|token| revival.renewed(token, &old_tokens, now))
            .collect(),
    };
    let mut device = device::Device {
        app: app.clone(),
        id: id.clone(),
        package: state.package.clone(),
        platform: state.platform,
        brand: state.brand.clone(),
        model: state.model.clone(),
        locale: state.locale.clone(),
        timezone: state.timezone.clone(),
        app_version: state.app_version.clone(),
        permission: state.permission,
        tags: state.tags.clone().unwrap_or(old_tags),
        tokens,
        user: old.as_ref().and_then(|old| old.user.clone()),
        binding: old.as_ref().map_or(0, |old| old.binding),
        secret_hash,
        scram: old.as_ref().and_then(|old| old.scram.clone()),
        created_at: old.as_ref().map_or(now, |old| old.created_at),
        last_seen: now,
        version: old.as_ref().map_or(1, |old| old.version + 1),
    };
    lower_brand(&mut device);
    device
}

fn fresh_id(api: &Api) -> Result<DeviceId, Problem> {
    let mut bytes = [0u8; 16];
    api.ports().dice.fill(&mut bytes);
    // The layout of a random UUID, RFC 9562 section 5.4.
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    let text = [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ]
    .join("-");
    DeviceId::parse(&text).map_err(|e| Problem::new(Code::Internal, e.to_string()))
}

/// The bearer token, when it is a device's.
pub(super) fn bearer_of(caller: &Caller, headers: &http::HeaderMap) -> Option<String> {
    caller.device()?;
    let value = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    value
        .split_once(' ')
        .map(|(_, token)| token.trim().to_owned())
}

pub(crate) async fn read(call: Call) -> Result<Reply<Device>, Problem> {
    let (app, id) = (call.app()?, call.device_id()?);
    let device = call.api.device(&app, &id).await?;
    Ok(Reply::new(whole(&call.api, &app, device).await?))
}

/// One device with all that is known of it.
async fn whole(api: &Api, app: &AppId, device: device::Device) -> Result<Device, Problem> {
    let topics = api.registry().topics_of(app, &device.id).await?;
    let mut shown = show(api, app, vec![device])
        .pop()
        .ok_or_else(|| Problem::not_found("device"))?;
    shown.topics = Some(topics.into_iter().map(|s| s.topic).collect());
    Ok(shown)
}

pub(crate) async fn list(call: Call<Page>) -> Result<Reply<List<Device>>, Problem> {
    let (app, limit) = (call.app()?, call.query.limit()?);
    let devices = call
        .api
        .registry()
        .device_page(&app, call.query.after()?.as_ref(), limit)
        .await?;
    let items = show(&call.api, &app, devices);
    Ok(Reply::new(List::new(items, limit, |d: &Device| {
        d.device_id.to_string()
    })))
}

/// Devices with the state of their connections.
pub(crate) fn show(api: &Api, app: &AppId, devices: Vec<device::Device>) -> Vec<Device> {
    let ids: Vec<DeviceId> = devices.iter().map(|d| d.id.clone()).collect();
    let sessions = connected(api, app, &ids);
    devices
        .into_iter()
        .zip(sessions.into_iter().chain(std::iter::repeat(None)))
        .map(|(device, session)| Device::new(device, session.is_some()))
        .collect()
}

/// The sessions of devices, also those that were cut and may still be resumed.
pub(crate) fn connected(api: &Api, app: &AppId, ids: &[DeviceId]) -> Vec<Option<SessionInfo>> {
    let presence = &api.ports().presence;
    let sessions = presence.sessions(app, ids);
    let lingering = presence.lingering(app, ids, api.now());
    let both = sessions.into_iter().zip(lingering);
    both.map(|(session, cut)| session.or(cut)).collect()
}

/// What a change is answered: the device, or nothing when only `state` was said, of which nothing is stored.
#[derive(Debug)]
pub(crate) enum Changed {
    State,
    Device(Box<Reply<Device>>),
}

impl IntoReply for Changed {
    fn into_reply(self) -> Response {
        match self {
            Self::State => Done.into_reply(),
            Self::Device(device) => device.into_reply(),
        }
    }

    fn document(generator: &mut SchemaGenerator) -> (u16, Option<Schema>) {
        Reply::<Device>::document(generator)
    }

    fn or_nothing() -> Option<&'static str> {
        Some("Done, with `state` alone; there is no body.")
    }
}

pub(crate) async fn change(call: Call<(), Json<DeviceChange>>) -> Result<Changed, Problem> {
    let (app, id) = (call.app()?, call.device_id()?);
    let change = call.body.value;
    if let Some(state) = change.state {
        call.api.ports().connect.state(&app, &id, state);
        if change.is_state_alone() {
            call.api.device(&app, &id).await?;
            return Ok(Changed::State);
        }
    }
    let device = update(&call.api, &app, &id, |device| {
        change.clone().apply(device);
        no_faults(check(device))
    })
    .await?;
    // Also when it is the zone that it had: a call that failed here comes again.
    if change.timezone != Patch::Leave {
        call.api.services().timezone_changed(&app, &id).await?;
    }
    let device = whole(&call.api, &app, device).await?;
    Ok(Changed::Device(Box::new(Reply::new(device))))
}

/// Reads, changes and writes a device, as often as somebody else gets in between.
pub(crate) async fn update(
    api: &Api,
    app: &AppId,
    id: &DeviceId,
    change: impl Fn(&mut device::Device) -> Result<(), Problem>,
) -> Result<device::Device, Problem> {
    for _ in 0..CONFLICT_RETRIES_MAX {
        let mut device = api.device(app, id).await?;
        let read = device.version;
        change(&mut device)?;
        device.version = read + 1;
        match api.registry().put_device(device.clone(), Some(read)).await {
            Ok(()) => return Ok(device),
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(StoreError::Conflict { entity: "device" }.into())
}

pub(crate) async fn delete(call: Call) -> Result<Done, Problem> {
    let (app, id) = (call.app()?, call.device_id()?);
    if call.api.services().delete_device(&app, &id).await? {
        Ok(Done)
    } else {
        Err(Problem::not_found("device"))
    }
}

pub(crate) async fn put_token(call: Call<(), Json<VendorToken>>) -> Result<Done, Problem> {
    let (app, id) = (call.app()?, call.device_id()?);
    let channel: ChannelId = call.id("channel")?;
    let named = [("path.channel".to_owned(), &channel)];
    no_faults(unknown_channels(&call.api, named))?;
    let VendorToken {
        token,
        environment,
        credential,
    } = call.body.value;
    let mut named = NamedToken {
        channel: channel.clone(),
        token,
        environment,
        credential,
    };
    let countries = Countries::read(&call.api, &app, [&named]).await?;
    no_faults(
        countries
            .normalise(&mut named, "token")
            .into_iter()
            .collect(),
    )?;
    let now = call.api.now();
    let held = call.api.device(&app, &id).await?.tokens;
    let given = std::slice::from_ref(&named);
    let revival = Revival::read(&call.api, &app, &held, given).await?;
    update(&call.api, &app, &id, |device| {
        let token = revival.renewed(named.clone(), &device.tokens, now);
        device.tokens.retain(|t| t.channel != channel);
        device.tokens.push(token);
        no_faults(check(device))
    })
    .map_ok(|_| Done)
    .await
}

pub(crate) async fn delete_token(call: Call) -> Result<Done, Problem> {
    let (app, id) = (call.app()?, call.device_id()?);
    let channel: ChannelId = call.id("channel")?;
    update(&call.api, &app, &id, |device| {
        device.tokens.retain(|t| t.channel != channel);
        Ok(())
    })
    .map_ok(|_| Done)
    .await
}

/// Gives a device the key of its wake-ups, which it alone may have.
pub(crate) async fn wake_key(call: Call) -> Result<Reply<WakeKey>, Problem> {
    let device = call.caller.device().ok_or_else(|| {
        Problem::new(Code::Forbidden, "a wake-up key is given to its device only")
    })?;
    match call.api.services().wake_key(device).await? {
        Some(key) => Ok(Reply::new(WakeKey::from(key))),
        None => Err(Problem::new(
            Code::NotFound,
            "no channel of this device wakes it: it needs a token of a channel whose credential has the mode signal",
        )),
    }
}

pub(crate) async fn login(call: Call<(), Json<Login>>) -> Result<Done, Problem> {
    let (app, id) = (call.app()?, call.device_id()?);
    let Login { user, user_token } = call.body.value;
    if call.caller.device().is_some() {
        let policy = call
            .api
            .app(&app)
            .await?
            .ok_or_else(|| Problem::not_found("app"))?;
        let token = user_token.as_ref().map(|t| t.0.as_str());
        if policy.policy.require_user_token {
            check_user_token(&call.api, &app, &id, &user, token).await?;
        }
    }
    call.api.services().login(&app, &id, &user).await?;
    Ok(Done)
}

/// The text that a `user_token` signs.
fn signed_text(app: &AppId, device: &DeviceId, user: &UserId, expiry: &str) -> String {
    format!("{app}\n{device}\n{user}\n{expiry}")
}

/// Checks the app server's signature on a login. The key is the stored hash of one of its server keys, which the app's server
/// can make of the key itself; ids hold no line feeds, so the signed text is unambiguous.
async fn check_user_token(
    api: &Api,
    app: &AppId,
    device: &DeviceId,
    user: &UserId,
    token: Option<&str>,
) -> Result<(), Problem> {
    let Some(token) = token else {
        return Err(Problem::at(
            Code::UserTokenRequired,
            "user_token",
            "is needed for logins of this app; its server makes it",
        ));
    };
    let invalid = |problem: &str| Err(Problem::at(Code::UserTokenInvalid, "user_token", problem));
    let mut parts = token.split('.');
    let (Some(key_id), Some(expiry), Some(mac), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return invalid("must be <key id>.<expiry>.<mac>");
    };
    let Ok(until) = expiry.parse::<i64>() else {
        return invalid("its expiry must be Unix seconds");
    };
    let Ok(mac) = URL_SAFE_NO_PAD.decode(mac) else {
        return invalid("its mac must be base64url without padding");
    };
    let keys = api.registry().keys(Some(app)).await?;
    let signer = keys.iter().find(|key| {
        key.id.as_str() == key_id
            && key.kind == KeyKind::Server
            && key.scopes.contains(&Scope::Manage)
    });
    let Some(signer) = signer else {
        return invalid("its key is not a server key of this app with the scope manage");
    };
    let hmac = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &signer.hash);
    let text = signed_text(app, device, user, expiry);
    if ring::hmac::verify(&hmac, text.as_bytes(), &mac).is_err() {
        return invalid("its mac does not fit app, device, user and expiry");
    }
    if until <= api.now().seconds() {
        return invalid("it has expired; get a new one from the app's server");
    }
    Ok(())
}

pub(crate) async fn logout(call: Call) -> Result<Done, Problem> {
    let (app, id) = (call.app()?, call.device_id()?);
    call.api.services().logout(&app, &id).await?;
    Ok(Done)
}

pub(crate) async fn kick(call: Call) -> Result<Done, Problem> {
    let (app, id) = (call.app()?, call.device_id()?);
    call.api.services().kick(&app, &id).await?;
    Ok(Done)
}
