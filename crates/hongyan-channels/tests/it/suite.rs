//! Every vendor keeps every promise of the channel port.

use std::sync::Arc;

use hongyan_testkit::channel_suite::{Bench, CASES};

use crate::bench::PaperBench;
use crate::paper;
use crate::smpp::SmppBench;

async fn run<B: Bench + 'static>(vendor: &str, start: impl AsyncFn() -> B) {
    for (name, case) in CASES {
        println!("{vendor}::{name}");
        case(Arc::new(start().await)).await;
    }
}

macro_rules! vendors {
    ($($test:ident: $paper:literal;)*) => {$(
        #[tokio::test]
        async fn $test() {
            let paper = paper::ALL.iter().find(|p| p.name == $paper).unwrap();
            run($paper, async || PaperBench::start(*paper).await).await;
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

#[tokio::test]
async fn sms_smpp() {
    run("sms/smpp", SmppBench::start).await;
}
