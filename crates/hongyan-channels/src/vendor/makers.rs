//! What the third-party platforms (JPush, Getui, Umeng) hand on to the phone makers whose channels they use: the channels
//! that an app was granted there. The marks of a class itself are in [`classes`].
//!
//! | credential | what |
//! | --- | --- |
//! | `xiaomi_channels` | for each class (`im`, `transaction`, `transaction.finance` …, `subscription`, `marketing`) the channel that Xiaomi approved: its id, or `{"channel_id", "template_id", "template_param"}`. In the template's variables `{title}` and `{body}` stand for the message's own texts |
//! | `oppo_channels` | for each class the channel of OPPO's older scheme |
//! | `android_channels` | for each class the notification channel that the app made on the phone |

use std::collections::BTreeMap;

use hongyan_core::{Class, Message};
use serde_json::{Map, Value};

use crate::config::Fields;
use crate::{classes, payload, texts};

/// Xiaomi's limit for one template variable, characters.
const VARIABLE_CHARS_MAX: usize = 128;
const NO_CLASS: &str =
    "is not a class: im, transaction, transaction.finance …, subscription, marketing";

/// The channels of an app at the makers, by class name.
#[derive(Debug, Default)]
pub(super) struct Makers {
    xiaomi: BTreeMap<String, Approved>,
    oppo: BTreeMap<String, String>,
    android: BTreeMap<String, String>,
}

/// A channel that Xiaomi approved.
#[derive(Debug)]
struct Approved {
    id: String,
    template: Option<(String, BTreeMap<String, String>)>,
}

/// Xiaomi's part of one message.
#[derive(Debug, PartialEq)]
pub(super) struct XiaomiPart {
    pub(super) channel_id: String,
    /// Template id and its variables.
    pub(super) template: Option<(String, Map<String, Value>)>,
}

impl Makers {
    pub(super) fn read(fields: &mut Fields<'_>) -> Self {
        Self {
            xiaomi: approved(fields),
            oppo: ids(fields, "oppo_channels"),
            android: ids(fields, "android_channels"),
        }
    }

    /// What Xiaomi needs for a message that goes out as this class.
    pub(super) fn xiaomi(
        &self,
        message: &Message,
        class: Class,
        (title, text): (&str, &str),
    ) -> Option<XiaomiPart> {
        let approved = of(&self.xiaomi, message, class)?;
        let template = approved.template.as_ref().map(|(id, params)| {
            let filled = params.iter().map(|(name, pattern)| {
                let value = pattern.replace("{title}", title).replace("{body}", text);
                let short: String = value.chars().take(VARIABLE_CHARS_MAX).collect();
                (name.clone(), Value::from(short))
            });
            (id.clone(), filled.collect())
        });
        Some(XiaomiPart {
            channel_id: approved.id.clone(),
            template,
        })
    }

    /// OPPO's channel.
    pub(super) fn oppo(&self, message: &Message, class: Class) -> Option<&str> {
        of(&self.oppo, message, class).map(String::as_str)
    }

    /// The notification channel on the phone.
    pub(super) fn android(&self, message: &Message, class: Class) -> Option<&str> {
        of(&self.android, message, class).map(String::as_str)
    }
}

fn of<'a, T>(map: &'a BTreeMap<String, T>, message: &Message, class: Class) -> Option<&'a T> {
    classes::names(class, message.class_detail)
        .iter()
        .find_map(|name| map.get(name))
}

fn ids(fields: &mut Fields<'_>, name: &'static str) -> BTreeMap<String, String> {
    let mut ids = BTreeMap::new();
    match fields.value(name) {
        None => {}
        Some(Value::Object(object)) => {
            for (class, value) in object {
                match value.as_str().filter(|id| !id.is_empty()) {
                    Some(id) if classes::is_name(class) => {
                        ids.insert(class.clone(), id.to_owned());
                    }
                    Some(_) => fields.fault(&format!("{name}/{class}"), NO_CLASS),
                    None => fields.fault(&format!("{name}/{class}"), "must be a channel id"),
                }
            }
        }
        Some(_) => fields.fault(name, "must map classes to channel ids"),
    }
    ids
}

fn approved(fields: &mut Fields<'_>) -> BTreeMap<String, Approved> {
    let mut channels = BTreeMap::new();
    let object = match fields.value("xiaomi_channels") {
        None => return channels,
        Some(Value::Object(object)) => object,
        Some(_) => {
            fields.fault("xiaomi_channels", "must map classes to channels");
            return channels;
        }
    };
    for (class, value) in object {
        let path = format!("xiaomi_channels/{class}");
        if !classes::is_name(class) {
            fields.fault(&path, NO_CLASS);
            continue;
        }
        match value {
            Value::String(id) if !id.is_empty() => {
                let (id, template) = (id.clone(), None);
                channels.insert(class.clone(), Approved { id, template });
            }
            Value::Object(_) => {
                let mut part = Fields::at(value, path);
                let id = part.text("channel_id", "the id of the approved channel");
                let template = part.optional_text("template_id");
                let params = texts_of(&mut part, "template_param");
                fields.absorb(part.finish_strict());
                let template = template.map(|template| (template, params));
                channels.insert(class.clone(), Approved { id, template });
            }
            _ => fields.fault(
                &path,
                "must be a channel id, or an object with channel_id, template_id, template_param",
            ),
        }
    }
    channels
}

fn texts_of(fields: &mut Fields<'_>, name: &'static str) -> BTreeMap<String, String> {
    let mut texts = BTreeMap::new();
    match fields.value(name) {
        None => {}
        Some(Value::Object(object)) => {
            for (key, value) in object {
                match value.as_str() {
                    Some(text) => {
                        texts.insert(key.clone(), text.to_owned());
                    }
                    None => fields.fault(&format!("{name}/{key}"), "must be a text"),
                }
            }
        }
        Some(_) => fields.fault(name, "must map variables to texts"),
    }
    texts
}

/// An intent URI for taps, with `{hy_id}`, `{hy_url}`, `{hy_data}` and `{hy_user}` filled in.
pub(super) fn intent(template: &str, message: &Message) -> String {
    let keys = payload::text_keys(message);
    let mut intent = template.to_owned();
    for name in ["hy_id", "hy_url", "hy_data", "hy_user"] {
        let value = keys.get(name).and_then(Value::as_str).unwrap_or_default();
        intent = intent.replace(&format!("{{{name}}}"), &texts::escaped(value));
    }
    intent
}

/// Sets a field of a JSON object, if there is a value for it.
pub(super) fn set<T: Into<Value>>(object: &mut Value, name: &str, value: Option<T>) {
    if let (Some(object), Some(value)) = (object.as_object_mut(), value) {
        object.insert(name.to_owned(), value.into());
    }
}

#[cfg(test)]
mod tests {
    use hongyan_core::ClassDetail;
    use serde_json::json;

    use super::*;
    use crate::vendor::fixture;

    #[test]
    fn the_nearest_channel_is_taken_and_its_template_filled() {
        let config = json!({
            "xiaomi_channels": {
                "transaction": "100002",
                "transaction.finance": {"channel_id": "100005", "template_id": "P5", "template_param": {"what": "{title}: {body}"}},
            },
            "oppo_channels": {"marketing": "news"},
        });
        let mut fields = Fields::new(&config);
        let makers = Makers::read(&mut fields);
        assert!(fields.finish().is_empty());
        let mut message = fixture::message();
        let texts = ("Order 42", "paid");
        let plain = makers.xiaomi(&message, Class::Transaction, texts).unwrap();
        assert_eq!(
            (plain.channel_id.as_str(), plain.template),
            ("100002", None)
        );
        message.class_detail = Some(ClassDetail::Finance);
        let finance = makers.xiaomi(&message, Class::Transaction, texts).unwrap();
        let variables = json!({"what": "Order 42: paid"});
        assert_eq!(
            finance.template,
            Some(("P5".to_owned(), variables.as_object().unwrap().clone()))
        );
        assert_eq!(makers.oppo(&message, Class::Transaction), None);
        assert_eq!(makers.oppo(&message, Class::Marketing), Some("news"));
    }

    #[test]
    fn every_fault_is_named() {
        let config = json!({
            "xiaomi_channels": {"news": "1", "im": 2, "transaction": {"template_id": "P", "x": 1}},
            "oppo_channels": {"im": 1, "x": "1"}, "android_channels": [],
        });
        let mut fields = Fields::new(&config);
        Makers::read(&mut fields);
        assert_eq!(
            fixture::paths(&fields.finish()),
            [
                "xiaomi_channels/im",
                "xiaomi_channels/news",
                "xiaomi_channels/transaction/channel_id",
                "xiaomi_channels/transaction/x",
                "oppo_channels/im",
                "oppo_channels/x",
                "android_channels",
            ]
        );
    }
}
