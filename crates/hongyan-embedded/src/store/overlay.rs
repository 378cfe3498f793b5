//! What a batch has changed so far: sealed values by key, and undoing the last operation.

use std::cell::RefCell;
use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::{Change, Space};

/// Changes that there is room for at first: a few dozen messages.
const CHANGES: usize = 512;
/// Room for changes that is kept from batch to batch.
const CHANGES_KEPT: usize = 16_384;
/// Up to so many writes are put into the order one by one; more are sorted together.
const FRESH_MAX: usize = 16;

/// How a change stands to the others.
#[derive(Debug)]
struct Standing {
    hash: u64,
    /// The change of an earlier operation that this one hides.
    former: Option<usize>,
    is_hidden: bool,
    /// The engine is not told of it.
    is_aside: bool,
}

/// The writes of a keyspace, sorted as far as somebody asked for a range.
#[derive(Debug, Default)]
struct Order {
    sorted: Vec<usize>,
    fresh: Vec<usize>,
}

/// Changes in the order in which they were made. Those after the mark are of the operation that runs.
pub(super) struct Overlay {
    changes: Vec<Change>,
    /// One for each change.
    standings: Vec<Standing>,
    newest: HashTable<usize>,
    orders: Vec<RefCell<Order>>,
    hasher: DefaultHashBuilder,
    mark: usize,
    bytes: usize,
    bytes_at_mark: usize,
    /// Room for the changes of the next batch.
    spare: (Vec<Change>, Vec<Change>),
}

impl Overlay {
    pub(super) fn new() -> Self {
        Self {
            changes: Vec::with_capacity(CHANGES),
            standings: Vec::with_capacity(CHANGES),
            newest: HashTable::with_capacity(CHANGES),
            orders: Space::ALL.iter().map(|_| RefCell::default()).collect(),
            hasher: DefaultHashBuilder::default(),
            mark: 0,
            bytes: 0,
            bytes_at_mark: 0,
            spare: (Vec::with_capacity(CHANGES), Vec::with_capacity(CHANGES)),
        }
    }

    fn hash(&self, space: Space, key: &[u8]) -> u64 {
        self.hasher.hash_one((space, key))
    }

    fn find(&self, hash: u64, space: Space, key: &[u8]) -> Option<usize> {
        let is_it = |at: &usize| {
            let change = &self.changes[*at];
            change.space == space && change.key == key
        };
        self.newest.find(hash, is_it).copied()
    }

    /// The sealed value that the batch gave a key; `Some(None)` when it removed it.
    pub(super) fn get(&self, space: Space, key: &[u8]) -> Option<Option<&[u8]>> {
        let at = self.find(self.hash(space, key), space, key)?;
        Some(self.changes[at].value.as_deref())
    }

    pub(super) fn set(&mut self, space: Space, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.insert(space, key, value, false);
    }

    /// Sets what only the batch itself and the observer are to see, unless the batch writes the key anyway.
    pub(super) fn set_aside(&mut self, space: Space, key: Vec<u8>, value: Vec<u8>) {
        self.insert(space, key, Some(value), true);
    }

    /// The sealed value that the batch gave a key, to be changed by the operation that made it or at the batch's end.
    pub(super) fn get_mut(&mut self, space: Space, key: &[u8]) -> Option<&mut Vec<u8>> {
        let at = self.find(self.hash(space, key), space, key)?;
        self.changes[at].value.as_mut()
    }

    fn insert(&mut self, space: Space, key: Vec<u8>, value: Option<Vec<u8>>, is_aside: bool) {
        self.bytes += key.len() + value.as_ref().map_or(0, Vec::len) + 16;
        let hash = self.hash(space, &key);
        let former = self.find(hash, space, &key);
        if let Some(at) = former.filter(|at| *at >= self.mark) {
            self.changes[at].value = value;
            self.standings[at].is_aside &= is_aside;
            return;
        }
        let is_aside = is_aside && former.is_none_or(|former| self.standings[former].is_aside);
        let at = self.changes.len();
        if let Some(former) = former {
            self.standings[former].is_hidden = true;
            if let Ok(entry) = self.newest.find_entry(hash, |at| *at == former) {
                *entry.into_mut() = at;
            }
        } else {
            let standings = &self.standings;
            self.newest
                .insert_unique(hash, at, |at| standings[*at].hash);
        }
        self.orders[space.index()].get_mut().fresh.push(at);
        self.changes.push(Change { space, key, value });
        self.standings.push(Standing {
            hash,
            former,
            is_hidden: false,
            is_aside,
        });
    }

    pub(super) fn keep(&mut self) {
        self.mark = self.changes.len();
        self.bytes_at_mark = self.bytes;
    }

    pub(super) fn discard(&mut self) {
        while self.changes.len() > self.mark {
            let at = self.changes.len() - 1;
            let (Some(gone), Some(stood)) = (self.changes.pop(), self.standings.pop()) else {
                break;
            };
            if let Ok(mut entry) = self.newest.find_entry(stood.hash, |newest| *newest == at) {
                match stood.former {
                    Some(former) => *entry.get_mut() = former,
                    None => drop(entry.remove()),
                }
            }
            if let Some(former) = stood.former {
                self.standings[former].is_hidden = false;
            }
            let order = self.orders[gone.space.index()].get_mut();
            if order.fresh.last() == Some(&at) {
                order.fresh.pop();
            } else {
                order.sorted.retain(|other| *other != at);
            }
        }
        self.bytes = self.bytes_at_mark;
    }

    /// Keys from `from` to before `to` that the batch changed, with their sealed values.
    pub(super) fn range(
        &self,
        space: Space,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Vec<(&[u8], Option<&[u8]>)> {
        let mut order = self.orders[space.index()].borrow_mut();
        let order = &mut *order;
        let key = |at: &usize| self.changes[*at].key.as_slice();
        if order.fresh.len() > FRESH_MAX {
            order.sorted.append(&mut order.fresh);
            order.sorted.sort_unstable_by(|a, b| key(a).cmp(key(b)));
        }
        for at in order.fresh.drain(..) {
            let place = order.sorted.partition_point(|other| key(other) < key(&at));
            order.sorted.insert(place, at);
        }
        let begin = order.sorted.partition_point(|at| key(at) < from);
        let rows = order.sorted[begin..].iter();
        rows.take_while(|at| to.is_none_or(|to| key(at) < to))
            .filter(|at| !self.standings[**at].is_hidden)
            .map(|at| (key(at), self.changes[*at].value.as_deref()))
            .collect()
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The last change of each key, by keyspace and key, as engines are quicker with neighbours; and those that the
    /// engine is not told of. What is left can be used again.
    pub(super) fn take_changes(&mut self) -> (Vec<Change>, Vec<Change>) {
        let (mut changes, mut aside) = std::mem::take(&mut self.spare);
        for (change, standing) in self.changes.drain(..).zip(self.standings.drain(..)) {
            if standing.is_hidden {
                continue;
            }
            if standing.is_aside {
                aside.push(change);
            } else {
                changes.push(change);
            }
        }
        changes.sort_unstable_by(|a, b| (a.space, &a.key).cmp(&(b.space, &b.key)));
        self.newest.clear();
        for order in &mut self.orders {
            let order = order.get_mut();
            order.sorted.clear();
            order.fresh.clear();
        }
        (self.mark, self.bytes, self.bytes_at_mark) = (0, 0, 0);
        (changes, aside)
    }

    /// Takes the room back that [`Overlay::take_changes`] gave away. Answers nothing when it has become so large that
    /// it is better given back.
    pub(super) fn with_room_of(
        mut self,
        mut changes: Vec<Change>,
        mut aside: Vec<Change>,
    ) -> Option<Self> {
        if self.changes.capacity() > CHANGES_KEPT {
            return None;
        }
        changes.clear();
        aside.clear();
        self.spare = (changes, aside);
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    type Model = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

    fn all(overlay: &Overlay) -> Model {
        let rows = overlay.range(Space::Ring, b"", None);
        rows.into_iter()
            .map(|(k, v)| (k.to_vec(), v.map(<[u8]>::to_vec)))
            .collect()
    }

    proptest! {
        #[test]
        fn it_is_what_the_kept_operations_left(
            operations in prop::collection::vec(
                (prop::collection::vec((0u8..30, prop::option::of(any::<u8>())), 0..25), any::<bool>(), any::<bool>()),
                0..20,
            )
        ) {
            let (mut overlay, mut model) = (Overlay::new(), Model::new());
            for (writes, kept, looks) in operations {
                let mut own = model.clone();
                for (key, value) in writes {
                    let value = value.map(|v| vec![v]);
                    overlay.set(Space::Ring, vec![key], value.clone());
                    own.insert(vec![key], value);
                }
                if looks {
                    prop_assert_eq!(&all(&overlay), &own);
                }
                if kept {
                    overlay.keep();
                    model = own;
                } else {
                    overlay.discard();
                }
                for key in 0u8..30 {
                    let want = model.get(&vec![key]).map(Option::as_deref);
                    prop_assert_eq!(overlay.get(Space::Ring, &[key]), want);
                }
            }
            prop_assert_eq!(&all(&overlay), &model);
            let (changes, aside) = overlay.take_changes();
            prop_assert!(aside.is_empty());
            let written = changes.iter().map(|c| (c.key.clone(), c.value.clone()));
            prop_assert_eq!(written.collect::<Vec<_>>(), model.into_iter().collect::<Vec<_>>());
            let mut again = overlay.with_room_of(changes, aside).unwrap();
            prop_assert!(again.is_empty() && again.bytes() == 0 && all(&again).is_empty());
            prop_assert_eq!(again.take_changes(), (Vec::new(), Vec::new()));
        }
    }

    /// A key that the batch writes once is written with its last value.
    #[test]
    fn what_is_aside_stays_so_until_the_key_is_written() {
        let mut overlay = Overlay::new();
        overlay.set_aside(Space::Head, vec![1], vec![1]);
        overlay.set_aside(Space::Head, vec![2], vec![1]);
        overlay.set(Space::Head, vec![2], Some(vec![2]));
        overlay.keep();
        overlay.set_aside(Space::Head, vec![2], vec![3]);
        overlay.set(Space::Head, vec![1], Some(vec![9]));
        overlay.discard();
        overlay.set_aside(Space::Head, vec![2], vec![4]);
        overlay.set_aside(Space::Head, vec![1], vec![5]);
        assert_eq!(overlay.get(Space::Head, &[1]), Some(Some(&[5][..])));
        overlay.keep();
        let of = |changes: Vec<Change>| {
            let values = changes.into_iter().map(|c| (c.key, c.value));
            values.collect::<Vec<_>>()
        };
        let (changes, aside) = overlay.take_changes();
        assert_eq!(of(changes), [(vec![2], Some(vec![4]))]);
        assert_eq!(of(aside), [(vec![1], Some(vec![5]))]);
    }
}
