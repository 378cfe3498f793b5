//! Phones on a server that the test plays.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hongyan_client::wake::Key;
use hongyan_sandbox::link::{Connection, Device, Kind, News, Profile, Server};
use hongyan_sandbox::{Channel, NewPhone, PACKAGE, PatchPhone, SandboxError};
use ring::hmac;
use serde_json::json;
use tokio::sync::mpsc;

use crate::stage::{Door, Stage, es256, form, now_s, until};

/// What the phones told the server, one word and its object each.
#[derive(Debug, Clone, Default)]
struct Played(Arc<Mutex<Book>>);

#[derive(Debug, Default)]
struct Book {
    log: Vec<String>,
    wake_key: Option<Key>,
    /// Where news for the connected phone go in.
    lines: Vec<mpsc::Sender<News>>,
}

impl Played {
    fn say(&self, what: String) {
        self.0.lock().unwrap().log.push(what);
    }
    fn log(&self) -> Vec<String> {
        self.0.lock().unwrap().log.clone()
    }
    fn heard(&self, what: &str) -> bool {
        self.log().iter().any(|line| line == what)
    }
    fn count(&self, what: &str) -> usize {
        self.log().iter().filter(|line| *line == what).count()
    }
    async fn send(&self, news: News) {
        let line = self.0.lock().unwrap().lines.last().cloned().unwrap();
        line.send(news).await.unwrap();
    }
}

#[async_trait]
impl Server for Played {
    async fn register(&self, profile: &Profile) -> Result<Arc<dyn Device>, SandboxError> {
        self.say(format!(
            "register {} {}",
            profile.platform, profile.permission
        ));
        Ok(Arc::new(self.clone()))
    }
}

#[async_trait]
impl Device for Played {
    async fn put_token(
        &self,
        channel: &str,
        _: &str,
        env: Option<&str>,
    ) -> Result<(), SandboxError> {
        self.say(format!("token {channel} {}", env.unwrap_or("-")));
        Ok(())
    }
    async fn wake_key(&self) -> Result<Option<Key>, SandboxError> {
        self.say("wake key".to_owned());
        Ok(self.0.lock().unwrap().wake_key.clone())
    }
    async fn login(&self, user: &str) -> Result<(), SandboxError> {
        self.say(format!("login {user}"));
        Ok(())
    }
    async fn logout(&self) -> Result<(), SandboxError> {
        self.say("logout".to_owned());
        Ok(())
    }
    async fn set_permission(&self, granted: bool) -> Result<(), SandboxError> {
        self.say(format!("permission {granted}"));
        Ok(())
    }
    async fn report(&self, message: &str, kind: Kind) -> Result<(), SandboxError> {
        self.say(format!("{kind:?} {message} over http"));
        Ok(())
    }
    async fn connect(&self, foreground: bool) -> Result<Box<dyn Connection>, SandboxError> {
        self.say(format!("connect {foreground}"));
        let (line, news) = mpsc::channel(8);
        line.send(News::Up).await.unwrap();
        self.0.lock().unwrap().lines.push(line);
        Ok(Box::new(PlayedConnection {
            server: self.clone(),
            news,
        }))
    }
}

struct PlayedConnection {
    server: Played,
    news: mpsc::Receiver<News>,
}

#[async_trait]
impl Connection for PlayedConnection {
    async fn next(&mut self) -> Option<News> {
        self.news.recv().await
    }
    async fn report(&self, message: &str, kind: Kind) -> Result<(), SandboxError> {
        self.server
            .say(format!("{kind:?} {message} over connection"));
        Ok(())
    }
    async fn set_foreground(&self, foreground: bool) {
        self.server.say(format!("foreground {foreground}"));
    }
    async fn close(&self) {
        self.server.say("close".to_owned());
    }
    async fn kill(&self) {
        self.server.say("kill".to_owned());
    }
}

fn patch(text: &str) -> PatchPhone {
    serde_json::from_str(text).unwrap()
}

fn message(id: &str) -> News {
    News::Message {
        id: id.to_owned(),
        title: "t".to_owned(),
        body: "b".to_owned(),
        visible: true,
        collapse: None,
    }
}

async fn iphone() -> (Stage, Played, String) {
    let stage = Stage::open().await;
    let played = Played::default();
    stage.handle.attach_to(Arc::new(played.clone()));
    let phone = stage
        .handle
        .add_phone(NewPhone::of("ios", "apple", "", "u1"))
        .await
        .unwrap();
    assert!(phone.connected && phone.registered);
    (stage, played, phone.id)
}

/// A push as APNs takes it.
async fn push(stage: &Stage, phone: &str, id: &str, headers: &[(&str, &str)]) -> u16 {
    let account = &stage.accounts().apns;
    let header = json!({"alg": "ES256", "kid": account.key_id});
    let claims = json!({"iss": account.team_id, "iat": now_s()});
    let bearer = format!("bearer {}", es256(&account.private_key, &header, &claims));
    let token = stage
        .handle
        .phone_tokens(phone)
        .unwrap()
        .get(&Channel::Apns)
        .cloned();
    let path = format!("/3/device/{}", token.unwrap_or_default());
    let mut all = vec![("authorization", bearer.as_str()), ("apns-topic", PACKAGE)];
    all.extend_from_slice(headers);
    let body = json!({"aps": {"alert": {"title": "t", "body": "b"}}, "hy_id": id}).to_string();
    let mut wire = stage.connect(Door::Http2).await;
    wire.call("POST", &path, &all, body).await.unwrap().status
}

#[tokio::test]
async fn a_new_phone_registers_tells_its_token_logs_in_and_connects() {
    let (_stage, played, _) = iphone().await;
    let want = [
        "register ios true",
        "token apns production",
        "login u1",
        "connect true",
    ];
    assert_eq!(played.log(), want);
}

#[tokio::test]
async fn messages_over_the_connection_are_shown_once_and_reported() {
    let (stage, played, id) = iphone().await;
    played.send(message("m1")).await;
    until("displayed", || played.heard("Displayed m1 over connection")).await;
    played.send(message("m1")).await;
    assert_eq!(push(&stage, &id, "m1", &[]).await, 200);
    let tray = || stage.handle.tray(&id).unwrap();
    until("three copies", || tray()[0].copies == 3).await;
    assert_eq!((tray().len(), tray()[0].via.as_str()), (1, "connection"));
    assert_eq!(played.count("Displayed m1 over connection"), 1);
    stage.handle.click(&id, 1).await.unwrap();
    until("clicked", || played.heard("Clicked m1 over connection")).await;
    played
        .send(News::Recall {
            id: "m1".to_owned(),
        })
        .await;
    until("recalled", || tray()[0].gone).await;
}

#[tokio::test]
async fn a_killed_app_gets_vendor_pushes_and_a_click_starts_it() {
    let (stage, played, id) = iphone().await;
    let phone = stage
        .handle
        .patch_phone(&id, patch(r#"{"state":"killed"}"#))
        .await
        .unwrap();
    assert!(!phone.connected);
    assert!(played.heard("kill"));
    assert_eq!(push(&stage, &id, "m1", &[]).await, 200);
    until("displayed", || played.heard("Displayed m1 over http")).await;
    assert_eq!(stage.handle.tray(&id).unwrap()[0].via, "apns");
    assert!(stage.handle.click(&id, 1).await.unwrap().clicked);
    until("clicked", || {
        played
            .log()
            .iter()
            .any(|line| line.starts_with("Clicked m1"))
    })
    .await;
    until("connected", || stage.handle.phone(&id).unwrap().connected).await;
}

#[tokio::test]
async fn the_network_stores_and_forwards_as_the_vendor_does() {
    let (stage, played, id) = iphone().await;
    stage
        .handle
        .patch_phone(&id, patch(r#"{"network":"off"}"#))
        .await
        .unwrap();
    assert!(played.heard("kill"));
    assert_eq!(push(&stage, &id, "old", &[]).await, 200);
    assert_eq!(
        push(&stage, &id, "never", &[("apns-expiration", "0")]).await,
        200
    );
    assert_eq!(push(&stage, &id, "new", &[]).await, 200);
    assert!(stage.handle.tray(&id).unwrap().is_empty());
    stage
        .handle
        .patch_phone(&id, patch(r#"{"network":"on"}"#))
        .await
        .unwrap();
    let tray = stage.handle.tray(&id).unwrap();
    let seen: Vec<_> = tray
        .iter()
        .filter_map(|entry| entry.message.as_deref())
        .collect();
    assert_eq!(seen, ["new"]);

    stage
        .handle
        .patch_phone(&id, patch(r#"{"network":"off"}"#))
        .await
        .unwrap();
    let soon = (now_s() + 60).to_string();
    assert_eq!(
        push(&stage, &id, "late", &[("apns-expiration", &soon)]).await,
        200
    );
    stage.handle.advance(Duration::from_secs(61));
    stage
        .handle
        .patch_phone(&id, patch(r#"{"network":"on"}"#))
        .await
        .unwrap();
    assert_eq!(stage.handle.tray(&id).unwrap().len(), 1);
}

#[tokio::test]
async fn an_uninstalled_app_kills_its_token_and_a_new_installation_is_a_new_device() {
    let (stage, played, id) = iphone().await;
    let before = stage.handle.phone(&id).unwrap().device_id;
    let old = stage.handle.phone_tokens(&id).unwrap()[&Channel::Apns].clone();
    stage
        .handle
        .patch_phone(&id, patch(r#"{"installed":false}"#))
        .await
        .unwrap();
    let account = stage.accounts().apns.clone();
    let header = json!({"alg": "ES256", "kid": account.key_id});
    let claims = json!({"iss": account.team_id, "iat": now_s()});
    let bearer = format!("bearer {}", es256(&account.private_key, &header, &claims));
    let headers = [("authorization", bearer.as_str()), ("apns-topic", PACKAGE)];
    let body = r#"{"aps":{"alert":"x"}}"#;
    let answer = stage
        .call("POST", &format!("/3/device/{old}"), &headers, body)
        .await;
    assert_eq!(
        (answer.status, answer.at("/reason").as_str()),
        (410, "Unregistered")
    );
    assert!(answer.at("/timestamp").parse::<i64>().unwrap() > 1_700_000_000_000);

    let phone = stage
        .handle
        .patch_phone(&id, patch(r#"{"installed":true}"#))
        .await
        .unwrap();
    assert_ne!(phone.device_id, before);
    assert_ne!(stage.handle.phone_tokens(&id).unwrap()[&Channel::Apns], old);
    assert_eq!(played.count("register ios true"), 2);
    assert_eq!(played.count("login u1"), 2);
}

#[tokio::test]
async fn users_and_permission_follow_the_person() {
    let (stage, played, id) = iphone().await;
    stage
        .handle
        .patch_phone(&id, patch(r#"{"user":null}"#))
        .await
        .unwrap();
    assert!(played.heard("logout"));
    stage
        .handle
        .patch_phone(&id, patch(r#"{"user":"u2"}"#))
        .await
        .unwrap();
    assert!(played.heard("login u2"));
    let denied = patch(r#"{"permission":"denied","state":"background"}"#);
    stage.handle.patch_phone(&id, denied).await.unwrap();
    assert!(played.heard("permission false") && played.heard("foreground false"));
    assert_eq!(push(&stage, &id, "m1", &[]).await, 200);
    assert!(stage.handle.tray(&id).unwrap().is_empty());
}

#[tokio::test]
async fn an_unseen_app_lets_go_of_its_connection_after_the_grace() {
    let (stage, played, id) = iphone().await;
    let phone = stage
        .handle
        .patch_phone(&id, patch(r#"{"state":"background"}"#))
        .await
        .unwrap();
    assert!(phone.connected);
    stage.handle.advance(Duration::from_secs(11));
    until("closed", || played.heard("close")).await;
    until("disconnected", || {
        !stage.handle.phone(&id).unwrap().connected
    })
    .await;
}

#[tokio::test]
async fn a_device_takes_five_public_messages_of_xiaomi_a_day_when_limits_are_on() {
    let stage = Stage::open().await;
    let phone = stage
        .handle
        .add_phone(NewPhone::of("android", "xiaomi", "", "u"))
        .await
        .unwrap();
    let token = stage.handle.phone_tokens(&phone.id).unwrap()[&Channel::Xiaomi].clone();
    let key = format!("key={}", stage.accounts().xiaomi.app_secret);
    let mut wire = stage.connect(Door::Http2).await;
    let mut send = async |n: usize| {
        let (id, notify) = (format!("m{n}"), n.to_string());
        let body = form(&[
            ("registration_id", &token),
            ("restricted_package_name", PACKAGE),
            ("title", "t"),
            ("description", "d"),
            ("notify_id", &notify),
            ("extra.channel_id", "200001"),
            ("extra.hy_id", &id),
        ]);
        let kind = ("content-type", "application/x-www-form-urlencoded");
        let headers = [("authorization", key.as_str()), kind];
        let answer = wire
            .call("POST", "/v3/message/regid", &headers, body)
            .await
            .unwrap();
        assert_eq!(answer.at("/code"), "0");
    };
    let seen = || stage.handle.tray(&phone.id).unwrap().len();
    for n in 0..7 {
        send(n).await;
    }
    assert_eq!(seen(), 7);
    stage.handle.set_device_limits(true);
    for n in 10..17 {
        send(n).await;
    }
    assert_eq!(seen(), 12);
    stage.handle.advance(Duration::from_secs(86_400));
    send(20).await;
    assert_eq!(seen(), 13);
}

/// A wake-up as the server makes it for the key `secret`.
fn wake_up(sequence: u32) -> String {
    let mut frame = vec![1, 0, 0x00, 0xc0, 0xff, 0xee];
    frame.extend(sequence.to_be_bytes());
    frame.extend(u32::try_from(now_s()).unwrap().to_be_bytes());
    let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"secret"), &frame);
    frame.extend(&mac.as_ref()[..8]);
    format!("#P1:{}", URL_SAFE_NO_PAD.encode(frame))
}

async fn text(stage: &Stage, phone: &str, body: &str) {
    let account = stage.handle.credential(Channel::Twilio).unwrap();
    let (sid, secret) = (&account["account_sid"], &account["auth_token"]);
    let (sid, secret) = (sid.as_str().unwrap(), secret.as_str().unwrap());
    let number = stage.handle.phone_tokens(phone).unwrap()[&Channel::Sms].clone();
    let basic = format!("Basic {}", STANDARD.encode(format!("{sid}:{secret}")));
    let headers = [
        ("authorization", basic.as_str()),
        ("content-type", "application/x-www-form-urlencoded"),
    ];
    let path = format!("/2010-04-01/Accounts/{sid}/Messages.json");
    let fields = [("To", &*number), ("From", "+15005550006"), ("Body", body)];
    let answer = stage.call("POST", &path, &headers, form(&fields)).await;
    assert_eq!(answer.status, 201, "{answer:?}");
}

#[tokio::test]
async fn a_true_wake_up_starts_a_killed_app_for_a_moment() {
    let stage = Stage::open().await;
    let played = Played::default();
    stage.handle.attach_to(Arc::new(played.clone()));
    let phone = NewPhone {
        channels: Some(vec!["sms".to_owned()]),
        ..NewPhone::of("iot", "goose", "", "u1")
    };
    let id = stage.handle.add_phone(phone).await.unwrap().id;
    assert!(played.heard("wake key"), "{:?}", played.log());
    stage
        .handle
        .patch_phone(&id, patch(r#"{"state":"killed"}"#))
        .await
        .unwrap();
    let tray = || stage.handle.tray(&id).unwrap();
    // The server has no key for it: the code is not believed, and not shown either.
    text(&stage, &id, &wake_up(1)).await;
    until("asked again", || played.count("wake key") == 2).await;
    assert_eq!(played.count("connect false"), 0);
    played.0.lock().unwrap().wake_key = Some(Key {
        key: URL_SAFE_NO_PAD.encode("secret").into(),
        app: "00c0ffee".to_owned(),
        valid_s: 60,
    });
    // Now it has one, which the app asks for when a code comes that it cannot judge.
    text(&stage, &id, &wake_up(2)).await;
    until("connected", || played.count("connect false") == 1).await;
    played.send(message("m1")).await;
    until("shown", || tray().len() == 1).await;
    assert_eq!(tray()[0].via, "connection");
    stage.handle.advance(Duration::from_secs(11));
    until("let go", || played.count("close") == 1).await;
    // The same again, and a false one, wake nobody; any other text is for the person.
    text(&stage, &id, &wake_up(2)).await;
    let mut forged = wake_up(3);
    forged.replace_range(30.., "AAAA");
    text(&stage, &id, &forged).await;
    until("asked for a newer key", || played.count("wake key") == 4).await;
    text(&stage, &id, "see you at eight").await;
    until("shown", || tray().len() == 2).await;
    assert_eq!(
        (tray()[1].via.as_str(), played.count("connect false")),
        ("sms", 1)
    );
}
