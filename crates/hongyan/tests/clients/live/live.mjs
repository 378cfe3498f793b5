// What the scripts beside this one share: a demo's addresses, and its API.

import fs from "node:fs";
import process from "node:process";

export const facts = JSON.parse(fs.readFileSync(process.argv[2]));
const LIMIT = 20_000;
let failed = false;

export function check(what, good, seen) {
  failed ||= !good;
  console.log(good ? "ok  " : "FAIL", what, good ? "" : JSON.stringify(seen) ?? "");
}

// Plays parts, each a name, a function and what it is told; then ends the program.
export async function play(parts) {
  for (const [name, part, ...told] of parts) {
    try {
      await part(name, ...told);
    } catch (error) {
      check(name, false, String(error.stack ?? error));
    }
  }
  process.exit(failed ? 1 : 0);
}

export async function call(method, path, body, key = facts.server_key) {
  const answer = await fetch(facts.api + path, {
    method,
    headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
    body: body && JSON.stringify(body),
  });
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${await answer.text()}`);
  const text = await answer.text();
  return text ? JSON.parse(text) : undefined;
}

// A device with its user.
export async function newPhone() {
  const user = `live-${crypto.randomUUID().slice(0, 8)}`;
  const told = await call("POST", "/v1/devices", { platform: "desktop" }, facts.client_key);
  await call("POST", `/v1/devices/${told.device_id}/login`, { user });
  return { user, id: told.device_id, token: told.device_token };
}

// Texts that the device has not acknowledged.
export async function left(phone) {
  const page = await call("GET", "/v1/poll?wait=0", undefined, phone.token);
  return page.messages.map((message) => message.notification.body);
}

export async function send(user, body, data) {
  const message = { to: { user }, class: "im", notification: { title: "t", body }, data };
  return (await call("POST", "/v1/messages", message)).id;
}

// Whether the ledger has seen the acknowledgement.
export async function delivered(message) {
  const trace = await call("GET", `/v1/messages/${message}/trace`);
  return trace.events.some((event) => event.stage === "delivered");
}

// Whether a condition comes true in time.
export async function until(condition) {
  const end = Date.now() + LIMIT;
  while (!(await condition())) {
    if (Date.now() > end) return false;
    await new Promise((go) => setTimeout(go, 10));
  }
  return true;
}
