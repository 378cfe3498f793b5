//! Sheets: the jobs that one batch made ready, several to a record, and beside it which of them are done. A batch
//! accepts many messages and another ends many jobs, so that a job costs a fraction of a record each time. Jobs stand in
//! the order in which they are taken up.
//!
//! Sheet: for each job whether it is held, when it is due, its length and JSON. Done: a bit for each job of the sheet,
//! the lowest for the first. A sheet whose jobs are all done goes, with its bits.

use std::sync::Arc;

use hashbrown::HashMap;
use hongyan_core::StoreError;
use hongyan_core::port::Job;

use super::schedule::{Move, Moves, Schedule, Sheet};
use crate::store::record::{Damage, Key, Parts, after, decode, signed, unseal};
use crate::store::{Backend, Change, Checked, Mended, Range, Read, Space, Txn, View, verify};

/// Jobs of one sheet: as many as a number has bits.
const SHEET_LEN: usize = 64;
/// Sheets that are read at a time when the store opens.
const PAGE: usize = 256;

/// A sheet: batch and part.
pub(super) type SheetId = (u64, u16);

/// Where a job stands on the disk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) sheet: SheetId,
    pub(super) at: u8,
}

/// A job that is to be written into a sheet.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) job: Arc<Job>,
    /// When it is due, or until when it is held.
    pub(super) due: i64,
    /// What stands on the disk: whether it is held, due, JSON.
    pub(super) is_held: bool,
    pub(super) due_on_disk: i64,
    pub(super) json: Vec<u8>,
}

impl Made {
    pub(crate) const fn cost(&self) -> usize {
        self.json.len() + 256
    }
}

fn key((batch, part): SheetId) -> Vec<u8> {
    Key::sized(10).number(batch).raw(&part.to_be_bytes()).done()
}

/// Writes what a batch did to the jobs that are ready, and lets memory follow when it is durable. Runs in the writer.
pub(crate) fn write_sheets(
    txn: &mut Txn<'_>,
    schedule: &Arc<Schedule>,
    changed: HashMap<Arc<str>, Option<Made>>,
) {
    if changed.is_empty() {
        return;
    }
    let mut sheets = Vec::new();
    for (id, (known, leaving)) in schedule.places(changed.keys()) {
        let done = known.done | leaving;
        if done.count_ones() >= u32::from(known.len) {
            txn.remove(Space::Sheet, key(id));
            if known.done != 0 {
                txn.remove(Space::SheetDone, key(id));
            }
            sheets.push((id, None));
        } else {
            txn.put_number(Space::SheetDone, key(id), done);
            sheets.push((id, Some(Sheet { done, ..known })));
        }
    }
    let mut moves = Moves::with_capacity(changed.len());
    let mut made = Vec::with_capacity(changed.len());
    for (id, to) in changed {
        match to {
            Some(to) => made.push((id, to)),
            None => moves.push(Move::out(id)),
        }
    }
    if made.len() > SHEET_LEN {
        // What is taken up together mostly ends together, and so touches few sheets.
        made.sort_unstable_by(|(a, x), (b, y)| (x.due, a).cmp(&(y.due, b)));
    }
    let mut part = 0;
    while !made.is_empty() {
        let rest = made.split_off(made.len().min(SHEET_LEN));
        let sheet = (txn.batch_number(), part);
        let len = u8::try_from(made.len()).unwrap_or(u8::MAX);
        let mut payload = Vec::with_capacity(made.iter().map(|(_, m)| m.json.len() + 13).sum());
        for (at, (id, made)) in (0u8..).zip(std::mem::replace(&mut made, rest)) {
            let length = u32::try_from(made.json.len()).unwrap_or(u32::MAX);
            payload.push(u8::from(made.is_held));
            payload.extend_from_slice(&signed(made.due_on_disk).to_be_bytes());
            payload.extend_from_slice(&length.to_be_bytes());
            payload.extend_from_slice(&made.json);
            moves.push(Move::to(id, made.due, made.job, Place { sheet, at }));
        }
        txn.put(Space::Sheet, key(sheet), payload);
        sheets.push((sheet, Some(Sheet { len, done: 0 })));
        part += 1;
    }
    let schedule = Arc::clone(schedule);
    txn.after(move || schedule.apply(moves, sheets));
}

/// Takes what is offered or held into memory, all of it due at once where it was held: the process that held it is
/// gone. Before the ports are handed out.
pub(crate) fn load(backend: &dyn Backend, schedule: &Schedule) -> Result<(), StoreError> {
    let mut from = Vec::new();
    loop {
        let range = Range::forward(&from, None, PAGE);
        let rows = backend.range(Space::Sheet, range)?;
        let Some((last, _)) = rows.last() else {
            return Ok(());
        };
        from = after(last);
        let (mut moves, mut sheets) = (Moves::new(), Vec::new());
        for (key, value) in rows {
            let payload = unseal(Space::Sheet, &key, value).map_err(Damage::into_store_error)?;
            // Without its bits all of a sheet comes again, which is allowed; silence would not be.
            let done = match Checked(backend).number(Space::SheetDone, &key) {
                Ok(done) => done.unwrap_or(0),
                Err(error @ StoreError::Corrupt { .. }) => {
                    tracing::error!(%error, "which jobs are done cannot be read; all of the sheet are done again");
                    0
                }
                Err(error) => return Err(error),
            };
            let (sheet, jobs) = read(&key, &payload)?;
            let len = u8::try_from(jobs.len()).unwrap_or(u8::MAX);
            sheets.push((sheet, Some(Sheet { len, done })));
            for (at, (due, job)) in (0u8..).zip(jobs) {
                if done >> at & 1 == 0 {
                    let id = job.id().0.into();
                    moves.push(Move::to(id, due, Arc::new(job), Place { sheet, at }));
                }
            }
        }
        schedule.apply(moves, sheets);
    }
}

/// After a loss was accepted: bits of a sheet that is lost go with it, and no number of a sheet is used again.
pub(crate) fn mend(reader: &dyn Read) -> Result<Mended, StoreError> {
    let mut changes = Vec::new();
    let mut newest_batch = 0;
    verify::each_sound(reader, Space::Sheet, |key, _| {
        newest_batch = newest_batch.max(Parts(key).number().unwrap_or(0));
        Ok(())
    })?;
    verify::each_sound(reader, Space::SheetDone, |key, _| {
        newest_batch = newest_batch.max(Parts(key).number().unwrap_or(0));
        match Checked(reader).get(Space::Sheet, key) {
            Ok(Some(_)) => {}
            Ok(None) | Err(StoreError::Corrupt { .. }) => changes.push(Change {
                space: Space::SheetDone,
                key: key.to_vec(),
                value: None,
            }),
            Err(error) => return Err(error),
        }
        Ok(())
    })?;
    Ok(Mended {
        changes,
        newest_batch,
    })
}

/// The jobs of a sheet, each with the time from which on it is offered.
fn read(key: &[u8], payload: &[u8]) -> Result<(SheetId, Vec<(i64, Job)>), StoreError> {
    let cut_short = || Damage::of(Space::Sheet, key, "it is cut short").into_store_error();
    let mut id = Parts(key);
    let sheet = match (id.number(), id.raw().map(u16::from_be_bytes)) {
        (Some(batch), Some(part)) => (batch, part),
        _ => return Err(cut_short()),
    };
    let mut parts = Parts(payload);
    let mut jobs = Vec::new();
    while !parts.rest().is_empty() && jobs.len() < SHEET_LEN {
        let mut next = || {
            let [held] = parts.raw()?;
            let due = parts.signed()?;
            let length = u32::from_be_bytes(parts.raw()?);
            let json = parts.take(usize::try_from(length).ok()?)?;
            Some((if held == 1 { 0 } else { due }, json))
        };
        let (due, json) = next().ok_or_else(cut_short)?;
        jobs.push((due, decode(Space::Sheet, key, json)?));
    }
    Ok((sheet, jobs))
}
