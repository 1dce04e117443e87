/** Post-processors of tokenizer.json: which ids they put around a text. */
import { UnsupportedModelError } from "../errors.ts";
import { idAt, type JsonObject, listAt, objectAt, stringAt } from "./json.ts";

/** The ids that the post-processor puts before and after one text. */
export function readPostProcessor(value: unknown, where: string): { before: number[]; after: number[] } {
  if (value === null || value === undefined) return { before: [], after: [] };
  const config = objectAt(value, where);
  const type = stringAt(config.type, `${where}.type`);
  switch (type) {
    case "ByteLevel":
      return { before: [], after: [] };
    case "BertProcessing":
    case "RobertaProcessing":
      return { before: [pairId(config.cls, `${where}.cls`)], after: [pairId(config.sep, `${where}.sep`)] };
    case "Sequence": {
      const parts = listAt(config.processors, `${where}.processors`);
      return parts
        .map((part, i) => readPostProcessor(part, `${where}.processors[${i}]`))
        .reduce(
          (inner, outer) => ({
            before: [...outer.before, ...inner.before],
            after: [...inner.after, ...outer.after],
          }),
          { before: [], after: [] },
        );
    }
    case "TemplateProcessing":
      return readTemplate(config, where);
    default:
      throw new UnsupportedModelError(
        `${where}: ${type} is not supported; supported: BertProcessing, ByteLevel, RobertaProcessing, Sequence, TemplateProcessing`,
      );
  }
}

function pairId(value: unknown, where: string): number {
  return idAt(listAt(value, where)[1], `${where}[1]`);
}

function readTemplate(config: JsonObject, where: string): { before: number[]; after: number[] } {
  const special = objectAt(config.special_tokens, `${where}.special_tokens`);
  const around = { before: [] as number[], after: [] as number[] };
  let seen = false;
  for (const [i, value] of listAt(config.single, `${where}.single`).entries()) {
    const at = `${where}.single[${i}]`;
    const item = objectAt(value, at);
    if (item.Sequence !== undefined) {
      if (seen) throw new UnsupportedModelError(`${at}: a template that repeats its text is not supported`);
      seen = true;
      continue;
    }
    const name = stringAt(objectAt(item.SpecialToken, `${at}.SpecialToken`).id, `${at}.SpecialToken.id`);
    const token = objectAt(special[name], `${where}.special_tokens[${JSON.stringify(name)}]`);
    const ids = listAt(token.ids, `${where}.special_tokens[${JSON.stringify(name)}].ids`).map((id) =>
      idAt(id, `${at}.ids`),
    );
    (seen ? around.after : around.before).push(...ids);
  }
  return around;
}
