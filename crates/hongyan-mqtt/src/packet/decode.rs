//! Bytes to packets.

use super::property::{Place, topic_name};
use super::wire::{Cursor, varint};
use super::{
    Ack, Auth, ConnAck, Connect, DecodeError, Disconnect, Filters, Limits, Packet, Properties,
    Publish, QoS, ReasonCode, Sender, SubAck, Subscribe, SubscribeOptions, Topics, UnsubAck,
    Unsubscribe, Version, Will,
};
use crate::topic;

/// Reads the packet at the front of `bytes`: `None` while it is incomplete, else the packet and how many
/// bytes it used.
///
/// `version` is what the connection speaks, `None` before its CONNECT: until then a client's bytes are
/// taken for nothing but a CONNECT, and afterwards for nothing but other packets [3.1.0-1], [3.1.0-2]. A
/// server's bytes need a version.
///
/// # Errors
/// The connection must end, with [`DecodeError::answer_connect`] before a CONNECT was accepted and with
/// the error's reason in a DISCONNECT after it (5.0). Wrong headers and lengths are told as soon as they
/// are seen, before the rest has come.
pub fn decode<'a>(
    bytes: &'a [u8],
    from: Sender,
    version: Option<Version>,
    limits: &Limits,
) -> Result<Option<(Packet<'a>, usize)>, DecodeError> {
    let Some(length) = frame(bytes, from, version, limits)? else {
        return Ok(None);
    };
    let Some(whole) = bytes.get(..length) else {
        return Ok(None);
    };
    let Some((first, rest)) = whole.split_first() else {
        return Ok(None);
    };
    let Some((_, length_len)) = varint(rest)? else {
        return Ok(None);
    };
    let mut body = Cursor::new(rest.get(length_len..).unwrap_or_default());
    let packet = match version {
        Some(version) => Reader {
            version,
            from,
            limits,
        }
        .packet(*first, &mut body)?,
        None => Packet::Connect(connect(&mut body, limits)?),
    };
    body.end()?;
    Ok(Some((packet, length)))
}

/// The length of the packet at the front of `bytes`, with its fixed header; `None` while that cannot be
/// told. The packet itself need not be there.
///
/// # Errors
/// As [`decode`], for the fixed header.
pub fn frame(
    bytes: &[u8],
    from: Sender,
    version: Option<Version>,
    limits: &Limits,
) -> Result<Option<usize>, DecodeError> {
    let Some((first, rest)) = bytes.split_first() else {
        return Ok(None);
    };
    header(*first, from, version)?;
    let Some((remaining, length_len)) = varint(rest)? else {
        return Ok(None);
    };
    let length = remaining as usize + 1 + length_len;
    let maximum = match version {
        Some(_) => limits.packet_bytes_max,
        None => limits.connect_bytes_max,
    };
    if length <= maximum as usize {
        return Ok(Some(length));
    }
    let too_large = DecodeError::new(ReasonCode::PACKET_TOO_LARGE, "a packet is too large");
    if version.is_some() {
        return Err(too_large);
    }
    // It is answered in the words of its version, which stands in its first seven bytes.
    match rest.get(length_len..length_len + 7) {
        None => Ok(None),
        Some(b"\0\x04MQTT\x04") => Err(too_large.in_connect(Version::V311)),
        Some(b"\0\x04MQTT\x05") => Err(too_large.in_connect(Version::V5)),
        Some(_) => Err(too_large),
    }
}

/// Type and flags: whether such a packet may come from there now.
fn header(first: u8, from: Sender, version: Option<Version>) -> Result<(), DecodeError> {
    let (kind, flags) = (first >> 4, first & 0x0F);
    if kind == 0 || (kind == 15 && version != Some(Version::V5)) {
        return Err(DecodeError::malformed("there is no packet of this type"));
    }
    match kind {
        // DUP is 0 with QoS 0 [3.3.1-2]; there is no QoS 3 [3.3.1-4].
        3 if flags & 0x06 == 0x06 => {
            return Err(DecodeError::malformed("a message has QoS 3"));
        }
        3 if flags & 0x0E == 0x08 => {
            return Err(DecodeError::malformed("a message has DUP with QoS 0"));
        }
        3 => {}
        6 | 8 | 10 if flags == 0x02 => {}
        6 | 8 | 10 => return Err(DecodeError::malformed("reserved flags are wrong")),
        _ if flags == 0 => {}
        _ => return Err(DecodeError::malformed("reserved flags are wrong")),
    }
    let may_send = match kind {
        1 | 8 | 10 | 12 => from == Sender::Client,
        2 | 9 | 11 | 13 => from == Sender::Server,
        14 => from == Sender::Client || version == Some(Version::V5),
        _ => true,
    };
    if !may_send {
        return Err(DecodeError::protocol("the other side may not send this"));
    }
    match (version, kind) {
        (None, 1) => Ok(()),
        (None, _) => Err(DecodeError::protocol("the first packet is no CONNECT")),
        (Some(_), 1) => Err(DecodeError::protocol("a second CONNECT")),
        (Some(_), _) => Ok(()),
    }
}

struct Reader<'l> {
    version: Version,
    from: Sender,
    limits: &'l Limits,
}

impl Reader<'_> {
    fn packet<'a>(&self, first: u8, body: &mut Cursor<'a>) -> Result<Packet<'a>, DecodeError> {
        Ok(match first >> 4 {
            2 => Packet::ConnAck(self.connack(body)?),
            3 => Packet::Publish(self.publish(first & 0x0F, body)?),
            4 => Packet::PubAck(self.ack(body, is_received)?),
            5 => Packet::PubRec(self.ack(body, is_received)?),
            6 => Packet::PubRel(self.ack(body, is_released)?),
            7 => Packet::PubComp(self.ack(body, is_released)?),
            8 => Packet::Subscribe(self.subscribe(body)?),
            9 => {
                let (packet_id, properties) = self.id_and_properties(body, Place::Ack)?;
                Packet::SubAck(SubAck {
                    packet_id,
                    properties,
                    codes: self.codes(body, is_suback)?,
                })
            }
            10 => Packet::Unsubscribe(self.unsubscribe(body)?),
            11 => {
                let (packet_id, properties) = self.id_and_properties(body, Place::Ack)?;
                let codes = match self.version {
                    Version::V311 => &[],
                    Version::V5 => self.codes(body, is_unsuback)?,
                };
                Packet::UnsubAck(UnsubAck {
                    packet_id,
                    properties,
                    codes,
                })
            }
            12 => Packet::PingReq,
            13 => Packet::PingResp,
            14 => Packet::Disconnect(self.disconnect(body)?),
            15 => Packet::Auth(self.auth(body)?),
            _ => return Err(DecodeError::malformed("there is no packet of this type")),
        })
    }

    fn properties<'a>(
        &self,
        body: &mut Cursor<'a>,
        place: Place,
    ) -> Result<Properties<'a>, DecodeError> {
        match self.version {
            Version::V311 => Ok(Properties::NONE),
            Version::V5 => Properties::read(body, place, self.from, self.limits),
        }
    }

    fn id_and_properties<'a>(
        &self,
        body: &mut Cursor<'a>,
        place: Place,
    ) -> Result<(u16, Properties<'a>), DecodeError> {
        Ok((body.packet_id()?, self.properties(body, place)?))
    }

    fn connack<'a>(&self, body: &mut Cursor<'a>) -> Result<ConnAck<'a>, DecodeError> {
        let session_present = match body.u8()? {
            0 => false,
            1 => true,
            _ => return Err(DecodeError::malformed("reserved flags are wrong")),
        };
        let code = body.u8()?;
        let reason = match self.version {
            Version::V311 => ReasonCode::from_return_code(code),
            Version::V5 => is_connack(code).then_some(ReasonCode(code)),
        }
        .ok_or(DecodeError::protocol("a reason code is unknown"))?;
        if session_present && reason != ReasonCode::SUCCESS {
            return Err(DecodeError::protocol("a refusal has a session"));
        }
        Ok(ConnAck {
            session_present,
            reason,
            properties: self.properties(body, Place::ConnAck)?,
        })
    }

    fn publish<'a>(&self, flags: u8, body: &mut Cursor<'a>) -> Result<Publish<'a>, DecodeError> {
        let qos = QoS::from_bits(flags >> 1 & 0x03)
            .ok_or(DecodeError::malformed("a message has QoS 3"))?;
        let topic = body.string()?;
        if topic.contains(['+', '#']) {
            return Err(DecodeError::malformed("a topic name holds a wildcard"));
        }
        let packet_id = match qos {
            QoS::AtMostOnce => 0,
            QoS::AtLeastOnce | QoS::ExactlyOnce => body.packet_id()?,
        };
        let properties = self.properties(body, Place::Publish)?;
        if topic.is_empty() && properties.topic_alias().is_none() {
            return Err(DecodeError::protocol(
                "a message has neither topic nor alias",
            ));
        }
        let payload = body.rest();
        body.take(payload.len())?;
        Ok(Publish {
            dup: flags & 0x08 != 0,
            qos,
            retain: flags & 0x01 != 0,
            topic,
            packet_id,
            properties,
            payload,
        })
    }

    fn ack<'a>(
        &self,
        body: &mut Cursor<'a>,
        known: fn(u8) -> bool,
    ) -> Result<Ack<'a>, DecodeError> {
        let packet_id = body.packet_id()?;
        let (reason, properties) = match self.version {
            Version::V311 => (ReasonCode::SUCCESS, Properties::NONE),
            Version::V5 => self.reason(body, Place::Ack, known)?,
        };
        Ok(Ack {
            packet_id,
            reason,
            properties,
        })
    }

    /// A reason and properties that may both be left out from the end.
    fn reason<'a>(
        &self,
        body: &mut Cursor<'a>,
        place: Place,
        known: fn(u8) -> bool,
    ) -> Result<(ReasonCode, Properties<'a>), DecodeError> {
        if body.is_empty() {
            return Ok((ReasonCode::SUCCESS, Properties::NONE));
        }
        let code = body.u8()?;
        if !known(code) {
            return Err(DecodeError::protocol("a reason code is unknown"));
        }
        let properties = if body.is_empty() {
            Properties::NONE
        } else {
            self.properties(body, place)?
        };
        Ok((ReasonCode(code), properties))
    }

    fn subscribe<'a>(&self, body: &mut Cursor<'a>) -> Result<Subscribe<'a>, DecodeError> {
        let (packet_id, properties) = self.id_and_properties(body, Place::Subscribe)?;
        let list = body.rest();
        let mut count = 0;
        while !body.is_empty() {
            let filter = self.filter(body)?;
            let byte = body.u8()?;
            let reserved = match self.version {
                Version::V311 => 0xFC,
                Version::V5 => 0xC0,
            };
            if byte & reserved != 0 {
                return Err(DecodeError::malformed(
                    "reserved bits of a subscription are set",
                ));
            }
            let options = SubscribeOptions::from_byte(byte).ok_or(DecodeError::protocol(
                "a subscription has QoS 3 or retain handling 3",
            ))?;
            if options.no_local && topic::share(filter).is_some() {
                return Err(DecodeError::protocol(
                    "a shared subscription has no local set",
                ));
            }
            count += 1;
        }
        self.counted(count)?;
        Ok(Subscribe {
            packet_id,
            properties,
            filters: Filters::checked(list),
        })
    }

    fn unsubscribe<'a>(&self, body: &mut Cursor<'a>) -> Result<Unsubscribe<'a>, DecodeError> {
        let (packet_id, properties) = self.id_and_properties(body, Place::Unsubscribe)?;
        let list = body.rest();
        let mut count = 0;
        while !body.is_empty() {
            self.filter(body)?;
            count += 1;
        }
        self.counted(count)?;
        Ok(Unsubscribe {
            packet_id,
            properties,
            filters: Topics::checked(list),
        })
    }

    fn filter<'a>(&self, body: &mut Cursor<'a>) -> Result<&'a str, DecodeError> {
        let filter = body.string()?;
        if !topic::is_valid_filter(filter) {
            return Err(DecodeError::malformed("a topic filter is not well formed"));
        }
        // 3.1.1 knows no shared subscriptions: there it is a filter as any other.
        if self.version == Version::V5 && !topic::is_valid_share(filter) {
            return Err(DecodeError::malformed(
                "a shared subscription is not well formed",
            ));
        }
        Ok(filter)
    }

    fn counted(&self, count: usize) -> Result<(), DecodeError> {
        if count == 0 {
            return Err(DecodeError::protocol("a list of topic filters is empty"));
        }
        if count > self.limits.filters_max {
            return Err(DecodeError::new(
                ReasonCode::QUOTA_EXCEEDED,
                "too many topic filters in one packet",
            ));
        }
        Ok(())
    }

    fn codes<'a>(
        &self,
        body: &mut Cursor<'a>,
        known: fn(u8) -> bool,
    ) -> Result<&'a [u8], DecodeError> {
        let codes = body.rest();
        body.take(codes.len())?;
        let is_known = |code: &u8| match self.version {
            Version::V311 => matches!(code, 0..=2 | 0x80),
            Version::V5 => known(*code),
        };
        if codes.is_empty() || !codes.iter().all(is_known) {
            return Err(DecodeError::protocol("reason codes are unknown or missing"));
        }
        Ok(codes)
    }

    fn disconnect<'a>(&self, body: &mut Cursor<'a>) -> Result<Disconnect<'a>, DecodeError> {
        let known = match self.from {
            Sender::Client => is_client_disconnect,
            Sender::Server => is_server_disconnect,
        };
        let (reason, properties) = match self.version {
            Version::V311 => (ReasonCode::NORMAL_DISCONNECTION, Properties::NONE),
            Version::V5 => self.reason(body, Place::Disconnect, known)?,
        };
        Ok(Disconnect { reason, properties })
    }

    fn auth<'a>(&self, body: &mut Cursor<'a>) -> Result<Auth<'a>, DecodeError> {
        if body.is_empty() {
            return Ok(Auth {
                reason: ReasonCode::SUCCESS,
                properties: Properties::NONE,
            });
        }
        let reason = ReasonCode(body.u8()?);
        if !matches!(reason.0, 0x00 | 0x18 | 0x19) {
            return Err(DecodeError::protocol("a reason code is unknown"));
        }
        Ok(Auth {
            reason,
            properties: self.properties(body, Place::Auth)?,
        })
    }
}

fn connect<'a>(body: &mut Cursor<'a>, limits: &Limits) -> Result<Connect<'a>, DecodeError> {
    // Neither a wrong name nor no name is answered: it may be any protocol.
    if body.binary()? != b"MQTT" {
        return Err(DecodeError::new(
            ReasonCode::UNSUPPORTED_VERSION,
            "the protocol is not MQTT",
        ));
    }
    let version = match body.u8()? {
        4 => Version::V311,
        5 => Version::V5,
        // Answered so that whoever speaks the nearest version understands it.
        level => {
            let nearest = if level < 4 {
                Version::V311
            } else {
                Version::V5
            };
            return Err(DecodeError::new(
                ReasonCode::UNSUPPORTED_VERSION,
                "the protocol's level is neither 4 nor 5",
            )
            .in_connect(nearest));
        }
    };
    connect_of(version, body, limits).map_err(|error| error.in_connect(version))
}

fn connect_of<'a>(
    version: Version,
    body: &mut Cursor<'a>,
    limits: &Limits,
) -> Result<Connect<'a>, DecodeError> {
    let reader = Reader {
        version,
        from: Sender::Client,
        limits,
    };
    let flags = body.u8()?;
    let has = |bit: u8| flags & bit != 0;
    if has(0x01) {
        return Err(DecodeError::malformed("the reserved connect flag is set"));
    }
    if !has(0x04) && flags & 0x38 != 0 {
        return Err(DecodeError::malformed(
            "QoS or retain of a will is set without a will",
        ));
    }
    let will_qos =
        QoS::from_bits(flags >> 3 & 0x03).ok_or(DecodeError::malformed("a will has QoS 3"))?;
    if version == Version::V311 && has(0x40) && !has(0x80) {
        return Err(DecodeError::malformed(
            "a password stands without a user name",
        ));
    }
    let keep_alive = body.u16()?;
    let properties = reader.properties(body, Place::Connect)?;
    let client_id = body.string()?;
    let will = if has(0x04) {
        let properties = reader.properties(body, Place::Will)?;
        Some(Will {
            properties,
            topic: topic_name(body.string()?)?,
            payload: body.binary()?,
            qos: will_qos,
            retain: has(0x20),
        })
    } else {
        None
    };
    let user_name = has(0x80).then(|| body.string()).transpose()?;
    let password = has(0x40).then(|| body.binary()).transpose()?;
    body.end()?;
    let clean_start = has(0x02);
    if client_id.len() > limits.client_id_bytes_max
        || (version == Version::V311 && client_id.is_empty() && !clean_start)
    {
        return Err(DecodeError::new(
            ReasonCode::CLIENT_ID_NOT_VALID,
            "the client identifier is too long or missing",
        ));
    }
    if user_name.is_some_and(|name| name.len() > limits.user_name_bytes_max)
        || password.is_some_and(|password| password.len() > limits.password_bytes_max)
    {
        return Err(DecodeError::new(
            ReasonCode::BAD_USER_NAME_OR_PASSWORD,
            "the user name or the password is too long",
        ));
    }
    Ok(Connect {
        version,
        clean_start,
        keep_alive,
        properties,
        client_id,
        will,
        user_name,
        password,
    })
}

/// CONNACK's reason codes (5.0 table 3-1).
const fn is_connack(code: u8) -> bool {
    matches!(code, 0x00 | 0x80..=0x8A | 0x8C | 0x90 | 0x95 | 0x97 | 0x99..=0x9D | 0x9F)
}

/// PUBACK's and PUBREC's (tables 3-4 and 3-5).
const fn is_received(code: u8) -> bool {
    matches!(
        code,
        0x00 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99
    )
}

/// PUBREL's and PUBCOMP's (tables 3-6 and 3-7).
const fn is_released(code: u8) -> bool {
    matches!(code, 0x00 | 0x92)
}

/// SUBACK's (table 3-8).
const fn is_suback(code: u8) -> bool {
    matches!(
        code,
        0x00..=0x02 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91 | 0x97 | 0x9E | 0xA1 | 0xA2
    )
}

/// UNSUBACK's (table 3-9).
const fn is_unsuback(code: u8) -> bool {
    matches!(code, 0x00 | 0x11 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91)
}

/// DISCONNECT's from a client (table 3-10).
const fn is_client_disconnect(code: u8) -> bool {
    matches!(code, 0x00 | 0x04 | 0x80..=0x83 | 0x90 | 0x93..=0x99)
}

/// DISCONNECT's from a server (table 3-10, and 0x8C of table 2-6).
const fn is_server_disconnect(code: u8) -> bool {
    matches!(code, 0x00 | 0x80..=0x83 | 0x87 | 0x89 | 0x8B..=0x90 | 0x93..=0xA2)
}
