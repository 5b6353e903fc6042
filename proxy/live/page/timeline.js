// The timeline: one canvas, whatever the traffic. Each exchange is a bar; time flows to the left.

import { duration } from "./dom.js";
import { Lanes, tall, UNIT } from "./lanes.js";

const NAMES = ["before", "waiting", "during", "sample", "alongside", "after", "failed", "mark", "grid", "chosen", "quiet", "card", "on-bar", "line"];
const AXIS = 24;
const TOP = 8; // above the first bar: its checks and triangles
const BAR = 9;
const MOST_KEPT = 4000;

const still = matchMedia("(prefers-reduced-motion: reduce)");

/** Until when something happened to it: of one that is answered, something may still be found out. */
function endOf(row, now) {
  return row.closed ?? now;
}

export class Timeline {
  constructor(canvas, onChosen, onOpen) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.onChosen = onChosen;
    this.onOpen = onOpen;
    this.rows = new Map();
    this.lanes = new Lanes();
    this.seconds = 30;
    this.offset = null; // performance.now() less the server's clock
    this.latest = 0;
    this.frozenAt = null;
    this.frames = 0;
    this.chosen = null;
    this.dirty = true;
    this.colours = {};
    new ResizeObserver(() => this.fit()).observe(canvas);
    this.fit();
    this.paint();
    canvas.addEventListener("pointermove", (event) => this.point(event));
    canvas.addEventListener("pointerleave", () => document.activeElement === canvas || this.choose(null));
    canvas.addEventListener("click", (event) => this.point(event) && this.onOpen(this.chosen));
    canvas.addEventListener("keydown", (event) => this.press(event));
    const frame = () => {
      if (!still.matches) this.draw();
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  }

  /** Read the colours of the scheme in force. */
  paint() {
    const probe = document.createElement("span");
    document.body.append(probe);
    for (const name of NAMES) {
      probe.style.color = `var(--${name})`;
      this.colours[name] = getComputedStyle(probe).color;
    }
    probe.remove();
    this.dirty = true;
  }

  fit() {
    const { width, height } = this.canvas.getBoundingClientRect();
    const scale = Math.min(devicePixelRatio || 1, 2);
    this.width = width;
    this.height = height;
    this.canvas.width = Math.round(width * scale);
    this.canvas.height = Math.round(height * scale);
    this.context.setTransform(scale, 0, 0, scale, 0, 0);
    this.lanes.resize(Math.floor((height - AXIS) / UNIT));
    this.place();
  }

  span(seconds) {
    this.seconds = seconds;
    this.dirty = true;
  }

  now() {
    if (this.frozenAt !== null) return this.frozenAt;
    return this.offset === null ? this.latest : performance.now() - this.offset;
  }

  freeze(isFrozen) {
    this.frozenAt = isFrozen ? this.now() : null;
    this.dirty = true;
  }

  /** Take in what the server tells of the last quarter of a second. */
  turn({ now, running, ended }) {
    const seen = performance.now() - now;
    this.offset = this.offset === null || Math.abs(seen - this.offset) > 1000 ? seen : this.offset + (seen - this.offset) * 0.1;
    this.latest = now;
    const here = new Set();
    for (const row of [...running, ...ended]) {
      this.put(row);
      here.add(row.key);
    }
    for (const [key, row] of this.rows) {
      if (row.closed === undefined && !here.has(key)) this.put({ ...row, closed: now, outcome: "unknown" });
    }
    this.prune(now);
    this.dirty = true;
    if (still.matches) this.draw();
  }

  /** Nothing more is heard of those on their way. */
  lose() {
    for (const row of [...this.rows.values()]) {
      if (row.closed === undefined) this.put({ ...row, closed: this.latest, outcome: "unknown" });
    }
    this.offset = null;
  }

  /** The server began anew: its clock did, too. */
  clear() {
    this.rows.clear();
    this.lanes.clear();
    this.choose(null);
  }

  put(row) {
    const { key } = row;
    const old = this.rows.get(key);
    row.units = tall(row);
    row.lane = old?.lane ?? -1;
    const end = row.closed ?? Infinity;
    if (old?.isCrowded && row.closed === undefined) row.isCrowded = true; // it would jump in late
    else if (old && old.lane >= 0 && old.units === row.units) this.lanes.hold(row.lane, end, row.units);
    else {
      if (old && old.lane >= 0) this.lanes.hold(old.lane, row.start, old.units);
      this.settle(row);
    }
    this.rows.set(key, row);
    if (this.chosen?.key === key) this.choose(row);
  }

  /** Find a place for a bar, if there is one. */
  settle(row) {
    row.lane = this.lanes.take(row.start - (row.notes || row.slept ? 200 : 0), row.closed ?? Infinity, row.units);
    row.isCrowded = row.lane < 0;
  }

  /** Every bar's place anew, after the canvas has changed its height. */
  place() {
    this.lanes.clear();
    for (const row of [...this.rows.values()].sort((a, b) => a.start - b.start)) this.settle(row);
    this.dirty = true;
  }

  prune(now) {
    const oldest = now - 130_000;
    for (const [key, row] of this.rows) {
      if (this.rows.size > MOST_KEPT || endOf(row, now) < oldest) this.rows.delete(key);
      else if (row.closed !== undefined) break; // they stand in the order in which they came
    }
  }

  /** How many of those in sight found no room. */
  crowded() {
    const from = this.now() - this.seconds * 1000;
    let count = 0;
    for (const row of this.rows.values()) count += row.isCrowded && (row.closed ?? Infinity) > from;
    return count;
  }

  // -- choosing

  visible() {
    const now = this.now();
    const from = now - this.seconds * 1000;
    return [...this.rows.values()].filter((row) => row.lane >= 0 && endOf(row, now) > from).sort((a, b) => a.start - b.start);
  }

  choose(row) {
    const isNews = row?.key !== this.chosen?.key || row?.closed !== undefined;
    this.chosen = row;
    this.dirty = true;
    this.onChosen(row, isNews);
    if (still.matches) this.draw();
  }

  point(event) {
    const box = this.canvas.getBoundingClientRect();
    const unit = Math.floor((event.clientY - box.top - TOP / 2) / UNIT);
    const at = this.at(event.clientX - box.left);
    const slack = (4 * this.seconds * 1000) / this.width;
    const now = this.now();
    const found = this.visible().find(
      (row) => unit >= row.lane && unit < row.lane + row.units && at >= row.start - slack && at <= endOf(row, now) + slack,
    );
    if (found !== this.chosen) this.choose(found ?? null);
    return Boolean(found);
  }

  press(event) {
    const rows = this.visible();
    const place = rows.findIndex((row) => row.key === this.chosen?.key);
    const moves = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 };
    if (event.key in moves && rows.length) {
      const next = place < 0 ? rows.length - 1 : Math.min(Math.max(place + moves[event.key], 0), rows.length - 1);
      this.choose(rows[next]);
    } else if (event.key === "Home" && rows.length) this.choose(rows[0]);
    else if (event.key === "End" && rows.length) this.choose(rows.at(-1));
    else if (event.key === "Enter" && this.chosen) this.onOpen(this.chosen);
    else if (event.key === "Escape" && this.chosen) this.choose(null);
    else return;
    event.preventDefault();
  }

  // -- drawing

  x(time) {
    return this.width - ((this.drawnAt - time) / (this.seconds * 1000)) * this.width;
  }

  at(x) {
    return this.now() - ((this.width - x) / this.width) * this.seconds * 1000;
  }

  draw() {
    if (document.hidden || (!this.dirty && (!this.rows.size || this.frozenAt !== null))) return;
    this.dirty = false;
    this.frames += 1;
    this.drawnAt = this.now();
    const { context, width, height } = this;
    context.clearRect(0, 0, width, height);
    this.drawAxis();
    const from = this.drawnAt - this.seconds * 1000;
    for (const row of this.rows.values()) {
      if (row.lane >= 0 && endOf(row, this.drawnAt) >= from) this.drawRow(row);
    }
  }

  drawAxis() {
    const { context, colours, width, height } = this;
    const step = this.seconds <= 10 ? 1 : this.seconds <= 30 ? 5 : 20;
    context.font = "11px system-ui, sans-serif";
    context.textAlign = "center";
    for (let back = 0; back <= this.seconds; back += step) {
      const x = width - (back / this.seconds) * width;
      context.fillStyle = colours.grid;
      context.fillRect(Math.round(x) - (back ? 0 : 1), 0, 1, height - AXIS);
      context.fillStyle = colours.quiet;
      context.textAlign = back === 0 ? "right" : back === this.seconds ? "left" : "center";
      context.fillText(back ? `${back} s ago` : "now", x, height - 5);
    }
  }

  drawRow(row) {
    const { context, colours } = this;
    const top = row.lane * UNIT + TOP;
    const now = this.drawnAt;
    const answered = row.answered ?? row.closed ?? now;
    const start = this.x(row.start);
    const asked = row.asked ?? answered;
    const written = row.first ?? asked;
    if (row.notes || row.slept) {
      const wide = Math.min(8 + 3 * Math.log2(1 + (row.slept ?? 0)), 30);
      this.bar(start - wide - 1, start - 1, top, BAR, colours.before);
    }
    const waits = row.first === null && row.stream ? answered : written;
    this.bar(start, this.x(waits), top, BAR, colours.waiting);
    if (waits < answered) this.bar(this.x(waits), this.x(answered), top, BAR, colours.during);
    if (row.answered !== null && endOf(row, now) > row.answered) this.drawAfter(this.x(row.answered), this.x(endOf(row, now)), top);
    if (row.checks) this.drawChecks(row, top, answered);
    if (row.calls?.length > 1) this.drawCalls(row, top + BAR + 3);
    const end = this.x(answered);
    if (row.closed !== undefined && !["ok", "unknown"].includes(row.outcome)) this.drawFailure(row, start, end, top);
    if (this.chosen?.key === row.key) {
      context.strokeStyle = colours.chosen;
      context.lineWidth = 2;
      context.strokeRect(start - 3, top - 5, Math.max(end - start, 3) + 6, row.units * UNIT - 1);
    }
    const from = Math.max(this.x(waits), 0);
    if (end - from > 70 && waits < answered) {
      context.fillStyle = colours["on-bar"];
      context.font = "9px system-ui, sans-serif";
      context.textAlign = "left";
      const most = Math.floor((end - from - 8) / 5);
      context.fillText(row.model.length > most ? `${row.model.slice(0, most - 1)}…` : row.model, from + 4, top + BAR - 1.5);
    }
  }

  bar(from, to, top, high, colour) {
    const { context } = this;
    context.fillStyle = colour;
    context.fillRect(from, top, Math.max(to - from, 1.5), high);
  }

  drawAfter(from, to, top) {
    for (let x = from; x < to; x += 4) this.bar(x, Math.min(x + 2, to), top + 2, BAR - 4, this.colours.after);
  }

  /** The verifiers' strip, where the checks were, and triangles where one objected. */
  drawChecks(row, top, answered) {
    const { context, colours } = this;
    this.bar(this.x(row.first ?? row.asked ?? row.start), this.x(answered), top - 3, 2, colours.alongside);
    context.fillStyle = colours.mark;
    for (const at of objections(row)) {
      const x = this.x(at);
      context.beginPath();
      context.moveTo(x - 5, top - 5);
      context.lineTo(x + 5, top - 5);
      context.lineTo(x, top + 3);
      context.fill();
    }
  }

  drawCalls(row, top) {
    const { colours } = this;
    const shades = { verify: colours.alongside, discarded: colours.sample, serve: colours.during };
    row.calls.forEach(([began, ended, purpose, phase, outcome], place) => {
      const to = ended ?? row.closed ?? this.drawnAt;
      const colour = outcome === "pending" && purpose !== "verify" ? colours.sample : shades[phase] ?? colours.sample;
      const y = top + place * 4;
      this.bar(this.x(began), this.x(to), y, 2.5, colour);
      if (outcome !== "ok" && outcome !== "pending") this.bar(this.x(to) - 2, this.x(to), y - 1, 4, colours.failed);
    });
  }

  drawFailure(row, start, end, top) {
    const { context, colours } = this;
    context.strokeStyle = row.outcome === "client_closed" ? colours.quiet : colours.failed;
    context.lineWidth = 1.5;
    context.strokeRect(start - 0.5, top - 0.5, Math.max(end - start, 2) + 1, BAR + 1);
    const x = end + 6;
    const y = top + BAR / 2;
    context.beginPath();
    context.moveTo(x - 3, y - 3);
    context.lineTo(x + 3, y + 3);
    context.moveTo(x + 3, y - 3);
    context.lineTo(x - 3, y + 3);
    context.stroke();
  }
}

/** When verifiers objected: by the decision that followed, which knows its time, or else by the verdicts. */
function objections(row) {
  const decided = (row.decisions ?? []).filter(([, , at, action]) => action && at !== null).map(([, , at]) => at);
  return decided.length ? decided : (row.marks ?? []);
}

/** One exchange in words. */
export function describe(row, now) {
  if (!row) return "";
  const parts = [`${row.id}: ${row.model}`];
  if (row.upstream) parts.push(`by ${row.upstream}`);
  if (row.first) parts.push(`first token after ${duration(row.first - row.start)}`);
  if (row.start !== undefined) parts.push(fate(row, now));
  if (row.calls?.length > 1) parts.push(`${row.calls.length}${row.more_calls ? " or more" : ""} calls`);
  if (row.notes) parts.push(`${row.notes} notes put in`);
  if (row.checks) parts.push(`${row.checks[0]} checks passed, ${row.checks[1]} objected`);
  if (row.effort) parts.push(`effort ${row.effort}`);
  return `${parts.join(", ")}.`;
}

function fate(row, now) {
  const answered = duration((row.answered ?? row.closed) - row.start);
  if (row.outcome === "unknown") return `nothing heard of it after ${answered}`;
  if (row.closed !== undefined) return `${row.outcome.replaceAll("_", " ")} after ${answered}`;
  if (row.answered !== null) return `answered after ${answered}, and something is still found out about it`;
  return `on its way for ${duration(now - row.start)}`;
}

/** What plugins decided, in a few words. */
export function deeds(row) {
  const told = (row.decisions ?? []).map(([by, what, , action]) => `${by}: ${what}${action ? ` (${action})` : ""}`);
  return [...new Set(told)].join(", ");
}
