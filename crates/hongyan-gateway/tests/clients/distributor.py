"""UP-14: apps on a private session bus get UnifiedPush through `hongyan-distributor`; they speak D-Bus with jeepney.

    distributor.py HONGYAN FOLDER

The distributor is the program beside HONGYAN, or `HONGYAN_DISTRIBUTOR`. With `app FOLDER` the script is an app that the bus
starts when somebody calls it.
"""

import contextlib
import json
import os
import pathlib
import queue
import signal
import subprocess
import sys
import time
import uuid

from jeepney import DBusAddress, HeaderFields, MatchRule, MessageFlag, MessageType
from jeepney import new_error, new_method_call, new_method_return
from jeepney.bus_messages import message_bus
from jeepney.io.threading import open_dbus_router

NAME = "org.unifiedpush.Distributor.hongyan"
DISTRIBUTOR = DBusAddress(
    "/org/unifiedpush/Distributor", bus_name=NAME, interface="org.unifiedpush.Distributor2"
)
STARTED = "org.hongyan.test.Started"
WAIT = 30


class App:
    """A connector: an app with a name on the bus."""

    def __init__(self, stack, name):
        self.name = name
        self.router = stack.enter_context(open_dbus_router(bus="SESSION"))
        self.calls = stack.enter_context(
            self.router.filter(
                MatchRule(type="method_call", path="/org/unifiedpush/Connector"),
                bufsize=100,
                queue=queue.Queue(),
            )
        )
        assert self.bus(message_bus.RequestName(name)) == 1

    def bus(self, message):
        reply = self.router.send_and_get_reply(message, timeout=WAIT)
        if reply.header.message_type == MessageType.error:
            return reply.header.fields[HeaderFields.error_name]
        return reply.body[0] if reply.body else None

    def ask(self, method, **arguments):
        body = ({key: ("s", value) for key, value in arguments.items()},)
        said = self.bus(new_method_call(DISTRIBUTOR, method, "a{sv}", body))
        return said if isinstance(said, str) else {key: value for key, (_, value) in said.items()}

    def register(self, token, **more):
        return self.ask("Register", service=self.name, token=token, **more)

    def next(self):
        """What the distributor says next: the call, its method, and its arguments."""
        call = self.calls.get(timeout=WAIT)
        assert call.header.fields[HeaderFields.interface] == "org.unifiedpush.Connector2"
        arguments = {key: value for key, (_, value) in call.body[0].items()}
        return call, call.header.fields[HeaderFields.member], arguments

    def take(self, answer=True):
        """The next call, which is answered when somebody waits for that."""
        call, method, arguments = self.next()
        if answer and not call.header.flags & MessageFlag.no_reply_expected:
            self.router.send(new_method_return(call, "a{sv}", ({},)))
        return method, arguments

    def endpoint(self, token):
        method, arguments = self.take()
        check("  it is told its endpoint", (method, arguments["token"]), ("NewEndpoint", token))
        return arguments["endpoint"]

    def message(self, token, body, what="  it arrives, byte for byte"):
        method, arguments = self.take()
        got = method, arguments.get("token"), bytes(arguments.get("message", b""))
        check(what, got, ("Message", token, body))
        return arguments["id"]


class Distributor:
    def __init__(self, program, node, folder):
        self.folder = folder / "state"
        self.command = [program, "--server", node.root, "--state", str(self.folder)]
        self.env = dict(os.environ, HONGYAN_CLIENT_KEY=node.client_key, RUST_LOG="debug,zbus=info")
        self.log = open(folder / "distributor.log", "ab")
        self.process = None

    def start(self, app):
        self.process = subprocess.Popen(
            self.command, env=self.env, stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL
        )
        until(lambda: NAME in app.bus(message_bus.ListNames()), self.process)

    def taken(self, message):
        """Waits until it is written down that the app has a message; that is acknowledged a moment later."""
        file = self.folder / "cursor.json"
        until(lambda: file.exists() and message in file.read_text(), self.process)

    def stop(self, how=signal.SIGTERM):
        if self.process:
            self.process.send_signal(how)
            self.process.wait(WAIT)
            self.process = None


def until(true, process=None):
    deadline = time.monotonic() + WAIT
    while not true():
        if time.monotonic() > deadline or (process and process.poll() is not None):
            raise SystemExit("what was waited for did not come about")
        time.sleep(0.02)


CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:tmpdir=/tmp</listen>
  <servicedir>{folder}</servicedir>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"""


@contextlib.contextmanager
def session_bus(folder):
    """A bus that nobody else is on, and that can start one app."""
    (folder / "bus.conf").write_text(CONFIG.format(folder=folder))
    program = f"{sys.executable} {pathlib.Path(__file__).resolve()} app {folder}"
    service = f"[D-BUS Service]\nName={STARTED}\nExec={program}\n"
    (folder / f"{STARTED}.service").write_text(service)
    with open(folder / "bus.log", "wb") as log:
        bus = subprocess.Popen(
            ["dbus-daemon", f"--config-file={folder}/bus.conf", "--print-address", "--nofork"],
            stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL, text=True,
        )
    try:
        os.environ["DBUS_SESSION_BUS_ADDRESS"] = bus.stdout.readline().strip()
        yield
    finally:
        bus.terminate()
        bus.wait(WAIT)


def started(folder):
    """The app that the bus starts: it keeps the one message that it is started for."""
    with contextlib.ExitStack() as stack:
        app = App(stack, STARTED)
        method, arguments = app.take()
        part = folder / "started.part"
        part.write_bytes(method.encode() + b" " + bytes(arguments["message"]))
        part.rename(folder / "started")


def main():
    binary, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    program = os.environ.get("HONGYAN_DISTRIBUTOR")
    program = program or pathlib.Path(binary).with_name("hongyan-distributor")
    with contextlib.ExitStack() as stack:
        node = Node(binary, folder / "data")
        stack.callback(node.stop)
        stack.enter_context(session_bus(folder))
        app = App(stack, "org.hongyan.test.App")
        distributor = Distributor(str(program), node, folder)
        stack.callback(distributor.stop)
        distributor.start(app)
        token, endpoint, last = round_trip(app)
        restarts(app, distributor, token, endpoint, last)
        encrypted(app)
        starts(folder)
        state = in_step(app, node, distributor)
        endpoint = another_device(app, node, state, token)
        refusals(app, node, distributor)
        ends(app, token, endpoint)


def post(endpoint, body):
    return requests.post(endpoint, data=body, timeout=WAIT).status_code


def round_trip(app):
    names = [n for n in app.bus(message_bus.ListNames()) if n.startswith("org.unifiedpush.Distributor.")]
    check("UP-14 the distributor is found by its name", names, [NAME])
    token = str(uuid.uuid4())
    done = app.register(token, description="tests")
    check("UP-14 an app registers", done, {"success": "REGISTRATION_SUCCEEDED"})
    endpoint = app.endpoint(token)
    said = requests.get(endpoint, timeout=WAIT).json()
    check("  which is one of UnifiedPush", said, {"unifiedpush": {"version": 1}})
    for body in (bytes(range(256)), b"\0" * 4096, b"x"):
        check(f"UP-14 {len(body)} bytes are posted", post(endpoint, body), 201)
        last = app.message(token, body)
    app.register(token, description="tests")
    check("the same again", app.endpoint(token), endpoint)
    return token, endpoint, last


def restarts(app, distributor, token, endpoint, before):
    distributor.taken(before)
    distributor.stop()
    check("a message while no distributor runs", post(endpoint, b"kept"), 201)
    distributor.start(app)
    distributor.taken(app.message(token, b"kept", "  it comes with the next start, and nothing before it again"))
    post(endpoint, b"unanswered")
    method, first = app.take(answer=False)
    check("a message that the app does not answer", (method, bytes(first["message"])), ("Message", b"unanswered"))
    distributor.stop(signal.SIGKILL)
    distributor.start(app)
    check("UP-14 it was not acknowledged: it comes again", app.message(token, b"unanswered"), first["id"])
    post(endpoint, b"next")
    distributor.taken(app.message(token, b"next"))
    distributor.stop()
    distributor.start(app)
    post(endpoint, b"last")
    app.message(token, b"last", "UP-14 what was acknowledged does not come again")


def encrypted(app):
    signer = Vapid02()
    signer.generate_keys()
    form = serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    token, key, auth = str(uuid.uuid4()), ec.generate_private_key(ec.SECP256R1()), os.urandom(16)
    done = app.register(token, vapid=b64(signer.public_key.public_bytes(*form)))
    check("an app registers with a VAPID key", done["success"], "REGISTRATION_SUCCEEDED")
    endpoint = app.endpoint(token)
    keys = {"p256dh": b64(key.public_key().public_bytes(*form)), "auth": b64(auth)}
    sent = webpush(
        {"endpoint": endpoint, "keys": keys}, "汉字", ttl=60,
        vapid_private_key=signer, vapid_claims={"sub": "mailto:tests@hongyan.example"},
    )
    check("  pywebpush posts", sent.status_code, 201)
    method, arguments = app.take()
    text = http_ece.decrypt(bytes(arguments["message"]), private_key=key, auth_secret=auth).decode()
    check("  the app decrypts it", (method, arguments["token"], text), ("Message", token, "汉字"))
    unsigned = requests.post(endpoint, headers={"TTL": "1"}, timeout=WAIT)
    check("  nobody else may post", unsigned.status_code, 401)
    other = Vapid02()
    other.generate_keys()
    app.register(token, vapid=b64(other.public_key.public_bytes(*form)))
    check("  another key is another endpoint", app.endpoint(token) != endpoint, True)


def starts(folder):
    with contextlib.ExitStack() as short:
        app = App(short, STARTED)
        app.register("started")
        endpoint = app.endpoint("started")
        app.bus(message_bus.ReleaseName(STARTED))
    check("a message for an app that does not run", post(endpoint, b"wake up"), 201)
    until((folder / "started").exists)
    check("UP-14 the bus starts it", (folder / "started").read_bytes(), b"Message wake up")


def in_step(app, node, distributor):
    """What was changed while the distributor was away."""
    app.register("lost")
    endpoint = app.endpoint("lost")
    file = distributor.folder / "state.json"
    check("only its owner reads the state", oct(file.stat().st_mode & 0o777), "0o600")
    distributor.stop()
    state = json.loads(file.read_text())
    channels = f"/v1/devices/{state['device_id']}/channels"
    lost = next(one["channel"] for one in state["registrations"] if one["token"] == "lost")
    node.call("DELETE", f"{channels}/{lost}", state["device_token"])
    foreign = node.call("POST", channels, state["device_token"], {})["endpoint"]
    distributor.start(app)
    fresh = app.endpoint("lost")
    check("a channel that was closed is opened again", (fresh != endpoint, post(fresh, b"here")), (True, 201))
    app.message("lost", b"here")
    check("a channel that nobody has is closed", post(foreign, b"x"), 410)
    return state


def another_device(app, node, state, token):
    """The server forgets the device: it becomes another one, with the same registrations."""
    node.call("DELETE", f"/v1/devices/{state['device_id']}", state["device_token"])
    tokens = {one["token"] for one in state["registrations"] if one["service"] == app.name}
    said = [app.take() for _ in tokens]
    endpoints = {arguments["token"]: arguments.get("endpoint") for _, arguments in said}
    told = {method for method, _ in said}, set(endpoints)
    check("a device that the server forgot tells new endpoints", told, ({"NewEndpoint"}, tokens))
    check("  which are open", post(endpoints[token], b"again"), 201)
    app.message(token, b"again")
    return endpoints[token]


def refusals(app, node, distributor):
    stolen = app.ask("Register", service="org.hongyan.test.Other", token="t")
    failed = {"success": "REGISTRATION_FAILED"}
    check("a name that the caller does not own", stolen, dict(failed, reason="UNAUTHORIZED"))
    wrong = "org.freedesktop.DBus.Error.InvalidArgs"
    check("no token", app.ask("Register", service=app.name), wrong)
    check("a token of 101 bytes", app.register("x" * 101), wrong)
    check("a key that is none", app.register("t", vapid="BA"), wrong)
    second = subprocess.run(distributor.command, env=distributor.env, capture_output=True, timeout=WAIT)
    check("a second distributor", (second.returncode, b"runs already" in second.stderr), (1, True))
    node.stop()
    check("no way to the server", app.register("t"), dict(failed, reason="NETWORK"))
    node.start()


def ends(app, token, endpoint):
    check("UP-14 it unregisters", app.ask("Unregister", token=token), {})
    check("  that is confirmed", app.take(), ("Unregistered", {"token": token}))
    check("  senders are told", post(endpoint, b"x"), 410)
    check("  a token that nobody has is as good", app.ask("Unregister", token=token), {})


if __name__ == "__main__" and sys.argv[1] == "app":
    started(pathlib.Path(sys.argv[2]))
else:
    import http_ece
    import requests
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from node import Node, check
    from push_senders import b64
    from py_vapid import Vapid02
    from pywebpush import webpush

    main()
