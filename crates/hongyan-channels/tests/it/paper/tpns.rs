//! TPNS: business errors with HTTP status 200, dead tokens named in `invalid_targe_list`.

use serde_json::{Value, json};

use super::{Paper, answer, json_of, oauth_token, plain_token, texts};

pub(super) const PAPER: Paper = Paper {
    name: "tpns",
    config: || json!({"access_id": "1500001048", "secret_key": "1452fcebae9f3115ba794fb0fff2fd73"}),
    token_path: None,
    token_answer: oauth_token,
    tokens_expire: false,
    names_tokens: true,
    token: plain_token,
    take_apart: |seen| {
        let mut body = json_of(seen);
        let tokens = body.as_object_mut().and_then(|b| b.remove("token_list"));
        (seen.path.clone(), body, texts(tokens))
    },
    answer: |dead| {
        answer(
            200,
            &json!({"seq": 0, "push_id": "1329", "ret_code": 0, "environment": "product", "err_msg": "",
                    "result": "[]", "invalid_targe_list": Value::from(dead.to_vec())}),
        )
    },
    expired: || answer(403, &Value::Null),
    rows: &[
        (
            "code 1008013",
            200,
            r#"{"ret_code":1008013}"#,
            "credential_bad",
        ),
        (
            "code 1008020",
            200,
            r#"{"ret_code":1008020}"#,
            "credential_bad",
        ),
        (
            "code 1008022",
            200,
            r#"{"ret_code":1008022}"#,
            "credential_bad",
        ),
        (
            "code 1008031",
            200,
            r#"{"ret_code":1008031}"#,
            "credential_bad",
        ),
        (
            "code 1008026",
            200,
            r#"{"ret_code":1008026}"#,
            "retry vendor_unavailable not_taken",
        ),
        (
            "code 1008027",
            200,
            r#"{"ret_code":1008027}"#,
            "retry vendor_unavailable not_taken",
        ),
        (
            "code 10010005",
            200,
            r#"{"ret_code":10010005}"#,
            "retry vendor_unavailable not_taken",
        ),
        (
            "code 10010099",
            200,
            r#"{"ret_code":10010099}"#,
            "retry vendor_unavailable not_taken",
        ),
        (
            "code 10100",
            200,
            r#"{"ret_code":10100}"#,
            "retry vendor_unavailable not_taken",
        ),
        (
            "code 10101",
            200,
            r#"{"ret_code":10101}"#,
            "retry vendor_unavailable not_taken",
        ),
        ("code 10105", 200, r#"{"ret_code":10105}"#, "credential_bad"),
        ("code 10106", 200, r#"{"ret_code":10106}"#, "credential_bad"),
        (
            "code 10108",
            200,
            r#"{"ret_code":10108}"#,
            "retry vendor_unavailable not_taken",
        ),
        (
            "code 10109",
            200,
            r#"{"ret_code":10109}"#,
            "retry vendor_unavailable not_taken",
        ),
        (
            "code 10110",
            200,
            r#"{"ret_code":10110}"#,
            "token_dead token_invalid",
        ),
        (
            "code 10111",
            200,
            r#"{"ret_code":10111}"#,
            "retry vendor_unavailable not_taken",
        ),
        (
            "code 10114",
            200,
            r#"{"ret_code":10114}"#,
            "retry vendor_unavailable not_taken",
        ),
        (
            "code 10201",
            200,
            r#"{"ret_code":10201}"#,
            "retry vendor_unavailable not_taken",
        ),
        (
            "code 10207",
            200,
            r#"{"ret_code":10207}"#,
            "retry vendor_unavailable not_taken",
        ),
        (
            "code 10301",
            200,
            r#"{"ret_code":10301}"#,
            "retry vendor_unavailable not_taken",
        ),
        (
            "code 10305",
            200,
            r#"{"ret_code":10305}"#,
            "retry vendor_unavailable not_taken",
        ),
        (
            "code 10401",
            200,
            r#"{"ret_code":10401}"#,
            "retry vendor_unavailable not_taken",
        ),
        (
            "code 10407",
            200,
            r#"{"ret_code":10407}"#,
            "retry vendor_unavailable not_taken",
        ),
        (
            "code 1008015",
            200,
            r#"{"ret_code":1008015}"#,
            "refused payload_rejected",
        ),
        ("no body", 403, "", "credential_bad"),
        (
            "auth",
            200,
            r#"{"ret_code":1008003,"err_msg":"auth"}"#,
            "credential_bad",
        ),
        (
            "body",
            200,
            r#"{"ret_code":1008001}"#,
            "refused payload_rejected",
        ),
        (
            "field",
            200,
            r#"{"ret_code":1008002}"#,
            "refused payload_rejected",
        ),
        (
            "value",
            200,
            r#"{"ret_code":1008007}"#,
            "refused payload_rejected",
        ),
        (
            "internal",
            200,
            r#"{"ret_code":1008004}"#,
            "retry vendor_unavailable not_taken",
        ),
        (
            "token",
            200,
            r#"{"ret_code":1008006}"#,
            "token_dead token_invalid",
        ),
        (
            "illegal",
            200,
            r#"{"ret_code":1008029}"#,
            "token_dead token_invalid",
        ),
        (
            "moderation",
            200,
            r#"{"ret_code":1008019}"#,
            "refused payload_rejected",
        ),
        (
            "certificate",
            200,
            r#"{"ret_code":1008023}"#,
            "credential_bad",
        ),
        (
            "often",
            200,
            r#"{"ret_code":1008028}"#,
            "retry vendor_rate_limited not_taken",
        ),
        ("unpaid", 200, r#"{"ret_code":1008030}"#, "credential_bad"),
        (
            "nobody",
            200,
            r#"{"ret_code":10110008}"#,
            "token_dead token_invalid",
        ),
        (
            "inside",
            200,
            r#"{"ret_code":10010012}"#,
            "retry vendor_unavailable not_taken",
        ),
        ("old auth", 200, r#"{"ret_code":10104}"#, "credential_bad"),
        (
            "old size",
            200,
            r#"{"ret_code":10117}"#,
            "refused payload_too_large",
        ),
        (
            "cut",
            200,
            r#"{"seq":0,"#,
            "retry vendor_unavailable maybe_taken",
        ),
    ],
};
