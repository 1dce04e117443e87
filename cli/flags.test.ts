/** Flags: what is accepted, and that nothing is ignored. */
import { describe, expect, test } from "vitest";
import { UsageError } from "./errors.ts";
import { type FlagTable, parseFlags } from "./flags.ts";

const TABLE = {
  model: { short: "m", value: "MODEL", help: "" },
  "max-tokens": { short: "n", value: "N", help: "" },
  temperature: { value: "T", help: "" },
  stop: { value: "TEXT", repeat: true, help: "" },
  memory: { value: "BYTES", help: "" },
  kwargs: { value: "JSON", help: "" },
  kind: { value: "a|b", help: "" },
  json: { help: "" },
  raw: { help: "" },
} as const satisfies FlagTable;

const parse = (...words: string[]) => parseFlags(words, TABLE, { lora: "merge it" });

describe("parsing", () => {
  test("long, short, joined and repeated flags, and what is no flag", () => {
    const args = parse("-m", "folder", "-n5", "--stop=a", "--stop", "b", "--json", "a prompt", "--", "--raw");
    expect(args.text("model")).toBe("folder");
    expect(args.integer("max-tokens", 1, 10)).toBe(5);
    expect(args.all("stop")).toEqual(["a", "b"]);
    expect(args.has("json")).toBe(true);
    expect(args.has("raw")).toBe(false);
    expect(args.positionals).toEqual(["a prompt", "--raw"]);
  });
  test("a value may begin with a dash, but is no flag", () => {
    expect(parse("--stop", "-").all("stop")).toEqual(["-"]);
    expect(parse("--stop", "--- end").all("stop")).toEqual(["--- end"]);
    expect(parse("--stop=--json").all("stop")).toEqual(["--json"]);
    expect(() => parse("--stop", "--json")).toThrow("--stop: has no value, expected TEXT");
  });
  test.each([
    [["--modle", "x"], "--modle: there is no such flag; did you mean --model?"],
    [["--zzzzzzzz"], "--zzzzzzzz: there is no such flag; --help lists the flags"],
    [["-q"], "-q: there is no such flag"],
    [["--lora", "x"], "--lora: is not supported yet; merge it"],
    [["--toString"], "--toString: there is no such flag"],
    [["--__proto__"], "--__proto__: there is no such flag"],
    [["-m"], "-m: has no value, expected MODEL"],
    [["-m", "a", "-m", "b"], "--model: is given twice, expected once"],
    [["--json=yes"], '--json: takes no value, is given "yes"'],
  ])("%j is refused", (words, message) => {
    expect(() => parse(...words)).toThrow(message);
    expect(() => parse(...words)).toThrow(UsageError);
  });
});

describe("values", () => {
  test.each([
    ["1073741824", 2 ** 30],
    ["512MiB", 512 * 2 ** 20],
    ["512m", 512 * 2 ** 20],
    ["1.5G", 1.5 * 2 ** 30],
    ["800MB", 800e6],
    ["64 KiB", 65536],
    ["100b", 100],
  ])("bytes %s", (text, want) => expect(parse("--memory", text).bytes("memory")).toBe(want));
  test.each(["", "MiB", "-5", "5 apples", "0", "1e3", "99999999T"])("bytes %j are refused", (text) => {
    expect(() => parse(`--memory=${text}`).bytes("memory")).toThrow(/^--memory: is .*expected bytes such as/);
  });
  test.each(["five", "", "1.5", "0x10", "11", "-1", "1e1"])("the whole number %j is refused", (text) => {
    expect(() => parse(`-n=${text}`.replace("-n=", "--max-tokens=")).integer("max-tokens", 0, 10)).toThrow(
      "expected a whole number from 0 to 10",
    );
  });
  test.each(["nan", "", "Infinity", "3", "1,5"])("the number %j is refused", (text) => {
    expect(() => parse(`--temperature=${text}`).number("temperature", 0, 2)).toThrow("expected a number from 0 to 2");
  });
  test("an open range begins above its least number", () => {
    const share = (text: string) => parse("--temperature", text).number("temperature", 0, 1, { open: true });
    expect(share("1e-9")).toBe(1e-9);
    expect(() => share("0")).toThrow('--temperature: is "0", expected a number above 0, at most 1');
  });
  test.each([
    ["0", 0],
    [".5", 0.5],
    ["1e-3", 1e-3],
  ])("the number %s", (text, want) => expect(parse("--temperature", text).number("temperature", 0, 2)).toBe(want));
  test("an object in JSON", () => {
    expect(parse("--kwargs", '{"a": 1}').object("kwargs")).toEqual({ a: 1 });
    for (const text of ["", "[1]", "null", "{a: 1}"]) {
      expect(() => parse(`--kwargs=${text}`).object("kwargs")).toThrow("expected an object in JSON");
    }
  });
  test("one of several", () => {
    expect(parse("--kind", "b").oneOf("kind", ["a", "b"])).toBe("b");
    expect(() => parse("--kind", "c").oneOf("kind", ["a", "b"])).toThrow('--kind: is "c", expected a or b');
  });
  test("two that exclude each other", () => {
    expect(() => parse("--raw", "--json").atMostOne("raw", "json")).toThrow("--raw and --json: only one");
  });
});
