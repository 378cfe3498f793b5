//! Listeners for MQTT over TCP and TLS.

use std::net::SocketAddr;
use std::sync::Arc;

use hongyan_listener::{Arrival, Door, Listener, Refusal};
use rustls::ServerConfig;
use tokio::net::TcpListener;

use super::Mqtt;
use crate::gate::Permit;
use crate::gateway::Socket;

impl Mqtt {
    /// Accepts connections until `stop` resolves; with TLS when it is given settings.
    pub async fn listen(
        self,
        listener: TcpListener,
        tls: Option<Arc<ServerConfig>>,
        stop: impl Future<Output = ()>,
    ) {
        let listener = Listener {
            name: "mqtt",
            socket: listener,
            tls: tls.map(|tls| self.handle.prepare_tls(tls)),
            opening: self.handle.opening(),
        };
        // What is not open by then is cut: nothing was said yet.
        drop(listener.run(self, stop).await);
    }
}

impl Door for Mqtt {
    type Place = Permit;

    /// Beyond the limits for strangers the connection is dropped: before CONNECT there is no word for it.
    fn admit(&self, peer: SocketAddr) -> Result<Permit, Refusal> {
        let busy = |_| Refusal { words: b"" };
        self.handle.admit(peer.ip()).map_err(busy)
    }

    async fn welcome(self, arrival: Arrival, permit: Permit) {
        let peer = arrival.peer();
        match arrival.secure().await.and_then(Socket::try_from) {
            Ok(socket) => {
                if let Err(error) = self.adopt(socket, permit) {
                    tracing::debug!(%peer, %error, "an MQTT connection was not taken over");
                }
            }
            Err(error) => tracing::debug!(%peer, %error, "an MQTT connection was not opened"),
        }
    }
}
