//! Who is calling, and whether they may.

use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue, WWW_AUTHENTICATE};

use hongyan_core::app::{Key, KeyKind, Scope};
use hongyan_core::{AppId, Device, DeviceId};

use crate::api::Api;
use crate::key::{self, TokenKind};
use crate::problem::{Code, Problem};

/// With an admin key: the app that an app's address is meant for.
pub(crate) const APP_HEADER: HeaderName = HeaderName::from_static("hongyan-app");

/// Who may call an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    /// Anyone.
    Anyone,
    /// The admin key.
    Admin,
    /// A server key with this scope.
    Server(Scope),
    /// A client key, a server key that manages, or the device itself: registration.
    Registrar,
    /// The device in the path, or a server key with this scope.
    DeviceOr(Scope),
    /// A device.
    Device,
    /// The device in the path and nobody else.
    Itself,
}

/// Who is calling.
#[derive(Debug, Clone)]
pub(crate) enum Caller {
    /// Nobody was asked.
    Anyone,
    /// The admin, perhaps for an app.
    Admin(Option<AppId>),
    /// The app's server.
    Server(AppId),
    /// An installation of the app that has no device token yet.
    Client(AppId),
    /// A device.
    Device(Box<Device>),
}

impl Caller {
    /// The app that the caller acts in.
    pub(crate) fn app(&self) -> Result<&AppId, Problem> {
        match self {
            Self::Server(app) | Self::Client(app) | Self::Admin(Some(app)) => Ok(app),
            Self::Device(device) => Ok(&device.app),
            Self::Anyone | Self::Admin(None) => Err(Problem::new(
                Code::InvalidRequest,
                "with an admin key, name the app in the header Hongyan-App",
            )),
        }
    }

    /// The device, when a device calls.
    pub(crate) fn device(&self) -> Option<&Device> {
        match self {
            Self::Device(device) => Some(device),
            _ => None,
        }
    }
}

/// Finds out who calls, counts the call, and checks that they may. `device_in_path` is the device that the address names.
pub(crate) async fn check(
    api: &Api,
    who: Who,
    headers: &HeaderMap,
    peer: IpAddr,
    device_in_path: Option<&str>,
) -> Result<Caller, Problem> {
    if who == Who::Anyone {
        return Ok(Caller::Anyone);
    }
    match identify(api, headers).await? {
        Some(Identity::Key(key)) => {
            let taken = match key.kind {
                KeyKind::Client => api.by_client().take(peer, api.now()),
                KeyKind::Admin | KeyKind::Server => api.by_key().take(key.hash, api.now()),
            };
            taken.map_err(too_many)?;
            key_may(api, who, &key, headers).await
        }
        Some(Identity::Device(device)) => {
            api.by_device()
                .take(device.secret_hash, api.now())
                .map_err(too_many)?;
            device_may(who, device, device_in_path)
        }
        None => {
            api.by_stranger().take(peer, api.now()).map_err(too_many)?;
            let detail = if headers.contains_key(AUTHORIZATION) {
                "the key is not known; it may have been deleted"
            } else {
                "send Authorization: Bearer and a key"
            };
            Err(Problem::new(Code::Unauthorized, detail)
                .header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")))
        }
    }
}

enum Identity {
    Key(Arc<Key>),
    Device(Box<Device>),
}

async fn identify(api: &Api, headers: &HeaderMap) -> Result<Option<Identity>, Problem> {
    let Some(text) = bearer(headers) else {
        return Ok(None);
    };
    let Some(kind) = key::kind_of(text) else {
        return Ok(None);
    };
    let hash = key::hash(text);
    Ok(match kind {
        TokenKind::Key(kind) => api
            .key(&hash)
            .await?
            .filter(|key| key.kind == kind)
            .map(Identity::Key),
        TokenKind::Device => api
            .registry()
            .device_by_secret(&hash)
            .await?
            .map(|device| Identity::Device(Box::new(device))),
        // A ticket opens a live connection, nothing else.
        TokenKind::Ticket => None,
    })
}

/// The bearer token, when there is exactly one.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

async fn key_may(api: &Api, who: Who, key: &Key, headers: &HeaderMap) -> Result<Caller, Problem> {
    let forbidden = |detail: &str| Err(Problem::new(Code::Forbidden, detail));
    match (key.kind, &key.app) {
        (KeyKind::Admin, _) => match who {
            Who::Device | Who::Itself => forbidden("this address needs a device token"),
            _ => Ok(Caller::Admin(named_app(api, headers).await?)),
        },
        (KeyKind::Server, Some(app)) => {
            let scope = match who {
                Who::Admin => return forbidden("this address needs an admin key"),
                Who::Device | Who::Itself => {
                    return forbidden("this address needs a device token");
                }
                Who::Registrar => Scope::Manage,
                Who::Server(scope) | Who::DeviceOr(scope) => scope,
                Who::Anyone => return Ok(Caller::Server(app.clone())),
            };
            if key.scopes.contains(&scope) {
                Ok(Caller::Server(app.clone()))
            } else {
                forbidden(&format!("the key lacks the scope {}", scope_word(scope)))
            }
        }
        (KeyKind::Client, Some(app)) => match who {
            Who::Registrar => Ok(Caller::Client(app.clone())),
            _ => forbidden("a client key may only register devices"),
        },
        (KeyKind::Server | KeyKind::Client, None) => forbidden("the key belongs to no app"),
    }
}

async fn named_app(api: &Api, headers: &HeaderMap) -> Result<Option<AppId>, Problem> {
    let Some(value) = headers.get(&APP_HEADER) else {
        return Ok(None);
    };
    let id = value
        .to_str()
        .ok()
        .and_then(|text| AppId::parse(text).ok())
        .ok_or_else(|| {
            Problem::new(
                Code::InvalidRequest,
                "the header Hongyan-App is not an app id",
            )
        })?;
    match api.app(&id).await? {
        Some(_) => Ok(Some(id)),
        None => Err(Problem::not_found("app")),
    }
}

fn device_may(who: Who, device: Box<Device>, in_path: Option<&str>) -> Result<Caller, Problem> {
    let allowed = match who {
        Who::DeviceOr(_) | Who::Itself => in_path == Some(device.id.as_str()),
        Who::Device | Who::Registrar | Who::Anyone => true,
        Who::Admin | Who::Server(_) => false,
    };
    if allowed {
        Ok(Caller::Device(device))
    } else {
        Err(Problem::new(
            Code::Forbidden,
            "a device token acts for its own device only",
        ))
    }
}

/// Checks that a device that names itself in a body is the one that calls.
pub(crate) fn same_device(device: &Device, named: Option<&DeviceId>) -> Result<(), Problem> {
    match named {
        Some(named) if *named != device.id => Err(Problem::new(
            Code::Forbidden,
            "a device token acts for its own device only",
        )),
        _ => Ok(()),
    }
}

pub(crate) fn too_many(wait: std::time::Duration) -> Problem {
    Problem::new(
        Code::RateLimited,
        "slow down; Retry-After says how long to wait",
    )
    .retry_after(wait)
}

pub(crate) const fn scope_word(scope: Scope) -> &'static str {
    match scope {
        Scope::Send => "send",
        Scope::Read => "read",
        Scope::Manage => "manage",
    }
}
