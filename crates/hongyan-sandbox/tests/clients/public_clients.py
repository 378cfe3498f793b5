"""Public client libraries against a running sandbox, as a second opinion on the simulators.

Neither the sandbox nor hongyan's senders had a hand in these libraries, so where they agree with a
simulator, both read the vendor's papers alike. `cargo xtask clients` runs this; by hand:

    pip install -r crates/hongyan-sandbox/tests/clients/requirements.txt
    hongyan sandbox &
    python crates/hongyan-sandbox/tests/clients/public_clients.py [http://127.0.0.1:7500]
"""

import asyncio
import contextlib
import importlib.util
import io
import json
import logging
import os
import ssl
import sys
import tempfile
import time
import types
import urllib.request

CONTROL = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:7500"
HUAWEI_AUDIENCE = "https://oauth-login.cloud.huawei.com/oauth2/v3/token"


def control(method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        CONTROL + path, data, {"content-type": "application/json"}, method=method
    )
    with urllib.request.urlopen(request) as answer:
        text = answer.read()
    return json.loads(text) if text else None


def token(channel, state="valid"):
    return control("POST", f"/vendors/{channel}/tokens", {"state": state})["tokens"][0]


def check(what, got, want):
    print("ok  " if got == want else "FAIL", what, got)
    return got == want


def fcm(accounts, ca_file):
    import google.auth.transport.requests
    import requests
    from google.oauth2 import service_account

    os.environ["REQUESTS_CA_BUNDLE"] = ca_file
    endpoint = accounts["endpoint"]
    info = {**accounts["fcm"]["service_account"], "token_uri": endpoint + "/token"}
    credentials = service_account.Credentials.from_service_account_info(
        info, scopes=["https://www.googleapis.com/auth/firebase.messaging"]
    )
    session = requests.Session()
    credentials.refresh(google.auth.transport.requests.Request(session))
    url = f"{endpoint}/v1/projects/{info['project_id']}/messages:send"
    for state, want in [("valid", 200), ("dead", 404), ("other_app", 403)]:
        message = {"token": token("fcm", state), "notification": {"title": "t", "body": "b"}}
        headers = {"authorization": "Bearer " + credentials.token}
        answer = session.post(url, json={"message": message}, headers=headers)
        yield check(f"fcm with google-auth, {state} token", answer.status_code, want)


def harmony(accounts, ca_file):
    import jwt
    import requests

    os.environ["REQUESTS_CA_BUNDLE"] = ca_file
    account = accounts["harmony"]["service_account"]
    now = int(time.time())
    claims = {"iss": account["sub_account"], "aud": HUAWEI_AUDIENCE, "iat": now, "exp": now + 3600}
    bearer = jwt.encode(
        claims, account["private_key"], algorithm="PS256", headers={"kid": account["key_id"]}
    )
    notification = {
        "category": "IM", "title": "t", "body": "b", "clickAction": {"actionType": 0},
    }
    for state, want in [("valid", "80000000"), ("other_app", "80300007")]:
        body = {
            "payload": {"notification": notification},
            "target": {"token": [token("harmony", state)]},
        }
        answer = requests.post(
            f"{accounts['endpoint']}/v3/{account['project_id']}/messages:send",
            json=body,
            headers={"authorization": "Bearer " + bearer, "push-type": "0"},
        )
        yield check(f"harmony with PyJWT, {state} token", answer.json()["code"], want)


def apns_certificate(accounts, _):
    import httpx

    account = accounts["apns"]
    context = ssl.create_default_context(cadata=accounts["ca_pem"])
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as pem:
        pem.write(account["certificate"] + account["certificate_key"])
        pem.flush()
        context.load_cert_chain(pem.name)
    with httpx.Client(http2=True, verify=context) as client:
        url = f"{accounts['endpoint']}/3/device/{token('apns')}"
        answer = client.post(url, json={"aps": {"alert": "hi"}})
    yield check("apns with httpx and a certificate", answer.status_code, 200)


def apns_token(accounts, _):
    from aioapns import APNs, NotificationRequest, PushType

    account = accounts["apns"]
    host, port = accounts["endpoint"].removeprefix("https://").split(":")

    async def send():
        client = APNs(
            key=account["private_key"], key_id=account["key_id"], team_id=account["team_id"],
            topic=account["bundle_id"],
        )
        client.pool.protocol_class.APNS_SERVER = host
        client.pool.protocol_class.APNS_PORT = int(port)
        context = ssl.create_default_context(cadata=accounts["ca_pem"])
        context.set_alpn_protocols(["h2"])
        client.pool.ssl_context = context
        answers = []
        for state in ["valid", "dead"]:
            request = NotificationRequest(
                device_token=token("apns", state), message={"aps": {"alert": "hi"}},
                push_type=PushType.ALERT,
            )
            answers.append((await client.send_notification(request)).status)
        return answers

    yield check("apns with aioapns, valid and dead token", asyncio.run(send()), ["200", "410"])


def fcm_admin(accounts, ca_file):
    import firebase_admin
    from firebase_admin import credentials, exceptions, messaging

    os.environ["REQUESTS_CA_BUNDLE"] = ca_file
    endpoint = accounts["endpoint"]
    info = {**accounts["fcm"]["service_account"], "token_uri": endpoint + "/token"}
    messaging._MessagingService.FCM_URL = endpoint + "/v1/projects/{0}/messages:send"
    app = firebase_admin.initialize_app(credentials.Certificate(info))

    def send(state):
        message = messaging.Message(
            notification=messaging.Notification(title="t", body="b"), token=token("fcm", state)
        )
        try:
            return messaging.send(message, app=app).split("/")[0]
        except exceptions.FirebaseError as error:
            return type(error).__name__

    wants = [("valid", "projects"), ("dead", "UnregisteredError"), ("other_app", "SenderIdMismatchError")]
    for state, want in wants:
        yield check(f"fcm with firebase-admin, {state} token", send(state), want)


def fcm_py(accounts, ca_file):
    from google.oauth2 import service_account
    from pyfcm import FCMNotification, errors

    os.environ["REQUESTS_CA_BUNDLE"] = ca_file
    endpoint = accounts["endpoint"]
    info = {**accounts["fcm"]["service_account"], "token_uri": endpoint + "/token"}
    client = FCMNotification(
        project_id=info["project_id"],
        credentials=service_account.Credentials.from_service_account_info(
            info, scopes=["https://www.googleapis.com/auth/firebase.messaging"]
        ),
    )
    client._fcm_end_point = f"{endpoint}/v1/projects/{info['project_id']}/messages:send"
    for state, want in [("valid", "name"), ("dead", "FCMNotRegisteredError")]:
        try:
            answer = client.notify(
                fcm_token=token("fcm", state), notification_title="t", notification_body="b"
            )
            got = next(iter(answer))
        except errors.FCMError as error:
            got = type(error).__name__
        yield check(f"fcm with pyfcm, {state} token", got, want)


def web_push(accounts, ca_file):
    from pywebpush import WebPushException, webpush

    os.environ["REQUESTS_CA_BUNDLE"] = ca_file
    account = accounts["webpush"]

    def send(state, **more):
        try:
            answer = webpush(
                json.loads(token("webpush", state)),
                data=json.dumps({"notification": {"title": "t", "body": "b"}}),
                vapid_private_key=account["private_key"],
                vapid_claims={"sub": "mailto:push@example.com"},
                **more,
            )
        except WebPushException as error:
            answer = error.response
        return answer.status_code

    # The four services take turns, so each is met.
    got = [send("valid", ttl=60, headers={"urgency": "high", "topic": "t"}) for _ in range(12)]
    yield check("webpush with pywebpush, valid subscriptions", set(got), {201})
    got = [send("dead", ttl=60) for _ in range(12)]
    yield check("webpush with pywebpush, dead subscriptions", set(got), {410})
    got = [send("other_app", ttl=60) for _ in range(12)]
    yield check("webpush with pywebpush, of another key", set(got) <= {400, 401, 403}, True)


def jpush(accounts, ca_file):
    import jpush as client
    from jpush import common

    os.environ["REQUESTS_CA_BUNDLE"] = ca_file
    base = accounts["endpoint"] + "/v3/"
    common.ZONES["DEFAULT"] = {
        "PUSH": base, "REPORT": base, "DEVICE": base + "devices/", "ALIAS": base + "aliases/",
        "TAG": base + "tags/", "SCHEDULE": base + "schedules/", "ADMIN": base,
    }
    account = accounts["jpush"]

    def push_to(audience, secret=account["master_secret"]):
        push = client.JPush(account["app_key"], secret).create_push()
        push.platform = client.all_
        push.audience = audience
        push.notification = client.notification(
            alert="hi", android=client.android("hi", extras={"a": 1}), ios=client.ios("hi", extras={"a": 1})
        )
        return push

    def code(send):
        try:
            return send().status_code
        except common.Unauthorized:
            return 401
        except common.JPushFailure as failure:
            return failure.error_code

    good = token("jpush")
    to = client.registration_id
    yield check("jpush, valid id", code(push_to(client.audience(to(good))).send), 200)
    yield check("jpush, validated", code(push_to(client.audience(to(good))).send_validate), 200)
    dead = client.audience(to(token("jpush", "dead")))
    yield check("jpush, dead id", code(push_to(dead).send), 1011)
    foreign = client.audience(to(token("jpush", "other_app")))
    yield check("jpush, foreign id", code(push_to(foreign).send), 1003)
    yield check("jpush, wrong secret", code(push_to(client.audience(to(good)), "x").send), 401)
    push = push_to(client.audience(to(good)))
    push.cid = push.get_cid(1, "push").payload["cidlist"][0]
    ids = {push.send().payload["msg_id"], push.send().payload["msg_id"]}
    yield check("jpush, cid twice", len(ids), 1)
    single = {"platform": "all", "target": good, "notification": {"alert": "hi"}}
    answers = push.batch_push_by_regid([single, {**single, "target": "3"}]).payload.values()
    yield check("jpush, batch", sorted("error" in answer for answer in answers), [False, True])
    app = client.JPush(account["app_key"], account["master_secret"])
    app.create_device().set_deviceinfo(good, {"alias": "ann", "tags": {"add": ["a"]}})
    about = app.create_device().get_deviceinfo(good).payload
    yield check("jpush, device", (about["alias"], about["tags"]), ("ann", ["a"]))
    yield check("jpush, alias", code(push_to(client.audience(client.alias("ann"))).send), 200)


def huawei(accounts, ca_file):
    # The package calls itself by the name of the folder that its authors work in.
    place = importlib.util.find_spec("push_admin").submodule_search_locations[0]
    sys.modules["src"] = types.ModuleType("src")
    sys.modules["src"].__path__ = [os.path.dirname(place)]
    from src import push_admin
    from src.push_admin import messaging

    account = accounts["huawei"]
    endpoint = accounts["endpoint"]
    push_admin.initialize_app(
        account["client_id"], account["client_secret"], account["app_id"],
        token_server=endpoint + "/oauth2/v3/token", push_open_url=endpoint,
    )

    def send(tokens, **more):
        notification = messaging.AndroidNotification(
            title="t", body="b", channel_id="c", notify_id=7, foreground_show=True,
            click_action=messaging.AndroidClickAction(action_type=3), **more,
        )
        android = messaging.AndroidConfig(
            urgency=messaging.AndroidConfig.HIGH_PRIORITY, ttl="86400s", category="IM",
            notification=notification,
        )
        message = messaging.Message(
            notification=messaging.Notification(title="t", body="b"), android=android, token=tokens
        )
        return messaging.send_message(message, verify_peer=ca_file).code

    good, dead = token("huawei"), token("huawei", "dead")
    yield check("huawei with push_admin, valid token", send([good]), "80000000")
    yield check("huawei with push_admin, one of two dead", send([good, dead]), "80100000")
    yield check("huawei with push_admin, dead token", send([dead]), "80300007")
    badge = messaging.AndroidBadgeNotification(add_num=1, clazz="com.example.Main")
    yield check("huawei with push_admin, badge", send([good], badge=badge, group="g"), "80000000")
    message = messaging.Message(data='{"a": 1}', token=[good])
    answer = messaging.send_message(message, verify_peer=ca_file)
    yield check("huawei with push_admin, data", answer.code, "80000000")


def umeng(accounts, ca_file):
    # The package asks Django for its keys, and is told them here.
    django = types.ModuleType("django.conf")
    django.settings = None
    sys.modules.update({"django": types.ModuleType("django"), "django.conf": django})
    from umeng_push.services.message.connect import DeviceType, UMMessage, UMNotification

    os.environ["REQUESTS_CA_BUNDLE"] = ca_file
    account = credential("umeng")

    def push(devices, secret=account["master_secret"]):
        message = UMMessage("order-42", "t", app_key=account["app_key"], app_master_secret=secret)
        message.url = accounts["endpoint"] + "/api/send"
        message.set_listcast([(device, DeviceType.android) for device in devices])
        notification = UMNotification(ticker="t", title="t", text="b", extra={"a": "1"}, play_sound=True)
        notification.set_go_custom("follow")
        message.set_notification(notification)
        message.set_policy(expire_time=time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(time.time() + 86400 + 8 * 3600)))
        # What is refused is told in the log only, and comes back as nothing.
        with contextlib.redirect_stdout(io.StringIO()):
            taken, _ = message.push()
        return taken and taken.ret

    logging.disable()
    good = [token("umeng"), token("umeng")]
    yield check("umeng with umeng-push, valid devices", push(good), "SUCCESS")
    yield check("umeng with umeng-push, foreign device", push([token("umeng", "other_app")]), None)
    yield check("umeng with umeng-push, wrong secret", push(good, "x" * 32), None)
    logging.disable(logging.NOTSET)


def tpns(accounts, ca_file):
    from xinge_push.xinge3 import Xinge3Helper

    os.environ["REQUESTS_CA_BUNDLE"] = ca_file
    account = credential("tpns")
    Xinge3Helper.URL = accounts["endpoint"] + "/v3/push/app"

    def push(state, secret=account["secret_key"]):
        body = {
            "audience_type": "token", "token_list": [token("tpns", state)], "message_type": "notify",
            "message": {"title": "t", "content": "b", "android": {}},
        }
        return Xinge3Helper.push(account["access_id"], secret, body)[0]

    yield check("tpns with xinge, valid token", push("valid"), 0)
    yield check("tpns with xinge, dead token", push("dead") != 0, True)
    yield check("tpns with xinge, wrong key", push("valid", "0" * 32) != 0, True)


def credential(channel):
    return control("GET", f"/vendors/{channel}/credential")["config"]


def twilio(accounts, ca_file):
    from twilio.base.exceptions import TwilioRestException
    from twilio.http.http_client import TwilioHttpClient
    from twilio.rest import Client

    class Here(TwilioHttpClient):
        """The library's own client; only the host of the address is another."""

        def request(self, method, url, *rest, **more):
            url = url.replace("https://api.twilio.com", accounts["endpoint"])
            return super().request(method, url, *rest, **more)

    os.environ["REQUESTS_CA_BUNDLE"] = ca_file
    account = credential("twilio")
    client = Client(account["account_sid"], account["auth_token"], http_client=Here())
    for state, want in [("valid", "queued"), ("dead", 21614)]:
        try:
            sent = client.messages.create(to=token("sms", state), from_=account["from"], body="鸿雁")
            got = client.messages(sent.sid).fetch().status
        except TwilioRestException as refused:
            got = refused.code
        yield check(f"twilio, {state} number", got, want)


def tencent_sms(accounts, ca_file):
    from tencentcloud.common import credential as tencent
    from tencentcloud.common.profile.client_profile import ClientProfile
    from tencentcloud.common.profile.http_profile import HttpProfile
    from tencentcloud.sms.v20210111 import models, sms_client

    account = credential("tencent_sms")
    http = HttpProfile(endpoint=accounts["endpoint"].removeprefix("https://"), certification=ca_file)
    client = sms_client.SmsClient(
        tencent.Credential(account["secret_id"], account["secret_key"]),
        "ap-guangzhou", ClientProfile(httpProfile=http),
    )
    request = models.SendSmsRequest()
    request.SmsSdkAppId = account["sdk_app_id"]
    request.SignName = account["sign_name"]
    request.TemplateId = account["templates"]["default"]["id"]
    request.TemplateParamSet = ["a", "b"]
    request.PhoneNumberSet = [token("sms"), token("sms", "dead")]
    codes = [one.Code for one in client.SendSms(request).SendStatusSet]
    yield check(
        "tencentcloud-sdk, valid and dead number", codes,
        ["Ok", "InvalidParameterValue.IncorrectPhoneNumber"],
    )


def aliyun(accounts, ca_file):
    from aliyunsdkcore.client import AcsClient
    from aliyunsdkcore.request import CommonRequest

    def call(channel, version, action, parameters):
        account = credential(channel)
        client = AcsClient(
            account["access_key_id"], account["access_key_secret"], "cn-hangzhou", verify=ca_file
        )
        request = CommonRequest(
            domain=accounts["endpoint"].removeprefix("https://"), version=version, action_name=action
        )
        request.set_method("POST")
        request.set_protocol_type("https")
        request.set_accept_format("json")
        for name, value in parameters.items():
            request.add_query_param(name, value)
        return json.loads(client.do_action_with_exception(request))

    text = {
        "PhoneNumbers": token("sms").removeprefix("+86"), "SignName": "鸿雁",
        "TemplateCode": "SMS_100002", "TemplateParam": json.dumps({"title": "a*b~c", "text": "d e+f"}),
    }
    yield check(
        "aliyun-python-sdk-core, SendSms", call("aliyun_sms", "2017-05-25", "SendSms", text)["Code"], "OK"
    )
    push = {
        "AppKey": credential("aliyun")["app_key"], "PushType": "NOTICE", "DeviceType": "ALL",
        "Target": "DEVICE", "TargetValue": token("aliyun"), "Title": "t", "Body": "a*b~c+d 你好",
    }
    answer = call("aliyun", "2016-08-01", "Push", push)
    yield check("aliyun-python-sdk-core, Push", answer["MessageId"].isdigit(), True)


def smpp(_, __):
    import smpplib.client
    import smpplib.consts
    import smpplib.gsm

    account = credential("smpp")
    client = smpplib.client.Client(account["host"], account["port"], timeout=10)
    taken, receipts = [], []
    client.set_message_sent_handler(lambda pdu: taken.append(pdu.message_id))
    client.set_message_received_handler(lambda pdu: receipts.append(pdu.short_message))
    client.connect()
    client.bind_transceiver(system_id=account["system_id"], password=account["password"])
    number = token("sms").removeprefix("+")
    # Long enough for two parts, each with a header of the library's making.
    parts, coding, message_class = smpplib.gsm.make_parts("鸿雁传书，" * 20)
    for part in parts:
        client.send_message(
            source_addr_ton=smpplib.consts.SMPP_TON_NWSPEC, source_addr="10690",
            dest_addr_ton=smpplib.consts.SMPP_TON_INTL, destination_addr=number,
            short_message=part, data_coding=coding, esm_class=message_class, registered_delivery=True,
        )
    while len(receipts) < len(parts):
        client.read_once()
    ids = {int(one, 16) for one in taken}
    told = {int(one.split(b"id:")[1].split()[0]) for one in receipts}
    yield check("smpplib, two parts and their receipts", (len(parts), told), (2, ids))
    client.unbind()
    client.disconnect()


def main():
    accounts = control("GET", "/accounts")
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as ca:
        ca.write(accounts["ca_pem"])
        ca.flush()
        runs = [
            fcm, fcm_admin, fcm_py, harmony, apns_certificate, apns_token, web_push, jpush,
            huawei, umeng, tpns, twilio, tencent_sms, aliyun, smpp,
        ]
        good = [result for run in runs for result in run(accounts, ca.name)]
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
