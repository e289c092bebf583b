/**
 * The keeper: a process that does nothing but hold the FUSE device and the newest state, so that a daemon that dies is brought back, and readers only wait. It is a shell, since a
 * second Node would take forty times its memory; all that needs thought is done by the daemon that it starts.
 */
import { spawn, type ChildProcess } from 'node:child_process'
import { closeSync, readlinkSync } from 'node:fs'
import type { Socket } from 'node:net'
import { dirname, join } from 'node:path'
import { closeOnExec, memoryFile, signalWhenParentEnds } from '../../kernel/index.ts'
import { messageOf } from '../errors.ts'
import type { Log } from '../log.ts'
import { KeptFile } from './kept-file.ts'

/** Descriptors of a keeper, and of the daemons that it starts. */
const DEVICE = 3
const FILE = 4
const FILE_NAME = 'nydusd state'
/** Tells a daemon which keeper started it, and for which time since one went well: `<count>:<pid>`. */
const VARIABLE = 'NYDUSD_KEPT'
/** Starts of daemons, one after another, none of which went well. */
export const MOST_STARTS = 10
/** Served for so long, it counts as well: one that a request kills again and again does not come so far. */
const WELL_MS = 100
const PARENT_ENDED = 12 // SIGUSR2
const KEEPER_PAUSE_MS = 1_000
/** `off`: as `--no-keeper`, for programs that start any nydusd, also the original, and look after it themselves. */
const SWITCH = 'NYDUSD_KEEPER'

/**
 * Waits until the daemon that started it is gone, whose end of descriptor 5 closes then; starts the command line, which takes over; again, when that one dies, after the third time with pauses: a fault that comes back with every request would keep the machine busy. USR1 tells that one went well. A
 * daemon that ends in order kills its keeper first, or ends with 0.
 */
const SCRIPT = `
exec 6>&2 2>/dev/null
n=0
trap n=0 USR1
read -r x <&5
exec 5<&-
while [ $n -lt ${MOST_STARTS} ]; do
  n=$((n + 1))
  [ $n -gt 3 ] && sleep 1
  (${VARIABLE}=$n:$$ exec "$@" </dev/null 2>&6 6>&-) && exit 0
done`

/** Does the environment want keepers? */
export function keepersAreOn(): boolean {
  return process.env[SWITCH] !== 'off'
}

/** What a keeper gave to this process, if one started it. */
export interface Kept {
  /** How many daemons were started since the last one that went well; this one is the last of them. */
  readonly starts: number
  /** Pid of the keeper, which may be gone: whoever is the parent then is somebody else. */
  readonly keeper: number
  readonly device: number
  readonly file: KeptFile
}

/** To be asked once, before anything else is started: nobody may inherit what is found. */
export function takeKept(): Kept | undefined {
  const [starts = 0, keeper = 0] = (process.env[VARIABLE] ?? '').split(':').map(Number)
  delete process.env[VARIABLE]
  if (!(starts > 0 && keeper > 0)) return undefined
  if (linkOf(DEVICE) !== '/dev/fuse' || !linkOf(FILE).startsWith(`/memfd:${FILE_NAME}`)) return undefined
  closeOnExec(DEVICE)
  closeOnExec(FILE)
  return { starts, keeper, device: DEVICE, file: new KeptFile(FILE) }
}

/** Kills the keeper that started this daemon, if it is still there. */
export function endKeeper(keeper: number): void {
  if (process.ppid === keeper) process.kill(keeper, 'SIGKILL')
}

/** Where the launcher has the program's compiled code; the program takes that out of its environment, and a start without it is slower. */
function compileCache(): NodeJS.ProcessEnv {
  const program = process.argv[1] ?? ''
  return program.endsWith('.cjs') ? { NODE_COMPILE_CACHE: join(dirname(program), '.cache') } : {}
}

function linkOf(fd: number): string {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`)
  } catch {
    return '' // not open
  }
}

/** The keeper as its daemon sees it: its parent, or, before the first death and after the keeper's own, its child. */
export class Keeper {
  readonly #log: Log
  readonly #state: () => Promise<Buffer>
  readonly #device: number
  #file: KeptFile | undefined
  #child: ChildProcess | undefined
  #parent: number | undefined
  #startedAt = 0
  #ended = false

  /** `state` gives what a successor needs. */
  constructor(parts: {
    readonly device: number
    readonly state: () => Promise<Buffer>
    readonly log: Log
    readonly kept: Kept | undefined
  }) {
    this.#device = parts.device
    this.#state = parts.state
    this.#log = parts.log
    if (parts.kept === undefined) return
    this.#file = parts.kept.file
    this.#parent = parts.kept.keeper
  }

  /** Starts it, if there is none. What fails is logged: without a keeper all goes on, until the daemon dies. */
  async start(): Promise<void> {
    try {
      this.#file ??= new KeptFile(memoryFile(FILE_NAME))
      await this.#keep(this.#file)
      if (this.#ended) return
      if (this.#parent === undefined) this.#spawn(this.#file)
      else this.#watchParent(this.#parent)
    } catch (error) {
      this.#log.warn(`no keeper: this daemon will not be brought back when it dies: ${messageOf(error)}`)
    }
  }

  /** After each change of what is mounted. */
  async update(): Promise<void> {
    if (this.#ended || this.#file === undefined) return
    try {
      await this.#keep(this.#file)
    } catch (error) {
      this.#log.warn(`the keeper has an old state: ${messageOf(error)}`)
    }
  }

  /** Its end may come meanwhile: the number of the file may be another one's then. */
  async #keep(file: KeptFile): Promise<void> {
    const state = await this.#state()
    if (!this.#ended) file.write(state)
  }

  /** Would it bring this daemon back? */
  get isThere(): boolean {
    return !this.#ended && (this.#child?.exitCode === null || process.ppid === this.#parent)
  }

  /** Ends it, before this daemon ends in order. */
  end(): void {
    if (this.#ended) return
    this.#ended = true
    this.#child?.kill('SIGKILL')
    if (this.#parent !== undefined) endKeeper(this.#parent)
    if (this.#file !== undefined) closeSync(this.#file.fd)
  }

  #spawn(file: KeptFile): void {
    this.#startedAt = Date.now()
    const command = [process.execPath, ...process.execArgv, ...process.argv.slice(1)]
    this.#child = spawn('/bin/sh', ['-c', SCRIPT, 'nydusd-keeper', ...command], {
      stdio: ['ignore', 'inherit', 'inherit', this.#device, file.fd, 'pipe'],
      detached: true,
      env: { ...process.env, ...compileCache() },
    })
    this.#child.unref()
    const life = (this.#child.stdio as unknown[])[5] as Socket // 'pipe' makes a socket
    life.unref()
    this.#child.on('error', (error) => this.#log.warn(`no keeper: ${messageOf(error)}`))
    this.#child.on('exit', () => this.#gone())
    this.#log.debug(`keeper ${this.#child.pid} would bring this daemon back`)
  }

  #watchParent(parent: number): void {
    process.on('SIGUSR2', () => this.#parentEnded(parent))
    signalWhenParentEnds(PARENT_ENDED)
    this.#parentEnded(parent)
    setTimeout(() => {
      if (!this.#ended && process.ppid === parent) process.kill(parent, 'SIGUSR1')
    }, WELL_MS).unref()
  }

  #parentEnded(parent: number): void {
    if (process.ppid === parent || this.#parent === undefined) return
    this.#parent = undefined
    this.#gone()
  }

  #gone(): void {
    if (this.#ended) return
    this.#log.warn('the keeper is gone; another one starts')
    this.#child = undefined
    const pauseMs = Date.now() - this.#startedAt < KEEPER_PAUSE_MS ? KEEPER_PAUSE_MS : 0
    setTimeout(() => void this.start(), pauseMs).unref()
  }
}
