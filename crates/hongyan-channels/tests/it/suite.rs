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

macro_rules! vendors {
    ($($vendor:ident)*) => {$(
        #[tokio::test]
        async fn $vendor() {
            run(stringify!($vendor)).await;
        }
    )*};
}

vendors! {
    apns
    fcm
    huawei
    harmony
    xiaomi
    honor
    oppo
    vivo
    meizu
    webpush
}

#[tokio::test]
async fn tpns() {
    run("tpns").await;
}

#[tokio::test]
async fn aliyun() {
    run("aliyun").await;
}

#[tokio::test]
async fn sms_twilio() {
    run("sms/twilio").await;
}

#[tokio::test]
async fn sms_tencent() {
    run("sms/tencent").await;
}

#[tokio::test]
async fn sms_aliyun() {
    run("sms/aliyun").await;
}
