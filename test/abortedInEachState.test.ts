/**
 * A request that is aborted as any step is submitted, in each state that it can be in: those beside it are answered as without, and
 * it and others that are asked next are answered as by an engine that nobody ever left.
 */
import { expect, test } from "vitest";
import { Engine } from "../engine/engine.ts";
import { AbortError } from "../engine/errors.ts";
import type { EngineOptions } from "../engine/options.ts";
import type { GenerateRequest } from "../engine/types.ts";
import { type Coming, FEW_PAGES, type Moment, type Scene, scenesWith, VOCAB } from "./abortScenes.ts";
import { countingDevice } from "./countingDevice.ts";
import { sharedDevice, withEngine } from "./sharedDevice.ts";
import { watched } from "./stepWatch.ts";
import { expectSums } from "./sums.ts";
import { randomTokens, tinyFolder, tinyModel } from "./tinyModel.ts";

/** No request of a scene comes at a later step. */
const LAST_COMES = 20;
const FULL = process.env.INGLE_SUITE === "full";

const { gpu, pipelines } = await sharedDevice();
const { gpu: counted, counts } = countingDevice(gpu);
const watch = watched(counted);
const SHAPE = { layers: 1, hidden: 32, heads: 2, kvHeads: 1, intermediate: 32, vocab: VOCAB, context: 256 } as const;
const folder = tinyFolder(tinyModel(SHAPE));
const options: EngineOptions = { device: { gpu: watch.gpu, pipelines }, context: 96, rowsPerStep: 8, window: 4 };

/** What came, by answer: tokens and their log-probabilities. */
type Came = readonly (readonly (number | null)[])[];
/** Of a request: parts that its reader has, and tokens of its prompt that it was told of. */
interface Seen {
  parts: number;
  read: number;
  over: boolean;
}

async function ask(engine: Engine, request: GenerateRequest, scores = false, seen?: Seen): Promise<Came> {
  const { tokens = [], signal, n = 1 } = request;
  const tell = (read: number) => {
    if (seen !== undefined) seen.read = read;
  };
  const signalled = signal === undefined ? {} : { signal };
  if (scores) return [(await engine.score({ tokens, onProgress: tell, ...signalled })).logprobs];
  const came = Array.from({ length: n }, (): (number | null)[] => []);
  for await (const { choice, token, logprob } of engine.generate({ ...request, onPrompt: tell })) {
    came[choice]?.push(token, logprob);
    if (seen !== undefined) seen.parts++;
  }
  return came;
}

/** The request with another first token, so that a round finds no page of an earlier one. */
const inRound = (round: number, { tokens = [], ...request }: GenerateRequest): GenerateRequest => ({
  ...request,
  tokens: [round % VOCAB, ...tokens.slice(1)],
});

interface Played {
  readonly own: PromiseSettledResult<Came>;
  readonly beside: readonly PromiseSettledResult<Came>[];
  readonly moments: readonly Moment[];
}

const draftSubmits = (engine: Engine) => engine.draft?.started.runner.counts.submits ?? 0;

/** All requests of a scene, of which its own one is aborted as a step is submitted; NaN: never. */
async function play(engine: Engine, { own, scores, beside }: Scene, round: number, abortAt: number): Promise<Played> {
  const before = engine.stats();
  const controller = new AbortController();
  const seen: Seen = { parts: 0, read: 0, over: false };
  const moments: Moment[] = [];
  const submits: number[] = [];
  const asked: Promise<Came>[] = [];
  let step = 0;
  const come = () => {
    for (const [i, { comes, request }] of [...beside, own].entries()) {
      if (comes !== step) continue;
      const is = inRound(round, request);
      const isOwn = i === beside.length;
      asked[i] = isOwn ? ask(engine, { ...is, signal: controller.signal }, scores, seen) : ask(engine, is);
      asked[i]?.catch(() => undefined).finally(() => (seen.over ||= isOwn));
    }
  };
  watch.onStep = () => {
    step++;
    if (asked[beside.length] !== undefined) submits.push(draftSubmits(engine));
    if (asked[beside.length] !== undefined && !seen.over && !controller.signal.aborted) {
      const { waiting, running, draft, ...now } = engine.stats();
      const preemptions = now.preemptions - before.preemptions;
      const proposed = draft.proposed - before.draft.proposed;
      const { parts, read } = seen;
      const at = moments.length;
      moments.push({ step: at, waiting, running, preemptions, parts, read, proposed, drafts: false });
      if (at === abortAt) controller.abort();
    }
    come();
  };
  come();
  await Promise.allSettled(asked);
  while (step < LAST_COMES) {
    step++;
    come(); // steps may end before all have come
  }
  const results = await Promise.allSettled(asked);
  watch.onStep = () => {};
  submits.push(draftSubmits(engine)); // behind the last step
  return {
    own: results[beside.length] ?? { status: "rejected", reason: "it never came" },
    beside: results.slice(0, beside.length),
    moments: moments.map((moment, i) => ({ ...moment, drafts: (submits[i + 1] ?? 0) > (submits[i] ?? Infinity) })),
  };
}

/** Steps at which to abort: in the full suite all, else one of each state. */
function stepsOf(moments: readonly Moment[], states: Scene["states"]): number[] {
  if (FULL) return moments.map((_, i) => i);
  const some = Object.values(states).flatMap((is) => {
    const all = moments.flatMap((moment, i) => (is(moment) ? [i] : []));
    return all.slice(all.length / 2, all.length / 2 + 1);
  });
  return [...new Set(some)];
}

const quiet = await Engine.load(folder, options);
const PROBE: GenerateRequest = { tokens: randomTokens(9, 40, VOCAB), maxTokens: 6, temperature: 0, ignoreEos: true };

/** One round: the others' answers, and then everybody's, are those of an engine that was left alone. Returns the state of the abort. */
async function expectUnharmed(engine: Engine, scene: Scene, at: number): Promise<Moment | undefined> {
  const { own, beside, moments } = await play(engine, scene, at, at);
  expectSums(engine);
  const asIt = ({ request }: Coming) => inRound(at, request);
  const undisturbed = (request: GenerateRequest, scores = false) =>
    ask(quiet, { ...request, speculation: false }, scores);
  const probe = inRound(at, PROBE);
  const [whole, probed, ...others] = await Promise.all([
    undisturbed(asIt(scene.own), scene.scores),
    undisturbed(probe),
    ...scene.beside.map((one) => undisturbed(asIt(one))),
  ]);
  expect(beside).toEqual(others.map((value) => ({ status: "fulfilled", value })));
  if (own.status === "rejected") expect(own.reason).toBeInstanceOf(AbortError);
  else expect(own.value).toEqual(whole); // it was done, and its reader had not heard yet
  const next = await Promise.all([ask(engine, asIt(scene.own), scene.scores), ask(engine, probe)]);
  expect(next).toEqual([whole, probed]);
  expectSums(engine);
  return own.status === "rejected" ? moments.at(-1) : undefined;
}

const scenes = scenesWith({ right: folder, wrong: tinyFolder(tinyModel({ ...SHAPE, seed: 99 })) });
test.each(Object.entries(scenes))("%s", { timeout: 600_000 }, async (_, scene) => {
  const kvMemory = scene.few ? FEW_PAGES * 16 * quiet.plan.kvBytesPerToken : undefined;
  const more = kvMemory === undefined ? {} : { kvMemory };
  await withEngine(folder, { ...options, ...scene.engine, ...more }, async (engine) => {
    const { own, moments } = await play(engine, scene, VOCAB - 1, Number.NaN);
    expect(own.status).toBe("fulfilled");
    const met = new Map(Object.keys(scene.states).map((name) => [name, 0]));
    for (const at of stepsOf(moments, scene.states)) {
      const state = await expectUnharmed(engine, scene, at);
      if (state === undefined) continue;
      for (const [name, is] of Object.entries(scene.states)) if (is(state)) met.set(name, (met.get(name) ?? 0) + 1);
    }
    for (const [name, times] of met) expect(times, `aborts while ${name}`).toBeGreaterThan(0);
  });
});

test("nothing stays", async () => {
  await quiet.close();
  expect(counts.live.size).toBe(0);
});
