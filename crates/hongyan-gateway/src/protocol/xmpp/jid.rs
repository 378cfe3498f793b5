//! Addresses: `local@domain/resource`, and user ids as local parts (XEP-0106).

/// The parts of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Jid<'a> {
    pub(crate) local: Option<&'a str>,
    pub(crate) domain: &'a str,
    pub(crate) resource: Option<&'a str>,
}

impl<'a> Jid<'a> {
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let (bare, resource) = match text.split_once('/') {
            Some((bare, resource)) => (bare, Some(resource)),
            None => (text, None),
        };
        let (local, domain) = match bare.split_once('@') {
            Some((local, domain)) => (Some(local), domain),
            None => (None, bare),
        };
        let sound = |part: &str| !part.is_empty() && part.len() <= 1023;
        let all = sound(domain) && local.is_none_or(sound) && resource.is_none_or(sound);
        (all && !domain.contains('@')).then_some(Self {
            local,
            domain,
            resource,
        })
    }
}

const ESCAPES: [(char, &str); 10] = [
    (' ', "\\20"),
    ('"', "\\22"),
    ('&', "\\26"),
    ('\'', "\\27"),
    ('/', "\\2f"),
    (':', "\\3a"),
    ('<', "\\3c"),
    ('>', "\\3e"),
    ('@', "\\40"),
    ('\\', "\\5c"),
];

/// A user id as a local part.
pub(crate) fn escape(id: &str) -> String {
    let mut local = String::with_capacity(id.len());
    for c in id.chars() {
        match ESCAPES.iter().find(|(plain, _)| *plain == c) {
            Some((_, escaped)) => local.push_str(escaped),
            None => local.push(c),
        }
    }
    local
}

/// The user id of a local part.
pub(crate) fn unescape(local: &str) -> String {
    let mut id = String::with_capacity(local.len());
    let mut rest = local;
    while let Some(at) = rest.find('\\') {
        id.push_str(&rest[..at]);
        let tail = &rest[at..];
        match ESCAPES.iter().find(|(_, escaped)| tail.starts_with(escaped)) {
            Some((plain, escaped)) => {
                id.push(*plain);
                rest = &tail[escaped.len()..];
            }
            None => {
                id.push('\\');
                rest = &tail[1..];
            }
        }
    }
    id.push_str(rest);
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_ids_become_local_parts_and_come_back() {
        for id in ["alice", "张三@example", "a b/c\\20d:<>&'\"", "\\"] {
            let local = escape(id);
            assert!(!local.contains(['@', '/', ' ', '<', '&']), "{local}");
            assert_eq!(unescape(&local), id);
        }
        assert_eq!(unescape("\\zz"), "\\zz");
    }

    #[test]
    fn addresses_are_taken_apart() {
        let jid = Jid::parse("a@b/c@d/e").unwrap();
        assert_eq!((jid.local, jid.domain, jid.resource), (Some("a"), "b", Some("c@d/e")));
        assert_eq!(Jid::parse("b").unwrap().local, None);
        for bad in ["", "@b", "a@", "b/", "a@b@c", "/"] {
            assert_eq!(Jid::parse(bad), None, "{bad}");
        }
    }
}
