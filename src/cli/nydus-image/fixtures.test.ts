import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { noShared, type Ran, sharedPath } from '../testing.ts'
import { recordingFolder, runAll } from './testing.ts'

interface Recorded {
  readonly id: string
  readonly bootstrap?: string
  readonly check?: string
  readonly inline_blob?: string
  readonly check_json?: Record<string, unknown>
  readonly inspect?: Record<string, { readonly exit: number; readonly stdout: unknown; readonly stderr?: string }>
}

/** An image that the original calls valid and that is not: its own reads of it fail. */
const NOT_VALID = new Set(['v5-upper-tar-parent'])

describe('answers about images of the original', { skip: noShared }, async () => {
  if (noShared !== false) return
  const { images } = JSON.parse(readFileSync(sharedPath('manifest.json'), 'utf8')) as { images: Array<{ id: string }> }
  const recorded = images.map(
    ({ id }) => JSON.parse(readFileSync(sharedPath('images', id, 'image.json'), 'utf8')) as Recorded,
  )
  const folder = recordingFolder()
  mkdirSync(join(folder, 'json'))
  const checked = recorded.filter(({ check_json: json }) => json !== undefined)
  const checks = await runAll(
    checked.map(({ id, bootstrap = '' }) => ['check', '-l', 'warn', '-B', bootstrap, '-J', `json/${id}`]),
    folder,
  )
  const requests = recorded.flatMap(({ bootstrap = '', inspect = {} }) =>
    Object.entries(inspect).map(([request, wanted]) => ({ bootstrap, request, wanted })),
  )
  const inspected = await runAll(
    requests.map(({ bootstrap, request }) => ['inspect', bootstrap, '-R', request]),
    folder,
  )
  // The original's own blobs, data and bootstrap in one file.
  const blobs = recorded.filter(
    ({ inline_blob: blob, id }) => blob !== undefined && !/zran|batch|encrypt|dict/.test(id),
  )
  const inBlobs = await runAll(
    blobs.map(({ inline_blob: blob = '' }) => ['check', '-D', 'blobs', blob]),
    folder,
  )
  const listings = ['v5-tar-zstd', 'v6-tar-zstd', 'v5-merge2', 'v6-merge2']
  const verbose = await runAll(
    listings.map((id) => ['check', '-l', 'warn', '-B', `images/${id}/bootstrap`, '-v']),
    folder,
  )
  const results = new Map(checked.map(({ id }) => [id, readJson(join(folder, 'json', id))]))
  rmSync(folder, { recursive: true, force: true })

  for (const [i, { id, check, check_json: json }] of checked.entries()) {
    test(`check ${id}`, () => {
      if (NOT_VALID.has(id)) return assert.match(told(checks[i]), /^exit 1\n$/)
      if (check !== undefined) assert.equal(told(checks[i]), check.slice(check.indexOf('\n') + 1))
      assert.deepEqual(withoutTimes(results.get(id)), withoutTimes(json))
    })
  }
  for (const [i, { bootstrap, request, wanted }] of requests.entries()) {
    test(`inspect ${bootstrap} -R '${request}'`, () => {
      if (NOT_VALID.has(bootstrap.split('/')[1] ?? '') && request === 'prefetch') return
      if (wanted.exit !== 0 && request !== 'help' && request !== 'nonsense')
        return assert.equal(inspected[i]?.exit, wanted.exit)
      if (request === 'prefetch')
        return assert.deepEqual(firstPaths(inspected[i]?.stdout), firstPaths(JSON.stringify(wanted.stdout)))
      // The original finds every inode but the root of RAFS v5.
      if (request === 'icheck 1' && bootstrap.includes('v5-'))
        return assert.match(told(inspected[i]), /^exit 0\n\/\n\nInode Number: +1\n/)
      const stdout = typeof wanted.stdout === 'string' ? wanted.stdout : JSON.stringify(wanted.stdout)
      assert.equal(told(inspected[i]), `exit ${wanted.exit}\n${stdout}`)
      if (wanted.stderr !== undefined) assert.equal(inspected[i]?.stderr, wanted.stderr)
    })
  }
  for (const [i, { id, check = '', inline_blob: blob = '' }] of blobs.entries()) {
    test(`check the blob of ${id}, its data too`, () => {
      const wanted = check.slice(check.indexOf('\n') + 1).replace(' bootstrap,', ` ${blob.split('/')[1]},`)
      assert.equal(told(inBlobs[i]), wanted, inBlobs[i]?.stderr)
    })
  }
  for (const [i, id] of listings.entries()) {
    test(`check -v ${id}`, () => {
      const listing = readFileSync(sharedPath('images', id, 'check.txt'), 'utf8')
      assert.deepEqual(told(verbose[i]).split('\n'), listing.slice(listing.indexOf('\n') + 1).split('\n'))
    })
  }
})

/** The original ends some paths with a slash, and names one path of several links, or one of them twice. */
function firstPaths(json: string | undefined): unknown {
  const entries = JSON.parse(json ?? '') as Array<{ inode: number; path: string[] }>
  return entries.map(({ inode, path: [first = ''] }) => ({ inode, path: first.replace(/\/$/, '') }))
}

function told(ran: Ran | undefined): string {
  return `exit ${ran?.exit}\n${ran?.stdout}`
}

function readJson(path: string): unknown {
  try {
    return JSON.parse(readFileSync(path, 'utf8'))
  } catch {
    return undefined
  }
}

function withoutTimes(json: unknown): unknown {
  return { ...(json as object), version: '', trace: {} }
}
