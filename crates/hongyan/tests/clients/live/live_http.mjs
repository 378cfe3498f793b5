// The npm package `eventsource`, which does what browsers do, against a running demo: reconnects with the last id, and stays
// away when it is told to.
//
// `cargo xtask clients` runs this; by hand, in a folder with the modules of package.json:
//
//     hongyan demo --data /tmp/demo &
//     node live_http.mjs /tmp/demo/demo.json

import net from "node:net";
import process from "node:process";
import { createRequire } from "node:module";
import { call, check, delivered, facts, left, newPhone, play, send, until } from "./live.mjs";

// Modules come from the folder that this is run in.
const { EventSource } = createRequire(`${process.cwd()}/`)("eventsource");

// Forwards connections to the API, and cuts them.
class Wire {
  constructor() {
    const { hostname, port } = new URL(facts.api);
    this.sockets = new Set();
    this.server = net.createServer((near) => {
      const far = net.connect(port, hostname);
      for (const [from, to] of [[near, far], [far, near]]) {
        this.sockets.add(from);
        from.on("error", () => {});
        from.on("close", () => {
          this.sockets.delete(from);
          to.destroy();
        });
        from.pipe(to);
      }
    });
  }

  async open() {
    await new Promise((go) => this.server.listen(0, "127.0.0.1", go));
    this.root = `http://127.0.0.1:${this.server.address().port}`;
    return this;
  }

  cut() {
    for (const socket of this.sockets) socket.destroy();
  }
}

// An event source that keeps what it got, and what it asked with.
class Source {
  constructor(root, phone, query, path = "/v1/stream") {
    this.got = [];
    this.asked = [];
    this.statuses = [];
    this.welcomes = [];
    this.replaced = false;
    this.source = new EventSource(`${root}${path}?device=${phone.id}${query}`, {
      fetch: async (url, init) => {
        const session = this.welcomes.at(-1)?.session;
        const whole = this.replaced ? `${url}&session=${session}` : url;
        this.asked.push(init.headers["Last-Event-ID"]);
        const headers = { ...init.headers, Authorization: `Bearer ${phone.token}` };
        const answer = await fetch(whole, { ...init, headers });
        this.statuses.push(answer.status);
        return answer;
      },
    });
    this.source.addEventListener("welcome", (event) => this.welcomes.push(JSON.parse(event.data)));
    this.source.addEventListener("msg", (event) => {
      this.got.push({ id: event.lastEventId, message: JSON.parse(event.data) });
    });
    this.source.addEventListener("taken", () => {
      this.replaced = true;
    });
  }

  texts() {
    return this.got.map((one) => one.message.notification.body);
  }
}

async function resume(name) {
  const wire = await new Wire().open();
  const phone = await newPhone();
  const source = new Source(wire.root, phone, "&ack=resume");
  await until(() => source.welcomes.length === 1);
  const odd = "a\r\nb\0:é鸿🪿\n: no comment\n\ndata: none";
  // As large as the data of a message may be, near enough.
  const long = "鸿雁\0:🪿".repeat(1_500);
  const ids = [await send(phone.user, odd, { odd, long }), await send(phone.user, "second")];
  await until(() => source.got.length === 2);
  check(`${name}: SSE-2: texts are whole and in order`, source.texts()[0] === odd, source.texts());
  const { data } = source.got[0].message;
  check(`${name}: SSE-2: data is whole`, data.odd === odd && data.long === long, data);
  wire.cut();
  ids.push(await send(phone.user, "away"));
  await until(() => source.got.length === 3);
  check(`${name}: SSE-3: it came back with the last id`, source.asked[1] === source.got[1].id, source.asked);
  check(`${name}: SSE-3: and goes on behind it`, source.texts().slice(1).join() === "second,away", source.texts());
  const both = await until(async () => (await delivered(ids[0])) && (await delivered(ids[1])));
  check(`${name}: SSE-3: which acknowledged what it had`, both && !(await delivered(ids[2])));
  source.source.close();
  wire.server.close();
}

async function explicit(name) {
  const wire = await new Wire().open();
  const phone = await newPhone();
  const source = new Source(wire.root, phone, "&ack=explicit");
  await until(() => source.welcomes.length === 1);
  const ids = [await send(phone.user, "0"), await send(phone.user, "1")];
  await until(() => source.got.length === 2);
  await call("POST", "/v1/acks", { ids: [ids[0]] }, phone.token);
  wire.cut();
  await until(() => source.got.length === 3);
  check(`${name}: SSE-3: what was not acknowledged comes again`, source.texts().join() === "0,1,1", source.texts());
  await call("POST", "/v1/acks", { ids }, phone.token);
  check(`${name}: until it is`, await until(() => delivered(ids[1])));
  source.source.close();
  wire.server.close();
  const rest = await left(phone);
  check(`${name}: and a poll has nothing`, rest.length === 0, rest);
}

async function ends(name) {
  const phone = await newPhone();
  const first = new Source(facts.api, phone, "");
  await until(() => first.welcomes.length === 1);
  const second = new Source(facts.api, phone, "");
  await until(() => first.source.readyState === EventSource.CLOSED);
  check(`${name}: SSE-5: one that was replaced gets 204, and stays away`, first.statuses.join() === "200,204", first.statuses);
  check(`${name}: the newer one is there`, second.source.readyState === EventSource.OPEN);
  second.source.close();
  const wrong = new Source(facts.api, { ...phone, token: "wrong" }, "");
  await until(() => wrong.source.readyState === EventSource.CLOSED);
  check(`${name}: SSE-5: an unknown token gets 401, and it asks no more`, wrong.statuses.join() === "401", wrong.statuses);
}

await play([resume, explicit, ends].map((part) => [`eventsource-${part.name}`, part]));
