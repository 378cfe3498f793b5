//! Who may come in: bounds on sockets that have not said who they are, and on all sockets.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::options::Options;

/// Why no further connection is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Busy {
    /// The node is full: 503.
    #[error("the gateway has as many connections as it may have; try again later")]
    Full,
    /// This address has too many connections that did not say hello: 429.
    #[error("too many unauthenticated connections from this address; try again later")]
    Address,
}

/// Counts sockets before they are authenticated.
#[derive(Debug)]
pub(crate) struct Gate {
    half_open: AtomicUsize,
    half_open_max: usize,
    per_ip_max: u32,
    per_ip: Mutex<HashMap<IpAddr, u32>>,
}

impl Gate {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            half_open: AtomicUsize::new(0),
            half_open_max: options.half_open_max,
            per_ip_max: options.half_open_per_ip_max,
            per_ip: Mutex::new(HashMap::new()),
        }
    }

    pub(crate) fn admit(self: &Arc<Self>, ip: IpAddr) -> Result<Permit, Busy> {
        let taken = self.half_open.fetch_add(1, Ordering::Relaxed);
        if taken >= self.half_open_max {
            self.half_open.fetch_sub(1, Ordering::Relaxed);
            return Err(Busy::Full);
        }
        let mut per_ip = self.per_ip.lock().unwrap_or_else(PoisonError::into_inner);
        let count = per_ip.entry(ip).or_insert(0);
        if *count >= self.per_ip_max {
            self.half_open.fetch_sub(1, Ordering::Relaxed);
            return Err(Busy::Address);
        }
        *count += 1;
        Ok(Permit {
            gate: Arc::clone(self),
            ip,
            origin: None,
        })
    }

    pub(crate) fn half_open(&self) -> usize {
        self.half_open.load(Ordering::Relaxed)
    }
}

/// The right to be half open: asked for before the upgrade is answered, held until `welcome` or
/// the end of the connection.
#[derive(Debug)]
pub struct Permit {
    gate: Arc<Gate>,
    ip: IpAddr,
    origin: Option<Box<str>>,
}

impl Permit {
    /// Notes the page that the connection comes from, as [`crate::handshake::Accepted`] has it. It is checked against the
    /// device's own app once the device is known.
    #[must_use]
    pub fn from_page(mut self, origin: Option<String>) -> Self {
        self.origin = origin.map(String::into_boxed_str);
        self
    }

    pub(crate) fn origin(&self) -> Option<Box<str>> {
        self.origin.clone()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.gate.half_open.fetch_sub(1, Ordering::Relaxed);
        let mut per_ip = self
            .gate
            .per_ip
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = per_ip.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                per_ip.remove(&self.ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn both_bounds_hold_and_permits_come_back() {
        let options = Options {
            half_open_max: 3,
            half_open_per_ip_max: 2,
            ..Options::default()
        };
        let gate = Arc::new(Gate::new(&options));
        let ip = |last| IpAddr::V4(Ipv4Addr::new(10, 0, 0, last));
        let one = gate.admit(ip(1)).unwrap();
        let _two = gate.admit(ip(1)).unwrap();
        assert_eq!(gate.admit(ip(1)).unwrap_err(), Busy::Address);
        let _three = gate.admit(ip(2)).unwrap();
        assert_eq!(gate.admit(ip(3)).unwrap_err(), Busy::Full);
        drop(one);
        assert!(gate.admit(ip(1)).is_ok());
        assert_eq!(gate.half_open(), 2);
    }
}
