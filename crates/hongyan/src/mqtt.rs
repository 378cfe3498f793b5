//! MQTT: listeners for devices, and the open space; from settings and certificates to gateway and broker.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use async_trait::async_trait;
use hongyan_core::draft::Draft;
use hongyan_core::message::{Notification, Options, Target};
use hongyan_core::{AppId, Class, ClassDetail, MessageId, Topic};
use hongyan_dispatch::Dispatch;
use hongyan_dispatch::intake::AcceptError;
use hongyan_gateway::{GatewayHandle, Mqtt, Publish, PublishError};
use hongyan_mqtt::broker::{Access, Broker, Options as BrokerOptions};
use serde::Deserialize;
use tokio::net::TcpListener;

use crate::config::{Address, Config};
use crate::tasks::{Stop, Tasks};
use crate::wiring::{tls, tls_of};

/// A listener that is open, and what will be spoken there.
#[derive(Debug)]
pub(crate) struct OpenSpace {
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    options: BrokerOptions,
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
        options: BrokerOptions {
            access,
            ..BrokerOptions::default()
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
                "TLS for MQTT needs a certificate: set mqtt.tls_cert and mqtt.tls_key (or those of http)"
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

/// Opens the listeners for devices that are set: the one without TLS first.
///
/// # Errors
/// An address that is not free, or a certificate that is missing.
pub(crate) async fn listen_for_devices(
    config: &Config,
    local_server: Option<&(String, String)>,
) -> anyhow::Result<Vec<(TcpListener, Option<Arc<rustls::ServerConfig>>)>> {
    let mut listeners = Vec::new();
    let settings = [
        ("mqtt.listen", config.mqtt.listen, false),
        ("mqtt.tls_listen", config.mqtt.tls_listen, true),
    ];
    for (name, address, secure) in settings {
        let Some(Address(address)) = address else {
            continue;
        };
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!("{name}: {address} is not free; stop what uses it or set another address")
        })?;
        let tls = match secure {
            true => Some(certificate(config, local_server)?),
            false => None,
        };
        listeners.push((listener, tls));
    }
    Ok(listeners)
}

/// Speaks MQTT with devices and app servers until `stop`: on the listeners, and at `/mqtt` of the HTTP listener.
pub(crate) fn serve_devices(
    (handle, dispatch): (GatewayHandle, Dispatch),
    listeners: Vec<(TcpListener, Option<Arc<rustls::ServerConfig>>)>,
    tasks: &Tasks,
    stop: &Stop,
) {
    let mqtt = Mqtt::new(handle, Arc::new(Press(dispatch)));
    for (listener, tls) in listeners {
        let (mqtt, mut stop) = (mqtt.clone(), stop.clone());
        tasks.spawn_essential("mqtt", stop.clone(), async move {
            let stopped = async move { stop.stopped().await };
            mqtt.listen(listener, tls, stopped).await;
        });
    }
}

/// Dispatch, as the gateway wants it for publications.
#[derive(Debug)]
struct Press(Dispatch);

/// A publication: a message of the HTTP API without its target and options.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Publication {
    #[serde(default)]
    class: Class,
    #[serde(default)]
    class_detail: Option<ClassDetail>,
    #[serde(default)]
    notification: Option<Notification>,
    #[serde(default)]
    data: Option<serde_json::Map<String, serde_json::Value>>,
}

#[async_trait]
impl Publish for Press {
    async fn publish(
        &self,
        app: &AppId,
        topic: Topic,
        payload: &[u8],
        ttl_s: Option<u32>,
    ) -> Result<MessageId, PublishError> {
        let invalid = |why: String| PublishError::Invalid(why);
        let publication: Publication = serde_json::from_slice(payload)
            .map_err(|error| invalid(format!("the payload is not a message: {error}")))?;
        let draft = Draft {
            to: Target::Topic(topic),
            class: publication.class,
            class_detail: publication.class_detail,
            notification: publication.notification,
            data: publication.data,
            options: Options {
                ttl_s,
                ..Options::default()
            },
        };
        match self.0.intake().accept(app, vec![draft], None).await {
            Ok(done) => done
                .ids
                .into_iter()
                .next()
                .ok_or_else(|| invalid("it was not accepted".to_owned())),
            Err(AcceptError::Invalid(faults)) => {
                let faults = faults.into_iter().flat_map(|(_, faults)| faults);
                let texts = faults.map(|fault| format!("{}: {}", fault.path, fault.problem));
                Err(invalid(texts.collect::<Vec<_>>().join("; ")))
            }
            Err(AcceptError::KeyReused) => Err(invalid("it was sent before".to_owned())),
            Err(AcceptError::Store(error)) => Err(error.into()),
        }
    }
}
