/** Which texts the model that ships with ingle continues rather than answers. */

/**
 * Whether the text is a beginning: three words or more and no mark at the end. That model is small enough to take "Once upon a
 * time" for a question and to answer it in five words, and it ends a text at once that is a question.
 */
export function isBegun(text: string): boolean {
  return /\S\s+\S+\s+\S/.test(text) && !/[.?!…:;"'”’)\]}]\s*$/.test(text);
}
