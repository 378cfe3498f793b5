"""curl as a reader of server-sent events, and the standard library as one that polls, against a running demo.

`cargo xtask clients` runs this; by hand:

    hongyan demo --data /tmp/demo &
    python crates/hongyan/tests/clients/live/live_http.py /tmp/demo/demo.json
"""

import queue
import threading
import time

from curl_stream import Curl
from live import LIMIT, Phone, ask, check, delivered, play, send, text, until


# As large as the data of a message may be, near enough.
LONG = "鸿雁\0:🪿" * 1_500


def texts(messages):
    return [text(message) for _, message in messages]


def stream(name, version):
    phone = Phone()
    curl = Curl(phone, version)
    check(f"{name}: SSE-1: 200", curl.status.split()[1] == "200", curl.status)
    http = curl.status.split()[0]
    check(f"{name}: SSE-8: the version", http == ("HTTP/2" if "2" in version else "HTTP/1.1"), http)
    kind = curl.headers["content-type"]
    check(f"{name}: SSE-1: its type", kind.split(";")[0] == "text/event-stream", kind)
    check(f"{name}: SSE-1: not stored", curl.headers["cache-control"] == "no-store", curl.headers)
    check(f"{name}: SSE-1: not buffered by proxies", curl.headers["x-accel-buffering"] == "no", curl.headers)
    open_end = "content-length" not in curl.headers and "content-encoding" not in curl.headers
    check(f"{name}: SSE-1: no length, no coding", open_end, curl.headers)
    event, _, welcome = curl.next()
    check(f"{name}: SSE-1: bytes come at once, without an entry", event == "welcome" and bool(curl.comments), event)
    check(f"{name}: it names the device", welcome["device"] == phone.id, welcome)
    check(f"{name}: when to come back", 1000 <= curl.retry < 5000, curl.retry)
    check(f"{name}: idle once everything is there", curl.next()[0] == "idle")
    odd = "a\r\nb\0:é鸿🪿\n: no comment\n\ndata: none"
    sent = send(phone.user, "first", {"odd": odd, "long": LONG})
    event, id, message = curl.next()
    check(f"{name}: an event of a message", (event, message["id"]) == ("msg", sent), message)
    check(f"{name}: it has an id", bool(id) and id.isascii() and " " not in id, id)
    check(f"{name}: SSE-2: its data is whole", message["data"] == {"odd": odd, "long": LONG}, message)
    check(f"{name}: SSE-9: reading it acknowledges nothing", not delivered(sent))
    phone.ack(sent)
    check(f"{name}: an ack is seen in the ledger", until(lambda: delivered(sent)))
    curl.end()
    second = Curl(phone, version)
    second.next()
    third = Curl(phone, version)
    third.next()
    check(f"{name}: SSE-7: waits differ", len({curl.retry, second.retry, third.retry}) > 1)
    last = None
    while (event := second.next()) is not None:
        last = event[0]
    check(f"{name}: the older of two is told, and ends", last == "taken", last)
    third.end()


def explicit(name, version):
    """What was not acknowledged comes again, whatever the last id."""
    phone = Phone()
    curl = Curl(phone, version, "&ack=explicit&inflight=3")
    ids = [send(phone.user, f"{n}") for n in range(5)]
    got = curl.messages(3)
    check(f"{name}: SSE-3: no more than are allowed", texts(got) == ["0", "1", "2"], got)
    phone.ack(ids[0], ids[1])
    more = curl.messages(2)
    check(f"{name}: acks let more through", texts(more) == ["3", "4"], more)
    curl.end()
    curl = Curl(phone, version, "&ack=explicit", last=more[-1][0])
    again = curl.messages(3)
    check(f"{name}: SSE-3: what was not acknowledged comes again", texts(again) == ["2", "3", "4"], again)
    phone.ack(*ids)
    curl.end()
    check(f"{name}: and is not polled once it is", phone.left() == [], phone.left())


def resume(name, version):
    """Coming back with an id acknowledges everything up to it."""
    phone = Phone()
    ids = [send(phone.user, f"{n}") for n in range(5)]
    curl = Curl(phone, version, "&ack=resume")
    got = curl.messages(5)
    check(f"{name}: in order", texts(got) == [f"{n}" for n in range(5)], got)
    curl.end()
    curl = Curl(phone, version, "&ack=resume", last=got[2][0])
    again = curl.messages(2)
    check(f"{name}: SSE-3: from the next one on", texts(again) == ["3", "4"], again)
    check(f"{name}: SSE-3: those before are acknowledged", until(lambda: all(delivered(id) for id in ids[:3])))
    check(f"{name}: SSE-3: those behind are not", not any(delivered(id) for id in ids[3:]))
    curl.end()


def refused(name, version):
    phone = Phone()
    curl = Curl(phone, version, token="wrong")
    check(f"{name}: SSE-5: an unknown token", curl.status.split()[1] == "401", curl.status)
    curl.end()
    curl = Curl(phone, version, token=Phone().token)
    check(f"{name}: SSE-5: another device's", curl.status.split()[1] == "403", curl.status)
    curl.end()
    curl = Curl(phone, version, last="nonsense")
    check(f"{name}: SSE-5: an id that is none", curl.status.split()[1] == "400", curl.status)
    curl.end()


def stay_away(name, version):
    phone = Phone()
    first = Curl(phone, version)
    session = first.next()[2]["session"]
    second = Curl(phone, version)
    second.next()
    again = Curl(phone, version, f"&session={session}")
    check(f"{name}: SSE-5: the one that was replaced is told to stay away", again.status.split()[1] == "204", again.status)
    for curl in (first, second, again):
        curl.end()


def polls(name):
    phone = Phone()
    begun = time.monotonic()
    empty = phone.poll(wait=1)
    took = time.monotonic() - begun
    check(f"{name}: LP-2: empty after the wait", empty["messages"] == [] and 0.9 <= took < 10, (took, empty))
    same = phone.poll(cursor=empty["cursor"])
    check(f"{name}: LP-2: at the same place", same["cursor"] == empty["cursor"], same)
    status, headers, _ = ask("GET", "/v1/poll?wait=0", key=phone.token)
    good = status == 200 and headers["cache-control"] == "no-store" and int(headers["retry-after"]) > 0
    check(f"{name}: a plain poll is told when to come again", good, headers)
    _, _, preferred = ask("GET", "/v1/poll", key=phone.token, headers={"prefer": "wait=1"}.items())
    check(f"{name}: Prefer: wait", preferred["messages"] == [])

    answers = queue.Queue()
    waiting = threading.Thread(target=lambda: answers.put(phone.poll(wait=30)))
    begun = time.monotonic()
    waiting.start()
    time.sleep(0.2)
    first = send(phone.user, "0")
    got = answers.get(timeout=LIMIT)
    check(f"{name}: LP-1: a message ends the wait", [m["id"] for m in got["messages"]] == [first], got)
    check(f"{name}: LP-1: long before its end", time.monotonic() - begun < 15)
    again = phone.poll(wait=10, cursor=empty["cursor"])
    check(f"{name}: LP-3, LP-4: an old place gives the same again", texts_of(again) == ["0"], again)
    check(f"{name}: LP-3, LP-4: which acknowledged nothing", not delivered(first))
    after = phone.poll(cursor=again["cursor"])
    check(f"{name}: the new place acknowledges", after["messages"] == [] and until(lambda: delivered(first)), after)

    older, newer = queue.Queue(), queue.Queue()
    threading.Thread(target=lambda: older.put(phone.poll(wait=30))).start()
    time.sleep(0.3)
    threading.Thread(target=lambda: newer.put(phone.poll(wait=30))).start()
    told = older.get(timeout=LIMIT)
    check(f"{name}: LP-5: the older of two is superseded", told["superseded"] and told["messages"] == [], told)
    send(phone.user, "1")
    got = newer.get(timeout=LIMIT)
    check(f"{name}: LP-5: the newer has what comes", texts_of(got) == ["1"], got)

    place, seen, rounds = got["cursor"], [], 0
    for n in range(25):
        send(phone.user, f"chain {n}")
    more = True
    while more:
        page = phone.poll(cursor=place, limit=10)
        place, more = page["cursor"], page["more"]
        seen += texts_of(page)
        rounds += 1
    check(f"{name}: LP-6: a chain has each once, in order", seen == [f"chain {n}" for n in range(25)], seen)
    check(f"{name}: LP-6: in three answers", rounds == 3, rounds)
    phone.poll(cursor=place)

    large = "x" * 3000
    ids = [send(phone.user, f"large {n}", {"x": large}) for n in range(3)]
    page = phone.poll(cursor=place)
    check(f"{name}: large ones are whole", [m["data"]["x"] for m in page["messages"]] == [large] * len(ids))

    other = Phone()
    send(other.user, "of another")
    foreign = other.poll()["cursor"]
    send(phone.user, "own")
    page = phone.poll(cursor=foreign)
    good = page["reset"] and "of another" not in texts_of(page) and "own" in texts_of(page)
    check(f"{name}: LP-7: another's place gives the own inbox, from the start", good, page)
    status, _, told = ask("GET", "/v1/poll?cursor=nonsense", key=phone.token)
    check(f"{name}: a place that is none", (status, told["code"]) == (400, "bad_cursor"), told)
    status, _, _ = ask("GET", "/v1/poll?wait=0", key="wrong")
    check(f"{name}: an unknown token", status == 401, status)


def texts_of(page):
    return [text(message) for message in page["messages"]]


VERSIONS = (("1.1", "--http1.1"), ("2", "--http2-prior-knowledge"))
play(
    *(
        (f"curl-{name}-{part.__name__}", part, version)
        for name, version in VERSIONS
        for part in (stream, explicit, resume, refused, stay_away)
    ),
    ("poll", polls),
)
