"""curl reads an event stream over TLS, where ALPN chooses between HTTP/2 and HTTP/1.1.

    tls_stream.py HONGYAN FOLDER
"""

import json
import pathlib
import queue
import subprocess
import sys
import threading

from node import Node, check
from push_senders import certificates

LIMIT = 60
VERSIONS = (("--http2", "HTTP/2"), ("--http1.1", "HTTP/1.1"))


class Stream:
    """`curl -N`, line by line."""

    def __init__(self, node, authority, option, token):
        command = ["curl", "-sSNi", option, "--max-time", str(LIMIT), "--cacert", str(authority)]
        command += ["-H", f"Authorization: Bearer {token}", f"{node.root}/v1/stream"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.lines = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.lines.put(line.rstrip("\r\n"))
        self.lines.put(None)

    def line(self):
        return self.lines.get(timeout=LIMIT)

    def event(self):
        """The type and the data of the next event; nothing at the end."""
        kind = None
        while (line := self.line()) is not None:
            name, _, value = line.partition(": ")
            if name == "event":
                kind = value
            elif name == "data":
                return kind, json.loads(value)
        return None, None


def main():
    binary, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    tls = certificates(folder)
    node = Node(binary, folder / "data", tls)
    try:
        for option, version in VERSIONS:
            stream(node, tls[0], option, version)
    finally:
        node.stop()


def stream(node, authority, option, version):
    phone = node.call("POST", "/v1/devices", node.client_key, {"platform": "desktop"})
    user = version.replace("/", "-")
    node.call("POST", f"/v1/devices/{phone['device_id']}/login", node.server_key, {"user": user})
    reader = Stream(node, authority, option, phone["device_token"])
    try:
        status = reader.line().split()
        check(f"SSE-8: curl {option} over TLS speaks {version}", status[:2], [version, "200"])
        check("  it begins", [reader.event()[0] for _ in range(2)], ["welcome", "idle"])
        for n in range(3):
            message = {"to": {"user": user}, "class": "im", "notification": {"title": "t", "body": f"{n}"}}
            sent = node.call("POST", "/v1/messages", node.server_key, message)["id"]
            kind, data = reader.event()
            check(f"SSE-8: an event comes over {version}", (kind, data["id"]), ("msg", sent))
    finally:
        reader.process.kill()
        reader.process.wait()


if __name__ == "__main__":
    main()
