//! TLS: a root of one's own opens HTTP and the live connection, and nothing else does.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use hongyan_client::net::Tls;
use hongyan_client::{Admin, Client, Error, FixedToken, Options, Status};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::Message as Frame;

/// A listener on loopback with a fresh certificate for `localhost`, and that certificate.
async fn listen() -> (TcpListener, TlsAcceptor, String, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!(
        "https://localhost:{}",
        listener.local_addr().unwrap().port()
    );
    (
        listener,
        TlsAcceptor::from(Arc::new(config)),
        base,
        made.cert.pem(),
    )
}

#[tokio::test]
async fn http_trusts_the_given_root_only() {
    let (listener, acceptor, base, pem) = listen().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A client that does not trust the certificate ends the handshake.
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).await;
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                .await;
            let _ = stream.flush().await;
        }
    });
    let time = Duration::from_secs(20);
    let stranger = Admin::with(&base, "k", Tls::default(), time).unwrap();
    let error = stranger.health().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    let tls = Tls::with_root_pem(pem.as_bytes()).unwrap();
    Admin::with(&base, "k", tls, time)
        .unwrap()
        .health()
        .await
        .unwrap();
    assert!(Tls::with_root_pem(b"no certificate").is_err());
}

#[tokio::test]
async fn the_live_connection_speaks_wss() {
    let (listener, acceptor, base, pem) = listen().await;
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let stream = acceptor.accept(stream).await.unwrap();
        let name = "hongyan.v1+json";
        #[allow(clippy::result_large_err, reason = "the library's signature")]
        let choose = |_: &_, mut response: http::Response<()>| {
            response
                .headers_mut()
                .insert("sec-websocket-protocol", name.parse().unwrap());
            Ok(response)
        };
        let mut socket = tokio_tungstenite::accept_hdr_async(stream, choose)
            .await
            .unwrap();
        socket.next().await.unwrap().unwrap();
        for said in [
            r#"{"t":"welcome","session":"s","hb":45}"#,
            r#"{"t":"idle","head":"c"}"#,
        ] {
            socket.send(Frame::text(said)).await.unwrap();
        }
        while let Some(Ok(_)) = socket.next().await {}
    });
    let mut options = Options::new(&base.replace("https", "wss")).unwrap();
    options.tls = Tls::with_root_pem(pem.as_bytes()).unwrap();
    let (client, _inbox) = Client::start(options, FixedToken::new("t"));
    tokio::time::timeout(Duration::from_secs(20), client.caught_up())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(client.status(), Status::Live);
}
