// A histogram with a range that is drawn on it: by the mouse, by touch, or with the arrow keys.
import { formatNumber, formatValue, make, makeSvg } from "./dom.js";

const WIDTH = 240, HEIGHT = 56;

export class Histogram {
  // `changed(range)` is told bins [first, last), or null.
  constructor({ name, label, edges, changed }) {
    Object.assign(this, { name, edges, changed, range: null, bins: edges.length - 1, counts: [] });
    this.bars = Array.from({ length: this.bins }, (_, bin) => makeSvg("rect", { x: (bin * WIDTH) / this.bins + 0.3, width: Math.max(0.5, WIDTH / this.bins - 0.6) }));
    this.chosen = makeSvg("rect", { class: "brush", y: 0, height: HEIGHT, visibility: "hidden" });
    this.svg = makeSvg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", class: "histogram", tabindex: 0, role: "slider", "aria-label": `range of ${label}` }, this.chosen, ...this.bars);
    this.said = make("output", { className: "soft" });
    this.clear = make("button", { type: "button", className: "quiet", textContent: "clear", hidden: true });
    this.clear.addEventListener("click", () => this.choose(null));
    this.element = make("div", { className: "dimension" },
      make("div", { className: "dimension-head" }, make("span", { textContent: label }), this.said, this.clear),
      this.svg,
      make("div", { className: "ends soft" }, make("span", { textContent: formatValue(edges[0]) }), make("span", { textContent: formatValue(edges[this.bins] - (edges[1] - edges[0] === 1 && Number.isInteger(edges[0]) ? 1 : 0)) })));
    this.listen();
    this.draw();
  }

  listen() {
    const binAt = (event) => {
      const box = this.svg.getBoundingClientRect();
      return Math.min(this.bins - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * this.bins)));
    };
    let start = null;
    this.svg.addEventListener("pointerdown", (event) => { event.preventDefault(); this.svg.focus({ preventScroll: true }); start = binAt(event); this.svg.setPointerCapture(event.pointerId); });
    this.svg.addEventListener("pointermove", (event) => {
      const bin = binAt(event);
      this.svg.setAttribute("data-bin", bin);
      if (start === null) { this.tell(bin); return; }
      this.range = [Math.min(start, bin), Math.max(start, bin) + 1];
      this.draw();
    });
    this.svg.addEventListener("pointerup", (event) => {
      const bin = binAt(event), same = start === bin;
      if (start === null) return;
      const old = this.last;
      this.choose(same && old && bin >= old[0] && bin < old[1] && old[1] - old[0] === 1 ? null : [Math.min(start, bin), Math.max(start, bin) + 1]);
      start = null;
    });
    this.svg.addEventListener("pointercancel", () => { start = null; });
    this.svg.addEventListener("pointerleave", () => { if (start === null) this.draw(); });
    this.svg.addEventListener("dblclick", () => this.choose(null));
    this.svg.addEventListener("keydown", (event) => {
      const [first, last] = this.range ?? [0, this.bins];
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (event.key === "Escape" && this.range) { event.stopPropagation(); this.choose(null); }
      if (!by) return;
      event.preventDefault();
      event.stopPropagation();
      const moved = event.shiftKey ? [first, Math.min(this.bins, Math.max(first + 1, last + by))] : [Math.min(last - 1, Math.max(0, first + by)), last];
      this.choose(moved[0] === 0 && moved[1] === this.bins ? null : moved);
    });
  }

  choose(range, quiet = false) {
    this.range = range && range[0] === 0 && range[1] === this.bins ? null : range;
    this.last = this.range;
    this.draw();
    if (!quiet) this.changed(this.range);
  }

  // The range as values [least, beyond); the outer bins hold what lies beyond them, so there it is open.
  get values() {
    if (!this.range) return null;
    const [first, last] = this.range;
    return [first === 0 ? "" : this.edges[first], last === this.bins ? "" : this.edges[last]];
  }

  chooseValues(least, beyond) {
    const near = (value, other) => (value === "" ? other : this.edges.reduce((best, edge, place) => (Math.abs(edge - value) < Math.abs(this.edges[best] - value) ? place : best), 0));
    const first = near(least, 0), last = near(beyond, this.bins);
    this.choose(last > first ? [first, last] : null, true);
  }

  tell(bin) {
    this.said.textContent = `${formatValue(this.edges[bin])} to ${formatValue(this.edges[bin + 1])}: ${formatNumber(this.counts[bin] ?? 0)}`;
  }

  update(counts) {
    this.counts = counts;
    const most = Math.max(1, ...counts);
    counts.forEach((count, bin) => {
      const height = count ? Math.max(1.5, (count / most) * (HEIGHT - 2)) : 0;
      this.bars[bin].setAttribute("y", HEIGHT - height);
      this.bars[bin].setAttribute("height", height);
    });
    this.draw();
  }

  draw() {
    const [first, last] = this.range ?? [0, this.bins];
    this.bars.forEach((bar, bin) => bar.setAttribute("class", bin >= first && bin < last ? "in" : "out"));
    this.chosen.setAttribute("visibility", this.range ? "visible" : "hidden");
    this.chosen.setAttribute("x", (first * WIDTH) / this.bins);
    this.chosen.setAttribute("width", ((last - first) * WIDTH) / this.bins);
    this.clear.hidden = !this.range;
    const [least, beyond] = this.values ?? ["", ""];
    const whole = this.edges.every((edge, place) => Number.isInteger(edge) && (!place || edge - this.edges[place - 1] === 1));
    if (this.range && whole) this.said.textContent = last - first === 1 ? formatValue(this.edges[first]) : `${formatValue(this.edges[first])} to ${formatValue(this.edges[last] - 1)}`;
    else this.said.textContent = !this.range ? "" : least === "" ? `below ${formatValue(beyond)}` : beyond === "" ? `from ${formatValue(least)}` : `${formatValue(least)} to ${formatValue(beyond)}`;
    this.svg.setAttribute("aria-valuetext", this.said.textContent || "all");
    this.svg.setAttribute("aria-valuenow", first);
  }
}
