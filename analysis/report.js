// Draws the figures in the reader's colours, light when printed, and sorts tables by a click on a heading.
"use strict";
const read = (id) => JSON.parse(document.getElementById(id).textContent);
const figures = read("figures"), templates = read("templates");
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const config = {
  responsive: true, displaylogo: false, plotGlPixelRatio: 1,
  // Only these two: Plotly's own bar offers to send the chart to a server.
  modeBarButtons: [["toImage", "resetScale2d"]], plotlyServerURL: "", showSendToCloud: false,
  // A screen without a pointer would show the bar at all times, over the legend.
  displayModeBar: window.matchMedia("(hover: hover)").matches ? "hover" : false,
};

// Parallel coordinates are drawn with WebGL, which remote desktops often lack: then its image.
if (!document.createElement("canvas").getContext("webgl")) {
  delete figures.parallel;
  document.querySelectorAll("img.fallback").forEach((image) => { image.hidden = false; });
}

function paint(theme) {
  for (const [name, figure] of Object.entries(figures)) {
    const place = document.getElementById("plot-" + name);
    if (!place) continue;
    const { data, layout } = structuredClone(figure);
    layout.template = templates[theme];
    Plotly.react(place, data, layout, config);
  }
}
const repaint = () => paint(dark.matches ? "dark" : "light");
repaint();
dark.addEventListener("change", repaint);
window.addEventListener("beforeprint", () => paint("light"));
window.addEventListener("afterprint", repaint);

for (const table of document.querySelectorAll("table.sortable")) {
  table.querySelectorAll("th").forEach((head, column) => head.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = (row) => row.cells[column].dataset.sort;
    const number = (text) => text === "-inf" ? -Infinity : Number(text);
    const rows = [...table.tBodies[0].rows];
    const numeric = rows.every((row) => key(row) !== "" && !Number.isNaN(number(key(row))));
    rows.sort((a, b) => numeric ? number(key(a)) - number(key(b)) : key(a).localeCompare(key(b)));
    table.tBodies[0].append(...(down ? rows.reverse() : rows));
  }));
}
