//! What comes over XMPP streams.

use hongyan_gateway::protocol::xmpp::probe;

use crate::{Entry, texts};

/// Streams, whole and in pieces: both ways read the same, and an element that is written again reads as itself.
pub(crate) const XMPP_STREAMS: Entry = Entry {
    name: "xmpp_streams",
    run: |bytes| {
        let Some((&piece, bytes)) = bytes.split_first() else {
            return;
        };
        let (whole, fault) = probe(bytes, bytes.len().max(1));
        let (pieces, broken) = probe(bytes, usize::from(piece).max(1));
        assert_eq!(whole, pieces, "the same elements in pieces of {piece}");
        assert_eq!(
            fault.is_some(),
            broken.is_some(),
            "the same end in pieces of {piece}"
        );
        for element in whole.iter().filter(|text| text.starts_with('<')) {
            let again = probe(element.as_bytes(), 0);
            assert!(again.1.is_none(), "{element} is sound: {again:?}");
        }
        let _message = probe(bytes, 0);
    },
    seeds: || {
        texts(&[
            "\x07<?xml version='1.0'?><stream:stream to='localhost' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'><message to='a'><body>x &lt; &#x41;<![CDATA[<b>]]></body></message><r xmlns='urn:xmpp:sm:3'/> <iq type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq></stream:stream>",
            "\x01<s:stream xmlns='jabber:client' xmlns:q='urn:xmpp:ping' xmlns:s='http://etherx.jabber.org/streams'><iq><q:ping q:a='b' xml:lang='de'/></iq>",
            "\x03<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='localhost' version='1.0'/>",
            "\x05<!DOCTYPE x [<!ENTITY a 'b'>]><stream:stream>",
        ])
    },
};
