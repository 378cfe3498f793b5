"""slixmpp against a running demo: logins, an inbox message, acknowledgements, ten cuts.

`cargo xtask clients` runs this; by hand:

    pip install -r crates/hongyan/tests/clients/xmpp/requirements.txt
    hongyan demo --data /tmp/demo &
    python crates/hongyan/tests/clients/xmpp/xmpp_clients.py /tmp/demo/demo.json
"""

import asyncio
import json
import os
import sys
import urllib.request
import uuid

import slixmpp

FACTS_FILE = sys.argv[1]
FACTS = json.load(open(FACTS_FILE))
HOST, PORT = FACTS["xmpp"].removeprefix("xmpp://").rsplit(":", 1)
CA = os.path.join(os.path.dirname(FACTS_FILE), "sandbox", "ca.pem")
LIMIT = 20
failed = False


def check(what, good, seen=""):
    global failed
    failed |= not good
    print("ok  " if good else "FAIL", what, seen, flush=True)


def call(method, path, body=None, key=None):
    request = urllib.request.Request(
        FACTS["api"] + path,
        None if body is None else json.dumps(body).encode(),
        {"content-type": "application/json", "authorization": "Bearer " + (key or FACTS["server_key"])},
        method=method,
    )
    with urllib.request.urlopen(request) as answer:
        text = answer.read()
    return json.loads(text) if text else None


def new_device(user):
    told = call("POST", "/v1/devices", {"platform": "desktop"}, FACTS["client_key"])
    device, token = told["device_id"], told["device_token"]
    call("POST", f"/v1/devices/{device}/login", {"user": user})
    login = call("POST", f"/v1/devices/{device}/xmpp", key=token)
    return device, token, login


def send(user, text):
    body = {"to": {"user": user}, "class": "im", "notification": {"title": "t", "body": text}}
    return call("POST", "/v1/messages", body)["id"]


def delivered(message):
    """Whether the ledger has seen the device's acknowledgement."""
    trace = call("GET", f"/v1/messages/{message}/trace")
    return any(event["stage"] == "delivered" for event in trace["events"])


async def until(what, condition):
    end = asyncio.get_running_loop().time() + LIMIT
    while not condition():
        if asyncio.get_running_loop().time() > end:
            return False
        await asyncio.sleep(0.02)
    return True


class Client(slixmpp.ClientXMPP):
    def __init__(self, jid, token, mechanism=None, managed=True):
        super().__init__(jid, token, sasl_mech=mechanism)
        self.ca_certs = CA
        self.enable_direct_tls = False
        self.enable_plaintext = False
        self.bodies, self.state = [], None
        self.ended = asyncio.Event()
        self.resumed = 0
        for plugin in ["xep_0030", "xep_0199", "xep_0280"] + ["xep_0198"] * managed:
            self.register_plugin(plugin)
        self.add_event_handler("session_start", self.started)
        self.add_event_handler("session_resumed", self.went_on)
        self.add_event_handler("failed_all_auth", lambda _: self.ends("refused"))
        self.add_event_handler("failed_auth", lambda _: self.ends("refused"))
        self.add_event_handler("message", lambda m: self.bodies.append((m["id"], m["body"])))
        self.add_event_handler("disconnected", lambda _: self.ended.set())

    def started(self, _):
        self.state = "started"
        self.send_presence()

    def went_on(self, _):
        self.resumed += 1
        self.state = "resumed"
        self.send_presence()

    def ends(self, state):
        self.state = state

    def go(self):
        self.state = None
        self.ended.clear()
        self.connect(HOST, int(PORT))

    async def leave(self):
        await self.disconnect(wait=2)

    def texts(self):
        return [body.split("\n")[-1] for _, body in self.bodies]


async def logins():
    user = "py-" + uuid.uuid4().hex[:8]
    _, token, login = new_device(user)
    for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN"]:
        client = Client(login["jid"], token, mechanism)
        client.go()
        await until(mechanism, lambda: client.state)
        check(f"XM-1: slixmpp login with {mechanism} over STARTTLS", client.state == "started", client.state)
        await client.leave()
    client = Client(login["jid"], "wrong", "SCRAM-SHA-256")
    client.go()
    await until("refusal", lambda: client.state)
    check("XM-1: slixmpp login with a wrong password", client.state == "refused", client.state)
    await client.leave()


async def asks():
    user = "py-" + uuid.uuid4().hex[:8]
    device, token, login = new_device(user)
    client = Client(login["jid"], token)
    client.go()
    await until("start", lambda: client.state)
    info = await client.plugin["xep_0030"].get_info(jid=login["domain"], timeout=LIMIT)
    check("XM-8: service discovery", "urn:xmpp:ping" in info["disco_info"]["features"])
    took = await client.plugin["xep_0199"].ping(login["domain"], timeout=LIMIT)
    check("XM-8: ping", took < LIMIT)
    await client.get_roster()
    check("XM-8: roster", True)
    await client.plugin["xep_0280"].enable()
    check("XM-8: carbons", True)
    try:
        await client.plugin["xep_0199"].send_ping("elsewhere.example", timeout=LIMIT)
        check("XM-8: another server", False)
    except slixmpp.exceptions.IqError as error:
        check("XM-8: another server", error.condition == "remote-server-not-found", error.condition)
    mine = "to the app " + uuid.uuid4().hex
    client.send_message(login["domain"], mine, mtype="chat")

    def said():
        trace = call("GET", f"/v1/devices/{device}/trace")
        return [e.get("detail") for e in trace["events"] if e["stage"] == "said"]

    check("said to the app", await until("said", lambda: said() == [mine]), said())
    await client.leave()


async def inbox(managed):
    kind = "stream management" if managed else "pings"
    user = "py-" + uuid.uuid4().hex[:8]
    _, token, login = new_device(user)
    stored = send(user, "while away")
    client = Client(login["jid"], token, managed=managed)
    client.go()
    await until("start", lambda: client.state)
    check(f"XM-12: stored message ({kind})", await until("stored", lambda: client.texts() == ["while away"]), client.texts())
    live = send(user, "live")
    check(f"live message ({kind})", await until("live", lambda: len(client.bodies) == 2), client.texts())
    both = await until("acks", lambda: delivered(stored) and delivered(live))
    check(f"XM-17: acknowledged ({kind})", both)
    await client.leave()


async def cuts():
    user = "py-" + uuid.uuid4().hex[:8]
    _, token, login = new_device(user)
    client = Client(login["jid"], token)
    client.go()
    await until("start", lambda: client.state)
    want = []
    for n in range(10):
        for part in ("before", "after"):
            if part == "after":
                client.transport.abort()
                await until("cut", client.ended.is_set)
            for m in range(3):
                want.append(f"{n}-{part}-{m}")
                send(user, want[-1])
        client.go()
        await until("back", lambda: client.state)
    await until("all", lambda: set(want) <= set(client.texts()))
    check("XM-18: ten cuts: nothing lost", sorted(set(client.texts())) == sorted(want), len(client.bodies))
    check("XM-18: ten cuts: resumed", client.resumed >= 9, client.resumed)
    ids = [id for id, _ in client.bodies]
    check("XM-18: ten cuts: next to nothing twice", len(ids) - len(set(ids)) <= 30, len(ids) - len(set(ids)))
    await client.leave()


async def main():
    await logins()
    await asks()
    await inbox(True)
    await inbox(False)
    await cuts()


asyncio.run(main())
sys.exit(failed)
