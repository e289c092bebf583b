/** For this room's tests: the tool in a process of its own, one command line at a time or many. */
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Ran, runAllOf, sharedPath } from '../testing.ts'

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
  return await runAllOf('nydus-image', commands, cwd)
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
