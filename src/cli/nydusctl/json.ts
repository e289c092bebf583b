/** What JSON text says; integers that a JavaScript number does not hold are BigInts. */
export type Json = null | boolean | number | bigint | string | readonly Json[] | JsonObject
export interface JsonObject {
  readonly [key: string]: Json
}

/** The parser's third argument is not in the language's types yet. */
type Reviver = (key: string, value: unknown, context?: { readonly source?: string }) => unknown

/** Undefined for a text that is no JSON. */
export function parseJson(text: string): Json | undefined {
  const whole: Reviver = (_key, value, context) =>
    typeof value === 'number' && !Number.isSafeInteger(value) && /^-?\d+$/.test(context?.source ?? '')
      ? BigInt(context?.source ?? '0')
      : value
  try {
    return JSON.parse(text, whole) as Json // all that JSON.parse and the reviver give
  } catch {
    return undefined // the caller knows what else it may be
  }
}

/** JSON on one line, keys in alphabetical order: the original prints it from a sorted map. */
export function sortedJson(value: Json): string {
  if (Array.isArray(value)) return `[${value.map(sortedJson).join(',')}]`
  if (isObject(value))
    return `{${Object.keys(value)
      .sort(compareBytes)
      .map((key) => `${JSON.stringify(key)}:${sortedJson(value[key] ?? null)}`)
      .join(',')}}`
  return typeof value === 'bigint' ? String(value) : JSON.stringify(value)
}

export function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** A member, also of something that is no object. */
export function member(value: Json | undefined, ...path: readonly string[]): Json {
  let at: Json | undefined = value
  for (const key of path) at = isObject(at) ? at[key] : undefined
  return at ?? null
}

/** A member as a number; 0 where there is none. */
export function count(value: Json | undefined, ...path: readonly string[]): number {
  const found = member(value, ...path)
  return typeof found === 'number' || typeof found === 'bigint' ? Number(found) : 0
}

/** A member that is an array of numbers; empty where there is none. */
export function counts(value: Json | undefined, ...path: readonly string[]): readonly number[] {
  const found = member(value, ...path)
  return Array.isArray(found) ? found.map((item: Json) => Number(item)) : []
}

export function compareBytes(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b))
}
