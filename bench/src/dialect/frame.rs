//! WebSocket frames, as far as a measurement needs them.

/// Appends a masked frame. The mask is zero: it costs the server the same, and us nothing.
pub(super) fn frame(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    match payload.len() {
        length @ 0..=125 => out.push(0x80 | length as u8),
        length => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(length.min(65_535) as u16).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
}

/// Opcode and place of the payload of a whole frame from a server.
pub(super) fn frame_at(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let (from, length): (usize, usize) = match bytes.get(1)? & 0x7f {
        126 => (
            4,
            usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?])),
        ),
        127 => {
            let length: [u8; 8] = bytes.get(2..10)?.try_into().ok()?;
            (10, usize::try_from(u64::from_be_bytes(length)).ok()?)
        }
        short => (2, usize::from(short)),
    };
    let to = from.checked_add(length)?;
    (to <= bytes.len()).then_some((bytes[0] & 0x0f, from, to))
}
