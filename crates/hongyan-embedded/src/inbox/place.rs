//! Where a device's inbox begins, and what it has acknowledged.

use hongyan_core::port::Reader;
use hongyan_core::{AppId, Cursor, DeviceId, StoreError, UserId};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::push;
use super::ring::{self, Source};
use crate::cached::Caches;
use crate::store::record::{Key, encode};
use crate::store::{Space, Txn, View};

/// A place in each of the lists that an inbox merges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Vector {
    #[serde(rename = "u")]
    pub(super) user: u64,
    #[serde(rename = "d")]
    pub(super) device: u64,
    #[serde(rename = "b")]
    pub(super) broadcast: u64,
}

impl Vector {
    pub(super) const fn of(&self, source: Source) -> u64 {
        match source {
            Source::User => self.user,
            Source::Device => self.device,
            Source::Broadcast | Source::Push => self.broadcast,
        }
    }

    pub(super) fn set(&mut self, source: Source, seq: u64) {
        match source {
            Source::User => self.user = seq,
            Source::Device => self.device = seq,
            Source::Broadcast | Source::Push => self.broadcast = seq,
        }
    }

    pub(super) fn max(self, other: Self) -> Self {
        Self {
            user: self.user.max(other.user),
            device: self.device.max(other.device),
            broadcast: self.broadcast.max(other.broadcast),
        }
    }

    /// Whether no part is above the other's.
    pub(super) const fn within(&self, other: &Self) -> bool {
        self.user <= other.user && self.device <= other.device && self.broadcast <= other.broadcast
    }

    pub(super) const fn cursor(self, epoch: u32, reader: u32) -> Cursor {
        Cursor {
            epoch,
            reader,
            user: self.user,
            device: self.device,
            broadcast: self.broadcast,
        }
    }
}

impl From<Cursor> for Vector {
    fn from(cursor: Cursor) -> Self {
        Self {
            user: cursor.user,
            device: cursor.device,
            broadcast: cursor.broadcast,
        }
    }
}

/// A device's place in its inbox.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Place {
    /// The batch in which the present binding began: cursors of earlier ones are foreign.
    pub(super) birth: u64,
    /// The user that the device is bound to; nobody else's ring is read.
    pub(super) user: Option<UserId>,
    /// Where the inbox begins.
    pub(super) start: Vector,
    /// Everything up to here is acked, or never was for this device.
    pub(super) acked: Vector,
    /// Acked places above it: list (`u d b` as 0, 1, 2) and place, sorted.
    pub(super) above: Vec<(u8, u64)>,
    /// Whether the registry knows the device, so that `user` is to be trusted over the reader.
    pub(super) registered: bool,
}

const fn tag(source: Source) -> u8 {
    match source {
        Source::User => 0,
        Source::Device => 1,
        Source::Broadcast | Source::Push => 2,
    }
}

impl Place {
    /// Up to where broadcasts and pushes are acked.
    pub(super) const fn acked_broadcast(&self) -> u64 {
        self.acked.broadcast
    }

    pub(super) fn has_above(&self, source: Source, seq: u64) -> bool {
        self.above.binary_search(&(tag(source), seq)).is_ok()
    }

    /// Notes an acked place; answers whether it is new.
    pub(super) fn add_above(&mut self, source: Source, seq: u64) -> bool {
        match self.above.binary_search(&(tag(source), seq)) {
            Ok(_) => false,
            Err(at) => {
                self.above.insert(at, (tag(source), seq));
                true
            }
        }
    }

    /// The furthest place in each list that it tells of.
    pub(super) fn furthest(&self) -> Vector {
        let mut furthest = self.start.max(self.acked);
        for (list, seq) in &self.above {
            let source = match list {
                0 => Source::User,
                1 => Source::Device,
                _ => Source::Broadcast,
            };
            furthest.set(source, furthest.of(source).max(*seq));
        }
        furthest
    }

    /// Drops what the cumulative place covers.
    pub(super) fn tidy(&mut self) {
        let acked = self.acked;
        self.above.retain(|(list, seq)| {
            *seq > match list {
                0 => acked.user,
                1 => acked.device,
                _ => acked.broadcast,
            }
        });
    }

    /// Whose inbox a cursor is a place in.
    pub(super) fn reader_hash(&self, reader: &Reader) -> u32 {
        let user = self.reader_user(reader).map_or("", UserId::as_str);
        let key = Key::of(&reader.app).text(&reader.device).text(user);
        let [a, b, c, d, ..] = xxh3_64(key.number(self.birth).as_ref()).to_be_bytes();
        u32::from_be_bytes([a, b, c, d])
    }

    /// The user whose ring may be read: the reader's, unless the device is bound to somebody else.
    pub(super) fn reader_user<'a>(&self, reader: &'a Reader) -> Option<&'a UserId> {
        let user = reader.user.as_ref()?;
        (!self.registered || self.user.as_ref() == Some(user)).then_some(user)
    }
}

pub(super) fn key(app: &AppId, device: &DeviceId) -> Vec<u8> {
    Key::of(app).text(device).done()
}

pub(super) fn put(
    txn: &mut Txn<'_>,
    app: &AppId,
    device: &DeviceId,
    place: &Place,
) -> Result<(), StoreError> {
    let payload = encode("place", place)?;
    txn.put(Space::Place, key(app, device), payload);
    Ok(())
}

/// Starts a device's inbox at the newest place of the user it is bound to now; a new device also at
/// the newest broadcast.
pub(crate) fn bind(
    txn: &mut Txn<'_>,
    caches: &Caches,
    app: &AppId,
    device: &DeviceId,
    user: Option<&UserId>,
    is_new: bool,
) -> Result<(), StoreError> {
    let mut place = Place::default();
    if is_new {
        place.start.device = caches.ring_head_in(txn, &ring::device_key(app, device))?;
        place.start.broadcast = caches.head_in(txn, &ring::broadcasts_key(app))?;
        place.acked = place.start;
    } else if let Some(known) = txn.json(Space::Place, &key(app, device))? {
        place = known;
    }
    let newest = match user {
        Some(user) => caches.ring_head_in(txn, &ring::user_key(app, user))?,
        None => 0,
    };
    place.birth = txn.batch_number();
    place.registered = true;
    place.user = user.cloned();
    place.start.user = newest;
    place.acked.user = place.start.user;
    place.above.retain(|(list, _)| *list != tag(Source::User));
    put(txn, app, device, &place)
}

/// Removes a device's ring and place.
pub(crate) fn forget_device(
    txn: &mut Txn<'_>,
    app: &AppId,
    device: &DeviceId,
) -> Result<(), StoreError> {
    ring::forget(txn, &ring::device_key(app, device))?;
    push::forget_device(txn, app, device)?;
    txn.remove(Space::Place, key(app, device));
    Ok(())
}

/// Removes a user's ring.
pub(crate) fn forget_user(txn: &mut Txn<'_>, app: &AppId, user: &UserId) -> Result<(), StoreError> {
    ring::forget(txn, &ring::user_key(app, user))
}
