//! Providers of text messages: rows of requests and their answers, and the message centre's bare PDUs.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hongyan_sandbox::{Channel, Handle, TokenState};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::stage::{Stage, form};

fn number(handle: &Handle, state: TokenState) -> String {
    handle
        .issue_tokens(Channel::Sms, 1, state)
        .unwrap()
        .remove(0)
}

#[tokio::test]
async fn twilio_checks_what_it_is_given() {
    let stage = Stage::open().await;
    let account = stage.handle.credential(Channel::Twilio).unwrap();
    let sid = account["account_sid"].as_str().unwrap();
    let good = STANDARD.encode(format!("{sid}:{}", account["auth_token"].as_str().unwrap()));
    let path = format!("/2010-04-01/Accounts/{sid}/Messages.json");
    let (to, dead) = (
        number(&stage.handle, TokenState::Valid),
        number(&stage.handle, TokenState::Dead { since_ms: 1 }),
    );
    let long = "a".repeat(1601);
    let rows: Vec<(&str, &str, Vec<(&str, &str)>, u16, &str)> = vec![
        ("taken", &good, vec![], 201, ""),
        ("no key", "wrong", vec![], 401, "20003"),
        ("bad number", &good, vec![("To", "12")], 400, "21211"),
        (
            "without plus",
            &good,
            vec![("To", "13800138000")],
            400,
            "21211",
        ),
        ("dead number", &good, vec![("To", &dead)], 400, "21614"),
        (
            "opted out",
            &good,
            vec![("To", "+8613800130004")],
            400,
            "21610",
        ),
        ("no body", &good, vec![("Body", "")], 400, "21602"),
        ("long", &good, vec![("Body", &long)], 400, "21617"),
        (
            "other sender",
            &good,
            vec![("From", "+15005550001")],
            400,
            "21606",
        ),
        (
            "validity",
            &good,
            vec![("ValidityPeriod", "40000")],
            400,
            "20001",
        ),
    ];
    for (what, key, change, status, code) in rows {
        let mut fields = vec![
            ("To", to.as_str()),
            ("From", "+15005550006"),
            ("Body", "hi"),
        ];
        for (name, value) in change {
            fields.retain(|(field, _)| *field != name);
            fields.push((name, value));
        }
        let headers = [
            ("authorization", &*format!("Basic {key}")),
            ("content-type", "application/x-www-form-urlencoded"),
        ];
        let answer = stage.call("POST", &path, &headers, form(&fields)).await;
        assert_eq!(
            (answer.status, answer.at("/code").as_str()),
            (status, code),
            "{what}"
        );
    }
    let seen = stage.handle.requests(Channel::Sms);
    assert_eq!(
        seen.len(),
        10,
        "the channel has the requests of its providers"
    );
    assert!(stage.handle.requests(Channel::Smpp).is_empty());
}

/// Sends PDUs and reads answers, each as (id, status, body).
async fn say(socket: &mut TcpStream, pdus: &[Vec<u8>], answers: usize) -> Vec<(u32, u32, Vec<u8>)> {
    for pdu in pdus {
        socket.write_all(pdu).await.unwrap();
    }
    let mut got = Vec::new();
    for _ in 0..answers {
        let mut head = [0; 16];
        socket.read_exact(&mut head).await.unwrap();
        let word = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().unwrap());
        let mut body = vec![0; word(0) as usize - 16];
        socket.read_exact(&mut body).await.unwrap();
        got.push((word(4), word(8), body));
    }
    got
}

fn pdu(id: u32, sequence: u32, body: &[u8]) -> Vec<u8> {
    let words = [16 + body.len() as u32, id, 0, sequence];
    let head = words.iter().flat_map(|word| word.to_be_bytes());
    head.chain(body.iter().copied()).collect()
}

fn bind(account: &Value, password: &str) -> Vec<u8> {
    let id = account["system_id"].as_str().unwrap();
    let body = format!("{id}\0{password}\0\0\x34\0\0\0");
    pdu(9, 1, body.as_bytes())
}

#[tokio::test]
async fn the_centre_speaks_smpp() {
    let stage = Stage::open().await;
    let account = stage.handle.credential(Channel::Smpp).unwrap();
    let password = account["password"].as_str().unwrap();
    let port = u16::try_from(account["port"].as_u64().unwrap()).unwrap();
    let open = || async { TcpStream::connect(("127.0.0.1", port)).await.unwrap() };
    let submit = |to: &str, sequence: u32| {
        let mut body = b"\0\x03\0".to_vec();
        body.extend(format!("10690\0\x01\x01{to}\0").bytes());
        body.extend([0, 0, 0, 0, 0, 1, 0, 0, 0, 5]);
        body.extend(b"Hello");
        pdu(4, sequence, &body)
    };
    let mut wrong = open().await;
    assert_eq!(
        say(&mut wrong, &[bind(&account, "wrong")], 1).await[0].1,
        0x0E
    );
    let mut unbound = open().await;
    assert_eq!(
        say(&mut unbound, &[submit("8613800138000", 1)], 1).await[0].1,
        0x04
    );
    let mut bound = open().await;
    let answer = say(&mut bound, &[bind(&account, password)], 1).await;
    assert_eq!((answer[0].0, answer[0].1), (0x8000_0009, 0));
    assert_eq!(
        say(&mut bound, &[pdu(0x15, 2, &[])], 1).await[0].0,
        0x8000_0015
    );
    assert_eq!(
        say(&mut bound, &[pdu(0x77, 3, &[])], 1).await[0].0,
        0x8000_0000
    );
    assert_eq!(say(&mut bound, &[submit("12", 4)], 1).await[0].1, 0x0B);
    // The answer, then the receipt that names the same id in decimal.
    let answers = say(&mut bound, &[submit("8613800138000", 5)], 2).await;
    assert_eq!((answers[0].0, answers[0].1), (0x8000_0004, 0));
    let id = String::from_utf8(answers[0].2.clone()).unwrap();
    let number = u32::from_str_radix(id.trim_end_matches('\0'), 16).unwrap();
    let receipt = String::from_utf8_lossy(&answers[1].2).into_owned();
    assert_eq!(answers[1].0, 5);
    assert!(
        receipt.contains(&format!("id:{number} ")) && receipt.contains("stat:DELIVRD"),
        "{receipt}"
    );
    let end = say(&mut bound, &[pdu(6, 6, &[])], 1).await;
    assert_eq!(end[0].0, 0x8000_0006);
    let paths: Vec<String> = stage
        .handle
        .requests(Channel::Smpp)
        .into_iter()
        .map(|r| r.path)
        .collect();
    assert_eq!(paths.len(), 5, "{paths:?}");
}

#[tokio::test]
async fn unsigned_calls_are_refused_in_each_vendors_words() {
    let stage = Stage::open().await;
    let json_type = ("content-type", "application/json");
    let aliyun = [("x-acs-version", "2017-05-25"), ("x-acs-action", "SendSms")];
    let answer = stage.call("POST", "/", &aliyun, "").await;
    assert_eq!(
        (answer.status, answer.at("/Code").as_str()),
        (400, "IncompleteSignature")
    );
    let push = [("x-acs-version", "2016-08-01"), ("x-acs-action", "Push")];
    let answer = stage.call("POST", "/", &push, "").await;
    assert_eq!(answer.at("/Code"), "IncompleteSignature");
    assert_eq!(stage.handle.requests(Channel::Aliyun).len(), 1);
    let tencent = [
        ("x-tc-version", "2021-01-11"),
        ("x-tc-action", "SendSms"),
        json_type,
    ];
    let answer = stage.call("POST", "/", &tencent, "{}").await;
    let code = answer.at("/Response/Error/Code");
    assert_eq!(
        (answer.status, code.as_str()),
        (200, "AuthFailure.SignatureFailure")
    );
}

#[tokio::test]
async fn tpns_checks_what_it_is_given() {
    let stage = Stage::open().await;
    let account = stage.handle.credential(Channel::Tpns).unwrap();
    let pair = format!(
        "{}:{}",
        account["access_id"].as_str().unwrap(),
        account["secret_key"].as_str().unwrap()
    );
    let good = format!("basic {}", STANDARD.encode(pair));
    let token = |state| {
        stage
            .handle
            .issue_tokens(Channel::Tpns, 1, state)
            .unwrap()
            .remove(0)
    };
    let (alive, dead) = (
        token(TokenState::Valid),
        token(TokenState::Dead { since_ms: 1 }),
    );
    assert!(alive.len() <= 36);
    let body = |change: Value| {
        let mut body = json!({"audience_type": "token_list", "message_type": "notify", "token_list": [alive, dead],
            "message": {"title": "t", "content": "c", "android": {"custom_content": "{\"hy_id\":\"m\"}"}}});
        for (name, value) in change.as_object().unwrap() {
            body[name] = value.clone();
        }
        body.to_string()
    };
    let rows = [
        ("taken", good.as_str(), body(json!({})), "0"),
        ("wrong key", "Basic x", body(json!({})), "1008003"),
        ("not JSON", &good, "{".to_owned(), "1008001"),
        (
            "no content",
            &good,
            body(json!({"message": {"title": "t"}})),
            "1008002",
        ),
        ("kind", &good, body(json!({"message_type": "x"})), "1008007"),
        (
            "environment",
            &good,
            body(json!({"environment": "x"})),
            "1008007",
        ),
        (
            "life",
            &good,
            body(json!({"expire_time": 259_201})),
            "1008007",
        ),
        (
            "size",
            &good,
            body(json!({"message": {"title": "t", "content": "c".repeat(4096)}})),
            "1008007",
        ),
        (
            "nobody",
            &good,
            body(json!({"token_list": [dead]})),
            "1008006",
        ),
        (
            "many",
            &good,
            body(json!({"token_list": vec!["x"; 1001]})),
            "1008007",
        ),
    ];
    for (what, key, body, code) in rows {
        let headers = [("authorization", key), ("content-type", "application/json")];
        let answer = stage.call("POST", "/v3/push/app", &headers, body).await;
        assert_eq!(
            (answer.status, answer.at("/ret_code").as_str()),
            (200, code),
            "{what}"
        );
        if what == "taken" {
            assert_eq!(answer.json()["invalid_targe_list"], json!([dead]));
        }
    }
}
