/** Ed25519 signatures (RFC 8032) of bundles and adapter files, checked by the browser's WebCrypto. */

import { EdgekitError } from "./errors.js";

const PEM = /-----BEGIN PUBLIC KEY-----([\s\S]*?)-----END PUBLIC KEY-----/g;
const ADAPTER_SCHEMA = "edgekit.adapter/1";
export const SIGNATURE_BYTES = 64;

/** What an adapter's signature is over: the line that `edgekit sign` signs. */
export function adapterMessage(digest) {
  return new TextEncoder().encode(`${ADAPTER_SCHEMA} ${digest}`);
}

/**
 * Check that a message is signed by one of the trusted keys.
 *
 * @param {Uint8Array<ArrayBuffer>} message
 * @param {ArrayBuffer | undefined} signature raw, 64 bytes
 * @param {string} trust public keys, PEM, one after the other
 * @param {string} label of what is signed
 */
export async function checkSignature(message, signature, trust, label) {
  if (!signature) {
    throw new EdgekitError(
      "signature",
      `${label} is not signed, and this site asks for it`,
      "sign it: `edgekit sign`",
      { label },
    );
  }
  for (const key of await publicKeys(trust)) {
    if (await crypto.subtle.verify("Ed25519", key, signature, message)) return;
  }
  throw new EdgekitError(
    "signature",
    `${label} is altered or signed by nobody that this site knows`,
    "get it from its maker again",
    { label },
  );
}

async function publicKeys(trust) {
  const keys = [];
  for (const [, body] of trust.matchAll(PEM)) {
    const bytes = Uint8Array.from(atob(body.replace(/\s/g, "")), (sign) => sign.charCodeAt(0));
    try {
      keys.push(await crypto.subtle.importKey("spki", bytes, "Ed25519", false, ["verify"]));
    } catch (error) {
      if (error.name === "NotSupportedError") {
        throw new EdgekitError(
          "unsupported",
          "this browser can't check signatures (Ed25519)",
          "update it: Chrome 137, Safari 17, Firefox 129 or later",
        );
      }
      throw new EdgekitError("signature", "the site's trusted keys are damaged", "build the site again");
    }
  }
  return keys;
}
