/** Where the hub is, who asks, and where downloads are kept: the same variables and files as for the hub's Python tools. */
import { readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { getHFHubCachePath, HUB_URL } from "@huggingface/hub";
import { SourceError } from "./errors.ts";

/** All that a download needs to know besides the model. */
export interface HubSettings {
  /** Without a slash at its end. */
  readonly endpoint: string;
  readonly token: string | undefined;
  /** Whether nothing may be asked of the hub. */
  readonly offline: boolean;
  /** The cache's folder, which need not be there yet. */
  readonly cache: string;
}

/** Reads HF_ENDPOINT, HF_TOKEN (or the token that a login left), HF_HUB_OFFLINE, HF_HUB_CACHE and HF_HOME. Throws SOURCE_NAME for an address that is none. */
export async function hubSettings(): Promise<HubSettings> {
  const { env } = process;
  return {
    endpoint: endpointOf(env.HF_ENDPOINT),
    token: env.HF_TOKEN?.trim() || (await savedToken()),
    offline: /^(1|on|yes|true)$/i.test(env.HF_HUB_OFFLINE ?? ""),
    cache: resolve(expanded(getHFHubCachePath())),
  };
}

function endpointOf(text: string | undefined): string {
  if (text === undefined || text.trim() === "") return HUB_URL;
  const endpoint = text.trim().replace(/\/+$/, "");
  if (/^https?:\/\//i.test(endpoint) && URL.canParse(endpoint)) return endpoint;
  const message = `is ${JSON.stringify(text)}, expected an address that begins with https://`;
  throw new SourceError("SOURCE_NAME", `HF_ENDPOINT: ${message}; correct it, or unset it for ${HUB_URL}`);
}

// What `hf auth login` leaves.
async function savedToken(): Promise<string | undefined> {
  const { env } = process;
  const home = env.HF_HOME ?? join(env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "huggingface");
  const path = expanded(env.HF_TOKEN_PATH ?? join(home, "token"));
  const text = await readFile(path, "utf8").catch(() => ""); // nobody logged in here
  return text.trim() || undefined;
}

function expanded(path: string): string {
  return path === "~" || path.startsWith("~/") ? join(homedir(), path.slice(1)) : path;
}
