//! Getui's receipts: one JSON object a line, each signed on its own.

use std::collections::BTreeMap;

use hongyan_core::port::{Callback, CallbackError, CallbackRequest, Receipt, ReceiptKind};
use hongyan_core::{MessageId, Reason, Secret, Timestamp};
use serde_json::Value;

use super::Config;
use crate::callback::same;
use crate::config::Fields;
use crate::digests::md5_hex;
use crate::texts::detail;

/// Lines of one post that are read.
const LINES_MAX: usize = 5000;

/// What an `actionid` means.
#[derive(Debug)]
pub(super) struct Actions(BTreeMap<String, ReceiptKind>);

impl Actions {
    pub(super) fn read(fields: &mut Fields<'_>) -> Self {
        let mut actions = BTreeMap::from([
            ("60001".to_owned(), ReceiptKind::Displayed),
            ("60002".to_owned(), ReceiptKind::Clicked),
        ]);
        match fields.value("receipt_actions") {
            None => {}
            Some(Value::Object(object)) => {
                actions.clear();
                for (id, word) in object {
                    let kind = match word.as_str() {
                        Some("delivered") => ReceiptKind::Delivered,
                        Some("displayed") => ReceiptKind::Displayed,
                        Some("clicked") => ReceiptKind::Clicked,
                        Some("dismissed") => ReceiptKind::Dismissed,
                        _ => {
                            let path = format!("receipt_actions/{id}");
                            fields
                                .fault(&path, "must be delivered, displayed, clicked or dismissed");
                            continue;
                        }
                    };
                    actions.insert(id.clone(), kind);
                }
            }
            Some(_) => fields.fault("receipt_actions", "must map action ids to what they mean"),
        }
        Self(actions)
    }

    fn of(&self, id: &str) -> ReceiptKind {
        let known = self.0.get(id).copied();
        known.unwrap_or(ReceiptKind::Delivered)
    }
}

pub(super) fn read(
    config: &Config,
    request: &CallbackRequest<'_>,
) -> Result<Callback, CallbackError> {
    let text = std::str::from_utf8(request.body)
        .map_err(|_| CallbackError::Malformed("it is not UTF-8".to_owned()))?;
    let mut receipts = Vec::new();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    for line in lines.take(LINES_MAX) {
        let item: Value = serde_json::from_str(line)
            .map_err(|error| CallbackError::Malformed(error.to_string()))?;
        receipts.push(receipt(config, &item)?);
    }
    if receipts.is_empty() {
        return Err(CallbackError::Malformed("it has no line".to_owned()));
    }
    Ok(Callback {
        receipts,
        // A single line without a right signature refuses the whole. But Getui's signature covers neither what happened nor
        // when, so that the secret of the address is needed too.
        signed: false,
        content_type: "text/plain; charset=utf-8",
        body: "ok".to_owned(),
    })
}

fn receipt(config: &Config, item: &Value) -> Result<Receipt, CallbackError> {
    let text = |name: &str| match item.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    };
    let (app, cid, task, id) = (text("appid"), text("cid"), text("taskid"), text("msgid"));
    let wanted = md5_hex(&[
        app.as_bytes(),
        cid.as_bytes(),
        task.as_bytes(),
        id.as_bytes(),
        config.secret.expose(),
    ]);
    let given = text("sign").to_ascii_lowercase();
    if !same(wanted.as_bytes(), given.as_bytes()) {
        return Err(CallbackError::Signature(
            "a line's sign is wrong".to_owned(),
        ));
    }
    if app != config.app_id {
        return Err(CallbackError::Signature("it is of another app".to_owned()));
    }
    let kind = match text("code").as_str() {
        "" | "200" => config.actions.of(&text("actionid")),
        "401" | "402" => ReceiptKind::TokenInvalid,
        _ => ReceiptKind::Failed(Reason::VendorUnavailable),
    };
    let millis = text("recvtime").parse::<i64>().ok();
    Ok(Receipt {
        kind,
        message: MessageId::parse(&text("custom_callback")).ok(),
        vendor_id: Some(detail(&task)).filter(|task| !task.is_empty()),
        token: Some(cid)
            .filter(|cid| !cid.is_empty() && cid.len() <= 512)
            .map(Secret::new),
        at: millis
            .filter(|at| (0..=9_999_999_999_999).contains(at))
            .map(Timestamp),
        detail: detail(&format!("{} {}", text("code"), text("desc"))),
    })
}
