/** A hub with one model, and a cache that is empty at the beginning of each test: what tests of downloads share. */
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "vitest";
import { SourceError } from "../device/errors.ts";
import { parseHubId } from "../device/hubId.ts";
import { type DownloadOptions, pullModel } from "../device/nodeHub.ts";
import { HubRepo, HubServer } from "./hubServer.ts";

/** The model's commit, and one that may follow. */
export const COMMIT = "0123456789abcdef0123456789abcdef01234567";
export const OTHER = "fedcba9876543210fedcba9876543210fedcba98";
/** The name of its large file, and what is in it. */
export const FILE = "model.safetensors";
export const WEIGHTS = new Uint8Array(3 * 2 ** 20 + 7).map((_, i) => Math.imul(i, 2654435761) >>> 13);

/** `start` before all tests of a file, `reset` before each, `stop` behind all. */
export class HubScene {
  readonly server = new HubServer();
  cache = "";
  /** What downloads told, and for how many milliseconds they waited before they tried again. */
  notes: string[] = [];
  slept: number[] = [];

  readonly start = () => this.server.start();
  readonly stop = () => this.server.stop();

  /** Begins anew; what it returns removes the cache. */
  readonly reset = (): (() => void) => {
    const { server } = this;
    const cache = mkdtempSync(join(tmpdir(), "ingle-hub-"));
    Object.assign(this, { cache, notes: [], slept: [] });
    server.seen = [];
    server.intercept = () => false;
    server.repos.clear();
    server.repos.set(
      "owner/name",
      new HubRepo(COMMIT, {
        "config.json": '{"model_type":"llama"}',
        "tokenizer.json": "{}",
        "tokenizer_config.json": '{"a":1}',
        "README.md": "# a model",
        [FILE]: WEIGHTS,
        "pytorch_model.bin": "pickled",
        "model.Q4_K_M.gguf": "GGUF",
        "consolidated.safetensors": "again",
        "onnx/model.safetensors": "and again",
        "original/config.json": "{}",
      }),
    );
    return () => rmSync(cache, { recursive: true });
  };

  /** The model as the hub has it. */
  get repo(): HubRepo {
    const found = this.server.repos.get("owner/name");
    if (found === undefined) throw new Error("the test's repository is gone");
    return found;
  }

  /** Another commit of it, with another tokenizer. */
  move(): void {
    const files = { ...Object.fromEntries(this.repo.files), "tokenizer.json": '{"new":1}' };
    this.server.repos.set("owner/name", new HubRepo(OTHER, files));
  }

  /** Where it lies in the cache: all of it, a commit's files, a file's blob. */
  get folder(): string {
    return join(this.cache, "models--owner--name");
  }
  snapshot(commit = COMMIT): string {
    return join(this.folder, "snapshots", commit);
  }
  blob(path = FILE): string {
    return join(this.folder, "blobs", this.repo.hash(path));
  }
  blobs(): string[] {
    return readdirSync(join(this.folder, "blobs")).sort();
  }

  /** Downloads it. */
  pull(text = "owner/name", more: DownloadOptions & { offline?: boolean; token?: string; endpoint?: string } = {}) {
    const id = parseHubId(text);
    if (id === undefined) throw new Error(`${text} is no id`);
    const { offline = false, token, endpoint = this.server.endpoint } = more;
    return pullModel(id, {
      settings: { endpoint, token, offline, cache: this.cache },
      http: { sleep: async (milliseconds) => void this.slept.push(milliseconds) },
      onNote: (text) => this.notes.push(text),
      ...more,
    });
  }
}

/** The error that `work` ends with, which must be a SourceError of this code. */
export async function refused(work: Promise<unknown>, code: string): Promise<string> {
  const error = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(SourceError);
  if (!(error instanceof SourceError)) throw new Error("nothing was thrown");
  expect(`${error.code}: ${error.message}`).toMatch(new RegExp(`^${code}: `));
  return error.message;
}
