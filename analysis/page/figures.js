// Draws each figure of a page in the reader's colours as it comes into sight; all of them, in light, on paper.
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

// What else a page has painted in one of the themes adds itself here.
const painters = [() => drawn.forEach(draw)];
function paint(wanted) {
  theme = wanted;
  for (const painter of painters) painter(theme);
}
const repaint = () => paint(dark.matches ? "dark" : "light");
dark.addEventListener("change", repaint);
// On paper nothing can be unfolded or scrolled to, and ink on white is read best.
let folded = [];
window.addEventListener("beforeprint", () => {
  folded = [...new Set(places.map((place) => place.closest("details:not([open])")))].filter(Boolean);
  for (const part of folded) part.open = true;
  for (const place of places) { ahead.unobserve(place); drawn.add(place); }
  paint("light");
});
window.addEventListener("afterprint", () => {
  for (const part of folded) part.open = false;
  repaint();
});
