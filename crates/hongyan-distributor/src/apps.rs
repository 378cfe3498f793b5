//! What waits for apps: one queue for each, so that an app that hangs holds up nobody else.
//!
//! A message counts as settled when the app's `Message` has returned, or [`PATIENCE`] after it came. Within that time an app
//! that is not there, or does not serve a connector yet, is tried again.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hongyan_client::Secret;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use crate::connector::{Connector, Failure, Note};

/// How many calls may wait for one app. The server has at most as many messages under way to all of them.
const QUEUE_MAX: usize = 256;
/// How long an app has for a message, from its arrival.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// How long is waited at least for the answer to a message whose time has passed in the queue, so that a slow app is not flooded.
const PATIENCE_LEAST: Duration = Duration::from_millis(250);
/// Between two tries for an app that is not there.
const PAUSE: Duration = Duration::from_secs(1);

/// A message for an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parcel {
    pub(crate) id: String,
    pub(crate) token: Secret,
    pub(crate) body: Bytes,
    pub(crate) until: Instant,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The app has it.
    Taken,
    /// The app did not answer in time; it may have it.
    Silent,
    /// There is no such app on the bus, and none that could be started.
    Gone,
}

/// A message that needs no more care.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settled {
    pub(crate) id: String,
    pub(crate) token: Secret,
    pub(crate) fate: Fate,
}

#[derive(Debug)]
enum Item {
    Parcel(Parcel),
    Note(Note),
}

/// The queue is full: the app does not keep up.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

type Queues = HashMap<String, VecDeque<Item>>;

/// The queues of all apps. A worker runs for each that is not empty.
#[derive(Debug)]
pub(crate) struct Apps {
    connector: Arc<dyn Connector>,
    queues: Mutex<Queues>,
    settled: mpsc::Sender<Settled>,
}

impl Apps {
    pub(crate) fn new(connector: Arc<dyn Connector>, settled: mpsc::Sender<Settled>) -> Arc<Self> {
        Arc::new(Self {
            connector,
            queues: Mutex::default(),
            settled,
        })
    }

    /// Hands a message on when its turn comes.
    pub(crate) fn deliver(self: &Arc<Self>, service: &str, parcel: Parcel) -> Result<(), Full> {
        self.push(service, Item::Parcel(parcel))
    }

    /// Tells an app something, after what waits for it already.
    pub(crate) fn tell(self: &Arc<Self>, service: &str, note: Note) {
        if self.push(service, Item::Note(note)).is_err() {
            tracing::warn!(
                service,
                "too many calls wait for the app; it is not told of a change of its registration"
            );
        }
    }

    /// Takes a message back that nobody got yet. Says whether it waited.
    pub(crate) fn recall(&self, id: &str) -> bool {
        let mut found = false;
        for queue in self.queues().values_mut() {
            queue.retain(|item| {
                let it = matches!(item, Item::Parcel(parcel) if parcel.id == id);
                found |= it;
                !it
            });
        }
        found
    }

    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(self: &Arc<Self>, service: &str, item: Item) -> Result<(), Full> {
        let mut queues = self.queues();
        if let Some(queue) = queues.get_mut(service) {
            if queue.len() >= QUEUE_MAX {
                return Err(Full);
            }
            queue.push_back(item);
            return Ok(());
        }
        queues.insert(service.to_owned(), VecDeque::from([item]));
        drop(queues);
        let (apps, service) = (Arc::clone(self), service.to_owned());
        tokio::spawn(async move { apps.work(&service).await });
        Ok(())
    }

    /// Empties an app's queue, in order. The queue is there as long as its worker.
    async fn work(&self, service: &str) {
        loop {
            let item = {
                let mut queues = self.queues();
                match queues.get_mut(service).and_then(VecDeque::pop_front) {
                    Some(item) => item,
                    None => {
                        queues.remove(service);
                        return;
                    }
                }
            };
            match item {
                Item::Note(note) => {
                    let told = timeout(PATIENCE, self.connector.tell(service, &note)).await;
                    if !matches!(told, Ok(Ok(()))) {
                        tracing::debug!(
                            service,
                            ?told,
                            "an app could not be told of its registration"
                        );
                    }
                }
                Item::Parcel(parcel) => {
                    let fate = self.hand_over(service, &parcel).await;
                    tracing::debug!(service, message = parcel.id, ?fate, "message settled");
                    let settled = Settled {
                        id: parcel.id,
                        token: parcel.token,
                        fate,
                    };
                    if self.settled.send(settled).await.is_err() {
                        // The program ends; what is not acknowledged comes again.
                        return;
                    }
                }
            }
        }
    }

    async fn hand_over(&self, service: &str, parcel: &Parcel) -> Fate {
        let Parcel {
            id, token, body, ..
        } = parcel;
        loop {
            let left = parcel.until.saturating_duration_since(Instant::now());
            let call = self.connector.message(service, token, id, body);
            let fate = match timeout(left.max(PATIENCE_LEAST), call).await {
                // What the app cannot do with it is its own affair: it has it.
                Ok(Ok(()) | Err(Failure::Refused)) => return Fate::Taken,
                Err(_) => return Fate::Silent,
                Ok(Err(Failure::Gone)) => Fate::Gone,
                Ok(Err(Failure::NotServing)) => Fate::Silent,
            };
            if Instant::now() + PAUSE > parcel.until {
                return fate;
            }
            sleep(PAUSE).await;
        }
    }
}

#[cfg(test)]
#[path = "apps_tests.rs"]
mod tests;
