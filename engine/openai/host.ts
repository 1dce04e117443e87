/** What the OpenAI-shaped endpoints need of an engine. */
import type { Tokenizer } from "../../models/text/tokenizer.ts";
import type { GenerateRequest, Part, PromptFields, ScoreRequest, ScoreResult } from "../types.ts";

/** An engine, as far as these endpoints see it. */
export interface Host {
  generate(request: GenerateRequest): AsyncGenerator<Part, void, undefined>;
  score(request: ScoreRequest): Promise<ScoreResult>;
  encode(prompt: PromptFields): readonly number[];
  readonly model: {
    readonly location: string;
    readonly tokenizer: Pick<Tokenizer, "decode" | "encode" | "longestToken" | "tokenText" | "tokenBytes"> | undefined;
  };
}
