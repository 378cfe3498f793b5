//! Bounds on connections: on all of them, and on those of one address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// All places are taken.
    All,
    /// Those of this address are.
    Address,
}

/// Counts who is in. An IPv6 address stands for its /64: whoever has one of these has all of them.
#[derive(Debug)]
pub struct Places {
    taken: AtomicUsize,
    max: usize,
    per_address_max: u32,
    by_address: Mutex<HashMap<IpAddr, u32>>,
}

impl Places {
    /// So many for all, and so many for one address.
    #[must_use]
    pub fn new(max: usize, per_address_max: u32) -> Self {
        Self {
            taken: AtomicUsize::new(0),
            max,
            per_address_max,
            by_address: Mutex::default(),
        }
    }

    /// Takes a place, until it is dropped.
    ///
    /// # Errors
    /// [`Full`] says which limit is reached.
    pub fn take(self: &Arc<Self>, ip: IpAddr) -> Result<Place, Full> {
        let taken = self.taken.fetch_add(1, Ordering::Relaxed);
        if taken >= self.max {
            self.taken.fetch_sub(1, Ordering::Relaxed);
            return Err(Full::All);
        }
        let address = neighbourhood(ip);
        let mut all = self
            .by_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let count = all.entry(address).or_insert(0);
        if *count >= self.per_address_max {
            self.taken.fetch_sub(1, Ordering::Relaxed);
            return Err(Full::Address);
        }
        *count += 1;
        Ok(Place {
            places: Arc::clone(self),
            address,
        })
    }

    /// How many are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

/// What addresses are counted together.
fn neighbourhood(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

/// One place; dropping it gives it back.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken.fetch_sub(1, Ordering::Relaxed);
        let mut all = self
            .places
            .by_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                all.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn both_bounds_hold_and_places_come_back() {
        let places = Arc::new(Places::new(3, 2));
        let one = places.take(ip("10.0.0.1")).unwrap();
        let _two = places.take(ip("10.0.0.1")).unwrap();
        assert_eq!(places.take(ip("10.0.0.1")).unwrap_err(), Full::Address);
        let _three = places.take(ip("10.0.0.2")).unwrap();
        assert_eq!(places.take(ip("10.0.0.3")).unwrap_err(), Full::All);
        drop(one);
        assert!(places.take(ip("10.0.0.1")).is_ok());
        assert_eq!(places.taken(), 2);
        drop((_two, _three));
        assert!(places.by_address.lock().unwrap().is_empty());
    }

    #[test]
    fn a_network_of_one_owner_is_one_address() {
        let places = Arc::new(Places::new(9, 1));
        let _one = places.take(ip("2001:db8:0:1::1")).unwrap();
        assert_eq!(
            places.take(ip("2001:db8:0:1:ffff::2")).unwrap_err(),
            Full::Address
        );
        let _other = places.take(ip("2001:db8:0:2::1")).unwrap();
        let _v4 = places.take(ip("192.0.2.1")).unwrap();
        assert_eq!(
            places.take(ip("::ffff:192.0.2.1")).unwrap_err(),
            Full::Address,
            "the same address, as a socket for both families has it"
        );
    }
}
