//! The device tokens that the vendors have given out.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use serde::{Deserialize, Serialize};

use crate::accounts::{OTHER_PACKAGE, PACKAGE};
use crate::channel::Channel;
use crate::dice::Dice;
use crate::error::SandboxError;
use crate::limits;
use crate::vendor::Simulators;

/// What a vendor thinks of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenState {
    /// It reaches its app.
    Valid,
    /// The app is gone since then (milliseconds since the epoch).
    Dead {
        /// When the vendor came to know.
        since_ms: i64,
    },
    /// It belongs to the other environment (APNs sandbox; elsewhere another region).
    OtherEnvironment,
    /// It belongs to another app or project of the vendor.
    OtherApp,
    /// APNs only: the token itself expired.
    Expired {
        /// When it did.
        since_ms: i64,
    },
}

/// A token and who holds it.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub(crate) state: TokenState,
    /// The virtual phone that got the token, if one did.
    pub(crate) phone: Option<String>,
}

impl Token {
    pub(crate) const fn app(&self) -> &'static str {
        match self.state {
            TokenState::OtherApp => OTHER_PACKAGE,
            _ => PACKAGE,
        }
    }
}

/// Every token of every vendor.
#[derive(Debug)]
pub(crate) struct Tokens {
    vendors: Simulators,
    given: RwLock<HashMap<(Channel, String), Token>>,
}

impl Tokens {
    pub(crate) fn new(vendors: Simulators) -> Self {
        Self {
            vendors,
            given: RwLock::default(),
        }
    }

    /// Makes a token of the vendor's shape.
    pub(crate) fn issue(
        &self,
        channel: Channel,
        state: TokenState,
        phone: Option<&str>,
        dice: &Dice,
    ) -> Result<String, SandboxError> {
        // The identity comes from the system's randomness, so that two runs with one seed do not
        // hand out the same token; only the padding comes from the dice.
        let unique = uuid::Uuid::new_v4().simple().to_string();
        let text = match self.vendors.of(channel) {
            Some(vendor) => vendor.new_token(&unique, dice),
            // Telephone numbers are of no provider.
            None if channel == Channel::Sms => crate::vendor::sms::new_number(&unique),
            None => unique,
        };
        self.put(channel, &text, state, phone)?;
        Ok(text)
    }

    /// Makes a known token known again, as after a restart.
    pub(crate) fn put(
        &self,
        channel: Channel,
        text: &str,
        state: TokenState,
        phone: Option<&str>,
    ) -> Result<(), SandboxError> {
        let mut tokens = self.given.write().unwrap_or_else(PoisonError::into_inner);
        if tokens.len() >= limits::TOKENS_MAX {
            return Err(SandboxError::Full {
                what: "device tokens",
                limit: limits::TOKENS_MAX,
            });
        }
        let token = Token {
            state,
            phone: phone.map(str::to_owned),
        };
        tokens.insert((channel.reaches(), text.to_owned()), token);
        Ok(())
    }

    pub(crate) fn get(&self, channel: Channel, text: &str) -> Option<Token> {
        let tokens = self.given.read().unwrap_or_else(PoisonError::into_inner);
        tokens.get(&(channel.reaches(), text.to_owned())).cloned()
    }

    /// Changes what the vendor thinks of a token; false when it never gave it out.
    pub(crate) fn set_state(&self, channel: Channel, text: &str, state: TokenState) -> bool {
        let mut tokens = self.given.write().unwrap_or_else(PoisonError::into_inner);
        match tokens.get_mut(&(channel.reaches(), text.to_owned())) {
            Some(token) => {
                token.state = state;
                true
            }
            None => false,
        }
    }

    pub(crate) fn forget(&self, channel: Channel, text: &str) {
        let mut tokens = self.given.write().unwrap_or_else(PoisonError::into_inner);
        tokens.remove(&(channel.reaches(), text.to_owned()));
    }

    /// Tokens of a channel that reach their app.
    pub(crate) fn valid_count(&self, channel: Channel) -> usize {
        let tokens = self.given.read().unwrap_or_else(PoisonError::into_inner);
        tokens
            .iter()
            .filter(|((of, _), token)| *of == channel && token.state == TokenState::Valid)
            .count()
    }
}
