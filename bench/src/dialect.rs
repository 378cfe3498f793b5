//! What a swarm's connections speak: hongyan's own protocol, NATS over WebSocket, MQTT over TCP, or
//! a bare WebSocket. Only as much of each as a measurement needs; servers are trusted here.

/// Text that marks when a message was sent: `@` and 16 hexadecimal digits of nanoseconds.
pub const MARK_LEN: usize = 17;
/// The topic of fan-out.
pub const TOPIC: &str = "t";

/// A key of 16 bytes in base64; servers do not look at which.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// A protocol as a client speaks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `hongyan.v1+json`.
    Hongyan,
    /// The NATS protocol in WebSocket frames.
    Nats,
    /// MQTT 3.1.1 over TCP.
    Mqtt,
    /// MQTT as a device of ours speaks it.
    DeviceMqtt,
    /// WebSocket without anything above it.
    Bare,
}

/// Where a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// TCP is not there yet.
    Connecting,
    /// The opening handshake was sent.
    Upgrading,
    /// The protocol's own greeting was sent.
    Greeting,
    /// Authenticated and subscribed.
    Ready,
    /// The server ended it.
    Gone,
}

/// A client's side of one connection.
#[derive(Debug)]
pub struct Speaker {
    /// Where it is.
    pub phase: Phase,
    index: u32,
    ack_every: u32,
    unacked: u32,
    /// The end of a stream in which a mark may have begun.
    tail: Vec<u8>,
}

/// What was heard in some bytes.
#[derive(Debug, Default)]
pub struct Heard {
    /// When the messages in it were sent, nanoseconds since the epoch.
    pub sent: Vec<u64>,
    /// Answers to heartbeats.
    pub beats: usize,
}

impl Speaker {
    /// A connection of the client with this number, which acknowledges so many messages at once.
    #[must_use]
    pub const fn new(index: u32, ack_every: u32) -> Self {
        Self {
            phase: Phase::Connecting,
            index,
            ack_every,
            unacked: 0,
            tail: Vec::new(),
        }
    }

    /// What to say once TCP is there. `follow` asks for the topic
    /// as well as for what is sent to this client alone.
    pub fn open(&mut self, dialect: Dialect, follow: bool, out: &mut Vec<u8>) {
        if dialect == Dialect::Mqtt {
            self.phase = Phase::Greeting;
            mqtt_connect(&format!("c{}", self.index), out);
            let own = format!("u/{}", self.index);
            let topics: &[&str] = if follow { &[TOPIC, &own] } else { &[&own] };
            mqtt_subscribe(topics, out);
            return;
        }
        if dialect == Dialect::DeviceMqtt {
            self.phase = Phase::Greeting;
            let token = crate::child::memory::token(self.index);
            mqtt_login(&format!("u{}", self.index), &token, out);
            mqtt_subscribe(&["hy/me/inbox"], out);
            return;
        }
        self.phase = Phase::Upgrading;
        let (path, protocol) = match dialect {
            Dialect::Hongyan => ("/v1/connect", "sec-websocket-protocol: hongyan.v1+json\r\n"),
            _ => ("/", ""),
        };
        out.extend_from_slice(
            format!(
                "GET {path} HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
                 sec-websocket-version: 13\r\nsec-websocket-key: {KEY}\r\n{protocol}\r\n"
            )
            .as_bytes(),
        );
    }

    fn greet(&mut self, dialect: Dialect, follow: bool, token: &str, out: &mut Vec<u8>) {
        self.phase = Phase::Greeting;
        match dialect {
            Dialect::Hongyan => {
                let hello = format!(r#"{{"t":"hello","v":1,"auth":{{"token":"{token}"}}}}"#);
                frame(1, hello.as_bytes(), out);
            }
            Dialect::Nats => {
                let own = self.index;
                let topic = if follow { "SUB t 1\r\n" } else { "" };
                let text = format!(
                    "CONNECT {{\"verbose\":false,\"pedantic\":false}}\r\n{topic}SUB u.{own} 2\r\nPING\r\n"
                );
                frame(2, text.as_bytes(), out);
            }
            Dialect::Bare | Dialect::Mqtt | Dialect::DeviceMqtt => self.phase = Phase::Ready,
        }
    }

    /// A heartbeat.
    pub fn beat(dialect: Dialect, out: &mut Vec<u8>) {
        match dialect {
            Dialect::Hongyan | Dialect::Bare => frame(9, b"", out),
            Dialect::Nats => frame(2, b"PING\r\n", out),
            Dialect::Mqtt | Dialect::DeviceMqtt => out.extend_from_slice(&[0xc0, 0]),
        }
    }

    /// Takes whole units off the begin of `bytes`; answers how many bytes it took, and puts what
    /// has to be said into `out`.
    pub fn hear(
        &mut self,
        dialect: Dialect,
        follow: bool,
        token: &str,
        bytes: &[u8],
        heard: &mut Heard,
        out: &mut Vec<u8>,
    ) -> usize {
        let mut at = 0;
        while at < bytes.len() && self.phase != Phase::Gone {
            let rest = &bytes[at..];
            let taken = match (self.phase, dialect) {
                (Phase::Upgrading, _) => self.upgraded(dialect, follow, token, rest, out),
                (_, Dialect::Mqtt | Dialect::DeviceMqtt) => self.packet(rest, heard),
                _ => self.frame(dialect, rest, heard, out),
            };
            if taken == 0 {
                break;
            }
            at += taken;
        }
        at
    }

    fn upgraded(
        &mut self,
        dialect: Dialect,
        follow: bool,
        token: &str,
        bytes: &[u8],
        out: &mut Vec<u8>,
    ) -> usize {
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            return 0;
        };
        if bytes.starts_with(b"HTTP/1.1 101") {
            self.greet(dialect, follow, token, out);
        } else {
            self.phase = Phase::Gone;
        }
        end + 4
    }

    fn frame(
        &mut self,
        dialect: Dialect,
        bytes: &[u8],
        heard: &mut Heard,
        out: &mut Vec<u8>,
    ) -> usize {
        let Some((opcode, from, to)) = frame_at(bytes) else {
            return 0;
        };
        let payload = &bytes[from..to];
        match opcode {
            8 => self.phase = Phase::Gone,
            9 => frame(10, payload, out),
            10 => heard.beats += 1,
            _ if dialect == Dialect::Nats => self.nats(payload, heard),
            _ => self.hongyan(payload, heard, out),
        }
        to
    }

    fn hongyan(&mut self, payload: &[u8], heard: &mut Heard, out: &mut Vec<u8>) {
        if self.phase == Phase::Greeting {
            if contains(payload, br#""t":"idle""#) {
                self.phase = Phase::Ready;
            } else if contains(payload, br#""t":"error""#) {
                self.phase = Phase::Gone;
            }
        }
        if !payload.starts_with(br#"{"t":"msg","cursor":""#) {
            return;
        }
        heard.sent.extend(marks(payload));
        self.unacked += 1;
        if self.unacked >= self.ack_every {
            self.unacked = 0;
            let cursor = &payload[21..];
            let end = cursor.iter().position(|byte| *byte == b'"').unwrap_or(0);
            let mut ack = br#"{"t":"ack","upto":""#.to_vec();
            ack.extend_from_slice(&cursor[..end]);
            ack.extend_from_slice(b"\"}");
            frame(1, &ack, out);
        }
    }

    fn nats(&mut self, payload: &[u8], heard: &mut Heard) {
        let pongs = payload.windows(4).filter(|four| *four == b"PONG").count();
        if self.phase == Phase::Greeting && pongs > 0 {
            self.phase = Phase::Ready;
            return;
        }
        heard.beats += pongs;
        // A message may go on in the next frame.
        if self.tail.is_empty() {
            self.nats_marks(payload, heard);
        } else {
            let mut whole = std::mem::take(&mut self.tail);
            whole.extend_from_slice(payload);
            self.nats_marks(&whole, heard);
        }
    }

    fn nats_marks(&mut self, bytes: &[u8], heard: &mut Heard) {
        heard.sent.extend(marks(bytes));
        let near_end = bytes.len().saturating_sub(MARK_LEN - 1);
        if let Some(begun) = bytes[near_end..].iter().position(|byte| *byte == b'@') {
            self.tail.extend_from_slice(&bytes[near_end + begun..]);
        }
    }

    fn packet(&mut self, bytes: &[u8], heard: &mut Heard) -> usize {
        let Some((from, to)) = packet_at(bytes) else {
            return 0;
        };
        match bytes[0] >> 4 {
            3 => heard.sent.extend(marks(&bytes[from..to])),
            9 => self.phase = Phase::Ready,
            13 => heard.beats += 1,
            _ => {}
        }
        to
    }
}

fn contains(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|part| part == what)
}

/// The text of a mark.
#[must_use]
pub fn mark(nanos: u64) -> String {
    format!("@{nanos:016x}")
}

fn marks(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'@')
        .filter_map(|(at, _)| bytes.get(at + 1..at + MARK_LEN))
        .filter_map(|digits| std::str::from_utf8(digits).ok())
        .filter_map(|digits| u64::from_str_radix(digits, 16).ok())
}

/// Appends a masked frame. The mask is zero: it costs the server the same, and us nothing.
fn frame(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    match payload.len() {
        length @ 0..=125 => out.push(0x80 | length as u8),
        length => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(length.min(65_535) as u16).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
}

/// Opcode and place of the payload of a whole frame from a server.
fn frame_at(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let (from, length): (usize, usize) = match bytes.get(1)? & 0x7f {
        126 => (
            4,
            usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?])),
        ),
        127 => {
            let length: [u8; 8] = bytes.get(2..10)?.try_into().ok()?;
            (10, usize::try_from(u64::from_be_bytes(length)).ok()?)
        }
        short => (2, usize::from(short)),
    };
    let to = from.checked_add(length)?;
    (to <= bytes.len()).then_some((bytes[0] & 0x0f, from, to))
}

/// Place of what follows the fixed header of a whole MQTT packet.
fn packet_at(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut length = 0;
    for place in 0..4 {
        let byte = *bytes.get(1 + place)?;
        length |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            let from = 2 + place;
            let to = from + length;
            return (to <= bytes.len()).then_some((from, to));
        }
    }
    None
}

fn mqtt_packet(first: u8, body: &[u8], out: &mut Vec<u8>) {
    out.push(first);
    let mut length = body.len();
    loop {
        let byte = (length & 0x7f) as u8;
        length >>= 7;
        out.push(if length > 0 { byte | 0x80 } else { byte });
        if length == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
}

fn mqtt_text(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Appends CONNECT with a clean session and no keep-alive.
pub fn mqtt_connect(client: &str, out: &mut Vec<u8>) {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0];
    mqtt_text(client, &mut body);
    mqtt_packet(0x10, &body, out);
}

/// Appends CONNECT of a device: no keep-alive, the client id is the server's to know.
fn mqtt_login(user: &str, password: &str, out: &mut Vec<u8>) {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, 0xc2, 0, 0];
    for text in ["", user, password] {
        mqtt_text(text, &mut body);
    }
    mqtt_packet(0x10, &body, out);
}

fn mqtt_subscribe(topics: &[&str], out: &mut Vec<u8>) {
    let mut body = vec![0, 1];
    for topic in topics {
        mqtt_text(topic, &mut body);
        body.push(0);
    }
    mqtt_packet(0x82, &body, out);
}

/// Appends PUBLISH with QoS 0.
pub fn mqtt_publish(topic: &str, payload: &str, out: &mut Vec<u8>) {
    let mut body = Vec::with_capacity(payload.len() + topic.len() + 2);
    mqtt_text(topic, &mut body);
    body.extend_from_slice(payload.as_bytes());
    mqtt_packet(0x30, &body, out);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![0x80 | opcode, payload.len() as u8];
        out.extend_from_slice(payload);
        out
    }

    #[test]
    fn a_mark_is_found_though_frames_split_it() {
        let mut speaker = Speaker::new(0, 16);
        speaker.phase = Phase::Ready;
        let text = format!("MSG t 1 20\r\n{}xyz\r\n", mark(0xabc));
        let (head, tail) = text.as_bytes().split_at(20);
        let mut heard = Heard::default();
        let bytes = [server_frame(2, head), server_frame(2, tail)].concat();
        let taken = speaker.hear(Dialect::Nats, true, "", &bytes, &mut heard, &mut Vec::new());
        assert_eq!((taken, heard.sent), (bytes.len(), vec![0xabc]));
    }

    #[test]
    fn messages_are_acknowledged_by_the_half_credit() {
        let mut speaker = Speaker::new(0, 16);
        speaker.phase = Phase::Ready;
        let message = format!(r#"{{"t":"msg","cursor":"c9","body":"{}"}}"#, mark(7));
        let (mut heard, mut out) = (Heard::default(), Vec::new());
        let bytes = server_frame(1, message.as_bytes()).repeat(16);
        speaker.hear(Dialect::Hongyan, true, "", &bytes, &mut heard, &mut out);
        assert_eq!(heard.sent, vec![7; 16]);
        assert_eq!(&out[6..], br#"{"t":"ack","upto":"c9"}"#);
    }

    #[test]
    fn incomplete_units_wait() {
        let whole = server_frame(10, b"abc");
        for cut in 0..whole.len() {
            assert_eq!(frame_at(&whole[..cut]), None, "{cut}");
        }
        let mut packet = Vec::new();
        mqtt_publish("t", &"x".repeat(200), &mut packet);
        assert_eq!(packet_at(&packet[..100]), None);
        assert_eq!(packet_at(&packet), Some((3, packet.len())));
    }
}
