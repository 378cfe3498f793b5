"""A stock Firefox without a window is a device: a page subscribes, and shows what is pushed to it.

    firefox.py HONGYAN FOLDER

The browser is driven over its Marionette socket. Everything is on loopback.
"""

import http.server
import json
import pathlib
import shutil
import socket
import subprocess
import sys
import threading
import time

from node import Node, check, free_port
from py_vapid import Vapid02
from pywebpush import WebPushException, webpush
from cryptography.hazmat.primitives import serialization
import base64
import requests

PAGE = """<!doctype html><title>page</title><script>
window.pushes = [];
navigator.serviceWorker.onmessage = (event) => window.pushes.push(event.data);
async function subscribe(key) {
  await navigator.serviceWorker.register("/worker.js");
  const worker = await navigator.serviceWorker.ready;
  const options = { userVisibleOnly: true, applicationServerKey: key };
  return (await worker.pushManager.subscribe(options)).toJSON();
}
async function current() {
  const worker = await navigator.serviceWorker.ready;
  const subscription = await worker.pushManager.getSubscription();
  return subscription && subscription.toJSON();
}
async function unsubscribe() {
  const worker = await navigator.serviceWorker.ready;
  return (await worker.pushManager.getSubscription()).unsubscribe();
}
async function shown() {
  const worker = await navigator.serviceWorker.ready;
  return (await worker.getNotifications()).map((one) => one.body);
}
</script>"""

WORKER = """
self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
async function tell(what) {
  for (const page of await self.clients.matchAll({ includeUncontrolled: true })) page.postMessage(what);
}
self.addEventListener("push", (event) => {
  const text = event.data ? event.data.text() : null;
  event.waitUntil(self.registration.showNotification("push", { body: String(text), tag: "t" })
    .catch(() => {}).then(() => tell(text)));
});
self.addEventListener("pushsubscriptionchange", (event) => event.waitUntil(tell("changed")));
"""


class Pages(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        known = {"/": ("text/html", PAGE), "/worker.js": ("text/javascript", WORKER)}
        kind, text = known.get(self.path, (None, ""))
        self.send_response(200 if kind else 404)
        self.send_header("Content-Type", kind or "text/plain")
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


class Browser:
    """Firefox with a fresh profile, and its Marionette socket."""

    def __init__(self, folder, push_url):
        profile = folder / "profile"
        shutil.rmtree(profile, ignore_errors=True)
        profile.mkdir(parents=True)
        port = free_port()
        wanted = {
            "marionette.port": port,
            "dom.push.serverURL": push_url,
            "dom.push.testing.allowInsecureServerURL": True,
            "permissions.default.desktop-notification": 1,
            "alerts.useSystemBackend": False,
            "dom.push.connection.enabled": True,
            "dom.push.retryBaseInterval": 200,
            "dom.push.loglevel": "Debug",
            "app.update.enabled": False,
            "browser.shell.checkDefaultBrowser": False,
            "datareporting.policy.dataSubmissionEnabled": False,
            "network.captive-portal-service.enabled": False,
            "network.connectivity-service.enabled": False,
            "network.proxy.type": 0,
            "toolkit.telemetry.reportingpolicy.firstRun": False,
            "services.settings.server": "data:,",
        }
        lines = [f"user_pref({json.dumps(k)}, {json.dumps(v)});\n" for k, v in wanted.items()]
        (profile / "user.js").write_text("".join(lines))
        log = open(folder / "firefox.log", "wb")
        self.process = subprocess.Popen(
            ["firefox-esr", "--headless", "--no-remote", "--marionette", "--remote-allow-system-access",
             "--profile", str(profile)],
            stdout=log, stderr=log, stdin=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                self.socket = socket.create_connection(("127.0.0.1", port), 60)
                break
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit((folder / "firefox.log").read_text(errors="replace")[-4000:])
                time.sleep(0.1)
        self.buffer, self.last = b"", 0
        self.read()
        self.do("WebDriver:NewSession", {"capabilities": {"alwaysMatch": {"timeouts": {"script": 60000}}}})

    def read(self):
        while b":" not in self.buffer:
            self.more()
        length, self.buffer = self.buffer.split(b":", 1)
        while len(self.buffer) < int(length):
            self.more()
        text, self.buffer = self.buffer[: int(length)], self.buffer[int(length):]
        return json.loads(text)

    def more(self):
        got = self.socket.recv(65536)
        if not got:
            raise SystemExit("the browser hung up")
        self.buffer += got

    def do(self, command, parameters=None):
        self.last += 1
        text = json.dumps([0, self.last, command, parameters or {}]).encode()
        self.socket.sendall(str(len(text)).encode() + b":" + text)
        _, _, error, result = self.read()
        if error:
            raise SystemExit(f"{command}: {error}")
        return result

    def run(self, script, *arguments):
        script = "const done = arguments[arguments.length - 1], page = window.wrappedJSObject || window;" \
            f"(async (...given) => {{ {script} }})" \
            "(...Array.prototype.slice.call(arguments, 0, -1)).then(done, (e) => done({failed: String(e)}));"
        value = self.do("WebDriver:ExecuteAsyncScript", {"script": script, "args": list(arguments)})["value"]
        if isinstance(value, dict) and "failed" in value:
            raise SystemExit(value["failed"])
        return value

    def page(self, expression, *arguments):
        names = ", ".join(f"given[{n}]" for n in range(len(arguments)))
        return self.run(f"return await page.{expression}({names});", *arguments)

    def set(self, name, value):
        self.do("Marionette:SetContext", {"value": "chrome"})
        self.run("Services.prefs.setBoolPref(given[0], given[1]);", name, value)
        self.do("Marionette:SetContext", {"value": "content"})

    def pushes(self, count):
        """Waits for so many, and forgets them."""
        deadline = time.monotonic() + 30
        while True:
            got = self.run("return Array.from(page.pushes);")
            if len(got) >= count:
                self.run("page.pushes.length = 0;")
                return got
            if time.monotonic() > deadline:
                raise SystemExit(f"only {got!r} came in time")
            time.sleep(0.05)

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def main():
    binary, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    pages = http.server.ThreadingHTTPServer(("127.0.0.1", free_port()), Pages)
    threading.Thread(target=pages.serve_forever, daemon=True).start()
    node = Node(binary, folder / "data")
    browser = None
    try:
        browser = Browser(folder, f"ws://localhost:{node.port}/autopush")
        browser.do("WebDriver:Navigate", {"url": f"http://127.0.0.1:{pages.server_port}/"})
        drive(browser, node)
    finally:
        if browser:
            browser.stop()
        node.stop()
        pages.shutdown()


def drive(browser, node):
    signer = Vapid02()
    signer.generate_keys()
    form = serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    key = base64.urlsafe_b64encode(signer.public_key.public_bytes(*form)).rstrip(b"=").decode()

    def push(subscription, text, **more):
        try:
            return webpush(
                subscription, text, vapid_private_key=signer, ttl=60,
                vapid_claims={"sub": "mailto:tests@hongyan.example"}, **more,
            ).status_code
        except WebPushException as refused:
            return refused.response.status_code

    subscription = browser.page("subscribe", key)
    at = subscription["endpoint"].startswith(f"{node.root}/wpush/v2/")
    check("AP-12 Firefox subscribes with a key", at, True)
    check("AP-12 a push without a body", requests.post(
        subscription["endpoint"],
        headers={"TTL": "60", **signer.sign({"aud": node.root, "sub": "mailto:a@hongyan.example"})},
    ).status_code, 201)
    check("  it reaches the page's worker", browser.pushes(1), [None])
    for text in ("hello", "汉" * 1300):
        check(f"AP-12 a push of {len(text.encode())} bytes", push(subscription, text), 201)
        check("  it is decrypted", browser.pushes(1), [text])
    check("AP-12 a push in the draft encoding", push(subscription, "old", content_encoding="aesgcm"), 201)
    check("  it is decrypted", browser.pushes(1), ["old"])
    check("the page shows it", browser.page("shown"), ["old"])
    check("another key", requests.post(
        subscription["endpoint"], headers={"TTL": "60"}).status_code, 401)

    browser.set("dom.push.connection.enabled", False)
    for text in ("away 1", "away 2"):
        check(f"AP-12 a push while the browser is away: {text}", push(subscription, text), 201)
    browser.set("dom.push.connection.enabled", True)
    check("  all come when it is back", browser.pushes(2), ["away 1", "away 2"])

    node.stop()
    node.start()
    check("AP-13 a push before the browser is back at a server that was started again", push(subscription, "again"), 201)
    check("  it comes", browser.pushes(1), ["again"])
    check("  the subscription is the same", browser.page("current"), subscription)

    check("AP-12 Firefox unsubscribes", browser.page("unsubscribe"), True)
    deadline = time.monotonic() + 20
    while push(subscription, "x") == 201 and time.monotonic() < deadline:
        time.sleep(0.1)
    check("  the endpoint is gone", push(subscription, "x"), 410)

    again = browser.page("subscribe", key)
    check("Firefox subscribes again", push(again, "anew"), 201)
    check("  it comes", browser.pushes(1), ["anew"])
    for device in node.call("GET", "/v1/devices", node.server_key)["items"]:
        node.call("DELETE", f"/v1/devices/{device['device_id']}", node.server_key)
    check("AP-12 its identity is taken away, and the page is told", browser.pushes(1), ["changed"])
    check("  the endpoint is gone", push(again, "x"), 410)
    third = browser.page("subscribe", key)
    check("  with a new one it goes on", push(third, "new"), 201)
    check("  it comes", browser.pushes(1), ["new"])


if __name__ == "__main__":
    main()
