import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseSettings } from '../settings/index.ts'
import { configuredWish } from './configured.ts'

test('what is configured decides whether the kernel shows images, and tells why not', () => {
  const wish = (toml: string, template: unknown = {}): unknown =>
    configuredWish(parseSettings(`version = 1\n${toml}`), template)
  assert.equal(wish(''), 'alike')
  assert.equal(wish('[snapshot]\nenable_erofs_for_cached = true'), 'possible')
  for (const key of ['enable_nydus_overlayfs', 'enable_kata_volume'])
    assert.deepEqual(wish(`[snapshot]\n${key} = true`), { why: `snapshot.${key} is true` })
  assert.deepEqual(wish('[snapshot]\nenable_erofs_for_cached = false'), {
    why: 'snapshot.enable_erofs_for_cached is false',
  })
  assert.deepEqual(wish('daemon_mode = "none"'), { why: 'daemon_mode is "none"' })
  assert.deepEqual(wish('[daemon]\nfs_driver = "proxy"'), { why: 'daemon.fs_driver is "proxy"' })
  for (const cache of [{ compressed: true }, { config: { enable_encryption: true } }])
    assert.deepEqual(wish('[daemon]\nnydusd_config = "/t.json"', { device: { cache } }), {
      why: 'by /t.json the cache is compressed or encrypted',
    })
})
