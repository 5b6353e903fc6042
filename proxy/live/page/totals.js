// The tiles: rates and percentiles, told from the difference of two states.

import { $, count, duration, el, rate, say } from "./dom.js";

const WINDOW_S = 30;
const TILES = [
  ["requests", "Requests per second"],
  ["first", "First token"],
  ["whole", "Whole answer"],
  ["added", "Added by Predawn"],
  ["tokens", "Tokens per second"],
  ["asleep", "Tokens asleep"],
  ["checks", "Checks"],
  ["samples", "Samples"],
];

/** The upper edge of the bucket in which this share of the observations lies, with a line drawn through it. */
export function quantile(bounds, counts, share) {
  const all = counts.reduce((sum, one) => sum + one, 0);
  if (!all) return null;
  let left = share * all;
  for (let place = 0; place < counts.length; place += 1) {
    if (counts[place] >= left && counts[place] > 0) {
      const low = place ? bounds[place - 1] : 0;
      const high = bounds[place] ?? low;
      return low + ((high - low) * left) / counts[place];
    }
    left -= counts[place];
  }
  return bounds.at(-1);
}

export class Totals {
  constructor(list) {
    this.states = [];
    this.parts = {};
    for (const [name, title] of TILES) {
      const value = el("dd", {}, "–");
      const more = el("dd", { className: "more" });
      list.append(el("div", {}, el("dt", {}, title), value, more));
      this.parts[name] = [value, more];
    }
  }

  forget() {
    this.states = [];
  }

  show({ at, totals }, inFlight) {
    const last = this.states.at(-1);
    if (last && total(last.totals) > total(totals)) this.forget(); // another process
    this.states.push({ at, totals });
    while (this.states.length > 2 && this.states[0].at < at - WINDOW_S) this.states.shift();
    const first = this.states[0];
    const recent = this.states.at(-Math.min(6, this.states.length));
    const passed = Math.max(at - recent.at, 0.5);
    const per = (value, before) => (this.states.length > 1 ? (value - before) / passed : 0);
    const { requests, tokens } = totals;
    const bad = requests.client + requests.server;
    this.tile("requests", rate(per(total(totals), total(recent.totals))), `${count(inFlight)} on their way; ${count(total(totals))} in all, ${count(bad)} failed`);
    this.times("first", first, totals, "first_token");
    this.times("whole", first, totals, "duration");
    this.times("added", first, totals, "overhead");
    this.tile("tokens", rate(per(output(tokens), output(recent.totals.tokens))), `${count(output(tokens))} written, ${count(tokens["discarded.output"] ?? 0)} discarded, ${count(tokens["serve.input"] ?? 0)} read`);
    this.tile("asleep", count((tokens["sleep.input"] ?? 0) + (tokens["sleep.output"] ?? 0)), `used ${count(totals.context_uses)} times, saved ${count(totals.tokens_saved)}`);
    this.tile("checks", count(totals.checks), `${count(totals.interventions)} interventions`);
    this.tile("samples", count(totals.samples), `${count(totals.early_stops)} early stops`);
  }

  times(name, first, totals, histogram) {
    const { bounds, counts } = totals.histograms[histogram];
    const before = first.totals.histograms[histogram].counts;
    const since = counts.map((one, place) => one - (before[place] ?? 0));
    const isRecent = since.some((one) => one > 0);
    const shown = isRecent ? since : counts;
    const at = (share) => {
      const value = quantile(bounds, shown, share);
      return value === null ? "–" : duration(value * 1000);
    };
    this.tile(name, at(0.5), `median; 90 % within ${at(0.9)}${isRecent ? `, last ${WINDOW_S} s` : ""}`);
  }

  tile(name, value, more) {
    const [big, small] = this.parts[name];
    say(big, value);
    say(small, more);
  }
}

function total(totals) {
  return totals.requests.ok + totals.requests.client + totals.requests.server;
}

function output(tokens) {
  return tokens["serve.output"] ?? 0;
}
