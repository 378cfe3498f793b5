//! The channels and templates that Xiaomi approved for an app, by hongyan's classes.

use std::collections::BTreeMap;

use hongyan_core::port::Truncation;
use serde_json::{Map, Value};

use crate::classes;
use crate::config::Fields;

/// A template's variable, characters.
const VARIABLE_CHARS_MAX: usize = 128;

/// An approved channel of the console.
#[derive(Debug, Clone, Default)]
pub(super) struct Approved {
    pub(super) id: String,
    pub(super) private: bool,
    template_id: Option<String>,
    /// Template variables: `{title}`, `{body}` and text.
    template_param: BTreeMap<String, String>,
}

pub(super) fn read(fields: &mut Fields<'_>) -> BTreeMap<String, Approved> {
    let mut channels = BTreeMap::new();
    let Some(value) = fields.value("channels") else {
        return channels;
    };
    let Some(object) = value.as_object() else {
        fields.fault("channels", "must map classes to channels");
        return channels;
    };
    for (class, value) in object {
        let path = format!("channels/{class}");
        if !classes::is_name(class) {
            fields.fault(
                &path,
                "is not a class: im, transaction, transaction.finance …, subscription, marketing",
            );
            continue;
        }
        // Private is what the classes im, transaction and subscription need; marketing is public.
        let private = !class.starts_with("marketing");
        match value {
            Value::String(id) => {
                channels.insert(
                    class.clone(),
                    Approved { id: id.clone(), private, ..Approved::default() },
                );
            }
            Value::Object(_) => {
                let mut part = Fields::at(value, path);
                let id = part.text("channel_id", "the id of the approved channel");
                let template_id = part.optional_text("template_id");
                let template_param = params(&mut part);
                let public = part.switch("public");
                fields.absorb(part.finish_strict());
                channels.insert(
                    class.clone(),
                    Approved { id, private: private && !public, template_id, template_param },
                );
            }
            _ => fields.fault(&path, "must be a channel id, or an object with channel_id, template_id, template_param, public"),
        }
    }
    channels
}

fn params(fields: &mut Fields<'_>) -> BTreeMap<String, String> {
    let mut params = BTreeMap::new();
    match fields.value("template_param") {
        None => {}
        Some(Value::Object(object)) => {
            for (name, value) in object {
                match value.as_str() {
                    Some(text) => {
                        params.insert(name.clone(), text.to_owned());
                    }
                    None => fields.fault(&format!("template_param/{name}"), "must be a text"),
                }
            }
        }
        Some(_) => fields.fault("template_param", "must map variables to texts"),
    }
    params
}

/// The fields that decide class and quota; what a template's variables lost is noted.
pub(super) fn fields(
    channel: &Approved,
    title: &str,
    text: &str,
    truncated: &mut Vec<Truncation>,
) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::from([("extra.channel_id".to_owned(), channel.id.clone())]);
    if let Some(id) = &channel.template_id {
        let params: Map<String, Value> = channel
            .template_param
            .iter()
            .map(|(name, pattern)| {
                let value = pattern.replace("{title}", title).replace("{body}", text);
                (name.clone(), variable(&value, truncated).into())
            })
            .collect();
        fields.insert("extra.template_id".to_owned(), id.clone());
        fields.insert(
            "extra.template_param".to_owned(),
            Value::Object(params).to_string(),
        );
    }
    fields
}

/// A text as a template takes it: no emoji or other symbols, not blank, within the limit. What it lost is noted in
/// characters; blanks around it are no loss.
fn variable(text: &str, truncated: &mut Vec<Truncation>) -> String {
    let text = text.trim();
    let plain: String = text.chars().filter(|c| !is_symbol(*c)).collect();
    let short: String = plain.trim().chars().take(VARIABLE_CHARS_MAX).collect();
    let kept = short.trim();
    if kept != text {
        truncated.push(Truncation {
            field: "template_param",
            from: text.chars().count(),
            to: kept.chars().count(),
        });
    }
    match kept {
        "" => "…".to_owned(),
        kept => kept.to_owned(),
    }
}

/// Characters of Unicode's category "other symbol" (the blocks that are made of them), and what joins emoji.
fn is_symbol(c: char) -> bool {
    matches!(
        u32::from(c),
        0xA6 | 0xA9
            | 0xAE
            | 0xB0
            | 0x200D
            | 0x20E3
            | 0x2100..=0x214F
            | 0x2190..=0x21FF
            | 0x2300..=0x23FF
            | 0x2400..=0x24FF
            | 0x2500..=0x27BF
            | 0x2800..=0x28FF
            | 0x2B00..=0x2BFF
            | 0x2E80..=0x2FDF
            | 0x3004
            | 0x3012..=0x3013
            | 0x3200..=0x33FF
            | 0x4DC0..=0x4DFF
            | 0xFE0E..=0xFE0F
            | 0xFFFC..=0xFFFD
            | 0x1F000..=0x1FAFF
            | 0xE0020..=0xE007F
    )
}
