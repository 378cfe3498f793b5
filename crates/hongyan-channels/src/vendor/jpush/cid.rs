//! JPush's numbers against doubles: a call that has one pushes once, however often it is repeated within a day.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hongyan_core::Timestamp;
use serde_json::Value;

use crate::http::Answer;

/// Numbers fetched at a time.
pub(super) const FETCHED: usize = 500;
/// Numbers kept.
const KEPT_MAX: usize = 1000;
/// A number lives a day; an hour before its end it is not begun any more.
const FRESH: Duration = Duration::from_secs(23 * 3600);
/// How long nobody asks after JPush had none to give: a push without a number is better than none.
const REST: Duration = Duration::from_secs(10);

/// The numbers of one app that no call has had yet.
#[derive(Debug, Default)]
pub(super) struct Cids {
    state: Mutex<State>,
    flight: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    fresh: VecDeque<(String, Timestamp)>,
    rests_until: Option<Timestamp>,
}

impl Cids {
    /// A number for one call. `fetch` is asked by one caller at a time.
    pub(super) async fn next<F, T>(&self, now: Timestamp, fetch: F) -> Option<String>
    where
        F: FnOnce() -> T,
        T: Future<Output = Vec<String>>,
    {
        if let Some(cid) = self.take(now) {
            return Some(cid);
        }
        let _flight = self.flight.lock().await;
        if let Some(cid) = self.take(now) {
            return Some(cid);
        }
        if self.rests(now) {
            return None;
        }
        let fetched = fetch().await;
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.rests_until = fetched.is_empty().then(|| now.plus(REST));
            let room = KEPT_MAX.saturating_sub(state.fresh.len());
            let fetched = fetched.into_iter().take(room).map(|cid| (cid, now));
            state.fresh.extend(fetched);
        }
        self.take(now)
    }

    fn rests(&self, now: Timestamp) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.rests_until.is_some_and(|until| now < until)
    }

    fn take(&self, now: Timestamp) -> Option<String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.fresh.retain(|(_, at)| now.since(*at) < FRESH);
        state.fresh.pop_front().map(|(cid, _)| cid)
    }
}

/// The numbers in an answer of `/v3/push/cid`; none when it is something else.
pub(super) fn read(answer: &Answer) -> Vec<String> {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let list = body.get("cidlist").and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .filter(|cid| cid.len() <= 128)
        .take(FETCHED)
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_call_has_a_fresh_number() {
        let cids = Cids::default();
        let now = Timestamp(0);
        let two = || async { vec!["c1".to_owned(), "c2".to_owned()] };
        let none = || async { Vec::new() };
        assert_eq!(cids.next(now, two).await.unwrap(), "c1");
        assert_eq!(cids.next(now, none).await.unwrap(), "c2");
        assert_eq!(cids.next(now, none).await, None);
        let rests = cids.next(now.plus(REST / 2), two).await;
        assert_eq!(rests, None, "nobody asks again so soon");
        let later = now.plus(REST);
        assert_eq!(cids.next(later, two).await.unwrap(), "c1");
        let tomorrow = now.plus(Duration::from_secs(86_400));
        assert_eq!(cids.next(tomorrow, none).await, None, "a day old");
    }
}
