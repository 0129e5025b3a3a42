// One sample in a window: its nodes with what was decided of each, its values, its neighbours, and as the trainer sees it.
import { drawCard } from "./card.js";
import { ask, formatValue, make, makeChip, makeError, makeOutcome, makePicture, makeSource, run } from "./dom.js";

const dialog = document.getElementById("detail");
let numbers = [], at = 0, vectors = [], asked = 0;

export async function openDetail(list, number, signals = null) {
  numbers = list.length ? list : [number];
  at = Math.max(0, numbers.indexOf(number));
  if (signals) vectors = signals;
  if (!dialog.open) dialog.showModal();
  await draw();
}

export function closeDetail() { if (dialog.open) dialog.close(); }

export function stepDetail(step) {
  const next = at + step;
  if (next >= 0 && next < numbers.length) { at = next; draw(); }
}

dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

async function draw() {
  const mine = ++asked, number = numbers[at];
  let sample;
  try { sample = await ask(`/api/samples/${number}`); } catch (error) { dialog.replaceChildren(drawHead(null), makeError(error)); return; }
  if (mine !== asked) return;
  const seenSaid = make("span", { className: "soft" }), trainer = make("div", {}, make("p", { className: "soft" }, "..."));
  dialog.replaceChildren(drawHead(sample), drawFacts(sample), ...drawVerdicts(sample),
    make("div", { className: "nodes" }, ...sample.nodes.map(drawNode)),
    ...(sample.more ? [make("p", { className: "soft" }, `and ${sample.more} nodes more`)] : []),
    drawNeighbours(sample), make("h3", {}, "As the trainer sees it ", seenSaid), trainer);
  dialog.scrollTop = 0;
  try {
    const seen = await ask(`/api/samples/${number}/segments`);
    if (mine !== asked) return;
    trainer.className = "trainer";
    seenSaid.textContent = Object.entries(seen.seen).map(([stage, number]) => `${stage}: ${number} ${number === 1 ? "segment" : "segments"}`).join(", ");
    const absent = Object.entries(seen.absent).map(([stage, why]) => make("p", { className: "soft" }, `${stage} has none of it: ${why}`));
    const cards = seen.cards.map((card) => drawCard(card, { colours: run.colours.sources, marks: seen.marks }));
    trainer.replaceChildren(...(cards.length || absent.length ? [...cards, ...absent] : [make("p", { className: "soft" }, "No stage's plan holds it.")]));
  } catch (error) {
    if (mine === asked) trainer.replaceChildren(makeError(error));
  }
}

function drawHead(sample) {
  const button = (text, title, pressed, disabled = false) => {
    const made = make("button", { type: "button", textContent: text, title, disabled });
    made.addEventListener("click", pressed);
    return made;
  };
  return make("div", { className: "detail-head" },
    button("\u2039", "previous (k)", () => stepDetail(-1), at === 0), button("\u203a", "next (j)", () => stepDetail(1), at === numbers.length - 1),
    make("span", { className: "mono grow" }, sample?.id ?? ""), button("close", "Esc", closeDetail));
}

function drawFacts(sample) {
  const values = Object.entries(sample.values).filter(([, value]) => value !== undefined);
  return make("div", { className: "chips" }, makeChip(makeSource(sample.source)), makeChip(makeOutcome(sample.outcome)),
    ...(sample.upstream_id ? [makeChip(`upstream id ${sample.upstream_id}`)] : []), ...(sample.licence ? [makeChip(sample.licence)] : []), ...values.map(([name, value]) => makeChip(`${name} ${formatValue(value)}`)),
    ...Object.entries(sample.ratings).filter(([name]) => !(`upstream.${name}` in sample.values)).map(([name, value]) => makeChip(`${name} ${formatValue(value)}`)),
    ...(sample.url ? [make("span", { className: "mono soft url" }, sample.url)] : []));
}

function drawVerdicts(sample) {
  if (!sample.verdicts.length) return [];
  return [make("ul", { className: "plain verdicts" }, ...sample.verdicts.map((verdict) => {
    const line = make("li", {}, makeOutcome(verdict.reason), make("span", { className: "soft" }, ` ${verdict.said}`));
    if (verdict.other) {
      const other = make("button", { type: "button", className: "quiet", textContent: "show the one that is kept" });
      other.addEventListener("click", async () => {
        const { number } = await ask("/api/find", { id: verdict.other });
        if (number !== null) openDetail([...new Set([number, sample.number])], number);
      });
      line.append(" ", other);
    }
    return line;
  }))];
}

function drawNode(node, place) {
  const values = Object.entries(node.values).map(([name, value]) => `${name} ${formatValue(value)}`);
  const foot = [node.facts, ...values, node.required ? "required" : "", node.url].filter(Boolean).join(" \u00b7 ");
  return make("div", { className: `node${node.reason ? " gone" : ""}` },
    make("div", { className: "node-head soft" }, make("span", { className: "mono" }, String(place)), make("span", {}, node.role === "none" ? node.kind : node.role), ...(node.reason ? [makeOutcome(node.reason)] : [])),
    make("div", { className: "node-body" },
      ...(node.picture ? [makePicture(node.picture, 720, `image of node ${place}`)] : []),
      ...(node.kind === "image" && !node.picture ? [make("span", { className: "no-picture", textContent: "no picture" })] : []),
      ...(node.text ? [make("div", { className: `text${node.supervised ? " supervised-text" : ""}`, textContent: node.text + (node.cut ? " ..." : "") })] : []),
      ...(foot ? [make("div", { className: "small soft url" }, foot)] : [])));
}

function drawNeighbours(sample) {
  if (!vectors.length) return "";
  const found = make("div", { className: "grid small-grid" });
  const buttons = vectors.map((signal) => {
    const button = make("button", { type: "button", textContent: `nearest by ${signal}` });
    button.addEventListener("click", async () => {
      try {
        const near = await ask(`/api/samples/${sample.number}/neighbours`, { signal });
        found.replaceChildren(...near.map((line) => {
          const card = make("button", { type: "button", className: "sample", title: line.id }, line.picture ? make("span", { className: "thumb" }, makePicture(line.picture, 160)) : make("span", { className: "thumb words" }, line.text),
            make("span", { className: "sample-foot" }, line.similarity.toFixed(3), makeOutcome(line.outcome)));
          card.addEventListener("click", () => openDetail([sample.number, ...near.map((one) => one.number)], line.number));
          return card;
        }));
      } catch (error) { found.replaceChildren(makeError(error)); }
    });
    return button;
  });
  return make("div", {}, make("div", { className: "line" }, ...buttons), found);
}
