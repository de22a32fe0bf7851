/** Bytes as digests are written.  @param {ArrayBuffer | Uint8Array} bytes */
export function hex(bytes) {
  return [...new Uint8Array(bytes)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
