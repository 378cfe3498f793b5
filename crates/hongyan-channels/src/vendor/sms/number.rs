//! Telephone numbers in the form of ITU-T E.164, as providers want them.

/// Whether it is a number of mainland China.
pub(super) fn is_mainland(number: &str) -> bool {
    number.starts_with("+86")
}

/// The digits alone.
pub(super) fn digits(number: &str) -> &str {
    number.trim_start_matches('+')
}
