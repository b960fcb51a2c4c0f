// The parts of the page that show numbers: models, the four tiles, drift.

import { binChart, lineChart, style } from "./charts.js";
import {
  bytes, count, drift, duration, integer, keyOf, latencies, modelOf, percent, perSecond, quantile, rate, requests, sum,
} from "./numbers.js";
import { fill, make } from "./tables.js";

const get = (id) => document.getElementById(id);
/** What the charts and the sliding window of drift look back. */
export const WINDOW_SECONDS = 300;
/** What a rate "now" is taken over. */
const MOMENT_SECONDS = 10;
const MINUTE = 60;
/** Features that are shown before all of them are asked for. */
const FIRST_FEATURES = 8;

let history;
let models;
let allFeatures = false;

/** Show the latest state of a history; `known` has, by key, what doesn't change about each model. */
export function showNumbers(past, known) {
  history = past;
  models = known;
  const now = history.latest;
  showModels(now);
  showTraffic(now);
  showLatency(now);
  showErrors(now);
  showLoad(now);
  showDrift(now);
}

function showModels(now) {
  const before = history.before(now, MINUTE);
  fill(get("models-table"), now.models.map((model) => {
    const key = keyOf(model);
    const byCode = requests(now, key);
    const all = count(byCode);
    const errors = count(byCode, "4") + count(byCode, "5");
    const recent = latencies(now, before, key);
    const digest = model.digest?.replace("sha256:", "") ?? "–";
    return [
      `${model.model} ${model.version}${model.default ? " (default)" : ""}`,
      { value: model.reason ? `${model.state}: ${model.reason}` : model.state, kind: `state ${model.state}` },
      model.engine ? `${model.engine}, ${model.estimator}` : "–",
      perSecond(rate(now, before, (state) => count(requests(state, key)))),
      integer(all),
      { value: all ? `${integer(errors)} (${percent(errors / all)})` : "0", kind: count(byCode, "5") ? "alarm" : "" },
      duration(quantile(0.5, now.bounds_seconds, recent)),
      duration(quantile(0.95, now.bounds_seconds, recent)),
      driftCell(now, key),
      { value: digest, draw: () => make("code", "digest", digest) },
    ];
  }));
}

function driftCell(now, key) {
  const found = driftOf(now, key);
  const drifted = found.filter((item) => item.state === "drifted");
  if (drifted.length) {
    return { value: `${drifted.length} of ${found.length} drifted`, kind: "verdict drifted" };
  }
  if (!found.length) {
    return "–";
  }
  const known = found.some((item) => item.state === "stable");
  return { value: known ? "stable" : "too few rows", kind: `verdict ${known ? "stable" : "few"}` };
}

/** [time, value] for every state that there is, `read(state, one MOMENT before)` giving the value. */
function series(read) {
  return history.states.map((state) => [state.now, read(state, history.before(state, MOMENT_SECONDS))]);
}

function draw(id, lines, least, format) {
  const to = history.latest.now;
  lineChart(get(id), lines, { from: to - WINDOW_SECONDS, to, least, format });
}

function keyed(text, place) {
  return { value: text, draw: () => [make("span", `swatch ${style(place)}`), text] };
}

function showTraffic(now) {
  const moment = history.before(now, MOMENT_SECONDS);
  const all = (state) => count(requests(state));
  get("traffic-value").textContent = perSecond(rate(now, moment, all));
  const keys = now.models.map(keyOf);
  draw("traffic-chart", keys.map((key) => series((a, b) => rate(a, b, (s) => count(requests(s, key))))), 1, shortNumber);
  fill(get("traffic-table"), now.models.map((model, place) => {
    const key = keyOf(model);
    return [
      keyed(`${model.model} ${model.version}`, place),
      perSecond(rate(now, moment, (state) => count(requests(state, key)))),
      perSecond(rate(now, moment, (state) => modelOf(state, key)?.rows ?? 0)),
    ];
  }));
}

function showLatency(now) {
  const before = history.before(now, MINUTE);
  const bounds = now.bounds_seconds;
  const shares = [0.5, 0.95, 0.99];
  const recent = latencies(now, before);
  get("latency-value").textContent = duration(quantile(0.95, bounds, recent));
  draw(
    "latency-chart",
    shares.map((share) => history.states.map((state) => {
      const earlier = history.before(state, MOMENT_SECONDS);
      return [state.now, earlier === state ? null : quantile(share, bounds, latencies(state, earlier))];
    })),
    0.002,
    shortSeconds,
  );
  fill(get("latency-table"), now.models.map((model) => {
    const counts = latencies(now, before, keyOf(model));
    return [`${model.model} ${model.version}`, ...shares.map((share) => duration(quantile(share, bounds, counts)))];
  }));
}

function showErrors(now) {
  const oldest = history.before(now, WINDOW_SECONDS);
  const kinds = [
    ["refused (4xx)", (state) => count(requests(state), "4")],
    ["failed (5xx)", (state) => count(requests(state), "5")],
  ];
  const total = count(requests(now)) - count(requests(oldest));
  const wrong = sum(kinds.map(([, read]) => read(now) - read(oldest)));
  get("errors-value").textContent = total > 0 ? percent(wrong / total) : "–";
  draw("errors-chart", kinds.map(([, read]) => series((a, b) => rate(a, b, read))), 0.1, shortNumber);
  const rows = kinds.map(([name, read], place) => [keyed(name, place), integer(read(now) - read(oldest)), integer(read(now))]);
  rows.push(["of them too busy", integer(now.shed - oldest.shed), integer(now.shed)]);
  const unknown = (state) => sum(Object.values(state.unknown));
  rows.push(["of no served model", integer(unknown(now) - unknown(oldest)), integer(unknown(now))]);
  fill(get("errors-table"), rows);
}

function showLoad(now) {
  const moment = history.before(now, MOMENT_SECONDS);
  const cores = (state) => sum(state.processes.map((process) => process.cpu_seconds));
  const memory = sum(now.processes.map((process) => process.memory_bytes));
  const used = rate(now, moment, cores);
  get("load-value").textContent = `${used === null ? "–" : used.toFixed(2)} cores, ${bytes(memory)}`;
  draw("load-chart", [series((a, b) => rate(a, b, cores))], 0.1, shortNumber);
  fill(get("load-table"), now.processes.map((process) => {
    const of = (state) => state.processes.find((other) => other.slot === process.slot)?.cpu_seconds ?? 0;
    const share = rate(now, moment, of);
    const name = /^\d+$/.test(process.slot) ? `worker ${process.slot}` : process.slot;
    return [name, share === null ? "–" : share.toFixed(2), bytes(process.memory_bytes)];
  }));
}

function shortNumber(value) {
  return String(Number(value.toPrecision(2)));
}

function shortSeconds(value) {
  return value >= 1 ? `${shortNumber(value)} s` : `${shortNumber(value * 1000)} ms`;
}

// ---- drift

function driftOf(now, key) {
  const sliding = document.querySelector('input[name="window"]:checked').value === "sliding";
  return drift(now, sliding ? history.before(now, WINDOW_SECONDS) : null, key, models.get(key)?.references ?? {});
}

function showDrift(now) {
  const key = get("drift-model").value;
  const found = driftOf(now, key);
  const drifted = found.filter((item) => item.state === "drifted");
  const judged = found.filter((item) => item.state !== "too few rows");
  let verdict = "Drift is not counted for this model.";
  if (drifted.length) {
    verdict = `${drifted.length} of ${found.length} drifted: ${drifted.map(shown).join(", ")}`;
  } else if (judged.length) {
    const few = found.length - judged.length;
    verdict = `No drift in ${judged.length} of ${found.length}${few ? `, too few rows for ${few}` : ""}.`;
  } else if (found.length) {
    verdict = "Too few rows to tell: more than 200 are needed.";
  }
  const box = get("drift-verdict");
  if (box.textContent !== verdict) {
    box.textContent = verdict;
    box.className = `verdict ${drifted.length ? "drifted" : judged.length ? "stable" : "few"}`;
  }
  fill(get("drift-table"), found.slice(0, allFeatures ? found.length : Math.max(FIRST_FEATURES, drifted.length)).map(driftRow));
  const more = get("drift-all");
  more.hidden = found.length <= FIRST_FEATURES;
  more.textContent = allFeatures ? "Show the largest only" : `Show all ${found.length}`;
  more.setAttribute("aria-expanded", String(allFeatures));
}

function driftRow(item) {
  const { state, excess, psi, critical, rows, shares, largest, reference } = item;
  const most = `${reference.bins[largest]}: ${percent(reference.ratios[largest])} to ${percent(shares[largest])}`;
  return [
    shown(item),
    { value: state, kind: `verdict ${state === "too few rows" ? "few" : state}` },
    {
      value: `${item.feature} ${shares.map((share) => share.toFixed(3)).join(" ")}`,
      draw: () => binChart(reference.ratios, shares, `Shares of ${reference.ratios.length} bins; ${most}`),
    },
    ...[excess, psi, critical].map((value) => value.toFixed(3)),
    integer(rows),
    rows ? most : "–",
  ];
}

function shown({ feature }) {
  return /^(predict(\[\d+\])?|confidence)$/.test(feature) ? `(${feature})` : feature;
}

get("drift-all").addEventListener("click", () => {
  allFeatures = !allFeatures;
  showDrift(history.latest);
});
get("drift-model").addEventListener("change", () => showDrift(history.latest));
for (const radio of document.querySelectorAll('input[name="window"]')) {
  radio.addEventListener("change", () => {
    showModels(history.latest);
    showDrift(history.latest);
  });
}
