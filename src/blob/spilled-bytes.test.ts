import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { SpilledBytes } from './spilled-bytes.ts'

const MIB = 1 << 20
const pattern = (length: number): Buffer =>
  Buffer.from(Uint32Array.from({ length: length / 4 }, (_unused, at) => at).buffer)
const all = (bytes: SpilledBytes): Buffer => Buffer.concat(Array.from(bytes.pieces(), (piece) => Buffer.from(piece)))

test('what is added comes back, again and again, wherever it is kept', () => {
  const whole = pattern(5 * MIB + 40)
  for (const held of [0, 2 * MIB, 8 * MIB]) {
    const bytes = new SpilledBytes(held)
    for (let at = 0; at < whole.length; at += 700_000) {
      bytes.add(whole.subarray(at, at + 700_000))
      assert.ok(all(bytes).equals(whole.subarray(0, at + 700_000)))
    }
    assert.equal(bytes.length, whole.length)
    assert.ok(all(bytes).equals(whole))
    bytes.close()
  }
  assert.equal(all(new SpilledBytes()).length, 0)
})

test('its file has no name, and a folder that is not there is told', (t) => {
  const before = process.env['TMPDIR']
  const folder = mkdtempSync(join(tmpdir(), 'nydus-spilled-'))
  t.after(() => {
    if (before === undefined) delete process.env['TMPDIR']
    else process.env['TMPDIR'] = before
    rmSync(folder, { recursive: true, force: true })
  })
  process.env['TMPDIR'] = folder
  const bytes = new SpilledBytes(0)
  bytes.add(pattern(2 * MIB))
  assert.deepEqual(readdirSync(folder), [])
  assert.ok(all(bytes).equals(pattern(2 * MIB)))
  bytes.close()
  process.env['TMPDIR'] = join(folder, 'gone')
  const refused = new SpilledBytes(0)
  assert.throws(() => refused.add(pattern(2 * MIB)), { code: 'NO_SPACE', message: /gone.*TMPDIR/ })
})
