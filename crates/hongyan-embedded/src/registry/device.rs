//! A device's record and all that is found by it: secret, vendor tokens, user, inbox place.

use hongyan_core::device::{Token, TokenState};
use hongyan_core::{AppId, ChannelId, Device, DeviceId, Reason, StoreError, UserId};
use ring::digest::{SHA256, digest};

use super::{damaged, third_id};
use crate::cached::Caches;
use crate::inbox;
use crate::store::record::{Key, encode};
use crate::store::{Space, Txn, View};

pub(super) fn key(app: &AppId, id: &DeviceId) -> Vec<u8> {
    Key::of(app).text(id).done()
}

fn token_key(app: &AppId, channel: &ChannelId, token: &str) -> Vec<u8> {
    let hash = digest(&SHA256, token.as_bytes());
    Key::of(app).text(channel).raw(hash.as_ref()).done()
}

pub(super) fn read(
    view: &impl View,
    app: &AppId,
    id: &DeviceId,
) -> Result<Option<Device>, StoreError> {
    view.json(Space::Device, &key(app, id))
}

/// The device that has a vendor token.
pub(super) fn holder(
    view: &impl View,
    app: &AppId,
    channel: &ChannelId,
    token: &str,
) -> Result<Option<DeviceId>, StoreError> {
    holder_of(view, &token_key(app, channel, token))
}

fn holder_of(view: &impl View, key: &[u8]) -> Result<Option<DeviceId>, StoreError> {
    let Some(payload) = view.get(Space::Token, key)? else {
        return Ok(None);
    };
    let id = std::str::from_utf8(&payload)
        .ok()
        .and_then(|t| DeviceId::parse(t).ok());
    id.map(Some).ok_or_else(|| damaged(Space::Token, key))
}

/// Devices bound to a user, at most `limit`.
pub(crate) fn bound_devices(
    view: &impl View,
    app: &AppId,
    user: &UserId,
    limit: usize,
) -> Result<Vec<DeviceId>, StoreError> {
    let prefix = Key::of(app).text(user).done();
    view.prefix(Space::UserDevice, &prefix, limit)?
        .iter()
        .map(|(key, _)| third_id(Space::UserDevice, key))
        .collect()
}

/// A device with all that the writer needs not work out.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) device: Device,
    json: Vec<u8>,
}

impl Prepared {
    pub(super) fn of(device: Device) -> Result<Self, StoreError> {
        Ok(Self {
            json: encode("device", &device)?,
            device,
        })
    }

    /// Changes the device; it is encoded once more.
    pub(super) fn change(&mut self, how: impl FnOnce(&mut Device)) -> Result<(), StoreError> {
        how(&mut self.device);
        self.json = encode("device", &self.device)?;
        Ok(())
    }
}

/// Writes a device over its former state, and keeps everything that points to it in step.
pub(super) fn write(
    txn: &mut Txn<'_>,
    caches: &Caches,
    former: Option<&Device>,
    prepared: Prepared,
) -> Result<(), StoreError> {
    let device = &prepared.device;
    let (app, id) = (&device.app, &device.id);
    if let Some(former) = former.filter(|f| f.secret_hash != device.secret_hash) {
        txn.remove(Space::DeviceSecret, former.secret_hash);
    }
    if former.is_none_or(|f| f.secret_hash != device.secret_hash) {
        let owner = Key::of(app).text(id).done();
        txn.put(Space::DeviceSecret, device.secret_hash, owner);
    }
    write_tokens(txn, former, device)?;
    let bound_before = former.map(|f| (&f.user, f.binding));
    if bound_before != Some((&device.user, device.binding)) {
        if let Some(user) = former.and_then(|f| f.user.as_ref()) {
            txn.remove(Space::UserDevice, Key::of(app).text(user).text(id));
        }
        if let Some(user) = &device.user {
            txn.put(Space::UserDevice, Key::of(app).text(user).text(id), []);
        }
        let user = device.user.as_ref();
        inbox::bind(txn, caches, app, id, user, former.is_none())?;
    }
    txn.put(Space::Device, key(app, id), prepared.json);
    Ok(())
}

fn is_active(device: &Device, token: &Token) -> bool {
    device
        .token(&token.channel)
        .is_some_and(|t| t.is_active() && t.token == token.token)
}

fn write_tokens(
    txn: &mut Txn<'_>,
    former: Option<&Device>,
    device: &Device,
) -> Result<(), StoreError> {
    for token in former.iter().flat_map(|f| &f.tokens) {
        if token.is_active() && !is_active(device, token) {
            free_token(txn, &device.app, &device.id, token)?;
        }
    }
    for token in device.tokens.iter().filter(|t| t.is_active()) {
        if former.is_some_and(|f| is_active(f, token)) {
            continue;
        }
        let key = token_key(&device.app, &token.channel, &token.token);
        let held_by = holder_of(txn, &key)?;
        if let Some(other) = held_by.filter(|other| *other != device.id) {
            take_token(txn, &device.app, &other, token)?;
        }
        txn.put(Space::Token, key, device.id.as_str());
    }
    Ok(())
}

/// Frees a vendor token, if this device is the one that has it.
pub(super) fn free_token(
    txn: &mut Txn<'_>,
    app: &AppId,
    id: &DeviceId,
    token: &Token,
) -> Result<(), StoreError> {
    if holder(txn, app, &token.channel, &token.token)?.as_ref() == Some(id) {
        txn.remove(Space::Token, token_key(app, &token.channel, &token.token));
    }
    Ok(())
}

/// Leaves a tombstone at the device that has a token which now belongs to another.
fn take_token(
    txn: &mut Txn<'_>,
    app: &AppId,
    holder: &DeviceId,
    moved: &Token,
) -> Result<(), StoreError> {
    let Some(mut device) = read(txn, app, holder)? else {
        return Ok(());
    };
    for token in &mut device.tokens {
        if token.channel == moved.channel && token.token == moved.token {
            token.state = TokenState::Dead {
                reason: Reason::TokenInvalid,
                at: moved.updated_at,
            };
        }
    }
    device.version += 1;
    txn.put(Space::Device, key(app, holder), encode("device", &device)?);
    Ok(())
}
