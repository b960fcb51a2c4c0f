// The form to try a model, made from its signature; and what came of it.

import { shareBar } from "./charts.js";
import { duration, keyOf, percent } from "./numbers.js";
import { make, offer } from "./tables.js";

const get = (id) => document.getElementById(id);
const NUMBERS = ["float64", "float32", "int64"];

/**
 * Run the form.
 *
 * `ask(path, options)` is fetch with the API key; `refused()` is called when the key is missing or wrong.
 */
export class TryForm {
  constructor(ask, refused) {
    this.ask = ask;
    this.refused = refused;
    this.forms = new Map();
    this.fields = [];
    /** Counts what was asked, so that a late answer is not shown for another question. */
    this.turn = 0;
    get("try-model").addEventListener("change", () => this.build());
    get("try-reset").addEventListener("click", () => this.reset());
    get("try-form").addEventListener("input", () => this.showCommand());
    get("try-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
  }

  /** Offer these models; the fields stay as they are when theirs hasn't changed. */
  update(models, preferred) {
    const before = this.form;
    this.forms = new Map(models.map((model) => [keyOf(model), model]));
    const select = get("try-model");
    const first = select.options.length === 0;
    offer(select, models.map((model) => [keyOf(model), `${model.model} ${model.version}`]));
    if (first && preferred && this.forms.has(preferred)) {
      select.value = preferred;
    }
    if (before === undefined || before.digest !== this.form?.digest || keyOf(before) !== keyOf(this.form)) {
      this.build();
    }
  }

  get form() {
    return this.forms.get(get("try-model").value);
  }

  build() {
    this.turn += 1;
    const inputs = this.form?.inputs ?? [];
    this.fields = inputs.map((input, place) => new Field(input, place));
    get("try-fields").replaceChildren(...this.fields.map((field) => field.whole));
    get("try-probabilities-label").hidden = !this.form?.probabilities;
    this.clear();
    get("answer").replaceChildren();
    this.showCommand();
  }

  reset() {
    this.fields.forEach((field) => field.fill());
    this.clear();
    this.showCommand();
  }

  clear() {
    this.fields.forEach((field) => field.complain(""));
    get("refusal").hidden = true;
    get("refusal").textContent = "";
  }

  body() {
    // Put together from texts, since a whole number may have more digits than JavaScript's numbers keep.
    const extra = this.form.probabilities && get("try-probabilities").checked ? ', "probabilities": true' : "";
    return `{"features": [${this.fields.map((field) => field.json()).join(", ")}]${extra}}`;
  }

  showCommand() {
    if (!this.form) {
      return;
    }
    const url = new URL(this.form.predict, document.baseURI);
    const key = document.documentElement.dataset.keys === "yes" ? ' -H "X-API-Key: $KEY"' : "";
    const body = this.body().replaceAll("'", "'\\''");
    get("curl").textContent = `curl -s '${url}'${key} -H 'Content-Type: application/json' -d '${body}'`;
  }

  async send() {
    this.clear();
    const unread = this.fields.find((field) => field.control.validity.badInput);
    if (unread) {
      this.refuse("this is no number", unread);
      return;
    }
    this.turn += 1;
    const turn = this.turn;
    const started = performance.now();
    let answer;
    let document_;
    try {
      answer = await this.ask(this.form.predict, {
        method: "POST", headers: { "Content-Type": "application/json" }, body: this.body(),
      });
      document_ = await answer.json();
    } catch {
      if (turn === this.turn) {
        this.refuse("no answer from the server");
      }
      return;
    }
    if (turn !== this.turn) {
      return;
    }
    const seconds = (performance.now() - started) / 1000;
    const requestId = answer.headers.get("X-Request-Id");
    if (answer.ok) {
      this.show(document_, requestId, seconds);
    } else {
      const place = /^features\[(\d+)\]: /.exec(document_.error);
      const field = place && this.fields[Number(place[1])];
      this.refuse(field ? document_.error.slice(place[0].length) : document_.error, field, `${answer.status}, request ${requestId}`);
    }
    if (answer.status === 401 || answer.status === 403) {
      this.refused();
    }
  }

  refuse(message, field, details = "") {
    get("answer").replaceChildren();
    const box = get("refusal");
    box.hidden = false;
    box.replaceChildren(make("strong", "", field ? `${field.name}: ` : ""), message);
    if (details) {
      box.append(" ", make("span", "hint", `(${details})`));
    }
    if (field) {
      field.complain(message);
      field.control.focus();
    }
  }

  show(found, requestId, seconds) {
    const parts = [
      make("p", "hint", "Prediction"),
      make("p", "big prediction", written(found.prediction)),
    ];
    if (Array.isArray(found.probabilities)) {
      parts.push(probabilities(found));
    }
    parts.push(make("p", "hint", `${duration(seconds)} to and fro, request `, make("code", "", requestId)));
    get("answer").replaceChildren(...parts);
  }
}

/** One input of the signature. */
class Field {
  constructor(input, place) {
    this.input = input;
    this.name = input.name;
    const id = `field-${place}`;
    this.control = control(input);
    this.control.id = id;
    this.control.setAttribute("aria-describedby", `${id}-error ${id}-hint`);
    this.error = make("p", "field-error");
    this.error.id = `${id}-error`;
    this.error.hidden = true;
    const hint = make("p", "hint", describe(input));
    hint.id = `${id}-hint`;
    hint.hidden = hint.textContent === "";
    const label = make("label", "", input.name);
    label.htmlFor = id;
    this.whole = make("div", this.control.type === "checkbox" ? "field tick" : "field", label, this.control, this.error, hint);
    this.control.addEventListener("input", () => this.complain(""));
    this.fill();
  }

  /** Put the example in. */
  fill() {
    const { control: shown, input: { example } } = this;
    if (shown.type === "checkbox") {
      shown.checked = example === true;
    } else if (shown.tagName === "SELECT") {
      shown.value = JSON.stringify(example);
    } else {
      shown.value = example === null ? "" : String(example);
    }
  }

  complain(message) {
    this.error.textContent = message;
    this.error.hidden = message === "";
    if (message) {
      this.control.setAttribute("aria-invalid", "true");
    } else {
      this.control.removeAttribute("aria-invalid");
    }
  }

  /** The value as JSON. An empty field is null, also where the model won't have it: then the server says so. */
  json() {
    const { control: shown, input: { dtype, nullable } } = this;
    if (shown.type === "checkbox") {
      return String(shown.checked);
    }
    if (shown.tagName === "SELECT") {
      return shown.value;
    }
    const text = shown.value.trim();
    if (NUMBERS.includes(dtype)) {
      if (text === "") {
        return "null";
      }
      return /^-?(0|[1-9]\d*)$/.test(text) ? text : JSON.stringify(Number(text));
    }
    return nullable && shown.value === "" ? "null" : JSON.stringify(shown.value);
  }
}

function control({ dtype, nullable, categories }) {
  const values = categories ?? (dtype === "bool" && nullable ? [true, false] : null);
  if (values) {
    const select = document.createElement("select");
    for (const value of nullable ? [...values, null] : values) {
      select.add(new Option(value === null ? "(missing)" : String(value), JSON.stringify(value)));
    }
    return select;
  }
  const input = document.createElement("input");
  input.autocomplete = "off";
  if (dtype === "bool") {
    input.type = "checkbox";
  } else if (NUMBERS.includes(dtype)) {
    input.type = "number";
    input.step = dtype === "int64" ? "1" : "any";
  } else {
    input.type = "text";
  }
  return input;
}

/** What the control itself doesn't tell. */
function describe({ dtype, nullable }) {
  return [dtype === "int64" ? "whole number" : "", nullable ? "may be missing" : ""].filter(Boolean).join(", ");
}

function written(value) {
  return typeof value === "string" ? value : JSON.stringify(value);
}

function probabilities({ probabilities: shares, classes }) {
  const rows = shares.map((share, place) => {
    const name = make("th", "", written(classes?.[place] ?? place));
    name.scope = "row";
    return make("tr", "", name, make("td", "number", percent(share)), make("td", "", shareBar(share)));
  });
  const head = make("tr", "", ...["Class", "Probability", ""].map((text) => {
    const cell = make(text ? "th" : "td", text === "Probability" ? "number" : "", text);
    if (text) {
      cell.scope = "col";
    }
    return cell;
  }));
  return make("table", "probabilities", make("thead", "", head), make("tbody", "", ...rows));
}
