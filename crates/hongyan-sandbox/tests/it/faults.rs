//! Trouble on demand, in each vendor's own words.

use hongyan_sandbox::{Channel, Endpoint, Fault, FaultKind};
use serde_json::json;

use crate::stage::{Answer, Door, Stage};

fn paths(stage: &Stage) -> Vec<(Channel, String)> {
    let accounts = stage.accounts();
    vec![
        (Channel::Apns, "/3/device/abcd".to_owned()),
        (
            Channel::Fcm,
            format!(
                "/v1/projects/{}/messages:send",
                accounts.fcm.service_account.project_id
            ),
        ),
        (
            Channel::Huawei,
            format!("/v1/{}/messages:send", accounts.huawei.client_id),
        ),
        (
            Channel::Harmony,
            format!("/v3/{}/messages:send", accounts.harmony.project_id),
        ),
        (Channel::Xiaomi, "/v3/message/regid".to_owned()),
        (Channel::Honor, "/api/v1/104/sendMessage".to_owned()),
        (
            Channel::Meizu,
            "/garcia/api/server/push/varnished/pushByPushId".to_owned(),
        ),
    ]
}

fn code(answer: &Answer) -> String {
    [
        "/reason",
        "/error/details/0/errorCode",
        "/error/details/0/reason",
        "/code",
    ]
    .iter()
    .map(|pointer| {
        if answer.text.is_empty() {
            String::new()
        } else {
            answer.at(pointer)
        }
    })
    .find(|code| !code.is_empty() && !code.contains(' '))
    .unwrap_or_default()
}

#[tokio::test]
async fn each_vendor_says_it_in_its_own_words() {
    let stage = Stage::open().await;
    let rows = [
        (
            FaultKind::Unavailable,
            Channel::Apns,
            503,
            "ServiceUnavailable",
        ),
        (FaultKind::Unavailable, Channel::Fcm, 503, "UNAVAILABLE"),
        (FaultKind::Unavailable, Channel::Huawei, 500, "81000001"),
        (FaultKind::Unavailable, Channel::Harmony, 500, "81000001"),
        (FaultKind::Unavailable, Channel::Xiaomi, 503, ""),
        (
            FaultKind::RateLimited,
            Channel::Apns,
            429,
            "TooManyRequests",
        ),
        (FaultKind::RateLimited, Channel::Fcm, 429, "QUOTA_EXCEEDED"),
        (FaultKind::RateLimited, Channel::Huawei, 503, ""),
        (FaultKind::RateLimited, Channel::Harmony, 503, ""),
        (FaultKind::RateLimited, Channel::Xiaomi, 200, "10027"),
        (
            FaultKind::QuotaExhausted,
            Channel::Apns,
            429,
            "TooManyRequests",
        ),
        (
            FaultKind::QuotaExhausted,
            Channel::Fcm,
            429,
            "QUOTA_EXCEEDED",
        ),
        (FaultKind::QuotaExhausted, Channel::Huawei, 200, "80000000"),
        (FaultKind::QuotaExhausted, Channel::Harmony, 200, "80000000"),
        (FaultKind::QuotaExhausted, Channel::Xiaomi, 200, "200001"),
        (FaultKind::TokenInvalid, Channel::Apns, 410, "Unregistered"),
        (FaultKind::TokenInvalid, Channel::Fcm, 404, "UNREGISTERED"),
        (FaultKind::TokenInvalid, Channel::Huawei, 200, "80300007"),
        (FaultKind::TokenInvalid, Channel::Harmony, 200, "80300007"),
        (FaultKind::TokenInvalid, Channel::Xiaomi, 200, "10029"),
        (
            FaultKind::AuthExpired,
            Channel::Apns,
            403,
            "ExpiredProviderToken",
        ),
        (
            FaultKind::AuthExpired,
            Channel::Fcm,
            401,
            "ACCESS_TOKEN_EXPIRED",
        ),
        (FaultKind::AuthExpired, Channel::Huawei, 401, "80200003"),
        (FaultKind::AuthExpired, Channel::Harmony, 401, "80200005"),
        (FaultKind::AuthExpired, Channel::Xiaomi, 200, "21301"),
        (FaultKind::Unavailable, Channel::Meizu, 200, "1001"),
        (FaultKind::RateLimited, Channel::Meizu, 200, "110010"),
        (FaultKind::QuotaExhausted, Channel::Meizu, 200, "110019"),
        (FaultKind::TokenInvalid, Channel::Meizu, 200, "200"),
        (FaultKind::AuthExpired, Channel::Meizu, 200, "1006"),
        (FaultKind::Unavailable, Channel::Honor, 500, ""),
        (FaultKind::RateLimited, Channel::Honor, 429, ""),
        (FaultKind::QuotaExhausted, Channel::Honor, 200, "200"),
        (FaultKind::TokenInvalid, Channel::Honor, 200, "200"),
        (FaultKind::AuthExpired, Channel::Honor, 401, "401"),
    ];
    let mut wire = stage.connect(Door::Http2).await;
    for (kind, channel, status, want) in rows {
        let path = paths(&stage)
            .into_iter()
            .find(|(of, _)| *of == channel)
            .unwrap()
            .1;
        stage.handle.inject(channel, Fault::times(kind, 1)).unwrap();
        let answer = wire.call("POST", &path, &[], "{}").await.unwrap();
        let got = if channel == Channel::Xiaomi && status == 200 {
            answer.at("/code")
        } else {
            code(&answer)
        };
        assert_eq!(
            (answer.status, got.as_str()),
            (status, want),
            "{kind:?} {channel}"
        );
        let record = stage.handle.requests(channel).pop().unwrap();
        assert!(record.verdict.starts_with("fault "), "{}", record.verdict);
        assert!(stage.handle.faults(channel).is_empty());
    }
}

#[tokio::test]
async fn streams_are_reset_and_connections_told_to_go_away() {
    let stage = Stage::open().await;
    for (channel, path) in paths(&stage) {
        for kind in [FaultKind::Reset, FaultKind::Goaway] {
            stage.handle.inject(channel, Fault::times(kind, 1)).unwrap();
            let mut wire = stage.connect(Door::Http2).await;
            assert!(
                wire.call("POST", &path, &[], "{}").await.is_err(),
                "{kind:?} {channel}"
            );
            assert_eq!(stage.handle.requests(channel).pop().unwrap().status, 0);
            // A new connection works again; a reset stream leaves the old one usable.
            let mut next = if kind == FaultKind::Reset {
                wire
            } else {
                stage.connect(Door::Http2).await
            };
            assert!(
                next.call("POST", &path, &[], "{}").await.is_ok(),
                "{kind:?} {channel}"
            );

            stage.handle.inject(channel, Fault::times(kind, 1)).unwrap();
            let mut wire = stage.connect(Door::Http1).await;
            let answer = wire.call("POST", &path, &[], "{}").await;
            // HTTP/1.1 has an answer that says that it is the last one.
            let last = kind == FaultKind::Goaway;
            assert_eq!(answer.is_ok(), last, "{kind:?} {channel} 1.1");
            if last {
                let next = wire.call("POST", &path, &[], "{}").await;
                assert!(next.is_err(), "{channel} closed the connection");
            }
        }
    }
}

#[tokio::test]
async fn a_malformed_answer_is_not_json_and_a_slow_one_is_processed() {
    let stage = Stage::open().await;
    for (channel, path) in paths(&stage) {
        stage
            .handle
            .inject(channel, Fault::times(FaultKind::Malformed, 1))
            .unwrap();
        let answer = stage.call("POST", &path, &[], "{}").await;
        assert!(
            serde_json::from_str::<serde_json::Value>(&answer.text).is_err(),
            "{channel}"
        );
        let slow = Fault {
            delay_ms: Some(1),
            ..Fault::times(FaultKind::Slow, 1)
        };
        stage.handle.inject(channel, slow).unwrap();
        stage.call("POST", &path, &[], "{}").await;
        let record = stage.handle.requests(channel).pop().unwrap();
        assert!(
            record.verdict.starts_with("fault slow, then "),
            "{}",
            record.verdict
        );
    }
}

#[tokio::test]
async fn a_fault_can_wait_for_one_token_or_strike_the_token_endpoint() {
    let stage = Stage::open().await;
    let path = |token: &str| format!("/3/device/{token}");
    let fault = Fault {
        token: Some("aa11".to_owned()),
        ..Fault::always(FaultKind::TokenInvalid)
    };
    stage.handle.inject(Channel::Apns, fault).unwrap();
    assert_eq!(
        stage.call("POST", &path("bb22"), &[], "{}").await.status,
        403
    );
    assert_eq!(
        stage.call("POST", &path("aa11"), &[], "{}").await.status,
        410
    );

    let fault = Fault {
        endpoint: Endpoint::Auth,
        ..Fault::always(FaultKind::Unavailable)
    };
    stage.handle.inject(Channel::Huawei, fault).unwrap();
    assert_eq!(
        stage.call("POST", "/oauth2/v3/token", &[], "").await.status,
        503
    );
    let send = paths(&stage)[2].1.clone();
    let answer = stage.call("POST", &send, &[], "{}").await;
    assert_eq!(answer.json()["code"], json!("80200001"));
    stage.handle.clear_faults(Channel::Huawei);
    assert_eq!(
        stage.call("POST", "/oauth2/v3/token", &[], "").await.status,
        400
    );
}
