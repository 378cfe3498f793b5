//! A stand-in for a message centre that speaks SMPP 3.4, and the channel that is bound to it.
//!
//! PDUs are read and written here by the specification (3.2, 4.1, 4.4), with nothing of the channel's in between.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use hongyan_core::Class;
use hongyan_core::port::{Batch, Channel};
use hongyan_testkit::channel_suite::{Bench, Row, Script, Sent, words};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};

use crate::message;

const PATIENCE: Duration = Duration::from_secs(10);
const RESPONSE: u32 = 0x8000_0000;
const BIND_TRANSCEIVER: u32 = 9;
const SUBMIT_SM: u32 = 4;
const UNBIND: u32 = 6;
const ENQUIRE_LINK: u32 = 0x15;
/// `ESME_RINVDSTADR`.
const NO_SUCH_NUMBER: u32 = 0x0B;

/// `command_status` of SMPP 3.4 table 5-2, and what it means for a text.
const ROWS: &[(&str, u32, &str)] = &[
    ("ESME_RINVMSGLEN", 0x01, "refused payload_too_large"),
    ("ESME_RINVCMDLEN", 0x02, "refused payload_rejected"),
    ("ESME_RINVCMDID", 0x03, "refused payload_rejected"),
    (
        "ESME_RINVBNDSTS",
        0x04,
        "retry vendor_unavailable not_taken",
    ),
    ("ESME_RALYBND", 0x05, "retry vendor_unavailable not_taken"),
    ("ESME_RINVPRTFLG", 0x06, "credential_bad"),
    ("ESME_RINVREGDLVFLG", 0x07, "credential_bad"),
    ("ESME_RSYSERR", 0x08, "retry vendor_unavailable not_taken"),
    ("ESME_RINVSRCADR", 0x0A, "credential_bad"),
    ("ESME_RINVDSTADR", 0x0B, "token_dead token_invalid"),
    ("ESME_RINVMSGID", 0x0C, "refused payload_rejected"),
    ("ESME_RBINDFAIL", 0x0D, "credential_bad"),
    ("ESME_RINVPASWD", 0x0E, "credential_bad"),
    ("ESME_RINVSYSID", 0x0F, "credential_bad"),
    ("ESME_RMSGQFUL", 0x14, "retry vendor_rate_limited not_taken"),
    ("ESME_RINVSERTYP", 0x15, "credential_bad"),
    ("ESME_RINVESMCLASS", 0x43, "credential_bad"),
    (
        "ESME_RSUBMITFAIL",
        0x45,
        "retry vendor_unavailable not_taken",
    ),
    ("ESME_RINVSRCTON", 0x48, "credential_bad"),
    ("ESME_RINVSRCNPI", 0x49, "credential_bad"),
    ("ESME_RINVDSTTON", 0x50, "credential_bad"),
    ("ESME_RINVDSTNPI", 0x51, "credential_bad"),
    ("ESME_RINVSYSTYP", 0x53, "credential_bad"),
    (
        "ESME_RTHROTTLED",
        0x58,
        "retry vendor_rate_limited not_taken",
    ),
    ("ESME_RINVEXPIRY", 0x62, "refused payload_rejected"),
    ("ESME_RX_T_APPN", 0x64, "retry vendor_unavailable not_taken"),
    ("ESME_RX_R_APPN", 0x66, "refused payload_rejected"),
    ("ESME_RINVOPTPARAMVAL", 0xC4, "credential_bad"),
    ("ESME_RDELIVERYFAILURE", 0xFE, "refused payload_rejected"),
    (
        "ESME_RUNKNOWNERR",
        0xFF,
        "retry vendor_unavailable not_taken",
    ),
    (
        "a code of the centre's own",
        0x0401,
        "refused payload_rejected",
    ),
];

fn number(n: usize) -> String {
    format!("+86138{:08}", n + 10)
}

/// A centre, and the channel that sends to it.
pub(crate) struct SmppBench {
    centre: Arc<Centre>,
    channel: Arc<dyn Channel>,
}

struct Centre {
    script: Mutex<Script>,
    sent: Mutex<Vec<Sent>>,
    /// Submissions without an answer.
    held: Mutex<usize>,
    turned: tokio::sync::watch::Sender<()>,
}

impl SmppBench {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let centre = Arc::new(Centre {
            script: Mutex::new(Script::Accept),
            sent: Mutex::default(),
            held: Mutex::default(),
            turned: tokio::sync::watch::channel(()).0,
        });
        tokio::spawn({
            let centre = Arc::clone(&centre);
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream, Arc::clone(&centre)));
                }
            }
        });
        let (_, ca_pem) = crate::stand_in::server_tls(&[]);
        let config = json!({
            "provider": "smpp", "host": "127.0.0.1", "port": address.port(), "system_id": "test",
            "password": "secret", "source": "ACME",
        });
        let channel = message::open_at(&message::egress(&ca_pem), "sms", &config, None, None);
        Self { centre, channel }
    }
}

async fn serve(stream: TcpStream, centre: Arc<Centre>) {
    let (mut read, mut write) = stream.into_split();
    let mut turned = centre.turned.subscribe();
    let mut held: Vec<u32> = Vec::new();
    loop {
        let mut header = [0; 16];
        tokio::select! {
            got = read.read_exact(&mut header) => {
                if got.is_err() {
                    break;
                }
            }
            // A centre that begins to answer again answers what it kept, late.
            _ = turned.changed() => {
                for sequence in held.drain(..) {
                    *centre.held.lock().unwrap() -= 1;
                    say(&mut write, SUBMIT_SM, 0, sequence, b"late\0").await;
                }
                continue;
            }
        }
        let word = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().unwrap());
        let mut body = vec![0; word(0) as usize - header.len()];
        read.read_exact(&mut body).await.unwrap();
        let (id, sequence) = (word(4), word(12));
        match id {
            BIND_TRANSCEIVER => say(&mut write, id, 0, sequence, b"centre\0").await,
            ENQUIRE_LINK | UNBIND => say(&mut write, id, 0, sequence, &[]).await,
            SUBMIT_SM => match centre.judge(&body) {
                Some(0) => say(&mut write, id, 0, sequence, b"1a2b\0").await,
                Some(status) => say(&mut write, id, status, sequence, &[]).await,
                None => {
                    *centre.held.lock().unwrap() += 1;
                    held.push(sequence);
                }
            },
            _ => assert!(id & RESPONSE != 0, "command_id {id:#x}"),
        }
    }
    *centre.held.lock().unwrap() -= held.len();
}

async fn say(write: &mut OwnedWriteHalf, id: u32, status: u32, sequence: u32, body: &[u8]) {
    let length = u32::try_from(16 + body.len()).unwrap();
    let mut pdu = Vec::new();
    for word in [length, id | RESPONSE, status, sequence] {
        pdu.extend(word.to_be_bytes());
    }
    pdu.extend(body);
    let _ = write.write_all(&pdu).await;
}

impl Centre {
    /// The `command_status` for a submission, if it is to be answered.
    fn judge(&self, body: &[u8]) -> Option<u32> {
        let sent = submission(body);
        let odd = sent.tokens[0].ends_with(['1', '3', '5', '7', '9']);
        self.sent.lock().unwrap().push(sent);
        match *self.script.lock().unwrap() {
            Script::Accept | Script::ExpiredOnce => Some(0),
            Script::DeadBetween => Some(if odd { NO_SUCH_NUMBER } else { 0 }),
            Script::Row(row) => Some(ROWS[row].1),
            Script::Silent => None,
        }
    }
}

/// What is left of a PDU.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn byte(&mut self) -> u8 {
        self.bytes(1)[0]
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let (bytes, rest) = self.0.split_at(count);
        self.0 = rest;
        bytes.to_vec()
    }

    /// A text that ends with a zero.
    fn text(&mut self) -> String {
        let end = self.0.iter().position(|b| *b == 0).unwrap();
        let text = self.bytes(end + 1);
        String::from_utf8(text[..end].to_vec()).unwrap()
    }
}

/// The fields of `submit_sm` in their order (4.4.1), with the number taken out.
fn submission(body: &[u8]) -> Sent {
    let mut rest = Rest(body);
    let mut shown = json!({"service_type": rest.text()});
    shown["source_addr_ton"] = rest.byte().into();
    shown["source_addr_npi"] = rest.byte().into();
    shown["source_addr"] = rest.text().into();
    assert_eq!(rest.bytes(2), [1, 1], "an international number");
    let number = format!("+{}", rest.text());
    shown["esm_class"] = rest.byte().into();
    shown["protocol_id"] = rest.byte().into();
    shown["priority_flag"] = rest.byte().into();
    assert_eq!(rest.text(), "", "to be delivered at once");
    shown["validity_period"] = rest.text().into();
    assert_eq!(rest.byte(), 1, "with a receipt");
    assert_eq!(rest.byte(), 0, "replaces nothing");
    let data_coding = rest.byte();
    shown["data_coding"] = data_coding.into();
    assert_eq!(rest.byte(), 0, "no canned message");
    let length = rest.byte();
    let text = rest.bytes(length.into());
    assert_eq!((data_coding, rest.0), (0, &[][..]), "a short text, no more");
    let hex: String = text.iter().map(|byte| format!("{byte:02x}")).collect();
    shown["short_message"] = json!([hex]);
    // The letters of the suite's message are the same in ASCII and in the default alphabet.
    shown["text"] = String::from_utf8(text).unwrap().into();
    Sent {
        method: "SMPP".to_owned(),
        path: "submit_sm".to_owned(),
        headers: Vec::new(),
        body: shown,
        tokens: vec![number],
    }
}

#[tokio::test]
async fn a_submission_that_fails_is_made_once_more() {
    let bench = SmppBench::start().await;
    let row = |name: &str| ROWS.iter().position(|(n, ..)| *n == name).unwrap();
    let again = "retry vendor_unavailable not_taken";
    for (name, second) in [
        ("ESME_RSUBMITFAIL", "refused vendor_unavailable"),
        ("ESME_RUNKNOWNERR", "refused vendor_unavailable"),
        // A centre in trouble gets its time.
        ("ESME_RSYSERR", again),
    ] {
        bench.script(Script::Row(row(name)));
        let batch = bench.batch(2);
        for want in [again, second] {
            let verdicts = bench.channel.send(&batch, PATIENCE).await;
            let told: Vec<String> = verdicts.iter().map(words).collect();
            assert_eq!(told, [want; 2], "{name}");
        }
    }
}

impl Bench for SmppBench {
    fn channel(&self) -> Arc<dyn Channel> {
        Arc::clone(&self.channel)
    }

    fn batch(&self, recipients: usize) -> Batch {
        let outbound = message::outbound(message::message(Class::Transaction));
        message::batch(outbound, (0..recipients).map(number))
    }

    fn script(&self, script: Script) {
        *self.centre.script.lock().unwrap() = script;
        if script != Script::Silent {
            self.centre.turned.send_replace(());
        }
    }

    fn rows(&self) -> Vec<Row> {
        let rows = ROWS.iter();
        rows.map(|(name, _, want)| Row { name, want }).collect()
    }

    fn sent(&self) -> Vec<Sent> {
        self.centre.sent.lock().unwrap().clone()
    }

    fn open_requests(&self) -> usize {
        *self.centre.held.lock().unwrap()
    }

    fn tokens_handed_out(&self) -> Option<usize> {
        None
    }

    fn tokens_expire(&self) -> bool {
        false
    }

    fn names_tokens(&self) -> bool {
        true
    }

    fn sees_calls_end(&self) -> bool {
        false
    }
}
