// Server-sent events by `fetch`, which unlike EventSource can carry a key in a header.

import { tab } from "./memory.js";

const OWN = { "x-predawn-live": "1" };
const ADMIN_KEY = "predawn-admin-key";
const CLIENT_KEY = "predawn-client-key";

/** What every request for data carries. */
function headers() {
  const key = tab.get(ADMIN_KEY);
  return key ? { ...OWN, "x-predawn-admin-key": key } : OWN;
}

/** The admin key, for this tab. */
export function keep(key) {
  tab.set(ADMIN_KEY, key);
}

/** The key that tries are made with, for this tab. */
export function clientKey() {
  return tab.get(CLIENT_KEY);
}

export function keepClientKey(key) {
  tab.set(CLIENT_KEY, key);
}

/** What a request in a client's name carries, too. */
export function asClient() {
  const key = clientKey();
  return key ? { Authorization: `Bearer ${key}` } : {};
}

/** True for a key that a header can carry. */
export function isSendable(key) {
  return /^[\x20-\x7e]*$/.test(key);
}

/** An answer that is an error, with the server's own words. */
export class Refused extends Error {
  constructor(status, message, code) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

async function refusal(response) {
  try {
    const { error } = await response.json();
    return new Refused(response.status, error.message, error.code);
  } catch {
    return new Refused(response.status, `The server answered ${response.status}.`, "");
  }
}

export async function ask(path, options = {}) {
  const response = await fetch(path, {
    cache: "no-store",
    ...options,
    headers: { ...headers(), ...options.headers },
  });
  if (!response.ok) throw await refusal(response);
  return response;
}

const LONGEST = 8 << 20;

/** The events of a response: `[name, text]`. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const parts = (rest + value).split(/\r?\n\r?\n/);
      rest = parts.pop();
      if (rest.length > LONGEST) throw new Error("an event is too long");
      for (const part of parts) {
        let name = "";
        const data = [];
        for (const line of part.split(/\r?\n/)) {
          if (line.startsWith("event:")) name = line.slice(6).trim();
          else if (line.startsWith("data:")) data.push(line.slice(line[5] === " " ? 6 : 5));
        }
        if (data.length) yield [name, data.join("\n")];
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
