/** The alphabet in which byte-level vocabularies are spelt: 256 printable characters, one a byte (GPT-2's `bytes_to_unicode`). */

const BYTES: ReadonlyMap<string, number> = new Map(byteCharacters());

/** The characters with their bytes: printable Latin-1 stands for itself, every other byte for the next character from U+0100 on. */
function byteCharacters(): [string, number][] {
  const printable = (byte: number) =>
    (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || (byte >= 0xae && byte <= 0xff);
  let next = 0x100;
  return Array.from({ length: 256 }, (_, byte) => [String.fromCharCode(printable(byte) ? byte : next++), byte]);
}

/** The bytes that a token spells, or undefined if it holds a character outside the alphabet. */
export function decodeBytes(token: string): Uint8Array | undefined {
  const bytes: number[] = [];
  for (const character of token) {
    const byte = BYTES.get(character);
    if (byte === undefined) return undefined;
    bytes.push(byte);
  }
  return Uint8Array.from(bytes);
}
