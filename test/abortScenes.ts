/** Situations of a request that is to be aborted, and how to tell that it is in each: waiting, read, decoding, speculating, preempted. */
import type { Folder } from "../device/files.ts";
import type { EngineOptions } from "../engine/options.ts";
import type { GenerateRequest } from "../engine/types.ts";
import { randomTokens } from "./tinyModel.ts";

/** Ids of the scenes' model. */
export const VOCAB = 61;
/** Pages of 16 tokens where they are to run out. */
export const FEW_PAGES = 9;

/** What can be seen as a step is submitted. */
export interface Moment {
  /** Steps that were submitted before, since the request came. */
  readonly step: number;
  /** Sequences of everybody. */
  readonly waiting: number;
  readonly running: number;
  /** How often somebody gave pages up since the scene began. */
  readonly preemptions: number;
  /** Of the request: parts that its reader has, and tokens of its prompt that it was told of. */
  readonly parts: number;
  readonly read: number;
  /** Proposals whose fate is known, and whether the step is the draft's. */
  readonly proposed: number;
  readonly drafts: boolean;
}

/** A request that comes at a step. */
export interface Coming {
  readonly comes: number;
  readonly request: GenerateRequest;
}

/** A request among others, and the states that it goes through. */
export interface Scene {
  readonly engine: EngineOptions;
  readonly few: boolean;
  readonly own: Coming;
  /** Only the log-probabilities of its tokens are wanted. */
  readonly scores: boolean;
  readonly beside: readonly Coming[];
  readonly states: Readonly<Record<string, (at: Moment) => boolean>>;
}

const PROMPT = 37;
const usual = { temperature: 0, ignoreEos: true, speculation: false } as const;
const request = (seed: number, more: Partial<GenerateRequest> = {}): GenerateRequest => ({
  ...usual,
  tokens: randomTokens(seed, PROMPT, VOCAB),
  maxTokens: 10,
  ...more,
});
const at = (comes: number, seed: number, more: Partial<GenerateRequest> = {}): Coming => ({
  comes,
  request: request(seed, more),
});

const isRead = ({ parts, read }: Moment) => parts === 0 && read > 0 && read < PROMPT;
const decodes = ({ parts, waiting }: Moment) => parts > 0 && waiting === 0;
const scene = (own: Coming, states: Scene["states"], more: Partial<Scene> = {}): Scene => ({
  engine: {},
  few: false,
  own,
  scores: false,
  beside: [],
  states,
  ...more,
});

/** Models that propose for the scenes' one. */
export interface Drafts {
  readonly right: Folder;
  readonly wrong: Folder;
}

/** By name. */
export function scenesWith({ right, wrong }: Drafts): Readonly<Record<string, Scene>> {
  const drafting = (draft: Folder) =>
    scene(
      at(0, 1, { speculation: { draftTokens: 3 }, maxTokens: 16 }),
      {
        "the draft reads its prompt": ({ parts, drafts }) => parts === 0 && drafts,
        "the draft proposes": ({ parts, drafts }) => parts > 0 && drafts,
        "proposals are verified": ({ parts, drafts, proposed }) => parts > 0 && !drafts && proposed > 0,
      },
      { engine: { draft }, beside: [at(0, 2, { speculation: { draftTokens: 2 }, maxTokens: 12 })] },
    );
  return {
    alone: scene(at(0, 1, { maxTokens: 40 }), {
      "its prompt is read": isRead,
      "steps run freely": ({ parts, step }) => parts > step,
    }),
    "among others": scene(
      at(2, 1, { temperature: 1, seed: 4 }),
      { "its prompt is read beside one that decodes": isRead, "it decodes": (it) => decodes(it) && it.running === 3 },
      { beside: [at(0, 2, { tokens: [1, 2], maxTokens: 20 }), at(0, 3, { maxTokens: 16 })] },
    ),
    "one too many": scene(
      at(14, 1),
      { "it waits": ({ waiting, parts, read }) => waiting > 0 && parts === 0 && read === 0 },
      { few: true, beside: [2, 3, 4].map((seed) => at(0, seed, { maxTokens: 20 })) },
    ),
    "overtaken where pages run out": scene(
      at(0, 1, { priority: 1, maxTokens: 30 }),
      {
        "it waits without its pages": ({ waiting, parts, preemptions }) => waiting > 0 && parts > 0 && preemptions > 0,
        "it is computed again": (it) => decodes(it) && it.preemptions > 0,
      },
      { few: true, beside: [2, 3].map((seed) => at(8, seed, { maxTokens: 16 })) },
    ),
    "with a draft that is always right": drafting(right),
    "with a draft that knows nothing": drafting(wrong),
    "with proposals from its own text": scene(
      at(0, 1, {
        tokens: Array.from({ length: PROMPT }, (_, i) => i % 3),
        allowedTokenIds: [0, 1, 2], // so that what comes was there before
        temperature: 1,
        seed: 3,
        speculation: { promptLookup: true, draftTokens: 4 },
      }),
      { "proposals are verified": ({ parts, proposed }) => parts > 0 && proposed > 0 },
    ),
    "three answers": scene(
      at(0, 1, { n: 3, temperature: 1, seed: 2 }),
      {
        "two wait for the first to read": (it) => isRead(it) && it.running >= 3,
        "all decode": (it) => decodes(it) && it.running >= 3,
      },
      { beside: [at(0, 2, { tokens: [5], maxTokens: 5 })] },
    ),
    "with rules": scene(
      at(0, 1, { repetitionPenalty: 1.2, frequencyPenalty: 0.2, badWords: [[3, 4], [5]], logitBias: { 7: 2 } }),
      { "its prompt is read": isRead, "it decodes": decodes },
      { beside: [at(0, 2, { presencePenalty: 0.5, maxTokens: 12 })] },
    ),
    "with log-probabilities of its prompt": scene(
      at(0, 1, { promptLogprobs: 2, logprobs: 2 }),
      { "its prompt is scored": isRead, "it decodes": decodes },
      { beside: [at(0, 2, { maxTokens: 12 })] },
    ),
    "that is scored": scene(
      at(0, 1),
      { "it is scored": isRead },
      { scores: true, beside: [at(0, 2, { maxTokens: 12 })] },
    ),
  };
}
