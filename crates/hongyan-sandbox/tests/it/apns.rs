//! Each check of the notes on APNs is a row.

use std::time::Duration;

use hongyan_sandbox::{Channel, OTHER_PACKAGE, PACKAGE, TokenState};
use serde_json::{Value, json};

use crate::stage::{Door, Stage, es256, now_s};

const ALERT: &str = r#"{"aps":{"alert":{"title":"t","body":"b"}},"hy_id":"m1"}"#;

fn provider_token(stage: &Stage, claims: Value) -> String {
    let account = &stage.accounts().apns;
    let header = json!({"alg": "ES256", "kid": account.key_id});
    let mut all = json!({"iss": account.team_id, "iat": now_s()});
    for (name, value) in claims.as_object().unwrap() {
        all[name] = value.clone();
    }
    format!("bearer {}", es256(&account.private_key, &header, &all))
}

fn token(stage: &Stage, state: TokenState) -> String {
    stage
        .handle
        .issue_tokens(Channel::Apns, 1, state)
        .unwrap()
        .remove(0)
}

#[tokio::test]
async fn a_good_alert_is_accepted_and_echoes_its_id() {
    let stage = Stage::open().await;
    let bearer = provider_token(&stage, json!({}));
    let path = format!("/3/device/{}", token(&stage, TokenState::Valid));
    let id = "123e4567-e89b-12d3-a456-426614174000";
    let headers = [
        ("authorization", bearer.as_str()),
        ("apns-topic", PACKAGE),
        ("apns-push-type", "alert"),
        ("apns-id", id),
    ];
    let answer = stage.call("POST", &path, &headers, ALERT).await;
    assert_eq!((answer.status, answer.text.as_str()), (200, ""));
    assert_eq!(answer.headers["apns-id"], id);
    let record = stage.handle.requests(Channel::Apns).remove(0);
    assert_eq!((record.status, record.verdict.as_str()), (200, "accepted"));
    assert_eq!(record.body.pointer("/hy_id"), Some(&json!("m1")));
    assert!(
        record.headers["authorization"].len() < 20,
        "{:?}",
        record.headers
    );
}

#[tokio::test]
async fn headers_paths_and_bodies_are_held_against_the_rules() {
    let stage = Stage::open().await;
    let bearer = provider_token(&stage, json!({}));
    let token = token(&stage, TokenState::Valid);
    let mut wire = stage.connect(Door::Http2).await;
    let long = "x".repeat(65);
    let big = format!(r#"{{"aps":{{}},"p":"{}"}}"#, "x".repeat(4096));
    let voip = format!("{PACKAGE}.voip");
    let live = format!("{PACKAGE}.push-type.liveactivity");
    let device = format!("/3/device/{token}");
    // path, headers beside authorization, body, status, reason
    type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str, u16, &'a str);
    let topic = ("apns-topic", PACKAGE);
    let rows: &[Row<'_>] = &[
        (&device, &[topic], ALERT, 200, ""),
        (
            &device.to_uppercase().replace("DEVICE", "device"),
            &[topic],
            ALERT,
            200,
            "",
        ),
        ("/3/device/", &[topic], ALERT, 400, "MissingDeviceToken"),
        ("/3/device", &[topic], ALERT, 400, "MissingDeviceToken"),
        ("/3/device/ab/cd", &[topic], ALERT, 404, "BadPath"),
        ("/3/device/xyz", &[topic], ALERT, 400, "BadDeviceToken"),
        ("/3/device/abcd", &[topic], ALERT, 400, "BadDeviceToken"),
        (&device, &[], ALERT, 400, "MissingTopic"),
        (&device, &[("apns-topic", "b ad")], ALERT, 400, "BadTopic"),
        (
            &device,
            &[("apns-topic", "com.foreign.app")],
            ALERT,
            400,
            "TopicDisallowed",
        ),
        (
            &device,
            &[("apns-topic", OTHER_PACKAGE)],
            ALERT,
            400,
            "DeviceTokenNotForTopic",
        ),
        (
            &device,
            &[topic, ("apns-id", "1")],
            ALERT,
            400,
            "BadMessageId",
        ),
        (
            &device,
            &[topic, ("apns-expiration", "soon")],
            ALERT,
            400,
            "BadExpirationDate",
        ),
        (
            &device,
            &[topic, ("apns-expiration", "-1")],
            ALERT,
            400,
            "BadExpirationDate",
        ),
        (&device, &[topic, ("apns-expiration", "0")], ALERT, 200, ""),
        (
            &device,
            &[topic, ("apns-priority", "7")],
            ALERT,
            400,
            "BadPriority",
        ),
        (&device, &[topic, ("apns-priority", "1")], ALERT, 200, ""),
        (
            &device,
            &[topic, ("apns-collapse-id", &long)],
            ALERT,
            400,
            "BadCollapseId",
        ),
        (
            &device,
            &[topic, ("apns-collapse-id", &long[1..])],
            ALERT,
            200,
            "",
        ),
        (
            &device,
            &[topic, ("apns-push-type", "shout")],
            ALERT,
            400,
            "InvalidPushType",
        ),
        (&device, &[topic, topic], ALERT, 400, "DuplicateHeaders"),
        (
            &device,
            &[topic, ("apns-push-type", "background")],
            ALERT,
            400,
            "BadPriority",
        ),
        (
            &device,
            &[
                topic,
                ("apns-push-type", "background"),
                ("apns-priority", "5"),
            ],
            r#"{"aps":{"content-available":1}}"#,
            200,
            "",
        ),
        (
            &device,
            &[topic, ("apns-push-type", "voip")],
            ALERT,
            400,
            "TopicDisallowed",
        ),
        (
            &device,
            &[("apns-topic", &voip), ("apns-push-type", "voip")],
            &big,
            200,
            "",
        ),
        (
            &device,
            &[("apns-topic", &live), ("apns-push-type", "liveactivity")],
            ALERT,
            200,
            "",
        ),
        (&device, &[topic], "", 400, "PayloadEmpty"),
        (&device, &[topic], &big, 413, "PayloadTooLarge"),
        (&device, &[topic], "{", 400, "BadRequestPayload"),
    ];
    for (path, headers, body, status, reason) in rows {
        let mut all = vec![("authorization", bearer.as_str())];
        all.extend_from_slice(headers);
        let answer = wire
            .call("POST", path, &all, (*body).to_owned())
            .await
            .unwrap();
        let got = if answer.text.is_empty() {
            String::new()
        } else {
            answer.at("/reason")
        };
        assert_eq!(
            (answer.status, got.as_str()),
            (*status, *reason),
            "{path} {headers:?}"
        );
        assert!(answer.headers.contains_key("apns-id"), "{path} {headers:?}");
    }
    let all = [("authorization", bearer.as_str()), topic];
    let answer = wire.call("GET", &device, &all, "").await.unwrap();
    assert_eq!(
        (answer.status, answer.at("/reason").as_str()),
        (405, "MethodNotAllowed")
    );
}

#[tokio::test]
async fn provider_tokens_are_verified() {
    let stage = Stage::open().await;
    let path = format!("/3/device/{}", token(&stage, TokenState::Valid));
    let account = stage.accounts().apns.clone();
    let foreign = stage.accounts().harmony.service_account.private_key.clone();
    let es = |header: Value, claims: Value| {
        format!("bearer {}", es256(&account.private_key, &header, &claims))
    };
    let kid = &account.key_id;
    let team = &account.team_id;
    let good = json!({"iss": team, "iat": now_s()});
    let rs256 = crate::stage::rsa(
        &foreign,
        &ring::signature::RSA_PKCS1_SHA256,
        &json!({"alg": "RS256", "kid": kid}),
        &good,
    );
    let mut broken = es(json!({"alg": "ES256", "kid": kid}), good.clone());
    broken.replace_range(broken.len() - 8.., "AAAAAAAA");
    let header = json!({"alg": "ES256", "kid": kid});
    let rows = [
        (String::new(), "MissingProviderToken"),
        ("basic abc".to_owned(), "MissingProviderToken"),
        ("bearer abc".to_owned(), "InvalidProviderToken"),
        (broken, "InvalidProviderToken"),
        (format!("bearer {rs256}"), "InvalidProviderToken"),
        (
            es(json!({"alg": "ES256", "kid": "OTHERKEY00"}), good.clone()),
            "InvalidProviderToken",
        ),
        (
            es(header.clone(), json!({"iss": "OTHERTEAM0", "iat": now_s()})),
            "InvalidProviderToken",
        ),
        (
            es(header.clone(), json!({"iss": team})),
            "InvalidProviderToken",
        ),
        (
            es(header.clone(), json!({"iss": team, "iat": now_s() - 3700})),
            "ExpiredProviderToken",
        ),
        (
            es(header.clone(), json!({"iss": team, "iat": now_s() + 3700})),
            "InvalidProviderToken",
        ),
    ];
    for (bearer, reason) in rows {
        let mut headers = vec![("apns-topic", PACKAGE)];
        if !bearer.is_empty() {
            headers.push(("authorization", bearer.as_str()));
        }
        let answer = stage.call("POST", &path, &headers, ALERT).await;
        assert_eq!(
            (answer.status, answer.at("/reason").as_str()),
            (403, reason),
            "{bearer}"
        );
    }
}

#[tokio::test]
async fn a_connection_takes_a_new_provider_token_only_after_twenty_minutes() {
    let stage = Stage::open().await;
    let path = format!("/3/device/{}", token(&stage, TokenState::Valid));
    let mut wire = stage.connect(Door::Http2).await;
    let first = provider_token(&stage, json!({}));
    let second = provider_token(&stage, json!({"iat": now_s() - 1}));
    let mut send = async |bearer: &str| {
        let headers = [("authorization", bearer), ("apns-topic", PACKAGE)];
        wire.call("POST", &path, &headers, ALERT).await.unwrap()
    };
    assert_eq!(send(&first).await.status, 200);
    let answer = send(&second).await;
    assert_eq!(answer.status, 429);
    assert_eq!(answer.at("/reason"), "TooManyProviderTokenUpdates");
    assert_eq!(send(&first).await.status, 200);
    stage.handle.advance(Duration::from_secs(21 * 60));
    assert_eq!(send(&second).await.status, 200);
    stage.handle.advance(Duration::from_secs(40 * 60));
    assert_eq!(send(&second).await.at("/reason"), "ExpiredProviderToken");
}

#[tokio::test]
async fn tokens_have_states() {
    let stage = Stage::open().await;
    let bearer = provider_token(&stage, json!({}));
    let rows = [
        (
            TokenState::Dead {
                since_ms: 1_700_000_000_123,
            },
            410,
            "Unregistered",
            "1700000000123",
        ),
        (
            TokenState::Expired {
                since_ms: 1_700_000_000_456,
            },
            410,
            "ExpiredToken",
            "1700000000456",
        ),
        (TokenState::OtherEnvironment, 400, "BadDeviceToken", ""),
        (TokenState::OtherApp, 400, "DeviceTokenNotForTopic", ""),
    ];
    for (state, status, reason, timestamp) in rows {
        let path = format!("/3/device/{}", token(&stage, state));
        let headers = [("authorization", bearer.as_str()), ("apns-topic", PACKAGE)];
        let answer = stage.call("POST", &path, &headers, ALERT).await;
        assert_eq!(
            (answer.status, answer.at("/reason").as_str()),
            (status, reason),
            "{state:?}"
        );
        assert_eq!(answer.at("/timestamp"), timestamp, "{state:?}");
    }
}

#[tokio::test]
async fn a_client_certificate_lets_its_own_topic_in() {
    let stage = Stage::open().await;
    let path = format!("/3/device/{}", token(&stage, TokenState::Valid));
    let mut wire = stage.connect(Door::WithCertificate).await;
    let rows: [(&[(&str, &str)], u16); 4] = [
        (&[], 200),
        (&[("apns-topic", PACKAGE)], 200),
        (
            &[("authorization", "bearer ignored"), ("apns-topic", PACKAGE)],
            200,
        ),
        (&[("apns-topic", OTHER_PACKAGE)], 400),
    ];
    for (headers, status) in rows {
        let answer = wire.call("POST", &path, headers, ALERT).await.unwrap();
        assert_eq!(answer.status, status, "{headers:?} {}", answer.text);
    }
}

#[tokio::test]
async fn http_1_is_refused() {
    let stage = Stage::open().await;
    let path = format!("/3/device/{}", token(&stage, TokenState::Valid));
    let mut wire = stage.connect(Door::Http1).await;
    assert!(wire.call("POST", &path, &[], ALERT).await.is_err());
    let record = stage.handle.requests(Channel::Apns).remove(0);
    assert_eq!(record.status, 0);
}

#[tokio::test]
async fn broadcast_channels_live_and_die() {
    let stage = Stage::open().await;
    let bearer = provider_token(&stage, json!({}));
    let auth = ("authorization", bearer.as_str());
    let channels = format!("/1/apps/{PACKAGE}/channels");
    let create = async |body: &str| {
        stage
            .call("POST", &channels, &[auth], body.to_owned())
            .await
    };
    let rows = [
        (r#"{"message-storage-policy":0}"#, "MissingPushType"),
        (r#"{"push-type":"LiveActivity"}"#, "MissingChannelQueueSize"),
        (
            r#"{"push-type":"alert","message-storage-policy":0}"#,
            "InvalidPushType",
        ),
        (
            r#"{"push-type":"LiveActivity","message-storage-policy":2}"#,
            "BadRequestParams",
        ),
        (
            r#"{"push-type":"LiveActivity","message-storage-policy":0,"x":1}"#,
            "BadRequestParams",
        ),
        ("{", "BadRequestPayload"),
    ];
    for (body, reason) in rows {
        assert_eq!(create(body).await.at("/reason"), reason, "{body}");
    }
    let made = create(r#"{"push-type":"LiveActivity","message-storage-policy":0}"#).await;
    assert_eq!(made.status, 201);
    let id = made.headers["apns-channel-id"].to_str().unwrap().to_owned();
    let named = [auth, ("apns-channel-id", id.as_str())];
    let read = stage.call("GET", &channels, &named, "").await;
    assert_eq!(
        read.json(),
        json!({"message-storage-policy": 0, "push-type": "LiveActivity"})
    );
    let all = format!("/1/apps/{PACKAGE}/all-channels");
    assert_eq!(
        stage.call("GET", &all, &[auth], "").await.json(),
        json!({"channels": [id]})
    );

    let publish = format!("/4/broadcasts/apps/{PACKAGE}");
    let send = async |expiration: &str, channel: &str| {
        let headers = [
            auth,
            ("apns-channel-id", channel),
            ("apns-push-type", "Liveactivity"),
            ("apns-priority", "10"),
            ("apns-expiration", expiration),
        ];
        stage.call("POST", &publish, &headers, ALERT).await
    };
    assert_eq!(send("0", &id).await.status, 200);
    assert_eq!(send("99", &id).await.at("/reason"), "BadExpirationDate");
    assert_eq!(
        send("0", "AAAA").await.at("/reason"),
        "ChannelNotRegistered"
    );
    assert_eq!(send("0", "!").await.at("/reason"), "BadChannelId");
    let suffixed = format!("/1/apps/{PACKAGE}.voip/channels");
    assert_eq!(
        stage.call("GET", &suffixed, &named, "").await.at("/reason"),
        "TopicDisallowed"
    );
    // The other app of the team has broadcasts switched off.
    let off = format!("/1/apps/{OTHER_PACKAGE}/channels");
    assert_eq!(
        stage.call("GET", &off, &named, "").await.at("/reason"),
        "FeatureNotEnabled"
    );
    let foreign = stage
        .call("GET", "/1/apps/com.foreign/channels", &named, "")
        .await;
    assert_eq!(
        (foreign.status, foreign.at("/reason").as_str()),
        (403, "TopicMismatch")
    );
    assert_eq!(
        stage.call("DELETE", &channels, &named, "").await.status,
        204
    );
    assert_eq!(
        stage.call("GET", &channels, &named, "").await.at("/reason"),
        "ChannelNotRegistered"
    );
    assert_eq!(send("0", &id).await.at("/reason"), "ChannelNotRegistered");
    while stage.handle.make_apns_channel(true).is_some() {}
    let full = create(r#"{"push-type":"LiveActivity","message-storage-policy":1}"#).await;
    assert_eq!(full.at("/reason"), "CannotCreateChannelConfig");
}
