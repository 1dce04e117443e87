/** Attention over a filled cache, and the sampler over a row of logits, as the model launches them. */
import { Recorder } from "../device/program.ts";
import { pageWords } from "../kernels/attention/kv_page.ts";
import { type KvType, kvNumbers } from "../kernels/attention/kv_types.ts";
import { PLAIN_SAMPLE, sampleWords } from "../kernels/caseData.ts";
import { PAGE_TOKENS, ROW_WORDS, splitsOf } from "../kernels/fragments/batch.ts";
import { sample } from "../kernels/sample.ts";
import { Random } from "../kernels/testbed.ts";
import { attend } from "../models/ops/attend.ts";
import type { Step } from "../models/step.ts";
import { BufferSet, type BuiltOp, type PerfBed, type PerfOp } from "./perfOp.ts";

/** Heads of a model and how many tokens are in its cache. */
export interface AttentionSpec {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly depth: number;
  /** Of the cache; left out: f16. */
  readonly kvType?: KvType;
  /** Of one prompt, behind each other; left out: 1, a token being decoded. */
  readonly rows?: number;
}

/** Attention of the tokens behind `depth` others; with the reduction where the keys are split. */
export function attentionOp(spec: AttentionSpec): PerfOp {
  const { heads, kvHeads, headDim, depth, kvType = "f16", rows = 1 } = spec;
  const keys = depth + rows;
  return {
    name: "attention",
    shape: `${heads}/${kvHeads} heads of ${headDim}, depth ${depth}, ${kvType}`,
    rows,
    bytes: ((4 * pageWords(kvType, kvHeads, headDim)) / PAGE_TOKENS) * keys,
    flops: 4 * heads * headDim * (rows * depth + (rows * (rows + 1)) / 2),
    weightColumns: 0,
    build: (bed, copies) => buildAttention(bed, spec, copies),
  };
}

async function buildAttention(bed: PerfBed, spec: AttentionSpec, copies: number): Promise<BuiltOp> {
  const { heads, kvHeads, headDim, depth, kvType = "f16", rows = 1 } = spec;
  const random = new Random(depth);
  const buffers = new BufferSet(bed.gpu);
  const pages = Math.ceil((depth + rows) / PAGE_TOKENS);
  const cache = filledPages(kvType, pages * pageWords(kvType, kvHeads, headDim), random);
  const recorder = new Recorder(bed.gpu, bed.pipelines);
  const aux = buffers.add("aux", new Float32Array(4));
  const step: Step = {
    recorder,
    aux,
    batch: buffers.add("batch", batchOf(rows, depth, pages)),
    ropes: [buffers.add("rope", ropeOf(rows, depth, headDim))],
    kv: Array.from({ length: copies }, (_, i) => buffers.add(`kv ${i}`, cache)),
    groups: [],
    kvType,
    precision: "f32",
    rows,
    oneRowEach: rows === 1,
    splits: splitsOf(depth + rows),
    samples: rows,
    everyRow: true,
    samplesAt: 0,
  };
  const stride = (heads + 2 * kvHeads) * headDim;
  const qkv = recorder.slot(rows * stride * 4, "qkv");
  const values = random.floats(rows * stride) as Float32Array<ArrayBuffer>;
  for (let layer = 0; layer < copies; layer++) {
    attend(
      step,
      { slot: qkv, stride },
      {
        layer,
        heads,
        kvHeads,
        headDim,
        rope: 0,
        rotaryDim: headDim,
        scale: 1 / Math.sqrt(headDim),
        window: null,
      },
    );
  }
  const program = await recorder.finish(bed.arena);
  return {
    program,
    naive: undefined,
    upload: () => bed.gpu.device.queue.writeBuffer(program.bufferOf(qkv), 0, values),
    compare: async () => undefined,
    free() {
      program.destroy();
      buffers.free();
    },
  };
}

/** Random numbers as they are cached. */
function filledPages(kvType: KvType, words: number, random: Random): Uint32Array<ArrayBuffer> {
  const { dims, scaled, encode } = kvNumbers[kvType];
  // Scales lie among the words: one pattern that is both, four codes and a small f32.
  return scaled ? new Uint32Array(words).fill(0x3c203c20) : Uint32Array.from(encode(random.floats(words * dims)));
}

/** Rows of one sequence behind `depth` tokens, whose pages are in order. */
function batchOf(rows: number, depth: number, pages: number): Uint32Array<ArrayBuffer> {
  const tableAt = rows * ROW_WORDS;
  const batch = new Uint32Array(tableAt + pages).map((_, i) => Math.max(i - tableAt, 0));
  for (let row = 0; row < rows; row++) {
    const position = depth + row;
    batch.set([0, position, position, position + 1, row, tableAt, 0, 0], row * ROW_WORDS);
  }
  return batch;
}

/** Their rotations: whatever angles, they cost the same. */
const ropeOf = (rows: number, depth: number, headDim: number): Float32Array<ArrayBuffer> =>
  new Float32Array(rows * headDim).map((_, i) => {
    const angle = depth + Math.floor(i / headDim);
    return i % headDim < headDim / 2 ? Math.cos(angle) : Math.sin(angle);
  });

/** One draw from a vocabulary: greedy, or with a temperature and top-p. */
export function sampleOp(
  vocabulary: number,
  settings: { readonly temperature: number; readonly topP: number },
): PerfOp {
  const { temperature, topP } = settings;
  return {
    name: "sample",
    shape: `${vocabulary} logits, ${temperature === 0 ? "greedy" : `temperature ${temperature}, top-p ${topP}`}`,
    rows: 1,
    bytes: 4 * vocabulary,
    flops: 0,
    weightColumns: 0,
    async build(bed, copies) {
      const buffers = new BufferSet(bed.gpu);
      const logits = new Random(vocabulary).floats(vocabulary, 4) as Float32Array<ArrayBuffer>;
      const record = sampleWords([{ ...PLAIN_SAMPLE, ...settings }], 0) as Uint32Array<ArrayBuffer>;
      const shared = { batch: buffers.add("batch", record), out: buffers.add("drawn", new Uint32Array(4)) };
      const recorder = new Recorder(bed.gpu, bed.pipelines);
      for (let i = 0; i < copies; i++) {
        const row = buffers.add(`logits ${i}`, logits);
        sample.launch(recorder, {
          buffers: { ...shared, logits: row, scores: row },
          params: { vocab: vocabulary, stride: vocabulary, samples: 0, adjusted: 0 },
          grid: [1, 1, 1],
        });
      }
      const program = await recorder.finish(bed.arena);
      return {
        program,
        naive: undefined,
        upload() {},
        compare: async () => undefined,
        free() {
          program.destroy();
          buffers.free();
        },
      };
    },
  };
}
