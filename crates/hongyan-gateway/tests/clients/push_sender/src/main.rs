//! `push_sender make` prints a new VAPID key pair; `push_sender ORDER` posts what the order (JSON) says with `web-push-native`, and
//! prints the status of each answer.

use std::error::Error;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use serde::Deserialize;
use web_push_native::jwt_simple::algorithms::{ECDSAP256PublicKeyLike as _, ES256KeyPair};
use web_push_native::p256::PublicKey;
use web_push_native::{Auth, WebPushBuilder};

#[derive(Deserialize)]
struct Order {
    subscription: Subscription,
    /// Secret key in base64url; posts are unsigned without.
    key: Option<String>,
    /// Where the server is reached, as a proxy in front of it would: host and port.
    connect: String,
    send: Vec<Post>,
}

#[derive(Deserialize)]
struct Subscription {
    endpoint: String,
    keys: Keys,
}

#[derive(Deserialize)]
struct Keys {
    p256dh: String,
    auth: String,
}

#[derive(Deserialize)]
struct Post {
    text: String,
    urgency: Option<String>,
    topic: Option<String>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let order = std::env::args().nth(1).ok_or("push_sender make | ORDER")?;
    if order == "make" {
        let pair = ES256KeyPair::generate();
        let public = pair.public_key().public_key().to_bytes_uncompressed();
        let made = serde_json::json!({
            "public": B64.encode(public), "secret": B64.encode(pair.to_bytes()),
        });
        println!("{made}");
        return Ok(());
    }
    let order: Order = serde_json::from_str(&order)?;
    let key = order.key.map(|text| B64.decode(text)).transpose()?;
    let key = key.map(|bytes| ES256KeyPair::from_bytes(&bytes)).transpose()?;
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(30)))
        .build()
        .into();
    let mut statuses = Vec::new();
    for post in order.send {
        let public = PublicKey::from_sec1_bytes(&B64.decode(&order.subscription.keys.p256dh)?)?;
        let auth = Auth::clone_from_slice(&B64.decode(&order.subscription.keys.auth)?);
        let endpoint = order.subscription.endpoint.parse()?;
        let builder = WebPushBuilder::new(endpoint, public, auth)
            .with_valid_duration(Duration::from_secs(60));
        let mut request = match &key {
            Some(key) => builder
                .with_vapid(key, "mailto:tests@hongyan.example")
                .build(post.text)?,
            None => builder.build(post.text)?,
        };
        for (name, value) in [("urgency", post.urgency), ("topic", post.topic)] {
            if let Some(value) = value {
                request.headers_mut().insert(name, value.parse()?);
            }
        }
        // The library signs for origins on the usual ports only, so the address is one; the connection is to another.
        let mut parts = request.uri().clone().into_parts();
        parts.authority = Some(order.connect.parse()?);
        *request.uri_mut() = parts.try_into()?;
        statuses.push(agent.run(request)?.status().as_u16());
    }
    println!("{}", serde_json::to_string(&statuses)?);
    Ok(())
}
