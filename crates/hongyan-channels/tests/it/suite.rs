//! Every vendor keeps every promise of the channel port.

use std::sync::Arc;

use hongyan_testkit::channel_suite::CASES;

use crate::bench::PaperBench;
use crate::paper;

async fn run(vendor: &str) {
    let paper = paper::ALL.iter().find(|p| p.name == vendor).unwrap();
    for (name, case) in CASES {
        println!("{vendor}::{name}");
        case(Arc::new(PaperBench::start(*paper).await)).await;
    }
}

#[tokio::test]
async fn apns() {
    run("apns").await;
}

#[tokio::test]
async fn fcm() {
    run("fcm").await;
}

#[tokio::test]
async fn huawei() {
    run("huawei").await;
}

#[tokio::test]
async fn harmony() {
    run("harmony").await;
}

#[tokio::test]
async fn xiaomi() {
    run("xiaomi").await;
}

#[tokio::test]
async fn honor() {
    run("honor").await;
}

#[tokio::test]
async fn meizu() {
    run("meizu").await;
}
