import { formatReference, MEDIA_TYPES } from '../../registry/index.ts'
import { ANNOTATIONS } from '../annotations.ts'
import { goJson } from '../go-json.ts'
import type { ImagePair, OpenedImage } from '../source-image.ts'
import type { ImageFinding } from './finding.ts'

type Side = ImageFinding['image']

/** What an image says of itself: the layers' kinds, and that there is a diff id for each. */
export function* checkManifests(side: Side, { plain, nydus }: ImagePair): Generator<ImageFinding> {
  for (const image of [plain, nydus]) if (image !== undefined) yield* checkDiffIds(side, image)
  if (nydus !== undefined) yield* checkLayers(side, nydus)
}

/** The run configs (environment, command, user …) of all variants are the source's. */
export function* compareConfigs(source: ImagePair, target: ImagePair): Generator<ImageFinding> {
  const wanted = source.plain ?? source.nydus
  if (wanted === undefined) return
  for (const image of [target.plain, target.nydus]) {
    if (image === undefined) continue
    for (const name of differences(runConfig(wanted), runConfig(image))) {
      yield finding('target', image, `the run config differs from the source's in ${name}`)
    }
  }
}

function* checkDiffIds(side: Side, image: OpenedImage): Generator<ImageFinding> {
  const [diffIds, layers] = [image.config.rootfs.diff_ids.length, image.manifest.layers.length]
  if (diffIds !== layers)
    yield finding(side, image, `invalid diff ids in image config: ${diffIds} (diff ids) != ${layers} (layers)`)
}

function* checkLayers(side: Side, image: OpenedImage): Generator<ImageFinding> {
  for (const { digest, mediaType, annotations } of image.manifest.layers.slice(0, -1)) {
    if (mediaType !== MEDIA_TYPES.ociLayerNydusBlob)
      yield {
        image: side,
        rule: 'manifest',
        object: digest,
        message: `its media type is ${mediaType}, a Nydus blob's is ${MEDIA_TYPES.ociLayerNydusBlob}`,
      }
    if (annotations?.[ANNOTATIONS.blob] !== 'true')
      yield {
        image: side,
        rule: 'manifest',
        object: digest,
        message: `it lacks the annotation ${ANNOTATIONS.blob}: "true"`,
      }
  }
}

/** `ArgsEscaped` is left out: it is for Windows, and old converters dropped it. Other members count only where the specification knows them, for the same reason. */
function runConfig({ config }: OpenedImage): Readonly<Record<string, unknown>> {
  const { ArgsEscaped: _, ...rest } = config.config ?? {}
  return JSON.parse(Buffer.from(goJson('run-config', rest, 'compact')).toString('utf8')) as Record<string, unknown>
}

const KNOWN = ['User', 'ExposedPorts', 'Env', 'Entrypoint', 'Cmd', 'Volumes', 'WorkingDir', 'Labels', 'StopSignal']

function differences(a: Readonly<Record<string, unknown>>, b: Readonly<Record<string, unknown>>): string[] {
  return KNOWN.filter((name) => JSON.stringify(a[name]) !== JSON.stringify(b[name]))
}

function finding(side: Side, image: OpenedImage, message: string): ImageFinding {
  return {
    image: side,
    rule: 'manifest',
    object: `${formatReference(image.repository.reference)} (${image.descriptor.digest})`,
    message,
  }
}
