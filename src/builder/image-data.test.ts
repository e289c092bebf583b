import assert from 'node:assert/strict'
import { test } from 'node:test'
import { openBootstrap } from '../rafs/index.ts'
import { unpackImage } from './index.ts'
import { buildTar, tarOf } from './testing.ts'

const FILES = 5000

test('an image of many small files is not asked for all of them at once', async () => {
  const names = Array.from({ length: FILES }, (_, number) => String(number).padStart(6, '0'))
  const { bootstrap } = await buildTar(
    await tarOf(names.map((path) => ({ path, type: 'file', mode: 0o644, content: Buffer.from(path) }))),
  )
  const asked: number[] = []
  let underWay = 0
  let most = 0
  await unpackImage(openBootstrap(bootstrap), {
    data: {
      async read(_spans, count, into) {
        asked.push(count)
        underWay += count
        most = Math.max(most, underWay)
        await Promise.resolve()
        into.fill(0x2e)
        underWay -= count
      },
    },
    sink: () => undefined,
    signal: new AbortController().signal,
    onBytes: () => undefined,
    onLost: (path) => assert.fail(path),
  })
  assert.equal(
    asked.reduce((sum, count) => sum + count, 0),
    FILES,
  )
  assert.ok(most <= 2 * 2048, `${most} files are waited for, of ${FILES}`)
  assert.ok(asked.length <= 3, `${asked.length} reads: a file that is small costs none of its own`)
})
