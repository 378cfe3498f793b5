use std::collections::BTreeMap;
use std::sync::Mutex;

use hongyan_core::limits::INBOX_SLOTS;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::inbox::mend::{PAGE, mend};
use crate::store::{Backend, Change, Checked, Direction, Durability, Read, Rows};

/// An engine without a disk, as every case begins with an empty store.
#[derive(Debug, Default)]
struct Memory(Mutex<Records>);

type Records = BTreeMap<(Space, Vec<u8>), Vec<u8>>;

impl Read for Memory {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let rows = self.0.lock().unwrap();
        Ok(rows.get(&(space, key.to_vec())).cloned())
    }

    fn range(&self, space: Space, range: Range<'_>) -> Result<Rows, StoreError> {
        assert_eq!(range.direction, Direction::Forward);
        let rows = self.0.lock().unwrap();
        let from = rows.range((space, range.from.to_vec())..);
        let of_space = from.take_while(|((other, _), _)| *other == space);
        let before = of_space.take_while(|((_, key), _)| range.to.is_none_or(|to| &key[..] < to));
        let found = before.take(range.limit);
        Ok(found
            .map(|((_, key), v)| (key.clone(), v.clone()))
            .collect())
    }
}

impl Backend for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn write(&self, changes: &[Change], _: Durability) -> Result<(), StoreError> {
        let mut rows = self.0.lock().unwrap();
        for change in changes {
            let key = (change.space, change.key.clone());
            match &change.value {
                Some(value) => drop(rows.insert(key, value.clone())),
                None => drop(rows.remove(&key)),
            }
        }
        Ok(())
    }

    fn snapshot(&self) -> Result<Box<dyn Read>, StoreError> {
        Ok(Box::new(Self(Mutex::new(self.0.lock().unwrap().clone()))))
    }

    fn check(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn disk_bytes(&self) -> u64 {
        0
    }
}

fn entry() -> InboxAppend {
    InboxAppend {
        app: AppId::parse("app").unwrap(),
        owner: Owner::User(UserId::parse("u").unwrap()),
        message: MessageId(Uuid::from_u128(1)),
        expires_at: Timestamp(1),
        push: None,
    }
}

fn ring_of(append: &InboxAppend) -> Vec<u8> {
    user_key(&append.app, &UserId::parse("u").unwrap())
}

/// One batch of operations, each with so many entries, of which some fail; answers how many records of newest places it wrote.
fn batch(backend: &Memory, caches: &Caches, number: u64, ops: &[(usize, bool)]) -> usize {
    let mut txn = Txn::new(backend, number);
    for (len, fails) in ops {
        for _ in 0..*len {
            append(&mut txn, caches, &entry(), Timestamp(0), &mut Vec::new()).unwrap();
        }
        if *fails {
            txn.discard();
        } else {
            txn.keep();
        }
    }
    let outcome = txn.into_changes();
    backend
        .write(&outcome.changes, Durability::Buffered)
        .unwrap();
    for change in outcome.changes.iter().chain(&outcome.aside) {
        let value = change.value.as_deref();
        let payload = value.map(crate::store::record::payload);
        caches.changed(change.space, &change.key, payload);
    }
    let heads = outcome.changes.iter().filter(|c| c.space == Space::Head);
    heads.count()
}

fn mended(backend: &Memory) -> Vec<Change> {
    mend(backend).unwrap().changes
}

/// What there is, without a cache.
fn found(backend: &Memory) -> u64 {
    newest(&Checked(backend as &dyn Read), &ring_of(&entry())).unwrap()
}

proptest! {
    #[test]
    fn slots_tell_the_newest_place(
        batches in prop::collection::vec(prop::collection::vec((0usize..40, any::<bool>()), 0..5), 1..9),
        forgets in any::<bool>(),
    ) {
        let backend = Memory::default();
        let mut caches = Caches::new();
        let (mut want, mut written) = (0, 0);
        for (number, ops) in (1u64..).zip(&batches) {
            if forgets {
                caches = Caches::new();
            }
            written += batch(&backend, &caches, number, ops);
            let kept = ops.iter().filter(|(_, fails)| !fails);
            want += kept.map(|(len, _)| *len as u64).sum::<u64>();
            prop_assert_eq!(found(&backend), want);
            let view = Checked(&backend as &dyn Read);
            prop_assert_eq!(caches.ring_head(&view, &ring_of(&entry())).unwrap(), want);
            prop_assert!(mended(&backend).is_empty(), "nothing is to be mended");
        }
        prop_assert!(written as u64 <= want / HEAD_STEP, "{written} records for {want}");
    }

    /// Records of newest places and slots go bad or vanish: no place that may have been given out comes again.
    #[test]
    fn a_damaged_ring_goes_on_after_all_its_places(
        len in 1usize..300,
        damaged in prop::collection::vec(0u64..INBOX_SLOTS, 0..4),
        gone in prop::collection::vec(0u64..INBOX_SLOTS, 0..4),
        head in any::<bool>(),
    ) {
        let (found, lost) = found_after_damage(len, &damaged, &gone, head);
        let newest = len as u64;
        // Without its record a damaged slot may be of this round or of the one before.
        let most = newest + lost + if head { HEAD_STEP } else { 0 };
        prop_assert!((newest..=most).contains(&found), "{found} of {newest}");
    }
}

/// The newest place that is found after these slots, and maybe the record, were damaged or vanished; and how many were.
fn found_after_damage(len: usize, damaged: &[u64], gone: &[u64], head: bool) -> (u64, u64) {
    let backend = Memory::default();
    // One by one: the record of the newest place is behind then.
    let caches = Caches::new();
    for n in 1..=len as u64 {
        batch(&backend, &caches, n, &[(1, false)]);
    }
    let key = ring_of(&entry());
    let mut spoilt: BTreeMap<(Space, Vec<u8>), Option<Vec<u8>>> = BTreeMap::new();
    let there = |key: &[u8]| backend.get(Space::Ring, key).unwrap().is_some();
    for slot in damaged
        .iter()
        .map(|seq| slot_key(&key, *seq))
        .filter(|key| there(key))
    {
        spoilt.insert((Space::Ring, slot), Some(b"nonsense".to_vec()));
    }
    let damaged = spoilt.len() as u64;
    let newest = len as u64;
    let gone: Vec<u64> = gone
        .iter()
        .copied()
        .filter(|seq| seq % INBOX_SLOTS != newest % INBOX_SLOTS)
        .collect();
    let lost = damaged + gone.len() as u64;
    for seq in gone {
        spoilt
            .entry((Space::Ring, slot_key(&key, seq)))
            .or_insert(None);
    }
    if head && there_is_a_record(&backend, &key) {
        spoilt.insert((Space::Head, key), Some(b"nonsense".to_vec()));
    }
    let change = |((space, key), value)| Change { space, key, value };
    let changes: Vec<_> = spoilt.clone().into_iter().map(change).collect();
    backend.write(&changes, Durability::Buffered).unwrap();
    // As a store does that opens with the loss accepted.
    let mut changes = mended(&backend);
    for ((space, key), value) in spoilt {
        if value.is_some() && !changes.iter().any(|c| c.space == space && c.key == key) {
            changes.push(Change {
                space,
                key,
                value: None,
            });
        }
    }
    backend.write(&changes, Durability::Buffered).unwrap();
    (found(&backend), lost)
}

/// A damaged slot at the beginning of a ring that never came round is old.
#[test]
fn a_damaged_ring_that_never_came_round_goes_on_where_it_was() {
    for newest in 3..INBOX_SLOTS {
        let (found, _) = found_after_damage(newest as usize, &[1], &[], false);
        assert!(
            (newest..=newest + 1).contains(&found),
            "{found} of {newest}"
        );
    }
}

/// Where a ring comes round for the first time its first slots tell nothing, and its record does if it is sound.
#[test]
fn a_damaged_ring_that_just_came_round_goes_on_after_all_its_places() {
    for newest in 120..150 {
        for gone in 1..4 {
            let slot = |n: u64| (newest - n) % INBOX_SLOTS;
            let vanished: Vec<u64> = (1..=gone).map(slot).collect();
            for head in [false, true] {
                let damaged = [slot(0)];
                let (found, lost) = found_after_damage(newest as usize, &damaged, &vanished, head);
                assert!(
                    (newest..=newest + lost).contains(&found),
                    "{found} of {newest}, without {gone}"
                );
            }
        }
    }
}

fn there_is_a_record(backend: &Memory, ring: &[u8]) -> bool {
    backend.get(Space::Head, ring).unwrap().is_some()
}

#[test]
fn many_rings_are_mended_over_several_pages() {
    let backend = Memory::default();
    let caches = Caches::new();
    let mut txn = Txn::new(&backend, 1);
    for n in 0..200 {
        let append = InboxAppend {
            owner: Owner::User(UserId::parse(&format!("u{n}")).unwrap()),
            ..entry()
        };
        for _ in 0..50 {
            super::append(&mut txn, &caches, &append, Timestamp(0), &mut Vec::new()).unwrap();
        }
    }
    txn.keep();
    let changes = txn.into_changes().changes;
    let (heads, slots): (Vec<_>, Vec<_>) =
        changes.into_iter().partition(|c| c.space == Space::Head);
    assert!(slots.len() > 2 * PAGE);
    backend.write(&slots, Durability::Buffered).unwrap();
    let fresh = mended(&backend);
    assert_eq!((heads.len(), fresh.len()), (200, 200));
    let value = |change: &Change| change.value.clone().unwrap();
    let fifty = |c: &Change| crate::store::record::payload(&value(c)) == 50u64.to_be_bytes();
    assert!(fresh.iter().all(fifty));
    backend.write(&heads, Durability::Buffered).unwrap();
    assert!(mended(&backend).is_empty());
}
