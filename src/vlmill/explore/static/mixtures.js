// View 5: a stage's mixture with shares changed by hand, solved as they change.
import { ask, debounce, formatNumber, formatShare, formatShort, make, makeCopied, makeLatest, makeSelect, makeSource, makeStack, run, sourceColour } from "./dom.js";

const BUDGETS = ["epochs", "tokens", "sequences"];

export async function showMixtures(view, query) {
  const stages = await ask("/api/mixtures");
  if (!stages.length) {
    view.append(make("section", {}, make("p", {}, run.overview.stages.length ? "No stage is mixed yet: a build comes to that after the shards." : "This recipe has no stages, so nothing is mixed.")));
    return null;
  }
  const main = make("div", {});
  const tabs = make("div", { className: "line tabs" }, ...stages.map((stage) => {
    const button = make("button", { type: "button", textContent: stage.stage });
    button.dataset.item = stage.stage;
    button.addEventListener("click", () => choose(stage));
    return button;
  }));
  const choose = (stage) => {
    for (const button of tabs.children) button.ariaPressed = String(button.textContent === stage.stage);
    history.replaceState(null, "", `#mixtures?${new URLSearchParams({ stage: stage.stage })}`);
    new Mixture(main, stage).begin();
  };
  view.append(tabs, main);
  choose(stages.find((stage) => stage.stage === query.get("stage")) ?? stages[0]);
  return null;
}

class Mixture {
  constructor(main, stage) {
    Object.assign(this, { main, stage, change: {}, solving: makeLatest() });
    this.form = stage.by_share ? "shares" : "repeat";
    this.given = Object.fromEntries(stage.entries.map((entry) => [entry.label, stage.by_share ? entry.share : entry.repeat]));
    this.changed = debounce(() => this.solve(), 30);
  }

  begin() {
    const { stage } = this, most = Math.max(...Object.values(this.given).map((value) => value ?? 0), 1e-9);
    this.cells = new Map();
    const rows = stage.entries.map((entry) => this.drawEntry(entry, most));
    this.amount = make("input", { type: "number", step: "any", min: 0, value: stage.budget.amount, ariaLabel: "budget" });
    this.kind = makeSelect("budget in", BUDGETS.map((name) => [name, name]), stage.budget.kind, () => this.enterBudget());
    this.amount.addEventListener("input", () => this.enterBudget());
    this.unit = makeSelect("unit of shares", stage.units.map((name) => [name, name]), stage.unit, (value) => { this.change.unit = value; this.changed(); });
    this.cap = make("input", { type: "number", step: "any", min: 0, value: stage.max_repetition ?? "", placeholder: "16", ariaLabel: "epochs of a source at most" });
    this.cap.addEventListener("input", () => { this.change.max_repetition = this.cap.value === "" ? undefined : Number(this.cap.value); this.changed(); });
    const reset = make("button", { type: "button", textContent: "as it was" });
    reset.addEventListener("click", () => new Mixture(this.main, stage).begin());
    this.bars = make("div", { className: "levels" });
    this.said = make("div", {});
    this.diff = make("div", {});
    this.main.replaceChildren(
      make("section", {}, make("div", { className: "line wrap" },
        make("label", {}, "budget ", this.amount), this.kind,
        ...(stage.by_share ? [make("label", {}, "shares count ", this.unit)] : []), make("label", {}, "epochs of a source at most ", this.cap), make("span", { className: "grow" }), reset),
      make("div", { className: "scroll" }, make("table", { className: "mixture" },
        make("thead", {}, make("tr", {}, ...["entry", stage.by_share ? "share" : "repeat", "", "declared", `of ${stage.unit}`, "epochs", "was", "samples", "tokens", "was"].map((name, place) => make("th", { className: place < 3 ? "left" : "" }, name)))),
        make("tbody", {}, ...rows))), this.said),
      make("section", {}, make("h2", {}, "What sequences are made of"), this.bars), make("section", {}, make("h2", {}, "The change"), this.diff));
    this.solve();
  }

  drawEntry(entry, most) {
    const { label } = entry, value = this.given[label];
    const number = make("input", { type: "number", step: "any", min: 0, value: value ?? "", disabled: value === null, ariaLabel: `${this.form} of ${label}` });
    const range = make("input", { type: "range", min: 0, max: 1000, value: Math.round((1000 * (value ?? 0)) / (1.5 * most)), disabled: value === null, ariaLabel: `${this.form} of ${label}` });
    const enter = (given) => {
      if (!(given > 0)) return;
      this.change[this.form] = { ...this.change[this.form], [label]: given };
      this.changed();
    };
    range.addEventListener("input", () => { number.value = Number(((1.5 * most * Math.max(1, range.value)) / 1000).toPrecision(3)); enter(Number(number.value)); });
    number.addEventListener("input", () => { range.value = Math.round((1000 * number.value) / (1.5 * most)); enter(Number(number.value)); });
    const cells = Object.fromEntries(["declared", "realised", "epochs", "samples", "tokens"].map((name) => [name, make("td", {})]));
    this.cells.set(label, cells);
    return make("tr", {}, make("td", { className: "left" }, makeSource(label)), make("td", { className: "left" }, entry.moves ? make("span", { className: "soft" }, "moves along the stage") : range), make("td", { className: "left" }, number),
      cells.declared, cells.realised, cells.epochs, make("td", { className: "soft" }, entry.repetition.toFixed(2)), cells.samples, cells.tokens, make("td", { className: "soft" }, formatShort(Math.round(entry.planned.tokens))));
  }

  enterBudget() {
    const amount = Number(this.amount.value);
    if (!(amount > 0)) return;
    for (const name of BUDGETS) delete this.change[name];
    this.change[this.kind.value] = amount;
    this.changed();
  }

  async solve() {
    const { stage } = this;
    const started = performance.now();
    let found;
    try { found = await this.solving(`/api/mixtures/${encodeURIComponent(stage.stage)}`, { change: JSON.stringify(this.change) }); } catch (error) {
      if (error.name !== "AbortError") this.said.replaceChildren(make("p", { className: "note" }, error.message));
      return;
    }
    document.documentElement.dataset.solved = (performance.now() - started).toFixed(1);
    const unit = this.change.unit ?? stage.unit;
    for (const entry of found.entries) {
      const cells = this.cells.get(entry.label);
      cells.declared.textContent = entry.declared === null ? "" : `${(100 * entry.declared).toFixed(1)} %`;
      cells.realised.textContent = `${(100 * entry.realised[unit]).toFixed(1)} %`;
      cells.realised.className = entry.declared !== null && Math.abs(entry.declared - entry.realised[unit]) > 0.005 ? "off" : "";
      cells.epochs.textContent = entry.repetition.toFixed(2);
      cells.samples.textContent = formatShort(Math.round(entry.planned.samples));
      cells.tokens.textContent = formatShort(Math.round(entry.planned.tokens));
    }
    this.said.replaceChildren(make("p", {}, `${formatShort(Math.round(found.totals.tokens))} tokens, about ${formatNumber(Math.round(found.sequences))} sequences of ${formatNumber(stage.sequence_length)}.`),
      ...found.binding.map((said) => make("p", { className: "note" }, said)), ...(found.binding.length && found.exact_up_to ? [make("p", { className: "soft" }, `Shares can be met up to ${formatShort(Math.round(found.exact_up_to))} tokens.`)] : []));
    const was = Object.fromEntries(stage.units.map((name) => [name, stage.entries.reduce((sum, entry) => sum + entry.planned[name], 0)]));
    const part = (entries, name) => entries.map((entry) => ({ name: entry.label, number: entry.planned[name], colour: sourceColour(entry.label.split("@")[0]) }));
    this.bars.replaceChildren(make("div", { className: "legend" }, ...stage.entries.map((entry) => makeSource(entry.label.split("@")[0]))), ...stage.units.map((name) => make("div", { className: "level" },
      make("div", { className: "level-name" }, make("b", {}, name), make("span", { className: "soft" }, formatShort(Math.round(found.totals[name])))),
      make("div", {}, makeStack(part(found.entries, name), found.totals[name]), make("div", { className: "was" }, makeStack(part(stage.entries, name), was[name]), make("span", { className: "small soft" }, `was ${formatShort(was[name])}`))))));
    this.diff.replaceChildren(found.diff ? makeCopied("in the recipe", found.diff, "diff") : make("p", { className: "soft" }, "Nothing is changed. Move a share."));
  }
}
