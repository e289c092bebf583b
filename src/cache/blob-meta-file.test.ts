import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { CacheError, readBlobMeta, writeBlobMeta } from './index.ts'

const ID = 'c7cc34ec6fea3a01d749b71fee8966493e58aa2e1d5572d6f054ab17589abe2f'
const theirs = join(import.meta.dirname, 'testdata/v6-none/full')

test('keeps a compression context under the name that the original uses', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'nydus-cache-'))
  t.after(() => rmSync(directory, { recursive: true, force: true }))
  const bytes = await readBlobMeta(theirs, ID, 8192)
  assert.ok(bytes)
  assert.equal(await readBlobMeta(directory, ID, 8192), undefined)
  writeFileSync(join(directory, `${ID}.blob.meta`), 'half of an older one')
  assert.equal(await readBlobMeta(directory, ID, 8192), undefined)
  await writeBlobMeta(directory, ID, bytes)
  assert.deepEqual(readdirSync(directory), [`${ID}.blob.meta`])
  assert.deepEqual(readFileSync(join(directory, `${ID}.blob.meta`)), readFileSync(join(theirs, `${ID}.blob.meta`)))
  await assert.rejects(writeBlobMeta(join(directory, 'absent'), ID, bytes), CacheError)
  await assert.rejects(writeBlobMeta(directory, '../x', bytes), CacheError)
})
