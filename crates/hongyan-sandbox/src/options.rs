//! How a sandbox starts.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use crate::limits;
use crate::phone::NewPhone;

/// Choices for [`crate::Sandbox::start`].
#[derive(Debug)]
pub struct Options {
    /// Where keys, accounts and phones live; made when missing.
    pub data: PathBuf,
    /// Address of the control interface and the phones page.
    pub control: SocketAddr,
    /// Address of the vendors.
    pub vendors: SocketAddr,
    /// Address of the message centre, SMPP.
    pub smpp: SocketAddr,
    /// A bound listener instead of `control`, for tests.
    pub control_listener: Option<std::net::TcpListener>,
    /// A bound listener instead of `vendors`, for tests.
    pub vendors_listener: Option<std::net::TcpListener>,
    /// Phones that exist at the first start; later starts keep what the data directory has.
    pub phones: Vec<NewPhone>,
    /// The hongyan server's base URL and client key (`hy_pk_…`), if known at the start.
    pub server: Option<(String, String)>,
    /// Requests that each simulator remembers, at most [`limits::REQUESTS_KEPT_MAX`]. Load tests
    /// set 0.
    pub requests_kept_max: usize,
    /// Whether Huawei, HarmonyOS and Xiaomi accept and then silently drop what is too much marketing
    /// for one device a day (2, 2 and 5), as they do. Off at the start, so that a person who tries
    /// things does not lose the third message without a word.
    pub device_limits: bool,
    /// Seed of the faults' dice.
    pub seed: u64,
}

impl Options {
    /// The documented defaults: control on 127.0.0.1:7500, vendors on 127.0.0.1:7501, SMPP on 127.0.0.1:7502.
    #[must_use]
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self {
            data: data.into(),
            control: SocketAddr::from((Ipv4Addr::LOCALHOST, 7500)),
            vendors: SocketAddr::from((Ipv4Addr::LOCALHOST, 7501)),
            smpp: SocketAddr::from((Ipv4Addr::LOCALHOST, 7502)),
            control_listener: None,
            vendors_listener: None,
            phones: NewPhone::demo(),
            server: None,
            requests_kept_max: limits::REQUESTS_KEPT_MAX,
            device_limits: false,
            seed: 1,
        }
    }

    /// Any free ports and no phones, for tests.
    #[must_use]
    pub fn ephemeral(data: impl Into<PathBuf>) -> Self {
        Self {
            control: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            vendors: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            smpp: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            phones: Vec::new(),
            ..Self::new(data)
        }
    }
}
