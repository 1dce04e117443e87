/**
 * Wide workgroups, for GPUs: 64 lanes are eight octets, and an octet has a block of 32 rows, or a part of a block's columns.
 *
 *   total = acc_0 + acc_1 + … over the parts of a block, left to right;   part p has the groups from p · part_groups on
 *
 * When they win: a wave of a GPU has 32 or 64 lanes, of which a workgroup of 8 leaves three quarters and more idle; and a matrix of few rows has
 * too few blocks to wait for enough bytes at once. Software adapters, whose waves have 4 or 8 lanes, lose: there a workgroup's lanes take turns.
 *
 * How many parts there are follows from the shape of the whole matrix alone, so that one order of summation holds for every number of rows and
 * every row shard. It is a param, so that matrices of all shapes share a kernel.
 */
import { isShared, type MatmulRows, type XFrom } from "./matmul.ts";

/** Whether the kernel of a way of x has wide workgroups: what is for GPUs alone. */
export const isWide = (from: XFrom): boolean => from !== "storage" && !isShared(from);

const OCTETS = 8;
/** Lanes of a workgroup whose octets are of one block of rows each; of one that is not wide; and of one that is a subgroup of four. */
export const lanesOf = (from: XFrom): number => (isWide(from) ? 8 * OCTETS : from === "broadcast4" ? 4 : 8);

/** What a launch counts along x: blocks, or pairs of blocks of gate and up, of which each half of a workgroup has one. */
export type Unit = "block" | "pair";
const octetsOf = (unit: Unit): number => (unit === "pair" ? OCTETS / 2 : OCTETS);

/** Octets that keep a large GPU busy: 32,768 lanes that wait for 16 bytes and more each, as a TB/s needs at half a microsecond. */
const ENOUGH_OCTETS = 4096;
/** Columns that a part has at least, four runs: below, sharing them costs what it gains. */
const LEAST_COLUMNS = 128;

/** The parts of a matrix's columns: 1, doubled while the octets are too few, a workgroup has octets for them and they stay long enough. */
export function partsOf({ blocks, cols }: { readonly blocks: number; readonly cols: number }, unit: Unit): number {
  let parts = 1;
  while (parts < octetsOf(unit) && blocks * parts < ENOUGH_OCTETS && cols / (2 * parts) >= LEAST_COLUMNS) parts *= 2;
  return parts;
}

const SPLIT_PARAMS = {
  /** log2 of the parts; groups and runs of 32 columns that a part has. */
  part_bits: "u32",
  part_groups: "u32",
  part_runs: "u32",
  /** Blocks of the launch, or pairs of them: the last workgroup may have octets for more. */
  units: "u32",
} as const;
const NO_SPLIT_PARAMS = { part_bits: null, part_groups: null, part_runs: null, units: null } as const;

/** Params that wide kernels alone declare. */
export const splitParams = (from: XFrom): typeof SPLIT_PARAMS | typeof NO_SPLIT_PARAMS =>
  isWide(from) ? SPLIT_PARAMS : NO_SPLIT_PARAMS;

/** What a split must know of the inner product: of `dotParams`. */
export interface SplitDot {
  readonly groups: number;
  readonly group_runs: number;
  readonly run_steps: number;
}

/** The workgroups along x of a launch over `units`, and its split: parts are whole groups, and begin at a whole run. */
export function split(
  from: XFrom,
  { groups, group_runs, run_steps }: SplitDot,
  parts: number,
  units: number,
  unit: Unit,
) {
  const perRun = 4 / run_steps; // groups of 16 or 8 columns share a run
  const part_groups = Math.ceil(groups / parts / perRun) * perRun;
  const part_runs = (part_groups * group_runs) / perRun;
  const workgroups = isWide(from) ? Math.ceil((units * parts) / octetsOf(unit)) : units;
  return { workgroups, params: { part_bits: Math.log2(parts), part_groups, part_runs, units } };
}

/**
 * Declares `octet_at(x, lane)`; behind `dot_rows` and a barrier `whole(m, lane)`, the sum over the parts, for the octet that has the first of
 * them and is called owner; and `sum_at(x, lane)`: of the rows and blocks whose eight quads are summed at the end each lane has at most one.
 */
export function octetFragment(rows: MatmulRows, unit: Unit): string {
  const [octets, bits] = unit === "pair" ? [4, "2u"] : [8, "3u"];
  return /* wgsl */ `
/** A block, and its place in the launch; the first group and run of the octet's columns, and the group behind them. */
struct Octet { unit: u32, block: u32, quad: u32, run: u32, group: u32, end: u32, owner: bool }
fn octet_at(x: u32, lane: u32) -> Octet {
  let octet = (lane >> 3u) & ${octets - 1}u;
  let unit = (x << (${bits} - params.part_bits)) + (octet >> params.part_bits);
  let part = octet & ((1u << params.part_bits) - 1u);
  let group = part * params.part_groups;
  let is_there = unit < params.units;
  let end = select(0u, min(group + params.part_groups, params.groups), is_there);
  return Octet(unit, ${unit === "pair" ? "2u * unit + (lane >> 5u)" : "unit"}, lane & 7u, part * params.part_runs, group, end, is_there && part == 0u);
}
fn whole(m: u32, lane: u32) -> vec4f {
  var sum = dots[m * WG + lane];
  for (var part = 1u; part < (1u << params.part_bits); part++) { sum += dots[m * WG + 8u * part + lane]; }
  return sum;
}
/** A row, a place in the launch, and the first of the quads in \`dots\`. */
struct Sum { m: u32, unit: u32, quad: u32, is_there: bool }
fn sum_at(x: u32, lane: u32) -> Sum {
  let unit_bits = ${bits} - params.part_bits;
  let m = lane >> unit_bits;
  let slot = lane & ((1u << unit_bits) - 1u);
  let unit = (x << unit_bits) + slot;
  return Sum(m, unit, m * WG + (slot << (3u + params.part_bits)), m < ${rows}u && unit < params.units);
}`;
}
