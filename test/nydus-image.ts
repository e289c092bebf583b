/** For tests: runs our nydus-image from its sources. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'

const SOURCES = join(import.meta.dirname, '../src/cli/nydus-image/index.ts')

/** Throws when it fails. */
export function nydusImage(args: readonly string[], cwd: string): void {
  const program = ['--disable-warning=ExperimentalWarning', SOURCES]
  const { status, stderr } = spawnSync(process.execPath, [...program, ...args], { cwd, encoding: 'utf8' })
  assert.equal(status, 0, `${args.join(' ')}\n${stderr}`)
}
