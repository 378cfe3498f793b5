//! Delivery receipts: what `deliver_sm` says, and whose text it was.
//!
//! A centre names a text in its answer to the submission and again in the receipt, and the two may differ: `0000001A` there,
//! `26` here. Compared are: the same; the same without leading zeros; one in hex and the other in decimal. A receipt may
//! come before the answer to the submission; it is kept for some minutes.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use hongyan_core::port::{Receipt, ReceiptKind};
use hongyan_core::{MessageId, Secret};
use rusmpp_core::pdus::owned::DeliverSm;
use rusmpp_core::tlvs::owned::TlvValue;
use rusmpp_core::values::{MessageState, MessageType};
use tokio::time::Instant;

use crate::texts::detail;
use crate::vendor::sms::receipts::{Told, kind_of};

/// Texts whose receipts are awaited; the oldest go first.
const IDS_MAX: usize = 65_536;
/// Receipts that came before their submission was answered, about 1 MB. With more, the oldest is told as one that nobody knows:
/// strangers' receipts must not keep ours out.
const EARLY_MAX: usize = 4_096;
const EARLY_FOR: Duration = Duration::from_secs(300);
/// Receipts that wait to be asked for.
const READY_MAX: usize = 16_384;
/// Receipts handed out at once.
const TAKE_MAX: usize = 1_000;

/// A text of one or more parts to one number.
#[derive(Debug)]
pub(super) struct Group {
    message: MessageId,
    number: String,
    first_id: OnceLock<String>,
    /// Parts without a final receipt; none once it was told.
    left: Mutex<usize>,
}

impl Group {
    pub(super) fn new(message: MessageId, number: &str, parts: usize) -> Self {
        Self {
            message,
            number: number.to_owned(),
            first_id: OnceLock::new(),
            left: Mutex::new(parts),
        }
    }

    /// The centre's id of the first part: the whole text's.
    pub(super) fn vendor_id(&self) -> Option<String> {
        self.first_id.get().filter(|id| !id.is_empty()).cloned()
    }

    /// What a part's receipt says of the whole: delivered when all parts are, failed when one is.
    fn settle(&self, kind: ReceiptKind) -> Option<ReceiptKind> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        match kind {
            _ if *left == 0 => None,
            ReceiptKind::Delivered => {
                *left -= 1;
                (*left == 0).then_some(kind)
            }
            ReceiptKind::Other => Some(kind),
            failed => {
                *left = 0;
                Some(failed)
            }
        }
    }
}

/// A receipt as the centre wrote it.
#[derive(Debug, Clone, PartialEq)]
struct Raw {
    id: String,
    state: String,
    words: String,
    number: String,
}

/// What became of a `deliver_sm`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrived {
    Taken,
    Full,
}

#[derive(Debug, Default)]
struct Book {
    ids: HashMap<String, Arc<Group>>,
    order: VecDeque<Vec<String>>,
    early: VecDeque<(Instant, Raw)>,
    ready: VecDeque<Receipt>,
}

/// What came over the session and was not asked for yet, and what it has to remember of texts.
#[derive(Debug)]
pub(super) struct News {
    exact: bool,
    /// Texts that failed in a way that deserves one more try, and had it.
    tried: Told,
    book: Mutex<Book>,
}

impl News {
    pub(super) fn new(exact: bool) -> Self {
        Self {
            exact,
            tried: Told::default(),
            book: Mutex::default(),
        }
    }

    /// Whether a text that failed in a way that deserves one more try has that before it.
    pub(super) fn may_try_again(&self, group: &Group) -> bool {
        self.tried
            .is_new(&format!("{} {}", group.message, group.number))
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The centre took a part under this id.
    pub(super) fn accepted(&self, id: &str, group: &Arc<Group>) {
        group.first_id.get_or_init(|| detail(id));
        if id.is_empty() {
            return;
        }
        let keys = stored_keys(id, self.exact);
        let mut book = self.book();
        for key in &keys {
            book.ids.insert(key.clone(), Arc::clone(group));
        }
        book.order.push_back(keys);
        while book.order.len() > IDS_MAX {
            let oldest = book.order.pop_front().unwrap_or_default();
            for key in oldest {
                book.ids.remove(&key);
            }
        }
        // Its receipt may have come before.
        let mut waiting = std::mem::take(&mut book.early);
        waiting.retain(|(_, raw)| {
            let Some(group) = find(&book.ids, raw, self.exact) else {
                return true;
            };
            tell(&mut book.ready, &group, raw);
            false
        });
        book.early = waiting;
    }

    /// A `deliver_sm` came; texts from people are not receipts and change nothing.
    pub(super) fn arrived(&self, pdu: &DeliverSm) -> Arrived {
        let Some(raw) = read(pdu) else {
            return Arrived::Taken;
        };
        let mut book = self.book();
        if book.ready.len() >= READY_MAX {
            return Arrived::Full;
        }
        match find(&book.ids, &raw, self.exact) {
            Some(group) => tell(&mut book.ready, &group, &raw),
            None => {
                if book.early.len() >= EARLY_MAX
                    && let Some((_, oldest)) = book.early.pop_front()
                {
                    book.ready.push_back(unknown(oldest));
                }
                book.early.push_back((Instant::now(), raw));
            }
        }
        Arrived::Taken
    }

    /// Hands out what is ready. A receipt whose text stayed unknown, such as one from before a restart, has the centre's
    /// id alone.
    pub(super) fn take(&self) -> Vec<Receipt> {
        let mut book = self.book();
        while book
            .early
            .front()
            .is_some_and(|(since, _)| since.elapsed() >= EARLY_FOR)
        {
            if let Some((_, raw)) = book.early.pop_front() {
                book.ready.push_back(unknown(raw));
            }
        }
        let count = book.ready.len().min(TAKE_MAX);
        book.ready.drain(..count).collect()
    }
}

/// The receipt of a text that is not known here.
fn unknown(raw: Raw) -> Receipt {
    Receipt {
        kind: kind_of(&raw.state),
        message: None,
        vendor_id: Some(detail(&raw.id)),
        // The number may be written in a way that is another's here.
        token: None,
        at: None,
        detail: raw.words,
    }
}

fn tell(ready: &mut VecDeque<Receipt>, group: &Group, raw: &Raw) {
    if let Some(kind) = group.settle(kind_of(&raw.state)) {
        ready.push_back(Receipt {
            kind,
            message: Some(group.message),
            vendor_id: group.vendor_id(),
            token: Some(Secret::new(group.number.as_str())),
            at: None,
            detail: raw.words.clone(),
        });
    }
}

fn find(ids: &HashMap<String, Arc<Group>>, raw: &Raw, exact: bool) -> Option<Arc<Group>> {
    let digits = |number: &str| number.trim_start_matches(['+', '0']).to_owned();
    let keys = sought_keys(&raw.id, exact);
    keys.iter()
        .filter_map(|key| Some((key, ids.get(key)?)))
        // Small ids read as hex and as decimal name two texts: then the number must be the same too.
        .find(|(key, group)| key.starts_with("=:") || digits(&group.number) == digits(&raw.number))
        .map(|(_, group)| Arc::clone(group))
}

fn bare(id: &str) -> String {
    let bare = id.trim_start_matches('0');
    format!("0:{}", bare.to_ascii_lowercase())
}

/// Under which keys an id of an answer is kept.
fn stored_keys(id: &str, exact: bool) -> Vec<String> {
    let mut keys = vec![format!("=:{id}")];
    if !exact {
        keys.push(bare(id));
        keys.extend(u64::from_str_radix(id, 16).ok().map(|n| format!("h:{n}")));
        keys.extend(id.parse::<u64>().ok().map(|n| format!("d:{n}")));
    }
    keys
}

/// Under which keys an id of a receipt is sought, best first.
fn sought_keys(id: &str, exact: bool) -> Vec<String> {
    let mut keys = vec![format!("=:{id}")];
    if !exact {
        keys.push(bare(id));
        keys.extend(id.parse::<u64>().ok().map(|n| format!("h:{n}")));
        keys.extend(u64::from_str_radix(id, 16).ok().map(|n| format!("d:{n}")));
    }
    keys
}

/// The receipt in a `deliver_sm`: TLVs before text.
fn read(pdu: &DeliverSm) -> Option<Raw> {
    if pdu.esm_class.message_type != MessageType::ShortMessageContainsMCDeliveryReceipt {
        return None;
    }
    let mut bytes: Vec<u8> = pdu.short_message().clone().into();
    let (mut id, mut state) = (None, None);
    for tlv in pdu.tlvs() {
        match tlv.value() {
            Some(TlvValue::ReceiptedMessageId(value)) => id = Some(value.as_str().to_owned()),
            Some(TlvValue::MessageState(value)) => state = word_of(*value),
            Some(TlvValue::MessagePayload(value)) if bytes.is_empty() => {
                bytes = value.value.clone().into();
            }
            _ => {}
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    let id = id.or_else(|| field(&text, "id"))?;
    let state = field(&text, "stat").or_else(|| state.map(str::to_owned))?;
    let error = field(&text, "err").unwrap_or_default();
    Some(Raw {
        words: detail(format!("{state} {error}").trim_end()),
        number: pdu.source_addr.as_str().to_owned(),
        id,
        state,
    })
    .filter(|raw| !raw.id.is_empty())
}

/// A value of `id:… sub:… stat:… err:…`; the case of the names varies.
fn field(text: &str, name: &str) -> Option<String> {
    text.split_ascii_whitespace().find_map(|word| {
        let (key, value) = word.split_once(':')?;
        key.eq_ignore_ascii_case(name)
            .then(|| value.chars().take(65).collect())
    })
}

const fn word_of(state: MessageState) -> Option<&'static str> {
    Some(match state {
        MessageState::Enroute => "ENROUTE",
        MessageState::Delivered => "DELIVRD",
        MessageState::Expired => "EXPIRED",
        MessageState::Deleted => "DELETED",
        MessageState::Undeliverable => "UNDELIV",
        MessageState::Accepted => "ACCEPTD",
        MessageState::Unknown => "UNKNOWN",
        MessageState::Rejected => "REJECTD",
        _ => return None,
    })
}
