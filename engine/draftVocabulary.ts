/** Whether a draft speaks the target's language: the same ids for the same tokens. */
import { UnsupportedModelError } from "../models/errors.ts";
import { InvalidRequestError } from "./errors.ts";
import type { ReadModel } from "./loadModel.ts";

type Vocabulary = Pick<ReadModel, "location" | "tokenizer"> & { readonly config: { readonly vocab_size: number } };

/**
 * Throws InvalidRequestError that names the first token in which the two differ. Padding behind the tokenizers' ids may differ; without
 * tokenizers the sizes decide.
 */
function checkSameVocabulary(target: Vocabulary, draft: Vocabulary): void {
  const [ours, theirs] = [target.tokenizer, draft.tokenizer];
  const fail = (what: string) => {
    const advice = "expected the target's vocabulary; choose a draft of the same family";
    throw new InvalidRequestError(`draft: ${draft.location}: ${what}, ${advice}`);
  };
  if (ours === undefined || theirs === undefined) {
    if (ours !== theirs)
      fail(`${theirs === undefined ? "has no" : "has a"} tokenizer, the target ${ours === undefined ? "none" : "one"}`);
    const { vocab_size } = draft.config;
    if (vocab_size !== target.config.vocab_size)
      fail(`has ${vocab_size} tokens, the target ${target.config.vocab_size}`);
    return;
  }
  for (let id = 0; id < Math.max(ours.size, theirs.size); id++) {
    const [want, is] = [ours.tokenText(id), theirs.tokenText(id)];
    if (is !== want) fail(`token ${id} is ${JSON.stringify(is)}, the target's ${JSON.stringify(want)}`);
  }
}

/** Whether tokens that a model read can be dropped from all that it keeps of them. */
export const takesBack = ({ caches }: ReadModel["model"]): boolean => caches.every(({ kind }) => kind === "pages");

/** Throws where the one cannot propose tokens for the other: UnsupportedModelError for how it works, InvalidRequestError for what it speaks. */
export function checkDraft(target: ReadModel, draft: ReadModel): void {
  for (const { location, model } of [target, draft]) {
    if (takesBack(model)) continue;
    throw new UnsupportedModelError(
      `draft: ${location} keeps a running state of what it read, and cannot take tokens back; load it without a draft`,
    );
  }
  checkSameVocabulary(target, draft);
}
