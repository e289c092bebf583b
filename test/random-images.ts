/** Random trees built into images by the builder's door, and what these images show. */
import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { localfsBackend } from '../src/backend/index.ts'
import {
  buildImage,
  exportDisk,
  type ImageSource,
  type LayerOptions,
  parsePrefetchPatterns,
  unpackImage,
} from '../src/builder/index.ts'
import { DEFAULTS, inodeContent } from '../src/builder/testing.ts'
import { Attributes, type Bootstrap, dumpEntries, walkBootstrap } from '../src/rafs/index.ts'
import { withImageData } from '../src/cli/nydus-image/image-content.ts'
import { openNamedImage } from '../src/cli/nydus-image/bootstrap-file.ts'
import { knowsFileSystem, mountErofs, unmount } from '../src/kernel/index.ts'
import { once, oneOf, type Random, randomBytes } from './random.ts'
import { pathsOf, type TreeNode, type TreeType } from './random-tree.ts'
import { digestOf, shownFolder, type ShownPath, xattrText } from './shown-paths.ts'

const TYPES: Readonly<Record<string, TreeType>> = { dir: 'directory' }

/** What an image shows, in the form of `shownTree`; every chunk's digest is compared on the way. */
export function* shownImage(image: Bootstrap, blobs: readonly Uint8Array[]): Generator<ShownPath> {
  const inos = [...walkBootstrap(image)].map(({ ino }) => ino)
  const attributes = new Attributes()
  for (const [at, entry] of [...dumpEntries(image)].entries()) {
    const ino = inos[at] ?? 0
    image.attributes(ino, attributes)
    yield {
      path: entry.path,
      type: TYPES[entry.type] ?? entry.type,
      mode: Number.parseInt(entry.mode, 8),
      uid: entry.uid,
      gid: entry.gid,
      mtime: entry.mtime,
      mtimeNsec: entry.mtime_nsec,
      ...(entry.rdev === undefined ? {} : { rdev: entry.rdev }),
      ...(entry.target === undefined ? {} : { target: entry.target }),
      xattrs: xattrText(
        Object.entries(entry.xattrs ?? {}).map(([name, value]) => [name, Buffer.from(value, 'base64')] as const),
      ),
      ...(entry.type === 'file' ? { sha256: digestOf(inodeContent(image, blobs, ino)) } : {}),
      ...(entry.type === 'dir' ? {} : { inode: entry.hardlink ?? entry.path }),
    }
  }
}

/** Options of any kind that the two versions take, with paths of the tree to be read first. */
export function randomOptions(random: Random, tree: TreeNode): LayerOptions {
  const version = oneOf(random, [5, 6] as const)
  const chunkSize = oneOf(random, [0x1000, 0x2000, 0x10_000, 0x10_0000, 0x100_0000] as const)
  const inlineBootstrap = once(random, 4)
  const paths = [...pathsOf(tree)].map(([path]) => path).filter((path) => !/[^ -~]/.test(path) && once(random, 4))
  return {
    ...DEFAULTS,
    version,
    chunkSize,
    batchSize: version === 6 && once(random, 3) ? Math.min(chunkSize, 0x1000 << random(6)) : 0,
    cipher:
      version === 6 && once(random, 4) ? { key: randomBytes(random, 32), iv: randomBytes(random, 16) } : undefined,
    compression: oneOf(random, ['none', 'lz4_block', 'zstd'] as const),
    digest: oneOf(random, ['blake3', 'sha256'] as const),
    inlineBootstrap,
    blobToc: version === 6 && once(random, 2),
    alignedChunks: once(random, 2),
    whiteoutSpec: 'none',
    prefetch: {
      policy: oneOf(random, ['none', 'fs', 'blob'] as const),
      paths: parsePrefetchPatterns(Buffer.from(paths.join('\n'))).paths,
    },
  }
}

export interface BuiltFiles {
  /** The image; opened as the tools open it. */
  readonly path: string
  readonly image: Bootstrap
  readonly blobs: readonly Buffer[]
}

/** Builds; blobs go into `folder`/blobs. */
export async function buildInto(folder: string, source: ImageSource, options: LayerOptions): Promise<BuiltFiles> {
  const blobFolder = join(folder, 'blobs')
  mkdirSync(blobFolder, { recursive: true })
  const bootstrap = { kind: 'file', path: join(folder, 'bootstrap') } as const
  const built = await buildImage(
    source,
    { blob: { kind: 'directory', path: blobFolder }, bootstrap: options.inlineBootstrap ? undefined : bootstrap },
    options,
    { signal: new AbortController().signal, onBytes: () => undefined },
  )
  const path = built.bootstrapPath ?? built.blobPath ?? assert.fail('nothing was built')
  const image = await openNamedImage(path, undefined)
  return { path, image, blobs: image.blobs.map(({ id }) => readFileSync(join(blobFolder, id))) }
}

/** The image as a tar, as `unpack` writes it. */
export async function unpacked({ image }: BuiltFiles, folder: string): Promise<string> {
  const path = join(folder, 'unpacked.tar')
  const backend = localfsBackend({ dir: join(folder, 'blobs') })
  const parts: Buffer[] = []
  try {
    await withImageData(image, backend, async (data) => {
      await unpackImage(image, {
        data,
        sink: (bytes) => void parts.push(Buffer.from(bytes)),
        signal: new AbortController().signal,
        onBytes: () => undefined,
        onLost: (lost, reason) => assert.fail(`${lost}: ${reason}`),
      })
    })
  } finally {
    await backend.close()
  }
  writeFileSync(path, Buffer.concat(parts))
  return path
}

/** Whether {@link shownByKernel} can be asked: by root, where the kernel has EROFS and loop devices. */
export const kernelShowsImages =
  process.getuid?.() === 0 && knowsFileSystem('erofs') && spawnSync('losetup', ['--find']).status === 0

/** Mounts an image through the kernel's EROFS, by the disk that `export` makes of it, and gives what it shows. */
export async function shownByKernel({ path, image }: BuiltFiles, folder: string): Promise<ShownPath[]> {
  const disk = join(folder, 'disk')
  const at = join(folder, 'mnt')
  mkdirSync(at, { recursive: true })
  const backend = localfsBackend({ dir: join(folder, 'blobs') })
  const signal = new AbortController().signal
  try {
    await exportDisk(image, readFileSync(path), backend, {
      path: disk,
      verity: false,
      signal,
      onBytes: () => undefined,
    })
  } finally {
    await backend.close()
  }
  // Of a disk that it reads as a file, Linux (6.18) takes a chunk that begins in its blob where the one before ends on the disk for the next one there, and shows other bytes.
  const device = execFileSync('losetup', ['--find', '--show', '--read-only', disk], { encoding: 'utf8' }).trim()
  try {
    await mountErofs(device, at, [])
    try {
      return [...shownFolder(at)]
    } finally {
      await unmount(at)
    }
  } finally {
    execFileSync('losetup', ['--detach', device])
  }
}
