//! Connections: bounded in number and time, over TLS and HTTP/2, ended in order.

use std::sync::Arc;
use std::time::Duration;

use hongyan_api::Options;
use http::Request;
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{PATIENCE, World, world, world_with};

/// Everything that comes until the server closes.
async fn rest(socket: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut bytes))
        .await
        .expect("closed in time");
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hasty() -> Options {
    Options {
        header_timeout: Duration::from_millis(200),
        body_timeout: Duration::from_millis(200),
        idle_timeout: Duration::from_millis(200),
        ..Options::default()
    }
}

#[tokio::test]
async fn a_head_that_never_ends_is_cut_off() {
    let w = world_with(hasty(), None).await;
    for beginning in ["", "GET /healthz HTTP/1.1\r\nX-Slow: "] {
        let mut socket = TcpStream::connect(w.address).await.unwrap();
        socket.write_all(beginning.as_bytes()).await.unwrap();
        let (mut read, mut write) = socket.into_split();
        let trickle = tokio::spawn(async move {
            while write.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let mut bytes = Vec::new();
        let closed = tokio::time::timeout(PATIENCE, read.read_to_end(&mut bytes)).await;
        assert!(closed.is_ok(), "the server waited for ever");
        trickle.abort();
    }
}

#[tokio::test]
async fn a_body_that_never_ends_is_answered_408() {
    let w = world_with(hasty(), None).await;
    let mut socket = TcpStream::connect(w.address).await.unwrap();
    let head = format!(
        "POST /v1/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Content-Length: 100\r\n\r\n{{",
        w.server
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let answer = rest(&mut socket).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("\"request_timeout\""));
}

#[tokio::test]
async fn a_connection_is_reused_and_then_closed_when_idle() {
    let w = world_with(hasty(), None).await;
    let mut socket = TcpStream::connect(w.address).await.unwrap();
    let request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    socket.write_all(&request.repeat(3)).await.unwrap();
    let answers = rest(&mut socket).await;
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 3);
}

#[tokio::test]
async fn heads_over_the_limit_are_refused() {
    let w = world().await;
    let mut socket = TcpStream::connect(w.address).await.unwrap();
    let head = format!(
        "GET /healthz HTTP/1.1\r\nHost: x\r\nX-Big: {}\r\n\r\n",
        "y".repeat(17 * 1024)
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let answer = rest(&mut socket).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let mut socket = TcpStream::connect(w.address).await.unwrap();
    socket
        .write_all(b"\x16\x03\x01 not http at all\r\n\r\n")
        .await
        .unwrap();
    let answer = rest(&mut socket).await;
    assert!(
        answer.starts_with("HTTP/1.1 400 ") || answer.is_empty(),
        "{answer}"
    );
}

#[tokio::test]
async fn a_full_house_says_so() {
    let max = 8;
    let options = Options {
        connections_max: max,
        ..Options::default()
    };
    let w = world_with(options, None).await;
    let ask = async || {
        let mut socket = TcpStream::connect(w.address).await.unwrap();
        let request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
        // A refused socket may be closed before this arrives.
        let _ = socket.write_all(request).await;
        let mut status = [0u8; 12];
        let read = socket.read_exact(&mut status).await;
        (socket, read.is_ok_and(|_| &status == b"HTTP/1.1 200"))
    };
    let mut guests = Vec::new();
    let refused = loop {
        match ask().await {
            (guest, true) => guests.push(guest),
            (refused, false) => break refused,
        }
        assert!(guests.len() <= max);
    };
    drop(refused);
    let mut one_more = TcpStream::connect(w.address).await.unwrap();
    let answer = rest(&mut one_more).await;
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.contains("Retry-After: 1"),
        "{answer}"
    );
    guests.clear();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !ask().await.1 {
        assert!(
            tokio::time::Instant::now() < deadline,
            "places are not freed"
        );
    }
}

#[tokio::test]
async fn http_2_is_spoken_with_prior_knowledge() {
    let w = world().await;
    let stream = TcpStream::connect(w.address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    for _ in 0..3 {
        let request = Request::get("http://x/v1/devices")
            .header("authorization", format!("Bearer {}", w.server))
            .body(Empty::<bytes::Bytes>::new())
            .unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), answer.version()),
            (200, http::Version::HTTP_2)
        );
        answer.into_body().collect().await.unwrap();
    }
}

/// A server's and a client's view of one fresh certificate.
fn certificate() -> (Arc<rustls::ServerConfig>, rustls::ClientConfig) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), client)
}

async fn secure(
    w: &World,
    mut client: rustls::ClientConfig,
    protocol: &[u8],
) -> tokio_rustls::client::TlsStream<TcpStream> {
    client.alpn_protocols = vec![protocol.to_vec()];
    let stream = TcpStream::connect(w.address).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(client))
        .connect(name, stream)
        .await
        .unwrap()
}

#[tokio::test]
async fn tls_carries_both_versions_and_the_live_connection() {
    let (server, client) = certificate();
    carries_everything(server.clone(), client.clone()).await;
    let mut server = rustls::ServerConfig::clone(&server);
    server.enable_secret_extraction = true;
    carries_everything(Arc::new(server), client).await;
}

async fn carries_everything(server: Arc<rustls::ServerConfig>, client: rustls::ClientConfig) {
    let w = world_with(Options::default(), Some(server)).await;
    let stream = secure(&w, client.clone(), b"h2").await;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    let request = Request::post("https://localhost/v1/apps")
        .header("authorization", format!("Bearer {}", w.admin))
        .header("content-type", "application/json")
        .body(Full::<bytes::Bytes>::from(json!({"id": "a"}).to_string()))
        .unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), 201);

    let mut stream = secure(&w, client, b"http/1.1").await;
    let request = "GET /v1/connect HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    // The stand-in closes without a TLS goodbye; what came before counts.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes))
        .await
        .unwrap();
    let answer = String::from_utf8(bytes).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 101 ") && answer.ends_with("echo:"),
        "{answer}"
    );
}

/// A client that sends a whole record and the begin of another; what the server hands over then.
async fn handed_over(
    server: &Arc<rustls::ServerConfig>,
    client: rustls::ClientConfig,
) -> (hongyan_listener::secure::Tls, Vec<u8>) {
    use std::io::Write as _;
    let (mut near, far) = tokio::io::duplex(64 * 1024);
    let server = Arc::clone(server);
    let accepted = tokio::spawn(async move {
        let mut stream = hongyan_listener::secure::accept(&server, far)
            .await
            .unwrap();
        let mut whole = [0; 5];
        stream.read_exact(&mut whole).await.unwrap();
        assert_eq!(&whole, b"whole");
        stream.into_parts().1
    });
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let mut tls = rustls::ClientConnection::new(Arc::new(client), name).unwrap();
    let take = |tls: &mut rustls::ClientConnection| {
        let mut bytes = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut bytes).unwrap();
        }
        bytes
    };
    loop {
        near.write_all(&take(&mut tls)).await.unwrap();
        if !tls.is_handshaking() {
            break;
        }
        let mut some = vec![0; 4096];
        let n = near.read(&mut some).await.unwrap();
        tls.read_tls(&mut &some[..n]).unwrap();
        tls.process_new_packets().unwrap();
    }
    tls.writer().write_all(b"whole").unwrap();
    let mut bytes = take(&mut tls);
    tls.writer().write_all(b"cut in two").unwrap();
    let cut = take(&mut tls)[..9].to_vec();
    bytes.extend_from_slice(&cut);
    near.write_all(&bytes).await.unwrap();
    (accepted.await.unwrap(), cut)
}

#[tokio::test]
async fn what_the_records_need_is_handed_over_with_them() {
    let (server, client) = certificate();
    let (tls, _) = handed_over(&server, client.clone()).await;
    assert!(tls.secrets.is_none() && tls.partial.is_empty());
    let mut server = rustls::ServerConfig::clone(&server);
    server.enable_secret_extraction = true;
    let (tls, cut) = handed_over(&Arc::new(server), client).await;
    assert_eq!(tls.partial, cut);
    let secrets = tls.secrets.unwrap();
    assert_eq!((secrets.client.len(), secrets.server.len()), (48, 48));
    assert!(tls.connection.dangerous_extract_secrets().is_ok());
}

#[tokio::test]
async fn stopping_lets_requests_finish_and_idle_connections_go() {
    let mut w = world().await;
    let mut idle = TcpStream::connect(w.address).await.unwrap();
    idle.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut first = [0u8; 12];
    idle.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    let mut under_way = TcpStream::connect(w.address).await.unwrap();
    let body = r#"{"to":{"user":"u"},"data":{}}"#;
    let head = format!(
        "POST /v1/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Expect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        w.server,
        body.len()
    );
    under_way.write_all(head.as_bytes()).await.unwrap();
    let mut go_on = [0u8; 12];
    under_way.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100", "the handler reads the body now");
    w.stop.take().unwrap().send(()).unwrap();
    rest(&mut idle).await;
    under_way.write_all(body.as_bytes()).await.unwrap();
    let answer = rest(&mut under_way).await;
    assert!(answer.contains("HTTP/1.1 202 "), "{answer}");
    tokio::time::timeout(PATIENCE, w.served.take().unwrap())
        .await
        .unwrap()
        .unwrap();
    assert!(TcpStream::connect(w.address).await.is_err());
}
