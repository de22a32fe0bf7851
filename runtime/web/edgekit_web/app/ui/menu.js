/** The menu: adapters, history, and facts of what is running. */

import * as history from "./history.js";
import { currentLanguage, explain, say, setLanguage } from "./strings.js";

const at = (id) => document.getElementById(id);
const LONGEST_WORD = 250; // characters; browsers take seconds to lay out some ten thousand that have no place to break
const LONG = 600; // characters that fit beside others in the history

export class Menu {
  /**
   * @param {import("../edgekit-runtime/index.js").Runtime} runtime
   * @param {() => void} onChange called when adapters have changed, or the language
   */
  constructor(runtime, onChange) {
    this.runtime = runtime;
    this.onChange = onChange;
    at("open-menu").addEventListener("click", () => this.open());
    at("adapter-file").addEventListener("change", () => this.installFiles());
    at("from-url").addEventListener("submit", (event) => {
      event.preventDefault();
      this.change(() => runtime.adapters.install(at("adapter-url").value.trim()));
    });
    at("rollback").addEventListener("click", () => this.change(() => runtime.adapters.rollback(), () => say("rolledBack")));
    at("clear-history").addEventListener("click", () => {
      history.clear();
      this.show();
    });
    at("language").value = currentLanguage();
    at("language").addEventListener("change", () => {
      setLanguage(at("language").value);
      this.show();
      onChange();
    });
  }

  open() {
    at("installing").textContent = "";
    at("menu").showModal();
    this.show();
  }

  installFiles() {
    const files = [...at("adapter-file").files];
    at("adapter-file").value = "";
    const signature = files.find((file) => file.name.endsWith(".sig"));
    const adapter = files.find((file) => file !== signature);
    if (adapter) this.change(() => this.runtime.adapters.install(adapter, { signature }));
  }

  async change(action, done = (entry) => say("installed", entry ?? { name: "", version: "" })) {
    const place = at("installing");
    place.className = "";
    place.textContent = say("installing");
    for (const button of at("menu").querySelectorAll("section:first-of-type button")) button.disabled = true;
    try {
      place.textContent = done(await action());
    } catch (error) {
      place.className = "failure";
      place.textContent = explain(error);
    }
    this.show();
    this.onChange();
  }

  async show() {
    const { adapters, manifest, info } = this.runtime;
    at("installed").replaceChildren(...adapters.list().map((entry) => this.installedRow(entry)));
    for (const button of at("menu").querySelectorAll("button")) button.disabled = false;
    at("rollback").disabled = info.parent === null;
    at("trust").textContent = say(info.signed ? "trusted" : "untrusted");
    const past = history.entries();
    at("history").replaceChildren(...(past.length ? past.map(historyRow) : [item(say("noHistory"))]));
    at("clear-history").disabled = !past.length;
    const { usage = 0, quota = 0 } = (await navigator.storage.estimate?.()) ?? {};
    at("facts").replaceChildren(...[
      ["version", `${manifest.name} ${manifest.version}`],
      ["quantization", `${manifest.base.architecture} ${manifest.base.quantization}`],
      ["generation", info.generation],
      ["threads", info.threads ?? "-"],
      ["memory", `${Math.ceil(usage / 1e6)} / ${Math.floor(quota / 1e6)} MB`],
    ].flatMap(([key, value]) => [element("dt", say(key)), element("dd", String(value))]));
  }

  installedRow(entry) {
    const row = item();
    const words = element("div");
    words.append(element("b", entry.name), ` ${entry.version}`);
    if (entry.quality?.verified === false) words.append(element("div", say("unverified"), "quiet"));
    row.append(words);
    if (entry.active) {
      row.append(element("span", say("active"), "quiet"));
    } else {
      const button = element("button", say("activate"));
      button.addEventListener("click", () =>
        this.change(() => this.runtime.adapters.activate(entry.name, entry.version), () => say("installed", entry)));
      row.append(button);
    }
    return row;
  }
}

function historyRow({ time, adapter, prompt, text, image }) {
  const row = item();
  if (image) row.append(picture(image));
  const words = element("div");
  words.append(
    element("div", `${new Date(time).toLocaleString()} · ${adapter ?? say("base")}`, "quiet"),
    element("b", prompt), element("div", text),
  );
  if (prompt.length + text.length > LONG) words.tabIndex = 0; // it scrolls
  row.append(words);
  return row;
}

function item(text) {
  return element("li", text);
}

/** @param {string} address */
export function picture(address) {
  const made = element("img", undefined, "photo");
  made.alt = say("photo");
  made.src = address;
  return made;
}

export function element(tag, text, name) {
  const made = document.createElement(tag);
  if (text !== undefined) write(made, text);
  if (name) made.className = name;
  return made;
}

/**
 * Add text to an element, with places to break in words that go on and on.
 *
 * @param {Element} place
 * @param {string} text
 * @param {number} [run] characters since the last such place, of what stands there already
 * @returns {number} the same, with the text
 */
export function write(place, text, run = 0) {
  let begun = 0;
  for (let at = 0; at < text.length; at += 1) {
    run = /\s/.test(text[at]) ? 0 : run + 1;
    const half = (text.charCodeAt(at) & 0xfc00) === 0xd800; // of a character
    if (run < LONGEST_WORD || half) continue;
    place.append(text.slice(begun, at + 1), document.createElement("wbr"));
    begun = at + 1;
    run = 0;
  }
  place.append(text.slice(begun));
  return run;
}
