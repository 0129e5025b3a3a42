// View 4: what was dropped for what: clusters, and two samples side by side.
import { openDetail } from "./detail.js";
import { ask, askIndexed, formatNumber, formatValue, make, makeError, makeOutcome, makePicture, makeSelect, makeSource, makeSvg, shortenId } from "./dom.js";
import { drawSampleLine } from "./samples.js";

const ORDERS = [["largest", "largest first"], ["least similar", "least similar first"], ["most similar", "most similar first"]];
const PAGE = 40;

export async function showDuplicates(view, query, current) {
  if (!(await askIndexed("/api/dimensions", view, current))) return null;
  view.replaceChildren();
  const state = { reason: query.get("reason") ?? "", order: query.get("order") ?? "largest", first: 0, chosen: query.get("keeper") };
  const head = make("div", { className: "line wrap" }), list = make("div", { className: "panel list" }), main = make("div", { className: "results" });
  const remember = () => history.replaceState(null, "", `#duplicates?${new URLSearchParams(Object.entries({ reason: state.reason, order: state.order, keeper: state.chosen ?? "" }).filter(([, value]) => value))}`);

  const choose = async (keeper) => {
    state.chosen = keeper;
    remember();
    for (const button of list.querySelectorAll("button[data-keeper]")) button.ariaPressed = String(button.dataset.keeper === keeper);
    try { drawCluster(main, await ask("/api/cluster", { keeper })); } catch (error) { main.replaceChildren(makeError(error)); }
  };

  const load = async (first) => {
    const found = await ask("/api/duplicates", { reason: state.reason, order: state.order, first });
    if (!first) {
      list.replaceChildren(head);
      const again = (name) => (value) => { state[name] = value; load(0); };
      head.replaceChildren(make("span", {}, make("b", {}, formatNumber(found.number)), ` clusters, ${formatNumber(found.dropped)} dropped`),
        makeSelect("reason", [["", "all reasons"], ...Object.entries(found.reasons).map(([name, number]) => [name, `${name} (${formatNumber(number)})`])], state.reason, again("reason")),
        makeSelect("order", ORDERS, state.order, again("order")), drawSimilarities(found.similarities));
      if (!found.clusters.length) main.replaceChildren(make("section", {}, make("p", { className: "soft" }, "Nothing was dropped for another sample.")));
    }
    list.querySelector(".more")?.remove();
    list.append(...found.clusters.map((one) => {
      const button = make("button", { type: "button", ariaPressed: "false", title: one.keeper },
        make("span", { className: "mono cut" }, shortenId(one.keeper)), make("span", { className: "soft" }, formatNumber(one.dropped)),
        make("span", { className: "below" }, ...one.reasons.map(makeOutcome), make("span", { className: "soft" }, one.least === one.most ? formatValue(one.least) : `${formatValue(one.least)} to ${formatValue(one.most)}`)));
      Object.assign(button.dataset, { keeper: one.keeper, item: one.keeper });
      button.addEventListener("click", () => choose(one.keeper));
      return button;
    }));
    if (first + found.clusters.length < found.number) {
      const more = make("button", { type: "button", className: "more", textContent: "more" });
      more.addEventListener("click", () => load(first + PAGE));
      list.append(more);
    }
    if (!first && found.clusters.length) await choose(state.chosen ?? found.clusters[0].keeper);
  };
  view.append(make("div", { className: "samples" }, list, main));
  await load(0);
  return null;
}

function drawSimilarities({ edges, counts, same }) {
  if (!counts.length) return make("p", { className: "soft small" }, "All are exact copies.");
  const most = Math.max(1, ...counts), width = 240 / counts.length;
  const bars = counts.map((count, bin) => {
    const bar = makeSvg("rect", { class: "in", x: bin * width + 0.5, width: width - 1, y: 40 - (count / most) * 38, height: (count / most) * 38 });
    bar.append(makeSvg("title", {}, `${formatValue(edges[bin])} to ${formatValue(edges[bin + 1])}: ${count}`));
    return bar;
  });
  return make("div", { className: "dimension" }, make("div", { className: "dimension-head" }, make("span", {}, "similarity of near ones"), make("span", { className: "soft" }, `and ${formatNumber(same)} exact`)),
    makeSvg("svg", { viewBox: "0 0 240 40", preserveAspectRatio: "none", class: "histogram short" }, ...bars),
    make("div", { className: "ends soft" }, make("span", {}, formatValue(edges[0])), make("span", {}, "1")));
}

function drawCluster(main, cluster) {
  const beside = make("section", { className: "beside" });
  const members = make("div", { className: "grid small-grid" }, ...cluster.members.map((member) => {
    const card = drawSampleLine({ ...member, outcome: member.reason }, () => compare(member), formatValue(member.score));
    card.dataset.number = member.number;
    card.dataset.node = member.node;
    return card;
  }));
  const compare = async (member) => {
    for (const card of members.children) card.ariaPressed = String(card.dataset.number === String(member.number) && card.dataset.node === String(member.node));
    if (!cluster.keeper) { beside.replaceChildren(make("p", { className: "note" }, `The kept one, ${cluster.name}, is not in this run's tables any more.`)); return; }
    try {
      drawSides(beside, member, await ask("/api/compare", { one: cluster.keeper.number, other: member.number, node: member.node }));
    } catch (error) { beside.replaceChildren(makeError(error)); }
  };
  main.replaceChildren(beside, make("section", {}, make("h3", {}, `Dropped for it: ${formatNumber(cluster.number)}${cluster.members.length < cluster.number ? `, ${cluster.members.length} shown` : ""}`), members));
  if (cluster.members.length) compare(cluster.members[0]);
}

function drawSides(beside, member, found) {
  const side = (one, title) => {
    const open = make("button", { type: "button", className: "quiet", textContent: "open" });
    open.addEventListener("click", () => openDetail(found.sides.map((each) => each.number), one.number));
    const source = one.id.split("/")[0];
    return make("div", { className: "side" }, make("div", { className: "line" }, make("b", {}, title), makeSource(source), ...(one.licence ? [make("span", { className: "soft" }, one.licence)] : []), make("span", { className: "grow" }), open),
      make("p", { className: "mono soft cut", title: one.id }, one.id),
      make("div", { className: "side-pictures" }, ...one.pictures.map((picture) => make("figure", {}, makePicture(picture, 360, "picture"),
        make("figcaption", { className: "small soft" }, picture.facts.length ? `${picture.facts[2]} ${picture.facts[0]} x ${picture.facts[1]}` : "")))));
  };
  const how = make("p", { className: "line" }, makeOutcome(member.reason), make("span", { className: "soft" }, `similarity ${formatValue(member.score)}${member.node >= 0 ? `, node ${member.node}` : ", the whole sample"}`));
  beside.replaceChildren(how, make("div", { className: "two" }, side(found.sides[0], "Kept"), side(found.sides[1], "Dropped")));
  if (!found.texts.length) return;
  const same = found.texts.every(([kind]) => kind === "same");
  beside.append(make("h3", {}, same ? "Their text, the same" : "Their texts"), ...(same ? [] : [make("p", { className: "small soft" }, make("ins", {}, "only in the kept one"), " ", make("del", {}, "only in the dropped one"))]),
    make("div", { className: "diff-text" }, ...found.texts.map(([kind, text]) => make({ same: "span", kept: "ins", dropped: "del" }[kind], { textContent: text }))));
}
