/** Cases of what the next step computes: rows that go on over borders of pages, rows that end, rows that belong to nobody. */
import { advance } from "./advance.ts";
import { PLAIN_SAMPLE, type SampleRecord, sampleWords } from "./caseData.ts";
import { PAGE_TOKENS, ROW, ROW_WORDS, SAMPLE_WORDS } from "./fragments/batch.ts";
import { NONE } from "./kernel.ts";
import { NO_TOKEN } from "./sample.ts";
import { type Case, Random } from "./testbed.ts";

type RowRecord = Readonly<Record<keyof typeof ROW, number>>;
const NOBODY: RowRecord = { token: 0, position: 0, slot: NONE, length: 0, rope: 0, table: 0, state: 0 };

interface Row {
  readonly row: RowRecord;
  readonly sample: SampleRecord;
  readonly drawn: number;
  readonly pages: readonly number[];
  readonly stops: readonly number[];
}

const VOCAB = 1000;

/** A sequence's newest row behind `position` others, whose pages may be used up; it draws one of its stop ids, none at all, or like most. */
function someRow(random: Random, position: number): Row {
  const few = Math.floor(position / PAGE_TOKENS) + 1;
  const pages = Array.from({ length: few + random.below(3) }, () => random.below(5000));
  const stops = Array.from({ length: random.below(4) }, () => random.below(VOCAB));
  const drawn = random.pick([...stops, NONE, NO_TOKEN, ...Array.from({ length: 6 }, () => random.below(VOCAB))]);
  const slot = (pages[Math.floor(position / PAGE_TOKENS)] ?? Number.NaN) * PAGE_TOKENS + (position % PAGE_TOKENS);
  const [token, state] = [random.below(VOCAB), random.below(9)];
  const row = { token, position, slot, length: position + 1, rope: position, table: 0, state };
  return {
    row,
    sample: { ...PLAIN_SAMPLE, position: position + 1, seedLow: random.below(2 ** 32) },
    drawn,
    pages,
    stops,
  };
}

/** What is to become of a row and its sample. */
function next({ row, sample, drawn, pages, stops }: Row): Pick<Row, "row" | "sample"> {
  if (row.slot === NONE) return { row, sample };
  const position = row.position + 1;
  const page = pages[Math.floor(position / PAGE_TOKENS)];
  if (drawn >= NO_TOKEN || stops.includes(drawn) || page === undefined)
    return { row: { ...row, slot: NONE, length: 0 }, sample };
  const slot = page * PAGE_TOKENS + (position % PAGE_TOKENS);
  return {
    row: { ...row, token: drawn, position, slot, length: position + 1, rope: row.rope + 1 },
    sample: { ...sample, position: position + 1 },
  };
}

function rowWords(rows: readonly RowRecord[]): Uint32Array {
  const words = new Uint32Array(rows.length * ROW_WORDS).fill(NONE);
  rows.forEach((row, i) => {
    for (const [field, at] of Object.entries(ROW)) words[i * ROW_WORDS + at] = row[field as keyof typeof ROW];
  });
  return words;
}

/** The batch with block tables and stop ids behind. */
function batchWords(rows: readonly Row[], lead: number): { words: Uint32Array; placed: Row[] } {
  let end = rows.length * ROW_WORDS + lead + rows.length * SAMPLE_WORDS;
  const lists: number[] = [];
  const placed = rows.map((it): Row => {
    if (it.pages.length === 0) return it;
    const [table, stops] = [end, end + it.pages.length];
    lists.push(...it.pages, ...it.stops);
    end = stops + it.stops.length;
    return { ...it, row: { ...it.row, table }, sample: { ...it.sample, stops, stopCount: it.stops.length } };
  });
  return { words: Uint32Array.from([...laidOut(placed, lead), ...lists]), placed };
}

const laidOut = (rows: readonly Pick<Row, "row" | "sample">[], lead: number): number[] => [
  ...rowWords(rows.map(({ row }) => row)),
  ...sampleWords(
    rows.map(({ sample }) => sample),
    lead,
  ),
];

function advanceCase(rows: number, fillers: number, seed: number): Case {
  return {
    kernel: "advance",
    title: `advance rows=${rows}+${fillers} seed=${seed}`,
    async run(bed) {
      const random = new Random(seed);
      const position = () => random.pick([0, 14, 15, 16, 31, random.below(400)]);
      const somebody = Array.from({ length: rows }, () => someRow(random, position()));
      const nobody = Array.from({ length: fillers }, (_, i): Row => {
        const ended = someRow(random, position());
        if (i % 2 === 0) return { ...ended, row: { ...ended.row, slot: NONE, length: 0 } };
        return { row: NOBODY, sample: PLAIN_SAMPLE, drawn: random.below(VOCAB), pages: [], stops: [] };
      });
      const lead = random.below(40);
      const { words, placed } = batchWords([...somebody, ...nobody], lead);
      const batch = bed.buffer(words);
      const buffers = { drawn: bed.buffer(Uint32Array.from(placed.flatMap((it) => [it.drawn, NONE]))), batch };
      const samples = placed.length * ROW_WORDS + lead;
      await bed.submit((recorder) =>
        advance.launch(recorder, { buffers, params: { rows: placed.length, samples }, grid: [1, 1, 1] }),
      );
      const want = laidOut(placed.map(next), lead);
      return [{ name: "batch", got: await bed.u32(batch), want: [...want, ...words.subarray(want.length)], limit: 0 }];
    },
  };
}

/** `count` steps; the first ones are one row, and as many as a step has at most. */
export function advanceCases(count: number, firstSeed: number): Case[] {
  return Array.from({ length: count }, (_, i) => {
    const seed = firstSeed + i;
    const random = new Random(seed * 6007);
    const [rows, fillers] = (
      [
        [1, 0],
        [60, 4],
      ] as const
    )[i] ?? [1 + random.below(40), random.below(20)];
    return advanceCase(rows, fillers, seed);
  });
}
