/** Cases of the cap on logits: small and great ones, and such as are no numbers, which must stay so. */
import { SOFTCAP_SPAN, softcap } from "./softcap.ts";
import { type Case, Random } from "./testbed.ts";

/** `count` random shapes. */
export function softcapCases(count: number, firstSeed: number): Case[] {
  return Array.from({ length: count }, (_, i): Case => {
    const seed = firstSeed + i;
    const random = new Random(seed * 2357);
    const rows = 1 + random.below(4);
    const stride = 32 * (1 + random.below(30));
    const cap = random.pick([6, 30]);
    return {
      kernel: "softcap",
      title: `softcap cap=${cap} rows=${rows} stride=${stride} seed=${seed}`,
      async run(bed) {
        const values = random.floats(rows * stride, random.pick([cap / 10, 4 * cap, 1e4 * cap]));
        const broken = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
        values.set(broken, values.length - broken.length);
        const logits = bed.buffer(values);
        const grid = [Math.ceil(stride / SOFTCAP_SPAN), rows, 1] as const;
        const params = { cap, stride: stride / 4 };
        await bed.submit((recorder) => softcap.launch(recorder, { buffers: { logits }, params, grid }));
        const got = await bed.f32(logits);
        const finite = values.length - broken.length;
        const want = Float64Array.from(values.subarray(0, finite), (v) => cap * Math.tanh(v / cap));
        const kept = broken.map((v, at) => (Object.is(got[finite + at], v) ? 0 : 1));
        return [
          { name: "logits", got: got.subarray(0, finite), want, limit: 1e-12 },
          { name: "what is no number and was changed", got: kept, want: broken.map(() => 0), limit: 0 },
        ];
      },
    };
  });
}
