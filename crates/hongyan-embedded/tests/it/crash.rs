//! A process that is killed while it writes: nothing that it acknowledged is lost.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use hongyan_embedded::Engine;

use crate::sets::{self, Found};
use crate::subject::{open, options, ports};

const DIR: &str = "HONGYAN_TEST_CRASH_DIR";
const ENGINE: &str = "HONGYAN_TEST_CRASH_ENGINE";
const FIRST: &str = "HONGYAN_TEST_CRASH_FIRST";

/// The child: writes and says what was acknowledged until it is killed. Does nothing by itself.
#[test]
fn child() {
    let (Ok(dir), Ok(engine), Ok(first)) = (
        std::env::var(DIR),
        std::env::var(ENGINE),
        std::env::var(FIRST),
    ) else {
        return;
    };
    let engine = Engine::parse(&engine).unwrap();
    let first: u64 = first.parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    println!();
    runtime.block_on(async move {
        let embedded = open(&options(dir.as_ref(), engine)).unwrap();
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..8 {
            let ports = ports(&embedded);
            writers.spawn(async move {
                // Bounded, should the parent be gone.
                for round in 0..5_000 {
                    let n = first + round * 8 + writer;
                    let done = ports
                        .commit
                        .commit(vec![sets::full(n, 300)])
                        .await
                        .remove(0);
                    done.unwrap();
                    let mut out = std::io::stdout().lock();
                    writeln!(out, "acked {n}").unwrap();
                    out.flush().unwrap();
                }
            });
        }
        writers.join_all().await;
    });
}

async fn nothing_acknowledged_is_lost(engine: Engine) {
    let dir = tempfile::tempdir().unwrap();
    let mut acked: Vec<u64> = Vec::new();
    // On the same store, so that recovery runs over what recovery left.
    for (round, after) in [150usize, 1, 420].into_iter().enumerate() {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["crash::child", "--exact", "--nocapture", "--test-threads=1"])
            .env(DIR, dir.path())
            .env(ENGINE, engine.as_str())
            .env(FIRST, (round * 100_000).to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = 0;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if let Some(n) = line.strip_prefix("acked ").and_then(|n| n.parse().ok()) {
                acked.push(n);
                said += 1;
                if said == after {
                    // SIGKILL; what is still in the pipe was acknowledged too.
                    child.kill().unwrap();
                }
            }
        }
        child.wait().unwrap();
        assert!(said >= after, "the child ended by itself after {said}");
        let embedded = open(&options(dir.path(), engine)).unwrap();
        assert!(embedded.loss().is_none());
        let ports = ports(&embedded);
        for n in &acked {
            assert_eq!(sets::find(&ports, *n).await, Found::Whole, "set {n}");
        }
        // Those under way may be there or not, but never in part.
        for n in (round * 100_000) as u64.. {
            match sets::find(&ports, n).await {
                Found::Whole => {}
                Found::Missing if !acked.iter().any(|a| *a > n && *a < n + 64) => break,
                Found::Missing => {}
                other => panic!("set {n} is {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn fjall_keeps_what_it_acknowledged() {
    nothing_acknowledged_is_lost(Engine::Fjall).await;
}

#[tokio::test]
async fn sqlite_keeps_what_it_acknowledged() {
    nothing_acknowledged_is_lost(Engine::Sqlite).await;
}
