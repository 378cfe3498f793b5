//! Users: attributes, preferences, devices, presence.

use hongyan_core::limits::{ATTRIBUTES_BYTES_MAX, CONFLICT_RETRIES_MAX};
use hongyan_core::{AppId, Device, DeviceId, StoreError, User, UserId};
use serde_json::Value;

use super::{check_quiet_hours, fault, is_timezone, no_faults};
use crate::api::Api;
use crate::body::Json;
use crate::problem::Problem;
use crate::reply::{Done, Reply};
use crate::route::Call;
use crate::wire::user::{DevicePresence, Preferences, Presence, UserChange, UserState};
use crate::wire::{List, Patch, device, user};

pub(crate) async fn put(call: Call<(), Json<UserState>>) -> Result<Reply<user::User>, Problem> {
    let (app, id) = (call.app()?, call.id("user")?);
    let UserState {
        attributes,
        preferences,
    } = call.body.value;
    let preferences = hongyan_core::user::Preferences::from(preferences);
    let written = write(&call.api, &app, &id, |user| {
        user.attributes.clone_from(&attributes);
        user.preferences.clone_from(&preferences);
    });
    let written = written.await?;
    call.api.services().preferences_changed(&app, &id).await?;
    Ok(written)
}

pub(crate) async fn change(call: Call<(), Json<UserChange>>) -> Result<Reply<user::User>, Problem> {
    let (app, id) = (call.app()?, call.id("user")?);
    let UserChange {
        attributes,
        preferences,
    } = call.body.value;
    let written = write(&call.api, &app, &id, |user| {
        for (name, value) in attributes.iter().flatten() {
            match value {
                Value::Null => user.attributes.remove(name),
                value => user.attributes.insert(name.clone(), value.clone()),
            };
        }
        let mut wanted = Preferences::from(user.preferences.clone());
        match &preferences {
            Patch::Leave => return,
            Patch::Clear => wanted = Preferences::default(),
            Patch::Set(change) => change.clone().apply(&mut wanted),
        }
        user.preferences = wanted.into();
    });
    let written = written.await?;
    if !matches!(preferences, Patch::Leave) {
        call.api.services().preferences_changed(&app, &id).await?;
    }
    Ok(written)
}

pub(crate) async fn read(call: Call) -> Result<Reply<user::User>, Problem> {
    let (app, id) = (call.app()?, call.id("user")?);
    let user = find(&call.api, &app, &id)
        .await?
        .ok_or_else(|| Problem::not_found("user"))?;
    Ok(Reply::new(user.into()))
}

pub(crate) async fn delete(call: Call) -> Result<Done, Problem> {
    let (app, id) = (call.app()?, call.id("user")?);
    if call.api.services().forget_user(&app, &id).await? {
        Ok(Done)
    } else {
        Err(Problem::not_found("user"))
    }
}

pub(crate) async fn devices(call: Call) -> Result<Reply<List<device::Device>>, Problem> {
    let (app, id) = (call.app()?, call.id("user")?);
    let devices = devices_of(&call.api, &app, &id).await?;
    let items = super::devices::show(&call.api, &app, devices);
    Ok(Reply::new(List { items, next: None }))
}

pub(crate) async fn presence(call: Call) -> Result<Reply<Presence>, Problem> {
    let (app, user): (_, UserId) = (call.app()?, call.id("user")?);
    let devices = devices_of(&call.api, &app, &user).await?;
    let ids: Vec<DeviceId> = devices.iter().map(|d| d.id.clone()).collect();
    let sessions = super::devices::connected(&call.api, &app, &ids);
    let devices: Vec<DevicePresence> = devices
        .into_iter()
        .zip(sessions.into_iter().chain(std::iter::repeat(None)))
        .map(|(device, session)| DevicePresence {
            device_id: device.id,
            platform: device.platform,
            online: session.is_some(),
            state: session.as_ref().map(|s| s.state),
            since: session.as_ref().map(|s| s.since.into()),
            protocol: session.as_ref().map(|s| s.protocol),
            last_seen: device.last_seen.into(),
        })
        .collect();
    let online = devices.iter().any(|d| d.online);
    Ok(Reply::new(Presence {
        user,
        online,
        devices,
    }))
}

async fn devices_of(api: &Api, app: &AppId, user: &UserId) -> Result<Vec<Device>, Problem> {
    Ok(api
        .registry()
        .devices_of(app, std::slice::from_ref(user))
        .await?
        .pop()
        .unwrap_or_default())
}

async fn find(api: &Api, app: &AppId, id: &UserId) -> Result<Option<User>, Problem> {
    Ok(api
        .registry()
        .users(app, std::slice::from_ref(id))
        .await?
        .pop()
        .flatten())
}

/// Reads (or begins), changes, checks and writes a user, as often as somebody else gets in between.
async fn write(
    api: &Api,
    app: &AppId,
    id: &UserId,
    change: impl Fn(&mut User),
) -> Result<Reply<user::User>, Problem> {
    for _ in 0..CONFLICT_RETRIES_MAX {
        let old = find(api, app, id).await?;
        let read = old.as_ref().map(|user| user.version);
        let mut user = old.unwrap_or_else(|| User {
            app: app.clone(),
            id: id.clone(),
            attributes: serde_json::Map::new(),
            preferences: hongyan_core::user::Preferences::default(),
            created_at: api.now(),
            version: 0,
        });
        change(&mut user);
        check(&user)?;
        user.version += 1;
        match api.registry().put_user(user.clone(), read).await {
            Ok(()) => return Ok(Reply::new(user.into())),
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(StoreError::Conflict { entity: "user" }.into())
}

fn check(user: &User) -> Result<(), Problem> {
    let mut faults = Vec::new();
    let bytes = serde_json::to_vec(&user.attributes).map_or(usize::MAX, |json| json.len());
    if bytes > ATTRIBUTES_BYTES_MAX {
        faults.push(fault(
            "attributes",
            format!("has {bytes} bytes of JSON; at most {ATTRIBUTES_BYTES_MAX} are allowed"),
        ));
    }
    let quiet = user.preferences.quiet_hours.clone().map(Into::into);
    check_quiet_hours("preferences.quiet_hours", quiet.as_ref(), &mut faults);
    if let Some(timezone) = &user.preferences.timezone
        && !is_timezone(timezone)
    {
        faults.push(fault(
            "preferences.timezone",
            "must be an IANA time zone, such as Asia/Shanghai",
        ));
    }
    no_faults(faults)
}
