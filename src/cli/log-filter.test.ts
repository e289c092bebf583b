import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { logFilter } from './log-filter.ts'

const peers = process.env['NYDUS_PEER_DIR']
const tool = join(import.meta.dirname, 'nydus-image/index.ts')

/** What nydus-image tells at the level info: the original was asked with each of these. */
const TOLD: ReadonlyArray<readonly [spec: string | undefined, isTold: boolean]> = [
  [undefined, true],
  ['', false],
  ['error', false],
  ['DEBUG', true],
  ['nydus_image', true],
  ['nydus_image=', true],
  ['nydus=error,nydus_image=info', true],
  ['nydus_image=info,nydus=error', true],
  ['nydus_image = info', true],
  ['nydus_image=off,nydus_image=info', false],
  ['nydus_image=info, nydus_image=off', true],
  ['nydus_rafs=error', false],
  ['=info', true],
  ['info,off', true],
  ['off,info', false],
  ['3', false],
  ['a b', true],
  ['x=bad', true],
  ['info/success', true],
  ['info/SUCC', false],
  ['info/s.cc', true],
  ['info/(', true],
  ['error/a/b', true],
  ['warn/', false],
]

test('RUST_LOG is read as the original reads it', () => {
  for (const [spec, isTold] of TOLD) {
    const { most = 'trace', text = /(?:)/ } = spec === undefined ? {} : (logFilter('nydus_image', spec) ?? {})
    const told = ['info', 'debug', 'trace'].includes(most) && text.test('successfully built RAFS filesystem')
    assert.equal(told, isTold, spec)
  }
  assert.equal(logFilter('nydusd', 'nydus_image=trace')?.most, 'off')
  assert.equal(logFilter('nydusd', 'nydus=warn')?.most, 'warn')
})

test('nydus-image tells what RUST_LOG lets it, as the original', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'log-filter-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  mkdirSync(join(folder, 'source'))
  writeFileSync(join(folder, 'source/file'), 'text')
  const tells = (program: string, args: readonly string[], spec: string | undefined): boolean => {
    const { RUST_LOG: _unused, ...env } = process.env
    const { status, stderr } = spawnSync(
      program,
      [...args, 'create', '-t', 'dir-rafs', '-D', folder, '-B', join(folder, 'image'), join(folder, 'source')],
      { env: spec === undefined ? env : { ...env, RUST_LOG: spec }, encoding: 'utf8', timeout: 60_000 },
    )
    assert.equal(status, 0, stderr)
    return stderr.includes('successfully built')
  }
  for (const [spec, isTold] of TOLD.slice(0, 3)) assert.equal(tells(process.execPath, [tool], spec), isTold, spec)
  if (peers === undefined) return
  for (const [spec, isTold] of TOLD) assert.equal(tells(join(peers, 'nydus-image'), [], spec), isTold, spec)
})
