import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { systemDriverFiles, withDriverFiles } from "./nodeVulkan.ts";

let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "ingle-icd-"));
  await mkdir(join(folder, "share", "vulkan", "icd.d"), { recursive: true });
  for (const name of ["b_icd.json", "a_icd.json", "notes.txt"]) {
    await writeFile(join(folder, "share", "vulkan", "icd.d", name), "{}");
  }
});
afterAll(() => rm(folder, { recursive: true, force: true }));

describe("driver files", () => {
  const mine = () => [join(folder, "share/vulkan/icd.d/a_icd.json"), join(folder, "share/vulkan/icd.d/b_icd.json")];

  test("are found in the data folders, before the system's", () => {
    const files = systemDriverFiles({ HOME: folder, XDG_DATA_DIRS: `${folder}/share${delimiter}/absent` });
    expect(files.slice(0, 2)).toEqual(mine());
    expect(files.every((file) => file.endsWith(".json"))).toBe(true);
  });

  test("are those that the user names, without what is not there", () => {
    const [a] = mine();
    expect(systemDriverFiles({ VK_DRIVER_FILES: `${a}${delimiter}/absent.json`, VK_ICD_FILENAMES: "/x" })).toEqual([a]);
    expect(systemDriverFiles({ VK_ICD_FILENAMES: `${a}` })).toEqual([a]);
    expect(systemDriverFiles({ VK_DRIVER_FILES: "/absent.json" })).toEqual([]);
  });
});

describe.runIf(process.platform === "linux")("the environment while Dawn looks", () => {
  test("names our files, and is as before afterwards, even when the work throws", () => {
    const before = { ...process.env };
    const seen = withDriverFiles(["/a", "/b"], () => ({ ...process.env }));
    expect([seen.VK_DRIVER_FILES, seen.VK_ICD_FILENAMES]).toEqual(["/a:/b", "/a:/b"]);
    expect(seen.XDG_RUNTIME_DIR).toBeTruthy();
    expect({ ...process.env }).toEqual(before);
    const fail = () => {
      throw new Error("mine");
    };
    expect(() => withDriverFiles(["/a"], fail)).toThrow("mine");
    expect({ ...process.env }).toEqual(before);
  });
});
