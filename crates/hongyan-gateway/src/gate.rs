//! Who may come in: bounds on connections that have not said who they are.

use std::net::IpAddr;
use std::sync::Arc;

use hongyan_listener::{Full, Place, Places};

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

/// Counts connections before they are authenticated.
#[derive(Debug)]
pub(crate) struct Gate(Arc<Places>);

impl Gate {
    pub(crate) fn new(options: &Options) -> Self {
        let places = Places::new(options.half_open_max, options.half_open_per_ip_max);
        Self(Arc::new(places))
    }

    pub(crate) fn admit(&self, ip: IpAddr) -> Result<Permit, Busy> {
        match self.0.take(ip) {
            Ok(place) => Ok(Permit {
                _place: place,
                origin: None,
            }),
            Err(Full::All) => Err(Busy::Full),
            Err(Full::Address) => Err(Busy::Address),
        }
    }

    pub(crate) fn half_open(&self) -> usize {
        self.0.taken()
    }
}

/// The right to be half open: asked for before the upgrade is answered, held until `welcome` or
/// the end of the connection.
#[derive(Debug)]
pub struct Permit {
    _place: Place,
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
