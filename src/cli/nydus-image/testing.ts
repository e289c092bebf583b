/** For this room's tests: the tool in a process of its own, one command line at a time or many. */
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { main } from './main.ts'

export interface Ran {
  readonly exit: number | null
  readonly stdout: string
  readonly stderr: string
}

export const TOOL = join(import.meta.dirname, 'index.ts')
const QUIET = '--disable-warning=ExperimentalWarning'

/** One command line, in a process of its own. */
export function run(args: readonly string[], cwd: string, input: string | Uint8Array = ''): Ran {
  const { status, stdout, stderr } = spawnSync(process.execPath, [QUIET, TOOL, ...args], {
    cwd,
    input,
    encoding: 'utf8',
    timeout: 60_000,
  })
  return { exit: status, stdout, stderr }
}

/** Many command lines one after the other in one process: hundreds in the time of a few. Their stdin is empty. */
export async function runAll(commands: ReadonlyArray<readonly string[]>, cwd: string): Promise<Ran[]> {
  const child = spawn(process.execPath, [QUIET, fileURLToPath(import.meta.url)], {
    cwd,
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

async function replay(commands: ReadonlyArray<readonly string[]>): Promise<Ran[]> {
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

const SHARED = join(import.meta.dirname, '../../../../shared/fixtures')

/** Why recorded runs of the original cannot be compared, or false. */
export const noShared: string | false = existsSync(join(SHARED, 'manifest.json'))
  ? false
  : 'no ../shared/fixtures beside the repository'

export function sharedPath(...parts: string[]): string {
  return join(SHARED, ...parts)
}

/** A temporary folder that looks like the one in which the original's runs were recorded. */
export function recordingFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'nydus-image-'))
  for (const name of ['sources', 'images', 'blobs']) symlinkSync(sharedPath(name), join(folder, name))
  mkdirSync(join(folder, 'dirs/small'), { recursive: true })
  mkdirSync(join(folder, 'work/o'), { recursive: true })
  spawnSync('tar', ['-xpf', sharedPath('sources/small.dir.tar.gz'), '-C', join(folder, 'dirs/small')])
  return folder
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  process.once('message', (commands) => {
    void replay(commands as string[][]).then((ran) => process.send?.(ran, () => process.disconnect()))
  })
}
