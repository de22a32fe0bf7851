/** Questions with their answers, on the screen: as they come, and as the history has kept them. */

import { element, picture, write } from "./elements.js";
import { asFields } from "./fields.js";
import { explain, say } from "./strings.js";

const RESTORED = 20; // questions of the history that are shown again after a reload

export class Conversation {
  /**
   * @param {HTMLElement} place the list
   * @param {(adapter: string) => any} schemaOf the schema of an adapter's answers; undefined where there is none
   */
  constructor(place, schemaOf) {
    this.place = place;
    this.schemaOf = schemaOf;
    this.cards = [];
  }

  /** Show what has been asked before.  @param {import("./history.js").Entry[]} entries newest first */
  restore(entries) {
    for (const entry of entries.slice(0, RESTORED).reverse()) this.add(entry).show();
    this.place.lastElementChild?.scrollIntoView({ block: "end" });
  }

  /** A question that is about to be answered.  @param {{adapter: string | null, prompt: string, image?: string}} asked */
  ask(asked) {
    const card = this.add(asked);
    card.begin();
    return card;
  }

  add(entry) {
    const card = new Card(entry, this.schemaOf);
    this.cards.push(card);
    this.place.append(card.question, card.row);
    return card;
  }

  /** Say everything again, in another language. */
  redraw() {
    for (const card of this.cards) card.show();
  }

  /** Take away what is answered. */
  clear() {
    for (const card of this.cards.filter((each) => !each.open)) {
      card.question.remove();
      card.row.remove();
    }
    this.cards = this.cards.filter((each) => each.open);
  }
}

class Card {
  constructor(entry, schemaOf) {
    this.entry = entry;
    this.schemaOf = schemaOf;
    this.open = false; // whether the answer is still coming
    this.progress = undefined; // of reading the prompt
    this.question = element("li", entry.prompt, "question");
    if (entry.image) this.question.prepend(picture(entry.image));
    this.row = element("li", undefined, "answer");
    this.name = element("div", undefined, "quiet");
    this.reading = element("div", undefined, "reading");
    this.said = element("div", undefined, "said");
    this.foot = element("div", undefined, "foot");
    this.row.append(this.name, this.said);
  }

  begin() {
    this.open = true;
    this.next = this.run = 0;
    this.unseen = "";
    this.bar = element("progress");
    this.words = element("span", undefined, "quiet");
    this.reading.setAttribute("aria-live", "off"); // it changes every second
    this.reading.append(this.bar, this.words);
    this.said.before(this.reading);
    this.show();
    this.look();
  }

  /** How much of the prompt is read.  @param {{read: number, total: number}} progress */
  read(progress) {
    this.progress = progress;
    this.showReading();
  }

  /**
   * Show an answer as it comes.  A long one takes a while to lay out: four times as long passes before the next piece is
   * shown, so that the engine gets on.
   */
  write(piece) {
    this.unseen += piece;
    const began = performance.now();
    if (began < this.next) return;
    if (this.reading.isConnected) this.answering();
    this.run = write(this.said, this.unseen, this.run);
    this.unseen = "";
    this.look();
    const now = performance.now();
    this.next = now + 4 * (now - began);
  }

  /** @param {import("../edgekit-runtime/index.js").Generation} answer @returns {import("./history.js").Entry} what to keep */
  end({ text, adapter, finish_reason: reason, timings }) {
    this.open = false;
    write(this.said, this.unseen, this.run);
    this.entry = { ...this.entry, adapter, text, reason, ttft_ms: timings.ttft_ms, decode_tps: timings.decode_tps };
    this.show();
    this.look();
    return this.entry;
  }

  fail(error) {
    this.open = false;
    this.error = error;
    this.show();
    this.look();
  }

  answering() {
    this.reading.remove();
    this.said.classList.add("waiting");
  }

  look() {
    this.row.scrollIntoView({ block: "end" });
  }

  /** Everything but an answer's own words, which are in no language of ours. */
  show() {
    const { adapter, text } = this.entry;
    this.name.textContent = adapter ?? say("base");
    for (const image of this.question.querySelectorAll("img")) image.alt = say("photo");
    if (this.open) {
      this.showReading();
      return;
    }
    this.reading.remove();
    this.said.classList.remove("waiting");
    if (this.error) {
      this.said.className = "failure";
      this.said.textContent = explain(this.error);
      return;
    }
    const fields = asFields(text, adapter === null ? undefined : this.schemaOf(adapter));
    if (fields) this.said.replaceChildren(fields);
    else if (!this.said.hasChildNodes()) write(this.said, text);
    this.showFoot();
  }

  showReading() {
    const { read, total } = this.progress ?? {};
    this.bar.setAttribute("aria-label", say("reading"));
    this.words.textContent = total ? say("readTokens", { read, total }) : say("reading");
    if (total) Object.assign(this.bar, { max: total, value: read });
  }

  showFoot() {
    const { text, reason, ttft_ms: ttft, decode_tps: tps } = this.entry;
    const facts = [];
    if (text && Number.isFinite(ttft) && Number.isFinite(tps)) {
      facts.push(say("speed", { seconds: (ttft / 1000).toFixed(1), tps: tps.toFixed(1) }));
    }
    if (reason === "cancelled" || reason === "length") facts.push(say(reason));
    const copy = element("button", say("copy"));
    copy.addEventListener("click", async () => {
      await navigator.clipboard.writeText(text);
      copy.textContent = say("copied");
    });
    copy.hidden = !text;
    this.foot.replaceChildren(element("span", facts.join(" · "), "quiet"), copy);
    this.row.append(this.foot);
  }
}
