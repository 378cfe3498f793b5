//! The address that vendors post receipts to.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use hongyan_core::Timestamp;
use hongyan_core::port::{Callback, CallbackError, CallbackRequest, Channel};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// A post as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Post {
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
}

impl Post {
    /// What the channel makes of it.
    pub(crate) fn heard_by(&self, channel: &dyn Channel) -> Result<Callback, CallbackError> {
        let request = CallbackRequest {
            method: &self.method,
            url: &self.url,
            headers: &self.headers,
            body: &self.body,
            now: Timestamp(1_800_000_000_000),
        };
        channel.callback(&request).unwrap()
    }
}

/// A plain HTTP server on loopback that keeps what is posted; it ends with its runtime.
pub(crate) struct Listener {
    pub(crate) url: String,
    posts: Arc<Mutex<Vec<Post>>>,
}

impl Listener {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/cb?k=s", listener.local_addr().unwrap());
        let posts = Arc::new(Mutex::new(Vec::new()));
        tokio::spawn({
            let (posts, url) = (posts.clone(), url.clone());
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let (posts, url) = (posts.clone(), url.clone());
                    let service = hyper::service::service_fn(move |request| {
                        keep(request, url.clone(), posts.clone())
                    });
                    tokio::spawn(
                        hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service),
                    );
                }
            }
        });
        Self { url, posts }
    }

    /// The posts, once there are so many.
    pub(crate) async fn posts(&self, count: usize) -> Vec<Post> {
        let deadline = tokio::time::Instant::now() + super::PATIENCE;
        loop {
            let posts = self.posts.lock().unwrap().clone();
            if posts.len() >= count {
                return posts;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "waited in vain for {count} posts; there are {}",
                posts.len()
            );
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
}

async fn keep(
    request: Request<Incoming>,
    url: String,
    posts: Arc<Mutex<Vec<Post>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let text = |v: &http::HeaderValue| v.to_str().unwrap_or_default().to_owned();
    let post = Post {
        method: head.method.to_string(),
        url,
        headers: head
            .headers
            .iter()
            .map(|(n, v)| (n.to_string(), text(v)))
            .collect(),
        body: body
            .collect()
            .await
            .map(|b| b.to_bytes())
            .unwrap_or_default(),
    };
    posts.lock().unwrap().push(post);
    Ok(Response::new(Full::new(Bytes::new())))
}
