// xmpp.js against a running demo, over WebSocket (RFC 7395): login, an inbox message, ten cuts.
//
// `cargo xtask clients` runs this; by hand:
//
//     npm ci --prefix crates/hongyan/tests/clients/xmpp
//     hongyan demo --data /tmp/demo &
//     node crates/hongyan/tests/clients/xmpp/xmpp_clients.mjs /tmp/demo/demo.json

import fs from "node:fs";
import process from "node:process";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const facts = JSON.parse(fs.readFileSync(process.argv[2]));
// The modules are where this runs, not where it stands.
const modules = createRequire(process.cwd() + "/package.json");
// Node.js before 22 has no WebSocket of its own.
globalThis.WebSocket = modules("ws");
const { client, xml } = await import(pathToFileURL(modules.resolve("@xmpp/client")));

let failed = false;
function check(what, good, seen = "") {
  failed ||= !good;
  console.log(good ? "ok  " : "FAIL", what, seen);
}

async function call(method, path, body, key = facts.server_key) {
  const answer = await fetch(facts.api + path, {
    method,
    headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
    body: body && JSON.stringify(body),
  });
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${await answer.text()}`);
  const text = await answer.text();
  return text ? JSON.parse(text) : undefined;
}

async function until(condition) {
  for (let n = 0; n < 1000 && !condition(); n++) await new Promise((go) => setTimeout(go, 20));
  return condition();
}

const user = `js-${Date.now()}`;
const { device_id, device_token } = await call("POST", "/v1/devices", { platform: "web" }, facts.client_key);
await call("POST", `/v1/devices/${device_id}/login`, { user });
const { domain } = await call("POST", `/v1/devices/${device_id}/xmpp`, undefined, device_token);
const send = (body) =>
  call("POST", "/v1/messages", { to: { user }, class: "im", notification: { title: "t", body } });

function connect(password) {
  const entity = client({
    service: facts.api.replace(/^http/, "ws") + "/xmpp",
    domain,
    resource: "browser",
    username: user,
    password,
  });
  entity.on("error", () => {});
  entity.seen = [];
  entity.resumed = 0;
  entity.on("stanza", (stanza) => {
    if (stanza.is("message") && stanza.getChild("body")) {
      entity.seen.push([stanza.attrs.id, stanza.getChildText("body").split("\n").at(-1)]);
    }
  });
  entity.on("online", () => entity.send(xml("presence")));
  entity.streamManagement.on("resumed", () => {
    entity.resumed += 1;
    entity.back = true;
    entity.send(xml("presence"));
  });
  entity.on("online", () => (entity.back = true));
  entity.reconnect.delay = 50;
  return entity;
}

const wrong = connect("wrong");
wrong.reconnect.stop();
const refused = await wrong.start().then(
  () => "online",
  (error) => error.condition,
);
check("XM-1: xmpp.js login with a wrong password", refused === "not-authorized", refused);
await wrong.stop().catch(() => {});

const entity = connect(device_token);
await send("while away");
await entity.start();
check("XM-1: xmpp.js login over WebSocket", entity.status === "online", entity.jid?.toString());
const bodies = () => entity.seen.map(([, body]) => body);
check("stored message", await until(() => bodies().includes("while away")), bodies());
const version = await entity.iqCaller.request(
  xml("iq", { type: "get", to: domain }, xml("query", "jabber:iq:version")),
);
check("version", version.getChild("query").getChildText("name") === "hongyan");

const want = [];
for (let n = 0; n < 10; n++) {
  for (const part of ["before", "after"]) {
    if (part === "after") {
      entity.back = false;
      // As when the network goes: no close frame is waited for.
      entity.socket.socket.close();
    }
    for (let m = 0; m < 3; m++) {
      want.push(`${n}-${part}-${m}`);
      await send(want.at(-1));
    }
  }
  await until(() => entity.back);
}
await until(() => want.every((body) => bodies().includes(body)));
const missing = want.filter((body) => !bodies().includes(body));
check("XM-18: ten cuts: nothing lost", missing.length === 0, missing);
check("XM-18: ten cuts: resumed", entity.resumed >= 9, entity.resumed);
await entity.stop();
process.exit(failed ? 1 : 0);
