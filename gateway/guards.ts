/** Who may ask: keys, and the names that a local server is called by. */
import { sha256 } from "@noble/hashes/sha2.js";
import type { MiddlewareHandler } from "hono";
import { HttpError } from "./httpError.ts";

/** Lets through who has one of the keys; nobody is asked for one where there are none. */
export function requireKey(keys: readonly string[]): MiddlewareHandler {
  const hashes = keys.map(hash);
  return async (c, next) => {
    if (hashes.length > 0) {
      const key = /^Bearer +(\S+)$/i.exec(c.req.header("authorization") ?? "")?.[1];
      if (key === undefined) throw unauthorized("authorization: is missing, expected Bearer and an API key");
      const given = hash(key);
      // All are compared, and all bytes of each: how long it takes says nothing about a key.
      const matches = hashes.map((known) => sameBytes(known, given));
      if (!matches.includes(true)) throw unauthorized("authorization: the API key is wrong");
    }
    await next();
  };
}

function unauthorized(message: string): HttpError {
  const headers = { "www-authenticate": "Bearer" };
  return new HttpError(401, message, { type: "authentication_error", code: "invalid_api_key", headers });
}

const hash = (text: string): Uint8Array => sha256(new TextEncoder().encode(text));

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.reduce((difference, byte, i) => difference | (byte ^ (b[i] ?? 0)), 0) === 0;
}

/**
 * Lets through who calls the server by an address or as localhost. A page of another site can have its own name point to this
 * machine, and would then count as the server's own; the name that it calls gives it away.
 */
export function requireLocalName(): MiddlewareHandler {
  return async (c, next) => {
    const { hostname } = new URL(c.req.url);
    if (!isAddress(hostname) && hostname !== "localhost" && !hostname.endsWith(".localhost")) {
      const what = `host: is ${JSON.stringify(hostname)}, expected localhost or an address`;
      throw new HttpError(403, `${what}; a server that is to be called by a name needs an API key`);
    }
    await next();
  };
}

const isAddress = (hostname: string) => /^(\d+\.){3}\d+$|^\[[\da-f:.]+\]$/.test(hostname);
