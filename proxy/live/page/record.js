// One exchange, or one context, in full: what its plugin keeps of it.

import { $, count, duration, el, say } from "./dom.js";
import { ask, asClient } from "./stream.js";
import { deeds, describe } from "./timeline.js";

const TRIES = 4;
const PAUSE_MS = 400;

export class Record {
  constructor() {
    this.dialog = $("record");
    this.body = $("record-body");
    this.asked = 0;
    $("record-close").addEventListener("click", () => this.dialog.close());
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && this.dialog.close());
  }

  async exchange(row, now) {
    this.open(`Exchange ${row.id}`, el("p", {}, describe(row, now)), el("p", { className: "quiet" }, deeds(row)));
    if (row.closed === undefined) return this.body.append(el("p", {}, "It is still on its way; its record is written at its end."));
    const isOwn = row.tenant === undefined; // a try: it is found by the key that it was made with
    const whose = isOwn ? "" : `?tenant=${encodeURIComponent(row.tenant)}`;
    const path = `/live/v1/exchanges/${encodeURIComponent(row.id)}${whose}`;
    await this.load(path, (found) => this.showExchange(found), isOwn ? asClient() : {});
  }

  async context(one) {
    this.open(`Context ${one.id}`, el("p", { className: "quiet" }, `Tenant ${one.tenant}, ${one.source}, version ${one.version}.`));
    await this.load(`/live/v1/contexts/${encodeURIComponent(one.id)}?tenant=${encodeURIComponent(one.tenant)}`, (found) => [raw(found, true)]);
  }

  open(title, ...parts) {
    say($("record-title"), title);
    this.body.replaceChildren(...parts);
    if (!this.dialog.open) this.dialog.showModal();
  }

  async load(path, show, headers = {}) {
    const mine = (this.asked += 1);
    const told = el("p", { role: "status" }, "Reading its record …");
    this.body.append(told);
    for (let left = TRIES; left > 0; left -= 1) {
      try {
        const found = await (await ask(path, { headers })).json();
        if (mine === this.asked) {
          told.remove();
          this.body.append(...show(found));
        }
        return;
      } catch (error) {
        if (mine !== this.asked) return;
        if (left > 1 && error.status === 404 && error.code !== "not_kept") {
          await new Promise((resolve) => setTimeout(resolve, PAUSE_MS)); // it is on its way to the store
          continue;
        }
        say(told, error.message);
        return;
      }
    }
  }

  showExchange(found) {
    const { ledger } = found;
    const parts = [
      facts([
        ["status", `${found.status}, ${found.outcome.replaceAll("_", " ")}`],
        ["model", found.upstream_model && found.upstream_model !== found.model ? `${found.model} as ${found.upstream_model}` : found.model],
        ["upstream", found.upstream || "none"],
        ["endpoint", `${found.route}${found.stream ? ", streamed" : ""}`],
        ["tenant", found.tenant ?? ""],
        ["at", new Date(found.arrived_at * 1000).toLocaleString()],
        ["total", duration(found.total_s * 1000)],
        ["first token", ledger.first_token_s === null ? "–" : duration(ledger.first_token_s * 1000)],
        ["plugins", duration(ledger.plugin_s * 1000)],
        ["cost", ledger.spend_usd ? `$${ledger.spend_usd.toFixed(6)}` : "–"],
      ]),
    ];
    if (found.error) parts.push(el("p", { className: "tag bad" }, found.error));
    parts.push(el("h3", {}, "When its tokens were paid"), phases(ledger));
    if (found.calls?.length) parts.push(el("h3", {}, "Calls"), calls(found.calls));
    if (found.decisions?.length) parts.push(el("h3", {}, "Decisions"), decisions(found.decisions));
    if (Object.keys(found.checks ?? {}).length) parts.push(el("h3", {}, "Checks"), checks(found.checks));
    if (found.notes?.length) parts.push(el("h3", {}, "Notes put in"), el("pre", { tabIndex: 0 }, JSON.stringify(found.notes, null, 2)));
    parts.push(raw(found, false));
    return parts;
  }
}

function facts(pairs) {
  return el("dl", { className: "facts" }, ...pairs.filter(([, value]) => value !== "").map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}

function phases(ledger) {
  return rows(
    ["before (asleep)", "prompt", "of it cached", "answer", "of it reasoning", "discarded samples", "checks"],
    [[ledger.slept, ledger.prompt, ledger.cached_prompt, ledger.output, ledger.reasoning, ledger.discarded, ledger.verify].map((one) => count(one ?? 0))],
  );
}

function calls(list) {
  return rows(
    ["began after", "took", "upstream", "model", "purpose", "counts as", "outcome", "prompt", "output"],
    list.map((one) => [duration(one.started_s * 1000), duration(one.seconds * 1000), one.upstream, one.model, one.purpose, one.phase, one.outcome, count(one.prompt_tokens), count(one.output_tokens)]),
  );
}

function decisions(list) {
  return rows(
    ["after", "who", "what", "details"],
    list.map((one) => [one.at_s === null || one.at_s === undefined ? "–" : duration(one.at_s * 1000), one.by, one.what, plain(one.detail)]),
    [3],
  );
}

function checks(said) {
  return rows(["verifier", "pass", "violation", "unsure"], Object.entries(said).map(([name, by]) => [name, ...["pass", "violation", "unsure"].map((word) => count(by[word] ?? 0))]));
}

function plain(detail) {
  return Object.entries(detail ?? {}).map(([name, value]) => `${name} ${typeof value === "object" ? JSON.stringify(value) : value}`).join(", ");
}

function rows(titles, lines, wide = []) {
  const made = el("table", {}, el("thead", {}, el("tr", {}, ...titles.map((title) => el("th", { scope: "col" }, title)))));
  const body = el("tbody", {}, ...lines.map((line) => el("tr", {}, ...line.map((value, at) => el("td", { className: wide.includes(at) ? "wide" : "" }, String(value ?? ""))))));
  made.append(body);
  const place = el("div", { className: "scroll", tabIndex: 0, role: "region" }, made);
  place.setAttribute("aria-label", titles.join(", "));
  return place;
}

function raw(found, isOpen) {
  return el("details", { open: isOpen }, el("summary", {}, "As the API shows it"), el("pre", { tabIndex: 0 }, JSON.stringify(found, null, 2)));
}
