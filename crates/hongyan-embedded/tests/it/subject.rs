//! An embedded engine as the suites want it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use hongyan_core::Timestamp;
use hongyan_embedded::{Embedded, Engine, OpenError, Options};
use hongyan_testkit::suite::{Ports, Subject};
use tempfile::TempDir;

pub(crate) struct Local {
    pub(crate) dir: TempDir,
    pub(crate) engine: Engine,
    pub(crate) open: Option<Embedded>,
}

/// A directory, in memory where there is such a place: most tests are not about the disk.
pub(crate) fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

/// Options for tests: a failed commit fails the test, not the process.
pub(crate) fn options(dir: &std::path::Path, engine: Engine) -> Options {
    let mut options = Options::new(dir).engine(engine);
    options.on_fatal = Arc::new(|fatal| panic!("{fatal}"));
    options
}

/// Opens, waiting for the lock of a handle that is being dropped.
pub(crate) fn open(options: &Options) -> Result<Embedded, OpenError> {
    let begin = Instant::now();
    loop {
        match Embedded::open(options) {
            Err(OpenError::Locked(_)) if begin.elapsed() < Duration::from_secs(20) => {
                std::thread::sleep(Duration::from_millis(5));
            }
            done => return done,
        }
    }
}

impl Local {
    pub(crate) fn fresh(engine: Engine) -> Self {
        let dir = scratch();
        let open = open(&options(dir.path(), engine)).unwrap();
        Self {
            dir,
            engine,
            open: Some(open),
        }
    }

    pub(crate) fn embedded(&self) -> &Embedded {
        self.open.as_ref().unwrap()
    }
}

#[async_trait]
impl Subject for Local {
    fn ports(&self) -> Ports {
        ports(self.embedded())
    }

    async fn restart(&mut self) {
        if let Some(open) = self.open.take() {
            open.close().await;
        }
        self.open = Some(open(&options(self.dir.path(), self.engine)).unwrap());
    }

    async fn maintain(&self, now: Timestamp) -> u64 {
        self.embedded().maintain(now).await.unwrap()
    }
}

pub(crate) fn ports(embedded: &Embedded) -> Ports {
    Ports {
        registry: embedded.registry(),
        inbox: embedded.inbox(),
        work: embedded.work(),
        ledger: embedded.ledger(),
        quota: embedded.quota(),
        commit: embedded.commit(),
    }
}

pub(crate) async fn fjall() -> Box<dyn Subject> {
    Box::new(Local::fresh(Engine::Fjall))
}

pub(crate) async fn sqlite() -> Box<dyn Subject> {
    Box::new(Local::fresh(Engine::Sqlite))
}
