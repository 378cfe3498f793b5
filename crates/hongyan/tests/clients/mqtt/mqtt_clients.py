"""paho-mqtt and the mosquitto tools against an open MQTT space.

`cargo xtask clients` runs this; by hand:

    pip install -r crates/hongyan/tests/clients/mqtt/requirements.txt
    hongyan serve --data /tmp/open --set mqtt.open_listen=127.0.0.1:1884 &
    python crates/hongyan/tests/clients/mqtt/mqtt_clients.py 127.0.0.1:1884
"""

import queue
import shutil
import socket
import subprocess
import sys
import threading
import time

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

HOST, PORT = sys.argv[1].rsplit(":", 1)
PORT = int(PORT)
LIMIT = 20
failed = False


def check(what, good, seen=""):
    global failed
    failed |= not good
    print("ok  " if good else "FAIL", what, "" if good else seen, flush=True)


class Wire:
    """Forwards connections to the broker, and cuts them."""

    def __init__(self):
        self.listener = socket.create_server((HOST, 0))
        self.port = self.listener.getsockname()[1]
        self.pairs = []
        self.cuts = 0
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            near, _ = self.listener.accept()
            far = socket.create_connection((HOST, PORT))
            self.pairs.append((near, far))
            for pair in ((near, far), (far, near)):
                threading.Thread(target=self.forward, args=pair, daemon=True).start()

    @staticmethod
    def forward(source, target):
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def cut(self):
        pairs, self.pairs = self.pairs, []
        for pair in pairs:
            for end in pair:
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
        self.cuts += len(pairs)


class Client:
    """A paho client that keeps what it got."""

    def __init__(self, version, transport, name, keep=False, will=None, port=PORT):
        self.version = version
        self.got = queue.Queue()
        self.connected = queue.Queue()
        self.done = queue.Queue()
        options = {} if version == paho.MQTTv5 else {"clean_session": not keep}
        self.paho = paho.Client(
            CallbackAPIVersion.VERSION2, name, protocol=version, transport=transport, **options
        )
        if transport == "websockets":
            self.paho.ws_set_options(path="/mqtt")
        self.paho.reconnect_delay_set(0.05, 0.2)
        self.paho.on_message = lambda _client, _data, message: self.got.put(message)
        self.paho.on_connect = lambda _c, _d, flags, code, _p: self.connected.put((flags, code))
        self.paho.on_subscribe = lambda _c, _d, mid, codes, _p: self.done.put(codes)
        if will:
            self.paho.will_set(will, "gone", qos=1)
        options = {}
        if version == paho.MQTTv5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 600 if keep else 0
            options = {"clean_start": not keep, "properties": properties}
        self.paho.connect(HOST, port, keepalive=30, **options)
        self.paho.loop_start()
        self.flags, code = self.connected.get(timeout=LIMIT)
        assert code == 0, code

    def subscribe(self, topic, qos):
        self.paho.subscribe(topic, qos)
        return self.done.get(timeout=LIMIT)

    def publish(self, topic, payload, qos=0, **options):
        told = self.paho.publish(topic, payload, qos, **options)
        told.wait_for_publish(LIMIT)
        return told

    def take(self, count):
        return [self.got.get(timeout=LIMIT) for _ in range(count)]

    def end(self):
        self.paho.disconnect()
        self.paho.loop_stop()


def levels(name, version, transport):
    reader = Client(version, transport, f"{name}-r")
    writer = Client(version, transport, f"{name}-w")
    codes = reader.subscribe(f"{name}/#", 2)
    check(f"{name}: QoS 2 is granted", codes[0].value == 2, codes)
    for qos in range(3):
        for n in range(10):
            writer.publish(f"{name}/{qos}", f"{n}", qos)
    got = [(m.topic, m.payload.decode(), m.qos) for m in reader.take(30)]
    sent = [(f"{name}/{qos}", f"{n}", qos) for qos in range(3) for n in range(10)]
    check(f"{name}: thirty messages of three levels, once and in order", got == sent, got)
    large = bytes(range(256)) * 800
    writer.publish(f"{name}/large", large, 2)
    check(f"{name}: a large one is whole", reader.take(1)[0].payload == large)
    reader.end()
    writer.end()


def retained(name, version, transport):
    writer = Client(version, transport, f"{name}-w")
    writer.publish(f"{name}/last", "1", 1, retain=True)
    writer.publish(f"{name}/last", "2", 1, retain=True)
    reader = Client(version, transport, f"{name}-r")
    reader.subscribe(f"{name}/+", 1)
    message = reader.take(1)[0]
    check(f"{name}: the last is retained", (message.payload, message.retain) == (b"2", True))
    writer.publish(f"{name}/last", "", 1, retain=True)
    reader.take(1)
    reader.end()
    reader = Client(version, transport, f"{name}-r")
    reader.subscribe(f"{name}/+", 1)
    writer.publish(f"{name}/last", "3", 1)
    message = reader.take(1)[0]
    check(f"{name}: and taken away", (message.payload, message.retain) == (b"3", False))
    reader.end()
    writer.end()


def wills(name, version, transport):
    wire = Wire()
    watcher = Client(version, transport, f"{name}-watch")
    watcher.subscribe(f"{name}/will", 1)
    doomed = Client(version, transport, f"{name}-doomed", will=f"{name}/will", port=wire.port)
    wire.listener.close()
    wire.cut()
    check(f"{name}: a will comes after a cut", watcher.take(1)[0].payload == b"gone")
    doomed.end()
    polite = Client(version, transport, f"{name}-polite", will=f"{name}/will")
    polite.end()
    watcher.publish(f"{name}/will", "after", 1)
    check(f"{name}: and not after a goodbye", watcher.take(1)[0].payload == b"after")
    watcher.end()


def shares(name, version, transport):
    members = [Client(version, transport, f"{name}-{n}") for n in range(3)]
    for member in members:
        member.subscribe(f"$share/{name}/{name}/#", 1)
    writer = Client(version, transport, f"{name}-w")
    for n in range(30):
        writer.publish(f"{name}/x", str(n), 1)
    begun = time.monotonic()
    while sum(m.got.qsize() for m in members) < 30 and time.monotonic() < begun + LIMIT:
        time.sleep(0.01)
    counts = [member.got.qsize() for member in members]
    check(f"{name}: thirty messages are shared by three", counts == [10, 10, 10], counts)
    for client in [*members, writer]:
        client.end()


def cuts(name, version, transport):
    wire = Wire()
    reader = Client(version, transport, f"{name}-r", keep=True, port=wire.port)
    check(f"{name}: there is no session before", not reader.flags.session_present)
    reader.subscribe(f"{name}/#", 2)
    writer = Client(version, transport, f"{name}-w")
    for n in range(100):
        if n % 10 == 5:
            wire.cut()
        writer.publish(f"{name}/{1 + n % 2}", str(n), 1 + n % 2)
        if n % 10 == 9:
            flags, _ = reader.connected.get(timeout=LIMIT)
            if not flags.session_present:
                check(f"{name}: the session is there after cut {n // 10}", False)
    seen, twice = [], []
    while len(seen) < 100:
        message = reader.got.get(timeout=LIMIT)
        n = int(message.payload)
        (twice if n in seen else seen).append(n)
    check(f"{name}: ten cuts lose nothing", sorted(seen) == list(range(100)), seen)
    check(f"{name}: QoS 2 never comes twice", all(n % 2 == 0 for n in twice), twice)
    check(f"{name}: there were ten", wire.cuts == 10, wire.cuts)
    reader.end()
    writer.end()


def fifth(name, transport):
    """What only 5.0 has."""
    reader = Client(paho.MQTTv5, transport, f"{name}-r")
    reader.paho.subscribe(f"{name}/#", options=SubscribeOptions(qos=1, noLocal=True))
    reader.done.get(timeout=LIMIT)
    writer = Client(paho.MQTTv5, transport, f"{name}-w")
    properties = Properties(PacketTypes.PUBLISH)
    properties.UserProperty = [("b", "1"), ("a", "2"), ("b", "1")]
    properties.ContentType = "text/plain"
    properties.ResponseTopic = "answers"
    properties.CorrelationData = b"\0\1"
    properties.MessageExpiryInterval = 100
    properties.PayloadFormatIndicator = 1
    reader.publish(f"{name}/own", "not for me", 1)
    writer.publish(f"{name}/x", "hello", 1, properties=properties)
    message = reader.take(1)[0]
    check(f"{name}: no local", message.payload == b"hello", message.payload)
    got = message.properties
    user = got.UserProperty == [("b", "1"), ("a", "2"), ("b", "1")]
    rest = (got.ContentType, got.ResponseTopic, got.CorrelationData, got.PayloadFormatIndicator)
    check(f"{name}: MQ-12: properties pass", user and rest == ("text/plain", "answers", b"\0\1", 1), got)
    check(f"{name}: expiry", 0 < got.MessageExpiryInterval <= 100, got.MessageExpiryInterval)
    reader.end()
    writer.end()


def mosquitto(version):
    name = f"mosquitto-{version}"
    base = ["-h", HOST, "-p", str(PORT), "-V", version]
    keep = ["-i", f"{name}-r", "-c", *(["-x", "600"] if version == "mqttv5" else [])]

    def sub(*arguments):
        command = ["mosquitto_sub", *base, *arguments, "-W", str(LIMIT)]
        return subprocess.run(command, capture_output=True, text=True, timeout=2 * LIMIT)

    def pub(*arguments):
        command = ["mosquitto_pub", *base, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT).returncode

    sub(*keep, "-q", "2", "-t", f"{name}/#", "-E")
    codes = [pub("-q", str(qos), "-t", f"{name}/{qos}", "-m", f"{qos}") for qos in (1, 2)]
    check(f"{name}: publishing", codes == [0, 0], codes)
    told = sub(*keep, "-q", "2", "-t", f"{name}/#", "-C", "2", "-v")
    good = told.stdout == f"{name}/1 1\n{name}/2 2\n"
    check(f"{name}: a kept session has what came meanwhile", good, told)
    pub("-r", "-q", "1", "-t", f"{name}/kept", "-m", "kept")
    told = sub("-t", f"{name}/kept", "-C", "1", "-F", "%r %p")
    check(f"{name}: retained", told.stdout == "1 kept\n", told)
    sub("-i", f"{name}-w", *keep[2:], "-q", "1", "-t", f"{name}/will", "-E")
    doomed = subprocess.Popen(
        ["mosquitto_sub", *base, "-t", f"{name}/ready", "--will-topic", f"{name}/will"]
        + ["--will-payload", "gone", "--will-qos", "1"],
        stdout=subprocess.PIPE,
        text=True,
    )
    pub("-r", "-t", f"{name}/ready", "-m", "ready")
    doomed.stdout.readline()
    doomed.kill()
    told = sub("-i", f"{name}-w", *keep[2:], "-q", "1", "-t", f"{name}/will", "-C", "1")
    check(f"{name}: a will", told.stdout == "gone\n", told)
    sub("-i", f"{name}-s", *keep[2:], "-q", "1", "-t", f"$share/g/{name}/s", "-E")
    pub("-q", "1", "-t", f"{name}/s", "-m", "shared")
    told = sub("-i", f"{name}-s", *keep[2:], "-q", "1", "-t", f"$share/g/{name}/s", "-C", "1")
    check(f"{name}: shared", told.stdout == "shared\n", told)


for version, level in ((paho.MQTTv311, "3"), (paho.MQTTv5, "5")):
    for transport in ("tcp", "websockets"):
        for suite in (levels, retained, wills, shares, cuts):
            name = f"paho-{level}-{transport}-{suite.__name__}"
            try:
                suite(name, version, transport)
            except Exception as error:
                check(name, False, repr(error))
for transport in ("tcp", "websockets"):
    try:
        fifth(f"paho-5-{transport}-own", transport)
    except Exception as error:
        check(f"paho-5-{transport}-own", False, repr(error))
if shutil.which("mosquitto_sub") and shutil.which("mosquitto_pub"):
    for version in ("mqttv311", "mqttv5"):
        try:
            mosquitto(version)
        except Exception as error:
            check(f"mosquitto-{version}", False, repr(error))
else:
    check("mosquitto", False, "mosquitto_pub and mosquitto_sub are missing (apt install mosquitto-clients)")
sys.exit(failed)
