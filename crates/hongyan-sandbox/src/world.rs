//! Everything the simulators share, behind one reference.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::accounts::Accounts;
use crate::channel::Channel;
use crate::clock::Clock;
use crate::dice::Dice;
use crate::error::SandboxError;
use crate::faults::Faults;
use crate::jwt::{EcKey, RsaKey};
use crate::phone::Phones;
use crate::push::Push;
use crate::receipts::Receipts;
use crate::requests::Requests;
use crate::tokens::Tokens;
use crate::vendor::{Simulators, apns, fcm, huawei, xiaomi};

/// The vendors' side of the world.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) clock: Arc<Clock>,
    pub(crate) dice: Arc<Dice>,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) receipts: Arc<Receipts>,
    pub(crate) phones: Phones,
    pub(crate) accounts: Accounts,
    pub(crate) simulators: Simulators,
    pub(crate) keys: Keys,
    pub(crate) faults: Faults,
    pub(crate) requests: Requests,
    /// Whether vendors silently drop what is too much for one device a day.
    pub(crate) device_limits: AtomicBool,
    pub(crate) apns: apns::State,
    pub(crate) fcm: fcm::State,
    pub(crate) huawei: huawei::State,
    pub(crate) xiaomi: xiaomi::State,
}

/// Public keys with which the vendors check signatures.
#[derive(Debug)]
pub(crate) struct Keys {
    pub(crate) apns: EcKey,
    pub(crate) apns_certificate: Vec<u8>,
    pub(crate) fcm: RsaKey,
    pub(crate) huawei: RsaKey,
}

impl Keys {
    pub(crate) fn of(accounts: &Accounts) -> Result<Self, SandboxError> {
        let certificate = CertificateDer::from_pem_slice(accounts.apns.certificate.as_bytes())
            .map_err(|error| SandboxError::Key {
                what: "the APNs client certificate",
                why: error.to_string(),
            })?;
        Ok(Self {
            apns: EcKey::from_private_pem(&accounts.apns.private_key)?,
            apns_certificate: certificate.to_vec(),
            fcm: RsaKey::from_private_pem(&accounts.fcm.service_account.private_key)?,
            huawei: RsaKey::from_private_pem(&accounts.harmony.service_account.private_key)?,
        })
    }
}

impl World {
    /// Whether the vendors' silent limits per device and day are on.
    pub(crate) fn device_limits(&self) -> bool {
        self.device_limits.load(Ordering::Relaxed)
    }

    /// Hands an accepted push to the phone that holds the token, if a phone does.
    pub(crate) fn deliver(&self, channel: Channel, token: &str, push: Push) {
        let channel = channel.reaches();
        let phone = self
            .tokens
            .get(channel, token)
            .and_then(|token| token.phone);
        match phone {
            Some(phone) => self.phones.arrive(&phone, channel, push),
            // A token without a phone: the device is somewhere else and takes it at once.
            None => {
                if let Some(receipt) = &push.receipt {
                    self.receipts.report(receipt, crate::push::Fate::Delivered);
                }
            }
        }
    }
}
