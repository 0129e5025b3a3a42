// View 1: what came in, what was kept, why not the rest, sizes, licences, and what is odd.
import { ask, formatBytes, formatNumber, formatShare, formatShort, make, makeDot, makeSource, makeStack, makeTable, Preparing, run } from "./dom.js";

const LEVELS = ["rows", "samples", "nodes", "images"];

export async function showOverview(view, query, current) {
  const about = run.overview, tiles = make("div", { className: "tiles" }), held = make("section", { hidden: true });
  const tokens = makeTile("tokens kept", "...", "text and visual");
  const kept = (level) => {
    const line = about.totals[level];
    return line ? [formatNumber(line.kept), `${formatShare(line.kept, line.in)} of ${formatNumber(line.in)}`] : ["not yet", "counted after filters and dedupe"];
  };
  tiles.append(
    makeTile("rows in", formatNumber(about.totals.rows?.in ?? 0), `${about.sources.length} source${about.sources.length === 1 ? "" : "s"}`),
    makeTile("samples kept", ...kept("samples")),
    makeTile("images kept", ...kept("images")),
    tokens,
    ...Object.entries(about.bytes).map(([name, size]) => makeTile(name, formatBytes(size), "on disk")));
  view.append(tiles);
  if (about.odd.length) view.append(drawOdd(about.odd));
  view.append(drawFunnel(about), drawSources(about), held);
  const fill = async () => {
    try {
      const found = await ask("/api/held");
      if (current()) fillHeld(found, tokens, held);
    } catch (error) {
      if (!(error instanceof Preparing)) throw error;
      tokens.querySelector("b").textContent = "not yet";
    }
  };
  await fill();
  addEventListener("indexed", fill);
  return () => removeEventListener("indexed", fill);
}

const makeTile = (name, figure, below) => make("div", { className: "tile" }, make("span", { className: "soft" }, name), make("b", {}, figure), make("span", { className: "soft small" }, below));

const linkSamples = (source, outcome) => `#samples?${new URLSearchParams([...(source ? [["source", source]] : []), ...(outcome ? [["outcome", outcome]] : [])])}`;

function drawOdd(odd) {
  return make("section", {}, make("h2", {}, "What is odd"), make("ul", { className: "plain" }, ...odd.map((one) =>
    make("li", {}, one.source || one.outcome ? make("a", { href: linkSamples(one.source, one.outcome), textContent: one.said }) : one.said))));
}

// The funnel: a bar for each level, what is kept on the left, reasons behind it by how much they took.
function drawFunnel(about) {
  const section = make("section", {}, make("h2", {}, "Funnel"), make("p", { className: "soft" }, "In = kept + dropped + failed. A reason leads to its samples."));
  for (const level of LEVELS.filter((name) => about.totals[name])) {
    const line = about.totals[level];
    const lost = [...Object.entries(line.dropped), ...Object.entries(line.failed)].sort((one, other) => other[1] - one[1]);
    const parts = [{ name: "kept", number: line.kept, colour: "var(--kept)" }, ...lost.map(([name, number]) => ({ name, number, colour: about.fills[name] }))];
    section.append(make("div", { className: "level" },
      make("div", { className: "level-name" }, make("b", {}, level), make("span", { className: "soft" }, formatNumber(line.in))),
      make("div", {}, makeStack(parts, line.in),
        make("div", { className: "legend" }, make("span", { className: "named" }, makeDot("var(--kept)"), `kept ${formatNumber(line.kept)} (${formatShare(line.kept, line.in)})`),
          ...lost.map(([name, number]) => make(level === "rows" ? "span" : "a", level === "rows" ? { className: "named" } : { className: "named", href: linkSamples("", name) }, makeDot(about.fills[name]), `${name} ${formatNumber(number)}`))))));
  }
  return section;
}

function drawSources(about) {
  const rows = about.sources.map((source) => {
    const line = source.funnel.samples ?? { in: 0, kept: 0, dropped: {}, failed: {} }, images = source.funnel.images ?? { in: 0, kept: 0 };
    const lost = [...Object.entries(line.dropped), ...Object.entries(line.failed)].sort((one, other) => other[1] - one[1]);
    return [make("a", { href: linkSamples(source.name, "") }, makeSource(source.name)), make("span", { className: "soft" }, source.kind),
      makeStack([{ name: "kept", number: line.kept, colour: "var(--kept)" }, ...lost.map(([name, number]) => ({ name, number, colour: about.fills[name] }))], line.in),
      formatNumber(line.in), formatNumber(line.kept), formatShare(line.kept, line.in), formatNumber(images.kept), formatShare(images.kept, images.in)];
  });
  return make("section", {}, make("h2", {}, "Sources"), makeTable(["source", "kind", "samples", "in", "kept", "", "images kept", ""], rows, 3));
}

function fillHeld(found, tokens, held) {
  const sources = Object.entries(found), sum = sources.reduce((whole, [, one]) => whole + one.tokens, 0);
  tokens.querySelector("b").textContent = sum ? formatShort(sum) : "not yet";
  const licences = {};
  for (const [, one] of sources) for (const [name, number] of Object.entries(one.licences)) licences[name] = (licences[name] ?? 0) + number;
  const kept = sources.reduce((whole, [, one]) => whole + one.kept, 0);
  held.hidden = !kept;
  held.replaceChildren(make("h2", {}, "What is kept"), make("div", { className: "two" },
    makeTable(["source", "samples", "tokens", "a sample", "of all tokens"], sources.map(([name, one]) => [makeSource(name), formatNumber(one.kept), formatShort(one.tokens), one.kept ? formatNumber(Math.round(one.tokens / one.kept)) : "", formatShare(one.tokens, sum)])),
    makeTable(["licence", "samples", ""], Object.entries(licences).sort((one, other) => other[1] - one[1]).map(([name, number]) => [name || "none is told", formatNumber(number), formatShare(number, kept)]))));
}
