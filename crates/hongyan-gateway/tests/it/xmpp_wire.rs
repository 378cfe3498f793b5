//! Clauses of the XMPP notes that want real bytes: SCRAM bound to its TLS (XM-1), refusals on both grounds (XM-3, XM-4),
//! streams in pieces (XM-5), sessions of others (XM-11).

use std::io::{Read as _, Write as _};
use std::num::NonZeroU32;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hongyan_core::device::ScramKeys;
use hongyan_gateway::Listener;
use ring::{digest, hmac, pbkdf2};

use crate::client::frame;
use crate::xmpp::{Client, Io, OPEN, Spoken};

const WS_OPEN: &str =
    "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='localhost' version='1.0'/>";
const SASL: &str = "urn:ietf:params:xml:ns:xmpp-sasl";
const NONCE: &str = "fyko+d2lbbFgONRv9qkxdawL";

/// A hash of SCRAM, from RFC 5802 and RFC 7677 and not from the code under test.
struct Hash {
    name: &'static str,
    hmac: hmac::Algorithm,
    digest: &'static digest::Algorithm,
    stretch: pbkdf2::Algorithm,
}

static SHA1: Hash = Hash {
    name: "SCRAM-SHA-1-PLUS",
    hmac: hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
    digest: &digest::SHA1_FOR_LEGACY_USE_ONLY,
    stretch: pbkdf2::PBKDF2_HMAC_SHA1,
};
static SHA256: Hash = Hash {
    name: "SCRAM-SHA-256-PLUS",
    hmac: hmac::HMAC_SHA256,
    digest: &digest::SHA256,
    stretch: pbkdf2::PBKDF2_HMAC_SHA256,
};

impl Hash {
    fn sign(&self, key: &[u8], text: &[u8]) -> Vec<u8> {
        let key = hmac::Key::new(self.hmac, key);
        hmac::sign(&key, text).as_ref().to_vec()
    }

    fn salted(&self, token: &str, salt: &[u8], rounds: u32) -> Vec<u8> {
        let mut out = vec![0; self.digest.output_len()];
        let rounds = NonZeroU32::new(rounds).unwrap();
        pbkdf2::derive(self.stretch, rounds, salt, token.as_bytes(), &mut out);
        out
    }

    fn stored(&self, salted: &[u8]) -> Vec<u8> {
        let client = self.sign(salted, b"Client Key");
        digest::digest(self.digest, &client).as_ref().to_vec()
    }
}

fn keys(token: &str) -> ScramKeys {
    let salt = ScramKeys::salt("demo");
    let one = SHA1.salted(token, &salt, ScramKeys::ITERATIONS);
    let two = SHA256.salted(token, &salt, ScramKeys::ITERATIONS);
    ScramKeys {
        secret_hash: crate::store::hash(token),
        sha1_stored: SHA1.stored(&one).try_into().unwrap(),
        sha1_server: SHA1.sign(&one, b"Server Key").try_into().unwrap(),
        sha256_stored: SHA256.stored(&two).try_into().unwrap(),
        sha256_server: SHA256.sign(&two, b"Server Key").try_into().unwrap(),
    }
}

/// What the server says in an element, out of base64.
fn inside(element: &str) -> String {
    let text = element.rsplit_once("</").unwrap().0;
    let text = text.rsplit_once('>').unwrap().1;
    String::from_utf8(STANDARD.decode(text).unwrap()).unwrap()
}

/// The TLS channel as both ends know it (RFC 9266).
fn channel(client: &Client) -> [u8; 32] {
    let Io::Tls(tls) = &client.io else {
        panic!("{client:?}")
    };
    let label = b"EXPORTER-Channel-Binding";
    tls.conn
        .export_keying_material([0; 32], label, None)
        .unwrap()
}

/// A stream over STARTTLS, up to the offer of mechanisms.
fn secured(spoken: &Spoken, at: std::net::SocketAddr) -> Client {
    let mut client = Client::connect(at);
    client.say(OPEN);
    client.until("</stream:features>");
    client.say("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
    client.until("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
    let mut client = client.secure(&spoken.client);
    client.say(OPEN);
    let offer = client.until("</stream:features>");
    assert!(offer.contains("SCRAM-SHA-256-PLUS"), "{offer}");
    client
}

/// Logs in over what the client takes for its channel; answers what the server says last.
fn scram(client: &mut Client, hash: &Hash, channel: &[u8]) -> String {
    let gs2 = "p=tls-exporter,,";
    let bare = format!("n=u,r={NONCE}");
    let first = STANDARD.encode(format!("{gs2}{bare}"));
    let mechanism = hash.name;
    client.say(&format!(
        "<auth xmlns='{SASL}' mechanism='{mechanism}'>{first}</auth>"
    ));
    let server = inside(&client.until("</challenge>"));
    let fields: Vec<&str> = server.split(',').map(|field| &field[2..]).collect();
    let (nonce, salt) = (fields[0], STANDARD.decode(fields[1]).unwrap());
    assert!(nonce.starts_with(NONCE) && nonce.len() > NONCE.len());
    let rounds: u32 = fields[2].parse().unwrap();
    assert!(rounds >= 10_000, "{rounds}");
    let bound = STANDARD.encode([gs2.as_bytes(), channel].concat());
    let last = format!("c={bound},r={nonce}");
    let whole = format!("{bare},{server},{last}");
    let salted = hash.salted("token-d", &salt, rounds);
    let signature = hash.sign(&hash.stored(&salted), whole.as_bytes());
    let client_key = hash.sign(&salted, b"Client Key");
    let proof: Vec<u8> = client_key
        .iter()
        .zip(&signature)
        .map(|(key, sign)| key ^ sign)
        .collect();
    let response = STANDARD.encode(format!("{last},p={}", STANDARD.encode(proof)));
    client.say(&format!("<response xmlns='{SASL}'>{response}</response>"));
    let end = client.until(">");
    if end.contains("<failure") {
        return client.until("</failure>");
    }
    let told = inside(&(end + &client.until("</success>")));
    let server_key = hash.sign(&salted, b"Server Key");
    let want = STANDARD.encode(hash.sign(&server_key, whole.as_bytes()));
    assert_eq!(told, format!("v={want}"), "the server knows the token too");
    told
}

#[test]
fn xm_01_scram_is_bound_to_the_tls_beneath() {
    let spoken = Spoken::new();
    spoken.rig.store.add_scram("d", keys("token-d"));
    let at = spoken.listen(Listener::StartTls(Arc::clone(&spoken.server)));
    for hash in [&SHA256, &SHA1] {
        let mut client = secured(&spoken, at);
        let bound = channel(&client);
        assert!(scram(&mut client, hash, &bound).starts_with("v="));
        client.say(OPEN);
        client.until("</stream:features>");
        client.bind();
        // As if somebody in the middle had two channels.
        let mut other = secured(&spoken, at);
        let refused = scram(&mut other, hash, &bound);
        assert!(refused.contains("not-authorized"), "{refused}");
    }
}

/// What a connection over TCP is told, up to its end.
fn over_tcp(spoken: &Spoken, said: &[u8]) -> String {
    let mut client = Client::connect(spoken.plain());
    client.say(OPEN);
    client.until("</stream:features>");
    let Io::Plain(io) = &mut client.io else {
        panic!("not plain")
    };
    io.write_all(said).unwrap();
    client.rest()
}

/// The same of one over WebSocket.
fn over_websocket(spoken: &Spoken, said: &[u8]) -> String {
    let mut socket = spoken.websocket();
    socket.write_all(&frame(0x81, WS_OPEN.as_bytes())).unwrap();
    socket.write_all(&frame(0x81, said)).unwrap();
    let mut heard = Vec::new();
    let mut chunk = [0; 4096];
    // The close frame comes last; the gateway waits for its answer.
    while !heard.windows(2).any(|two| two[0] == 0x88 && two[1] < 126) {
        match socket.read(&mut chunk) {
            Ok(n) if n > 0 => heard.extend_from_slice(&chunk[..n]),
            _ => break,
        }
    }
    String::from_utf8_lossy(&heard).into_owned()
}

#[test]
fn xm_04_what_xmpp_forbids_ends_streams_on_both_grounds() {
    let spoken = Spoken::new();
    let nested = format!("{}{}", "<a xmlns='x'>".repeat(33), "</a>".repeat(33));
    let large = format!("<a xmlns='x'>{}</a>", "x".repeat(65 * 1024));
    let rows: &[(&str, &[u8], &[&str])] = &[
        (
            "DTD",
            b"<!DOCTYPE x [<!ENTITY a 'b'>]><a xmlns='x'/>",
            &["restricted-xml", "not-well-formed"],
        ),
        (
            "comment",
            b"<a xmlns='x'><!-- c --></a>",
            &["restricted-xml"],
        ),
        (
            "processing instruction",
            b"<a xmlns='x'><?b c?></a>",
            &["restricted-xml"],
        ),
        ("entity", b"<a xmlns='x'>&nbsp;</a>", &["restricted-xml"]),
        ("33 levels", nested.as_bytes(), &["policy-violation"]),
        ("65 KiB", large.as_bytes(), &["policy-violation"]),
        (
            "bad UTF-8",
            b"<a xmlns='x'>\xff\xfe</a>",
            &["not-well-formed"],
        ),
    ];
    for (row, said, conditions) in rows {
        let told = over_tcp(&spoken, said);
        let good = conditions
            .iter()
            .any(|one| told.contains(&format!("<{one} ")));
        assert!(good && told.ends_with("</stream:stream>"), "{row}: {told}");
        let told = over_websocket(&spoken, said);
        // What a WebSocket itself forbids ends it before XML is looked at.
        let framing = match *row {
            "bad UTF-8" => told.contains('\u{3}') || told.contains("not-well-formed"),
            "65 KiB" => told.contains('\u{3}') || told.contains("policy-violation"),
            _ => false,
        };
        let good = conditions
            .iter()
            .any(|one| told.contains(&format!("<{one} ")))
            && told.contains("<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>");
        assert!(good || framing, "{row}: {told}");
    }
    spoken
        .rig
        .until("all are gone", || spoken.rig.hub.stats().sessions == 0);
}

#[test]
fn xm_05_a_whole_login_byte_by_byte_and_then_much_at_once() {
    let spoken = Spoken::new();
    let at = spoken.plain();
    let mut client = Client::connect(at);
    let slowly = |client: &mut Client, text: &str, end: &str| {
        for byte in text.as_bytes().chunks(1) {
            client.say(std::str::from_utf8(byte).unwrap());
        }
        client.until(end)
    };
    slowly(&mut client, OPEN, "</stream:features>");
    let text = STANDARD.encode("\0u\0token-d");
    let auth = format!("<auth xmlns='{SASL}' mechanism='PLAIN'>{text}</auth>");
    slowly(&mut client, &auth, "</success>");
    slowly(&mut client, OPEN, "</stream:features>");
    let bind = "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>";
    slowly(&mut client, bind, "</bind></iq>");
    let ping = |n: u32| format!("<iq type='get' id='p{n}'><ping xmlns='urn:xmpp:ping'/></iq>");
    let many: String = (0..20).map(ping).collect();
    client.say(&many);
    for n in 0..20 {
        client.until(&format!("id='p{n}'"));
    }
}

#[test]
fn xm_11_a_session_of_another_account_cannot_be_resumed() {
    let spoken = Spoken::new();
    spoken.rig.store.add_device("e", Some("v"));
    let at = spoken.plain();
    let mut client = spoken.bound(at, "d");
    let id = client.manage();
    spoken.rig.publish("u", "mine");
    assert_eq!(client.body(), "mine");
    drop(client);
    spoken
        .rig
        .until("cut", || spoken.rig.hub.stats().sessions == 0);
    let resume = format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='1'/>");
    let mut thief = Client::connect(at);
    thief.log_in_as("v", "e");
    thief.say(&resume);
    let told = thief.until("</failed>");
    assert!(told.contains("<item-not-found"), "{told}");
    assert!(!told.contains(" h='"), "nothing is told of it: {told}");
    thief.bind();
    thief.say("<presence/>");
    spoken.rig.publish("v", "theirs");
    assert_eq!(thief.body(), "theirs");
    // Whose it is has it still.
    let mut client = Client::connect(at);
    client.log_in("d");
    client.say(&resume);
    client.until("<resumed ");
    client.until("/>");
    assert_eq!(client.body(), "mine");
}
