//! Telephone numbers in the form of ITU-T E.164: `+`, country code, subscriber; 8 to 15 digits.

/// A number as it is stored and sent: `+8613800138000`. `country` is the code (digits) of numbers without one.
///
/// Takes what people write: `138 0013 8000`, `0086-138…`, `86138…`, `(415) 867-5309`.
pub(super) fn normalise(text: &str, country: &str) -> Option<String> {
    let text: String = text
        .trim()
        .chars()
        .filter(|c| !matches!(c, ' ' | '-' | '(' | ')' | '.' | '\u{a0}'))
        .collect();
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let whole = if let Some(rest) = text.strip_prefix('+') {
        rest.to_owned()
    } else if let Some(rest) = text.strip_prefix("00") {
        rest.to_owned()
    } else if text.starts_with(country) && text.len() > 10 && !is_chinese_mobile(&text, country) {
        text
    } else {
        format!("{country}{}", text.strip_prefix('0').unwrap_or(&text))
    };
    let fits = (8..=15).contains(&whole.len()) && !whole.starts_with('0');
    // A Chinese number that is no mobile number gets no texts.
    let reachable = whole
        .strip_prefix("86")
        .is_none_or(|rest| is_chinese_mobile(rest, "86"));
    (digits(&whole) && fits && reachable).then(|| format!("+{whole}"))
}

fn is_chinese_mobile(text: &str, country: &str) -> bool {
    country == "86" && text.len() == 11 && text.starts_with('1')
}

/// Whether it is a number of mainland China.
pub(super) fn is_mainland(number: &str) -> bool {
    number.starts_with("+86")
}

/// The digits alone.
pub(super) fn digits(number: &str) -> &str {
    number.trim_start_matches('+')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_people_write_them() {
        let check = |text: &str, country: &str, want: &str| {
            let got = normalise(text, country).unwrap_or_default();
            assert_eq!(got, want, "{text} in {country}");
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
        for wrong in [
            "",
            "+",
            "abc",
            "+12",
            "12345",
            "+1234567890123456",
            "+0123456789",
            "+86138001380",
            "+861380013800x",
            "01088886666",
        ] {
            check(wrong, "86", "");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived_and_normal_is_a_fixed_point(text in "\\PC{0,24}", digits in "[0-9+ -]{0,20}") {
            for text in [text, digits] {
                if let Some(number) = normalise(&text, "86") {
                    proptest::prop_assert_eq!(normalise(&number, "1"), Some(number.clone()));
                }
            }
        }
    }
}
