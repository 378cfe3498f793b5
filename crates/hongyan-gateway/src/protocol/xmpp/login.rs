//! From the features of a stream to its session: STARTTLS, SASL, and the choice between a new
//! resource and an old session.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hongyan_core::device::ScramKeys;
use hongyan_core::port::Reader;
use hongyan_core::{AppId, SessionId, UserId};

use super::bound::failed;
use super::jid;
use super::machine::{Account, Ground, Host, Machine, Query};
use super::scram::{DEVICES_MAX, Exchange, Failure, First, Hash};
use super::sm::Kept;
use super::stanza::error_to;
use super::xml::{Element, ns};
use crate::protocol::websocket::close;

/// Failed logins on one stream.
const FAILURES_MAX: u8 = 5;
/// Longest resource that a client may ask for, bytes.
const RESOURCE_BYTES_MAX: usize = 256;

/// What only a stream without a resource needs.
#[derive(Debug)]
pub(super) struct Login {
    /// `tls-exporter` of the channel.
    binding: Option<[u8; 32]>,
    pub(super) domain: String,
    app: Option<AppId>,
    account: Option<Account>,
    sasl: Sasl,
    try_no: u8,
    failures: u8,
    /// The session that waits for a resource.
    pub(super) session: Option<(SessionId, Arc<Reader>)>,
    pub(super) bind: Option<(String, Option<String>)>,
    pub(super) resume: Option<(String, u32)>,
    pub(super) kept: Option<Box<Kept>>,
    pub(super) early: Vec<Element>,
    asked: bool,
}

#[derive(Debug, Default)]
enum Sasl {
    #[default]
    Idle,
    /// The mechanism was chosen; the client's first message is awaited.
    Chosen(Mechanism),
    /// The registry was asked.
    Plain(UserId),
    First(Box<First>, Hash),
    /// The client's proof is awaited.
    Proof(Box<Exchange>, Vec<Account>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mechanism {
    Plain,
    Scram(Hash, bool),
}

impl Mechanism {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "PLAIN" => Self::Plain,
            "SCRAM-SHA-1" => Self::Scram(Hash::Sha1, false),
            "SCRAM-SHA-1-PLUS" => Self::Scram(Hash::Sha1, true),
            "SCRAM-SHA-256" => Self::Scram(Hash::Sha256, false),
            "SCRAM-SHA-256-PLUS" => Self::Scram(Hash::Sha256, true),
            _ => return None,
        })
    }
}

impl Login {
    pub(super) fn new(binding: Option<[u8; 32]>) -> Self {
        Self {
            binding,
            domain: String::new(),
            app: None,
            account: None,
            sasl: Sasl::Idle,
            try_no: 0,
            failures: 0,
            session: None,
            bind: None,
            resume: None,
            kept: None,
            early: Vec::new(),
            asked: false,
        }
    }

    /// Notes whom the header was for; false when it was for somebody else before the login.
    pub(super) fn set_host(&mut self, domain: String, app: Option<AppId>) -> bool {
        if self.account.is_some() {
            return self.domain == domain;
        }
        self.domain = domain;
        self.app = app;
        true
    }

    pub(super) fn welcomed(&mut self, session: SessionId, reader: &Arc<Reader>) -> Vec<Element> {
        self.session = Some((session, Arc::clone(reader)));
        self.asked = false;
        std::mem::take(&mut self.early)
    }
}

impl Machine {
    /// Offers what comes next.
    pub(super) fn offer(&mut self, host: &mut dyn Host) {
        let Some(login) = &self.login else { return };
        let inner = if self.ground == Ground::Plain {
            format!("<starttls xmlns='{}'><required/></starttls>", ns::TLS)
        } else if login.account.is_none() {
            let mut list = String::new();
            let offered: &[&str] = match login.binding {
                Some(_) => &["SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS"],
                None => &[],
            };
            for name in offered
                .iter()
                .chain(&["SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN"])
            {
                list.push_str("<mechanism>");
                list.push_str(name);
                list.push_str("</mechanism>");
            }
            let binding = match login.binding {
                Some(_) => format!(
                    "<sasl-channel-binding xmlns='{}'><channel-binding type='tls-exporter'/></sasl-channel-binding>",
                    ns::SASL_CB
                ),
                None => String::new(),
            };
            format!(
                "<mechanisms xmlns='{}'>{list}</mechanisms>{binding}",
                ns::SASL
            )
        } else {
            format!(
                "<bind xmlns='{}'/><session xmlns='{}'><optional/></session><sm xmlns='{}'/><csi xmlns='{}'/>",
                ns::BIND,
                ns::SESSION,
                ns::SM,
                ns::CSI
            )
        };
        host.write(&format!(
            "<stream:features xmlns:stream='{}'>{inner}</stream:features>",
            ns::STREAMS
        ));
    }

    pub(super) fn hear_login(&mut self, element: Element, host: &mut dyn Host) {
        let Some(login) = &mut self.login else { return };
        if self.ground == Ground::Plain {
            if element.is(ns::TLS, "starttls") {
                host.write(&format!("<proceed xmlns='{}'/>", ns::TLS));
                self.ground = Ground::Tcp;
                self.restart();
                host.starttls();
            } else if element.ns == ns::SASL {
                host.write(&failure(Failure::EncryptionRequired));
                self.failed_login(host);
            } else {
                self.fail("not-authorized", "TLS comes first", host);
            }
            return;
        }
        if login.account.is_none() {
            if element.ns == ns::SASL {
                return self.sasl(&element, host);
            }
            if element.ns == ns::SM {
                return host.write(&failed("unexpected-request", None));
            }
            return self.fail("not-authorized", "log in first", host);
        }
        if login.asked {
            return self.keep_early(element, host);
        }
        if element.is(ns::SM, "resume") {
            let h = element.attribute("h").and_then(|h| h.parse::<u32>().ok());
            let (Some(previd), Some(h)) = (element.attribute("previd"), h) else {
                return host.write(&failed("bad-request", None));
            };
            login.resume = Some((previd.to_owned(), h));
            return self.join(host);
        }
        if element.ns == ns::SM {
            return host.write(&failed("unexpected-request", None));
        }
        let bind = element.child(ns::BIND, "bind");
        let (true, Some(bind)) = (element.is(ns::CLIENT, "iq"), bind) else {
            return self.fail("not-authorized", "bind a resource first", host);
        };
        let (Some(id), Some("set")) = (element.attribute("id"), element.attribute("type")) else {
            return host.write(&error_to(&element, None, "modify", "bad-request"));
        };
        let resource = bind.child(ns::BIND, "resource").map(Element::text);
        let resource = resource.filter(|resource| !resource.is_empty());
        if resource
            .as_ref()
            .is_some_and(|r| r.len() > RESOURCE_BYTES_MAX || r.contains(char::is_control))
        {
            return host.write(&error_to(&element, None, "modify", "bad-request"));
        }
        login.bind = Some((id.to_owned(), resource));
        self.join(host);
    }

    fn join(&mut self, host: &mut dyn Host) {
        let Some(login) = &mut self.login else { return };
        if login.session.is_some() {
            return self.begin(host);
        }
        if let Some(account) = &login.account {
            login.asked = true;
            host.hello(account);
        }
    }

    fn sasl(&mut self, element: &Element, host: &mut dyn Host) {
        let Some(login) = &mut self.login else { return };
        let busy = matches!(login.sasl, Sasl::Plain(_) | Sasl::First(..));
        let done = match (element.name.as_str(), busy) {
            ("abort", _) => Err(Failure::Aborted),
            (_, true) => Err(Failure::MalformedRequest),
            ("auth", _) => {
                let name = element.attribute("mechanism").unwrap_or_default();
                let mechanism = Mechanism::named(name).filter(|mechanism| {
                    login.binding.is_some() || !matches!(mechanism, Mechanism::Scram(_, true))
                });
                match (mechanism, element.text().trim()) {
                    (None, _) => Err(Failure::InvalidMechanism),
                    (Some(mechanism), "") => {
                        login.sasl = Sasl::Chosen(mechanism);
                        host.write(&format!("<challenge xmlns='{}'/>", ns::SASL));
                        Ok(())
                    }
                    (Some(mechanism), text) => login.first(mechanism, text, host),
                }
            }
            ("response", _) => match std::mem::take(&mut login.sasl) {
                Sasl::Chosen(mechanism) => login.first(mechanism, element.text().trim(), host),
                Sasl::Proof(exchange, accounts) => {
                    return self.prove(&exchange, accounts, element.text().trim(), host);
                }
                _ => Err(Failure::MalformedRequest),
            },
            _ => Err(Failure::MalformedRequest),
        };
        if let Err(error) = done {
            self.refuse(error, host);
        }
    }

    fn prove(
        &mut self,
        exchange: &Exchange,
        mut accounts: Vec<Account>,
        text: &str,
        host: &mut dyn Host,
    ) {
        let Some(login) = &mut self.login else { return };
        let keys: Vec<&ScramKeys> = accounts.iter().filter_map(|a| a.keys.as_deref()).collect();
        let binding = login.binding.as_ref().map(<[u8; 32]>::as_slice);
        let done =
            decode(text).and_then(|message| exchange.finish(&message, binding, keys.into_iter()));
        match done {
            Ok((place, proof)) if place < accounts.len() => {
                let account = accounts.swap_remove(place);
                self.succeed(account, &proof, host);
            }
            Ok(_) => self.refuse(Failure::NotAuthorized, host),
            Err(error) => self.refuse(error, host),
        }
    }

    fn succeed(&mut self, account: Account, proof: &str, host: &mut dyn Host) {
        let Some(login) = &mut self.login else { return };
        login.sasl = Sasl::Idle;
        login.account = Some(account);
        let proof = STANDARD.encode(proof);
        host.write(&format!("<success xmlns='{}'>{proof}</success>", ns::SASL));
        self.restart();
    }

    fn refuse(&mut self, error: Failure, host: &mut dyn Host) {
        if let Some(login) = &mut self.login {
            login.sasl = Sasl::Idle;
            login.try_no = login.try_no.wrapping_add(1);
        }
        host.write(&failure(error));
        self.failed_login(host);
    }

    fn failed_login(&mut self, host: &mut dyn Host) {
        let Some(login) = &mut self.login else { return };
        login.failures += 1;
        if login.failures >= FAILURES_MAX {
            self.fail_with("policy-violation", "", "too many failed logins", host);
            host.close(
                close::UNAUTHORIZED,
                "too_many_failures",
                "too many failed logins",
            );
        }
    }

    /// TLS began.
    pub(super) fn bind_channel(&mut self, binding: Option<[u8; 32]>) {
        if let Some(login) = &mut self.login {
            login.binding = binding;
        }
    }

    /// The registry's answer got lost.
    pub(super) fn unanswered(&mut self, host: &mut dyn Host) {
        let busy = |login: &Login| matches!(login.sasl, Sasl::Plain(_) | Sasl::First(..));
        if self.login.as_deref().is_some_and(busy) {
            self.refuse(Failure::Temporary, host);
        }
    }

    /// The registry answered a login.
    pub(super) fn accounts(
        &mut self,
        try_no: u8,
        app: Option<AppId>,
        accounts: Option<Vec<Account>>,
        host: &mut dyn Host,
    ) {
        let Some(login) = &mut self.login else { return };
        if try_no != login.try_no || self.closed {
            return;
        }
        let sasl = std::mem::take(&mut login.sasl);
        let Some(mut accounts) = accounts else {
            return self.refuse(Failure::Temporary, host);
        };
        accounts.truncate(DEVICES_MAX);
        match sasl {
            Sasl::Plain(user) => {
                let wanted = login.app.as_ref();
                let found = accounts.into_iter().find(|account| {
                    let named =
                        account.user.as_str().to_lowercase() == user.as_str().to_lowercase();
                    named && wanted.is_none_or(|app| *app == account.app)
                });
                match found {
                    Some(account) => self.succeed(account, "", host),
                    None => self.refuse(Failure::NotAuthorized, host),
                }
            }
            Sasl::First(first, hash) => {
                let mut nonce = [0; 18];
                host.random(&mut nonce);
                let nonce = STANDARD.encode(nonce);
                let name = app.as_ref().map_or("", AppId::as_str);
                let salt = ScramKeys::salt(name);
                accounts.retain(|account| account.keys.is_some());
                let exchange = first.answer(hash, &nonce, &salt, ScramKeys::ITERATIONS);
                let text = STANDARD.encode(&exchange.server_first);
                host.write(&format!(
                    "<challenge xmlns='{}'>{text}</challenge>",
                    ns::SASL
                ));
                login.sasl = Sasl::Proof(Box::new(exchange), accounts);
            }
            other => login.sasl = other,
        }
    }
}

impl Login {
    /// Takes the client's first message.
    fn first(
        &mut self,
        mechanism: Mechanism,
        text: &str,
        host: &mut dyn Host,
    ) -> Result<(), Failure> {
        let message = decode(text)?;
        let try_no = self.try_no;
        let query = match mechanism {
            Mechanism::Plain => {
                let text = std::str::from_utf8(&message).map_err(|_| Failure::IncorrectEncoding)?;
                let parts: Vec<&str> = text.split('\0').collect();
                let [authzid, user, token] = parts[..] else {
                    return Err(Failure::MalformedRequest);
                };
                let user = self.user(user)?;
                if !authzid.is_empty() {
                    self.check_authzid(authzid, &user)?;
                }
                let digest = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
                let hash = digest
                    .as_ref()
                    .try_into()
                    .map_err(|_| Failure::MalformedRequest)?;
                self.sasl = Sasl::Plain(user);
                Query::Token { try_no, hash }
            }
            Mechanism::Scram(hash, plus) => {
                let first = First::parse(&message, plus, self.binding.is_some())?;
                let user = self.user(&first.user)?;
                if let Some(authzid) = &first.authzid {
                    self.check_authzid(authzid, &user)?;
                }
                self.sasl = Sasl::First(Box::new(first), hash);
                let app = self.app.clone();
                Query::User { try_no, app, user }
            }
        };
        if host.ask(query) {
            Ok(())
        } else {
            Err(Failure::Temporary)
        }
    }

    /// The user that a name means: a user id, or one as the local part of an address.
    fn user(&self, name: &str) -> Result<UserId, Failure> {
        let suffix = format!("@{}", self.domain);
        let local = name.strip_suffix(&suffix).unwrap_or(name);
        UserId::parse(&jid::unescape(local)).map_err(|_| Failure::NotAuthorized)
    }

    fn check_authzid(&self, authzid: &str, user: &UserId) -> Result<(), Failure> {
        match self.user(authzid) {
            Ok(named) if named == *user => Ok(()),
            _ => Err(Failure::InvalidAuthzid),
        }
    }
}

fn decode(text: &str) -> Result<Vec<u8>, Failure> {
    match text {
        "=" => Ok(Vec::new()),
        text => STANDARD
            .decode(text)
            .map_err(|_| Failure::IncorrectEncoding),
    }
}

fn failure(error: Failure) -> String {
    format!(
        "<failure xmlns='{}'><{}/></failure>",
        ns::SASL,
        error.as_str()
    )
}
