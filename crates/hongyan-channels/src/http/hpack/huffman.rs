//! The Huffman code of HPACK (RFC 7541 section 5.2 and appendix B). It is canonical, so that the lengths say everything.

/// Bits of each octet's code; the end of a string would have 30.
#[rustfmt::skip]
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];
/// The longest code, bits.
const LONGEST: usize = 30;
/// The longest code that is looked up at once, bits.
const QUICK: u32 = 8;

struct Tables {
    /// The first code of each length.
    first: [u32; LONGEST + 1],
    /// How many octets have a code of each length.
    count: [u32; LONGEST + 1],
    /// Where the octets of each length begin in `octets`.
    start: [u32; LONGEST + 1],
    octets: [u8; 256],
    /// For the next eight bits: an octet and the length of its code, or 0.
    quick: [(u8, u8); 1 << QUICK],
}

static TABLES: Tables = tables();

#[allow(clippy::cast_possible_truncation, reason = "both count to 256")]
const fn tables() -> Tables {
    let mut tables = Tables {
        first: [0; LONGEST + 1],
        count: [0; LONGEST + 1],
        start: [0; LONGEST + 1],
        octets: [0; 256],
        quick: [(0, 0); 1 << QUICK],
    };
    let (mut code, mut place, mut length) = (0_u32, 0_usize, 1);
    while length <= LONGEST {
        code <<= 1;
        tables.first[length] = code;
        tables.start[length] = place as u32;
        let mut octet = 0;
        while octet < 256 {
            if LENGTHS[octet] as usize == length {
                tables.octets[place] = octet as u8;
                tables.count[length] += 1;
                if length as u32 <= QUICK {
                    let spare = QUICK - length as u32;
                    let mut tail = 0;
                    while tail < 1 << spare {
                        tables.quick[((code << spare) + tail) as usize] =
                            (octet as u8, length as u8);
                        tail += 1;
                    }
                }
                code += 1;
                place += 1;
            }
            octet += 1;
        }
        length += 1;
    }
    tables
}

/// Appends what the bytes stand for. `None` when they are no such code: an end of string within, or padding that is not the
/// beginning of it or is a whole octet.
pub(super) fn decode(bytes: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let (mut held, mut bits) = (0_u64, 0_u32);
    let mut rest = bytes.iter();
    loop {
        while bits <= 56
            && let Some(byte) = rest.next()
        {
            held = (held << 8) | u64::from(*byte);
            bits += 8;
        }
        if bits == 0 {
            return Some(());
        }
        // Behind the end stand ones, which are no code but padding.
        let ahead = |length: u32| match bits.checked_sub(length) {
            Some(spare) => (held >> spare) & ((1 << length) - 1),
            None => {
                let missing = length - bits;
                ((held << missing) | ((1 << missing) - 1)) & ((1 << length) - 1)
            }
        };
        let (octet, quick) = *TABLES.quick.get(usize::try_from(ahead(QUICK)).ok()?)?;
        let (octet, length) = if quick > 0 {
            (octet, u32::from(quick))
        } else {
            slow(&ahead).or_else(|| {
                // Nothing but padding is left, or there is no such code.
                let padding = bits < 8 && ahead(bits) == (1 << bits) - 1;
                padding.then_some((0, u32::MAX))
            })?
        };
        if length > bits {
            let padding = bits < 8 && ahead(bits) == (1 << bits) - 1;
            return padding.then_some(());
        }
        out.push(octet);
        bits -= length;
    }
}

fn slow(ahead: &impl Fn(u32) -> u64) -> Option<(u8, u32)> {
    (QUICK as usize + 1..=LONGEST).find_map(|length| {
        let bits = u32::try_from(length).ok()?;
        let code = u32::try_from(ahead(bits)).ok()?;
        let nth = code.checked_sub(*TABLES.first.get(length)?)?;
        let place = *TABLES.start.get(length)? + nth;
        let found = nth < *TABLES.count.get(length)?;
        let octet = TABLES.octets.get(place as usize).filter(|_| found)?;
        Some((*octet, bits))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The other direction, bit by bit.
    fn encode(text: &[u8]) -> Vec<u8> {
        let mut bits = Vec::new();
        for octet in text {
            let length = LENGTHS[usize::from(*octet)];
            let of_length = |b: &&u8| LENGTHS[usize::from(**b)] == length;
            let all: Vec<u8> = (0..=255).collect();
            let nth = all
                .iter()
                .filter(of_length)
                .position(|b| b == octet)
                .unwrap();
            let code = TABLES.first[usize::from(length)] + u32::try_from(nth).unwrap();
            bits.extend((0..length).rev().map(|bit| (code >> bit) & 1));
        }
        while bits.len() % 8 != 0 {
            bits.push(1);
        }
        bits.chunks(8)
            .map(|octet| {
                octet
                    .iter()
                    .fold(0, |n, bit| (n << 1) | u8::try_from(*bit).unwrap())
            })
            .collect()
    }

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
            .collect()
    }

    /// RFC 7541 appendix C.4 and C.6.
    #[test]
    fn the_examples_of_the_paper_are_read() {
        for (code, text) in [
            ("f1e3c2e5f23a6ba0ab90f4ff", "www.example.com"),
            ("a8eb10649cbf", "no-cache"),
            ("25a849e95ba97d7f", "custom-key"),
            ("25a849e95bb8e8b4bf", "custom-value"),
            ("6402", "302"),
            ("aec3771a4b", "private"),
            (
                "d07abe941054d444a8200595040b8166e082a62d1bff",
                "Mon, 21 Oct 2013 20:13:21 GMT",
            ),
            (
                "9d29ad171863c78f0b97c8e9ae82ae43d3",
                "https://www.example.com",
            ),
        ] {
            let mut out = Vec::new();
            decode(&hex(code), &mut out).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), text);
            assert_eq!(encode(text.as_bytes()), hex(code), "{text}");
        }
    }

    #[test]
    fn padding_that_is_none_is_refused() {
        // A whole octet of ones; zeros; the end of a string.
        for bad in [&[0x1f, 0xff, 0xff][..], &[0x18], &[0xff, 0xff, 0xff, 0xff]] {
            assert_eq!(decode(bad, &mut Vec::new()), None, "{bad:?}");
        }
        assert_eq!(decode(&[], &mut Vec::new()), Some(()));
    }

    proptest! {
        #[test]
        fn every_text_comes_back(text: Vec<u8>) {
            let mut out = Vec::new();
            prop_assert_eq!(decode(&encode(&text), &mut out), Some(()));
            prop_assert_eq!(out, text);
        }

        #[test]
        fn no_bytes_are_too_strange(bytes: Vec<u8>) {
            let mut out = Vec::new();
            let _ = decode(&bytes, &mut out);
            prop_assert!(out.len() <= bytes.len() * 8 / 5);
        }
    }
}
