//! Receipts whose layout a vendor does not publish: which field of a post says what is a setting of the credential.
//!
//! A post is JSON: a list of receipts, an object with a list in it, or one receipt. Names with dots in them are ways into
//! objects: `data.items`.

use std::collections::BTreeMap;

use hongyan_core::port::{Callback, CallbackError, CallbackRequest, Receipt, ReceiptKind};
use hongyan_core::{Reason, Secret};
use serde_json::Value;

use crate::config::Fields;
use crate::{callback, receipts, texts};

/// Events that one credential may name.
const EVENTS_MAX: usize = 64;
/// Longest token that is looked up, bytes.
const TOKEN_BYTES_MAX: usize = 512;
/// Where the list is when nobody says it.
const LISTS: &[&str] = &["receipts", "data", "list"];
/// What an event is called when nobody says it.
const EVENTS: &[(&str, &str)] = &[
    ("delivered", "delivered"),
    ("arrived", "delivered"),
    ("received", "delivered"),
    ("receive", "delivered"),
    ("displayed", "displayed"),
    ("shown", "displayed"),
    ("clicked", "clicked"),
    ("click", "clicked"),
    ("opened", "clicked"),
    ("open", "clicked"),
    ("dismissed", "dismissed"),
    ("deleted", "dismissed"),
    ("delete", "dismissed"),
    ("cleanup", "dismissed"),
    ("token_invalid", "token_invalid"),
    ("permission_off", "permission_off"),
    ("failed", "failed"),
];

/// What the fields are called when nobody says it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usual {
    pub(crate) message: &'static str,
    pub(crate) vendor_id: &'static str,
    pub(crate) token: &'static str,
    pub(crate) event: &'static str,
    pub(crate) at: &'static str,
    pub(crate) detail: &'static str,
}

/// Which field says what.
#[derive(Debug)]
pub(crate) struct Layout {
    given: bool,
    list: Option<String>,
    message: String,
    vendor_id: String,
    token: String,
    event: String,
    at: String,
    detail: String,
    events: BTreeMap<String, ReceiptKind>,
}

impl Layout {
    /// Reads the object `receipts`; faults are kept in `fields`.
    pub(crate) fn read(fields: &mut Fields<'_>, usual: Usual) -> Self {
        let empty = Value::Object(serde_json::Map::new());
        let set = fields.value("receipts");
        let mut part = Fields::at(set.unwrap_or(&empty), "receipts".to_owned());
        let mut name = |field, usual: &str| {
            let set = part.optional_text(field);
            set.unwrap_or_else(|| usual.to_owned())
        };
        let message = name("message", usual.message);
        let vendor_id = name("push_id", usual.vendor_id);
        let token = name("token", usual.token);
        let event = name("event", usual.event);
        let at = name("at", usual.at);
        let detail = name("detail", usual.detail);
        let list = part.optional_text("list");
        let events = events(&mut part);
        let faults = part.finish_strict();
        fields.absorb(faults);
        Self {
            given: set.is_some(),
            list,
            message,
            vendor_id,
            token,
            event,
            at,
            detail,
            events,
        }
    }

    /// Whether somebody says that the vendor posts receipts.
    pub(crate) const fn is_given(&self) -> bool {
        self.given
    }

    /// Reads a post. It is not signed: the secret of its address proves it.
    pub(crate) fn callback(
        &self,
        request: &CallbackRequest<'_>,
    ) -> Result<Callback, CallbackError> {
        let body = callback::json(request.body)?;
        let items = self.items(&body).ok_or_else(|| {
            let place = self.list.as_deref().unwrap_or_default();
            CallbackError::Malformed(format!(
                "it has no list of receipts {place}: compare it with receipts in the credential"
            ))
        })?;
        let receipts = items
            .iter()
            .take(receipts::RECEIPTS_MAX)
            .filter_map(|item| self.receipt(item));
        Ok(Callback {
            receipts: receipts.collect(),
            signed: false,
            content_type: "application/json",
            body: r#"{"code":0,"message":"success"}"#.to_owned(),
        })
    }

    fn items<'a>(&self, body: &'a Value) -> Option<&'a [Value]> {
        if let Some(path) = &self.list {
            return found(body, path)?.as_array().map(Vec::as_slice);
        }
        match body {
            Value::Array(items) => Some(items),
            Value::Object(object) => {
                let list = LISTS.iter().find_map(|name| object.get(*name)?.as_array());
                Some(list.map_or(std::slice::from_ref(body), Vec::as_slice))
            }
            _ => None,
        }
    }

    /// One receipt; nothing when it names neither a push nor a token.
    fn receipt(&self, item: &Value) -> Option<Receipt> {
        let text = |path: &str| receipts::text(found(item, path));
        let message = callback::message(&text(&self.message));
        let vendor_id = Some(texts::detail(&text(&self.vendor_id))).filter(|id| !id.is_empty());
        let token = Some(text(&self.token)).filter(|t| !t.is_empty() && t.len() <= TOKEN_BYTES_MAX);
        if message.is_none() && vendor_id.is_none() && token.is_none() {
            return None;
        }
        let event = text(&self.event);
        let known = self.events.get(&event.to_ascii_lowercase()).copied();
        Some(Receipt {
            kind: known.unwrap_or(ReceiptKind::Other),
            message,
            vendor_id,
            token: token.map(Secret::new),
            at: receipts::at(found(item, &self.at)),
            detail: texts::detail(format!("{event} {}", text(&self.detail)).trim()),
        })
    }
}

/// The map of events, or what they are usually called.
fn events(part: &mut Fields<'_>) -> BTreeMap<String, ReceiptKind> {
    let usual = EVENTS.iter().filter_map(|(event, word)| {
        let kind = kind(word)?;
        Some(((*event).to_owned(), kind))
    });
    let object = match part.value("events") {
        None => return usual.collect(),
        Some(Value::Object(object)) if object.len() <= EVENTS_MAX => object,
        Some(_) => {
            part.fault("events", "must map events to what they mean, at most 64");
            return BTreeMap::new();
        }
    };
    let mut events = BTreeMap::new();
    for (event, word) in object {
        match word.as_str().and_then(kind) {
            Some(kind) => {
                events.insert(event.to_ascii_lowercase(), kind);
            }
            None => part.fault(
                &format!("events/{event}"),
                "must be delivered, displayed, clicked, dismissed, token_invalid, permission_off, failed or other",
            ),
        }
    }
    events
}

fn kind(word: &str) -> Option<ReceiptKind> {
    Some(match word {
        "delivered" => ReceiptKind::Delivered,
        "displayed" => ReceiptKind::Displayed,
        "clicked" => ReceiptKind::Clicked,
        "dismissed" => ReceiptKind::Dismissed,
        "token_invalid" => ReceiptKind::TokenInvalid,
        "permission_off" => ReceiptKind::PermissionOff,
        "failed" => ReceiptKind::Failed(Reason::VendorUnavailable),
        "other" => ReceiptKind::Other,
        _ => return None,
    })
}

/// What is at the end of a way through objects.
fn found<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, |at, name| at.get(name))
}

#[cfg(test)]
mod tests {
    use hongyan_core::Timestamp;
    use serde_json::json;

    use super::*;

    const USUAL: Usual = Usual {
        message: "trace_id",
        vendor_id: "push_id",
        token: "token",
        event: "event",
        at: "timestamp",
        detail: "detail",
    };
    const ID: &str = "018f0000-0000-7000-8000-000000000001";

    fn layout(config: &Value) -> (Layout, Vec<String>) {
        let mut fields = Fields::new(config);
        let layout = Layout::read(&mut fields, USUAL);
        let faults = fields.finish_strict().into_iter().map(|f| f.path);
        (layout, faults.collect())
    }

    fn read(config: &Value, body: &Value) -> Result<Vec<Receipt>, CallbackError> {
        let body = body.to_string();
        let request = CallbackRequest {
            method: "POST",
            url: "https://x.example/cb?k=s",
            headers: &[],
            body: body.as_bytes(),
            now: Timestamp(0),
        };
        let read = layout(config).0.callback(&request)?;
        assert!(!read.signed);
        Ok(read.receipts)
    }

    #[test]
    fn the_usual_layout_is_read_in_every_wrapping() {
        let item = json!({"trace_id": ID, "push_id": 17, "token": "t", "event": "Clicked",
                          "timestamp": 1_700_000_000});
        let want = Receipt {
            kind: ReceiptKind::Clicked,
            message: callback::message(ID),
            vendor_id: Some("17".to_owned()),
            token: Some(Secret::new("t")),
            at: Some(Timestamp(1_700_000_000_000)),
            detail: "Clicked".to_owned(),
        };
        for body in [json!([item]), json!({"data": [item]}), item.clone()] {
            assert_eq!(read(&json!({}), &body), Ok(vec![want.clone()]), "{body}");
        }
        let strange = json!([{"event": "delivered"}, {"token": "t", "event": "?"}, 5]);
        let receipts = read(&json!({}), &strange).unwrap();
        let kinds: Vec<_> = receipts.iter().map(|r| r.kind).collect();
        assert_eq!(kinds, [ReceiptKind::Other]);
        assert!(read(&json!({}), &json!("x")).is_err());
    }

    #[test]
    fn another_layout_is_a_setting() {
        let config = json!({"receipts": {
            "list": "body.items", "push_id": "TaskId", "token": "to.id", "event": "EventType",
            "at": "EventTime", "events": {"2": "delivered", "3": "token_invalid"},
        }});
        assert_eq!(layout(&config).1, Vec::<String>::new());
        assert!(layout(&config).0.is_given() && !layout(&json!({})).0.is_given());
        let body = json!({"body": {"items": [
            {"TaskId": "x", "to": {"id": "a"}, "EventType": 2, "EventTime": "2023-11-15 06:13:20"},
            {"TaskId": "x", "to": {"id": "b"}, "EventType": 3},
        ]}});
        let receipts = read(&config, &body).unwrap();
        let told: Vec<_> = receipts.iter().map(|r| (r.kind, r.at)).collect();
        assert_eq!(
            told,
            [
                (ReceiptKind::Delivered, Some(Timestamp(1_700_000_000_000))),
                (ReceiptKind::TokenInvalid, None)
            ]
        );
        assert!(read(&config, &json!([])).is_err());
    }

    #[test]
    fn faults_have_their_paths() {
        let config = json!({"receipts": {"token": 7, "events": {"1": "gone"}, "typo": "x"}});
        assert_eq!(layout(&config).1, ["receipts/events/1", "receipts/typo"]);
        assert_eq!(
            layout(&json!({"receipts": {"events": 1}})).1,
            ["receipts/events"]
        );
        assert_eq!(layout(&json!({"receipts": true})).1, ["receipts"]);
    }
}
