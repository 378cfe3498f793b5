"""What the scripts beside this one share: a demo's addresses, its API, and a wire that can be cut."""

import json
import socket
import sys
import threading
import time
import traceback
import urllib.error
import urllib.request
import uuid

FACTS_FILE = sys.argv[1]
FACTS = json.load(open(FACTS_FILE))
API = FACTS["api"]
LIMIT = 20
failed = False


def check(what, good, seen=""):
    global failed
    failed |= not good
    print("ok  " if good else "FAIL", what, "" if good else seen, flush=True)


def play(*parts):
    """Plays parts, each a name, a function and what it is told; then ends the program."""
    for name, part, *told in parts:
        try:
            part(name, *told)
        except Exception as error:
            traceback.print_exc()
            check(name, False, repr(error))
    sys.exit(failed)


def address(url):
    """Host and port."""
    host, port = url.split("://", 1)[1].rstrip("/").rsplit(":", 1)
    return host, int(port)


def ask(method, path, body=None, key=None, headers=()):
    """Status, headers and JSON of an answer."""
    request = urllib.request.Request(
        API + path,
        None if body is None else json.dumps(body).encode(),
        {
            "content-type": "application/json",
            "authorization": "Bearer " + (key or FACTS["server_key"]),
            **dict(headers),
        },
        method=method,
    )
    try:
        answer = urllib.request.urlopen(request, timeout=2 * LIMIT)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        text = answer.read()
        return answer.status, answer.headers, json.loads(text) if text else None


def call(method, path, body=None, key=None):
    """The same, of a call that has to succeed."""
    status, _, told = ask(method, path, body, key)
    if not 200 <= status < 300:
        raise RuntimeError(f"{method} {path}: {status} {told}")
    return told


class Phone:
    """A device with its user."""

    def __init__(self, user=None):
        self.user = user or new_user()
        told = call("POST", "/v1/devices", {"platform": "desktop"}, FACTS["client_key"])
        self.id, self.token = told["device_id"], told["device_token"]
        call("POST", f"/v1/devices/{self.id}/login", {"user": self.user})

    def poll(self, wait=0, cursor=None, limit=100):
        after = f"&cursor={cursor}" if cursor else ""
        return call("GET", f"/v1/poll?wait={wait}&limit={limit}{after}", key=self.token)

    def left(self):
        """Texts that the device has not acknowledged."""
        return [text(message) for message in self.poll()["messages"]]

    def ack(self, *ids):
        call("POST", "/v1/acks", {"ids": ids}, self.token)


def new_user():
    return "live-" + uuid.uuid4().hex[:8]


def send(user, text, data=None):
    body = {"to": {"user": user}, "class": "im", "notification": {"title": "t", "body": text}}
    if data is not None:
        body["data"] = data
    return call("POST", "/v1/messages", body)["id"]


def text(message):
    return message["notification"]["body"]


def delivered(message):
    """Whether the ledger has seen the acknowledgement."""
    trace = call("GET", f"/v1/messages/{message}/trace")
    return any(event["stage"] == "delivered" for event in trace["events"])


def until(condition, limit=LIMIT):
    """Whether a condition comes true in time."""
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


class Wire:
    """Forwards connections to an address, and cuts them; while it is shut nothing goes through."""

    def __init__(self, target):
        self.target = target
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.open = threading.Event()
        self.open.set()
        self.pairs = []
        self.cuts = 0
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            near, _ = self.listener.accept()
            self.open.wait()
            far = socket.create_connection(self.target)
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
        shut(source, target)

    def cut(self):
        """Ends what is open, and lets nothing through until `mend`."""
        self.open.clear()
        pairs, self.pairs = self.pairs, []
        for pair in pairs:
            shut(*pair)
        self.cuts += len(pairs)

    def mend(self):
        self.open.set()


def shut(*ends):
    for end in ends:
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
