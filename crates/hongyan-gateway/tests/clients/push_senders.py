"""Public Web Push libraries of Python, Node.js and Rust post to an endpoint of a connected device, which decrypts what arrives.

    push_senders.py HONGYAN FOLDER

The JavaScript library speaks HTTPS only, so the server has a certificate that is made here. Its modules are found in the
working folder.
"""

import base64
import datetime
import ipaddress
import json
import os
import pathlib
import subprocess
import sys

import http_ece
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from node import Node, check
from py_vapid import Vapid02
from pywebpush import WebPushException, webpush


def b64(raw):
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unb64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def point(key):
    form = serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    return key.public_key().public_bytes(*form)


def certificates(folder):
    """An authority and a certificate for localhost; answers their files."""
    now = datetime.datetime.now(datetime.timezone.utc)

    def make(name, key, issuer, signer, extension):
        def called(text):
            return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

        return (
            x509.CertificateBuilder()
            .subject_name(called(name))
            .issuer_name(called(issuer))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=2))
            .add_extension(*extension)
            .sign(signer, hashes.SHA256())
            .public_bytes(serialization.Encoding.PEM)
        )

    own, leaf = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    files = [folder / name for name in ("ca.pem", "node.pem", "node.key")]
    ca = x509.BasicConstraints(ca=True, path_length=None), True
    files[0].write_bytes(make("tests", own, "tests", own, ca))
    alt = x509.SubjectAlternativeName(names), False
    files[1].write_bytes(make("localhost", leaf, "tests", own, alt))
    pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    files[2].write_bytes(leaf.private_bytes(*pem, serialization.NoEncryption()))
    return files


# The example of RFC 8291, section 5 and appendix A: the receiver's secrets, and what is posted.
EXAMPLE_KEY = "q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94"
EXAMPLE_AUTH = "BTBZMqHH6r4Tts7J_aSIgg"
EXAMPLE_BODY = (
    "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8w"
    "EqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
)
EXAMPLE_TEXT = b"When I grow up, I want to be a watermelon"


class Phone:
    """A device that fetches by polls and decrypts as a browser would."""

    def __init__(self, node):
        self.node = node
        registered = node.call("POST", "/v1/devices", node.client_key, {"platform": "desktop"})
        self.id, self.token = registered["device_id"], registered["device_token"]
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.auth = os.urandom(16)
        self.cursor = ""

    def subscribe(self, vapid=None):
        body = {"vapid": vapid} if vapid else {}
        opened = self.node.call("POST", f"/v1/devices/{self.id}/channels", self.token, body)
        keys = {"p256dh": b64(point(self.key)), "auth": b64(self.auth)}
        return opened["channel"], {"endpoint": opened["endpoint"], "keys": keys}

    def fetch(self):
        """What comes next; what came before is acknowledged by it."""
        after = f"&cursor={self.cursor}" if self.cursor else ""
        polled = self.node.call("GET", f"/v1/poll?wait=20&limit=1{after}", self.token)
        self.cursor = polled["cursor"]
        return polled["messages"][0]

    def next(self):
        """What comes next: its channel, its text, and the message."""
        message = self.fetch()
        body = unb64(message["b64"])
        if message.get("encoding") == "aesgcm":
            salt = unb64(message["encryption"].split("salt=")[1].split(";")[0])
            dh = unb64(message["crypto_key"].split("dh=")[1])
            text = http_ece.decrypt(
                body, salt, private_key=self.key, dh=dh, auth_secret=self.auth, version="aesgcm"
            )
        elif body:
            text = http_ece.decrypt(body, private_key=self.key, auth_secret=self.auth)
        else:
            text = b""
        return message["ch"], text, message


PUBLIC = "http://push.example"


def main():
    binary, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    tls = certificates(folder)
    os.environ["REQUESTS_CA_BUNDLE"] = str(tls[0])
    node = Node(binary, folder / "data", tls)
    try:
        python(node)
        javascript(node, tls[0])
    finally:
        node.stop()
    # Behind a proxy, as it were: senders know it by another origin than that of its socket.
    node = Node(binary, folder / "behind", settings=[f"http.public_url={PUBLIC}"])
    try:
        rust(node)
        killed(node)
        matrix(node)
    finally:
        node.stop()


def python(node):
    phone = Phone(node)
    signer = Vapid02()
    signer.generate_keys()
    own = b64(signer.public_key.public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint))
    channel, bound = phone.subscribe(own)
    claims = {"sub": "mailto:tests@hongyan.example"}

    def push(subscription, data, key=signer, **more):
        try:
            return webpush(
                subscription, data, vapid_private_key=key, vapid_claims=dict(claims), ttl=60, **more
            )
        except WebPushException as refused:
            return refused.response

    for text in ("", "hello", "汉" * 1300, "x" * 3993):
        answer = push(bound, text)
        check(f"UP-10 pywebpush, {len(text.encode())} bytes of text", answer.status_code, 201)
        got, arrived, _ = phone.next()
        check("  it arrives on its channel", (got, arrived.decode()), (channel, text))
    answer = push(bound, "old", content_encoding="aesgcm")
    check("pywebpush, the draft encoding aesgcm", answer.status_code, 201)
    check("  it arrives", phone.next()[1], b"old")
    answer = push(bound, "soon", headers={"Urgency": "high", "Topic": "t"})
    check("pywebpush, urgency and topic", answer.status_code, 201)
    check("  its urgency arrives", phone.next()[2]["urgency"], "high")
    other = Vapid02()
    other.generate_keys()
    check("pywebpush, another key", push(bound, "x", other).status_code, 401)
    check("no key at all", requests.post(bound["endpoint"], headers={"TTL": "1"}).status_code, 401)
    _, free = phone.subscribe()
    check("an endpoint without a key", push(free, "open").status_code, 201)
    check("  it arrives", phone.next()[1], b"open")
    said = requests.get(free["endpoint"]).json()
    check("UP-7 the check of UnifiedPush", said, {"unifiedpush": {"version": 1}})
    plain = requests.post(free["endpoint"], data=bytes(range(256)))
    check("a sender of the old UnifiedPush kind", plain.status_code, 201)
    check("UP-11 its bytes arrive unchanged", unb64(phone.fetch()["b64"]), bytes(range(256)))
    secret = int.from_bytes(unb64(EXAMPLE_KEY), "big")
    phone.key, phone.auth = ec.derive_private_key(secret, ec.SECP256R1()), unb64(EXAMPLE_AUTH)
    headers = {"TTL": "10", "Content-Encoding": "aes128gcm"}
    answer = requests.post(free["endpoint"], data=unb64(EXAMPLE_BODY), headers=headers)
    check("UP-12 the example of RFC 8291", answer.status_code, 201)
    check("  it is decrypted", phone.next()[1], EXAMPLE_TEXT)
    node.call("DELETE", f"/v1/devices/{phone.id}/channels/{channel}", phone.token)
    check("pywebpush, a closed channel", push(bound, "x").status_code, 410)
    nobody = dict(bound, endpoint=f"{node.root}/wpush/v2/nobody")
    check("pywebpush, an endpoint that never was", push(nobody, "x").status_code, 404)


def javascript(node, authority):
    phone = Phone(node)
    script = pathlib.Path(__file__).with_name("push_sender.mjs")
    env = dict(os.environ, NODE_EXTRA_CA_CERTS=str(authority))

    def run(order):
        done = subprocess.run(
            ["node", str(script), json.dumps(order)],
            env=env, capture_output=True, text=True, timeout=60,
        )
        if done.returncode:
            raise SystemExit(done.stderr)
        return json.loads(done.stdout)

    keys = run({"make": True})
    channel, bound = phone.subscribe(keys["publicKey"])
    order = {"subscription": bound, "keys": keys, "send": [
        {"text": "hello"},
        {"text": "", "options": {"TTL": 60}},
        {"text": "汉字", "options": {"TTL": 60, "urgency": "low", "topic": "t"}},
        {"text": "old", "options": {"TTL": 60, "contentEncoding": "aesgcm"}},
    ]}
    check("UP-10 web-push", run(order), [201, 201, 201, 201])
    got = [phone.next() for _ in range(4)]
    check("  all arrives", [text.decode() for _, text, _ in got], ["hello", "", "汉字", "old"])
    check("  on its channel", {ch for ch, _, _ in got}, {channel})
    other = run({"make": True})
    order = {"subscription": bound, "keys": other, "send": [{"text": "x"}]}
    check("web-push, another key", run(order), [401])


def rust(node):
    """UP-10: the third library. `HONGYAN_PUSH_SENDER` is the program beside this script that has it."""
    phone = Phone(node)
    program = os.environ["HONGYAN_PUSH_SENDER"]

    def run(order):
        done = subprocess.run([program, order], capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise SystemExit(done.stderr)
        return json.loads(done.stdout)

    def push(subscription, key, *posts):
        connect = f"localhost:{node.port}"
        order = {"subscription": subscription, "key": key, "connect": connect, "send": posts}
        return run(json.dumps(order))

    keys, other = run("make"), run("make")
    channel, bound = phone.subscribe(keys["public"])
    check("an address with the public origin", bound["endpoint"].startswith(f"{PUBLIC}/wpush/v2/"), True)
    posts = [
        {"text": "hello"},
        {"text": "汉字" * 600},
        {"text": "soon", "urgency": "high", "topic": "t"},
    ]
    check("UP-10 web-push-native", push(bound, keys["secret"], *posts), [201, 201, 201])
    got = [phone.next() for _ in posts]
    check("  all arrives", [text.decode() for _, text, _ in got], [one["text"] for one in posts])
    check("  on its channel", {ch for ch, _, _ in got}, {channel})
    check("  with its urgency", got[2][2]["urgency"], "high")
    check("web-push-native, another key", push(bound, other["secret"], {"text": "x"}), [401])
    check("web-push-native, no key", push(bound, None, {"text": "x"}), [401])
    _, free = phone.subscribe()
    check("web-push-native, an endpoint without a key", push(free, None, {"text": "open"}), [201])
    check("  it arrives", phone.next()[1], b"open")
    node.call("DELETE", f"/v1/devices/{phone.id}/channels/{channel}", phone.token)
    check("web-push-native, a closed channel", push(bound, keys["secret"], {"text": "x"}), [410])


def killed(node):
    """UP-13: what was answered 201 survives SIGKILL."""
    phone = Phone(node)
    _, free = phone.subscribe()
    path = free["endpoint"].removeprefix(PUBLIC)
    for n in range(3):
        answer = requests.post(node.root + path, data=f"survives {n}".encode())
        node.process.kill()
        node.process.wait()
        check("UP-13 accepted right before SIGKILL", answer.status_code, 201)
        node.start()
        check("  it is delivered", unb64(phone.fetch()["b64"]), f"survives {n}".encode())


def matrix(node):
    """A homeserver of Matrix notifies an app of UnifiedPush."""
    phone = Phone(node)
    _, free = phone.subscribe()
    url = f"{node.root}/_matrix/push/v1/notify"
    check("UP-7 the gateway for Matrix", requests.get(url).json(), {"unifiedpush": {"gateway": "matrix"}})
    devices = [{"app_id": "app", "pushkey": free["endpoint"]}]
    body = {"notification": {"event_id": "$1", "room_id": "!r", "devices": devices}}
    answer = requests.post(url, json=body)
    check("  a notification", (answer.status_code, answer.json()), (200, {"rejected": []}))
    check("  it arrives whole", json.loads(unb64(phone.fetch()["b64"])), body)
    foreign = "https://elsewhere.example/up/abc"
    devices[0]["pushkey"] = foreign
    check("  an address of another server", requests.post(url, json=body).json(), {"rejected": [foreign]})


if __name__ == "__main__":
    main()
