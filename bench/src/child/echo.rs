//! The peer of idle connections: tokio-tungstenite, one task each, which answers pings.

use futures_util::StreamExt as _;
use tokio::net::TcpListener;
use tokio_tungstenite::accept_async_with_config;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// Accepts for ever.
pub fn start(listener: TcpListener, buffer: usize) {
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let config = WebSocketConfig::default().read_buffer_size(buffer);
            tokio::spawn(async move {
                let Ok(mut socket) = accept_async_with_config(stream, Some(config)).await else {
                    return;
                };
                // Reading answers pings.
                while let Some(Ok(_)) = socket.next().await {}
            });
        }
    });
}
