//! What a vendor closes by saying that a quota is used up, and how it opens again.
//!
//! The first such word closes: some vendors punish those who go on asking. In case it was wrong one push asks again after a
//! while, then after twice as long, and so on; the first that is taken opens. What is closed stays so over a restart.
//!
//! Two marks in the store say it, moments that only grow, so that whoever writes at the same time and how often does not
//! matter: until when it is closed, and the last such moment that was opened. It is closed while the first is greater than
//! the second, and ahead. What is in memory beside it is the words, and when to ask.

use std::collections::HashMap;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use hongyan_core::port::{CountedAs, QuotaWord};
use hongyan_core::{Class, StoreError, Timestamp};

use super::limits::NAMED_FOR;
use super::{Account, Day, Effective, Kind, Quotas, Taken, is_bulk};

/// How long after its midnight a vendor's clock may still be in the day before.
pub(super) const EARLY: Duration = Duration::from_secs(300);
/// How far from midnight a time that a vendor names may be and mean midnight: it was computed before the answer was read.
const ABOUT_MIDNIGHT: Duration = Duration::from_secs(60);
/// The window of the marks: they are moments since then, which no vendor's day ends.
const ALL_TIME: Timestamp = Timestamp(0);
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
#[derive(Debug, Clone)]
pub(super) struct Said {
    until: Timestamp,
    why: String,
    asks_at: Timestamp,
    asks_after: Duration,
}

/// What is closed together with a push of this kind: of a class that goes out in two ways, by what was granted of it, the one
/// says nothing of the other.
const fn closes(word: QuotaWord, kind: Kind) -> &'static str {
    use CountedAs::{Marketing, Service};
    match (word, kind.class, kind.counted) {
        (QuotaWord::Final, _, counted) => counted.as_str(),
        (QuotaWord::AskedAgain, Class::Im, Service) => "im/service",
        (QuotaWord::AskedAgain, Class::Im, Marketing) => "im/marketing",
        (QuotaWord::AskedAgain, Class::Transaction, Service) => "transaction/service",
        (QuotaWord::AskedAgain, Class::Transaction, Marketing) => "transaction/marketing",
        (QuotaWord::AskedAgain, Class::Subscription, Service) => "subscription/service",
        (QuotaWord::AskedAgain, Class::Subscription, Marketing) => "subscription/marketing",
        (QuotaWord::AskedAgain, Class::Marketing, Service) => "marketing/service",
        (QuotaWord::AskedAgain, Class::Marketing, Marketing) => "marketing/marketing",
    }
}

/// Everything that can be closed.
fn all_closable() -> impl Iterator<Item = &'static str> {
    let counts = [CountedAs::Service, CountedAs::Marketing];
    let kinds = Class::ALL
        .into_iter()
        .flat_map(move |class| counts.map(|counted| Kind { class, counted }));
    let classes = kinds.map(|kind| closes(QuotaWord::AskedAgain, kind));
    classes.chain(counts.map(CountedAs::as_str))
}

/// Until when a vendor's word is believed: to the time that it names, or the end of its day. Just after midnight its clock may
/// still be in the day before, so that its day has all but ended; an hour that it names is what it is.
pub(crate) fn believed_until(named: Option<Duration>, day: Day, now: Timestamp) -> Timestamp {
    let until = named.map_or(day.end, |after| now.plus(after));
    let about = ABOUT_MIDNIGHT.as_millis() as u64;
    if until.millis().abs_diff(day.end.millis()) > about {
        return until;
    }
    match now.since(day.start) < EARLY {
        true => day.start.plus(EARLY),
        false => day.end,
    }
}

fn closed_key(account: &Account, what: &str) -> String {
    account.key(&format!("closed/{what}"))
}

fn opened_key(account: &Account, what: &str) -> String {
    account.key(&format!("opened/{what}"))
}

/// A moment as a mark; none before the epoch.
fn mark_of(moment: Timestamp) -> u64 {
    u64::try_from(moment.millis()).unwrap_or(0)
}

fn moment_of(mark: u64) -> Timestamp {
    Timestamp(i64::try_from(mark).unwrap_or(i64::MAX))
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
        let asked = Asked {
            day: taken.day,
            kind: taken.kind,
            probe: taken.probe,
        };
        match exhausted {
            Some(exhausted) => self.close(account, word, asked, exhausted).await,
            // Only who asked because it was closed opens it: another may have been taken before it closed.
            None if taken.probe && accepted => {
                self.disprove(account);
                self.open(account, closes(word, taken.kind)).await
            }
            None => Ok(()),
        }
    }

    /// The vendor said so of a push that it had taken before.
    pub(crate) async fn heard_later(
        &self,
        account: &Account,
        word: QuotaWord,
        day: Day,
        kind: Kind,
        exhausted: Exhausted,
    ) -> Result<(), StoreError> {
        let asked = Asked {
            day,
            kind,
            probe: false,
        };
        self.close(account, word, asked, exhausted).await
    }

    async fn close(
        &self,
        account: &Account,
        word: QuotaWord,
        asked: Asked,
        exhausted: Exhausted,
    ) -> Result<(), StoreError> {
        let now = self.clock.now();
        let until = believed_until(exhausted.until, asked.day, now);
        if until <= now {
            return Ok(());
        }
        let what = closes(word, asked.kind);
        let opened = self.mark(&opened_key(account, what)).await?;
        // A word that comes after an opening is later than what was opened, if only by a moment.
        let until = moment_of(mark_of(until).max(opened.saturating_add(1)));
        self.raise(&closed_key(account, what), until).await?;
        self.remember(account, what, |said| {
            let known = said.filter(|said| said.until > now);
            let asks_after = match known {
                Some(said) if asked.probe => said.asks_after.saturating_mul(2).min(ASKS_AFTER_MAX),
                Some(said) => said.asks_after,
                None => asks_first(asked.kind.class),
            };
            Said {
                until: known.map_or(until, |said| said.until.max(until)),
                why: exhausted.detail,
                asks_at: match known {
                    Some(said) if !asked.probe => said.asks_at,
                    _ => now.plus(asks_after),
                },
                asks_after,
            }
        });
        Ok(())
    }

    /// Until when pushes of this kind are closed by the vendor's word.
    pub(super) async fn closed(
        &self,
        account: &Account,
        word: QuotaWord,
        kind: Kind,
    ) -> Result<Option<Closed>, StoreError> {
        let now = self.clock.now();
        let what = closes(word, kind);
        let closed = self.mark(&closed_key(account, what)).await?;
        if closed <= mark_of(now) || closed <= self.mark(&opened_key(account, what)).await? {
            return Ok(None);
        }
        let until = moment_of(closed);
        let mut known = None;
        self.remember(account, what, |said| {
            let said = match said.filter(|said| said.until > now) {
                Some(said) => said.clone(),
                // It was closed before this process began.
                None => Said {
                    until,
                    why: BEFORE_RESTART.to_owned(),
                    asks_at: now.plus(asks_first(kind.class)),
                    asks_after: asks_first(kind.class),
                },
            };
            known = Some(Closed {
                until,
                why: said.why.clone(),
                asks: word == QuotaWord::AskedAgain && now >= said.asks_at,
            });
            said
        });
        Ok(known)
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

    /// Forgets what the vendor said: the credential was stored anew, perhaps with more quota.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn reopen(&self, account: &Account) -> Result<(), StoreError> {
        for what in all_closable() {
            self.open(account, what).await?;
        }
        Ok(())
    }

    async fn open(&self, account: &Account, what: &'static str) -> Result<(), StoreError> {
        let closed = self.mark(&closed_key(account, what)).await?;
        if closed > 0 {
            let until = moment_of(closed);
            self.raise(&opened_key(account, what), until).await?;
        }
        // The store's word counts, so this comes last; what was said meanwhile of a later moment stays.
        let key = (account.clone(), what);
        let mut all = self.lock();
        if all
            .get(&key)
            .is_some_and(|said| mark_of(said.until) <= closed)
        {
            all.remove(&key);
        }
        Ok(())
    }

    /// What the vendor named before now is not believed any more.
    fn disprove(&self, account: &Account) {
        let now = self.clock.now();
        let mut all = self
            .disproved
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if all.len() >= SAID_MAX {
            all.retain(|_, at| now.since(*at) < NAMED_FOR);
        }
        if all.len() < SAID_MAX || all.contains_key(account) {
            all.insert(account.clone(), now);
        }
    }

    /// The limits, without those that the vendor named and then disproved itself.
    pub(super) fn believed(&self, account: &Account, limits: &Effective) -> Effective {
        let Some(named_at) = limits.named_at else {
            return *limits;
        };
        let all = self
            .disproved
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match all.get(account) {
            Some(at) if named_at <= *at => limits.configured_only(),
            _ => *limits,
        }
    }

    async fn mark(&self, key: &str) -> Result<u64, StoreError> {
        self.port.used(key, ALL_TIME).await
    }

    /// A mark that is as late already stays.
    async fn raise(&self, key: &str, to: Timestamp) -> Result<(), StoreError> {
        let mark = mark_of(to);
        let raised = self.port.take(key, ALL_TIME, to, mark, mark).await;
        raised.map(|_| ())
    }

    fn remember(
        &self,
        account: &Account,
        what: &'static str,
        make: impl FnOnce(Option<&Said>) -> Said,
    ) {
        let now = self.clock.now();
        let mut all = self.lock();
        if all.len() >= SAID_MAX {
            all.retain(|_, said| said.until > now);
        }
        let key = (account.clone(), what);
        let said = make(all.get(&key));
        if all.len() < SAID_MAX || all.contains_key(&key) {
            all.insert(key, said);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(Account, &'static str), Said>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The push that a vendor spoke of.
#[derive(Debug, Clone, Copy)]
struct Asked {
    /// The day on which it was sent.
    day: Day,
    kind: Kind,
    /// Whether it was sent to ask whether a quota is still closed.
    probe: bool,
}
