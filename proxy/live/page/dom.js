// Building blocks. Whatever comes from the server becomes text nodes, never markup.

export const $ = (id) => document.getElementById(id);

/** An element with properties and children; strings become text. */
export function el(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (key in made) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== undefined && child !== null));
  return made;
}

/** Set a text only where it differs, so that nothing is laid out anew for nothing. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Rows by key, each once: those that stay keep their element, and with it the focus, wherever they move. */
export function keyed(body, items, keyOf, make, update) {
  const there = new Map([...body.children].map((row) => [row.dataset.key, row]));
  const focused = body.contains(document.activeElement) ? document.activeElement : null;
  const shown = new Set();
  let place = body.firstElementChild;
  for (const item of items) {
    const key = String(keyOf(item));
    if (shown.has(key)) continue;
    shown.add(key);
    let row = there.get(key);
    there.delete(key);
    if (!row) {
      row = make(item);
      row.dataset.key = key;
    }
    update(row, item);
    if (row === place) place = place.nextElementSibling;
    else body.insertBefore(row, place);
  }
  for (const row of there.values()) row.remove();
  if (focused?.isConnected && focused !== document.activeElement) focused.focus({ preventScroll: true });
}

/** Cells of a row, as texts or elements. */
export function cells(row, values) {
  values.forEach((value, place) => {
    const cell = row.cells[place] ?? row.insertCell();
    if (typeof value === "string") say(cell, value);
    else if (value && cell.firstElementChild?.dataset.same !== value.dataset.same) cell.replaceChildren(value);
  });
}

export function tag(text, kind) {
  const made = el("span", { className: `tag ${kind}` }, text);
  made.dataset.same = `${kind}:${text}`;
  return made;
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const brief = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });

export function count(value) {
  return Math.abs(value) < 10_000 ? whole.format(value) : brief.format(value);
}

export function rate(value) {
  return value > 0 && value < 9.95 ? value.toFixed(1) : count(value);
}

export function duration(ms) {
  if (ms === null || ms === undefined || !Number.isFinite(ms)) return "–";
  if (ms < 1) return `${ms.toFixed(2)} ms`;
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`;
  return `${Math.floor(ms / 60_000)} min ${Math.round((ms % 60_000) / 1000)} s`;
}
