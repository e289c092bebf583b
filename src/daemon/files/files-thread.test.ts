import assert from 'node:assert/strict'
import { closeSync, mkdtempSync, readdirSync, readlinkSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { mountFuse, unmount, whyNoFuse } from '../../kernel/index.ts'
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

const parts = (failures: Error[]) => ({
  log: new Log({ level: 'off', file: undefined, rotationBytes: 0 }),
  onLateRead: () => undefined,
  readImage: () => Promise.reject(new Error('there is no image')),
  onFailure: (error: Error) => failures.push(error),
})

test('a thread that was ended holds nothing open any more; one that cannot share a directory says why', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'files-thread-'))
  const failures: Error[] = []
  const thread = new FilesThread(parts(failures))
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

test('a host that does not answer holds up neither who mounts nor who unmounts, and what comes late is let go', {
  skip: whyNoFuse() ?? false,
}, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'files-thread-'))
  const hanging = mkdtempSync(join(tmpdir(), 'files-thread-hanging-'))
  const failures: Error[] = []
  const thread = new FilesThread({ ...parts(failures), answerDeadlineMs: 500 })
  await thread.attach(1, unkept(folder))
  const device = mountFuse(hanging, { source: 'hanging', readOnly: true, maxReadBytes: 1 << 20 }) // nobody answers
  try {
    await assert.rejects(
      thread.attach(2, unkept(hanging)),
      /cannot share .*hanging.*: the host did not answer in 0\.5 s/,
    )
    await thread.detach(1)
    assert.ok(descriptorsIn(folder).length > 0, 'not closed yet')
  } finally {
    closeSync(device)
    await unmount(hanging, true)
  }
  try {
    await thread.attach(3, unkept(tmpdir()))
    assert.deepEqual([descriptorsIn(folder), descriptorsIn(hanging), failures], [[], [], []])
  } finally {
    await thread.end()
    for (const each of [folder, hanging]) rmSync(each, { recursive: true })
  }
})
