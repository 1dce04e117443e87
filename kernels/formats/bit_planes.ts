/**
 * Planes of bits: how codes of 1 to 8 bits lie in the words of a run of 32 columns, for every layout that has codes.
 *
 * A plane of p bits takes p words a run. Byte b of a word holds columns that are b modulo 4, its lowest p bits the first of them: field f of
 * byte b is column 4f + b, counted over the plane's words. So one mask leaves four codes in bytes, which GPUs turn into floats in one
 * instruction each. Codes of 3, 5 and 6 bits are two planes behind each other, the lower bits first; each load stays 128 bits wide.
 */

import type { Halves } from "./layout.ts";

/** `codes(run, step)`: the eight columns of a step for four rows, a code a byte: columns 0 … 3 in `low`, 4 … 7 in `high`. */
export function bytesOf(planes: readonly number[]): string {
  let word = 0;
  let shift = 0;
  const reads = planes.map((width) => {
    const read = planeRead(width, word);
    const at =
      shift === 0 ? read : { low: `((${read.low}) << vec4u(${shift}u))`, high: `((${read.high}) << vec4u(${shift}u))` };
    word += width;
    shift += width;
    return { ...at, setup: read.setup };
  });
  return /* wgsl */ `
struct Codes { low: vec4u, high: vec4u }
fn codes(run: u32, step: u32) -> Codes {
${reads.map(({ setup }) => setup).join("\n")}
  return Codes(${reads.map(({ low }) => low).join(" | ")}, ${reads.map(({ high }) => high).join(" | ")});
}`;
}

/** The two halves of a step in a plane that begins at word `first` of the run. */
function planeRead(width: number, first: number): { setup: string; low: string; high: string } {
  const name = `w${first}`;
  const at = (offset: string) => `words[run + ${first * 8}u + ${offset}]`;
  if (width === 8) {
    return {
      setup: `  let ${name} = ${at("step * 16u")};\n  let ${name}b = ${at("step * 16u + 8u")};`,
      low: name,
      high: `${name}b`,
    };
  }
  const steps = 4 / width; // steps of 8 columns that share a word
  const word = steps === 1 ? "step * 8u" : `(step / ${steps}u) * 8u`;
  const shifted = steps === 1 ? at(word) : `${at(word)} >> vec4u(${2 * width}u * (step % ${steps}u))`;
  const mask = ((2 ** width - 1) * 0x01010101) >>> 0;
  const setup = `  let ${name} = ${shifted};`;
  return { setup, low: `(${name} & vec4u(${mask}u))`, high: `((${name} >> vec4u(${width}u)) & vec4u(${mask}u))` };
}

/** WGSL for byte b of each word: the forms that compilers know as one instruction with the conversion to float. */
function byteOf(words: string, b: number): string {
  if (b === 0) return `(${words} & vec4u(255u))`;
  return b === 3 ? `(${words} >> vec4u(24u))` : `((${words} >> vec4u(${8 * b}u)) & vec4u(255u))`;
}

/** `eight` of a layout whose code is turned into numbers by the WGSL expression `number(codes: vec4u)`. */
export function eightOf(planes: readonly number[], number: (codes: string) => string): string {
  const columns = ["low", "high"].flatMap((half) => [0, 1, 2, 3].map((b) => number(byteOf(`c.${half}`, b))));
  return /* wgsl */ `${bytesOf(planes)}
fn eight(run: u32, step: u32) -> Eight {
  let c = codes(run, step);
  return Eight(${columns.join(", ")});
}`;
}

/** `halves` of such a layout; `functions`: WGSL that `number` needs. */
export function halvesOf(planes: readonly number[], number: (codes: string) => string, functions = ""): Halves {
  return { code: `${functions}${bytesOf(planes)}`, column: (b) => number(byteOf("half", b)) };
}

/**
 * `eight` of integer codes without shifts where it can be: a byte in its place is 2^8b times the code, exactly, and so is what a factor makes of it.
 * A conversion takes it for signed, so that of the last byte the uppermost bit is turned and what it stands for added.
 */
export function eightByMasks(planes: readonly number[]): string {
  const [first = 0] = planes;
  const nibbles = planes.length === 1 && first === 4;
  const codes = planes.reduce((a, b) => a + b);
  const column = (half: "low" | "high", b: number) => {
    const from = 8 * b + (nibbles && half === "high" ? 4 : 0);
    const width = nibbles ? 4 : codes;
    const mask = `vec4u(${(2 ** width - 1) * 2 ** from}u)`;
    const words = nibbles ? "w" : `c.${half}`;
    if (from + width < 32) return `vec4f(bitcast<vec4i>(${words} & ${mask}))${from === 0 ? "" : ` * ${2 ** -from}`}`;
    return `fma(vec4f(bitcast<vec4i>((${words} ^ vec4u(0x80000000u)) & ${mask})), vec4f(${2 ** -from}), vec4f(${2 ** (width - 1)}.0))`;
  };
  const columns = (["low", "high"] as const).flatMap((half) => [0, 1, 2, 3].map((b) => column(half, b)));
  return /* wgsl */ `${nibbles ? "" : bytesOf(planes)}
fn eight(run: u32, step: u32) -> Eight {
  ${nibbles ? "let w = words[run + step * 8u];" : "let c = codes(run, step);"}
  return Eight(${columns.join(", ")});
}`;
}

/** Bits of a code: `bits` of them from bit `from` of the code lie at bit `bit` of word `word` of the run. */
export interface Field {
  readonly word: number;
  readonly bit: number;
  readonly bits: number;
  readonly from: number;
}

/** Where the code of a column of a run lies; planes of 16 and 32 bits hold neighbouring columns. */
export function fieldsOf(planes: readonly number[], column: number): Field[] {
  let word = 0;
  let from = 0;
  return planes.map((bits) => {
    const each = bits >= 8 ? 1 : 8 / bits; // codes in a byte
    const place =
      bits >= 16
        ? { word: Math.floor((column * bits) / 32), bit: (column * bits) % 32 }
        : {
            word: Math.floor(Math.floor(column / 4) / each),
            bit: 8 * (column % 4) + bits * (Math.floor(column / 4) % each),
          };
    const field = { word: word + place.word, bit: place.bit, bits, from };
    word += bits;
    from += bits;
    return field;
  });
}
