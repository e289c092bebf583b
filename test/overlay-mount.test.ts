/** Random layers: what `merge`, and builds over a parent, make of them is what a real overlay mount of the same layers shows. */
import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import {
  checkBootstrap,
  type ImageSource,
  type LayerOptions,
  mergeImages,
  type MergeOptions,
  openDictionary,
} from '../src/builder/index.ts'
import { DEFAULTS, temporary } from '../src/builder/testing.ts'
import { knowsFileSystem, mountOverlay, unmount } from '../src/kernel/index.ts'
import { type Bootstrap, openBootstrap } from '../src/rafs/index.ts'
import { forSeeds, once, oneOf, PROPERTY_LIMITS, type Random } from './random.ts'
import { type BuiltFiles, buildInto, kernelShowsImages, shownByKernel, shownImage } from './random-images.ts'
import { FEW_NAMES, manyNames, randomLayers, type StackShape } from './random-layers.ts'
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
  const at = join(folder, 'overlay')
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

interface Stack {
  readonly layers: readonly TreeNode[]
  readonly folder: string
  readonly options: LayerOptions
  readonly random: Random
}

function filesOf(path: string, image: Bootstrap, folder: string): BuiltFiles {
  return { path, image, blobs: image.blobs.map(({ id }) => readFileSync(join(folder, 'blobs', id))) }
}

function linesOfImage({ image, blobs }: BuiltFiles): string[] {
  assert.deepEqual([...checkBootstrap(image)], [])
  return linesOf(shownImage(image, blobs))
}

const PLAIN: MergeOptions = { parent: undefined, dictionary: undefined, whiteoutSpec: 'oci', prefetchPaths: [] }

/** Merges, and leaves the bootstrap in the folder. */
function mergeInto(folder: string, images: readonly Bootstrap[], options: Partial<MergeOptions>): BuiltFiles {
  const unknown = { blobId: undefined, blobSize: undefined, tocDigest: undefined, tocSize: undefined }
  const named = images.map((image, index) => ({ ...unknown, name: `layer ${index}`, image }))
  const { bootstrap } = mergeImages(named, { ...PLAIN, ...options })
  const path = join(folder, 'merged')
  writeFileSync(path, bootstrap)
  return filesOf(path, openBootstrap(bootstrap), folder)
}

/** Merged in one go, or those above some over those below. */
function mergedInSteps(
  { folder, random }: Stack,
  images: readonly Bootstrap[],
  options: Partial<MergeOptions>,
): BuiltFiles {
  const at = random(images.length)
  if (at === 0) return mergeInto(folder, images, options)
  const parent = mergeInto(folder, images.slice(0, at), options).image
  return mergeInto(folder, images.slice(at), { ...options, parent })
}

/** Each layer by itself; the others may use the chunks of the first, when it has any. */
async function builtLayers(
  { layers, folder, options, random }: Stack,
  sourceOf: (index: number) => ImageSource,
): Promise<{ images: Bootstrap[]; dictionary: Bootstrap | undefined }> {
  const images: Bootstrap[] = []
  let dictionary: Bootstrap | undefined
  let more = options
  for (const index of layers.keys()) {
    const { path, image } = await buildInto(folder, sourceOf(index), more)
    images.push(image)
    if (index > 0 || image.blobs.length === 0 || !once(random, 2)) continue
    dictionary = image
    more = { ...options, dictionary: await openDictionary(path, options) }
  }
  return { images, dictionary }
}

async function mergedArchives(stack: Stack): Promise<BuiltFiles> {
  const { layers, folder, random } = stack
  for (const [index, layer] of layers.entries())
    writeFileSync(join(folder, `${index}.tar`), await archiveOf(layer, random))
  const built = await builtLayers(stack, (index) => ({ kind: 'tar', path: join(folder, `${index}.tar`) }))
  return mergedInSteps(stack, built.images, { dictionary: built.dictionary })
}

/** With the markers of overlayfs, which the layers keep. */
async function mergedDirectories(stack: Stack): Promise<BuiltFiles> {
  const { folder, options } = stack
  const keeping = { ...stack, options: { ...options, whiteoutSpec: 'none' } as const }
  const built = await builtLayers(keeping, (index) => ({ kind: 'directory', path: join(folder, `layer-${index}`) }))
  return mergedInSteps(stack, built.images, { dictionary: built.dictionary, whiteoutSpec: 'overlayfs' })
}

/** Each layer built over the image of those below it; the lowest over nothing, where its markers delete nothing and are gone. */
async function builtOverParents({ layers, folder, options }: Stack, kind: 'tar' | 'directory'): Promise<BuiltFiles> {
  let built = await buildInto(folder, { kind: 'directory', path: join(folder, 'nothing') }, options)
  for (const index of layers.keys()) {
    const path = join(folder, kind === 'tar' ? `${index}.tar` : `layer-${index}`)
    const whiteoutSpec = kind === 'tar' ? 'oci' : 'overlayfs'
    built = await buildInto(folder, { kind, path }, { ...options, whiteoutSpec, parent: built.image })
  }
  return built
}

/** Checks a stack in all ways in which images are laid over each other. */
async function assertStack(random: Random, shape: StackShape, folder: string): Promise<void> {
  mkdirSync(folder)
  const layers = randomLayers(random, shape)
  const shown = await shownByOverlay(layers, folder)
  const wanted = linesOf(shown)
  const wantedOfDirectories = linesOf(withoutRootTime(shown))
  const options = { ...DEFAULTS, version: oneOf(random, [5, 6] as const), chunkSize: 0x1000 }
  const stack = { layers, folder, options, random }
  const merged = await mergedArchives(stack)
  assertSamePaths(linesOfImage(merged), wanted, 'merge of archives')
  if (kernelShowsImages && options.version === 6 && merged.blobs.length > 0)
    assertSamePaths(linesOf(await shownByKernel(merged, folder)), wanted, 'merge of archives, mounted by the kernel')
  assertSamePaths(linesOfImage(await mergedDirectories(stack)), wantedOfDirectories, 'merge of directories')
  assertSamePaths(linesOfImage(await builtOverParents(stack, 'tar')), wanted, 'archives over a parent')
  assertSamePaths(
    linesOfImage(await builtOverParents(stack, 'directory')),
    wantedOfDirectories,
    'directories over a parent',
  )
  rmSync(folder, { recursive: true })
}

test('merged layers, and layers built over their parents, show what overlayfs shows', {
  ...PROPERTY_LIMITS,
  skip,
}, async (t) => {
  const top = temporary(t)
  await forSeeds(12, async (random, seed) => await assertStack(random, FEW_NAMES, join(top, String(seed))))
})

test('so do layers of many entries', { ...PROPERTY_LIMITS, skip }, async (t) => {
  const top = temporary(t)
  const count = Number(process.env['PROPERTY_NAMES'] ?? 400)
  await forSeeds(1, async (random, seed) => await assertStack(random, manyNames(count), join(top, String(seed))))
})
