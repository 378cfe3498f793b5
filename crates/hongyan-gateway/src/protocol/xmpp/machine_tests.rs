//! The clauses XM-1 to XM-17 on the machine itself: no socket, no store, no clock.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hongyan_core::message::{Notification, Options, Target};
use hongyan_core::port::Reader;
use hongyan_core::{Class, Cursor, Message};

use super::super::XmppOptions;
use super::super::deliver::Took;
use super::super::scram::{Hash, derive, prove};
use super::super::sm::Sm;
use super::*;

const TOKEN: &[u8] = b"hy_dt_secret";
const OPEN: &str = "<?xml version='1.0'?><stream:stream to='localhost' xmlns='jabber:client' \
                    xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>";

/// What a stream lives on, for tests.
#[derive(Debug, Default)]
struct Fake {
    now: i64,
    out: Vec<String>,
    asked: Vec<Query>,
    hello: bool,
    parked: Option<Box<Kept>>,
    acked: Vec<MessageId>,
    events: Vec<(MessageId, Stage)>,
    states: Vec<AppState>,
    said: Vec<String>,
    wanted: usize,
    told: Vec<(SessionId, String)>,
    secured: bool,
    closed: Option<u16>,
    ended: bool,
    full: bool,
    drawn: std::cell::Cell<u8>,
}

impl Host for Fake {
    fn now(&self) -> Timestamp {
        Timestamp(self.now)
    }
    fn has_room(&mut self, _bytes: usize) -> bool {
        !self.full
    }
    fn write(&mut self, text: &str) {
        self.out.push(text.to_owned());
    }
    fn ask(&mut self, query: Query) -> bool {
        self.asked.push(query);
        true
    }
    fn hello(&mut self, _account: &Account) {
        self.hello = true;
    }
    fn parked(&mut self) -> Option<Box<Kept>> {
        self.parked.take()
    }
    fn ack(&mut self, ids: Vec<MessageId>) {
        self.acked.extend(ids);
    }
    fn event(&mut self, id: MessageId, stage: Stage) {
        self.events.push((id, stage));
    }
    fn said(&mut self, text: String) {
        self.said.push(text);
    }
    fn state(&mut self, state: AppState) {
        self.states.push(state);
    }
    fn want(&mut self) {
        self.wanted += 1;
    }
    fn spend(&mut self) -> bool {
        true
    }
    fn tell(&mut self, session: SessionId, copied: Copied) {
        self.told.push((session, copied.0));
    }
    fn starttls(&mut self) {
        self.secured = true;
    }
    fn close(&mut self, code: u16, _word: &'static str, _detail: &'static str) {
        self.closed.get_or_insert(code);
    }
    fn end(&mut self) {
        self.ended = true;
    }
    fn random(&self, bytes: &mut [u8]) {
        self.drawn.set(self.drawn.get().wrapping_add(1));
        bytes.fill(self.drawn.get());
    }
}

impl Fake {
    fn take(&mut self) -> String {
        std::mem::take(&mut self.out).concat()
    }
}

fn shared() -> Arc<Shared> {
    Arc::new(Shared {
        domain: XmppOptions::default().domain,
        resume_s: 300,
        party: Party::default(),
    })
}

fn account(user: &str) -> Account {
    Account {
        app: AppId::parse("demo").unwrap(),
        device: DeviceId::parse("phone").unwrap(),
        user: UserId::parse(user).unwrap(),
        secret_hash: [1; 32],
        keys: Some(Box::new(derive(
            TOKEN,
            &ScramKeys::salt("demo"),
            ScramKeys::ITERATIONS,
        ))),
    }
}

struct Client {
    machine: Machine,
    host: Fake,
}

impl Client {
    fn on(shared: &Arc<Shared>, ground: Ground, binding: Option<[u8; 32]>) -> Self {
        let machine = Machine::new(Arc::clone(shared), ground, binding);
        let host = Fake {
            now: 1_000_000,
            ..Fake::default()
        };
        Self { machine, host }
    }

    fn new() -> Self {
        Self::on(&shared(), Ground::Tcp, None)
    }

    /// Says something and answers what is said to it.
    fn say(&mut self, text: &str) -> String {
        if self.machine.ground == Ground::WebSocket {
            self.machine.hear_message(text.as_bytes(), &mut self.host);
        } else {
            self.machine.hear(text.as_bytes(), &mut self.host);
        }
        self.host.take()
    }

    fn answer(&mut self, found: Vec<Account>) -> String {
        let query = self.host.asked.pop().expect("something was asked");
        let (try_no, app) = match query {
            Query::Token { try_no, .. } => (try_no, None),
            Query::User { try_no, app, .. } => (try_no, app.or_else(|| AppId::parse("demo").ok())),
            Query::Push { .. } => panic!("{query:?}"),
        };
        let answer = Answer::Accounts {
            try_no,
            app,
            accounts: Some(found),
        };
        self.machine.told(answer, &mut self.host);
        self.host.take()
    }

    fn plain(&mut self, user: &str, found: Vec<Account>) -> String {
        let text = STANDARD.encode(format!("\0{user}\0hy_dt_secret"));
        let said = self.say(&format!(
            "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{text}</auth>"
        ));
        assert_eq!(said, "");
        self.answer(found)
    }

    fn scram(&mut self, name: &str, gs2: &str, channel: &[u8], token: &[u8]) -> String {
        let hash = if name.contains("256") {
            Hash::Sha256
        } else {
            Hash::Sha1
        };
        let bare = "n=alice,r=abcdef";
        let first = STANDARD.encode(format!("{gs2}{bare}"));
        let said = self.say(&format!(
            "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='{name}'>{first}</auth>"
        ));
        if said.contains("<failure") {
            return said;
        }
        let challenge = self.answer(vec![account("alice")]);
        let text = challenge.split('>').nth(1).unwrap();
        let text = STANDARD.decode(text.split('<').next().unwrap()).unwrap();
        let server_first = String::from_utf8(text).unwrap();
        let bound = [gs2.as_bytes(), channel].concat();
        let proof = STANDARD.encode(prove(hash, token, bare, &server_first, &bound));
        self.say(&format!(
            "<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{proof}</response>"
        ))
    }

    fn logged_in(shared: &Arc<Shared>) -> Self {
        let mut client = Self::on(shared, Ground::Tcp, None);
        client.say(OPEN);
        assert!(
            client
                .plain("alice", vec![account("alice")])
                .contains("<success")
        );
        assert!(client.say(OPEN).contains("xmpp-bind"));
        client
    }

    fn reader() -> Arc<Reader> {
        Arc::new(Reader {
            app: AppId::parse("demo").unwrap(),
            device: DeviceId::parse("phone").unwrap(),
            user: UserId::parse("alice").ok(),
        })
    }

    fn welcome(&mut self, session: u64) -> String {
        assert!(std::mem::take(&mut self.host.hello));
        let (session, reader) = (SessionId(session), Self::reader());
        self.machine.welcome(session, &reader, &mut self.host);
        self.host.take()
    }

    fn bound(shared: &Arc<Shared>, session: u64, resource: &str) -> Self {
        let mut client = Self::logged_in(shared);
        let bind = format!(
            "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>{resource}</resource></bind></iq>"
        );
        assert_eq!(client.say(&bind), "");
        client.welcome(session);
        client
    }

    fn live() -> Self {
        let mut client = Self::bound(&shared(), 1, "r");
        client.say("<presence/>");
        client
    }

    fn managed(shared: &Arc<Shared>, session: u64) -> (Self, String) {
        let mut client = Self::bound(shared, session, "r");
        let said = client.say("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
        let id = said.split("id='").nth(1).unwrap();
        let id = id.split('\'').next().unwrap().to_owned();
        client.say("<presence/>");
        client.say("<a xmlns='urn:xmpp:sm:3' h='1'/>");
        (client, id)
    }

    fn send(&mut self, message: &Arc<Message>, dup: bool) -> (Took, String) {
        let took = self.machine.send(message, place(), dup, &mut self.host);
        (took, self.host.take())
    }

    fn sent(&mut self) -> String {
        self.machine.sent(&mut self.host);
        self.host.take()
    }
}

fn place() -> Cursor {
    Cursor {
        epoch: 1,
        reader: 1,
        user: 1,
        device: 1,
        broadcast: 1,
    }
}

fn message(n: u32, class: Class) -> Arc<Message> {
    Arc::new(Message {
        push: None,
        recalls: None,
        id: MessageId::parse(&format!("{n:032x}")).unwrap(),
        app: AppId::parse("demo").unwrap(),
        to: Target::Users(vec![UserId::parse("alice").unwrap()]),
        class,
        class_detail: None,
        notification: Some(Notification {
            title: format!("title {n}"),
            body: "a < b".into(),
            ..Notification::default()
        }),
        data: None,
        options: Options::default(),
        accepted_at: Timestamp(1_000_000),
        expires_at: Timestamp(2_000_000),
    })
}

#[test]
fn xm_01_logins() {
    for (name, gs2) in [
        ("SCRAM-SHA-256", "n,,"),
        ("SCRAM-SHA-1", "n,,"),
        ("SCRAM-SHA-256", "y,,"),
    ] {
        let mut client = Client::new();
        let offer = client.say(OPEN);
        assert!(offer.contains("<mechanism>SCRAM-SHA-256</mechanism>") && !offer.contains("PLUS"));
        assert!(
            client.scram(name, gs2, b"", TOKEN).contains("<success"),
            "{name}"
        );
        assert!(client.say(OPEN).contains("xmpp-bind"));
    }
    let binding = [7; 32];
    let bound = |name: &str, gs2: &str, channel: &[u8]| {
        let mut client = Client::on(&shared(), Ground::Tcp, Some(binding));
        let offer = client.say(OPEN);
        assert!(offer.contains("SCRAM-SHA-256-PLUS") && offer.contains("tls-exporter"));
        client.scram(name, gs2, channel, TOKEN)
    };
    for name in ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS"] {
        assert!(bound(name, "p=tls-exporter,,", &binding).contains("<success"));
    }
    assert!(bound("SCRAM-SHA-256-PLUS", "p=tls-exporter,,", &[8; 32]).contains("not-authorized"));
    assert!(bound("SCRAM-SHA-256", "n,,", b"").contains("<success"));
    assert!(
        bound("SCRAM-SHA-256", "y,,", b"").contains("not-authorized"),
        "downgrade"
    );
    let mut client = Client::new();
    client.say(OPEN);
    assert!(
        client
            .scram("SCRAM-SHA-256-PLUS", "p=tls-exporter,,", b"", TOKEN)
            .contains("invalid-mechanism")
    );
    assert!(
        client
            .scram("SCRAM-SHA-256", "n,,", b"", b"wrong")
            .contains("not-authorized")
    );
    assert!(client.plain("alice", vec![]).contains("not-authorized"));
    assert!(
        client
            .plain("bob", vec![account("alice")])
            .contains("not-authorized")
    );
    let last = client.plain("alice", vec![]);
    assert!(
        last.contains("policy-violation") && last.contains("</stream:stream>"),
        "{last}"
    );
    assert!(client.host.closed.is_some());
    // Before TLS nothing is offered and nothing taken.
    let mut client = Client::on(&shared(), Ground::Plain, None);
    let offer = client.say(OPEN);
    assert!(offer.contains("<required/>") && !offer.contains("mechanism"));
    let refused = client
        .say("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AGEAYg==</auth>");
    assert!(refused.contains("encryption-required"));
    assert!(client.host.asked.is_empty());
}

#[test]
fn an_answer_to_an_aborted_login_is_worth_nothing() {
    let mut client = Client::new();
    client.say(OPEN);
    client.say(
        "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AGFsaWNlAHg=</auth>",
    );
    let old = client.host.asked.pop().unwrap();
    assert!(
        client
            .say("<abort xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>")
            .contains("aborted")
    );
    client.say(
        "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AGFsaWNlAHg=</auth>",
    );
    client.host.asked.push(old);
    assert_eq!(client.answer(vec![account("alice")]), "");
}

#[test]
fn xm_02_what_came_with_starttls_is_not_heard() {
    let mut client = Client::on(&shared(), Ground::Plain, None);
    client.say(OPEN);
    let said = client.say(&format!(
        "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>{OPEN}<auth/>"
    ));
    assert_eq!(said, "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
    assert!(client.host.secured && client.host.closed.is_none());
    assert!(
        client.say(OPEN).contains("mechanisms"),
        "the stream begins anew"
    );
}

#[test]
fn xm_03_stream_errors_on_both_grounds() {
    let header = |to: &str, ns: &str, version: &str| {
        format!("<stream:stream {to} xmlns='jabber:client' xmlns:stream='{ns}' {version}>")
    };
    let ns = "http://etherx.jabber.org/streams";
    let good = ("to='localhost'", "version='1.0'");
    for (text, condition) in [
        (header(good.0, "wrong", good.1), "invalid-namespace"),
        (header("to='elsewhere'", ns, good.1), "host-unknown"),
        (header("", ns, good.1), "improper-addressing"),
        (header(good.0, ns, "version='0.9'"), "unsupported-version"),
        (header(good.0, ns, ""), "unsupported-version"),
        (format!("{OPEN}<message/>"), "not-authorized"),
        (format!("{OPEN}<a></b>"), "not-well-formed"),
        (format!("{OPEN}<!-- -->"), "restricted-xml"),
        (
            format!("{OPEN}<a>{}</a>", "x".repeat(20_000)),
            "policy-violation",
        ),
    ] {
        let mut client = Client::new();
        let said = client.say(&text);
        assert!(
            said.starts_with("<?xml version='1.0'?><stream:stream "),
            "{said}"
        );
        assert!(
            said.contains(&format!(
                "<{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>"
            )),
            "{said}"
        );
        assert!(said.ends_with("</stream:error></stream:stream>"), "{said}");
        assert!(client.host.closed.is_some());
        assert_eq!(client.say("<iq/>"), "", "nothing more is heard");
    }
    for (text, condition) in [
        (
            "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='x' version='1.0'/>",
            "host-unknown",
        ),
        (
            "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' version='1.0'/>",
            "improper-addressing",
        ),
        ("<message xmlns='jabber:client'/>", "invalid-namespace"),
        ("<a/><b/>", "not-well-formed"),
    ] {
        let mut client = Client::on(&shared(), Ground::WebSocket, None);
        let said = client.say(text);
        assert!(
            said.starts_with("<open xmlns='urn:ietf:params:xml:ns:xmpp-framing'"),
            "{said}"
        );
        assert!(said.contains(&format!("<{condition} ")), "{said}");
        assert!(
            said.ends_with("<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>"),
            "{said}"
        );
    }
    let mut client = Client::live();
    assert!(
        client
            .say("<nonsense xmlns='x'/>")
            .contains("unsupported-stanza-type")
    );
    let mut client = Client::live();
    assert!(
        client
            .say("<message from='mallory@localhost/x'/>")
            .contains("invalid-from")
    );
    let mut client = Client::live();
    client
        .machine
        .closing(close::TAKEN_OVER, "", "", &mut client.host);
    assert!(client.host.take().contains("<conflict "));
}

#[test]
fn xm_06_websocket_streams_restart_without_closing() {
    let open = "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='localhost' version='1.0'/>";
    let mut client = Client::on(&shared(), Ground::WebSocket, None);
    let said = client.say(open);
    assert!(said.contains("<stream:features xmlns:stream='http://etherx.jabber.org/streams'>"));
    assert!(!said.contains("starttls"));
    client.plain("alice", vec![account("alice")]);
    assert!(client.say(open).contains("xmpp-bind"));
    client.say("<iq xmlns='jabber:client' type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>");
    assert!(
        client
            .welcome(1)
            .contains("<iq xmlns='jabber:client' type='result' id='b'>")
    );
    assert!(client.say("<message/>").contains("invalid-namespace"));
    let mut client = Client::on(&shared(), Ground::WebSocket, None);
    client.say(open);
    assert_eq!(
        client.say("<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>"),
        "<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>"
    );
    assert!(client.host.ended);
}

#[test]
fn xm_07_resources() {
    let all = shared();
    let mut one = Client::logged_in(&all);
    one.say("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>");
    assert!(one.welcome(1).contains("<jid>alice@localhost/phone</jid>"));
    let mut two = Client::logged_in(&all);
    two.say("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>phone</resource></bind></iq>");
    let said = two.welcome(2);
    assert!(said.contains("<jid>alice@localhost/phone-"), "{said}");
    let mut three = Client::bound(&all, 3, "home");
    assert!(
        three
            .say("<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>")
            .contains("alice@localhost/home")
    );
    let mut early = Client::logged_in(&all);
    early.say("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>");
    assert_eq!(
        early.say("<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>"),
        ""
    );
    assert!(
        early.welcome(4).contains("id='p'"),
        "what came too early is answered then"
    );
    let mut none = Client::logged_in(&all);
    assert!(none.say("<message/>").contains("not-authorized"));
}

#[test]
fn xm_08_every_get_and_set_has_one_answer() {
    for (to, inner) in [
        ("", "<ping xmlns='urn:xmpp:ping'/>"),
        (
            "to='localhost'",
            "<query xmlns='http://jabber.org/protocol/disco#info'/>",
        ),
        (
            "to='alice@localhost'",
            "<query xmlns='http://jabber.org/protocol/disco#info'/>",
        ),
        (
            "to='localhost'",
            "<query xmlns='http://jabber.org/protocol/disco#items'/>",
        ),
        (
            "to='push.localhost'",
            "<query xmlns='http://jabber.org/protocol/disco#info'/>",
        ),
        ("", "<query xmlns='jabber:iq:roster'/>"),
        ("to='localhost'", "<query xmlns='jabber:iq:version'/>"),
        ("to='localhost'", "<time xmlns='urn:xmpp:time'/>"),
        ("", "<vCard xmlns='vcard-temp'/>"),
        (
            "",
            "<query xmlns='jabber:iq:private'><x xmlns='y'/></query>",
        ),
        ("", "<blocklist xmlns='urn:xmpp:blocking'/>"),
    ] {
        let mut client = Client::live();
        let said = client.say(&format!("<iq type='get' id='q' {to}>{inner}</iq>"));
        assert_eq!(said.matches("<iq ").count(), 1, "{said}");
        assert!(
            said.contains("type='result'") && said.contains("id='q'"),
            "{inner}: {said}"
        );
    }
    for (iq, condition) in [
        (
            "<iq type='get' id='q'><x xmlns='urn:nonsense'/></iq>",
            "service-unavailable",
        ),
        (
            "<iq type='set' id='q'><query xmlns='jabber:iq:roster'><item jid='a@b'/></query></iq>",
            "not-allowed",
        ),
        (
            "<iq type='get' id='q' to='bob@localhost'><query xmlns='jabber:iq:version'/></iq>",
            "service-unavailable",
        ),
        (
            "<iq type='get' id='q' to='a@elsewhere'><ping xmlns='urn:xmpp:ping'/></iq>",
            "remote-server-not-found",
        ),
        (
            "<iq type='get' id='q' to='@'><ping xmlns='urn:xmpp:ping'/></iq>",
            "jid-malformed",
        ),
        (
            "<iq type='get'><ping xmlns='urn:xmpp:ping'/></iq>",
            "bad-request",
        ),
        (
            "<iq id='q' type='odd'><ping xmlns='urn:xmpp:ping'/></iq>",
            "bad-request",
        ),
        ("<iq type='get' id='q'/>", "bad-request"),
    ] {
        let mut client = Client::live();
        let said = client.say(iq);
        assert_eq!(said.matches("<iq ").count(), 1, "{said}");
        assert!(
            said.contains("type='error'") && said.contains(condition),
            "{iq}: {said}"
        );
        assert!(!client.machine.closed);
    }
    let mut client = Client::live();
    assert_eq!(
        client.say("<iq type='result' id='q'/><iq type='error' id='x'/>"),
        ""
    );
    let said = client.say("<presence type='subscribe' to='bob@localhost' id='s'/>");
    assert!(said.contains("not-allowed"));
    assert!(
        client
            .say("<message to='bob@localhost'><body>x</body></message>")
            .contains("service-unavailable")
    );
    assert!(
        client
            .say("<message to='b@elsewhere'><body>x</body></message>")
            .contains("remote-server-not-found")
    );
    assert_eq!(client.say("<message type='error' to='b@elsewhere'/>"), "");
}

#[test]
fn xm_09_stream_management_counts_stanzas_only() {
    let mut client = Client::new();
    client.say(OPEN);
    let enable = "<enable xmlns='urn:xmpp:sm:3' resume='true'/>";
    assert!(client.say(enable).contains("<unexpected-request"));
    let mut client = Client::logged_in(&shared());
    assert!(client.say(enable).contains("<unexpected-request"));
    let mut client = Client::bound(&shared(), 1, "r");
    assert!(
        client
            .say("<r xmlns='urn:xmpp:sm:3'/>")
            .contains("unexpected-request")
    );
    assert!(client.say(enable).contains("resume='true' max='300'"));
    assert_eq!(
        client.say("<presence/><active xmlns='urn:xmpp:csi:0'/> <message to='alice@localhost/none'/><r xmlns='urn:xmpp:sm:3'/>")
            .rsplit("<a ").next().unwrap(),
        "xmlns='urn:xmpp:sm:3' h='2'/>"
    );
    // The echo of the presence and the error are two.
    let said = client.say("<a xmlns='urn:xmpp:sm:3' h='3'/>");
    assert!(
        said.contains("<handled-count-too-high xmlns='urn:xmpp:sm:3' h='3' send-count='2'/>"),
        "{said}"
    );
    let mut client = Client::bound(&shared(), 1, "r");
    client.say(enable);
    assert!(
        client.say(enable).contains("</stream:stream>"),
        "enabled twice"
    );
    let mut client = Client::bound(&shared(), 1, "r");
    assert_eq!(
        client.say("<enable xmlns='urn:xmpp:sm:3'/>"),
        "<enabled xmlns='urn:xmpp:sm:3'/>"
    );
    assert!(client.machine.park(false, Timestamp(0)).is_none());
}

#[test]
fn xm_09_a_client_that_acknowledges_nothing_gets_no_more_and_goes_on() {
    let managed = Client::managed(&shared(), 1).0;
    for (mut client, ack) in [
        (managed, "<a xmlns='urn:xmpp:sm:3' h='513'/>"),
        (Client::live(), "<iq type='result' id='hy-0'/>"),
    ] {
        let one = message(1, Class::Im);
        for _ in 0..512 {
            assert_eq!(client.send(&one, false).0, Took::Sent);
        }
        assert_eq!(client.send(&one, false).0, Took::Full);
        let answer = client.say("<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>");
        assert!(answer.contains("type='result'"), "{answer}");
        client.machine.sent(&mut client.host);
        client.say(ack);
        assert_eq!(client.send(&one, false).0, Took::Sent);
    }
}

#[test]
fn xm_10_a_cut_session_goes_on_where_it_was() {
    let all = shared();
    let (mut client, id) = Client::managed(&all, 1);
    let entries: Vec<_> = (1..=4).map(|n| message(n, Class::Im)).collect();
    for one in &entries {
        assert_eq!(client.send(one, false).0, Took::Sent);
    }
    assert_eq!(client.sent(), "<r xmlns='urn:xmpp:sm:3'/>");
    client.say("<a xmlns='urn:xmpp:sm:3' h='2'/>");
    assert_eq!(client.host.acked, [entries[0].id]);
    client.say("<iq type='get' id='lost'><ping xmlns='urn:xmpp:ping'/></iq>");
    let kept = client.machine.park(false, Timestamp(1_000_000));
    // It had one more entry than it could say.
    let mut client = Client::logged_in(&all);
    client.host.parked = kept;
    assert_eq!(
        client.say(&format!(
            "<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='3'/>"
        )),
        ""
    );
    let said = client.welcome(2);
    assert!(
        said.starts_with(&format!(
            "<resumed xmlns='urn:xmpp:sm:3' previd='{id}' h='2'/>"
        )),
        "{said}"
    );
    assert!(
        said.contains("id='lost'"),
        "other stanzas come again: {said}"
    );
    assert_eq!(client.host.acked, [entries[1].id]);
    assert_eq!(client.send(&entries[1], true).0, Took::Had);
    for one in &entries[2..] {
        let (took, text) = client.send(one, true);
        assert!(took == Took::Sent && text.contains("<delay "), "{text}");
    }
    let fresh = client.send(&message(9, Class::Im), false).1;
    assert!(!fresh.contains("<delay "));
    client.machine.idle();
    client.host.acked.clear();
    client.say("<a xmlns='urn:xmpp:sm:3' h='7'/>");
    assert_eq!(
        client.host.acked,
        [entries[2].id, entries[3].id, message(9, Class::Im).id]
    );
    assert!(
        client.say("<r xmlns='urn:xmpp:sm:3'/>").contains("h='2'"),
        "its own count goes on"
    );
}

#[test]
fn xm_11_what_cannot_be_resumed() {
    let all = shared();
    let (mut client, id) = Client::managed(&all, 1);
    let kept = client.machine.park(false, Timestamp(1_000_000));
    // A foreign id, then a bind on the same stream.
    let mut client = Client::logged_in(&all);
    client.host.parked = kept;
    client.say("<resume xmlns='urn:xmpp:sm:3' previd='ffffffff' h='0'/>");
    let said = client.welcome(2);
    assert!(
        said.contains("<item-not-found") && !said.contains(" h='"),
        "{said}"
    );
    let said =
        client.say("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>");
    assert!(said.contains("<jid>"), "{said}");
    // A wrong one costs the right one nothing.
    let (mut client, right) = Client::managed(&all, 7);
    let kept = client.machine.park(false, Timestamp(1_000_000));
    let mut client = Client::logged_in(&all);
    client.host.parked = kept;
    client.say("<resume xmlns='urn:xmpp:sm:3' previd='ffffffff' h='0'/>");
    assert!(client.welcome(8).contains("<item-not-found"));
    let said = client.say(&format!(
        "<resume xmlns='urn:xmpp:sm:3' previd='{right}' h='0'/>"
    ));
    assert!(said.contains("<resumed "), "{said}");
    // Nor is the right one of use to another account of the same device.
    let (mut client, id_of_bob) = Client::managed(&all, 9);
    let mut kept = client.machine.park(false, Timestamp(1_000_000));
    kept.as_mut().unwrap().bare = "bob@localhost".into();
    let mut client = Client::logged_in(&all);
    client.host.parked = kept;
    client.say(&format!(
        "<resume xmlns='urn:xmpp:sm:3' previd='{id_of_bob}' h='0'/>"
    ));
    assert!(client.welcome(10).contains("<item-not-found"));
    // An old one still tells its count.
    let (mut client, old) = Client::managed(&all, 3);
    let kept = client.machine.park(false, Timestamp(0));
    let mut client = Client::logged_in(&all);
    client.host.parked = kept;
    client.say(&format!(
        "<resume xmlns='urn:xmpp:sm:3' previd='{old}' h='1'/>"
    ));
    let said = client.welcome(4);
    assert!(
        said.contains("<item-not-found") && said.contains(" h='1'"),
        "{said}"
    );
    // A used one: its session ended by a bind.
    let mut client = Client::logged_in(&all);
    client.say(&format!(
        "<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='1'/>"
    ));
    assert!(client.welcome(5).contains("<item-not-found"));
    // A clean end keeps nothing.
    let (mut client, _) = Client::managed(&all, 6);
    assert_eq!(client.say("</stream:stream>"), "</stream:stream>");
    assert!(client.host.ended && client.machine.park(true, Timestamp(0)).is_none());
}

#[test]
fn xm_12_without_resumption_entries_come_with_a_delay() {
    let mut client = Client::live();
    let (took, text) = client.send(&message(1, Class::Transaction), true);
    assert_eq!(took, Took::Sent);
    assert!(
        text.contains(
            "<delay xmlns='urn:xmpp:delay' from='localhost' stamp='1970-01-01T00:16:40Z'/>"
        ),
        "{text}"
    );
    assert!(text.contains("<body>title 1\na &lt; b</body>") && text.contains("type='normal'"));
}

#[test]
fn xm_13_nothing_before_presence_nor_below_zero() {
    let mut client = Client::bound(&shared(), 1, "r");
    let one = message(1, Class::Im);
    assert_eq!(client.send(&one, false).0, Took::Later);
    client.say("<presence><priority>-1</priority></presence>");
    assert_eq!(
        (client.send(&one, false).0, client.host.wanted),
        (Took::Later, 0)
    );
    client.say("<presence/>");
    assert_eq!(
        (client.send(&one, false).0, client.host.wanted),
        (Took::Sent, 1)
    );
    client.say("<presence type='unavailable'/>");
    assert_eq!(client.send(&one, false).0, Took::Later);
    client.say("<presence/>");
    client.host.full = true;
    assert_eq!(client.send(&one, false).0, Took::Full);
    let mut brief = (*message(2, Class::Im)).clone();
    brief.options.ttl_s = Some(0);
    client.host.full = false;
    let text = client.send(&Arc::new(brief), false).1;
    assert!(
        text.contains("type='headline'") && text.contains("<no-store"),
        "{text}"
    );
}

#[test]
fn xm_14_push_nodes_of_our_own_service() {
    let enable = |jid: &str, rest: &str| {
        format!(
            "<iq type='set' id='p'><enable xmlns='urn:xmpp:push:0' {jid} node='fcm'>{rest}</enable></iq>"
        )
    };
    let mut client = Client::live();
    let ours = enable("jid='push.localhost'", "");
    assert_eq!(client.say(&ours), "");
    for (known, word) in [
        (Some(true), "result"),
        (Some(false), "item-not-found"),
        (None, "wait"),
    ] {
        let answer = Answer::Push {
            iq: "p".into(),
            known,
        };
        client.machine.told(answer, &mut client.host);
        let said = client.host.take();
        assert!(said.contains(word) && said.contains("id='p'"), "{said}");
    }
    assert!(
        client
            .say(&enable("jid='push.elsewhere'", ""))
            .contains("remote-server-not-found")
    );
    assert!(client.say(&enable("", "")).contains("bad-request"));
    let form = |kind: &str| {
        format!(
            "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>{kind}</value></field></x>"
        )
    };
    assert!(
        client
            .say(&enable("jid='push.localhost'", &form("other")))
            .contains("bad-request")
    );
    let options = form("http://jabber.org/protocol/pubsub#publish-options");
    assert_eq!(client.say(&enable("jid='push.localhost'", &options)), "");
    let turned = |client: &mut Client| match client.host.asked.pop() {
        Some(Query::Push { channel, on, .. }) => (channel.map(|c| c.to_string()), on),
        other => panic!("{other:?}"),
    };
    assert_eq!(turned(&mut client), (Some("fcm".to_owned()), true));
    let disable = |jid: &str, node: &str| {
        format!("<iq type='set' id='d'><disable xmlns='urn:xmpp:push:0' {jid} {node}/></iq>")
    };
    let ours = "jid='push.localhost'";
    assert_eq!(client.say(&disable(ours, "node='fcm'")), "");
    assert_eq!(turned(&mut client), (Some("fcm".to_owned()), false));
    assert_eq!(client.say(&disable(ours, "")), "");
    assert_eq!(turned(&mut client), (None, false));
    let refused = client.say(&disable("jid='push.elsewhere'", ""));
    assert!(refused.contains("item-not-found"), "{refused}");
    let nothing = enable(ours, "").replace("node='fcm'", "");
    assert!(client.say(&nothing).contains("item-not-found"));
}

#[test]
fn xm_15_an_inactive_client_is_left_in_peace() {
    let mut client = Client::live();
    client.say("<inactive xmlns='urn:xmpp:csi:0'/>");
    let ids = |text: &str| -> Vec<u32> {
        let parts = text.split("<subject>title ").skip(1);
        parts
            .map(|part| part.split('<').next().unwrap().parse().unwrap())
            .collect()
    };
    for n in 1..=2 {
        assert_eq!(
            client.send(&message(n, Class::Marketing), false),
            (Took::Sent, String::new())
        );
    }
    assert!(client.machine.held_since().is_some());
    let (_, text) = client.send(&message(3, Class::Im), false);
    assert_eq!(
        ids(&text),
        [1, 2, 3],
        "what is urgent takes the others along"
    );
    client.send(&message(4, Class::Marketing), false);
    assert_eq!(ids(&client.say("<active xmlns='urn:xmpp:csi:0'/>")), [4]);
    assert_eq!(
        client.host.states,
        [AppState::Background, AppState::Foreground]
    );
    client.say("<inactive xmlns='urn:xmpp:csi:0'/>");
    let mut all = String::new();
    for n in 5..30 {
        all.push_str(&client.send(&message(n, Class::Marketing), false).1);
    }
    client.machine.release(&mut client.host);
    all.push_str(&client.host.take());
    assert_eq!(
        ids(&all),
        (5..30).collect::<Vec<_>>(),
        "bounded, and in order"
    );
}

#[test]
fn xm_16_carbons_reach_other_resources_once() {
    let all = shared();
    let mut one = Client::bound(&all, 1, "one");
    let mut two = Client::bound(&all, 2, "two");
    let mut three = Client::bound(&all, 3, "three");
    for client in [&mut one, &mut two, &mut three] {
        client.say("<presence/>");
    }
    let enable = "<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>";
    assert!(three.say(enable).contains("result"));
    one.say("<message type='chat' to='alice@localhost/two' id='m'><body>hi</body></message>");
    assert_eq!(one.host.told.len(), 2, "{:?}", one.host.told);
    let (to, text) = &one.host.told[0];
    assert!(
        *to == SessionId(2)
            && text.starts_with("<message xmlns='jabber:client'")
            && text.contains("from='alice@localhost/one'"),
        "{text}"
    );
    let (to, text) = &one.host.told[1];
    assert!(
        *to == SessionId(3) && text.contains("<received xmlns='urn:xmpp:carbons:2'><forwarded"),
        "{text}"
    );
    two.machine.copied(Copied(text.clone()), &mut two.host);
    assert_eq!(two.host.take(), *text);
    // To everybody: no carbons beside.
    one.host.told.clear();
    let said = one.say("<message type='chat' to='alice@localhost'><body>all</body></message>");
    assert!(said.contains("<body>all</body>"));
    assert_eq!(one.host.told.len(), 2);
    assert!(
        one.host
            .told
            .iter()
            .all(|(_, text)| !text.contains("carbons"))
    );
    // What is said to the app is copied to the others as sent.
    one.host.told.clear();
    one.say("<message type='chat' to='im@localhost' id='s'><body>help</body></message>");
    assert_eq!(one.host.told.len(), 1, "{:?}", one.host.told);
    let (to, text) = &one.host.told[0];
    assert!(
        *to == SessionId(3)
            && text.contains("<sent xmlns='urn:xmpp:carbons:2'><forwarded")
            && text.contains("to='im@localhost'")
            && text.contains("<body>help</body>"),
        "{text}"
    );
    one.host.told.clear();
    one.say("<message type='chat' to='localhost'><body>x</body><private xmlns='urn:xmpp:carbons:2'/></message>");
    assert!(one.host.told.is_empty());
    // Private ones are not copied.
    one.host.told.clear();
    one.say("<message type='chat' to='alice@localhost/two'><body>x</body><private xmlns='urn:xmpp:carbons:2'/></message>");
    assert_eq!(one.host.told.len(), 1);
    assert!(
        one.say("<message type='chat' to='alice@localhost/nobody'><body>x</body></message>")
            .contains("service-unavailable")
    );
}

#[test]
fn xm_17_acknowledgements_in_every_way() {
    // Pings, for clients without stream management.
    let mut client = Client::live();
    let (one, two, three) = (
        message(1, Class::Im),
        message(2, Class::Im),
        message(3, Class::Im),
    );
    client.send(&one, false);
    client.send(&two, false);
    let ping = client.sent();
    assert!(
        ping.contains("id='hy-0'") && ping.contains("urn:xmpp:ping"),
        "{ping}"
    );
    assert_eq!(client.sent(), "", "once for a batch");
    client.send(&three, false);
    client.sent();
    client.say("<message to='localhost'/>");
    assert!(client.host.acked.is_empty());
    client.say("<iq type='result' id='hy-0'/>");
    assert_eq!(client.host.acked, [one.id, two.id]);
    client.say("<iq type='result' id='hy-7'/>");
    assert_eq!(client.host.acked.len(), 2, "a ping that was never sent");
    client.say("<iq type='error' id='hy-1'/>");
    assert_eq!(client.host.acked.len(), 3);
    // Receipts and markers.
    let receipt = format!(
        "<message to='im@localhost'><received xmlns='urn:xmpp:receipts' id='{}'/></message>",
        one.id
    );
    assert_eq!(client.say(&receipt), "");
    assert_eq!(client.host.acked.len(), 4);
    let marker = format!(
        "<message to='im@localhost'><displayed xmlns='urn:xmpp:chat-markers:0' id='{}'/></message>",
        two.id
    );
    assert_eq!(client.say(&marker), "");
    assert_eq!(client.host.events, [(two.id, Stage::Displayed)]);
    // A batch of ten is asked for at once.
    let (mut client, _) = Client::managed(&shared(), 1);
    let mut asked = 0;
    for n in 0..25 {
        asked += client
            .send(&message(n, Class::Im), false)
            .1
            .matches("<r ")
            .count();
    }
    assert_eq!(asked, 2);
    assert_eq!(client.sent().matches("<r ").count(), 1);
}

#[test]
fn an_idle_stream_is_small() {
    let (client, _) = Client::managed(&shared(), 1);
    assert!(client.machine.stream.is_idle());
    let size =
        std::mem::size_of::<Machine>() + std::mem::size_of::<Live>() + std::mem::size_of::<Sm>();
    assert!(size <= 400, "{size}");
    assert!(client.machine.login.is_none());
}

#[test]
fn who_changes_hands_logs_in_again() {
    let (mut client, _) = Client::managed(&shared(), 1);
    client.machine.rebound(&mut client.host);
    assert!(client.host.take().contains("<reset "));
    assert!(client.machine.park(false, Timestamp(0)).is_none());
}

#[test]
fn what_is_said_to_the_domain_or_a_source_is_for_the_app() {
    let mut client = Client::live();
    for to in ["localhost", "im@localhost", "LOCALHOST/x"] {
        let said = format!("<message to='{to}' type='chat'><body>to {to}</body></message>");
        assert_eq!(client.say(&said), "");
    }
    assert_eq!(
        client.host.said,
        ["to localhost", "to im@localhost", "to LOCALHOST/x"]
    );
    let long = "x".repeat(2_049);
    let said = client.say(&format!(
        "<message to='localhost'><body>{long}</body></message>"
    ));
    assert!(said.contains("not-acceptable"), "{said}");
    let typing = "<message to='localhost'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>";
    assert_eq!(client.say(typing), "");
    assert_eq!(client.host.said.len(), 3);
}

#[test]
fn what_was_sent_before_stream_management_is_acknowledged_too() {
    let mut client = Client::live();
    let (early, late) = (message(1, Class::Im), message(2, Class::Im));
    client.send(&early, false);
    assert!(client.sent().contains("id='hy-0'"));
    client.say("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    client.send(&late, false);
    assert_eq!(client.sent(), "<r xmlns='urn:xmpp:sm:3'/>");
    client.say("<iq type='result' id='hy-0'/><a xmlns='urn:xmpp:sm:3' h='1'/>");
    assert_eq!(client.host.acked, [early.id, late.id]);
}

#[test]
fn xm_03_every_end_has_its_condition_on_both_grounds() {
    let bound = |ground: Ground| {
        let mut client = Client::on(&shared(), ground, None);
        let websocket = ground == Ground::WebSocket;
        let open = match websocket {
            true => {
                "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='localhost' version='1.0'/>"
            }
            false => OPEN,
        };
        client.say(open);
        client.plain("alice", vec![account("alice")]);
        client.say(open);
        client.say("<iq xmlns='jabber:client' type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>");
        client.welcome(1);
        client
    };
    for (ground, end) in [
        (Ground::Tcp, "</stream:stream>"),
        (
            Ground::WebSocket,
            "<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>",
        ),
    ] {
        for (code, condition) in [
            (close::FORBIDDEN, "policy-violation"),
            (close::TAKEN_OVER, "conflict"),
            (close::GOING_AWAY, "system-shutdown"),
            (close::RESTART, "system-shutdown"),
            (close::UNAUTHORIZED, "not-authorized"),
            (close::DEVICE_GONE, "not-authorized"),
            (close::TOO_SLOW, "policy-violation"),
            (close::RATE_LIMITED, "policy-violation"),
            (close::TRY_AGAIN, "reset"),
            (close::INTERNAL, "internal-server-error"),
            (close::BAD_MESSAGE, "undefined-condition"),
        ] {
            let mut client = bound(ground);
            let word = match code {
                close::FORBIDDEN => close::KICKED,
                _ => "",
            };
            client.machine.closing(code, word, "", &mut client.host);
            let told = client.host.take();
            let want = format!("<{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>");
            assert!(
                told.contains(&want) && told.ends_with(end),
                "{code}: {told}"
            );
        }
        // Who does not log in in time has no session yet.
        let mut client = Client::on(&shared(), ground, None);
        client
            .machine
            .closing(close::TOO_SLOW, "", "", &mut client.host);
        let told = client.host.take();
        assert!(
            told.contains("<connection-timeout ") && told.ends_with(end),
            "{told}"
        );
        for (said, condition) in [
            ("<nonsense xmlns='x'/>", "unsupported-stanza-type"),
            (
                "<message xmlns='jabber:client' from='mallory@localhost/x'/>",
                "invalid-from",
            ),
            (
                "<message xmlns='jabber:client'><!-- --></message>",
                "restricted-xml",
            ),
            ("<message xmlns='jabber:client'></iq>", "not-well-formed"),
        ] {
            let told = bound(ground).say(said);
            assert!(
                told.contains(&format!("<{condition} ")) && told.ends_with(end),
                "{told}"
            );
        }
    }
}

#[test]
fn xm_09_the_count_of_the_clients_stanzas_wraps_too() {
    let (mut client, _) = Client::managed(&shared(), 1);
    let live = client.machine.live.as_mut().unwrap();
    live.sm.as_mut().unwrap().handled = u32::MAX - 1;
    let ask = "<r xmlns='urn:xmpp:sm:3'/>";
    let presence = "<presence/>";
    for want in ["4294967295", "0", "1"] {
        let told = client.say(&format!("{presence}{ask}"));
        assert!(told.ends_with(&format!("h='{want}'/>")), "{told}");
    }
}
