// A prompt, asked twice at the same time: with plugins and without.

import { $, count, duration, el, say } from "./dom.js";
import { asClient, ask, clientKey, events, isSendable, keepClientKey } from "./stream.js";

export class Trying {
  constructor(onRecord) {
    this.onRecord = onRecord;
    this.stops = null;
    $("try").addEventListener("submit", (event) => {
      event.preventDefault();
      this.run();
    });
    $("try-stop").addEventListener("click", () => this.stops?.abort());
    $("try-prompt").addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("try").requestSubmit();
    });
    $("try-key").value = clientKey();
    $("try-key").addEventListener("input", () => $("try-key").setCustomValidity(isSendable($("try-key").value) ? "" : "No key has such signs."));
  }

  show(state) {
    const named = state.models.filter((name) => name !== "*");
    const list = $("models");
    if ([...list.children].map((one) => one.value).join("\n") !== named.join("\n")) {
      list.replaceChildren(...named.map((name) => el("option", { value: name })));
    }
    const field = $("try-model");
    if (!field.value && document.activeElement !== field) field.value = named[0] ?? "";
    field.placeholder = state.models.includes("*") ? "any name" : "";
    $("try-key-label").hidden = !state.keys;
  }

  async run() {
    if (this.stops) return;
    this.stops = new AbortController();
    $("try-go").disabled = true;
    $("try-stop").disabled = false;
    say($("try-told"), "Asking.");
    keepClientKey($("try-key").value.trim());
    const body = JSON.stringify({
      model: $("try-model").value,
      messages: [{ role: "user", content: $("try-prompt").value }],
      max_tokens: Number($("try-tokens").value),
      stream: true,
      stream_options: { include_usage: true },
    });
    const sides = ["on", "off"].map((plugins) => new Side($(`answer-${plugins}`), this.onRecord).run(plugins, body, this.stops.signal));
    try {
      const told = await Promise.all(sides);
      say($("try-told"), told.join(" "));
    } finally {
      this.stops = null;
      $("try-go").disabled = false;
      $("try-stop").disabled = true;
    }
  }
}

class Side {
  constructor(place, onRecord) {
    this.place = place;
    this.onRecord = onRecord;
    this.facts = place.querySelector(".facts");
    this.text = place.querySelector(".text");
    this.node = null;
    this.kind = "";
  }

  async run(plugins, body, signal) {
    this.place.setAttribute("aria-busy", "true");
    this.facts.replaceChildren();
    this.text.replaceChildren();
    this.began = performance.now();
    this.first = null;
    this.usage = null;
    this.id = "";
    let outcome = "answered";
    try {
      const response = await ask(`/live/try?plugins=${plugins}`, {
        method: "POST",
        body,
        signal,
        headers: { "Content-Type": "application/json", ...asClient() },
      });
      this.id = response.headers.get("x-request-id") ?? "";
      for await (const [, data] of events(response)) {
        if (data !== "[DONE]") this.take(JSON.parse(data));
      }
    } catch (error) {
      outcome = error.name === "AbortError" ? "stopped" : "failed";
      this.say("error", outcome === "stopped" ? "\n(stopped)" : `\n${error.message}`);
    }
    this.took = performance.now() - this.began;
    this.tell();
    this.place.setAttribute("aria-busy", "false");
    return `Plugins ${plugins}: ${outcome} after ${duration(this.took)}.`;
  }

  take(piece) {
    if (piece.error) this.say("error", `\n${piece.error.message ?? "The answer was cut off."}`);
    if (piece.usage) this.usage = piece.usage;
    for (const choice of piece.choices ?? []) {
      const delta = choice.delta ?? {};
      this.say("thought", delta.reasoning_content ?? delta.reasoning ?? "");
      this.say("", delta.content ?? "");
    }
  }

  say(kind, text) {
    if (!text) return;
    if (this.first === null && kind !== "error") this.first = performance.now() - this.began;
    if (this.node === null || this.kind !== kind) {
      this.node = document.createTextNode("");
      this.kind = kind;
      this.text.append(kind ? el("span", { className: kind }, this.node) : this.node);
    }
    const atEnd = this.text.scrollHeight - this.text.scrollTop - this.text.clientHeight < 40;
    this.node.appendData(text);
    if (atEnd) this.text.scrollTop = this.text.scrollHeight;
  }

  tell() {
    const pairs = [
      ["first token", this.first === null ? "–" : duration(this.first)],
      ["total", duration(this.took)],
    ];
    const { usage } = this;
    if (usage) {
      pairs.push(["prompt", `${count(usage.prompt_tokens ?? 0)} tokens`], ["answer", `${count(usage.completion_tokens ?? 0)} tokens`]);
      const thought = usage.completion_tokens_details?.reasoning_tokens;
      if (thought) pairs.push(["thinking", `${count(thought)} tokens`]);
    }
    this.facts.replaceChildren(...pairs.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
    if (!this.id) return;
    const open = el("button", { type: "button", className: "link" }, "record");
    open.setAttribute("aria-label", `Record of the answer with ${this.place.id === "answer-on" ? "plugins on" : "plugins off"}`);
    open.addEventListener("click", () => this.onRecord(this.id));
    this.facts.append(open);
  }
}
