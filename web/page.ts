/** What both pages share: their elements by `data-testid`, and their state on `<html>`. */

/** What tests and accessibility tools wait for. */
export type PageState = "loading" | "ready" | "generating" | "done" | "error";

/** The page's state: readable as `document.documentElement.dataset.state`. */
export function setState(state: PageState): void {
  document.documentElement.dataset.state = state;
}

/** The element with a `data-testid`. Throws TypeError where the page has none of that kind. */
export function hook<Kind extends HTMLElement>(name: string, kind: new () => Kind): Kind {
  const found = document.querySelector(`[data-testid="${name}"]`);
  if (found instanceof kind) return found;
  throw new TypeError(
    `page: has no ${kind.name} with data-testid ${name}, expected one; are page and script of one build?`,
  );
}

/** Says how things are. An error stays readable as one without its colour. */
export function say(status: HTMLElement, text: string, kind: "note" | "error" = "note"): void {
  status.textContent = text;
  status.classList.toggle("error", kind === "error");
}

/** A new element with a text. */
export function element<Tag extends keyof HTMLElementTagNameMap>(tag: Tag, text: string): HTMLElementTagNameMap[Tag] {
  const made = document.createElement(tag);
  made.textContent = text;
  return made;
}
