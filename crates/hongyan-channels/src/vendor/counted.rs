//! Pushes whose fate a vendor tells in numbers only: how many have it, not who.
//!
//! A number becomes receipts when it is as high as the push has tokens: then everybody has it. So a push to one person is
//! always told, one to many when it reached all of them.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hongyan_core::port::{Earlier, Receipt, ReceiptKind};
use hongyan_core::{MessageId, Secret, Timestamp};

use crate::texts::detail;

/// Pushes that are remembered; the oldest leaves first. With their tokens about 40 MB at the very most.
const PUSHES_MAX: usize = 2_000;
/// Most tokens of a push that is remembered: of more, somebody is hardly ever reached.
const TOKENS_MAX: usize = 200;
/// How long after it was sent a push is asked about, again and again.
const AFTER: [Duration; 6] = [
    Duration::from_secs(60),
    Duration::from_secs(5 * 60),
    Duration::from_secs(15 * 60),
    Duration::from_secs(3_600),
    Duration::from_secs(6 * 3_600),
    Duration::from_secs(24 * 3_600),
];

/// How many a push reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts {
    pub(super) delivered: u64,
    pub(super) displayed: u64,
    pub(super) clicked: u64,
    pub(super) dismissed: u64,
}

#[derive(Debug)]
struct Push {
    id: String,
    message: MessageId,
    tokens: Vec<Secret>,
    sent_at: Timestamp,
    /// How often it was asked about.
    asked: usize,
    told: Vec<ReceiptKind>,
}

impl Push {
    fn new(id: &str, message: MessageId, tokens: Vec<Secret>, sent_at: Timestamp) -> Self {
        Self {
            id: id.to_owned(),
            message,
            tokens,
            sent_at,
            asked: 0,
            told: Vec::new(),
        }
    }

    fn is_due(&self, now: Timestamp) -> bool {
        let after = AFTER.get(self.asked);
        after.is_some_and(|after| now.since(self.sent_at) >= *after)
    }
}

#[derive(Debug, Default)]
struct Memory {
    pushes: VecDeque<Push>,
    last_round: Option<Timestamp>,
}

/// A bounded memory of such pushes. After a restart it has those that the ledger's end names.
#[derive(Debug)]
pub(super) struct Counted {
    /// Least time between two rounds of questions.
    round: Duration,
    /// Questions of one round.
    round_len: usize,
    memory: Mutex<Memory>,
}

impl Counted {
    pub(super) fn new(round: Duration, round_len: usize) -> Self {
        Self {
            round,
            round_len,
            memory: Mutex::default(),
        }
    }

    /// The vendor took a push to these tokens under this id.
    pub(super) fn remember(
        &self,
        id: &str,
        message: MessageId,
        tokens: Vec<Secret>,
        now: Timestamp,
    ) {
        if id.is_empty() || tokens.is_empty() || tokens.len() > TOKENS_MAX {
            return;
        }
        let mut memory = self.lock();
        if memory.pushes.iter().rev().take(100).any(|p| p.id == id) {
            return;
        }
        while memory.pushes.len() >= PUSHES_MAX {
            memory.pushes.pop_front();
        }
        memory.pushes.push_back(Push::new(id, message, tokens, now));
    }

    /// Pushes of before this process, oldest first. What is not known whole says nothing: its number would be too soon as high
    /// as what is known of it.
    pub(super) fn recollect(&self, earlier: &[Earlier]) {
        let mut memory = self.lock();
        let fits = |e: &&Earlier| {
            e.whole && !e.vendor_id.is_empty() && (1..=TOKENS_MAX).contains(&e.tokens.len())
        };
        // They stand before what was sent since, the latest nearest to it.
        for e in earlier.iter().rev().filter(fits) {
            if memory.pushes.len() >= PUSHES_MAX {
                return;
            }
            if !memory.pushes.iter().any(|p| p.id == e.vendor_id) {
                let push = Push::new(&e.vendor_id, e.message, e.tokens.clone(), e.at);
                memory.pushes.push_front(push);
            }
        }
    }

    /// What to ask about now, the latest first; nothing while the last round is too fresh. Whatever comes of it, a push is
    /// not asked about again before its next time.
    pub(super) fn due(&self, now: Timestamp) -> Vec<String> {
        let mut memory = self.lock();
        let fresh = |last: Timestamp| now.since(last) < self.round;
        if memory.last_round.is_some_and(fresh) {
            return Vec::new();
        }
        let due = memory.pushes.iter_mut().rev().filter(|p| p.is_due(now));
        let mut ids = Vec::new();
        for push in due.take(self.round_len) {
            // What was missed while others were asked about is not caught up with.
            let late = |after: &&Duration| now.since(push.sent_at) >= **after;
            push.asked = AFTER.iter().take_while(late).count();
            ids.push(push.id.clone());
        }
        if !ids.is_empty() {
            memory.last_round = Some(now);
        }
        memory
            .pushes
            .retain(|p| p.asked < AFTER.len() || ids.contains(&p.id));
        ids
    }

    /// What the vendor counts: the news in it, each told once.
    pub(super) fn heard(&self, id: &str, counts: Counts) -> Vec<Receipt> {
        let mut memory = self.lock();
        let Some(push) = memory.pushes.iter_mut().find(|p| p.id == id) else {
            return Vec::new();
        };
        let all = push.tokens.len() as u64;
        let stages = [
            (ReceiptKind::Delivered, counts.delivered),
            (ReceiptKind::Displayed, counts.displayed),
            (ReceiptKind::Clicked, counts.clicked),
            (ReceiptKind::Dismissed, counts.dismissed),
        ];
        let mut receipts = Vec::new();
        for (kind, count) in stages {
            if count < all || push.told.contains(&kind) {
                continue;
            }
            push.told.push(kind);
            receipts.extend(push.tokens.iter().map(|token| Receipt {
                kind,
                message: Some(push.message),
                vendor_id: Some(detail(&push.id)),
                token: Some(token.clone()),
                at: None,
                detail: format!("the vendor counts {count} of {all}"),
            }));
        }
        if push.asked >= AFTER.len() || push.told.contains(&ReceiptKind::Clicked) {
            memory.pushes.retain(|p| p.id != id);
        }
        receipts
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_767_229_200_000);
    const MINUTE: Duration = Duration::from_secs(60);

    fn counted(tokens: &[usize]) -> Counted {
        let counted = Counted::new(MINUTE, 2);
        for (n, count) in tokens.iter().enumerate() {
            let tokens = (0..*count).map(|t| Secret::new(format!("t{t}"))).collect();
            let message = MessageId(uuid::Uuid::from_u128(n as u128));
            counted.remember(&n.to_string(), message, tokens, NOW);
        }
        counted
    }

    fn kinds(receipts: &[Receipt]) -> Vec<ReceiptKind> {
        receipts.iter().map(|r| r.kind).collect()
    }

    #[test]
    fn a_number_is_news_when_it_is_everybody_and_once() {
        let counted = counted(&[2]);
        let count = |delivered| Counts {
            delivered,
            ..Counts::default()
        };
        assert!(counted.heard("0", count(1)).is_empty());
        let all = counted.heard("0", count(2));
        assert_eq!(kinds(&all), [ReceiptKind::Delivered; 2]);
        assert_ne!(all[0].token, all[1].token);
        assert!(counted.heard("0", count(2)).is_empty());
        let tapped = Counts {
            delivered: 2,
            displayed: 0,
            clicked: 2,
            dismissed: 0,
        };
        assert_eq!(
            kinds(&counted.heard("0", tapped)),
            [ReceiptKind::Clicked; 2]
        );
        assert!(counted.heard("0", tapped).is_empty(), "it is forgotten");
        assert!(counted.heard("unknown", tapped).is_empty());
    }

    #[test]
    fn rounds_are_small_and_far_apart_and_have_an_end() {
        let counted = counted(&[1, 1, 1]);
        let at = |minutes: u32| NOW.plus(MINUTE * minutes);
        assert!(counted.due(NOW).is_empty());
        assert_eq!(counted.due(at(1)), ["2", "1"], "the latest first");
        assert!(counted.due(at(1)).is_empty(), "the last round is fresh");
        assert_eq!(counted.due(at(2)), ["0"]);
        assert!(counted.due(at(3)).is_empty());
        assert_eq!(counted.due(at(5)), ["2", "1"]);
        // Long after: each once more, then never.
        assert_eq!(counted.due(at(2_000)), ["2", "1"]);
        assert_eq!(counted.due(at(2_001)), ["0"]);
        assert!(counted.due(at(2_002)).is_empty());
        assert!(counted.lock().pushes.len() <= 1, "they are forgotten");
    }

    #[test]
    fn what_was_sent_before_a_restart_is_asked_about_in_its_time() {
        let earlier = |id: &str, tokens: usize, whole| Earlier {
            vendor_id: id.to_owned(),
            message: MessageId(uuid::Uuid::nil()),
            tokens: (0..tokens).map(|t| Secret::new(format!("t{t}"))).collect(),
            whole,
            at: NOW,
        };
        let all = [
            earlier("a", 2, true),
            earlier("b", 1, true),
            earlier("part", 1, false),
            earlier("many", TOKENS_MAX + 1, true),
            earlier("", 1, true),
        ];
        let counted = Counted::new(MINUTE, 9);
        counted.remember("b", all[1].message, all[1].tokens.clone(), NOW);
        counted.recollect(&all);
        counted.recollect(&all);
        assert_eq!(counted.due(NOW.plus(MINUTE)), ["b", "a"]);
        let count = |delivered| Counts {
            delivered,
            ..Counts::default()
        };
        assert!(counted.heard("a", count(1)).is_empty());
        assert_eq!(counted.heard("a", count(2)).len(), 2);
    }

    #[test]
    fn the_memory_is_bounded() {
        let counted = counted(&vec![1; PUSHES_MAX + 5]);
        assert_eq!(counted.lock().pushes.len(), PUSHES_MAX);
        counted.remember(
            "many",
            MessageId(uuid::Uuid::nil()),
            vec![Secret::new("t"); TOKENS_MAX + 1],
            NOW,
        );
        counted.remember("none", MessageId(uuid::Uuid::nil()), vec![], NOW);
        counted.remember(
            "7",
            MessageId(uuid::Uuid::nil()),
            vec![Secret::new("t")],
            NOW,
        );
        let memory = counted.lock();
        assert!(
            memory
                .pushes
                .iter()
                .all(|p| p.id != "many" && p.id != "none")
        );
        assert_eq!(memory.pushes.len(), PUSHES_MAX);
    }
}
