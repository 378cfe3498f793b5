use hongyan_core::port::ReceiptKind;
use hongyan_core::{AppId, Class, CredentialName, Secret};
use serde_json::json;

use super::*;
use crate::vendor::fixture;

fn aliyun() -> Value {
    json!({"provider": "aliyun_sms", "access_key_id": "testid", "access_key_secret": "testsecret",
           "sign_name": "鸿雁", "templates": {
               "transaction": {"id": "SMS_1", "params": {"what": "{title}", "state": "{body}"}, "text": "您的${what} ${state}"},
               "default": {"id": "SMS_2", "params": {"text": "{body}"}}}})
}

fn tencent() -> Value {
    json!({"provider": "tencent_sms", "secret_id": "AKIDtest", "secret_key": "testsecret",
           "sdk_app_id": "1400006666", "sign_name": "TestSign",
           "templates": {"default": {"id": "1234", "params": ["{title}", "{body}"]}}})
}

fn twilio() -> Value {
    json!({"provider": "twilio", "account_sid": format!("AC{}", "0".repeat(32)),
           "auth_token": "12345", "from": "+15005550006", "country": "1"})
}

fn open(config: &Value) -> Arc<dyn Channel> {
    Sms::new(&fixture::egress())
        .open(OpenCredential {
            app: AppId::parse("demo").unwrap(),
            name: CredentialName::parse("default").unwrap(),
            config: Secret::new(config.to_string()),
            endpoint: None,
            callback: Some("https://push.example/v1/callbacks/demo/sms?key=k".to_owned()),
        })
        .unwrap()
}

fn faults(config: &Value) -> Vec<String> {
    let faults = Sms::new(&fixture::egress())
        .check_config(config)
        .unwrap_err();
    faults.into_iter().map(|f| f.path).collect()
}

#[test]
fn templates_carry_the_words() {
    let parcel = open(&aliyun()).preview(&fixture::outbound()).unwrap();
    assert_eq!(
        parcel.body,
        json!({"SignName": "鸿雁", "TemplateCode": "SMS_1", "OutId": "018f0000-0000-7000-8000-000000000001",
               "TemplateParam": "{\"state\":\"is on its way\",\"what\":\"Order 42\"}"})
    );
    assert_eq!(parcel.headers, counted("ucs-2", 28, 1));
    let mut marketing = fixture::message();
    marketing.class = Class::Marketing;
    let parcel = open(&aliyun()).preview(&fixture::of(marketing)).unwrap();
    assert_eq!(parcel.body["TemplateCode"], "SMS_2");
    let parcel = open(&tencent()).preview(&fixture::outbound()).unwrap();
    assert_eq!(
        parcel.body,
        json!({"SmsSdkAppId": "1400006666", "TemplateId": "1234", "SignName": "TestSign",
               "TemplateParamSet": ["Order 42", "is on its way"],
               "SessionContext": "018f0000-0000-7000-8000-000000000001"})
    );
}

#[test]
fn free_texts_are_counted_and_cut() {
    let parcel = open(&twilio()).preview(&fixture::outbound()).unwrap();
    assert_eq!(
        parcel.body,
        json!({"Body": "Order 42: is on its way", "From": "+15005550006", "ValidityPeriod": "3600",
               "StatusCallback": "https://push.example/v1/callbacks/demo/sms?…"})
    );
    assert_eq!(parcel.headers, counted("gsm-7", 23, 1));
    let mut config = twilio();
    config["segments_max"] = 2.into();
    config["texts"] = json!({"transaction": "{title} {body} {url} {nothing}"});
    let mut long = fixture::message();
    long.notification.as_mut().unwrap().body = format!("{{title}}{}", "字".repeat(200));
    let parcel = open(&config).preview(&fixture::of(long)).unwrap();
    let text = parcel.body["Body"].as_str().unwrap();
    assert!(
        text.starts_with("Order 42 {title}字") && text.ends_with("..."),
        "{text}"
    );
    assert_eq!(parcel.headers[2], (":segments".to_owned(), "2".to_owned()));
    assert_eq!(parcel.truncated[0].to, 134);
}

#[test]
fn a_message_without_words_or_template_is_not_sent() {
    let refused = open(&twilio()).preview(&fixture::data_only()).unwrap_err();
    assert_eq!(refused.0, Reason::PayloadRejected);
    let mut config = aliyun();
    config["templates"]
        .as_object_mut()
        .unwrap()
        .remove("default");
    let mut im = fixture::message();
    im.class = Class::Im;
    let refused = open(&config).preview(&fixture::of(im)).unwrap_err();
    assert_eq!(refused.0, Reason::ClassNotGranted);
}

#[test]
fn a_sender_cannot_change_numbers_or_the_marks_of_marketing() {
    let fields = json!({"To": "+1", "PhoneNumbers": "1", "PhoneNumberSet": ["1"], "TemplateCode": "SMS_9",
                        "TemplateId": "9", "From": "EVIL", "OutId": "x", "SmsUpExtendCode": "7"});
    for config in [aliyun(), tencent(), twilio()] {
        let mut outbound = fixture::with_vendor("sms", &fields);
        let parcel = open(&config).preview(&outbound).unwrap();
        for target in ["To", "PhoneNumbers", "PhoneNumberSet"] {
            assert!(parcel.body[target].is_null(), "{target}");
        }
        assert_eq!(parcel.body["SmsUpExtendCode"], "7");
        let mut message = (*outbound.message).clone();
        message.class = Class::Marketing;
        outbound.message = Arc::new(message);
        let parcel = open(&config).preview(&outbound).unwrap();
        for mark in ["TemplateCode", "TemplateId", "From"] {
            let own = ["aliyun_sms", "tencent_sms", "twilio"]
                .iter()
                .zip(["TemplateCode", "TemplateId", "From"])
                .any(|(provider, of)| config["provider"] == *provider && of == mark);
            assert!(!own || parcel.body[mark] != fields[mark], "{mark}");
        }
    }
}

#[test]
fn wake_ups_say_nothing_but_their_code() {
    let mut config = twilio();
    config["mode"] = "signal".into();
    config["wake_key"] = "a secret of some length".into();
    let parcel = open(&config).preview(&fixture::data_only()).unwrap();
    assert_eq!(parcel.body["Body"], "{wake}");
    config["wake_key"] = "short".into();
    config["wake_app"] = "xyz".into();
    assert_eq!(faults(&config), ["wake_key", "wake_app"]);
}

#[test]
fn a_wake_up_brings_what_is_in_the_inbox_only() {
    let mut config = twilio();
    assert!(open(&config).wake_key(&device(), &[1; 32]).is_none());
    config["mode"] = "signal".into();
    config["wake_key"] = "a secret of some length".into();
    config["wake_app"] = "00c0ffee".into();
    config["wake_valid_s"] = 600.into();
    let key = open(&config).wake_key(&device(), &[1; 32]).unwrap();
    assert_eq!(
        (key.app, key.valid),
        ([0, 0xc0, 0xff, 0xee], Duration::from_secs(600))
    );
    let mut message = fixture::message();
    message.options.delivery = DeliveryMode::OfflineOnly;
    let refused = open(&config).preview(&fixture::of(message)).unwrap_err();
    assert_eq!(refused.0, Reason::PayloadRejected);
}

fn device() -> DeviceId {
    DeviceId::parse("d1").unwrap()
}

/// The carrier says that the wake-up came: nobody has fetched the message yet.
#[test]
fn a_receipt_of_a_wake_up_is_none_of_the_message() {
    let body = json!([{"phone_number": "13800138000", "report_time": "2017-01-01 08:00:00", "success": true,
                       "err_code": "DELIVERED", "biz_id": "12345^0"},
                      {"phone_number": "13800138001", "success": false, "err_code": "MOBILE_NOT_ON_SERVICE",
                       "biz_id": "12345^0"}])
    .to_string();
    let kinds = |config: &Value| {
        let read = open(config).callback(&request("https://x/", &[], body.as_bytes()));
        let receipts = read.unwrap().unwrap().receipts;
        receipts.into_iter().map(|r| r.kind).collect::<Vec<_>>()
    };
    assert_eq!(
        kinds(&aliyun()),
        [ReceiptKind::Delivered, ReceiptKind::TokenInvalid]
    );
    let mut config = aliyun();
    config["mode"] = "signal".into();
    config["wake_key"] = "a secret of some length".into();
    assert_eq!(
        kinds(&config),
        [ReceiptKind::Other, ReceiptKind::TokenInvalid]
    );
}

#[test]
fn faults_are_told_by_provider() {
    assert_eq!(faults(&json!({})), ["provider"]);
    assert_eq!(faults(&json!({"provider": "pigeon"})), ["provider"]);
    assert_eq!(
        faults(&json!({"provider": "aliyun_sms", "mode": "x", "country": "0"})),
        [
            "country",
            "mode",
            "access_key_id",
            "access_key_secret",
            "sign_name",
            "templates"
        ]
    );
    assert_eq!(
        faults(&json!({"provider": "twilio", "account_sid": "AC1"})),
        ["account_sid", "auth_token", "from"]
    );
    assert_eq!(
        faults(
            &json!({"provider": "tencent_sms", "secret_id": "a", "secret_key": "b", "sdk_app_id": "x",
                       "templates": {"news": {}, "im": {"id": "SMS_1"}}})
        ),
        ["sdk_app_id", "templates/im/id", "templates/news"]
    );
    assert_eq!(
        faults(
            &json!({"provider": "smpp", "host": "h", "system_id": "s", "password": "p",
                       "source": "far too long a name", "concatenation": "x", "typo": 1})
        ),
        ["source", "concatenation", "typo"]
    );
}

fn request<'a>(
    url: &'a str,
    headers: &'a [(String, String)],
    body: &'a [u8],
) -> CallbackRequest<'a> {
    CallbackRequest {
        method: "POST",
        url,
        headers,
        body,
        now: fixture::NOW,
    }
}

#[test]
fn aliyuns_reports_are_read_as_often_as_they_come() {
    let channel = open(&aliyun());
    let body = json!([
        {"phone_number": "13800138000", "send_time": "2017-01-01 00:00:00", "report_time": "2017-01-01 08:00:00",
         "success": true, "err_code": "DELIVERED", "err_msg": "ok", "sms_size": "1", "biz_id": "12345^0",
         "out_id": "018f0000-0000-7000-8000-000000000001"},
        {"phone_number": "13800138001", "success": false, "err_code": "MOBILE_NOT_ON_SERVICE", "biz_id": "12345^0"},
        {"phone_number": "13800138002", "success": false, "err_code": "EXPIRED", "biz_id": "12345^0"},
        {"content": "an inbound text"},
    ])
    .to_string();
    let read = channel
        .callback(&request("https://x/", &[], body.as_bytes()))
        .unwrap()
        .unwrap();
    let kinds: Vec<ReceiptKind> = read.receipts.iter().map(|r| r.kind).collect();
    assert_eq!(
        kinds,
        [
            ReceiptKind::Delivered,
            ReceiptKind::TokenInvalid,
            ReceiptKind::Failed(Reason::Expired)
        ]
    );
    let first = &read.receipts[0];
    assert_eq!(
        first.token.as_ref().unwrap().expose_str(),
        Some("+8613800138000")
    );
    assert_eq!(first.at, Some(Timestamp(1_483_228_800_000)));
    assert!(first.message.is_some() && !read.signed);
    assert_eq!(read.body, "{\"code\":0,\"msg\":\"OK\"}");
    let again = channel
        .callback(&request("https://x/", &[], body.as_bytes()))
        .unwrap()
        .unwrap();
    assert_eq!(again, read, "the store may have failed");
    let wrong = channel.callback(&request("https://x/", &[], b"{")).unwrap();
    assert!(matches!(wrong, Err(CallbackError::Malformed(_))));
}

#[test]
fn tencents_statuses_are_read_as_often_as_they_come() {
    let channel = open(&tencent());
    let body = json!([{"user_receive_time": "2015-10-17 08:03:04", "nationcode": "86", "mobile": "13800138000",
        "report_status": "SUCCESS", "errmsg": "DELIVRD", "description": "ok", "sid": "2640:1"},
        {"nationcode": "86", "mobile": "13800138001", "report_status": "FAIL", "errmsg": "UNDELIV", "sid": "2640:2"}])
    .to_string();
    let read = channel
        .callback(&request("https://x/", &[], body.as_bytes()))
        .unwrap()
        .unwrap();
    assert_eq!(read.receipts[0].vendor_id.as_deref(), Some("2640:1"));
    assert_eq!(
        read.receipts[1].kind,
        ReceiptKind::Failed(Reason::RetriesExhausted)
    );
    assert_eq!(read.body, "{\"errmsg\":\"OK\",\"result\":0}");
    let again = channel
        .callback(&request("https://x/", &[], body.as_bytes()))
        .unwrap()
        .unwrap();
    assert_eq!(again, read, "the store may have failed");
}

#[test]
fn twilios_posts_are_signed_and_read_as_often_as_they_come() {
    let channel = open(&twilio());
    let url = "https://push.example/cb?key=k&hy_message=018f0000-0000-7000-8000-000000000001";
    let post = |status: &str, code: &str| {
        let fields = [
            ("ErrorCode", code),
            ("MessageSid", "SM1"),
            ("MessageStatus", status),
            ("To", "+14158675309"),
        ];
        let body = crate::texts::form(fields);
        let text: String = fields.iter().map(|(n, v)| format!("{n}{v}")).collect();
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, b"12345");
        let sign = ring::hmac::sign(&key, format!("{url}{text}").as_bytes());
        use base64::Engine as _;
        (
            body,
            base64::engine::general_purpose::STANDARD.encode(sign.as_ref()),
        )
    };
    let call = |body: &str, signature: &str| {
        let headers = [("x-twilio-signature".to_owned(), signature.to_owned())];
        channel
            .callback(&request(url, &headers, body.as_bytes()))
            .unwrap()
    };
    let (body, signature) = post("sent", "");
    assert_eq!(
        call(&body, &signature).unwrap().receipts[0].kind,
        ReceiptKind::Other
    );
    let (body, signature) = post("delivered", "");
    let read = call(&body, &signature).unwrap();
    assert!(read.signed && read.receipts[0].message.is_some());
    assert_eq!(read.receipts[0].kind, ReceiptKind::Delivered);
    let (late, sign_late) = post("sending", "");
    let late = call(&late, &sign_late).unwrap();
    assert_eq!(late.receipts[0].kind, ReceiptKind::Other);
    let again = call(&body, &signature).unwrap();
    assert_eq!(again, read, "the store may have failed");
    assert!(matches!(
        call(&body, "d3Jvbmc="),
        Err(CallbackError::Signature(_))
    ));
    assert!(matches!(
        call(&body.replace("delivered", "failed"), &signature),
        Err(CallbackError::Signature(_))
    ));
    let unsigned = channel
        .callback(&request(url, &[], body.as_bytes()))
        .unwrap();
    assert!(matches!(unsigned, Err(CallbackError::Signature(_))));
}

#[test]
fn numbers_that_fail_for_good_are_told_apart() {
    let aliyun = |code: &str| {
        let body = json!({"Code": code, "Message": "m", "RequestId": "r"}).to_string();
        fixture::words(&aliyun_sms::decode(
            &fixture::answer(200, &body),
            fixture::NOW,
        ))
    };
    let tencent = |code: &str| {
        let body = json!({"Response": {"Error": {"Code": code, "Message": "m"}, "RequestId": "r"}});
        fixture::words(&tencent_sms::decode(
            &fixture::answer(200, &body.to_string()),
            fixture::NOW,
        ))
    };
    let twilio = |code: u64| {
        let body = json!({"code": code, "message": "m", "status": 400}).to_string();
        fixture::words(&twilio::decode(&fixture::answer(400, &body), fixture::NOW))
    };
    assert_eq!(
        aliyun("isv.MOBILE_NUMBER_ILLEGAL"),
        "token_dead token_invalid"
    );
    assert_eq!(
        aliyun("isv.BUSINESS_LIMIT_CONTROL"),
        "refused frequency_cap"
    );
    assert_eq!(aliyun("isv.DAY_LIMIT_CONTROL"), "quota");
    assert_eq!(aliyun("isv.SMS_TEMPLATE_ILLEGAL"), "credential_bad");
    assert_eq!(
        aliyun("isv.PARAM_LENGTH_LIMIT"),
        "refused payload_too_large"
    );
    assert_eq!(
        aliyun("isv.BLACK_KEY_CONTROL_LIMIT"),
        "refused payload_rejected"
    );
    assert_eq!(
        aliyun("isp.SYSTEM_ERROR"),
        "retry vendor_unavailable maybe_taken"
    );
    assert_eq!(aliyun("SignatureDoesNotMatch"), "credential_bad");
    assert_eq!(
        aliyun("Throttling.User"),
        "retry vendor_rate_limited not_taken"
    );
    assert_eq!(
        tencent("InvalidParameterValue.IncorrectPhoneNumber"),
        "token_dead token_invalid"
    );
    assert_eq!(
        tencent("LimitExceeded.PhoneNumberThirtySecondLimit"),
        "refused frequency_cap"
    );
    assert_eq!(tencent("LimitExceeded.AppDailyLimit"), "quota");
    assert_eq!(
        tencent("RequestLimitExceeded"),
        "retry vendor_rate_limited not_taken"
    );
    assert_eq!(
        tencent("FailedOperation.PhoneNumberInBlacklist"),
        "refused permission_off"
    );
    assert_eq!(
        tencent("FailedOperation.MarketingSendTimeConstraint"),
        "quota"
    );
    assert_eq!(
        tencent("UnauthorizedOperation.SerivceSuspendDueToArrears"),
        "credential_bad"
    );
    assert_eq!(
        tencent("InternalError.Timeout"),
        "retry vendor_unavailable maybe_taken"
    );
    assert_eq!(tencent("AuthFailure.SignatureFailure"), "credential_bad");
    assert_eq!(twilio(20003), "credential_bad");
    assert_eq!(twilio(21211), "token_dead token_invalid");
    assert_eq!(twilio(21610), "refused permission_off");
    assert_eq!(twilio(21617), "refused payload_too_large");
    assert_eq!(twilio(20429), "retry vendor_rate_limited not_taken");
    assert_eq!(twilio(30003), "retry vendor_unavailable 600s not_taken");
    assert_eq!(twilio(99999), "refused payload_rejected");
}

#[test]
fn twilio_gives_some_failures_one_more_try() {
    use super::twilio;
    let receipt = |code: &str| twilio::kind("undelivered", code);
    assert_eq!(receipt("30003"), ReceiptKind::Failed(Reason::NoChannel));
    assert_eq!(
        receipt("30008"),
        ReceiptKind::Failed(Reason::VendorUnavailable)
    );
    for (code, after) in [(30003, Some(600)), (30008, None)] {
        let body = format!(r#"{{"sid":"SM1","status":"failed","error_code":{code}}}"#);
        let answer = fixture::answer(201, &body);
        let Verdict::Retry { after: given, .. } = twilio::decode(&answer, fixture::NOW) else {
            panic!("{code} is tried again");
        };
        assert_eq!(given.map(|g| g.as_secs()), after);
    }
}
