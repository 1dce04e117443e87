/** The server as a function from requests to responses: OpenAI's endpoints, and what goes with them. */
import { type Context, Hono } from "hono";
import { cors } from "hono/cors";
import { routePath } from "hono/route";
import { chatJob } from "../engine/openai/chatJob.ts";
import { textJob } from "../engine/openai/textJob.ts";
import { answerRequest, statusOf } from "./answerRoute.ts";
import { readJson } from "./body.ts";
import { Gate } from "./gate.ts";
import { requireKey, requireLocalName } from "./guards.ts";
import { errorResponse, HttpError } from "./httpError.ts";
import { Metrics } from "./metrics.ts";
import { RequestRecord } from "./record.ts";
import type { GatewayOptions, Served } from "./served.ts";
import { applyTemplate, detokenize, tokenize } from "./tokenRoutes.ts";

/** What a gateway keeps of a request. */
interface Env {
  Variables: { record: RequestRecord };
}

/** A server that has no socket yet. */
export interface Gateway {
  fetch(request: Request): Promise<Response>;
  readonly gate: Gate;
}

/** The routes, by path and method: whatever is not here is refused, and so is another method. */
const ROUTES = {
  "/health": { GET: (served) => health(served) },
  "/metrics": { GET: (served) => metrics(served) },
  "/v1/models": {
    GET: (served) => Response.json({ object: "list", data: served.names.map((id) => model(served, id)) }),
  },
  "/v1/models/:id{.+}": { GET: (served, c) => oneModel(served, c) },
  "/v1/chat/completions": { POST: (served, c) => answerRequest(served, c.req.raw, c.get("record"), chatJob) },
  "/v1/completions": { POST: (served, c) => answerRequest(served, c.req.raw, c.get("record"), textJob) },
  "/tokenize": { POST: (served, c) => answerJson(served, c, tokenize) },
  "/detokenize": { POST: (served, c) => answerJson(served, c, detokenize) },
  "/apply-template": { POST: (served, c) => answerJson(served, c, applyTemplate) },
} as const satisfies Readonly<Record<string, Readonly<Partial<Record<"GET" | "POST", Answer>>>>>;

type Answer = (served: Served, c: Context<Env>) => Response | Promise<Response>;

/** The paths of all routes. */
export const PATHS: readonly string[] = Object.keys(ROUTES);

/** The gateway of an engine. Whoever made the engine closes it, after the last request. */
export function gateway(options: GatewayOptions): Gateway {
  const since = Math.floor(Date.now() / 1000);
  const served: Served = { ...options, gate: new Gate(options.requestLimit), metrics: new Metrics(), since };
  const app = new Hono<Env>();
  app.use(async (c, next) => {
    const record = new RequestRecord(c.req.method, c.req.path);
    c.set("record", record);
    await next();
    served.metrics.responded(routeOf(c), c.res.status);
    if (!record.streaming)
      served.onAnswered?.(record, c.error === undefined ? c.res.status : statusOf(c.error, served), c.error);
  });
  if (options.origins.length > 0) app.use(cors({ origin: options.origins.includes("*") ? "*" : [...options.origins] }));
  if (options.local && options.keys.length === 0) app.use(requireLocalName());
  app.get("/health", () => health(served)); // asked by whoever watches the process, without a key
  app.use(requireKey(options.keys));
  for (const [path, methods] of Object.entries(ROUTES)) {
    for (const [method, answer] of Object.entries<Answer>(methods)) app.on(method, path, (c) => answer(served, c));
    app.all(path, (c) => wrongMethod(c, Object.keys(methods)));
  }
  app.notFound((c) =>
    errorResponse(new HttpError(404, `${c.req.path}: there is no such path; there are ${PATHS.join(", ")}`)),
  );
  app.onError((error) => errorResponse(error));
  return { fetch: async (request) => await app.fetch(request), gate: served.gate };
}

/** The path of the route that answered: few, whatever was asked for. */
function routeOf(c: Context<Env>): string {
  const path = routePath(c, -1);
  return PATHS.includes(path) ? path : "none";
}

function wrongMethod(c: Context<Env>, methods: readonly string[]): Response {
  const what = `${c.req.path}: is called by ${c.req.method}, expected ${methods.join(" or ")}`;
  return errorResponse(new HttpError(405, what, { headers: { allow: methods.join(", ") } }));
}

async function answerJson(served: Served, c: Context<Env>, work: (served: Served, body: unknown) => object) {
  const entry = served.gate.enter(c.req.raw.signal);
  try {
    return Response.json(work(served, await readJson(c.req.raw, served.bodyLimit)));
  } finally {
    entry.leave();
  }
}

function health({ gate, engine }: Served): Response {
  const status = gate.closing ? "closing" : engine.stats().device.lost > 0 ? "device lost" : "ok";
  return Response.json({ status }, { status: status === "ok" ? 200 : 503 });
}

function metrics({ metrics: counted, engine, names }: Served): Response {
  const headers = { "content-type": "text/plain; version=0.0.4; charset=utf-8" };
  return new Response(counted.text(names[0], engine.stats()), { headers });
}

function model({ since, engine }: Served, id: string): object {
  return { id, object: "model", created: since, owned_by: "ingle", max_model_len: engine.plan.context };
}

function oneModel(served: Served, c: Context<Env>): Response {
  const id = c.req.param("id") ?? "";
  if (served.names.includes(id)) return Response.json(model(served, id));
  const what = `model: ${JSON.stringify(id.slice(0, 100))} is not served here, expected ${served.names.join(" or ")}`;
  throw new HttpError(404, what, { param: "model", code: "model_not_found" });
}
