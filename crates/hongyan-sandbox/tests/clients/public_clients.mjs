// Public client libraries of Node.js against a running sandbox, as public_clients.py does for Python. Needs Node 18.
// `cargo xtask clients` runs this; by hand, in a folder with the package.json and package-lock.json from here:
//
//     npm ci
//     hongyan sandbox &
//     node <here>/public_clients.mjs [http://127.0.0.1:7500]
//
// The packages are looked for where Node is started.

import { createRequire } from "node:module";
import https from "node:https";
import process from "node:process";

const require = createRequire(process.cwd() + "/");
const CONTROL = process.argv[2] ?? "http://127.0.0.1:7500";
let good = true;

async function control(method, path, body) {
  const headers = { accept: "application/json", "content-type": "application/json" };
  const answer = await fetch(CONTROL + path, { method, headers, body: body && JSON.stringify(body) });
  return answer.json();
}

async function token(channel, state = "valid") {
  return (await control("POST", `/vendors/${channel}/tokens`, { state })).tokens[0];
}

function check(what, got, want) {
  const same = JSON.stringify(got) === JSON.stringify(want);
  good &&= same;
  console.log(same ? "ok  " : "FAIL", what, JSON.stringify(got));
}

async function webPush(accounts) {
  const push = require("web-push");
  const { private_key: privateKey, public_key: publicKey } = accounts.webpush;
  const options = {
    vapidDetails: { subject: "mailto:push@example.com", privateKey, publicKey },
    agent: new https.Agent({ ca: accounts.ca_pem }),
    TTL: 60,
    urgency: "high",
    topic: "t",
  };
  const send = async (state) => {
    const subscription = JSON.parse(await token("webpush", state));
    const text = JSON.stringify({ notification: { title: "t", body: "b" } });
    try {
      return (await push.sendNotification(subscription, text, options)).statusCode;
    } catch (error) {
      return error.statusCode;
    }
  };
  // The four services take turns, so each is met.
  for (const [state, want] of [["valid", 201], ["dead", 410]]) {
    const got = new Set();
    for (let n = 0; n < 12; n++) got.add(await send(state));
    check(`webpush with web-push, ${state} subscriptions`, [...got], [want]);
  }
}

async function apns(accounts) {
  const apn = require("@parse/node-apn");
  const account = accounts.apns;
  const endpoint = new URL(accounts.endpoint);
  const provider = new apn.Provider({
    token: { key: account.private_key, keyId: account.key_id, teamId: account.team_id },
    address: endpoint.hostname,
    port: Number(endpoint.port),
    manageChannelsAddress: endpoint.hostname,
    manageChannelsPort: Number(endpoint.port),
    ca: accounts.ca_pem,
    production: true,
  });
  const note = new apn.Notification({ alert: { title: "t", body: "b" }, topic: account.bundle_id });
  note.pushType = "alert";
  for (const [state, want] of [["valid", [1, null]], ["dead", [0, "Unregistered"]]]) {
    const answer = await provider.send(note, await token("apns", state));
    const reason = answer.failed[0]?.response?.reason ?? null;
    check(`apns with node-apn, ${state} token`, [answer.sent.length, reason], want);
  }

  const create = new apn.Notification();
  create.rawPayload = { "message-storage-policy": 1, "push-type": "LiveActivity" };
  const created = await provider.manageChannels(create, account.bundle_id, "create");
  const channel = created.sent[0]?.["apns-channel-id"];
  check("apns with node-apn, channel made", typeof channel, "string");
  const live = new apn.Notification();
  live.channelId = channel;
  live.pushType = "liveactivity";
  live.priority = 10;
  live.expiry = Math.floor(Date.now() / 1000) + 60;
  live.rawPayload = {
    aps: { timestamp: Math.floor(Date.now() / 1000), event: "update", "content-state": { gate: "B7" } },
  };
  const told = await provider.broadcast(live, account.bundle_id);
  check("apns with node-apn, broadcast", [told.sent.length, told.failed.length], [1, 0]);
  const list = await provider.manageChannels(new apn.Notification(), account.bundle_id, "readAll");
  check("apns with node-apn, channels listed", list.sent[0]?.channels?.includes(channel), true);
  const gone = new apn.Notification();
  gone.channelId = channel;
  const deleted = await provider.manageChannels(gone, account.bundle_id, "delete");
  check("apns with node-apn, channel deleted", deleted.failed.length, 0);
  await provider.shutdown();
}

// Every name leads to the sandbox, as lines in a hosts file would have it, but without the right to write one. For
// libraries that have no option for an address, and ask the agent that everybody asks.
class Here extends https.Agent {
  constructor(accounts) {
    super({ ca: accounts.ca_pem });
    this.endpoint = new URL(accounts.endpoint);
  }

  createConnection(options, connected) {
    const { hostname, port } = this.endpoint;
    return super.createConnection({ ...options, host: hostname, port, servername: "localhost" }, connected);
  }
}

async function fcm(accounts) {
  const { initializeApp, cert } = require("firebase-admin/app");
  const { getMessaging } = require("firebase-admin/messaging");
  const app = initializeApp({ credential: cert(accounts.fcm.service_account) });
  const send = async (state) => {
    const message = {
      token: await token("fcm", state),
      notification: { title: "t", body: "b" },
      data: { a: "1" },
      android: { priority: "high", ttl: 60_000, notification: { channelId: "c", tag: "t" } },
      apns: { payload: { aps: { badge: 1, mutableContent: true } } },
    };
    try {
      return (await getMessaging(app).send(message)).split("/")[0];
    } catch (error) {
      return error.code;
    }
  };
  for (const [state, want] of [
    ["valid", "projects"],
    ["dead", "messaging/registration-token-not-registered"],
    ["other_app", "messaging/mismatched-credential"],
  ]) {
    check(`fcm with firebase-admin, ${state} token`, await send(state), want);
  }
}

async function jpush(accounts) {
  const JPush = require("jpush-sdk");
  const { app_key: appKey, master_secret: secret } = accounts.jpush;
  const client = (secret) => JPush.buildClient({ appKey, masterSecret: secret, retryTimes: 1 });
  const push = (to, secret) =>
    client(secret)
      .push()
      .setPlatform("ios", "android")
      .setAudience(JPush.registration_id(to))
      .setNotification("hi", JPush.ios("hi", "happy", 5, true, { a: 1 }), JPush.android("hi", "t", 1, { a: 1 }))
      .setMessage("text", "t", "text", { a: 1 })
      .setOptions(null, 60);
  const answer = (send) =>
    new Promise((resolve) => {
      send((error, done) => {
        const said = error && JSON.parse(error.response ?? "{}");
        resolve(error ? said.error?.code ?? error.httpCode : typeof done.msg_id);
      });
    });
  const good = await token("jpush");
  check("jpush with jpush-sdk, valid id", await answer((heard) => push(good, secret).send(heard)), "string");
  const dead = await token("jpush", "dead");
  check("jpush with jpush-sdk, dead id", await answer((heard) => push(dead, secret).send(heard)), 1011);
  const foreign = await token("jpush", "other_app");
  check("jpush with jpush-sdk, foreign id", await answer((heard) => push(foreign, secret).send(heard)), 1003);
  const wrong = "0".repeat(24);
  check("jpush with jpush-sdk, wrong secret", await answer((heard) => push(good, wrong).send(heard)), 1004);
}

const accounts = await control("GET", "/accounts");
await webPush(accounts);
await apns(accounts);
https.globalAgent = new Here(accounts);
await fcm(accounts);
await jpush(accounts);
process.exit(good ? 0 : 1);
