/** The app: one bundle, a question at a time, adapters changed in between. */

import { BASE } from "../edgekit-runtime/index.js";
import { Conversation } from "./conversation.js";
import { element } from "./elements.js";
import { Form } from "./form.js";
import { entries, remember } from "./history.js";
import { Menu } from "./menu.js";
import { stayOffline } from "./offline.js";
import { Photo } from "./photo.js";
import { setUp, showProgress } from "./setup.js";
import { explain, say, translatePage } from "./strings.js";

/** @type {(id: string) => any} */
const at = (id) => document.getElementById(id);
const CHOSEN = `edgekit adapter ${new URL("./", document.baseURI).pathname}`;
const DESCRIBE = "Describe the image."; // as on other devices, when an image comes without a question
const LOOK_AGAIN_MS = 10 * 60_000;

let runtime;
let stopper;
let looked = 0;
let notice;
const form = new Form(at("fields"));
const photo = new Photo();

translatePage();
await stayOffline((takeOver) => notify(() => say("newApp"), "reload", takeOver));
runtime = await setUp((name) => {
  at("name").textContent = document.title = name;
});
globalThis.edgekit = runtime; // for the console, and for tests
const conversation = new Conversation(at("answers"), (name) => entryOf(name)?.schema);
new Menu(runtime, { adapters: showAdapters, language: redraw, history: () => conversation.clear() });
for (const dialog of document.querySelectorAll("dialog")) {
  dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
}
showAdapters();
at("setup").hidden = true;
for (const id of ["talk", "ask", "adapter", "open-menu"]) at(id).hidden = false;
showTask();
conversation.restore(entries());
if (matchMedia("(pointer: fine)").matches) at("prompt").focus({ preventScroll: true }); // elsewhere a keyboard would come up
lookForUpgrade();
document.addEventListener("visibilitychange", lookForUpgrade);

at("adapter").addEventListener("change", () => {
  localStorage.setItem(CHOSEN, at("adapter").value);
  showAsking();
});
at("as-text").addEventListener("click", () => showForm(false));
at("as-form").addEventListener("click", () => showForm(true));
at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
at("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing && matchMedia("(pointer: fine)").matches) {
    event.preventDefault();
    send();
  }
});
at("stop").addEventListener("click", () => stopper?.abort());

/** The one chosen last, else the bundle's default, else the first: the bare base answers only where it is chosen. */
function showAdapters() {
  const { default_adapter: standard } = runtime.manifest;
  const names = subjects().map((entry) => entry.name);
  const { value: now, length } = at("adapter"); // before a change of adapters
  const [chosen = BASE] = [now, localStorage.getItem(CHOSEN), standard, ...names].filter((name) =>
    names.includes(name),
  );
  at("adapter").replaceChildren(...[...names, BASE].map((name) => new Option(name, name)));
  at("adapter").value = now === BASE && length > 1 ? BASE : chosen;
  nameBase();
  showAsking();
}

function nameBase() {
  at("adapter").lastElementChild.textContent = say("base");
}

/** Adapters, and stacks of them. */
function subjects() {
  return [...runtime.manifest.adapters, ...runtime.adapters.stacks()];
}

function entryOf(name) {
  return subjects().find((entry) => entry.name === name);
}

/** What the chosen adapter can be asked with: its examples, and a form where they have one. */
function showAsking() {
  const name = at("adapter").value;
  const examples = runtime.examples[name] ?? [];
  at("examples").hidden = !examples.length;
  at("examples").replaceChildren(...examples.map(chip));
  at("modes").hidden = !form.show(name, examples);
  if (at("modes").hidden) showForm(false);
}

function chip(text) {
  const made = element("button", text, "chip");
  made.type = "button";
  made.addEventListener("click", () => {
    if (at("fields").hidden) at("prompt").value = text;
    else form.fill(text);
    at("send").focus(); // the prompt would bring up the keyboard
  });
  return made;
}

/** After a change of language. */
function redraw() {
  nameBase();
  form.redraw();
  conversation.redraw();
  if (notice) notify(...notice);
}

/** Caption bundles take pictures. */
function showTask() {
  const seeing = runtime.manifest.task === "caption";
  at("photo").hidden = !seeing;
  if (!seeing) photo.show(undefined);
  at("prompt").dataset.placeholder = seeing ? "imageHint" : "promptHint";
  translatePage();
}

function showForm(shown) {
  at("fields").hidden = !shown;
  at("prompt").hidden = shown;
  at("as-form").setAttribute("aria-pressed", String(shown));
  at("as-text").setAttribute("aria-pressed", String(!shown));
}

async function send() {
  const asForm = !at("fields").hidden;
  const image = photo.file;
  const prompt = (asForm ? form.text() : at("prompt").value.trim()) || (image && DESCRIBE);
  if (!prompt || stopper) return;
  stopper = new AbortController();
  at("send").hidden = true;
  at("stop").hidden = false;
  if (!asForm) at("prompt").value = "";
  const small = await photo.small().catch(() => undefined);
  const adapter = at("adapter").value;
  const card = conversation.ask({ adapter: adapter === BASE ? null : adapter, prompt, image: image && photo.address });
  try {
    const answer = await runtime.generate({
      prompt,
      image,
      adapter,
      signal: stopper.signal,
      onPrefill: (progress) => card.read(progress),
      onText: (piece) => card.write(piece),
    });
    remember({ ...card.end(answer), time: Date.now(), image: small });
    if (asForm) form.empty();
  } catch (error) {
    card.fail(error);
    if (!asForm) at("prompt").value ||= prompt; // to be mended, unless the next one is being written
  }
  stopper = undefined;
  at("stop").hidden = true;
  at("send").hidden = false;
}

async function lookForUpgrade() {
  if (document.visibilityState !== "visible" || Date.now() - looked < LOOK_AGAIN_MS) return;
  looked = Date.now();
  const found = await runtime.findUpgrade().catch((error) => void notify(() => explain(error)));
  if (!found) return;
  notify(
    () => say("upgrade", { name: found.name, version: found.version }),
    "use",
    async () => {
      notify(() => say("upgrading"));
      try {
        await runtime.upgrade(found, { onProgress: showProgress });
        notify();
        showTask();
        showAdapters();
      } catch (error) {
        notify(
          () => explain(error),
          "retry",
          () => {
            looked = 0;
            lookForUpgrade();
          },
        );
      }
    },
  );
}

/**
 * Show a notice above everything; none without `text`.
 *
 * @param {() => string} [text] in the language of the moment
 * @param {string} [label] of its button, as say() knows it
 * @param {() => void} [act]
 */
function notify(text, label, act) {
  notice = text && [text, label, act];
  at("notice").hidden = !text;
  at("notice-text").textContent = text?.() ?? "";
  at("notice-act").hidden = !label;
  at("notice-act").textContent = label ? say(label) : "";
  at("notice-act").onclick = act;
}
