/** System prompts for chat templates that have no place for them: the same rules as in the device runtime's `system`. */

const BETWEEN = "\n\n";
const [TOLD, ASKED] = ["9027160435", "5318264079"]; // digits stay what they are in capitals and in JSON

/**
 * Whether a template renders what a system message says; true where it renders no question either.
 *
 * @typedef {import("./index.js").Message} Message
 * @param {(messages: Message[]) => string} render throws where the template refuses a conversation
 */
export function takesSystem(render) {
  /** @type {Message[]} */
  const asked = [{ role: "user", content: ASKED }];
  if (rendered(render, [{ role: "system", content: TOLD }, ...asked]).includes(TOLD)) return true;
  return !rendered(render, asked).includes(ASKED);
}

/**
 * A conversation whose first message, if it is the system's, has become part of the first user's.
 *
 * @param {Message[]} messages
 * @returns {Message[]}
 */
export function folded(messages) {
  const [system, ...rest] = messages;
  const at = rest.findIndex((message) => message.role === "user");
  if (system.role !== "system" || at < 0) return messages;
  if (system.content?.length) rest[at] = { ...rest[at], content: joined(system.content, rest[at].content) };
  return rest;
}

function joined(told, asked) {
  if (typeof told === "string" && typeof asked === "string") return told + BETWEEN + asked;
  return [told, BETWEEN, asked].flatMap((each) => (typeof each === "string" ? [{ type: "text", text: each }] : each));
}

function rendered(render, messages) {
  try {
    return render(messages);
  } catch {
    return "";
  }
}
