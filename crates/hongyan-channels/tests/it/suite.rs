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
    ($($test:ident: $paper:literal;)*) => {$(
        #[tokio::test]
        async fn $test() {
            run($paper).await;
        }
    )*};
}

vendors! {
    apns: "apns";
    fcm: "fcm";
    huawei: "huawei";
    harmony: "harmony";
    xiaomi: "xiaomi";
    honor: "honor";
    oppo: "oppo";
    vivo: "vivo";
    meizu: "meizu";
    webpush: "webpush";
    jpush: "jpush";
    getui: "getui";
    umeng: "umeng";
    tpns: "tpns";
    aliyun: "aliyun";
    sms_twilio: "sms/twilio";
    sms_tencent: "sms/tencent";
    sms_aliyun: "sms/aliyun";
}
