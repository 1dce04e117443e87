import { expect, test } from "vitest";
import { colour, type Slot } from "../device/arena.ts";
import type { Launch, Recorder } from "../device/program.ts";
import { activationShape } from "./fragments/activation.ts";
import { dotParams } from "./fragments/matmul.ts";
import { WINDOW_BYTES } from "./fragments/window.ts";
import { launchRows } from "./launchRows.ts";
import { normMatmul } from "./norm_matmul.ts";

/** Launches of a recording. */
function recorded(stride: number, rows: number, m: 1 | 8) {
  const launches: Omit<Launch, "label">[] = [];
  const recorder = { dispatch: (launch: Omit<Launch, "label">) => launches.push(launch) } as unknown as Recorder;
  const slot = (label: string): Slot => ({ bytes: 4 * rows * stride, label, kept: false });
  const [x, w, out] = [slot("x"), slot("w"), slot("out")];
  const buffers = { words: w, scales: w, x, aux: w, delta: w, out };
  const kernel = normMatmul("f32", m, "broadcast");
  const matrix = { layout: "f32", cols: stride, group: 32, scaleType: "f32" } as const;
  const params = {
    ...dotParams(matrix, activationShape(rows, stride), true),
    ...{ x_squares: 0, hidden_size: stride, eps: 0, bias: 0, delta_stride: 0, out_offset: 0, out_stride: 1 },
    ...{ part_bits: 0, part_groups: 0, part_runs: 0, units: 0 },
  };
  launchRows(kernel, recorder, { buffers, params, grid: [3, rows / m, 1] }, { rows, stride });
  return { launches, x };
}

test("the launches take every row once, each from a window that holds it", () => {
  const { launches, x } = recorded(576, 64, 8);
  expect(launches.map(({ grid }) => grid)).toEqual([
    [3, 3, 1],
    [3, 3, 1],
    [3, 2, 1],
  ]);
  const windows = launches.map(({ buffers }) => buffers.at(-1));
  expect(windows).toEqual([0, 24, 48].map((row) => ({ slot: x, offset: row * 576 * 4, size: WINDOW_BYTES })));
});

test("a slot that windows look at is given a buffer that they do not look beyond", () => {
  const { launches, x } = recorded(576, 64, 8);
  const [colours] = [colour([x], launches)];
  expect(colours).toEqual([{ bytes: 48 * 576 * 4 + WINDOW_BYTES, slots: [x] }]);
});
