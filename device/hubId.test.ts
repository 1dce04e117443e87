/** Which texts name a model of the hub. */
import { describe, expect, test } from "vitest";
import { parseHubId } from "./hubId.ts";

describe("an id", () => {
  test.each([
    ["owner/name", { name: "owner/name", revision: "main" }],
    ["HuggingFaceTB/SmolLM2-135M_x.1@v1.0", { name: "HuggingFaceTB/SmolLM2-135M_x.1", revision: "v1.0" }],
    ["a/b@refs/pr/1", { name: "a/b", revision: "refs/pr/1" }],
  ])("%s is one", (text, id) => expect(parseHubId(text)).toEqual(id));

  test.each([
    "name",
    "./a",
    "../a",
    "a/b/c",
    "/a/b",
    "a/b@",
    "a/b@../x",
    "a/b@x@y",
    "a/b c",
    "a--b/c",
    "a/..",
    "-a/b",
    "a/b.",
    "~/a",
    "C:/a",
    "a\\b/c",
    "",
  ])("%j is none", (text) => expect(parseHubId(text)).toBeUndefined());
});
