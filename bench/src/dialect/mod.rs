//! What a swarm's connections speak: the protocols of hongyan, NATS over WebSocket, MQTT over TCP, or a bare WebSocket. Only
//! as much of each as a measurement needs; servers are trusted here.

pub mod autopush;
mod frame;
pub mod http;
pub mod mqtt;
mod xmpp;

use frame::{frame, frame_at};

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
    /// Server-sent events, acknowledged by requests on a connection aside.
    Sse,
    /// One long poll after the other.
    Poll,
    /// MQTT as a device of ours speaks it, QoS 1.
    DeviceMqtt,
    /// XMPP over TCP with stream management.
    Xmpp,
    /// A browser's push connection.
    Autopush,
    /// The NATS protocol in WebSocket frames.
    Nats,
    /// MQTT 3.1.1 over TCP, QoS 0.
    Mqtt,
    /// WebSocket without anything above it.
    Bare,
}

impl Dialect {
    /// Whether clients send heartbeats: those of plain HTTP only listen.
    #[must_use]
    pub const fn has_beats(self) -> bool {
        !matches!(self, Self::Sse | Self::Poll)
    }
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

/// Who speaks.
#[derive(Debug, Clone, Copy)]
pub struct Client<'a> {
    /// Its protocol.
    pub dialect: Dialect,
    /// Whether it follows the topic as well as what is sent to it alone.
    pub follow: bool,
    /// What it proves itself by.
    pub token: &'a str,
}

/// A client's side of one connection.
#[derive(Debug)]
pub struct Speaker {
    /// Where it is.
    pub phase: Phase,
    index: u32,
    ack_every: u32,
    unacked: u32,
    /// XMPP stanzas that came since acknowledgements are on.
    handled: u32,
    /// The end of a stream in which a mark or an event may have begun.
    tail: Vec<u8>,
}

/// What was heard in some bytes.
#[derive(Debug, Default)]
pub struct Heard {
    /// When the messages in it were sent, nanoseconds since the epoch.
    pub sent: Vec<u64>,
    /// Answers to heartbeats.
    pub beats: usize,
    /// A cursor to acknowledge by a request of its own.
    pub upto: Option<String>,
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
            handled: 0,
            tail: Vec::new(),
        }
    }

    /// What to say once TCP is there.
    pub fn open(&mut self, client: Client<'_>, out: &mut Vec<u8>) {
        self.phase = Phase::Upgrading;
        let (path, protocol) = match client.dialect {
            Dialect::Mqtt => {
                self.phase = Phase::Greeting;
                mqtt::connect(&format!("c{}", self.index), out);
                let own = format!("u/{}", self.index);
                let topics: &[&str] = if client.follow {
                    &[TOPIC, &own]
                } else {
                    &[&own]
                };
                return mqtt::subscribe(topics, 0, out);
            }
            Dialect::DeviceMqtt => {
                self.phase = Phase::Greeting;
                mqtt::login(&format!("u{}", self.index), client.token, out);
                return mqtt::subscribe(&["hy/me/inbox"], 1, out);
            }
            Dialect::Xmpp => return xmpp::open(out),
            Dialect::Sse => return http::stream(client.token, out),
            Dialect::Poll => return http::poll(None, client.token, out),
            Dialect::Hongyan => ("/v1/connect", "sec-websocket-protocol: hongyan.v1+json\r\n"),
            Dialect::Autopush => ("/autopush", "sec-websocket-protocol: push-notification\r\n"),
            Dialect::Nats | Dialect::Bare => ("/", ""),
        };
        out.extend_from_slice(
            format!(
                "GET {path} HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
                 sec-websocket-version: 13\r\nsec-websocket-key: {KEY}\r\n{protocol}\r\n"
            )
            .as_bytes(),
        );
    }

    fn greet(&mut self, client: Client<'_>, out: &mut Vec<u8>) {
        self.phase = Phase::Greeting;
        match client.dialect {
            Dialect::Hongyan => {
                let token = client.token;
                let hello = format!(r#"{{"t":"hello","v":1,"auth":{{"token":"{token}"}}}}"#);
                frame(1, hello.as_bytes(), out);
            }
            Dialect::Autopush => frame(1, autopush::hello(client.token).as_bytes(), out),
            Dialect::Nats => {
                let own = self.index;
                let topic = if client.follow { "SUB t 1\r\n" } else { "" };
                let text = format!(
                    "CONNECT {{\"verbose\":false,\"pedantic\":false}}\r\n{topic}SUB u.{own} 2\r\nPING\r\n"
                );
                frame(2, text.as_bytes(), out);
            }
            _ => self.phase = Phase::Ready,
        }
    }

    /// A heartbeat.
    pub fn beat(dialect: Dialect, out: &mut Vec<u8>) {
        match dialect {
            Dialect::Hongyan | Dialect::Bare => frame(9, b"", out),
            Dialect::Nats => frame(2, b"PING\r\n", out),
            Dialect::Mqtt | Dialect::DeviceMqtt => out.extend_from_slice(&[0xc0, 0]),
            Dialect::Xmpp => xmpp::beat(out),
            Dialect::Autopush => frame(1, b"{}", out),
            Dialect::Sse | Dialect::Poll => {}
        }
    }

    /// Takes whole units off the begin of `bytes`; answers how many bytes it took, and puts what
    /// has to be said into `out`.
    pub fn hear(
        &mut self,
        client: Client<'_>,
        bytes: &[u8],
        heard: &mut Heard,
        out: &mut Vec<u8>,
    ) -> usize {
        let mut at = 0;
        while at < bytes.len() && self.phase != Phase::Gone {
            let rest = &bytes[at..];
            let taken = match (self.phase, client.dialect) {
                (_, Dialect::Mqtt | Dialect::DeviceMqtt) => self.packet(rest, heard, out),
                (_, Dialect::Xmpp) => self.element(client, rest, heard, out),
                (_, Dialect::Poll) => self.polled(client, rest, heard, out),
                (Phase::Upgrading, Dialect::Sse) => self.streaming(rest),
                (_, Dialect::Sse) => self.chunk(rest, heard),
                (Phase::Upgrading, _) => self.upgraded(client, rest, out),
                _ => self.frame(client.dialect, rest, heard, out),
            };
            if taken == 0 {
                break;
            }
            at += taken;
        }
        at
    }

    fn upgraded(&mut self, client: Client<'_>, bytes: &[u8], out: &mut Vec<u8>) -> usize {
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            return 0;
        };
        if bytes.starts_with(b"HTTP/1.1 101") {
            self.greet(client, out);
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
            _ if dialect == Dialect::Autopush => self.browser(payload, heard, out),
            _ => self.hongyan(payload, heard, out),
        }
        to
    }

    /// Whether so many messages came that they are acknowledged now.
    fn is_ack_due(&mut self, more: usize) -> bool {
        self.unacked += more as u32;
        let due = self.unacked >= self.ack_every;
        if due {
            self.unacked = 0;
        }
        due
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
        if self.is_ack_due(1) {
            let cursor = &payload[21..];
            let end = cursor.iter().position(|byte| *byte == b'"').unwrap_or(0);
            let mut ack = br#"{"t":"ack","upto":""#.to_vec();
            ack.extend_from_slice(&cursor[..end]);
            ack.extend_from_slice(b"\"}");
            frame(1, &ack, out);
        }
    }

    fn browser(&mut self, payload: &[u8], heard: &mut Heard, out: &mut Vec<u8>) {
        if let Some((sent, ack)) = autopush::notification(payload) {
            heard.sent.push(sent);
            frame(1, ack.as_bytes(), out);
        } else if autopush::is_hello(payload) {
            self.phase = Phase::Ready;
        } else if payload == b"{}" {
            heard.beats += 1;
        }
    }

    fn streaming(&mut self, bytes: &[u8]) -> usize {
        let Some((accepted, _, end)) = http::head_at(bytes) else {
            return 0;
        };
        self.phase = if accepted {
            Phase::Greeting
        } else {
            Phase::Gone
        };
        end
    }

    fn chunk(&mut self, bytes: &[u8], heard: &mut Heard) -> usize {
        let Some((from, to, end)) = http::chunk_at(bytes) else {
            return 0;
        };
        if from == to {
            self.phase = Phase::Gone;
            return end;
        }
        // An event may go on in the next chunk.
        let mut text = std::mem::take(&mut self.tail);
        text.extend_from_slice(&bytes[from..to]);
        let mut at = 0;
        while let Some(length) = text[at..].windows(2).position(|two| two == b"\n\n") {
            self.event(&text[at..at + length + 1], heard);
            at += length + 2;
        }
        if at < text.len() {
            self.tail = text.split_off(at);
        }
        end
    }

    fn event(&mut self, event: &[u8], heard: &mut Heard) {
        if contains(event, b"event: msg\n") {
            heard.sent.extend(marks(event));
            if self.is_ack_due(1) {
                heard.upto = http::value_after(event, b"id: ").map(str::to_owned);
            }
        } else if contains(event, b"event: idle\n") {
            self.phase = Phase::Ready;
        }
    }

    fn polled(
        &mut self,
        client: Client<'_>,
        bytes: &[u8],
        heard: &mut Heard,
        out: &mut Vec<u8>,
    ) -> usize {
        let Some((accepted, length, from)) = http::head_at(bytes) else {
            return 0;
        };
        let to = from + length.unwrap_or(0);
        let Some(body) = bytes.get(from..to) else {
            return 0;
        };
        match http::value_after(body, br#""cursor":""#).filter(|_| accepted) {
            Some(cursor) => {
                heard.sent.extend(marks(body));
                http::poll(Some(cursor), client.token, out);
                self.phase = Phase::Ready;
            }
            None => self.phase = Phase::Gone,
        }
        to
    }

    fn element(
        &mut self,
        client: Client<'_>,
        bytes: &[u8],
        heard: &mut Heard,
        out: &mut Vec<u8>,
    ) -> usize {
        let Some(end) = xmpp::element_at(bytes) else {
            return 0;
        };
        let element = &bytes[..end];
        if !element.starts_with(b"<") {
            return end;
        }
        let step = xmpp::step(element);
        match step {
            xmpp::Step::Stanza => {
                self.handled = self.handled.wrapping_add(1);
                // The text stands in the body and in the data: once is enough.
                heard.sent.extend(marks(element).next());
            }
            xmpp::Step::Ready => {
                self.handled = 0;
                self.phase = Phase::Ready;
            }
            xmpp::Step::Beat => heard.beats += 1,
            xmpp::Step::End => self.phase = Phase::Gone,
            _ => {}
        }
        xmpp::answer(step, self.index, client.token, self.handled, out);
        end
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

    fn packet(&mut self, bytes: &[u8], heard: &mut Heard, out: &mut Vec<u8>) -> usize {
        let Some((from, to)) = mqtt::packet_at(bytes) else {
            return 0;
        };
        match bytes[0] >> 4 {
            3 => {
                heard.sent.extend(marks(&bytes[from..to]));
                mqtt::acknowledge(bytes[0], &bytes[from..to], out);
            }
            9 => self.phase = Phase::Ready,
            13 => heard.beats += 1,
            14 => self.phase = Phase::Gone,
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

fn marks(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    bytes
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'@')
        .filter_map(|(at, _)| bytes.get(at + 1..at + MARK_LEN))
        .filter_map(|digits| std::str::from_utf8(digits).ok())
        .filter_map(|digits| u64::from_str_radix(digits, 16).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn client(dialect: Dialect) -> Client<'static> {
        Client {
            dialect,
            follow: true,
            token: "",
        }
    }

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
        let taken = speaker.hear(client(Dialect::Nats), &bytes, &mut heard, &mut Vec::new());
        assert_eq!((taken, heard.sent), (bytes.len(), vec![0xabc]));
    }

    #[test]
    fn messages_are_acknowledged_by_the_half_credit() {
        let mut speaker = Speaker::new(0, 16);
        speaker.phase = Phase::Ready;
        let message = format!(r#"{{"t":"msg","cursor":"c9","body":"{}"}}"#, mark(7));
        let (mut heard, mut out) = (Heard::default(), Vec::new());
        let bytes = server_frame(1, message.as_bytes()).repeat(16);
        speaker.hear(client(Dialect::Hongyan), &bytes, &mut heard, &mut out);
        assert_eq!(heard.sent, vec![7; 16]);
        assert_eq!(&out[6..], br#"{"t":"ack","upto":"c9"}"#);
    }

    #[test]
    fn events_may_go_on_in_the_next_chunk() {
        let mut speaker = Speaker::new(0, 1);
        speaker.phase = Phase::Greeting;
        let events = format!(
            "event: idle\ndata: {{}}\n\nid: c5\nevent: msg\ndata: {}\n\n",
            mark(9)
        );
        let (mut heard, mut out) = (Heard::default(), Vec::new());
        for part in [&events[..40], &events[40..]] {
            let chunk = format!("{:x}\r\n{part}\r\n", part.len());
            let taken = speaker.hear(client(Dialect::Sse), chunk.as_bytes(), &mut heard, &mut out);
            assert_eq!(taken, chunk.len());
        }
        assert_eq!((speaker.phase, heard.sent), (Phase::Ready, vec![9]));
        assert_eq!(heard.upto.as_deref(), Some("c5"));
    }

    #[test]
    fn a_poll_follows_the_cursor_of_the_last_answer() {
        let mut speaker = Speaker::new(0, 1);
        speaker.phase = Phase::Upgrading;
        let body = format!(r#"{{"cursor":"c7","messages":[{{"body":"{}"}}]}}"#, mark(3));
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let (mut heard, mut out) = (Heard::default(), Vec::new());
        speaker.hear(
            client(Dialect::Poll),
            answer.as_bytes(),
            &mut heard,
            &mut out,
        );
        assert_eq!((speaker.phase, heard.sent), (Phase::Ready, vec![3]));
        assert!(
            String::from_utf8(out)
                .unwrap()
                .contains("&cursor=c7 HTTP/1.1")
        );
    }

    #[test]
    fn incomplete_units_wait() {
        let whole = server_frame(10, b"abc");
        for cut in 0..whole.len() {
            assert_eq!(frame_at(&whole[..cut]), None, "{cut}");
        }
        let mut packet = Vec::new();
        mqtt::publish("t", &"x".repeat(200), &mut packet);
        assert_eq!(mqtt::packet_at(&packet[..100]), None);
        assert_eq!(mqtt::packet_at(&packet), Some((3, packet.len())));
    }
}
