//! Contents that a vendor stores once and then sends to many lists: one request for each content, however many batches
//! of it wait.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hongyan_core::Timestamp;
use ring::digest::{SHA256, digest};

/// Contents that are remembered; the oldest leaves first.
const CONTENTS_MAX: usize = 256;

type Key = [u8; 32];
type Place = Arc<tokio::sync::Mutex<Option<(String, Timestamp)>>>;

/// A life in steps: what a content's key has of it, so that one which was stored with a longer life is not sent on for much
/// longer than the message lives. The step is at most an eighth of the life.
pub(crate) fn life_step(life: u64) -> (u64, u64) {
    let step = (life / 16).max(1).next_power_of_two();
    (life / step, step)
}

/// The vendor's ids of stored contents.
#[derive(Debug)]
pub(crate) struct Stored {
    /// How long after it was stored a content is sent again without storing it anew.
    reuse: Duration,
    places: Mutex<VecDeque<(Key, Place)>>,
}

impl Stored {
    pub(crate) fn new(reuse: Duration) -> Self {
        Self {
            reuse,
            places: Mutex::default(),
        }
    }

    /// The vendor's id of a content; `store` is called when there is none, by one caller while the others wait for it.
    pub(crate) async fn get<F, T, E>(
        &self,
        content: &[u8],
        now: Timestamp,
        store: F,
    ) -> Result<String, E>
    where
        F: FnOnce() -> T,
        T: Future<Output = Result<String, E>>,
    {
        let place = self.place(key(content));
        let mut held = place.lock().await;
        if let Some((id, at)) = held.as_ref()
            && now.since(*at) < self.reuse
        {
            return Ok(id.clone());
        }
        let id = store().await?;
        *held = Some((id.clone(), now));
        Ok(id)
    }

    /// The vendor does not know this id any more.
    pub(crate) fn forget(&self, content: &[u8]) {
        let key = key(content);
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.retain(|(held, _)| *held != key);
    }

    fn place(&self, key: Key) -> Place {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, place)) = places.iter().find(|(held, _)| *held == key) {
            return place.clone();
        }
        while places.len() >= CONTENTS_MAX {
            places.pop_front();
        }
        let place = Place::default();
        places.push_back((key, place.clone()));
        place
    }
}

fn key(content: &[u8]) -> Key {
    let mut key = Key::default();
    for (to, from) in key.iter_mut().zip(digest(&SHA256, content).as_ref()) {
        *to = *from;
    }
    key
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_life_is_counted_in_steps_of_at_most_an_eighth() {
        for life in [0, 1, 15, 16, 60, 61, 3_600, 86_400, 864_000] {
            let (count, step) = life_step(life);
            assert!(step == 1 || step * 8 <= life, "{life} {step}");
            assert!(count * step <= life && life < (count + 1) * step);
        }
        assert_eq!(life_step(3_600), life_step(3_599));
        assert_ne!(life_step(3_600), life_step(3_000));
    }

    #[tokio::test(start_paused = true)]
    async fn many_batches_store_a_content_once() {
        let stored = Arc::new(Stored::new(Duration::from_secs(60)));
        let calls = Arc::new(AtomicUsize::new(0));
        let store = |content: &'static str, now: Timestamp| {
            let (stored, calls) = (stored.clone(), calls.clone());
            async move {
                let fetch = || async {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    Ok::<_, ()>(format!("id-{}", calls.fetch_add(1, Ordering::SeqCst)))
                };
                stored.get(content.as_bytes(), now, fetch).await.unwrap()
            }
        };
        let together: Vec<_> = (0..20)
            .map(|_| tokio::spawn(store("a", Timestamp(0))))
            .collect();
        for one in together {
            assert_eq!(one.await.unwrap(), "id-0");
        }
        assert_eq!(store("b", Timestamp(0)).await, "id-1");
        let late = Timestamp(0).plus(Duration::from_secs(61));
        assert_eq!(store("a", late).await, "id-2");
        stored.forget(b"a");
        assert_eq!(store("a", late).await, "id-3");
    }

    #[tokio::test]
    async fn a_failure_is_not_kept() {
        let stored = Stored::new(Duration::from_secs(60));
        let failed = stored.get(b"a", Timestamp(0), || async { Err("no") }).await;
        assert_eq!(failed, Err("no"));
        let then = stored
            .get(b"a", Timestamp(0), || async { Ok::<_, ()>("x".to_owned()) })
            .await;
        assert_eq!(then, Ok("x".to_owned()));
    }

    #[tokio::test]
    async fn memory_is_bounded() {
        let stored = Stored::new(Duration::from_secs(60));
        for n in 0..CONTENTS_MAX + 10 {
            let id = || async { Ok::<_, ()>(n.to_string()) };
            let got = stored.get(n.to_string().as_bytes(), Timestamp(0), id).await;
            assert_eq!(got, Ok(n.to_string()));
        }
        let held = stored.places.lock().unwrap().len();
        assert_eq!(held, CONTENTS_MAX);
    }
}
