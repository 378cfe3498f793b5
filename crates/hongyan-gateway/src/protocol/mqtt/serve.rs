//! Listeners for MQTT over TCP and TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::Mqtt;
use crate::gate::Permit;
use crate::gateway::Socket;
use crate::tls::Tls;

/// Time for a TLS handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Pause after the system refused a connection: usually there are no files left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Mqtt {
    /// Accepts connections until `stop` resolves; with TLS when it is given settings.
    pub async fn listen(
        self,
        listener: TcpListener,
        tls: Option<Arc<ServerConfig>>,
        stop: impl Future<Output = ()>,
    ) {
        let mut coming = JoinSet::new();
        tokio::pin!(stop);
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = coming.join_next(), if !coming.is_empty() => continue,
                () = &mut stop => break,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "an MQTT connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // Beyond the limits for strangers the connection is dropped: before CONNECT there is no word for it.
            let Ok(permit) = self.handle.admit(peer.ip()) else {
                metrics::counter!("hongyan_gateway_mqtt_refused_total").increment(1);
                continue;
            };
            let Some(tls) = tls.clone() else {
                let socket = stream.into_std().map(Socket::Plain);
                self.take_in(socket, peer, permit);
                continue;
            };
            let mqtt = self.clone();
            coming.spawn(async move {
                let secured = tokio::time::timeout(HANDSHAKE_MAX, secure(stream, tls)).await;
                if let Ok(socket) = secured {
                    mqtt.take_in(socket, peer, permit);
                }
            });
        }
    }

    fn take_in(&self, socket: std::io::Result<Socket>, peer: SocketAddr, permit: Permit) {
        match socket.map(|socket| self.adopt(socket, permit)) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(%peer, %error, "an MQTT connection was not taken over")
            }
            Err(error) => tracing::debug!(%peer, %error, "an MQTT connection ended at once"),
        }
    }
}

async fn secure(stream: TcpStream, tls: Arc<ServerConfig>) -> std::io::Result<Socket> {
    let stream = TlsAcceptor::from(tls).accept(stream).await?;
    let (stream, tls) = stream.into_inner();
    Ok(Socket::Tls(stream.into_std()?, Box::new(Tls::rustls(tls))))
}
