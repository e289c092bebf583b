/** For tests: a daemon that is held in the middle of a change, to be killed there. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { whyNoFuse } from '../../kernel/index.ts'
import { TestSupervisor } from '../handover/test-supervisor.ts'
import type { TestDaemon } from '../testing.ts'

/** Why that cannot be done here, or false. */
export function whyNoHolding(): string | false {
  const hasTracer = spawnSync('strace', ['-V']).error === undefined
  return (
    whyNoFuse() ??
    (process.getuid?.() !== 0 ? 'needs root to find files by their handles' : hasTracer ? false : 'needs strace')
  )
}

/** Holds a process before the write to its journal that follows so many others. */
export async function hold(pid: number, journal: string, notes: number): Promise<ChildProcess> {
  const how = [`--inject=write:delay_enter=60s:when=${notes + 1}`, `--trace-path=${journal}`]
  const tracer = spawn('strace', ['-f', '-p', String(pid), '-e', 'trace=write', ...how], {
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  await once(tracer.stderr, 'data') // it has begun
  return tracer
}

/** What the daemons of a succession serve. */
interface Serving {
  readonly path: string
  nydusd(args: readonly string[], env: NodeJS.ProcessEnv, socket: string): Promise<TestDaemon>
}

/** Daemons that follow each other on one mount, by a supervisor. */
export class Succession implements Disposable {
  readonly supervisor: TestSupervisor
  readonly #of: Serving

  constructor(of: Serving) {
    this.#of = of
    this.supervisor = new TestSupervisor(join(of.path, 'supervisor.sock'))
  }

  /** A daemon with a socket of this name. */
  async daemon(socket: string, ...more: readonly string[]): Promise<TestDaemon> {
    const args = ['--writable', '--id', 'x', '--supervisor', this.supervisor.path, ...more]
    return await this.#of.nydusd(args, {}, join(this.#of.path, socket))
  }

  /** The supervisor gets the session of what this one serves. */
  async keep(served: TestDaemon): Promise<void> {
    await this.supervisor.fetch(() => put(served, 'fuse/sendfd'))
  }

  /** For each step a daemon that is killed by `kill`, which calls its second argument to have the next one serve. */
  async follow<S>(
    first: TestDaemon,
    steps: readonly S[],
    kill: (pid: number, step: S, next: () => Promise<void>) => Promise<void>,
  ): Promise<void> {
    let served = first
    for (const [index, step] of steps.entries()) {
      // it starts before: a process with a file open on a mount must start none while nobody serves it
      const fresh = await this.daemon(`${index}.sock`, '--upgrade')
      await kill(served.child.pid ?? 0, step, async () => {
        await this.supervisor.offer(() => put(fresh, 'fuse/takeover'))
        await put(fresh, 'start')
      })
      served = fresh
    }
  }

  [Symbol.dispose](): void {
    this.supervisor[Symbol.dispose]()
  }
}

async function put(to: TestDaemon, call: string): Promise<void> {
  assert.equal((await to.api('PUT', `/api/v1/daemon/${call}`)).status, 204)
}
