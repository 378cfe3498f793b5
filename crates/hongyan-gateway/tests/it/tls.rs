//! Sessions over a TLS connection that the HTTP server hands over after its handshake.

use std::net::TcpStream;
use std::sync::Arc;

use bytes::Bytes;
use hongyan_gateway::{Encoding, Socket};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use rustls_pki_types::{PrivateKeyDer, ServerName};
use serde_json::json;

use crate::client::{Client, bodies};
use crate::rig::Rig;

/// A connection whose TLS handshake is done.
fn secured(rig: &Rig) -> Client {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = certified.cert.der().clone();
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let server = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (near, mut far) = rig.pair();
    let accept = std::thread::spawn(move || -> (TcpStream, ServerConnection) {
        let mut tls = ServerConnection::new(Arc::new(server)).unwrap();
        while tls.is_handshaking() {
            tls.complete_io(&mut far).unwrap();
        }
        (far, tls)
    });
    let name = ServerName::try_from("localhost").unwrap();
    let mut tls = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut near_io = near.try_clone().unwrap();
    while tls.is_handshaking() {
        tls.complete_io(&mut near_io).unwrap();
    }
    let (far, server_tls) = accept.join().unwrap();
    let permit = rig.handle.admit(far.peer_addr().unwrap().ip()).unwrap();
    let socket = Socket::Tls(far, Box::new(server_tls));
    rig.handle
        .adopt(socket, Bytes::new(), Encoding::Json, permit)
        .unwrap();
    Client::new(near, Encoding::Json).secured(tls)
}

#[test]
fn a_session_over_tls() {
    let rig = Rig::new();
    for n in 0..40 {
        rig.store("u", &format!("{n}{}", "x".repeat(30_000)));
    }
    let mut client = secured(&rig);
    client.hello("d", json!({"inflight": 256}));
    let messages = client.until_idle();
    let numbers: Vec<String> = bodies(&messages)
        .iter()
        .map(|body| body.trim_end_matches('x').to_owned())
        .collect();
    let want: Vec<String> = (0..40).map(|n| n.to_string()).collect();
    assert_eq!(numbers, want);
    client.say(json!({"t": "ack", "upto": messages[39]["cursor"]}));
    rig.until("all are acked", || rig.sink.acked().len() == 40);
    rig.publish("u", "live");
    assert_eq!(bodies(&[client.expect("msg")]), ["live"]);
    client.say(json!({"t": "bye"}));
    assert_eq!(client.closed(), 1000);
}

#[test]
fn a_broken_record_ends_the_connection() {
    let rig = Rig::new();
    let mut client = secured(&rig);
    client.hello("d", json!({}));
    use std::io::Write;
    client
        .stream
        .write_all(&[0x17, 3, 3, 0, 5, 1, 2, 3, 4, 5])
        .unwrap();
    rig.until("gone", || rig.hub.stats().sockets == 0);
}
