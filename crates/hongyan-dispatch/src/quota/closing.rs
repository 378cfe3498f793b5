//! What a vendor closes by saying that a quota is used up, and how it opens again.
//!
//! The first such word closes: some vendors punish those who go on asking. In case it was wrong one push asks again after a
//! while, then after twice as long, and so on; the first that is taken opens. What is closed stays so over a restart.

use std::collections::HashMap;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use hongyan_core::port::QuotaWord;
use hongyan_core::{Class, StoreError, Timestamp};

use super::{Account, Day, Kind, Quotas, Taken, is_bulk};

/// How long after its midnight a vendor's clock may still be in the day before.
const EARLY: Duration = Duration::from_secs(300);
/// Closed classes of accounts that are remembered with their words; those beyond are closed all the same, by the store.
const SAID_MAX: usize = 10_000;
/// When the first push of a bulk class asks whether it is still closed: the others wait for tomorrow meanwhile.
const BULK_ASKS_AFTER: Duration = Duration::from_secs(600);
/// The same for the urgent classes, which end or go another way meanwhile.
const URGENT_ASKS_AFTER: Duration = Duration::from_secs(10);
/// Longest time between two that ask.
const ASKS_AFTER_MAX: Duration = Duration::from_secs(2 * 3600);
/// The words where those of the vendor are not known any more.
const BEFORE_RESTART: &str = "the vendor said before a restart that the quota is used up";

/// What a vendor closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// Until when.
    pub until: Timestamp,
    /// The vendor's words.
    pub why: String,
    /// Whether the next push may ask whether it still is.
    pub(super) asks: bool,
}

/// A vendor's word that a quota is used up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exhausted {
    /// For how long, when the vendor or its rules say so.
    pub(crate) until: Option<Duration>,
    /// The vendor's words.
    pub(crate) detail: String,
}

/// What is remembered of a word.
#[derive(Debug)]
pub(super) struct Said {
    /// The day that it was said on.
    day: Timestamp,
    until: Timestamp,
    why: String,
    asks_at: Timestamp,
    asks_after: Duration,
}

/// What is closed together with a push of this kind.
const fn closes(word: QuotaWord, kind: Kind) -> &'static str {
    match word {
        QuotaWord::AskedAgain => kind.class.as_str(),
        QuotaWord::Final => kind.counted.as_str(),
    }
}

/// Until when a vendor's word is believed: to the time that it names, or the end of its day. Just after midnight its clock may
/// still be in the day before, so that its day has all but ended.
pub(crate) fn believed_until(named: Option<Duration>, day: Day, now: Timestamp) -> Timestamp {
    let until = named.map_or(day.end, |after| now.plus(after));
    match now.since(day.start) < EARLY {
        true => until.min(day.start.plus(EARLY)),
        false => until,
    }
}

fn closed_key(account: &Account, what: &str) -> String {
    account.key(&format!("closed/{what}"))
}

const fn asks_first(class: Class) -> Duration {
    if is_bulk(class) {
        BULK_ASKS_AFTER
    } else {
        URGENT_ASKS_AFTER
    }
}

impl Quotas {
    /// The vendor answered a call: it said that the quota is used up, or took some of it, or neither.
    pub(crate) async fn heard(
        &self,
        account: &Account,
        word: QuotaWord,
        taken: &Taken,
        exhausted: Option<Exhausted>,
        accepted: bool,
    ) -> Result<(), StoreError> {
        let (day, kind) = (taken.day, taken.kind);
        let what = closes(word, kind);
        let Some(exhausted) = exhausted else {
            // Only who asked because it was closed opens it: another may have been taken before it closed.
            return match taken.probe && accepted {
                true => self.open(account, what, day).await,
                false => Ok(()),
            };
        };
        let now = self.clock.now();
        let until = believed_until(exhausted.until, day, now).min(day.end);
        if until <= now {
            return Ok(());
        }
        self.remember(account, what, day, |said| {
            let asks_after = match said {
                Some(said) if taken.probe => said.asks_after.saturating_mul(2).min(ASKS_AFTER_MAX),
                Some(said) if said.until > now => said.asks_after,
                _ => asks_first(kind.class),
            };
            Said {
                day: day.start,
                until,
                why: exhausted.detail,
                asks_at: match said {
                    Some(said) if !taken.probe && said.until > now => said.asks_at,
                    _ => now.plus(asks_after),
                },
                asks_after,
            }
        });
        // Seconds of the day, so that the store knows the time: no counter is ever negative.
        let second = until.since(day.start).as_secs().max(1);
        let key = closed_key(account, what);
        let known = self.port.used(&key, day.start).await?;
        if known > second {
            return self.back(&key, day, known - second).await;
        }
        // Two calls that hear the same at once write the same.
        self.one(&key, day, second, second).await.map(|_| ())
    }

    /// Until when pushes of this kind are closed by the vendor's word.
    pub(super) async fn closed(
        &self,
        account: &Account,
        word: QuotaWord,
        day: Day,
        kind: Kind,
    ) -> Result<Option<Closed>, StoreError> {
        let now = self.clock.now();
        let what = closes(word, kind);
        let read = |said: &Said| {
            let asks = word == QuotaWord::AskedAgain && now >= said.asks_at;
            (said.day == day.start).then(|| Closed {
                until: said.until,
                why: said.why.clone(),
                asks,
            })
        };
        let known = self.lock().get(&(account.clone(), what)).and_then(read);
        if let Some(closed) = known {
            return Ok(Some(closed).filter(|closed| closed.until > now));
        }
        // Perhaps it was closed before this process began.
        let key = closed_key(account, what);
        let second = self.port.used(&key, day.start).await?;
        let until = day.start.plus(Duration::from_secs(second)).min(day.end);
        if until <= now {
            return Ok(None);
        }
        let why = BEFORE_RESTART.to_owned();
        self.remember(account, what, day, |said| {
            let asks_after = asks_first(kind.class);
            match said {
                // Another call was quicker.
                Some(said) if said.day == day.start => Said {
                    why: said.why.clone(),
                    ..*said
                },
                _ => Said {
                    day: day.start,
                    until,
                    why: why.clone(),
                    asks_at: now.plus(asks_after),
                    asks_after,
                },
            }
        });
        Ok(Some(Closed {
            until,
            why,
            asks: false,
        }))
    }

    /// Whether this push may ask if it is still closed; then no other does for a while.
    pub(super) fn may_probe(&self, account: &Account, word: QuotaWord, kind: Kind) -> bool {
        let now = self.clock.now();
        let mut all = self.lock();
        let said = all.get_mut(&(account.clone(), closes(word, kind)));
        let Some(said) = said.filter(|s| word == QuotaWord::AskedAgain && now >= s.asks_at) else {
            return false;
        };
        said.asks_at = now.plus(said.asks_after);
        true
    }

    /// Forgets what the vendor said today: the credential was stored anew, perhaps with more quota.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn reopen(&self, account: &Account, offset_s: i32) -> Result<(), StoreError> {
        use hongyan_core::port::CountedAs;
        let day = Day::at(self.clock.now(), offset_s);
        let classes = Class::ALL.into_iter().map(Class::as_str);
        let counts = [CountedAs::Service, CountedAs::Marketing].map(CountedAs::as_str);
        for what in classes.chain(counts) {
            self.open(account, what, day).await?;
        }
        Ok(())
    }

    async fn open(
        &self,
        account: &Account,
        what: &'static str,
        day: Day,
    ) -> Result<(), StoreError> {
        self.lock().remove(&(account.clone(), what));
        let key = closed_key(account, what);
        let known = self.port.used(&key, day.start).await?;
        self.back(&key, day, known).await
    }

    fn remember(
        &self,
        account: &Account,
        what: &'static str,
        day: Day,
        make: impl FnOnce(Option<&Said>) -> Said,
    ) {
        let mut all = self.lock();
        if all.len() >= SAID_MAX {
            all.retain(|_, said| said.day == day.start);
        }
        let key = (account.clone(), what);
        let known = all.get(&key).filter(|said| said.day == day.start);
        let said = make(known);
        if all.len() < SAID_MAX || all.contains_key(&key) {
            all.insert(key, said);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(Account, &'static str), Said>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
