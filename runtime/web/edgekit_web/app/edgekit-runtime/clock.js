/** The clock as templates ask for it: Python's `strftime`, in the C locale as there. */

import { EdgekitError } from "./errors.js";

const DAYS = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS = [
  "January",
  "February",
  "March",
  "April",
  "May",
  "June",
  "July",
  "August",
  "September",
  "October",
  "November",
  "December",
];
const two = (number) => String(number).padStart(2, "0");
const hour = (now) => now.getHours() % 12 || 12;
const dayOfYear = (now) =>
  Math.round((Date.UTC(now.getFullYear(), now.getMonth(), now.getDate()) - Date.UTC(now.getFullYear(), 0, 0)) / 864e5);

const FIELDS = {
  a: (now) => DAYS[now.getDay()].slice(0, 3),
  A: (now) => DAYS[now.getDay()],
  b: (now) => MONTHS[now.getMonth()].slice(0, 3),
  B: (now) => MONTHS[now.getMonth()],
  d: (now) => two(now.getDate()),
  e: (now) => String(now.getDate()).padStart(2, " "),
  F: (now) => strftime(now, "%Y-%m-%d"),
  H: (now) => two(now.getHours()),
  I: (now) => two(hour(now)),
  j: (now) => String(dayOfYear(now)).padStart(3, "0"),
  m: (now) => two(now.getMonth() + 1),
  M: (now) => two(now.getMinutes()),
  p: (now) => (now.getHours() < 12 ? "AM" : "PM"),
  S: (now) => two(now.getSeconds()),
  T: (now) => strftime(now, "%H:%M:%S"),
  w: (now) => String(now.getDay()),
  y: (now) => two(now.getFullYear() % 100),
  Y: (now) => String(now.getFullYear()),
  "%": () => "%",
};

/**
 * @param {Date} now
 * @param {string} layout
 * @returns {string}
 */
export function strftime(now, layout) {
  return layout.replace(/%(-?)(.)/gs, (whole, bare, field) => {
    const write = FIELDS[field];
    if (!write)
      throw new EdgekitError("unsupported", `the base's chat template asks the clock for ${whole}`, "use another base");
    return bare ? write(now).replace(/^[0 ]+(?=.)/, "") : write(now);
  });
}
