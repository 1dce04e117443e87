import { describe, expect, test } from "vitest";
import { modelAddress, pageOptions } from "./pageOptions.ts";

describe("the page's address", () => {
  test("sets nothing where it is empty: the model's own settings hold", () => {
    expect(pageOptions("")).toEqual({ model: "default", raw: false, sampling: {} });
    expect(pageOptions("?temperature=&model=&raw=0")).toEqual({ model: "default", raw: false, sampling: {} });
  });

  test("sets what the command's flags set", () => {
    expect(pageOptions("?model=https://x.test/m&temperature=0&max_tokens=40&seed=1&raw=1")).toEqual({
      model: "https://x.test/m",
      raw: true,
      sampling: { temperature: 0, maxTokens: 40, seed: 1 },
    });
  });

  test.each([
    ["?top_q=1", "top_q: is no setting of this page, expected model, temperature, max_tokens, seed, raw"],
    ["?seed=1&seed=2", "seed: is given 2 times, expected once"],
    ["?temperature=-1", 'temperature: is "-1", expected a number from 0'],
    ["?temperature=Infinity", 'temperature: is "Infinity"'],
    ["?temperature=0x10", 'temperature: is "0x10"'],
    ["?max_tokens=0", 'max_tokens: is "0", expected a number from 1'],
    ["?max_tokens=1.5", "max_tokens: is 1.5, expected a whole number"],
    ["?seed=9007199254740992", "seed: is"],
    ["?raw=yes", 'raw: is "yes", expected 0 or 1'],
  ])("%s is refused", (search, words) => expect(() => pageOptions(search)).toThrow(words));
});

describe("a model's address", () => {
  const base = "https://x.test/pages/chat.html?model=m";
  test.each([
    ["default", "https://x.test/pages/models/default/"],
    ["models/other/", "https://x.test/pages/models/other/"],
    ["https://y.test/m/", "https://y.test/m/"],
  ])("%s is %s", (model, address) => expect(modelAddress(model, base)).toBe(address));

  test.each(["file:///etc/", "javascript:alert(1)", "data:,x", "https://["])("%s is refused", (model) => {
    expect(() => modelAddress(model, base)).toThrow("expected an https:// address of a folder, or default");
  });
});
