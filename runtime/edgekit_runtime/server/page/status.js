"use strict";
/** @type {(id: string) => any} */
const at = (id) => document.getElementById(id);
const headers = () => (at("key").value ? { Authorization: "Bearer " + at("key").value } : {});
const POLL_MS = 1000;
const UNKNOWN = "–";
const FAMILY_DIGEST = /-[0-9a-f]{12}$/; // tells models of one name apart
const DIGITS = 12; // of a file's digest
let last = null; // figures of about a second ago
let stopper = null;

// Units: ms, tokens/s, MiB.
const count = (value) => (value === undefined ? UNKNOWN : String(value));
const mebibytes = (value) => (value === undefined ? UNKNOWN : `${value.toFixed(1)} MiB`);
const ofBytes = (value) => mebibytes(value === undefined ? undefined : value / 2 ** 20);
const speed = (value) => `${value.toFixed(1)} tokens/s`;

function element(tag, text, name) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (name) made.className = name;
  return made;
}

/** Tokens a second since about a second ago: the engine tells its figures twice a second. */
function answering(tokens = 0) {
  const now = performance.now();
  last ??= { tokens, time: now, speed: 0 };
  const seconds = (now - last.time) / 1000;
  if (seconds < (0.9 * POLL_MS) / 1000) return last.speed;
  last = { tokens, time: now, speed: Math.max(0, tokens - last.tokens) / seconds }; // a new engine counts from 0
  return last.speed;
}

function showFigures({ stats, busy, restarts, ready }) {
  // What the engine says is half a second old, and older while it computes; how many are asked for, the service knows.
  const waiting = ready ? Math.min(stats.waiting ?? 0, busy) : busy;
  const lines = [
    ["Requests", `${busy - waiting} running, ${waiting} waiting`],
    ["Speed", speed(answering(stats.answer_tokens))],
    ["Tokens answered", count(stats.answer_tokens)],
    ["Tokens reused", count(stats.reused_tokens)],
    ["KV cache", `${count(stats.kv_tokens)} of ${count(stats.kv_capacity)} tokens`],
    ["Loaded adapters", `${count(stats.adapters_loaded)}, ${ofBytes(stats.adapter_bytes)}`],
    ["Engine memory", mebibytes(stats.rss_mb)],
    ["Engine restarts", count(restarts)],
  ];
  at("figures").replaceChildren(...lines.flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
}

function showBundle(bundle) {
  if (!bundle) return;
  const { name, version, base } = bundle;
  at("bundle").textContent = name;
  document.title = `${name}: edgekit`;
  at("about").textContent = `Bundle ${version} · base ${base.family.replace(FAMILY_DIGEST, "")}, ${base.quantization}`;
  at("about").title = base.family;
}

function showChoice(adapters, standard) {
  const names = [...adapters.map((each) => each.name), "base"];
  const select = at("model");
  if ([...select.options].map((each) => each.value).join("\n") === names.join("\n")) return;
  const now = select.options.length > 1 ? select.value : undefined; // the base alone was no choice
  const chosen = [now, standard, ...names].find((name) => names.includes(name));
  select.replaceChildren(...names.map((name) => new Option(name === "base" ? "base (no adapter)" : name, name)));
  select.value = chosen;
}

/** The stacks of a bundle as adapters, which lack a digest; one of an adapter that is set aside is it too. */
function stacksOf(bundle, adapters) {
  return (bundle?.stacks ?? []).map(({ name, adapters: parts }) => ({
    name,
    version: parts.map((part) => part.name).join(" + "),
    aside: adapters.find((each) => each.aside && parts.some((part) => part.name === each.name))?.aside,
  }));
}

function showAdapters(adapters, standard) {
  at("no-adapters").hidden = adapters.length > 0;
  at("adapters-table").hidden = !adapters.length;
  at("adapters").replaceChildren(
    ...adapters.map(({ name, version, digest, aside }) => {
      const row = element("tr");
      const named = element("td", name);
      if (digest) named.append(element("code", digest.slice(0, DIGITS)));
      const state = aside ? `set aside: ${aside}` : name === standard ? "ready, the default" : "ready";
      row.append(named, element("td", version), element("td", state, aside ? "bad" : undefined));
      return row;
    }),
  );
}

function showErrors({ errors, rejected }) {
  const all = [...errors, ...rejected.map(({ time, file, why }) => ({ time, what: `${file}: ${why}` }))];
  all.sort((one, other) => other.time - one.time);
  at("no-errors").hidden = all.length > 0;
  at("errors").hidden = !all.length;
  at("errors").replaceChildren(
    ...all.map(({ time, what }) => {
      const item = element("li");
      item.append(element("time", new Date(time * 1000).toLocaleString()), what);
      return item;
    }),
  );
}

async function refresh() {
  const state = at("state");
  try {
    const response = await fetch("/status", { headers: headers() });
    if (response.status === 401 && !at("key").value && state.textContent === "connecting") at("key-box").open = true;
    if (!response.ok) throw new Error((await response.json()).error.message);
    const status = await response.json();
    const standard = status.bundle?.default_adapter;
    const subjects = [...status.adapters, ...stacksOf(status.bundle, status.adapters)];
    tell(status.ready ? "running" : "the engine is being restarted", status.ready);
    showBundle(status.bundle);
    showFigures(status);
    showChoice(
      subjects.filter((each) => !each.aside),
      standard,
    );
    showAdapters(subjects, standard);
    showErrors(status);
  } catch (error) {
    tell(error instanceof TypeError ? "the service can't be reached" : error.message, false);
  }
}

function tell(text, well) {
  if (at("state").textContent !== text) at("state").textContent = text; // screen readers say each change
  at("state").className = well ? "ok" : "";
}

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (text + value).split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      const data = part.slice("data: ".length);
      if (data !== "[DONE]") yield JSON.parse(data);
    }
  }
}

async function answer(event) {
  event.preventDefault();
  stopper?.abort();
  const mine = (stopper = new AbortController());
  at("stop").disabled = false;
  at("failure").hidden = true;
  at("answer").textContent = "";
  at("progress").textContent = "Waiting for the first token…";
  const body = {
    model: at("model").value,
    messages: [{ role: "user", content: at("prompt").value }],
    stream: true,
    stream_options: { include_usage: true },
  };
  let said = "";
  try {
    const response = await fetch("/v1/chat/completions", {
      method: "POST",
      headers: { "Content-Type": "application/json", ...headers() },
      body: JSON.stringify(body),
      signal: mine.signal,
    });
    if (!response.ok) throw new Error((await response.json()).error.message);
    refresh(); // to show it among the requests
    for await (const chunk of events(response)) {
      if (chunk.error) throw new Error(chunk.error.message);
      const piece = chunk.choices[0]?.delta.content ?? "";
      if (piece) at("progress").textContent = "Answering…";
      at("answer").textContent += piece;
      if (chunk.timings) said = figuresOf(chunk);
    }
  } catch (error) {
    said = "";
    if (error.name === "AbortError") said = "Stopped.";
    else if (mine === stopper) fail(error.message);
  }
  if (mine !== stopper) return; // another question has been asked since
  at("progress").textContent = said;
  at("stop").disabled = true;
  refresh();
}

function figuresOf({ timings, usage }) {
  const { prompt_tokens: read, completion_tokens: answered } = usage;
  return `${read} tokens read, ${answered} answered · first token after ${timings.ttft_ms.toFixed(0)} ms, then ${speed(timings.decode_tps)}`;
}

function fail(message) {
  at("failure").textContent = message;
  at("failure").hidden = false;
}

at("try").addEventListener("submit", answer);
at("stop").addEventListener("click", () => stopper?.abort());
refresh();
setInterval(refresh, POLL_MS);
