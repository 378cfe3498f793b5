//! PDUs of SMPP 3.4 as the centre reads and writes them, and the texts in them.
//!
//! Sources: SMPP Protocol Specification v3.4; 3GPP TS 23.038 and 23.040.

pub(super) const GENERIC_NACK: u32 = 0x8000_0000;
pub(super) const RESPONSE: u32 = 0x8000_0000;
pub(super) const BIND_RECEIVER: u32 = 1;
pub(super) const BIND_TRANSMITTER: u32 = 2;
pub(super) const SUBMIT_SM: u32 = 4;
pub(super) const DELIVER_SM: u32 = 5;
pub(super) const UNBIND: u32 = 6;
pub(super) const BIND_TRANSCEIVER: u32 = 9;
pub(super) const ENQUIRE_LINK: u32 = 0x15;

pub(super) const HEADER_BYTES: usize = 16;
/// Largest PDU that is read.
pub(super) const PDU_BYTES_MAX: usize = 64 * 1024;

/// A PDU with its header.
pub(super) fn framed(id: u32, status: u32, sequence: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER_BYTES + body.len()).unwrap_or(u32::MAX);
    let words = [length, id, status, sequence];
    let mut pdu: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
    pdu.extend(body);
    pdu
}

/// Reads fields one after another; `None` when the PDU is too short.
#[derive(Debug)]
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) const fn new(body: &'a [u8]) -> Self {
        Self(body)
    }

    /// A C string of at most so many octets with its NUL.
    pub(super) fn text(&mut self, max: usize) -> Option<String> {
        let end = self.0.iter().take(max).position(|byte| *byte == 0)?;
        let (text, rest) = self.0.split_at(end);
        self.0 = rest.get(1..)?;
        Some(String::from_utf8_lossy(text).into_owned())
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub(super) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let bytes = self.0.get(..count)?;
        self.0 = self.0.get(count..)?;
        Some(bytes)
    }

    /// Tag and value of the next optional field.
    pub(super) fn tlv(&mut self) -> Option<(u16, &'a [u8])> {
        let head: [u8; 4] = self.bytes(4)?.try_into().ok()?;
        let [a, b, c, d] = head;
        let length = usize::from(u16::from_be_bytes([c, d]));
        Some((u16::from_be_bytes([a, b]), self.bytes(length)?))
    }
}

/// A bind's name and password.
pub(super) fn bind(body: &[u8]) -> Option<(String, String)> {
    let mut fields = Fields::new(body);
    let (id, password) = (fields.text(16)?, fields.text(65)?);
    fields.text(13)?;
    fields.bytes(3)?;
    fields.text(41)?;
    Some((id, password))
}

/// A submission, or its like in the other direction.
#[derive(Debug, Clone, Default)]
pub(super) struct Submit {
    pub(super) source: String,
    pub(super) destination: String,
    pub(super) destination_ton: u8,
    pub(super) esm_class: u8,
    pub(super) validity: String,
    pub(super) registered: u8,
    pub(super) data_coding: u8,
    /// The user data without its header.
    pub(super) text: Vec<u8>,
    /// Reference, total and number of a part.
    pub(super) part: Option<(u16, u8, u8)>,
    /// Destination port of a binary text.
    pub(super) port: Option<u16>,
}

/// Reads a submission; the error is the `command_status`.
pub(super) fn submit(body: &[u8]) -> Result<Submit, u32> {
    let mut fields = Fields::new(body);
    let mut read = || -> Option<(Submit, u8, Vec<u8>)> {
        fields.text(6)?;
        fields.bytes(2)?;
        let source = fields.text(21)?;
        let destination_ton = fields.byte()?;
        fields.byte()?;
        let destination = fields.text(21)?;
        let esm_class = fields.byte()?;
        fields.byte()?;
        let priority = fields.byte()?;
        fields.text(17)?;
        let validity = fields.text(17)?;
        let registered = fields.byte()?;
        fields.byte()?;
        let data_coding = fields.byte()?;
        fields.byte()?;
        let length = usize::from(fields.byte()?);
        let text = fields.bytes(length)?.to_vec();
        let submit = Submit {
            source,
            destination,
            destination_ton,
            esm_class,
            validity,
            registered,
            data_coding,
            ..Submit::default()
        };
        Some((submit, priority, text))
    };
    let (mut submit, priority, mut text) = read().ok_or(0x02_u32)?;
    if priority > 3 {
        return Err(0x06);
    }
    if !submit.validity.is_empty() && submit.validity.len() != 16 {
        return Err(0x62);
    }
    if text.len() > 254 {
        return Err(0x01);
    }
    let mut sar = (None, None, None);
    while let Some((tag, value)) = fields.tlv() {
        match (tag, value) {
            (0x020C, [a, b]) => sar.0 = Some(u16::from_be_bytes([*a, *b])),
            (0x020E, [total]) => sar.1 = Some(*total),
            (0x020F, [number]) => sar.2 = Some(*number),
            (0x020B, [a, b]) => submit.port = Some(u16::from_be_bytes([*a, *b])),
            (0x0424, whole) if text.is_empty() => text = whole.to_vec(),
            _ => {}
        }
    }
    if let (Some(reference), Some(total), Some(number)) = sar {
        submit.part = Some((reference, total, number));
    }
    if submit.esm_class & 0x40 != 0 {
        header(&mut submit, &mut text).ok_or(0x43_u32)?;
    }
    if submit
        .part
        .is_some_and(|(_, total, number)| number == 0 || number > total)
    {
        return Err(0x43);
    }
    submit.text = text;
    Ok(submit)
}

/// Takes the user data header off the text.
fn header(submit: &mut Submit, text: &mut Vec<u8>) -> Option<()> {
    let length = usize::from(*text.first()?);
    let head = text.get(1..=length)?.to_vec();
    let mut fields = Fields::new(&head);
    while let Some(element) = fields.byte() {
        let count = usize::from(fields.byte()?);
        match (element, fields.bytes(count)?) {
            (0, [reference, total, number]) => {
                submit.part = Some((u16::from(*reference), *total, *number));
            }
            (8, [a, b, total, number]) => {
                submit.part = Some((u16::from_be_bytes([*a, *b]), *total, *number));
            }
            (5, [a, b, _, _]) => submit.port = Some(u16::from_be_bytes([*a, *b])),
            _ => {}
        }
    }
    text.drain(..=length);
    Some(())
}

/// The user data as a person reads it.
pub(super) fn text(data_coding: u8, bytes: &[u8]) -> String {
    match data_coding {
        8 => {
            let units: Vec<u16> = bytes
                .chunks(2)
                .map(|pair| pair.iter().fold(0, |n, byte| (n << 8) | u16::from(*byte)))
                .collect();
            String::from_utf16_lossy(&units)
        }
        4 => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        1 | 3 => bytes.iter().map(|byte| char::from(*byte)).collect(),
        _ => gsm7(bytes),
    }
}

/// Unpacked septets of the GSM 7-bit default alphabet.
fn gsm7(bytes: &[u8]) -> String {
    const ROWS: [&str; 8] = [
        "@£$¥èéùìòÇ\nØø\rÅå",
        "Δ_ΦΓΛΩΠΨΣΘΞ\u{1b}ÆæßÉ",
        " !\"#¤%&'()*+,-./",
        "0123456789:;<=>?",
        "¡ABCDEFGHIJKLMNO",
        "PQRSTUVWXYZÄÖÑÜ§",
        "¿abcdefghijklmno",
        "pqrstuvwxyzäöñüà",
    ];
    let mut out = String::new();
    let mut escaped = false;
    for byte in bytes {
        let plain = ROWS
            .get(usize::from(byte >> 4))
            .and_then(|row| row.chars().nth(usize::from(byte & 15)))
            .unwrap_or('?');
        match (escaped, byte) {
            (false, 0x1B) => {
                escaped = true;
                continue;
            }
            (false, _) => out.push(plain),
            (true, byte) => out.push(match byte {
                0x0A => '\u{c}',
                0x14 => '^',
                0x28 => '{',
                0x29 => '}',
                0x2F => '\\',
                0x3C => '[',
                0x3D => '~',
                0x3E => ']',
                0x40 => '|',
                0x65 => '€',
                _ => plain,
            }),
        }
        escaped = false;
    }
    out
}

/// The receipt of a part, as text and, when `with_tlvs`, as fields too.
pub(super) fn receipt(
    (number, sender): (&str, &str),
    (hex_id, decimal_id): (&str, &str),
    state: &str,
    minute: &str,
    with_tlvs: bool,
) -> Vec<u8> {
    let delivered = if state == "DELIVRD" { "001" } else { "000" };
    let text = format!(
        "id:{decimal_id} sub:001 dlvrd:{delivered} submit date:{minute} done date:{minute} stat:{state} err:000 text:"
    );
    let mut body = vec![0, 1, 1];
    let mut put = |text: &str| {
        body.extend(text.bytes());
        body.push(0);
    };
    put(number);
    body.extend([5, 0]);
    let mut put = |text: &str| {
        body.extend(text.bytes());
        body.push(0);
    };
    put(sender);
    body.extend([4, 0, 0, 0, 0, 0, 0, 0, 0]);
    body.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    body.extend(text.bytes().take(255));
    if with_tlvs {
        let mut tlv = |tag: u16, value: &[u8]| {
            body.extend(tag.to_be_bytes());
            body.extend(u16::try_from(value.len()).unwrap_or(0).to_be_bytes());
            body.extend(value);
        };
        let mut id = hex_id.as_bytes().to_vec();
        id.push(0);
        tlv(0x001E, &id);
        tlv(
            0x0427,
            &[match state {
                "DELIVRD" => 2,
                "EXPIRED" => 3,
                _ => 5,
            }],
        );
        // Network and code of the error: GSM, none.
        tlv(0x0423, &[3, 0, 0]);
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len() / 2)
            .map(|at| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).unwrap())
            .collect()
    }

    #[test]
    fn the_worked_pdus_are_read() {
        let pdu = bytes("000000210000000900000000000000017465737400736563726574000034000000");
        assert_eq!(
            bind(&pdu[16..]),
            Some(("test".to_owned(), "secret".to_owned()))
        );
        let pdu = bytes(
            "0000003700000004000000000000000200050041434d4500010138363133383030313338303030000000000000010000000548656c6c6f",
        );
        let read = submit(&pdu[16..]).unwrap();
        assert_eq!(
            (read.source.as_str(), read.destination.as_str()),
            ("ACME", "8613800138000")
        );
        assert_eq!(
            (text(0, &read.text).as_str(), read.registered),
            ("Hello", 1)
        );
        assert_eq!(submit(&pdu[16..40]).unwrap_err(), 2);
        assert_eq!(
            framed(0x8000_0015, 0, 3, &[]),
            bytes("00000010800000150000000000000003")
        );
    }

    #[test]
    fn texts_are_read_in_their_alphabet() {
        assert_eq!(text(0, &[0, 0x11, 0x41, 0x1B, 0x65]), "@_A€");
        assert_eq!(text(8, &[0x9E, 0x3F, 0xD8, 0x3E, 0xDD, 0xA2]), "鸿🦢");
        assert_eq!(text(4, &[1, 0xff]), "01ff");
    }

    proptest::proptest! {
        #[test]
        fn any_body_is_survived(body: Vec<u8>) {
            let _ = (submit(&body), bind(&body), text(8, &body), text(0, &body));
        }
    }
}
