import assert from 'node:assert/strict'
import { closeSync, openSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { unmount, whyNoFuse } from '../kernel/index.ts'
import { CARRIED_BLOBS, carriedImage, localConfig, Scratch } from './testing.ts'

test('a daemon whose mount was detached leaves the mount and the socket of the next one alone', {
  skip: whyNoFuse() ?? false,
  timeout: 180_000,
}, async () => {
  await using scratch = new Scratch()
  const config = join(scratch.path, 'config.json')
  writeFileSync(config, localConfig(CARRIED_BLOBS, scratch.cache))
  const args = ['--bootstrap', carriedImage('v6-tar-none-c64k').bootstrap, '--config', config, '--no-keeper']
  const first = await scratch.nydusd(args)
  const user = openSync(scratch.mnt, 'r')
  await unmount(scratch.mnt, true)
  rmSync(first.socket)
  const second = await scratch.nydusd(args)
  assert.equal(await first.stop(), 0, first.log)
  closeSync(user)
  assert.ok(readdirSync(scratch.mnt).length > 0)
  assert.equal((await second.json('/api/v1/daemon'))['state'], 'RUNNING')
  assert.equal(await second.stop(), 0, second.log)
})
