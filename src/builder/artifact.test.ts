import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { Artifact } from './artifact.ts'
import { BuilderError } from './errors.ts'
import { filesIn, temporary } from './testing.ts'

test('what was published is taken back, but not what was there before', async (t) => {
  const folder = temporary(t)
  writeFileSync(join(folder, 'old'), 'old')
  for (const name of ['old', 'new']) {
    const artifact = await Artifact.createIn(folder, 'blob')
    await artifact.write(Buffer.from(name.repeat(2)))
    await artifact.publish(name)
    await artifact.retract()
    await artifact.discard()
  }
  assert.deepEqual(filesIn(folder), ['old'])
  assert.equal(readFileSync(join(folder, 'old'), 'utf8'), 'oldold')
})

test('a place that is taken while the file is written stays as it is', async (t) => {
  const path = join(temporary(t), 'file')
  const artifact = await Artifact.create(path)
  mkdirSync(path)
  await assert.rejects(artifact.publish(), BuilderError)
  await artifact.retract()
  await artifact.discard()
  assert.deepEqual(filesIn(join(path, '..')), ['file'])
})
