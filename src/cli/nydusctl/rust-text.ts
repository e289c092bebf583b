/** Values as the original prints them, whose language has forms of its own. */
import { compareBytes, isObject, type Json } from './json.ts'

/** A floating-point number: the shortest digits that mean it, never with an exponent. */
export function floatText(value: number): string {
  if (Number.isNaN(value)) return 'NaN'
  if (!Number.isFinite(value)) return value < 0 ? '-inf' : 'inf'
  if (Object.is(value, -0)) return '-0'
  const text = String(value)
  const parts = /^(-?)(\d)(?:\.(\d+))?e([+-]\d+)$/.exec(text)
  if (parts === null) return text
  const [, sign = '', first = '', rest = '', power = '0'] = parts
  const exponent = Number(power)
  const digits = first + rest
  if (exponent < 0) return `${sign}0.${'0'.repeat(-exponent - 1)}${digits}`
  return `${sign}${digits.padEnd(exponent + 1, '0')}`
}

/** A JSON value in the form that the original's errors have: `Object {"code": String("UNDEFINED")}`. */
export function debugText(value: Json): string {
  if (value === null) return 'Null'
  if (typeof value === 'boolean') return `Bool(${value})`
  if (typeof value === 'number' || typeof value === 'bigint') return `Number(${value})`
  if (typeof value === 'string') return `String(${quoted(value)})`
  if (!isObject(value)) return `Array [${value.map(debugText).join(', ')}]`
  const members = Object.keys(value)
    .sort(compareBytes)
    .map((key) => `${quoted(key)}: ${debugText(value[key] ?? null)}`)
  return `Object {${members.join(', ')}}`
}

const ESCAPES: Readonly<Record<string, string>> = {
  '\0': '\\0',
  '\t': '\\t',
  '\n': '\\n',
  '\r': '\\r',
  '"': '\\"',
  '\\': '\\\\',
}

/** A string literal; control characters by number, so that nothing in an answer moves the cursor. */
function quoted(text: string): string {
  const escaped = text.replaceAll(
    /["\\\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu,
    (char) => ESCAPES[char] ?? `\\u{${char.codePointAt(0)?.toString(16)}}`,
  )
  return `"${escaped}"`
}
