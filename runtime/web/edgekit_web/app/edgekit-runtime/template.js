/** A base's chat template, rendered within a budget: a template is a program from a file. */

// @ts-ignore: the site's builder puts the package there
import { Environment, Interpreter, parse, tokenize } from "../vendor/jinja/jinja.js";
import { EdgekitError } from "./errors.js";

// As on other devices; a page has no clock for CPU time.
const SECONDS = 4;
const OUTPUT = 8 << 20;
const LARGEST = 4 << 20; // characters and items of one value
const MADE = 32 << 20; // of all values that are made
const LONGEST_SOURCE = 256 << 10;
const DEEPEST = 400; // evaluations inside each other
const DEEPEST_VALUE = 100;
const LARGEST_RANGE = 100_000;
const LARGEST_ARGUMENT = 10_000; // of filters: widths and counts
const STRIDE = 256; // steps between two looks at the clock

class OverBudget extends Error {}

export class Template {
  /** @param {string} source */
  constructor(source) {
    if (source.length > LONGEST_SOURCE) throw tooMuch(`is longer than ${LONGEST_SOURCE} characters`);
    try {
      this.program = parse(tokenize(source, { lstrip_blocks: true, trim_blocks: true }));
    } catch (error) {
      throw new EdgekitError(
        "input",
        `the base's chat template is broken (${reason(error)})`,
        "export a base whose template works",
      );
    }
    this.literals = [...literals(this.program)];
  }

  /** @param {Record<string, any>} variables */
  render(variables) {
    const environment = new Environment();
    for (const [name, value] of Object.entries({ ...NAMES, ...variables })) environment.set(name, value);
    try {
      return new Bounded(environment).run(this.program).value;
    } catch (error) {
      if (error instanceof OverBudget) throw tooMuch(error.message);
      throw new Error(reason(error));
    }
  }
}

const NAMES = {
  true: true,
  false: false,
  none: null,
  True: true,
  False: false,
  None: null,
  raise_exception(message) {
    throw new Error(message);
  },
  range(start, stop, step = 1) {
    const [first, last] = stop === undefined ? [0, start] : [start, stop];
    const length = Math.max(0, Math.ceil((last - first) / step));
    if (!(length <= LARGEST_RANGE)) throw new OverBudget(`asks for a range of more than ${LARGEST_RANGE}`);
    return Array.from({ length }, (_, index) => first + index * step);
  },
};

const MAKING = new Set([
  "BinaryExpression",
  "CallExpression",
  "FilterExpression",
  "ArrayLiteral",
  "TupleLiteral",
  "ObjectLiteral",
]);
const WIDENING = new Set(["indent", "tojson", "join"]);

class Bounded extends /** @type {any} */ (Interpreter) {
  constructor(environment) {
    super(environment);
    this.end = performance.now() + SECONDS * 1000;
    this.steps = this.depth = this.made = this.output = 0;
    this.sizes = new WeakMap(); // of lists and objects in which nothing can change
    this.changing = false;
  }

  evaluate(statement, environment) {
    this.step();
    if (++this.depth > DEEPEST) throw new OverBudget("calls itself, or nests, too deep");
    try {
      const value = super.evaluate(statement, environment);
      if (MAKING.has(statement?.type) || statement?.property?.type === "SliceExpression") this.count(value);
      return value;
    } finally {
      this.depth -= 1;
    }
  }

  evaluateBlock(statements, environment) {
    const written = { evaluate: (each, scope) => this.written(this.evaluate(each, scope)) };
    return super.evaluateBlock.call(written, statements, environment);
  }

  evaluateCallExpression(expression, environment) {
    const { callee } = expression;
    if (callee.type === "MemberExpression" && callee.property.value === "replace") {
      this.checkReplace(
        this.evaluate(callee.object, environment),
        this.evaluateArguments(expression.args, environment)[0],
      );
    }
    return super.evaluateCallExpression(expression, environment);
  }

  applyFilter(operand, node, environment) {
    const size = this.size(operand);
    if (node.type === "CallExpression") {
      const [given, named] = this.evaluateArguments(node.args, environment);
      if (WIDENING.has(node.callee.value)) {
        for (const { value } of [...given, ...named.values()]) {
          const width = typeof value === "number" ? Math.abs(value) : (value?.length ?? 0);
          if (!(width <= LARGEST_ARGUMENT)) throw new OverBudget(`asks for a width of more than ${LARGEST_ARGUMENT}`);
          this.most(size * width);
        }
      }
      if (node.callee.value === "replace") this.checkReplace(operand, given);
    }
    return super.applyFilter(operand, node, environment);
  }

  checkReplace({ value }, [old, by]) {
    if ([value, old?.value, by?.value].some((each) => typeof each !== "string")) return;
    const places = old.value ? value.split(old.value).length - 1 : value.length + 1;
    this.most(value.length + places * by.value.length);
  }

  step() {
    if (++this.steps % STRIDE === 0 && performance.now() > this.end)
      throw new OverBudget(`takes more than ${SECONDS} s`);
  }

  most(size) {
    if (size > LARGEST) throw new OverBudget(`works on more than ${LARGEST} characters and items at once`);
  }

  /** A value that is new. */
  count(value) {
    this.size(value);
    this.made += value?.value?.length ?? 0;
    if (this.made > MADE) throw new OverBudget(`makes more than ${MADE} characters and items`);
  }

  /** A value that is written. */
  written(value) {
    this.output += this.size(value);
    if (this.output > OUTPUT) throw new OverBudget(`writes more than ${OUTPUT} characters`);
    return value;
  }

  /** How large a value is when all of it is gone through; one list may stand in another many times. */
  size(value, depth = 0) {
    const held = value?.value;
    if (typeof held === "string") {
      this.most(held.length);
      return held.length;
    }
    if (!(Array.isArray(held) || held instanceof Map)) return 1;
    if (this.sizes.has(held)) return this.sizes.get(held);
    if (depth > DEEPEST_VALUE) throw new OverBudget(`nests values deeper than ${DEEPEST_VALUE}`);
    const outside = this.changing;
    this.changing = value.type === "NamespaceValue";
    let size = 1;
    for (const [key, each] of held.entries()) {
      this.step();
      size += 1 + (typeof key === "string" ? key.length : 0) + this.size(each, depth + 1);
      this.most(size);
    }
    if (!this.changing) this.sizes.set(held, size);
    this.changing ||= outside;
    return size;
  }
}

function tooMuch(what) {
  return new EdgekitError("input", `the base's chat template ${what}`, "use a base with another template");
}

function reason(error) {
  const text = String(error?.message ?? error).replace(/\s+/g, " ");
  return error instanceof RangeError ? "too deep or too long" : text.slice(0, 500);
}

/** Texts that stand in a template's expressions. */
function* literals(node) {
  const waiting = [node];
  while (waiting.length) {
    const each = waiting.pop();
    if (typeof each !== "object" || each === null) continue;
    if (each.type === "StringLiteral") yield each.value;
    waiting.push(...(each instanceof Map ? [...each.entries()].flat() : Object.values(each)));
  }
}
