"""Ten devices of one user on ten transports see the same order, and end with nothing left.

`cargo xtask clients` runs this; by hand:

    pip install -r crates/hongyan/tests/clients/live/requirements.txt
    hongyan demo --data /tmp/demo &
    python crates/hongyan/tests/clients/live/live_order.py /tmp/demo/demo.json
"""

import asyncio
import json
import os
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import cbor2
import paho.mqtt.client as paho
import slixmpp
from live import API, FACTS, FACTS_FILE, LIMIT, Phone, address, call, check, new_user, play, send, text, until
from paho.mqtt.enums import CallbackAPIVersion
from websockets.sync.client import connect

MESSAGES = 100
SENDERS = 4


class Reader:
    """A device of the user; `seen` are the texts in the order in which they came."""

    def __init__(self, user):
        self.phone = Phone(user)
        self.seen = []
        self.ready = threading.Event()
        self.fault = None
        threading.Thread(target=self.go, daemon=True).start()

    def go(self):
        try:
            self.read()
        except Exception as error:
            self.fault = self.fault or repr(error)


class Socket(Reader):
    protocol, dump, load = "hongyan.v1+json", staticmethod(json.dumps), staticmethod(json.loads)

    def read(self):
        host, port = address(API)
        with connect(f"ws://{host}:{port}/v1/connect", subprotocols=[self.protocol], compression=None) as socket:
            socket.send(self.dump({"t": "hello", "v": 1, "auth": {"token": self.phone.token}}))
            for frame in socket:
                message = self.load(frame)
                if message["t"] == "welcome":
                    self.ready.set()
                elif message["t"] == "msg":
                    self.seen.append(text(message))
                    socket.send(self.dump({"t": "ack", "ids": [message["id"]]}))


class Binary(Socket):
    protocol, dump, load = "hongyan.v1+cbor", staticmethod(cbor2.dumps), staticmethod(cbor2.loads)


class Stream(Reader):
    version = "--http1.1"

    def read(self):
        command = ["curl", "-sSN", "--max-time", "100", self.version, "-H", f"Authorization: Bearer {self.phone.token}"]
        self.curl = subprocess.Popen([*command, f"{API}/v1/stream?inflight=7"], stdout=subprocess.PIPE, text=True)
        event = None
        for line in self.curl.stdout:
            name, _, value = line.rstrip("\n").partition(": ")
            if name == "event":
                event = value
                self.ready.set()
            elif name == "data" and event == "msg":
                message = json.loads(value)
                self.seen.append(text(message))
                self.phone.ack(message["id"])


class Stream2(Stream):
    version = "--http2-prior-knowledge"


class Poll(Reader):
    def read(self):
        self.ready.set()
        cursor = None
        while True:
            page = self.phone.poll(wait=20, cursor=cursor, limit=7)
            cursor = page["cursor"]
            self.seen += [text(message) for message in page["messages"]]


class Mqtt(Reader):
    version, transport, place = paho.MQTTv311, "tcp", address(FACTS["mqtt"])

    def read(self):
        client = paho.Client(
            CallbackAPIVersion.VERSION2, self.phone.id, protocol=self.version, transport=self.transport
        )
        client.ws_set_options("/mqtt", lambda headers: {k: v for k, v in headers.items() if k != "Origin"})
        client.username_pw_set(self.phone.user, self.phone.token)
        client.on_connect = lambda *_: client.subscribe("hy/me/inbox/#", 1)
        client.on_subscribe = lambda *_: self.ready.set()
        client.on_message = lambda _c, _d, message: self.seen.append(text(json.loads(message.payload)))
        client.connect(*self.place)
        client.loop_forever()


class Mqtt5(Mqtt):
    version = paho.MQTTv5


class MqttSocket(Mqtt):
    transport, place = "websockets", address(API)


class MqttSocket5(MqttSocket):
    version = paho.MQTTv5


class Xmpp(Reader):
    def read(self):
        login = call("POST", f"/v1/devices/{self.phone.id}/xmpp", key=self.phone.token)
        asyncio.run(self.stay(login["jid"]))

    async def stay(self, jid):
        client = slixmpp.ClientXMPP(jid, self.phone.token)
        client.ca_certs = os.path.join(os.path.dirname(FACTS_FILE), "sandbox", "ca.pem")
        client.enable_direct_tls = client.enable_plaintext = False
        client.register_plugin("xep_0198")

        def started(_):
            client.send_presence()
            self.ready.set()

        client.add_event_handler("session_start", started)
        client.add_event_handler("message", lambda m: self.seen.append(m["body"].split("\n")[-1]))
        client.connect(*address(FACTS["xmpp"]))
        await asyncio.Event().wait()


KINDS = (Socket, Binary, Stream, Stream2, Poll, Mqtt, Mqtt5, MqttSocket, MqttSocket5, Xmpp)


def order(name):
    user = new_user()
    readers = [kind(user) for kind in KINDS]
    for reader in readers:
        reader.ready.wait(LIMIT)
        check(f"{name}: {type(reader).__name__} is there", reader.ready.is_set() and not reader.fault, reader.fault)
    with ThreadPoolExecutor(SENDERS) as pool:
        ids = list(pool.map(lambda n: send(user, f"{n}"), range(MESSAGES)))
    until(lambda: all(len(reader.seen) >= MESSAGES for reader in readers), 2 * LIMIT)
    # What comes twice would come now.
    time.sleep(0.3)
    first = readers[0].seen
    check(f"{name}: every message once", sorted(first, key=int) == [f"{n}" for n in range(MESSAGES)], first)
    for reader in readers[1:]:
        seen = reader.fault or reader.seen
        check(f"{name}: {type(reader).__name__} has the order of {type(readers[0]).__name__}", seen == first, seen)

    def acknowledged():
        trace = call("GET", f"/v1/messages/{ids[-1]}/trace")
        return sum(event["stage"] == "delivered" for event in trace["events"]) == len(readers)

    check(f"{name}: HW-10: and all acknowledged", until(acknowledged))
    for reader in readers:
        if hasattr(reader, "curl"):
            reader.curl.kill()


play(("order", order))
