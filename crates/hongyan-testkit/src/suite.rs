//! How conformance suites are written and run.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use hongyan_core::Timestamp;
use hongyan_core::port::{Commit, Inbox, Ledger, Quota, Registry, Work};

/// The ports of one engine.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "the fields are named as the ports")]
pub struct Ports {
    pub registry: Arc<dyn Registry>,
    pub inbox: Arc<dyn Inbox>,
    pub work: Arc<dyn Work>,
    pub ledger: Arc<dyn Ledger>,
    pub quota: Arc<dyn Quota>,
    pub commit: Arc<dyn Commit>,
}

/// An engine under test, empty at first.
#[async_trait]
pub trait Subject: Send {
    /// Its ports.
    fn ports(&self) -> Ports;
    /// Ends the engine and opens it again on the same data. Ports given out before are dropped by then.
    async fn restart(&mut self);
    /// Lets the engine drop what has expired.
    async fn maintain(&self, now: Timestamp) -> u64;
}

/// What a case becomes when it is called.
pub type Running<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;
/// One promise.
pub type Case = for<'a> fn(&'a mut dyn Subject) -> Running<'a>;

/// Runs the case of that name on a fresh engine.
///
/// # Panics
/// When the promise is not kept, or the table has no such case.
#[allow(
    clippy::panic,
    clippy::expect_used,
    reason = "this is how a test fails"
)]
pub fn run<F>(cases: &[(&str, Case)], name: &str, open: impl FnOnce() -> F)
where
    F: Future<Output = Box<dyn Subject>>,
{
    let Some((_, case)) = cases.iter().find(|(known, _)| *known == name) else {
        panic!("the suite has no case {name}");
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let mut subject = open().await;
        case(subject.as_mut()).await;
    });
}

/// Writes the table of a suite, and a macro of the suite's name that makes each case a test:
/// `registry_suite!(open)`.
macro_rules! cases {
    ($d:tt $suite:ident: $($case:ident),+ $(,)?) => {
        /// Every promise of the port, by name.
        pub const CASES: &[(&str, $crate::suite::Case)] =
            &[$((stringify!($case), |subject| Box::pin($case(subject)))),+];

        /// Makes each case of the suite a test on the engine that the given function opens.
        #[macro_export]
        macro_rules! $suite {
            ($d open:expr) => {
                $(
                    #[test]
                    fn $case() {
                        ::hongyan_testkit::suite::run(
                            ::hongyan_testkit::$suite::CASES,
                            stringify!($case),
                            $d open,
                        );
                    }
                )+
            };
        }
    };
}
pub(crate) use cases;
