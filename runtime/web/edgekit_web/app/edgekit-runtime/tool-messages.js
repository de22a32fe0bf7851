/**
 * Tools, calls and their results for chat templates that leave them out: the same words as in the device runtime's
 * `tool_messages`.  What a template does was found out where the site was made.
 */

/**
 * @typedef {import("./index.js").Message} Message
 * @typedef {object} ToolFacts
 * @property {CallForm} form how calls are written
 * @property {boolean} lists whether the template says which tools there are
 * @property {boolean} results whether it renders results
 * @typedef {object} CallForm see the device runtime's `ToolFormat`
 * @property {{kind: string, head: string, middle: string, foot: string, rest: string, keys: string[], constants: object,
 *   marks: string[]} | null} syntax
 * @property {string} opening
 * @property {string} closing
 * @property {string} between
 * @property {boolean} blocks
 * @property {string} gap
 * @property {boolean} own
 * @property {boolean} wants_content
 * @property {boolean} short_ids
 * @property {string} why
 */

const ABOUT = "You can call these functions.  Each line describes one as JSON:";
const HOW =
  "To call one, write its name and its arguments as one JSON object between <tool_call> and </tool_call>.  " +
  "Several calls stand one after another.  The results come back between <tool_response> and </tool_response>.";
const EXAMPLE = written([{ name: "NAME", arguments: { ARGUMENT: "VALUE" } }]);

/**
 * What the template gets for a conversation and its tools.
 *
 * @param {ToolFacts} facts
 * @param {Message[]} messages
 * @param {object[] | undefined} tools
 * @returns {{messages: Message[], tools: object[] | undefined}}
 */
export function given(facts, messages, tools) {
  const concerned = tools?.length || messages.some((each) => each.role === "tool" || each.tool_calls?.length);
  if (!concerned) return { messages, tools: undefined };
  const { form, lists, results } = facts;
  let found = messages.map((message) => said(form, message));
  if (!results) found = resultsOfUser(found);
  if (!tools?.length || lists) return { messages: found, tools };
  return { messages: told(found, tools, !form.own), tools: undefined };
}

/** @param {CallForm} form @param {Message} message @returns {Message} */
function said(form, message) {
  if (!message.tool_calls?.length) return message;
  if (form.own) return form.wants_content && message.content == null ? { ...message, content: "" } : message;
  const { tool_calls: calls, ...bare } = message;
  const text = written(calls.map((call) => call.function));
  return { ...bare, content: message.content?.length ? joined(message.content, text, "\n") : text };
}

/** @param {{name: string, arguments: object}[]} functions */
function written(functions) {
  return functions
    .map((each) => `<tool_call>\n${spelt({ name: each.name, arguments: each.arguments })}\n</tool_call>`)
    .join("\n");
}

/** Results as messages of the user, those of several calls as one.  @param {Message[]} messages */
function resultsOfUser(messages) {
  /** @type {Message[]} */
  const found = [];
  messages.forEach((message, index) => {
    if (message.role !== "tool") {
      found.push(message);
      return;
    }
    const around = joined(joined("<tool_response>", message.content ?? "", "\n"), "</tool_response>", "\n");
    const last = found.at(-1);
    if (index && messages[index - 1].role === "tool" && last) last.content = joined(last.content, around, "\n");
    else found.push({ role: "user", content: around });
  });
  return found;
}

/** @param {Message[]} messages @param {object[]} tools @param {boolean} explained @returns {Message[]} */
function told(messages, tools, explained) {
  const how = explained ? `\n\n${HOW}\n${EXAMPLE}` : "";
  const text = `${ABOUT}\n<tools>\n${tools.map(spelt).join("\n")}\n</tools>${how}`;
  const [first, ...rest] = messages;
  if (first?.role !== "system") return [{ role: "system", content: text }, ...messages];
  return [{ ...first, content: first.content?.length ? joined(first.content, text, "\n\n") : text }, ...rest];
}

/** Two contents as one, with a text between. */
function joined(one, other, between) {
  if (typeof one === "string" && typeof other === "string") return one + between + other;
  return [one, between, other].flatMap((each) => (typeof each === "string" ? [{ type: "text", text: each }] : each));
}

/** JSON as Python writes it.  @param {any} value @returns {string} */
function spelt(value) {
  if (Array.isArray(value)) return `[${value.map(spelt).join(", ")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value) ?? "null";
  const pairs = Object.entries(value).filter(([, each]) => each !== undefined);
  return `{${pairs.map(([key, each]) => `${JSON.stringify(key)}: ${spelt(each)}`).join(", ")}}`;
}
