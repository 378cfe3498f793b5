//! The HTTP half of a WebSocket's opening handshake (RFC 6455 section 4.2), as pure functions:
//! the HTTP server asks [`check`], answers what it says, and hands the socket over.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, FORWARDED, HOST, HeaderName, ORIGIN, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, Method, StatusCode, Uri, Version};

use crate::protocol::autopush::SUBPROTOCOL;
use crate::protocol::{Encoding, Speech};

/// The constant of RFC 6455 section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Longest list of origins or subprotocols that is looked at, in items.
const OFFERS_MAX: usize = 32;

/// A path that leads to the gateway, and what is spoken behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// `/v1/connect`: hongyan's own protocol.
    Hongyan,
    /// `/xmpp`: XMPP (RFC 7395).
    Xmpp,
    /// `/mqtt`: MQTT.
    Mqtt,
    /// `/autopush` and `/autopush/<client key>`: browsers.
    Autopush,
}

impl Door {
    /// The door at a path.
    #[must_use]
    pub fn at(path: &str) -> Option<Self> {
        match path {
            "/v1/connect" => Some(Self::Hongyan),
            "/xmpp" => Some(Self::Xmpp),
            "/mqtt" => Some(Self::Mqtt),
            "/autopush" => Some(Self::Autopush),
            _ if path.starts_with("/autopush/") => Some(Self::Autopush),
            _ => None,
        }
    }

    /// Whether pages must come from an origin that some app names.
    fn checks_origin(self) -> bool {
        match self {
            Self::Hongyan | Self::Xmpp | Self::Mqtt => true,
            // A browser itself names the address it connects to; it is no page.
            Self::Autopush => false,
        }
    }

    /// What to speak, and the subprotocol to answer, by what the client offers in its order of preference.
    fn choose<'a>(
        self,
        mut offers: impl Iterator<Item = &'a str>,
    ) -> Result<(Option<&'static str>, Speech), &'static str> {
        match self {
            Self::Mqtt => offers
                .any(|offer| offer == "mqtt")
                .then_some((Some("mqtt"), Speech::Mqtt))
                .ok_or("Sec-WebSocket-Protocol does not offer mqtt"),
            Self::Xmpp => offers
                .any(|offer| offer == "xmpp")
                .then_some((Some("xmpp"), Speech::Xmpp))
                .ok_or("Sec-WebSocket-Protocol does not offer xmpp"),
            Self::Hongyan => offers
                .find_map(Encoding::from_subprotocol)
                .map(|encoding| (Some(encoding.subprotocol()), Speech::Hongyan(encoding)))
                .ok_or("Sec-WebSocket-Protocol offers neither hongyan.v1+json nor hongyan.v1+cbor"),
            Self::Autopush => Ok((
                offers
                    .any(|offer| offer == SUBPROTOCOL)
                    .then_some(SUBPROTOCOL),
                Speech::Autopush(None),
            )),
        }
    }
}

/// An acceptable request: answer 101 with `Upgrade: websocket`, `Connection: Upgrade`, these two
/// values as `Sec-WebSocket-Accept` and (when there is one) `Sec-WebSocket-Protocol`, and no extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Value of `Sec-WebSocket-Accept`.
    pub accept: String,
    /// Value of `Sec-WebSocket-Protocol`: one of those that the client offered.
    pub subprotocol: Option<&'static str>,
    /// What is spoken, for the gateway.
    pub speech: Speech,
    /// The page's origin, when a browser sent one that is not this server's own. That some app allows it is not enough:
    /// see [`crate::Permit::from_page`].
    pub origin: Option<String>,
}

/// An unacceptable request: answer this status before any upgrade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// 400, 403 or 426.
    pub status: StatusCode,
    /// A header that belongs to the answer (the supported version with 426).
    pub header: Option<(HeaderName, &'static str)>,
    /// What was wrong, for the problem document.
    pub detail: &'static str,
}

impl Refused {
    fn bad(detail: &'static str) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            header: None,
            detail,
        }
    }
}

/// Judges a request at a door.
///
/// `allowed_origins` holds exact origins (`https://example.com`), or `*` for all; a request
/// without `Origin` does not come from a browser page and needs none, and neither does one from this server's own origin, as
/// some libraries send it: that of `public`, where the server is known to be reached, or else the host and port of `Host`.
/// Whoever owns a name can let it lead here, and `Host` then agrees with the page (DNS rebinding): where `public` is known it
/// counts only without a name. `scheme` is how the connection came; a proxy in front says more with `Forwarded` or
/// `X-Forwarded-Proto`. Subprotocols are taken in the client's order of preference.
///
/// # Errors
/// [`Refused`] says what to answer instead of 101.
pub fn check(
    door: Door,
    method: &Method,
    version: Version,
    headers: &HeaderMap,
    scheme: &Scheme,
    public: Option<&Uri>,
    allowed_origins: &[String],
) -> Result<Accepted, Refused> {
    if method != Method::GET {
        return Err(Refused::bad("a websocket begins with GET"));
    }
    if version != Version::HTTP_11 {
        return Err(Refused::bad("a websocket begins with HTTP/1.1"));
    }
    if !headers.contains_key(HOST) {
        return Err(Refused::bad("the Host header is missing"));
    }
    if !has_token(headers, &UPGRADE, "websocket") {
        return Err(Refused::bad("the Upgrade header does not name websocket"));
    }
    if !has_token(headers, &CONNECTION, "upgrade") {
        return Err(Refused::bad("the Connection header does not name Upgrade"));
    }
    if single(headers, &SEC_WEBSOCKET_VERSION) != Some("13") {
        return Err(Refused {
            status: StatusCode::UPGRADE_REQUIRED,
            header: Some((SEC_WEBSOCKET_VERSION, "13")),
            detail: "only version 13 of the websocket protocol is spoken",
        });
    }
    let key = single(headers, &SEC_WEBSOCKET_KEY)
        .filter(|key| STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16))
        .ok_or(Refused::bad("Sec-WebSocket-Key is not 16 bytes of base64"))?;
    let origin = match door.checks_origin() {
        true => foreign_origin(headers, scheme, public, allowed_origins)?,
        false => None,
    };
    let offers = tokens(headers, &SEC_WEBSOCKET_PROTOCOL).take(OFFERS_MAX);
    let (subprotocol, speech) = door.choose(offers).map_err(Refused::bad)?;
    Ok(Accepted {
        accept: accept_value(key),
        subprotocol,
        speech,
        origin: origin.map(str::to_owned),
    })
}

/// Computes `Sec-WebSocket-Accept` for a key as it stood in the request.
pub fn accept_value(key: &str) -> String {
    let mut context = ring::digest::Context::new(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key.as_bytes());
    context.update(GUID);
    STANDARD.encode(context.finish())
}

/// The page that a request comes from, when it is not of this server; it must be one that is allowed.
fn foreign_origin<'a>(
    headers: &'a HeaderMap,
    scheme: &Scheme,
    public: Option<&Uri>,
    allowed: &[String],
) -> Result<Option<&'a str>, Refused> {
    if !headers.contains_key(ORIGIN) {
        return Ok(None);
    }
    let origin = single(headers, &ORIGIN);
    let is_own = |origin: &str| {
        origin
            .parse()
            .is_ok_and(|origin| is_own_origin(&origin, headers, scheme, public))
    };
    if origin.is_some_and(is_own) {
        return Ok(None);
    }
    match origin {
        Some(origin) if allowed.iter().any(|one| one == "*" || one == origin) => Ok(Some(origin)),
        _ => Err(Refused {
            status: StatusCode::FORBIDDEN,
            header: None,
            detail: "this origin is not in the configured list",
        }),
    }
}

/// Whether an origin is this server's, as it is known or as the request names it.
fn is_own_origin(origin: &Uri, headers: &HeaderMap, scheme: &Scheme, public: Option<&Uri>) -> bool {
    let Some(public) = public else {
        return is_where_asked(origin, headers, scheme);
    };
    let host = |of: &Uri| of.host().map(str::to_ascii_lowercase);
    let same = origin.scheme() == public.scheme()
        && host(origin) == host(public)
        && port_of(origin) == port_of(public)
        && origin
            .authority()
            .is_some_and(|by| !by.as_str().contains('@'));
    same || (is_nameless(origin) && is_where_asked(origin, headers, scheme))
}

/// Whether it is an address, or this machine: nobody can let these lead elsewhere.
fn is_nameless(origin: &Uri) -> bool {
    let host = origin.host().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

fn port_of(of: &Uri) -> u16 {
    let usual = if of.scheme() == Some(&Scheme::HTTPS) {
        443
    } else {
        80
    };
    of.port_u16().unwrap_or(usual)
}

/// Whether an origin names this server as the request does. Where TLS is spoken, a page without it is another origin (RFC
/// 6454 section 5); where it is not seen here, a proxy may speak it.
fn is_where_asked(origin: &Uri, headers: &HeaderMap, scheme: &Scheme) -> bool {
    let host = single(headers, &HOST).and_then(|host| host.parse::<Authority>().ok());
    let (Some(page), Some(by), Some(host)) = (origin.scheme(), origin.authority(), host) else {
        return false;
    };
    let secured = *scheme == Scheme::HTTPS || is_forwarded_from_tls(headers);
    if *page != Scheme::HTTPS && (*page != Scheme::HTTP || secured) {
        return false;
    }
    let usual = if *page == Scheme::HTTPS { 443 } else { 80 };
    let port = |at: &Authority| at.port_u16().unwrap_or(usual);
    !by.as_str().contains('@')
        && by.host().eq_ignore_ascii_case(host.host())
        && port(by) == port(&host)
}

/// Whether the proxy next to the client says that it was reached over TLS (RFC 7239, or the older header).
fn is_forwarded_from_tls(headers: &HeaderMap) -> bool {
    let older = tokens(headers, &HeaderName::from_static("x-forwarded-proto")).next();
    let first = tokens(headers, &FORWARDED).next();
    let mut pairs = first.iter().flat_map(|element| element.split(';'));
    let forwarded = pairs.find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("proto")
            .then(|| value.trim().trim_matches('"'))
    });
    [older, forwarded]
        .into_iter()
        .flatten()
        .any(|proto| proto.eq_ignore_ascii_case("https"))
}

/// The only value of a header; nothing when it is repeated or not text.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?.trim();
    values.next().is_none().then_some(value)
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|one| one.eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const GOOD: &[(&str, &str)] = &[
        ("host", "example.com"),
        ("upgrade", "WebSocket"),
        ("connection", "keep-alive, upgrade"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
        (
            "sec-websocket-protocol",
            "other, hongyan.v1+cbor, hongyan.v1+json",
        ),
    ];

    fn ask(change: &[(&'static str, &str)]) -> Result<Accepted, Refused> {
        let mut headers = HeaderMap::new();
        for (name, value) in GOOD {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        for (name, value) in change {
            headers.remove(*name);
            if !value.is_empty() {
                headers.insert(*name, HeaderValue::from_str(value).unwrap());
            }
        }
        check(
            Door::Hongyan,
            &Method::GET,
            Version::HTTP_11,
            &headers,
            &Scheme::HTTP,
            None,
            &["https://a.example".to_owned()],
        )
    }

    fn refused(change: &[(&'static str, &str)], status: u16) {
        assert_eq!(ask(change).unwrap_err().status, status, "{change:?}");
    }

    #[test]
    fn ws_1_opening_handshake() {
        // The key and value of RFC 6455 section 1.3.
        let accepted = ask(&[]).unwrap();
        assert_eq!(accepted.accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(
            accepted.subprotocol,
            Some("hongyan.v1+cbor"),
            "the client's preference"
        );
        let refusal = ask(&[("sec-websocket-version", "8")]).unwrap_err();
        assert_eq!(refusal.status, 426);
        assert_eq!(refusal.header, Some((SEC_WEBSOCKET_VERSION, "13")));
        refused(&[("sec-websocket-key", "MTIzNDU2Nzg5MDEyMzQ1")], 400); // 15 bytes
        refused(&[("sec-websocket-key", "not base64")], 400);
        refused(&[("sec-websocket-key", "")], 400);
        refused(&[("host", "")], 400);
        refused(&[("upgrade", "h2c")], 400);
        refused(&[("connection", "close")], 400);
    }

    #[test]
    fn subprotocol_is_offered_and_known() {
        refused(&[("sec-websocket-protocol", "")], 400);
        refused(&[("sec-websocket-protocol", "mqtt")], 400);
        let json = ask(&[("sec-websocket-protocol", "hongyan.v1+json")]).unwrap();
        assert_eq!(json.speech, Speech::Hongyan(Encoding::Json));
    }

    #[test]
    fn origin_is_listed_or_absent() {
        assert!(ask(&[("origin", "https://a.example")]).is_ok());
        refused(&[("origin", "https://b.example")], 403);
        refused(&[("origin", "null")], 403);
    }

    #[test]
    fn the_own_origin_needs_no_list_behind_any_door() {
        let own = |door: Door, scheme: Scheme, change: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            let offers = ("sec-websocket-protocol", "hongyan.v1+json, mqtt, xmpp");
            for (name, value) in GOOD.iter().chain([&offers]).chain(change) {
                headers.insert(*name, HeaderValue::from_str(value).unwrap());
            }
            let version = Version::HTTP_11;
            let accepted = check(door, &Method::GET, version, &headers, &scheme, None, &[]);
            accepted.is_ok_and(|accepted| accepted.origin.is_none())
        };
        for door in [Door::Hongyan, Door::Mqtt, Door::Xmpp] {
            let at =
                |scheme, host, origin| own(door, scheme, &[("host", host), ("origin", origin)]);
            let (plain, tls) = (|| Scheme::HTTP, || Scheme::HTTPS);
            assert!(at(plain(), "a.example", "http://a.example"));
            assert!(at(plain(), "a.example:7400", "http://A.example:7400"));
            assert!(at(plain(), "a.example:80", "http://a.example"));
            assert!(at(tls(), "a.example", "https://a.example:443"));
            assert!(at(plain(), "[::1]:7400", "http://[::1]:7400"));
            assert!(
                at(plain(), "a.example", "https://a.example"),
                "behind a proxy"
            );
            assert!(
                !at(tls(), "a.example", "http://a.example"),
                "a page without TLS"
            );
            assert!(!at(plain(), "a.example", "http://a.example:81"));
            assert!(!at(plain(), "a.example:7400", "http://a.example"));
            assert!(!at(plain(), "a.example", "http://b.example"));
            assert!(!at(plain(), "a.example", "http://x@a.example"));
            assert!(!at(plain(), "a.example", "null"));
            assert!(!at(plain(), "a.example", "app://a.example"));
            let page = [("host", "a.example"), ("origin", "http://a.example")];
            for said in [
                ("x-forwarded-proto", "https"),
                (
                    "forwarded",
                    "for=192.0.2.1;proto=\"https\", for=10.0.0.1;proto=http",
                ),
            ] {
                let [host, origin] = page;
                assert!(!own(door, plain(), &[host, origin, said]), "{said:?}");
            }
        }
    }

    /// A page of a name that was let to lead here has it in `Host` too.
    #[test]
    fn where_the_own_address_is_known_a_host_of_another_name_does_not_count() {
        let own = |public: &'static str, host: &str, origin: &str| {
            let public = Uri::from_static(public);
            let mut headers = HeaderMap::new();
            let change = [("host", host), ("origin", origin)];
            for (name, value) in GOOD.iter().copied().chain(change) {
                headers.insert(name, HeaderValue::from_str(value).unwrap());
            }
            let (get, version) = (Method::GET, Version::HTTP_11);
            let public = Some(&public);
            let accepted = check(
                Door::Hongyan,
                &get,
                version,
                &headers,
                &Scheme::HTTP,
                public,
                &[],
            );
            accepted.is_ok_and(|accepted| accepted.origin.is_none())
        };
        let root = "https://push.example";
        assert!(!own(root, "evil.example:7400", "http://evil.example:7400"));
        assert!(own(root, "push.example", "https://Push.example"));
        assert!(own(root, "push.example", "https://push.example:443"));
        // A proxy in front may ask by another name than the page did.
        assert!(own(root, "inside:7400", "https://push.example"));
        assert!(!own(root, "push.example", "http://push.example"));
        assert!(!own(root, "push.example", "https://push.example:8443"));
        assert!(!own(root, "push.example", "https://x@push.example"));
        assert!(!own(root, "push.example", "null"));
        let base = "http://push.example:7400/base";
        assert!(own(base, "push.example:7400", "http://push.example:7400"));
        // Addresses and this machine lead nowhere else.
        for host in ["10.0.0.5:7400", "[::1]:7400", "localhost:7400"] {
            assert!(own(root, host, &format!("http://{host}")), "{host}");
            assert!(!own(root, "push.example", &format!("http://{host}")));
        }
        assert!(!own(
            root,
            "10.0.0.5.evil.example",
            "http://10.0.0.5.evil.example"
        ));
    }

    #[test]
    fn only_get_over_http_1_1() {
        let headers = HeaderMap::new();
        for (method, version) in [
            (Method::POST, Version::HTTP_11),
            (Method::GET, Version::HTTP_10),
        ] {
            let refusal = check(
                Door::Hongyan,
                &method,
                version,
                &headers,
                &Scheme::HTTP,
                None,
                &[],
            )
            .unwrap_err();
            assert_eq!(refusal.status, 400);
        }
    }
}
