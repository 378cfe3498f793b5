//! What is in a store's directory, before anybody uses it: engine, layout, loss.

use std::collections::HashSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use hongyan_core::StoreError;
use ring::rand::{SecureRandom, SystemRandom};

use super::record::{Damage, seal};
use super::verify::{self, Loss};
use super::watermark::Watermark;
use super::writer::Mend;
use super::{
    Backend, Change, Durability, Engine, FjallBackend, OpenError, Options, Read, Space,
    SqliteBackend,
};

/// Layout of keys and records; a program opens its own only. 2: events in chunks, leases in memory. 3: jobs in sheets,
/// newest places told by slots, first events named by their messages.
const LAYOUT: u64 = 3;
const EPOCH: &[u8] = b"epoch";
const LAYOUT_KEY: &[u8] = b"layout";
/// Names the engine that made the directory.
const ENGINE_FILE: &str = "ENGINE";

/// Opens an engine's files in the store's directory.
pub(crate) fn open_backend(engine: Engine, dir: &Path) -> Result<Arc<dyn Backend>, OpenError> {
    // A damaged file must not take the process down with an engine's own panic.
    let opened = catch_unwind(AssertUnwindSafe(
        || -> Result<Arc<dyn Backend>, StoreError> {
            Ok(match engine {
                Engine::Fjall => Arc::new(FjallBackend::open(&dir.join("fjall"))?),
                Engine::Sqlite => Arc::new(SqliteBackend::open(dir)?),
            })
        },
    ));
    match opened {
        Ok(Ok(backend)) => Ok(backend),
        Ok(Err(e)) => Err(engine_error(engine, dir, e)),
        Err(_) => Err(OpenError::Engine {
            engine: engine.as_str(),
            dir: dir.to_owned(),
            source: "the engine panicked over its files".into(),
        }),
    }
}

fn engine_error(engine: Engine, dir: &Path, error: StoreError) -> OpenError {
    let source = match error {
        StoreError::Unavailable { source, .. } => source,
        other => Box::new(other),
    };
    OpenError::Engine {
        engine: engine.as_str(),
        dir: dir.to_owned(),
        source,
    }
}

pub(super) fn io_error(path: &Path) -> impl Fn(std::io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io {
        path: path.clone(),
        source,
    }
}

/// Refuses a directory that another engine made.
pub(super) fn check_engine(dir: &Path, engine: Engine) -> Result<(), OpenError> {
    let path = dir.join(ENGINE_FILE);
    match fs::read_to_string(&path) {
        Ok(found) if found.trim() == engine.as_str() => Ok(()),
        // A crash right after the file was made leaves it empty.
        Ok(found) if found.trim().is_empty() => {
            fs::write(&path, engine.as_str()).map_err(io_error(&path))
        }
        Ok(found) => Err(OpenError::OtherEngine {
            dir: dir.to_owned(),
            found: found.trim().to_owned(),
            wanted: engine.as_str(),
        }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            fs::write(&path, engine.as_str()).map_err(io_error(&path))
        }
        Err(e) => Err(io_error(&path)(e)),
    }
}

/// A number that no earlier life of a store had, as good as surely.
pub(crate) fn fresh_epoch() -> u32 {
    let mut bytes = [0u8; 4];
    // Without randomness the epoch is 1: unique for a store that was never restored.
    let _ = SystemRandom::new().fill(&mut bytes);
    u32::from_be_bytes(bytes).max(1)
}

fn meta(key: &[u8], number: u64) -> Change {
    Change {
        space: Space::Meta,
        key: key.to_vec(),
        value: Some(seal(Space::Meta, key, &number.to_be_bytes())),
    }
}

/// The records that make an empty engine a store whose numbers begin after `base`.
pub(crate) fn founding(epoch: u32, base: u64) -> Vec<Change> {
    vec![
        meta(LAYOUT_KEY, LAYOUT),
        meta(EPOCH, u64::from(epoch)),
        meta(verify::BASE, base),
    ]
}

/// What was found in a store before its threads start.
pub(super) struct Found {
    pub(super) epoch: u32,
    pub(super) number: u64,
    pub(super) loss: Option<Loss>,
}

/// Looks for loss and damage, and founds a store where there is none.
pub(super) fn inspect(
    backend: &dyn Backend,
    options: &Options,
    dir: &Path,
    mend: Mend,
) -> Result<Found, OpenError> {
    let fault = |e| engine_error(options.engine, dir, e);
    let mut loss = Loss::default();
    let watermark = Watermark::read(dir).unwrap_or_else(|e| {
        loss.watermark = Some(e.to_string());
        None
    });
    let watermark = watermark.map(|watermark| watermark.or_near(dir));
    let reader: &dyn Read = backend;
    let layout = verify::number_or_damage(reader, LAYOUT_KEY).map_err(fault)?;
    if let Some(found) = layout.flatten().filter(|found| *found != LAYOUT) {
        let (dir, known) = (dir.to_owned(), LAYOUT);
        return Err(if found > LAYOUT {
            OpenError::NewerLayout { dir, found, known }
        } else {
            OpenError::OlderLayout { dir, found, known }
        });
    }
    let epoch = verify::number_or_damage(reader, EPOCH).map_err(fault)?;
    if epoch == Some(None) && watermark.is_none_or(|w| w.number == 0) && loss.watermark.is_none() {
        return found_new(backend, dir).map_err(|e| match e {
            Founding::Io(e) => e,
            Founding::Store(e) => fault(e),
        });
    }
    if watermark.is_none() && loss.watermark.is_none() {
        let path = super::watermark::path(dir);
        loss.watermark = Some(format!("the watermark file {} is gone", path.display()));
    }
    let (head, missing) = verify::chain(reader).map_err(fault)?;
    loss.found = head;
    loss.missing = missing;
    loss.acknowledged = watermark.map_or(head, |w| w.number);
    if loss.acknowledged > head {
        loss.missing.push((head + 1, loss.acknowledged));
    }
    let mut damaged = Vec::new();
    if epoch.is_none() || layout.is_none() {
        let what = "a founding record is damaged";
        damaged.push((
            Space::Meta,
            EPOCH.to_vec(),
            Damage::of(Space::Meta, EPOCH, what),
        ));
    }
    if backend.disk_bytes() <= options.verify_bytes_max {
        damaged = verify::deep(backend).map_err(fault)?;
    } else {
        // These are all read in a moment, and one that is damaged would be many jobs that nobody ends.
        damaged.extend(verify::walk_space(reader, Space::Sheet).map_err(fault)?);
    }
    verify::name(&damaged, &mut loss);
    let of_watermark = watermark.map(|w| u64::from(w.epoch));
    let epoch = epoch.flatten().or(of_watermark);
    let old = epoch.and_then(|e| u32::try_from(e).ok()).unwrap_or(0);
    if loss.is_none() {
        return Ok(Found {
            epoch: old,
            number: head,
            loss: None,
        });
    }
    if !options.accept_loss {
        return Err(OpenError::Lost {
            dir: dir.to_owned(),
            loss: Box::new(loss),
        });
    }
    tracing::warn!(%loss, "the store opens with the loss accepted");
    // A new life: clients' cursors are of another epoch now, and numbers go on after the lost ones.
    let epoch = old.wrapping_add(1).max(1);
    let mended = mend(reader).map_err(fault)?;
    let base = head.max(loss.acknowledged).max(mended.newest_batch);
    let mut changes = mended.changes;
    changes.extend(founding(epoch, base));
    let made: HashSet<_> = changes.iter().map(|c| (c.space, c.key.clone())).collect();
    for (space, key, _) in damaged {
        if made.contains(&(space, key.clone())) {
            continue;
        }
        changes.push(Change {
            space,
            key,
            value: None,
        });
    }
    backend.write(&changes, Durability::Synced).map_err(fault)?;
    Ok(Found {
        epoch,
        number: base,
        loss: Some(loss),
    })
}

enum Founding {
    Io(OpenError),
    Store(StoreError),
}

fn found_new(backend: &dyn Backend, dir: &Path) -> Result<Found, Founding> {
    let epoch = fresh_epoch();
    // The watermark first: a store that has records and no watermark has lost it.
    let watermark = Watermark {
        epoch,
        number: 0,
        closed: false,
    };
    watermark
        .write(dir)
        .map_err(|e| Founding::Io(io_error(&super::watermark::path(dir))(e)))?;
    backend
        .write(&founding(epoch, 0), Durability::Synced)
        .map_err(Founding::Store)?;
    Ok(Found {
        epoch,
        number: 0,
        loss: None,
    })
}
