//! Tokens that vendors call dead later, by receipt or when they are asked: a burst of them is not believed.
//!
//! A wrong credential, a vendor's bad day or somebody who knows a callback address may call everybody dead. What is known of
//! the same credential's living devices in the same minutes tells a burst from a clean-up.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hongyan_core::Timestamp;

use crate::quota::Account;

/// How long deaths are counted together.
const WINDOW: Duration = Duration::from_secs(600);
/// Deaths of one window that are believed whatever else is known.
const BELIEVED_LEN: u64 = 100;
/// Beyond those, how many deaths one living device vouches for: nine in ten may be dead.
const PER_LIVING: u64 = 9;
/// Credentials that are counted at once; those of past windows leave first.
const ACCOUNTS_MAX: usize = 10_000;

#[derive(Debug, Clone, Copy, Default)]
struct Window {
    since: Timestamp,
    dead: u64,
    living: u64,
    held: u64,
}

/// What to do with a death.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Death {
    /// The token dies.
    Believed,
    /// It lives on; so many were held back in this window, this one included.
    HeldBack(u64),
}

/// The deaths of all credentials. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Deaths(Arc<Mutex<HashMap<Account, Window>>>);

impl Deaths {
    /// A device was reached through the credential.
    pub(crate) fn lives(&self, account: &Account, now: Timestamp) {
        self.with(account, now, |window| window.living += 1);
    }

    /// The vendor calls a token of the credential dead.
    pub(crate) fn dies(&self, account: &Account, now: Timestamp) -> Death {
        let told = self.with(account, now, |window| {
            if window.dead < BELIEVED_LEN.max(window.living.saturating_mul(PER_LIVING)) {
                window.dead += 1;
                Death::Believed
            } else {
                window.held += 1;
                Death::HeldBack(window.held)
            }
        });
        // With too many credentials at once nobody can tell.
        told.unwrap_or(Death::HeldBack(1))
    }

    fn with<T>(
        &self,
        account: &Account,
        now: Timestamp,
        then: impl FnOnce(&mut Window) -> T,
    ) -> Option<T> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= ACCOUNTS_MAX && !all.contains_key(account) {
            all.retain(|_, window| now.since(window.since) < WINDOW);
            if all.len() >= ACCOUNTS_MAX {
                return None;
            }
        }
        let window = all.entry(account.clone()).or_default();
        if now.since(window.since) >= WINDOW {
            *window = Window {
                since: now,
                ..Window::default()
            };
        }
        Some(then(window))
    }
}

#[cfg(test)]
mod tests {
    use hongyan_core::{AppId, ChannelId, CredentialName};

    use super::*;

    const NOW: Timestamp = Timestamp(1_767_229_200_000);

    fn account(name: &str) -> Account {
        Account {
            app: AppId::parse("demo").unwrap(),
            channel: ChannelId::parse("xiaomi").unwrap(),
            credential: CredentialName::parse(name).unwrap(),
        }
    }

    fn believed(deaths: &Deaths, account: &Account, count: u64, now: Timestamp) -> u64 {
        let all = (0..count).map(|_| deaths.dies(account, now));
        all.filter(|death| *death == Death::Believed).count() as u64
    }

    #[test]
    fn a_burst_is_held_back_and_the_next_window_begins_anew() {
        let (deaths, one, other) = (Deaths::default(), account("one"), account("other"));
        assert_eq!(believed(&deaths, &one, 1_000, NOW), BELIEVED_LEN);
        assert_eq!(deaths.dies(&one, NOW), Death::HeldBack(901));
        assert_eq!(
            believed(&deaths, &other, 10, NOW),
            10,
            "of its own credential only"
        );
        let later = NOW.plus(WINDOW);
        assert_eq!(believed(&deaths, &one, 1_000, later), BELIEVED_LEN);
    }

    #[test]
    fn the_living_vouch_for_the_dead() {
        let (deaths, one) = (Deaths::default(), account("one"));
        for _ in 0..100 {
            deaths.lives(&one, NOW);
        }
        assert_eq!(believed(&deaths, &one, 2_000, NOW), 900);
    }

    #[test]
    fn the_memory_is_bounded() {
        let deaths = Deaths::default();
        for n in 0..ACCOUNTS_MAX {
            deaths.lives(&account(&format!("c{n}")), NOW);
        }
        assert_eq!(deaths.dies(&account("new"), NOW), Death::HeldBack(1));
        assert_eq!(deaths.dies(&account("c1"), NOW), Death::Believed);
        let later = NOW.plus(WINDOW);
        assert_eq!(deaths.dies(&account("new"), later), Death::Believed);
        assert_eq!(deaths.0.lock().unwrap().len(), 1);
    }
}
