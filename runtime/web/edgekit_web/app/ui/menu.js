/** The menu: adapters, history, and facts of what is running. */

import { element, picture } from "./elements.js";
import * as history from "./history.js";
import { currentLanguage, explain, say, setLanguage } from "./strings.js";

/** @type {(id: string) => any} */
const at = (id) => document.getElementById(id);
const LONG = 600; // characters that fit beside others in the history

export class Menu {
  /**
   * @param {import("../edgekit-runtime/index.js").Runtime} runtime
   * @param {{adapters: () => void, language: () => void, history: () => void}} changed called when adapters have changed or
   *   the language, and when the history is cleared
   */
  constructor(runtime, changed) {
    this.runtime = runtime;
    this.changed = changed;
    at("open-menu").addEventListener("click", () => this.open());
    at("adapter-file").addEventListener("change", () => this.installFiles());
    at("from-url").addEventListener("submit", (event) => {
      event.preventDefault();
      this.change(() => runtime.adapters.install(at("adapter-url").value.trim()));
    });
    at("rollback").addEventListener("click", () =>
      this.change(
        () => runtime.adapters.rollback(),
        () => say("rolledBack"),
      ),
    );
    at("clear-history").addEventListener("click", () => {
      history.clear();
      this.show();
      changed.history();
    });
    at("language").value = currentLanguage();
    at("language").addEventListener("change", () => {
      setLanguage(at("language").value);
      at("installing").textContent = "";
      this.show();
      changed.language();
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
    this.changed.adapters();
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
    at("facts").replaceChildren(
      ...[
        ["version", `${manifest.name} ${manifest.version}`],
        ["quantization", `${manifest.base.architecture} ${manifest.base.quantization}`],
        ["generation", info.generation],
        ["threads", info.threads ?? "-"],
        ["memory", `${Math.ceil(usage / 1e6)} / ${Math.floor(quota / 1e6)} MB`],
      ].flatMap(([key, value]) => [element("dt", say(String(key))), element("dd", String(value))]),
    );
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
        this.change(
          () => this.runtime.adapters.activate(entry.name, entry.version),
          () => say("installed", entry),
        ),
      );
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
    element("b", prompt),
    element("div", text),
  );
  if (prompt.length + text.length > LONG) words.tabIndex = 0; // it scrolls
  row.append(words);
  return row;
}

function item(text) {
  return element("li", text);
}
