import { BuilderError } from '../../builder/index.ts'

/** A decimal number, as strict as the original's parser. The cause says what is wrong with it. */
export function decimal(text: string, what: string): number {
  const value = /^\+?[0-9]+$/.test(text) ? Number(text) : Number.NaN
  if (!Number.isSafeInteger(value))
    throw new BuilderError('BAD_OPTION', `invalid ${what} ${text}`, {
      cause: new Error('invalid digit found in string'),
    })
  return value
}

/** `0x` and hexadecimal digits, or decimal. */
export function decimalOrHex(text: string, what: string): number {
  return /^0x[0-9a-fA-F]{1,13}$/.test(text) ? Number.parseInt(text.slice(2), 16) : decimal(text, what)
}
