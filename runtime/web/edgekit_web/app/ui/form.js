/**
 * A form for prompts that are names with values, `part: bracket; finding: scratch`.
 *
 * An adapter has one where its examples have that form, all with the same names, or where it has been used before: asked in
 * another form than it was trained on, an adapter answers worse.
 */

import { say } from "./strings.js";

const KEY = "edgekit form ";
const FEWEST_EXAMPLES = 2; // one alone shows no form
const MOST_FIELDS = 12;

export class Form {
  /** @param {HTMLElement} place */
  constructor(place) {
    this.place = place;
    this.adapter = "";
  }

  /**
   * Show the fields of an adapter.
   *
   * @param {string} adapter
   * @param {string[]} examples its example prompts
   * @returns {boolean} whether there are any
   */
  show(adapter, examples) {
    this.adapter = adapter;
    const names = kept(adapter) ?? namesIn(examples);
    const more = document.createElement("button");
    more.type = "button";
    more.textContent = say("addField");
    more.addEventListener("click", () => {
      const field = this.field("");
      more.before(field);
      field.querySelector("input").focus();
    });
    this.place.replaceChildren(...names.map((name) => this.field(name)), more);
    return names.length > 0;
  }

  field(name, text = "") {
    const row = document.createElement("div");
    row.className = "field";
    const [key, value] = ["fieldName", "fieldValue"].map((label) => {
      const input = document.createElement("input");
      input.setAttribute("aria-label", say(label));
      input.autocomplete = "off";
      return input;
    });
    key.value = name;
    value.value = text;
    value.setAttribute("aria-label", name || say("fieldValue"));
    key.addEventListener("input", () => value.setAttribute("aria-label", key.value || say("fieldValue")));
    row.append(key, value);
    return row;
  }

  /** The line; empty when nothing is filled in. */
  text() {
    const rows = this.rows();
    localStorage.setItem(KEY + this.adapter, JSON.stringify(rows.map(([name]) => name).filter(Boolean)));
    return rows
      .filter(([, value]) => value)
      .map(([name, value]) => (name ? `${name}: ${value}` : value))
      .join("; ");
  }

  /** Fill in a line of that form.  @param {string} line */
  fill(line) {
    for (const field of this.place.querySelectorAll(".field")) field.remove();
    this.place.prepend(...pairs(line).map(([name, value]) => this.field(name, value)));
  }

  /** Say it in another language; what is filled in stays. */
  redraw() {
    const rows = this.rows();
    this.place.querySelector(":scope > button").textContent = say("addField");
    for (const field of this.place.querySelectorAll(".field")) field.remove();
    this.place.prepend(...rows.map(([name, value]) => this.field(name, value)));
  }

  empty() {
    for (const row of this.place.querySelectorAll(".field")) row.querySelectorAll("input")[1].value = "";
  }

  rows() {
    return [...this.place.querySelectorAll(".field")].map((row) =>
      [...row.querySelectorAll("input")].map((each) => each.value.trim()),
    );
  }
}

/** The names that all examples have; none where they have another form. */
function namesIn(examples) {
  const [first, ...rest] = examples.map((line) => pairs(line).map(([name]) => name));
  const same = examples.length >= FEWEST_EXAMPLES && rest.every((names) => names.join("\n") === first.join("\n"));
  return same && first.length > 1 && first.length <= MOST_FIELDS ? first : [];
}

/** Names with values in a line of that form; nothing where a part of it has no name.  @returns {[string, string][]} */
function pairs(line) {
  const found = line.split(";").map((part) => /^\s*([^:]{1,40}?)\s*:\s+(.*\S)\s*$/.exec(part));
  return found.every(Boolean) ? found.map(([, name, value]) => [name, value]) : [];
}

/** @param {string} adapter @returns {string[] | undefined} names of the fields that were used last */
function kept(adapter) {
  try {
    const names = JSON.parse(localStorage.getItem(KEY + adapter) ?? "null");
    return Array.isArray(names) && names.length ? names.slice(0, MOST_FIELDS).map(String) : undefined;
  } catch {
    return undefined;
  }
}
