/** Cases of lists of items by expert. */
import { NONE } from "../kernel.ts";
import { type Case, Random } from "../testbed.ts";
import { expertLists } from "./expert_lists.ts";
import { type Choice, chosenBy, PLAIN_EXPERTS, routeWords } from "./expertData.ts";
import { listShape, TILE_ROWS, TILE_WORDS, TILES_AT } from "./route.ts";

/** Lists of items: every item once, experts ascending, items of an expert in their order, tiles over them. */
export function expertListsCase(rows: number, slots: number, experts: number, choice: Choice, seed: number): Case {
  return {
    kernel: "expert_lists",
    title: `expert_lists rows=${rows} slots=${slots} E=${experts} ${choice} seed=${seed}`,
    async run(bed) {
      const shape = { ...PLAIN_EXPERTS, rows, slots, experts, choice, seed };
      const ids = chosenBy(shape, new Random(seed));
      const lists = listShape(ids.length, experts);
      const out = bed.buffer(new Uint32Array(lists.words).fill(NONE));
      const route = bed.buffer(routeWords(shape, ids, new Float32Array(ids.length), new Float32Array(rows)));
      const params = { items: ids.length, experts, items_at: lists.itemsAt };
      await bed.submit((recorder) =>
        expertLists.launch(recorder, { buffers: { route, lists: out }, params, grid: [1, 1, 1] }),
      );
      const got = await bed.u32(out);
      const tiles: number[] = [];
      const items: number[] = [];
      for (let e = 0; e < experts; e++) {
        const mine = ids.flatMap((id, item) => (id === e ? [item] : []));
        for (let done = 0; done < mine.length; done += TILE_ROWS)
          tiles.push(e, lists.itemsAt + items.length + done, Math.min(mine.length - done, TILE_ROWS), NONE);
        items.push(...mine);
      }
      return [
        { name: "tiles", got: [got[0] ?? NONE], want: [tiles.length / TILE_WORDS], limit: 0 },
        { name: "records", got: got.subarray(TILES_AT, TILES_AT + tiles.length), want: tiles, limit: 0 },
        { name: "items", got: got.subarray(lists.itemsAt), want: items, limit: 0 },
      ];
    },
  };
}
