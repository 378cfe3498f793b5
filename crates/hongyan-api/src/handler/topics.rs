//! Topics: who subscribes to what.

use hongyan_core::limits::TOPICS_PER_DEVICE_MAX;
use hongyan_core::{AppId, DeviceId, Topic};

use super::{fault, no_faults};
use crate::api::Api;
use crate::body::Json;
use crate::options::SUBSCRIBERS_LEN_MAX;
use crate::problem::{Code, Problem};
use crate::reply::{Done, Reply};
use crate::route::Call;
use crate::wire::topic::{RefusedDevice, SubscribersChange, SubscribersChanged};
use crate::wire::{List, Page};

/// Devices that one registry call gets.
const CHUNK: usize = 500;

pub(crate) async fn subscribe(call: Call) -> Result<Done, Problem> {
    let (app, topic, device) = place(&call)?;
    call.api.device(&app, &device).await?;
    if !has_room(&call.api, &app, &topic, &device).await? {
        return Err(Problem::at(
            Code::Invalid,
            "topic",
            format!("a device has at most {TOPICS_PER_DEVICE_MAX} topics; end one first"),
        ));
    }
    let devices = [device];
    call.api
        .registry()
        .subscribe(&app, &topic, &devices)
        .await?;
    tell(&call.api, &app, &devices);
    Ok(Done)
}

pub(crate) async fn unsubscribe(call: Call) -> Result<Done, Problem> {
    let (app, topic, device) = place(&call)?;
    call.api.device(&app, &device).await?;
    let devices = [device];
    call.api
        .registry()
        .unsubscribe(&app, &topic, &devices)
        .await?;
    tell(&call.api, &app, &devices);
    Ok(Done)
}

pub(crate) async fn list(call: Call<Page>) -> Result<Reply<List<String>>, Problem> {
    let (app, topic): (_, Topic) = (call.app()?, call.id("topic")?);
    let limit = call.query.limit()?;
    let after: Option<DeviceId> = call.query.after()?;
    let devices = call
        .api
        .registry()
        .subscribers(&app, &topic, after.as_ref(), limit)
        .await?;
    let items = devices.iter().map(ToString::to_string).collect();
    Ok(Reply::new(List::new(items, limit, String::clone)))
}

pub(crate) async fn bulk(
    call: Call<(), Json<SubscribersChange>>,
) -> Result<Reply<SubscribersChanged>, Problem> {
    let (app, topic): (_, Topic) = (call.app()?, call.id("topic")?);
    let SubscribersChange {
        subscribe,
        unsubscribe,
    } = call.body.value;
    let mut faults = Vec::new();
    for (path, len) in [
        ("subscribe", subscribe.len()),
        ("unsubscribe", unsubscribe.len()),
    ] {
        if len > SUBSCRIBERS_LEN_MAX {
            faults.push(fault(
                path,
                format!("must name at most {SUBSCRIBERS_LEN_MAX}, not {len}"),
            ));
        }
    }
    no_faults(faults)?;
    let mut answer = SubscribersChanged {
        subscribed: 0,
        unsubscribed: 0,
        refused: Vec::new(),
    };
    for chunk in subscribe.chunks(CHUNK) {
        let found = call.api.registry().devices(&app, chunk).await?;
        let mut good = Vec::with_capacity(chunk.len());
        for (id, found) in chunk.iter().zip(found) {
            if found.is_none() {
                answer.refused.push(refused(id, "device not found"));
            } else if has_room(&call.api, &app, &topic, id).await? {
                good.push(id.clone());
            } else {
                answer
                    .refused
                    .push(refused(id, "the device has as many topics as it may have"));
            }
        }
        call.api.registry().subscribe(&app, &topic, &good).await?;
        tell(&call.api, &app, &good);
        answer.subscribed += good.len();
    }
    for chunk in unsubscribe.chunks(CHUNK) {
        call.api.registry().unsubscribe(&app, &topic, chunk).await?;
        tell(&call.api, &app, chunk);
        answer.unsubscribed += chunk.len();
    }
    Ok(Reply::new(answer))
}

fn refused(id: &DeviceId, problem: &str) -> RefusedDevice {
    RefusedDevice {
        device_id: id.clone(),
        problem: problem.to_owned(),
    }
}

/// Whether the device may subscribe, or does already.
async fn has_room(
    api: &Api,
    app: &AppId,
    topic: &Topic,
    device: &DeviceId,
) -> Result<bool, Problem> {
    let topics = api.registry().topics_of(app, device).await?;
    Ok(topics.len() < TOPICS_PER_DEVICE_MAX || topics.iter().any(|s| s.topic == *topic))
}

/// Tells live sessions, so that they read the new lists from now on.
fn tell(api: &Api, app: &AppId, devices: &[DeviceId]) {
    for device in devices {
        api.ports().presence.resubscribe(app, device);
    }
}

fn place(call: &Call) -> Result<(AppId, Topic, DeviceId), Problem> {
    Ok((call.app()?, call.id("topic")?, call.device_id()?))
}
