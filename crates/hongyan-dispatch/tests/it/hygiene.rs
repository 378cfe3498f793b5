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

/// A page of devices has a thousand.
#[tokio::test]
async fn a_few_on_each_page_are_not_believed_either() {
    let w = world().await;
    let ids: Vec<String> = (0..2_005)
        .map(|n| match n % 1_000 {
            0..5 => format!("{n:04}stale"),
            _ => format!("{n:04}"),
        })
        .collect();
    let (asked, others): (Vec<_>, Vec<_>) = ids.into_iter().partition(|id| id.contains("stale"));
    w.import(&asked, &["alpha"]).await;
    w.import(&others, &[]).await;
    w.pass(Duration::from_secs(31 * 86_400));
    assert_eq!(w.dispatch.hygiene().sweep().await.unwrap(), 5);
    let mut dead = 0;
    for id in &asked {
        dead += usize::from(is_dead(&w, id).await);
    }
    assert_eq!((dead, asked.len()), (5, 15), "those of the first page");
}

#[tokio::test]
async fn a_browser_that_stayed_away_for_sixty_days_is_forgotten() {
    use hongyan_core::device::Platform;
    use hongyan_core::push::BROWSER_PREFIX;
    let w = world().await;
    let browser = format!("{BROWSER_PREFIX}1");
    for id in [browser.as_str(), "a-page-of-the-app"] {
        w.device(id, None, &[]).await;
        let ids = [device(id)];
        let found = w.ports.registry.devices(&w.app, &ids).await.unwrap();
        let mut known = found.into_iter().next().flatten().unwrap();
        known.platform = Platform::Web;
        let version = known.version;
        known.version += 1;
        w.ports
            .registry
            .put_device(known, Some(version))
            .await
            .unwrap();
    }
    let left = async || {
        let page = w
            .ports
            .registry
            .device_page(&w.app, None, 10)
            .await
            .unwrap();
        page.len()
    };
    w.pass(Duration::from_secs(59 * 86_400));
    w.dispatch.hygiene().sweep().await.unwrap();
    assert_eq!(left().await, 2);
    w.pass(Duration::from_secs(2 * 86_400));
    w.dispatch.hygiene().sweep().await.unwrap();
    assert_eq!(left().await, 1, "the page's device is the app's to forget");
}
