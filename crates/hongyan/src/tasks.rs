//! Tasks with a name and an owner: their panics are caught, logged and counted, and the fall of an essential one is noticed.

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
#[cfg(test)]
use std::time::Duration;

use tokio::sync::{Notify, watch};

/// Where every task of the process is started. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Tasks {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    running: Mutex<BTreeMap<&'static str, usize>>,
    ended: Notify,
    panics: AtomicU64,
    /// The first essential task that ended although nobody stopped it.
    fallen: watch::Sender<Option<&'static str>>,
}

impl Default for Tasks {
    fn default() -> Self {
        Self {
            inner: Arc::new(Inner {
                running: Mutex::default(),
                ended: Notify::new(),
                panics: AtomicU64::new(0),
                fallen: watch::channel(None).0,
            }),
        }
    }
}

impl Tasks {
    /// Starts a task that others can do without: a panic ends this task alone.
    pub(crate) fn spawn(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.start(name, task, |_| {});
    }

    /// Starts a task that the server cannot do without: when it panics, or ends before `stop` says so, [`Self::fallen`]
    /// resolves, so that the process stops in order rather than limping on.
    pub(crate) fn spawn_essential(
        &self,
        name: &'static str,
        stop: Stop,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.start(name, task, move |tasks| {
            if !stop.is_stopped() {
                tracing::error!(task = name, "an essential task ended by itself");
                tasks.inner.fallen.send_if_modified(|fallen| {
                    let first = fallen.is_none();
                    fallen.get_or_insert(name);
                    first
                });
            }
        });
    }

    /// Resolves with the name of the first essential task that ended by itself.
    pub(crate) async fn fallen(&self) -> &'static str {
        let mut fallen = self.inner.fallen.subscribe();
        loop {
            if let Some(name) = *fallen.borrow_and_update() {
                return name;
            }
            if fallen.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until all tasks ended; the names of those that still run after `deadline`.
    #[cfg(test)]
    pub(crate) async fn join(&self, deadline: Duration) -> Vec<&'static str> {
        let all_ended = async {
            loop {
                let ended = self.inner.ended.notified();
                tokio::pin!(ended);
                ended.as_mut().enable();
                if self.running().is_empty() {
                    return;
                }
                ended.await;
            }
        };
        let _ = tokio::time::timeout(deadline, all_ended).await;
        self.running()
    }

    /// Names of the tasks that run now.
    #[cfg(test)]
    pub(crate) fn running(&self) -> Vec<&'static str> {
        let running = self.inner.running.lock();
        let running = running.unwrap_or_else(PoisonError::into_inner);
        running.keys().copied().collect()
    }

    /// How many tasks panicked since the start.
    #[cfg(test)]
    pub(crate) fn panics(&self) -> u64 {
        self.inner.panics.load(Ordering::Relaxed)
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "this is where tasks get name and owner"
    )]
    fn start(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
        at_end: impl FnOnce(&Self) + Send + 'static,
    ) {
        self.count(name, |count| count + 1);
        let tasks = self.clone();
        tokio::spawn(async move {
            let guard = Guard {
                tasks: tasks.clone(),
                name,
            };
            if let Err(words) = CatchPanic(Box::pin(task)).await {
                tasks.inner.panics.fetch_add(1, Ordering::Relaxed);
                metrics::counter!("hongyan_tasks_panics_total", "task" => name).increment(1);
                tracing::error!(task = name, panic = words, "a task panicked");
            }
            at_end(&tasks);
            drop(guard);
        });
    }

    fn count(&self, name: &'static str, change: impl FnOnce(usize) -> usize) {
        let running = self.inner.running.lock();
        let mut running = running.unwrap_or_else(PoisonError::into_inner);
        let count = change(running.get(name).copied().unwrap_or(0));
        if count == 0 {
            running.remove(name);
        } else {
            running.insert(name, count);
        }
    }
}

/// Counts the task out, also when the runtime drops it.
struct Guard {
    tasks: Tasks,
    name: &'static str,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.tasks.count(self.name, |count| count.saturating_sub(1));
        self.tasks.inner.ended.notify_waiters();
    }
}

struct CatchPanic<F>(Pin<Box<F>>);

impl<F: Future> Future for CatchPanic<F> {
    type Output = Result<F::Output, String>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // The future is never polled again after a panic: this one answers with an error and is dropped.
        match catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(context))) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => Poll::Ready(Err(words_of(panic.as_ref()))),
        }
    }
}

fn words_of(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|&words| words.to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

/// The signal to stop, as the tasks see it. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Stop {
    receiver: watch::Receiver<bool>,
}

/// The one who may stop them.
#[derive(Debug)]
pub(crate) struct Stopper {
    sender: watch::Sender<bool>,
}

/// A new pair. Each part of the server that stops at its own time has its own.
pub(crate) fn stop_pair() -> (Stopper, Stop) {
    let (sender, receiver) = watch::channel(false);
    (Stopper { sender }, Stop { receiver })
}

impl Stopper {
    /// Asks everybody who holds the other half to stop. Repeating does nothing.
    pub(crate) fn stop(&self) {
        self.sender.send_replace(true);
    }
}

impl Stop {
    /// Resolves when it is time to stop (also when the stopper is gone).
    pub(crate) async fn stopped(&mut self) {
        let _ = self.receiver.wait_for(|stopped| *stopped).await;
    }

    /// Whether it is time to stop.
    pub(crate) fn is_stopped(&self) -> bool {
        *self.receiver.borrow()
    }

    /// The bare channel, for rooms that take one: `true` means stop.
    pub(crate) fn into_receiver(self) -> watch::Receiver<bool> {
        self.receiver
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn a_panic_ends_its_task_alone_and_is_counted() {
        let tasks = Tasks::default();
        let (stopper, mut stop) = stop_pair();
        tasks.spawn("healthy", async move { stop.stopped().await });
        tasks.spawn("broken", async { panic!("on purpose") });
        while tasks.panics() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(tasks.running(), ["healthy"]);
        stopper.stop();
        assert!(tasks.join(LONG).await.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn join_names_those_who_do_not_end() {
        let tasks = Tasks::default();
        tasks.spawn("stuck", std::future::pending());
        tasks.spawn("stuck", std::future::pending());
        tasks.spawn("quick", async {});
        assert_eq!(tasks.join(Duration::from_secs(1)).await, ["stuck"]);
    }

    #[tokio::test]
    async fn an_essential_task_that_ends_by_itself_is_noticed() {
        let tasks = Tasks::default();
        let (stopper, stop) = stop_pair();
        tasks.spawn("optional", async {});
        tasks.spawn_essential("writer", stop.clone(), async {});
        assert_eq!(tasks.fallen().await, "writer");
        drop(stopper);

        let tasks = Tasks::default();
        let (stopper, stop) = stop_pair();
        let mut waits = stop.clone();
        tasks.spawn_essential("writer", stop, async move { waits.stopped().await });
        stopper.stop();
        assert!(tasks.join(LONG).await.is_empty());
        assert_eq!(*tasks.inner.fallen.borrow(), None);
    }
}
