// What all views are made of: elements, numbers, requests. Texts of data are only ever set as text.
import { make, makeChip, makeDot, formatNumber } from "./card.js";

export { make, makeChip, makeDot, formatNumber };

export const run = { overview: null, colours: { sources: {}, reasons: {} } };

const SVG = "http://www.w3.org/2000/svg";
export function makeSvg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export const sourceColour = (source) => run.colours.sources[source] ?? "#94a4a2";
export const reasonColour = (reason) => run.colours.reasons[reason] ?? "#94a4a2";

export const makeSource = (source) => make("span", { className: "named" }, makeDot(sourceColour(source)), source);
export function makeOutcome(outcome) {
  if (outcome === "kept") return make("span", { className: "named kept" }, "kept");
  if (outcome === "undecided") return make("span", { className: "named soft" }, "undecided");
  return make("span", { className: "named" }, makeDot(reasonColour(outcome)), outcome);
}

// -- numbers

export const formatShare = (part, whole) => (whole ? `${((100 * part) / whole).toFixed(part / whole < 0.0995 && part ? 1 : 0)} %` : "");
export function formatShort(value) {
  const size = Math.abs(value);
  for (const [unit, letter] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e4, "k"]])
    if (size >= unit) return `${(value / (letter === "k" ? 1e3 : unit)).toPrecision(3)}${letter}`;
  return Number.isInteger(value) ? formatNumber(value) : size >= 100 ? formatNumber(Math.round(value)) : String(Number(value.toPrecision(3)));
}
// An id without its middle: the file and row are what tells it from others.
export const shortenId = (id) => (id.length > 28 ? `${id.slice(0, 9)}\u2026${id.slice(-18)}` : id);
export const formatBytes = (value) => (value >= 1e9 ? `${(value / 1e9).toPrecision(3)} GB` : value >= 1e6 ? `${(value / 1e6).toPrecision(3)} MB` : `${Math.ceil(value / 1e3)} kB`);
export function formatValue(value) {
  if (!Number.isFinite(value)) return "";
  if (Number.isInteger(value)) return formatNumber(value);
  return Math.abs(value) >= 1000 ? formatNumber(Math.round(value)) : String(Number(value.toPrecision(4)));
}
export const formatChange = (value) => (value > 0 ? `+${formatNumber(value)}` : value < 0 ? `\u2212${formatNumber(-value)}` : "0");
export function formatSeconds(value) {
  if (value < 90) return `${value < 10 ? value.toFixed(1) : Math.round(value)} s`;
  return value < 5400 ? `${Math.round(value / 60)} min` : `${(value / 3600).toFixed(1)} h`;
}

// -- requests

export class Preparing extends Error {}

export async function ask(path, query = {}, signal = undefined) {
  const words = new URLSearchParams();
  for (const [name, value] of Object.entries(query))
    for (const one of Array.isArray(value) ? value : [value]) if (one !== undefined && one !== null && one !== "") words.append(name, one);
  const tail = words.toString();
  const answer = await fetch(tail ? `${path}?${tail}` : path, { signal, credentials: "same-origin" });
  const data = await answer.json().catch((error) => {
    if (answer.ok) throw error;  // given up while it was read
    return { error: answer.status === 403 ? "open the address that vlmill explore printed last" : `status ${answer.status}` };
  });
  if (answer.status === 503) throw new Preparing(data.error);
  if (!answer.ok) throw new Error(data.error ?? `status ${answer.status}`);
  return data;
}

// The answer to a question that the index is needed for, asked again until it is there; null where the view was left.
export async function askIndexed(path, view, current) {
  for (;;) {
    try { return await ask(path); } catch (error) {
      if (!(error instanceof Preparing)) throw error;
      view.replaceChildren(make("section", {}, make("p", { className: "soft" }, "The tables are being read, once for this state of the run. Overview and build are there already.")));
      await pause(600);
      if (!current()) return null;
    }
  }
}

// Only the newest of several requests is answered: those before it are given up.
export function makeLatest() {
  let control = null;
  return async (path, query) => {
    control?.abort();
    const mine = (control = new AbortController());
    return ask(path, query, mine.signal);
  };
}

export const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

export function debounce(work, milliseconds) {
  let waiting = 0;
  return (...values) => { clearTimeout(waiting); waiting = setTimeout(() => work(...values), milliseconds); };
}

export const pictureAddress = (picture, side) =>
  `/picture/${encodeURIComponent(picture.source)}/${encodeURIComponent(picture.partition)}/${picture.image}?side=${side}`;

export function makePicture(picture, side, label = "") {
  const image = make("img", { loading: "lazy", decoding: "async", alt: label });
  image.addEventListener("error", () => image.replaceWith(make("span", { className: "no-picture", textContent: "no picture" })));
  image.src = pictureAddress(picture, side);
  return image;
}

export function say(text) {
  const toast = document.getElementById("toast");
  toast.textContent = text;
  toast.hidden = false;
  clearTimeout(say.waiting);
  say.waiting = setTimeout(() => { toast.hidden = true; }, 2200);
}

export const makeError = (error) => make("p", { className: "note", textContent: error.message });

// A command or a change of a recipe, to be copied.
export function makeCopied(title, text, kind = "") {
  const button = make("button", { type: "button", textContent: "copy" });
  button.addEventListener("click", async () => {
    try { await navigator.clipboard.writeText(text); say("copied"); } catch { getSelection().selectAllChildren(body); say("press Ctrl-C"); }
  });
  const body = make("pre", { className: `mono copied ${kind}` });
  for (const line of text.split("\n")) {
    const how = kind !== "diff" || /^(---|\+\+\+)/.test(line) ? "" : line[0] === "+" ? "added" : line[0] === "-" ? "removed" : line[0] === "@" ? "soft" : "";
    body.append(make("span", { className: how, textContent: `${line}\n` }));
  }
  return make("div", { className: "copy-block" }, make("div", { className: "copy-head" }, make("span", { className: "soft" }, title), button), body);
}

// `left`: how many columns from the left are words, or which ones.
export function makeTable(heads, rows, left = 1) {
  const words = (place) => (Array.isArray(left) ? left.includes(place) : place < left);
  const cell = (tag) => (value, place) => make(tag, { className: words(place) ? "left" : "" }, value ?? "");
  return make("div", { className: "scroll" }, make("table", {},
    make("thead", {}, make("tr", {}, ...heads.map(cell("th")))),
    make("tbody", {}, ...rows.map((row) => (row instanceof Node ? row : make("tr", {}, ...row.map(cell("td"))))))));
}

export function makeSelect(label, options, chosen, changed) {
  const select = make("select", { ariaLabel: label }, ...options.map(([value, text]) => make("option", { value, textContent: text, selected: value === chosen })));
  select.addEventListener("change", () => changed(select.value));
  return select;
}

// Bars of parts of a whole, side by side.
export function makeStack(parts, whole) {
  const stack = make("div", { className: "stack" });
  for (const { name, number, colour } of parts) {
    if (!number) continue;
    const bar = make("i", { title: `${name}: ${formatNumber(number)} (${formatShare(number, whole)})` });
    bar.style.flexGrow = number;
    bar.style.background = colour;
    stack.append(bar);
  }
  const rest = whole - parts.reduce((sum, part) => sum + part.number, 0);
  if (rest > 0) { const empty = make("i"); empty.style.flexGrow = rest; stack.append(empty); }
  return stack;
}
