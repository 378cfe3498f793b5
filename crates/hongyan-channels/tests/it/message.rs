//! Messages, batches and channels for tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use hongyan_channels::egress::{Egress, Http2, Options as EgressOptions};
use hongyan_channels::vendor;
use hongyan_core::message::{Click, Notification, Options, Target};
use hongyan_core::port::{Batch, Channel, Clock, OpenCredential, Outbound, Recipient};
use hongyan_core::{
    AppId, Class, CredentialName, DeviceId, Message, MessageId, Secret, Timestamp, UserId,
};
use serde_json::{Value, json};

/// Wall-clock time: the simulators check signatures against it.
#[derive(Debug)]
pub(crate) struct WallClock;

impl Clock for WallClock {
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Timestamp(i64::try_from(since.unwrap().as_millis()).unwrap())
    }
}

/// Wall-clock time that a test moves ahead.
#[derive(Debug, Default)]
pub(crate) struct MovedClock(Arc<AtomicI64>);

impl MovedClock {
    pub(crate) fn ahead(ahead_ms: &Arc<AtomicI64>) -> Self {
        Self(Arc::clone(ahead_ms))
    }

    pub(crate) fn advance(&self, by: Duration) {
        let by = i64::try_from(by.as_millis()).unwrap();
        self.0.fetch_add(by, Ordering::SeqCst);
    }
}

impl Clock for MovedClock {
    fn now(&self) -> Timestamp {
        Timestamp(WallClock.now().0 + self.0.load(Ordering::SeqCst))
    }
}

pub(crate) fn egress(ca_pem: &str) -> Egress {
    egress_at(ca_pem, Arc::new(WallClock))
}

pub(crate) fn egress_at(ca_pem: &str, clock: Arc<dyn Clock>) -> Egress {
    egress_of(ca_pem, clock, Http2::Own)
}

pub(crate) fn egress_with(ca_pem: &str, http2: Http2) -> Egress {
    egress_of(ca_pem, Arc::new(WallClock), http2)
}

fn egress_of(ca_pem: &str, clock: Arc<dyn Clock>, http2: Http2) -> Egress {
    let options = EgressOptions {
        allow_loopback: true,
        roots_pem: Some(ca_pem.to_owned()),
        http2,
        ..EgressOptions::default()
    };
    Egress::new(&options, clock).unwrap()
}

pub(crate) fn open(
    egress: &Egress,
    name: &str,
    config: &Value,
    endpoint: &str,
) -> Arc<dyn Channel> {
    open_at(egress, name, config, Some(endpoint), None)
}

/// The same for a server that vendors can post to.
pub(crate) fn open_with_callback(
    egress: &Egress,
    name: &str,
    config: &Value,
    endpoint: &str,
    callback: Option<&str>,
) -> Arc<dyn Channel> {
    open_at(egress, name, config, Some(endpoint), callback)
}

/// The same, at the vendor's usual address when there is no endpoint.
pub(crate) fn open_at(
    egress: &Egress,
    name: &str,
    config: &Value,
    endpoint: Option<&str>,
    callback: Option<&str>,
) -> Arc<dyn Channel> {
    let vendors = vendor::all(egress);
    let vendor = vendors.iter().find(|v| v.id().as_str() == name).unwrap();
    let shown = vendor.check_config(config).unwrap();
    assert!(!Value::Object(shown).to_string().contains("PRIVATE KEY"));
    vendor
        .open(OpenCredential {
            app: AppId::parse("demo").unwrap(),
            name: CredentialName::parse("default").unwrap(),
            config: Secret::new(config.to_string()),
            endpoint: endpoint.map(str::to_owned),
            callback: callback.map(str::to_owned),
        })
        .unwrap()
}

pub(crate) fn message(class: Class) -> Message {
    let now = WallClock.now();
    Message {
        id: MessageId(uuid::Uuid::now_v7()),
        app: AppId::parse("demo").unwrap(),
        to: Target::Users(vec![UserId::parse("u1").unwrap()]),
        class,
        class_detail: None,
        notification: Some(Notification {
            title: "Order 42".to_owned(),
            body: "is on its way".to_owned(),
            click: Some(Click {
                url: "app://order/42".to_owned(),
            }),
            ..Notification::default()
        }),
        data: json!({"order": 42}).as_object().cloned(),
        push: None,
        recalls: None,
        options: Options::default(),
        accepted_at: now,
        expires_at: now.plus(Duration::from_secs(3600)),
    }
}

pub(crate) fn outbound(message: Message) -> Outbound {
    Outbound {
        title: message.notification.as_ref().map(|n| n.title.clone()),
        body: message.notification.as_ref().map(|n| n.body.clone()),
        badge: Some(1),
        package: None,
        expires_at: message.expires_at,
        now: message.accepted_at,
        dedup_key: message.id.to_string(),
        message: Arc::new(message),
    }
}

pub(crate) fn batch(outbound: Outbound, tokens: impl IntoIterator<Item = String>) -> Batch {
    let recipients = tokens.into_iter().enumerate().map(|(i, token)| Recipient {
        device: DeviceId::parse(&format!("d{i}")).unwrap(),
        token: Secret::new(token),
        environment: None,
        secret_hash: [7; 32],
    });
    Batch {
        outbound,
        recipients: recipients.collect(),
    }
}
