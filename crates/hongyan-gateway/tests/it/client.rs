//! A tiny raw WebSocket client: it can say things that a real one would not.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use hongyan_gateway::Encoding;
use rustls::ClientConnection;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) opcode: u8,
    pub(crate) payload: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    pub(crate) encoding: Encoding,
    tls: Option<ClientConnection>,
    buffer: VecDeque<u8>,
}

/// A masked frame.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [9, 8, 7, 6];
    let mut out = vec![first];
    match payload.len() {
        length @ 0..=125 => out.push(0x80 | length as u8),
        length @ 126..=65_535 => {
            out.push(0x80 | 126);
            out.extend((length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend((length as u64).to_be_bytes());
        }
    }
    out.extend(mask);
    out.extend(
        payload
            .iter()
            .enumerate()
            .map(|(i, byte)| byte ^ mask[i % 4]),
    );
    out
}

impl Client {
    pub(crate) fn new(stream: TcpStream, encoding: Encoding) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream,
            encoding,
            tls: None,
            buffer: VecDeque::new(),
        }
    }

    /// Speaks TLS from here on.
    pub(crate) fn secured(mut self, tls: ClientConnection) -> Self {
        self.tls = Some(tls);
        self
    }

    fn read_some(&mut self, chunk: &mut [u8]) -> std::io::Result<usize> {
        match &mut self.tls {
            Some(tls) => rustls::Stream::new(tls, &mut self.stream).read(chunk),
            None => self.stream.read(chunk),
        }
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        match &mut self.tls {
            Some(tls) => rustls::Stream::new(tls, &mut self.stream).write_all(bytes),
            None => self.stream.write_all(bytes),
        }
        .unwrap();
    }

    pub(crate) fn message(&self, value: &Value) -> Vec<u8> {
        match self.encoding {
            Encoding::Json => frame(0x81, value.to_string().as_bytes()),
            Encoding::Cbor => {
                let mut bytes = Vec::new();
                ciborium::into_writer(value, &mut bytes).unwrap();
                frame(0x82, &bytes)
            }
        }
    }

    pub(crate) fn say(&mut self, value: Value) {
        let bytes = self.message(&value);
        self.raw(&bytes);
    }

    fn take(&mut self, n: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < n {
            let mut chunk = [0; 65_536];
            match self.read_some(&mut chunk) {
                Ok(0) => return None,
                Ok(n) => self.buffer.extend(&chunk[..n]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("nothing came in time: {error}"),
            }
        }
        Some(self.buffer.drain(..n).collect())
    }

    /// The next frame; `None` at the end of the stream.
    pub(crate) fn frame(&mut self) -> Option<Frame> {
        let head = self.take(2)?;
        assert_eq!(head[0] & 0x70, 0, "no reserved bits");
        assert_eq!(head[0] & 0x80, 0x80, "the server does not fragment");
        assert_eq!(head[1] & 0x80, 0, "WS-9: a server never masks");
        let length = match head[1] {
            126 => {
                let bytes = self.take(2)?;
                let length = usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
                assert!(length > 125, "shortest form");
                length
            }
            127 => {
                let bytes: [u8; 8] = self.take(8)?.try_into().unwrap();
                let length = u64::from_be_bytes(bytes) as usize;
                assert!(length > 65_535, "shortest form");
                length
            }
            short => usize::from(short),
        };
        let payload = self.take(length)?;
        Some(Frame {
            opcode: head[0] & 0x0f,
            payload,
        })
    }

    /// The next message of the protocol; pings are passed over.
    pub(crate) fn hear(&mut self) -> Value {
        loop {
            let frame = self.frame().expect("a message, not the end of the stream");
            match frame.opcode {
                1 if self.encoding == Encoding::Json => {
                    return serde_json::from_slice(&frame.payload).unwrap();
                }
                2 if self.encoding == Encoding::Cbor => {
                    return ciborium::from_reader(&frame.payload[..]).unwrap();
                }
                9 | 10 => {}
                8 => panic!("closed instead: {frame:?}"),
                other => panic!("unexpected opcode {other}"),
            }
        }
    }

    /// The next message, of this type.
    pub(crate) fn expect(&mut self, t: &str) -> Value {
        let value = self.hear();
        assert_eq!(value["t"], t, "{value}");
        value
    }

    /// Passes over messages until the close frame; its code. Then the stream must end.
    pub(crate) fn closed(&mut self) -> u16 {
        let code = self.close_code();
        let answer = frame(0x88, &code.to_be_bytes());
        let _ = match &mut self.tls {
            Some(tls) => rustls::Stream::new(tls, &mut self.stream).write_all(&answer),
            None => self.stream.write_all(&answer),
        };
        assert_eq!(self.frame(), None, "WS-9: nothing follows a close");
        code
    }

    pub(crate) fn close_code(&mut self) -> u16 {
        loop {
            let frame = self
                .frame()
                .expect("a close frame before the end of the stream");
            if frame.opcode == 8 {
                return u16::from_be_bytes([frame.payload[0], frame.payload[1]]);
            }
        }
    }

    pub(crate) fn hello(&mut self, device: &str, more: Value) -> Value {
        let mut hello = json!({"t": "hello", "v": 1, "auth": {"token": format!("token-{device}")}});
        for (key, value) in more.as_object().unwrap() {
            hello[key] = value.clone();
        }
        self.say(hello);
        self.expect("welcome")
    }

    /// Messages until `idle`.
    pub(crate) fn until_idle(&mut self) -> Vec<Value> {
        let mut all = Vec::new();
        loop {
            let value = self.hear();
            match value["t"].as_str().unwrap() {
                "msg" => all.push(value),
                "idle" => return all,
                other => panic!("{other} instead of msg or idle"),
            }
        }
    }
}

/// The bodies of messages.
pub(crate) fn bodies(messages: &[Value]) -> Vec<String> {
    let body = |value: &Value| value["notification"]["body"].as_str().unwrap().to_owned();
    messages.iter().map(body).collect()
}
