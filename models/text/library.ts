/** What ingle uses of @huggingface/tokenizers, with types: its own declarations can't be resolved under Node's rules. */
import * as tokenizers from "@huggingface/tokenizers";
import type { JsonObject } from "./json.ts";

/** The parts of the library's tokenizer that ingle calls. */
export interface LibraryTokenizer {
  readonly normalizer: { normalize(text: string): string } | null;
  /** `section_index` is 0 where the text begins the whole input. */
  readonly pre_tokenizer: { pre_tokenize(text: string, options: { section_index: number }): string[] } | null;
  readonly model: {
    readonly tokens_to_ids: ReadonlyMap<string, number>;
    readonly unk_token_id?: number;
    _call(words: string[]): string[];
  };
}

const NO_MODEL = { type: "BPE", vocab: {}, merges: [] };

/** Makes the library's tokenizer of the given components and nothing else. */
export function libraryTokenizer(parts: {
  normalizer?: JsonObject | null;
  pre_tokenizer?: JsonObject | null;
  model?: JsonObject;
}): LibraryTokenizer {
  const file = { normalizer: null, pre_tokenizer: null, model: NO_MODEL, ...parts };
  return new tokenizers.Tokenizer({ ...file, decoder: null, post_processor: null, added_tokens: [] }, {});
}
