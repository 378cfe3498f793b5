//! Approved texts in which only variables are free, by class.

use std::collections::BTreeMap;

use hongyan_core::{Message, Reason};
use serde_json::Value;

use crate::classes;
use crate::config::Fields;

/// Templates by class, as Aliyun and Tencent need them: approved texts in which only variables are free.
#[derive(Debug)]
pub(super) struct Templates<P>(BTreeMap<String, Template<P>>);

#[derive(Debug)]
pub(super) struct Template<P> {
    pub(super) id: String,
    pub(super) params: P,
    /// The approved text, when the credential has it: for the count of short messages.
    pub(super) text: Option<String>,
    pub(super) sign_name: Option<String>,
}

impl<P> Templates<P> {
    /// Reads `templates`: class names, or `default`, to `{id, params, text?, sign_name?}`.
    pub(super) fn read(
        fields: &mut Fields<'_>,
        params: impl Fn(&mut Fields<'_>) -> P,
        is_id: impl Fn(&str) -> bool,
    ) -> Self {
        let mut templates = BTreeMap::new();
        let object = match fields.value("templates") {
            Some(Value::Object(object)) if !object.is_empty() => object,
            Some(_) => {
                fields.fault("templates", "must map classes, or default, to templates");
                return Self(templates);
            }
            None => {
                fields.fault(
                    "templates",
                    "is missing: the approved template for each class, or for default",
                );
                return Self(templates);
            }
        };
        for (class, value) in object {
            let path = format!("templates/{class}");
            if class != "default" && !classes::is_name(class) {
                fields.fault(
                    &path,
                    "is not a class: im, transaction, transaction.finance …, subscription, marketing, or default",
                );
                continue;
            }
            let mut part = Fields::at(value, path);
            let id = part.checked("id", "the id of the approved template", |text| {
                if is_id(text) {
                    Ok(text.to_owned())
                } else {
                    Err("is not a template id of this provider".to_owned())
                }
            });
            let template = Template {
                id: id.unwrap_or_default(),
                params: params(&mut part),
                text: part.optional_text("text"),
                sign_name: part.optional_text("sign_name"),
            };
            fields.absorb(part.finish_strict());
            templates.insert(class.clone(), template);
        }
        Self(templates)
    }

    pub(super) fn of(&self, message: &Message) -> Result<&Template<P>, (Reason, String)> {
        let names = classes::names(message.class, message.class_detail);
        names
            .iter()
            .find_map(|name| self.0.get(name))
            .or_else(|| self.0.get("default"))
            .ok_or_else(|| {
                let class = names.first().map_or("", String::as_str);
                let words = format!(
                    "the credential has no template for {class}: have one approved and add it to templates"
                );
                (Reason::ClassNotGranted, words)
            })
    }

    /// For people: class to id.
    pub(super) fn shown(&self) -> Value {
        let ids = self
            .0
            .iter()
            .map(|(class, t)| (class.clone(), t.id.as_str().into()));
        Value::Object(ids.collect())
    }
}
