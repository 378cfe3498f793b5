//! Listeners for XMPP: from settings and certificates to the gateway.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use hongyan_core::port::Clock;
use hongyan_gateway::{GatewayHandle, Listener, Xmpp, XmppOptions};
use tokio::net::TcpListener;

use crate::config::Config;
use crate::tasks::{Stop, Tasks};
use crate::wiring::{tls, tls_of};

/// Opens the listeners that are set.
///
/// # Errors
/// An address that is not free, or a certificate that is missing.
pub(crate) async fn listen(
    config: &Config,
    local_server: Option<&(String, String)>,
) -> anyhow::Result<Vec<(TcpListener, Listener)>> {
    let xmpp = &config.xmpp;
    let mut listeners = Vec::new();
    let secure = || certificate(config, local_server);
    if let Some(address) = xmpp.listen {
        let how = if xmpp.allow_plaintext {
            Listener::Plain
        } else {
            Listener::StartTls(secure()?)
        };
        listeners.push((bind("xmpp.listen", address.0).await?, how));
    }
    if let Some(address) = xmpp.tls_listen {
        let how = Listener::Tls(secure()?);
        listeners.push((bind("xmpp.tls_listen", address.0).await?, how));
    }
    Ok(listeners)
}

async fn bind(name: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("{name}: {address} is not free; stop what uses it or set another address")
    })
}

fn certificate(
    config: &Config,
    local_server: Option<&(String, String)>,
) -> anyhow::Result<Arc<rustls::ServerConfig>> {
    let (own, http) = (&config.xmpp, &config.http);
    let mut tls = match (&own.tls_cert, &own.tls_key, &http.tls_cert, &http.tls_key) {
        (Some(cert), Some(key), ..) => tls(("xmpp.tls_cert", cert), ("xmpp.tls_key", key))?,
        (_, _, Some(cert), Some(key)) => tls(("http.tls_cert", cert), ("http.tls_key", key))?,
        _ => match local_server {
            Some((cert, key)) => tls_of(cert.as_bytes(), key.as_bytes())?,
            None => bail!(
                "XMPP needs a certificate: set xmpp.tls_cert and xmpp.tls_key (or those of http), or leave xmpp.listen and xmpp.tls_listen unset"
            ),
        },
    };
    tls.alpn_protocols = vec![b"xmpp-client".to_vec()];
    Ok(Arc::new(tls))
}

/// Speaks XMPP on the listeners until `stop`.
pub(crate) fn serve(
    (config, handle, clock): (&Config, GatewayHandle, Arc<dyn Clock>),
    listeners: Vec<(TcpListener, Listener)>,
    tasks: &Tasks,
    stop: &Stop,
) {
    if listeners.is_empty() {
        return;
    }
    let options = XmppOptions {
        domain: config.xmpp.domain.clone(),
        resume_s: config.xmpp.resume_s,
        ..XmppOptions::default()
    };
    let xmpp = Xmpp::new(options, handle, clock);
    for (listener, how) in listeners {
        let (xmpp, mut stop) = (xmpp.clone(), stop.clone());
        tasks.spawn_essential("xmpp", stop.clone(), async move {
            xmpp.listen(listener, how, async move { stop.stopped().await })
                .await;
        });
    }
}
