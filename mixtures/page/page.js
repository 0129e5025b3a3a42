// Fills the gallery and searches the index. Nothing leaves the page. `card.js` stands before it.
const read = (id) => JSON.parse(document.getElementById(id).textContent);
const { index, cards, colours, marks } = read("data");
const CARDS = 9, ROWS = 50;
const dot = (source) => makeDot(colours[source]);

// -- the index: a line per sample, searched by its lower-case letters

const { rows, tokens } = index;
const size = rows.source.length;
const idOf = (n) => `${index.sources[rows.source[n]]}/${index.files[rows.file[n]]}#${rows.row[n]}${rows.page[n] === "" ? "" : "." + rows.page[n]}`;
const ids = new Map();
const hay = new Array(size);
for (let n = 0; n < size; n++) { const id = idOf(n); ids.set(id, n); hay[n] = (id + " " + rows.text[n]).toLowerCase(); }
const reasonsOf = index.reasons.map((text) => text.replace("lost: ", "").split(", ").filter(Boolean));
const open = index.reasons.map((text) => text === "undecided");
const lost = index.reasons.map((text) => text.startsWith("lost: "));

const form = document.getElementById("filter");
const options = (name, all, values) => form.elements[name].replaceChildren(
  make("option", { value: "", textContent: all }), ...values.map((value) => make("option", { value, textContent: value })));
options("source", "all sources", index.sources);
options("language", "all languages", [...index.languages].sort());
options("reason", "kept or lost", ["kept whole", "lost", ...[...new Set(reasonsOf.flat())].sort()]);

const fits = (n, { source, language, reason }) =>
  (!source || index.sources[rows.source[n]] === source) &&
  (!language || index.languages[rows.language[n]] === language) &&
  (!reason || (reason === "kept whole" ? !reasonsOf[rows.reason[n]].length : reason === "lost" ? lost[rows.reason[n]] : reasonsOf[rows.reason[n]].includes(reason)));

function searched(wanted) {
  const words = wanted.words.toLowerCase().split(/\s+/).filter(Boolean), found = [];
  for (let n = 0; n < size; n++) if (fits(n, wanted) && words.every((word) => hay[n].includes(word))) found.push(n);
  return found;
}

// A card of a sample beyond the index is found by its source and its own text.
function shownCards(wanted, found) {
  const among = new Set(found), words = wanted.words.toLowerCase().split(/\s+/).filter(Boolean);
  return cards.filter((card) => {
    const n = ids.get(card.id);
    const text = () => (card.id + " " + card.text.map((run) => run.text ?? "").join("")).toLowerCase();
    if (n === undefined) return !wanted.language && !wanted.reason && (!wanted.source || card.source === wanted.source) && words.every((word) => text().includes(word));
    return among.has(n) || (words.length > 0 && fits(n, wanted) && words.every((word) => text().includes(word)));
  });
}

// -- a card

function drawn(card) {
  const n = ids.get(card.id);
  return drawCard(card, { colours, marks, chips: n === undefined ? [] : [index.languages[rows.language[n]]] });
}

// -- a line of the index

const columns = ["sample", "language", "outcome", "images", ...index.policies.map((policy) => `tokens, ${policy}`), "text"];
const numeric = (place) => place === 3 || (place > 3 && place < columns.length - 1);
const heading = make("tr", {}, ...columns.map((name, place) => make("th", { className: numeric(place) ? "number" : "", textContent: name })));
function line(n) {
  const reason = index.reasons[rows.reason[n]];
  const outcome = open[rows.reason[n]] ? reason : lost[rows.reason[n]] ? reason.replace("lost: ", "") : reason ? `kept, without: ${reason}` : "kept";
  const cells = [make("span", { className: "mono" }, dot(index.sources[rows.source[n]]), idOf(n)), index.languages[rows.language[n]],
    make("span", { className: lost[rows.reason[n]] ? "lost" : "", textContent: outcome }), formatNumber(rows.images[n]),
    ...tokens.map((column) => (column[n] === null ? "" : formatNumber(column[n]))), rows.text[n]];
  return make("tr", {}, ...cells.map((cell, place) => make("td", { className: numeric(place) ? "number" : "" }, cell)));
}

// -- what is shown: as much as was asked for, of what fits the filter

let limits = { cards: CARDS, rows: ROWS };
function update() {
  const started = performance.now();
  const wanted = Object.fromEntries(new FormData(form));
  const found = searched(wanted), chosen = shownCards(wanted, found);
  document.getElementById("cards").replaceChildren(...(chosen.length ? chosen.slice(0, limits.cards).map(drawn) : ["None of the segments on this page fits."]));
  document.getElementById("rows").replaceChildren(heading, ...found.slice(0, limits.rows).map(line));
  document.getElementById("more-cards").hidden = chosen.length <= limits.cards;
  document.getElementById("more-rows").hidden = found.length <= limits.rows;
  form.querySelector("output").textContent = `${formatNumber(found.length)} samples, ${formatNumber(chosen.length)} cards`;
  document.documentElement.dataset.searched = (performance.now() - started).toFixed(1);
}
form.addEventListener("input", () => { limits = { cards: CARDS, rows: ROWS }; update(); });
form.addEventListener("submit", (event) => event.preventDefault());
document.getElementById("more-cards").addEventListener("click", () => { limits.cards += 3 * CARDS; update(); });
document.getElementById("more-rows").addEventListener("click", () => { limits.rows += 4 * ROWS; update(); });
update();
