//! Forgetting: a device, a user, or an app with all that it owns.

use std::sync::Arc;

use hongyan_core::{AppId, Device, DeviceId, StoreError, UserId};

use super::{bound_devices, device, endpoint, topic};
use crate::cached::Caches;
use crate::embedded::Shelf;
use crate::store::record::{Key, Parts, decode, prefix_end};
use crate::store::{Admission, Range, Space, Txn, Urgency, View};
use crate::{inbox, work};

/// Records removed in one slice, so that a deletion delays a push by one batch at most.
const SLICE: usize = 1_000;
/// Devices that are unbound together with their user.
const USER_DEVICES_MAX: usize = 10_000;

/// Removes a device and all that points to it.
pub(super) fn device(txn: &mut Txn<'_>, app: &AppId, id: &DeviceId) -> Result<bool, StoreError> {
    let Some(former) = device::read(txn, app, id)? else {
        return Ok(false);
    };
    for token in &former.tokens {
        device::free_token(txn, app, id, token)?;
    }
    if let Some(user) = &former.user {
        txn.remove(Space::UserDevice, Key::of(app).text(user).text(id));
    }
    for subscription in super::read_topics(txn, &device::key(app, id))? {
        topic::unsubscribe(txn, app, &subscription.topic, std::slice::from_ref(id))?;
    }
    // No clock here: they are gone since the device was last heard of.
    endpoint::end_all(txn, app, id, former.last_seen.max(former.created_at))?;
    inbox::forget_device(txn, app, id)?;
    txn.remove(Space::DeviceSecret, former.secret_hash);
    txn.remove(Space::Device, device::key(app, id));
    Ok(true)
}

/// Removes a user and unbinds their devices.
pub(super) fn user(
    txn: &mut Txn<'_>,
    caches: &Caches,
    app: &AppId,
    id: &UserId,
) -> Result<bool, StoreError> {
    let key = Key::of(app).text(id).done();
    let known = txn.get(Space::User, &key)?.is_some();
    if known {
        txn.remove(Space::User, &key);
    }
    let bound = bound_devices(txn, app, id, USER_DEVICES_MAX)?;
    for device_id in &bound {
        let Some(former) = device::read(txn, app, device_id)? else {
            continue;
        };
        let unbound = Device {
            user: None,
            binding: former.binding + 1,
            version: former.version + 1,
            ..former.clone()
        };
        let unbound = device::Prepared::of(unbound)?;
        device::write(txn, caches, Some(&former), unbound)?;
    }
    inbox::forget_user(txn, app, id)?;
    Ok(known || !bound.is_empty())
}

/// Deletes an app: the app itself and a note first, then what it owns in slices, then the note. A
/// crash in between is made good by [`resume_deletions`].
pub(super) async fn delete_app(shelf: &Arc<Shelf>, app: &AppId) -> Result<(), StoreError> {
    let key = Key::of(app).done();
    shelf
        .store
        .write(Admission::Normal, Urgency::Durable, 256, move |txn| {
            txn.remove(Space::App, &key);
            txn.put(Space::Deleting, &key, []);
            Ok::<_, StoreError>(())
        })
        .await?;
    forget_app(shelf, app).await.map(drop)
}

/// Removes all that a deleted app owned; answers how many records went.
async fn forget_app(shelf: &Arc<Shelf>, app: &AppId) -> Result<u64, StoreError> {
    let mut total = 0;
    loop {
        let app = app.clone();
        let schedule = Arc::clone(&shelf.schedule);
        let removed = shelf
            .store
            .write(
                Admission::Maintenance,
                Urgency::Durable,
                1 << 16,
                move |txn| {
                    let removed = slice(txn, &schedule, &app)?;
                    if removed == 0 {
                        txn.remove(Space::Deleting, Key::of(&app));
                    }
                    Ok::<_, StoreError>(removed)
                },
            )
            .await?;
        total += removed;
        if removed == 0 {
            return Ok(total);
        }
    }
}

fn slice(
    txn: &mut Txn<'_>,
    schedule: &Arc<work::Schedule>,
    app: &AppId,
) -> Result<u64, StoreError> {
    let removed = work::forget_app(txn, schedule, app, SLICE)?;
    if removed > 0 {
        return Ok(removed);
    }
    let prefix = Key::of(app).done();
    let end = prefix_end(&prefix);
    for space in Space::ALL.iter().filter(|s| s.is_owned_by_app()) {
        let rows = txn.range(*space, Range::forward(&prefix, end.as_deref(), SLICE))?;
        if rows.is_empty() {
            continue;
        }
        for (key, payload) in &rows {
            match space {
                Space::KeyOf => txn.remove(Space::Key, payload),
                Space::DeviceEndpoint => txn.remove(Space::Endpoint, payload),
                Space::Device => {
                    let device: Device = decode(Space::Device, key, payload)?;
                    txn.remove(Space::DeviceSecret, device.secret_hash);
                }
                _ => {}
            }
            txn.remove(*space, key);
        }
        return Ok(rows.len() as u64);
    }
    Ok(0)
}

/// Goes on with deletions that a crash interrupted.
pub(crate) async fn resume_deletions(shelf: &Arc<Shelf>) -> Result<u64, StoreError> {
    let mut total = 0;
    for (key, _) in shelf.store.prefix(Space::Deleting, b"", SLICE)? {
        if let Some(app) = Parts(&key).text().and_then(|t| AppId::parse(t).ok()) {
            total += forget_app(shelf, &app).await?;
        }
    }
    Ok(total)
}
