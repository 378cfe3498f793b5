// mqtt.js as a device of a running demo: its inbox and ten cuts, at both levels, over TCP and WebSocket.
//
// `cargo xtask clients` runs this; by hand, in a folder with the modules of package.json:
//
//     hongyan demo --data /tmp/demo &
//     node live_mqtt.mjs /tmp/demo/demo.json

import { createRequire } from "node:module";
import { call, check, delivered, facts, left, newPhone, play, send, until } from "./live.mjs";

// Modules come from the folder that this is run in.
const mqtt = createRequire(`${process.cwd()}/`)("mqtt");
// Over WebSocket all is the same (MQ-15).
const URLS = { tcp: facts.mqtt, ws: `${facts.api.replace("http", "ws")}/mqtt` };

class Client {
  constructor(transport, version, phone, options = {}) {
    this.got = [];
    this.connects = [];
    this.errors = [];
    this.mqtt = mqtt.connect(URLS[transport], {
      protocolVersion: version,
      clientId: phone.id,
      username: phone.user,
      password: phone.token,
      clean: false,
      properties: version === 5 ? { sessionExpiryInterval: 600 } : undefined,
      reconnectPeriod: 50,
      ...options,
    });
    this.mqtt.on("connect", (connack) => this.connects.push(connack.sessionPresent));
    this.mqtt.on("error", (error) => this.errors.push(error));
    this.mqtt.on("message", (topic, payload, packet) => {
      this.got.push({ topic, qos: packet.qos, text: JSON.parse(payload).notification.body });
    });
  }

  texts() {
    return this.got.map((message) => message.text);
  }
}

async function inbox(name, transport, version) {
  const phone = await newPhone();
  await send(phone.user, "before");
  const client = new Client(transport, version, phone);
  const [granted] = await client.mqtt.subscribeAsync("hy/me/inbox/#", { qos: 1 });
  check(`${name}: QoS 1 is granted`, granted.qos === 1, granted);
  const sent = await send(phone.user, "鸿雁 🪿");
  await until(() => client.got.length >= 2);
  check(`${name}: what was stored and what is live`, String(client.texts()) === "before,鸿雁 🪿", client.got);
  const shape = client.got.every((one) => one.topic === "hy/me/inbox" && one.qos === 1);
  check(`${name}: under its name`, shape, client.got);
  check(`${name}: acknowledged`, await until(() => delivered(sent)));
  const topic = `${name}-${crypto.randomUUID().slice(0, 8)}`;
  await client.mqtt.subscribeAsync(`hy/t/${topic}`, { qos: 1 });
  const server = new Client(transport, version, { id: topic, user: "server", token: facts.server_key });
  const payload = JSON.stringify({ class: "im", notification: { title: "t", body: "to all" } });
  await server.mqtt.publishAsync(`hy/t/${topic}`, payload, { qos: 1 });
  await until(() => client.got.length >= 3);
  check(`${name}: a server's publication`, client.got[2]?.topic === `hy/t/${topic}`, client.got[2]);
  await server.mqtt.endAsync();
  await client.mqtt.endAsync();
  check(`${name}: no errors`, client.errors.length + server.errors.length === 0, client.errors.map(String));
}

async function cuts(name, transport, version) {
  const phone = await newPhone();
  const client = new Client(transport, version, phone);
  await client.mqtt.subscribeAsync("hy/me/inbox/#", { qos: 1 });
  const want = [];
  let again = 0;
  for (let n = 0; n < 10; n += 1) {
    const ids = [];
    for (let m = 0; m < 3; m += 1) {
      want.push(`${n}-${m}`);
      ids.push(await send(phone.user, want.at(-1)));
    }
    // What is acknowledged must not come again.
    await until(async () => (await Promise.all(ids.map(delivered))).every(Boolean));
    client.mqtt.stream.destroy();
    want.push(`${n}-away`);
    await send(phone.user, want.at(-1));
    await until(() => client.connects.length === n + 2);
    again += Number(client.connects[n + 1]);
    await until(() => client.texts().includes(want.at(-1)));
  }
  check(`${name}: MQ-17: the session is there after each of ten cuts`, again === 10, client.connects);
  const [got, all] = [new Set(client.texts()), new Set(want)];
  check(`${name}: MQ-17: nothing is lost`, [...all].every((text) => got.has(text)), client.texts());
  const twice = client.texts().filter((text, at, texts) => texts.indexOf(text) !== at);
  const acknowledged = twice.filter((text) => !text.endsWith("away"));
  check(`${name}: MQ-17: nothing that was acknowledged comes again`, acknowledged.length === 0, twice);
  await until(async () => {
    const trace = await call("GET", `/v1/devices/${phone.id}/trace?limit=500`);
    return trace.events.filter((event) => event.stage === "delivered").length >= want.length;
  });
  await client.mqtt.endAsync();
  const rest = await left(phone);
  check(`${name}: MQ-17: nor for a poll`, rest.length === 0, rest);
}

async function refusal(name, transport, version) {
  const phone = await newPhone();
  const client = new Client(transport, version, { ...phone, token: "wrong" }, { reconnectPeriod: 0 });
  await until(() => client.errors.length > 0);
  const code = client.errors[0]?.code;
  check(`${name}: MQ-3: a wrong password`, code === (version === 5 ? 0x86 : 4), code);
  await client.mqtt.endAsync(true);
}

await play(
  ["tcp", "ws"].flatMap((transport) =>
    [4, 5].flatMap((version) =>
      [inbox, cuts, refusal].map((part) => [
        `mqttjs-${version === 4 ? 3 : 5}-${transport}-${part.name}`,
        part,
        transport,
        version,
      ]),
    ),
  ),
);
