// The table of all trials: sorted, filtered, a page at a time; a row opens its trial, two ticked rows are compared.
"use strict";

// trialsTable(place, data) fills the element `place` from tables.page_json; it needs trial.js before it.
// Returns {only(ids)}, which shows these trials alone, or all of them with null.
function trialsTable(place, data) {
  const panels = trialPanels(data);
  const { make, number, amount, duration, text, words, called, setting, beside } = panels;
  const { ids, goals, settings } = data;
  const count = ids.length, metric = goals[0];
  const state = (name) => [make("span", { class: "dot " + name }), words(name)];

  // ------------------------------------------------------------ columns

  const known = (metric?.values ?? []).filter((v) => v !== null).sort((a, b) => metric.highest ? a - b : b - a);
  const worst = known[Math.floor(known.length / 20)], top = known.at(-1);
  const share = (value) => worst === top ? 1 : Math.min(1, Math.max(0, (value - worst) / (top - worst)));
  const narrow = window.matchMedia("(max-width: 600px)").matches;
  const rank = (row) => row < data.ranked ? row + 1 : null;
  const best = (row) => [data.best_epoch[row], data.full_epochs[row]].filter((epoch) => epoch !== null);

  function outcome(row) {
    const why = beside(row);
    return [...state(text(data.state, row)), ...(why ? [make("span", { class: "muted" }, ", " + why)] : [])];
  }

  // With a bar from the worst twentieth of all trials to the best value.
  function measured(row) {
    const value = metric.values[row];
    if (value === null) return [amount(metric, value)];
    const bar = make("i", { style: `width:${Math.round(100 * share(value))}%` });
    return [amount(metric, value), make("span", { class: "line" }, bar)];
  }

  // value: what a column is sorted by, null where unknown. text: what it says. cell: how, where that is not all.
  const columns = [
    { label: "rank", number: true, value: rank, text: (row) => number(rank(row)) },
    { label: "trial", trial: true, value: (row) => data.start[row], text: called },
    { label: "outcome", value: (row) => words(text(data.state, row)), text: beside, cell: outcome },
    ...goals.map((goal, n) => ({
      label: goal.label, number: true, highest: goal.highest, hidden: narrow && n > 0, cell: n ? null : measured,
      title: n ? null : "the bar: from the worst twentieth of all trials to the best",
      value: (row) => goal.values[row], text: (row) => amount(goal, goal.values[row]),
    })),
    { label: "best epoch", number: true, hidden: narrow, value: (row) => data.best_epoch[row],
      text: (row) => data.best_epoch[row] === null ? "–" : best(row).map((epoch) => number(epoch)).join(" of ") },
    { label: "ahead of", number: true, highest: true, hidden: narrow, value: (row) => data.standing[row],
      title: "of all other trials, each compared at the last epoch that both reached",
      text: (row) => data.standing[row] === null ? "–" : Math.round(data.standing[row]) + "%" },
    ...settings.map((one) => ({
      label: one.label, title: one.name, number: !one.texts, hidden: narrow || !one.varies,
      value: (row) => one.texts ? one.texts[one.values[row]] ?? null : one.values[row],
      text: (row) => setting(one, row),
    })),
    { label: "time", number: true, hidden: narrow, value: (row) => data.seconds[row],
      text: (row) => duration(data.seconds[row]) },
  ];

  // ------------------------------------------------------------ what is shown

  const picked = [], opened = new Set(), states = new Set();
  let kept = null, shown = [], page = 0, size = data.size ?? 25, sorted = columns[0], down = false, typed = [], haystack = null;
  const collator = new Intl.Collator("en", { numeric: true });

  // Where the free text is looked for: every cell with its heading, and what ended the trial.
  const hay = (row) => (haystack ??= ids.map((_, n) => [...columns.map((column) => `${column.label} ${column.text(n)}`),
    words(text(data.state, n)), text(data.reason, n)].join("\n").toLowerCase()))[row];

  function choose() {
    const all = ids.map((_, row) => row).filter((row) => (!kept || kept.has(row)) &&
      (!states.size || states.has(text(data.state, row))) && typed.every((part) => hay(row).includes(part)));
    const keys = new Map(all.map((row) => [row, sorted.value(row)]));
    shown = all.sort((a, b) => {
      const one = keys.get(a), other = keys.get(b);
      if (one === null || other === null) return (one === null) - (other === null) || a - b; // unknown ones are last
      return (down ? -1 : 1) * (typeof one === "number" ? one - other : collator.compare(one, other)) || a - b;
    });
    page = 0;
    draw();
  }

  function sort(column) {
    down = sorted === column ? !down : column.highest === true; // of a metric to be maximised the best come first
    sorted = column;
    choose();
  }

  function draw() {
    const visible = columns.filter((column) => !column.hidden), first = page * size;
    const rows = shown.slice(first, first + size);
    heads.forEach((head, n) => {
      head.hidden = columns[n].hidden === true;
      if (columns[n] === sorted) head.setAttribute("aria-sort", down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    body.replaceChildren(...rows.flatMap((row) => [drawRow(row, visible),
      ...(opened.has(row) ? [drawDetails(row, visible)] : [])]));
    total.textContent = `${number(shown.length)} of ${number(count)}` + (kept ? `, ${number(kept.size)} brushed` : "") +
      (picked.length === 1 ? "; tick another to compare" : "");
    range.textContent = !rows.length ? "No trial is like that."
      : `${number(first + 1)}–${number(first + rows.length)} of ${number(shown.length)}`;
    before.disabled = page === 0;
    after.disabled = first + rows.length >= shown.length;
  }

  function drawRow(row, visible) {
    const open = String(opened.has(row));
    const pick = make("input", { type: "checkbox", "data-row": row, "aria-label": `compare trial ${called(row)}`,
      onchange: () => tick(row, pick.checked) });
    pick.checked = picked.includes(row);
    const name = make("button", { type: "button", "aria-expanded": open, title: called(row) }, called(row));
    const cells = visible.map((column) => {
      if (column.trial) return make("td", { class: "trial" }, name);
      const said = column.text(row), kind = column.number ? "number" : "text";
      const look = { class: column.cell === measured ? "goal number" : kind, title: column.number ? null : said || null };
      return make("td", look, ...(column.cell?.(row) ?? [said]));
    });
    const line = make("tr", { class: `row ${text(data.state, row)}` }, make("td", { class: "pick" }, pick), ...cells);
    line.classList.toggle("best", row === 0 && data.ranked > 0);
    line.classList.toggle("open", opened.has(row));
    line.addEventListener("click", (event) => {
      if (event.target.closest(".pick") || String(getSelection())) return; // who marks text does not open the row
      if (opened.delete(row)) line.nextSibling.remove();
      else {
        opened.add(row);
        line.after(drawDetails(row, visible));
      }
      line.classList.toggle("open", opened.has(row));
      name.setAttribute("aria-expanded", String(opened.has(row)));
    });
    return line;
  }

  const drawDetails = (row, visible) =>
    make("tr", { class: "details" }, make("td", { colspan: visible.length + 1 }, panels.details(row)));

  // ------------------------------------------------------------ two of them

  function tick(row, on) {
    if (on) picked.push(row);
    else picked.splice(picked.indexOf(row), 1);
    if (picked.length > 2) picked.shift(); // a third takes the place of the first
    drawPair();
    draw();
    body.querySelector(`.pick input[data-row="${row}"]`)?.focus();
    if (on && picked.length === 2) {
      const still = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
      pair.scrollIntoView({ block: "nearest", behavior: still ? "auto" : "smooth" });
    }
  }

  function drawPair() {
    pair.hidden = picked.length < 2;
    if (pair.hidden) return pair.replaceChildren();
    const [a, b] = picked;
    pair.replaceChildren(
      make("div", { class: "controls" }, make("h3", {}, `Trial ${called(a)} → trial ${called(b)}`),
        button("swap", () => { picked.reverse(); drawPair(); }),
        button("close", () => { picked.length = 0; drawPair(); draw(); })),
      ...panels.against(a, b));
  }

  // ------------------------------------------------------------ the page around it

  const button = (label, onclick) => make("button", { type: "button", class: "plain", onclick }, label);
  const search = make("input", { type: "search", placeholder: "filter", "aria-label": "filter trials", oninput: () => {
    typed = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    choose();
  } });
  const chips = data.state.texts.map((name, n) => {
    const chip = make("button", { type: "button", class: "chip", "aria-pressed": "false", onclick: () => {
      if (!states.delete(name)) states.add(name);
      chip.setAttribute("aria-pressed", String(states.has(name)));
      choose();
    } }, ...state(name), " " + number(data.state.at.filter((at) => at === n).length));
    return chip;
  });
  const boxes = columns.slice(3).map((column) => {
    const box = make("input", { type: "checkbox", onchange: () => { column.hidden = !box.checked; draw(); } });
    box.checked = !column.hidden;
    return make("label", {}, box, " " + column.label);
  });
  const menu = make("details", { class: "columns" }, make("summary", { class: "plain" }, "columns"),
    make("div", {}, ...boxes));
  const heads = columns.map((column) => make("th",
    { scope: "col", class: column.trial ? "trial" : column.number ? "number" : null, title: column.title },
    make("button", { type: "button", onclick: () => sort(column) }, column.label)));
  const total = make("span", { class: "count", "aria-live": "polite" }), range = make("span", { class: "muted" });
  const body = make("tbody"), pair = make("div", { class: "panel against", hidden: true });
  const before = button("‹ before", () => { page -= 1; draw(); });
  const after = button("next ›", () => { page += 1; draw(); });
  const sizes = make("select", { onchange: () => { size = Number(sizes.value); page = 0; draw(); } },
    ...[...new Set([size, 25, 100])].map((n) => make("option", {}, String(n))));
  const crowded = columns.length > 10 || columns.some((column) => column.hidden);
  place.classList.add("trials");
  place.replaceChildren(
    make("div", { class: "controls" }, search, ...(chips.length > 1 ? chips : []), ...(crowded ? [menu] : []), total),
    make("div", { class: "scroll" }, make("table", {}, make("thead", {}, make("tr", {},
      make("th", { class: "pick", scope: "col", title: "tick two trials to compare them" }, "⇄"), ...heads)), body)),
    make("div", { class: "pages" },
      ...(count > size ? [before, range, after, make("label", {}, sizes, " a page")] : [range])),
    pair);
  choose();

  return {
    only(trials) {
      const wanted = trials && new Set(trials);
      kept = wanted && new Set(ids.map((_, row) => row).filter((row) => wanted.has(ids[row])));
      choose();
    },
  };
}
