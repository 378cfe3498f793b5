//! Each check of the notes on Huawei (v1, v2) and HarmonyOS (v3) is a row.

use std::time::Duration;

use hongyan_sandbox::{Channel, TokenState};
use ring::signature::{RSA_PKCS1_SHA256, RSA_PSS_SHA256};
use serde_json::{Value, json};

use crate::stage::{Answer, Door, Stage, form, now_s, rsa};

const AUD: &str = "https://oauth-login.cloud.huawei.com/oauth2/v3/token";

async fn oauth(stage: &Stage, id: &str, secret: &str) -> Answer {
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    let body = form(&[
        ("grant_type", "client_credentials"),
        ("client_id", id),
        ("client_secret", secret),
    ]);
    stage.call("POST", "/oauth2/v3/token", &headers, body).await
}

async fn access(stage: &Stage) -> String {
    let account = &stage.accounts().huawei;
    let answer = oauth(stage, &account.client_id, &account.client_secret).await;
    assert!(answer.text.contains(r"\/"), "{}", answer.text);
    format!("Bearer {}", answer.at("/access_token"))
}

fn jwt(stage: &Stage, change: Value) -> String {
    let account = &stage.accounts().harmony.service_account;
    let header = json!({"alg": "PS256", "typ": "JWT", "kid": account.key_id});
    let mut claims = json!({
        "iss": account.sub_account, "aud": AUD, "iat": now_s(), "exp": now_s() + 3600,
    });
    for (name, value) in change.as_object().unwrap() {
        claims[name] = value.clone();
    }
    format!(
        "Bearer {}",
        rsa(&account.private_key, &RSA_PSS_SHA256, &header, &claims)
    )
}

fn tokens(stage: &Stage, channel: Channel, count: usize, state: TokenState) -> Vec<String> {
    stage.handle.issue_tokens(channel, count, state).unwrap()
}

fn v1(stage: &Stage) -> String {
    format!("/v1/{}/messages:send", stage.accounts().huawei.client_id)
}

fn v3(stage: &Stage) -> String {
    format!("/v3/{}/messages:send", stage.accounts().harmony.project_id)
}

fn notification() -> Value {
    json!({"title": "t", "body": "b", "click_action": {"type": 3}})
}

#[tokio::test]
async fn both_ways_in_are_checked() {
    let stage = Stage::open().await;
    let account = stage.accounts().huawei.clone();
    assert_eq!(oauth(&stage, &account.client_id, "wrong").await.status, 400);
    assert_eq!(
        oauth(&stage, "1", &account.client_secret)
            .await
            .at("/error"),
        "1101"
    );
    let bearer = access(&stage).await;
    let account = &stage.accounts().harmony.service_account;
    let rs256 = {
        let header = json!({"alg": "RS256", "kid": account.key_id});
        let claims =
            json!({"iss": account.sub_account, "aud": AUD, "iat": now_s(), "exp": now_s() + 60});
        format!(
            "Bearer {}",
            rsa(&account.private_key, &RSA_PKCS1_SHA256, &header, &claims)
        )
    };
    let token = tokens(&stage, Channel::Huawei, 1, TokenState::Valid);
    let body = json!({"message": {"android": {"notification": notification()}, "token": token}});
    let v2 = format!("/v2/{}/messages:send", stage.accounts().huawei.project_id);
    let rows = [
        (v1(&stage), bearer.clone(), 200, "80000000"),
        (v2, bearer.clone(), 200, "80000000"),
        (v1(&stage), jwt(&stage, json!({})), 200, "80000000"),
        (
            "/v1/999/messages:send".to_owned(),
            bearer.clone(),
            401,
            "80200001",
        ),
        (v1(&stage), String::new(), 401, "80200001"),
        (v1(&stage), "Bearer nonsense".to_owned(), 401, "80200001"),
        (v1(&stage), rs256, 401, "80200001"),
        (
            v1(&stage),
            jwt(&stage, json!({"iss": "1"})),
            401,
            "80200001",
        ),
        (
            v1(&stage),
            jwt(&stage, json!({"aud": "x"})),
            401,
            "80200001",
        ),
        (
            v1(&stage),
            jwt(
                &stage,
                json!({"iat": now_s() - 7200, "exp": now_s() - 3600}),
            ),
            401,
            "80200005",
        ),
        (
            v1(&stage),
            jwt(&stage, json!({"exp": now_s() + 90_000})),
            200,
            "80300036",
        ),
        (v3(&stage), bearer.clone(), 401, "80200001"),
    ];
    for (path, bearer, status, code) in rows {
        let mut headers = vec![("content-type", "application/json"), ("push-type", "0")];
        if !bearer.is_empty() {
            headers.push(("authorization", bearer.as_str()));
        }
        let answer = stage.call("POST", &path, &headers, body.to_string()).await;
        assert_eq!(
            (answer.status, answer.at("/code").as_str()),
            (status, code),
            "{path} {bearer}"
        );
    }
    stage.handle.advance(Duration::from_secs(3601));
    let headers = [("authorization", bearer.as_str())];
    let answer = stage
        .call("POST", &v1(&stage), &headers, body.to_string())
        .await;
    assert_eq!(
        (answer.status, answer.at("/code").as_str()),
        (401, "80200003")
    );
}

#[tokio::test]
async fn v1_messages_are_held_against_the_reference() {
    let stage = Stage::open().await;
    let bearer = access(&stage).await;
    let token = tokens(&stage, Channel::Huawei, 1, TokenState::Valid);
    let mut wire = stage.connect(Door::Http1).await;
    let with = |change: Value| {
        let mut notification = notification();
        for (name, value) in change.as_object().unwrap() {
            notification[name] = value.clone();
        }
        json!({"android": {"notification": notification}})
    };
    let android = |change: Value| {
        let mut android = json!({"notification": notification()});
        for (name, value) in change.as_object().unwrap() {
            android[name] = value.clone();
        }
        json!({"android": android})
    };
    let many: Vec<String> = (0..1001).map(|_| token[0].clone()).collect();
    let rows: Vec<(Value, &str)> = vec![
        (android(json!({})), "80000000"),
        (json!({"data": "{}"}), "80000000"),
        (json!({}), "80100003"),
        (
            json!({"notification": {"title": "t", "body": "b"}}),
            "80100003",
        ),
        (
            json!({"notification": {"title": "t", "body": "b"},
                   "android": {"notification": {"click_action": {"type": 3}}}}),
            "80000000",
        ),
        (
            json!({"android": {"notification": {"title": "t", "click_action": {"type": 3}}}}),
            "80100003",
        ),
        (with(json!({"click_action": {"type": 1}})), "80100003"),
        (
            with(json!({"click_action": {"type": 1, "intent": "x"}})),
            "80000000",
        ),
        (
            with(json!({"click_action": {"type": 2, "url": "http://x"}})),
            "80100003",
        ),
        (with(json!({"importance": "LOUD"})), "80100003"),
        (with(json!({"badge": {"add_num": 100}})), "80100003"),
        (with(json!({"color": "blue"})), "80100003"),
        (
            with(json!({"visibility": "PRIVATE", "notify_id": 5, "style": 1})),
            "80000000",
        ),
        (with(json!({"notify_id": "5"})), "80100003"),
        (with(json!({"nonsense": 1})), "80100003"),
        (
            android(json!({"category": "IM", "ttl": "60s", "urgency": "HIGH"})),
            "80000000",
        ),
        (android(json!({"category": "SHOUT"})), "80100003"),
        (android(json!({"ttl": "0s"})), "80100004"),
        (android(json!({"ttl": "1296001s"})), "80100004"),
        (android(json!({"ttl": 60})), "80100003"),
        (android(json!({"collapse_key": 101})), "80100013"),
        (android(json!({"collapse_key": -1})), "80000000"),
        (android(json!({"data": "x".repeat(4096)})), "80300008"),
        (json!({"data": "x", "topic": "t"}), "80100003"),
        (json!({"data": "x", "token": []}), "80300010"),
        (json!({"data": "x", "token": many}), "80300010"),
    ];
    for (extra, code) in rows {
        let mut message = json!({"token": token});
        for (name, value) in extra.as_object().unwrap() {
            message[name] = value.clone();
        }
        let headers = [("authorization", bearer.as_str())];
        let body = json!({"message": message}).to_string();
        let answer = wire
            .call("POST", &v1(&stage), &headers, body)
            .await
            .unwrap();
        assert_eq!(answer.at("/code"), code, "{extra}: {}", answer.text);
        assert!(!answer.at("/requestId").is_empty());
    }
}

#[tokio::test]
async fn some_bad_tokens_are_listed_and_all_bad_is_an_error() {
    let stage = Stage::open().await;
    let bearer = access(&stage).await;
    let good = tokens(&stage, Channel::Huawei, 2, TokenState::Valid);
    let dead = tokens(&stage, Channel::Huawei, 1, TokenState::Dead { since_ms: 1 });
    let send = async |tokens: &[String]| {
        let headers = [("authorization", bearer.as_str())];
        let body = json!({"message": {"data": "x", "token": tokens}}).to_string();
        stage.call("POST", &v1(&stage), &headers, body).await
    };
    let mixed = [good.clone(), dead.clone()].concat();
    let answer = send(&mixed).await;
    assert_eq!(
        (answer.status, answer.at("/code").as_str()),
        (200, "80100000")
    );
    let msg: Value = serde_json::from_str(&answer.at("/msg")).unwrap();
    assert_eq!(
        msg,
        json!({"success": 2, "failure": 1, "illegal_tokens": dead})
    );
    assert_eq!(send(&dead).await.at("/code"), "80300007");
    let foreign = tokens(&stage, Channel::Harmony, 1, TokenState::Valid);
    assert_eq!(send(&foreign).await.at("/code"), "80300007");
}

#[tokio::test]
async fn v3_messages_are_held_against_the_reference() {
    let stage = Stage::open().await;
    let bearer = jwt(&stage, json!({}));
    let token = tokens(&stage, Channel::Harmony, 11, TokenState::Valid);
    let one = &token[..1];
    let mut wire = stage.connect(Door::Http2).await;
    let notification = |change: Value| {
        let mut base = json!({
            "category": "IM", "title": "t", "body": "b", "clickAction": {"actionType": 0},
        });
        for (name, value) in change.as_object().unwrap() {
            base[name] = value.clone();
        }
        json!({"notification": base})
    };
    let card = json!({
        "formId": 1, "version": 1, "moduleName": "m", "formName": "f", "abilityName": "a",
        "formData": {},
    });
    let live = |operation: u8, event: &str| {
        json!({
            "activityId": 1, "operation": operation, "event": event, "status": "DEPART",
            "activityData": {"notificationData": {"type": 5}},
        })
    };
    let fine = notification(json!({}));
    let rows: Vec<(&str, Value, Value, &[String], &str)> = vec![
        ("0", fine.clone(), json!({}), one, "80000000"),
        (
            "0",
            fine.clone(),
            json!({"ttl": 60, "biTag": "x", "collapseKey": 5}),
            one,
            "80000000",
        ),
        ("", fine.clone(), json!({}), one, "80100003"),
        ("3", fine.clone(), json!({}), one, "80100003"),
        ("0", json!({}), json!({}), one, "80100003"),
        (
            "0",
            notification(json!({"category": "im"})),
            json!({}),
            one,
            "80100003",
        ),
        (
            "0",
            notification(json!({"title": ""})),
            json!({}),
            one,
            "80100003",
        ),
        (
            "0",
            notification(json!({"clickAction": {"actionType": 1}})),
            json!({}),
            one,
            "80100003",
        ),
        (
            "0",
            notification(json!({"clickAction": {"actionType": 0, "data": {"hy_id": "m"}}})),
            json!({}),
            one,
            "80000000",
        ),
        (
            "0",
            notification(json!({"notifyId": -2})),
            json!({}),
            one,
            "80100003",
        ),
        (
            "0",
            notification(json!({"image": "http://x"})),
            json!({}),
            one,
            "80100003",
        ),
        (
            "0",
            notification(json!({"category": "PLAY_VOICE"})),
            json!({}),
            one,
            "80100003",
        ),
        ("0", fine.clone(), json!({"ttl": "60"}), one, "80100003"),
        (
            "0",
            fine.clone(),
            json!({"ttl": 1_296_001}),
            one,
            "80100003",
        ),
        (
            "0",
            fine.clone(),
            json!({"collapseKey": 101}),
            one,
            "80100003",
        ),
        ("0", fine.clone(), json!({"nonsense": 1}), one, "80100003"),
        (
            "0",
            notification(json!({"body": "x".repeat(4090)})),
            json!({}),
            one,
            "80300008",
        ),
        ("0", fine.clone(), json!({}), &[], "80300010"),
        (
            "0",
            fine.clone(),
            json!({"testMessage": true}),
            &token,
            "80300030",
        ),
        ("1", card.clone(), json!({}), one, "80000000"),
        ("1", card, json!({}), &token[..2], "80300030"),
        ("6", json!({"extraData": "x"}), json!({}), one, "80000000"),
        (
            "6",
            json!({"extraData": "x"}),
            json!({"collapseKey": 1}),
            one,
            "80100003",
        ),
        (
            "6",
            json!({"proxyData": "ENABLE"}),
            json!({}),
            one,
            "80100003",
        ),
        ("7", live(0, "FLIGHT"), json!({}), one, "80000000"),
        ("7", live(0, "SCORE"), json!({}), one, "80100003"),
        ("7", live(1, "SCORE"), json!({}), one, "80000000"),
        (
            "10",
            json!({"extraData": "x"}),
            json!({"ttl": 30}),
            one,
            "80000000",
        ),
    ];
    for (scene, payload, options, to, code) in rows {
        let mut headers = vec![("authorization", bearer.as_str())];
        if !scene.is_empty() {
            headers.push(("push-type", scene));
        }
        let mut body = json!({"payload": payload, "target": {"token": to}});
        if options != json!({}) {
            body["pushOptions"] = options;
        }
        let answer = wire
            .call("POST", &v3(&stage), &headers, body.to_string())
            .await
            .unwrap();
        assert_eq!(answer.at("/code"), code, "{scene} {body}: {}", answer.text);
    }
}

#[tokio::test]
async fn v3_sorts_bad_tokens_by_reason() {
    let stage = Stage::open().await;
    let bearer = jwt(&stage, json!({}));
    let good = tokens(&stage, Channel::Harmony, 1, TokenState::Valid);
    let foreign = tokens(&stage, Channel::Harmony, 1, TokenState::OtherApp);
    let old = tokens(&stage, Channel::Huawei, 1, TokenState::Valid);
    let send = async |tokens: &[String]| {
        let headers = [("authorization", bearer.as_str()), ("push-type", "6")];
        let body = json!({"payload": {"extraData": "x"}, "target": {"token": tokens}});
        stage
            .call("POST", &v3(&stage), &headers, body.to_string())
            .await
    };
    let bad = "not a token".to_owned();
    let list = [
        good[0].clone(),
        foreign[0].clone(),
        old[0].clone(),
        bad.clone(),
    ];
    let answer = send(&list).await;
    assert_eq!(answer.at("/code"), "80100000");
    let msg: Value = serde_json::from_str(&answer.at("/msg")).unwrap();
    let illegal = json!({"noRight": [foreign[0], old[0]], "tokenFormatError": [bad]});
    assert_eq!(
        msg,
        json!({"success": 1, "failure": 3, "illegalTokens": illegal})
    );
    let answer = send(&foreign).await;
    assert_eq!(answer.at("/code"), "80300007");
    let msg: Value = serde_json::from_str(&answer.at("/msg")).unwrap();
    assert_eq!(
        msg,
        json!({"failure": 1, "illegalTokens": {"noRight": foreign}})
    );
}

#[tokio::test]
async fn recall_needs_its_two_fields() {
    let stage = Stage::open().await;
    let bearer = jwt(&stage, json!({}));
    let token = tokens(&stage, Channel::Harmony, 1, TokenState::Valid);
    let path = format!("/v1/{}/messages:revoke", stage.accounts().harmony.client_id);
    let rows = [
        (json!({"notifyId": 7, "token": token}), "0", "80000000"),
        (json!({"token": token}), "0", "80300032"),
        (json!({"notifyId": 7}), "0", "80300032"),
        (json!({"notifyId": 7, "token": token}), "6", "80100003"),
    ];
    for (body, scene, code) in rows {
        let headers = [("authorization", bearer.as_str()), ("push-type", scene)];
        let answer = stage.call("POST", &path, &headers, body.to_string()).await;
        assert_eq!(answer.at("/code"), code, "{body}");
    }
}

#[tokio::test]
async fn topics_are_kept() {
    let stage = Stage::open().await;
    let bearer = access(&stage).await;
    let token = tokens(&stage, Channel::Huawei, 1, TokenState::Valid);
    let call = async |verb: &str, body: Value| {
        let path = format!("/v1/{}/topic:{verb}", stage.accounts().huawei.client_id);
        let headers = [("authorization", bearer.as_str())];
        stage.call("POST", &path, &headers, body.to_string()).await
    };
    let list = async || {
        let answer = call("list", json!({"token": token[0]})).await;
        answer.json()["topics"].as_array().unwrap().len()
    };
    let both = json!({"topic": "news", "tokenArray": token});
    assert_eq!(
        call("subscribe", both.clone()).await.at("/successCount"),
        "1"
    );
    assert_eq!(list().await, 1);
    let answer = call("subscribe", json!({"topic": "a b", "tokenArray": token})).await;
    assert_eq!(answer.at("/code"), "82000007");
    let answer = call("subscribe", json!({"topic": "a", "tokenArray": []})).await;
    assert_eq!(answer.at("/code"), "82000008");
    let answer = call("subscribe", json!({"topic": "a", "tokenArray": ["nope"]})).await;
    assert_eq!(answer.at("/code"), "82000010");
    assert_eq!(call("unsubscribe", both).await.at("/successCount"), "1");
    assert_eq!(list().await, 0);
}
