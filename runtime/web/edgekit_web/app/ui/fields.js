/** An answer as fields: a flat JSON object, its names as the adapter's schema calls them. */

import { isObject, readJson } from "../edgekit-runtime/json.js";
import { element } from "./elements.js";

const MOST_FIELDS = 50;
const LONGEST_TITLE = 60;

/**
 * A list of names and values, where that shows all that the answer says.
 *
 * @param {string} text
 * @param {any} [schema] of the adapter's answers
 * @returns {HTMLElement | undefined} undefined for any other answer
 */
export function asFields(text, schema) {
  try {
    const value = readJson(text);
    if (!isObject(value)) return undefined;
    const fields = Object.entries(value);
    if (!fields.length || fields.length > MOST_FIELDS) return undefined;
    // A name that stands twice, or a number that JavaScript can't hold, would be another answer.
    if (JSON.stringify(value) !== text.replace(/("(?:[^"\\]|\\.)*")|\s+/g, "$1")) return undefined;
    const titles = titlesOf(
      fields.map(([name]) => name),
      schema,
    );
    const list = element("dl");
    for (const [index, [, each]] of fields.entries()) {
      list.append(element("dt", titles[index]), element("dd", typeof each === "string" ? each : JSON.stringify(each)));
    }
    return list;
  } catch {
    return undefined;
  }
}

/** What fields are called: by the schema's titles, unless two were the same then. */
function titlesOf(names, schema) {
  const properties = isObject(schema?.properties) ? schema.properties : {};
  const titles = names.map((name) => {
    const title = Object.hasOwn(properties, name) ? properties[name]?.title : undefined;
    return typeof title === "string" && title.trim() && title.length <= LONGEST_TITLE ? title : name;
  });
  return new Set(titles).size === titles.length ? titles : names;
}
