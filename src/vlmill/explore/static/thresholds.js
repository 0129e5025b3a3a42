// View 3: bounds with a slider: counts and samples on both sides at once, then the change to copy.
import { openDetail } from "./detail.js";
import { ask, askIndexed, formatChange, formatNumber, formatShare, formatValue, make, makeCopied, makeLatest, makeSelect, makeSource, makeSvg, makeTable, pause, run } from "./dom.js";
import { drawSampleLine, nameDimension } from "./samples.js";
import { askSetting } from "./what_if.js";

const WIDTH = 800, HEIGHT = 170;
const SMALL = 20_000, RESTING = 900;  // samples up to which duplicates are resolved anew unasked, once a slider rests so many ms

export async function showThresholds(view, query, current) {
  const bounds = await askIndexed("/api/bounds", view, current);
  if (!bounds) return null;
  view.replaceChildren();
  const main = make("div", { className: "results" }), list = make("div", { className: "panel list" });
  const state = { slider: null };
  const choose = (bound) => {
    state.slider?.end();
    for (const button of list.querySelectorAll("button")) button.ariaPressed = String(button.dataset.key === bound.key);
    history.replaceState(null, "", `#thresholds?${new URLSearchParams({ key: bound.key })}`);
    state.slider = new Slider(main, bound);
    state.slider.begin();
  };
  let filter = "";
  for (const bound of [...bounds].sort((one, other) => bounds.findIndex((each) => each.filter === one.filter) - bounds.findIndex((each) => each.filter === other.filter))) {
    if (bound.filter !== filter) list.append(make("h3", {}, (filter = bound.filter)));
    const button = make("button", { type: "button", ariaPressed: "false" }, make("span", {}, nameBound(bound)), make("span", { className: "soft" }, describeNow(bound)));
    Object.assign(button.dataset, { key: bound.key, item: bound.key });
    button.addEventListener("click", () => choose(bound));
    list.append(button);
  }
  const any = make("button", { type: "button", ariaPressed: "false", textContent: "any setting" });
  Object.assign(any.dataset, { key: "", item: "any" });
  const chooseAny = () => {
    state.slider?.end();
    for (const button of list.querySelectorAll("button")) button.ariaPressed = String(button === any);
    history.replaceState(null, "", "#thresholds?key=");
    askSetting(main);
  };
  any.addEventListener("click", chooseAny);
  list.append(make("h3", {}, "others"), any);
  view.append(make("div", { className: "samples" }, list, main));
  const asked = query.get("key"), first = bounds.find((bound) => bound.key === asked) ?? bounds[0];
  if (first && asked !== "") choose(first); else chooseAny();
  return () => state.slider?.end();
}

const nameBound = (bound) => `${bound.side === "min" ? "least" : "largest"} ${nameDimension(bound.dimension)}`;
function describeNow(bound) {
  const values = [...new Set(Object.values(bound.now))];
  return values.length ? (values.length === 1 ? formatValue(values[0]) : `${formatValue(Math.min(...values))} to ${formatValue(Math.max(...values))}`) : "off";
}

class Slider {
  constructor(main, bound) {
    Object.assign(this, { main, bound, source: "", sliding: makeLatest(), gone: false });
  }

  end() { this.gone = true; }

  async begin() {
    const { bound, main } = this;
    main.replaceChildren(make("section", {}, make("h2", {}, nameBound(bound)), make("p", { className: "soft" }, "preparing ...")));
    try {
      this.histogram = await ask("/api/values", { dimension: bound.dimension, source: bound.sources });
      for (;;) {
        const told = await ask("/api/prepare", { key: bound.key });
        if (this.gone) return;
        if (told.error) throw new Error(told.error);
        if (told.ready) break;
        main.querySelector("p").textContent = told.of ? `preparing: ${told.done} of ${told.of} partitions, once for this bound` : "preparing: verdicts of the other filters";
        await pause(250);
      }
    } catch (error) {
      if (!this.gone) main.querySelector("p").textContent = error.message;
      return;
    }
    this.build();
    const now = Object.values(bound.now);
    this.move(now.length ? now[0] : this.unscale(0.5));
  }

  // -- places on the axis: bins are evenly wide, whatever their edges

  scale(value) {
    const { edges } = this.histogram, bins = edges.length - 1;
    if (value <= edges[0]) return 0;
    if (value >= edges[bins]) return 1;
    const bin = edges.findLastIndex((edge) => edge <= value);
    return (bin + (value - edges[bin]) / (edges[bin + 1] - edges[bin])) / bins;
  }

  unscale(share) {
    const { edges } = this.histogram, bins = edges.length - 1, place = Math.min(bins - 1e-9, Math.max(0, share * bins)), bin = Math.floor(place);
    return this.round(edges[bin] + (place - bin) * (edges[bin + 1] - edges[bin]));
  }

  round(value) { return this.bound.whole_numbers ? Math.round(value) : Number(value.toPrecision(4)); }

  build() {
    const { bound } = this;
    this.number = make("input", { type: "number", step: "any", ariaLabel: "bound" });
    this.number.addEventListener("change", () => { if (this.number.value !== "") this.move(Number(this.number.value)); });
    this.range = make("input", { type: "range", min: 0, max: 1000, className: "slide", ariaLabel: nameBound(bound) });
    this.range.addEventListener("input", () => this.move(this.unscale(this.range.value / 1000)));
    this.levels = make("div", { className: "tiles" });
    this.exact = make("div", { className: "line" });
    this.bySource = make("div", {});
    this.lost = make("div", { className: "grid small-grid" });
    this.kept = make("div", { className: "grid small-grid" });
    this.change = make("div", {});
    const sources = makeSelect("source", [["", bound.sources.length > 1 ? "all that are asked" : "the source asked"], ...bound.sources.map((name) => [name, name])], "", async (name) => { this.source = name; this.histogram = await ask("/api/values", { dimension: bound.dimension, source: name ? [name] : bound.sources }); this.drawPlot(); this.move(this.value); });
    this.plot = make("div", { className: "plot" });
    this.main.replaceChildren(
      make("section", {}, make("div", { className: "line" }, make("h2", {}, nameBound(bound)), make("span", { className: "grow" }), sources, this.number),
        make("p", { className: "soft" }, `Drops ${bound.drops}; stands at ${describeNow(bound)}. A value on the bound is kept.`), this.plot, this.range, this.levels, this.exact),
      make("section", {}, make("div", { className: "two" }, make("div", {}, make("h3", {}, "Just lost"), this.lost), make("div", {}, make("h3", {}, "Just kept"), this.kept))),
      make("section", {}, this.change), make("section", {}, this.bySource));
    this.drawPlot();
  }

  drawPlot() {
    const { kept, lost, edges } = this.histogram, bins = edges.length - 1, most = Math.max(1, ...kept.map((count, bin) => count + lost[bin]));
    const bars = kept.flatMap((count, bin) => {
      const high = (count / most) * (HEIGHT - 6), above = (lost[bin] / most) * (HEIGHT - 6), x = (bin * WIDTH) / bins + 0.5, width = WIDTH / bins - 1;
      return [makeSvg("rect", { class: "bar-kept", x, width, y: HEIGHT - high, height: high }), makeSvg("rect", { class: "bar-lost", x, width, y: HEIGHT - high - above, height: above })];
    });
    const nows = [...new Set(Object.values(this.bound.now))].map((value) => makeSvg("line", { class: "now", x1: this.scale(value) * WIDTH, x2: this.scale(value) * WIDTH, y1: 0, y2: HEIGHT }));
    this.shade = makeSvg("rect", { class: "shade", y: 0, height: HEIGHT });
    this.line = makeSvg("line", { class: "bound", y1: 0, y2: HEIGHT });
    const svg = makeSvg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", class: "threshold" }, ...bars, this.shade, ...nows, this.line);
    const drag = (event) => { const box = svg.getBoundingClientRect(); this.move(this.unscale((event.clientX - box.left) / box.width)); };
    svg.addEventListener("pointerdown", (event) => { svg.setPointerCapture(event.pointerId); drag(event); });
    svg.addEventListener("pointermove", (event) => { if (event.buttons) drag(event); });
    this.plot.replaceChildren(svg, make("div", { className: "ends soft" }, make("span", {}, formatValue(edges[0])),
      make("span", { className: "legend" }, make("span", { className: "key-kept" }, "values in samples that are kept"), make("span", { className: "key-lost" }, "in others")), make("span", {}, formatValue(edges[bins]))));
  }

  async move(value) {
    this.value = value;
    const place = this.scale(value), x = place * WIDTH;
    this.number.value = value;
    this.range.value = Math.round(place * 1000);
    this.line.setAttribute("x1", x);
    this.line.setAttribute("x2", x);
    this.shade.setAttribute("x", this.bound.side === "min" ? 0 : x);
    this.shade.setAttribute("width", Math.max(0, this.bound.side === "min" ? x : WIDTH - x));
    const started = performance.now();
    try {
      const found = await this.sliding("/api/slide", { key: this.bound.key, value, source: this.source });
      if (this.gone) return;
      document.documentElement.dataset.slid = (performance.now() - started).toFixed(1);
      this.draw(found);
    } catch (error) {
      if (error.name !== "AbortError") this.exact.replaceChildren(make("span", { className: "note" }, error.message));
    }
  }

  draw(found) {
    const { samples, nodes, images } = found.levels;
    const tile = (name, line, more) => make("div", { className: "tile" }, make("span", { className: "soft" }, `${name} kept`), make("b", {}, formatNumber(line.then)),
      make("span", { className: "soft small" }, `${formatChange(line.then - line.now)} from ${formatNumber(line.now)}; ${formatShare(line.then, line.came)} of ${formatNumber(line.came)}${more}`));
    this.levels.replaceChildren(tile("samples", samples, samples.newly_dropped || samples.newly_kept ? `; ${formatNumber(samples.newly_dropped)} newly dropped, ${formatNumber(samples.newly_kept)} newly kept` : ""), tile("nodes", nodes, ""), tile("images", images, ""));
    this.drawExact(found);
    for (const side of ["lost", "kept"]) {
      const lines = found[side], numbers = lines.map((line) => line.number);
      this[side].replaceChildren(...(lines.length ? lines.map((line) => drawSampleLine(line, () => openDetail(numbers, line.number), formatValue(line.value))) : [make("p", { className: "soft" }, "nothing lies there")]));
    }
    const [key, text] = found.setting, folder = run.overview.folder;
    const quote = (word) => (/^[\w./=-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);
    this.change.replaceChildren(make("h2", {}, "The change"), found.diff ? makeCopied("in the recipe", found.diff, "diff") : make("p", { className: "soft" }, "The recipe says so already."),
      makeCopied("as a question", `vlmill what-if ${quote(folder)} --set ${quote(`${key}=${text}`)}`),
      makeCopied("as a build (RECIPE is the recipe's file)", `vlmill build RECIPE --out ${quote(folder)} --accept-changes --set ${quote(`${key}=${text}`)}`));
    this.bySource.replaceChildren(make("h2", {}, "By source"), makeTable(["source", "samples in", "kept now", "kept then", "newly dropped", "newly kept"],
      Object.entries(found.sources).map(([name, line]) => [makeSource(name), ...[line.came, line.now, line.then, line.newly_dropped, line.newly_kept].map(formatNumber)])));
  }

  drawExact(found) {
    if (!found.resolved) { this.exact.replaceChildren(make("span", { className: "soft" }, "This is what a build would keep.")); return; }
    const button = make("button", { type: "button", textContent: "resolve duplicates anew" }), [key, text] = found.setting, at = this.value;
    const said = make("span", { className: "soft" }, "Duplicates as they were resolved: with other samples left, another of several may be kept.");
    button.addEventListener("click", async () => {
      button.disabled = true;
      said.textContent = "resolving ...";
      try {
        const answer = await ask("/api/what-if", { set: `${key}=${text}` });
        if (this.gone || this.value !== at) return;
        const lines = Object.entries(answer.totals).map(([level, line]) => `${formatNumber(line.then)} ${level} (${formatChange(line.then - line.now)})`);
        said.textContent = `A build would keep ${lines.join(", ")}.${answer.notes.length ? ` ${answer.notes.join("; ")}.` : ""}`;
        button.remove();
      } catch (error) { said.textContent = error.message; button.disabled = false; }
    });
    this.exact.replaceChildren(said, button);
    if (run.index <= SMALL) setTimeout(() => { if (!this.gone && this.value === at && button.isConnected && !button.disabled) button.click(); }, RESTING);
  }
}
