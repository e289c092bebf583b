/** For the tests of all tools: many command lines in one process. */
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

export interface Ran {
  readonly exit: number | null
  readonly stdout: string
  readonly stderr: string
}

/** What the original's tools did with a command line. */
export interface Recorded extends Ran {
  readonly args: readonly string[]
}

type Tool = 'nydus-image' | 'nydusctl' | 'nydusd' | 'nydusify'
type Commands = ReadonlyArray<readonly string[]>

const QUIET = '--disable-warning=ExperimentalWarning'

/** Many command lines one after the other in one process: hundreds in the time of a few. Their stdin is empty. */
export async function runAllOf(tool: Tool, commands: Commands, cwd: string, env = process.env): Promise<Ran[]> {
  const child = spawn(process.execPath, [QUIET, fileURLToPath(import.meta.url), tool], {
    cwd,
    env,
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  })
  child.send(commands)
  try {
    return await new Promise<Ran[]>((resolve, reject) => {
      child.once('message', (message) => resolve(message as Ran[]))
      child.once('exit', (code) => reject(new Error(`the replaying process ended with ${code}`)))
    })
  } finally {
    child.kill()
  }
}

async function replay(tool: string, commands: Commands): Promise<Ran[]> {
  const { main } = (await import(`./${tool}/main.ts`)) as { main: (argv: readonly string[]) => Promise<void> }
  const ran: Ran[] = []
  for (const args of commands) {
    const written = { stdout: '', stderr: '' }
    for (const stream of ['stdout', 'stderr'] as const) {
      process[stream].write = (text: string | Uint8Array, ...rest: unknown[]): boolean => {
        written[stream] += Buffer.from(text as Uint8Array).toString()
        const done = rest.at(-1)
        if (typeof done === 'function') done()
        return true
      }
    }
    process.exitCode = 0
    await main(args)
    ran.push({ exit: process.exitCode, ...written })
  }
  process.exitCode = 0
  return ran
}

const SHARED = join(import.meta.dirname, '../../../shared/fixtures')

/** Why recorded runs of the original cannot be compared, or false. */
export const noShared: string | false = existsSync(join(SHARED, 'manifest.json'))
  ? false
  : 'no ../shared/fixtures beside the repository'

export function sharedPath(...parts: string[]): string {
  return join(SHARED, ...parts)
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  process.once('message', (commands) => {
    void replay(process.argv[2] ?? '', commands as Commands).then((ran) =>
      process.send?.(ran, () => process.disconnect()),
    )
  })
}
