//! Vendor credentials: sealed at rest, never shown.

use hongyan_core::app::{self, LaneLimits};
use hongyan_core::device::Token;
use hongyan_core::draft::Fault;
use hongyan_core::limits::URL_BYTES_MAX;
use hongyan_core::{AppId, ChannelId, CredentialName};

use super::{fault, no_faults};
use crate::api::Api;
use crate::body::Json;
use crate::options::{PAGE_LEN_MAX, USES_SEEN_MAX};
use crate::problem::{Code, Problem};
use crate::reply::{Done, Reply};
use crate::route::Call;
use crate::services::NewCredential;
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
    let stored = call
        .api
        .registry()
        .credential(&app, &channel, &name)
        .await?;
    stored
        .map(|c| Reply::new(shown(&call, c)))
        .ok_or_else(|| Problem::not_found("credential"))
}

pub(crate) async fn change(
    mut call: Call<(), Json<CredentialChange>>,
) -> Result<Reply<Credential>, Problem> {
    let (app, channel, name) = place(&call)?;
    let change = std::mem::take(&mut call.body.value);
    let registry = call.api.registry();
    let stored = registry.credential(&app, &channel, &name).await?;
    let stored = stored.ok_or_else(|| Problem::not_found("credential"))?;
    let (mut endpoint, mut limits) = (stored.endpoint, Limits::from(stored.limits));
    change.endpoint.apply(&mut endpoint);
    if let Some(change) = change.limits {
        change.apply(&mut limits);
    }
    no_faults(faults(endpoint.as_deref(), limits))?;
    let new = NewCredential {
        config: serde_json::Value::Object(change.config.unwrap_or_default()),
        endpoint,
        limits: LaneLimits::from(limits),
    };
    let services = call.api.services();
    services
        .change_credential(&app, &channel, &name, new)
        .await?;
    let changed = registry.credential(&app, &channel, &name).await?;
    changed
        .map(|c| Reply::new(shown(&call, c)))
        .ok_or_else(|| Problem::not_found("credential"))
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
    let (app, channel, name) = place(&call)?;
    let stored = call
        .api
        .registry()
        .credential(&app, &channel, &name)
        .await?;
    stored
        .map(|c| Reply::new(shown(&call, c)))
        .ok_or_else(|| Problem::not_found("credential"))
}

pub(crate) async fn delete(call: Call<DeleteQuery>) -> Result<Done, Problem> {
    let (app, channel, name) = place(&call)?;
    if !call.query.force {
        let uses = uses(&call.api, &app, &channel, &name).await?;
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

/// What would lose its way with a credential. Devices are looked at until some are found, or as many as are looked at.
async fn uses(
    api: &Api,
    app: &AppId,
    channel: &ChannelId,
    name: &CredentialName,
) -> Result<Vec<String>, Problem> {
    let registry = api.registry();
    let all = registry.credentials(app).await?;
    let of_channel = all.iter().filter(|c| c.channel == *channel);
    let names: Vec<_> = of_channel.map(|c| &c.name).collect();
    if !names.contains(&name) {
        return Ok(Vec::new());
    }
    let mut uses = Vec::new();
    let waiting = api.services().waiting(app, channel, name);
    if waiting > 0 {
        uses.push(format!("{waiting} pushes wait for its vendor"));
    }
    let policy = registry.app(app).await?.map(|app| app.policy);
    let is_ordered = policy.is_some_and(|policy| policy.channel_order.contains(channel));
    if is_ordered && names.len() == 1 {
        uses.push(format!(
            "the app's channel_order names {channel}, and this is its only credential"
        ));
    }
    // Tokens that name no credential go on with `default`, else with the only one that is left.
    let left: Vec<_> = names.into_iter().filter(|other| *other != name).collect();
    let goes_on = left.len() == 1 || left.iter().any(|other| other.as_str() == "default");
    let (mut after, mut seen, mut found) = (None, 0, 0);
    while found == 0 {
        let page = registry
            .device_page(app, after.as_ref(), PAGE_LEN_MAX)
            .await?;
        seen += page.len();
        let needs_it = |token: &Token| match &token.credential {
            Some(named) => named == name,
            None => !goes_on,
        };
        let held = page.iter().filter_map(|device| device.token(channel));
        found = held.filter(|t| t.is_active() && needs_it(t)).count();
        after = page.last().map(|device| device.id.clone());
        if page.len() < PAGE_LEN_MAX {
            break;
        }
        if found == 0 && seen >= USES_SEEN_MAX {
            uses.push(format!("the app has more than {seen} devices, of which the first do not need it; the others were not looked at"));
            break;
        }
    }
    if found > 0 {
        uses.push(format!(
            "tokens of {found} of the first {seen} devices need it"
        ));
    }
    Ok(uses)
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
