//! Topic names and filters (5.0 section 4.7, the same in 3.1.1).

mod trie;

pub use trie::Trie;

/// Levels of the longest name or filter that a listener takes.
pub const LEVELS_MAX: usize = 16;

/// Bytes of the longest name or filter that a listener takes.
pub const BYTES_MAX: usize = 512;

/// Whether a message may be published under it [4.7.1-1], [4.7.3-1].
pub fn is_valid_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['+', '#'])
}

/// Whether it may be subscribed to: `#` only as the last level, `+` only as a whole level
/// [4.7.1-1], [4.7.1-2], [4.7.3-1].
pub fn is_valid_filter(filter: &str) -> bool {
    if filter.is_empty() {
        return false;
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let fits = match level {
            "#" => levels.peek().is_none(),
            "+" => true,
            _ => !level.contains(['+', '#']),
        };
        if !fits {
            return false;
        }
    }
    true
}

/// A shared subscription's name and the filter behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share<'a> {
    /// Who shares: those with the same name and filter.
    pub name: &'a str,
    /// What they share.
    pub filter: &'a str,
}

/// Takes `$share/<name>/<filter>` apart; `None` for an ordinary filter and for one that is not well formed.
pub fn share(filter: &str) -> Option<Share<'_>> {
    let (name, filter) = filter.strip_prefix("$share/")?.split_once('/')?;
    let fits = !name.is_empty() && !name.contains(['+', '#']) && is_valid_filter(filter);
    fits.then_some(Share { name, filter })
}

/// Whether it is no shared subscription, or one that is well formed [4.8.2-1], [4.8.2-2].
pub fn is_valid_share(filter: &str) -> bool {
    let claims = filter == "$share" || filter.starts_with("$share/");
    !claims || share(filter).is_some()
}

/// Whether a name or filter is within [`BYTES_MAX`] and [`LEVELS_MAX`].
pub fn is_within_limits(topic: &str) -> bool {
    topic.len() <= BYTES_MAX && topic.split('/').count() <= LEVELS_MAX
}

/// Whether a valid filter matches a valid name. A wildcard at its front does not match a name that begins
/// with `$` [4.7.2-1].
pub fn matches(filter: &str, name: &str) -> bool {
    if name.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let (mut wanted, mut levels) = (filter.split('/'), name.split('/'));
    loop {
        match (wanted.next(), levels.next()) {
            // Also the level above: `a/#` matches `a`.
            (Some("#"), _) => return true,
            (Some("+"), Some(_)) => {}
            (Some(wanted), Some(level)) if wanted == level => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hold_no_wildcard_and_are_not_empty() {
        for good in ["a", "/", "a//b", "a b", "$SYS/x", "/a", "鸿雁"] {
            assert!(is_valid_name(good), "{good}");
        }
        for bad in ["", "+", "a/#", "a+b"] {
            assert!(!is_valid_name(bad), "{bad}");
        }
    }

    #[test]
    fn mqtt_4_7_1_1_and_4_7_1_2_filters_have_wildcards_as_whole_levels() {
        for good in ["#", "+", "a/#", "+/+", "/+", "+/a/#", "a", "/", "$share/a"] {
            assert!(is_valid_filter(good), "{good}");
        }
        for bad in ["", "a#", "#/a", "a/#/b", "a+", "+a/b", "a/b+/c", "##", "++"] {
            assert!(!is_valid_filter(bad), "{bad}");
        }
    }

    #[test]
    fn matching_follows_the_examples_of_the_standard() {
        let good = [
            ("sport/tennis/player1/#", "sport/tennis/player1"),
            ("sport/tennis/player1/#", "sport/tennis/player1/ranking"),
            (
                "sport/tennis/player1/#",
                "sport/tennis/player1/score/wimbledon",
            ),
            ("sport/#", "sport"),
            ("#", "a/b"),
            ("#", "/"),
            ("sport/tennis/+", "sport/tennis/player2"),
            ("sport/+", "sport/"),
            ("+/+", "/finance"),
            ("/+", "/finance"),
            ("$SYS/#", "$SYS/a"),
            ("$SYS/monitor/+", "$SYS/monitor/Clients"),
            ("a/$b", "a/$b"),
            ("a/+", "a/$b"),
        ];
        for (filter, name) in good {
            assert!(matches(filter, name), "{filter} {name}");
        }
        let bad = [
            ("sport/tennis/+", "sport/tennis/player1/ranking"),
            ("sport/+", "sport"),
            ("+", "/finance"),
            ("#", "$SYS/a"),
            ("+/monitor/Clients", "$SYS/monitor/Clients"),
            ("ACCOUNTS", "Accounts"),
            ("a", "/a"),
            ("a/b", "a"),
        ];
        for (filter, name) in bad {
            assert!(!matches(filter, name), "{filter} {name}");
        }
    }

    #[test]
    fn mqtt_4_8_2_1_and_4_8_2_2_shares_have_a_name_and_a_filter() {
        let share_of = |filter| share(filter).map(|share| (share.name, share.filter));
        assert_eq!(share_of("$share/g/a/#"), Some(("g", "a/#")));
        assert_eq!(share_of("$share/g//a"), Some(("g", "/a")));
        assert_eq!(share_of("$shared/g/a"), None);
        for bad in [
            "$share",
            "$share/",
            "$share/g",
            "$share/g/",
            "$share//a",
            "$share/+/a",
            "$share/a#/a",
        ] {
            assert_eq!(share_of(bad), None, "{bad}");
            assert!(!is_valid_share(bad), "{bad}");
        }
        assert!(is_valid_share("$shared/g"));
    }

    #[test]
    fn limits_count_bytes_and_levels() {
        assert!(is_within_limits(&"a".repeat(512)));
        assert!(!is_within_limits(&"a".repeat(513)));
        assert!(is_within_limits(&"/".repeat(15)));
        assert!(!is_within_limits(&"/".repeat(16)));
    }
}
