//! What carries a welcomed connection: a WebSocket, or HTTP calls. Everything above it is the same for all.

use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{self, Message as Frame};

use crate::http_link::{HttpLink, Raw};
use crate::net::BoxStream;
use crate::options::Options;
use crate::session::{Ended, failed};
use crate::transport::Transport;
use crate::wire::{self, Outgoing};

pub(crate) type Socket = WebSocketStream<BoxStream>;

/// The way of one connection.
pub(crate) enum Link {
    Socket(Box<Socket>),
    Http(Box<HttpLink>),
}

/// What came, not yet looked at.
pub(crate) enum Came {
    Frame(Option<Result<Frame, tungstenite::Error>>),
    Http(Raw),
}

impl Link {
    pub(crate) fn transport(&self) -> Transport {
        match self {
            Self::Socket(_) => Transport::WebSocket,
            Self::Http(link) => link.transport(),
        }
    }

    /// Waits for something. Cancel safe.
    pub(crate) async fn next(&mut self) -> Came {
        match self {
            Self::Socket(socket) => Came::Frame(socket.next().await),
            Self::Http(link) => Came::Http(link.next().await),
        }
    }

    /// Says something; over HTTP it is queued and goes while [`Link::next`] is awaited.
    pub(crate) async fn say(
        &mut self,
        message: &Outgoing<'_>,
        options: &Options,
    ) -> Result<(), Ended> {
        match self {
            Self::Socket(socket) => {
                let Some(frame) = wire::encode(options.codec, message) else {
                    tracing::warn!("a message for the gateway cannot be encoded and was left out");
                    return Ok(());
                };
                socket.send(frame).await.map_err(|e| failed(&e, options))
            }
            Self::Http(link) => {
                link.say(message);
                Ok(())
            }
        }
    }

    /// Whether a further client event can be said now.
    pub(crate) fn takes_events(&self) -> bool {
        match self {
            Self::Socket(_) => true,
            Self::Http(link) => link.takes_events(),
        }
    }

    /// Tells whether the app has taken everything and the acks for it were said: what a poll waits for.
    pub(crate) fn settle(&mut self, settled: bool) {
        if let Self::Http(link) = self {
            link.settle(settled);
        }
    }

    /// Says what is left and waits for the end.
    pub(crate) async fn finish(&mut self, options: &Options) -> Result<(), Ended> {
        match self {
            Self::Socket(socket) => {
                if let Some(frame) = wire::encode(options.codec, &Outgoing::Bye) {
                    socket.send(frame).await.map_err(|e| failed(&e, options))?;
                }
                while let Some(Ok(_)) = socket.next().await {}
            }
            Self::Http(link) => link.finish().await,
        }
        Ok(())
    }

    /// Sends out the reply to a close.
    pub(crate) async fn flush(&mut self) {
        if let Self::Socket(socket) = self {
            // It goes out or it does not.
            let _ = socket.flush().await;
        }
    }

    /// Closes a WebSocket whose peer broke the rules.
    pub(crate) async fn close(&mut self, code: u16) {
        if let Self::Socket(socket) = self {
            let frame = CloseFrame {
                code: code.into(),
                reason: "".into(),
            };
            // Best effort: the peer broke the rules already.
            let _ = (**socket).close(Some(frame)).await;
        }
    }
}
