//! One engine as the other's oracle: the same random operations, the same answers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use hongyan_core::StoreError;
use hongyan_embedded::Engine;
use hongyan_embedded::store::{Admission, Direction, Range, Rows, Space, Txn, Urgency, View};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::subject::Local;

#[derive(Debug, Clone)]
enum Step {
    Put(Vec<u8>, Vec<u8>),
    Remove(Vec<u8>),
    Range {
        from: Vec<u8>,
        to: Option<Vec<u8>>,
        reverse: bool,
        limit: usize,
    },
}

/// An operation of some steps; one that is refused must leave nothing.
#[derive(Debug, Clone)]
struct Operation {
    steps: Vec<Step>,
    refused: bool,
    relaxed: bool,
}

fn keys() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(255)], 0..3)
}

fn steps() -> impl Strategy<Value = Step> {
    let value = prop::collection::vec(any::<u8>(), 0..40);
    let range = (keys(), prop::option::of(keys()), any::<bool>(), 0usize..6);
    prop_oneof![
        4 => (keys(), value).prop_map(|(k, v)| Step::Put(k, v)),
        2 => keys().prop_map(Step::Remove),
        3 => range.prop_map(|(from, to, reverse, limit)| Step::Range { from, to, reverse, limit }),
    ]
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let operation = (
        prop::collection::vec(steps(), 1..8),
        any::<bool>(),
        any::<bool>(),
    );
    let operation = operation.prop_map(|(steps, refused, relaxed)| Operation {
        steps,
        refused,
        relaxed,
    });
    prop::collection::vec(operation, 1..12)
}

/// Keys of one run begin with its number, so that all runs share a store.
fn prefixed(run: u64, key: &[u8]) -> Vec<u8> {
    [&run.to_be_bytes(), key].concat()
}

fn bounds(run: u64, from: &[u8], to: Option<&[u8]>) -> (Vec<u8>, Vec<u8>) {
    let end = to.map_or_else(|| (run + 1).to_be_bytes().to_vec(), |to| prefixed(run, to));
    (prefixed(run, from), end)
}

fn model_range(
    model: &BTreeMap<Vec<u8>, Vec<u8>>,
    (from, to): (Vec<u8>, Vec<u8>),
    reverse: bool,
    limit: usize,
) -> Rows {
    let rows = model.iter().filter(|(k, _)| **k >= from && **k < to);
    let mut rows: Rows = rows.map(|(k, v)| (k.clone(), v.clone())).collect();
    if reverse {
        rows.reverse();
    }
    rows.truncate(limit);
    rows
}

fn apply(
    txn: &mut Txn<'_>,
    run: u64,
    operation: &Operation,
) -> Result<Vec<Rows>, (bool, Vec<Rows>)> {
    let mut seen = Vec::new();
    for step in &operation.steps {
        match step {
            Step::Put(key, value) => txn.put(Space::Meta, prefixed(run, key), value.clone()),
            Step::Remove(key) => txn.remove(Space::Meta, prefixed(run, key)),
            Step::Range {
                from,
                to,
                reverse,
                limit,
            } => {
                let (from, to) = bounds(run, from, to.as_deref());
                seen.push(read(txn, &from, &to, *reverse, *limit));
            }
        }
    }
    if operation.refused {
        Err((true, seen))
    } else {
        Ok(seen)
    }
}

fn read(view: &impl View, from: &[u8], to: &[u8], reverse: bool, limit: usize) -> Rows {
    let range = Range {
        from,
        to: Some(to),
        direction: if reverse {
            Direction::Reverse
        } else {
            Direction::Forward
        },
        limit,
    };
    view.range(Space::Meta, range).unwrap()
}

/// What an operation answers: what its ranges saw, and whether it was refused.
#[derive(Debug)]
struct Refused(bool, Vec<Rows>);

impl From<StoreError> for Refused {
    fn from(e: StoreError) -> Self {
        panic!("{e}")
    }
}

fn model_apply(
    model: &mut BTreeMap<Vec<u8>, Vec<u8>>,
    run: u64,
    operation: &Operation,
) -> Vec<Rows> {
    let mut own = model.clone();
    let mut seen = Vec::new();
    for step in &operation.steps {
        match step {
            Step::Put(key, value) => drop(own.insert(prefixed(run, key), value.clone())),
            Step::Remove(key) => drop(own.remove(&prefixed(run, key))),
            Step::Range {
                from,
                to,
                reverse,
                limit,
            } => {
                let bounds = bounds(run, from, to.as_deref());
                seen.push(model_range(&own, bounds, *reverse, *limit));
            }
        }
    }
    if !operation.refused {
        *model = own;
    }
    seen
}

#[test]
fn both_engines_answer_as_the_model_does() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let engines = Engine::ALL.map(Local::fresh);
    let runs = AtomicU64::new(1 << 40);
    let config = ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let mut runner = TestRunner::new(config);
    let property = |operations: Vec<Operation>| {
        let run = runs.fetch_add(1, Ordering::SeqCst);
        let mut model = BTreeMap::new();
        let wanted: Vec<Vec<Rows>> = operations
            .iter()
            .map(|o| model_apply(&mut model, run, o))
            .collect();
        for local in &engines {
            let store = local.embedded().store();
            // All at once, so that they share batches.
            let pending = operations.iter().cloned().map(|operation| {
                let urgency = if operation.relaxed {
                    Urgency::Relaxed
                } else {
                    Urgency::Durable
                };
                store.write(Admission::Normal, urgency, 1, move |txn| {
                    apply(txn, run, &operation).map_err(|(r, seen)| Refused(r, seen))
                })
            });
            let results = runtime.block_on(join_in_order(pending.collect()));
            for (result, (wanted, operation)) in
                results.into_iter().zip(wanted.iter().zip(&operations))
            {
                let (refused, seen) = match result {
                    Ok(seen) => (false, seen),
                    Err(Refused(refused, seen)) => (refused, seen),
                };
                prop_assert_eq!(refused, operation.refused);
                prop_assert_eq!(&seen, wanted, "{:?}", local.engine);
            }
            let (from, to) = bounds(run, b"", None);
            let stored = read(store, &from, &to, false, 1_000);
            let want: Rows = model.clone().into_iter().collect();
            prop_assert_eq!(stored, want, "{:?}", local.engine);
            for key in model.keys() {
                let stored = store.get(Space::Meta, key).unwrap();
                prop_assert_eq!(stored.as_ref(), model.get(key));
            }
        }
        Ok(())
    };
    runner.run(&operations(), property).unwrap();
}

/// Polls the futures in order, so that their operations are queued in order, then waits for all.
async fn join_in_order<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut pinned: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut results: Vec<Option<F::Output>> = pinned.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        let mut is_done = true;
        for (future, result) in pinned.iter_mut().zip(&mut results) {
            if result.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(value) => *result = Some(value),
                    std::task::Poll::Pending => is_done = false,
                }
            }
        }
        if is_done {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    results.into_iter().flatten().collect()
}
