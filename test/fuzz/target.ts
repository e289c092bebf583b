/** What a fuzz target is: a parser, valid inputs of it, and the errors with which it may refuse the others. */

/** A valid input, and where its fields lie: most mutations go there. */
export interface Seed {
  readonly bytes: Uint8Array
  /** Byte offsets. */
  readonly fields: readonly number[]
}

export interface Target {
  readonly seeds: () => Promise<readonly Seed[]> | readonly Seed[]
  /** Uses all of the input as the tools would; gives what it found as a short text, which must be the same each time. */
  readonly read: (bytes: Uint8Array) => Promise<string> | string
  readonly refusals: ReadonlyArray<new (...args: never[]) => Error>
  /** Makes what a reader compares before anything else fit again, such as check sums. */
  readonly repair?: (bytes: Uint8Array) => void
}

/** Offsets of the fields of a layout table at `at`. */
export function fieldsAt(at: number, table: Readonly<Record<string, number>>): number[] {
  return Object.entries(table).flatMap(([name, field]) => (name === 'size' ? [] : [at + field]))
}
