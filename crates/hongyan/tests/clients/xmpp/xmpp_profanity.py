"""profanity, a desktop client in C, against a running demo: login, stored and live messages, ten cuts.

It runs in a terminal of its own, and its connection passes a relay that can be cut. `cargo xtask clients` runs this;
by hand:

    apt install profanity
    hongyan demo --data /tmp/demo &
    python crates/hongyan/tests/clients/xmpp/xmpp_profanity.py /tmp/demo/demo.json
"""

import asyncio
import fcntl
import json
import os
import pty
import shutil
import struct
import sys
import tempfile
import termios
import time
import urllib.request
import uuid

FACTS = json.load(open(sys.argv[1]))
HOST, PORT = FACTS["xmpp"].removeprefix("xmpp://").rsplit(":", 1)
LIMIT = 30
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


def send(user, text):
    body = {"to": {"user": user}, "class": "im", "notification": {"title": "", "body": text}}
    return call("POST", "/v1/messages", body)["id"]


async def until(condition):
    end = time.monotonic() + LIMIT
    while not condition() and time.monotonic() < end:
        await asyncio.sleep(0.05)
    return condition()


class Relay:
    """Passes bytes on until it is told to cut."""

    def __init__(self):
        self.open, self.passed = set(), 0

    async def start(self):
        server = await asyncio.start_server(self.take, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]

    async def take(self, reader, writer):
        far_reader, far_writer = await asyncio.open_connection(HOST, int(PORT))
        self.open |= {writer, far_writer}
        self.passed += 1
        await asyncio.gather(self.pipe(reader, far_writer), self.pipe(far_reader, writer))

    async def pipe(self, reader, writer):
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        writer.close()

    def cut(self):
        for writer in self.open:
            writer.transport.abort()
        self.open.clear()


class Profanity:
    """The program in a terminal; what it showed is in `screen`, what it kept in its chat logs."""

    def __init__(self, place, jid, token, port):
        self.place = place
        data, config = place + "/data/profanity", place + "/config/profanity"
        os.makedirs(data)
        os.makedirs(config)
        with open(data + "/accounts", "w") as file:
            file.write(
                f"[{jid}]\nenabled=true\njid={jid}\nserver=127.0.0.1\nport={port}\npassword={token}\n"
                "resource=desk\ntls.policy=trust\npresence.login=online\n"
            )
        with open(config + "/profrc", "w") as file:
            file.write(
                "[logging]\nchlog=true\n[connection]\nreconnect=1\nautoping=0\nautoping.timeout=5\n"
                "[notifications]\nmessage=off\n[ui]\nsplash=false\n"
            )
        environment = {
            **os.environ,
            "XDG_DATA_HOME": place + "/data",
            "XDG_CONFIG_HOME": place + "/config",
            "HOME": place,
            "TERM": "xterm",
            "LANG": "C.UTF-8",
        }
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execvpe("profanity", ["profanity", "-a", jid, "-l", "DEBUG"], environment)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
        self.screen = b""
        asyncio.get_running_loop().add_reader(self.fd, self.read)

    def read(self):
        try:
            self.screen += os.read(self.fd, 65536)
        except OSError:
            asyncio.get_running_loop().remove_reader(self.fd)

    def type(self, line):
        os.write(self.fd, line.encode() + b"\r")

    def kept(self):
        """All lines of its chat logs."""
        text = ""
        for folder, _, names in os.walk(self.place + "/data/profanity/chatlogs"):
            for name in names:
                text += open(os.path.join(folder, name), errors="replace").read()
        return text


async def main():
    if not shutil.which("profanity"):
        sys.exit("FAIL profanity is not installed: apt install profanity")
    relay = Relay()
    await relay.start()
    user = "desk-" + uuid.uuid4().hex[:8]
    told = call("POST", "/v1/devices", {"platform": "desktop"}, FACTS["client_key"])
    device, token = told["device_id"], told["device_token"]
    call("POST", f"/v1/devices/{device}/login", {"user": user})
    jid = call("POST", f"/v1/devices/{device}/xmpp", key=token)["jid"]
    send(user, "while-away")
    place = tempfile.mkdtemp()
    client = Profanity(place, jid, token, relay.port)
    try:
        check("profanity: stored message", await until(lambda: "while-away" in client.kept()))
        send(user, "live-one")
        check("profanity: live message", await until(lambda: "live-one" in client.kept()))
        want = []
        for n in range(10):
            for part in ("before", "after"):
                if part == "after":
                    passed = relay.passed
                    relay.cut()
                for m in range(3):
                    want.append(f"cut-{n}-{part}-{m}")
                    send(user, want[-1])
            # It comes back by itself, a second later.
            await until(lambda: relay.passed > passed and want[-1] in client.kept())
        await until(lambda: all(one in client.kept() for one in want))
        missing = [one for one in want if one not in client.kept()]
        check("XM-18: profanity: ten cuts, nothing lost", not missing, missing)
        check("XM-18: profanity: connected again each time", relay.passed >= 11, relay.passed)
        client.type("/quit")
        if failed:
            print(client.screen[-2000:])
            for folder, _, names in os.walk(place):
                for name in names:
                    if name.endswith(".log") and "profanity" in name:
                        print(open(os.path.join(folder, name), errors="replace").read()[-6000:])
    finally:
        await asyncio.sleep(0.5)
        try:
            os.kill(client.pid, 9)
        except ProcessLookupError:
            pass
        shutil.rmtree(place, ignore_errors=True)


asyncio.run(main())
sys.exit(failed)
