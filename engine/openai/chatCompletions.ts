/** `engine.chat.completions`: OpenAI's way to ask, without a server in between. */
import { type ChatJob, chatJob } from "./chatJob.ts";
import type { Host } from "./host.ts";
import { complete, stream } from "./job.ts";
import type { ChatCompletion, ChatCompletionChunk, ChatCompletionRequest } from "./shapes.ts";

/** What is not part of the body. */
interface CreateOptions {
  readonly signal?: AbortSignal;
}

type Chunks = AsyncGenerator<ChatCompletionChunk, void, undefined>;

type WantsChunks = ChatCompletionRequest & { readonly stream: true };
type WantsWhole = ChatCompletionRequest & { readonly stream?: false | null };

/** `chat.completions` of an engine. */
export class ChatCompletions {
  readonly #host: Host;

  constructor(host: Host) {
    this.#host = host;
  }

  /**
   * The answer to a chat, or with `stream: true` its chunks; leaving these ends the work. Unknown fields are refused by name.
   *
   * Throws as `generate`; with `stream`, from the chunks what comes up while they are made.
   */
  create(body: WantsChunks, options?: CreateOptions): Promise<Chunks>;
  create(body: WantsWhole, options?: CreateOptions): Promise<ChatCompletion>;
  create(body: ChatCompletionRequest, options?: CreateOptions): Promise<ChatCompletion | Chunks>;
  async create(body: ChatCompletionRequest, { signal }: CreateOptions = {}): Promise<ChatCompletion | Chunks> {
    const { location } = this.#host.model;
    const job: ChatJob = chatJob(this.#host, body, body.model ?? folderName(location));
    const events = job.events(signal);
    return job.stream ? stream(job, events) : await complete(job, events);
  }
}

/** The last name of a path or an address. */
function folderName(location: string): string {
  return location.split(/[/\\]/).findLast((name) => name !== "") ?? location;
}
