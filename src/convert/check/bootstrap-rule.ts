import { checkBootstrap } from '../../builder/index.ts'
import { type Bootstrap, openBootstrap } from '../../rafs/index.ts'
import { digestHex } from '../../registry/index.ts'
import { ANNOTATIONS } from '../annotations.ts'
import type { UnpackedBootstrap } from '../bootstrap-layer.ts'
import type { OpenedImage } from '../source-image.ts'
import type { ImageFinding } from './finding.ts'

/** A Nydus image with its bootstrap; undefined when that is not one. */
export interface CheckedBootstrap {
  readonly image: Bootstrap | undefined
  readonly findings: readonly ImageFinding[]
}

/** The bootstrap's own checks, and what it and the manifest say of each other. */
export function checkImageBootstrap(
  side: ImageFinding['image'],
  opened: OpenedImage,
  unpacked: UnpackedBootstrap,
): CheckedBootstrap {
  const layer = opened.bootstrap?.digest ?? ''
  const findings: ImageFinding[] = []
  const add = (object: string, message: string): void =>
    void findings.push({ image: side, rule: 'bootstrap', object, message })
  const wanted = opened.config.rootfs.diff_ids.at(-1)
  if (wanted !== unpacked.diffId)
    add(layer, `invalid bootstrap layer diff id: ${unpacked.diffId} (calculated) != ${wanted} (in image config)`)
  let image: Bootstrap
  try {
    image = openBootstrap(unpacked.bootstrap)
  } catch (error) {
    add(layer, (error as Error).message)
    return { image: undefined, findings }
  }
  const version = opened.bootstrap?.annotations?.[ANNOTATIONS.fsVersion]
  if (version !== undefined && version !== String(image.version))
    add(layer, `the manifest says RAFS v${version}, the bootstrap is v${image.version}`)
  for (const { object, message } of checkBootstrap(image)) add(object, message)
  findings.push(...lostBlobs(side, opened, image))
  return { image, findings }
}

/** Blobs that the manifest does not name cannot be pulled, and a registry may delete them. References to plain layers, and blobs in another storage, are not in it. */
function* lostBlobs(side: ImageFinding['image'], { manifest }: OpenedImage, image: Bootstrap): Generator<ImageFinding> {
  const named = manifest.layers.slice(0, -1)
  if (named.length === 0 || named.some(({ annotations }) => annotations?.[ANNOTATIONS.reference] !== undefined)) return
  const ids = new Set(named.map(({ digest }) => digestHex(digest)))
  for (const { id } of image.blobs) {
    if (!ids.has(id))
      yield {
        image: side,
        rule: 'bootstrap',
        object: id,
        message: 'the bootstrap refers to this blob, and no layer of the manifest is it',
      }
  }
}
