import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, readlinkSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { Log } from '../log.ts'
import { FilesThread } from './files-thread.ts'

/** Descriptors of this process that lead into a folder. */
function descriptorsIn(folder: string): string[] {
  return readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      const path = readlinkSync(`/proc/self/fd/${fd}`)
      return path.startsWith(folder) ? [path] : []
    } catch {
      return [] // that of the listing itself
    }
  })
}

const unkept = (directory: string) => ({ directory, journal: undefined, isRestored: false })

test('a thread that was ended holds nothing open any more; one that cannot share a directory says why', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'files-thread-'))
  const failures: Error[] = []
  const thread = new FilesThread({
    log: new Log({ level: 'off', file: undefined, rotationBytes: 0 }),
    onLateRead: () => undefined,
    readImage: () => Promise.reject(new Error('there is no image')),
    onFailure: (error) => failures.push(error),
  })
  try {
    await assert.rejects(thread.attach(1, unkept(join(folder, 'absent'))), /cannot share .*absent/)
    await thread.attach(2, unkept(folder))
    assert.ok(descriptorsIn(folder).length > 0)
  } finally {
    await thread.end()
    rmSync(folder, { recursive: true })
  }
  assert.deepEqual([descriptorsIn(folder), failures], [[], []])
  await assert.rejects(thread.attach(3, unkept(tmpdir())), /has ended/)
})
