//! How a text becomes short messages: alphabets, counts, splitting.
//!
//! Sources: 3GPP TS 23.038 (GSM 7-bit default alphabet and its extension table, UCS-2) and TS 23.040 (140 octets of user
//! data, concatenation header). UCS-2 is sent as UTF-16, as phones read it: a character beyond the basic plane is a pair.

/// Characters of the basic table in the order of their codes; code 0x1B is the escape.
const BASIC: &str = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞ\u{1b}ÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà";
/// The extension table: these cost two septets.
const EXTENSION: [(char, u8); 10] = [
    ('\u{c}', 0x0A),
    ('^', 0x14),
    ('{', 0x28),
    ('}', 0x29),
    ('\\', 0x2F),
    ('[', 0x3C),
    ('~', 0x3D),
    (']', 0x3E),
    ('|', 0x40),
    ('€', 0x65),
];
const ESCAPE: u8 = 0x1B;

/// How a text is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alphabet {
    /// GSM 7-bit default alphabet with its extension; the unit is a septet.
    Gsm7,
    /// UTF-16; the unit is a 16-bit code unit.
    Ucs2,
}

impl Alphabet {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Gsm7 => "gsm-7",
            Self::Ucs2 => "ucs-2",
        }
    }
}

/// What a segment gives up for the concatenation header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Header {
    /// 8-bit reference, 6 octets.
    Short,
    /// 16-bit reference, 7 octets.
    Long,
}

/// A text with its alphabet and length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) alphabet: Alphabet,
    /// Length in units of the alphabet.
    pub(super) units: usize,
    /// Each segment's units: septets one an octet, or UTF-16 big-endian.
    pub(super) segments: Vec<Vec<u8>>,
}

/// Chooses the alphabet and splits the text. One character that GSM-7 lacks makes the whole text UCS-2. No escape pair
/// and no surrogate pair is torn, so a segment may be one unit short.
pub(super) fn plan(text: &str, header: Header) -> Plan {
    let seven: Option<Vec<Vec<u8>>> = text.chars().map(septets).collect();
    let (alphabet, characters) = match seven {
        Some(characters) => (Alphabet::Gsm7, characters),
        None => (Alphabet::Ucs2, text.chars().map(code_units).collect()),
    };
    let width = match alphabet {
        Alphabet::Gsm7 => 1,
        Alphabet::Ucs2 => 2,
    };
    let units: usize = characters.iter().map(|c| c.len() / width).sum();
    let (alone, part) = match (alphabet, header) {
        (Alphabet::Gsm7, Header::Short) => (160, 153),
        (Alphabet::Gsm7, Header::Long) => (160, 152),
        (Alphabet::Ucs2, Header::Short) => (70, 67),
        (Alphabet::Ucs2, Header::Long) => (70, 66),
    };
    let room = if units <= alone { alone } else { part } * width;
    let mut segments = vec![Vec::new()];
    for character in characters {
        let full = segments
            .last()
            .is_none_or(|s| s.len() + character.len() > room);
        if full {
            segments.push(Vec::with_capacity(room));
        }
        if let Some(segment) = segments.last_mut() {
            segment.extend(character);
        }
    }
    Plan {
        alphabet,
        units,
        segments,
    }
}

/// How mainland China counts: 70 characters in one, else 67 in each; no discount for plain letters.
pub(super) fn mainland_count(text: &str) -> usize {
    match text.encode_utf16().count() {
        0..=70 => 1,
        more => more.div_ceil(67),
    }
}

/// Septets, eight in seven octets (3GPP TS 23.038, 6.1.2.1), after `fill` bits that bring the text behind a header to a
/// septet boundary.
pub(super) fn pack(septets: &[u8], fill: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(septets.len());
    let (mut held, mut bits) = (0u32, fill);
    for septet in septets {
        held |= u32::from(septet & 0x7f) << bits;
        bits += 7;
        while bits >= 8 {
            out.push((held & 0xff) as u8);
            held >>= 8;
            bits -= 8;
        }
    }
    if bits > 0 {
        out.push((held & 0xff) as u8);
    }
    out
}

/// The longest beginning of the text that fits so many segments.
pub(super) fn fit(text: &str, header: Header, segments_max: usize) -> Option<String> {
    if plan(text, header).segments.len() <= segments_max {
        return None;
    }
    let characters: Vec<char> = text.chars().collect();
    let (mut low, mut high) = (0, characters.len());
    while low < high {
        let middle = (low + high).div_ceil(2);
        let cut = shortened(&characters, middle);
        if plan(&cut, header).segments.len() <= segments_max {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    Some(shortened(&characters, low))
}

fn shortened(characters: &[char], len: usize) -> String {
    let mut text: String = characters.iter().take(len).collect();
    // Three dots and not an ellipsis: GSM-7 has none, and the whole text would turn UCS-2.
    text.push_str("...");
    text
}

fn septets(character: char) -> Option<Vec<u8>> {
    if character != '\u{1b}'
        && let Some(code) = BASIC.chars().position(|c| c == character)
    {
        return Some(vec![u8::try_from(code).ok()?]);
    }
    let (_, code) = EXTENSION.iter().find(|(c, _)| *c == character)?;
    Some(vec![ESCAPE, *code])
}

fn code_units(character: char) -> Vec<u8> {
    let mut pair = [0; 2];
    character
        .encode_utf16(&mut pair)
        .iter()
        .flat_map(|unit| unit.to_be_bytes())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_those_of_the_standard() {
        let check = |text: &str, alphabet: Alphabet, units: usize, segments: usize| {
            let got = plan(text, Header::Short);
            assert_eq!(
                (got.alphabet, got.units, got.segments.len()),
                (alphabet, units, segments),
                "{} characters",
                text.chars().count()
            );
        };
        check("", Alphabet::Gsm7, 0, 1);
        check(&"a".repeat(160), Alphabet::Gsm7, 160, 1);
        check(&"a".repeat(161), Alphabet::Gsm7, 161, 2);
        check(&format!("{}€", "a".repeat(159)), Alphabet::Gsm7, 161, 2);
        check(&"a".repeat(306), Alphabet::Gsm7, 306, 2);
        check(&"a".repeat(307), Alphabet::Gsm7, 307, 3);
        check(&"汉".repeat(70), Alphabet::Ucs2, 70, 1);
        check(&"汉".repeat(71), Alphabet::Ucs2, 71, 2);
        check(&"汉".repeat(134), Alphabet::Ucs2, 134, 2);
        check(&"汉".repeat(135), Alphabet::Ucs2, 135, 3);
        check(&"🦢".repeat(35), Alphabet::Ucs2, 70, 1);
        check(&"🦢".repeat(36), Alphabet::Ucs2, 72, 2);
        check("plain `tick", Alphabet::Ucs2, 11, 1);
        assert_eq!(plan(&"a".repeat(305), Header::Long).segments.len(), 3);
        assert_eq!(mainland_count(&"a".repeat(70)), 1);
        assert_eq!(mainland_count(&"a".repeat(71)), 2);
        assert_eq!(mainland_count(&"汉".repeat(135)), 3);
    }

    #[test]
    fn codes_are_those_of_the_table() {
        let text = "@$_ AZaz€{ù";
        let got = plan(text, Header::Short);
        assert_eq!(
            got.segments,
            [[
                0x00, 0x02, 0x11, 0x20, 0x41, 0x5A, 0x61, 0x7A, 0x1B, 0x65, 0x1B, 0x28, 0x06
            ]]
        );
        assert_eq!(BASIC.chars().count(), 128);
    }

    #[test]
    fn pairs_stay_together() {
        // The 153rd septet would be the escape of the pair: it moves to the next segment.
        let text = format!("{}€{}", "a".repeat(152), "b".repeat(20));
        let got = plan(&text, Header::Short);
        assert_eq!(got.segments[0].len(), 152);
        assert_eq!(&got.segments[1][..2], [0x1B, 0x65]);
        let swans = plan(&"🦢".repeat(40), Header::Short);
        assert_eq!(
            swans.segments[0].len(),
            66 * 2,
            "33 pairs, one unit short of 67"
        );
    }

    #[test]
    fn septets_are_packed() {
        let got = pack(&plan("hellohello", Header::Short).segments[0], 0);
        assert_eq!(got, [0xe8, 0x32, 0x9b, 0xfd, 0x46, 0x97, 0xd9, 0xec, 0x37]);
        // Behind a header of six octets, 48 bits, one bit brings the text to septet 7.
        assert_eq!(pack(&[0x01], 1), [0x02]);
        assert_eq!(pack(&[0x7f; 153], 1).len(), 134);
    }

    #[test]
    fn long_texts_are_cut_to_whole_segments() {
        assert_eq!(fit("short", Header::Short, 1), None);
        let cut = fit(&"a".repeat(500), Header::Short, 2).unwrap();
        assert_eq!(cut.len(), 306);
        assert!(cut.ends_with("a..."));
        let cut = fit(&"汉".repeat(100), Header::Short, 1).unwrap();
        assert_eq!(cut.chars().count(), 70);
    }

    proptest::proptest! {
        #[test]
        fn segments_hold_the_whole_text(text in "\\PC{0,400}") {
            let got = plan(&text, Header::Short);
            let whole: Vec<u8> = got.segments.concat();
            let room = if got.segments.len() == 1 { 160 } else { 153 };
            match got.alphabet {
                Alphabet::Ucs2 => {
                    let units: Vec<u16> = whole.chunks(2).map(|c| u16::from_be_bytes([c[0], c[1]])).collect();
                    proptest::prop_assert_eq!(String::from_utf16(&units).unwrap(), text);
                    for segment in &got.segments {
                        proptest::prop_assert!(segment.len() <= 140);
                        let units: Vec<u16> = segment.chunks(2).map(|c| u16::from_be_bytes([c[0], c[1]])).collect();
                        proptest::prop_assert!(String::from_utf16(&units).is_ok(), "a pair was torn");
                    }
                }
                Alphabet::Gsm7 => {
                    proptest::prop_assert_eq!(whole.len(), got.units);
                    for segment in &got.segments {
                        proptest::prop_assert!(segment.len() <= room && segment.last() != Some(&ESCAPE));
                    }
                }
            }
        }
    }
}
