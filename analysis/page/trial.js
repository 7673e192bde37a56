// One trial and two side by side: settings, curves, what ended it, what was changed and what that did.
"use strict";

// trialPanels(data), of tables.page_json, returns what trials.js makes its table of: words, elements, panels.
// Every text from the data goes in as text, never as markup; colours are the page's variables.
function trialPanels(data) {
  const { ids, goals, settings, curves } = data;
  const metric = goals[0];

  function make(tag, attributes = {}, ...children) {
    const drawing = ["svg", "line", "polyline", "circle", "text"].includes(tag);
    const element = document.createElementNS(`http://www.w3.org/${drawing ? "2000/svg" : "1999/xhtml"}`, tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value !== null && value !== undefined) element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children);
    return element;
  }

  // ------------------------------------------------------------ words and numbers

  const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 0 }); // made once: each costs 30 us

  // As style.number says it: three significant digits, 0.0027, 3.2e-5, 374,000.
  function number(value, digits = 3) {
    if (value === null || value === undefined) return "–";
    const size = Math.abs(value);
    if (value === 0) return "0";
    if (size < 1e-3 || size >= 1e9) {
      return value.toExponential(digits - 1).replace(/\.?0+e/, "e").replace("e+", "e");
    }
    if (Number.isInteger(value) || size >= 1000) return grouped.format(value);
    return String(Number(value.toPrecision(digits)));
  }

  function duration(seconds) {
    if (seconds === null) return "–";
    if (seconds < 60) return (seconds >= 10 ? seconds.toFixed(0) : seconds.toFixed(1)) + " s";
    const rest = Math.round(seconds), minutes = Math.floor(rest / 60), two = (n) => String(n).padStart(2, "0");
    return minutes < 60 ? `${minutes}m ${two(rest % 60)}s` : `${Math.floor(minutes / 60)}h ${two(minutes % 60)}m`;
  }

  const text = (column, row) => column.texts[column.at[row]] ?? "";
  const words = (name) => name.replaceAll("_", " ");
  const percent = (value) => value.toFixed(1) + "%";
  const amount = (kind, value) => value === null || !kind.percent ? number(value) : percent(value);
  const apart = (kind, value) => kind.percent ? value.toFixed(1) + " points" : number(value);
  const called = (row) => ids[row] + (text(data.label, row) && ` (${text(data.label, row)})`);

  function setting(one, row, digits) {
    const value = one.values[row];
    return one.texts ? one.texts[value] ?? "" : value === null ? "" : number(value, digits);
  }

  // Why a trial cannot be best.
  function beside(row) {
    const repeated = text(data.repeat_of, row), broken = text(data.breaks, row);
    return [repeated && "repeat of " + repeated, broken && "breaks " + broken].filter(Boolean).join(", ");
  }

  function ended(row) {
    const state = text(data.state, row), reason = text(data.reason, row), epochs = data.epochs[row];
    const at = state !== "finished" && epochs ? ` at epoch ${number(epochs)}` : "";
    return words(state) + at + (beside(row) && `, ${beside(row)}`) + (reason && `: ${reason}`);
  }

  // ------------------------------------------------------------ curves

  const points = (series, row) =>
    (series?.values[row] ?? []).map((value, n) => [curves.epochs[row]?.[n] ?? n + 1, value]);

  // The step between round ticks: 1, 2 or 5 times a power of ten, at most about `most` of them.
  function stepOf(low, high, most) {
    const raw = (high - low) / most, ten = 10 ** Math.floor(Math.log10(raw));
    return [1, 2, 5, 10].map((n) => n * ten).find((n) => n >= raw * 0.999);
  }

  function ticks(low, high, step) {
    const first = Math.ceil(low / step - 1e-6), last = Math.floor(high / step + 1e-6);
    return Array.from({ length: last - first + 1 }, (_, n) => Number(((first + n) * step).toPrecision(12)));
  }

  // lines: {label, points, look, dot: the epoch to mark}, drawn in 360 x 200.
  function chart(series, lines) {
    const seen = lines.flatMap((line) => line.points.filter(([, value]) => value !== null));
    if (!seen.length) return make("p", { class: "muted" }, "No learning curve was recorded.");
    const ends = (at) => [Math.min(...seen.map((point) => point[at])), Math.max(...seen.map((point) => point[at]))];
    let [left, right] = ends(0), [low, high] = ends(1);
    if (low === high) [low, high] = [low - (Math.abs(low) / 10 || 1), high + (Math.abs(high) / 10 || 1)];
    if (left === right) [left, right] = [left - 1, right + 1];
    const step = stepOf(low, high, 4);
    low = Math.min(low, Math.floor(low / step + 1e-6) * step);
    high = Math.max(high, Math.ceil(high / step - 1e-6) * step);
    const unit = (v) => number(v) + (series.percent ? "%" : ""), levels = ticks(low, high, step);
    const margin = 14 + 7 * Math.max(...levels.map((v) => unit(v).length));
    const x = (v) => margin + (v - left) / (right - left) * (350 - margin);
    const y = (v) => 164 - (v - low) / (high - low) * 152;
    const svg = make("svg", { viewBox: "0 0 360 200", role: "img", "aria-label": `${series.label} by epoch` });
    for (const v of levels) {
      svg.append(make("line", { class: "rule", x1: margin, x2: 350, y1: y(v), y2: y(v) }));
      svg.append(make("text", { x: margin - 6, y: y(v) + 4, "text-anchor": "end" }, unit(v)));
    }
    for (const v of ticks(left, right, Math.max(1, stepOf(left, right, 6)))) {
      svg.append(make("text", { x: x(v), y: 182, "text-anchor": "middle" }, number(v)));
    }
    svg.append(make("text", { x: 350, y: 198, "text-anchor": "end" }, "epoch"));
    for (const { look, points: all, dot } of lines) {
      const pieces = [[]]; // a missing value leaves a gap; a value alone is a dot
      for (const [epoch, value] of all) value === null ? pieces.push([]) : pieces.at(-1).push([x(epoch), y(value)]);
      for (const piece of pieces) {
        const path = piece.map(([a, b]) => `${a.toFixed(1)},${b.toFixed(1)}`).join(" ");
        if (piece.length > 1) svg.append(make("polyline", { class: look, points: path }));
        else if (piece.length) svg.append(make("circle", { class: look, cx: piece[0][0], cy: piece[0][1], r: 2.5 }));
      }
      const best = all.find(([epoch, value]) => epoch === dot && value !== null);
      if (best) svg.append(make("circle", { class: look, cx: x(best[0]), cy: y(best[1]), r: 4 }));
    }
    const legend = lines.map((line) => make("span", {}, make("svg", { viewBox: "0 0 24 8" },
      make("line", { class: line.look, x1: 0, x2: 24, y1: 4, y2: 4 })), line.label));
    return make("div", {}, make("h4", {}, series.label + (series.percent ? " (%)" : "")),
      ...(lines.length > 1 ? [make("div", { class: "legend" }, ...legend)] : []), svg);
  }

  function thinned(row) {
    const said = [];
    if (curves.stride > 1) {
      said.push(`Of each curve one epoch in ${number(curves.stride)} is drawn, and always the best and the last.`);
    }
    if (curves.series.length > 1 && row >= curves.full) {
      said.push(`Further curves are kept for the best ${number(curves.full)} trials only.`);
    }
    return said.length ? [make("p", { class: "small muted" }, said.join(" "))] : [];
  }

  // ------------------------------------------------------------ one trial

  const list = (title, pairs) => [make("h4", {}, title), make("dl", {}, ...pairs.flatMap(
    ([name, value, path]) => [make("dt", { title: path }, name), make("dd", {}, value)]))];

  // rows: a name, the length of its bar (-1 to 1), and what it says behind it.
  function bars(title, rows) {
    const cells = rows.flatMap(([name, part, said]) => {
      const look = { class: part < 0 ? "down" : null, style: `width:${Math.max(1, 100 * Math.abs(part))}%` };
      return [make("span", { title: name }, name), make("span", {}, make("i", look)), make("span", {}, said)];
    });
    return make("div", {}, make("h4", {}, title), make("div", { class: "bars" }, ...cells));
  }

  function byClass(row) {
    const values = data.classes?.values[row];
    if (!values) return [];
    const told = data.classes.names.map((name, n) => [name, values[n]]).filter(([, v]) => v !== null);
    told.sort((a, b) => b[1] - a[1]);
    const few = told.length > 20 ? [...told.slice(0, 5), ...told.slice(-15)] : told;
    const which = told.length > 20 ? `, the best 5 and the worst 15 of ${told.length}` : "";
    return [bars("accuracy by class" + which, few.map(([name, v]) => [name, v / 1000, percent(v / 10)]))];
  }

  function details(row) {
    const used = settings.map((one) => [one.label, setting(one, row, 4), one.name]).filter(([, value]) => value);
    const about = [...data.sizes.map((one) => [one.label, number(one.values[row])]),
      ["epochs", number(data.epochs[row])], ["time", duration(data.seconds[row])]];
    const line = (series, n) => ({ label: series.label, points: points(series, row), look: n ? "pale" : "main",
      dot: n ? null : data.best_epoch[row] });
    const charts = [0, 1].map((n) => curves.series.filter((one, at) => one.chart === n && (!at || one.values[row])))
      .filter((some) => some.length).map((some) => chart(some[0], some.map(line)));
    const classes = byClass(row);
    return make("div", { class: "panel" }, make("h3", {}, `Trial ${called(row)}`), make("p", {}, ended(row)),
      make("div", { class: "grid" },
        make("div", {}, ...(used.length ? list("settings", used) : []), ...list("size and time", about)),
        ...(classes.length ? [make("div", {}, ...charts), ...classes] : charts)),
      ...thinned(row));
  }

  // ------------------------------------------------------------ trial against trial

  // The best values, whether they differ by more than chance, and the values at the last epoch that both reached.
  function verdict(a, b) {
    const [one, other] = [metric?.values[a] ?? null, metric?.values[b] ?? null];
    if (one === null || other === null) return ["Their best values cannot be compared: one of them has none."];
    const by = other - one, better = by > 0 === metric.highest ? "better" : "worse";
    const change = by ? `${apart(metric, Math.abs(by))} ${better}` : "the same";
    const said = [`${metric.label}: ${amount(metric, one)} → ${amount(metric, other)}, ${change}.`];
    if (data.noise === null) said.push("Whether that is more than noise is not known: nothing was repeated.");
    else {
      const how = Math.abs(by) > data.noise ? "larger than" : "within", most = apart(metric, data.noise);
      said.push(`That is ${how} the noise: two runs of one configuration differ by up to ${most} in 19 of 20 cases.`);
    }
    const reached = (row) => points(curves.series[0], row).filter(([, value]) => value !== null);
    const first = new Map(reached(a)), both = reached(b).filter(([epoch]) => first.has(epoch));
    if (both.length && data.epochs[a] !== data.epochs[b]) {
      const [epoch, value] = both.at(-1);
      said.push(`They were not trained equally long. At epoch ${number(epoch)}, the last that both have: ` +
        `${amount(metric, first.get(epoch))} → ${amount(metric, value)}.`);
    }
    return said;
  }

  function changes(a, b) {
    const changed = settings.filter((one) => one.values[a] !== one.values[b]);
    const rows = changed.map((one) => {
      const both = (digits) => [a, b].map((row) => setting(one, row, digits) || "not used");
      const [old, now] = both(3)[0] === both(3)[1] ? both(5) : both(3);
      const name = make("th", { scope: "row", title: one.name }, one.label);
      return make("tr", {}, name, make("td", {}, old), make("td", {}, now));
    });
    const heads = ["setting", ids[a], ids[b]].map((head) => make("th", { scope: "col" }, head));
    const table = make("table", {}, make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...rows));
    const same = `The same in both: ${number(settings.length - rows.length)} of ${number(settings.length)} settings.`;
    return make("div", {}, make("h4", {}, "what was changed"), ...(rows.length ? [table] : []),
      make("p", { class: "small muted" }, same));
  }

  function moved(a, b) {
    const [old, now] = [data.classes?.values[a], data.classes?.values[b]];
    if (!old || !now) return [];
    const by = data.classes.names.map((name, n) => [name, now[n] - old[n], old[n] !== null && now[n] !== null]);
    const most = by.filter(([, , known]) => known).sort((x, y) => Math.abs(y[1]) - Math.abs(x[1])).slice(0, 8);
    const largest = Math.max(1, ...most.map(([, v]) => Math.abs(v)));
    const sign = (v) => (v > 0 ? "+" : v < 0 ? "−" : "") + (Math.abs(v) / 10).toFixed(1);
    most.sort((x, y) => y[1] - x[1]);
    return [bars("classes that moved most (points)", most.map(([name, v]) => [name, v / largest, sign(v)]))];
  }

  function against(a, b) {
    const lines = [a, b].map((row, n) => ({ label: `trial ${ids[row]}`, points: points(curves.series[0], row),
      look: n ? "main" : "second", dot: data.best_epoch[row] }));
    return [...verdict(a, b).map((said) => make("p", {}, said)),
      make("div", { class: "grid" }, changes(a, b),
        ...(curves.series.length ? [chart(curves.series[0], lines)] : []), ...moved(a, b)),
      ...thinned(0)];
  }

  return { make, number, amount, duration, text, words, called, setting, beside, details, against };
}
