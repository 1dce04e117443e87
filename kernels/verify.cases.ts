/** Cases of the verification against its definition in f64: the same token for the same uniforms. */
import { PLAIN_SAMPLE, type SampleRecord, sampleWords } from "./caseData.ts";
import { f32Bits, f32FromBits } from "./formats/halves.ts";
import { PURPOSE, philox, unitInterval } from "./fragments/philox.ts";
import { NONE } from "./kernel.ts";
import { logProbComparison, logSumExp, randomLogits, stacked } from "./logitData.ts";
import { BORDER, drawn, EDGE, keptWeights, mayBe } from "./sample.cases.ts";
import { type Case, Random } from "./testbed.ts";
import { verify } from "./verify.ts";

/** Excess below this share is rounding: then what the sampler drew may stand. */
const NO_EXCESS = 1e-5;

interface VerifyShape {
  readonly vocab: number;
  readonly draftVocab: number;
  readonly draws: number;
  readonly settings: Pick<SampleRecord, "temperature" | "topK" | "topP" | "minP" | "typicalP">;
  readonly seed: number;
}

/** A row to be verified: what the sampler drew of it before. */
interface Row {
  readonly record: SampleRecord;
  readonly scores: Float32Array;
  readonly draft: Float32Array;
  readonly before: number;
}

/** What the draft draws from, or the target: shares of the whole, 0 for what is cut. */
function sharesOf(scores: Float32Array, record: SampleRecord, edge: number, vocab: number): Float64Array {
  const weights = keptWeights(scores, record, edge);
  const total = weights.reduce((a, b) => a + b);
  const shares = new Float64Array(vocab);
  shares.set(weights.map((w) => w / total));
  return shares;
}

const uniformOf = ({ position, choice, seedLow, seedHigh }: SampleRecord, purpose: number): number =>
  unitInterval(philox([position, choice, purpose, 0], [seedLow, seedHigh])[0]);

/** Whether `id` is right where the cuts are as `edges` says. */
function isRight({ record, scores, draft, before }: Row, id: number, edges: readonly [number, number]): boolean {
  const vocab = scores.length;
  const [p, q] = [sharesOf(scores, record, edges[0], vocab), sharesOf(draft, record, edges[1], vocab)];
  const [proposed, wanted] = [q[record.target] ?? Number.NaN, p[record.target] ?? Number.NaN];
  const margin = uniformOf(record, PURPOSE.accept) * proposed - wanted;
  if (margin < BORDER * proposed && id === record.target) return true;
  if (margin < -BORDER * proposed) return false;
  const excess = p.map((share, i) => Math.max(share - (q[i] ?? 0), 0));
  const total = excess.reduce((a, b) => a + b);
  if (total < NO_EXCESS && id === before) return true;
  return mayBe(excess, id, uniformOf(record, PURPOSE.residual), BORDER / total);
}

/** `id` where it is right, else a token that is none. */
function wantedId(row: Row, id: number): number {
  if (row.record.drafted === NONE) return row.before;
  const edges = [0, -EDGE, EDGE];
  return edges.some((a) => edges.some((b) => isRight(row, id, [a, b]))) ? id : NONE;
}

function verifyCase({ vocab, draftVocab, draws, settings, seed }: VerifyShape): Case {
  const { temperature, topK, topP, minP, typicalP } = settings;
  const cuts = `temperature=${temperature} top_k=${topK} top_p=${topP} min_p=${minP} typical_p=${typicalP}`;
  return {
    kernel: "verify",
    title: `verify vocab=${vocab}${draftVocab < vocab ? ` draft_vocab=${draftVocab}` : ""} draws=${draws} ${cuts} seed=${seed}`,
    async run(bed) {
      const random = new Random(seed);
      const rows = Array.from({ length: draws }, (_, i) =>
        randomRow(random, { vocab, draftVocab, settings }, draws - 1 - i),
      );
      const [stride, draftStride] = [vocab + random.below(5), draftVocab + random.below(5)];
      // Log-probabilities are of the logits, whatever rules made of them.
      const logits = rows.map(({ scores }) => scores.map((v) => v + random.next()));
      const lead = random.below(40);
      const out = bed.buffer(Uint32Array.from(rows.flatMap(({ before }) => [before, f32Bits(-1)])));
      const buffers = {
        logits: bed.buffer(stacked(logits, stride)),
        scores: bed.buffer(
          stacked(
            rows.map(({ scores }) => scores),
            stride,
          ),
        ),
        drafted: bed.buffer(stacked(rows.map(({ draft }) => draft).reverse(), draftStride)),
        batch: bed.buffer(
          sampleWords(
            rows.map(({ record }) => record),
            lead,
          ),
        ),
        out,
      };
      const params = { vocab, stride, samples: lead, draft_vocab: draftVocab, draft_stride: draftStride };
      await bed.submit((recorder) => verify.launch(recorder, { buffers, params, grid: [draws, 1, 1] }));
      const words = await bed.u32(out);
      const ids = rows.map((_, i) => words[2 * i] ?? Number.NaN);
      const lps = rows.map((_, i) => f32FromBits(words[2 * i + 1] ?? Number.NaN));
      const wantedLps = rows.map(({ before }, i) => {
        const [id, row] = [ids[i] ?? Number.NaN, logits[i] ?? new Float32Array()];
        // A row that was left alone has what it had.
        return id === before && lps[i] === -1 ? -1 : (row[id] ?? Number.NaN) - logSumExp(row);
      });
      const wanted = rows.map((row, i) => wantedId(row, ids[i] ?? Number.NaN));
      return [{ name: "ids", got: ids, want: wanted, limit: 0 }, logProbComparison(lps, wantedLps)];
    },
  };
}

function randomRow(
  random: Random,
  { vocab, draftVocab, settings }: Pick<VerifyShape, "vocab" | "draftVocab" | "settings">,
  drafted: number,
): Row {
  const scores = randomLogits(random, "normal", vocab);
  // Near the target's, or anything, or the same.
  const apart = random.pick([0, 0.5, 2]);
  const draft = scores.slice(0, draftVocab).map((v) => v + apart * (random.next() - 0.5) * 4);
  const word = () => random.below(2 ** 32);
  const own = { ...PLAIN_SAMPLE, ...settings, seedLow: word(), seedHigh: word(), position: random.below(1e5) };
  const target = drawn(keptWeights(draft, own), random.next());
  const record = { ...own, target, drafted: random.below(8) === 0 ? NONE : drafted };
  return { record, scores, draft, before: random.below(vocab) };
}

const OFF = { temperature: 1, topK: 0, topP: 1, minP: 0, typicalP: 1 } as const;
const SETTINGS = [
  OFF,
  { ...OFF, temperature: 0.6, topK: 7 },
  { ...OFF, topP: 0.8 },
  { ...OFF, temperature: 1.3, minP: 0.05 },
  { ...OFF, typicalP: 0.7 },
  { temperature: 0.8, topK: 40, topP: 0.95, minP: 0.02, typicalP: 0.9 },
] as const;

/** `count` cases: settings by turns, in vocabularies about the 256 lanes, of which the draft may lack the end. */
export function verifyCases(count: number, firstSeed: number): Case[] {
  return Array.from({ length: count }, (_, i) => {
    const seed = firstSeed + i;
    const vocab = new Random(seed * 4007).pick([2, 31, 255, 256, 257, 1000]);
    const draftVocab = i % 4 === 3 ? Math.ceil(vocab * 0.9) : vocab;
    return verifyCase({ vocab, draftVocab, draws: 24, settings: SETTINGS[i % SETTINGS.length] ?? OFF, seed });
  });
}
