// The page: which view is shown, keys, theme, and whether the index is there. Views are modules of one function.
import { ask, make, pause, run, say } from "./dom.js";
import { closeDetail, stepDetail } from "./detail.js";
import { showBuild } from "./build.js";
import { showDuplicates } from "./duplicates.js";
import { showMixtures } from "./mixtures.js";
import { showOverview } from "./overview.js";
import { showSamples } from "./samples.js";
import { showThresholds } from "./thresholds.js";

const VIEWS = { overview: showOverview, samples: showSamples, thresholds: showThresholds, duplicates: showDuplicates, mixtures: showMixtures, build: showBuild };
const KEYS = [["1 to 6", "views"], ["/", "search samples"], ["j, k or arrows", "next and previous sample, cluster or bound"], ["Enter", "open it"], ["Esc", "close, or clear a range"],
  ["arrows on a histogram", "move its range; with Shift its upper end"], ["t", "dark or light"], ["?", "these keys"]];

const view = document.getElementById("view");
let leave = null, shown = 0;

function readHash() {
  const [name, query = ""] = location.hash.slice(1).split("?");
  return { name: name in VIEWS ? name : "overview", query: new URLSearchParams(query) };
}

async function show() {
  const { name, query } = readHash(), mine = ++shown;
  leave?.();
  leave = null;
  closeDetail();
  for (const link of document.querySelectorAll("#views a")) link.ariaCurrent = link.dataset.view === name ? "page" : null;
  document.title = `${run.overview?.name ?? "vlmill"}: ${name}`;
  view.replaceChildren();
  view.dataset.view = name;
  document.documentElement.dataset.ready = "";
  try {
    const left = await VIEWS[name](view, query, () => mine === shown);
    if (mine === shown) leave = left ?? null;
    else left?.();
  } catch (error) {
    if (mine === shown) view.replaceChildren(make("section", {}, make("p", { className: "note", textContent: error.message })));
  }
  if (mine === shown) document.documentElement.dataset.ready = name;
}

// -- the index

async function watchIndex() {
  const said = document.getElementById("index");
  for (let wait = 300; ; wait = Math.min(5000, wait * 1.3)) {
    let state;
    try { state = await ask("/api/index"); } catch { said.textContent = "the server has ended"; await pause(3000); continue; }
    said.replaceChildren();
    if (state.error) said.textContent = state.error;
    else if (state.busy) said.textContent = state.of ? `reading tables: ${state.done} of ${state.of}` : "reading tables";
    else if (state.changed) {
      const again = make("button", { type: "button", className: "quiet", textContent: "changed: read again", title: "the run has changed since its tables were read" });
      again.addEventListener("click", async () => { await ask("/api/index", { again: 1 }); await start(); });
      said.append(again);
    }
    if (state.ready && run.index !== state.samples) {
      run.index = state.samples;
      dispatchEvent(new Event("indexed"));
    }
    await pause(state.busy ? 400 : wait);
  }
}

// -- keys

function openHelp() {
  const help = document.getElementById("help");
  const close = make("button", { type: "button", textContent: "close" });
  close.addEventListener("click", () => help.close());
  help.replaceChildren(make("h2", { textContent: "Keys" }), make("dl", {}, ...KEYS.flatMap(([key, what]) => [make("dt", { className: "mono", textContent: key }), make("dd", { textContent: what })])), close);
  help.showModal();
}

function switchTheme() {
  const dark = document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  setTheme(dark ? "light" : "dark");
}
function setTheme(name) {
  document.documentElement.dataset.theme = name;
  try { localStorage.setItem("vlmill-theme", name); } catch { /* it lasts for this page alone */ }
}

function pressKey(event) {
  const typing = event.target.matches("input, select, textarea");
  if (event.key === "Escape" && typing) event.target.blur();
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const names = Object.keys(VIEWS), step = { j: 1, ArrowDown: 1, ArrowRight: 1, k: -1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
  if (event.key >= "1" && event.key <= String(names.length)) location.hash = names[event.key - 1];
  else if (event.key === "?") openHelp();
  else if (event.key === "t") switchTheme();
  else if (event.key === "/") {
    event.preventDefault();
    if (readHash().name !== "samples") location.hash = "samples";
    setTimeout(() => document.querySelector("#view input[type=search]")?.focus(), 60);
  } else if (step && document.getElementById("detail").open) { event.preventDefault(); stepDetail(step); }
  else if (step && !(event.key.startsWith("Arrow") && event.target.closest("[role=slider]"))) {
    const items = [...view.querySelectorAll("[data-item]")];
    if (!items.length) return;
    event.preventDefault();
    const at = items.indexOf(document.activeElement);
    items[Math.min(items.length - 1, Math.max(0, at < 0 ? 0 : at + step))].focus();
  }
}

async function start() {
  run.overview = await ask("/api/overview");
  run.colours = run.overview.colours;
  document.getElementById("name").textContent = run.overview.name;
  await show();
}

document.getElementById("views").append(...Object.keys(VIEWS).map((name, place) =>
  make("a", { href: `#${name}` }, make("kbd", { textContent: place + 1 }), name[0].toUpperCase() + name.slice(1))));
document.querySelectorAll("#views a").forEach((link, place) => { link.dataset.view = Object.keys(VIEWS)[place]; });
try { const theme = localStorage.getItem("vlmill-theme"); if (theme) document.documentElement.dataset.theme = theme; } catch { /* none was chosen */ }
document.getElementById("theme").addEventListener("click", switchTheme);
document.getElementById("keys").addEventListener("click", openHelp);
addEventListener("keydown", pressKey);
addEventListener("hashchange", show);
start().catch((error) => { view.replaceChildren(make("p", { className: "note", textContent: error.message })); say(error.message); });
watchIndex();
