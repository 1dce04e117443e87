/** Ids of the hub as commands take them. */
import { type HubId, parseHubId } from "../device/hubId.ts";
import { UsageError } from "./errors.ts";

/** The ids among the words of a command. Throws UsageError where one is none, or none is given. */
export function hubIds(words: readonly string[]): HubId[] {
  if (words.length === 0) throw new UsageError("ID: is not given, expected owner/name or owner/name@revision");
  return words.map((word) => {
    const id = parseHubId(word);
    if (id === undefined) throw notAnId(word);
    return id;
  });
}

/** What a word is that is no id. */
export function notAnId(word: string): UsageError {
  return new UsageError(`${JSON.stringify(word)}: is no id of a model, expected owner/name or owner/name@revision`);
}
