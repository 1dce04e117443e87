/** Large random matrices in two orders: as the kernels store them, and row-major as the naive one reads them. */
import { f16Bits, f16FromBits } from "../kernels/formats/halves.ts";
import { BLOCK_ROWS } from "../kernels/formats/layout.ts";
import { layouts } from "../kernels/formats/layouts.ts";
import type { Random } from "../kernels/testbed.ts";
import { NAIVE_GROUP, type NaiveLayout } from "./naive_matvec.ts";

/** The same weights twice. Codes are any bits; weights are of about 1/√cols. */
export interface RandomMatrix {
  readonly layout: NaiveLayout;
  /** Stored rows: a multiple of 32. */
  readonly rows: number;
  readonly cols: number;
  /** [rows/32][cols/per][32], and [rows/32][cols/32][32] halves of scale and bias. */
  readonly stored: { readonly words: Uint32Array<ArrayBuffer>; readonly scales: Uint32Array<ArrayBuffer> };
  /** (rows, cols/per), and (rows, cols/32) each. */
  readonly rowMajor: {
    readonly words: Uint32Array<ArrayBuffer>;
    readonly scales: Float32Array<ArrayBuffer>;
    readonly biases: Float32Array<ArrayBuffer>;
  };
}

/** Much faster than packing weight by weight: a real head has 28 million. */
export function randomMatrix(random: Random, layout: NaiveLayout, rows: number, cols: number): RandomMatrix {
  const { runWords } = layouts[layout];
  const levels = 2 ** runWords;
  const [rowWords, groups] = [(cols * runWords) / 32, cols / NAIVE_GROUP];
  const words = Uint32Array.from({ length: rows * rowWords }, () => random.next() * 2 ** 32);
  const pairs = new Uint32Array(rows * groups);
  const [scales, biases] = [new Float32Array(pairs.length), new Float32Array(pairs.length)];
  for (let i = 0; i < pairs.length; i++) {
    const scale = f16Bits(((0.5 + random.next()) * 2) / Math.sqrt(cols) / levels);
    const bias = f16Bits((-levels / 2) * f16FromBits(scale) * (0.8 + 0.4 * random.next()));
    pairs[i] = scale | (bias << 16);
    [scales[i], biases[i]] = [f16FromBits(scale), f16FromBits(bias)];
  }
  return {
    layout,
    rows,
    cols,
    stored: { words: inBlocks(words, rowWords), scales: inBlocks(pairs, groups) },
    rowMajor: { words, scales, biases },
  };
}

/** Row-major (rows, width) as [rows/32][width][32]. */
function inBlocks(rowMajor: Uint32Array, width: number): Uint32Array<ArrayBuffer> {
  const out = new Uint32Array(rowMajor.length);
  for (let row = 0; row < rowMajor.length / width; row++) {
    const block = Math.floor(row / BLOCK_ROWS) * width;
    for (let i = 0; i < width; i++) {
      out[(block + i) * BLOCK_ROWS + (row % BLOCK_ROWS)] = rowMajor[row * width + i] ?? 0;
    }
  }
  return out;
}
