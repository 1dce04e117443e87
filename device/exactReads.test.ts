/** Folders of a caller's own: what they bring is what was asked for. */
import { expect, test } from "vitest";
import { exactReads } from "./exactReads.ts";
import type { ByteSource } from "./files.ts";

/** The file of a caller's folder. */
async function opened(read: ByteSource["read"]): Promise<ByteSource> {
  const source: ByteSource = { name: "weights", size: 8, read, close: async () => {} };
  const file = await exactReads({ location: "mine", open: async () => source }).open("weights");
  if (file === undefined) throw new Error("the folder has no such file");
  return file;
}

test("a part of a Buffer comes as its own bytes, whose copy is a copy", async () => {
  const file = Buffer.from([1, 2, 3, 4, 5, 6, 7, 8]);
  const bytes = await (await opened(async (begin, end) => file.subarray(begin, end))).read(2, 6);
  expect([...new Uint8Array(bytes.slice().buffer)]).toEqual([3, 4, 5, 6]);
});

test("fewer bytes are an error that names the file", async () => {
  const short = await opened(async () => new Uint8Array(3));
  await expect(short.read(0, 4)).rejects.toThrow("weights: bytes 0 to 4 were asked for, 3 came, expected 4");
});

test("a file that is not there stays away", async () => {
  expect(await exactReads({ location: "mine", open: async () => undefined }).open("none")).toBeUndefined();
});
