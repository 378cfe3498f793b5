//! The same over real sockets: TCP, TLS and WebSocket (MQ-2, MQ-15).

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use hongyan_mqtt::broker::{Broker, Options};
use hongyan_mqtt::packet::{Packet, Publish, Version};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::play::{V5, V311, connect, message};

struct Server {
    address: std::net::SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

async fn start(options: Options, tls: Option<Arc<rustls::ServerConfig>>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let broker = Broker::new(options);
    let task = tokio::spawn(hongyan_mqtt::serve(listener, broker, tls, async {
        let _ = stopped.await;
    }));
    Server {
        address,
        stop,
        task,
    }
}

fn bytes(version: Version, packets: &[Packet<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for packet in packets {
        packet.encode(version, &mut bytes).unwrap();
    }
    bytes
}

const HASTE: Duration = Duration::from_secs(20);

async fn expect(stream: &mut (impl AsyncRead + Unpin), expected: &[u8]) {
    let mut got = vec![0; expected.len()];
    tokio::time::timeout(HASTE, stream.read_exact(&mut got))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(got, expected);
}

async fn expect_end(stream: &mut (impl AsyncRead + Unpin)) {
    let mut rest = Vec::new();
    let read = tokio::time::timeout(HASTE, stream.read_to_end(&mut rest)).await;
    read.unwrap().unwrap();
    assert!(rest.is_empty(), "{rest:02x?}");
}

/// Connects, subscribes, publishes to itself byte by byte, and leaves.
async fn talk(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    for byte in bytes(V311, &[Packet::Connect(connect(V311, "c"))]) {
        stream.write_all(&[byte]).await.unwrap();
        stream.flush().await.unwrap();
    }
    expect(&mut stream, &[0x20, 2, 0, 0]).await;
    let publish = Packet::Publish(message("a/b", "hello", 1, 3));
    let mut all = b"\x82\x08\0\x01\0\x03a/b\x01".to_vec();
    all.extend(bytes(V311, &[publish, Packet::PingReq]));
    stream.write_all(&all).await.unwrap();
    let mut answers = b"\x90\x03\0\x01\x01\x32\x0c\0\x03a/b\0\x01hello".to_vec();
    answers.extend(b"\x40\x02\0\x03\xd0\0");
    expect(&mut stream, &answers).await;
    stream.write_all(b"\x40\x02\0\x01\xe0\0").await.unwrap();
    expect_end(&mut stream).await;
}

#[tokio::test]
async fn mq_2_over_tcp_byte_by_byte() {
    let server = start(Options::default(), None).await;
    talk(TcpStream::connect(server.address).await.unwrap()).await;
}

#[tokio::test]
async fn over_tls() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let server = start(Options::default(), Some(Arc::new(config))).await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(server.address).await.unwrap();
    let name = "localhost".try_into().unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    talk(connector.connect(name, stream).await.unwrap()).await;
}

async fn web(
    server: &Server,
    path: &str,
    headers: &[(&'static str, &'static str)],
) -> Result<tokio_tungstenite::WebSocketStream<TcpStream>, Error> {
    let url = format!("ws://{}{path}", server.address);
    let mut request = url.into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (stream, response) = tokio_tungstenite::client_async(request, stream).await?;
    assert_eq!(response.headers()["sec-websocket-protocol"], "mqtt");
    Ok(stream)
}

const MQTT: (&str, &str) = ("sec-websocket-protocol", "mqtt");

async fn next(stream: &mut tokio_tungstenite::WebSocketStream<TcpStream>) -> Option<Message> {
    let next = tokio::time::timeout(HASTE, stream.next()).await.unwrap();
    next.transpose().unwrap()
}

#[tokio::test]
async fn mq_15_over_websocket_packets_and_frames_are_independent() {
    let server = start(Options::default(), None).await;
    let mut stream = web(&server, "/mqtt", &[MQTT]).await.unwrap();
    let sent = bytes(
        V5,
        &[
            Packet::Connect(connect(V5, "c")),
            Packet::PingReq,
            Packet::PingReq,
        ],
    );
    // [6.0.0-2]: a packet over two frames, and several packets in one.
    for piece in [&sent[..5], &sent[5..]] {
        stream
            .send(Message::Binary(piece.to_vec().into()))
            .await
            .unwrap();
    }
    stream
        .send(Message::Ping("are you there".into()))
        .await
        .unwrap();
    let mut got = Vec::new();
    let mut ponged = false;
    while got.len() < 4 || !got.ends_with(b"\xd0\0\xd0\0") || !ponged {
        match next(&mut stream).await.unwrap() {
            Message::Binary(bytes) => got.extend(bytes),
            Message::Pong(_) => ponged = true,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((got[0], got[3]), (0x20, 0x00));
    stream
        .send(Message::Binary(vec![0xE0, 0].into()))
        .await
        .unwrap();
    assert!(matches!(next(&mut stream).await, Some(Message::Close(_))));
}

#[tokio::test]
async fn mq_15_a_text_frame_closes() {
    let server = start(Options::default(), None).await;
    let mut stream = web(&server, "/mqtt", &[MQTT]).await.unwrap();
    let sent = bytes(V5, &[Packet::Connect(connect(V5, "c"))]);
    stream.send(Message::Binary(sent.into())).await.unwrap();
    assert!(next(&mut stream).await.unwrap().is_binary());
    stream.send(Message::Text("hello".into())).await.unwrap();
    let Message::Binary(said) = next(&mut stream).await.unwrap() else {
        panic!("something else")
    };
    assert_eq!((said[0], said[2]), (0xE0, 0x82));
    assert!(matches!(next(&mut stream).await, Some(Message::Close(_))));
}

#[tokio::test]
async fn websockets_need_path_and_subprotocol_and_no_foreign_page() {
    let server = start(Options::default(), None).await;
    for (path, headers, status) in [
        ("/", vec![MQTT], 404),
        ("/mqtt", vec![], 400),
        ("/mqtt", vec![("sec-websocket-protocol", "mqttv3.1")], 400),
        ("/mqtt", vec![MQTT, ("origin", "https://example.com")], 403),
        ("/mqtt", vec![MQTT, ("origin", "null")], 403),
    ] {
        match web(&server, path, &headers).await {
            Err(Error::Http(response)) => assert_eq!(response.status(), status, "{headers:?}"),
            other => panic!("{headers:?} {other:?}"),
        }
    }
    let page = ("origin", "http://localhost:8080");
    assert!(web(&server, "/mqtt", &[MQTT, page]).await.is_ok());
}

#[tokio::test]
async fn half_closed_clients_still_get_their_answers() {
    let server = start(Options::default(), None).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let sent = bytes(
        V311,
        &[Packet::Connect(connect(V311, "c")), Packet::PingReq],
    );
    stream.write_all(&sent).await.unwrap();
    stream.shutdown().await.unwrap();
    expect(&mut stream, &[0x20, 2, 0, 0, 0xD0, 0]).await;
    expect_end(&mut stream).await;
}

#[tokio::test]
async fn connections_beyond_the_bound_are_closed() {
    let options = Options {
        connections_max: 1,
        ..Options::default()
    };
    let server = start(options, None).await;
    let mut first = TcpStream::connect(server.address).await.unwrap();
    let sent = bytes(V311, &[Packet::Connect(connect(V311, "c"))]);
    first.write_all(&sent).await.unwrap();
    expect(&mut first, &[0x20, 2, 0, 0]).await;
    let mut second = TcpStream::connect(server.address).await.unwrap();
    let mut byte = [0];
    let read = tokio::time::timeout(HASTE, second.read(&mut byte))
        .await
        .unwrap();
    assert!(matches!(read, Ok(0) | Err(_)));
    // Its place is free as soon as it is gone.
    first.write_all(b"\xe0\0").await.unwrap();
    expect_end(&mut first).await;
    drop(first);
    let deadline = tokio::time::Instant::now() + HASTE;
    loop {
        let mut next = TcpStream::connect(server.address).await.unwrap();
        let mut answer = [0; 4];
        let written = next.write_all(&sent).await;
        if written.is_ok() && next.read_exact(&mut answer).await.is_ok() {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline);
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_nobody_up() {
    let server = start(Options::default(), None).await;
    let mut slow = TcpStream::connect(server.address).await.unwrap();
    slow.write_all(&bytes(V311, &[Packet::Connect(connect(V311, "slow"))]))
        .await
        .unwrap();
    slow.write_all(b"\x82\x06\0\x01\0\x01t\0").await.unwrap();
    expect(&mut slow, b"\x20\x02\0\0\x90\x03\0\x01\0").await;
    let mut quick = TcpStream::connect(server.address).await.unwrap();
    quick
        .write_all(&bytes(V311, &[Packet::Connect(connect(V311, "quick"))]))
        .await
        .unwrap();
    expect(&mut quick, &[0x20, 2, 0, 0]).await;
    let load = "x".repeat(100_000);
    for n in 1..=200_u16 {
        let publish = Publish {
            packet_id: n,
            ..message("t", &load, 1, n)
        };
        quick
            .write_all(&bytes(V311, &[Packet::Publish(publish)]))
            .await
            .unwrap();
        let [high, low] = n.to_be_bytes();
        expect(&mut quick, &[0x40, 2, high, low]).await;
    }
}

#[tokio::test]
async fn stopping_tells_the_clients() {
    let server = start(Options::default(), None).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let sent = bytes(V5, &[Packet::Connect(connect(V5, "c"))]);
    stream.write_all(&sent).await.unwrap();
    let mut head = [0; 2];
    stream.read_exact(&mut head).await.unwrap();
    let mut rest = vec![0; usize::from(head[1])];
    stream.read_exact(&mut rest).await.unwrap();
    server.stop.send(()).unwrap();
    let mut said = Vec::new();
    let read = tokio::time::timeout(HASTE, stream.read_to_end(&mut said)).await;
    read.unwrap().unwrap();
    assert_eq!((said[0], said[2]), (0xE0, 0x8B));
    drop(stream);
    tokio::time::timeout(HASTE, server.task)
        .await
        .unwrap()
        .unwrap();
    let refused = TcpStream::connect(server.address).await;
    assert!(refused.is_err());
}

#[tokio::test]
async fn silence_is_noticed_by_the_clock() {
    let options = Options {
        connect_timeout: Duration::from_millis(300),
        ..Options::default()
    };
    let server = start(options, None).await;
    // In the handshake, and after the first bytes.
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    expect_end(&mut silent).await;
    let mut half = TcpStream::connect(server.address).await.unwrap();
    half.write_all(b"\x10\x0d\0").await.unwrap();
    expect_end(&mut half).await;
}
