/** One cgroup for all daemons, with one limit of memory. Where that cannot be, daemons go without: a warning, and no error. */
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { readMountInfoNow } from '../../kernel/index.ts'
import { messageOf } from './message.ts'
import type { DaemonLog } from './settings.ts'

const SLICE = 'system.slice'
const NAME = 'nydusd'

export class Cgroup {
  readonly #path: string
  readonly #log: DaemonLog

  private constructor(path: string, log: DaemonLog) {
    this.#path = path
    this.#log = log
  }

  /** Undefined, and a warning, where there are no cgroups or no right to use them. */
  static make(limitBytes: number, log: DaemonLog): Cgroup | undefined {
    try {
      const path = makeDirectory(limitBytes)
      log.debug(`daemons are in the cgroup ${path}`)
      return new Cgroup(path, log)
    } catch (error) {
      log.warn(`daemons have no cgroup, and no limit of memory: ${messageOf(error)}`)
      return undefined
    }
  }

  async add(pid: number): Promise<void> {
    try {
      writeFileSync(join(this.#path, 'cgroup.procs'), String(pid))
    } catch (error) {
      this.#log.warn(`nydusd ${pid} is not in the cgroup ${this.#path}: ${messageOf(error)}`)
    }
  }

  /** Stays when daemons are in it. */
  remove(): void {
    try {
      rmdirSync(this.#path)
    } catch (error) {
      this.#log.debug(`the cgroup ${this.#path} stays: ${messageOf(error)}`)
    }
  }
}

function makeDirectory(limitBytes: number): string {
  const mounts = readMountInfoNow()
  const old = mounts.find(({ type, at }) => type === 'cgroup' && existsSync(join(at, 'memory.limit_in_bytes')))
  if (old !== undefined) {
    const path = join(old.at, SLICE, NAME)
    mkdirSync(path, { recursive: true })
    writeFileSync(join(path, 'memory.limit_in_bytes'), Number.isFinite(limitBytes) ? String(limitBytes) : '-1')
    return path
  }
  const root = mounts.find(({ type }) => type === 'cgroup2')?.at
  if (root === undefined) throw new Error('no cgroups are mounted')
  const controllers = (at: string): string[] =>
    readFileSync(join(at, 'cgroup.subtree_control'), 'utf8').trim().split(' ')
  if (!controllers(root).includes('memory'))
    throw new Error(`the controller "memory" is not on in ${root}/cgroup.subtree_control`)
  const slice = join(root, SLICE)
  const path = join(slice, NAME)
  mkdirSync(path, { recursive: true })
  if (!controllers(slice).includes('memory')) writeFileSync(join(slice, 'cgroup.subtree_control'), '+memory')
  writeFileSync(join(path, 'memory.max'), Number.isFinite(limitBytes) ? String(limitBytes) : 'max')
  return path
}
