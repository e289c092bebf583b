import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, rmSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { gunzipSync } from 'node:zlib'
import { noShared, type Ran, sharedPath } from '../testing.ts'
import { recordingFolder, run, runAll } from './testing.ts'

/** One run of the original, of `images/ID/image.json`. */
interface Recorded {
  readonly id: string
  readonly command: string
  readonly exit: number
  readonly stdin?: string
  readonly blobs?: readonly string[]
  readonly new_blobs: readonly string[]
  readonly bootstrap_from_blob?: boolean
  readonly reproducible?: boolean
  readonly inspect?: { readonly blobs: { readonly stdout: unknown } }
}

const ARCHIVES = ['lower', 'core', 'mini', 'upper', 'third']

/** What the original refuses or spoils, and ours builds (README of the fixtures, "Where the original fails"). */
const BETTER = new Set([
  'v6-src-gnu-sparse',
  'v6-src-link-to-symlink',
  'v6-src-pax-global',
  'v6-src-pax-newline-path',
  'v6-src-pax-newline',
  'v6-tarzst',
  'v6-estargztoc-lower',
  'v6-estargztoc-small',
  'v6-src-implicit',
  'v6-upper-tar-parent',
  'v5-src-implicit',
  'v5-upper-tar-parent',
])

describe('builds and merges recorded from the original', { skip: noShared }, async () => {
  if (noShared !== false) return
  const { images } = JSON.parse(readFileSync(sharedPath('manifest.json'), 'utf8')) as { images: Array<{ id: string }> }
  const all = images.map(
    ({ id }) => JSON.parse(readFileSync(sharedPath('images', id, 'image.json'), 'utf8')) as Recorded,
  )
  const recorded = all.filter(
    ({ command }) => /^nydus-image (create|merge) /.test(command) && !command.includes(' dirs/'),
  )
  const folder = recordingFolder()
  after(() => rmSync(folder, { recursive: true, force: true }))
  prepare(folder, all)
  const silent = recorded.filter(({ stdin }) => stdin === undefined)
  const ran = new Map<string, Ran>()
  for (const [i, result] of (await runAll(silent.map(wordsOf), folder)).entries()) ran.set(silent[i]?.id ?? '', result)
  for (const one of recorded) if (one.stdin !== undefined) ran.set(one.id, run(wordsOf(one), folder, one.stdin))
  const built = recorded.filter(({ id }) => ran.get(id)?.exit === 0)
  const withBootstrap = built.filter((one) => one.bootstrap_from_blob !== true)
  const tables = await runAll(
    withBootstrap.map(({ id }) => ['inspect', `out/${id}`, '-R', 'blobs']),
    folder,
  )
  const found = new Map(built.map(({ id }) => [id, filesOf(folder, id)]))

  for (const one of recorded) {
    test(one.id, () => {
      const { exit, stderr = '' } = ran.get(one.id) ?? {}
      if (one.id === 'v5-tar-zstd-encrypt') {
        assert.equal(exit, 1, stderr)
        return assert.match(stderr, /which has no place for the key/)
      }
      if (BETTER.has(one.id)) return assert.equal(exit, 0, stderr)
      assert.equal(exit, one.exit, stderr)
      if (one.exit !== 0) return
      const { result, bootstrap } = found.get(one.id) ?? {}
      const wanted = JSON.parse(readFileSync(sharedPath('images', one.id, 'output.json'), 'utf8')) as Record<
        string,
        unknown
      >
      assert.equal((result?.['blobs'] as string[] | undefined)?.length, one.blobs?.length)
      const isSame = hasSameBytes(one)
      assert.deepEqual(
        { ...result, ...varying(isSame) },
        { ...wanted, ...varying(isSame), bootstrap: one.bootstrap_from_blob === true ? '' : `out/${one.id}` },
      )
      if (!isSame) return
      if (one.reproducible === true && bootstrap !== undefined)
        assert.ok(
          bootstrap.equals(readFileSync(sharedPath('images', one.id, 'bootstrap'))),
          'the bootstrap has other bytes',
        )
      const table = tables[withBootstrap.indexOf(one)]?.stdout
      if (table !== undefined && one.inspect !== undefined)
        assert.deepEqual(JSON.parse(table), one.inspect.blobs.stdout)
    })
  }
})

/** Other versions of zstd give other bytes, so other blob ids (the chunks and their digests are the same); keys are random; and a bootstrap in its blob may have its xattrs in any order. */
function hasSameBytes({ id, command, bootstrap_from_blob: isInline, reproducible }: Recorded): boolean {
  const isCompressedAnew =
    command.includes(' create ') && command.includes('--compressor zstd') && !/src-|empty/.test(id)
  return !isCompressedAnew && !command.includes('--encrypt') && (isInline !== true || reproducible === true)
}

function varying(isSame: boolean): object {
  return { version: '', trace: {}, ...(isSame ? {} : { blobs: [] }) }
}

/** The recorded command line, its outputs moved. */
function wordsOf({ id, command }: Recorded): string[] {
  const words = command.split(' ').slice(1)
  for (const [flag, value] of [
    ['-B', `out/${id}`],
    ['-J', `json/${id}`],
    ['-D', 'mine'],
    ['--blob-cache-dir', 'mine'],
  ] as const) {
    const at = words.indexOf(flag)
    if (at >= 0) words[at + 1] = value
  }
  return [words[0] ?? '', '-l', 'error', ...words.slice(1)]
}

function prepare(folder: string, all: readonly Recorded[]): void {
  for (const name of ['out', 'json', 'mine', 'layers', 'plain']) mkdirSync(join(folder, name))
  unlinkSync(join(folder, 'sources'))
  mkdirSync(join(folder, 'sources'))
  for (const name of ARCHIVES)
    writeFileSync(join(folder, `sources/${name}.tar`), gunzipSync(readFileSync(sharedPath(`sources/${name}.tar.gz`))))
  for (const { command } of all) {
    const source = /sources\/(\S+)$/.exec(command)?.[1]
    if (source === undefined || ARCHIVES.includes(source.replace(/\.tar$/, ''))) continue
    try {
      symlinkSync(sharedPath('sources', source), join(folder, 'sources', source))
    } catch (error) {
      // Several images have one source.
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    }
  }
  for (const {
    id,
    bootstrap_from_blob: isInline,
    new_blobs: [blob = ''],
  } of all) {
    if (isInline === true) symlinkSync(sharedPath('images', id, 'bootstrap'), join(folder, 'layers', blob))
  }
}

function filesOf(
  folder: string,
  id: string,
): { readonly result: Record<string, unknown>; readonly bootstrap: Buffer | undefined } {
  const read = (path: string): Buffer | undefined => {
    try {
      return readFileSync(join(folder, path))
    } catch {
      // Inlined bootstraps have no file.
      return undefined
    }
  }
  return {
    result: JSON.parse(read(`json/${id}`)?.toString() ?? '{}') as Record<string, unknown>,
    bootstrap: read(`out/${id}`),
  }
}
