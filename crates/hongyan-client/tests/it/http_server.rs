//! A server that answers each HTTP request from a script, and keeps what it was asked.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// What one request was.
#[derive(Debug, Clone)]
pub struct Asked {
    pub line: String,
    pub authorization: String,
    pub idempotency_key: Option<String>,
    pub last_event_id: Option<String>,
    pub body: String,
}

/// How one request is answered.
#[derive(Debug, Clone)]
pub enum Reply {
    /// Status, content type, body.
    Text(u16, &'static str, String),
    /// The connection is cut.
    Cut,
    /// Nothing for ever.
    Silence,
}

#[derive(Clone, Default)]
struct State {
    asked: Arc<Mutex<Vec<Asked>>>,
    replies: Arc<Mutex<VecDeque<Reply>>>,
}

pub struct Server {
    pub base: String,
    state: State,
}

impl Server {
    pub async fn start(replies: impl IntoIterator<Item = Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let state = State::default();
        state.replies.lock().unwrap().extend(replies);
        let shared = state.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = shared.clone();
                let service = service_fn(move |request| answer(state.clone(), request));
                tokio::spawn(async move {
                    let io = TokioIo::new(stream);
                    // A cut connection is an error here and part of the script.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(io, service)
                        .await;
                });
            }
        });
        Self { base, state }
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.state.asked.lock().unwrap().clone()
    }
}

async fn answer(
    state: State,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, &'static str> {
    let header = |name: &str| {
        request
            .headers()
            .get(name)
            .map(|v| v.to_str().unwrap().to_owned())
    };
    let mut asked = Asked {
        line: format!("{} {}", request.method(), request.uri()),
        authorization: header("authorization").unwrap_or_default(),
        idempotency_key: header("idempotency-key"),
        last_event_id: header("last-event-id"),
        body: String::new(),
    };
    let body = request
        .into_body()
        .collect()
        .await
        .map_err(|_| "cut")?
        .to_bytes();
    asked.body = String::from_utf8(body.to_vec()).unwrap();
    state.asked.lock().unwrap().push(asked);
    let reply = state.replies.lock().unwrap().pop_front();
    match reply {
        Some(Reply::Text(status, kind, text)) => {
            let mut response = Response::new(Full::new(Bytes::from(text)));
            *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap();
            response
                .headers_mut()
                .insert("content-type", kind.parse().unwrap());
            Ok(response)
        }
        Some(Reply::Silence) => std::future::pending().await,
        Some(Reply::Cut) | None => Err("cut"),
    }
}
