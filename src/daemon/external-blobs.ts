import { type Backend, BackendError } from '../backend/index.ts'
import { BLOB_FEATURES, type BlobInfo } from '../blob/index.ts'
import { externalSourceOf } from './config/external.ts'
import { DaemonError, messageOf } from './errors.ts'
import type { ImageRequest } from './image.ts'
import { openSource } from './image-backend.ts'
import { FIXED_LOGIN } from './live-login.ts'
import { deadlineSignal } from '../kernel/index.ts'

const LOOK_MS = 10_000
/** The login that the API sets is for the image's own registry: other places have theirs in the configuration. */
const NO_LOGIN = FIXED_LOGIN

/**
 * A backend that takes the external blobs of an image from the first place that has them: the configuration's `external_backends`, then its own. Closing it closes all. An image without such blobs gets its
 * own back. Throws DaemonError when a blob is in none of them; a place that does not answer now counts as one that has it.
 */
export async function withExternalBlobs(
  main: Backend,
  blobs: readonly BlobInfo[],
  { config, proxy }: Pick<ImageRequest, 'config' | 'proxy'>,
): Promise<Backend> {
  const external = blobs.filter(({ features }) => (features & BLOB_FEATURES.EXTERNAL) !== 0)
  if (external.length === 0) return main
  const others: Backend[] = []
  const close = async (): Promise<void> => {
    await Promise.all(others.map((backend) => backend.close()))
  }
  try {
    for (const [position, entry] of config.external_backends.entries())
      others.push(openSource(externalSourceOf(entry, position), NO_LOGIN, proxy).backend)
    const places = new Map<string, Backend>()
    for (const { id } of external) places.set(id, await placeOf(id, [...others, main]))
    return {
      name: main.name,
      open: (id) => (places.get(id) ?? main).open(id),
      close: async () => {
        await close()
        await main.close()
      },
    }
  } catch (error) {
    await close()
    throw error
  }
}

async function placeOf(id: string, backends: readonly Backend[]): Promise<Backend> {
  let silent: Backend | undefined
  const reasons: string[] = []
  for (const backend of backends) {
    try {
      const reader = await backend.open(id)
      try {
        await reader.size(deadlineSignal(LOOK_MS))
      } finally {
        await reader.close()
      }
      return backend
    } catch (error) {
      if (!(error instanceof BackendError)) throw error
      if (error.code !== 'NOT_FOUND') silent ??= backend
      reasons.push(messageOf(error))
    }
  }
  if (silent !== undefined) return silent
  const message = `cannot open the image: the data of external blob ${id} is nowhere: ${reasons.join('; ')}; name the place that has it in "external_backends"`
  throw new DaemonError('IO', message, {
    wire: 'RAFS failed to handle request, Failed to create device: Input/output error (os error 5)`',
  })
}
