//! A short message service centre (`smpp`): SMPP 3.4 over a bound session, for operators and aggregators.
//!
//! Sources: SMPP Protocol Specification v3.4; 3GPP TS 23.040 for headers. One transceiver session for a credential: see
//! `session`. It begins when the server first asks for news, within a second of its start, so that receipts of earlier texts are
//! heard; each node that sends or asks has one. A text whose answer got lost may have been sent, and is not sent again; a receipt
//! that comes again changes nothing. PDUs are written and read by the crate rusmpp-core; `bind` is written here, since many centres take
//! passwords longer than the standard's eight characters.
//!
//! | credential | what |
//! | --- | --- |
//! | `host`, `port` | the centre; port default 2775, with `tls` 3550 |
//! | `tls` | whether the connection is TLS |
//! | `system_id`, `password`, `system_type` | what the centre knows the sender by |
//! | `source` | the sender: a name of at most 11 characters, a short code, a number with `+` |
//! | `source_ton`, `source_npi` | type and plan of the sender, when they do not follow from it |
//! | `service_type` | default empty |
//! | `concatenation` | how parts are joined: `udh` (default), `udh16`, `sar` (TLVs) or `payload` (one PDU) |
//! | `gsm7_packed` | whether septets are packed; default one an octet |
//! | `data_coding_gsm7` | `data_coding` of GSM-7; default 0 |
//! | `window` | submissions without answer; default 10 |
//! | `enquire_link_s` | default 30 |
//! | `receipt_ids` | `auto` (default): ids in receipts may be decimal where answers had hex, or the other way; `exact` |

mod receipt;
mod session;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use hongyan_core::port::{CheckReport, Outbound, Parcel, Receipt};
use hongyan_core::verdict::Unsure;
use hongyan_core::{Reason, Secret, Verdict};
use rusmpp_core::pdus::owned::SubmitSm;
use rusmpp_core::tlvs::owned::MessageSubmissionRequestTlvValue as Tlv;
use rusmpp_core::types::owned::{AnyOctetString, COctetString, OctetString};
use rusmpp_core::values::owned::{MessagePayload, ServiceType};
use rusmpp_core::values::{DataCoding, EsmClass, Npi, PriorityFlag, RegisteredDelivery, Ton};
use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use self::receipt::{Group, News};
use self::session::{Order, Ticket};
use super::segments::{self, Alphabet, Header};
use super::{Common, Encoded, Provider, Words, counted, number, report};
use crate::acs::hex;
use crate::answer::refused;
use crate::config::{self, Fields};
use crate::egress::{Egress, Origin};
use crate::{payload, vendor};

/// Orders that wait for the session.
const ORDERS_MAX: usize = 1024;
/// Offers of a later part that the centre does not take at first, and the pause between them.
const PART_TRIES_MAX: usize = 4;
const PART_PAUSE: Duration = Duration::from_secs(1);
const ESM_HEADER: u8 = 0x40;
const CODING_BINARY: u8 = 4;
const CODING_UCS2: u8 = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Concatenation {
    Header(Header),
    Sar,
    Payload,
}

/// What the operator's letter says.
#[derive(Debug)]
pub(super) struct Config {
    origin: Option<Origin>,
    tls: bool,
    system_id: String,
    password: Secret,
    system_type: String,
    source: String,
    source_ton: u8,
    source_npi: u8,
    service_type: String,
    concatenation: Concatenation,
    packed: bool,
    coding_gsm7: u8,
    window: usize,
    enquire_every: Duration,
    exact_ids: bool,
}

impl Config {
    pub(super) fn read(fields: &mut Fields<'_>) -> Self {
        let tls = fields.switch("tls");
        let port = fields.number("port", 1..=65_535, if tls { 3550 } else { 2775 });
        let origin = fields.checked("host", "the centre's name or address", |host| {
            let host = if host.contains(':') && !host.starts_with('[') {
                format!("[{host}]")
            } else {
                host.to_owned()
            };
            Origin::parse(&format!("https://{host}:{port}"))
                .map_err(|_| "is not a host name or address".to_owned())
        });
        let plain = |max: usize| {
            move |text: &str| {
                if text.len() <= max && text.bytes().all(|b| b.is_ascii() && b != 0) {
                    Ok(text.to_owned())
                } else {
                    Err(format!("must be at most {max} ASCII characters"))
                }
            }
        };
        let system_id = fields.checked("system_id", "the name the centre knows you by", plain(15));
        let password = fields.checked("password", "the password of that name", plain(64));
        let source = fields.checked(
            "source",
            "the sender: a name, a short code or a number",
            plain(20),
        );
        let source = source.unwrap_or_default();
        let (ton, npi) = kind_of_sender(&source);
        if ton == 5 && source.len() > 11 {
            fields.fault(
                "source",
                "is longer than 11 characters, the limit of a name",
            );
        }
        let mut short = |name: &'static str, max: usize| {
            let text = fields.optional_text(name).unwrap_or_default();
            if text.len() > max || !text.is_ascii() {
                fields.fault(name, format!("must be at most {max} ASCII characters"));
            }
            text
        };
        let system_type = short("system_type", 12);
        let service_type = short("service_type", 5);
        let byte = |number: u64| u8::try_from(number).unwrap_or(0);
        let source_ton = byte(fields.number("source_ton", 0..=255, u64::from(ton)));
        let source_npi = byte(fields.number("source_npi", 0..=255, u64::from(npi)));
        let concatenation = match fields.optional_text("concatenation").as_deref() {
            None | Some("udh") => Concatenation::Header(Header::Short),
            Some("udh16") => Concatenation::Header(Header::Long),
            Some("sar") => Concatenation::Sar,
            Some("payload") => Concatenation::Payload,
            Some(_) => {
                fields.fault("concatenation", "must be udh, udh16, sar or payload");
                Concatenation::Payload
            }
        };
        let exact_ids = match fields.optional_text("receipt_ids").as_deref() {
            None | Some("auto") => false,
            Some("exact") => true,
            Some(_) => {
                fields.fault("receipt_ids", "must be auto or exact");
                true
            }
        };
        let window = fields.number("window", 1..=1000, 10);
        Self {
            origin,
            tls,
            system_id: system_id.unwrap_or_default(),
            password: Secret::new(password.unwrap_or_default()),
            system_type,
            source: source.trim_start_matches('+').to_owned(),
            source_ton,
            source_npi,
            service_type,
            concatenation,
            packed: fields.switch("gsm7_packed"),
            coding_gsm7: byte(fields.number("data_coding_gsm7", 0..=255, 0)),
            window: usize::try_from(window).unwrap_or(10),
            enquire_every: Duration::from_secs(fields.number("enquire_link_s", 5..=600, 30)),
            exact_ids,
        }
    }

    pub(super) fn shown(&self) -> Map<String, Value> {
        let host = self.origin.as_ref().map(Origin::authority);
        config::shown([
            ("host", host.map(Value::from)),
            ("tls", Some(self.tls.into())),
            ("system_id", Some(self.system_id.as_str().into())),
            ("source", Some(self.source.as_str().into())),
        ])
    }

    fn header(&self) -> Header {
        match self.concatenation {
            Concatenation::Header(header) => header,
            // References in TLVs are of 16 bits, but cost the segment what the short header does.
            Concatenation::Sar | Concatenation::Payload => Header::Short,
        }
    }

    /// The bind of a transceiver, version 3.4.
    fn bind(&self, sequence: u32) -> Vec<u8> {
        let mut body = Vec::new();
        let password = self.password.expose_str().unwrap_or_default();
        for text in [self.system_id.as_str(), password, self.system_type.as_str()] {
            body.extend(text.bytes());
            body.push(0);
        }
        // Version, type and plan of the own address, which the centre knows.
        body.extend([0x34, 0, 0, 0]);
        session::framed(session::BIND_TRANSCEIVER, 0, sequence, &body)
    }
}

/// Type and plan of a sender by its look: international, short code, name.
fn kind_of_sender(source: &str) -> (u8, u8) {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match source.strip_prefix('+') {
        Some(rest) if digits(rest) => (1, 1),
        _ if digits(source) && source.len() <= 8 => (3, 0),
        _ if digits(source) => (1, 1),
        _ => (5, 0),
    }
}

/// One submission's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    esm_class: u8,
    data_coding: u8,
    short_message: Vec<u8>,
    extra: Extra,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Extra {
    None,
    Sar {
        reference: u16,
        total: u8,
        number: u8,
    },
    Payload(Vec<u8>),
}

/// The parts of a text.
fn parts(config: &Config, plan: &segments::Plan, reference: u32) -> Vec<Part> {
    let data_coding = match plan.alphabet {
        Alphabet::Gsm7 => config.coding_gsm7,
        Alphabet::Ucs2 => CODING_UCS2,
    };
    let written = |units: &[u8], fill: u32| match plan.alphabet {
        Alphabet::Gsm7 if config.packed => segments::pack(units, fill),
        _ => units.to_vec(),
    };
    let plain = |short_message: Vec<u8>, extra: Extra| Part {
        esm_class: 0,
        data_coding,
        short_message,
        extra,
    };
    if let [only] = plan.segments.as_slice() {
        return vec![plain(written(only, 0), Extra::None)];
    }
    if config.concatenation == Concatenation::Payload {
        let whole = written(&plan.segments.concat(), 0);
        return vec![plain(Vec::new(), Extra::Payload(whole))];
    }
    let total = u8::try_from(plan.segments.len()).unwrap_or(u8::MAX);
    let [_, _, high, low] = reference.to_be_bytes();
    let numbered = (1..=u8::MAX).zip(&plan.segments);
    numbered
        .map(|(number, units)| {
            let (udh, fill) = match config.concatenation {
                Concatenation::Header(Header::Short) => (vec![5, 0, 3, low, total, number], 1),
                Concatenation::Header(Header::Long) => (vec![6, 8, 4, high, low, total, number], 0),
                Concatenation::Sar | Concatenation::Payload => {
                    let reference = u16::from_be_bytes([high, low]);
                    let extra = Extra::Sar {
                        reference,
                        total,
                        number,
                    };
                    return plain(written(units, 0), extra);
                }
            };
            let mut short_message = udh;
            short_message.extend(written(units, fill));
            Part {
                esm_class: ESM_HEADER,
                ..plain(short_message, Extra::None)
            }
        })
        .collect()
}

/// A frame to an application port (3GPP TS 23.040, 9.2.3.24.4).
fn to_port(frame: &[u8], port: u16) -> Part {
    let [high, low] = port.to_be_bytes();
    let mut short_message = vec![6, 5, 4, high, low, high, low];
    short_message.extend(frame);
    Part {
        esm_class: ESM_HEADER,
        data_coding: CODING_BINARY,
        short_message,
        extra: Extra::None,
    }
}

/// A relative time: `YYMMDDhhmmss000R`.
fn relative(time: Duration) -> String {
    let whole = time.as_secs();
    let (days, rest) = (whole / 86_400, whole % 86_400);
    format!(
        "0000{:02}{:02}{:02}{:02}000R",
        days.min(30),
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

/// The centre for one app.
#[derive(Debug)]
pub(super) struct Sender {
    config: Arc<Config>,
    egress: Egress,
    news: Arc<News>,
    orders: OnceLock<mpsc::Sender<Order>>,
}

impl Sender {
    /// Connects when it is first used.
    pub(super) fn open(config: Config, egress: &Egress) -> Self {
        Self {
            news: Arc::new(News::new(config.exact_ids)),
            config: Arc::new(config),
            egress: egress.clone(),
            orders: OnceLock::new(),
        }
    }

    /// The session, which begins when it is first asked for: receipts of texts that were sent before a restart come over it
    /// too, so that asking for news is enough.
    fn orders(&self) -> &mpsc::Sender<Order> {
        self.orders.get_or_init(|| {
            let (sender, orders) = mpsc::channel(ORDERS_MAX);
            let session = session::run(
                Arc::clone(&self.config),
                self.egress.clone(),
                Arc::clone(&self.news),
                orders,
            );
            tokio::spawn(session);
            sender
        })
    }

    fn pdu(&self, shown: &Value, part: &Part, number: &str) -> Result<SubmitSm, Verdict> {
        let unfit = |what: &str| refused(&format!("{what} does not fit into submit_sm"));
        let field = |name: &str| shown.get(name).and_then(Value::as_str).unwrap_or_default();
        let byte = |name: &str| {
            let number = shown.get(name).and_then(Value::as_u64);
            number.and_then(|n| u8::try_from(n).ok()).unwrap_or(0)
        };
        let tlvs = match &part.extra {
            Extra::None => Vec::new(),
            Extra::Sar {
                reference,
                total,
                number,
            } => vec![
                Tlv::SarMsgRefNum(*reference),
                Tlv::SarTotalSegments(*total),
                Tlv::SarSegmentSeqnum(*number),
            ],
            Extra::Payload(bytes) => vec![Tlv::MessagePayload(MessagePayload::new(
                AnyOctetString::from_slice(bytes),
            ))],
        };
        let text = OctetString::from_slice(&part.short_message).map_err(|_| unfit("the text"))?;
        let service = field("service_type")
            .parse()
            .map_err(|_| unfit("service_type"))?;
        let source = field("source_addr")
            .parse()
            .map_err(|_| unfit("the sender"))?;
        let destination: COctetString<1, 21> = number::digits(number)
            .parse()
            .map_err(|_| unfit("the number"))?;
        let validity = field("validity_period")
            .parse()
            .map_err(|_| unfit("validity_period"))?;
        Ok(SubmitSm::builder()
            .service_type(ServiceType::new(service))
            .source_addr_ton(Ton::from(byte("source_addr_ton")))
            .source_addr_npi(Npi::from(byte("source_addr_npi")))
            .source_addr(source)
            .dest_addr_ton(Ton::International)
            .dest_addr_npi(Npi::Isdn)
            .destination_addr(destination)
            .esm_class(EsmClass::from(part.esm_class))
            .protocol_id(byte("protocol_id"))
            .priority_flag(PriorityFlag::from(byte("priority_flag")))
            .validity_period(validity)
            .registered_delivery(RegisteredDelivery::from(1))
            .data_coding(DataCoding::from(part.data_coding))
            .short_message(text)
            .tlvs(tlvs)
            .build())
    }

    /// All parts of one text, one after another; it counts as taken when all of them are.
    async fn submit(&self, encoded: &Encoded, number: &str, until: Instant) -> Verdict {
        let group = Arc::new(Group::new(encoded.message, number, encoded.parts.len()));
        for (at, part) in encoded.parts.iter().enumerate() {
            let pdu = match self.pdu(&encoded.parcel.body, part, number) {
                Ok(pdu) => pdu,
                Err(verdict) => return verdict,
            };
            let mut tries = 1;
            let verdict = loop {
                let (reply, answer) = oneshot::channel();
                let ticket = Ticket::default();
                let order = Order::Submit {
                    pdu: Box::new(pdu.clone()),
                    group: Arc::clone(&group),
                    ticket: ticket.clone(),
                    reply,
                };
                let verdict = self.ask(order, answer, &ticket, until).await;
                // The first parts are on their way: what the centre does not take now is offered again at once.
                let again = at > 0
                    && matches!(
                        &verdict,
                        Err(Verdict::Retry {
                            certainty: Unsure::NotTaken,
                            ..
                        })
                    );
                if !again || tries >= PART_TRIES_MAX || Instant::now() + PART_PAUSE >= until {
                    break verdict;
                }
                tries += 1;
                tokio::time::sleep(PART_PAUSE).await;
            };
            match verdict {
                Ok(()) => {}
                // Another try of the whole would repeat the first parts.
                Err(Verdict::Retry {
                    reason,
                    after,
                    detail,
                    ..
                }) if at > 0 => {
                    let certainty = Unsure::MaybeTaken;
                    return Verdict::Retry {
                        reason,
                        after,
                        detail,
                        certainty,
                    };
                }
                Err(verdict) => return verdict,
            }
        }
        Verdict::Accepted {
            vendor_id: group.vendor_id(),
        }
    }

    async fn ask(
        &self,
        order: Order,
        answer: oneshot::Receiver<Result<(), Verdict>>,
        ticket: &Ticket,
        until: Instant,
    ) -> Result<(), Verdict> {
        let late = |certainty| Verdict::Retry {
            reason: Reason::VendorUnavailable,
            after: None,
            detail: "the centre did not answer in time".to_owned(),
            certainty,
        };
        let work = async {
            if self.orders().send(order).await.is_err() {
                return Err(late(Unsure::NotTaken));
            }
            answer
                .await
                .unwrap_or_else(|_| Err(late(ticket.certainty())))
        };
        tokio::time::timeout_at(until, work)
            .await
            .unwrap_or_else(|_| Err(late(ticket.certainty())))
    }
}

#[async_trait]
impl Provider for Sender {
    fn encode(
        &self,
        common: &Common,
        outbound: &Outbound,
        words: &Words,
    ) -> Result<Encoded, (Reason, String)> {
        let message = &outbound.message;
        let mut truncated = Vec::new();
        let signal = common.signal.as_ref().filter(|signal| signal.binary);
        let (text, headers, parts) = match signal {
            Some(signal) => {
                let frame = words.frame.clone().unwrap_or_default();
                let headers = counted("binary", frame.len(), 1);
                (String::new(), headers, vec![to_port(&frame, signal.port)])
            }
            None => {
                let header = self.config.header();
                let (text, plan) = common.cut_text(message, words, header, &mut truncated);
                let headers = counted(plan.alphabet.as_str(), plan.units, plan.segments.len());
                let reference = payload::number_of(&message.id.to_string());
                (text, headers, parts(&self.config, &plan, reference))
            }
        };
        let validity = relative(vendor::ttl(outbound, super::CAPABILITY.ttl_max));
        let mut body = Map::from_iter([
            ("source_addr".to_owned(), self.config.source.as_str().into()),
            ("source_addr_ton".to_owned(), self.config.source_ton.into()),
            ("source_addr_npi".to_owned(), self.config.source_npi.into()),
            (
                "service_type".to_owned(),
                self.config.service_type.as_str().into(),
            ),
            ("protocol_id".to_owned(), 0.into()),
            ("priority_flag".to_owned(), 0.into()),
            ("validity_period".to_owned(), validity.into()),
        ]);
        common.merge(
            &mut body,
            outbound,
            &[
                "destination_addr",
                "short_message",
                "text",
                "data_coding",
                "esm_class",
            ],
            &["source_addr", "source_addr_ton", "source_addr_npi"],
        );
        if let Some(first) = parts.first() {
            body.insert("esm_class".to_owned(), first.esm_class.into());
            body.insert("data_coding".to_owned(), first.data_coding.into());
        }
        let bytes = |part: &Part| match &part.extra {
            Extra::Payload(bytes) => hex(bytes),
            _ => hex(&part.short_message),
        };
        body.insert("text".to_owned(), text.into());
        body.insert(
            "short_message".to_owned(),
            parts.iter().map(bytes).collect(),
        );
        // Not sent: what the receipts are matched with.
        body.insert("hy_id".to_owned(), json!(message.id.to_string()));
        Ok(Encoded {
            parcel: Parcel {
                method: "SMPP",
                path: "submit_sm".to_owned(),
                headers,
                body: Value::Object(body),
                truncated,
                downgraded: None,
            },
            parts,
            message: message.id,
        })
    }

    async fn send(&self, encoded: &Encoded, numbers: &[&str], until: Instant) -> Vec<Verdict> {
        let each = numbers
            .iter()
            .map(|number| self.submit(encoded, number, until));
        vendor::fan_out(each.collect()).await
    }

    /// Binds: the session is the proof.
    async fn check(&self, until: Instant) -> CheckReport {
        let (reply, answer) = oneshot::channel();
        let asked = self
            .ask(Order::Check { reply }, answer, &Ticket::default(), until)
            .await;
        let verdict = match asked {
            Ok(()) => crate::answer::accepted(None),
            Err(verdict) => verdict,
        };
        report("the message centre", &verdict)
    }

    fn news(&self) -> Vec<Receipt> {
        self.orders();
        self.news.take()
    }
}

#[cfg(test)]
mod tests;
