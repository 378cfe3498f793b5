//! An address that vendors post receipts to, over plain HTTP on loopback.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use hongyan_core::Timestamp;
use hongyan_core::port::{Callback, CallbackError, CallbackRequest, Channel, Receipt};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

/// A post as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Post {
    pub(crate) method: String,
    pub(crate) url: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
}

impl Post {
    /// The post as the channel reads it.
    pub(crate) fn read(
        &self,
        channel: &dyn Channel,
        now: Timestamp,
    ) -> Result<Callback, CallbackError> {
        let request = CallbackRequest {
            method: &self.method,
            url: &self.url,
            headers: &self.headers,
            body: &self.body,
            now,
        };
        channel.callback(&request).unwrap()
    }
}

/// The address; it ends with its runtime.
pub(crate) struct Posts {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Post>>>,
}

impl Posts {
    pub(crate) async fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let url = format!("{base}/cb?key=k");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = seen.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (base, kept) = (base.clone(), kept.clone());
                let service = hyper::service::service_fn(move |request| {
                    keep(request, base.clone(), kept.clone())
                });
                tokio::spawn(async move {
                    let _ = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { url, seen }
    }

    /// The posts that nobody took yet.
    pub(crate) fn take(&self) -> Vec<Post> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }

    /// The posts so far, once there are this many.
    pub(crate) async fn wait(&self, count: usize) -> Vec<Post> {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            let seen = self.seen.lock().unwrap().clone();
            if seen.len() >= count {
                return seen;
            }
            let late = tokio::time::Instant::now() > deadline;
            assert!(!late, "{count} posts are wanted: {seen:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The receipts in the posts so far, once there are this many posts.
    pub(crate) async fn receipts(
        &self,
        channel: &dyn Channel,
        now: Timestamp,
        count: usize,
    ) -> Vec<Receipt> {
        let posts = self.wait(count).await;
        let read = posts.iter().map(|post| post.read(channel, now).unwrap());
        read.flat_map(|callback| callback.receipts).collect()
    }
}

async fn keep(
    request: Request<Incoming>,
    base: String,
    seen: Arc<Mutex<Vec<Post>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let text = |v: &http::HeaderValue| v.to_str().unwrap_or_default().to_owned();
    let headers = head.headers.iter();
    let post = Post {
        method: head.method.to_string(),
        url: format!("{base}{}", head.uri),
        headers: headers.map(|(n, v)| (n.to_string(), text(v))).collect(),
        body: body
            .collect()
            .await
            .map(|b| b.to_bytes())
            .unwrap_or_default(),
    };
    seen.lock().unwrap().push(post);
    Ok(Response::new(Full::default()))
}
