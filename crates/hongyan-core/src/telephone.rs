//! Telephone numbers in the form of ITU-T E.164: `+`, country code, subscriber; 8 to 15 digits.
//!
//! The token of the channel [`CHANNEL`] is such a number. It is normalised when it is stored, so that one number is one
//! token whoever wrote it how, and again when it is sent to.

/// The channel whose tokens are telephone numbers.
pub const CHANNEL: &str = "sms";

/// The fields of a credential of [`CHANNEL`] that may be shown hold here the country code of numbers without one.
pub const COUNTRY: &str = "country";

/// Why a text is no number that texts can be sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NumberError {
    /// Neither a whole number nor a national one.
    #[error(
        "is not a telephone number: write it as +, country code and subscriber, 8 to 15 digits in all, such as +8613800138000"
    )]
    Malformed,
    /// It has no country code and nobody says of which country it is.
    #[error(
        "has no country code: write it with + and the code, such as +8613800138000, or store a credential of the channel first, whose country it then gets"
    )]
    National,
    /// A number of mainland China that is not a mobile one.
    #[error(
        "is a number of mainland China that gets no texts: mobile numbers have 11 digits and begin with 1"
    )]
    NotMobile,
}

/// A number as it is stored and sent: `+8613800138000`. `country` is the code (digits) of numbers without one.
///
/// Takes what people write: `138 0013 8000`, `0086-138…`, `86138…`, `(415) 867-5309`.
///
/// # Errors
/// [`NumberError`], in words for whoever wrote the number.
pub fn normalise(text: &str, country: Option<&str>) -> Result<String, NumberError> {
    let text: String = text
        .trim()
        .chars()
        .filter(|c| !matches!(c, ' ' | '-' | '(' | ')' | '.' | '\u{a0}'))
        .collect();
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let whole = match text.strip_prefix('+').or_else(|| text.strip_prefix("00")) {
        Some(rest) => rest.to_owned(),
        None if !digits(&text) => return Err(NumberError::Malformed),
        None => match country {
            None => return Err(NumberError::National),
            Some(country) if has_code(&text, country) => text,
            Some(country) => format!("{country}{}", text.strip_prefix('0').unwrap_or(&text)),
        },
    };
    if !digits(&whole) || !(8..=15).contains(&whole.len()) || whole.starts_with('0') {
        return Err(NumberError::Malformed);
    }
    match whole.strip_prefix("86") {
        Some(rest) if !is_chinese_mobile(rest) => Err(NumberError::NotMobile),
        _ => Ok(format!("+{whole}")),
    }
}

/// Whether digits without a plus begin with the country code already.
fn has_code(text: &str, country: &str) -> bool {
    text.starts_with(country) && text.len() > 10 && !(country == "86" && is_chinese_mobile(text))
}

fn is_chinese_mobile(text: &str) -> bool {
    text.len() == 11 && text.starts_with('1')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_people_write_them() {
        let check = |text: &str, country: &str, want: &str| {
            let got = normalise(text, Some(country));
            assert_eq!(got.as_deref(), Ok(want), "{text} in {country}");
        };
        for text in [
            "13800138000",
            "8613800138000",
            "008613800138000",
            "+8613800138000",
            " +86 138-0013-8000 ",
        ] {
            check(text, "86", "+8613800138000");
        }
        check("(415) 867-5309", "1", "+14158675309");
        check("14158675309", "1", "+14158675309");
        check("07911 123456", "44", "+447911123456");
        check("+447911123456", "86", "+447911123456");
    }

    #[test]
    fn what_is_no_number_is_told_apart() {
        let check = |text: &str, country: Option<&str>, want: NumberError| {
            assert_eq!(normalise(text, country), Err(want), "{text}");
        };
        for text in [
            "",
            "+",
            "abc",
            "+12",
            "+1234567890123456",
            "+0123456789",
            "+861380013800x",
            "12345",
        ] {
            check(text, Some("86"), NumberError::Malformed);
        }
        for text in ["+86138001380", "01088886666"] {
            check(text, Some("86"), NumberError::NotMobile);
        }
        check("13800138000", None, NumberError::National);
        check("not a number", None, NumberError::Malformed);
        assert!(normalise("008613800138000", None).is_ok());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived_and_normal_is_a_fixed_point(text in "\\PC{0,24}", digits in "[0-9+ -]{0,20}") {
            for text in [text, digits] {
                if let Ok(number) = normalise(&text, Some("86")) {
                    proptest::prop_assert_eq!(normalise(&number, Some("1")), Ok(number.clone()));
                    proptest::prop_assert_eq!(normalise(&number, None), Ok(number.clone()));
                }
            }
        }
    }
}
