/** The inspection form: names and values that become one line, `part: bracket; finding: scratch`. */

import { say } from "./strings.js";

const KEY = "edgekit form ";
const FIRST = ["part", "finding", "measured", "place"];

export class Form {
  /** @param {HTMLElement} place */
  constructor(place) {
    this.place = place;
    this.adapter = "";
  }

  /** Show the fields that were used with an adapter last.  @param {string} adapter */
  show(adapter) {
    this.adapter = adapter;
    const names = kept(adapter) ?? FIRST.map((key) => say(key));
    const more = document.createElement("button");
    more.type = "button";
    more.textContent = say("addField");
    more.addEventListener("click", () => {
      const field = this.field("");
      more.before(field);
      field.querySelector("input").focus();
    });
    this.place.replaceChildren(...names.map((name) => this.field(name)), more);
  }

  field(name) {
    const row = document.createElement("div");
    row.className = "field";
    const [key, value] = ["fieldName", "fieldValue"].map((label) => {
      const input = document.createElement("input");
      input.setAttribute("aria-label", say(label));
      input.autocomplete = "off";
      return input;
    });
    key.value = name;
    value.setAttribute("aria-label", name || say("fieldValue"));
    key.addEventListener("input", () => value.setAttribute("aria-label", key.value || say("fieldValue")));
    row.append(key, value);
    return row;
  }

  /** The line; empty when nothing is filled in. */
  text() {
    const rows = [...this.place.querySelectorAll(".field")].map((row) => [...row.querySelectorAll("input")].map((each) => each.value.trim()));
    localStorage.setItem(KEY + this.adapter, JSON.stringify(rows.map(([name]) => name).filter(Boolean)));
    return rows.filter(([, value]) => value).map(([name, value]) => (name ? `${name}: ${value}` : value)).join("; ");
  }

  empty() {
    for (const row of this.place.querySelectorAll(".field")) row.querySelectorAll("input")[1].value = "";
  }
}

/** @param {string} adapter @returns {string[] | undefined} names of the fields that were used last */
function kept(adapter) {
  try {
    const names = JSON.parse(localStorage.getItem(KEY + adapter) ?? "null");
    return Array.isArray(names) ? names.map(String) : undefined;
  } catch {
    return undefined;
  }
}
