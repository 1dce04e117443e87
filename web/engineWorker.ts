/** The engine in a dedicated worker: what it computes never stops the page from drawing. */
import { Engine } from "../engine/engine.ts";
import { AbortError } from "../engine/errors.ts";
import { type AboutModel, type EngineNews, type EngineOrder, failureOf } from "./messages.ts";

let engine: Engine | undefined;
const running = new Map<number, AbortController>();

const tell = (news: EngineNews) => self.postMessage(news);

self.addEventListener("message", ({ data: order }: MessageEvent<EngineOrder>) => {
  if (order.type === "load") void load(order.model);
  else if (order.type === "generate") void generate(order);
  else running.get(order.id)?.abort();
});

async function load(model: string): Promise<void> {
  try {
    engine = await Engine.load(model, { onProgress: (progress) => tell({ type: "progress", progress }) });
    tell({ type: "loaded", about: aboutModel(engine) });
  } catch (error) {
    tell({ type: "failed", failure: failureOf(error) });
  }
}

function aboutModel({ gpu, model, plan }: Engine): AboutModel {
  const { name, kind } = gpu.adapter;
  const templated = model.template !== undefined;
  return { adapter: name, software: kind === "software", templated, context: plan.context };
}

async function generate({ id, request }: Extract<EngineOrder, { type: "generate" }>): Promise<void> {
  const stop = new AbortController();
  running.set(id, stop);
  try {
    if (engine === undefined) throw new AbortError("generate: no model is loaded; load one first");
    for await (const part of engine.generate({ ...request, signal: stop.signal })) tell({ type: "part", id, part });
    tell({ type: "ended", id, aborted: false });
  } catch (error) {
    if (stop.signal.aborted && error instanceof AbortError) tell({ type: "ended", id, aborted: true });
    else tell({ type: "failed", id, failure: failureOf(error) });
  } finally {
    running.delete(id);
  }
}
