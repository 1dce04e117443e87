/** What a step brought back, handed to the sequences that it is of. */
import type { Sample } from "./batch.ts";
import type { StepResult } from "./runner.ts";
import type { Sequence } from "./sequence.ts";

/** Gives each sequence its outputs; returns those that are done. One that fails is removed, so that nobody shares its pages. */
export function handOut(
  samples: readonly Sample[],
  { outputs, logits }: StepResult,
  remove: (sequence: Sequence) => void,
): Set<Sequence> {
  const finished = new Set<Sequence>();
  samples.forEach(({ sequence, position, token, target }, i) => {
    const output = outputs[i];
    if (sequence.finished || finished.has(sequence) || output === undefined) return;
    if (sequence.tokens[position] !== token) return; // a row of a proposal that was not taken
    if (output.token === target) sequence.accepted++;
    try {
      if (sequence.options.onOutput(output, position, logits[i])) finished.add(sequence);
    } catch (error) {
      remove(sequence);
      sequence.options.onError(error);
    }
  });
  return finished;
}
