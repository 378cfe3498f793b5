//! Tenants and their keys.

use http::header::HeaderValue;

use hongyan_core::app::{self, KeyKind, Scope};
use hongyan_core::draft::Fault;
use hongyan_core::limits::CONFLICT_RETRIES_MAX;
use hongyan_core::{AppId, KeyId, StoreError};

use super::{check_quiet_hours, fault, is_timezone, no_faults, unknown_channels};
use crate::api::Api;
use crate::auth::scope_word;
use crate::body::Json;
use crate::key::{self, TokenKind};
use crate::options::{KEYS_PER_APP_MAX, TEXT_BYTES_MAX};
use crate::problem::{Code, Problem};
use crate::reply::{Done, Reply};
use crate::route::Call;
use crate::wire::app::{App, AppChange, Key, MadeKey, NewApp, NewKey, Policy};
use crate::wire::{List, Page, Patch};

/// Items of a list in a policy.
const ORIGINS_MAX: usize = 64;

pub(crate) async fn create(call: Call<(), Json<NewApp>>) -> Result<Reply<App, 201>, Problem> {
    let new = call.body.value;
    check(&call.api, &new.name, &new.policy, None)?;
    let app = app::App {
        id: new.id,
        name: new.name,
        policy: new.policy.into(),
        created_at: call.api.now(),
        version: 1,
    };
    match call.api.registry().put_app(app.clone(), None).await {
        Ok(()) => {}
        Err(StoreError::Conflict { .. }) => {
            return Err(Problem::new(
                Code::AlreadyExists,
                format!("app {} exists already", app.id),
            ));
        }
        Err(error) => return Err(error.into()),
    }
    call.api.forget_cached();
    let location = HeaderValue::from_str(&format!("/v1/apps/{}", app.id));
    let reply = Reply::new(App::from(app));
    Ok(match location {
        Ok(location) => reply.header(http::header::LOCATION, location),
        Err(_) => reply,
    })
}

pub(crate) async fn list(call: Call<Page>) -> Result<Reply<List<App>>, Problem> {
    let limit = call.query.limit()?;
    let apps = call
        .api
        .registry()
        .apps(call.query.after()?.as_ref(), limit)
        .await?;
    let items = apps.into_iter().map(App::from).collect();
    Ok(Reply::new(List::new(items, limit, |app: &App| {
        app.id.to_string()
    })))
}

pub(crate) async fn read(call: Call) -> Result<Reply<App>, Problem> {
    Ok(Reply::new(find(&call.api, &call.id("app")?).await?.into()))
}

pub(crate) async fn change(call: Call<(), Json<AppChange>>) -> Result<Reply<App>, Problem> {
    let id: AppId = call.id("app")?;
    let change = call.body.value;
    for _ in 0..CONFLICT_RETRIES_MAX {
        let mut app = find(&call.api, &id).await?;
        let read = app.version;
        match &change.name {
            Patch::Leave => {}
            Patch::Clear => app.name.clear(),
            Patch::Set(name) => app.name.clone_from(name),
        }
        let before = Policy::from(app.policy);
        let mut policy = before.clone();
        if let Some(change) = &change.policy {
            change.clone().apply(&mut policy);
        }
        check(&call.api, &app.name, &policy, Some(&before))?;
        app.policy = policy.into();
        app.version = read + 1;
        match call.api.registry().put_app(app.clone(), Some(read)).await {
            Ok(()) => {
                call.api.forget_cached();
                return Ok(Reply::new(app.into()));
            }
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(StoreError::Conflict { entity: "app" }.into())
}

pub(crate) async fn delete(call: Call) -> Result<Done, Problem> {
    let app = find(&call.api, &call.id("app")?).await?;
    let deleted = call.api.registry().delete_app(&app.id).await;
    call.api.forget_cached();
    // Also when it was only begun: there is no such app any more, and the next of its name is another one.
    call.api.ports().presence.disconnect_app(&app.id).await;
    deleted?;
    Ok(Done)
}

pub(crate) async fn create_key(
    call: Call<(), Json<NewKey>>,
) -> Result<Reply<MadeKey, 201>, Problem> {
    let app = find(&call.api, &call.id("app")?).await?;
    let new = call.body.value;
    let mut faults = Vec::new();
    if new.name.len() > TEXT_BYTES_MAX {
        faults.push(fault(
            "name",
            format!("must be at most {TEXT_BYTES_MAX} bytes"),
        ));
    }
    let scopes = match (new.kind, new.scopes) {
        (KeyKind::Admin, _) => {
            faults.push(fault(
                "kind",
                "must be server or client; the admin key is made by the server itself",
            ));
            Vec::new()
        }
        (KeyKind::Client, Some(scopes)) if !scopes.is_empty() => {
            faults.push(fault(
                "scopes",
                "are for server keys; a client key may only register devices",
            ));
            Vec::new()
        }
        (KeyKind::Client, _) => Vec::new(),
        (KeyKind::Server, None) => vec![Scope::Send, Scope::Read, Scope::Manage],
        (KeyKind::Server, Some(scopes)) if scopes.is_empty() => {
            faults.push(fault(
                "scopes",
                "must name at least one of send, read and manage",
            ));
            Vec::new()
        }
        (KeyKind::Server, Some(scopes)) => {
            for (i, scope) in scopes.iter().enumerate() {
                if scopes.iter().take(i).any(|before| before == scope) {
                    let word = scope_word(*scope);
                    faults.push(fault(format!("scopes[{i}]"), format!("names {word} twice")));
                }
            }
            scopes
        }
    };
    no_faults(faults)?;
    if call.api.registry().keys(Some(&app.id)).await?.len() >= KEYS_PER_APP_MAX {
        return Err(Problem::new(
            Code::Conflict,
            format!("an app has at most {KEYS_PER_APP_MAX} keys; delete one that is not used"),
        ));
    }
    let dice = &*call.api.ports().dice;
    let minted = key::mint(TokenKind::Key(new.kind), dice);
    let id = KeyId::parse(&format!("key_{}", key::handle(dice, 16)))
        .map_err(|e| Problem::new(Code::Internal, e.to_string()))?;
    let key = app::Key {
        id,
        kind: new.kind,
        app: Some(app.id),
        scopes,
        name: new.name,
        hash: minted.hash,
        created_at: call.api.now(),
    };
    call.api.registry().put_key(key.clone()).await?;
    Ok(Reply::new(MadeKey {
        key: Key::from(key),
        secret: minted.text,
    }))
}

pub(crate) async fn keys(call: Call) -> Result<Reply<List<Key>>, Problem> {
    let app = find(&call.api, &call.id("app")?).await?;
    let items = call
        .api
        .registry()
        .keys(Some(&app.id))
        .await?
        .into_iter()
        .map(Key::from)
        .collect();
    Ok(Reply::new(List { items, next: None }))
}

pub(crate) async fn delete_key(call: Call) -> Result<Done, Problem> {
    let app = find(&call.api, &call.id("app")?).await?;
    let id: KeyId = call.id("key")?;
    if !call.api.registry().delete_key(Some(&app.id), &id).await? {
        return Err(Problem::not_found("key"));
    }
    call.api.forget_cached();
    Ok(Done)
}

async fn find(api: &Api, id: &AppId) -> Result<app::App, Problem> {
    api.registry()
        .app(id)
        .await?
        .ok_or_else(|| Problem::not_found("app"))
}

/// Judges a policy: all of a new one; of a changed one what is not as it was, so that what was good when it was stored (a channel
/// of another version) does not keep the rest from being changed.
fn check(api: &Api, name: &str, policy: &Policy, before: Option<&Policy>) -> Result<(), Problem> {
    let mut faults: Vec<Fault> = Vec::new();
    if name.len() > TEXT_BYTES_MAX {
        faults.push(fault(
            "name",
            format!("must be at most {TEXT_BYTES_MAX} bytes"),
        ));
    }
    if before.is_none_or(|b| b.quiet_hours != policy.quiet_hours) {
        check_quiet_hours(
            "policy.quiet_hours",
            policy.quiet_hours.as_ref(),
            &mut faults,
        );
    }
    if before.is_none_or(|b| b.timezone != policy.timezone) && !is_timezone(&policy.timezone) {
        faults.push(fault(
            "policy.timezone",
            "must be an IANA time zone, such as Asia/Shanghai",
        ));
    }
    if policy.origins.len() > ORIGINS_MAX || policy.channel_order.len() > ORIGINS_MAX {
        faults.push(fault(
            "policy",
            format!("lists hold at most {ORIGINS_MAX} items"),
        ));
    }
    if before.is_none_or(|b| b.channel_order != policy.channel_order) {
        let order = policy.channel_order.iter().enumerate();
        let channels = order.map(|(i, channel)| (format!("policy.channel_order[{i}]"), channel));
        faults.extend(unknown_channels(api, channels));
    }
    for (i, origin) in policy.origins.iter().enumerate() {
        if !before.is_some_and(|b| b.origins.contains(origin)) && !is_origin(origin) {
            faults.push(fault(
                format!("policy.origins[{i}]"),
                "must be an origin as browsers send it, such as https://app.example.com",
            ));
        }
    }
    no_faults(faults)
}

/// Scheme and host, nothing after it.
fn is_origin(text: &str) -> bool {
    let host = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    host.is_some_and(|host| {
        (1..=TEXT_BYTES_MAX).contains(&host.len())
            && host
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.:[]".contains(&b))
    })
}
