/** Downloads on a disk of which the k-th write fails, for k = 1, 2, … until one comes through: an error in words, nothing half there, and the next one is whole. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { HubRepo, HubServer } from "../test/hubServer.ts";
import { SourceError } from "./errors.ts";
import { parseHubId } from "./hubId.ts";
import { pullModel } from "./nodeHub.ts";

/** What the disk does: its `failing`-th write is refused, and others write at most so many bytes at once. */
const disk = vi.hoisted(() => ({ writes: 0, failing: 0, code: "", refused: "", most: Number.POSITIVE_INFINITY }));

vi.mock("node:fs/promises", async (original) => {
  const real = await original<typeof import("node:fs/promises")>();
  const { replaced } = await import("../test/hookedDevice.ts");
  const refuse = (name: string) => {
    if (++disk.writes !== disk.failing) return;
    disk.refused = name;
    throw Object.assign(new Error(`${disk.code}: ${name}`), { code: disk.code });
  };
  type Handle = Awaited<ReturnType<typeof real.open>>;
  const handle = (it: Handle): Handle => {
    const write = async (bytes: Uint8Array, from: number, count: number, at: number) => {
      refuse("write");
      return await it.write(bytes, from, Math.min(count, disk.most), at);
    };
    return replaced(it, {
      write: write as Handle["write"], // the one of its forms that is used
      writeFile: async (...given) => {
        refuse("writeFile");
        await it.writeFile(...given);
      },
      truncate: async (...given) => {
        refuse("truncate");
        await it.truncate(...given);
      },
      sync: async () => {
        refuse("sync");
        await it.sync();
      },
      close: async () => {
        await it.close();
        refuse("close");
      },
    });
  };
  const refusing = <T extends (...given: never[]) => unknown>(name: string, call: T) =>
    ((...given: Parameters<T>) => {
      refuse(name);
      return call(...given);
    }) as T;
  return {
    ...real,
    open: async (...given: Parameters<typeof real.open>) => {
      refuse("open");
      return handle(await real.open(...given));
    },
    mkdir: refusing("mkdir", real.mkdir),
    rename: refusing("rename", real.rename),
    symlink: refusing("symlink", real.symlink),
    copyFile: refusing("copyFile", real.copyFile),
    writeFile: refusing("writeFile", real.writeFile),
  };
});

const FULL = process.env.INGLE_SUITE === "full";
const CODES = FULL ? (["ENOSPC", "EIO", "EACCES"] as const) : (["ENOSPC"] as const);
const MEANS: Readonly<Record<string, string>> = {
  ENOSPC: "SOURCE_DISK_FULL",
  EIO: "SOURCE_IO",
  EACCES: "SOURCE_READ_ONLY",
};
const FILES: Readonly<Record<string, string | Uint8Array>> = {
  "config.json": '{"model_type":"llama"}',
  "tokenizer.json": "{}",
  "model.safetensors": new Uint8Array(300_007).map((_, i) => Math.imul(i, 2654435761) >>> 13),
};

const server = new HubServer();
beforeAll(async () => {
  await server.start();
  server.repos.set("owner/name", new HubRepo("0123456789abcdef0123456789abcdef01234567", FILES));
});
afterAll(() => server.stop());

/** Downloads into `cache`; what was told meanwhile goes to `notes`. */
function pull(cache: string, notes: string[] = []) {
  const id = parseHubId("owner/name");
  if (id === undefined) throw new Error("is no id");
  const settings = { endpoint: server.endpoint, token: undefined, offline: false, cache };
  return pullModel(id, { settings, onNote: (text) => notes.push(text) });
}

function expectWhole(cache: string, path: string): void {
  expect(readdirSync(path).sort()).toEqual(Object.keys(FILES).sort());
  for (const [name, bytes] of Object.entries(FILES))
    expect(readFileSync(join(path, name)).equals(Buffer.from(bytes)), name).toBe(true);
  expect(readdirSync(join(cache, "models--owner--name", "blobs"))).toHaveLength(Object.keys(FILES).length);
  expect(readdirSync(join(cache, ".locks", "models--owner--name"))).toEqual([]);
}

async function inCache(work: (cache: string) => Promise<void>): Promise<void> {
  const cache = mkdtempSync(join(tmpdir(), "ingle-faults-"));
  Object.assign(disk, { writes: 0, failing: 0, refused: "", most: Number.POSITIVE_INFINITY });
  try {
    await work(cache);
  } finally {
    rmSync(cache, { recursive: true });
  }
}

test.each(CODES)("%s", { timeout: 600_000 }, async (code) => {
  const refused = new Set<string>();
  for (let nth = 1; disk.refused !== "" || nth === 1; nth++) {
    await inCache(async (cache) => {
      Object.assign(disk, { failing: nth, code });
      const error = await pull(cache).then(
        () => undefined,
        (reason: unknown) => reason,
      );
      Object.assign(disk, { failing: 0 });
      if (error !== undefined) {
        expect(error, `${nth}: ${disk.refused}`).toBeInstanceOf(SourceError);
        expect(error).toMatchObject({ code: MEANS[code], message: expect.stringContaining(`(${code})`) });
        expect(String(error)).toContain(cache);
      }
      const notes: string[] = [];
      const { path } = await pull(cache, notes);
      expect(notes).toEqual([]); // nobody is waited for
      expectWhole(cache, path);
      if (disk.refused !== "") refused.add(disk.refused);
    });
  }
  // A link that is refused is a copy.
  expect([...refused].sort()).toEqual(
    ["close", "mkdir", "open", "rename", "symlink", "sync", "write", "writeFile"].sort(),
  );
});

test("a disk that takes a few bytes at a time gets them all", async () => {
  await inCache(async (cache) => {
    disk.most = 1009;
    expectWhole(cache, (await pull(cache)).path);
    expect(disk.writes).toBeGreaterThan(300);
  });
});
