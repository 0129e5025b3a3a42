// View 2: samples by what they are, with histograms that filter each other.
import { openDetail } from "./detail.js";
import { Histogram } from "./histogram.js";
import { askIndexed, debounce, formatNumber, formatShare, formatValue, make, makeDot, makeLatest, makeOutcome, makePicture, makeSelect, makeSource, reasonColour, run, sourceColour } from "./dom.js";

const PAGE = 36, REASONS = 9;
const FIRST = ["characters", "tokens", "images", "short_side", "ratio", "sharpness"];
const NAMES = { characters: "characters", tokens: "tokens", images: "images", texts: "texts", short_side: "shorter side, px", long_side: "longer side, px", pixels: "pixels of an image", ratio: "aspect ratio", contrast: "contrast", sharpness: "sharpness" };
export const nameDimension = (name) => NAMES[name] ?? name.replace("upstream.", "upstream: ");

export async function showSamples(view, query, current) {
  const about = await askIndexed("/api/dimensions", view, current);
  if (!about) return null;
  view.replaceChildren();
  return new Samples(view, query, about).begin();
}

class Samples {
  constructor(view, query, about) {
    Object.assign(this, { view, about, first: 0, listed: [], counting: makeLatest(), listing: makeLatest() });
    this.wanted = { source: new Set(query.getAll("source")), outcome: query.get("outcome") ?? "", licence: query.get("licence"), text: query.get("text") ?? "", ranges: new Map() };
    this.order = query.get("order") ?? "mixed";
    for (const item of query.getAll("range")) {
      const [, name, least, beyond] = item.match(/^(.*):(.*)\.\.(.*)$/) ?? [];
      if (name) this.wanted.ranges.set(name, [least === "" ? "" : Number(least), beyond === "" ? "" : Number(beyond)]);
    }
    const known = about.dimensions.map((one) => one.name);
    const told = about.dimensions.filter((one) => one.of === "signal" || one.of === "rating").map((one) => one.name);
    this.shown = new Set([...told.slice(0, 4), ...FIRST.filter((name) => known.includes(name)), ...this.wanted.ranges.keys()]);
    this.changed = debounce(() => this.refresh(), 40);
  }

  begin() {
    this.search = make("input", { type: "search", placeholder: "words, \"a phrase\" or an id   ( / )", value: this.wanted.text, ariaLabel: "search texts" });
    this.search.addEventListener("input", debounce(() => { this.wanted.text = this.search.value; this.refresh(); }, 300));
    this.sources = make("div", { className: "facet" });
    this.outcomes = make("div", { className: "facet" });
    this.licences = make("div", { className: "facet" });
    this.histograms = make("div", { className: "histograms" });
    this.plotted = make("details", { className: "plotted", open: innerWidth > 760 }, make("summary", {}, "Histograms"), this.histograms);
    this.said = make("output", { className: "fits" });
    this.grid = make("div", { className: "grid" });
    this.more = make("button", { type: "button", textContent: "more", hidden: true });
    this.more.addEventListener("click", () => this.list(this.first + PAGE));
    this.reset = make("button", { type: "button", className: "quiet", textContent: "clear all" });
    this.reset.addEventListener("click", () => this.clear());
    this.panel = make("details", { className: "panel", open: innerWidth > 760 }, make("summary", {}, "Filters"),
      this.search, this.sources, this.outcomes, this.licences, this.drawChoice());
    this.ordered = make("span", {});
    this.view.append(make("div", { className: "samples" }, this.panel,
      make("div", { className: "results" }, make("div", { className: "line" }, this.said, this.reset, make("span", { className: "grow" }), this.ordered), this.plotted, this.grid, this.more)));
    this.drawHistograms();
    this.drawOrder();
    this.refresh(false);
    return () => { this.gone = true; };
  }

  drawOrder() {
    const values = this.about.dimensions.flatMap(({ name }) => [[name, `${nameDimension(name)}, rising`], [`-${name}`, `${nameDimension(name)}, falling`]]);
    this.ordered.replaceChildren(makeSelect("order", [["mixed", "mixed"], ["as read", "as read"], ...values], this.order, (value) => { this.order = value; this.refresh(); }));
  }

  drawHistograms() {
    this.plots = new Map();
    for (const { name, edges } of this.about.dimensions.filter((one) => this.shown.has(one.name))) {
      const plot = new Histogram({ name, label: nameDimension(name), edges, changed: () => {
        if (plot.values) this.wanted.ranges.set(name, plot.values); else this.wanted.ranges.delete(name);
        this.changed();
      } });
      const range = this.wanted.ranges.get(name);
      if (range) plot.chooseValues(...range);
      this.plots.set(name, plot);
    }
    this.histograms.replaceChildren(...[...this.plots.values()].map((plot) => plot.element));
  }

  drawChoice() {
    return make("details", { className: "choice" }, make("summary", {}, "Which histograms"), ...this.about.dimensions.map(({ name, of, number }) => {
      const box = make("input", { type: "checkbox", checked: this.shown.has(name) });
      box.addEventListener("change", () => {
        if (box.checked) this.shown.add(name); else { this.shown.delete(name); this.wanted.ranges.delete(name); }
        this.drawHistograms();
        this.refresh();
      });
      return make("label", {}, box, nameDimension(name), make("span", { className: "soft" }, ` ${of}, ${formatNumber(number)}`));
    }));
  }

  get query() {
    const { source, outcome, licence, text, ranges } = this.wanted;
    return { source: [...source], outcome, licence, text, range: [...ranges].map(([name, [least, beyond]]) => `${name}:${least}..${beyond}`) };
  }

  clear() {
    Object.assign(this.wanted, { outcome: "", licence: null, text: "", ranges: new Map() });
    this.wanted.source.clear();
    this.search.value = "";
    for (const plot of this.plots.values()) plot.choose(null, true);
    this.refresh();
  }

  async refresh(remember = true) {
    if (remember) {
      const words = new URLSearchParams();
      for (const [name, value] of Object.entries({ ...this.query, order: this.order === "mixed" ? "" : this.order })) for (const one of [value].flat()) if (one) words.append(name, one);
      history.replaceState(null, "", `#samples${words.size ? `?${words}` : ""}`);
    }
    const listing = this.list(0);
    try {
      const counts = await this.counting("/api/counts", { ...this.query, show: [...this.shown].join(",") });
      if (this.gone) return;
      this.said.replaceChildren(make("b", {}, formatNumber(counts.fits)), ` of ${formatNumber(counts.size)} samples`);
      this.reset.hidden = counts.fits === counts.size;
      for (const [name, plot] of this.plots) plot.update(counts.histograms[name] ?? []);
      this.drawFacets(counts);
    } catch (error) {
      if (error.name !== "AbortError") this.said.textContent = error.message;
    }
    await listing;
  }

  drawFacets(counts) {
    const { source, outcome, licence } = this.wanted;
    this.sources.replaceChildren(...this.about.sources.map((name) => makeFacet(makeSource(name), counts.source[name] ?? 0, counts.size, sourceColour(name), source.has(name), () => { if (!source.delete(name)) source.add(name); this.refresh(); })));
    const choose = (name) => () => { this.wanted.outcome = this.wanted.outcome === name ? "" : name; this.refresh(); };
    const plain = ["kept", "lost", "undecided"].filter((name) => counts.outcome[name] || outcome === name);
    const reasons = Object.keys(counts.outcome).filter((name) => !["kept", "lost", "undecided"].includes(name)).sort((one, other) => counts.outcome[other] - counts.outcome[one]);
    if (outcome && !plain.includes(outcome) && !reasons.includes(outcome)) reasons.push(outcome);
    const rest = reasons.length - REASONS, listed = this.all || rest < 2 ? reasons : reasons.filter((name, place) => place < REASONS || name === outcome);
    this.outcomes.replaceChildren(...[...plain, ...listed].map((name) => makeFacet(name === "lost" ? "lost" : makeOutcome(name), counts.outcome[name] ?? 0, counts.size, name === "kept" ? "var(--kept)" : name === "lost" ? "var(--soft)" : reasonColour(name), outcome === name, choose(name))));
    if (listed.length < reasons.length) {
      const more = make("button", { type: "button", className: "soft", textContent: `${reasons.length - listed.length} reasons more` });
      more.addEventListener("click", () => { this.all = true; this.drawFacets(counts); });
      this.outcomes.append(more);
    }
    this.licences.hidden = this.about.licences.length < 2;
    this.licences.replaceChildren(...this.about.licences.map((name) => makeFacet(name || "no licence", counts.licence[name] ?? 0, counts.size, "var(--soft)", licence === name, () => { this.wanted.licence = licence === name ? null : name; this.refresh(); })));
  }

  async list(first) {
    try {
      const found = await this.listing("/api/samples", { ...this.query, order: this.order, first, number: PAGE });
      if (this.gone) return;
      this.first = first;
      const cards = found.map((line) => this.drawLine(line));
      if (first) { this.grid.append(...cards); this.listed.push(...found); } else { this.grid.replaceChildren(...cards); this.listed = found; }
      if (!this.listed.length) this.grid.replaceChildren(make("p", { className: "soft" }, "No sample fits."));
      this.more.hidden = found.length < PAGE;
    } catch (error) {
      if (error.name !== "AbortError") this.grid.replaceChildren(make("p", { className: "note" }, error.message));
    }
  }

  drawLine(line) {
    return drawSampleLine(line, () => openDetail(this.listed.map((one) => one.number), line.number, this.about.vectors));
  }
}

function makeFacet(label, count, whole, colour, chosen, pressed) {
  const bar = make("i");
  bar.style.width = `${whole ? (100 * count) / whole : 0}%`;
  bar.style.background = colour;
  const button = make("button", { type: "button", ariaPressed: String(chosen), title: formatShare(count, whole) }, make("span", {}, label), make("span", { className: "soft" }, formatNumber(count)), bar);
  button.addEventListener("click", pressed);
  return button;
}

// A sample as a small card; also in lists of other views.
export function drawSampleLine(line, opened, told = null) {
  const said = told ?? Object.entries(line.values ?? {}).map(([name, values]) => `${nameDimension(name)} ${values.map(formatValue).join(", ")}`).join("; ");
  const dot = makeDot(sourceColour(line.source));
  dot.title = line.source;
  const card = make("button", { type: "button", className: `sample${["kept", "undecided"].includes(line.outcome) ? "" : " gone"}`, title: line.id },
    line.picture ? make("span", { className: "thumb" }, makePicture(line.picture, 240)) : make("span", { className: "thumb words" }, line.text || "no text"),
    make("span", { className: "sample-text" }, line.picture ? line.text : ""),
    make("span", { className: "sample-foot" }, make("span", { className: "named" }, dot, said || (run.index > 0 && line.images > 1 ? `${line.images} images` : line.source)), makeOutcome(line.outcome)));
  card.dataset.item = line.number;
  card.addEventListener("click", opened);
  return card;
}
