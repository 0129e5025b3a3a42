// Draws the plots of the page, each where its name says. `ast`: expressions are interpreted, since the page may not
// make code of texts.
const plots = JSON.parse(document.getElementById("plots").textContent);
const shown = [...plots.stages.flatMap((list, stage) => list.map((plot, place) => [`plot-${stage}-${place}`, plot])), ...plots.run.map((plot, place) => [`plot-run-${place}`, plot])];
const plain = { font: "system-ui, DejaVu Sans, sans-serif", axis: { labelColor: "#667085", titleColor: "#667085", gridColor: "#eef0f3", domainColor: "#c8cdd6", tickColor: "#c8cdd6", labelLimit: 200 }, legend: { labelColor: "#1d2330", labelLimit: 160 } };
Promise.all(shown.map(([id, { spec }]) => vegaEmbed("#" + id, spec, { actions: false, ast: true, renderer: "svg", config: plain })))
  .then(() => { document.documentElement.dataset.ready = performance.now().toFixed(0); });
