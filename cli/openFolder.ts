/** Opens the model that a user names, and shows how its download goes where it comes from the hub. */
import { bytes } from "../device/buffers.ts";
import type { Folder } from "../device/files.ts";
import type { DownloadProgress } from "../device/nodeHubPull.ts";
import { openModel } from "../engine/openModel.ts";
import type { Context } from "./command.ts";
import { bar, type Reporter } from "./progress.ts";

/** Throws as `openModel`. */
export async function openFolder(model: string, { reporter, signal }: Context): Promise<Folder> {
  return await showingDownload(model, { reporter, signal }, (options) => openModel(model, options));
}

/** What `openModel` and `pullModel` are told here. */
export interface Shown {
  readonly signal: AbortSignal;
  readonly onProgress: (progress: DownloadProgress) => void;
  readonly onNote: (text: string) => void;
}

/** Runs `work`, which may download `model`, with a line that shows how far it is. */
export async function showingDownload<T>(
  model: string,
  { reporter, signal }: Context,
  work: (shown: Shown) => Promise<T>,
): Promise<T> {
  const line = new DownloadLine(model, reporter);
  try {
    const result = await work({
      signal,
      onProgress: (progress) => line.show(progress),
      onNote: (text) => reporter.say(text),
    });
    line.end();
    return result;
  } catch (error) {
    if (line.begun && signal.aborted) reporter.say("what has come is kept: the next run goes on from there");
    throw error;
  }
}

/** The changing line of a download, with its rate since it began. */
class DownloadLine {
  readonly #model: string;
  readonly #reporter: Reporter;
  readonly #start = performance.now();
  #first: { readonly loaded: number; readonly total: number; readonly at: number } | undefined;

  constructor(model: string, reporter: Reporter) {
    this.#model = model;
    this.#reporter = reporter;
  }

  get begun(): boolean {
    return this.#first !== undefined;
  }

  show({ file, loaded, total }: DownloadProgress): void {
    if (this.#first === undefined) this.#reporter.say(`downloading ${this.#model}`);
    if (this.#first?.total !== total) this.#first = { loaded, total, at: performance.now() };
    const seconds = (performance.now() - this.#first.at) / 1000;
    const rate = (loaded - this.#first.loaded) / seconds;
    const pace = seconds < 1 || rate <= 0 ? "" : `, ${bytes(rate)}/s, ${duration((total - loaded) / rate)} left`;
    this.#reporter.status(`${bar(total === 0 ? 1 : loaded / total)} of ${bytes(total)}${pace}, ${file}`);
  }

  end(): void {
    this.#reporter.clear();
    if (this.begun) this.#reporter.say(`downloaded in ${duration((performance.now() - this.#start) / 1000)}`);
  }
}

/** "8 s", "1:05 min", "2:00 h" */
function duration(seconds: number): string {
  const whole = Math.ceil(seconds);
  if (whole < 60) return `${whole} s`;
  const [large, small, unit] =
    whole < 3600 ? [whole / 60, whole % 60, "min"] : [whole / 3600, Math.floor(whole / 60) % 60, "h"];
  return `${Math.floor(large)}:${String(small).padStart(2, "0")} ${unit}`;
}
