//! The open MQTT space: from settings and a certificate to a broker.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use hongyan_mqtt::broker::{Access, Broker, Options};
use tokio::net::TcpListener;

use crate::config::Config;
use crate::tasks::{Stop, Tasks};
use crate::wiring::{tls, tls_of};

/// A listener that is open, and what will be spoken there.
#[derive(Debug)]
pub(crate) struct OpenSpace {
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    options: Options,
}

/// Opens the listener of the open space, if it is set.
///
/// # Errors
/// An address that is not free, or a certificate that is missing.
pub(crate) async fn listen(
    config: &Config,
    local_server: Option<&(String, String)>,
) -> anyhow::Result<Option<OpenSpace>> {
    let mqtt = &config.mqtt;
    let Some(address) = mqtt.open_listen.map(|address| address.0) else {
        return Ok(None);
    };
    let tls = match mqtt.open_tls {
        true => Some(certificate(config, local_server)?),
        false => None,
    };
    let access = match (&mqtt.open_user, &mqtt.open_password) {
        (Some(user), Some(password)) => Access::Password {
            user: user.clone(),
            password: password.expose().to_vec(),
        },
        _ => Access::Anyone,
    };
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("mqtt.open_listen: {address} is not free; stop what uses it or set another address")
    })?;
    Ok(Some(OpenSpace {
        listener,
        tls,
        options: Options {
            access,
            ..Options::default()
        },
    }))
}

fn certificate(
    config: &Config,
    local_server: Option<&(String, String)>,
) -> anyhow::Result<Arc<rustls::ServerConfig>> {
    let (own, http) = (&config.mqtt, &config.http);
    let mut tls = match (&own.tls_cert, &own.tls_key, &http.tls_cert, &http.tls_key) {
        (Some(cert), Some(key), ..) => tls(("mqtt.tls_cert", cert), ("mqtt.tls_key", key))?,
        (_, _, Some(cert), Some(key)) => tls(("http.tls_cert", cert), ("http.tls_key", key))?,
        _ => match local_server {
            Some((cert, key)) => tls_of(cert.as_bytes(), key.as_bytes())?,
            None => bail!(
                "mqtt.open_tls needs a certificate: set mqtt.tls_cert and mqtt.tls_key (or those of http)"
            ),
        },
    };
    // WebSockets begin with HTTP/1.1.
    tls.alpn_protocols = vec![b"mqtt".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(tls))
}

/// Serves the open space until `stop`.
pub(crate) fn serve(space: Option<OpenSpace>, tasks: &Tasks, stop: &Stop) {
    let Some(space) = space else { return };
    if let Ok(address) = space.listener.local_addr() {
        tracing::info!(%address, "the open MQTT space is ready");
    }
    let mut stop = stop.clone();
    tasks.spawn_essential("open MQTT space", stop.clone(), async move {
        let broker = Broker::new(space.options);
        let stopped = async move { stop.stopped().await };
        hongyan_mqtt::serve(space.listener, broker, space.tls, stopped).await;
    });
}
