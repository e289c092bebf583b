import assert from 'node:assert/strict'
import { closeSync, fstatSync, statSync } from 'node:fs'
import { once } from 'node:events'
import { join } from 'node:path'
import { test } from 'node:test'
import { Worker } from 'node:worker_threads'
import { openDataFile } from './data-file.ts'
import { temporary } from './testing.ts'

const SIZE = 8192
const holder = new URL('testdata/lease-holder.ts', import.meta.url)

for (const isRemoved of [false, true])
  test(`who opens data that is being ${isRemoved ? 'removed' : 'freed'} waits for that`, async (t) => {
    const path = join(temporary(t), 'x.blob.data')
    const open = (): ReturnType<typeof openDataFile> => openDataFile(path, SIZE, () => false)
    closeSync(open().fd)
    const thread = new Worker(holder, { workerData: { path, isRemoved, heldMs: 200 } })
    const ended = once(thread, 'exit')
    await once(thread, 'message')
    const { fd, isNew } = open()
    t.after(() => closeSync(fd))
    assert.equal(isNew, isRemoved)
    assert.equal(fstatSync(fd).ino, statSync(path).ino, 'the file that is there')
    await ended
  })
