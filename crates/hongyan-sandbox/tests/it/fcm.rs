//! Each check of the notes on FCM is a row.

use std::time::Duration;

use hongyan_sandbox::{Channel, PACKAGE, TokenState};
use serde_json::{Value, json};

use crate::stage::{Answer, Door, Stage, form, now_s, rsa};

const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";

fn assertion(stage: &Stage, change: Value) -> String {
    let account = &stage.accounts().fcm.service_account;
    let header = json!({"alg": "RS256", "typ": "JWT", "kid": account.private_key_id});
    let mut claims = json!({
        "iss": account.client_email, "scope": SCOPE, "aud": account.token_uri,
        "iat": now_s(), "exp": now_s() + 3600,
    });
    for (name, value) in change.as_object().unwrap() {
        claims[name] = value.clone();
    }
    rsa(
        &account.private_key,
        &ring::signature::RSA_PKCS1_SHA256,
        &header,
        &claims,
    )
}

async fn exchange(stage: &Stage, grant: &str, assertion: &str) -> Answer {
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    let body = form(&[("grant_type", grant), ("assertion", assertion)]);
    stage.call("POST", "/token", &headers, body).await
}

async fn access(stage: &Stage) -> String {
    let answer = exchange(stage, GRANT, &assertion(stage, json!({}))).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.at("/token_type"), "Bearer");
    format!("Bearer {}", answer.at("/access_token"))
}

fn path(stage: &Stage) -> String {
    format!(
        "/v1/projects/{}/messages:send",
        stage.accounts().fcm.service_account.project_id
    )
}

fn code(answer: &Answer) -> String {
    let details = answer
        .json()
        .pointer("/error/details")
        .cloned()
        .unwrap_or_default();
    let details = details.as_array().cloned().unwrap_or_default();
    details
        .iter()
        .find_map(|detail| {
            detail
                .get("errorCode")
                .or_else(|| detail.get("reason"))?
                .as_str()
                .map(str::to_owned)
        })
        .unwrap_or_default()
}

#[tokio::test]
async fn assertions_are_verified() {
    let stage = Stage::open().await;
    let good = assertion(&stage, json!({}));
    let mut forged = good.clone();
    forged.replace_range(forged.len() - 8.., "AAAAAAAA");
    let own = format!("{}/token", stage.handle.vendors_url());
    let wide = "https://www.googleapis.com/auth/cloud-platform";
    let rows = [
        (GRANT, good.clone(), ""),
        (GRANT, assertion(&stage, json!({"aud": own})), ""),
        (GRANT, assertion(&stage, json!({"scope": wide})), ""),
        ("password", good, "unsupported_grant_type"),
        (GRANT, forged, "invalid_grant"),
        (GRANT, "x".to_owned(), "invalid_grant"),
        (
            GRANT,
            assertion(&stage, json!({"iss": "other@x"})),
            "invalid_grant",
        ),
        (
            GRANT,
            assertion(&stage, json!({"aud": "https://example.org/token"})),
            "invalid_grant",
        ),
        (
            GRANT,
            assertion(&stage, json!({"exp": now_s() + 7200})),
            "invalid_grant",
        ),
        (
            GRANT,
            assertion(
                &stage,
                json!({"iat": now_s() - 7200, "exp": now_s() - 3600}),
            ),
            "invalid_grant",
        ),
        (
            GRANT,
            assertion(&stage, json!({"iat": now_s() + 900, "exp": now_s() + 1800})),
            "invalid_grant",
        ),
        (
            GRANT,
            assertion(&stage, json!({"scope": "email"})),
            "invalid_scope",
        ),
    ];
    for (grant, assertion, error) in rows {
        let answer = exchange(&stage, grant, &assertion).await;
        assert_eq!(answer.at("/error"), error, "{}", answer.text);
        assert_eq!(answer.status, if error.is_empty() { 200 } else { 400 });
    }
}

#[tokio::test]
async fn access_tokens_are_checked() {
    let stage = Stage::open().await;
    let token = stage
        .handle
        .issue_tokens(Channel::Fcm, 1, TokenState::Valid)
        .unwrap()
        .remove(0);
    let body = json!({"message": {"token": token, "data": {"hy_id": "m"}}}).to_string();
    let bearer = access(&stage).await;
    let send = async |path: &str, bearer: &str| {
        let mut headers = vec![("content-type", "application/json")];
        if !bearer.is_empty() {
            headers.push(("authorization", bearer));
        }
        stage.call("POST", path, &headers, body.clone()).await
    };
    let own = path(&stage);
    let answer = send(&own, &bearer).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert!(
        answer.at("/name").starts_with("projects/"),
        "{}",
        answer.text
    );
    assert_eq!(send(&own, "").await.status, 401);
    assert_eq!(send(&own, "Bearer ya29.c.nothing").await.status, 401);
    assert_eq!(
        send("/v1/projects/other/messages:send", &bearer)
            .await
            .status,
        403
    );
    assert_eq!(send("/v1/projects/other/things", &bearer).await.status, 404);
    stage.handle.advance(Duration::from_secs(3700));
    let answer = send(&own, &bearer).await;
    assert_eq!(
        (answer.status, code(&answer).as_str()),
        (401, "ACCESS_TOKEN_EXPIRED")
    );
}

#[tokio::test]
async fn messages_are_held_against_the_reference() {
    let stage = Stage::open().await;
    let bearer = access(&stage).await;
    let token = stage
        .handle
        .issue_tokens(Channel::Fcm, 1, TokenState::Valid)
        .unwrap()
        .remove(0);
    let mut wire = stage.connect(Door::Http2).await;
    let field = "INVALID_ARGUMENT";
    let rows: Vec<(Value, u16, &str)> = vec![
        (
            json!({"notification": {"title": "t", "body": "b"}}),
            200,
            "",
        ),
        (
            json!({"android": {"priority": "HIGH", "ttl": "3600s", "collapseKey": "k"}}),
            200,
            "",
        ),
        (
            json!({"android": {"collapse_key": "k", "notification": {"channel_id": "c"}}}),
            200,
            "",
        ),
        (
            json!({"apns": {"headers": {"apns-priority": "5"}, "payload": {"aps": {}}}}),
            200,
            "",
        ),
        (
            json!({"webpush": {"fcm_options": {"link": "https://x"}}}),
            200,
            "",
        ),
        (
            json!({"webpush": {"fcm_options": {"link": "http://x"}}}),
            400,
            field,
        ),
        (json!({"topic": "t"}), 400, field),
        (json!({"unknown": 1}), 400, field),
        (json!({"data": {"a": 1}}), 400, field),
        (json!({"data": {"from": "x"}}), 400, field),
        (json!({"data": {"google.x": "x"}}), 400, field),
        (json!({"data": {"collapse_key": "x"}}), 200, ""),
        (json!({"android": {"ttl": "1h"}}), 400, field),
        (json!({"android": {"ttl": "2419201s"}}), 400, field),
        (json!({"android": {"ttl": "2419200s"}}), 200, ""),
        (json!({"android": {"priority": "URGENT"}}), 400, field),
        (
            json!({"android": {"notification": {"color": "red"}}}),
            400,
            field,
        ),
        (
            json!({"android": {"notification": {"color": "#ff0000"}}}),
            200,
            "",
        ),
        (
            json!({"android": {"notification": {"visibility": "HIDDEN"}}}),
            400,
            field,
        ),
        (
            json!({"android": {"notification": {"notification_priority": "PRIORITY_LOW"}}}),
            200,
            "",
        ),
        (
            json!({"android": {"notification": {"light_settings": {"color": {"red": 2}}}}}),
            400,
            field,
        ),
        (
            json!({"android": {"restricted_package_name": "com.other"}}),
            400,
            field,
        ),
        (
            json!({"android": {"restricted_package_name": PACKAGE}}),
            200,
            "",
        ),
        (
            json!({"fcm_options": {"analytics_label": "a b"}}),
            400,
            field,
        ),
        (json!({"data": {"a": "x".repeat(4095)}}), 200, ""),
        (json!({"data": {"a": "x".repeat(4096)}}), 400, field),
    ];
    for (extra, status, error) in rows {
        let mut message = json!({"token": token});
        for (name, value) in extra.as_object().unwrap() {
            message[name] = value.clone();
        }
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
        ];
        let body = json!({"message": message}).to_string();
        let answer = wire
            .call("POST", &path(&stage), &headers, body)
            .await
            .unwrap();
        let got = if status == 200 {
            String::new()
        } else {
            answer.at("/error/status")
        };
        assert_eq!(
            (answer.status, got.as_str()),
            (status, error),
            "{extra}: {}",
            answer.text
        );
    }
}

#[tokio::test]
async fn a_wrong_type_in_data_names_its_place() {
    let stage = Stage::open().await;
    let bearer = access(&stage).await;
    let headers = [("authorization", bearer.as_str())];
    let body = json!({"message": {"topic": "t", "data": {"a": 1}}}).to_string();
    let answer = stage.call("POST", &path(&stage), &headers, body).await;
    let field = answer.at("/error/details/0/fieldViolations/0/field");
    assert_eq!(
        (answer.status, field.as_str()),
        (400, "message.data[0].value")
    );
}

#[tokio::test]
async fn targets_and_topics() {
    let stage = Stage::open().await;
    let bearer = access(&stage).await;
    let rows = [
        (json!({"topic": "news"}), 200),
        (json!({"topic": "ne ws"}), 400),
        (
            json!({"condition": "'a' in topics && !('b' in topics)"}),
            200,
        ),
        (json!({"condition": "a in topics"}), 400),
        (json!({}), 400),
        (json!({"topic": "a", "condition": "'a' in topics"}), 400),
        (json!({"topic": "a", "data": {"a": "x".repeat(2048)}}), 400),
    ];
    for (message, status) in rows {
        let headers = [("authorization", bearer.as_str())];
        let body = json!({"message": message}).to_string();
        let answer = stage.call("POST", &path(&stage), &headers, body).await;
        assert_eq!(answer.status, status, "{message}: {}", answer.text);
    }
}

#[tokio::test]
async fn tokens_have_states() {
    let stage = Stage::open().await;
    let bearer = access(&stage).await;
    let issue = |state| {
        stage
            .handle
            .issue_tokens(Channel::Fcm, 1, state)
            .unwrap()
            .remove(0)
    };
    let rows = [
        (
            issue(TokenState::Dead { since_ms: 1 }),
            404,
            "NOT_FOUND",
            "UNREGISTERED",
        ),
        (
            issue(TokenState::OtherApp),
            403,
            "PERMISSION_DENIED",
            "SENDER_ID_MISMATCH",
        ),
        (
            "garbage".to_owned(),
            400,
            "INVALID_ARGUMENT",
            "INVALID_ARGUMENT",
        ),
    ];
    for (token, http, status, error) in rows {
        let headers = [("authorization", bearer.as_str())];
        let body = json!({"message": {"token": token, "data": {}}}).to_string();
        let answer = stage.call("POST", &path(&stage), &headers, body).await;
        let got = (answer.status, answer.at("/error/status"), code(&answer));
        assert_eq!(got, (http, status.to_owned(), error.to_owned()));
    }
}
