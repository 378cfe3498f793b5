//! What the providers of text messages share: telephone numbers and what becomes of a text.
//!
//! The last digits of a number that no phone holds choose its fate, for tests: `0002` cannot be delivered, `0003` expires,
//! `0004` is refused when it is sent, `0005` is sent to too often, `0006` gives no receipt, `0007` gives it twice.

use crate::channel::Channel;
use crate::push::{Fate, Push, Receipt};
use crate::tokens::TokenState;
use crate::world::World;

/// A new mobile number of mainland China, none of the magic ones.
pub(crate) fn new_number(unique: &str) -> String {
    let number = unique
        .get(..15)
        .and_then(|hex| u64::from_str_radix(hex, 16).ok())
        .unwrap_or_default();
    let second = ["3", "5", "7", "8"]
        .get(usize::try_from(number % 4).unwrap_or(0))
        .copied()
        .unwrap_or("3");
    let (middle, last) = (number / 4 % 100_000, number / 400_000 % 9_000 + 1_000);
    format!("+861{second}{middle:05}{last:04}")
}

/// A number as senders write it, in E.164; numbers without a country code are of mainland China.
pub(crate) fn normal(text: &str) -> Option<String> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let mobile = |text: &str| digits(text) && text.len() == 11 && text.starts_with('1');
    let rest = text.strip_prefix('+').or_else(|| text.strip_prefix("00"));
    match rest {
        Some(rest) => {
            let fits = digits(rest) && (8..=15).contains(&rest.len()) && !rest.starts_with('0');
            let at_home = rest.strip_prefix("86").is_none_or(mobile);
            (fits && at_home).then(|| format!("+{rest}"))
        }
        None if mobile(text) => Some(format!("+86{text}")),
        None => match text.strip_prefix("86") {
            Some(rest) if mobile(rest) => Some(format!("+86{rest}")),
            _ => None,
        },
    }
}

/// What a provider thinks of a number when a text is handed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Number {
    Good,
    /// It reaches nobody.
    Dead,
    Refused,
    TooOften,
}

pub(crate) fn judge(world: &World, number: &str) -> Number {
    match world
        .tokens
        .get(Channel::Sms, number)
        .map(|token| token.state)
    {
        Some(TokenState::Valid) => Number::Good,
        Some(_) => Number::Dead,
        None if number.ends_with("0004") => Number::Refused,
        None if number.ends_with("0005") => Number::TooOften,
        None => Number::Good,
    }
}

/// The carrier's word for what became of a text whose receipt says nothing else.
pub(crate) fn state_of(receipt: &Receipt, fate: Fate) -> Option<&'static str> {
    match (receipt.param.as_str(), fate) {
        ("UNDELIV", _) => Some("UNDELIV"),
        ("EXPIRED", _) => Some("EXPIRED"),
        (_, Fate::Delivered) => Some("DELIVRD"),
        // The phone has it; whether the system showed it the carrier does not know.
        (_, Fate::NotShown) => Some("DELIVRD"),
        (_, Fate::TargetInvalid) => Some("UNDELIV"),
        (_, Fate::Clicked | Fate::OverQuota) => None,
    }
}

/// Brings a text to its phone.
pub(crate) fn deliver(
    world: &World,
    channel: Channel,
    number: &str,
    text: String,
    receipt: Receipt,
) {
    let held = world.tokens.get(Channel::Sms, number).is_some();
    let magic = number
        .get(number.len().saturating_sub(4)..)
        .unwrap_or_default();
    let failed = |state: &str| {
        let receipt = Receipt {
            param: state.to_owned(),
            ..receipt.clone()
        };
        world.receipts.report(&receipt, Fate::TargetInvalid);
    };
    match magic {
        "0002" if !held => return failed("UNDELIV"),
        "0003" if !held => return failed("EXPIRED"),
        "0007" if !held => world.receipts.report(&receipt, Fate::Delivered),
        _ => {}
    }
    let push = Push {
        message: reference(&receipt),
        body: text,
        visible: true,
        expires_ms: world.clock.now_ms().saturating_add(2 * 86_400_000),
        stored: true,
        receipt: (held || magic != "0006").then_some(receipt),
        ..Push::default()
    };
    world.deliver(channel, number, push);
}

/// The sender's own id of the message, as it gave it to be told with the receipt: a text itself has no place for it.
fn reference(receipt: &Receipt) -> Option<String> {
    let in_url = receipt
        .url
        .split_once("hy_message=")
        .map(|(_, rest)| rest.split('&').next().unwrap_or_default());
    [receipt.param.as_str(), in_url.unwrap_or_default()]
        .into_iter()
        .find(|text| uuid::Uuid::parse_str(text).is_ok())
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_mobile_numbers_and_differ() {
        let a = new_number("0123456789abcdef0123456789abcdef");
        let b = new_number("f123456789abcdef0123456789abcdef");
        assert_ne!(a, b);
        for number in [&a, &b] {
            assert_eq!(normal(number).as_ref(), Some(number));
            assert!(number[10..] >= *"1000", "{number}");
        }
        for text in [
            "13800138000",
            "8613800138000",
            "008613800138000",
            "+8613800138000",
        ] {
            assert_eq!(normal(text).as_deref(), Some("+8613800138000"), "{text}");
        }
        for wrong in ["", "1380013800", "+861380013800", "abc", "+0123456789"] {
            assert_eq!(normal(wrong), None, "{wrong}");
        }
    }
}
