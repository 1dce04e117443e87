/** The sliding window of every layer of a config. */
import {
  booleanField,
  type Fields,
  field,
  hasField,
  listField,
  MAX_POSITIONS,
  optionalInteger,
  refused,
  show,
  unsupported,
} from "./configChecks.ts";
import type { WindowRule } from "./configRules.ts";
import { UnsupportedModelError } from "./errors.ts";

const SLIDING = "sliding_attention";
const FILE = "config.json";
const POSITIONS = { min: 1, max: MAX_POSITIONS };
const MAX_LAYERS = 2 ** 10;

/**
 * The window of every layer. `layer_types` goes before `max_window_layers`, as in transformers; a window that is written but switched off is none.
 *
 * Two statements that transformers can't run together, or of which it ignores one that other engines obey, are refused.
 */
export function readWindows(fields: Fields, rule: WindowRule, layers: number): readonly (number | null)[] {
  const types = readLayerTypes(fields, layers, rule.kind === "none" ? rule.others : []);
  const flag = booleanField(fields, "use_sliding_window");
  const off = rule.kind === "picked layers" && flag !== true && field(fields, "sliding_window") === 0; // as Qwen2-MoE's class writes it
  const written = off ? undefined : optionalInteger(fields, "sliding_window", POSITIONS);
  switch (rule.kind) {
    case "none": {
      if (written !== undefined && flag !== false) throw unsupported(fields, "sliding_window", "none");
      if (types?.includes(SLIDING)) throw unsupported(fields, "layer_types", '"full_attention" for every layer');
      return Array.from({ length: layers }, () => null);
    }
    case "every layer": {
      const window = written ?? (hasField(fields, "sliding_window") ? null : rule.otherwise); // null is none, a key left out the class's default
      if (window !== null && flag === false) {
        throw refused(
          fields,
          "use_sliding_window",
          `true or none beside sliding_window, ${window}; set sliding_window to null`,
        );
      }
      if (types?.some((type) => (type === SLIDING) !== (window !== null))) {
        throw refused(
          fields,
          "layer_types",
          `every layer to be ${window === null ? '"full_attention"' : '"sliding_attention"'}`,
        );
      }
      return Array.from({ length: layers }, () => window);
    }
    case "picked layers": {
      const window = flag === true ? (written ?? (hasField(fields, "sliding_window") ? null : rule.otherwise)) : null; // as above
      if (window === null && types?.includes(SLIDING)) {
        throw refused(fields, "layer_types", "no sliding layer where use_sliding_window or sliding_window is off");
      }
      const picked = rule.picks(fields, layers);
      return Array.from({ length: layers }, (_, layer) =>
        (types === undefined ? picked(layer) : types[layer] === SLIDING) ? window : null,
      );
    }
    case "pattern": {
      const window = written ?? (hasField(fields, "sliding_window") ? null : rule.otherwise);
      if (window !== null && flag === false) throw refused(fields, "use_sliding_window", "true or none");
      if (window === null && types?.includes(SLIDING))
        throw refused(fields, "layer_types", "no sliding layer where sliding_window is null");
      const slides = types === undefined ? patternOf(fields, rule) : (layer: number) => types[layer] === SLIDING;
      return Array.from({ length: layers }, (_, layer) => (window !== null && slides(layer) ? window : null));
    }
    default:
      return rule satisfies never;
  }
}

/** Qwen's rule: the layers from `max_window_layers` on. */
export function fromMaxWindowLayers(fields: Fields): (layer: number) => boolean {
  const full = optionalInteger(fields, "max_window_layers", { min: 0, max: MAX_LAYERS }) ?? 28; // the classes' default
  return (layer) => layer >= full;
}

/** Which layers slide where `layer_types` is not written. Text patterns come with `layer_types` in every published config. */
function patternOf(fields: Fields, { pattern, key }: Extract<WindowRule, { readonly kind: "pattern" }>) {
  const written = key === undefined ? undefined : optionalInteger(fields, key, { min: 0, max: MAX_LAYERS });
  const period = written ?? pattern;
  return (layer: number) => period > 0 && (layer + 1) % period !== 0;
}

function readLayerTypes(
  fields: Fields,
  layers: number,
  others: readonly string[] = [],
): readonly unknown[] | undefined {
  const types = listField(fields, "layer_types");
  if (types === undefined) return undefined;
  if (types.length !== layers) throw refused(fields, "layer_types", `${layers}, one a layer`);
  const known = ["full_attention", SLIDING, ...others];
  const odd = types.find((type) => typeof type !== "string" || !known.includes(type));
  if (odd !== undefined) {
    const names = known.map((name) => JSON.stringify(name)).join(", ");
    throw new UnsupportedModelError(`${FILE}: layer_types has ${show(odd)}, supported: ${names}`);
  }
  return types;
}
