// Parallel coordinates on a plain canvas: brush, move and hide axes, choose the colour, see a trial's settings.
// data is what plots/parallel.py page_json makes; theme is "light" or "dark". Returns {repaint(theme)}.
// Dispatches "brushed" on `place`; detail.trials: ids of the selected trials, worst first, null when nothing is brushed.
// Three layers: all lines in grey, drawn once a layout and seen while brushed; the selected lines; and what changes
// under the pointer. So a brush redraws only what it selects. Names come from data: they are only ever set as text.
function parallelCoordinates(place, data, theme) {
  "use strict";
  const HEAD = 66, HEIGHT = 330, ALL = HEAD + HEIGHT + 14, SIDE = 66, NARROWEST = 92; // pixels
  const { lanes, trials } = data, count = trials.length, metric = lanes.length - 1;
  const brushes = new Map(); // lane -> [low, high] in its own unit
  let order = lanes.map((_, k) => k), drawn = order; // the lanes shown; the same from left to right, now
  let drag = null; // { k, x } while an axis is moved
  let selected = trials.map((_, i) => i), hover = -1, colours = [], width = 0, gap = 0, pixels = 1;

  const down = (lane, at) => HEAD + (lane.high - at) / (lane.high - lane.bottom) * HEIGHT;
  const ys = lanes.map((lane) => (lane.crossings ?? lane.positions).map((at) => down(lane, at)));
  const x = (k) => drag?.k === k ? drag.x : SIDE + gap * order.indexOf(k);
  const stops = lanes.map((lane) => lane.exact ? lane.labels.map(([at]) => at)
    : Array.from({ length: 21 }, (_, n) => lane.bottom + n / 20 * (lane.high - lane.bottom)));

  // ---------------------------------------------------------------- parts
  const make = (tag, name, parent, text = "") => {
    const element = document.createElement(tag);
    element.className = name;
    element.textContent = text;
    if (tag === "button") element.type = "button";
    parent.append(element);
    return element;
  };
  place.replaceChildren();
  place.classList.add("parallel-coordinates");
  const controls = make("div", "controls", place);
  const counted = Object.assign(make("span", "count", controls), { ariaLive: "polite" });
  const clear = make("button", "clear", controls, "clear"), colour = make("span", "colour", controls);
  const choice = make("select", "", make("label", "", colour, "colour")), legend = make("span", "legend", colour);
  lanes.forEach((lane, k) => { make("option", "", choice, lane.title).value = k; });
  choice.value = metric;
  const box = make("div", "sideways", place), stage = make("div", "stage", box);
  stage.style.height = `${ALL}px`;
  const [back, front, over] = ["back", "front", "over"].map((name) => make("canvas", name, stage).getContext("2d"));
  const axes = lanes.map((lane, k) => {
    const head = make("div", "head", stage), title = make("button", "title", head, lane.title);
    title.title = `${lane.title}: drag to move this axis, or use the arrow keys`;
    title.addEventListener("pointerdown", (event) => move(event, k));
    title.addEventListener("keydown", (event) => {
      if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
      event.preventDefault();
      put(k, order.indexOf(k) + (event.key === "ArrowLeft" ? -1 : 1));
      arrange();
      title.focus();
    });
    const hide = make("button", "hide", head, "×");
    Object.assign(hide, { title: "hide this axis", ariaLabel: `hide ${lane.title}`, onclick: () => show(k, false) });
    const strip = make("div", "strip", stage);
    Object.assign(strip, { tabIndex: 0, role: "slider", ariaOrientation: "vertical" });
    strip.ariaLabel = `${lane.title}: arrow keys move what is kept, with Shift its upper end, Escape keeps all`;
    Object.assign(strip.style, { top: `${HEAD - 4}px`, height: `${HEIGHT + 8}px` });
    strip.addEventListener("pointerdown", (event) => brush(event, k));
    strip.addEventListener("keydown", (event) => brushByKey(event, k));
    return { head, title, strip };
  });
  const tip = Object.assign(make("div", "tip", stage), { hidden: true });
  const hidden = make("div", "line hidden-axes", place), best = make("div", "line best-of", place);

  // Follows a pointer from its press on an element to its release; `clicked` where it has not moved.
  function follow(event, element, moving, done) {
    if (event.button) return;
    let moved = false;
    element.setPointerCapture(event.pointerId);
    element.onpointermove = (e) => {
      moved ||= Math.hypot(e.clientX - event.clientX, e.clientY - event.clientY) > 3;
      if (moved) moving(e);
    };
    element.onpointerup = element.onpointercancel = (e) => {
      element.onpointermove = element.onpointerup = element.onpointercancel = null;
      done(!moved && e.type === "pointerup");
    };
  }

  // ---------------------------------------------------------------- brushes
  // Where every value has its own tick a brush takes whole ticks: all that it touches, and the lines around them.
  function snapped(k, a, b) {
    const { exact, bottom, high: top } = lanes[k], at = stops[k];
    let [low, high] = [Math.min(a, b), Math.max(a, b)];
    const room = 0.36 * Math.min(...at.slice(1).map((p, n) => p - at[n]), top - bottom);
    const taken = exact ? at.filter((p) => p + room >= low && p - room <= high) : [];
    if (taken.length) [low, high] = [taken[0] - room, taken.at(-1) + room];
    return [Math.max(low, bottom), Math.min(high, top)];
  }

  // Near an end of the old brush a drag moves that end, inside it all of it, elsewhere it begins a new one.
  function brush(event, k) {
    const { bottom, high: top } = lanes[k], strip = axes[k].strip, old = brushes.get(k), edge = (top - bottom) / 45;
    const under = (e) => {
      const share = (e.clientY - strip.getBoundingClientRect().top - 4) / HEIGHT;
      return top - Math.min(Math.max(share, 0), 1) * (top - bottom);
    };
    const start = under(event), near = old?.findIndex((end) => Math.abs(end - start) < edge) ?? -1;
    const inside = near < 0 && old && start > old[0] && start < old[1];
    follow(event, strip, (e) => {
      const shift = inside ? Math.min(Math.max(under(e) - start, bottom - old[0]), top - old[1]) : 0;
      if (inside) keep(k, snapped(k, old[0] + shift, old[1] + shift));
      else keep(k, snapped(k, near < 0 ? start : old[1 - near], under(e)));
    }, (clicked) => { if (clicked) keep(k, null); });
  }

  // In steps of a tick, or of a twentieth of the axis; the first arrow begins at the end that it leaves.
  function brushByKey(event, k) {
    const step = { ArrowUp: 1, ArrowDown: -1 }[event.key], at = stops[k], last = at.length - 1, old = brushes.get(k);
    if (event.key === "Escape") keep(k, null);
    if (!step) return;
    event.preventDefault();
    const size = lanes[k].exact ? 0 : 5;
    let [from, to] = step > 0 ? [0, size] : [last - size, last];
    if (old) from = at.findIndex((p) => p >= old[0] - 1e-9) + (event.shiftKey ? 0 : step);
    if (old) to = at.findLastIndex((p) => p <= old[1] + 1e-9) + step;
    if (from >= 0 && to <= last && from <= to) keep(k, snapped(k, at[from], at[to]));
  }

  function keep(k, range) {
    if (range ? brushes.set(k, range) : brushes.delete(k)) select();
  }

  function select() {
    const passes = (i) => [...brushes].every(([k, [low, high]]) => {
      const at = lanes[k].positions[i] ?? lanes[k].floor, slack = (lanes[k].high - lanes[k].bottom) / 1e5; // of rounding
      return at >= low - slack && at <= high + slack;
    });
    selected = trials.map((_, i) => i).filter(passes);
    hover = -1;
    tell();
    redraw();
    const ids = brushes.size ? selected.map((i) => trials[i]) : null;
    place.dispatchEvent(new CustomEvent("brushed", { detail: { trials: ids } }));
  }

  function clearAll(event) {
    if (!brushes.size || event.type === "dblclick" && event.target.closest("button")) return;
    brushes.clear();
    select();
  }
  clear.addEventListener("click", clearAll);
  stage.addEventListener("dblclick", clearAll);

  // ---------------------------------------------------------------- axes: order and place
  function put(k, at) {
    order = order.filter((other) => other !== k);
    order.splice(Math.max(at, 0), 0, k);
  }

  function move(event, k) {
    const begin = x(k);
    follow(event, axes[k].title, (e) => {
      const to = begin + e.clientX - event.clientX;
      drag = { k, x: Math.min(Math.max(to, SIDE / 2), width - SIDE / 2) };
      put(k, Math.round((to - SIDE) / gap));
      arrange();
    }, (clicked) => {
      drag = null;
      if (!clicked) arrange();
    });
  }

  function show(k, shown) {
    if (!shown && order.length < 3) return;
    order = order.filter((other) => other !== k);
    if (shown) put(k, order.filter((other) => other < k).length); // its first place, as far as the others kept theirs
    else keep(k, null); // a brush that nobody sees would select in secret
    layout();
  }

  function layout() {
    layout.room = box.clientWidth;
    width = Math.max(layout.room, 2 * SIDE + NARROWEST * (order.length - 1));
    gap = (width - 2 * SIDE) / (order.length - 1 || 1);
    pixels = window.devicePixelRatio;
    stage.style.width = `${width}px`;
    stage.style.setProperty("--print-zoom", Math.min(1, 690 / width)); // A4 within its margins
    for (const { canvas } of [back, front, over]) {
      Object.assign(canvas, { width: width * pixels, height: ALL * pixels });
      Object.assign(canvas.style, { width: `${width}px`, height: `${ALL}px` });
    }
    hidden.hidden = order.length === lanes.length;
    hidden.replaceChildren("hidden:");
    lanes.forEach((lane, k) => {
      if (!order.includes(k)) make("button", "", hidden, `+ ${lane.title}`).addEventListener("click", () => show(k, true));
    });
    arrange();
  }

  function arrange() {
    axes.forEach(({ head, strip }, k) => {
      head.hidden = strip.hidden = !order.includes(k);
      head.style.left = strip.style.left = `${x(k)}px`;
      head.style.width = `${Math.min(gap - 8, 2 * SIDE - 8)}px`;
    });
    if (!drag) for (const k of order) stage.append(axes[k].head, axes[k].strip); // the order of the Tab key
    redraw(true);
  }

  // ---------------------------------------------------------------- colours and words
  const short = (label, most) => label.length > most ? `${label.slice(0, most - 1)}…` : label;
  const grouped = (n) => n.toLocaleString("en-US");
  // Three significant digits, as everywhere in the page.
  function number(v) {
    const size = Math.abs(v);
    if (v && (size < 1e-3 || size >= 1e9)) return v.toExponential(2).replace(/\.?0+e/, "e").replace("e+", "e");
    return Number.isInteger(v) || size >= 1000 ? grouped(Math.round(v)) : String(+v.toPrecision(3));
  }
  const said = (lane, at) => lane.exact && lane.labels.find(([p]) => Math.abs(p - at) <= 1e-6 * Math.abs(at))?.[1]
    || number(lane.kind === "log" ? 10 ** at : at);

  // By the metric from the worst to the best drawn; by another axis from its lowest to its highest, or by category.
  function choose() {
    const lane = lanes[choice.value], names = lane.labels.filter(([at]) => at !== lane.floor);
    const known = lane.positions.filter((at) => at !== null).sort((a, b) => a - b), low = known[0], high = known.at(-1);
    const scale = lane === lanes[metric] && !data.maximise ? data.scales[theme].toReversed() : data.scales[theme];
    const shade = lane.kind === "category" ? (at) => data.categories[at] ?? data.pale
      : (at) => scale[Math.round((scale.length - 1) * (at - low) / (high - low || 1))];
    colours = lane.positions.map((at) => at === null ? data.pale : shade(at));
    legend.replaceChildren();
    const swatch = (ink, label) => { make("span", "swatch", make("span", "", legend, label)).style.background = ink; };
    if (lane.kind === "category") {
      for (const [at, label] of names.slice(0, data.categories.length)) swatch(shade(at), short(label, 22));
      if (names.length > data.categories.length) swatch(data.pale, "others");
    } else if (known.length) {
      legend.append(said(lane, low));
      make("span", "ramp", legend).style.background = `linear-gradient(to right, ${scale.join(",")})`;
      legend.append(said(lane, high));
    }
    if (lane.floor !== null) swatch(data.pale, lane.labels[0][1]);
    swatch(data.accent, "best");
    if (data.bold > 1) legend.append(`bold: best ${data.bold}`);
  }

  function tell() {
    const thinned = data.total > count, some = brushes.size > 0, n = grouped(selected.length);
    const all = grouped(count) + (thinned ? ` drawn, ${grouped(data.total)} in all` : count === 1 ? " trial" : " trials");
    const drawnOf = `${grouped(count)} of ${grouped(data.total)} trials drawn`;
    counted.textContent = some ? `${n} of ${all}` : thinned ? drawnOf : all;
    clear.hidden = !some;
    axes.forEach(({ strip }, k) => {
      const lane = lanes[k], [low, high] = brushes.get(k) ?? [lane.bottom, lane.high];
      Object.assign(strip, { ariaValueMin: lane.bottom, ariaValueMax: lane.high, ariaValueNow: (low + high) / 2 });
      const kept = lane.labels.filter(([at]) => at >= low && at <= high).map(([, label]) => label);
      const words = lane.exact ? kept.join(", ") : `${said(lane, low)} to ${said(lane, high)}`;
      strip.ariaValueText = brushes.has(k) ? words : "all";
    });
    best.replaceChildren(!selected.length ? "no trial passes there" : some ? "best of these:" : "best:");
    for (const i of selected.slice(-5).reverse()) {
      const chip = make("button", "", best, `${trials[i]}: ${data.reached[i]}`);
      for (const type of ["pointerenter", "focus"]) chip.addEventListener(type, () => point(i));
      for (const type of ["pointerleave", "blur"]) chip.addEventListener(type, () => point(-1));
    }
  }

  // ---------------------------------------------------------------- drawing
  // Cubic curves with control points at thirds: x runs evenly, y as 3t² - 2t³ (see `nearest`).
  function line(context, i) {
    context.beginPath();
    drawn.forEach((k, n) => {
      const to = x(k), y = ys[k][i];
      if (!n) return context.moveTo(to, y);
      const from = x(drawn[n - 1]), third = (to - from) / 3;
      context.bezierCurveTo(from + third, ys[drawn[n - 1]][i], to - third, y, to, y);
    });
    context.stroke();
  }
  function wipe(context) {
    context.setTransform(pixels, 0, 0, pixels, 0, 0);
    context.clearRect(0, 0, width, ALL);
  }

  function paintBack() {
    wipe(back);
    Object.assign(back, { strokeStyle: data.themes[theme].muted, globalAlpha: Math.max(0.04, Math.min(0.25, 20 / count)) });
    trials.forEach((_, i) => line(back, i));
  }

  function paintFront() {
    wipe(front);
    const faint = Math.max(0.13, Math.min(0.85, 60 / selected.length)); // of many, what they share shows
    for (const i of selected) {
      const bold = i >= count - data.bold, first = i === count - 1;
      front.globalAlpha = bold ? 1 : faint;
      front.lineWidth = first ? 3.5 : bold ? 1.8 : selected.length < 60 ? 1.4 : 1;
      front.strokeStyle = first ? data.accent : colours[i];
      line(front, i);
    }
  }

  function paintOver() {
    wipe(over);
    const { page, text, muted } = data.themes[theme], first = drawn[0], last = drawn.at(-1);
    const pen = (strokeStyle, lineWidth, globalAlpha) => Object.assign(over, { strokeStyle, lineWidth, globalAlpha });
    if (hover >= 0) {
      pen(page, 7, 0.9);
      line(over, hover);
      pen(hover === count - 1 ? data.accent : text, 3, 1);
      line(over, hover);
    }
    Object.assign(over, { font: `12px ${getComputedStyle(place).fontFamily}`, textBaseline: "middle", lineJoin: "round" });
    for (const k of drawn) {
      const lane = lanes[k], at = x(k), range = brushes.get(k), side = k === last ? 1 : -1;
      pen(muted, 1.2, 1);
      over.strokeRect(at, HEAD, 0, HEIGHT);
      if (range) {
        const rest = [at - 7, down(lane, range[1]), 14, Math.max(down(lane, range[0]) - down(lane, range[1]), 2)];
        pen(data.accent, 1.2, 1);
        over.strokeRect(...rest);
        Object.assign(over, { fillStyle: data.accent, globalAlpha: 0.25 });
        over.fillRect(...rest);
      }
      over.textAlign = side > 0 ? "left" : "right";
      let free = Infinity; // the height above which there is room for the next text
      for (const [position, label] of lane.labels) {
        const y = down(lane, position);
        if (y > free) continue;
        free = y - 14;
        pen(muted, 1.2, 1);
        over.strokeRect(at, y, 4 * side, 0);
        const room = (k === first || k === last ? SIDE : gap) - 14;
        let words = label;
        while (words.length > 1 && over.measureText(words).width > room) words = short(words, Math.min(words.length - 1, 40));
        pen(page, 4, 0.85);
        over.strokeText(words, at + 8 * side, y);
        Object.assign(over, { globalAlpha: 1, fillStyle: position === lane.floor ? muted : text });
        over.fillText(words, at + 8 * side, y);
      }
    }
  }

  const due = { frame: 0, back: true, front: true };
  function redraw(all = false) {
    due.front = true;
    due.back ||= all;
    due.frame ||= requestAnimationFrame(frame);
  }
  function frame() {
    cancelAnimationFrame(due.frame);
    drawn = order.toSorted((a, b) => x(a) - x(b));
    back.canvas.hidden = !brushes.size;
    if (due.back && brushes.size) { paintBack(); due.back = false; }
    if (due.front) paintFront();
    due.frame = due.front = 0;
    paintOver();
  }

  // ---------------------------------------------------------------- the pointer over a line
  // Highlights a trial, -1 for none; with a place for them, its settings too.
  function point(i, px, py) {
    if (hover !== i) { hover = i; due.frame ||= requestAnimationFrame(frame); }
    tip.hidden = i < 0 || px === undefined;
    if (tip.hidden) return;
    tip.replaceChildren();
    make("strong", "", tip, data.names[i]);
    make("div", "", tip, `${data.metric} ${data.reached[i]}, ${data.outcomes[i]}`);
    const list = make("dl", "", tip);
    for (const lane of lanes.slice(0, -1)) {
      if (lane.positions[i] === null) continue;
      make("dt", "", list, lane.title.replace(/ \(log\)$/, ""));
      make("dd", "", list, said(lane, lane.positions[i]));
    }
    const left = box.scrollLeft, wide = tip.offsetWidth, most = left + box.clientWidth - wide; // what of the stage is seen
    tip.style.left = `${Math.max(Math.min(px + 18 <= most ? px + 18 : px - 18 - wide, most), left)}px`;
    tip.style.top = `${Math.max(0, Math.min(py - 20, ALL - tip.offsetHeight))}px`;
  }

  function nearest(px, py) {
    const right = drawn.findIndex((k) => x(k) >= px);
    if (right < 1) return -1;
    const [a, b] = [drawn[right - 1], drawn[right]], t = (px - x(a)) / (x(b) - x(a)), ease = t * t * (3 - 2 * t);
    let found = -1, distance = 9;
    for (const i of selected) {
      const off = Math.abs(ys[a][i] + (ys[b][i] - ys[a][i]) * ease - py);
      if (off <= distance) [distance, found] = [off, i]; // of equals the better
    }
    return found;
  }
  for (const type of ["pointermove", "pointerdown"]) {
    stage.addEventListener(type, (event) => {
      if (drag || event.target !== stage) return point(-1);
      const { left, top } = stage.getBoundingClientRect(), px = event.clientX - left, py = event.clientY - top;
      point(nearest(px, py), px, py);
    });
  }
  stage.addEventListener("pointerleave", () => point(-1));
  choice.addEventListener("change", () => { choose(); redraw(); });
  function repaint(now) {
    theme = now;
    choose();
    redraw(true);
    frame(); // at once: a page is printed right after it is told to repaint
  }
  layout();
  tell();
  repaint(theme);
  new ResizeObserver(() => { if (box.clientWidth && box.clientWidth !== layout.room) layout(); }).observe(box);
  return { repaint };
}
