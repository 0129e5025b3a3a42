// View 6: a build as it goes, and a training: read again every other second while a command is at work.
import { ask, formatBytes, formatNumber, formatSeconds, formatShare, formatShort, make, makeOutcome, makeSource, makeStack, makeSvg, makeTable, run, sourceColour } from "./dom.js";

const KINDS = ["rows", "images", "texts", "bytes", "failed", "dropped"];
const MEMORY = 60_000;
const WIDTH = 720, HEIGHT = 220;
const SMOOTH = 6;  // points on either side that a point of a curve is the mean of

export async function showBuild(view, query, current) {
  let gone = false;
  const seen = [];  // how many tasks were done when, over the last minute
  const places = Object.fromEntries(["running", "phases", "training", "steps", "losses", "disk", "events"].map((name) => [name, make("section", {})]));
  view.append(...Object.values(places));
  const load = async () => {
    const [build, training] = await Promise.all([ask("/api/build"), ask("/api/training")]);
    if (gone || !current()) return false;
    seen.push({ at: performance.now(), done: countDone(build.steps) });
    while (seen.length > 2 && performance.now() - seen[0].at > MEMORY) seen.shift();
    drawRunning(places.running, build, seen);
    drawPhases(places.phases, build);
    drawTraining(places.training, training);
    drawSteps(places.steps, build);
    drawLosses(places.losses, build);
    drawDisk(places.disk, build.disk);
    drawEvents(places.events, build.events);
    return Boolean(build.running?.alive);
  };
  let working = await load();
  const turn = async () => {
    if (gone) return;
    if (document.visibilityState === "visible") try { working = await load(); } catch { working = false; }
    setTimeout(turn, working ? 2000 : 6000);
  };
  setTimeout(turn, 2000);
  return () => { gone = true; };
}

const countDone = (steps) => steps.reduce((sum, step) => sum + step.done, 0);

function drawRunning(place, build, seen) {
  const { running, phases } = build, last = phases.at(-1);
  if (!running) {
    const ended = build.events.at(-1);
    place.replaceChildren(make("h2", {}, "No command is at work"), make("p", { className: "soft" }, ended ? `The last one: ${ended.command ?? ""} ${ended.event}, ${describeTime(ended.time)}${ended.message ? `: ${ended.message}` : ""}` : "This run has no log of events."));
    return;
  }
  const head = running.alive ? `vlmill ${running.command} is at work` : `vlmill ${running.command} was interrupted`;
  const lines = [make("p", { className: "soft" }, `since ${describeTime(running.since)}, process ${running.pid}${running.alive ? "" : ", which is not on this machine any more: the same command goes on"}`)];
  if (running.alive && last && last.seconds === null) {
    const spent = (Date.parse(build.now) - Date.parse(last.began)) / 1000, first = seen[0], newest = seen.at(-1);
    const rate = newest.at - first.at > 500 ? (1000 * (newest.done - first.done)) / (newest.at - first.at) : 0;
    const begun = build.steps.filter((step) => !step.complete && step.tasks !== null), left = begun.reduce((sum, step) => sum + step.tasks - step.done, 0);
    lines.push(make("p", {}, make("b", {}, last.phase), ` for ${formatSeconds(spent)}, ${formatNumber(last.tasks ?? 0)} tasks${rate ? `; ${rate.toFixed(1)} tasks/s` : ""}${rate && left ? `, about ${formatSeconds(left / rate)} for the ${formatNumber(left)} tasks of begun steps` : ""}`));
  }
  place.replaceChildren(make("h2", {}, head), ...lines);
}

const describeTime = (time) => (time ? new Date(time).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" }) : "");

function drawPhases(place, { phases }) {
  if (!phases.length) { place.hidden = true; return; }
  place.hidden = false;
  const longest = Math.max(1e-9, ...phases.map((phase) => phase.seconds ?? 0));
  const rates = (phase) => KINDS.filter((kind) => phase.work?.[kind] && phase.seconds > 0.05).map((kind) => (kind === "bytes" ? `${formatBytes(phase.work.bytes / phase.seconds)}/s` : `${formatShort(phase.work[kind] / phase.seconds)} ${kind}/s`)).join(", ");
  place.replaceChildren(make("h2", {}, "Phases"), makeTable(["phase", "", "time", "tasks", "rates"], phases.map((phase) => {
    const bar = make("i", {});
    bar.style.width = `${(100 * (phase.seconds ?? longest)) / longest}%`;
    return make("tr", { className: phase.seconds === null ? "now" : "" }, make("td", { className: "left" }, phase.phase), make("td", { className: "bar-cell" }, bar), make("td", {}, phase.seconds === null ? "at work" : formatSeconds(phase.seconds)), make("td", {}, formatNumber(phase.tasks ?? 0)), make("td", { className: "left soft" }, rates(phase)));
  }), [0, 1, 4]));
}

function drawSteps(place, { steps }) {
  const phases = new Map();
  for (const step of steps) {
    const line = phases.get(step.phase) ?? phases.set(step.phase, new Map()).get(step.phase);
    line.set(step.step, [...(line.get(step.step) ?? []), step]);
  }
  const rows = [];
  for (const [phase, found] of phases) {
    for (const [name, parts] of found) {
      const done = parts.reduce((sum, part) => sum + part.done, 0), known = parts.every((part) => part.tasks !== null), tasks = known ? parts.reduce((sum, part) => sum + part.tasks, 0) : null;
      const missing = parts.filter((part) => !part.complete && part.done !== part.tasks).map((part) => (part.of ? `${part.tasks === null ? "some" : formatNumber(part.tasks - part.done)} of ${part.of}` : "some"));
      rows.push([phase, name, makeStack([{ name: "done", number: done, colour: missing.length ? "var(--accent)" : "var(--kept)" }], Math.max(1, tasks ?? done + 1)), `${formatNumber(done)} of ${tasks === null ? "?" : formatNumber(tasks)}`, missing.join(", ")]);
    }
  }
  place.replaceChildren(make("h2", {}, "Steps"), make("p", { className: "soft" }, "Tasks that are committed. Steps that were not begun are not listed."), make("details", { open: rows.some((row) => row[4]) }, make("summary", {}, `${rows.length} steps`), makeTable(["phase", "step", "", "tasks", "missing"], rows, [0, 1, 2, 4])));
}

function drawLosses(place, { dropped, hosts }) {
  const drops = !dropped.length ? make("p", { className: "soft" }, "Nothing yet.") : makeTable(["step", "source", "reason", "of", "so far"], dropped.slice(0, 40).map((one) => [one.step, makeSource(one.source), makeOutcome(one.reason), make("span", { className: "soft" }, one.level), formatNumber(one.number)]), 4);
  const failures = hosts.length ? makeTable(["host", "asked", "failed", "", "bytes", "reasons"], hosts.map((one) => [make("span", { className: "mono" }, one.host), formatNumber(one.asked), formatNumber(one.failed), formatShare(one.failed, one.asked), one.bytes === null ? "?" : formatBytes(one.bytes), make("span", {}, ...Object.keys(one.reasons).slice(0, 3).map(makeOutcome))]), [0, 5]) : make("p", { className: "soft" }, "No host failed; or no source names pictures by address.");
  place.replaceChildren(make("div", { className: "two" }, make("div", {}, make("h2", {}, "Lost so far"), drops), make("div", {}, make("h2", {}, "Hosts that failed"), make("p", { className: "soft" }, "Counted in at most 200 of the partitions that were fetched; not of a run on object storage."), failures)));
}

function drawDisk(place, disk) {
  const folders = Object.entries(disk.folders), sum = folders.reduce((whole, [, size]) => whole + size, 0);
  const colours = ["#3f90da", "#ffa90e", "#832db6", "#a96b59", "#717581"];
  place.replaceChildren(make("h2", {}, "Disk"), make("p", {}, `${formatBytes(sum)} in the run, ${formatBytes(disk.free)} free of ${formatBytes(disk.total)}`),
    makeStack(folders.map(([name, number], at) => ({ name, number, colour: colours[at] })), sum),
    make("div", { className: "legend" }, ...folders.map(([name, size], at) => {
      const dot = make("span", { className: "dot" });
      dot.style.background = colours[at];
      return make("span", { className: "named" }, dot, `${name} ${formatBytes(size)}`);
    })));
}

function drawEvents(place, events) {
  if (!events.length) { place.hidden = true; return; }
  place.replaceChildren(make("h2", {}, "Log"), make("details", {}, make("summary", {}, `${events.length} events`), makeTable(["time", "event", "command", "what"], [...events].reverse().map((event) => [
    make("span", { className: "soft" }, describeTime(event.time)), event.event, event.command ?? "", make("span", { className: "url" }, event.message ?? event.recipe ?? "")]), 4)));
}

// -- training

function drawTraining(place, stages) {
  place.hidden = !stages.length;
  if (!stages.length) return;
  place.replaceChildren(make("h2", {}, "Training"), make("div", { className: "two" }, ...stages.map((stage) => make("div", {}, make("h3", {}, stage.stage),
    make("p", { className: "soft" }, stage.last.step === undefined ? "no step yet" : `step ${formatNumber(stage.last.step + 1)}, loss ${stage.last.loss.toFixed(3)}, ${formatShort(stage.last.tokens_per_second)} tokens/s, waited ${(100 * (stage.last.waited ?? 0)).toFixed(0)} % for data`),
    drawCurves(stage), make("div", { className: "legend" }, make("span", { className: "named" }, make("span", { className: "dot ink" }), "all"), ...Object.keys(stage.sources).map((name) => makeSource(name)))))));
}

function drawCurves({ steps, loss, sources }) {
  const values = [...loss, ...Object.values(sources).flat()].filter((value) => value !== null).sort((one, other) => one - other);
  if (!values.length) return make("p", { className: "soft" }, "no losses yet");
  const low = values[0], high = values[Math.floor(0.995 * (values.length - 1))], last = steps.at(-1);
  const x = (step) => 34 + ((WIDTH - 40) * step) / last, y = (value) => 8 + (HEIGHT - 28) * (1 - (Math.min(value, high) - low) / (high - low || 1));
  const smooth = (found) => found.map((_, at) => { const near = found.slice(Math.max(0, at - SMOOTH), at + SMOOTH + 1).filter((value) => value !== null); return near.length ? near.reduce((sum, value) => sum + value, 0) / near.length : null; });
  const line = (given, colour, width) => drawLine(smooth(given), colour, width);
  const drawLine = (found, colour, width) => makeSvg("polyline", { points: found.map((value, at) => (value === null ? "" : `${x(steps[at]).toFixed(1)},${y(value).toFixed(1)}`)).join(" "), fill: "none", stroke: colour, "stroke-width": width, "stroke-linejoin": "round" });
  const marks = [0, 0.5, 1].map((share) => low + share * (high - low)).flatMap((value) => [makeSvg("line", { class: "rule", x1: 34, x2: WIDTH - 6, y1: y(value), y2: y(value) }), makeSvg("text", { x: 30, y: y(value) + 4, "text-anchor": "end" }, value.toFixed(1))]);
  const ends = [makeSvg("text", { x: 34, y: HEIGHT - 2 }, "0"), makeSvg("text", { x: WIDTH - 6, y: HEIGHT - 2, "text-anchor": "end" }, `step ${last}`)];
  return makeSvg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "curves", role: "img", "aria-label": "losses by step" }, ...marks, ...ends, ...Object.entries(sources).map(([name, found]) => line(found, sourceColour(name), 1.5)), line(loss, "var(--ink)", 2.5));
}
