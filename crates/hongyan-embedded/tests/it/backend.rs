//! What every engine owes the store.

use hongyan_embedded::store::{
    Backend, Change, Direction, Durability, FjallBackend, Range, Read, Rows, Space, SqliteBackend,
};

const KEYS: [&[u8]; 4] = [b"\0", b"a", b"ab", b"\xff\xff"];

fn engines(dir: &std::path::Path) -> [Box<dyn Backend>; 2] {
    let sqlite = dir.join("sqlite");
    std::fs::create_dir(&sqlite).unwrap();
    [
        Box::new(FjallBackend::open(&dir.join("fjall")).unwrap()),
        Box::new(SqliteBackend::open(&sqlite).unwrap()),
    ]
}

fn change(space: Space, key: &[u8], value: Option<&[u8]>) -> Change {
    Change {
        space,
        key: key.to_vec(),
        value: value.map(<[u8]>::to_vec),
    }
}

fn read(reader: &dyn Read, space: Space, range: Range<'_>) -> Rows {
    reader.range(space, range).unwrap()
}

/// The keys of a space, from `from` up to `to`, both ways round.
fn keys(reader: &dyn Read, space: Space, from: &[u8], to: Option<&[u8]>) -> Vec<Vec<u8>> {
    let forward = Range::forward(from, to, 99);
    let reverse = Range {
        direction: Direction::Reverse,
        ..forward
    };
    let rows = read(reader, space, forward);
    let mut back = read(reader, space, reverse);
    back.reverse();
    assert_eq!(rows, back, "{space:?}");
    for (key, value) in &rows {
        let own = [&[space.tag()], key.as_slice()].concat();
        assert_eq!(*value, own, "{space:?}");
        assert_eq!(reader.get(space, key).unwrap(), Some(own));
    }
    rows.into_iter().map(|(key, _)| key).collect()
}

/// Every space has the same keys, each with a value of its own; then one after the other loses them.
#[test]
fn spaces_do_not_see_each_others_records() {
    let dir = tempfile::tempdir().unwrap();
    for backend in engines(dir.path()) {
        let all = Space::ALL.iter().flat_map(|space| {
            KEYS.iter().map(|key| {
                let value = [&[space.tag()], *key].concat();
                change(*space, key, Some(&value))
            })
        });
        let all: Vec<_> = all.collect();
        backend.write(&all, Durability::Synced).unwrap();
        let snapshot = backend.snapshot().unwrap();
        for (i, space) in Space::ALL.iter().enumerate() {
            let removed: Vec<_> = KEYS.iter().map(|key| change(*space, key, None)).collect();
            backend.write(&removed, Durability::Buffered).unwrap();
            for (j, other) in Space::ALL.iter().enumerate() {
                let left = if j <= i { &[][..] } else { &KEYS };
                assert_eq!(keys(&*backend, *other, b"", None), left, "{other:?}");
                assert_eq!(keys(&*snapshot, *other, b"", None), KEYS, "{other:?}");
            }
        }
        for space in Space::ALL {
            assert_eq!(keys(&*snapshot, *space, b"a", Some(b"\xff")), KEYS[1..3]);
            assert_eq!(keys(&*snapshot, *space, b"a\0", None), KEYS[2..]);
            let first = Range::forward(b"", None, 1);
            assert_eq!(read(&*snapshot, *space, first)[0].0, KEYS[0]);
            let last = Range {
                direction: Direction::Reverse,
                ..first
            };
            assert_eq!(read(&*snapshot, *space, last)[0].0, KEYS[3]);
        }
    }
}
