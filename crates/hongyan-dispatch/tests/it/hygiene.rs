//! Tokens that nobody heard of for long.

use std::time::Duration;

use hongyan_core::device::TokenState;

use crate::world::{World, device, world};

async fn is_dead(w: &World, id: &str) -> bool {
    let id = device(id);
    let found = w.ports.registry.devices(&w.app, std::slice::from_ref(&id));
    let found = found.await.unwrap().pop().flatten().unwrap();
    matches!(found.tokens[0].state, TokenState::Dead { .. })
}

#[tokio::test]
async fn stale_tokens_are_asked_about_and_fresh_ones_left_alone() {
    let w = world().await;
    w.device("stale1", None, &["alpha"]).await;
    w.device("living", None, &["alpha"]).await;
    assert_eq!(w.dispatch.hygiene().sweep().await.unwrap(), 0, "all fresh");
    w.pass(Duration::from_secs(31 * 86_400));
    w.device("living2", None, &["alpha"]).await;
    assert_eq!(w.dispatch.hygiene().sweep().await.unwrap(), 1);
    assert!(is_dead(&w, "stale1").await);
    assert!(!is_dead(&w, "living").await);
}

#[tokio::test]
async fn an_answer_that_calls_nearly_all_dead_is_not_believed() {
    let w = world().await;
    for n in 0..12 {
        w.device(&format!("stale{n}"), None, &["alpha"]).await;
    }
    w.pass(Duration::from_secs(31 * 86_400));
    assert_eq!(w.dispatch.hygiene().sweep().await.unwrap(), 0);
    assert!(!is_dead(&w, "stale0").await);
}
