//! Records against a rustls client in memory, and against what no client of good will says.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::sync::{Arc, Mutex};

use rustls::crypto::ring::{cipher_suite, default_provider};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, Error, HandshakeKind, KeyLog, RootCertStore,
    ServerConfig, ServerConnection, SupportedCipherSuite,
};
use rustls_pki_types::{PrivateKeyDer, ServerName};

use super::records::{ASK_AFTER, RENEW_AFTER};
use super::*;

/// What is on its way.
#[derive(Default)]
struct Wire {
    incoming: VecDeque<u8>,
    /// Most bytes of one read.
    chunk: usize,
    outgoing: Vec<u8>,
    /// Bytes that may still be written.
    room: usize,
    ended: bool,
}

impl Wire {
    fn new() -> Self {
        Self {
            chunk: usize::MAX,
            room: usize::MAX,
            ..Self::default()
        }
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.incoming.is_empty() && !self.ended {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let most = buffer.len().min(self.chunk);
        self.incoming.read(&mut buffer[..most])
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let n = bytes.len().min(self.room);
        self.room -= n;
        self.outgoing.extend_from_slice(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Keeper(Mutex<(Vec<u8>, Vec<u8>)>);

impl KeyLog for Keeper {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        let mut kept = self.0.lock().unwrap();
        match label {
            "CLIENT_TRAFFIC_SECRET_0" => kept.0 = secret.to_vec(),
            "SERVER_TRAFFIC_SECRET_0" => kept.1 = secret.to_vec(),
            _ => {}
        }
    }
}

fn rustls_suite(suite: Suite) -> SupportedCipherSuite {
    match suite {
        Suite::Aes128Gcm => cipher_suite::TLS13_AES_128_GCM_SHA256,
        Suite::Aes256Gcm => cipher_suite::TLS13_AES_256_GCM_SHA384,
        Suite::Chacha20Poly1305 => cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    }
}

/// Both sides' settings.
struct World {
    server: ServerConfig,
    client: Arc<ClientConfig>,
}

impl World {
    fn new(suites: Vec<SupportedCipherSuite>) -> Self {
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = certified.cert.der().clone();
        let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
        let mut provider = default_provider();
        provider.cipher_suites = suites;
        let provider = Arc::new(provider);
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        server.enable_secret_extraction = true;
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            server,
            client: Arc::new(client),
        }
    }

    /// A client and a server behind their handshake, with the secrets that the server's log was told.
    fn handshake(&self) -> (ClientConnection, ServerConnection, (Vec<u8>, Vec<u8>)) {
        let keeper = Arc::new(Keeper::default());
        let mut config = self.server.clone();
        config.key_log = Arc::clone(&keeper) as _;
        let mut server = ServerConnection::new(Arc::new(config)).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let mut client = ClientConnection::new(Arc::clone(&self.client), name).unwrap();
        while client.is_handshaking() || server.is_handshaking() || server.wants_write() {
            let mut bytes = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut bytes).unwrap();
            }
            server.read_tls(&mut &bytes[..]).unwrap();
            server.process_new_packets().unwrap();
            bytes.clear();
            while server.wants_write() {
                server.write_tls(&mut bytes).unwrap();
            }
            client.read_tls(&mut &bytes[..]).unwrap();
            client.process_new_packets().unwrap();
        }
        let secrets = keeper.0.lock().unwrap().clone();
        (client, server, secrets)
    }

    fn pair(&self) -> Pair {
        let (client, server, (rx, tx)) = self.handshake();
        let (tls, opened) = with_secrets(server, &rx, &tx, Vec::new())
            .settle(TlsRecords::Own)
            .unwrap();
        assert!(opened.is_empty());
        let Layer::Own(records) = tls.0 else {
            panic!("it stayed with rustls");
        };
        Pair {
            client,
            records,
            wire: Wire::new(),
        }
    }
}

/// As it comes from a handshake whose secrets were kept; without secrets when these are empty.
fn with_secrets(
    connection: ServerConnection,
    client: &[u8],
    server: &[u8],
    partial: Vec<u8>,
) -> Tls {
    let secrets = (!client.is_empty()).then(|| Secrets {
        client: client.to_vec().into(),
        server: server.to_vec().into(),
    });
    Tls::from(secure::Tls {
        connection,
        secrets,
        partial,
    })
}

/// A rustls client, our records, and what is between them.
struct Pair {
    client: ClientConnection,
    records: Records,
    wire: Wire,
}

impl Pair {
    fn of(suite: Suite) -> Self {
        World::new(vec![rustls_suite(suite)]).pair()
    }

    fn client_says(&mut self, bytes: &[u8]) {
        self.client.writer().write_all(bytes).unwrap();
        self.carry_in();
    }

    fn carry_in(&mut self) {
        let mut bytes = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut bytes).unwrap();
        }
        self.wire.incoming.extend(bytes);
    }

    /// What one read gives.
    fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; 64 * 1024];
        let n = self.records.read(&mut self.wire, &mut buffer)?;
        buffer.truncate(n);
        Ok(buffer)
    }

    /// Everything that has come.
    fn read_all(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            match self.read() {
                Ok(bytes) if bytes.is_empty() => return all,
                Ok(bytes) => all.extend(bytes),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return all,
                Err(error) => panic!("{error:?}"),
            }
        }
    }

    fn say(&mut self, bytes: &[u8]) {
        let mut at = 0;
        while at < bytes.len() {
            let slices = [IoSlice::new(&bytes[at..])];
            at += self
                .records
                .write_vectored(&mut self.wire, &slices)
                .unwrap();
        }
    }

    /// What the client understands of what was sent.
    fn client_hears(&mut self) -> Result<Vec<u8>, Error> {
        let bytes = std::mem::take(&mut self.wire.outgoing);
        let mut rest = &bytes[..];
        let mut heard = Vec::new();
        while !rest.is_empty() {
            self.client.read_tls(&mut rest).unwrap();
            let state = self.client.process_new_packets()?;
            let mut some = vec![0; state.plaintext_bytes_to_read()];
            self.client.reader().read_exact(&mut some).unwrap();
            heard.extend(some);
        }
        Ok(heard)
    }

    /// Reading gives this fault, and the client is told with this alert.
    fn fails(&mut self, fault: Fault, alert: AlertDescription) {
        let error = self.read().unwrap_err();
        assert_eq!(fault_of(&error), Some(fault));
        assert_eq!(self.client_hears(), Err(Error::AlertReceived(alert)));
        assert!(self.read().is_err(), "it stays broken");
        let slices = [IoSlice::new(b"x")];
        let written = self.records.write_vectored(&mut self.wire, &slices);
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}

fn fault_of(error: &io::Error) -> Option<Fault> {
    error.get_ref()?.downcast_ref::<Fault>().copied()
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n % 251) as u8).collect()
}

#[test]
fn an_idle_connection_is_two_secrets_and_two_numbers() {
    // 48 bytes of secret and 4 of number for each direction, a place for what is held, six flags
    // and counters of a byte. With the allocator's own word it fills a chunk of 128: what the
    // design allows TLS over plain text.
    assert_eq!(std::mem::size_of::<Records>(), 120);
    assert_eq!(std::mem::size_of::<Tls>(), 120);
    let mut pair = Pair::of(Suite::Aes256Gcm);
    pair.client_says(&pattern(20_000));
    pair.say(&pattern(20_000));
    pair.read_all();
    assert_eq!(pair.records.held_bytes(), 0);
    assert!(pair.records.is_drained());
    let shown = format!("{:?}", pair.records);
    assert_eq!(shown, "Records { suite: Aes256Gcm, held_bytes: 0, .. }");
}

#[test]
fn every_suite_carries_every_size_both_ways() {
    for suite in Suite::ALL {
        let mut pair = Pair::of(suite);
        for len in [1, 200, 16_383, 16_384, 16_385, 60_000] {
            let bytes = pattern(len);
            pair.client_says(&bytes);
            assert_eq!(pair.read_all(), bytes, "{suite:?} {len} in");
            pair.say(&bytes);
            assert_eq!(pair.client_hears().unwrap(), bytes, "{suite:?} {len} out");
        }
    }
}

#[test]
fn records_may_come_byte_by_byte() {
    for suite in Suite::ALL {
        let mut pair = Pair::of(suite);
        pair.wire.chunk = 1;
        pair.client_says(b"first");
        pair.client_says(b"second");
        assert_eq!(pair.read().unwrap(), b"first");
        assert_eq!(pair.read().unwrap(), b"second");
        // Only what is incomplete is kept, and no longer than that.
        pair.client_says(&[7; 1000]);
        let last = pair.wire.incoming.pop_back().unwrap();
        assert_eq!(pair.read().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert!((1..1100).contains(&pair.records.held_bytes()));
        pair.wire.incoming.push_back(last);
        assert_eq!(pair.read().unwrap(), [7; 1000]);
        assert_eq!(pair.records.held_bytes(), 0);
    }
}

#[test]
fn many_records_in_one_segment_are_one_read() {
    let mut pair = Pair::of(Suite::Aes128Gcm);
    let mut want = Vec::new();
    for n in 0..200_u32 {
        pair.client_says(&n.to_be_bytes());
        want.extend(n.to_be_bytes());
    }
    assert_eq!(pair.read().unwrap(), want);
    assert!(pair.records.is_drained());
    // More than the buffer holds: told that there is more.
    pair.client_says(&pattern(48 * 1024));
    pair.client_says(&pattern(48 * 1024));
    let first = pair.read().unwrap();
    assert!(!pair.records.is_drained() && first.len() < 64 * 1024);
    assert_eq!(first.len() + pair.read_all().len(), 96 * 1024);
}

#[test]
fn slices_are_joined_and_a_blocked_socket_keeps_the_order() {
    let mut pair = Pair::of(Suite::Chacha20Poly1305);
    let bytes = pattern(100_000);
    pair.wire.room = 10;
    let slices = [
        IoSlice::new(&bytes[..1]),
        IoSlice::new(&[]),
        IoSlice::new(&bytes[1..30_000]),
        IoSlice::new(&bytes[30_000..]),
    ];
    let taken = pair
        .records
        .write_vectored(&mut pair.wire, &slices)
        .unwrap();
    assert!(
        taken > 0 && taken < bytes.len(),
        "a bounded part was sealed"
    );
    assert!(pair.records.held_bytes() < 40_000);
    let blocked = pair.records.write_vectored(&mut pair.wire, &slices);
    assert_eq!(blocked.unwrap_err().kind(), io::ErrorKind::WouldBlock);
    while !pair.records.finish(&mut pair.wire).unwrap() {
        pair.wire.room += 777;
    }
    assert_eq!(pair.records.held_bytes(), 0);
    pair.wire.room = usize::MAX;
    pair.say(&bytes[taken..]);
    assert_eq!(pair.client_hears().unwrap(), bytes);
}

#[test]
fn a_changed_or_cut_record_is_refused() {
    for suite in Suite::ALL {
        let mut pair = Pair::of(suite);
        pair.client_says(b"hello");
        let last = pair.wire.incoming.len() - 1;
        pair.wire.incoming[last] ^= 1;
        pair.fails(Fault::BadRecordMac, AlertDescription::BadRecordMac);
    }
    let world = World::new(vec![rustls_suite(Suite::Aes128Gcm)]);
    for at in 0..27 {
        let mut pair = world.pair();
        pair.client_says(b"hello");
        pair.client_says(b"again and again and again");
        pair.wire.incoming[at] ^= 1;
        pair.wire.ended = true;
        let error = pair.read().unwrap_err();
        let want = match at {
            0 => Some(Fault::Unexpected("a TLS record is not sealed")),
            // Longer than what came.
            3 => None,
            _ => Some(Fault::BadRecordMac),
        };
        assert_eq!(fault_of(&error), want, "byte {at}");
    }
    // What was whole before the damage is told first.
    let mut pair = world.pair();
    pair.client_says(b"good");
    pair.client_says(b"bad");
    let last = pair.wire.incoming.len() - 1;
    pair.wire.incoming[last] ^= 1;
    assert_eq!(pair.read().unwrap(), b"good");
    assert!(!pair.records.is_drained());
    assert!(pair.read().is_err());
    // An end in the middle of a record, or without a word, is no end.
    for cut in [0, 1, 20] {
        let mut pair = world.pair();
        pair.client_says(b"hello");
        pair.wire.incoming.truncate(cut);
        pair.wire.ended = true;
        let error = pair.read().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}

#[test]
fn a_long_record_is_refused_by_its_header() {
    let mut pair = Pair::of(Suite::Aes128Gcm);
    pair.wire.incoming.extend([23, 3, 3, 0x41, 0x01]);
    pair.fails(Fault::RecordOverflow, AlertDescription::RecordOverflow);
}

#[test]
fn what_is_not_sealed_is_refused() {
    let ccs = "a TLS change_cipher_spec came after the handshake";
    let plain = "a TLS record is not sealed";
    for (kind, reason) in [(20, ccs), (21, plain), (22, plain), (24, plain), (0, plain)] {
        let mut pair = Pair::of(Suite::Aes128Gcm);
        pair.wire.incoming.extend([kind, 3, 3, 0, 1, 1]);
        pair.fails(
            Fault::Unexpected(reason),
            AlertDescription::UnexpectedMessage,
        );
    }
}

#[test]
fn the_clients_key_update_is_followed_and_answered() {
    for suite in Suite::ALL {
        let mut pair = Pair::of(suite);
        pair.client_says(b"before");
        for round in 0..3 {
            // rustls asks for an update in return.
            pair.client.refresh_traffic_keys().unwrap();
            pair.client_says(b"after");
            let want: &[u8] = if round == 0 { b"beforeafter" } else { b"after" };
            assert_eq!(pair.read().unwrap(), want);
            assert!(!pair.wire.outgoing.is_empty(), "the answer left at once");
            assert_eq!(pair.client_hears().unwrap(), b"");
            pair.say(b"with new keys");
            assert_eq!(pair.client_hears().unwrap(), b"with new keys");
            pair.client_says(b"still");
            assert_eq!(pair.read().unwrap(), b"still");
        }
    }
}

#[test]
fn one_answer_is_enough_while_the_socket_is_full() {
    let mut pair = Pair::of(Suite::Aes128Gcm);
    pair.wire.room = 30;
    pair.say(&[1; 100]);
    for _ in 0..20 {
        pair.client.refresh_traffic_keys().unwrap();
        pair.client_says(b"x");
        assert_eq!(pair.read().unwrap(), b"x");
    }
    assert!(pair.records.held_bytes() < 200);
    pair.wire.room = usize::MAX;
    assert!(pair.records.finish(&mut pair.wire).unwrap());
    pair.say(b"end");
    let heard = pair.client_hears().unwrap();
    assert_eq!((heard.len(), &heard[100..]), (103, &b"end"[..]));
}

#[test]
fn worn_keys_are_renewed() {
    for suite in Suite::ALL {
        let mut pair = Pair::of(suite);
        pair.say(b"first");
        assert_eq!(pair.client_hears().unwrap(), b"first");
        // rustls cannot be told to skip numbers, so the renewal comes before its time.
        pair.records.wear_out();
        pair.say(b"second");
        pair.say(b"third");
        assert_eq!(pair.records.tx_seq(), 2);
        assert_eq!(pair.client_hears().unwrap(), b"secondthird");
    }
}

// Against ourselves: a peer whose secrets are the other way round says what no library does.

struct Odd {
    records: Records,
    peer: Records,
    wire: Wire,
}

impl Odd {
    fn new() -> Self {
        let (one, two) = ([1; 32], [2; 32]);
        Self {
            records: Records::new(Suite::Aes128Gcm, &one, &two).unwrap(),
            peer: Records::new(Suite::Aes128Gcm, &two, &one).unwrap(),
            wire: Wire::new(),
        }
    }

    fn say(&mut self, kind: u8, content: &[u8]) {
        let out = self.peer.seal_any(kind, content).unwrap();
        self.wire.incoming.extend(out);
    }

    fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; 64 * 1024];
        let n = self.records.read(&mut self.wire, &mut buffer)?;
        buffer.truncate(n);
        Ok(buffer)
    }

    /// What the peer reads of what was sent; what it says of its own comes back.
    fn answer(&mut self) -> io::Result<Vec<u8>> {
        let mut back = Wire::new();
        back.incoming
            .extend(std::mem::take(&mut self.wire.outgoing));
        let mut buffer = vec![0; 64 * 1024];
        let read = self.peer.read(&mut back, &mut buffer);
        self.wire.incoming.extend(back.outgoing);
        buffer.truncate(read?);
        Ok(buffer)
    }
}

#[test]
fn odd_messages_are_refused_with_their_alert() {
    let check = |parts: &[(u8, &[u8])], alert: Option<u8>| {
        let mut odd = Odd::new();
        for (kind, content) in parts {
            odd.say(*kind, content);
        }
        let fault = fault_of(&odd.read().unwrap_err()).unwrap();
        assert_eq!(fault.alert(), alert, "{parts:?}: {fault}");
        match (alert, odd.answer()) {
            (Some(alert), Err(error)) => {
                assert_eq!(fault_of(&error), Some(Fault::PeerAlert(alert)), "{parts:?}");
            }
            (None, Err(error)) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            (_, Ok(heard)) => panic!("{heard:?}"),
        }
    };
    let (alert, handshake, data) = (21, 22, 23);
    // Other handshake messages: hello_request, client_hello, a ticket, a certificate, finished.
    for kind in [0, 1, 4, 11, 20] {
        check(&[(handshake, &[kind, 0, 0, 0])], Some(10));
    }
    check(&[(handshake, &[])], Some(10));
    check(&[(handshake, &[24, 0, 0, 1, 2])], Some(47));
    check(&[(handshake, &[24, 0, 0, 2, 0, 0])], Some(50));
    check(&[(handshake, &[24, 0, 0, 1, 0, 24])], Some(10));
    check(&[(handshake, &[24, 0, 0, 1, 0, 24, 0, 0, 1, 0])], Some(10));
    check(&[(handshake, &[24]), (data, b"x")], Some(10));
    check(&[(handshake, &[24, 0]), (alert, &[1, 0])], Some(10));
    check(&[(alert, &[2])], Some(50));
    check(&[(alert, &[1, 0, 1, 0])], Some(50));
    check(&[(alert, &[])], Some(50));
    check(&[(alert, &[2, 40])], None);
    check(&[(alert, &[1, 10])], None);
    check(&[(20, &[1])], Some(10));
    check(&[(24, b"heartbeat")], Some(10));
    check(&[(0, &[])], Some(10));
    check(&[(0, &[0; 100])], Some(10));
    check(&[(data, &[1; 16_385])], Some(22));
    let empty: (u8, &[u8]) = (data, &[]);
    check(&[empty; 33], Some(10));
}

#[test]
fn a_key_update_may_ask_or_not_and_come_in_pieces() {
    for ask in [0, 1] {
        let mut odd = Odd::new();
        let update = [24, 0, 0, 1, ask];
        for byte in update {
            odd.say(22, &[byte]);
        }
        odd.peer.advance_tx();
        odd.say(23, b"new");
        assert_eq!(odd.read().unwrap(), b"new");
        assert_eq!(odd.wire.outgoing.is_empty(), ask == 0);
        let slices = [IoSlice::new(b"back")];
        odd.records.write_vectored(&mut odd.wire, &slices).unwrap();
        assert_eq!(odd.answer().unwrap(), b"back");
    }
}

#[test]
fn padding_and_a_few_empty_records_are_fine() {
    let mut odd = Odd::new();
    for _ in 0..32 {
        odd.say(23, b"");
    }
    odd.say(0, b"padded\x17\0\0\0");
    for _ in 0..32 {
        odd.say(23, b"");
    }
    odd.say(23, b"!");
    assert_eq!(odd.read().unwrap(), b"padded!");
}

#[test]
fn a_peer_that_never_renews_its_keys_is_asked_to() {
    let mut odd = Odd::new();
    odd.records.set_rx_seq(ASK_AFTER - 1);
    odd.peer.set_tx_seq(ASK_AFTER - 1);
    odd.say(23, b"x");
    assert_eq!(odd.read().unwrap(), b"x");
    // The peer obeys: our update, then its own.
    assert_eq!(odd.answer().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    assert!(!odd.wire.incoming.is_empty());
    let mut back = Wire::new();
    odd.peer
        .write_vectored(&mut back, &[IoSlice::new(b"renewed")])
        .unwrap();
    assert_eq!(odd.peer.tx_seq(), 1);
    odd.wire.incoming.extend(back.outgoing);
    assert_eq!(odd.read().unwrap(), b"renewed");
    // One that never does comes to an end before its numbers are used up.
    let mut odd = Odd::new();
    odd.records.set_rx_seq(u32::MAX);
    odd.peer.set_tx_seq(u32::MAX - 1);
    odd.say(23, b"x");
    assert_eq!(fault_of(&odd.read().unwrap_err()), Some(Fault::Exhausted));
}

#[test]
fn our_keys_end_long_before_their_limit() {
    let mut odd = Odd::new();
    odd.records.set_tx_seq(RENEW_AFTER - 1);
    odd.peer.set_rx_seq(RENEW_AFTER - 1);
    for text in [&b"old"[..], b"new"] {
        odd.records
            .write_vectored(&mut odd.wire, &[IoSlice::new(text)])
            .unwrap();
    }
    assert_eq!(odd.records.tx_seq(), 1);
    assert_eq!(odd.answer().unwrap(), b"oldnew");
}

#[test]
fn the_end_is_said_on_both_sides() {
    let mut pair = Pair::of(Suite::Aes128Gcm);
    pair.client_says(b"last");
    pair.client.send_close_notify();
    pair.carry_in();
    pair.wire
        .incoming
        .extend(b"and garbage that must be ignored");
    assert_eq!(pair.read().unwrap(), b"last");
    assert!(
        !pair.records.is_drained(),
        "there is something left to tell"
    );
    // Until the end is told, there is time for a last word.
    pair.say(b"bye");
    assert_eq!(pair.read().unwrap(), b"");
    assert_eq!(pair.client_hears().unwrap(), b"bye");
    let state = pair.client.process_new_packets().unwrap();
    assert!(state.peer_has_closed());
    assert_eq!(pair.read().unwrap(), b"");

    // Ours first: the client may go on.
    let mut pair = Pair::of(Suite::Aes128Gcm);
    pair.records.close(&mut pair.wire);
    let said = pair.wire.outgoing.len();
    pair.records.close(&mut pair.wire);
    assert_eq!(pair.wire.outgoing.len(), said, "said once");
    assert_eq!(pair.client_hears().unwrap(), b"");
    pair.client_says(b"still here");
    assert_eq!(pair.read().unwrap(), b"still here");
}

#[test]
fn a_cancelled_connection_waits_for_its_end() {
    let mut odd = Odd::new();
    odd.say(21, &[1, 90]);
    odd.say(21, &[1, 0]);
    assert_eq!(odd.read().unwrap(), b"");
}

#[test]
fn a_small_buffer_is_refused() {
    let mut odd = Odd::new();
    odd.say(23, b"x");
    let mut buffer = vec![0; RECORD_BYTES_MAX - 1];
    let error = odd.records.read(&mut odd.wire, &mut buffer).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}

// Taking over from rustls.

#[test]
fn what_rustls_has_already_is_not_lost() {
    let world = World::new(vec![rustls_suite(Suite::Aes256Gcm)]);
    let (mut client, mut server, (rx, tx)) = world.handshake();
    let mut bytes = Vec::new();
    client.writer().write_all(b"opened, ").unwrap();
    client.refresh_traffic_keys().unwrap();
    client.writer().write_all(b"with new keys, ").unwrap();
    while client.wants_write() {
        client.write_tls(&mut bytes).unwrap();
    }
    client.writer().write_all(b"cut").unwrap();
    let mut cut = Vec::new();
    client.write_tls(&mut cut).unwrap();
    let (partial, rest) = cut.split_at(11);
    bytes.extend(partial);
    server.read_tls(&mut &bytes[..]).unwrap();
    server.process_new_packets().unwrap();
    // rustls keeps the answer to an update until the next write.
    assert!(!server.wants_write());
    let (tls, opened) = with_secrets(server, &rx, &tx, partial.to_vec())
        .settle(TlsRecords::Own)
        .unwrap();
    assert_eq!(opened, b"opened, with new keys, ");
    let Layer::Own(records) = tls.0 else {
        panic!("it stayed with rustls");
    };
    let mut pair = Pair {
        client,
        records,
        wire: Wire::new(),
    };
    pair.wire.incoming.extend(rest);
    assert_eq!(pair.read().unwrap(), b"cut");
    assert!(pair.records.finish(&mut pair.wire).unwrap());
    assert_eq!(pair.client_hears().unwrap(), b"");
    pair.say(b"heard");
    assert_eq!(pair.client_hears().unwrap(), b"heard");
}

#[test]
fn a_ticket_of_before_is_good_afterwards() {
    for suite in Suite::ALL {
        let world = World::new(vec![rustls_suite(suite)]);
        let mut first = world.pair();
        assert_eq!(first.client.handshake_kind(), Some(HandshakeKind::Full));
        first.say(b"one");
        assert_eq!(first.client_hears().unwrap(), b"one");
        let mut second = world.pair();
        assert_eq!(second.client.handshake_kind(), Some(HandshakeKind::Resumed));
        second.client_says(b"two");
        assert_eq!(second.read().unwrap(), b"two");
        second.say(b"three");
        assert_eq!(second.client_hears().unwrap(), b"three");
    }
}

#[test]
fn what_is_not_as_expected_stays_with_rustls() {
    let stays = |tls: Tls, records| {
        let (tls, opened) = tls.settle(records).unwrap();
        assert!(!tls.has_own_records() && opened.is_empty());
        assert!(!tls.is_drained());
    };
    let world = World::new(vec![rustls_suite(Suite::Aes128Gcm)]);
    let (_, server, (rx, tx)) = world.handshake();
    stays(
        with_secrets(server, &rx, &tx, Vec::new()),
        TlsRecords::Rustls,
    );
    let (_, server, _) = world.handshake();
    stays(with_secrets(server, &[], &[], Vec::new()), TlsRecords::Own);
    let (_, server, (rx, _)) = world.handshake();
    stays(with_secrets(server, &rx, &[], Vec::new()), TlsRecords::Own);
    let (mut client, mut server, (rx, tx)) = world.handshake();
    client.send_close_notify();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    server.read_tls(&mut &bytes[..]).unwrap();
    stays(with_secrets(server, &rx, &tx, Vec::new()), TlsRecords::Own);
    let old = World::new(vec![cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]);
    let (_, server, _) = old.handshake();
    stays(
        with_secrets(server, &[1; 32], &[2; 32], Vec::new()),
        TlsRecords::Own,
    );
}

#[test]
fn secrets_of_another_connection_are_noticed() {
    let world = World::new(vec![rustls_suite(Suite::Aes128Gcm)]);
    let (_, server, (rx, _)) = world.handshake();
    let tls = with_secrets(server, &rx, &rx, Vec::new());
    let error = tls.settle(TlsRecords::Own).unwrap_err();
    assert!(matches!(error, TakeOverError::OtherSecrets));
}
