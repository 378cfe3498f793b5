//! A sandbox on free ports with raw clients; keys are made once per target directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use hongyan_sandbox::{Accounts, Handle, Options, Sandbox};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use ring::rand::SystemRandom;
use ring::signature;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::Value;
use tokio::net::TcpStream;

pub(crate) struct Stage {
    pub(crate) sandbox: Sandbox,
    pub(crate) handle: Handle,
    pub(crate) directory: tempfile::TempDir,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {:?}", self.text))
    }
    pub(crate) fn at(&self, pointer: &str) -> String {
        match self.json().pointer(pointer) {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => String::new(),
        }
    }
}

/// How to knock at the vendors' door.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Door {
    Http1,
    Http2,
    WithCertificate,
}

impl Stage {
    pub(crate) async fn open() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(keys().await).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), directory.path().join(file.file_name())).unwrap();
        }
        let sandbox = Sandbox::start(Options::ephemeral(directory.path()))
            .await
            .unwrap();
        Self {
            handle: sandbox.handle(),
            sandbox,
            directory,
        }
    }

    pub(crate) fn accounts(&self) -> &Accounts {
        self.handle.accounts()
    }

    pub(crate) async fn connect(&self, door: Door) -> Wire {
        Wire::open(&self.handle, door).await
    }

    /// One request on a connection of its own.
    pub(crate) async fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        self.connect(Door::Http2)
            .await
            .call(method, path, headers, body)
            .await
            .unwrap()
    }
}

/// One connection to the vendors.
pub(crate) enum Wire {
    One(hyper::client::conn::http1::SendRequest<Full<Bytes>>, String),
    Two(hyper::client::conn::http2::SendRequest<Full<Bytes>>, String),
}

impl Wire {
    pub(crate) async fn open(handle: &Handle, door: Door) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(handle.ca_pem().as_bytes()).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let apns = &handle.accounts().apns;
        let mut config = if door == Door::WithCertificate {
            let certificate = CertificateDer::from_pem_slice(apns.certificate.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(apns.certificate_key.as_bytes()).unwrap();
            builder
                .with_client_auth_cert(vec![certificate], key)
                .unwrap()
        } else {
            builder.with_no_client_auth()
        };
        config.alpn_protocols = match door {
            Door::Http1 => vec![b"http/1.1".to_vec()],
            Door::Http2 | Door::WithCertificate => vec![b"h2".to_vec()],
        };
        let address = handle.vendors_address();
        let socket = TcpStream::connect(address).await.unwrap();
        let stream = tokio_rustls::TlsConnector::from(Arc::new(config))
            .connect("127.0.0.1".try_into().unwrap(), socket)
            .await
            .unwrap();
        let io = TokioIo::new(stream);
        let authority = address.to_string();
        if door == Door::Http1 {
            let (send, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
            tokio::spawn(connection);
            Self::One(send, authority)
        } else {
            let (send, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
                    .await
                    .unwrap();
            tokio::spawn(connection);
            Self::Two(send, authority)
        }
    }

    pub(crate) async fn call(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer, hyper::Error> {
        let mut request = Request::builder().method(method);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = Full::new(body.into());
        let response = match self {
            Self::One(send, host) => {
                let request = request
                    .uri(path)
                    .header("host", host.as_str())
                    .body(body)
                    .unwrap();
                send.send_request(request).await?
            }
            Self::Two(send, authority) => {
                let uri = format!("https://{authority}{path}");
                send.send_request(request.uri(uri).body(body).unwrap())
                    .await?
            }
        };
        let (head, body) = response.into_parts();
        let bytes = body.collect().await?.to_bytes();
        Ok(Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            text: String::from_utf8(bytes.to_vec()).unwrap(),
        })
    }
}

/// Plain HTTP to the control interface.
pub(crate) async fn control(
    handle: &Handle,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let socket = TcpStream::connect(handle.control_address()).await.unwrap();
    let (send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket))
        .await
        .unwrap();
    tokio::spawn(connection);
    let mut headers = headers.to_vec();
    if !body.is_empty() {
        headers.push(("content-type", "application/json"));
    }
    Wire::One(send, handle.control_address().to_string())
        .call(method, path, &headers, body.to_owned())
        .await
        .unwrap()
}

/// Keys and accounts, made once and shared by all tests; whoever is first moves them in place.
async fn keys() -> PathBuf {
    let shared = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sandbox-keys-1");
    if !shared.exists() {
        let fresh = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let sandbox = Sandbox::start(Options::ephemeral(fresh.path()))
            .await
            .unwrap();
        sandbox.stop().await;
        let _ = std::fs::remove_file(fresh.path().join("phones.made"));
        if std::fs::rename(fresh.path(), &shared).is_ok() {
            let _ = fresh.keep();
        }
    }
    shared
}

fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn der(pem: &str) -> PrivatePkcs8KeyDer<'static> {
    PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).unwrap()
}

pub(crate) fn es256(pem: &str, header: &Value, claims: &Value) -> String {
    let random = SystemRandom::new();
    let how = &signature::ECDSA_P256_SHA256_FIXED_SIGNING;
    let key =
        signature::EcdsaKeyPair::from_pkcs8(how, der(pem).secret_pkcs8_der(), &random).unwrap();
    let signed = format!("{}.{}", part(header), part(claims));
    let signature = key.sign(&random, signed.as_bytes()).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
}

pub(crate) fn rsa(
    pem: &str,
    how: &'static dyn signature::RsaEncoding,
    header: &Value,
    claims: &Value,
) -> String {
    let key = ring::rsa::KeyPair::from_pkcs8(der(pem).secret_pkcs8_der()).unwrap();
    let signed = format!("{}.{}", part(header), part(claims));
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(how, &SystemRandom::new(), signed.as_bytes(), &mut signature)
        .unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(&signature))
}

pub(crate) fn now_s() -> i64 {
    i64::try_from(
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs(),
    )
    .unwrap()
}

/// Waits until the condition holds, at most ten seconds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    while !holds() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "{what} did not happen"
        );
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

pub(crate) fn form(fields: &[(&str, &str)]) -> String {
    use std::fmt::Write as _;
    let encode = |text: &str| {
        text.bytes().fold(String::new(), |mut out, byte| {
            if byte.is_ascii_alphanumeric() {
                out.push(char::from(byte));
            } else {
                write!(out, "%{byte:02X}").unwrap();
            }
            out
        })
    };
    let pairs: Vec<String> = fields
        .iter()
        .map(|(name, value)| format!("{}={}", encode(name), encode(value)))
        .collect();
    pairs.join("&")
}
