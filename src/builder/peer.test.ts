/** The original beside ours, on the same sources; NYDUS_PEER_DIR names the folder with its nydus-image. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { type ArchiveEntry, DEFAULTS, tarOf, temporary } from './testing.ts'
import { buildImage, type LayerOptions, openDictionary } from './index.ts'

const peer = join(process.env['NYDUS_PEER_DIR'] ?? '', 'nydus-image')
const skip =
  process.env['NYDUS_PEER_DIR'] === undefined
    ? 'NYDUS_PEER_DIR is not set'
    : existsSync(peer)
      ? false
      : `there is no ${peer}`

function run(args: readonly string[], input = ''): string {
  const { status, stdout, stderr } = spawnSync(peer, args, { input, encoding: 'utf8', timeout: 60_000 })
  assert.equal(status, 0, `${args.join(' ')}\n${stderr}`)
  return stdout
}

/** Content that compresses in all degrees, the same in each run. */
function content(seed: number, size: number): Buffer {
  const bytes = Buffer.alloc(size)
  let state = seed * 2_654_435_761 + 1
  for (let at = 0; at < size; at += 1) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0
    bytes[at] = seed % 3 === 0 ? 65 + (at % 23) : seed % 3 === 1 ? (state >>> 24) & 0x3f : state >>> 24
  }
  return bytes
}

/** Directories before their content, and no inode with two xattrs: where the original is right, and gives the same bytes twice. */
function archive(from: number, count: number): ArchiveEntry[] {
  const entries: ArchiveEntry[] = [{ path: './', type: 'directory', mtimeSeconds: 5 }]
  for (const name of ['a', 'a/b', 'c', 'c/d', 'c/d/e'])
    entries.push({ path: `${name}/`, type: 'directory', mtimeSeconds: 1000, mode: 0o750 })
  for (let i = from; i < from + count; i += 1) {
    const directory = ['', 'a/', 'a/b/', 'c/', 'c/d/', 'c/d/e/'][i % 6] ?? ''
    const size = [0, 1, 100, 4096, 5000, 70_000, 1_048_576, 1_300_000][i % 8] ?? 0
    const xattrs = i % 5 === 0 ? [{ name: Buffer.from('user.number'), value: Buffer.from(String(i)) }] : []
    entries.push({ path: `${directory}file-${i}`, content: content(i % 11, size), mtimeSeconds: i, uid: i, xattrs })
    // As archivers write them: with the attributes of their target.
    if (i % 7 === 0)
      entries.push({
        path: `${directory}hard-${i}`,
        type: 'hardlink',
        link: `${directory}file-${i}`,
        mtimeSeconds: i,
        uid: i,
      })
    if (i % 4 === 0) entries.push({ path: `${directory}link-${i}`, type: 'symlink', link: 'x'.repeat(1 + (i % 90)) })
    if (i % 9 === 0) entries.push({ path: `${directory}dev-${i}`, type: 'char', devMajor: i, devMinor: 3 })
  }
  return entries
}

interface Case {
  readonly name: string
  readonly args: readonly string[]
  readonly options: Partial<LayerOptions>
}

const CASES: readonly Case[] = [
  { name: 'none, blake3', args: ['--compressor', 'none'], options: { compression: 'none' } },
  {
    name: 'lz4, sha256, chunks of 4 KiB',
    args: ['--compressor', 'lz4_block', '--digester', 'sha256', '--chunk-size', '0x1000'],
    options: { compression: 'lz4_block', digest: 'sha256', chunkSize: 0x1000 },
  },
  {
    name: 'lz4, chunks of 16 MiB, owners left out',
    args: ['--compressor', 'lz4_block', '--chunk-size', '0x1000000', '--repeatable'],
    options: { compression: 'lz4_block', chunkSize: 0x100_0000, keepOwners: false },
  },
  {
    name: 'none, with a table of contents',
    args: ['--compressor', 'none', '--features', 'blob-toc'],
    options: { compression: 'none', blobToc: true },
  },
  {
    name: 'lz4, bootstrap inside',
    args: ['--compressor', 'lz4_block', '--blob-inline-meta'],
    options: { compression: 'lz4_block', inlineBootstrap: true },
  },
  {
    name: 'none, batches of 1 MiB',
    args: ['--compressor', 'none', '--batch-size', '0x100000'],
    options: { compression: 'none', batchSize: 0x10_0000 },
  },
  {
    name: 'lz4, batches of 4 KiB, with a table of contents',
    args: ['--compressor', 'lz4_block', '--batch-size', '4096', '--features', 'blob-toc'],
    options: { compression: 'lz4_block', batchSize: 4096, blobToc: true },
  },
  {
    name: 'lz4, sha256, chunks and batches of 256 KiB, bootstrap inside',
    args: [
      '--compressor',
      'lz4_block',
      '--digester',
      'sha256',
      '--chunk-size',
      '0x40000',
      '--batch-size',
      '0x40000',
    ].concat('--blob-inline-meta'),
    options: {
      compression: 'lz4_block',
      digest: 'sha256',
      chunkSize: 0x4_0000,
      batchSize: 0x4_0000,
      inlineBootstrap: true,
    },
  },
  {
    name: 'v5, none, blake3',
    args: ['-v', '5', '--compressor', 'none'],
    options: { version: 5, compression: 'none' },
  },
  {
    name: 'v5, lz4, sha256, chunks of 4 KiB',
    args: ['-v', '5', '--compressor', 'lz4_block', '--digester', 'sha256', '--chunk-size', '0x1000'],
    options: { version: 5, compression: 'lz4_block', digest: 'sha256', chunkSize: 0x1000 },
  },
  {
    name: 'v5, lz4, aligned chunks, bootstrap inside, owners left out',
    args: ['-v', '5', '--compressor', 'lz4_block', '--aligned-chunk', '--blob-inline-meta', '--repeatable'],
    options: { version: 5, compression: 'lz4_block', alignedChunks: true, inlineBootstrap: true, keepOwners: false },
  },
  {
    name: 'v5, none, prefetch table',
    args: ['-v', '5', '--compressor', 'none', '--prefetch-policy', 'fs'],
    options: { version: 5, compression: 'none', prefetch: { policy: 'fs', paths: ['/c/d', '/a/b', '/a'] } },
  },
  {
    name: 'v5, none, what to prefetch first in the blob',
    args: ['-v', '5', '--compressor', 'none', '--prefetch-policy', 'blob'],
    options: { version: 5, compression: 'none', prefetch: { policy: 'blob', paths: ['/c/d', '/a/b'] } },
  },
  {
    name: 'none, prefetch table',
    args: ['--compressor', 'none', '--prefetch-policy', 'fs'],
    options: { compression: 'none', prefetch: { policy: 'fs', paths: ['/c/d', '/a/b', '/a'] } },
  },
]

/** Names of blobs and bytes of all files that a build wrote. */
function outputOf(folder: string): Map<string, Buffer> {
  return new Map(
    readdirSync(folder)
      .filter((name) => !name.endsWith('.external'))
      .sort()
      .map((name) => [name, readFileSync(join(folder, name))]),
  )
}

for (const { name, args, options } of CASES) {
  for (const kind of ['tar', 'directory'] as const) {
    test(`the same bytes as the original from a ${kind}: ${name}`, {
      skip: skip === false && kind === 'directory' && process.getuid?.() !== 0 ? 'needs root to unpack devices' : skip,
    }, async (t) => {
      const folder = temporary(t)
      const [theirs, ours] = [join(folder, 'theirs'), join(folder, 'ours')]
      for (const path of [theirs, ours]) mkdirSync(path)
      const tar = join(folder, 'source.tar')
      // The original spoils v5 images of hard links with xattrs in archives: number 35.
      writeFileSync(tar, await tarOf(archive(1, options.version === 5 && kind === 'tar' ? 34 : 60)))
      const source = kind === 'tar' ? tar : join(folder, 'tree')
      if (kind === 'directory') {
        mkdirSync(source)
        assert.equal(spawnSync('tar', ['--xattrs', '--xattrs-include=*', '-xpf', tar, '-C', source]).status, 0)
      }
      const inline = options.inlineBootstrap === true
      run(
        [
          'create',
          '--log-level',
          'error',
          '-t',
          kind === 'tar' ? 'tar-rafs' : 'dir-rafs',
          ...args,
          '-D',
          theirs,
          ...(inline ? [] : ['-B', join(theirs, 'bootstrap')]),
          source,
        ],
        (options.prefetch?.paths ?? []).join('\n'),
      )
      await buildImage(
        { kind, path: source },
        {
          blob: { kind: 'directory', path: ours },
          bootstrap: inline ? undefined : { kind: 'file', path: join(ours, 'bootstrap') },
        },
        { ...DEFAULTS, ...options },
        { signal: t.signal, onBytes: () => undefined },
      )
      const [found, wanted] = [outputOf(ours), outputOf(theirs)]
      assert.deepEqual([...found.keys()], [...wanted.keys()])
      for (const [file, bytes] of wanted) assert.ok(found.get(file)?.equals(bytes) === true, file)
    })
  }
}

test("the original's check accepts ours, with every kind of layout", { skip }, async (t) => {
  const folder = temporary(t)
  const lower = join(folder, 'lower.tar')
  const upper = join(folder, 'upper.tar')
  writeFileSync(lower, await tarOf(archive(1, 40)))
  writeFileSync(upper, await tarOf(archive(20, 40)))
  const run2 = { signal: t.signal, onBytes: () => undefined }
  for (const [at, options] of [
    {},
    { compression: 'none' },
    { compression: 'lz4_block', blobToc: true },
    { inlineBootstrap: true },
    { inlineBootstrap: true, blobToc: true },
    { chunkSize: 0x1000, digest: 'sha256' },
    { version: 5 },
    { version: 5, chunkSize: 0x1000, digest: 'sha256', compression: 'lz4_block', alignedChunks: true },
    { version: 5, inlineBootstrap: true },
  ].entries()) {
    const blobs = join(folder, `case-${at}`)
    mkdirSync(blobs)
    const all = { ...DEFAULTS, ...(options as Partial<LayerOptions>) }
    const bootstrap = all.inlineBootstrap ? undefined : ({ kind: 'file', path: join(folder, `boot-${at}`) } as const)
    const first = await buildImage(
      { kind: 'tar', path: lower },
      { blob: { kind: 'directory', path: blobs }, bootstrap },
      all,
      run2,
    )
    run(['check', '--log-level', 'error', '-D', blobs, first.bootstrapPath ?? first.blobPath ?? ''])
    if (bootstrap === undefined) continue
    const dictionary = await openDictionary(bootstrap.path, all)
    const second = await buildImage(
      { kind: 'tar', path: upper },
      { blob: { kind: 'directory', path: blobs }, bootstrap: { kind: 'file', path: join(folder, `upper-${at}`) } },
      { ...all, dictionary },
      run2,
    )
    run(['check', '--log-level', 'error', '-D', blobs, second.bootstrapPath ?? ''])
  }
})
