/**
 * @typedef {"usage" | "input" | "network" | "storage" | "quota" | "memory" | "unsupported" | "signature" | "family" |
 *   "damaged" | "context" | "engine"} ErrorCode
 */

/** What went wrong, and how to mend it.  `code` is for programs, `problem` and `mend` are for people. */
export class EdgekitError extends Error {
  /**
   * @param {ErrorCode} code
   * @param {string} problem
   * @param {string} [mend]
   * @param {Record<string, string | number>} [facts] figures and names in the message, for translations
   */
  constructor(code, problem, mend, facts = {}) {
    super(mend ? `${problem}: ${mend}` : problem);
    this.name = "EdgekitError";
    this.code = code;
    this.problem = problem;
    this.mend = mend;
    this.facts = facts;
  }
}
