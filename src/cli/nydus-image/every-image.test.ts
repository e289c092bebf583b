import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { gunzipSync } from 'node:zlib'
import { type Backend, localfsBackend } from '../../backend/index.ts'
import { checkBlobs, checkTree, diffImages, ImageInspector } from '../../builder/index.ts'
import { type Bootstrap, dumpLines } from '../../rafs/index.ts'
import { readNamedImage } from './bootstrap-file.ts'
import { noShared, sharedPath } from '../testing.ts'

/** What is wrong with an image, by the reader that finds it. Everything else must read every image without a finding. */
interface Wrong {
  readonly open?: RegExp
  /** Of the metadata. */
  readonly tree?: RegExp
  readonly data?: RegExp
  /** Paths that are not where the source has them. */
  readonly shows?: RegExp
}

const WRONG: ReadonlyMap<string, Wrong> = new Map<string, Wrong>([
  // Written wrong by the original: it cannot read them either, or shows other bytes.
  ['v5-upper-tar-parent', { tree: /^chunk 0 has 100 bytes where the file needs 70000$/ }],
  ['v6-upper-tar-parent', { tree: /^chunk 0 has 100 bytes where the file needs 70000$/ }],
  ['v5-tar-zstd-encrypt', { data: /the image has no key for it/ }],
  ['v6-optimize', { open: /its 5 chunks do not fit chunk infos of 120 bytes/ }],
  ['v6-optimize-batch', { data: /the compression context of blob [0-9a-f]{64} does not fit the bootstrap/ }],
  ['v5-src-implicit', { shows: /^\/(b|m)(\/|$)/ }],
  ['v6-src-implicit', { shows: /^\/(b|m)(\/|$)/ }],
  ['v6-tarfs-lower', { shows: /^\/links\/long$/ }],
  ['v6-merge-tarfs', { shows: /^\/links\/long$/ }],
])

interface Recorded {
  readonly id: string
  readonly bootstrap?: string
  readonly inline_blob?: string
  readonly tree?: string
}

type Derived = { readonly gunzip?: string; readonly copy?: string }

describe('every image of the original', { skip: noShared }, () => {
  if (noShared !== false) return
  const manifest = JSON.parse(readFileSync(sharedPath('manifest.json'), 'utf8')) as {
    readonly images: readonly Recorded[]
    readonly derived_blobs: Readonly<Record<string, Derived>>
  }
  const { signal } = new AbortController()
  let pool = ''
  let backend: Backend

  before(() => {
    pool = mkdtempSync(join(tmpdir(), 'pool-'))
    for (const name of readdirSync(sharedPath('blobs'))) symlinkSync(sharedPath('blobs', name), join(pool, name))
    for (const [id, { gunzip, copy }] of Object.entries(manifest.derived_blobs)) {
      if (copy !== undefined) symlinkSync(sharedPath(copy), join(pool, id))
      if (gunzip !== undefined) writeFileSync(join(pool, id), gunzipSync(readFileSync(sharedPath(gunzip))))
    }
    backend = localfsBackend({ dir: pool })
  })
  after(async () => {
    await backend.close()
    rmSync(pool, { recursive: true, force: true })
  })

  for (const { id, tree } of manifest.images) {
    const recorded = JSON.parse(readFileSync(sharedPath('images', id, 'image.json'), 'utf8')) as Recorded
    const path = recorded.inline_blob ?? recorded.bootstrap
    if (path === undefined || !existsSync(sharedPath(path)) || readFileSync(sharedPath(path)).length === 0) continue
    const wrong = WRONG.get(id) ?? {}

    test(`${id} is read, checked, inspected, dumped, compared`, async () => {
      if (wrong.open !== undefined)
        return await assert.rejects(readNamedImage(sharedPath(path), undefined), hasCause(wrong.open))
      const source = await readNamedImage(sharedPath(path), undefined)
      await checked(source.image, backend, wrong)
      inspected(new ImageInspector(source, false), source.image)
      inspected(new ImageInspector(source, true), source.image)
      if (tree !== undefined) shows(source.image, sharedPath(tree), wrong.shows)
      const side = { name: id, image: source.image }
      const walk = diffImages(side, side)
      const first = walk.next()
      assert.ok(first.done === true)
      assert.equal(first.value.fetch.missing.chunks, 0)
    })
  }

  async function checked(image: Bootstrap, blobs: Backend, { tree, data }: Wrong): Promise<void> {
    const inTree: string[] = []
    for await (const { message } of checkTree(image, { signal, onPath: () => undefined })) inTree.push(message)
    assert.ok(tree === undefined ? inTree.length === 0 : inTree.some((text) => tree.test(text)), inTree.join('\n'))
    const inData: string[] = []
    if (tree === undefined) for await (const { message } of checkBlobs(image, blobs, signal)) inData.push(message)
    assert.ok(data === undefined ? inData.length === 0 : inData.some((text) => data.test(text)), inData.join('\n'))
  }
})

function hasCause(words: RegExp): (error: unknown) => boolean {
  return (error) => error instanceof Error && error.cause instanceof Error && words.test(error.cause.message)
}

/** Every command, in every directory; each entry's attributes. */
function inspected(inspector: ImageInspector, image: Bootstrap): void {
  const done = (command: string): string => {
    const { status, text } = inspector.execute(command)
    assert.equal(status, 'done', command)
    return text
  }
  for (const command of ['stats', 'blobs', 'prefetch', 'chunk 0', `icheck ${image.root}`, 'stat .']) done(command)
  const open = ['/']
  for (let at = open.pop(); at !== undefined; at = open.pop()) {
    assert.equal(done(`cd ${at}`), '')
    for (const [line, sign, ino = '', quoted = ''] of done('ls').matchAll(/^([-dl ]) {4}(\d+) +(".*")$/gm)) {
      assert.match(done(`stat ${quoted}`), new RegExp(`^\nInode Number: +${ino}\n`), line)
      // Names that are no plain words are entered from where they are.
      if (sign === 'd' && /^"[\w.-]+"$/.test(quoted)) open.push(join(at, quoted.slice(1, -1)))
    }
  }
  assert.equal(inspector.execute('exit').status, 'exit')
}

/** The JSON dump is the expected tree. */
function shows(image: Bootstrap, treeFile: string, spoiled: RegExp | undefined): void {
  const isKept = ({ path }: { readonly path: string }): boolean => spoiled?.test(path) !== true
  const wanted = readFileSync(treeFile, 'utf8').trim().split('\n').map(parsed).filter(isKept)
  const lines = [...dumpLines(image, 'json')].join('').trimEnd().split('\n')
  const found = lines
    .slice(1 + image.blobs.length)
    .map(parsed)
    .filter(isKept)
  const byPath = (a: { readonly path: string }, b: { readonly path: string }): number => (a.path < b.path ? -1 : 1)
  assert.deepEqual(found.sort(byPath), wanted.sort(byPath), basename(treeFile))
}

function parsed(line: string): { readonly path: string } {
  const {
    sha256: _content,
    blocks: _blocks,
    chunks: _chunks,
    prefetch: _place,
    ...entry
  } = JSON.parse(line) as {
    path: string
  } & Record<string, unknown>
  return entry
}
