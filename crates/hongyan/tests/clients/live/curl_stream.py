"""curl as a reader of server-sent events, as it is and through a proxy."""

import json
import queue
import subprocess
import threading

from live import API, LIMIT


class Curl:
    """`curl -N`: an event stream as it comes."""

    def __init__(self, phone, version, query="", last=None, token=None, root=API):
        headers = ["-H", f"Authorization: Bearer {token or phone.token}"]
        if last:
            headers += ["-H", f"Last-Event-ID: {last}"]
        command = ["curl", "-sSNi", "--max-time", "60", version, *headers, f"{root}/v1/stream?device={phone.id}{query}"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.lines = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()
        self.status = self.line()
        self.headers = {}
        while line := self.line():
            name, value = line.split(":", 1)
            self.headers[name.lower()] = value.strip()
        self.comments, self.retry = [], None

    def read(self):
        for line in self.process.stdout:
            self.lines.put(line.decode().rstrip("\r\n"))
        self.lines.put(None)

    def line(self):
        return self.lines.get(timeout=LIMIT)

    def next(self):
        """Type, id and data of the next event; nothing at the end."""
        event, id, data = "message", None, []
        while (line := self.line()) is not None:
            if not line:
                if data:
                    return event, id, json.loads("\n".join(data))
                continue
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            match name:
                case "":
                    self.comments.append(value)
                case "event":
                    event = value
                case "id":
                    id = value
                case "data":
                    data.append(value)
                case "retry":
                    self.retry = int(value)
        return None

    def messages(self, count):
        """Id and message of so many `msg` events; others are passed over."""
        found = []
        while len(found) < count:
            event, id, data = self.next()
            if event == "msg":
                found.append((id, data))
        return found

    def end(self):
        self.process.kill()
        self.process.wait()
