// A setting of filters or dedupe that has no slider, answered by what-if: exact, and as slow as that is.
import { openDetail } from "./detail.js";
import { ask, formatChange, formatNumber, make, makeCopied, makeError, makeOutcome, makeSource, makeTable, shortenId } from "./dom.js";

const EXAMPLES = ["language.sample_share=0.5", "dedupe.text=0.7", "text_quality.node.min_words=4"];

export function askSetting(main) {
  const field = make("input", { type: "text", placeholder: "KEY=VALUE", ariaLabel: "setting", className: "grow mono", spellcheck: false });
  const button = make("button", { type: "submit", textContent: "ask" }), answer = make("div", {});
  const form = make("form", { className: "line" }, field, button);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!field.value.includes("=")) { answer.replaceChildren(make("p", { className: "note" }, "Give a key, = and a value.")); return; }
    button.disabled = true;
    answer.replaceChildren(make("p", { className: "soft" }, "Filters with other settings look again, and duplicates are resolved anew ..."));
    try { drawAnswer(answer, await ask("/api/what-if", { set: field.value.trim() })); } catch (error) { answer.replaceChildren(makeError(error)); }
    button.disabled = false;
  });
  main.replaceChildren(make("section", {}, make("h2", {}, "Any setting"),
    make("p", { className: "soft" }, "A setting of a filter, of dedupe, or decontaminate.action, as ", make("span", { className: "mono" }, "vlmill what-if --set"), ` takes it: ${EXAMPLES.join(", ")}. It takes seconds to minutes.`), form), answer);
  field.focus();
}

function drawAnswer(place, found) {
  const sources = Object.entries(found.sources), rows = [], why = [];
  for (const [source, levels] of [...sources, ["all", found.totals]]) {
    for (const level of ["samples", "nodes", "images"]) {
      const line = levels[level];
      if (!line) continue;
      rows.push([level === "samples" ? (source === "all" ? make("b", {}, "all") : makeSource(source)) : "", level, formatNumber(line.came), formatNumber(line.now), formatNumber(line.then), formatChange(line.then - line.now), formatNumber(line.newly_dropped), formatNumber(line.newly_kept)]);
      for (const [reason, change] of level === "images" ? [] : Object.entries(line.why ?? {}))
        why.push([makeSource(source), level, makeOutcome(reason), formatNumber(change.newly_dropped), formatNumber(change.newly_kept), make("span", {}, ...change.examples.map(makeExample))]);
    }
  }
  place.replaceChildren(
    make("section", {}, make("h2", {}, "What would be kept"), makeTable(["source", "", "in", "now", "then", "change", "newly dropped", "newly kept"], rows, 2), ...found.notes.map((note) => make("p", { className: "soft" }, note))),
    make("section", {}, make("h2", {}, "Why"), why.length ? makeTable(["source", "", "reason", "newly dropped", "newly kept", "such as"], why, [0, 1, 2, 5]) : make("p", { className: "soft" }, "Nothing would change.")),
    make("section", {}, make("h2", {}, "The change"), found.diff ? makeCopied("in the recipe", found.diff, "diff") : make("p", { className: "soft" }, "The recipe says so already.")));
}

function makeExample(said) {
  const id = said.split(" node ")[0], button = make("button", { type: "button", className: "quiet mono", title: said, textContent: shortenId(id) });
  button.addEventListener("click", async () => {
    const { number } = await ask("/api/find", { id });
    if (number !== null) openDetail([number], number);
  });
  return button;
}
