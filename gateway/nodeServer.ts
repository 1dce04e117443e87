/** A gateway on a socket, in Node: limits of the connection, and an end in good order. */
import { createServer, type Server, STATUS_CODES } from "node:http";
import type { Socket } from "node:net";
import { getRequestListener } from "@hono/node-server";
import { IngleError } from "../device/errors.ts";
import type { Gate } from "./gate.ts";
import { errorResponse, HttpError } from "./httpError.ts";

/** Where a server listens. */
export interface Address {
  readonly host: string;
  /** 0: any that is free. */
  readonly port: number;
}

/** A server that listens. */
export interface Listening {
  readonly url: string;
  /**
   * Takes no more requests and waits up to `patience` ms for those that are inside the gate; ends the rest. Returns how many those
   * were, once all connections are closed.
   */
  close(patience: number, gate?: Gate): Promise<number>;
}

const LIMITS = {
  maxHeaderSize: 16 * 1024, // bytes
  headersTimeout: 15_000,
  requestTimeout: 60_000, // until the body is there; an answer may take any time
  keepAliveTimeout: 10_000,
  connectionsCheckingInterval: 5000,
} as const;
const MAX_CONNECTIONS = 1024;
const STALLED = 60_000; // ms in which a client takes nothing of what is ready for it
const LAST_WORDS = 1000; // ms for answers on their way once all work has ended

/** Listens, and answers by `fetch`. Throws IngleError where the address cannot be had. */
export async function listen(
  fetch: (request: Request) => Response | Promise<Response>,
  { host, port }: Address,
): Promise<Listening> {
  const listener = getRequestListener((request) => fetch(request), {
    overrideGlobalObjects: false,
    errorHandler: () => errorResponse(new HttpError(400, "request: has no host, or an address that cannot be read")),
  });
  const server = createServer(LIMITS, (incoming, outgoing) => void listener(incoming, outgoing));
  server.maxConnections = MAX_CONNECTIONS;
  server.on("clientError", refuse);
  const sockets = new Sockets(server);
  await new Promise<void>((resolve, reject) => {
    server.once("error", (cause: NodeJS.ErrnoException) => reject(noAddress({ host, port }, cause)));
    server.listen(port, host, resolve);
  });
  return {
    url: urlOf(server, host),
    close: async (patience, gate) => {
      const cut = await finish(server, gate, patience);
      sockets.stop();
      return cut;
    },
  };
}

function noAddress({ host, port }: Address, cause: NodeJS.ErrnoException): IngleError {
  const why =
    cause.code === "EADDRINUSE" ? "is in use; choose another port" : `cannot be had (${cause.code}); choose another`;
  return new IngleError("ADDRESS", `${host}:${port}: ${why}`, { cause });
}

function urlOf(server: Server, host: string): string {
  const address = server.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  return `http://${host.includes(":") ? `[${host}]` : host}:${port}`;
}

async function finish(server: Server, gate: Gate | undefined, patience: number): Promise<number> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  await Promise.race([gate?.close(), after(patience)]);
  const cut = gate?.inside ?? 0;
  gate?.abortAll();
  // Answers that are made may still be on their way out: their connections are idle once they are.
  const idle = setInterval(() => server.closeIdleConnections(), 20);
  await Promise.race([closed, after(LAST_WORDS)]);
  clearInterval(idle);
  server.closeAllConnections();
  await closed;
  return cut;
}

/** Resolves then; does not keep the process alive by itself. */
const after = (ms: number) => new Promise<void>((resolve) => void setTimeout(resolve, ms).unref());

/** What is no request at all: headers too large, or too slow, or not HTTP. */
function refuse(error: NodeJS.ErrnoException, socket: Socket): void {
  if (!socket.writable) {
    socket.destroy();
    return;
  }
  const status = REFUSALS[error.code ?? ""] ?? 400;
  const message = `request: ${status === 431 ? `its headers are more than ${LIMITS.maxHeaderSize} bytes` : (STATUS_CODES[status] ?? "")}`;
  const body = JSON.stringify(new HttpError(status, message).body);
  const head = `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}`;
  socket.end(`${head}\r\nconnection: close\r\n\r\n${body}`);
}

const REFUSALS: Readonly<Record<string, number>> = { HPE_HEADER_OVERFLOW: 431, ERR_HTTP_REQUEST_TIMEOUT: 408 };

/** Closes connections whose clients have taken nothing for a while of what is ready for them. */
class Sockets {
  readonly #stuck = new Map<Socket, { readonly written: number; readonly since: number }>();
  readonly #open = new Set<Socket>();
  readonly #clock: NodeJS.Timeout;

  constructor(server: Server) {
    server.on("connection", (socket) => {
      this.#open.add(socket);
      socket.once("close", () => this.#open.delete(socket) && this.#stuck.delete(socket));
    });
    this.#clock = setInterval(() => this.#look(), STALLED / 6).unref();
  }

  #look(): void {
    for (const socket of this.#open) {
      const written = socket.bytesWritten - socket.writableLength; // what the system has taken
      const before = this.#stuck.get(socket);
      if (socket.writableLength === 0) this.#stuck.delete(socket);
      else if (before === undefined || before.written !== written)
        this.#stuck.set(socket, { written, since: performance.now() });
      else if (performance.now() - before.since > STALLED) socket.destroy();
    }
  }

  stop(): void {
    clearInterval(this.#clock);
  }
}
