//! A bounded cache of parsed records that never serves what a finished write replaced.

use std::fmt;
use std::hash::BuildHasher;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hashbrown::{DefaultHashBuilder, HashMap};

const SHARDS: usize = 16;

/// Values by key. Bounded by cost: when the younger half is full it becomes the older half, and the
/// former older half is dropped.
pub(crate) struct Cache<V> {
    shards: Vec<Mutex<Shard<V>>>,
    hasher: DefaultHashBuilder,
    cost_max: usize,
}

struct Shard<V> {
    young: HashMap<Vec<u8>, (V, usize)>,
    old: HashMap<Vec<u8>, (V, usize)>,
    cost: usize,
    /// Grows with every invalidation: a value read before it must not come in after it.
    generation: u64,
}

/// Permission to put a value in, if nothing was invalidated since it was given.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ticket(u64);

impl<V> fmt::Debug for Cache<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").finish_non_exhaustive()
    }
}

impl<V: Clone> Cache<V> {
    /// A cache that holds values of this cost at most, roughly.
    pub(crate) fn new(cost_max: usize) -> Self {
        let shard = || Shard {
            young: HashMap::new(),
            old: HashMap::new(),
            cost: 0,
            generation: 0,
        };
        Self {
            shards: (0..SHARDS).map(|_| Mutex::new(shard())).collect(),
            hasher: DefaultHashBuilder::default(),
            cost_max: cost_max / SHARDS / 2,
        }
    }

    fn shard(&self, key: &[u8]) -> MutexGuard<'_, Shard<V>> {
        let at = usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).unwrap_or(0);
        self.shards[at]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The value, or the permission to put it in after reading it.
    pub(crate) fn get(&self, key: &[u8]) -> Result<V, Ticket> {
        let mut shard = self.shard(key);
        if let Some((value, _)) = shard.young.get(key) {
            return Ok(value.clone());
        }
        if let Some((value, cost)) = shard.old.remove(key) {
            self.insert(&mut shard, key, value.clone(), cost);
            return Ok(value);
        }
        Err(Ticket(shard.generation))
    }

    /// Puts a value in that was read after the ticket was given.
    pub(crate) fn put(&self, ticket: Ticket, key: &[u8], value: V, cost: usize) {
        let mut shard = self.shard(key);
        if shard.generation == ticket.0 {
            self.insert(&mut shard, key, value, cost);
        }
    }

    fn insert(&self, shard: &mut Shard<V>, key: &[u8], value: V, cost: usize) {
        let cost = cost + key.len() + 64;
        if cost > self.cost_max {
            return;
        }
        if shard.cost + cost > self.cost_max {
            shard.old = std::mem::take(&mut shard.young);
            shard.cost = 0;
        }
        shard.cost += cost;
        shard
            .young
            .insert(key.to_vec(), (value, cost - key.len() - 64));
    }

    /// Replaces a value by what was just written: a value read before must not come in after it.
    pub(crate) fn replace(&self, key: &[u8], value: V, cost: usize) {
        let mut shard = self.shard(key);
        shard.generation = shard.generation.wrapping_add(1);
        shard.old.remove(key);
        match shard.young.get_mut(key) {
            Some(held) => held.0 = value,
            None => self.insert(&mut shard, key, value, cost),
        }
    }

    /// Forgets a key.
    pub(crate) fn forget(&self, key: &[u8]) {
        let mut shard = self.shard(key);
        shard.generation = shard.generation.wrapping_add(1);
        shard.young.remove(key);
        shard.old.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_read_before_an_invalidation_stays_out() {
        let cache = Cache::new(1 << 20);
        let ticket = cache.get(b"k").unwrap_err();
        cache.forget(b"k");
        cache.put(ticket, b"k", 1, 8);
        let ticket = cache.get(b"k").unwrap_err();
        cache.put(ticket, b"k", 2, 8);
        assert_eq!(cache.get(b"k").ok(), Some(2));
        cache.forget(b"k");
        assert!(cache.get(b"k").is_err());
    }

    #[test]
    fn it_stays_within_its_cost() {
        let cache = Cache::new(64 << 10);
        for i in 0..10_000u32 {
            let key = i.to_be_bytes();
            if let Err(ticket) = cache.get(&key) {
                cache.put(ticket, &key, i, 100);
            }
        }
        let held: usize = cache
            .shards
            .iter()
            .map(|s| s.lock().unwrap())
            .map(|s| s.young.len() + s.old.len())
            .sum();
        assert!(held * 168 <= 64 << 10, "{held}");
        assert!(held > 100, "{held}");
    }
}
