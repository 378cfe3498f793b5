//! A gateway of the test's own: each accepted connection is scripted by the test, over pipes in
//! memory, so that the clock can be stopped.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{SinkExt, StreamExt};
use hongyan_client::net::{BoxStream, Connect};
use hongyan_client::{Codec, Options};
use serde_json::{Value, json};
use tokio::io::DuplexStream;
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

/// Longer than any wait of the protocol; with a stopped clock it costs nothing.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Hands the client's ends of pipes to the test.
#[derive(Debug, Clone)]
pub struct Pipes {
    dialled: mpsc::Sender<DuplexStream>,
}

#[async_trait]
impl Connect for Pipes {
    async fn connect(&self, _: &str, _: u16) -> io::Result<BoxStream> {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        self.dialled
            .send(theirs)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
        Ok(Box::new(ours))
    }
}

/// The test's side of the pipes.
pub struct Gateway {
    dials: Mutex<mpsc::Receiver<DuplexStream>>,
    pub codec: Codec,
}

pub fn pair(codec: Codec) -> (Gateway, Options) {
    let (dialled, dials) = mpsc::channel(1);
    let mut options = Options::new("http://gateway.test:7400").unwrap();
    options.connector = Arc::new(Pipes { dialled });
    options.codec = codec;
    options.seed = Some(7);
    options.transports = vec![hongyan_client::Transport::WebSocket];
    (
        Gateway {
            dials: Mutex::new(dials),
            codec,
        },
        options,
    )
}

/// One accepted connection.
pub struct Conn {
    socket: WebSocketStream<DuplexStream>,
    codec: Codec,
    pub hello: Value,
}

impl Gateway {
    /// Waits for the next dial, upgrades it and reads its hello.
    pub async fn accept(&self) -> Conn {
        let stream = self.dial().await;
        let name = self.codec.subprotocol();
        #[allow(clippy::result_large_err, reason = "the library's signature")]
        let check =
            |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
                assert_eq!(request.uri().path(), "/v1/connect");
                assert_eq!(request.headers()["sec-websocket-protocol"], name);
                response
                    .headers_mut()
                    .insert("sec-websocket-protocol", name.parse().unwrap());
                Ok(response)
            };
        let socket = tokio_tungstenite::accept_hdr_async(stream, check)
            .await
            .unwrap();
        let mut conn = Conn {
            socket,
            codec: self.codec,
            hello: Value::Null,
        };
        conn.hello = conn.expect("hello").await;
        conn
    }

    /// As `accept`, and welcomes it.
    pub async fn welcome(&self, head: &str) -> Conn {
        let mut conn = self.accept().await;
        conn.say(
            json!({"t": "welcome", "session": "s1", "device": "d1", "head": head, "hb": 45,
            "inflight": conn.hello["inflight"], "replay": "resume", "now": 1_767_229_200_123_i64}),
        )
        .await;
        conn
    }

    pub async fn dial(&self) -> DuplexStream {
        timeout(PATIENCE, self.dials.lock().await.recv())
            .await
            .expect("a dial")
            .unwrap()
    }

    /// Whether nobody dials for so long.
    pub async fn quiet_for(&self, time: Duration) -> bool {
        !matches!(
            timeout(time, self.dials.lock().await.recv()).await,
            Ok(Some(_))
        )
    }
}

impl Conn {
    pub async fn say(&mut self, value: Value) {
        let frame = match self.codec {
            Codec::Json => Frame::text(value.to_string()),
            Codec::Cbor => {
                let mut bytes = Vec::new();
                ciborium::into_writer(&value, &mut bytes).unwrap();
                Frame::binary(bytes)
            }
        };
        self.socket.send(frame).await.unwrap();
    }

    pub async fn say_raw(&mut self, frame: Frame) {
        self.socket.send(frame).await.unwrap();
    }

    /// Says what the client cuts off at the declared length, and waits for the end.
    pub async fn say_too_much(&mut self, frame: Frame) {
        // The pipe may break in the middle, which is what is asked for.
        let _ = self.socket.send(frame).await;
        while let Some(Ok(_)) = self.socket.next().await {}
    }

    pub async fn msg(&mut self, n: u32) {
        self.say(json!({"t": "msg", "cursor": format!("c{n}"), "id": format!("m{n}"),
            "at": 1_767_229_200_123_i64, "class": "im", "notification": {"title": format!("t{n}")}}))
            .await;
    }

    pub async fn idle(&mut self, head: &str) {
        self.say(json!({"t": "idle", "head": head})).await;
    }

    /// What the client says next, or how it closes.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            let frame = timeout(PATIENCE, self.socket.next())
                .await
                .expect("the client says something");
            return match (self.codec, frame?) {
                (Codec::Json, Ok(Frame::Text(text))) => Some(serde_json::from_str(&text).unwrap()),
                (Codec::Cbor, Ok(Frame::Binary(bytes))) => {
                    Some(ciborium::from_reader(&bytes[..]).unwrap())
                }
                (_, Ok(Frame::Close(_)) | Err(_)) => None,
                (_, Ok(Frame::Ping(_) | Frame::Pong(_))) => continue,
                (codec, other) => panic!("{other:?} on {codec:?}"),
            };
        }
    }

    pub async fn expect(&mut self, t: &str) -> Value {
        let said = self.next().await.expect("the connection is open");
        assert_eq!(said["t"], t, "{said}");
        said
    }

    pub async fn close(mut self, code: u16) {
        let frame = CloseFrame {
            code: code.into(),
            reason: "told".into(),
        };
        self.socket.send(Frame::Close(Some(frame))).await.unwrap();
        while let Some(Ok(_)) = self.socket.next().await {}
    }
}
