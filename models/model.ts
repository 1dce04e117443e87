/** What a family's file returns: the forward pass of one checkpoint, and what it wants of the cache. */
import type { Slot } from "../device/arena.ts";
import type { ModelConfig } from "./config.ts";
import type { ConfigRules } from "./configRules.ts";
import type { Step } from "./step.ts";
import type { WeightPlan } from "./weightPlan.ts";

/** What a layer keeps of past tokens. */
export type CacheDeclaration = PagesDeclaration | StateDeclaration;

/** Keys and values of every token. */
export interface PagesDeclaration {
  readonly kind: "pages";
  readonly kvHeads: number;
  readonly headDim: number;
  /** Of values, where it is another. */
  readonly valueDim?: number;
  /** Positions it looks back, its own included; null: all. */
  readonly window: number | null;
}

/** Something of one size, whatever the length, that each token changes. */
export interface StateDeclaration {
  readonly kind: "state";
  /** Of one sequence: a multiple of 16. */
  readonly bytes: number;
}

/** Logits of `step.samples` rows: f32 (samples, stride). */
export interface Logits {
  readonly slot: Slot;
  readonly stride: number;
}

/** A model whose weights are claimed. */
export interface Model {
  /** One a layer. */
  readonly caches: readonly CacheDeclaration[];
  /** Positions that the model has rows for, where it learned them; undefined: as many as one likes. */
  readonly positions?: number | undefined;
  /** Parts of the checkpoint that text does not need, such as an image encoder: let lie. */
  readonly unused?: RegExp | undefined;
  /** The head's module: where it is tied to the embedding, a stored copy of it is let lie. */
  readonly head: string;
  /** Records a forward pass; no logits where the step wants none. */
  forward(step: Step): Logits | undefined;
}

/** A family: how it reads config.json, and the model it makes of a checkpoint. */
export interface Family {
  readonly config: ConfigRules;
  /** Claims the weights by the hub's names. */
  build(weights: WeightPlan, config: ModelConfig): Model;
}
