"use strict";
const at = (id) => document.getElementById(id);
const headers = () => (at("key").value ? { Authorization: "Bearer " + at("key").value } : {});
const POLL_MS = 1000;
let last = null;
let stopper = null;

function rows(parent, items, tag, fill) {
  parent.replaceChildren(...items.map((item) => {
    const element = document.createElement(tag);
    fill(element, item);
    return element;
  }));
}

function figures(status) {
  const stats = status.stats;
  const now = performance.now();
  const speed = last && stats.answer_tokens >= last.tokens
    ? (stats.answer_tokens - last.tokens) / ((now - last.time) / 1000) : 0;
  last = { tokens: stats.answer_tokens ?? 0, time: now };
  const lines = [
    ["requests", `${stats.running ?? 0} running, ${stats.waiting ?? 0} waiting`],
    ["speed", `${speed.toFixed(0)} tokens/s`],
    ["tokens answered", stats.answer_tokens ?? 0],
    ["prompt tokens reused", stats.reused_tokens ?? 0],
    ["KV cache", `${stats.kv_tokens ?? 0} of ${stats.kv_capacity ?? 0} cells`],
    ["adapters in memory", `${stats.adapters_loaded ?? 0}, ${((stats.adapter_bytes ?? 0) / 1e6).toFixed(1)} MB`],
    ["memory", `${(stats.rss_mb ?? 0).toFixed(0)} MiB`],
    ["engine restarts", status.restarts],
  ];
  at("figures").replaceChildren(...lines.flatMap(([name, value]) => {
    const term = document.createElement("dt");
    const detail = document.createElement("dd");
    term.textContent = name;
    detail.textContent = value;
    return [term, detail];
  }));
}

function models(adapters) {
  const names = ["base", ...adapters.map((each) => each.name)];
  const select = at("model");
  if ([...select.options].map((each) => each.value).join("\n") === names.join("\n")) return;
  const chosen = select.value;
  rows(select, names, "option", (option, name) => { option.value = option.textContent = name; });
  if (names.includes(chosen)) select.value = chosen;
}

async function refresh() {
  const state = at("state");
  try {
    const response = await fetch("/status", { headers: headers() });
    if (!response.ok) throw new Error((await response.json()).error.message);
    const status = await response.json();
    state.textContent = status.ready ? "running" : "the engine is being restarted";
    state.className = status.ready ? "ok" : "";
    figures(status);
    models(status.adapters.filter((each) => !each.aside));
    rows(at("adapters"), status.adapters, "tr", (row, each) => {
      for (const text of [each.name, each.version, each.aside ?? each.digest.slice(0, 12)]) row.insertCell().textContent = text;
    });
    const errors = [...status.errors, ...status.rejected.map((each) => ({ time: each.time, what: `${each.file}: ${each.why}` }))];
    errors.sort((one, other) => other.time - one.time);
    rows(at("errors"), errors, "li", (item, each) => {
      item.textContent = `${new Date(each.time * 1000).toLocaleTimeString()} ${each.what}`;
    });
  } catch (error) {
    state.textContent = error.message;
    state.className = "";
  }
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
  stopper = new AbortController();
  at("stop").disabled = false;
  at("answer").textContent = at("speed").textContent = "";
  const body = {
    model: at("model").value,
    messages: [{ role: "user", content: at("prompt").value }],
    stream: true,
    stream_options: { include_usage: true },
  };
  try {
    const response = await fetch("/v1/chat/completions", {
      method: "POST", headers: { "Content-Type": "application/json", ...headers() },
      body: JSON.stringify(body), signal: stopper.signal,
    });
    if (!response.ok) throw new Error((await response.json()).error.message);
    for await (const chunk of events(response)) {
      if (chunk.error) throw new Error(chunk.error.message);
      at("answer").textContent += chunk.choices[0]?.delta.content ?? "";
      if (chunk.timings) {
        at("speed").textContent = `first token after ${chunk.timings.ttft_ms.toFixed(0)} ms, then ` +
          `${chunk.timings.decode_tps.toFixed(1)} tokens/s`;
      }
    }
  } catch (error) {
    if (error.name !== "AbortError") at("speed").textContent = error.message;
  }
  at("stop").disabled = true;
}

at("try").addEventListener("submit", answer);
at("stop").addEventListener("click", () => stopper?.abort());
refresh();
setInterval(refresh, POLL_MS);
