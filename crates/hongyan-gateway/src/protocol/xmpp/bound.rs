//! A stream that has a session: from bind or resumption to what is kept of it.

use std::sync::Arc;

use hongyan_core::port::Reader;
use hongyan_core::{MessageId, SessionId, Timestamp, UserId};

use super::deliver::{Held, Pings};
use super::jid;
use super::machine::{Host, Machine};
use super::party::Peer;
use super::sm::{Kept, Sm, hex};
use super::xml::{Element, escape, ns};
use crate::protocol::websocket::close;

/// Elements that may come while the session is being made.
const EARLY_MAX: usize = 16;

/// A bound stream.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) reader: Arc<Reader>,
    pub(super) session: SessionId,
    pub(super) domain: Box<str>,
    pub(super) resource: Arc<str>,
    pub(super) since: Timestamp,
    /// What its presence said; nothing before the first one.
    pub(super) priority: Option<i8>,
    pub(super) carbons: bool,
    pub(super) inactive: bool,
    /// Acknowledges what is sent, from when it was enabled.
    pub(super) sm: Option<Box<Sm>>,
    /// Acknowledges what was sent before.
    pub(super) pings: Pings,
    /// Entries that a resumption acknowledged and the first page may still have.
    pub(super) skip: Vec<MessageId>,
    pub(super) held: Vec<Held>,
}

impl Live {
    pub(super) fn bare(&self) -> String {
        bare(&self.reader, &self.domain)
    }

    pub(super) fn full(&self) -> String {
        format!("{}/{}", self.bare(), self.resource)
    }

    pub(super) fn takes_entries(&self) -> bool {
        self.priority.is_some_and(|priority| priority >= 0)
    }
}

/// The bare JID of an account.
fn bare(reader: &Reader, domain: &str) -> String {
    let user = reader.user.as_ref().map_or("", UserId::as_str);
    format!("{}@{domain}", jid::escape(user))
}

impl Machine {
    /// The session is up.
    pub(crate) fn welcome(
        &mut self,
        session: SessionId,
        reader: &Arc<Reader>,
        host: &mut dyn Host,
    ) {
        let Some(login) = &mut self.login else { return };
        let early = login.welcomed(session, reader);
        self.begin(host);
        for element in early {
            if self.closed {
                return;
            }
            if self.live.is_some() {
                self.hear_live(element, host);
            } else {
                self.hear_login(element, host);
            }
        }
    }

    /// Carries out what waits for the session: a resumption, or a bind.
    pub(super) fn begin(&mut self, host: &mut dyn Host) {
        let Some(login) = &mut self.login else { return };
        let Some((session, reader)) = login.session.clone() else {
            return;
        };
        let kept = host.parked().or(login.kept.take());
        if let Some((previd, h)) = login.resume.take() {
            return self.resume(session, reader, &previd, h, kept, host);
        }
        let Some((iq, resource)) = login.bind.take() else {
            login.kept = kept;
            return;
        };
        let mut live = Live {
            resource: resource
                .unwrap_or_else(|| reader.device.as_str().to_owned())
                .into(),
            domain: login.domain.as_str().into(),
            reader,
            session,
            since: host.now(),
            priority: None,
            carbons: false,
            inactive: false,
            sm: None,
            pings: Pings::default(),
            skip: Vec::new(),
            held: Vec::new(),
        };
        self.enter(&mut live, host);
        let full = live.full();
        self.live = Some(Box::new(live));
        self.login = None;
        host.write(&format!(
            "<iq xmlns='{}' type='result' id='{}'><bind xmlns='{}'><jid>{}</jid></bind></iq>",
            ns::CLIENT,
            escape(&iq),
            ns::BIND,
            escape(&full)
        ));
    }

    fn enter(&self, live: &mut Live, host: &dyn Host) {
        let mut suffix = [0; 3];
        host.random(&mut suffix);
        let peer = Peer {
            session: live.session,
            resource: Arc::clone(&live.resource),
            priority: live.priority,
            carbons: live.carbons,
        };
        if let Some(resource) = self.shared.party.enter(&live.reader, peer, &hex(&suffix)) {
            live.resource = resource;
        }
    }

    fn resume(
        &mut self,
        session: SessionId,
        reader: Arc<Reader>,
        previd: &str,
        h: u32,
        kept: Option<Box<Kept>>,
        host: &mut dyn Host,
    ) {
        let domain = self.login.as_ref().map_or("", |login| &login.domain);
        let bare = bare(&reader, domain);
        let is_named = |kept: &Kept| {
            let id = kept.sm.id.as_ref();
            *kept.bare == bare && id.is_some_and(|id| hex(id) == previd)
        };
        let (mine, other) = match kept {
            Some(kept) if is_named(&kept) => (Some(kept), None),
            other => (None, other),
        };
        let age = mine.as_ref().map(|kept| host.now().since(kept.since));
        let max = std::time::Duration::from_secs(u64::from(self.shared.resume_s));
        let (Some(mut kept), Some(age)) = (mine, age) else {
            // The right id may follow on the same stream.
            if let Some(login) = &mut self.login {
                login.kept = other;
            }
            host.write(&failed("item-not-found", None));
            return;
        };
        if age > max {
            host.write(&failed("item-not-found", Some(kept.sm.handled)));
            return;
        }
        let had = match kept.sm.acked(h) {
            Ok(had) => had,
            Err(too_high) => return self.too_high(h, too_high.sent, host),
        };
        let Some(login) = self.login.take() else {
            return;
        };
        let again = kept.sm.resend();
        let mut live = Live {
            resource: kept.resource.as_ref().into(),
            domain: login.domain.as_str().into(),
            reader,
            session,
            since: host.now(),
            priority: kept.priority,
            carbons: kept.carbons,
            inactive: false,
            sm: None,
            pings: Pings::default(),
            skip: had.clone(),
            held: Vec::new(),
        };
        self.enter(&mut live, host);
        host.write(&format!(
            "<resumed xmlns='{}' previd='{}' h='{}'/>",
            ns::SM,
            escape(previd),
            kept.sm.handled
        ));
        live.sm = Some(Box::new(kept.sm));
        self.live = Some(Box::new(live));
        if !had.is_empty() {
            host.ack(had);
        }
        for stanza in again {
            self.stanza(stanza.into(), host);
        }
        self.ask(host);
        host.want();
    }

    pub(super) fn too_high(&mut self, h: u32, sent: u32, host: &mut dyn Host) {
        let more = format!(
            "<handled-count-too-high xmlns='{}' h='{h}' send-count='{sent}'/>",
            ns::SM
        );
        self.fail_with("undefined-condition", &more, "", host);
        host.close(close::BAD_MESSAGE, "handled-count-too-high", "");
    }

    /// The connection is over.
    pub(crate) fn park(&mut self, clean: bool, now: Timestamp) -> Option<Box<Kept>> {
        let live = self.live.take()?;
        self.shared.party.leave(&live.reader, live.session);
        let (bare, live) = (live.bare(), *live);
        let sm = live.sm?;
        if clean || !sm.is_resumable() {
            return None;
        }
        Some(Box::new(Kept {
            bare: bare.into(),
            sm: *sm,
            resource: live.resource.as_ref().into(),
            priority: live.priority,
            carbons: live.carbons,
            since: now,
        }))
    }

    /// The device's user changed: its address did, so its client has to log in again.
    pub(crate) fn rebound(&mut self, host: &mut dyn Host) {
        if let Some(live) = &mut self.live
            && let Some(sm) = &mut live.sm
        {
            sm.id = None;
        }
        self.fail_with("reset", "", "the device's user changed; log in again", host);
        host.close(
            close::RESTART,
            "binding_changed",
            "the device's user changed",
        );
    }

    /// An element that came while the session is being made.
    pub(super) fn keep_early(&mut self, element: Element, host: &mut dyn Host) {
        match &mut self.login {
            Some(login) if login.early.len() < EARLY_MAX => login.early.push(element),
            _ => self.fail("policy-violation", "too much before the answer", host),
        }
    }
}

/// A refusal of stream management.
pub(super) fn failed(condition: &str, h: Option<u32>) -> String {
    let h = h.map_or(String::new(), |h| format!(" h='{h}'"));
    format!(
        "<failed xmlns='{}'{h}><{condition} xmlns='{}'/></failed>",
        ns::SM,
        ns::STANZA_ERRORS
    )
}
