// Ties the parallel coordinates to the table of trials: what is brushed is what it shows; needs figures.js before it.
"use strict";
const lines = read("parallel-data"), where = document.getElementById("parallel-place");
const parallel = lines && where ? parallelCoordinates(where, lines, theme) : null;
const table = document.getElementById("trials-place") ? trialsTable(document.getElementById("trials-place"), read("trials-data")) : null;
if (parallel) painters.push((theme) => parallel.repaint(theme));
if (parallel && table) where.addEventListener("brushed", (event) => table.only(event.detail.trials));
