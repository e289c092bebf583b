import assert from 'node:assert/strict'
import { appendFileSync, copyFileSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { whyNoFuse } from '../kernel/index.ts'
import { CARRIED_BLOBS, carriedImage, localConfig, Scratch } from './testing.ts'

const PADDING_BYTES = 16 << 20
const ROUNDS = 25
const GROWTH_BYTES = 160 << 20

test('metadata of unmounted images is let go of, also by a mount that nobody uses', {
  skip: whyNoFuse() ?? false,
  timeout: 180_000,
}, async () => {
  await using scratch = new Scratch()
  const source = join(scratch.path, 'large.boot')
  copyFileSync(carriedImage('v6-tar-none-c64k').bootstrap, source)
  appendFileSync(source, Buffer.alloc(PADDING_BYTES))
  const daemon = await scratch.nydusd([])
  const body = JSON.stringify({ source, fs_type: 'rafs', config: localConfig(CARRIED_BLOBS, scratch.cache) })
  const round = async (): Promise<void> => {
    for (const [method, text] of [['POST', body], ['DELETE']] as const) {
      const { status, text: answer } = await daemon.api(method, '/api/v1/mount?mountpoint=/x', text)
      assert.equal(status, 204, answer)
    }
  }
  const resident = (): number =>
    Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${daemon.child.pid}/status`, 'utf8'))?.[1]) * 1024
  await round()
  const before = resident()
  for (let index = 0; index < ROUNDS; index += 1) await round()
  const grown = resident() - before
  assert.ok(grown < GROWTH_BYTES, `${ROUNDS} mounts of ${PADDING_BYTES} bytes left ${grown} bytes`)
})
