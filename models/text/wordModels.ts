/** The models of tokenizer.json, which turn one pre-token into ids: BPE is ours, Unigram and WordPiece are @huggingface/tokenizers'. */
import { ModelFormatError, UnsupportedModelError } from "../errors.ts";
import { BytePairs, type WordModel } from "./bytePairs.ts";
import { type JsonObject, objectAt } from "./json.ts";
import { libraryTokenizer } from "./library.ts";

/** The model of `model` in tokenizer.json; `special`: ids of control tokens. Throws UnsupportedModelError for a type that there is no model of. */
export function wordModel(
  config: JsonObject,
  vocab: ReadonlyMap<string, number>,
  special: ReadonlySet<number>,
): WordModel {
  const type = config.type ?? (Array.isArray(config.vocab) ? "Unigram" : config.merges ? "BPE" : undefined);
  switch (type) {
    case "BPE":
      return new BytePairs(config, vocab, special);
    case "Unigram":
      if (config.byte_fallback === true) {
        throw new UnsupportedModelError(
          "tokenizer.json: model: Unigram with byte_fallback is not supported; supported: BPE with byte_fallback",
        );
      }
      return new LibraryWords(config, special);
    case "WordPiece":
      return new LibraryWords(config, special);
    default:
      throw new UnsupportedModelError(
        `tokenizer.json: model: type ${JSON.stringify(type)} is not supported; supported: BPE, Unigram, WordPiece`,
      );
  }
}

/** Unigram and WordPiece of @huggingface/tokenizers, a word at a time; with a second model in which control tokens can't be spelt. */
class LibraryWords implements WordModel {
  readonly #parsed: (word: string) => readonly number[];
  readonly #plain: (word: string) => readonly number[];

  constructor(config: JsonObject, control: ReadonlySet<number>) {
    this.#parsed = libraryWords(config);
    this.#plain = libraryWords({ ...config, vocab: withoutControl(config, control) });
  }

  ids(word: string, plain: boolean): readonly number[] {
    return plain ? this.#plain(word) : this.#parsed(word);
  }
}

function withoutControl(config: JsonObject, control: ReadonlySet<number>): unknown {
  const { vocab } = config;
  const unspellable = (id: number) => `\uFFFF${id}`; // a noncharacter: in no text that is meant to be read
  if (Array.isArray(vocab)) {
    return vocab.map((piece: unknown, id) =>
      control.has(id) && Array.isArray(piece) ? [unspellable(id), piece[1]] : piece,
    );
  }
  const entries = Object.entries(objectAt(vocab, "tokenizer.json: model.vocab"));
  return Object.fromEntries(
    entries.map(([token, id]) => [
      typeof id === "number" && control.has(id) && token !== config.unk_token ? unspellable(id) : token,
      id,
    ]),
  );
}

function libraryWords(config: JsonObject): (word: string) => number[] {
  const { model } = libraryTokenizer({ model: config });
  return (word) =>
    model._call([word]).map((token) => {
      const id = model.tokens_to_ids.get(token) ?? model.unk_token_id;
      if (id === undefined) {
        throw new ModelFormatError(
          "UNKNOWN_TOKEN",
          `tokenizer.json: model has no unknown token, which ${JSON.stringify(token)} needs`,
        );
      }
      return id;
    });
}
