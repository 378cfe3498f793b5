// mqtt.js against an open MQTT space.
//
// `cargo xtask clients` runs this; by hand, in a folder with the modules of package.json:
//
//     node mqtt_clients.mjs 127.0.0.1:1884

import { createRequire } from "node:module";

// Modules come from the folder that this is run in.
const mqtt = createRequire(`${process.cwd()}/`)("mqtt");

const ADDRESS = process.argv[2];
const LIMIT = 20_000;
let failed = false;

function check(what, good, seen) {
  failed ||= !good;
  console.log(good ? "ok  " : "FAIL", what, good ? "" : JSON.stringify(seen) ?? "");
}

function within(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} took too long`)), LIMIT);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

class Client {
  constructor(transport, version, clientId, options = {}) {
    this.got = [];
    this.waiting = [];
    const url = transport === "ws" ? `ws://${ADDRESS}/mqtt` : `mqtt://${ADDRESS}`;
    this.mqtt = mqtt.connect(url, {
      protocolVersion: version,
      clientId,
      clean: true,
      reconnectPeriod: 50,
      connectTimeout: LIMIT,
      ...options,
    });
    this.connects = [];
    this.mqtt.on("connect", (connack) => {
      this.connects.push(connack.sessionPresent);
      this.waiting.splice(0).forEach((wake) => wake());
    });
    this.mqtt.on("error", (error) => check(`${clientId}: no error`, false, String(error)));
    this.mqtt.on("message", (topic, payload, packet) => {
      this.got.push({ topic, payload: payload.toString(), qos: packet.qos, retain: packet.retain, packet });
      this.waiting.splice(0).forEach((wake) => wake());
    });
  }

  async until(done, what) {
    while (!done()) {
      await within(new Promise((wake) => this.waiting.push(wake)), what);
    }
  }

  // Whether the next connection that was made, or will be, found a session.
  async connected() {
    await this.until(() => this.connects.length > 0, "connecting");
    return this.connects.shift();
  }

  async take(count) {
    await this.until(() => this.got.length >= count, `taking ${count} messages`);
    return this.got.splice(0, count);
  }

  end(force = false) {
    return within(this.mqtt.endAsync(force), "ending");
  }
}

async function levels(name, transport, version) {
  const client = new Client(transport, version, name);
  await client.connected();
  const granted = await client.mqtt.subscribeAsync(`${name}/#`, { qos: 2 });
  check(`${name}: QoS 2 is granted`, granted[0].qos === 2, granted);
  const sent = [];
  for (const qos of [0, 1, 2]) {
    for (let n = 0; n < 10; n += 1) {
      sent.push(`${name}/${qos} ${n} ${qos}`);
      await within(client.mqtt.publishAsync(`${name}/${qos}`, `${n}`, { qos }), "publishing");
    }
  }
  const got = (await client.take(30)).map((m) => `${m.topic} ${m.payload} ${m.qos}`);
  check(`${name}: thirty messages of three levels, once and in order`, String(got) === String(sent), got);
  await client.end();
}

async function retainedAndWill(name, transport, version) {
  const watcher = new Client(transport, version, `${name}-watch`);
  await watcher.connected();
  await watcher.mqtt.publishAsync(`${name}/last`, "kept", { qos: 1, retain: true });
  await watcher.mqtt.subscribeAsync(`${name}/+`, { qos: 1 });
  const [last] = await watcher.take(1);
  check(`${name}: retained`, last.payload === "kept" && last.retain, last);
  const doomed = new Client(transport, version, `${name}-doomed`, {
    will: { topic: `${name}/will`, payload: Buffer.from("gone"), qos: 1, retain: false },
    reconnectPeriod: 0,
  });
  await doomed.connected();
  doomed.mqtt.stream.destroy();
  const [will] = await watcher.take(1);
  check(`${name}: a will`, will.payload === "gone", will);
  await doomed.end(true);
  await watcher.end();
}

async function cuts(name, transport, version) {
  const kept = { clean: false, properties: version === 5 ? { sessionExpiryInterval: 600 } : undefined };
  const reader = new Client(transport, version, `${name}-r`, kept);
  await reader.connected();
  await reader.mqtt.subscribeAsync(`${name}/#`, { qos: 2 });
  const writer = new Client(transport, version, `${name}-w`);
  await writer.connected();
  let present = 0;
  for (let n = 0; n < 100; n += 1) {
    let back;
    if (n % 10 === 5) {
      back = reader.connected();
      reader.mqtt.stream.destroy();
    }
    await within(writer.mqtt.publishAsync(`${name}/x`, `${n}`, { qos: 1 + (n % 2) }), "publishing");
    if (back) {
      present += Number(await back);
    }
  }
  check(`${name}: the session is there after each of ten cuts`, present === 10, present);
  const seen = new Set();
  while (seen.size < 100) {
    seen.add((await reader.take(1))[0].payload);
  }
  check(`${name}: nothing is lost`, seen.size === 100);
  await reader.end();
  await writer.end();
}

async function shares(name, transport, version) {
  const members = [new Client(transport, version, `${name}-1`), new Client(transport, version, `${name}-2`)];
  for (const member of members) {
    await member.connected();
    await member.mqtt.subscribeAsync(`$share/g/${name}`, { qos: 1 });
  }
  const writer = new Client(transport, version, `${name}-w`, {
    properties: version === 5 ? { topicAliasMaximum: 5 } : undefined,
    autoAssignTopicAlias: version === 5,
  });
  await writer.connected();
  for (let n = 0; n < 20; n += 1) {
    await writer.mqtt.publishAsync(name, `${n}`, { qos: 1 });
  }
  await Promise.all(members.map(async (member) => {
    const got = await member.take(10);
    check(`${name}: ten of twenty for each of two`, new Set(got.map((m) => m.payload)).size === 10, got.length);
  }));
  await Promise.all([...members, writer].map((client) => client.end()));
}

for (const transport of ["tcp", "ws"]) {
  for (const version of [4, 5]) {
    for (const suite of [levels, retainedAndWill, cuts, shares]) {
      const name = `mqttjs-${version === 4 ? 3 : 5}-${transport}-${suite.name}`;
      try {
        await suite(name, transport, version);
      } catch (error) {
        check(name, false, String(error));
      }
    }
  }
}
process.exit(failed ? 1 : 0);
