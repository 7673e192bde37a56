// Draws each figure in the reader's colours as it comes into sight, and ties the table of trials to the brushed ones.
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

let theme = dark.matches ? "dark" : "light";
const drawn = new Set();

function draw(place) {
  const { data, layout } = structuredClone(figures[place.dataset.figure]);
  layout.template = templates[theme];
  drawn.add(place);
  Plotly.react(place, data, layout, config);
}

// A page of 20 figures would take seconds to draw at once: each keeps its height and is drawn a screen ahead.
const places = [...document.querySelectorAll("[data-figure]")].filter((place) => place.dataset.figure in figures);
const ahead = new IntersectionObserver((seen) => {
  for (const { isIntersecting, target } of seen) {
    if (isIntersecting) { ahead.unobserve(target); draw(target); }
  }
}, { rootMargin: "800px 0px" });
for (const place of places) {
  place.style.minHeight = (figures[place.dataset.figure].layout.height || 400) + "px";
  ahead.observe(place);
}

const lines = read("parallel-data"), where = document.getElementById("parallel-place");
const parallel = lines && where ? parallelCoordinates(where, lines, theme) : null;
const table = document.getElementById("trials-place") ? trialsTable(document.getElementById("trials-place"), read("trials-data")) : null;
if (parallel && table) where.addEventListener("brushed", (event) => table.only(event.detail.trials));

function paint(wanted) {
  theme = wanted;
  drawn.forEach(draw);
  if (parallel) parallel.repaint(theme);
}
const repaint = () => paint(dark.matches ? "dark" : "light");
dark.addEventListener("change", repaint);
// On paper nothing can be unfolded or scrolled to, and ink on white is read best.
let folded = [];
window.addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("#more details:not([open])")];
  for (const part of folded) part.open = true;
  for (const place of places) { ahead.unobserve(place); drawn.add(place); }
  paint("light");
});
window.addEventListener("afterprint", () => {
  for (const part of folded) part.open = false;
  repaint();
});
