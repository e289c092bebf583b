import { BuilderError } from '../../builder/index.ts'

/** A decimal number, as strict as the original's parser. The cause says what is wrong with it, in that one's words. */
export function decimal(text: string, what: string): number {
  const value = /^\+?[0-9]+$/.test(text) ? Number(text) : Number.NaN
  if (Number.isSafeInteger(value)) return value
  throw new BuilderError('BAD_OPTION', `invalid ${what} ${text}`, { cause: new Error(problemOf(text, value)) })
}

function problemOf(text: string, value: number): string {
  if (text === '') return 'cannot parse integer from empty string'
  return Number.isNaN(value) ? 'invalid digit found in string' : 'number too large to fit in target type'
}

/** `0x` and hexadecimal digits, or decimal. */
export function decimalOrHex(text: string, what: string): number {
  return /^0x[0-9a-fA-F]{1,13}$/.test(text) ? Number.parseInt(text.slice(2), 16) : decimal(text, what)
}
