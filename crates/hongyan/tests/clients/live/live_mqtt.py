"""paho-mqtt and mosquitto_sub as devices and as an app's server of a running demo.

`cargo xtask clients` runs this; by hand:

    pip install -r crates/hongyan/tests/clients/live/requirements.txt
    hongyan demo --data /tmp/demo &
    python crates/hongyan/tests/clients/live/live_mqtt.py /tmp/demo/demo.json
"""

import json
import queue
import subprocess
import threading
import uuid

import paho.mqtt.client as paho
from live import API, FACTS, LIMIT, Phone, Wire, address, call, check, delivered, play, send, text, until
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

MQTT = address(FACTS["mqtt"])
# Where each transport is spoken; over WebSocket all is the same (MQ-15).
PLACES = {"tcp": MQTT, "websockets": address(API)}
INBOX = "hy/me/inbox"
# Reason codes; paho says those of 3.1.1 in the words of 5.0.
NOT_AUTHORIZED, BAD_CLIENT_ID, BAD_PASSWORD, UNSPECIFIED = 0x87, 0x85, 0x86, 0x80


class Client:
    """A paho client that acknowledges when it is told to."""

    def __init__(self, version, transport, user, password, name, keep=False, place=None):
        self.version = version
        self.got, self.connected, self.done = queue.Queue(), queue.Queue(), queue.Queue()
        options = {} if version == paho.MQTTv5 else {"clean_session": not keep}
        self.paho = paho.Client(
            CallbackAPIVersion.VERSION2,
            name,
            protocol=version,
            transport=transport,
            manual_ack=True,
            **options,
        )
        if transport == "websockets":
            # Not a page: paho would name the address that it connects to as its origin.
            self.paho.ws_set_options("/mqtt", without_origin)
        self.paho.username_pw_set(user, password)
        self.paho.reconnect_delay_set(0.05, 0.2)
        self.paho.on_message = lambda _client, _data, message: self.got.put(message)
        self.paho.on_connect = lambda _c, _d, flags, code, _p: self.connected.put((flags, code))
        self.paho.on_subscribe = lambda _c, _d, mid, codes, _p: self.done.put(codes)
        options = {}
        if version == paho.MQTTv5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 600 if keep else 0
            options = {"clean_start": not keep, "properties": properties}
        self.paho.connect(*(place or PLACES[transport]), keepalive=30, **options)
        self.paho.loop_start()
        self.flags, self.code = self.connected.get(timeout=LIMIT)

    def subscribe(self, topic, qos=1):
        self.paho.subscribe(topic, qos)
        return self.done.get(timeout=LIMIT)[0].value

    def take(self):
        return self.got.get(timeout=LIMIT)

    def ack(self, message):
        self.paho.ack(message.mid, message.qos)

    def end(self):
        self.paho.disconnect()
        self.paho.loop_stop()


def without_origin(headers):
    return {name: value for name, value in headers.items() if name != "Origin"}


def device(version, transport, phone, keep=True, place=None):
    client = Client(version, transport, phone.user, phone.token, phone.id, keep, place)
    assert client.code == 0, client.code
    return client


def body(message):
    return text(json.loads(message.payload))


def inbox(name, version, transport):
    phone = Phone()
    send(phone.user, "before")
    client = device(version, transport, phone)
    check(f"{name}: MQ-6: there is no session before", not client.flags.session_present)
    check(f"{name}: QoS 1 is the most", client.subscribe(f"{INBOX}/#", 2) == 1)
    first = client.take()
    check(f"{name}: what was stored comes", body(first) == "before", first.payload)
    client.ack(first)
    sent = send(phone.user, "鸿雁 🪿")
    message = client.take()
    shape = (message.topic, message.qos, message.retain, message.dup)
    check(f"{name}: a live message", body(message) == "鸿雁 🪿", message.payload)
    check(f"{name}: under its name", shape == (INBOX, 1, False, False), shape)
    check(f"{name}: with its id", json.loads(message.payload)["id"] == sent)
    if version == paho.MQTTv5:
        properties = message.properties
        check(f"{name}: MQ-12: its id as a property", ("id", sent) in properties.UserProperty, properties)
        check(f"{name}: MQ-11: its time to live", properties.MessageExpiryInterval > 0, properties)
        kind = (properties.ContentType, properties.PayloadFormatIndicator)
        check(f"{name}: MQ-12: its type", kind == ("application/json", 1), kind)
    check(f"{name}: unacknowledged it is not delivered", not delivered(sent))
    client.ack(message)
    check(f"{name}: PUBACK is seen in the ledger", until(lambda: delivered(sent)))
    code = client.subscribe("#")
    refused = NOT_AUTHORIZED if version == paho.MQTTv5 else UNSPECIFIED
    check(f"{name}: MQ-14: nothing outside can be subscribed to", code == refused, code)
    client.end()
    check(f"{name}: MQ-16: what was acknowledged is not polled again", phone.left() == [], phone.left())
    # The other way round: what a poll acknowledged does not come over MQTT.
    ids = [send(phone.user, "polled"), send(phone.user, "left")]
    phone.ack(ids[0])
    client = device(version, transport, phone)
    check(f"{name}: MQ-6: the session is kept", client.flags.session_present)
    message = client.take()
    check(f"{name}: MQ-16: nor does what a poll acknowledged come over MQTT", body(message) == "left", message.payload)
    client.ack(message)
    check(f"{name}: and that is the last", until(lambda: delivered(ids[1])) and client.got.empty())
    client.end()


def cuts(name, version, transport):
    """What was not acknowledged comes again with its id, and nothing else does."""
    wire = Wire(PLACES[transport])
    phone = Phone()
    client = device(version, transport, phone, place=("127.0.0.1", wire.port))
    client.subscribe(f"{INBOX}/#")
    faults = []
    for n in range(10):
        sent = [send(phone.user, f"{n}-{m}") for m in range(3)]
        live = [client.take() for _ in sent]
        if [(body(m), m.dup) for m in live] != [(f"{n}-{m}", False) for m in range(3)]:
            faults.append((n, "live", [m.payload for m in live]))
        client.ack(live[0])
        client.ack(live[1])
        if not until(lambda: delivered(sent[0]) and delivered(sent[1])):
            faults.append((n, "acks"))
        wire.cut()
        sent += [send(phone.user, f"{n}-{m}") for m in (3, 4)]
        wire.mend()
        flags, code = client.connected.get(timeout=LIMIT)
        if code != 0 or not flags.session_present:
            faults.append((n, "session", flags, code))
        again = [client.take() for _ in range(3)]
        seen = [(body(m), m.dup) for m in again]
        if seen != [(f"{n}-2", True), (f"{n}-3", False), (f"{n}-4", False)]:
            faults.append((n, "again", seen))
        if again[0].mid != live[2].mid:
            faults.append((n, "packet id", again[0].mid, live[2].mid))
        for message in again:
            client.ack(message)
        if not until(lambda: all(delivered(id) for id in sent)):
            faults.append((n, "all acks"))
    check(f"{name}: MQ-4, MQ-5, MQ-17: ten cuts lose nothing and repeat nothing acknowledged", not faults, faults)
    check(f"{name}: MQ-17: there were ten", wire.cuts == 10, wire.cuts)
    check(f"{name}: and nothing is left", client.got.empty())
    client.end()
    check(f"{name}: MQ-17: nor for a poll", phone.left() == [], phone.left())


def topics(name, version, transport):
    """An app's server publishes to a topic that a device follows."""
    topic = f"{name}-{uuid.uuid4().hex[:8]}"
    phone = Phone()
    client = device(version, transport, phone)
    check(f"{name}: the device may follow", client.subscribe(f"hy/t/{topic}") == 1)
    server = Client(version, transport, "server", FACTS["server_key"], f"server-{topic}")
    check(f"{name}: the server is let in", server.code == 0, server.code)
    payload = json.dumps({"class": "im", "notification": {"title": "t", "body": "to all"}})
    told = server.paho.publish(f"hy/t/{topic}", payload, qos=1)
    told.wait_for_publish(LIMIT)
    check(f"{name}: its publication is acknowledged", told.is_published())
    message = client.take()
    check(f"{name}: it arrives", (message.topic, body(message)) == (f"hy/t/{topic}", "to all"), message.payload)
    client.ack(message)
    call("POST", "/v1/messages", {"to": {"topic": topic}, "class": "im", "notification": {"title": "t", "body": "by HTTP"}})
    message = client.take()
    check(f"{name}: one of the API too", body(message) == "by HTTP", message.payload)
    client.ack(message)
    check(f"{name}: a server subscribes to nothing", server.subscribe(f"hy/t/{topic}") >= UNSPECIFIED)
    server.end()
    client.end()


def refusals(name, version, transport):
    phone, other = Phone(), Phone()
    for what, user, password, client_id, code in [
        ("wrong password", phone.user, "wrong", phone.id, BAD_PASSWORD),
        ("another user", other.user, phone.token, phone.id, BAD_PASSWORD),
        ("another device", phone.user, phone.token, other.id, BAD_CLIENT_ID),
        ("a server with a device's token", "server", phone.token, "server", BAD_PASSWORD),
    ]:
        client = Client(version, transport, user, password, client_id)
        check(f"{name}: MQ-3: {what}", client.code.value == code, client.code)
        client.end()


def mosquitto_sub(version, phone, password, place, *arguments):
    """The program with a session that is kept."""
    host, port = place
    command = ["mosquitto_sub", "-h", host, "-p", str(port), "-V", version, "-i", phone.id, "-c"]
    command += ["-u", phone.user, "-P", password, "-q", "1", "-t", f"{INBOX}/#"]
    command += ["-x", "600"] if version == "mqttv5" else []
    return subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def mosquitto(name, version):
    phone = Phone()

    def sub(password, *arguments):
        return mosquitto_sub(version, phone, password, MQTT, *arguments)

    first = sub(phone.token, "-E", "-W", str(LIMIT))
    check(f"{name}: it subscribes", first.wait(2 * LIMIT) == 0, first.stderr.read())
    ids = [send(phone.user, f"{n}") for n in range(3)]
    reader = sub(phone.token, "-F", "%t %q %p", "-W", str(LIMIT))
    lines = [reader.stdout.readline().split(" ", 2) for _ in ids]
    got = [(line[0], line[1], text(json.loads(line[2]))) for line in lines]
    check(f"{name}: a kept session has what came meanwhile", got == [(INBOX, "1", f"{n}") for n in range(3)], got)
    # It stays until its acknowledgements have arrived: leaving, it drops what it has not sent yet.
    check(f"{name}: and acknowledges", until(lambda: all(delivered(id) for id in ids)))
    reader.terminate()
    reader.wait(LIMIT)
    wrong = sub("wrong", "-W", str(LIMIT))
    _, told = wrong.communicate(timeout=2 * LIMIT)
    check(f"{name}: wrong password", "bad user name or password" in told.lower(), told)


class Tail:
    """The texts of what mosquitto_sub prints."""

    def __init__(self, process):
        self.process, self.got = process, []
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.got.append(text(json.loads(line)))


def mosquitto_cuts(name):
    """Both levels beside each other: the program waits a second before it comes back."""
    versions = ("mqttv311", "mqttv5")
    phones = [Phone() for _ in versions]
    wires = [Wire(MQTT) for _ in versions]
    tails = [
        Tail(mosquitto_sub(version, phone, phone.token, ("127.0.0.1", wire.port), "-F", "%p"))
        for version, phone, wire in zip(versions, phones, wires)
    ]
    want, ids = [], [[] for _ in phones]

    def all_send(body):
        want.append(body)
        for phone, sent in zip(phones, ids):
            sent.append(send(phone.user, body))

    def all_have():
        return all(set(want) <= set(tail.got) for tail in tails)

    def all_acknowledged():
        return all(delivered(id) for sent in ids for id in sent[-2:])

    all_send("first")
    assert until(all_have), [tail.process.poll() for tail in tails]
    for n in range(10):
        all_send(f"{n}-live-0")
        all_send(f"{n}-live-1")
        assert until(lambda: all_have() and all_acknowledged()), (n, [tail.got for tail in tails])
        for wire in wires:
            wire.cut()
        all_send(f"{n}-away")
        for wire in wires:
            wire.mend()
        assert until(all_have), (n, [tail.got for tail in tails])
    for version, wire, tail, last in zip(versions, wires, tails, (sent[-1] for sent in ids)):
        check(f"{name}-{version}: MQ-17: there were ten cuts", wire.cuts == 10, wire.cuts)
        check(f"{name}-{version}: MQ-17: nothing is lost, and the order is kept", tail.got == want, tail.got)
        check(f"{name}-{version}: MQ-17: and the last is acknowledged", until(lambda: delivered(last)))
        tail.process.terminate()
        tail.process.wait(LIMIT)


LEVELS = (("3", paho.MQTTv311), ("5", paho.MQTTv5))
play(
    *(
        (f"paho-{level}-{transport}-{part.__name__}", part, version, transport)
        for level, version in LEVELS
        for transport in PLACES
        for part in (inbox, cuts, topics, refusals)
    ),
    *((f"mosquitto-{version}", mosquitto, version) for version in ("mqttv311", "mqttv5")),
    ("mosquitto-cuts", mosquitto_cuts),
)
