import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { signsOf } from './process-signs.ts'

/** `unknown` is a machine that cannot ask now. */
export type MountAnswer = 'answered' | 'silent' | 'unknown'

/**
 * Asks whether somebody serves a FUSE mount, by a process of its own (`stat -f`): a question to one who hangs never comes back, and cannot be ended once the server
 * has taken it. There is never more than one for a mount: while one is out, it is waited for again.
 */
export class MountQuestion {
  readonly #at: string
  readonly #onTrouble: (why: Error) => void
  readonly #closed = new AbortController()
  #out: { readonly child: ChildProcess; readonly answer: Promise<MountAnswer> } | undefined
  #wasAnswered = false

  /** `onTrouble` is told why the program cannot be started, each time. */
  constructor(at: string, onTrouble: (why: Error) => void) {
    this.#at = at
    this.#onTrouble = onTrouble
  }

  async ask(deadlineMs: number): Promise<MountAnswer> {
    this.#out ??= this.#send()
    const { child, answer } = this.#out
    const timer = new AbortController()
    try {
      const signal = AbortSignal.any([timer.signal, this.#closed.signal])
      const late = sleep(deadlineMs, 'late' as const, { signal }).catch((): MountAnswer => 'unknown')
      const heard = await Promise.race([answer, late])
      if (heard !== 'late') return heard
      return signsOf(child.pid ?? 0)?.states.has('R') === true ? 'unknown' : 'silent' // it had no processor itself
    } finally {
      timer.abort()
    }
  }

  #send(): { readonly child: ChildProcess; readonly answer: Promise<MountAnswer> } {
    const child = spawn('stat', ['-f', this.#at], { stdio: 'ignore' })
    child.unref()
    const answer = once(child, 'exit').then(
      ([code]): MountAnswer => this.#heard(code === 0),
      (why: Error): MountAnswer => {
        this.#onTrouble(why)
        return 'unknown'
      },
    )
    void answer.then(() => (this.#out = undefined))
    return { child, answer }
  }

  /** A mount that refuses is one whose server is gone, if it answered before: else the program may lack the right. */
  #heard(isAnswered: boolean): MountAnswer {
    this.#wasAnswered ||= isAnswered
    return isAnswered ? 'answered' : this.#wasAnswered ? 'silent' : 'unknown'
  }

  /** Nobody wants to know any more. */
  close(): void {
    this.#closed.abort()
    this.#out?.child.kill('SIGKILL')
  }
}
