//! The words of a text: what a message gives, and what the credential makes of it.

use std::collections::BTreeMap;

use hongyan_core::port::{Outbound, Truncation};
use hongyan_core::{Class, Message};
use serde_json::{Map, Value};

use super::{NAME, segments, signal};
use crate::config::Fields;
use crate::{classes, payload};

/// Fields that name who gets it, of any provider.
const TARGETS: [&str; 5] = [
    "To",
    "PhoneNumbers",
    "PhoneNumberJson",
    "PhoneNumberSet",
    "destination_addr",
];

/// Free text is cut to so many short messages unless the credential says otherwise.
const SEGMENTS_DEFAULT: usize = 6;

/// The words that a text is made of.
#[derive(Debug, Clone, Default)]
pub(super) struct Words {
    pub(super) title: String,
    pub(super) body: String,
    pub(super) url: String,
    pub(super) wake: String,
    /// The frame of a binary wake-up.
    pub(super) frame: Option<Vec<u8>>,
}

impl Words {
    /// A pattern with its places filled, in one pass: what a notification says is never read as a place.
    pub(super) fn fill(&self, pattern: &str) -> String {
        let mut out = String::with_capacity(pattern.len() + self.body.len());
        let mut rest = pattern;
        while let Some(at) = rest.find('{') {
            let (before, from) = rest.split_at(at);
            out.push_str(before);
            let places = [
                ("{title}", &self.title),
                ("{body}", &self.body),
                ("{url}", &self.url),
                ("{wake}", &self.wake),
            ];
            match places.iter().find(|(name, _)| from.starts_with(name)) {
                Some((name, value)) => {
                    out.push_str(value);
                    rest = from.get(name.len()..).unwrap_or_default();
                }
                None => {
                    out.push('{');
                    rest = from.get(1..).unwrap_or_default();
                }
            }
        }
        out.push_str(rest);
        out
    }
}

/// What all providers' credentials have in common.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) signal: Option<signal::Config>,
    pub(super) country: String,
    pub(super) text: Option<String>,
    pub(super) texts: BTreeMap<String, String>,
    pub(super) segments_max: usize,
    pub(super) class_override: bool,
}

impl Common {
    pub(super) fn read(fields: &mut Fields<'_>) -> Self {
        let country = fields
            .optional_text("country")
            .unwrap_or_else(|| "86".to_owned());
        let plain = (1..=4).contains(&country.len())
            && !country.starts_with('0')
            && country.bytes().all(|b| b.is_ascii_digit());
        if !plain {
            fields.fault("country", "must be a country code in digits, such as 86");
        }
        let text = fields.optional_text("text");
        let texts = class_texts(fields);
        let segments_max = fields.number("segments_max", 1..=20, SEGMENTS_DEFAULT as u64);
        let signal = match fields.optional_text("mode").as_deref() {
            None | Some("text") => {
                signal::Config::ignore(fields);
                None
            }
            Some("signal") => Some(signal::Config::read(fields)),
            Some(_) => {
                fields.fault("mode", "must be text or signal");
                signal::Config::ignore(fields);
                None
            }
        };
        Self {
            signal,
            country,
            text,
            texts,
            segments_max: usize::try_from(segments_max).unwrap_or(SEGMENTS_DEFAULT),
            class_override: fields.switch("class_override"),
        }
    }

    /// The free text of a message.
    pub(super) fn text(&self, message: &Message, words: &Words) -> String {
        let of_class = classes::names(message.class, message.class_detail)
            .into_iter()
            .find_map(|name| self.texts.get(&name));
        if let Some(pattern) = of_class.or(self.text.as_ref()) {
            return words.fill(pattern);
        }
        if self.signal.is_some() {
            return words.wake.clone();
        }
        match (words.title.as_str(), words.body.as_str()) {
            ("", only) | (only, "") => only.to_owned(),
            (title, body) => format!("{title}: {body}"),
        }
    }

    /// The free text, cut to what the credential allows; what was cut is noted in short messages.
    pub(super) fn cut_text(
        &self,
        message: &Message,
        words: &Words,
        header: segments::Header,
        truncated: &mut Vec<Truncation>,
    ) -> (String, segments::Plan) {
        let text = self.text(message, words);
        let whole = segments::plan(&text, header);
        match segments::fit(&text, header, self.segments_max) {
            None => (text, whole),
            Some(cut) => {
                let plan = segments::plan(&cut, header);
                truncated.push(Truncation {
                    field: "body",
                    from: whole.units,
                    to: plan.units,
                });
                (cut, plan)
            }
        }
    }

    /// Merges the sender's own fields; the named ones only when they may be set for this message.
    pub(super) fn merge(
        &self,
        target: &mut Map<String, Value>,
        outbound: &Outbound,
        never: &[&str],
        not_for_marketing: &[&str],
    ) {
        let mut patch = payload::vendor_fields(outbound, NAME);
        let bound = outbound.message.class == Class::Marketing && !self.class_override;
        patch.retain(|name, _| {
            let is = |other: &&str| other.eq_ignore_ascii_case(name);
            !(TARGETS.iter().chain(never).any(is) || bound && not_for_marketing.iter().any(is))
        });
        payload::merge(target, &patch);
    }
}

fn class_texts(fields: &mut Fields<'_>) -> BTreeMap<String, String> {
    let mut texts = BTreeMap::new();
    match fields.value("texts") {
        None => {}
        Some(Value::Object(object)) => {
            for (class, text) in object {
                match text.as_str() {
                    Some(text) if classes::is_name(class) && !text.trim().is_empty() => {
                        texts.insert(class.clone(), text.to_owned());
                    }
                    _ => fields.fault(
                        &format!("texts/{class}"),
                        "must be a text for a class: im, transaction, transaction.finance …, subscription, marketing",
                    ),
                }
            }
        }
        Some(_) => fields.fault("texts", "must map classes to texts"),
    }
    texts
}
