import fs from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import { hostCalls } from '../host/calls.ts'

/** What changes files. */
const CHANGING = [
  'mkdirat',
  'mknodat',
  'symlinkat',
  'linkat',
  'unlinkat',
  'renameat2',
  'chmod',
  'fchownat',
  'utimensat',
  'ftruncate',
  'pwrite',
  'pwritev2',
  'setxattr',
  'removexattr',
] as const

/** Thrown by a process that is dead, at its next call. */
export class Died extends Error {
  override readonly name = 'Died'
}

/**
 * This process as one that dies before its `last`-th call that changes something, {@link fs.writeSync} among them: neither that nor any later one is made. Counts from when it is made until it is disposed of. One at a time.
 */
export class InterruptedCalls implements Disposable {
  /** Calls that were made, or would have been. */
  count = 0
  readonly #last: number
  readonly #calls = hostCalls() as unknown as Record<string, (...args: unknown[]) => unknown>
  readonly #before: Record<string, (...args: unknown[]) => unknown>
  readonly #write = fs.writeSync

  constructor(last: number) {
    this.#last = last
    this.#before = { ...this.#calls }
    const table = this.#calls
    for (const name of CHANGING) {
      const call = this.#before[name]
      table[name] = (...args) => {
        if (this.#isDead) throw new Died(name)
        return call?.(...args)
      }
    }
    const write = this.#write as (...args: unknown[]) => number
    // nobody sees what is written later
    fs.writeSync = (...args: unknown[]): number => (this.#isDead ? Number(args[3] ?? 0) : write(...args))
    syncBuiltinESMExports()
  }

  get #isDead(): boolean {
    return ++this.count >= this.#last
  }

  [Symbol.dispose](): void {
    Object.assign(this.#calls, this.#before)
    fs.writeSync = this.#write
    syncBuiltinESMExports()
  }
}
