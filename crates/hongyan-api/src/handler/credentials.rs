//! Vendor credentials: sealed at rest, never shown.

use hongyan_core::app::{self, LaneLimits};
use hongyan_core::draft::Fault;
use hongyan_core::limits::{CONFLICT_RETRIES_MAX, URL_BYTES_MAX};
use hongyan_core::{ChannelId, CredentialName, StoreError};

use super::{fault, no_faults, uses};
use crate::body::Json;
use crate::problem::{Code, Problem};
use crate::reply::{Done, Reply};
use crate::route::Call;
use crate::services::{NewCredential, ServiceError};
use crate::wire::List;
use crate::wire::credential::{
    Checked, Credential, CredentialChange, CredentialState, DeleteQuery, Limits,
};

pub(crate) async fn put(
    call: Call<(), Json<CredentialState>>,
) -> Result<Reply<Credential>, Problem> {
    let (app, channel, name) = place(&call)?;
    let state = &call.body.value;
    no_faults(faults(state.endpoint.as_deref(), state.limits))?;
    let new = NewCredential {
        config: serde_json::Value::Object(state.config.clone()),
        endpoint: state.endpoint.clone(),
        limits: LaneLimits::from(state.limits),
    };
    call.api
        .services()
        .put_credential(&app, &channel, &name, new)
        .await?;
    stored(&call).await
}

/// Changes limits and nothing else: whoever could move a credential's endpoint, or an address in its configuration, without
/// giving its secrets anew, would have them sent there.
pub(crate) async fn change(
    call: Call<(), Json<CredentialChange>>,
) -> Result<Reply<Credential>, Problem> {
    let (app, channel, name) = place(&call)?;
    let change = &call.body.value;
    let given = [("config", change.config), ("endpoint", change.endpoint)];
    let given = given.into_iter().filter(|(_, is_given)| *is_given);
    let words = "cannot be changed by itself; give the whole configuration with PUT";
    no_faults(given.map(|(path, _)| fault(path, words)).collect())?;
    for _ in 0..CONFLICT_RETRIES_MAX {
        let registry = call.api.registry();
        let stored = registry.credential(&app, &channel, &name).await?;
        let stored = stored.ok_or_else(|| Problem::not_found("credential"))?;
        let limits = change.apply(stored.limits.into());
        no_faults(faults(None, limits))?;
        let services = call.api.services();
        match services.limit_credential(stored, limits.into()).await {
            Ok(stored) => return Ok(Reply::new(shown(&call, stored))),
            Err(ServiceError::Store(StoreError::Conflict { .. })) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(StoreError::Conflict {
        entity: "credential",
    }
    .into())
}

/// What is wrong with what stands beside a configuration.
fn faults(endpoint: Option<&str>, limits: Limits) -> Vec<Fault> {
    let mut faults = Vec::new();
    if endpoint.is_some_and(|endpoint| !is_base_url(endpoint)) {
        faults.push(fault(
            "endpoint",
            "must be https://host[:port] without a path",
        ));
    }
    let Limits {
        rate_per_s,
        concurrency,
        attempts,
        quota,
    } = limits;
    for (path, zero) in [
        ("limits.rate_per_s", rate_per_s == Some(0)),
        ("limits.concurrency", concurrency == Some(0)),
        ("limits.attempts", attempts == Some(0)),
    ] {
        if zero {
            faults.push(fault(
                path,
                "must be at least 1; leave it out for the channel's own",
            ));
        }
    }
    if let (Some(all), Some(reserved)) = (quota.per_day, quota.reserved)
        && reserved > all
    {
        faults.push(fault(
            "limits.quota.reserved",
            "must not be more than per_day",
        ));
    }
    if quota.reserved.is_some() && quota.per_day.is_none() {
        faults.push(fault(
            "limits.quota.reserved",
            "is a part of per_day, which is missing",
        ));
    }
    faults
}

pub(crate) async fn list(call: Call) -> Result<Reply<List<Credential>>, Problem> {
    let (app, channel) = (call.app()?, call.id::<ChannelId>("channel")?);
    let items = call
        .api
        .registry()
        .credentials(&app)
        .await?
        .into_iter()
        .filter(|c| c.channel == channel)
        .map(|c| shown(&call, c))
        .collect();
    Ok(Reply::new(List { items, next: None }))
}

pub(crate) async fn list_all(call: Call) -> Result<Reply<List<Credential>>, Problem> {
    let all = call.api.registry().credentials(&call.app()?).await?;
    Ok(Reply::new(List {
        items: all.into_iter().map(|c| shown(&call, c)).collect(),
        next: None,
    }))
}

pub(crate) async fn read(call: Call) -> Result<Reply<Credential>, Problem> {
    stored(&call).await
}

pub(crate) async fn delete(call: Call<DeleteQuery>) -> Result<Done, Problem> {
    let (app, channel, name) = place(&call)?;
    if !call.query.force {
        let uses = uses::of(&call.api, &app, &channel, &name).await?;
        if !uses.is_empty() {
            let words = format!(
                "{}; delete it all the same with ?force=true",
                uses.join("; ")
            );
            return Err(Problem::new(Code::InUse, words));
        }
    }
    if call
        .api
        .services()
        .delete_credential(&app, &channel, &name)
        .await?
    {
        Ok(Done)
    } else {
        Err(Problem::not_found("credential"))
    }
}

pub(crate) async fn check(call: Call) -> Result<Reply<Checked>, Problem> {
    let (app, channel, name) = place(&call)?;
    Ok(Reply::new(
        call.api
            .services()
            .check_credential(&app, &channel, &name)
            .await?
            .into(),
    ))
}

/// The credential of the call's path as it is stored.
async fn stored<Q, B>(call: &Call<Q, B>) -> Result<Reply<Credential>, Problem> {
    let (app, channel, name) = place(call)?;
    let registry = call.api.registry();
    let stored = registry.credential(&app, &channel, &name).await?;
    stored
        .map(|c| Reply::new(shown(call, c)))
        .ok_or_else(|| Problem::not_found("credential"))
}

fn shown<Q, B>(call: &Call<Q, B>, credential: app::Credential) -> Credential {
    let services = call.api.services();
    let url = services.callback_url(&credential.app, &credential.channel, &credential.name);
    Credential::of(credential, url)
}

fn place<Q, B>(
    call: &Call<Q, B>,
) -> Result<(hongyan_core::AppId, ChannelId, CredentialName), Problem> {
    Ok((call.app()?, call.id("channel")?, call.id("name")?))
}

/// Scheme and authority only, https as no vendor is called without; whether the host may be called is the guarded client's
/// decision.
fn is_base_url(text: &str) -> bool {
    let rest = text.strip_prefix("https://");
    text.len() <= URL_BYTES_MAX
        && rest.is_some_and(|rest| {
            let host = rest.strip_suffix('/').unwrap_or(rest);
            !host.is_empty()
                && host
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-.:[]".contains(&b))
        })
}
