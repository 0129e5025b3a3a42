// A segment as the trainer sees it, and small things that pages are made of. Texts of data are set as text alone.
export const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};
export const makeDot = (colour) => { const mark = make("span", { className: "dot" }); mark.style.background = colour; return mark; };
export const makeChip = (...children) => make("span", { className: "chip" }, ...children);
export const formatNumber = (value) => value.toLocaleString("en");

const escapePattern = (mark) => mark.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");

function drawRun({ text, supervised, image }, marks) {
  if (image) return [make("span", { className: "mark picture-mark", textContent: `image: ${formatNumber(image)} tokens` })];
  const pieces = marks.length ? text.split(new RegExp(`(${marks.map(escapePattern).join("|")})`)).filter(Boolean) : [text];
  return pieces.map((piece) => make("span", { className: (marks.includes(piece) ? "mark " : "") + (supervised ? "supervised" : ""), textContent: piece }));
}

function drawPacked(card, colours) {
  return make("div", { className: "packed", title: `sequence ${card.sequence} of ${card.stage}` }, ...card.neighbours.map((other, place) => {
    const segment = make("i", { className: place === card.place ? "me" : "", title: `${other.id}\n${other.tokens} tokens` });
    segment.style.width = `${(100 * other.tokens) / card.length}%`;
    segment.style.background = colours[other.entry.split("@")[0]];
    return segment;
  }));
}

const drawPicture = (shown) => make("figure", {},
  make("img", { src: shown.picture, loading: "lazy", decoding: "async", alt: "" }),
  make("figcaption", {}, `${shown.size.join(" x ")} px, ${shown.tiles} ${shown.tiles === 1 ? "tile" : "tiles"}, ${formatNumber(shown.tokens)} tokens`));

// `chips`: what else is said of the sample; `marks`: the marks of the chat format.
export function drawCard(card, { colours, marks, chips = [] }) {
  const [first, last, whole] = card.nodes;
  const cut = last - first < whole ? [makeChip(`nodes ${first + 1} to ${last} of ${whole}`)] : [];
  if (card.cut) cut.push(makeChip("cut inside a text"));
  return make("div", { className: "card" },
    make("div", { className: "mono" }, card.id),
    make("div", { className: "chips" }, makeChip(makeDot(colours[card.source]), `${card.stage}: ${card.entry}`), ...chips.map((said) => makeChip(said)),
      makeChip(`${formatNumber(card.tokens)} tokens, ${formatNumber(card.supervised)} supervised`), ...cut, ...(card.licence ? [makeChip(card.licence)] : [])),
    ...(card.pictures.length ? [make("div", { className: "pictures" }, ...card.pictures.map(drawPicture))] : []),
    make("div", { className: "text" }, ...card.text.flatMap((run) => drawRun(run, marks))),
    drawPacked(card, colours),
    make("div", { className: "soft packed-note" }, `sequence ${formatNumber(card.sequence)}, ${card.neighbours.length === 1 ? "alone" : `${card.neighbours.length} segments`}`));
}
