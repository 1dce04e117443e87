/** Ids of models on the hub: `owner/name`, or `owner/name@revision`. */
import { staysInside } from "./sourceChecks.ts";

/** A model on the hub, at a branch, a tag or a commit. */
export interface HubId {
  /** `owner/name`. */
  readonly name: string;
  readonly revision: string;
}

/** The branch that every repository has. */
const DEFAULT_REVISION = "main";

// As the hub has them: letters, digits, "_", "-" and "."; the first and the last character no punctuation.
const PART = /^\w(?:[\w.-]{0,94}\w)?$/; // 96 characters at most

const LONGEST_REVISION = 250; // a file is named after it

/** The id that `text` spells, or undefined where it can be none. */
export function parseHubId(text: string): HubId | undefined {
  const [name = "", revision = DEFAULT_REVISION, ...more] = text.split("@");
  const parts = name.split("/");
  if (more.length > 0 || parts.length !== 2 || !parts.every(isPart)) return undefined;
  return isRevision(revision) ? { name, revision } : undefined;
}

/** As a user types it. */
export function hubIdText({ name, revision }: HubId): string {
  return revision === DEFAULT_REVISION ? name : `${name}@${revision}`;
}

/** Whether a revision names one commit for ever. */
export function isCommit(revision: string): boolean {
  return /^[0-9a-f]{40}$/.test(revision);
}

// "--" separates owner and name in the cache's folders.
function isPart(part: string): boolean {
  return PART.test(part) && !part.includes("--") && !part.includes("..");
}

function isRevision(revision: string): boolean {
  return revision.length <= LONGEST_REVISION && staysInside(revision) && !/[\s~^?*[]/.test(revision);
}
