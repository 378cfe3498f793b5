//! Packets to bytes.

use super::wire::{VARINT_MAX, put_binary, put_string, put_varint, varint_len};
use super::{
    Ack, Auth, ConnAck, Connect, Disconnect, EncodeError, Packet, Properties, Publish, QoS,
    ReasonCode, Version,
};

impl Packet<'_> {
    /// Appends the packet in its shortest form.
    ///
    /// # Errors
    /// When a length has no form on the wire; nothing is appended then.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let start = out.len();
        self.append(version, out)
            .inspect_err(|_| out.truncate(start))
    }

    /// Its length on the wire, all bytes: what a maximum packet size is compared with.
    pub fn encoded_len(&self, version: Version) -> usize {
        let body = self.body_len(version);
        1 + varint_len(body) + body
    }

    fn append(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let body = self.body_len(version);
        let length = u32::try_from(body)
            .ok()
            .filter(|length| *length <= VARINT_MAX)
            .ok_or(EncodeError::PacketTooLong { bytes: body })?;
        out.reserve(body + 5);
        out.push(self.first_byte());
        put_varint(out, length);
        let start = out.len();
        match self {
            Self::Connect(connect) => put_connect(connect, out)?,
            Self::ConnAck(ack) => {
                out.push(u8::from(ack.session_present));
                out.push(connack_code(ack, version));
                put_properties(&ack.properties, version, out);
            }
            Self::Publish(publish) => put_publish(publish, version, out)?,
            Self::PubAck(ack) | Self::PubRec(ack) | Self::PubRel(ack) | Self::PubComp(ack) => {
                out.extend_from_slice(&ack.packet_id.to_be_bytes());
                put_tail(ack.reason, &ack.properties, version, out);
            }
            Self::Subscribe(subscribe) => {
                out.extend_from_slice(&subscribe.packet_id.to_be_bytes());
                put_properties(&subscribe.properties, version, out);
                match version {
                    Version::V5 => out.extend_from_slice(subscribe.filters.as_bytes()),
                    Version::V311 => {
                        for filter in &subscribe.filters {
                            put_string(out, filter.filter)?;
                            out.push(filter.options.qos as u8);
                        }
                    }
                }
            }
            Self::SubAck(ack) => {
                out.extend_from_slice(&ack.packet_id.to_be_bytes());
                put_properties(&ack.properties, version, out);
                out.extend(ack.codes.iter().map(|code| match version {
                    Version::V311 if *code >= 0x80 => 0x80,
                    _ => *code,
                }));
            }
            Self::Unsubscribe(unsubscribe) => {
                out.extend_from_slice(&unsubscribe.packet_id.to_be_bytes());
                put_properties(&unsubscribe.properties, version, out);
                out.extend_from_slice(unsubscribe.filters.as_bytes());
            }
            Self::UnsubAck(ack) => {
                out.extend_from_slice(&ack.packet_id.to_be_bytes());
                put_properties(&ack.properties, version, out);
                if version == Version::V5 {
                    out.extend_from_slice(ack.codes);
                }
            }
            Self::PingReq | Self::PingResp => {}
            Self::Disconnect(Disconnect { reason, properties })
            | Self::Auth(Auth { reason, properties }) => {
                put_end(self, *reason, properties, version, out);
            }
        }
        debug_assert_eq!(out.len() - start, body, "the length of {}", self.name());
        Ok(())
    }

    const fn first_byte(&self) -> u8 {
        match self {
            Self::Connect(_) => 0x10,
            Self::ConnAck(_) => 0x20,
            Self::Publish(publish) => {
                0x30 | (publish.dup as u8) << 3 | (publish.qos as u8) << 1 | publish.retain as u8
            }
            Self::PubAck(_) => 0x40,
            Self::PubRec(_) => 0x50,
            Self::PubRel(_) => 0x62,
            Self::PubComp(_) => 0x70,
            Self::Subscribe(_) => 0x82,
            Self::SubAck(_) => 0x90,
            Self::Unsubscribe(_) => 0xA2,
            Self::UnsubAck(_) => 0xB0,
            Self::PingReq => 0xC0,
            Self::PingResp => 0xD0,
            Self::Disconnect(_) => 0xE0,
            Self::Auth(_) => 0xF0,
        }
    }

    fn body_len(&self, version: Version) -> usize {
        match self {
            Self::Connect(connect) => connect_len(connect),
            Self::ConnAck(ack) => 2 + properties_len(&ack.properties, version),
            Self::Publish(publish) => {
                2 + publish.topic.len()
                    + if publish.qos == QoS::AtMostOnce { 0 } else { 2 }
                    + properties_len(&publish.properties, version)
                    + publish.payload.len()
            }
            Self::PubAck(ack) | Self::PubRec(ack) | Self::PubRel(ack) | Self::PubComp(ack) => {
                2 + tail_len(ack, version)
            }
            Self::Subscribe(subscribe) => {
                2 + properties_len(&subscribe.properties, version)
                    + subscribe.filters.as_bytes().len()
            }
            Self::SubAck(ack) => 2 + properties_len(&ack.properties, version) + ack.codes.len(),
            Self::Unsubscribe(unsubscribe) => {
                2 + properties_len(&unsubscribe.properties, version)
                    + unsubscribe.filters.as_bytes().len()
            }
            Self::UnsubAck(ack) => match version {
                Version::V5 => 2 + properties_len(&ack.properties, version) + ack.codes.len(),
                Version::V311 => 2,
            },
            Self::PingReq | Self::PingResp => 0,
            Self::Disconnect(Disconnect { reason, properties })
            | Self::Auth(Auth { reason, properties }) => {
                end_len(self, *reason, properties, version)
            }
        }
    }
}

fn connack_code(ack: &ConnAck<'_>, version: Version) -> u8 {
    match version {
        Version::V5 => ack.reason.0,
        Version::V311 => ack.reason.return_code().unwrap_or(3),
    }
}

fn properties_len(properties: &Properties<'_>, version: Version) -> usize {
    let bytes = properties.as_bytes().len();
    match version {
        Version::V311 => 0,
        Version::V5 => varint_len(bytes) + bytes,
    }
}

/// The packet's own length was checked before, so the length of a part of it fits.
fn put_properties(properties: &Properties<'_>, version: Version, out: &mut Vec<u8>) {
    if version == Version::V5 {
        let bytes = properties.as_bytes();
        put_varint(out, u32::try_from(bytes.len()).unwrap_or(VARINT_MAX));
        out.extend_from_slice(bytes);
    }
}

/// Reason and properties of an acknowledgement: left out as far as they say nothing [3.4.2.1].
fn tail_len(ack: &Ack<'_>, version: Version) -> usize {
    match (version, ack.properties.is_empty()) {
        (Version::V311, _) => 0,
        (Version::V5, true) => usize::from(ack.reason != ReasonCode::SUCCESS),
        (Version::V5, false) => 1 + properties_len(&ack.properties, version),
    }
}

fn put_tail(reason: ReasonCode, properties: &Properties<'_>, version: Version, out: &mut Vec<u8>) {
    match (version, properties.is_empty()) {
        (Version::V311, _) => {}
        (Version::V5, true) if reason == ReasonCode::SUCCESS => {}
        (Version::V5, true) => out.push(reason.0),
        (Version::V5, false) => {
            out.push(reason.0);
            put_properties(properties, version, out);
        }
    }
}

/// The same for DISCONNECT, and for AUTH, which has no form with a reason alone.
fn end_len(
    packet: &Packet<'_>,
    reason: ReasonCode,
    properties: &Properties<'_>,
    version: Version,
) -> usize {
    match (version, properties.is_empty()) {
        (Version::V311, _) => 0,
        (Version::V5, true) if reason == ReasonCode::SUCCESS => 0,
        (Version::V5, true) if matches!(packet, Packet::Disconnect(_)) => 1,
        (Version::V5, _) => 1 + properties_len(properties, version),
    }
}

fn put_end(
    packet: &Packet<'_>,
    reason: ReasonCode,
    properties: &Properties<'_>,
    version: Version,
    out: &mut Vec<u8>,
) {
    match end_len(packet, reason, properties, version) {
        0 => {}
        1 => out.push(reason.0),
        _ => {
            out.push(reason.0);
            put_properties(properties, version, out);
        }
    }
}

fn connect_len(connect: &Connect<'_>) -> usize {
    let version = connect.version;
    let will = connect.will.as_ref().map_or(0, |will| {
        properties_len(&will.properties, version) + 4 + will.topic.len() + will.payload.len()
    });
    10 + properties_len(&connect.properties, version)
        + 2
        + connect.client_id.len()
        + will
        + connect.user_name.map_or(0, |name| 2 + name.len())
        + connect.password.map_or(0, |password| 2 + password.len())
}

fn put_connect(connect: &Connect<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let version = connect.version;
    put_string(out, "MQTT")?;
    out.push(match version {
        Version::V311 => 4,
        Version::V5 => 5,
    });
    let will = connect.will.as_ref().map_or(0, |will| {
        0x04 | (will.qos as u8) << 3 | u8::from(will.retain) << 5
    });
    out.push(
        u8::from(connect.user_name.is_some()) << 7
            | u8::from(connect.password.is_some()) << 6
            | will
            | u8::from(connect.clean_start) << 1,
    );
    out.extend_from_slice(&connect.keep_alive.to_be_bytes());
    put_properties(&connect.properties, version, out);
    put_string(out, connect.client_id)?;
    if let Some(will) = &connect.will {
        put_properties(&will.properties, version, out);
        put_string(out, will.topic)?;
        put_binary(out, will.payload)?;
    }
    if let Some(name) = connect.user_name {
        put_string(out, name)?;
    }
    if let Some(password) = connect.password {
        put_binary(out, password)?;
    }
    Ok(())
}

fn put_publish(
    publish: &Publish<'_>,
    version: Version,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    put_string(out, publish.topic)?;
    if publish.qos != QoS::AtMostOnce {
        out.extend_from_slice(&publish.packet_id.to_be_bytes());
    }
    put_properties(&publish.properties, version, out);
    out.extend_from_slice(publish.payload);
    Ok(())
}
