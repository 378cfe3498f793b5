//! TLS of the children, and the peer of idle TLS connections: tokio-rustls, one task each with a
//! buffer of its own, which upgrades to WebSocket and answers pings.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Settings with a fresh certificate, and that certificate, PEM.
///
/// # Errors
/// When no certificate can be made.
pub fn config(protocols: &[&[u8]]) -> anyhow::Result<(ServerConfig, String)> {
    let key = rcgen::KeyPair::generate()?;
    let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
    let certificate = rcgen::CertificateParams::new(names)?.self_signed(&key)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )?;
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Ok((config, certificate.pem()))
}

/// Accepts for ever; answers the certificate to trust.
///
/// # Errors
/// When no certificate can be made.
pub fn start(listener: TcpListener, buffer: usize) -> anyhow::Result<String> {
    let (config, ca) = config(&[])?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    // A task is as large as its largest state: what the handshake needed is not kept.
                    tokio::spawn(answer(Box::new(stream), vec![0; buffer]));
                }
            });
        }
    });
    Ok(ca)
}

/// Answers the opening handshake, then pings. Clients are trusted: they send whole frames without a payload.
async fn answer(mut stream: Box<TlsStream<TcpStream>>, mut buffer: Vec<u8>) {
    let mut upgraded = false;
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        let mut out = Vec::new();
        if upgraded {
            let pings = buffer[..read].iter().filter(|byte| **byte == 0x89).count();
            for _ in 0..pings {
                out.extend_from_slice(&[0x8a, 0]);
            }
        } else if buffer[..read].ends_with(b"\r\n\r\n") {
            upgraded = true;
            out.extend_from_slice(
                b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n",
            );
        }
        if stream.write_all(&out).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
}
