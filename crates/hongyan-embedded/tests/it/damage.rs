//! Damage to the files of a killed store: refused, or named, but never silently short.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hongyan_embedded::store::watermark::Watermark;
use hongyan_embedded::{Engine, OpenError};

use crate::sets::{self, Found};
use crate::subject::{Local, open, options, ports, scratch};

const SETS: u64 = 60;

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Files that differ only in numbers are alike: the largest and two others stand for each kind.
fn chosen(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    files(dir, &mut all);
    let kind = |path: &Path| {
        path.to_string_lossy()
            .replace(|c: char| c.is_ascii_digit(), "")
    };
    let size = |path: &PathBuf| fs::metadata(path).unwrap().len();
    all.sort_by_key(|path| (kind(path), std::cmp::Reverse(size(path)), path.clone()));
    let mut chosen: Vec<PathBuf> = Vec::new();
    for path in all {
        if chosen.iter().filter(|p| kind(p) == kind(&path)).count() < 3 {
            chosen.push(path);
        }
    }
    chosen
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Damage {
    Flip(usize),
    ZeroPage(usize),
    Truncate(usize),
}

impl Damage {
    fn apply(self, bytes: &mut Vec<u8>) {
        match self {
            Self::Flip(at) => bytes[at] ^= 0x04,
            Self::ZeroPage(at) => {
                let end = (at + 4_096).min(bytes.len());
                bytes[at..end].fill(0);
            }
            Self::Truncate(to) => bytes.truncate(to),
        }
    }
}

/// Places spread over what is not zero at the end (journals are allocated ahead).
fn kinds(bytes: &[u8], points: usize) -> Vec<Damage> {
    let used = bytes.iter().rposition(|b| *b != 0).map_or(0, |i| i + 1);
    if used == 0 {
        return Vec::new();
    }
    let mut kinds = Vec::new();
    for i in 0..points {
        let at = used * (2 * i + 1) / (2 * points);
        kinds.push(Damage::Flip(at));
        kinds.push(Damage::ZeroPage(at / 4_096 * 4_096));
        kinds.push(Damage::Truncate(at));
    }
    kinds.push(Damage::Flip(used - 1));
    kinds.push(Damage::Truncate(used - 1));
    kinds
}

/// Reads everything back; an engine that panics over a damaged file has noticed it.
fn look(dir: &Path, engine: Engine) -> Result<Vec<Found>, String> {
    let options = options(dir, engine);
    let result = catch_unwind(AssertUnwindSafe(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            let embedded = match open(&options) {
                Ok(embedded) => embedded,
                Err(e @ OpenError::Lost { .. }) => {
                    // The loss can be accepted, and is then said.
                    let mut accepting = options.clone();
                    accepting.accept_loss = true;
                    if let Ok(embedded) = open(&accepting) {
                        assert!(embedded.loss().is_some());
                    }
                    return Err(e.to_string());
                }
                Err(e) => return Err(e.to_string()),
            };
            let ports = ports(&embedded);
            let mut found = Vec::new();
            for n in 0..SETS {
                found.push(sets::find(&ports, n).await);
            }
            Ok(found)
        })
    }));
    result.unwrap_or_else(|_| Err("panicked".to_owned()))
}

async fn never_silently_short(
    engine: Engine,
    points: usize,
    filler: usize,
    only: Option<&'static str>,
) {
    let local = Local::fresh(engine);
    let ports = ports(local.embedded());
    sets::commit(&ports, 0..SETS, filler).await;
    let store = options(local.dir.path(), engine).store_dir();
    let begin = Instant::now();
    // The keeper writes the watermark once a second.
    while Watermark::read(&store).unwrap().unwrap().number < local.embedded().store().durable() {
        assert!(begin.elapsed() < Duration::from_secs(30));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // What a killed process leaves: the files as they are now.
    let killed = scratch();
    copy_dir(local.dir.path(), killed.path());
    let whole = tokio::task::spawn_blocking(move || {
        let copy = scratch();
        copy_dir(killed.path(), copy.path());
        let whole = look(copy.path(), engine).unwrap();
        assert_eq!(whole, vec![Found::Whole; SETS as usize]);
        let (mut noticed, mut harmless) = (0, 0);
        for file in chosen(killed.path()) {
            let name = file.strip_prefix(killed.path()).unwrap();
            if only.is_some_and(|only| !name.to_string_lossy().contains(only)) {
                continue;
            }
            let bytes = fs::read(&file).unwrap();
            // Small files are all alike: one point is enough.
            let points = if bytes.len() < 4_096 { 1 } else { points };
            for damage in kinds(&bytes, points) {
                let copy = scratch();
                copy_dir(killed.path(), copy.path());
                let mut damaged = bytes.clone();
                damage.apply(&mut damaged);
                fs::write(copy.path().join(name), damaged).unwrap();
                match look(copy.path(), engine) {
                    Err(said) => {
                        assert!(!said.is_empty());
                        noticed += 1;
                    }
                    Ok(found) => {
                        for (n, found) in found.into_iter().enumerate() {
                            assert!(
                                matches!(found, Found::Whole | Found::Unreadable),
                                "{} {damage:?}: set {n} is {found:?} and nobody said so",
                                name.display(),
                            );
                        }
                        harmless += 1;
                    }
                }
            }
        }
        (noticed, harmless)
    });
    let (noticed, harmless) = whole.await.unwrap();
    println!("{engine:?}: {noticed} noticed, {harmless} harmless");
    assert!(noticed > 5);
}

#[tokio::test]
async fn fjall_is_never_silently_short() {
    never_silently_short(Engine::Fjall, 4, 300, None).await;
}

#[tokio::test]
async fn sqlite_is_never_silently_short() {
    never_silently_short(Engine::Sqlite, 16, 300, None).await;
}

/// So much that a table of messages is written beside the journal.
#[tokio::test]
async fn a_damaged_table_is_noticed() {
    never_silently_short(Engine::Fjall, 2, 400_000, Some("tables")).await;
}
