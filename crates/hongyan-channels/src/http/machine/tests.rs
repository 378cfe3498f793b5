use std::sync::Arc;

use proptest::prelude::*;

use super::*;

type Results = Vec<(u32, Result<(u16, Vec<u8>), Failure>)>;

fn ask(body: usize) -> Ask {
    Ask {
        method: Method::POST,
        path: Bytes::from_static(b"/3/device/00"),
        headers: Arc::default(),
        body: vec![b'x'; body].into(),
    }
}

fn frame(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    head(&mut out, payload.len(), kind, flags, id);
    out.extend_from_slice(payload);
    out
}

fn settings(all: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> = all
        .iter()
        .flat_map(|(name, value)| [name.to_be_bytes().to_vec(), value.to_be_bytes().to_vec()])
        .flatten()
        .collect();
    frame(kind::SETTINGS, 0, 0, &payload)
}

fn window(id: u32, more: u32) -> Vec<u8> {
    frame(kind::WINDOW, 0, id, &more.to_be_bytes())
}

/// A 200 without a body.
fn ok(id: u32) -> Vec<u8> {
    frame(
        kind::HEADERS,
        flag::END_HEADERS | flag::END_STREAM,
        id,
        &[0x88],
    )
}

fn go_away(last: u32) -> Vec<u8> {
    let mut payload = last.to_be_bytes().to_vec();
    payload.extend([0; 4]);
    frame(kind::GOAWAY, 0, 0, &payload)
}

/// A connection whose peer has said these SETTINGS; its own first words are gone.
fn begun(all: &[(u16, u32)]) -> Machine<u32> {
    let mut machine = Machine::new("a.example");
    machine.receive(&settings(all)).unwrap();
    machine.out.clear();
    machine
}

fn asked(machine: &mut Machine<u32>, ids: impl IntoIterator<Item = u32>, body: usize) {
    for id in ids {
        machine.submit(id, ask(body), id);
    }
    machine.pump();
}

/// What was sent since the last look: kind, flags, stream and payload.
fn sent(machine: &mut Machine<u32>) -> Vec<(u8, u8, u32, Vec<u8>)> {
    let out = std::mem::take(&mut machine.out);
    let mut rest = out.as_slice();
    let mut frames = Vec::new();
    while let Some((frame, after)) = split(rest).unwrap() {
        frames.push((frame.kind, frame.flags, frame.id, frame.payload.to_vec()));
        rest = after;
    }
    assert!(rest.is_empty());
    frames
}

/// The streams that frames of a kind were sent on.
fn on(machine: &mut Machine<u32>, kind: u8) -> Vec<u32> {
    let frames = sent(machine).into_iter();
    frames.filter(|f| f.0 == kind).map(|f| f.2).collect()
}

fn results(machine: &mut Machine<u32>) -> Results {
    machine
        .finished
        .drain(..)
        .map(|(id, result)| (id, result.map(|a| (a.status, a.body.to_vec()))))
        .collect()
}

fn lost(id: u32, problem: &str) -> (u32, Result<(u16, Vec<u8>), Failure>) {
    (id, Err(Failure::Lost(problem.to_owned())))
}

#[test]
fn a_request_is_sent_whole_and_its_answer_comes_back() {
    let mut machine = begun(&[(3, 100)]);
    asked(&mut machine, [1], 5);
    let frames = sent(&mut machine);
    let kinds: Vec<(u8, u8, u32)> = frames.iter().map(|f| (f.0, f.1, f.2)).collect();
    assert_eq!(
        kinds,
        [
            (kind::HEADERS, flag::END_HEADERS, 1),
            (kind::DATA, flag::END_STREAM, 1)
        ]
    );
    assert_eq!(frames[1].3, b"xxxxx");
    let mut fields = Vec::new();
    let mut read = |field: &Field, _| fields.push(field.clone());
    Decoder::default().decode(&frames[0].3, &mut read).unwrap();
    assert_eq!(fields.len(), 4);
    let head = [&[0x88][..], &[0x00, 1, b'a', 1, b'b']].concat();
    machine
        .receive(&frame(kind::HEADERS, flag::END_HEADERS, 1, &head))
        .unwrap();
    machine.receive(&frame(kind::DATA, 0, 1, b"he")).unwrap();
    machine
        .receive(&frame(kind::DATA, flag::END_STREAM, 1, b"llo"))
        .unwrap();
    let (id, answer) = machine.finished.pop().unwrap();
    let answer = answer.unwrap();
    assert_eq!(
        (id, answer.status, answer.body.as_ref()),
        (1, 200, &b"hello"[..])
    );
    assert_eq!(answer.headers["a"], "b");
    assert!(machine.is_idle());
}

#[test]
fn one_stream_is_opened_until_the_peer_allows_more() {
    let mut machine = Machine::new("a.example");
    asked(&mut machine, [1, 3, 5, 7], 0);
    let out = std::mem::take(&mut machine.out);
    assert!(out.starts_with(PREFACE));
    assert_eq!(machine.streams.len(), 1);
    machine.receive(&settings(&[(3, 3)])).unwrap();
    machine.pump();
    assert_eq!(on(&mut machine, kind::HEADERS), [3, 5]);
    machine.receive(&settings(&[(3, 0)])).unwrap();
    for id in [1, 3, 5] {
        machine.receive(&ok(id)).unwrap();
    }
    machine.pump();
    assert!(on(&mut machine, kind::HEADERS).is_empty());
    machine.receive(&settings(&[(3, 1)])).unwrap();
    machine.pump();
    assert_eq!(on(&mut machine, kind::HEADERS), [7]);
    // A peer that names no limit has none.
    assert_eq!(begun(&[]).streams_max(), usize::MAX);
}

#[test]
fn bodies_keep_to_both_windows() {
    let mut machine = begun(&[(3, 100), (4, 1000)]);
    asked(&mut machine, [1], 2500);
    let lens = |machine: &mut Machine<u32>| -> Vec<(u32, usize, u8)> {
        let frames = sent(machine).into_iter();
        frames
            .filter(|f| f.0 == kind::DATA)
            .map(|f| (f.2, f.3.len(), f.1))
            .collect()
    };
    assert_eq!(lens(&mut machine), [(1, 1000, 0)]);
    machine.receive(&window(1, 700)).unwrap();
    machine.pump();
    assert_eq!(lens(&mut machine), [(1, 700, 0)]);
    // The window becomes negative and has to be paid back first.
    machine.receive(&settings(&[(4, 500)])).unwrap();
    machine.receive(&window(1, 500)).unwrap();
    machine.pump();
    assert_eq!(lens(&mut machine), []);
    machine.receive(&window(1, 10)).unwrap();
    machine.pump();
    assert_eq!(lens(&mut machine), [(1, 10, 0)]);
    machine.receive(&settings(&[(4, 5000)])).unwrap();
    machine.pump();
    assert_eq!(lens(&mut machine), [(1, 790, flag::END_STREAM)]);
    // The connection's window, shared by all, in order.
    asked(&mut machine, (3..=41).step_by(2), 4000);
    let first = lens(&mut machine);
    let total: usize = first.iter().map(|f| f.1).sum();
    assert_eq!(total, 65_535 - 2500);
    machine.receive(&window(0, 100_000)).unwrap();
    machine.pump();
    let second = lens(&mut machine);
    let total: usize = first.iter().chain(&second).map(|f| f.1).sum();
    assert_eq!(total, 20 * 4000);
    assert!(second.is_sorted_by_key(|f| f.0), "{second:?}");
}

#[test]
fn what_the_peer_did_not_process_is_told_from_what_it_may_have() {
    let mut machine = begun(&[(3, 4)]);
    asked(&mut machine, [1, 3, 5, 7, 9], 0);
    machine
        .receive(&frame(kind::RESET, 0, 1, &code::REFUSED.to_be_bytes()))
        .unwrap();
    machine
        .receive(&frame(kind::RESET, 0, 3, &2_u32.to_be_bytes()))
        .unwrap();
    let unprocessed = |problem: &str| Err(Failure::Unprocessed(problem.to_owned()));
    assert_eq!(
        results(&mut machine),
        [
            (1, unprocessed("the peer refused the stream")),
            lost(3, "the peer reset the stream with code 2")
        ]
    );
    machine.receive(&go_away(5)).unwrap();
    assert_eq!(
        results(&mut machine),
        [
            (7, unprocessed("the peer went away before it")),
            (9, unprocessed("the peer is going away"))
        ]
    );
    asked(&mut machine, [11], 0);
    assert_eq!(
        results(&mut machine),
        [(11, unprocessed("the peer is going away"))]
    );
    machine.receive(&ok(5)).unwrap();
    assert_eq!(results(&mut machine), [(5, Ok((200, Vec::new())))]);
    assert!(machine.is_idle() && machine.is_going_away());
}

#[test]
fn requests_that_are_given_up_are_reset_or_never_sent() {
    let mut machine = begun(&[(3, 2)]);
    asked(&mut machine, [1, 3, 5, 7], 0);
    sent(&mut machine);
    machine.cancel(1);
    machine.cancel(5);
    machine.pump();
    let frames: Vec<(u8, u32)> = sent(&mut machine).iter().map(|f| (f.0, f.2)).collect();
    assert_eq!(frames, [(kind::RESET, 1), (kind::HEADERS, 7)]);
    // Late frames for it change nothing, not even those of an id that was skipped.
    machine.receive(&ok(1)).unwrap();
    machine.receive(&ok(5)).unwrap();
    machine.receive(&window(1, 5)).unwrap();
    assert_eq!(results(&mut machine), []);
}

#[test]
fn long_heads_go_over_several_frames_in_both_directions() {
    let mut machine = begun(&[]);
    let header = |n: u32| {
        let name: HeaderName = format!("x-{n}").parse().unwrap();
        (name, "v".repeat(2000).parse().unwrap())
    };
    let headers = (0..30).map(header).collect();
    let ask = Ask {
        headers: Arc::new(headers),
        ..ask(1)
    };
    machine.submit(1, ask, 1);
    machine.pump();
    let frames = sent(&mut machine);
    let kinds: Vec<(u8, u8)> = frames.iter().map(|f| (f.0, f.1)).collect();
    assert_eq!(
        kinds,
        [
            (kind::HEADERS, 0),
            (kind::CONTINUATION, 0),
            (kind::CONTINUATION, 0),
            (kind::CONTINUATION, flag::END_HEADERS),
            (kind::DATA, flag::END_STREAM)
        ]
    );
    let block: Vec<u8> = frames[..4].iter().flat_map(|f| f.3.clone()).collect();
    let mut count = 0;
    Decoder::default()
        .decode(&block, |_, _| count += 1)
        .unwrap();
    assert_eq!(count, 34);
    machine
        .receive(&frame(kind::HEADERS, flag::END_STREAM, 1, &[0x88]))
        .unwrap();
    machine
        .receive(&frame(kind::CONTINUATION, 0, 1, &[0x00, 1, b'a']))
        .unwrap();
    machine
        .receive(&frame(kind::CONTINUATION, flag::END_HEADERS, 1, &[1, b'b']))
        .unwrap();
    assert_eq!(results(&mut machine), [(1, Ok((200, Vec::new())))]);
}

#[test]
fn padding_priorities_interim_answers_and_trailers_are_passed_over() {
    let mut machine = begun(&[]);
    asked(&mut machine, [1], 0);
    let interim = [0x08, 3, b'1', b'0', b'3'];
    machine
        .receive(&frame(kind::HEADERS, flag::END_HEADERS, 1, &interim))
        .unwrap();
    let padded = [2, 0, 0, 0, 0, 9, 0x88, 0, 0];
    let flags = flag::END_HEADERS | flag::PADDED | flag::PRIORITY;
    machine
        .receive(&frame(kind::HEADERS, flags, 1, &padded))
        .unwrap();
    machine
        .receive(&frame(kind::PRIORITY, 0, 1, &[0; 5]))
        .unwrap();
    machine
        .receive(&frame(77, 0xff, 0x7fff_ffff, b"?"))
        .unwrap();
    machine
        .receive(&frame(kind::DATA, flag::PADDED, 1, &[1, b'y', 0]))
        .unwrap();
    let trailer = [0x00, 1, b'a', 1, b'b'];
    let flags = flag::END_HEADERS | flag::END_STREAM;
    machine
        .receive(&frame(kind::HEADERS, flags, 1, &trailer))
        .unwrap();
    assert_eq!(results(&mut machine), [(1, Ok((200, b"y".to_vec())))]);
}

#[test]
fn malformed_answers_end_their_stream_alone() {
    let head = flag::END_HEADERS;
    let length = [&[0x88, 0x0f, 13, 1][..], b"7"].concat();
    for (what, frames) in [
        (
            "no status",
            vec![frame(kind::HEADERS, head, 1, &[0x00, 1, b'a', 1, b'b'])],
        ),
        ("a path", vec![frame(kind::HEADERS, head, 1, &[0x88, 0x84])]),
        (
            "two statuses",
            vec![frame(kind::HEADERS, head, 1, &[0x88, 0x88])],
        ),
        (
            "a status behind a field",
            vec![frame(
                kind::HEADERS,
                head,
                1,
                &[0x00, 1, b'a', 1, b'b', 0x88],
            )],
        ),
        ("a body first", vec![frame(kind::DATA, 0, 1, b"x")]),
        (
            "another length",
            vec![
                frame(kind::HEADERS, head, 1, &length),
                frame(kind::DATA, flag::END_STREAM, 1, b"x"),
            ],
        ),
        (
            "a second head",
            vec![
                frame(kind::HEADERS, head, 1, &[0x88]),
                frame(kind::HEADERS, head, 1, &[0x88]),
            ],
        ),
        ("a window of nothing", vec![window(1, 0)]),
        ("a window too large", vec![window(1, 0x7fff_ffff)]),
    ] {
        let mut machine = begun(&[]);
        asked(&mut machine, [1, 3], 0);
        sent(&mut machine);
        for frame in frames {
            machine.receive(&frame).unwrap();
        }
        let all = results(&mut machine);
        assert!(
            matches!(all.as_slice(), [(1, Err(Failure::Lost(_)))]),
            "{what}: {all:?}"
        );
        assert_eq!(on(&mut machine, kind::RESET), [1], "{what}");
        machine.receive(&ok(3)).unwrap();
        assert_eq!(results(&mut machine).len(), 1, "{what}");
    }
}

#[test]
fn a_peer_that_breaks_the_protocol_is_told_how() {
    let long = vec![0; FRAME_BYTES_MAX + 1];
    for (code, what, bytes) in [
        (
            code::PROTOCOL,
            "a push",
            frame(kind::PROMISE, flag::END_HEADERS, 1, &[0, 0, 0, 2]),
        ),
        (code::PROTOCOL, "a stream of its own", ok(2)),
        (code::PROTOCOL, "a stream not opened", ok(99)),
        (
            code::PROTOCOL,
            "data without a stream",
            frame(kind::DATA, 0, 0, b"x"),
        ),
        (code::PROTOCOL, "pushes allowed", settings(&[(2, 1)])),
        (
            code::PROTOCOL,
            "a continuation of nothing",
            frame(kind::CONTINUATION, 4, 1, &[]),
        ),
        (
            code::PROTOCOL,
            "padding beyond the frame",
            frame(kind::DATA, flag::PADDED, 1, &[9]),
        ),
        (
            code::PROTOCOL,
            "a block that is interrupted",
            [frame(kind::HEADERS, 0, 1, &[0x88]), ok(3)].concat(),
        ),
        (code::PROTOCOL, "a window of nothing", window(0, 0)),
        (code::PROTOCOL, "frames too small", settings(&[(5, 100)])),
        (code::FLOW, "a window too large", window(0, 0x7fff_ffff)),
        (
            code::FLOW,
            "windows too large",
            settings(&[(4, 0x8000_0000)]),
        ),
        (
            code::FRAME_SIZE,
            "a long frame",
            frame(kind::DATA, 0, 1, &long),
        ),
        (
            code::FRAME_SIZE,
            "a short ping",
            frame(kind::PING, 0, 0, &[0; 7]),
        ),
        (
            code::FRAME_SIZE,
            "an odd setting",
            frame(kind::SETTINGS, 0, 0, &[0; 7]),
        ),
        (
            code::COMPRESSION,
            "no header block",
            frame(kind::HEADERS, flag::END_HEADERS, 1, &[0xff]),
        ),
        (code::CALM, "a block without end", {
            let mut bytes = frame(kind::HEADERS, 0, 1, &[0x88]);
            for _ in 0..20 {
                bytes.extend(frame(kind::CONTINUATION, 0, 1, &[]));
            }
            bytes
        }),
    ] {
        let mut machine = begun(&[]);
        asked(&mut machine, [1, 3], 0);
        let fault = machine.receive(&bytes).unwrap_err();
        assert_eq!(fault.code, code, "{what}: {fault}");
        machine.fail(fault.problem);
        assert_eq!(results(&mut machine).len(), 2, "{what}");
    }
    let mut silent = Machine::<u32>::new("a.example");
    assert_eq!(silent.receive(&ok(1)).unwrap_err().code, code::PROTOCOL);
}

#[test]
fn answers_and_heads_have_limits_and_windows_are_given_back() {
    let mut machine = begun(&[]);
    asked(&mut machine, [1, 3], 0);
    sent(&mut machine);
    let piece = vec![b'x'; FRAME_BYTES_MAX];
    machine
        .receive(&frame(kind::HEADERS, flag::END_HEADERS, 1, &[0x88]))
        .unwrap();
    for given_back in [&[1][..], &[0, 1]] {
        for _ in 0..16 {
            machine.receive(&frame(kind::DATA, 0, 1, &piece)).unwrap();
        }
        assert_eq!(on(&mut machine, kind::WINDOW), given_back);
    }
    assert_eq!(results(&mut machine), []);
    for _ in 0..32 {
        machine.receive(&frame(kind::DATA, 0, 1, &piece)).unwrap();
    }
    assert_eq!(results(&mut machine), [(1, Err(Failure::TooLarge))]);
    let frames: Vec<(u8, u32)> = sent(&mut machine).iter().map(|f| (f.0, f.2)).collect();
    assert_eq!(frames, [(kind::RESET, 1), (kind::WINDOW, 0)]);
    let mut block = vec![0x88];
    for _ in 0..5 {
        block.extend([0x00, 1, b'a', 0x7f, 0x91, 0x1e]);
        block.extend(vec![b'v'; 127 + 0x11 + 0x1e * 128]);
    }
    machine
        .receive(&frame(kind::HEADERS, 0, 3, &block[..16_000]))
        .unwrap();
    machine
        .receive(&frame(
            kind::CONTINUATION,
            flag::END_HEADERS,
            3,
            &block[16_000..],
        ))
        .unwrap();
    assert_eq!(
        results(&mut machine),
        [lost(3, "the answer's head is malformed")]
    );
}

#[test]
fn pings_are_answered_and_counted() {
    let mut machine = begun(&[]);
    machine
        .receive(&frame(kind::PING, 0, 0, b"12345678"))
        .unwrap();
    let frames = sent(&mut machine);
    assert_eq!(frames, [(kind::PING, flag::ACK, 0, b"12345678".to_vec())]);
    machine.ping();
    let mut pong = sent(&mut machine).remove(0);
    pong.1 = flag::ACK;
    machine
        .receive(&frame(pong.0, pong.1, pong.2, &pong.3))
        .unwrap();
    assert_eq!(machine.pongs(), 1);
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let id = prop_oneof![Just(0_u32), Just(1), Just(3), Just(5), 0..12_u32];
    let payload = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        Just(vec![0x88]),
        Just(vec![0, 0, 0, 1]),
        Just(b"12345678".to_vec()),
    ];
    (0..11_u8, any::<u8>(), id, payload).prop_map(|(kind, flags, id, p)| frame(kind, flags, id, &p))
}

proptest! {
    #[test]
    fn the_cuts_between_reads_do_not_matter(
        frames in prop::collection::vec(any_frame(), 0..20),
        cuts in prop::collection::vec(1..50_usize, 1..40),
    ) {
        let bytes: Vec<u8> = frames.concat();
        let run = |cuts: &[usize]| {
            let mut machine = begun(&[(3, 3)]);
            asked(&mut machine, [1, 3, 5, 7], 10);
            let mut rest = bytes.as_slice();
            let mut end = None;
            for cut in cuts.iter().cycle() {
                let (now, later) = rest.split_at(rest.len().min(*cut));
                rest = later;
                if let Err(fault) = machine.receive(now) {
                    end = Some(fault);
                    break;
                }
                if rest.is_empty() {
                    break;
                }
            }
            let out = std::mem::take(&mut machine.out);
            let mut results = results(&mut machine);
            results.sort_by_key(|r| r.0);
            (results, end, out)
        };
        prop_assert_eq!(run(&cuts), run(&[usize::MAX]));
    }

    #[test]
    fn every_request_ends_once_whatever_the_peer_says(
        frames in prop::collection::vec(any_frame(), 0..60),
        given_up in prop::option::of(0..4_u32),
    ) {
        let mut machine = begun(&[(3, 3)]);
        asked(&mut machine, [1, 3, 5, 7], 10);
        let gone = given_up.map(|n| 2 * n + 1);
        for (at, frame) in frames.iter().enumerate() {
            if at == 3 && let Some(id) = gone {
                machine.cancel(id);
            }
            if machine.receive(frame).is_err() {
                break;
            }
            machine.pump();
        }
        machine.fail("over");
        let mut ids: Vec<u32> = results(&mut machine).iter().map(|r| r.0).collect();
        ids.sort_unstable();
        let unique: std::collections::BTreeSet<u32> = ids.iter().copied().collect();
        prop_assert_eq!(unique.len(), ids.len());
        let all = [1, 3, 5, 7].iter().filter(|id| gone != Some(**id)).all(|id| unique.contains(id));
        prop_assert!(all, "{:?}", ids);
        prop_assert!(machine.is_idle());
    }

    #[test]
    fn no_bytes_are_too_strange(bytes: Vec<u8>, cut in 0..100_usize) {
        crate::http::swallow(&bytes, cut);
        let mut greeted = settings(&[]);
        greeted.extend(bytes);
        crate::http::swallow(&greeted, cut);
    }
}
