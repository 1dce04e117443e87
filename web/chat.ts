/** The chat page: loads a model into a worker of this page, streams what it says, and keeps what was said. */
import type { LoadProgress } from "../engine/loadModel.ts";
import { speedLine } from "../engine/speedLine.ts";
import type { Part } from "../engine/types.ts";
import type { Message } from "../models/text/messages.ts";
import { type ChatRequest, chatRequest } from "./chatRequest.ts";
import { EngineClient } from "./engineClient.ts";
import { failureOf } from "./messages.ts";
import { element, hook, type PageState, say, setState } from "./page.ts";
import { modelAddress, type PageOptions, pageOptions } from "./pageOptions.ts";
import { webgpuMissing } from "./webgpuMissing.ts";

/** What the model that ships with ingle can do: go on with a beginning, answer something small. */
const EXAMPLES = ["Once upon a time", "Tell me a story about a brave little fox.", "In a small village, there lived"];

/** Pixels from the end of the conversation within which it follows what is said. */
const NEAR_THE_END = 80;

const status = hook("status", HTMLElement);
const speed = hook("speed", HTMLElement);
const progress = hook("progress", HTMLProgressElement);
const prompt = hook("prompt", HTMLTextAreaElement);
const send = hook("send", HTMLButtonElement);
const stop = hook("stop", HTMLButtonElement);
const clear = hook("clear", HTMLButtonElement);
const start = hook("start", HTMLElement);
const examples = hook("examples", HTMLElement);
const conversation = hook("conversation", HTMLElement);

/** What the model is told that was said before; continuations are not in it. */
let said: readonly Message[] = [];
let answering: AbortController | undefined;
/** Whether weights are still coming. */
let loading = true;

try {
  await run();
} catch (error) {
  progress.hidden = true;
  say(status, sentence(error), "error");
  setState("error");
}

async function run(): Promise<void> {
  const options = pageOptions(location.search);
  const model = modelAddress(options.model, document.baseURI);
  const missing = await webgpuMissing(window);
  if (missing !== undefined) throw new Error(missing);
  say(status, "Loading the model…");
  const engine = await EngineClient.load(new URL("engineWorker.js", document.baseURI), model, showProgress);
  progress.hidden = true;
  takeInput(engine, options);
  const { adapter, software } = engine.about;
  hook("about", HTMLElement).textContent = aboutLine(engine, options);
  say(status, software ? `Ready, but slow: "${adapter}" computes on the CPU.` : "Ready.");
  send.disabled = false;
  if (matchMedia("(hover: hover)").matches) prompt.focus(); // on a phone it would open the keyboard over the page
  setState("ready");
}

function showProgress({ stage, loaded, total }: LoadProgress): void {
  if (stage === "weights") loading = loaded < total;
  else if (loading) return; // kernels are compiled meanwhile
  progress.max = Math.max(total, 1);
  progress.value = loaded;
  const part = Math.floor((100 * loaded) / Math.max(total, 1));
  const mebibytes = (bytes: number) => (bytes / 2 ** 20).toFixed(1);
  if (loading) say(status, `Loading the model: ${part} % of ${mebibytes(total)} MiB`);
  else if (stage === "warm-up") say(status, `Trying the kernels: ${part} %`);
  else say(status, "Preparing the kernels…");
}

function aboutLine({ about: { adapter, context } }: EngineClient, { model, sampling }: PageOptions): string {
  const { temperature, maxTokens, seed } = sampling;
  const settings = [
    model === "default" ? "the model that ships with ingle" : model,
    `on ${adapter}`,
    `context ${context}`,
    ...(temperature === undefined ? [] : [`temperature ${temperature}`]),
    ...(maxTokens === undefined ? [] : [`at most ${maxTokens} tokens`]),
    ...(seed === undefined ? [] : [`seed ${seed}`]),
  ];
  return settings.join(" · ");
}

function takeInput(engine: EngineClient, options: PageOptions): void {
  const submit = () => {
    const text = prompt.value;
    if (answering !== undefined || text.trim() === "") return;
    prompt.value = "";
    void converse(engine, text, chatRequest(text, said, options, engine.about.templated));
  };
  hook("form", HTMLFormElement).addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  prompt.addEventListener("keydown", (event) => {
    // Enter that ends a composition (Japanese, say) is no wish to send.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    submit();
  });
  document.addEventListener("keydown", ({ key }) => {
    if (key === "Escape") answering?.abort();
  });
  stop.addEventListener("click", () => answering?.abort());
  clear.addEventListener("click", () => startAnew());
  if (options.model === "default" && !options.raw) offerExamples(submit);
}

function offerExamples(submit: () => void): void {
  for (const text of EXAMPLES) {
    const button = element("button", text);
    button.type = "button";
    button.className = "quiet";
    button.addEventListener("click", () => {
      prompt.value = text;
      submit();
    });
    const item = element("li", "");
    item.append(button);
    examples.append(item);
  }
  examples.hidden = false;
}

/** One answer, from the click to the speed line. */
async function converse(engine: EngineClient, text: string, { kind, request }: ChatRequest): Promise<void> {
  const controller = new AbortController();
  answering = controller;
  showBusy(true);
  say(status, "Reading the prompt…");
  speed.textContent = "";
  const answer = kind === "turn" ? showTurn(text) : showContinuation(text);
  const tokens: number[] = [];
  let outcome: PageState = "error";
  let last: Part | undefined;
  try {
    const { aborted } = await engine.generate({ ...request, signal: controller.signal }, (part) => {
      if (tokens.length === 0) say(status, "Answering…");
      tokens.push(part.token);
      last = part;
      followed(() => answer.append(part.text));
    });
    const whole = answer.textContent;
    if (kind === "turn" && whole !== "") {
      said = [...said, { role: "user", content: text }, { role: "assistant", content: whole }];
    }
    speed.textContent = aborted || last === undefined ? `stopped after ${tokens.length} tok` : speedLine(last);
    say(status, ending(aborted, last));
    outcome = "done";
  } catch (error) {
    say(status, sentence(error), "error");
  } finally {
    answer.dataset.tokens = tokens.join(" "); // what is compared where the same text may have other tokens
    answering = undefined;
    showBusy(false);
    setState(outcome);
  }
}

function ending(aborted: boolean, last: Part | undefined): string {
  if (aborted) return "Stopped.";
  return last?.finishReason === "length" ? "Done: the answer reached its limit of tokens." : "Done.";
}

function showBusy(busy: boolean): void {
  if (busy) setState("generating");
  const held = document.activeElement;
  [send.hidden, stop.hidden, clear.hidden] = [busy, !busy, busy];
  conversation.ariaBusy = String(busy); // a reader then speaks the whole answer, not each token
  if (held === send || held === stop) (busy ? stop : prompt).focus(); // the focus must not fall off with its button
}

/** The question and an empty answer. */
function showTurn(text: string): HTMLElement {
  const question = element("p", text);
  question.className = "said mine";
  const answer = element("p", "");
  answer.className = "said";
  return show(answer, question, answer);
}

/** The beginning with an empty continuation in the same paragraph. */
function showContinuation(text: string): HTMLElement {
  const beginning = element("span", text);
  beginning.className = "begun";
  const answer = element("span", "");
  const whole = element("p", "");
  whole.className = "said";
  whole.append(beginning, answer);
  return show(answer, whole);
}

/** Adds paragraphs to the conversation; `answer`, in the last of them, is the page's last one now. */
function show(answer: HTMLElement, ...paragraphs: HTMLElement[]): HTMLElement {
  start.hidden = true;
  for (const before of conversation.querySelectorAll(".last")) {
    before.classList.remove("last");
    before.removeAttribute("data-testid");
  }
  answer.classList.add("last");
  answer.dataset.testid = "answer";
  conversation.append(...paragraphs);
  conversation.scrollTop = conversation.scrollHeight;
  return answer;
}

/** Changes the conversation, and keeps its end in view for whoever was looking at it. */
function followed(change: () => void): void {
  const { scrollHeight, scrollTop, clientHeight } = conversation;
  change();
  if (scrollHeight - scrollTop - clientHeight < NEAR_THE_END) conversation.scrollTop = conversation.scrollHeight;
}

function startAnew(): void {
  said = [];
  conversation.replaceChildren(start);
  start.hidden = false;
  clear.hidden = true;
  speed.textContent = "";
  say(status, "Ready.");
  setState("ready");
  prompt.focus();
}

/** What went wrong and what helps here, where the error's own words are for the command. */
function sentence(error: unknown): string {
  const { code, message } = failureOf(error);
  if (code === "CONTEXT_LENGTH") return `${message}. A new chat forgets what was said before.`;
  if (code === "DEVICE_LOST") return `${message}. Reload the page to go on.`;
  return message;
}
