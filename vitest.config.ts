import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["{device,kernels,models,engine,cli,bench,web,test}/**/*.test.ts"],
    pool: "forks", // Dawn's objects must not cross workers
    fileParallelism: false, // two software adapters at once are ten times slower
    testTimeout: 120_000,
    hookTimeout: 300_000,
    passWithNoTests: false,
  },
});
