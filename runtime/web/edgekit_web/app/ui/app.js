/** The app: one bundle, a question at a time, adapters changed in between. */

import { BASE } from "../edgekit-runtime/index.js";
import { isObject, readJson } from "../edgekit-runtime/json.js";
import { Form } from "./form.js";
import { remember } from "./history.js";
import { element, Menu, picture, write } from "./menu.js";
import { stayOffline } from "./offline.js";
import { Photo } from "./photo.js";
import { setUp, showProgress } from "./setup.js";
import { currentLanguage, explain, say, translatePage } from "./strings.js";

const at = (id) => document.getElementById(id);
const CHOSEN = "edgekit adapter";
const DESCRIBE = "Describe the image."; // as on other devices, when an image comes without a question
const LOOK_AGAIN_MS = 10 * 60_000;
const MOST_FIELDS = 50;

let runtime;
let stopper;
let looked = 0;
const form = new Form(at("fields"));
const photo = new Photo();

translatePage();
await stayOffline((takeOver) => notify(say("newApp"), say("reload"), takeOver));
runtime = await setUp((name) => {
  at("name").textContent = document.title = name;
});
globalThis.edgekit = runtime; // for the console, and for tests
const menu = new Menu(runtime, showAdapters);
for (const dialog of document.querySelectorAll("dialog")) {
  dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
}
showAdapters();
at("setup").hidden = true;
for (const id of ["talk", "ask", "adapter", "open-menu"]) at(id).hidden = false;
showTask();
at("prompt").focus({ preventScroll: true });
lookForUpgrade();
document.addEventListener("visibilitychange", lookForUpgrade);

at("adapter").addEventListener("change", () => {
  localStorage.setItem(CHOSEN, at("adapter").value);
  form.show(at("adapter").value);
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

function showAdapters() {
  const { adapters, default_adapter: standard } = runtime.manifest;
  const wanted = localStorage.getItem(CHOSEN) ?? standard ?? BASE;
  const names = [...adapters.map((entry) => entry.name), BASE];
  at("adapter").replaceChildren(...names.map((name) => new Option(name === BASE ? say("base") : name, name)));
  at("adapter").value = names.includes(wanted) ? wanted : (standard ?? BASE);
  form.show(at("adapter").value);
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
  const small = await photo.small().catch(() => undefined);
  const card = answerCard(prompt);
  try {
    const answer = await runtime.generate({
      prompt, image, adapter: at("adapter").value, signal: stopper.signal,
      onText: written(card),
    });
    finish(card, answer);
    remember({ time: Date.now(), adapter: answer.adapter, prompt, text: answer.text, image: small });
    if (asForm) form.empty();
    else at("prompt").value = "";
  } catch (error) {
    card.said.className = "failure";
    card.said.textContent = explain(error);
    card.row.scrollIntoView({ block: "end" });
  }
  stopper = undefined;
  at("stop").hidden = true;
  at("send").hidden = false;
}

function answerCard(prompt) {
  const row = element("li", undefined, "answer");
  const said = element("div", "", "said waiting");
  row.append(element("div", at("adapter").selectedOptions[0].textContent, "quiet"), said);
  const question = element("li", prompt, "question");
  if (photo.file) question.prepend(picture(photo.address));
  at("answers").append(question, row);
  row.scrollIntoView({ block: "end" });
  return { row, said, run: 0 };
}

/**
 * Shows an answer as it comes.  A long one takes a while to lay out: four times as long passes before the next piece is
 * shown, so that the engine gets on.
 */
function written(card) {
  let text = "";
  let next = 0;
  return (piece) => {
    text += piece;
    const began = performance.now();
    if (began < next) return;
    card.run = write(card.said, text, card.run);
    card.row.scrollIntoView({ block: "end" });
    text = "";
    const now = performance.now();
    next = now + 4 * (now - began);
  };
}

function finish({ row, said, run }, answer) {
  said.classList.remove("waiting");
  const fields = asFields(answer.text);
  if (fields) said.replaceChildren(fields);
  else write(said, answer.text.slice(said.textContent.length), run); // what has not been shown yet
  const { timings, finish_reason: reason } = answer;
  const facts = [say("speed", { seconds: (timings.ttft_ms / 1000).toFixed(1), tps: timings.decode_tps.toFixed(1) })];
  if (reason !== "stop") facts.push(say(reason));
  const copy = element("button", say("copy"));
  copy.addEventListener("click", async () => {
    await navigator.clipboard.writeText(answer.text);
    copy.textContent = say("copied");
  });
  const foot = element("div", undefined, "foot");
  foot.append(element("span", facts.join(" · "), "quiet"), copy);
  row.append(foot);
  row.scrollIntoView({ block: "end" });
}

/** An answer that is a flat JSON object, as a list of names and values, where that shows all that it says. */
function asFields(text) {
  try {
    const value = readJson(text);
    if (!isObject(value)) return undefined;
    const fields = Object.entries(value);
    if (!fields.length || fields.length > MOST_FIELDS) return undefined;
    // A name that stands twice, or a number that JavaScript can't hold, would be another answer.
    if (JSON.stringify(value) !== text.replace(/("(?:[^"\\]|\\.)*")|\s+/g, "$1")) return undefined;
    const list = element("dl");
    for (const [name, each] of fields) {
      list.append(element("dt", name), element("dd", typeof each === "string" ? each : JSON.stringify(each)));
    }
    return list;
  } catch {
    return undefined;
  }
}

async function lookForUpgrade() {
  if (document.visibilityState !== "visible" || Date.now() - looked < LOOK_AGAIN_MS) return;
  looked = Date.now();
  const found = await runtime.findUpgrade().catch((error) => void notify(explain(error)));
  if (!found) return;
  notify(say("upgrade", { name: found.name, version: found.version }), say("use"), async () => {
    notify(say("upgrading"));
    try {
      await runtime.upgrade(found, { onProgress: showProgress });
      at("notice").hidden = true;
      showTask();
      showAdapters();
    } catch (error) {
      notify(explain(error), say("retry"), () => {
        looked = 0;
        lookForUpgrade();
      });
    }
  });
}

function notify(text, label, act) {
  at("notice-text").textContent = text;
  at("notice-act").hidden = !label;
  at("notice-act").textContent = label ?? "";
  at("notice-act").onclick = act;
  at("notice").hidden = false;
}
