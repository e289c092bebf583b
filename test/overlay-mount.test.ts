/** Random layers: what `merge`, and builds over a parent, make of them is what a real overlay mount of the same layers shows. */
import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { checkBootstrap, type LayerOptions, mergeImages } from '../src/builder/index.ts'
import { DEFAULTS, temporary } from '../src/builder/testing.ts'
import { knowsFileSystem, mountOverlay, unmount } from '../src/kernel/index.ts'
import { type Bootstrap, openBootstrap } from '../src/rafs/index.ts'
import { forSeeds, oneOf, PROPERTY_LIMITS, type Random } from './random.ts'
import { buildInto, shownImage } from './random-images.ts'
import { randomLayers } from './random-layers.ts'
import { archiveOf, plant, type TreeNode } from './random-tree.ts'
import { assertSamePaths, linesOf, type ShownPath, shownFolder, withoutRootTime } from './shown-paths.ts'

const skip =
  process.getuid?.() === 0
    ? knowsFileSystem('overlay')
      ? false
      : 'this kernel has no overlayfs'
    : 'needs root to mount overlayfs'

/** The layers as folders, in overlayfs's own form; gives what a mount of them shows. */
async function shownByOverlay(layers: readonly TreeNode[], folder: string): Promise<ShownPath[]> {
  const at = join(folder, 'mnt')
  const lower = [join(folder, 'nothing')]
  for (const [index, layer] of layers.entries()) {
    lower.push(join(folder, `layer-${index}`))
    mkdirSync(join(folder, `layer-${index}`))
    plant(layer, join(folder, `layer-${index}`))
  }
  for (const path of [at, lower[0] ?? '']) mkdirSync(path)
  await mountOverlay(at, { lower: lower.reverse() })
  try {
    return [...shownFolder(at)]
  } finally {
    await unmount(at)
  }
}

function linesOfImage(image: Bootstrap, folder: string): string[] {
  assert.deepEqual([...checkBootstrap(image)], [])
  return linesOf(
    shownImage(
      image,
      image.blobs.map(({ id }) => readFileSync(join(folder, 'blobs', id))),
    ),
  )
}

interface Stack {
  readonly layers: readonly TreeNode[]
  readonly folder: string
  readonly options: LayerOptions
  readonly random: Random
}

async function mergedArchives({ layers, folder, options, random }: Stack): Promise<string[]> {
  const images: Bootstrap[] = []
  for (const [index, layer] of layers.entries()) {
    const path = join(folder, `${index}.tar`)
    writeFileSync(path, await archiveOf(layer, random))
    images.push((await buildInto(folder, { kind: 'tar', path }, options)).image)
  }
  const plain = { blobId: undefined, blobSize: undefined, tocDigest: undefined, tocSize: undefined }
  const merged = mergeImages(
    images.map((image, index) => ({ ...plain, name: `layer ${index}`, image })),
    { parent: undefined, dictionary: undefined, whiteoutSpec: 'oci', prefetchPaths: [] },
  )
  return linesOfImage(openBootstrap(merged.bootstrap), folder)
}

/** Each layer built over the image of those below it; the lowest over nothing, where its markers delete nothing and are gone. */
async function builtOverParents({ layers, folder, options }: Stack, kind: 'tar' | 'directory'): Promise<string[]> {
  let { image } = await buildInto(folder, { kind: 'directory', path: join(folder, 'nothing') }, options)
  for (const index of layers.keys()) {
    const path = join(folder, kind === 'tar' ? `${index}.tar` : `layer-${index}`)
    const whiteoutSpec = kind === 'tar' ? 'oci' : 'overlayfs'
    image = (await buildInto(folder, { kind, path }, { ...options, whiteoutSpec, parent: image })).image
  }
  return linesOfImage(image, folder)
}

test('merged layers, and layers built over their parents, show what overlayfs shows', {
  ...PROPERTY_LIMITS,
  skip,
}, async (t) => {
  const top = temporary(t)
  await forSeeds(12, async (random, seed) => {
    const folder = join(top, String(seed))
    mkdirSync(folder)
    const layers = randomLayers(random)
    const shown = await shownByOverlay(layers, folder)
    const wanted = linesOf(shown)
    const options = { ...DEFAULTS, version: oneOf(random, [5, 6] as const), chunkSize: 0x1000 }
    const stack = { layers, folder, options, random }
    assertSamePaths(await mergedArchives(stack), wanted, 'merge')
    assertSamePaths(await builtOverParents(stack, 'tar'), wanted, 'archives over a parent')
    assertSamePaths(
      await builtOverParents(stack, 'directory'),
      linesOf(withoutRootTime(shown)),
      'directories over a parent',
    )
  })
})
