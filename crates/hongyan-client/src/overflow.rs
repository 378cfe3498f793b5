//! What has arrived and waits for room in the app's queue.

use std::collections::VecDeque;

use tokio::sync::mpsc::Permit;

use crate::client::Event;

/// Recalls that were told last; each may come twice, with its place and without.
const TOLD_MAX: usize = 64;

/// Events in the order in which the app gets them. The session reads no more when there are too many.
#[derive(Debug, Default)]
pub(crate) struct Overflow {
    /// Each with the mark that it stands for, if it is a recall with a place in the inbox.
    waiting: VecDeque<(Event, Option<String>)>,
    told: VecDeque<String>,
}

impl Overflow {
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn push(&mut self, event: Event) {
        self.waiting.push_back((event, None));
    }

    /// A recall of a message, which is acknowledged by its mark.
    pub(crate) fn push_mark(&mut self, id: String, mark: String) {
        let event = Event::Recall { id };
        self.waiting.push_back((event, Some(mark)));
    }

    /// Hands the next event to the app, but a recall that it was told just before. Answers the mark that it has now.
    pub(crate) fn hand(&mut self, permit: Permit<'_, Event>) -> Option<String> {
        let (event, mark) = self.waiting.pop_front()?;
        if let Event::Recall { id } = &event {
            if self.told.contains(id) {
                return mark;
            }
            if self.told.len() >= TOLD_MAX {
                self.told.pop_front();
            }
            self.told.push_back(id.clone());
        }
        permit.send(event);
        mark
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_recall_is_told_once_and_its_mark_is_had_then() {
        let (outlet, mut inbox) = mpsc::channel(200);
        let mut overflow = Overflow::default();
        let id = |n: usize| format!("m{n}");
        overflow.push(Event::Recall { id: id(0) });
        overflow.push_mark(id(0), "k0".into());
        for n in 1..=TOLD_MAX {
            overflow.push_mark(id(n), format!("k{n}"));
        }
        let mut marks = Vec::new();
        while !overflow.is_empty() {
            marks.extend(overflow.hand(outlet.reserve().await.unwrap()));
        }
        assert_eq!(marks.len(), TOLD_MAX + 1);
        assert_eq!(overflow.hand(outlet.reserve().await.unwrap()), None);
        for n in 0..=TOLD_MAX {
            assert_eq!(inbox.try_recv(), Ok(Event::Recall { id: id(n) }));
        }
        assert!(inbox.try_recv().is_err());
        assert_eq!(overflow.told.len(), TOLD_MAX);
    }
}
