//! MQTT packets, as far as a measurement needs them.

/// Place of what follows the fixed header of a whole MQTT packet.
pub(super) fn packet_at(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut length = 0;
    for place in 0..4 {
        let byte = *bytes.get(1 + place)?;
        length |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            let from = 2 + place;
            let to = from + length;
            return (to <= bytes.len()).then_some((from, to));
        }
    }
    None
}

fn packet(first: u8, body: &[u8], out: &mut Vec<u8>) {
    out.push(first);
    let mut length = body.len();
    loop {
        let byte = (length & 0x7f) as u8;
        length >>= 7;
        out.push(if length > 0 { byte | 0x80 } else { byte });
        if length == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
}

fn text(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Appends CONNECT with a clean session and no keep-alive.
pub fn connect(client: &str, out: &mut Vec<u8>) {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0];
    text(client, &mut body);
    packet(0x10, &body, out);
}

/// Appends CONNECT of a device: no keep-alive, the client id is the server's to know.
pub(super) fn login(user: &str, password: &str, out: &mut Vec<u8>) {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, 0xc2, 0, 0];
    for part in ["", user, password] {
        text(part, &mut body);
    }
    packet(0x10, &body, out);
}

/// Appends SUBSCRIBE to all of them with this QoS.
pub(super) fn subscribe(topics: &[&str], qos: u8, out: &mut Vec<u8>) {
    let mut body = vec![0, 1];
    for topic in topics {
        text(topic, &mut body);
        body.push(qos);
    }
    packet(0x82, &body, out);
}

/// Appends PUBACK when this PUBLISH, without its fixed header, asks for one.
pub(super) fn acknowledge(first: u8, publish: &[u8], out: &mut Vec<u8>) {
    if first & 0x06 == 0 {
        return;
    }
    let topic = publish
        .first_chunk()
        .map_or(0, |length| u16::from_be_bytes(*length));
    if let Some(id) = publish
        .get(2 + usize::from(topic)..)
        .and_then(<[u8]>::first_chunk::<2>)
    {
        packet(0x40, id, out);
    }
}

/// Appends PUBLISH with QoS 0.
pub fn publish(topic: &str, payload: &str, out: &mut Vec<u8>) {
    let mut body = Vec::with_capacity(payload.len() + topic.len() + 2);
    text(topic, &mut body);
    body.extend_from_slice(payload.as_bytes());
    packet(0x30, &body, out);
}
