"""nginx in front of a running demo, with the settings that it has by itself: a stream, a poll and WebSockets through it.

What it does by default: HTTP/1.0 to the server behind it, and answers collected in buffers before they go on.
`cargo xtask clients` runs this; by hand:

    apt install nginx
    hongyan demo --data /tmp/demo &
    python crates/hongyan/tests/clients/live/live_proxy.py /tmp/demo/demo.json
"""

import json
import os
import pathlib
import queue
import shutil
import socket
import subprocess
import tempfile
import threading
import urllib.request

import paho.mqtt.client as paho
from curl_stream import Curl
from live import API, LIMIT, Phone, address, call, check, delivered, play, send, text, until
from paho.mqtt.enums import CallbackAPIVersion
from websockets.sync.client import connect

# Not in everybody's search path where the distribution puts it.
NGINX = shutil.which("nginx") or "/usr/sbin/nginx"

SETTINGS = """
daemon off;
worker_processes 1;
error_log error.log;
pid nginx.pid;
events {}
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {
        listen 127.0.0.1:%(port)d;
        location / {
            proxy_pass %(api)s;
        }
        location ~ ^/(v1/connect|mqtt)$ {
            proxy_pass %(api)s;
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection "upgrade";
        }
    }
}
"""


def free_port():
    """A port below the range that outgoing connections take theirs from."""
    for port in range(20000 + os.getpid() % 8000, 32000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise RuntimeError("no port is free")


class Proxy:
    """nginx with a folder of its own."""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.port = free_port()
        self.root = f"http://127.0.0.1:{self.port}"
        (self.folder / "nginx.conf").write_text(SETTINGS % {"port": self.port, "api": API})
        # Named before the settings are read: there it would write to the system's own.
        command = [NGINX, "-p", str(self.folder), "-c", "nginx.conf", "-e", "error.log"]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def is_up(self):
        if self.process.poll() is not None:
            raise RuntimeError((self.folder / "error.log").read_text())
        try:
            socket.create_connection(("127.0.0.1", self.port)).close()
            return True
        except OSError:
            return False

    def end(self):
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def stream(name, proxy):
    """Answers the open stream: its silence is listened to while the others have their turn."""
    phone = Phone()
    curl = Curl(phone, "--http1.1", root=proxy.root)
    check(f"{name}: 200", curl.status.split()[1] == "200", curl.status)
    check(f"{name}: the proxy answers", curl.headers["server"].startswith("nginx"), curl.headers)
    check(f"{name}: SSE-6: it begins at once", (curl.next()[0], curl.next()[0]) == ("welcome", "idle"))
    for n in range(3):
        sent = send(phone.user, f"{n}")
        event, _, message = curl.next()
        good = (event, message["id"], text(message)) == ("msg", sent, f"{n}")
        check(f"{name}: SSE-6: an event comes while the stream stays open", good, message)
        phone.ack(sent)
        check(f"{name}: it is acknowledged", until(lambda: delivered(sent)))
    return curl


def silence(name, curl):
    while (line := curl.lines.get(timeout=3 * LIMIT)) not in (": hb", None):
        pass
    check(f"{name}: SSE-6: a comment ends a long silence", line == ": hb", line)
    curl.end()


def poll(name, proxy):
    phone = Phone()
    answers = queue.Queue()

    def wait():
        request = urllib.request.Request(
            f"{proxy.root}/v1/poll?wait=30", headers={"authorization": f"Bearer {phone.token}"}
        )
        with urllib.request.urlopen(request, timeout=3 * LIMIT) as answer:
            answers.put(json.load(answer))

    def online():
        return [one["online"] for one in call("GET", f"/v1/users/{phone.user}/devices")["items"]] == [True]

    threading.Thread(target=wait).start()
    check(f"{name}: the device counts as connected", until(online))
    send(phone.user, "polled")
    got = answers.get(timeout=LIMIT)
    check(f"{name}: LP-1: a message ends the wait", [text(one) for one in got["messages"]] == ["polled"], got)


def socket_through(name, proxy):
    phone = Phone()
    host, port = address(proxy.root)
    with connect(f"ws://{host}:{port}/v1/connect", subprotocols=["hongyan.v1+json"], compression=None) as live:
        live.send(json.dumps({"t": "hello", "v": 1, "auth": {"token": phone.token}}))
        told = [json.loads(live.recv(LIMIT))["t"] for _ in range(2)]
        check(f"{name}: welcome and idle", told == ["welcome", "idle"], told)
        sent = send(phone.user, "live")
        message = json.loads(live.recv(LIMIT))
        check(f"{name}: a message", (message["t"], message["id"]) == ("msg", sent), message)
        live.send(json.dumps({"t": "ack", "ids": [sent]}))
        check(f"{name}: its ack arrives", until(lambda: delivered(sent)))


def mqtt_through(name, proxy):
    phone = Phone()
    got = queue.Queue()
    client = paho.Client(CallbackAPIVersion.VERSION2, phone.id, transport="websockets")
    # Not a page: paho would name the address that it connects to as its origin.
    client.ws_set_options("/mqtt", lambda headers: {k: v for k, v in headers.items() if k != "Origin"})
    client.username_pw_set(phone.user, phone.token)
    client.on_connect = lambda *_: client.subscribe("hy/me/inbox", 1)
    subscribed = threading.Event()
    client.on_subscribe = lambda *_: subscribed.set()
    client.on_message = lambda _client, _data, message: got.put(json.loads(message.payload))
    client.connect(*address(proxy.root))
    client.loop_start()
    check(f"{name}: it subscribes", subscribed.wait(LIMIT))
    sent = send(phone.user, "live")
    check(f"{name}: a message", got.get(timeout=LIMIT)["id"] == sent)
    check(f"{name}: its PUBACK arrives", until(lambda: delivered(sent)))
    client.disconnect()
    client.loop_stop()


def through(name):
    proxy = Proxy()
    try:
        check(f"{name}: nginx is up", until(proxy.is_up))
        curl = stream(f"{name}-stream", proxy)
        poll(f"{name}-poll", proxy)
        socket_through(f"{name}-websocket", proxy)
        mqtt_through(f"{name}-mqtt", proxy)
        silence(f"{name}-stream", curl)
    finally:
        proxy.end()


play(("nginx", through))
