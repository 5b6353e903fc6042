// Puts the page together and keeps it connected.

import { Boards } from "./boards.js";
import { $, cells, count, duration, el, keyed, rate, say, tag } from "./dom.js";
import { browser } from "./memory.js";
import { Record } from "./record.js";
import { ask, events, isSendable, keep } from "./stream.js";
import { deeds, describe, Timeline } from "./timeline.js";
import { Totals } from "./totals.js";
import { Trying } from "./trying.js";

const LATEST = 12;
const LONGEST_PAUSE_MS = 10_000;
const HIDDEN_MS = 30_000;

const record = new Record();
const openExchange = (row) => record.exchange(row, timeline.now());
const timeline = new Timeline($("timeline"), tellChosen, openExchange);
const totals = new Totals($("totals"));
const boards = new Boards((one) => record.context(one));
const trying = new Trying((id) => openExchange(mine(id)));
globalThis.predawn = { timeline }; // to look at from the console

let isPaused = false;
let serving = null; // which process; another counts its time from another moment
let inFlight = 0;
let latest = [];
let shownCounts = [];
let connection = null;

/** What is known of a try: it may not be among those that are shown, or its end is on its way here. */
function mine(id) {
  const found = [...timeline.rows.values()].find((row) => row.id === id);
  if (!found) return { id, model: $("try-model").value, closed: null };
  return { ...found, closed: found.closed ?? timeline.latest, outcome: found.outcome ?? "ok" };
}

/** Shown as it changes; read out only when it is another, or over. */
function tellChosen(row, isNews) {
  const text = describe(row, timeline.now());
  say($("chosen"), text);
  if (isNews) say($("chosen-told"), text);
}

// -- what the server tells

function meet(process) {
  if (serving !== null && serving !== process) {
    timeline.clear();
    totals.forget();
    latest = [];
    shownCounts = [];
  }
  serving = process;
}

function turn(data) {
  meet(data.process);
  inFlight = data.in_flight;
  shownCounts.push([data.now, data.ended.length, data.ended_count]);
  while (shownCounts.length && shownCounts[0][0] < data.now - 5000) shownCounts.shift();
  if (isPaused) return;
  timeline.turn(data);
  latest.push(...data.ended);
  latest = latest.slice(-200);
  $("empty").hidden = timeline.rows.size > 0;
}

function state(data) {
  meet(data.process);
  if (isPaused) return;
  totals.show(data, inFlight);
  boards.show(data);
  trying.show(data);
  const worker = data.workers > 1 ? `, worker ${data.worker + 1} of ${data.workers}` : "";
  say($("what"), `${data.version}${worker}`);
  showWorkers(data);
  showSampling();
  showLatest();
}

function showWorkers({ worker, workers, first_port: port }) {
  const place = $("workers");
  if (workers < 2 || place.childElementCount) return;
  place.append("Each worker shows its own requests only: ");
  for (let each = 0; each < workers; each += 1) {
    const url = new URL(location.href);
    url.port = String(port + each);
    const link = el("a", { href: url.origin }, `worker ${each + 1}`);
    if (each === worker) link.setAttribute("aria-current", "page");
    place.append(link, " ");
  }
}

function showSampling() {
  const shown = shownCounts.reduce((sum, [, one]) => sum + one, 0);
  const all = shownCounts.reduce((sum, [, , one]) => sum + one, 0);
  const over = Math.max((shownCounts.at(-1)?.[0] ?? 0) - (shownCounts[0]?.[0] ?? 0) + 250, 250) / 1000;
  const parts = [];
  if (all > shown) parts.push(`A sample: ${rate(shown / over)} of ${rate(all / over)} exchanges per second, those that failed or that a plugin acted on first.`);
  if (inFlight > 24) parts.push(`24 of the ${count(inFlight)} on their way.`);
  const crowded = timeline.crowded();
  if (crowded) parts.push(`${count(crowded)} more found no room.`);
  say($("timeline-note"), parts.length ? parts.join(" ") : "Every exchange is shown.");
}

function showLatest() {
  const table = $("latest");
  if (table.matches(":hover") || table.contains(document.activeElement)) return;
  const rows = latest.slice(-LATEST).reverse();
  keyed(table.tBodies[0], rows, (row) => row.key, latestRow, (made, row) => {
    const whole = (row.answered ?? row.closed) - row.start;
    cells(made, [null, row.model, tag(row.outcome.replaceAll("_", " "), row.outcome === "ok" ? "good" : row.outcome === "client_closed" ? "plain" : "bad"), row.first ? duration(row.first - row.start) : "–", duration(whole), count(row.tokens?.[1] ?? 0), deeds(row)]);
  });
}

function latestRow(row) {
  const open = el("button", { type: "button", className: "link" }, row.id);
  open.addEventListener("click", () => openExchange(row));
  const number = () => el("td", { className: "num" });
  return el("tr", {}, el("td", {}, open), el("td"), el("td"), number(), number(), number(), el("td", { className: "wide" }));
}

// -- staying connected

function tell(how, text) {
  $("connection").dataset.state = how;
  say($("connection-text"), text);
}

function warn(text) {
  $("warning").hidden = !text;
  say($("warning"), text);
}

async function watch(signal) {
  const response = await ask("/live/feed", { signal });
  $("key-form").hidden = true;
  warn("");
  tell("live", isPaused ? "paused" : "live");
  for await (const [name, text] of events(response)) {
    const data = JSON.parse(text);
    if (name === "turn") turn(data);
    else if (name === "state") state(data);
  }
}

function askForKey(error) {
  const form = $("key-form");
  const why = "This page asks for the admin key of the server (server.admin_key in its settings).";
  const isWrong = form.dataset.tried === "true";
  say($("key-why"), isWrong ? error.message : why);
  form.hidden = false;
  keep("");
  $("key").focus();
  return new Promise((resolve) => {
    form.onsubmit = (event) => {
      event.preventDefault();
      form.dataset.tried = "true";
      const key = $("key").value.trim();
      $("key").value = "";
      if (!isSendable(key)) return say($("key-why"), "It has signs that no key has.");
      keep(key);
      resolve();
    };
  });
}

async function stay() {
  let pause = 500;
  for (;;) {
    if (document.hidden) await new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
    connection = new AbortController();
    const began = performance.now();
    try {
      await watch(connection.signal);
    } catch (error) {
      if (error.status === 401) {
        tell("lost", "locked");
        await askForKey(error);
        continue;
      }
      if (error.status) warn(error.message);
    }
    timeline.lose();
    if (performance.now() - began > 5000) pause = 500;
    tell("lost", document.hidden ? "resting" : "no connection, trying again");
    await new Promise((resolve) => setTimeout(resolve, pause));
    pause = Math.min(pause * 2, LONGEST_PAUSE_MS);
  }
}

let resting = 0;
document.addEventListener("visibilitychange", () => {
  clearTimeout(resting);
  if (document.hidden) resting = setTimeout(() => connection?.abort(), HIDDEN_MS); // nobody looks: cost nothing
});

// -- controls

$("pause").addEventListener("click", () => {
  isPaused = !isPaused;
  $("pause").setAttribute("aria-pressed", String(isPaused));
  say($("pause"), isPaused ? "Go on" : "Pause");
  if ($("connection").dataset.state === "live") tell("live", isPaused ? "paused" : "live");
  timeline.freeze(isPaused);
});
$("window").addEventListener("change", () => timeline.span(Number($("window").value)));

function paint(scheme) {
  if (scheme === "auto") delete document.documentElement.dataset.scheme;
  else document.documentElement.dataset.scheme = scheme;
  timeline.paint();
}
const scheme = $("scheme");
scheme.value = browser.get("predawn-scheme") || "auto";
scheme.addEventListener("change", () => {
  browser.set("predawn-scheme", scheme.value);
  paint(scheme.value);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => timeline.paint());
paint(scheme.value);
stay();
