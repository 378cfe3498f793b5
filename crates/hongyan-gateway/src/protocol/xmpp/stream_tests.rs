//! Streams byte by byte, and what is refused.

use super::*;

const OPEN: &str = "<?xml version='1.0'?><stream:stream to='localhost' xmlns='jabber:client' \
                    xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>";

fn read(parts: &[&[u8]], limit: usize) -> Result<Vec<Event>, Fault> {
    let (mut reader, mut events) = (Reader::default(), Vec::new());
    for part in parts {
        let mut rest = *part;
        while let Some(event) = reader.take(&mut rest, limit)? {
            events.push(event);
        }
        assert!(rest.is_empty());
    }
    Ok(events)
}

fn fault(inside: &str) -> Option<Fault> {
    read(&[OPEN.as_bytes(), inside.as_bytes()], 64 * 1024).err()
}

#[test]
fn xm_05_stanzas_split_at_every_byte_and_many_in_one_segment() {
    let text = format!(
        "{OPEN} \n<message to='a' xml:lang='de'><body>x &lt; 鸿雁 &#x41;<![CDATA[<b>]]></body></message>\
         <r xmlns='urn:xmpp:sm:3'/> <iq type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq></stream:stream>"
    );
    let whole = read(&[text.as_bytes()], 4096).unwrap();
    assert_eq!(whole.len(), 5, "{whole:?}");
    let Event::Element(message) = &whole[1] else {
        panic!("{whole:?}")
    };
    assert_eq!(message.attribute("xml:lang"), Some("de"));
    let body = message.child(ns::CLIENT, "body").unwrap();
    assert_eq!(body.text(), "x < 鸿雁 A<b>");
    assert_eq!(whole[4], Event::Close);
    for at in 0..=text.len() {
        let (a, b) = text.as_bytes().split_at(at);
        assert_eq!(read(&[a, b], 4096).unwrap(), whole, "cut at {at}");
    }
    let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
    assert_eq!(read(&bytes, 4096).unwrap(), whole);
}

#[test]
fn nothing_is_kept_between_stanzas_and_unusual_prefixes_still_work() {
    let mut reader = Reader::default();
    let header = "<s:stream to='x' xmlns='jabber:client' xmlns:q='urn:xmpp:ping' \
                  xmlns:s='http://etherx.jabber.org/streams' version='1.0'>";
    let mut rest = header.as_bytes();
    assert!(matches!(
        reader.take(&mut rest, 4096),
        Ok(Some(Event::Open(Header { sound: true, .. })))
    ));
    assert!(reader.is_idle());
    for _ in 0..2 {
        let mut rest: &[u8] = b"  <iq type='get'><q:ping/></iq>\n ";
        let Ok(Some(Event::Element(iq))) = reader.take(&mut rest, 4096) else {
            panic!()
        };
        assert!(iq.child(ns::PING, "ping").is_some());
        assert!(reader.is_idle() && rest.is_empty());
    }
    let mut rest: &[u8] = b"</s:stream>";
    assert_eq!(reader.take(&mut rest, 4096), Ok(Some(Event::Close)));
    let mut usual = Reader::default();
    let mut rest = OPEN.as_bytes();
    usual.take(&mut rest, 4096).unwrap();
    assert!(usual.header.is_none() && usual.is_idle());
}

#[test]
fn xm_04_what_xmpp_forbids_is_refused() {
    assert_eq!(fault("<message/>"), None);
    for restricted in [
        "<!-- c -->",
        "<message><!-- c --></message>",
        "<?php x?>",
        "<message><?x y?></message>",
        "<message>&nbsp;</message>",
        "<message a='&xxe;'/>",
    ] {
        assert_eq!(
            fault(restricted),
            Some(Fault::RestrictedXml),
            "{restricted}"
        );
    }
    assert!(fault("<!DOCTYPE x [<!ENTITY a 'b'>]>").is_some());
    let doctype = "<?xml version='1.0'?><!DOCTYPE lolz [<!ENTITY a 'b'>]><stream:stream>";
    let error = read(&[doctype.as_bytes()], 4096);
    assert_eq!(error, Err(Fault::RestrictedXml));
    for broken in [
        "<message></iq>",
        "<message a='1' a='2'/>",
        "<x:message/>",
        "<message a=1/>",
        "<message><</message>",
    ] {
        assert_eq!(fault(broken), Some(Fault::NotWellFormed), "{broken}");
    }
    assert_eq!(fault("words <message/>"), Some(Fault::BadFormat));
    let bad = [OPEN.as_bytes(), b"<message>\xff\xfe</message>"].concat();
    assert_eq!(read(&[&bad], 4096), Err(Fault::NotWellFormed));
    let large = format!("<message><body>{}</body></message>", "x".repeat(65 * 1024));
    assert!(matches!(fault(&large), Some(Fault::Policy(_))));
    let nested = |n: usize| format!("{}{}", "<a>".repeat(n), "</a>".repeat(n));
    assert_eq!(fault(&nested(32)), None);
    assert!(matches!(fault(&nested(33)), Some(Fault::Policy(_))));
    let attributes = |n: usize| {
        let list: String = (0..n).map(|i| format!(" a{i}=''")).collect();
        format!("<a{list}/>")
    };
    assert_eq!(fault(&attributes(64)), None);
    assert!(matches!(fault(&attributes(65)), Some(Fault::Policy(_))));
    assert!(read(&[format!("<a b='{}'", "x".repeat(9000)).as_bytes()], 16384).is_err());
}

#[test]
fn xm_06_a_websocket_message_is_one_element() {
    let take = |text: &str| Reader::take_message(text.as_bytes(), 4096);
    let open = "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='localhost' version='1.0'/>";
    assert!(matches!(take(open), Ok(Some(Event::Open(header))) if header.sound));
    assert_eq!(
        take("<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>"),
        Ok(Some(Event::Close))
    );
    assert_eq!(take(" \n"), Ok(None));
    assert!(matches!(
        take("<message xmlns='jabber:client'/>"),
        Ok(Some(Event::Element(_)))
    ));
    for two in [
        "<a xmlns='b'/><a xmlns='b'/>",
        "<a xmlns='b'>",
        "text",
        "<a/>x",
    ] {
        assert!(take(two).is_err(), "{two}");
    }
    let Ok(Some(Event::Element(bare))) = take("<message/>") else {
        panic!()
    };
    assert_eq!(
        bare.ns, "",
        "a missing namespace is seen by who reads the element"
    );
}

#[test]
fn xm_03_a_stream_of_servers_is_no_clients() {
    let check = |declares: &str, want: bool| {
        let header = format!(
            "<?xml version='1.0'?><stream:stream to='x' {declares} \
             xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>"
        );
        let events = read(&[header.as_bytes()], 4096).unwrap();
        let [Event::Open(header)] = events.as_slice() else {
            panic!("{events:?}")
        };
        assert_eq!(header.sound, want, "{declares}");
    };
    check("xmlns='jabber:client'", true);
    check("xmlns = \"jabber:client\"", true);
    check("xmlns:c='jabber:client'", true);
    check("xmlns='jabber:server'", false);
    check("xmlns = \"jabber:server\"", false);
    check("xmlns:c='jabber:client'\txmlns='jabber:server'", false);
}
