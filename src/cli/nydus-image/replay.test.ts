import assert from 'node:assert/strict'
import { readFileSync, rmSync } from 'node:fs'
import { after, describe, test } from 'node:test'
import { noShared, type Ran, sharedPath } from '../testing.ts'
import { recordingFolder, runAll } from './testing.ts'

interface Recorded {
  readonly args: readonly string[]
  readonly exit: number
  readonly stdout: string
  readonly stderr: string
}

/** Where ours answers otherwise, and why. */
const DIFFERENCES: ReadonlyMap<string, Partial<Ran>> = new Map<string, Partial<Ran>>([
  // The original asks for --external-blob, which nobody has; its own nydusify runs into that.
  ['create', { exit: 2 }],
  ['create -B x -b y dirs/small', { exit: 0 }],
  // Other words for the same thing; no places in the original's source.
  ['unpack --backend-type nope --backend-config {} images/v6-tar-zstd/bootstrap --output work/u.tar', { exit: 1 }],
  // The original aborts.
  ['merge -B work/m --blob-sizes x images/v6-tar-zstd/bootstrap', { exit: 1 }],
  // Other words for the same thing.
  ['export --block -B work/absent -D blobs -O work/x.disk', { exit: 1 }],
  ['export --block -B images/v6-tar-zstd/bootstrap -D dirs -O work/x.disk', { exit: 1 }],
  ['create -D work/o -B work/o.boot -t tar-rafs --chunk-dict bootstrap=work/absent sources/small.tar', { exit: 1 }],
  ['create -D work/o -B work/o.boot --parent-bootstrap work/absent dirs/small', { exit: 1 }],
  // The original takes it, and does nothing by mistake.
  ['compact -B images/v6-tar-zstd/bootstrap -D blobs --min-used-ratio 200', { exit: 1 }],
  ['check sources/empty.tar', { exit: 1 }],
  ['inspect images/v6-tar-zstd/bootstrap -R icheck 999999', { exit: 1 }],
])

describe('command lines recorded from the original', { skip: noShared }, async () => {
  if (noShared !== false) return
  const recorded = JSON.parse(readFileSync(sharedPath('cli/nydus-image.json'), 'utf8')) as Recorded[]
  const folder = recordingFolder()
  after(() => rmSync(folder, { recursive: true, force: true }))
  const ran = await runAll(
    recorded.map(({ args }) => args),
    folder,
  )

  for (const [i, { args, ...wanted }] of recorded.entries()) {
    test(`nydus-image ${args.join(' ').slice(0, 120)}`, () => {
      const found = ran[i]
      assert.ok(found)
      const other = DIFFERENCES.get(args.join(' '))
      if (other !== undefined) return assert.equal(found.exit, other.exit, found.stderr)
      assert.equal(found.exit, wanted.exit, found.stderr)
      assert.equal(found.stdout, wanted.stdout)
      if (wanted.exit === 2 && wanted.stderr.startsWith('error:')) return assert.equal(found.stderr, wanted.stderr)
      for (const words of messages(wanted.stderr))
        assert.ok(found.stderr.includes(words), `${found.stderr}\nlacks: ${words}`)
    })
  }
})

/** What a message says, without times, places in source and the words around it. */
function messages(stderr: string): string[] {
  const lines = stderr.split('\n').filter((line) => !line.startsWith('[TIME] INFO RAFS') && line !== 'Caused by:')
  return lines
    .map((line) => line.replace(/^\[TIME\] (INFO|ERROR) (\[[^\]]*\] )?|^Error: /, '').trim())
    .filter((words) => words !== 'build failed' && !words.startsWith('failed to create inspector'))
}
