//! The open MQTT space of a whole server.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::harness::{Demo, until};

const MARK: &str = "the open MQTT space is ready";

fn address(log: &str) -> Option<String> {
    let line = log.lines().find(|line| line.contains(MARK))?;
    let (_, rest) = line.split_once("127.0.0.1:")?;
    let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Some(format!("127.0.0.1:{port}"))
}

fn expect(stream: &mut TcpStream, expected: &[u8]) {
    let mut got = vec![0; expected.len()];
    stream.read_exact(&mut got).unwrap();
    assert_eq!(got, expected);
}

fn connect(address: &str, name: u8) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    let limit = Some(Duration::from_secs(30));
    stream.set_read_timeout(limit).unwrap();
    let mut connect = b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01".to_vec();
    connect.push(name);
    stream.write_all(&connect).unwrap();
    expect(&mut stream, b"\x20\x02\0\0");
    stream
}

#[test]
fn an_open_mqtt_space_is_served_and_ends_with_the_server() {
    let mut demo = Demo::with(&[("HONGYAN_MQTT_OPEN_LISTEN", "127.0.0.1:0")]);
    let address = until("the open MQTT space", || address(&demo.log()));
    let (mut reader, mut writer) = (connect(&address, b'r'), connect(&address, b'w'));
    reader.write_all(b"\x82\x06\0\x01\0\x01#\x00").unwrap();
    expect(&mut reader, b"\x90\x03\0\x01\0");
    writer.write_all(b"\x32\x09\0\x03a/b\0\x07hi").unwrap();
    expect(&mut writer, b"\x40\x02\0\x07");
    expect(&mut reader, b"\x30\x07\0\x03a/bhi");
    demo.stop();
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty(), "{rest:02x?}");
}
