//! The control interface, and what a restart keeps.

use hongyan_sandbox::{Channel, NewPhone, Options, Sandbox};
use serde_json::{Value, json};

use crate::stage::{Stage, control};

#[tokio::test]
async fn phones_over_http() {
    let stage = Stage::open().await;
    let h = &stage.handle;
    let new = r#"{"platform":"android","brand":"xiaomi","user":"u1"}"#;
    let made = control(h, "POST", "/phones", &[], new).await;
    assert_eq!(made.status, 201, "{}", made.text);
    assert_eq!(made.json()["channels"], json!(["xiaomi"]));
    let id = made.at("/id");
    let json_please = [("accept", "application/json")];
    let list = control(h, "GET", "/phones", &json_please, "").await.json();
    let phone = &list[0];
    for field in [
        "id",
        "device_id",
        "platform",
        "brand",
        "user",
        "state",
        "network",
        "permission",
        "installed",
        "channels",
    ] {
        assert!(phone.get(field).is_some(), "{field}");
    }
    assert_eq!(
        (phone["state"].clone(), phone["network"].clone()),
        (json!("foreground"), json!("on"))
    );
    for (accept, kind) in [
        ("*/*", "text/html"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "text/html"),
        ("application/json, text/plain, */*", "application/json"),
    ] {
        let answer = control(h, "GET", "/phones", &[("accept", accept)], "").await;
        let given = answer.headers["content-type"].to_str().unwrap();
        assert!(given.starts_with(kind), "{accept}: {given}");
    }
    let page = control(h, "GET", "/phones", &[], "").await;
    assert!(
        page.headers["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/html")
    );
    assert!(page.text.contains(&id), "no first picture");
    for asset in [
        "src=",
        "@import",
        "url(",
        "rel=\"stylesheet\"",
        "href=\"http",
    ] {
        assert!(!page.text.contains(asset), "{asset}");
    }

    let path = format!("/phones/{id}");
    let rows = [
        (
            r#"{"state":"killed","network":"off","permission":"denied"}"#,
            200,
        ),
        (r#"{"user":null}"#, 200),
        (r#"{"installed":false}"#, 200),
        (r#"{"network":"slow"}"#, 422),
        (r#"{"state":"asleep"}"#, 422),
        (r#"{"colour":"red"}"#, 422),
    ];
    for (patch, status) in rows {
        assert_eq!(
            control(h, "PATCH", &path, &[], patch).await.status,
            status,
            "{patch}"
        );
    }
    let phone = control(h, "GET", &path, &[], "").await.json();
    assert_eq!(phone["user"], Value::Null);
    assert_eq!(
        (phone["installed"].clone(), phone["network"].clone()),
        (json!(false), json!("off"))
    );
    assert_eq!(
        control(h, "GET", &format!("{path}/tray"), &[], "")
            .await
            .json(),
        json!([])
    );
    assert_eq!(
        control(h, "POST", &format!("{path}/tray/1/click"), &[], "")
            .await
            .status,
        404
    );
    assert_eq!(
        control(h, "GET", "/phones/none/tray", &[], "").await.status,
        404
    );
    for (method, at, status) in [("POST", "first", 400), ("GET", "1", 405)] {
        let path = format!("{path}/tray/{at}/click");
        let answer = control(h, method, &path, &[], "").await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.headers["content-type"], "application/problem+json");
    }
    assert_eq!(
        control(h, "POST", "/phones", &[], r#"{"platform":"toaster"}"#)
            .await
            .status,
        422
    );
    let foreign = r#"{"platform":"android","channels":["pager"]}"#;
    assert_eq!(
        control(h, "POST", "/phones", &[], foreign).await.status,
        422
    );
    assert_eq!(control(h, "DELETE", &path, &[], "").await.status, 204);
    assert_eq!(control(h, "GET", &path, &[], "").await.status, 404);
}

#[tokio::test]
async fn vendors_over_http() {
    let stage = Stage::open().await;
    let h = &stage.handle;
    let answer = control(
        h,
        "POST",
        "/vendors/apns/faults",
        &[],
        r#"{"kind":"unavailable","rate":1}"#,
    )
    .await;
    assert_eq!(answer.status, 201);
    assert_eq!(
        stage.call("POST", "/3/device/aa", &[], "{}").await.status,
        503
    );
    assert_eq!(
        control(h, "DELETE", "/vendors/apns/faults", &[], "")
            .await
            .status,
        204
    );
    assert_eq!(
        stage.call("POST", "/3/device/aa", &[], "{}").await.status,
        403
    );
    let list = control(h, "GET", "/vendors/apns/requests", &[], "")
        .await
        .json();
    assert_eq!(list.as_array().unwrap().len(), 2);
    assert_eq!(list[0]["status"], 503);
    for field in ["at", "path", "headers", "body", "verdict", "status"] {
        assert!(list[1].get(field).is_some(), "{field}");
    }
    assert_eq!(
        control(h, "DELETE", "/vendors/apns/requests", &[], "")
            .await
            .status,
        204
    );
    assert_eq!(
        control(h, "GET", "/vendors/apns/requests", &[], "")
            .await
            .json(),
        json!([])
    );
    for (body, status) in [
        (r#"{"kind":"earthquake"}"#, 422),
        (r#"{"kind":"slow","rate":2}"#, 422),
        (r#"{"kind":"slow","delay_ms":9999999}"#, 422),
        (r#"{"kind":"slow","rate":0.5,"count":3}"#, 201),
    ] {
        assert_eq!(
            control(h, "POST", "/vendors/fcm/faults", &[], body)
                .await
                .status,
            status,
            "{body}"
        );
    }
    assert_eq!(
        control(h, "GET", "/vendors/pager/requests", &[], "")
            .await
            .status,
        404
    );
    let issued = control(h, "POST", "/vendors/fcm/tokens", &[], r#"{"count":3}"#)
        .await
        .json();
    assert_eq!(issued["tokens"].as_array().unwrap().len(), 3);
    let token = issued["tokens"][0].as_str().unwrap();
    let path = format!("/vendors/fcm/tokens/{token}");
    assert_eq!(
        control(h, "PUT", &path, &[], r#"{"state":"dead"}"#)
            .await
            .status,
        204
    );
    let accounts = control(h, "GET", "/accounts", &[], "").await.json();
    assert!(
        accounts["apns"]["private_key"]
            .as_str()
            .unwrap()
            .contains("BEGIN PRIVATE KEY")
    );
    assert_eq!(
        accounts["fcm"]["service_account"]["type"],
        "service_account"
    );
    assert!(
        accounts["ca_pem"]
            .as_str()
            .unwrap()
            .contains("BEGIN CERTIFICATE")
    );
}

#[tokio::test]
async fn a_restart_keeps_keys_accounts_and_phones() {
    let stage = Stage::open().await;
    let phone = stage
        .handle
        .add_phone(NewPhone::of("ios", "apple", "", "u1"))
        .await
        .unwrap();
    let tokens = stage.handle.phone_tokens(&phone.id).unwrap();
    let ca = stage.handle.ca_pem().to_owned();
    let secret = stage.accounts().xiaomi.app_secret.clone();
    let Stage {
        sandbox,
        directory,
        handle: _,
    } = stage;
    sandbox.stop().await;
    #[cfg(unix)]
    for file in files(directory.path()) {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = file.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{file:?}");
    }
    let again = Sandbox::start(Options::ephemeral(directory.path()))
        .await
        .unwrap();
    let handle = again.handle();
    assert_eq!(handle.ca_pem(), ca);
    assert_eq!(handle.accounts().xiaomi.app_secret, secret);
    assert_eq!(handle.phones(), std::slice::from_ref(&phone));
    assert_eq!(handle.phone_tokens(&phone.id).unwrap(), tokens);
    assert!(
        !format!("{handle:?}").contains(&secret),
        "a secret in Debug"
    );
    assert!(handle.requests(Channel::Apns).is_empty());
    again.stop().await;
}

#[tokio::test]
async fn a_taken_port_is_named_with_its_setting() {
    let stage = Stage::open().await;
    let directory = tempfile::tempdir().unwrap();
    let mut options = Options::ephemeral(directory.path());
    options.vendors = stage.handle.vendors_address();
    let error = Sandbox::start(options).await.unwrap_err().to_string();
    assert!(error.contains("sandbox.vendors"), "{error}");
}

fn files(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}
