/** Programs of a test: their outputs go into a log; what they start is known by a word of their environment. */
import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, openSync, readdirSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'

const DEADLINE_MS = 60_000
const POLL_MS = 50
const MARK = 'NYDUS_NODE_TEST'

/** What will not come to be any more. */
export class GivenUp extends Error {}

/** Asks until there is an answer that is not undefined; throws with `what` after the deadline, or at once what is GivenUp. */
export async function until<T>(
  what: string,
  ask: () => Promise<T | undefined> | T | undefined,
  deadlineMs: number = DEADLINE_MS,
): Promise<T> {
  const deadline = Date.now() + deadlineMs
  let last: unknown
  for (;;) {
    try {
      const answer = await ask()
      if (answer !== undefined) return answer
      last = undefined
    } catch (error) {
      if (error instanceof GivenUp) throw error
      last = error // not yet
    }
    if (Date.now() > deadline) throw new Error(`${what} did not come to be in ${deadlineMs / 1000} s`, { cause: last })
    await sleep(POLL_MS)
  }
}

export interface LaunchOptions {
  readonly cwd: string
  readonly log: string
  readonly env?: NodeJS.ProcessEnv
  /** What it has as 3, 4 and so on. */
  readonly descriptors?: readonly number[]
  /** Names the test, in all that comes of it. */
  readonly mark: string
}

export function launch(program: string, args: readonly string[], options: LaunchOptions): ChildProcess {
  const log = openSync(options.log, 'a')
  try {
    const child = spawn(program, args, {
      stdio: ['ignore', log, log, ...(options.descriptors ?? [])],
      cwd: options.cwd,
      detached: true,
      env: { ...process.env, ...options.env, [MARK]: options.mark },
    })
    child.on('error', () => undefined) // who waits for it is told by `until`
    return child
  } finally {
    closeSync(log)
  }
}

/** Waits for the end of a child, also of one that has ended. */
export async function ended(child: ChildProcess, deadlineMs: number = DEADLINE_MS): Promise<void> {
  await until(
    `the end of process ${child.pid}`,
    () => child.exitCode !== null || child.signalCode !== null || undefined,
    deadlineMs,
  )
}

/** A process that is there now. */
export interface SeenProcess {
  readonly pid: number
  /** With blanks between its words. */
  readonly command: string
}

/** All whose command line or environment names the folder: what came of programs with the mark, and what they started with an environment of its own; no zombies. */
export function processesOf(mark: string): SeenProcess[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .map((name) => ({ pid: Number(name), command: textOf(name, 'cmdline').replaceAll('\0', ' ').trim() }))
    .filter(
      ({ pid, command }) => isAlive(pid) && (command.includes(mark) || textOf(String(pid), 'environ').includes(mark)),
    )
}

export function isAlive(pid: number): boolean {
  const state = textOf(String(pid), 'stat').match(/\) (\w) /)?.[1]
  return state !== undefined && state !== 'Z' && state !== 'X'
}

function textOf(pid: string, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'latin1')
  } catch {
    return '' // it has ended
  }
}

/** Kills what is named, until nothing is named any more. */
export async function killAll(pids: () => readonly number[]): Promise<void> {
  await until('the end of all processes', async () => {
    const found = new Set(pids())
    for (const pid of found) await killProcess(pid)
    return found.size === 0 || undefined
  })
}

/** Kills and waits until it is gone; one that has gone is no error. */
export async function killProcess(pid: number): Promise<void> {
  try {
    process.kill(pid, 'SIGKILL')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
  await until(`the end of process ${pid}`, () => !isAlive(pid) || undefined)
}
