import { defineConfig, type TestProjectInlineConfiguration } from "vitest/config";

/** What looks at the heap, while nothing else has any. */
const HEAP = ["test/memory.test.ts", "test/steadyState.test.ts"];
/** What looks at the most memory that its process ever had, or puts something in a module's place, has a process of its own. */
const ALONE = ["models/weights/headerMemory.test.ts", "device/nodeHubFaults.test.ts"];

/** The files of one process, one after the other: what is compiled for one is there for the next (test/sharedDevice.ts). */
function inOneProcess(
  groupOrder: number,
  name: string,
  include: string[],
  exclude: string[] = [],
): TestProjectInlineConfiguration {
  const test = { name, include, exclude: ["node_modules/**", ...exclude], isolate: false, sequence: { groupOrder } };
  return { extends: true, test };
}

export default defineConfig({
  test: {
    pool: "forks", // Dawn's objects must not cross workers
    maxWorkers: 1, // two software adapters at once are ten times slower
    testTimeout: 300_000, // lavapipe compiles a kernel at its first dispatch, for up to 20 s on a cold cache
    hookTimeout: 600_000,
    passWithNoTests: false,
    projects: [
      inOneProcess(
        0,
        "all",
        ["{device,kernels,models,engine,gateway,cli,bench,web,test}/**/*.test.ts"],
        [...HEAP, ...ALONE],
      ),
      inOneProcess(1, "heap", HEAP),
      {
        extends: true,
        test: { name: "alone", include: ALONE, exclude: ["node_modules/**"], sequence: { groupOrder: 2 } },
      },
    ],
  },
});
