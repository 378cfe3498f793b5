//! The orderly stop: steps in a fixed order, each with a deadline. A second signal ends it at once (see `cmd/serve.rs`).
//!
//! The order is: not ready → stop intake and leasing → drain sessions in jittered slices → drain lanes → hand back work
//! that did not start → flush the ledger → close the engines. What a step does not finish in its time is safe: it
//! is in the store and taken up at the next start.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Why the process is to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Ctrl-C.
    Interrupt,
    /// `kill`, a service manager.
    Terminate,
    /// An essential task ended by itself.
    Fallen(&'static str),
}

/// The signals that end the process.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Takes the signals over from now on: without this, the first one kills the process.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub(crate) fn take() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for the next signal. Cancel safe.
    pub(crate) async fn next(&mut self) -> Cause {
        tokio::select! {
            _ = self.interrupt.recv() => Cause::Interrupt,
            _ = self.terminate.recv() => Cause::Terminate,
        }
    }
}

/// How a step went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It finished.
    Done,
    /// Its time ended first.
    TimedOut,
}

/// The steps of a stop, in order.
#[derive(Default)]
pub(crate) struct Shutdown<'a> {
    steps: Vec<Step<'a>>,
}

struct Step<'a> {
    name: &'static str,
    deadline: Duration,
    work: Pin<Box<dyn Future<Output = ()> + Send + 'a>>,
}

impl std::fmt::Debug for Shutdown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.steps.iter().map(|step| step.name))
            .finish()
    }
}

impl<'a> Shutdown<'a> {
    /// Adds the next step. Its future does not run before its turn.
    #[must_use]
    pub(crate) fn step(
        mut self,
        name: &'static str,
        deadline: Duration,
        work: impl Future<Output = ()> + Send + 'a,
    ) -> Self {
        let work = Box::pin(work);
        self.steps.push(Step {
            name,
            deadline,
            work,
        });
        self
    }

    /// Runs the steps, one after the other. A step that takes too long is left behind, with a warning.
    pub(crate) async fn run(self) -> Vec<(&'static str, Ending)> {
        let mut endings = Vec::with_capacity(self.steps.len());
        for step in self.steps {
            let ending = match tokio::time::timeout(step.deadline, step.work).await {
                Ok(()) => Ending::Done,
                Err(_) => Ending::TimedOut,
            };
            match ending {
                Ending::Done => tracing::info!(step = step.name, "a step of the stop is done"),
                Ending::TimedOut => tracing::warn!(
                    step = step.name,
                    deadline_ms = u64::try_from(step.deadline.as_millis()).unwrap_or(u64::MAX),
                    "did not finish in time; what is left is taken up at the next start"
                ),
            }
            endings.push((step.name, ending));
        }
        endings
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn steps_run_in_order_and_a_stuck_one_is_left_behind() {
        let order = Mutex::new(Vec::new());
        let note = |name| {
            let order = &order;
            async move { order.lock().unwrap().push(name) }
        };
        let endings = Shutdown::default()
            .step("not ready", Duration::from_secs(1), note("not ready"))
            .step("lanes", Duration::from_secs(5), std::future::pending())
            .step("engines", Duration::from_secs(1), note("engines"))
            .run()
            .await;
        assert_eq!(
            endings,
            [
                ("not ready", Ending::Done),
                ("lanes", Ending::TimedOut),
                ("engines", Ending::Done)
            ]
        );
        assert_eq!(*order.lock().unwrap(), ["not ready", "engines"]);
    }
}
