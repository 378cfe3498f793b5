//! A gateway with one inbox and three ways to it, each of which the test can spoil as boxes on the way do.

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame as BodyFrame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What a way does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It works.
    Open,
    /// This status, from something that is not the gateway.
    Status(u16),
    /// The gateway's own problem with this status and `Retry-After: 0`.
    Problem(u16),
    /// A page instead.
    Page,
    /// The answer's head comes, and nothing of its body.
    Buffered,
    /// Cut before the welcome.
    Cut,
}

#[derive(Debug)]
struct Shop {
    ways: HashMap<&'static str, Way>,
    /// Entries 1..=len.
    len: u32,
    /// Those that are marks of recalls, and of which message.
    marks: HashMap<u32, u32>,
    acked: BTreeSet<u32>,
    /// `METHOD path body` of what the client said, and which way it came.
    asked: Vec<String>,
    events: Vec<Value>,
    /// Written to open streams as it is.
    extra: Vec<String>,
    superseded: bool,
    hb: f64,
}

#[derive(Clone)]
pub struct Ways {
    pub base: String,
    shop: Arc<Mutex<Shop>>,
    changed: watch::Sender<u32>,
}

fn full(status: u16, kind: &str, body: impl Into<Bytes>) -> Response<Body> {
    Response::builder()
        .status(status)
        .header("content-type", kind)
        .body(Full::new(body.into()).boxed_unsync())
        .unwrap()
}

fn place(cursor: Option<&str>) -> u32 {
    cursor.map_or(0, |c| c.trim_start_matches('c').parse().unwrap())
}

impl Ways {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let shop = Shop {
            ways: HashMap::new(),
            len: 0,
            marks: HashMap::new(),
            acked: BTreeSet::new(),
            asked: Vec::new(),
            events: Vec::new(),
            extra: Vec::new(),
            superseded: false,
            hb: 15.0,
        };
        let ways = Self {
            base,
            shop: Arc::new(Mutex::new(shop)),
            changed: watch::Sender::new(0),
        };
        let shared = ways.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let ways = shared.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let ways = ways.clone();
                        async move { ways.answer(request).await }
                    });
                    // A cut connection is an error here and part of the test.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .with_upgrades()
                        .await;
                });
            }
        });
        ways
    }

    fn shop<T>(&self, change: impl FnOnce(&mut Shop) -> T) -> T {
        let out = change(&mut self.shop.lock().unwrap());
        self.changed.send_modify(|n| *n += 1);
        out
    }

    pub fn set(&self, path: &'static str, way: Way) {
        self.shop(|shop| shop.ways.insert(path, way));
    }

    /// A further message arrives in the inbox.
    pub fn publish(&self) {
        self.shop(|shop| shop.len += 1);
    }

    /// A message is recalled.
    pub fn recall(&self, n: u32) {
        self.shop(|shop| {
            shop.len += 1;
            shop.marks.insert(shop.len, n);
        });
    }

    /// An entry as it goes out.
    fn entry(&self, n: u32) -> Value {
        let (cursor, id) = (format!("c{n}"), format!("m{n}"));
        match self.shop.lock().unwrap().marks.get(&n) {
            Some(recalled) => {
                json!({"t": "recall", "cursor": cursor, "mark": id, "id": format!("m{recalled}")})
            }
            None => json!({"t": "msg", "cursor": cursor, "id": id, "class": "im"}),
        }
    }

    /// Written to streams that are open, as it is.
    pub fn write(&self, text: &str) {
        self.shop(|shop| shop.extra.push(text.to_owned()));
    }

    pub fn set_heartbeat(&self, seconds: f64) {
        self.shop(|shop| shop.hb = seconds);
    }

    pub fn supersede(&self) {
        self.shop(|shop| shop.superseded = true);
    }

    pub fn asked(&self, what: &str) -> usize {
        let shop = self.shop.lock().unwrap();
        shop.asked.iter().filter(|a| a.contains(what)).count()
    }

    pub fn events(&self) -> Vec<Value> {
        self.shop.lock().unwrap().events.clone()
    }

    /// Waits until this holds.
    async fn until(&self, what: &str, holds: impl Fn(&Shop) -> bool) {
        let mut changed = self.changed.subscribe();
        let waited = tokio::time::timeout(Duration::from_secs(30), async {
            while !holds(&self.shop.lock().unwrap()) {
                changed.changed().await.unwrap();
            }
        });
        if waited.await.is_err() {
            panic!("{what}: {:?}", self.shop.lock().unwrap());
        }
    }

    pub async fn until_acked(&self, n: u32) {
        self.until("acked", |shop| (1..=n).all(|n| shop.acked.contains(&n)))
            .await;
    }

    pub async fn until_asked(&self, what: &str, times: usize) {
        self.until(what, |shop| {
            shop.asked.iter().filter(|a| a.contains(what)).count() >= times
        })
        .await;
    }

    fn ack(&self, body: &Value) {
        self.shop(|shop| {
            let upto = place(body["upto"].as_str());
            shop.acked.extend(1..=upto);
            for id in body["ids"].as_array().into_iter().flatten() {
                shop.acked
                    .insert(id.as_str().unwrap()[1..].parse().unwrap());
            }
        });
    }

    fn waiting(&self, after: u32) -> (Vec<u32>, u32) {
        let shop = self.shop.lock().unwrap();
        let waits = (after + 1..=shop.len).filter(|n| !shop.acked.contains(n));
        (waits.collect(), shop.len)
    }

    async fn answer(self, mut request: Request<Incoming>) -> Result<Response<Body>, &'static str> {
        let path = request.uri().path().to_owned();
        let query: HashMap<String, String> = request
            .uri()
            .query()
            .unwrap_or_default()
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect();
        let header = |name: &str| {
            let value = request.headers().get(name)?;
            Some(value.to_str().unwrap().to_owned())
        };
        let last = header("last-event-id");
        let key = header("sec-websocket-key");
        if path != "/v1/connect" {
            assert_eq!(header("authorization").unwrap(), "Bearer device-token");
        }
        let upgrade = key.as_ref().map(|_| hyper::upgrade::on(&mut request));
        let what = format!("{} {}", request.method(), request.uri());
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8(body.to_vec()).unwrap();
        self.shop(|shop| shop.asked.push(format!("{what} {text}")));
        let body: Value = serde_json::from_str(&text).unwrap_or_default();
        let way = {
            let shop = self.shop.lock().unwrap();
            shop.ways.get(path.as_str()).copied().unwrap_or(Way::Open)
        };
        match way {
            Way::Open => {}
            Way::Status(status) => return Ok(full(status, "text/plain", "no")),
            Way::Problem(status) => {
                let body = json!({"code": "told", "title": "told"}).to_string();
                let mut response = full(status, "application/problem+json", body);
                response
                    .headers_mut()
                    .insert("retry-after", "0".parse().unwrap());
                return Ok(response);
            }
            Way::Page => return Ok(full(200, "text/html", "<html>log in</html>")),
            Way::Buffered => {
                let body = StreamBody::new(futures_util::stream::pending::<
                    Result<BodyFrame<Bytes>, Infallible>,
                >());
                return Ok(Response::builder()
                    .header("content-type", "text/event-stream")
                    .body(body.boxed_unsync())
                    .unwrap());
            }
            Way::Cut => return Err("cut"),
        }
        Ok(match path.as_str() {
            "/v1/connect" => {
                let upgrade = upgrade.unwrap();
                tokio::spawn(async move {
                    let io = TokioIo::new(upgrade.await.unwrap());
                    let socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
                    self.socket(socket).await;
                });
                Response::builder()
                    .status(101)
                    .header("connection", "upgrade")
                    .header("upgrade", "websocket")
                    .header("sec-websocket-protocol", "hongyan.v1+json")
                    .header(
                        "sec-websocket-accept",
                        derive_accept_key(key.unwrap().as_bytes()),
                    )
                    .body(Full::default().boxed_unsync())
                    .unwrap()
            }
            "/v1/stream" => self.stream(place(last.as_deref())),
            "/v1/poll" => self.poll(&query).await,
            "/v1/acks" => {
                self.ack(&body);
                full(204, "text/plain", "")
            }
            "/v1/client-events" => {
                let events = body.as_array().cloned().unwrap_or_default();
                self.shop(|shop| shop.events.extend(events));
                full(204, "text/plain", "")
            }
            _ => full(200, "application/json", "{}"),
        })
    }

    async fn socket(&self, mut socket: WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>) {
        let Some(Ok(Frame::Text(hello))) = socket.next().await else {
            return;
        };
        let hello: Value = serde_json::from_str(&hello).unwrap();
        let mut sent = place(hello["cursor"].as_str());
        let mut changed = self.changed.subscribe();
        let (_, head) = self.waiting(0);
        let welcome = json!({"t": "welcome", "session": "w", "device": "d1", "hb": 45,
            "head": format!("c{head}"), "replay": "resume"});
        socket.send(Frame::text(welcome.to_string())).await.unwrap();
        let mut idle = false;
        loop {
            changed.borrow_and_update();
            for n in self.waiting(sent).0 {
                let _ = socket.send(Frame::text(self.entry(n).to_string())).await;
                sent = n;
            }
            if !std::mem::replace(&mut idle, true) {
                let text = json!({"t": "idle", "head": format!("c{sent}")}).to_string();
                let _ = socket.send(Frame::text(text)).await;
            }
            tokio::select! {
                _ = changed.changed() => {}
                frame = socket.next() => match frame {
                    Some(Ok(Frame::Text(text))) => {
                        let said: Value = serde_json::from_str(&text).unwrap();
                        match said["t"].as_str() {
                            Some("ack") => self.ack(&said),
                            Some("ping") => {
                                let pong = json!({"t": "pong", "n": said["n"]}).to_string();
                                let _ = socket.send(Frame::text(pong)).await;
                            }
                            Some("bye") => { let _ = socket.close(None).await; }
                            _ => {}
                        }
                    }
                    Some(Ok(_)) => {}
                    _ => return,
                },
            }
        }
    }

    fn stream(&self, mut sent: u32) -> Response<Body> {
        let (out, body) = mpsc::channel::<String>(64);
        let this = self.clone();
        let mut changed = self.changed.subscribe();
        tokio::spawn(async move {
            let hb = this.shop.lock().unwrap().hb;
            let mut written = this.shop.lock().unwrap().extra.len();
            let (_, head) = this.waiting(0);
            let welcome = json!({"t": "welcome", "session": "s", "device": "d1", "hb": hb,
                "head": format!("c{head}"), "inflight": 32, "replay": "resume"});
            let mut text = format!(": hongyan\n\nretry: 20\nevent: welcome\ndata: {welcome}\n\n");
            let mut idle = false;
            loop {
                changed.borrow_and_update();
                for n in this.waiting(sent).0 {
                    let data = this.entry(n);
                    let name = data["t"].as_str().unwrap();
                    text.push_str(&format!("id: c{n}\nevent: {name}\ndata: {data}\n\n"));
                    sent = n;
                }
                if !std::mem::replace(&mut idle, true) {
                    let data = json!({"t": "idle", "head": format!("c{sent}")});
                    text.push_str(&format!("event: idle\ndata: {data}\n\n"));
                }
                let extra = this.shop.lock().unwrap().extra.clone();
                for more in extra.iter().skip(written) {
                    text.push_str(more);
                }
                written = extra.len();
                let ends = ["taken", "drain", "fatal"]
                    .iter()
                    .any(|end| text.contains(end));
                if out.send(std::mem::take(&mut text)).await.is_err() || ends {
                    return;
                }
                tokio::select! {
                    _ = changed.changed() => {}
                    () = out.closed() => return,
                }
            }
        });
        let body = futures_util::stream::unfold(body, |mut body| async {
            let text = body.recv().await?;
            Some((Ok(BodyFrame::data(Bytes::from(text))), body))
        });
        Response::builder()
            .header("content-type", "text/event-stream")
            .body(StreamBody::new(body).boxed_unsync())
            .unwrap()
    }

    async fn poll(&self, query: &HashMap<String, String>) -> Response<Body> {
        let after = place(query.get("cursor").map(String::as_str));
        if after > 0 {
            self.ack(&json!({"upto": format!("c{after}")}));
        }
        let wait: u64 = query["wait"].parse().unwrap();
        let mut changed = self.changed.subscribe();
        // A wait that ends is an empty answer.
        let _ = tokio::time::timeout(Duration::from_secs(wait), async {
            while self.waiting(after).0.is_empty() && !self.shop.lock().unwrap().superseded {
                changed.changed().await.unwrap();
            }
        })
        .await;
        let (waits, head) = self.waiting(after);
        let superseded = wait > 0 && self.shop.lock().unwrap().superseded;
        let limit: usize = query["limit"].parse().unwrap();
        let (now, later) = waits.split_at(waits.len().min(limit));
        let last = now.last().copied().unwrap_or(after);
        let entries = now.iter().map(|n| self.entry(*n));
        let (messages, recalled): (Vec<Value>, Vec<Value>) =
            entries.partition(|entry| entry["t"] == "msg");
        let mut answer = json!({"cursor": format!("c{last}"), "head": format!("c{head}"),
            "more": !later.is_empty(), "superseded": superseded, "messages": messages});
        if !recalled.is_empty() {
            answer["recalled"] = recalled.into();
        }
        full(200, "application/json", answer.to_string())
    }
}
