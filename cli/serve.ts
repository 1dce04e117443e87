/** `ingle serve`: a model behind OpenAI's API. */
import { basename } from "node:path";
import type { Engine } from "../engine/engine.ts";
import { type Gateway, gateway } from "../gateway/app.ts";
import { isFault, loadingResponse } from "../gateway/httpError.ts";
import { type Listening, listen } from "../gateway/nodeServer.ts";
import type { RequestRecord } from "../gateway/record.ts";
import type { Command, Context } from "./command.ts";
import { EXIT, errorText, UsageError } from "./errors.ts";
import type { Arguments, FlagTable } from "./flags.ts";
import { MODEL_FLAGS, PLANNED_FLAGS } from "./modelFlags.ts";
import { engineOpener, modelName } from "./openEngine.ts";
import type { Reporter } from "./progress.ts";
import { draftName, SPECULATION_FLAGS } from "./speculationFlags.ts";

const PORT = 8080;
const BODY_LIMIT = 4 * 2 ** 20; // bytes
const REQUEST_LIMIT = 256;
const PATIENCE = 10_000; // ms for answers on their way when the server is told to end

const FLAGS = {
  ...MODEL_FLAGS,
  draft: SPECULATION_FLAGS.draft,
  host: {
    value: "HOST",
    help: "the address to listen on (default 127.0.0.1: this machine alone; 0.0.0.0: all that reach it)",
  },
  port: { value: "PORT", help: `the port to listen on (default ${PORT}; 0: any that is free)` },
  "api-key": {
    value: "KEY",
    repeat: true,
    help: "asks every request but /health for this key; may be given several times. INGLE_API_KEY does the same, and shows in no list of processes",
  },
  "allow-origin": {
    value: "ORIGIN",
    repeat: true,
    help: "lets pages of this origin ask, as https://example.org; may be given several times; * is all (default none)",
  },
  alias: {
    value: "NAME",
    repeat: true,
    help: "what requests may call the model besides its name; may be given several times",
  },
  "max-requests": { value: "N", help: `requests at once; more are told to come back (default ${REQUEST_LIMIT})` },
  "max-body": { value: "BYTES", help: "the longest body that is read, as 512KiB (default 4MiB)" },
} as const satisfies FlagTable;

type Flags = Arguments<keyof typeof FLAGS>;

export const serve: Command = {
  usage: "serve [-m MODEL]",
  summary: "an OpenAI-compatible server",
  flags: FLAGS,
  planned: PLANNED_FLAGS,
  more: `examples:
  ingle serve -m HuggingFaceTB/SmolLM2-135M-Instruct
  curl http://127.0.0.1:${PORT}/v1/chat/completions -H "content-type: application/json" \\
    -d '{"messages": [{"role": "user", "content": "Why is the sky blue?"}], "stream": true}'
  INGLE_API_KEY=$KEY ingle serve -m ./model --host 0.0.0.0 --port 8000
Any OpenAI client works with base URL http://127.0.0.1:${PORT}/v1. /metrics is for Prometheus. Fields that are not supported
are refused by name. Ctrl-C lets answers on their way end for ${PATIENCE / 1000} seconds; a second one does not.`,
  run: serveCommand,
};

async function serveCommand(args: Flags, context: Context): Promise<number> {
  const { reporter, signal } = context;
  const address = { host: args.text("host") ?? "127.0.0.1", port: args.integer("port", 0, 65_535) ?? PORT };
  const make = gatewayMaker(args, address.host, reporter);
  if (args.positionals.length > 0)
    throw new UsageError(`${args.positionals[0]}: serve takes no prompt; did you mean -m ${args.positionals[0]}?`);
  const open = engineOpener(args, context);
  const draft = draftName(args);
  // Before the model is loaded: an address that is taken is known at once, and who asks is told to wait.
  let ready: Gateway | undefined;
  const listening = await listen((request) => ready?.fetch(request) ?? loadingResponse(), address);
  try {
    const engine = await open({ draft });
    ready = make(engine);
    try {
      reporter.say(`serving ${nameOf(args)} on ${listening.url}/v1`);
      if (!isLocal(address.host) && keysOf(args).length === 0)
        reporter.say("whoever reaches this address may ask, for there is no API key; INGLE_API_KEY sets one");
      await told(signal);
      await end(listening, ready, reporter);
    } finally {
      await engine.close();
    }
  } finally {
    await listening.close(0);
  }
  return EXIT.done;
}

/** Checks the flags at once; what it returns makes the gateway of an engine. */
function gatewayMaker(args: Flags, host: string, reporter: Reporter): (engine: Engine) => Gateway {
  const options = {
    names: [nameOf(args), ...args.all("alias")] as const,
    keys: keysOf(args),
    origins: args.all("allow-origin").map(checkOrigin),
    local: isLocal(host),
    bodyLimit: args.bytes("max-body") ?? BODY_LIMIT,
    requestLimit: args.integer("max-requests", 1, 100_000) ?? REQUEST_LIMIT,
  };
  const onAnswered = (record: RequestRecord, status: number, error?: unknown) => {
    reporter.say(record.line(status));
    if (isFault(error) && error !== undefined) process.stderr.write(errorText(error, true));
  };
  return (engine) => gateway({ ...options, engine, onAnswered });
}

/** What answers call the model: its id on the hub, or its folder's name. */
function nameOf(args: Flags): string {
  const name = modelName(args);
  return /^(\.{0,2}|~)\/|^https?:|\\/.test(name) ? basename(name) : name;
}

function keysOf(args: Flags): string[] {
  const keys = [
    ...args.all("api-key"),
    ...(process.env.INGLE_API_KEY === undefined ? [] : [process.env.INGLE_API_KEY]),
  ];
  // An empty one is a variable that was not set, and would let everybody in who was to be kept out.
  if (keys.some((key) => !/^\S+$/.test(key)))
    throw new UsageError("--api-key or INGLE_API_KEY: is empty or has white space in it, expected a key");
  return keys;
}

function checkOrigin(origin: string): string {
  if (origin === "*" || (URL.canParse(origin) && new URL(origin).origin === origin)) return origin;
  throw new UsageError(
    `--allow-origin: is ${JSON.stringify(origin)}, expected an origin such as https://example.org, or *`,
  );
}

const isLocal = (host: string): boolean => /^(127(\.\d+){3}|::1|localhost)$/.test(host);

/** Resolves when the server is told to end: by Ctrl-C, or by SIGTERM as service managers do it. */
function told(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    signal.addEventListener("abort", () => resolve(), { once: true });
    process.on("SIGTERM", () => resolve()); // a second one changes nothing
  });
}

async function end(listening: Listening, { gate }: Gateway, reporter: Reporter): Promise<void> {
  reporter.say("ending: no more requests are taken");
  const cut = await listening.close(PATIENCE, gate);
  if (cut > 0) reporter.say(`${cut} ${cut === 1 ? "answer was" : "answers were"} cut off after ${PATIENCE / 1000} s`);
}
