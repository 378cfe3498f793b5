//! Newest places after a loss was accepted. A place that was given to a device, or that a device acknowledged, must not
//! be given out again: what stands there would be taken for acknowledged.

use std::collections::BTreeMap;

use hongyan_core::limits::INBOX_SLOTS;
use hongyan_core::{AppId, DeviceId, StoreError};

use super::place::Place;
use super::push;
use super::ring::{self, HEAD_STEP, InLog, newest, seq_of};
use crate::store::record::{Parts, after, decode, seal, unseal};
use crate::store::{Change, Checked, Mended, Range, Read, Space, View, verify};

/// Slots that are read at a time: more than a ring has.
pub(super) const PAGE: usize = 4_096;

/// Records of newest places that are to be written: of every ring with a damaged slot or a hole after the place that its
/// record names, and of every list in which something stands, or points, further than it reaches.
pub(crate) fn mend(reader: &dyn Read) -> Result<Mended, StoreError> {
    let mut heads = Heads {
        reader,
        lists: BTreeMap::new(),
        broadcasts: BTreeMap::new(),
        newest_batch: 0,
    };
    heads.of_slots()?;
    heads.of_logs(Space::Broadcast, ring::in_log)?;
    heads.of_logs(Space::Push, push::in_log)?;
    heads.of_heads()?;
    heads.of_places()?;
    let told = heads.broadcasts.into_iter();
    let told = told.filter_map(|(key, log)| (log.told > log.known).then_some((key, log.told)));
    let changes = heads.lists.into_iter().chain(told).map(head_change);
    Ok(Mended {
        changes: changes.collect(),
        newest_batch: heads.newest_batch,
    })
}

fn head_change((key, head): (Vec<u8>, u64)) -> Change {
    Change {
        space: Space::Head,
        value: Some(seal(Space::Head, &key, &head.to_be_bytes())),
        key,
    }
}

/// The newest broadcast of an app: as its record says, and as others tell.
struct Told {
    known: u64,
    told: u64,
}

/// Newest places as far as they are known by now.
struct Heads<'a> {
    reader: &'a dyn Read,
    /// Those of rings, topics and what waits for devices that are to be written.
    lists: BTreeMap<Vec<u8>, u64>,
    /// By the key of the record.
    broadcasts: BTreeMap<Vec<u8>, Told>,
    /// The newest batch of which something is left in a list.
    newest_batch: u64,
}

/// What is damaged tells nothing.
fn or_nothing(read: Result<u64, StoreError>) -> Result<u64, StoreError> {
    match read {
        Err(StoreError::Corrupt { .. }) => Ok(0),
        read => read,
    }
}

impl Heads<'_> {
    fn number(&self, key: &[u8]) -> Result<u64, StoreError> {
        let number = Checked(self.reader).number(Space::Head, key);
        or_nothing(number.map(Option::unwrap_or_default))
    }

    /// Something tells of a place in a ring.
    fn raise_ring(&mut self, ring: Vec<u8>, told: u64) -> Result<(), StoreError> {
        if told == 0 {
            return Ok(());
        }
        let known = match self.lists.get(&ring) {
            Some(head) => *head,
            None => or_nothing(newest(&Checked(self.reader), &ring))?,
        };
        if told > known {
            self.lists.insert(ring, told);
        }
        Ok(())
    }

    /// Something tells of a broadcast's place.
    fn raise_broadcasts(&mut self, app: &AppId, told: u64) -> Result<(), StoreError> {
        let key = ring::broadcasts_key(app);
        if !self.broadcasts.contains_key(&key) {
            let known = self.number(&key)?;
            let told = known;
            self.broadcasts.insert(key.clone(), Told { known, told });
        }
        if let Some(of_app) = self.broadcasts.get_mut(&key) {
            of_app.told = of_app.told.max(told);
        }
        Ok(())
    }

    fn of_slots(&mut self) -> Result<(), StoreError> {
        let mut from = Vec::new();
        loop {
            let range = Range::forward(&from, None, PAGE);
            let rows = self.reader.range(Space::Ring, range)?;
            let is_last = rows.len() < PAGE;
            let owner = |row: &(Vec<u8>, Vec<u8>)| row.0[..row.0.len().saturating_sub(1)].to_vec();
            let rings: Vec<_> = rows.chunk_by(|a, b| owner(a) == owner(b)).collect();
            // The last ring of a page goes on in the next: it is read whole then.
            let whole = rings.len() - usize::from(!is_last && rings.len() > 1);
            for slots in &rings[..whole] {
                self.of_ring(owner(&slots[0]), slots)?;
            }
            let next = match rings.get(whole) {
                Some(slots) => slots.first().map(|(key, _)| key.clone()),
                None => rows.last().map(|(key, _)| after(key)),
            };
            match next {
                Some(next) if !is_last => from = next,
                _ => return Ok(()),
            }
        }
    }

    fn of_ring(&mut self, ring: Vec<u8>, slots: &[(Vec<u8>, Vec<u8>)]) -> Result<(), StoreError> {
        let mut places = Vec::with_capacity(slots.len());
        let mut damaged = 0;
        // Whether what stands in a slot is sound.
        let mut sound: BTreeMap<u64, bool> = BTreeMap::new();
        for (key, value) in slots {
            let payload = unseal(Space::Ring, key, value.clone()).ok();
            let batch = payload.as_deref().and_then(ring::batch_of);
            self.newest_batch = self.newest_batch.max(batch.unwrap_or(0));
            let seq = payload.and_then(|payload| seq_of(&payload));
            if let Some(slot) = key.last() {
                sound.insert(u64::from(*slot), seq.is_some());
            }
            match seq {
                Some(seq) => places.push(seq),
                None => damaged += 1,
            }
        }
        // Any of the damaged ones may have been the newest, also one behind places that vanished without a word.
        let newest = places.iter().max().copied().unwrap_or(0);
        let mut head = newest + damaged;
        let record = Checked(self.reader).number(Space::Head, &ring);
        let is_damaged = matches!(record, Err(StoreError::Corrupt { .. }));
        let known = or_nothing(record.map(Option::unwrap_or_default))?;
        // No place is further ahead of its record than a step. Where it is damaged, too, the ring may have come round.
        let furthest = if is_damaged { newest.max(known) } else { known } + HEAD_STEP;
        // A ring that never came round has nothing older in the slots before its end.
        let end = match newest < INBOX_SLOTS {
            true => INBOX_SLOTS.max(furthest),
            false => newest + INBOX_SLOTS - 1,
        };
        for seq in newest + 1..=end {
            match sound.get(&(seq % INBOX_SLOTS)) {
                Some(true) => break,
                Some(false) => head = head.max(seq),
                None => {}
            }
        }
        let is_told = head.saturating_sub(known) < HEAD_STEP
            && (known + 1..=head).all(|seq| places.contains(&seq));
        if !is_told || damaged > 0 {
            self.lists.insert(ring, head.max(known));
        }
        Ok(())
    }

    /// What stands in a topic, in the list for all, or waits for a device is found by that list's record only.
    fn of_logs(
        &mut self,
        space: Space,
        place: fn(&[u8]) -> Option<InLog>,
    ) -> Result<(), StoreError> {
        let reader = self.reader;
        // Rows of a list stand together.
        let mut newest: Option<InLog> = None;
        verify::each_sound(reader, space, |key, payload| {
            let Some(row) = place(key) else {
                return Ok(());
            };
            let batch = ring::batch_of(payload).unwrap_or(0);
            self.newest_batch = self.newest_batch.max(batch);
            match &mut newest {
                Some(newest) if newest.head == row.head => newest.seq = newest.seq.max(row.seq),
                newest => {
                    if let Some(whole) = newest.replace(row) {
                        self.raise_log(whole)?;
                    }
                }
            }
            Ok(())
        })?;
        newest.map_or(Ok(()), |whole| self.raise_log(whole))
    }

    fn raise_log(&mut self, newest: InLog) -> Result<(), StoreError> {
        self.raise_broadcasts(&newest.app, newest.seq)?;
        if newest.seq > self.number(&newest.head)? {
            self.lists.insert(newest.head, newest.seq);
        }
        Ok(())
    }

    /// Topics, and what waits for devices, are numbered with the broadcasts.
    fn of_heads(&mut self) -> Result<(), StoreError> {
        let reader = self.reader;
        verify::each_sound(reader, Space::Head, |key, payload| {
            let mut parts = Parts(key);
            let app = parts.text().and_then(|app| AppId::parse(app).ok());
            if let (Some(app), Some(b"t" | b"a" | b"p")) = (app, parts.raw::<1>().as_ref()) {
                self.raise_broadcasts(&app, Parts(payload).number().unwrap_or(0))?;
            }
            Ok(())
        })?;
        verify::each_sound(reader, Space::DeviceTopic, |key, payload| {
            if let Some(app) = Parts(key).text().and_then(|app| AppId::parse(app).ok()) {
                self.raise_broadcasts(&app, Parts(payload).number().unwrap_or(0))?;
            }
            Ok(())
        })
    }

    /// Where inboxes begin, and what devices acknowledged.
    fn of_places(&mut self) -> Result<(), StoreError> {
        verify::each_sound(self.reader, Space::Place, |key, payload| {
            let mut parts = Parts(key);
            let app = parts.text().and_then(|app| AppId::parse(app).ok());
            let device = parts.text().and_then(|id| DeviceId::parse(id).ok());
            let place: Option<Place> = decode(Space::Place, key, payload).ok();
            let (Some(app), Some(device), Some(place)) = (app, device, place) else {
                return Ok(());
            };
            self.newest_batch = self.newest_batch.max(place.birth);
            let told = place.furthest();
            if let Some(user) = &place.user {
                self.raise_ring(ring::user_key(&app, user), told.user)?;
            }
            self.raise_ring(ring::device_key(&app, &device), told.device)?;
            self.raise_broadcasts(&app, told.broadcast)
        })
    }
}
