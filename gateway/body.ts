/** A request's body, read within limits, as JSON. */
import { HttpError } from "./httpError.ts";

const MAX_DEPTH = 64; // of lists and objects in each other: no request needs it, and what walks a body may recurse

/** The value of a JSON body of at most `limit` bytes. Throws HttpError. */
export async function readJson(request: Request, limit: number): Promise<unknown> {
  const type = request.headers.get("content-type") ?? "";
  // What a form of another site can send without asking is none of these.
  if (!/^application\/([\w.-]+\+)?json\s*(;|$)/i.test(type)) {
    const what = type === "" ? "is missing" : `is ${JSON.stringify(type.slice(0, 100))}`;
    throw new HttpError(415, `content-type: ${what}, expected application/json`);
  }
  return parse(decode(await readBytes(request, limit)));
}

async function readBytes(request: Request, limit: number): Promise<Uint8Array> {
  const tooLarge = () => new HttpError(413, `body: is more than ${limit} bytes, the most that this server takes`);
  if (Number(request.headers.get("content-length") ?? 0) > limit) throw tooLarge();
  const pieces: Uint8Array[] = [];
  let size = 0;
  for await (const piece of request.body ?? []) {
    size += piece.byteLength;
    if (size > limit) throw tooLarge();
    pieces.push(piece);
  }
  const bytes = new Uint8Array(size);
  let at = 0;
  for (const piece of pieces) {
    bytes.set(piece, at);
    at += piece.byteLength;
  }
  return bytes;
}

function decode(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new HttpError(400, "body: is not UTF-8");
  }
}

function parse(text: string): unknown {
  if (depthOf(text) > MAX_DEPTH)
    throw new HttpError(400, `body: lists and objects are nested more than ${MAX_DEPTH} deep`);
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new HttpError(400, `body: is not JSON: ${error instanceof Error ? error.message : String(error)}`);
  }
}

/** How deep brackets are nested, those in strings left out. */
function depthOf(text: string): number {
  let [depth, most, inString] = [0, 0, false];
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    if (inString) {
      if (unit === BACKSLASH) i++;
      else if (unit === QUOTE) inString = false;
    } else if (unit === QUOTE) inString = true;
    else if (unit === 0x5b || unit === 0x7b) most = Math.max(most, ++depth);
    else if (unit === 0x5d || unit === 0x7d) depth--;
  }
  return most;
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
