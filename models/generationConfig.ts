/** generation_config.json: the sampling that a checkpoint's authors suggest, and the ids that end an answer. */
import {
  booleanField,
  type Fields,
  field,
  fieldsOf,
  optionalInteger,
  optionalNumber,
  showKey,
  tokenIdsField,
  tokenRunsField,
} from "./configChecks.ts";

/** What the file says; undefined where it says nothing. A request's own values go before these. */
export interface GenerationDefaults {
  /** false is greedy, whatever the temperature. */
  readonly doSample: boolean | undefined;
  readonly temperature: number | undefined;
  /** 0: not cut off. */
  readonly topK: number | undefined;
  readonly topP: number | undefined;
  readonly minP: number | undefined;
  readonly typicalP: number | undefined;
  readonly repetitionPenalty: number | undefined;
  readonly badWords: readonly (readonly number[])[];
  readonly minNewTokens: number | undefined;
  readonly maxNewTokens: number | undefined;
  readonly eosTokenIds: readonly number[];
  /** Keys that would change an answer in transformers and that ingle does not apply, in the file's order: to be said, not swallowed. */
  readonly ignored: readonly string[];
}

const FILE = "generation_config.json";
const MAX_COUNT = 2 ** 31 - 1;

/** Keys with a part in transformers' generation that a GenerateRequest has no field for, and the values at which each does nothing. */
const NOT_APPLIED: Readonly<Record<string, readonly unknown[]>> = {
  num_beams: [1],
  num_beam_groups: [1],
  diversity_penalty: [0],
  length_penalty: [0, 1], // of beams only
  penalty_alpha: [0],
  dola_layers: [],
  no_repeat_ngram_size: [0],
  encoder_no_repeat_ngram_size: [0],
  encoder_repetition_penalty: [1],
  force_words_ids: [],
  constraints: [],
  forced_bos_token_id: [],
  forced_eos_token_id: [],
  suppress_tokens: [],
  begin_suppress_tokens: [],
  sequence_bias: [],
  exponential_decay_length_penalty: [],
  guidance_scale: [1],
  epsilon_cutoff: [0],
  eta_cutoff: [0],
  top_h: [],
  min_length: [0],
  max_time: [],
  stop_strings: [],
  remove_invalid_values: [false],
  watermarking_config: [],
};

/**
 * Reads the parsed file; `{}` stands for a checkpoint without one.
 *
 * Throws ModelFormatError, code CONFIG, that names generation_config.json and the field, for a value of the wrong type or out of range.
 */
export function readGenerationConfig(raw: unknown): GenerationDefaults {
  const fields = fieldsOf(FILE, raw);
  const topK = field(fields, "top_k") === -1 ? 0 : optionalInteger(fields, "top_k", { min: 0, max: MAX_COUNT }); // −1 is vLLM's "off"
  return {
    doSample: booleanField(fields, "do_sample"),
    temperature: optionalNumber(fields, "temperature", { min: 0, max: 1000 }),
    topK,
    topP: optionalNumber(fields, "top_p", { above: 0, max: 1 }),
    minP: optionalNumber(fields, "min_p", { min: 0, max: 1 }),
    typicalP: optionalNumber(fields, "typical_p", { above: 0, max: 1 }),
    repetitionPenalty: optionalNumber(fields, "repetition_penalty", { above: 0, max: 1000 }),
    badWords: tokenRunsField(fields, "bad_words_ids"),
    minNewTokens: optionalInteger(fields, "min_new_tokens", { min: 0, max: MAX_COUNT }),
    maxNewTokens: optionalInteger(fields, "max_new_tokens", { min: 1, max: MAX_COUNT }),
    eosTokenIds: tokenIdsField(fields, "eos_token_id"),
    ignored: ignoredKeys(fields),
  };
}

/** What `stopTokenIds` takes from config.json and generation_config.json. */
export interface StatesEos {
  readonly eosTokenIds: readonly number[];
}

/** The ids that end an answer: the union of config, generation config (null: there is none) and tokenizer, ascending. Empty: nothing is known to end one. */
export function stopTokenIds(
  config: StatesEos,
  generation: StatesEos | null,
  tokenizerEos: readonly number[],
): readonly number[] {
  const ids = new Set([...config.eosTokenIds, ...(generation?.eosTokenIds ?? []), ...tokenizerEos]);
  return [...ids].sort((a, b) => a - b);
}

function ignoredKeys(fields: Fields): readonly string[] {
  return Object.keys(fields.values)
    .filter((key) => {
      const value = field(fields, key);
      const neutral = Object.hasOwn(NOT_APPLIED, key) ? NOT_APPLIED[key] : undefined;
      const empty = Array.isArray(value) && value.length === 0;
      return neutral !== undefined && value !== undefined && !empty && !neutral.includes(value);
    })
    .map(showKey);
}
