// Draws the courses of a comparison in the reader's colours, light when printed.
"use strict";
const read = (id) => JSON.parse(document.getElementById(id).textContent);
const figures = read("figures"), templates = read("templates");
const dark = window.matchMedia("(prefers-color-scheme: dark)");
function paint(theme) {
  for (const [name, figure] of Object.entries(figures)) {
    const { data, layout } = structuredClone(figure);
    layout.template = templates[theme];
    Plotly.react(document.getElementById("plot-" + name), data, layout, { responsive: true, displayModeBar: false });
  }
}
const repaint = () => paint(dark.matches ? "dark" : "light");
repaint();
dark.addEventListener("change", repaint);
window.addEventListener("beforeprint", () => paint("light"));
window.addEventListener("afterprint", repaint);
