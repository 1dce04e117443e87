/** Cases of the embedding gather: every layout, row shards, padded columns, against f64. */
import { columns, padded, randomMatrix, runSums, scaleChoices, scalesTitle, untouched } from "./caseData.ts";
import { embed } from "./embed.ts";
import { scaleTypeCode } from "./formats/group_scales.ts";
import { groupCount, type LayoutName, paddedCols, paramWords, type ScaleType, type Zeros } from "./formats/layout.ts";
import { LAYOUT_NAMES, layouts } from "./formats/layouts.ts";
import { activationShape } from "./fragments/activation.ts";
import { ROW, ROW_WORDS } from "./fragments/batch.ts";
import { type Case, type Comparison, Random, type Testbed } from "./testbed.ts";

/** One case: shapes, layout, and the seed of its numbers. */
export interface EmbedShape {
  readonly layout: LayoutName;
  readonly group: number;
  readonly scaleType: ScaleType;
  readonly zeros?: Zeros | undefined;
  readonly vocab: number;
  readonly cols: number;
  /** Tokens of the step. */
  readonly rows: number;
  /** Rows of the vocabulary in this shard. */
  readonly firstRow: number;
  readonly endRow: number;
  /** Families with scaled embeddings multiply by √hidden_size. */
  readonly multiplier: number;
  /** Learned positions: added to what y holds; the shard is then the whole matrix. */
  readonly add?: boolean;
  readonly seed: number;
}

const LIMIT = 1e-12; // one or two roundings a value

/** Runs the kernel: y (rows, stride), the activation z, the tokens and the inputs in f64. */
export async function runEmbed(bed: Testbed, shape: EmbedShape) {
  const random = new Random(shape.seed);
  const { rows, cols, firstRow, endRow } = shape;
  const layout = layouts[shape.layout];
  const matrix = randomMatrix(random, layout, endRow - firstRow, cols, shape.group, shape.scaleType, shape);
  const weight = random.floats(cols);
  // The first and the last row of the shard, then any.
  const tokens = Array.from({ length: rows }, (_, i) => [firstRow, endRow - 1][i] ?? random.below(shape.vocab));
  const batch = new Uint32Array(rows * ROW_WORDS).fill(0xffff_ffff);
  const idWord = shape.add === true ? ROW.position : ROW.token;
  tokens.forEach((token, row) => {
    batch[row * ROW_WORDS + idWord] = token;
  });
  const z = activationShape(rows, cols);
  const words = bed.buffer(matrix.packed.words);
  const table = matrix.shape.table ?? new Float32Array();
  const before = Float32Array.from(random.floats(rows * z.stride), (v, i) => (i % z.stride < cols ? v : 0));
  const y = shape.add === true ? bed.buffer(before) : bed.output(rows * z.stride);
  const out = { y, z: bed.output(z.bytes / 4) };
  const buffers = {
    words,
    scales: layout.scaling !== "none" ? bed.buffer(matrix.packed.scales) : words,
    aux: bed.buffer(new Float32Array([...padded(weight, paddedCols(cols)), ...table])),
    batch: bed.buffer(batch),
    ...out,
  };
  const params = {
    row_runs: z.runs,
    groups: groupCount(matrix.shape),
    group_cols: matrix.shape.group,
    scale_type: scaleTypeCode(layout, matrix.shape),
    param_words: paramWords(layout, matrix.shape),
    table: paddedCols(cols),
    first_row: firstRow,
    end_row: endRow,
    multiplier: shape.multiplier,
    id_word: idWord,
    add: shape.add === true ? 1 : 0,
    norm_weight: 0,
    stride: z.stride,
    runs: z.runs,
    z_sums: z.sums,
    z_squares: z.squares,
  };
  await bed.submit((recorder) => embed(shape.layout).launch(recorder, { buffers, params, grid: [rows, 1, 1] }));
  const got = { y: await bed.f32(out.y), z: await bed.f32(out.z) };
  return { tokens, weight, values: matrix.values, shape: z, before: shape.add === true ? before : undefined, ...got };
}

/** The case of a shape; its title names all of it. */
export function embedCase(shape: EmbedShape): Case {
  return {
    kernel: "embed",
    title: title(shape),
    async run(bed) {
      const { tokens, weight, values, shape: z, before, ...got } = await runEmbed(bed, shape);
      const { cols, firstRow, endRow } = shape;
      const live = tokens.map((token) => token >= firstRow && token < endRow);
      const mine = live.flatMap((is, row) => (is ? [row] : []));
      const wantY = new Float64Array(mine.length * z.stride); // zeros behind cols
      mine.forEach((row, i) => {
        const at = ((tokens[row] ?? Number.NaN) - firstRow) * cols;
        values.subarray(at, at + cols).forEach((v, k) => {
          wantY[i * z.stride + k] = Math.fround(shape.multiplier) * v + (before?.[row * z.stride + k] ?? 0);
        });
      });
      const wantZ = wantY.map((v, i) => (i % z.stride < cols ? v * (weight[i % z.stride] ?? Number.NaN) : 0));
      const rowsOf = (data: Float32Array, width: number) =>
        Float32Array.from(mine.flatMap((row) => [...columns(data, 1, 0, row * width, width)]));
      const sums = rowsOf(got.z.subarray(z.sums, z.squares), z.runs);
      const squares = rowsOf(got.z.subarray(z.squares), z.runs);
      return [
        { name: "y", got: rowsOf(got.y, z.stride), want: wantY, limit: LIMIT },
        { name: "z", got: rowsOf(got.z, z.stride), want: wantZ, limit: LIMIT },
        { name: "sums", got: sums, want: runSums(wantZ, mine.length, z.stride), limit: LIMIT },
        { name: "squares", got: squares, want: runSums(wantY, mine.length, z.stride, 2), limit: LIMIT },
        untouched(got.y, (i) => live[Math.floor(i / z.stride)] === true),
        untouched(got.z, (i) => {
          const row = i < z.sums ? Math.floor(i / z.stride) : Math.floor((i - z.sums) / z.runs) % z.rows;
          return live[row] === true;
        }),
      ] satisfies Comparison[];
    },
  };
}

function title(s: EmbedShape): string {
  const weights = scalesTitle(s);
  const scaled = `${s.multiplier === 1 ? "" : ` multiplier=${s.multiplier}`}${s.add === true ? " added" : ""}`;
  return `embed ${weights} rows=${s.rows} cols=${s.cols} vocab=${s.vocab} shard=${s.firstRow}-${s.endRow}${scaled} seed=${s.seed}`;
}

/** `count` random shapes, layouts by turns. */
export function embedCases(count: number, firstSeed: number): Case[] {
  return Array.from({ length: count }, (_, i) => {
    const seed = firstSeed + i;
    const random = new Random(seed * 7741);
    const layout = LAYOUT_NAMES[i % LAYOUT_NAMES.length] ?? "f32";
    const group = random.pick([32, 64, 128]);
    const vocab = 1 + random.below(200);
    const firstRow = random.next() < 0.5 ? 0 : random.below(vocab);
    return embedCase({
      layout,
      group,
      scaleType: random.pick(scaleChoices(layouts[layout])),
      vocab,
      cols:
        layouts[layout].scaling !== "none"
          ? group * (1 + random.below(5))
          : random.pick([1, 31, 33, 48, 172, 256, 300]),
      rows: random.pick([1, 2, 3, 9]),
      firstRow,
      endRow: firstRow + 1 + random.below(vocab - firstRow),
      multiplier: random.next() < 0.4 ? 13.856406460551018 : 1,
      seed,
    });
  });
}

/** Learned positions, added to the rows of tokens: in the types that they are stored in. */
export function positionCases(firstSeed: number): Case[] {
  return (["f32", "f16"] as const).map((layout, i) => {
    const [vocab, scaleType] = [40, "f16"] as const;
    const shape = {
      layout,
      group: 32,
      scaleType,
      vocab,
      cols: 300,
      rows: 5,
      firstRow: 0,
      endRow: vocab,
      multiplier: 1,
    };
    return embedCase({ ...shape, add: true, seed: firstSeed + i });
  });
}

/** Rows of SmolLM2-135M's embedding, a shard from the middle of its vocabulary, in every layout. */
export function realEmbedCases(firstSeed: number): Case[] {
  return LAYOUT_NAMES.map((layout, i) =>
    embedCase({
      layout,
      group: 64,
      scaleType: "f16",
      vocab: 49152,
      cols: 576,
      rows: 16,
      firstRow: 24000,
      endRow: 25000,
      multiplier: 1,
      seed: firstSeed + i,
    }),
  );
}
