// The page: ask for the state every two seconds while somebody looks, and show it.

import { TryForm } from "./form.js";
import { History, keyOf, span } from "./numbers.js";
import { make, offer } from "./tables.js";
import { showNumbers, WINDOW_SECONDS } from "./views.js";

const get = (id) => document.getElementById(id);
const POLL_SECONDS = 2;
const SLOWEST_POLL_SECONDS = 10;

const history = new History(WINDOW_SECONDS);
/** Only here, and in the requests' header: never in the page, the address, or anything that is stored. */
let apiKey = "";
let models = new Map();
let digests = "";
const instances = new Set();
let failures = 0;
let timer;

function ask(path, options = {}) {
  const headers = { Accept: "application/json", ...options.headers };
  if (apiKey) {
    headers["X-API-Key"] = apiKey;
  }
  return fetch(path, { ...options, headers, cache: "no-store", credentials: "omit", signal: AbortSignal.timeout(8000) });
}

const form = new TryForm(ask, askForKey);

async function poll() {
  clearTimeout(timer);
  try {
    const state = await fetched("ui/state");
    if (!state) {
      return;
    }
    if (loaded(state.models) !== digests) {
      const found = await fetched("ui/models");
      if (!found) {
        return;
      }
      models = new Map(found.models.map((model) => [keyOf(model), model]));
      // Of what was got: during a reload another worker may have answered.
      digests = loaded(found.models);
      const preferred = state.models.find((model) => model.default);
      form.update(found.models, preferred && keyOf(preferred));
      offer(get("drift-model"), found.models.map((model) => [keyOf(model), `${model.model} ${model.version}`]));
    }
    failures = 0;
    history.add(state);
    instances.add(state.instance);
    get("content").hidden = false;
    show();
  } catch {
    failures += 1;
    say("lost", "No answer from the server; trying again");
  }
  again();
}

/** Which bundles these are, as one text. */
function loaded(list) {
  return list.filter((model) => model.digest).map((model) => `${keyOf(model)} ${model.digest}`).join(" ");
}

/** A document of the server; nothing when it wants a key first. */
async function fetched(path) {
  const answer = await ask(path);
  if (answer.status === 401 || answer.status === 403) {
    askForKey();
    return null;
  }
  if (!answer.ok) {
    throw new Error(`${path}: ${answer.status}`);
  }
  return answer.json();
}

function again() {
  clearTimeout(timer);
  if (!document.hidden) {
    timer = setTimeout(poll, 1000 * Math.min(POLL_SECONDS * 2 ** failures, SLOWEST_POLL_SECONDS));
  }
}

document.addEventListener("visibilitychange", () => {
  clearTimeout(timer);
  if (!document.hidden && get("key-section").hidden) {
    poll();
  }
});

// ---- the API key

function askForKey() {
  clearTimeout(timer);
  const refused = apiKey !== "";
  apiKey = "";
  history.states = [];
  get("content").hidden = true;
  get("key-section").hidden = false;
  get("key-error").hidden = !refused;
  get("key-error").textContent = refused ? "The server does not take this key." : "";
  say("waiting", "Waiting for a key");
  get("key").focus();
}

get("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  apiKey = get("key").value.trim();
  get("key").value = "";
  if (/[^\x21-\x7e]/.test(apiKey)) {
    // No header can hold it, so no server takes it.
    askForKey();
  } else if (apiKey) {
    get("key-section").hidden = true;
    say("waiting", "Waiting for the server");
    poll();
  }
});

// ---- what is shown

function show() {
  const now = history.latest;
  const ready = now.status === "ready";
  say(ready ? "ready" : "failed", ready ? "Ready" : "Not ready");
  get("problems").hidden = ready;
  if (get("problems").dataset.value !== now.problems.join("\n")) {
    get("problems").dataset.value = now.problems.join("\n");
    get("problems").replaceChildren(...now.problems.map((problem) => make("li", "", problem)));
  }
  const many = instances.size > 1 ? " Several replicas answer in turn: look at one by kubectl port-forward." : "";
  get("facts").textContent = `Muelle ${now.version}, up for ${span(now.now - now.started_at)}.`;
  get("instance").textContent = `From ${now.instance}, ${new Date(now.now * 1000).toLocaleTimeString()}.${many}`;
  showNumbers(history, models);
}

function say(state, text) {
  const status = get("status");
  if (status.textContent !== text) {
    status.dataset.state = state;
    status.textContent = text;
    document.title = state === "ready" ? "Muelle" : `${text} – Muelle`;
  }
}

if (document.documentElement.dataset.keys === "yes") {
  askForKey();
} else {
  poll();
}
