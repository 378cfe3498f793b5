//! The connection pools against peers that use the protocols' fine print.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use hongyan_channels::egress::Http2;
use hongyan_core::Class;
use hongyan_core::port::Channel;
use http::Response;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::{message, stand_in};

const PATIENCE: Duration = Duration::from_secs(20);

/// How the peer behaves.
#[derive(Clone, Copy)]
struct Manner {
    streams_max: u32,
    /// Each connection says GOAWAY after this many answers.
    answers_max: Option<usize>,
    /// Every n-th stream is refused.
    refuse_every: Option<usize>,
    /// Bytes of each stream's window.
    window: u32,
}

const PLAIN: Manner = Manner {
    streams_max: 1000,
    answers_max: None,
    refuse_every: None,
    window: 65_535,
};

/// Both who frame HTTP/2 here.
const BOTH: [Http2; 2] = [Http2::Own, Http2::Library];

#[derive(Default)]
struct Observed {
    connections: AtomicUsize,
    streams: AtomicUsize,
    now: AtomicUsize,
    most: AtomicUsize,
}

async fn start(http2: Http2, manner: Manner) -> (Arc<dyn Channel>, Arc<Observed>) {
    let (tls, ca_pem) = stand_in::server_tls(&[b"h2"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://{}", listener.local_addr().unwrap());
    let observed = Arc::new(Observed::default());
    tokio::spawn({
        let observed = observed.clone();
        async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, observed) = (TlsAcceptor::from(tls.clone()), observed.clone());
                tokio::spawn(async move {
                    let stream = tls.accept(stream).await.unwrap();
                    observed.connections.fetch_add(1, Ordering::SeqCst);
                    serve(stream, manner, &observed).await;
                });
            }
        }
    });
    let paper = crate::paper::ALL.iter().find(|p| p.name == "apns").unwrap();
    let egress = message::egress_with(&ca_pem, http2);
    (
        message::open(&egress, "apns", &(paper.config)(), &endpoint),
        observed,
    )
}

async fn serve<S>(stream: S, manner: Manner, observed: &Arc<Observed>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut connection = h2::server::Builder::new()
        .max_concurrent_streams(manner.streams_max)
        .initial_window_size(manner.window)
        .handshake::<_, Bytes>(stream)
        .await
        .unwrap();
    let mut answers = 0;
    while let Some(Ok((request, respond))) = connection.accept().await {
        let n = observed.streams.fetch_add(1, Ordering::SeqCst) + 1;
        let now = observed.now.fetch_add(1, Ordering::SeqCst) + 1;
        observed.most.fetch_max(now, Ordering::SeqCst);
        let refused = manner
            .refuse_every
            .is_some_and(|every| n.is_multiple_of(every));
        tokio::spawn(respond_to(request, respond, refused, observed.clone()));
        answers += 1;
        if manner.answers_max == Some(answers) {
            connection.graceful_shutdown();
        }
    }
}

async fn respond_to(
    request: http::Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
    refused: bool,
    observed: Arc<Observed>,
) {
    let mut body = request.into_body();
    while let Some(piece) = body.data().await {
        let Ok(piece) = piece else { break };
        let _ = body.flow_control().release_capacity(piece.len());
    }
    observed.now.fetch_sub(1, Ordering::SeqCst);
    if refused {
        respond.send_reset(h2::Reason::REFUSED_STREAM);
    } else {
        let _ = respond.send_response(Response::new(()), true);
    }
}

async fn send(channel: &Arc<dyn Channel>, recipients: usize) -> usize {
    let outbound = message::outbound(message::message(Class::Im));
    let batch = message::batch(outbound, (0..recipients).map(|n| format!("{n:064x}")));
    let verdicts = channel.send(&batch, PATIENCE).await;
    let accepted = |v: &&hongyan_core::Verdict| matches!(v, hongyan_core::Verdict::Accepted { .. });
    assert_eq!(verdicts.len(), recipients);
    verdicts.iter().filter(accepted).count()
}

#[tokio::test]
async fn the_peers_stream_limit_is_obeyed() {
    for http2 in BOTH {
        let manner = Manner {
            streams_max: 1,
            ..PLAIN
        };
        let (channel, observed) = start(http2, manner).await;
        assert_eq!(send(&channel, 60).await, 60);
        let connections = observed.connections.load(Ordering::SeqCst);
        assert!((1..=4).contains(&connections), "{connections}");
        assert!(observed.most.load(Ordering::SeqCst) <= connections);
        assert_eq!(observed.streams.load(Ordering::SeqCst), 60);
    }
}

#[tokio::test]
async fn one_connection_carries_many_streams() {
    for http2 in BOTH {
        let (channel, observed) = start(http2, PLAIN).await;
        assert_eq!(send(&channel, 500).await, 500);
        assert_eq!(observed.connections.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn bodies_pass_through_small_windows() {
    for http2 in BOTH {
        let manner = Manner {
            window: 50,
            ..PLAIN
        };
        let (channel, observed) = start(http2, manner).await;
        assert_eq!(send(&channel, 100).await, 100);
        assert_eq!(observed.connections.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn a_goaway_loses_nothing() {
    for http2 in BOTH {
        let manner = Manner {
            streams_max: 100,
            answers_max: Some(40),
            ..PLAIN
        };
        let (channel, observed) = start(http2, manner).await;
        for _ in 0..5 {
            assert_eq!(send(&channel, 100).await, 100);
        }
        assert!(observed.connections.load(Ordering::SeqCst) > 1);
    }
}

#[tokio::test]
async fn refused_streams_are_sent_again() {
    for http2 in BOTH {
        let manner = Manner {
            streams_max: 100,
            refuse_every: Some(10),
            ..PLAIN
        };
        let (channel, observed) = start(http2, manner).await;
        for _ in 0..3 {
            assert_eq!(send(&channel, 1).await, 1);
        }
        assert_eq!(send(&channel, 30).await, 30);
        assert!(observed.streams.load(Ordering::SeqCst) > 33);
    }
}

/// A server of raw HTTP/1.1 that says these answers, one for each request, and closes when it has none left for the connection.
async fn raw(connections: Vec<Vec<&'static str>>) -> (Arc<dyn Channel>, Arc<AtomicUsize>) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let (tls, ca_pem) = stand_in::server_tls(&[b"http/1.1"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://{}", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicUsize::new(0));
    let seen = requests.clone();
    tokio::spawn(async move {
        for answers in connections {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = TlsAcceptor::from(tls.clone()).accept(stream).await.unwrap();
            for answer in answers {
                let mut request = Vec::new();
                while !request.ends_with(b"registration_id=ab") {
                    assert!(stream.read_buf(&mut request).await.unwrap() > 0);
                }
                seen.fetch_add(1, Ordering::SeqCst);
                for piece in answer.as_bytes().chunks(20) {
                    stream.write_all(piece).await.unwrap();
                    stream.flush().await.unwrap();
                }
            }
            let _ = stream.shutdown().await;
        }
    });
    let paper = crate::paper::ALL
        .iter()
        .find(|p| p.name == "xiaomi")
        .unwrap();
    let egress = message::egress(&ca_pem);
    let channel = message::open(&egress, "xiaomi", &(paper.config)(), &endpoint);
    (channel, requests)
}

async fn send_ab(channel: &Arc<dyn Channel>) -> hongyan_core::Verdict {
    let outbound = message::outbound(message::message(Class::Im));
    let batch = message::batch(outbound, ["ab".to_owned()]);
    channel.send(&batch, PATIENCE).await.remove(0)
}

#[tokio::test]
async fn http1_answers_of_every_shape_are_read_and_closed_connections_replaced() {
    let (channel, requests) = raw(vec![
        vec![
            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{\"code\":0}",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"cod\r\n5\r\ne\":0}\r\n0\r\n\r\n",
        ],
        vec!["HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{\"code\":0}"],
        vec!["HTTP/1.0 200 OK\r\ncontent-length: 10\r\n\r\n{\"code\":0}"],
    ])
    .await;
    for n in 1..=4 {
        let verdict = send_ab(&channel).await;
        assert!(
            matches!(verdict, hongyan_core::Verdict::Accepted { .. }),
            "{n}: {verdict:?}"
        );
        assert_eq!(requests.load(Ordering::SeqCst), n);
    }
}

#[tokio::test]
async fn an_http1_answer_that_ends_early_is_not_known_to_be_without_effect() {
    let (channel, requests) = raw(vec![
        vec!["HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"code\""],
        vec![""],
    ])
    .await;
    for n in 1..=2 {
        let verdict = send_ab(&channel).await;
        let unsure = hongyan_core::verdict::Unsure::MaybeTaken;
        assert!(
            matches!(verdict, hongyan_core::Verdict::Retry { certainty, .. } if certainty == unsure),
            "{verdict:?}"
        );
        assert_eq!(requests.load(Ordering::SeqCst), n);
    }
}

#[tokio::test]
async fn a_peer_that_cannot_be_reached_fails_all_who_wait_at_once() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("https://{}", listener.local_addr().unwrap());
    drop(listener);
    let (_, ca_pem) = stand_in::server_tls(&[b"h2"]);
    let paper = crate::paper::ALL.iter().find(|p| p.name == "apns").unwrap();
    let channel = message::open(
        &message::egress(&ca_pem),
        "apns",
        &(paper.config)(),
        &endpoint,
    );
    assert_eq!(send(&channel, 100).await, 0);
    let report = channel.check(PATIENCE).await;
    assert!(
        !report.ok && report.detail.contains("127.0.0.1"),
        "{report:?}"
    );
}

#[tokio::test]
async fn http1_connections_are_used_again() {
    let server = stand_in::StandIn::start(|_| {
        let body = r#"{"result":"ok","code":0,"data":{"id":"scm1"}}"#.to_owned();
        stand_in::Act::Answer(200, Vec::new(), body)
    })
    .await;
    let paper = crate::paper::ALL
        .iter()
        .find(|p| p.name == "xiaomi")
        .unwrap();
    let egress = message::egress(&server.ca_pem);
    let channel = message::open(&egress, "xiaomi", &(paper.config)(), &server.endpoint);
    for _ in 0..20 {
        assert_eq!(send(&channel, 3).await, 3);
    }
    assert_eq!((server.connections(), server.seen().len()), (1, 20));
}

#[tokio::test]
async fn an_answer_over_the_limit_is_not_read() {
    let server = stand_in::StandIn::start(|_| {
        stand_in::Act::Answer(200, Vec::new(), "x".repeat(1024 * 1024))
    })
    .await;
    let egress = message::egress(&server.ca_pem);
    for name in ["apns", "xiaomi"] {
        let paper = crate::paper::ALL.iter().find(|p| p.name == name).unwrap();
        let channel = message::open(&egress, name, &(paper.config)(), &server.endpoint);
        let outbound = message::outbound(message::message(Class::Im));
        let verdicts = channel
            .send(&message::batch(outbound, ["ab".to_owned()]), PATIENCE)
            .await;
        let detail = verdicts[0].detail();
        assert!(
            detail.contains("more than 524288 bytes"),
            "{name}: {verdicts:?}"
        );
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let server = stand_in::StandIn::start(|seen| match seen.path.as_str() {
        "/secret" => stand_in::Act::Answer(200, Vec::new(), "{\"code\":0}".to_owned()),
        _ => stand_in::Act::Answer(302, vec![("location", "/secret".to_owned())], String::new()),
    })
    .await;
    let paper = crate::paper::ALL
        .iter()
        .find(|p| p.name == "xiaomi")
        .unwrap();
    let egress = message::egress(&server.ca_pem);
    let channel = message::open(&egress, "xiaomi", &(paper.config)(), &server.endpoint);
    assert_eq!(send(&channel, 1).await, 0);
    assert!(server.seen().iter().all(|s| s.path != "/secret"));
}
