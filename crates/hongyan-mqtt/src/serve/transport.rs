//! How packets' bytes come and go: bare, or in binary frames of a WebSocket [6.0.0-1] to [6.0.0-4].

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use hongyan_listener::Transport;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::header::{
    HeaderName, HeaderValue, ORIGIN, SEC_WEBSOCKET_PROTOCOL,
};
use tokio_tungstenite::tungstenite::http::{StatusCode, Uri};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Bytes, Message};

use super::SLOW;
use super::stream::Prefixed;

/// Where a WebSocket is opened.
const PATH: &str = "/mqtt";

/// What it must speak.
const SUBPROTOCOL: &str = "mqtt";

/// Bytes of a WebSocket's read buffer.
const READ_BUFFER: usize = 4 * 1024;

/// What came.
#[derive(Debug)]
pub(super) enum Read<'a> {
    Bytes(&'a [u8]),
    /// A text frame, which closes the connection.
    Text,
    End,
}

/// The half that is read.
#[derive(Debug)]
pub(super) enum Reader {
    Plain(ReadHalf<Transport>),
    Web(SplitStream<WebSocketStream<Prefixed>>, Bytes),
}

impl Reader {
    /// The next bytes, which lie in `buffer` or in the reader.
    pub(super) async fn read<'a>(&'a mut self, buffer: &'a mut [u8]) -> Read<'a> {
        match self {
            Self::Plain(stream) => match stream.read(buffer).await {
                Ok(0) | Err(_) => Read::End,
                Ok(length) => Read::Bytes(buffer.get(..length).unwrap_or_default()),
            },
            Self::Web(stream, last) => loop {
                match stream.next().await {
                    Some(Ok(Message::Binary(bytes))) => {
                        *last = bytes;
                        return Read::Bytes(last);
                    }
                    Some(Ok(Message::Text(_))) => return Read::Text,
                    Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return Read::End,
                }
            },
        }
    }
}

/// The half that is written.
#[derive(Debug)]
pub(super) enum Writer {
    Plain(WriteHalf<Transport>),
    Web(SplitSink<WebSocketStream<Prefixed>, Message>),
}

impl Writer {
    /// Writes everything; false when the client is gone or does not read.
    pub(super) async fn write(&mut self, bytes: Vec<u8>) -> bool {
        match self {
            Self::Plain(stream) => {
                let mut rest = bytes.as_slice();
                while !rest.is_empty() {
                    match timeout(SLOW, stream.write(rest)).await {
                        Ok(Ok(written)) if written > 0 => {
                            rest = rest.get(written..).unwrap_or_default();
                        }
                        _ => return false,
                    }
                }
                matches!(timeout(SLOW, stream.flush()).await, Ok(Ok(())))
            }
            Self::Web(sink) => {
                let message = Message::Binary(bytes.into());
                matches!(timeout(SLOW, sink.send(message)).await, Ok(Ok(())))
            }
        }
    }

    /// Says that nothing more comes.
    pub(super) async fn close(&mut self) {
        // The client may be gone already.
        let _ = match self {
            Self::Plain(stream) => stream.shutdown().await.is_ok(),
            Self::Web(sink) => sink.close().await.is_ok(),
        };
    }
}

/// Answers the opening handshake of a WebSocket; `None` when it was refused.
///
/// `anyone` says that everybody may connect: then pages of other sites, which a browser on this machine might
/// show, may not.
pub(super) async fn upgrade(
    stream: Prefixed,
    packet_max: usize,
    anyone: bool,
) -> Option<(Reader, Writer)> {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        // A frame may hold several packets.
        .max_message_size(Some(packet_max * 2))
        .max_frame_size(Some(packet_max * 2));
    #[allow(clippy::result_large_err, reason = "the library's own signature")]
    let judge = |request: &Request, mut response: Response| match refusal(request, anyone) {
        None => {
            response.headers_mut().insert(
                SEC_WEBSOCKET_PROTOCOL,
                HeaderValue::from_static(SUBPROTOCOL),
            );
            Ok(response)
        }
        Some((status, text)) => {
            let mut refused = ErrorResponse::new(Some(text.to_owned()));
            *refused.status_mut() = status;
            Err(refused)
        }
    };
    let accepted =
        tokio_tungstenite::accept_hdr_async_with_config(stream, judge, Some(config)).await;
    let (sink, stream) = accepted.ok()?.split();
    Some((Reader::Web(stream, Bytes::new()), Writer::Web(sink)))
}

fn refusal(request: &Request, anyone: bool) -> Option<(StatusCode, &'static str)> {
    let has = |name: HeaderName, fits: &dyn Fn(&str) -> bool| {
        let mut values = request.headers().get_all(name).iter();
        values.any(|value| value.to_str().is_ok_and(fits))
    };
    if request.uri().path() != PATH {
        return Some((StatusCode::NOT_FOUND, "the path is /mqtt"));
    }
    let speaks = |value: &str| value.split(',').any(|one| one.trim() == SUBPROTOCOL);
    if !has(SEC_WEBSOCKET_PROTOCOL, &speaks) {
        return Some((StatusCode::BAD_REQUEST, "the subprotocol is mqtt"));
    }
    let foreign = |origin: &str| {
        let uri: Option<Uri> = origin.parse().ok();
        let host = uri.as_ref().and_then(Uri::host);
        !matches!(host, Some("localhost" | "127.0.0.1" | "[::1]"))
    };
    if anyone && has(ORIGIN, &foreign) {
        return Some((
            StatusCode::FORBIDDEN,
            "pages of other sites need a listener with a password",
        ));
    }
    None
}
