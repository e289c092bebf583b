import { join } from 'node:path'
import type { Backend } from '../../backend/index.ts'
import { BuilderError } from '../../builder/index.ts'
import type { Bootstrap } from '../../rafs/index.ts'
import { formatReference, type Platform, RegistryError, type Repository } from '../../registry/index.ts'
import { fetchBootstrapLayer } from '../bootstrap-layer.ts'
import { ConvertError } from '../errors.ts'
import { repositoryBackend } from '../repository-backend.ts'
import { type ImagePair, openPair } from '../source-image.ts'
import { checkImageBootstrap } from './bootstrap-rule.ts'
import { checkData, compareWithNydus, compareWithPlain } from './filesystem-rule.ts'
import type { CheckRule, ImageFinding } from './finding.ts'
import { checkManifests, compareConfigs } from './manifest-rule.ts'
import { emptyOutputFolder, writeBootstrapFiles, writeBootstrapSummary, writeDocuments } from './output-files.ts'

export interface CheckRequest {
  /** Undefined: the target is checked by itself, and its data is not read. */
  readonly source: Repository | undefined
  readonly target: Repository
  /** Where the target's blobs are, when not in its repository. */
  readonly targetBlobs: Backend | undefined
  readonly platform: Platform
  /** The target must be an index with a plain and a Nydus image. */
  readonly wantsBoth: boolean
  /** Emptied first; gets manifests, configs and bootstraps. */
  readonly outputFolder: string
  /** Goes into a result file. */
  readonly version: string
}

/** Told while it runs. */
export interface CheckWatch {
  onRule(rule: CheckRule): void
  /** Bytes of the source's layers and the target's blobs that will be read. */
  onTotal(bytes: number): void
  onRead(bytes: number): void
  onFinding(finding: ImageFinding): void
}

/** An image with its bootstrap, where it has one that can be read. */
interface CheckedImage extends ImagePair {
  readonly bootstrap: Bootstrap | undefined
}

/**
 * Checks a Nydus image, and compares it with the image that it was made from: all that is wrong is reported, and none of it is thrown. Needs no root and mounts nothing: the source's layers are
 * read once, the target's chunks are fetched and verified. Gives the number of findings. Throws what keeps it from looking: 'NO_IMAGE', RegistryError, 'BAD_OPTION', the signal's reason.
 */
export async function checkImage(request: CheckRequest, watch: CheckWatch, signal: AbortSignal): Promise<number> {
  const { source: sourceRepository, target: targetRepository, platform, outputFolder } = request
  let count = 0
  const report = (findings: Iterable<ImageFinding>): void => {
    for (const finding of findings) {
      count += 1
      watch.onFinding(finding)
    }
  }
  const targetPair = await openPair(targetRepository, platform, signal)
  const sourcePair = sourceRepository && (await openPair(sourceRepository, platform, signal))
  await emptyOutputFolder(outputFolder)
  watch.onRule('manifest')
  if (sourcePair !== undefined) report(checkManifests('source', sourcePair))
  report(checkManifests('target', targetPair))
  if (request.wantsBoth) report(missingVariants(targetPair, targetRepository))
  if (sourcePair !== undefined) report(compareConfigs(sourcePair, targetPair))
  watch.onRule('bootstrap')
  const source = sourcePair && (await openChecked('source', sourcePair, request, report, signal))
  const target = await openChecked('target', targetPair, request, report, signal)
  if (source !== undefined) {
    watch.onRule('filesystem')
    await compareFiles(source, target, request, watch, report, signal)
  }
  return count
}

function* missingVariants({ plain, nydus }: ImagePair, { reference }: Repository): Generator<ImageFinding> {
  const missing = (what: string): ImageFinding => ({
    image: 'target',
    rule: 'manifest',
    object: formatReference(reference),
    message: `it is no index with both images: the ${what} one is missing`,
  })
  if (plain === undefined) yield missing('plain')
  if (nydus === undefined) yield missing('Nydus')
}

type Report = (findings: Iterable<ImageFinding>) => void

async function openChecked(
  side: ImageFinding['image'],
  pair: ImagePair,
  request: CheckRequest,
  report: Report,
  signal: AbortSignal,
): Promise<CheckedImage> {
  const folder = join(request.outputFolder, side)
  await writeDocuments(folder, pair)
  const { nydus } = pair
  if (nydus?.bootstrap === undefined) return { ...pair, bootstrap: undefined }
  try {
    const unpacked = await fetchBootstrapLayer(nydus.repository, nydus.bootstrap, signal)
    await writeBootstrapFiles(folder, unpacked)
    const { image, findings } = checkImageBootstrap(side, nydus, unpacked)
    report(findings)
    if (image !== undefined) await writeBootstrapSummary(folder, image, request.version)
    return { ...pair, bootstrap: image }
  } catch (error) {
    if (!saysBadContent(error)) throw error
    report([{ image: side, rule: 'bootstrap', object: nydus.bootstrap.digest, message: error.message }])
    return { ...pair, bootstrap: undefined }
  }
}

async function compareFiles(
  source: CheckedImage,
  target: CheckedImage,
  request: CheckRequest,
  watch: CheckWatch,
  report: Report,
  signal: AbortSignal,
): Promise<void> {
  if (target.bootstrap === undefined) {
    if (target.nydus === undefined) report(comparePlain(source, target))
    return
  }
  const image = target.bootstrap
  const layers = source.plain?.manifest.layers ?? []
  watch.onTotal(
    [...layers, ...image.blobs.map(({ compressedSize }) => ({ size: compressedSize }))].reduce(
      (sum, { size }) => sum + size,
      0,
    ),
  )
  const blobs = request.targetBlobs ?? repositoryBackend(request.target)
  for await (const finding of checkData(image, counting(blobs, watch), signal)) report([finding])
  if (source.plain !== undefined) report(await comparePlainSource(source.plain, image, watch, signal))
  else if (source.bootstrap !== undefined) report(compareWithNydus(source.bootstrap, image))
}

/** A source that cannot be read as it says is a finding of the source, and says nothing of the target. */
async function comparePlainSource(
  plain: NonNullable<ImagePair['plain']>,
  image: Bootstrap,
  watch: CheckWatch,
  signal: AbortSignal,
): Promise<ImageFinding[]> {
  try {
    return await compareWithPlain(plain, image, (bytes) => watch.onRead(bytes), signal)
  } catch (error) {
    if (!saysBadContent(error)) throw error
    return [{ image: 'source', rule: 'filesystem', object: plain.descriptor.digest, message: error.message }]
  }
}

/** Errors that tell something of the image, not of the way to it. */
function saysBadContent(error: unknown): error is Error {
  if (error instanceof ConvertError) return error.code === 'BAD_IMAGE'
  if (error instanceof BuilderError) return error.code === 'BAD_SOURCE' || error.code === 'TOO_LARGE'
  return error instanceof RegistryError && (error.code === 'DIGEST_MISMATCH' || error.code === 'NOT_FOUND')
}

/** Two plain images show the same when they are made of the same layers; an empty one in front makes no difference. */
function* comparePlain({ plain: source }: CheckedImage, { plain: target }: CheckedImage): Generator<ImageFinding> {
  const diffIds = target?.config.rootfs.diff_ids ?? []
  const wanted = source?.config.rootfs.diff_ids ?? []
  if (wanted.join() === diffIds.slice(-wanted.length).join()) return
  yield {
    image: 'target',
    rule: 'filesystem',
    object: target?.descriptor.digest ?? '',
    message: 'the target is no Nydus image, and its layers are not those of the source',
  }
}

function counting(backend: Backend, watch: CheckWatch): Backend {
  return {
    name: backend.name,
    close: () => backend.close(),
    open: async (blobId) => {
      const reader = await backend.open(blobId)
      return {
        size: (signal) => reader.size(signal),
        close: () => reader.close(),
        read: async (compressedOffset, into, options) => {
          await reader.read(compressedOffset, into, options)
          watch.onRead(into.length)
        },
      }
    },
  }
}
