// Soak: mixed load on one engine for minutes, with readers that leave, signals, and requests that fail; then memory and pages must be
// back where they were, every sum must agree, and what was answered twice, at last alone, must have been answered alike.
//
//   npm run build && node scripts/soak.mjs [--minutes=20] [--model=default] [--draft=default-draft] [--adapter=NAME] [--clients=8] [--seed=1]
//
// Prints heap, external memory, pages and GPU buffers at the start (warm), in the middle, at the end and when closed. Ends with status 1 beyond a bound.
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { Engine } from "../dist/engine/index.js";
import { Random } from "../dist/kernels/testbed.js";

const MB = 2 ** 20;
/** How much more there may be at rest than before: a step of a shape that comes late is recorded late, with a buffer for its parameters. */
const BOUNDS = { heap: 8 * MB, external: 8 * MB, buffers: 64 };
/** Share of the time before the first look: by then every program is recorded and every page was met. */
const WARM_UP = 0.2;
/** Requests that are repeated again and again: enough for any mix, few enough that each comes often. */
const CATALOGUE = 48;

const flag = (name, otherwise) =>
  process.argv.find((it) => it.startsWith(`--${name}=`))?.slice(name.length + 3) ?? otherwise;
const minutes = Number(flag("minutes", "20"));
const clients = Number(flag("clients", "8"));
const random = new Random(Number(flag("seed", "1")));
setFlagsFromString("--expose-gc");
const collect = runInNewContext("gc");

const adapter = flag("adapter", undefined);
const draft = flag("draft", "default-draft");
const engine = await Engine.load(flag("model", "default"), {
  ...(adapter === undefined ? {} : { adapter }),
  ...(draft === "" ? {} : { draft }),
  context: 512,
});
const vocabulary = engine.model.config.vocab_size;
const failures = [];
const counts = { right: 0, left: 0, aborted: 0, thrown: 0, refused: 0, stuck: 0, replayed: 0, wrong: 0 };
/** Milliseconds a token, by half. */
const paces = [[], []];
const catalogue = Array.from({ length: CATALOGUE }, (_, i) => wish(i));
const known = new Map();

/** A request of the catalogue: every kind of prompt, sampling, proposal and score comes. */
function wish(i) {
  const tokens = Array.from({ length: 1 + random.below(i % 4 === 0 ? 300 : 40) }, () => random.below(vocabulary));
  if (i % 8 === 7) return { scores: true, request: { tokens, top: i % 3 } };
  const sampling = [
    { temperature: 0 },
    { temperature: 1, seed: i },
    { temperature: 0.8, topK: 20, topP: 0.9, seed: i },
    { temperature: 0.7, repetitionPenalty: 1.2, frequencyPenalty: 0.2, logitBias: { 7: 2 }, seed: i },
  ][i % 4];
  const speculation = [false, {}, { promptLookup: true }, { draftTokens: 3 }][Math.floor(i / 4) % 4];
  const proposals = draft === "" && speculation !== false && !speculation.promptLookup ? false : speculation;
  const more = i % 6 === 5 ? { logprobs: 3, promptLogprobs: 1 } : {};
  const n = i % 9 === 8 ? 3 : 1;
  const request = { tokens, maxTokens: 1 + random.below(48), ignoreEos: true, n, priority: i % 5 === 4 ? 1 : 0 };
  return { scores: false, request: { ...request, ...sampling, ...more, speculation: proposals } };
}

/** One request to its end, whichever that is. */
async function one(half) {
  const index = random.below(CATALOGUE);
  const { scores, request } = catalogue[index];
  const dice = random.next();
  if (dice < 0.05) return await expectRefused();
  if (dice < 0.08) return await expectStuck();
  const controller = new AbortController();
  if (dice < 0.25) setTimeout(() => controller.abort(), random.below(200)).unref();
  const leaves = dice >= 0.25 && dice < 0.35 ? 1 + random.below(10) : Number.POSITIVE_INFINITY;
  const throws = dice >= 0.35 && dice < 0.4 ? 1 + random.below(10) : Number.POSITIVE_INFINITY;
  const begun = performance.now();
  const got = Array.from({ length: request.n ?? 1 }, () => []);
  let parts = 0;
  try {
    if (scores) got[0].push(...(await engine.score({ ...request, signal: controller.signal })).logprobs);
    else {
      for await (const part of engine.generate({ ...request, signal: controller.signal })) {
        got[part.choice].push(part.token, part.logprob);
        if (++parts === throws) throw new Error("the reader's own");
        if (parts === leaves) {
          counts.left++;
          return;
        }
      }
    }
  } catch (error) {
    if (error.code === "ABORTED" && controller.signal.aborted) counts.aborted++;
    else if (error.message === "the reader's own") counts.thrown++;
    else throw error;
    return;
  }
  if (parts > 0) paces[half].push((performance.now() - begun) / parts);
  const text = JSON.stringify(got);
  if ((known.get(index) ?? text) !== text) {
    counts.wrong++;
    failures.push(`request ${index} was answered in two ways`);
  } else counts.right++;
  known.set(index, text);
}

async function drain(parts) {
  for await (const _ of parts);
}

async function expectRefused() {
  const bad = [{ tokens: [vocabulary] }, { tokens: [] }, { tokens: [1], maxTokens: -1 }, { tokens: [1], nonsense: 1 }];
  const error = await drain(engine.generate(random.pick(bad))).catch((reason) => reason);
  if (error?.code === "INVALID_REQUEST") counts.refused++;
  else failures.push(`a bad request gave ${error}`);
}

/** Rules that leave no token behind the first one: an error in the middle of a step that others share. */
async function expectStuck() {
  const request = { tokens: [1, 2], maxTokens: 5, temperature: 0, allowedTokenIds: [3], badWords: [[3, 3]] };
  const error = await drain(engine.generate(request)).catch((reason) => reason);
  if (error?.code === "INVALID_REQUEST") counts.stuck++;
  else failures.push(`rules without a token gave ${error}`);
}

/** Every request once more, alone: as it was answered among others. */
async function replay() {
  for (const [index, { scores, request }] of catalogue.entries()) {
    const before = known.get(index);
    if (before === undefined) continue;
    counts.replayed++;
    if ((await answerOf(scores, request)) === before) continue;
    counts.wrong++;
    failures.push(`request ${index} is answered in another way alone`);
  }
}

async function answerOf(scores, request) {
  const got = Array.from({ length: request.n ?? 1 }, () => []);
  if (scores) got[0].push(...(await engine.score(request)).logprobs);
  else for await (const part of engine.generate(request)) got[part.choice].push(part.token, part.logprob);
  return JSON.stringify(got);
}

/** Clients side by side until the clock says so. */
async function load(seconds, half) {
  const end = performance.now() + 1000 * seconds;
  const client = async () => {
    while (performance.now() < end) await one(half);
  };
  await Promise.all(Array.from({ length: clients }, client));
}

/** At rest: what is held, and whether the sums agree. */
async function look(name) {
  for (let i = 0; i < 3; i++) {
    await new Promise((resolve) => setTimeout(resolve, 50));
    collect();
  }
  const { heapUsed, external, rss } = process.memoryUsage();
  const { pages, running, waiting, requests, tokens, draft: drafts } = engine.stats();
  const { buffers, bytes } = engine.gpu.memory;
  const megabytes = (value) => `${(value / MB).toFixed(1)} MB`;
  console.log(
    `${name.padEnd(7)} heap ${megabytes(heapUsed)} · external ${megabytes(external)} · rss ${megabytes(rss)} · pages ${pages.used} used, ` +
      `${pages.cached} cached of ${pages.total} · ${buffers} buffers, ${megabytes(bytes)} · ${requests.begun} requests, ${tokens.completion} tokens`,
  );
  const check = (what, got, want) => {
    if (got !== want) failures.push(`${name}: ${what}: ${got}, expected ${want}`);
  };
  check("running and waiting", running + waiting, 0);
  check("pages used", pages.used + (engine.draft?.usedPages ?? 0), 0);
  check("requests = finished + failed", requests.finished + requests.failed, requests.begun);
  check("prompt = cached + computed", tokens.cached + tokens.computed, tokens.prompt);
  check("delivered = usage", tokens.delivered, tokens.completion);
  check("log-probabilities = usage", tokens.logprobs, tokens.completion);
  check("proposed = accepted + rejected", drafts.accepted + drafts.rejected, drafts.proposed);
  return { heap: heapUsed, external, buffers };
}

function expectBack(from, to, name) {
  for (const what of ["heap", "external", "buffers"]) {
    const grown = to[what] - from[what];
    if (grown > BOUNDS[what]) failures.push(`${name}: ${what} grew by ${grown}, expected at most ${BOUNDS[what]}`);
  }
}

/** The whole catalogue at once, so that large steps are recorded before anything is measured. */
async function everything() {
  await Promise.all(
    catalogue.map(({ scores, request }) => (scores ? engine.score(request) : drain(engine.generate(request)))),
  );
}

const p95 = (values) => values.toSorted((a, b) => a - b)[Math.floor(0.95 * values.length)] ?? Number.NaN;

console.log(`soak: ${engine.gpu.adapter.name} · ${engine.model.location} · ${minutes} minutes, ${clients} clients`);
const seconds = 60 * minutes;
await everything();
await load(WARM_UP * seconds, 0);
const start = await look("start");
paces[0].length = 0;
await load(((1 - WARM_UP) / 2) * seconds, 0);
const middle = await look("middle");
await load(((1 - WARM_UP) / 2) * seconds, 1);
await replay();
const end = await look("end");
expectBack(start, middle, "start to middle");
expectBack(start, end, "start to end");
await engine.close();
const { memory } = engine.gpu;
console.log(`closed  ${memory.buffers} buffers, ${memory.bytes} bytes`);
if (memory.buffers > 0) failures.push(`closed: ${memory.buffers} buffers are live, expected 0`);
console.log(
  Object.entries(counts)
    .map(([what, count]) => `${count} ${what}`)
    .join(" · "),
);
console.log(
  `p95 of milliseconds a token: first half ${p95(paces[0]).toFixed(2)}, second half ${p95(paces[1]).toFixed(2)}`,
);
for (const [what, count] of Object.entries(counts))
  if (count === 0 && what !== "wrong")
    failures.push(`none were ${what}: this soak proves less than it says; give it more minutes`);
for (const failure of failures) console.log(`FAILED ${failure}`);
console.log(failures.length === 0 ? "soak: ok" : `soak: ${failures.length} failures`);
process.exitCode = failures.length === 0 ? 0 : 1;
