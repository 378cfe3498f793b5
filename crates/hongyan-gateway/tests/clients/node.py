"""A server of our own on loopback, and what the scripts beside this one ask of it."""

import json
import os
import pathlib
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request


def free_port():
    """A port below the range that outgoing connections take theirs from."""
    for port in range(20000 + os.getpid() % 8000, 32000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise SystemExit("no port is free")


class Node:
    """`hongyan serve` with an app `demo`."""

    def __init__(self, binary, data, tls=None, settings=()):
        self.binary, self.data = binary, pathlib.Path(data)
        self.data.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.root = f"{'https' if tls else 'http'}://localhost:{self.port}"
        self.context = ssl.create_default_context(cafile=str(tls[0])) if tls else None
        self.settings = [
            f"http.listen=127.0.0.1:{self.port}",
            f"http.public_url={self.root}",
            "autopush.app=demo",
            *([f"http.tls_cert={tls[1]}", f"http.tls_key={tls[2]}"] if tls else []),
            *settings,
        ]
        self.start()
        admin = (self.data / "admin.key").read_text().strip()
        self.call("POST", "/v1/apps", admin, {"id": "demo"})
        keys = [
            self.call("POST", "/v1/apps/demo/keys", admin, {"kind": kind})["secret"]
            for kind in ("client", "server")
        ]
        self.client_key, self.server_key = keys

    def start(self):
        command = [self.binary, "serve", "--data", str(self.data)]
        for one in self.settings:
            command += ["--set", one]
        log = open(self.data / "node.log", "ab")
        self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while True:
            try:
                self.call("GET", "/readyz")
                return
            except (OSError, urllib.error.HTTPError):
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit((self.data / "node.log").read_text()[-4000:])
                time.sleep(0.05)

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def call(self, method, path, key="", body=None):
        headers = {"Content-Type": "application/json"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.root + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=60, context=self.context) as answer:
            text = answer.read()
        return json.loads(text) if text else None


checked = 0


def check(what, got, wanted):
    """One line for each answer that was looked at; a wrong one ends the script."""
    global checked
    checked += 1
    if got == wanted:
        print(f"ok   {what}")
        return
    print(f"FAIL {what}: {got!r} instead of {wanted!r}")
    sys.exit(1)
