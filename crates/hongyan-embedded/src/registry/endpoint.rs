//! Push endpoints: found by the hash of their token, and by the device's channel while they are not gone.

use hongyan_core::port::ENDPOINT_GONE_TTL;
use hongyan_core::{AppId, DeviceId, PushChannel, PushEndpoint, StoreError, Timestamp};

use super::{damaged, device};
use crate::maintain::Kind;
use crate::store::record::{Key, after, encode, prefix_end};
use crate::store::{Range, Space, Txn, View};

/// Endpoints of one device that end together with it: twice as many as it may have.
const OF_DEVICE_MAX: usize = 2_000;

fn key(app: &AppId, device: &DeviceId, channel: &PushChannel) -> Vec<u8> {
    Key::of(app).text(device).text(channel).done()
}

pub(super) fn read(view: &impl View, hash: &[u8; 32]) -> Result<Option<PushEndpoint>, StoreError> {
    view.json(Space::Endpoint, hash)
}

/// The hash that a row of [`Space::DeviceEndpoint`] points to.
fn pointed(key: &[u8], payload: &[u8]) -> Result<[u8; 32], StoreError> {
    payload
        .try_into()
        .map_err(|_| damaged(Space::DeviceEndpoint, key))
}

/// Writes an endpoint; the former one of its channel is gone from then on.
pub(super) fn write(
    txn: &mut Txn<'_>,
    endpoint: &PushEndpoint,
    json: Vec<u8>,
) -> Result<(), StoreError> {
    let (app, id) = (&endpoint.app, &endpoint.device);
    if device::read(txn, app, id)?.is_none() {
        return Err(StoreError::NotFound { entity: "device" });
    }
    end(txn, app, id, &endpoint.channel, endpoint.created_at)?;
    let key = key(app, id, &endpoint.channel);
    txn.put(Space::DeviceEndpoint, key, endpoint.hash);
    txn.put(Space::Endpoint, endpoint.hash, json);
    Ok(())
}

/// Ends the endpoint of a channel; it is forgotten later.
pub(super) fn end(
    txn: &mut Txn<'_>,
    app: &AppId,
    device: &DeviceId,
    channel: &PushChannel,
    at: Timestamp,
) -> Result<bool, StoreError> {
    let key = key(app, device, channel);
    let Some(hash) = txn.get(Space::DeviceEndpoint, &key)? else {
        return Ok(false);
    };
    let hash = pointed(&key, &hash)?;
    txn.remove(Space::DeviceEndpoint, &key);
    let Some(mut endpoint) = read(txn, &hash)? else {
        return Ok(false);
    };
    endpoint.gone_since = Some(at);
    txn.put(Space::Endpoint, hash, encode("endpoint", &endpoint)?);
    txn.gather()
        .note(Kind::Endpoint, at.plus(ENDPOINT_GONE_TTL), &hash);
    Ok(true)
}

/// Ends all endpoints of a device.
pub(super) fn end_all(
    txn: &mut Txn<'_>,
    app: &AppId,
    device: &DeviceId,
    at: Timestamp,
) -> Result<(), StoreError> {
    for endpoint in of_device(txn, app, device, None, OF_DEVICE_MAX)? {
        end(txn, app, device, &endpoint.channel, at)?;
    }
    Ok(())
}

/// A device's endpoints that are not gone, in channel order.
pub(super) fn of_device(
    view: &impl View,
    app: &AppId,
    device: &DeviceId,
    after_channel: Option<&PushChannel>,
    limit: usize,
) -> Result<Vec<PushEndpoint>, StoreError> {
    let prefix = Key::of(app).text(device).done();
    let end = prefix_end(&prefix);
    let from = after_channel.map_or_else(|| prefix.clone(), |c| after(&key(app, device, c)));
    let rows = view.range(
        Space::DeviceEndpoint,
        Range::forward(&from, end.as_deref(), limit),
    )?;
    let mut endpoints = Vec::with_capacity(rows.len());
    for (row, hash) in &rows {
        // The pointer and the record are read one after the other.
        endpoints.extend(read(view, &pointed(row, hash)?)?.filter(|e| e.gone_since.is_none()));
    }
    Ok(endpoints)
}

/// Forgets an endpoint that has been gone for long.
pub(crate) fn forget(txn: &mut Txn<'_>, hash: &[u8], before: Timestamp) -> Result<u64, StoreError> {
    let endpoint = txn.json::<PushEndpoint>(Space::Endpoint, hash)?;
    let over = endpoint
        .and_then(|e| e.gone_since)
        .is_some_and(|gone| gone.plus(ENDPOINT_GONE_TTL) < before);
    if over {
        txn.remove(Space::Endpoint, hash);
    }
    Ok(u64::from(over))
}
