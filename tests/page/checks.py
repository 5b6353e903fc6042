"""What is looked at in the page by scripts of the tests' own."""

CONTRAST = """
(() => {
  const probe = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (css) => {
    probe.clearRect(0, 0, 1, 1); probe.fillStyle = css; probe.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = probe.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255];
  };
  const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3])).concat(1);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => { v /= 255; return v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; });
    return .2126 * x + .7152 * y + .0722 * z;
  };
  const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + .05) / (y + .05); };
  const ground = (element) => {
    const layers = [];
    for (let one = element; one; one = one.parentElement) layers.push(rgba(getComputedStyle(one).backgroundColor));
    let under = rgba(getComputedStyle(document.documentElement).backgroundColor);
    if (under[3] < 1) under = over(under, [255, 255, 255, 1]);
    for (const layer of layers.reverse()) under = over(layer, under);
    return under;
  };
  const shown = (element) => element.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true })
    && !element.closest(".unseen, .skip");
  const poor = [];
  let looked = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.data.trim() || !shown(element) || element.closest("option, datalist, noscript, script")) continue;
    if (element.closest("button")?.disabled) continue;  // exempt by WCAG
    const style = getComputedStyle(element);
    const size = parseFloat(style.fontSize);
    const isLarge = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const under = ground(element);
    const found = ratio(over(rgba(style.color), under), under);
    looked += 1;
    if (found < (isLarge ? 3 : 4.5)) poor.push(`${node.data.trim().slice(0, 40)}: ${found.toFixed(2)}`);
  }
  for (const element of document.querySelectorAll("input, select, textarea, button:not(.link)")) {
    if (!shown(element) || element.disabled) continue;
    const under = ground(element.parentElement);
    const style = getComputedStyle(element);
    const edge = ratio(over(rgba(style.borderTopColor), under), under);
    const fill = ratio(over(rgba(style.backgroundColor), under), under);
    looked += 1;
    if (Math.max(edge, fill) < 3) poor.push(`edge of ${element.id}: ${edge.toFixed(2)}`);
  }
  const card = ground(document.querySelector("#timeline-card"));
  for (const name of ["before", "waiting", "during", "sample", "alongside", "after", "failed", "mark", "chosen"]) {
    const found = ratio(rgba(predawn.timeline.colours[name]), card);
    looked += 1;
    if (found < 3) poor.push(`${name} in the timeline: ${found.toFixed(2)}`);
  }
  return { looked, poor };
})()
"""

WALK = """
(() => {
  const at = document.activeElement;
  const style = getComputedStyle(at);
  const box = at.getBoundingClientRect();
  return {
    tag: at.tagName, id: at.id,
    ring: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
    inside: box.width > 0 && box.height > 0,
    text: (at.getAttribute("aria-label") || at.textContent || "").trim().slice(0, 40),
  };
})()
"""

FRAMES = """
new Promise((resolve) => {
  const gaps = [];
  const drawn = predawn.timeline.frames;
  let last = performance.now();
  const began = last;
  const frame = (now) => {
    gaps.push(now - last); last = now;
    if (now - began < SECONDS * 1000) requestAnimationFrame(frame);
    else {
      gaps.sort((a, b) => a - b);
      const passed = (now - began) / 1000;
      resolve({ fps: gaps.length / passed, drawn: (predawn.timeline.frames - drawn) / passed,
        gap_p95_ms: gaps[Math.floor(gaps.length * .95)], longest_ms: gaps.at(-1),
        bars: predawn.timeline.rows.size, nodes: document.querySelectorAll("*").length });
    }
  };
  requestAnimationFrame(frame);
})
"""


def frames(seconds: float) -> str:
    return FRAMES.replace("SECONDS", str(seconds))
