//! User ids in addresses of XMPP: what may not stand in a local part is escaped (XEP-0106).

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
#[must_use]
pub fn escape(id: &str) -> String {
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
#[must_use]
pub fn unescape(local: &str) -> String {
    let mut id = String::with_capacity(local.len());
    let mut rest = local;
    while let Some(at) = rest.find('\\') {
        id.push_str(&rest[..at]);
        let tail = &rest[at..];
        match ESCAPES
            .iter()
            .find(|(_, escaped)| tail.starts_with(escaped))
        {
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
}
