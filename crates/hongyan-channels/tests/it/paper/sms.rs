//! The providers of text messages over HTTP.

use serde_json::{Value, json};

use super::{Paper, answer, form_of, json_of, oauth_token, texts};

fn number(n: usize) -> String {
    format!("+86138{:08}", n + 10)
}

pub(super) const TWILIO: Paper = Paper {
    name: "sms/twilio",
    config: || json!({"provider": "twilio", "account_sid": format!("AC{}", "0".repeat(32)), "auth_token": "t", "from": "+15005550006"}),
    token_path: None,
    token_answer: oauth_token,
    tokens_expire: false,
    names_tokens: true,
    token: number,
    take_apart: |seen| {
        let mut body = json!(form_of(seen));
        let to = body
            .as_object_mut()
            .and_then(|b| b.remove("To"))
            .unwrap_or_default();
        (seen.path.clone(), body, texts(Some(Value::from(vec![to]))))
    },
    answer: |dead| {
        if dead.is_empty() {
            answer(
                201,
                &json!({"sid": "SM1", "status": "queued", "error_code": null}),
            )
        } else {
            answer(
                400,
                &json!({"code": 21211, "message": "invalid To", "status": 400}),
            )
        }
    },
    expired: || answer(401, &json!({"code": 20003})),
    rows: &[
        (
            "auth",
            401,
            r#"{"code":20003,"message":"Authenticate"}"#,
            "credential_bad",
        ),
        ("account", 404, r#"{"code":20404}"#, "credential_bad"),
        (
            "rate",
            429,
            r#"{"code":20429}"#,
            "retry vendor_rate_limited not_taken",
        ),
        (
            "server",
            500,
            r#"{"code":20500}"#,
            "retry vendor_unavailable maybe_taken",
        ),
        (
            "number",
            400,
            r#"{"code":21211}"#,
            "token_dead token_invalid",
        ),
        ("country", 400, r#"{"code":21408}"#, "credential_bad"),
        ("body", 400, r#"{"code":21602}"#, "refused payload_rejected"),
        ("from", 400, r#"{"code":21606}"#, "credential_bad"),
        ("stop", 400, r#"{"code":21610}"#, "refused permission_off"),
        (
            "not mobile",
            400,
            r#"{"code":21614}"#,
            "token_dead token_invalid",
        ),
        (
            "long",
            400,
            r#"{"code":21617}"#,
            "refused payload_too_large",
        ),
        (
            "landline",
            400,
            r#"{"code":21635}"#,
            "token_dead token_invalid",
        ),
        (
            "queue",
            429,
            r#"{"code":30001}"#,
            "retry vendor_rate_limited not_taken",
        ),
        (
            "page",
            502,
            "<html>",
            "retry vendor_unavailable maybe_taken",
        ),
        (
            "nonsense",
            201,
            "<html>",
            "retry vendor_unavailable maybe_taken",
        ),
    ],
};

pub(super) const TENCENT: Paper = Paper {
    name: "sms/tencent",
    config: || {
        json!({"provider": "tencent_sms", "secret_id": "AKIDtest", "secret_key": "testsecret", "sdk_app_id": "1400006666",
               "sign_name": "TestSign", "templates": {"default": {"id": "1234", "params": ["{body}"]}}})
    },
    token_path: None,
    token_answer: oauth_token,
    tokens_expire: false,
    // The stand-in would have to know all numbers of the request to answer those that are well.
    names_tokens: false,
    token: number,
    take_apart: |seen| {
        let mut body = json_of(seen);
        let tokens = body
            .as_object_mut()
            .and_then(|b| b.remove("PhoneNumberSet"));
        (seen.path.clone(), body, texts(tokens))
    },
    answer: |_| {
        let each: Vec<Value> = (0..25)
            .map(|n| json!({"SerialNo": "2640:1", "PhoneNumber": number(n), "Fee": 1, "Code": "Ok", "Message": "send success"}))
            .collect();
        answer(
            200,
            &json!({"Response": {"SendStatusSet": each, "RequestId": "r"}}),
        )
    },
    expired: || {
        answer(
            200,
            &json!({"Response": {"Error": {"Code": "AuthFailure.SignatureExpire"}}}),
        )
    },
    rows: &[
        (
            "signature",
            200,
            r#"{"Response":{"Error":{"Code":"AuthFailure.SignatureFailure"}}}"#,
            "credential_bad",
        ),
        (
            "clock",
            200,
            r#"{"Response":{"Error":{"Code":"AuthFailure.SignatureExpire"}}}"#,
            "credential_bad",
        ),
        (
            "rate",
            200,
            r#"{"Response":{"Error":{"Code":"RequestLimitExceeded"}}}"#,
            "retry vendor_rate_limited not_taken",
        ),
        (
            "day",
            200,
            r#"{"Response":{"Error":{"Code":"LimitExceeded.AppDailyLimit"}}}"#,
            "quota_exhausted",
        ),
        (
            "template",
            200,
            r#"{"Response":{"Error":{"Code":"FailedOperation.TemplateIncorrectOrUnapproved"}}}"#,
            "credential_bad",
        ),
        (
            "word",
            200,
            r#"{"Response":{"Error":{"Code":"FailedOperation.ContainSensitiveWord"}}}"#,
            "refused payload_rejected",
        ),
        (
            "inside",
            200,
            r#"{"Response":{"Error":{"Code":"InternalError.Timeout"}}}"#,
            "retry vendor_unavailable maybe_taken",
        ),
        (
            "one number",
            200,
            r#"{"Response":{"SendStatusSet":[{"PhoneNumber":"+8613800000010","Code":"LimitExceeded.PhoneNumberThirtySecondLimit"}]}}"#,
            "refused frequency_cap",
        ),
        (
            "bad number",
            200,
            r#"{"Response":{"SendStatusSet":[{"PhoneNumber":"+8613800000010","Code":"InvalidParameterValue.IncorrectPhoneNumber"}]}}"#,
            "token_dead token_invalid",
        ),
        (
            "nonsense",
            200,
            "<html>",
            "retry vendor_unavailable maybe_taken",
        ),
    ],
};

pub(super) const ALIYUN: Paper = Paper {
    name: "sms/aliyun",
    config: || {
        json!({"provider": "aliyun_sms", "access_key_id": "testid", "access_key_secret": "testsecret", "sign_name": "S",
               "templates": {"default": {"id": "SMS_1", "params": {"text": "{body}"}}}})
    },
    token_path: None,
    token_answer: oauth_token,
    tokens_expire: false,
    names_tokens: false,
    token: number,
    take_apart: |seen| {
        let mut body = json!(form_of(seen));
        let list = body
            .as_object_mut()
            .and_then(|b| b.remove("PhoneNumbers"))
            .unwrap_or_default();
        let numbers = list.as_str().unwrap_or_default().split(',');
        let numbers = numbers.map(|number| format!("+86{number}")).collect();
        (seen.path.clone(), body, numbers)
    },
    answer: |_| {
        answer(
            200,
            &json!({"Code": "OK", "Message": "OK", "BizId": "1^0", "RequestId": "R"}),
        )
    },
    expired: || answer(400, &json!({"Code": "InvalidTimeStamp.Expired"})),
    rows: &[
        (
            "limit",
            200,
            r#"{"Code":"isv.BUSINESS_LIMIT_CONTROL"}"#,
            "refused frequency_cap",
        ),
        (
            "day",
            200,
            r#"{"Code":"isv.DAY_LIMIT_CONTROL"}"#,
            "quota_exhausted",
        ),
        (
            "number",
            200,
            r#"{"Code":"isv.MOBILE_NUMBER_ILLEGAL"}"#,
            "token_dead token_invalid",
        ),
        (
            "template",
            200,
            r#"{"Code":"isv.SMS_TEMPLATE_ILLEGAL"}"#,
            "credential_bad",
        ),
        (
            "variable",
            200,
            r#"{"Code":"isv.TEMPLATE_MISSING_PARAMETERS"}"#,
            "refused payload_rejected",
        ),
        (
            "long",
            200,
            r#"{"Code":"isv.PARAM_LENGTH_LIMIT"}"#,
            "refused payload_too_large",
        ),
        (
            "word",
            200,
            r#"{"Code":"isv.BLACK_KEY_CONTROL_LIMIT"}"#,
            "refused payload_rejected",
        ),
        (
            "money",
            200,
            r#"{"Code":"isv.AMOUNT_NOT_ENOUGH"}"#,
            "credential_bad",
        ),
        (
            "right",
            200,
            r#"{"Code":"isp.RAM_PERMISSION_DENY"}"#,
            "credential_bad",
        ),
        (
            "inside",
            200,
            r#"{"Code":"isp.SYSTEM_ERROR"}"#,
            "retry vendor_unavailable maybe_taken",
        ),
        (
            "signature",
            400,
            r#"{"Code":"SignatureDoesNotMatch"}"#,
            "credential_bad",
        ),
        (
            "rate",
            400,
            r#"{"Code":"Throttling.User"}"#,
            "retry vendor_rate_limited not_taken",
        ),
        ("down", 503, "", "retry vendor_unavailable maybe_taken"),
        (
            "nonce",
            400,
            r#"{"Code":"SignatureNonceUsed"}"#,
            "retry vendor_unavailable maybe_taken",
        ),
    ],
};
