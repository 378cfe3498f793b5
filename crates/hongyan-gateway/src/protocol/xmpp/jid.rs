//! Addresses: `local@domain/resource`.

pub(crate) use hongyan_core::jid::{escape, unescape};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        let jid = Jid::parse("a@b/c@d/e").unwrap();
        assert_eq!(
            (jid.local, jid.domain, jid.resource),
            (Some("a"), "b", Some("c@d/e"))
        );
        assert_eq!(Jid::parse("b").unwrap().local, None);
        for bad in ["", "@b", "a@", "b/", "a@b@c", "/"] {
            assert_eq!(Jid::parse(bad), None, "{bad}");
        }
    }
}
