/** For tests: a daemon with its keeper, and what they serve. */
import assert from 'node:assert/strict'
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { CARRIED_BLOBS, callApi, carriedImage, journalsOf, localConfig, Scratch, type TestDaemon } from '../testing.ts'
import { processesIn } from './test-processes.ts'

export const IMAGE = carriedImage('v6-tar-none-c64k')
const DEADLINE_MS = 120_000

/** A daemon with its keeper; all their processes have this folder as their own. */
export class Kept extends Scratch {
  readonly socket = join(this.path, 'api.sock')

  start(args: readonly string[] = []): Promise<TestDaemon> {
    return this.nydusd(['--log-level', 'debug', ...args], { NYDUSD_KEEPER: 'on' })
  }

  pids(program: 'sh' | 'node'): number[] {
    return processesIn(this.path, program === 'sh' ? 'keeper' : 'daemon')
  }

  /** The daemon in the place of `before`, when its API answers. */
  async next(before: number): Promise<number> {
    return await until(async () => {
      const [pid] = this.pids('node').filter((one) => one !== before)
      if (pid === undefined) return undefined
      await callApi(this.socket, 'GET', '/api/v1/daemon')
      return pid
    })
  }

  keeper(but?: number): Promise<number> {
    return until(async () => this.pids('sh').find((pid) => pid !== but))
  }

  async mount(path: string, body: Record<string, unknown> = {}): Promise<void> {
    const config = localConfig(CARRIED_BLOBS, this.cache)
    const request = JSON.stringify({ fs_type: 'rafs', source: IMAGE.bootstrap, config, ...body })
    const { status, text } = await callApi(this.socket, 'POST', `/api/v1/mount?mountpoint=${path}`, request)
    assert.equal(status, 204, text)
  }

  async isGone(): Promise<void> {
    await until(async () => (this.pids('sh').length + this.pids('node').length === 0 ? true : undefined))
  }

  override async [Symbol.asyncDispose](): Promise<void> {
    const journals = this.pids('node').flatMap((pid) => journalsOf(pid))
    for (let tries = 0; tries < 5; tries++) {
      for (const pid of [...this.pids('sh'), ...this.pids('node')]) end(pid)
      await sleep(20)
    }
    await super[Symbol.asyncDispose]()
    for (const path of journals) rmSync(path, { force: true })
  }
}

function end(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error // it has ended meanwhile
  }
}

/** Where a daemon writes what is in hand of its shared directory. */
export async function journalOf(pid: number): Promise<string> {
  return await until(async () => await Promise.resolve(journalsOf(pid)[0]))
}

/** Looks again and again until there is something. */
export async function until<T>(look: () => Promise<T | undefined>): Promise<T> {
  const deadline = Date.now() + DEADLINE_MS
  for (;;) {
    const found = await look().catch(() => undefined) // the API may not be there yet
    if (found !== undefined) return found
    if (Date.now() > deadline) throw new Error('it does not come')
    await sleep(10)
  }
}
