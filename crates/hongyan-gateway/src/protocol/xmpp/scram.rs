//! The server's side of SCRAM (RFC 5802, RFC 7677), with channel binding (RFC 9266).
//!
//! A user has several devices, each with a token of its own as the password; the client names only
//! the user. All of them share salt and rounds, so the client's proof tells which device it is.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hongyan_core::device::ScramKeys;
use ring::{digest, hmac};

/// Devices of one user whose keys are tried.
pub(crate) const DEVICES_MAX: usize = 10;

/// Which hash a mechanism uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hash {
    Sha1,
    Sha256,
}

impl Hash {
    fn hmac(self, key: &[u8], data: &[u8]) -> hmac::Tag {
        let algorithm = match self {
            Self::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => hmac::HMAC_SHA256,
        };
        hmac::sign(&hmac::Key::new(algorithm, key), data)
    }

    fn digest(self, data: &[u8]) -> digest::Digest {
        match self {
            Self::Sha1 => digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, data),
            Self::Sha256 => digest::digest(&digest::SHA256, data),
        }
    }

    fn keys(self, keys: &ScramKeys) -> (&[u8], &[u8]) {
        match self {
            Self::Sha1 => (&keys.sha1_stored, &keys.sha1_server),
            Self::Sha256 => (&keys.sha256_stored, &keys.sha256_server),
        }
    }
}

/// The conditions of a SASL failure (RFC 6120 section 6.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    Aborted,
    EncryptionRequired,
    IncorrectEncoding,
    InvalidAuthzid,
    InvalidMechanism,
    MalformedRequest,
    NotAuthorized,
    Temporary,
}

impl Failure {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Aborted => "aborted",
            Self::EncryptionRequired => "encryption-required",
            Self::IncorrectEncoding => "incorrect-encoding",
            Self::InvalidAuthzid => "invalid-authzid",
            Self::InvalidMechanism => "invalid-mechanism",
            Self::MalformedRequest => "malformed-request",
            Self::NotAuthorized => "not-authorized",
            Self::Temporary => "temporary-auth-failure",
        }
    }
}

/// What the client said first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct First {
    pub(crate) user: String,
    pub(crate) authzid: Option<String>,
    /// `gs2-header`, as it was sent.
    header: Vec<u8>,
    bare: String,
    nonce: String,
}

impl First {
    /// Reads a client's first message. `plus` says whether the mechanism binds the channel,
    /// `offered` whether such mechanisms were offered on this stream.
    pub(crate) fn parse(message: &[u8], plus: bool, offered: bool) -> Result<Self, Failure> {
        let text = std::str::from_utf8(message).map_err(|_| Failure::IncorrectEncoding)?;
        let mut parts = text.splitn(3, ',');
        let (Some(flag), Some(authzid), Some(bare)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(Failure::MalformedRequest);
        };
        match flag {
            "n" | "y" if plus => return Err(Failure::MalformedRequest),
            // The client could bind and thinks that we cannot: somebody took our offer away.
            "y" if offered => return Err(Failure::NotAuthorized),
            "n" | "y" => {}
            "p=tls-exporter" if plus => {}
            _ => return Err(Failure::MalformedRequest),
        }
        let authzid = match authzid {
            "" => None,
            named => Some(name(
                named.strip_prefix("a=").ok_or(Failure::MalformedRequest)?,
            )?),
        };
        let mut fields = bare.split(',');
        // `m=` would be an extension that we have to know.
        let user = fields.next().and_then(|f| f.strip_prefix("n="));
        let nonce = fields.next().and_then(|f| f.strip_prefix("r="));
        let (Some(user), Some(nonce)) = (user, nonce) else {
            return Err(Failure::MalformedRequest);
        };
        let printable = |b: u8| (0x21..=0x7e).contains(&b);
        if nonce.is_empty() || nonce.len() > 256 || !nonce.bytes().all(printable) {
            return Err(Failure::MalformedRequest);
        }
        Ok(Self {
            user: name(user)?,
            authzid,
            header: text.as_bytes()[..text.len() - bare.len()].to_vec(),
            bare: bare.to_owned(),
            nonce: nonce.to_owned(),
        })
    }

    /// Answers it; `nonce` is ours, drawn at random.
    pub(crate) fn answer(self, hash: Hash, nonce: &str, salt: &[u8], iterations: u32) -> Exchange {
        let nonce = format!("{}{nonce}", self.nonce);
        let server_first = format!("r={nonce},s={},i={iterations}", STANDARD.encode(salt));
        Exchange {
            hash,
            header: self.header,
            nonce,
            first: format!("{},{server_first}", self.bare),
            server_first,
        }
    }
}

fn name(text: &str) -> Result<String, Failure> {
    let mut name = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('=') {
        name.push_str(before);
        let (c, after) = match (after.strip_prefix("2C"), after.strip_prefix("3D")) {
            (Some(after), _) => (',', after),
            (_, Some(after)) => ('=', after),
            _ => return Err(Failure::MalformedRequest),
        };
        name.push(c);
        rest = after;
    }
    name.push_str(rest);
    if name.is_empty() {
        return Err(Failure::MalformedRequest);
    }
    Ok(name)
}

/// A login that waits for the client's proof.
#[derive(Debug)]
pub(crate) struct Exchange {
    hash: Hash,
    header: Vec<u8>,
    nonce: String,
    first: String,
    /// What to send.
    pub(crate) server_first: String,
}

impl Exchange {
    /// Reads the client's last message and looks whose proof it is. Answers the place of the keys
    /// and what to say with success.
    pub(crate) fn finish<'a>(
        &self,
        message: &[u8],
        binding: Option<&[u8]>,
        keys: impl Iterator<Item = &'a ScramKeys>,
    ) -> Result<(usize, String), Failure> {
        let text = std::str::from_utf8(message).map_err(|_| Failure::IncorrectEncoding)?;
        let (without, proof) = text.rsplit_once(",p=").ok_or(Failure::MalformedRequest)?;
        let mut fields = without.split(',');
        let channel = fields.next().and_then(|f| f.strip_prefix("c="));
        let nonce = fields.next().and_then(|f| f.strip_prefix("r="));
        let (Some(channel), Some(nonce)) = (channel, nonce) else {
            return Err(Failure::MalformedRequest);
        };
        let (channel, proof) = match (STANDARD.decode(channel), STANDARD.decode(proof)) {
            (Ok(channel), Ok(proof)) => (channel, proof),
            _ => return Err(Failure::IncorrectEncoding),
        };
        let mut bound = self.header.clone();
        if self.header.starts_with(b"p=") {
            bound.extend_from_slice(binding.ok_or(Failure::NotAuthorized)?);
        }
        if channel != bound || nonce != self.nonce {
            return Err(Failure::NotAuthorized);
        }
        let message = format!("{},{without}", self.first);
        let mut found = None;
        let mut tried = 0;
        // Every key is tried, and as if there were ten, so that the time says nothing about whose it was or whether there
        // was any.
        for (place, keys) in keys.take(DEVICES_MAX).enumerate() {
            tried += 1;
            let (stored, server) = self.hash.keys(keys);
            let signature = self.hash.hmac(stored, message.as_bytes());
            if proof.len() != stored.len() {
                continue;
            }
            let client: Vec<u8> = proof
                .iter()
                .zip(signature.as_ref())
                .map(|(a, b)| a ^ b)
                .collect();
            if same(self.hash.digest(&client).as_ref(), stored) {
                let signature = self.hash.hmac(server, message.as_bytes());
                found = Some((place, format!("v={}", STANDARD.encode(signature))));
            }
        }
        for _ in tried..DEVICES_MAX {
            let signature = self.hash.hmac(&[0; 32], message.as_bytes());
            std::hint::black_box(self.hash.digest(signature.as_ref()));
        }
        found.ok_or(Failure::NotAuthorized)
    }
}

/// Compares without telling where a difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

/// Makes the keys of a token, as the API does where it sees one.
#[cfg(test)]
pub(crate) fn derive(token: &[u8], salt: &[u8], iterations: u32) -> ScramKeys {
    use ring::pbkdf2;
    let rounds = std::num::NonZeroU32::new(iterations).unwrap();
    let (mut one, mut two) = ([0u8; 20], [0u8; 32]);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA1, rounds, salt, token, &mut one);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, salt, token, &mut two);
    let stored = |hash: Hash, salted: &[u8]| {
        let client = hash.hmac(salted, b"Client Key");
        hash.digest(client.as_ref()).as_ref().to_vec()
    };
    let server = |hash: Hash, salted: &[u8]| hash.hmac(salted, b"Server Key").as_ref().to_vec();
    ScramKeys {
        secret_hash: Hash::Sha256.digest(token).as_ref().try_into().unwrap(),
        sha1_stored: stored(Hash::Sha1, &one).try_into().unwrap(),
        sha1_server: server(Hash::Sha1, &one).try_into().unwrap(),
        sha256_stored: stored(Hash::Sha256, &two).try_into().unwrap(),
        sha256_server: server(Hash::Sha256, &two).try_into().unwrap(),
    }
}

/// A client's side, for tests: its proof for an exchange.
#[cfg(test)]
pub(crate) fn prove(
    hash: Hash,
    token: &[u8],
    first_bare: &str,
    server_first: &str,
    channel: &[u8],
) -> String {
    use ring::pbkdf2;
    let field = |key: &str| {
        let mut all = server_first.split(',');
        all.find_map(|f| f.strip_prefix(key)).unwrap().to_owned()
    };
    let rounds = std::num::NonZeroU32::new(field("i=").parse().unwrap()).unwrap();
    let salt = STANDARD.decode(field("s=")).unwrap();
    let mut salted = vec![0u8; if hash == Hash::Sha1 { 20 } else { 32 }];
    let algorithm = match hash {
        Hash::Sha1 => pbkdf2::PBKDF2_HMAC_SHA1,
        Hash::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
    };
    pbkdf2::derive(algorithm, rounds, &salt, token, &mut salted);
    let client = hash.hmac(&salted, b"Client Key");
    let stored = hash.digest(client.as_ref());
    let without = format!("c={},r={}", STANDARD.encode(channel), field("r="));
    let message = format!("{first_bare},{server_first},{without}");
    let signature = hash.hmac(stored.as_ref(), message.as_bytes());
    let proof: Vec<u8> = client
        .as_ref()
        .iter()
        .zip(signature.as_ref())
        .map(|(a, b)| a ^ b)
        .collect();
    format!("{without},p={}", STANDARD.encode(proof))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(hash: Hash, nonces: (&str, &str), salt: &str, last: &str) -> String {
        let first = format!("n,,n=user,r={}", nonces.0);
        let salt = STANDARD.decode(salt).unwrap();
        let exchange = First::parse(first.as_bytes(), false, false)
            .unwrap()
            .answer(hash, nonces.1, &salt, 4096);
        let right = derive(b"pencil", &salt, 4096);
        let wrong = derive(b"pen", &salt, 4096);
        let all = [wrong.clone(), right];
        let found = exchange.finish(last.as_bytes(), None, all.iter()).unwrap();
        assert_eq!(found.0, 1);
        assert_eq!(
            exchange.finish(last.as_bytes(), None, [wrong].iter()),
            Err(Failure::NotAuthorized)
        );
        found.1
    }

    #[test]
    fn the_examples_of_rfc_5802_and_rfc_7677() {
        assert_eq!(
            run(
                Hash::Sha1,
                ("fyko+d2lbbFgONRv9qkxdawL", "3rfcNHYJY1ZVvWVs7j"),
                "QSXCR+Q6sek8bf92",
                "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
            ),
            "v=rmF9pqV8S7suAoZWja4dJRkFsKQ="
        );
        assert_eq!(
            run(
                Hash::Sha256,
                ("rOprNGfwEbeRWgbNEkqO", "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"),
                "W22ZaJ0SNY7soEsUEjb6gQ==",
                "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
            ),
            "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
        );
    }

    #[test]
    fn a_downgrade_and_nonsense_are_refused() {
        let parse = |text: &str, plus, offered| First::parse(text.as_bytes(), plus, offered).err();
        assert_eq!(parse("n,,n=a,r=x", false, true), None);
        assert_eq!(parse("y,,n=a,r=x", false, false), None);
        assert_eq!(
            parse("y,,n=a,r=x", false, true),
            Some(Failure::NotAuthorized)
        );
        assert_eq!(parse("p=tls-exporter,,n=a,r=x", true, true), None);
        for bad in ["n,,n=a,r=x", "p=tls-unique,,n=a,r=x"] {
            assert_eq!(parse(bad, true, true), Some(Failure::MalformedRequest));
        }
        for bad in [
            "p=tls-exporter,,n=a,r=x",
            "",
            "n",
            "n,,",
            "n,,n=,r=x",
            "n,,n=a",
            "n,,n=a,r=",
            "n,,m=x,n=a,r=x",
            "n,,n=a=,r=x",
            "n,b,n=a,r=x",
        ] {
            assert_eq!(
                parse(bad, false, false),
                Some(Failure::MalformedRequest),
                "{bad}"
            );
        }
        let first = First::parse(b"n,a=me=2Cx,n=a=3Db=2Cc,r=x", false, false).unwrap();
        assert_eq!(
            (first.user.as_str(), first.authzid.as_deref()),
            ("a=b,c", Some("me,x"))
        );
    }

    #[test]
    fn the_channel_is_part_of_the_proof() {
        let keys = derive(b"token", b"salt", 4096);
        let bare = "n=u,r=abc";
        let exchange = || {
            First::parse(b"p=tls-exporter,,n=u,r=abc", true, true)
                .unwrap()
                .answer(Hash::Sha256, "xyz", b"salt", 4096)
        };
        let prove = |channel: &[u8]| {
            let bound = [b"p=tls-exporter,,".as_slice(), channel].concat();
            prove(
                Hash::Sha256,
                b"token",
                bare,
                &exchange().server_first,
                &bound,
            )
        };
        let finish = |proof: String, ours: &[u8]| {
            let done = exchange().finish(proof.as_bytes(), Some(ours), [&keys].into_iter());
            done.map(|(place, _)| place)
        };
        assert_eq!(finish(prove(b"one"), b"one"), Ok(0));
        assert_eq!(finish(prove(b"one"), b"two"), Err(Failure::NotAuthorized));
    }
}
