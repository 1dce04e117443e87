import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["{device,kernels,models,engine,gateway,cli,bench,web,test}/**/*.test.ts"],
    pool: "forks", // Dawn's objects must not cross workers
    fileParallelism: false, // two software adapters at once are ten times slower
    testTimeout: 300_000, // lavapipe compiles a kernel at its first dispatch, for up to 15 s on a cold cache
    hookTimeout: 600_000,
    passWithNoTests: false,
  },
});
