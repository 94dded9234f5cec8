// Base64, PEM and text of the bodies and certificates in a record.

/** Bytes of base64; null for what is none. */
export function fromBase64(text) {
  try {
    return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  } catch {
    return null;
  }
}

/** Bytes as UTF-8 text; null where they are none. */
export function asText(bytes) {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return null;
  }
}

/** The DER in PEM (its first block), in base64 with or without line ends, or the bytes themselves. */
export function toDer(bytes) {
  const text = asText(bytes);
  if (text === null) return bytes;
  const block = /-----BEGIN [A-Z0-9 ]+-----([^-]+)-----END /.exec(text);
  return fromBase64((block ? block[1] : text).replace(/\s+/g, "")) ?? bytes;
}

export const pemToDer = (pem) => toDer(new TextEncoder().encode(pem));

/** Bytes in the manner of `hexdump -C`, the first of them. */
export function dump(bytes, most = 4096) {
  const lines = [];
  for (let at = 0; at < Math.min(bytes.length, most); at += 16) {
    const part = [...bytes.subarray(at, Math.min(at + 16, most))];
    const hex = part.map((byte) => byte.toString(16).padStart(2, "0")).join(" ").padEnd(47);
    const text = part.map((byte) => (byte > 31 && byte < 127 ? String.fromCharCode(byte) : ".")).join("");
    lines.push(`${at.toString(16).padStart(6, "0")}  ${hex}  ${text}`);
  }
  if (bytes.length > most) lines.push(`… ${bytes.length - most} more bytes`);
  return lines.join("\n");
}
