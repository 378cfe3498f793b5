//! a2. Its client can be sent to Apple's hosts alone, so that its `build_request` and `send` are repeated here over the stack that
//! it has (hyper-util's client, hyper-rustls 0.26, rustls 0.22); payload and options are its own. Its signer is private as well: a token
//! signed before stands behind the same lock.

use std::convert::Infallible;
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime};

use a2::request::payload::{Payload, PayloadLike};
use a2::{CollapseId, DefaultNotificationBuilder, NotificationBuilder, NotificationOptions, Priority, PushType};
use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::Load;
use crate::drive::{Measured, drive};

const TOKENS: u64 = 100_000;
const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

struct Sender {
    client: Client<HttpsConnector<HttpConnector>, BoxBody<Bytes, Infallible>>,
    signed: RwLock<(String, SystemTime)>,
    host: String,
}

pub(crate) async fn run(load: Load) -> anyhow::Result<Measured> {
    let pem = std::fs::read(&load.ca).context("the certificate cannot be read")?;
    let mut roots = rustls_of_a2::RootCertStore::empty();
    for der in certificates(&pem)? {
        roots.add(der.into())?;
    }
    let tls = rustls_of_a2::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_only()
        .enable_http2()
        .build();
    // As long as a token of ES256 with its two ids.
    let token = format!("{}.{}.{}", "h".repeat(48), "c".repeat(51), "s".repeat(86));
    let sender = Arc::new(Sender {
        client: Client::builder(TokioExecutor::new()).http2_only(true).build(connector),
        signed: RwLock::new((token, SystemTime::now())),
        host: format!("localhost:{}", load.port),
    });
    drive(load.plan("a2"), move |caller, n| {
        let sender = Arc::clone(&sender);
        async move {
            let token = format!("{:064x}", (caller as u64 * 7_919 + n) % TOKENS);
            sender.send(payload(&token)?).await
        }
    })
    .await
}

fn certificates(pem: &[u8]) -> anyhow::Result<Vec<Vec<u8>>> {
    use rustls::pki_types::{CertificateDer, pem::PemObject as _};
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    Ok(all?.into_iter().map(|der| der.to_vec()).collect())
}

/// The same message that our channel sends.
fn payload(token: &str) -> anyhow::Result<Payload<'_>> {
    let options = NotificationOptions {
        apns_push_type: Some(PushType::Alert),
        apns_expiration: Some(1_767_229_200),
        apns_priority: Some(Priority::High),
        apns_topic: Some("com.example.app"),
        apns_collapse_id: Some(CollapseId::new(ID)?),
        apns_id: None,
    };
    let mut payload = DefaultNotificationBuilder::new()
        .set_title("Order 42")
        .set_body("is on its way")
        .set_sound("default")
        .set_mutable_content()
        .build(token, options);
    payload.add_custom_data("hy_id", &ID)?;
    Ok(payload)
}

impl Sender {
    async fn send(&self, payload: Payload<'_>) -> anyhow::Result<u64> {
        let request = self.request(&payload)?;
        let answer = tokio::time::timeout(Duration::from_secs(20), self.client.request(request)).await??;
        let id = answer.headers().get("apns-id").and_then(|id| id.to_str().ok()).map(String::from);
        if answer.status() != StatusCode::OK || id.is_none() {
            bail!("the sink answered {}", answer.status());
        }
        Ok(1)
    }

    fn request(&self, payload: &Payload<'_>) -> anyhow::Result<Request<BoxBody<Bytes, Infallible>>> {
        let path = format!("https://{}/3/device/{}", self.host, payload.get_device_token());
        let mut builder = Request::builder()
            .uri(&path)
            .method("POST")
            .header("content-type", "application/json");
        let options = payload.get_options();
        if let Some(priority) = &options.apns_priority {
            builder = builder.header("apns-priority", priority.to_string().as_bytes());
        }
        if let Some(push_type) = &options.apns_push_type {
            builder = builder.header("apns-push-type", push_type.to_string().as_bytes());
        }
        if let Some(expiration) = &options.apns_expiration {
            builder = builder.header("apns-expiration", expiration.to_string().as_bytes());
        }
        if let Some(id) = &options.apns_collapse_id {
            builder = builder.header("apns-collapse-id", id.value.as_bytes());
        }
        if let Some(topic) = options.apns_topic {
            builder = builder.header("apns-topic", topic.as_bytes());
        }
        let authorization = {
            let signed = self.signed.read().map_err(|_| anyhow::anyhow!("a sender panicked"))?;
            let age = signed.1.elapsed().unwrap_or_default();
            anyhow::ensure!(age < Duration::from_secs(55 * 60), "the token is too old");
            format!("Bearer {}", signed.0)
        };
        builder = builder.header("authorization", authorization.as_bytes());
        let json = payload.to_json_string()?;
        builder = builder.header("content-length", format!("{}", json.len()).as_bytes());
        Ok(builder.body(Full::from(json.into_bytes()).boxed())?)
    }
}
