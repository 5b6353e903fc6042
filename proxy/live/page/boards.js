// Contexts with their sleep, upstreams, plugins, and whatever else a plugin shows rows of.

import { $, cells, count, el, keyed, say, tag } from "./dom.js";

const STATES = { asleep: "good", failed: "bad", sleeping: "dawn", checking: "dawn", queued: "busy" };

export class Boards {
  constructor(onContext) {
    this.onContext = onContext;
    this.contexts = table($("contexts"), ["context", "state", "progress", "tokens", "uses", "waits for"], [3, 4]);
    this.upstreams = table($("upstreams"), ["upstream", "kind", "in flight", "state"], [2]);
    this.others = new Map();
  }

  show(state) {
    const { contexts, night, ...others } = state.boards;
    this.showContexts(contexts);
    this.showNight(night?.[0]);
    keyed(this.upstreams.tBodies[0], state.upstreams, (one) => one.name, () => el("tr"), (row, one) => {
      const isWell = ["closed", "ready"].includes(one.state);
      const word = one.state === "closed" ? "well" : one.state;
      cells(row, [one.name, one.kind, count(one.in_flight), tag(word, isWell ? "good" : one.state === "open" ? "bad" : "dawn")]);
      row.cells[2].className = "num";
    });
    say($("plugins"), state.plugins.length ? `Plugins, in their order: ${state.plugins.join(", ")}.` : "No plugin is active: Predawn is a pipe.");
    for (const [name, rows] of Object.entries(others)) this.showOther(name, rows);
    for (const [name, shown] of this.others) {
      if (!(name in others)) {
        shown.closest("section").remove();
        this.others.delete(name);
      }
    }
  }

  showContexts(rows) {
    const place = this.contexts.tBodies[0];
    const note = rows === undefined ? "Nothing sleeps: the plugin sleep is not active." : rows === null ? "Contexts cannot be read now." : rows.length ? "" : "No contexts yet.";
    let told = $("contexts").querySelector("p");
    if (!told) $("contexts").append((told = el("p", { className: "quiet" })));
    say(told, note);
    this.contexts.hidden = Boolean(note);
    keyed(place, rows ?? [], (one) => `${one.tenant}\n${one.id}`, (one) => this.contextRow(one), (row, one) => {
      const isBusy = one.stage && one.max_passes && !["asleep", "failed", "skipped", "new"].includes(one.state);
      const bar = row.querySelector("progress");
      bar.hidden = !one.max_passes;
      bar.max = Math.max(one.max_passes, 1);
      bar.value = one.state === "asleep" ? bar.max : Math.min(one.pass_no, bar.max);
      say(row.querySelector(".stage-text"), isBusy ? `${one.stage}, pass ${one.pass_no} of ${one.max_passes}` : one.spent ? `${count(one.spent)} tokens spent` : "");
      cells(row, [null, tag(one.state, STATES[one.state] ?? "plain"), null, count(one.tokens), count(one.uses), one.waits ?? ""]);
    });
  }

  contextRow(one) {
    const open = el("button", { type: "button", className: "link", title: `Tenant ${one.tenant}, ${one.source}` }, one.id);
    open.addEventListener("click", () => this.onContext(one));
    const bar = el("progress", { max: 1, value: 0 });
    bar.setAttribute("aria-label", `How far sleep on ${one.id} has come`);
    return el(
      "tr",
      {},
      el("td", {}, open),
      el("td"),
      el("td", {}, bar, " ", el("span", { className: "stage-text quiet" })),
      el("td", { className: "num" }),
      el("td", { className: "num" }),
      el("td"),
    );
  }

  showNight(night) {
    if (!night) return say($("night"), "");
    say($("night"), `${count(night.active)} at work, ${count(night.candidates)} waiting, ${count(night.deferred)} put off. Upstreams for sleep: ${night.gates || "none"}.`);
  }

  showOther(name, rows) {
    let shown = this.others.get(name);
    if (!shown) {
      const place = el("div", { className: "scroll", tabIndex: 0, role: "region" });
      place.setAttribute("aria-label", name);
      shown = el("table", {}, el("thead"), el("tbody"));
      place.append(shown);
      $("boards").append(el("section", {}, el("h3", {}, name), place));
      this.others.set(name, shown);
    }
    const columns = Object.keys(rows?.[0] ?? {});
    shown.tHead.replaceChildren(el("tr", {}, ...columns.map((column) => el("th", { scope: "col" }, column))));
    shown.tBodies[0].replaceChildren(...(rows ?? []).map((row) => el("tr", {}, ...columns.map((column) => el("td", {}, String(row[column] ?? ""))))));
  }
}

function table(place, titles, numbers) {
  const heads = titles.map((title, at) => el("th", { scope: "col", className: numbers.includes(at) ? "num" : "" }, title));
  const made = el("table", {}, el("thead", {}, el("tr", {}, ...heads)), el("tbody"));
  place.append(made);
  return made;
}
