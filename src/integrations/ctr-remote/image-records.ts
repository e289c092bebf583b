import { ContainerdError } from '../../containerd/index.ts'
import { type Descriptor, parseDigest } from '../../registry/index.ts'
import { IntegrationError } from '../errors.ts'
import type { Session } from './session.ts'

/** Enough for an image that others remove and make at the same time. */
const TRIES = 10

/** Makes the image, or lets it point to this from now on. */
export async function putImage(
  session: Session,
  image: { readonly name: string; readonly target: Descriptor; readonly labels: Readonly<Record<string, string>> },
): Promise<void> {
  const { name, labels } = image
  const { mediaType, digest, size, annotations = {} } = image.target
  const record = { name, labels, target: { mediaType, digest, size: BigInt(size), annotations } }
  for (let tries = 1; ; tries += 1)
    try {
      await session.images.create({ image: record }, session.soon)
      return
    } catch (error) {
      if (!hasCode(error, 'ALREADY_EXISTS') || tries === TRIES) throw error
      try {
        await session.images.update({ image: record }, session.soon)
        return
      } catch (gone) {
        if (!hasCode(gone, 'NOT_FOUND')) throw gone
      }
    }
}

/** What an image points to. Throws 'NOT_FOUND'. */
export async function imageTarget(session: Session, name: string): Promise<Descriptor> {
  try {
    const { image } = await session.images.get({ name }, session.soon)
    const { mediaType = '', digest = '', size = 0n, annotations = {} } = image?.target ?? {}
    return { mediaType, digest: parseDigest(digest), size: Number(size), annotations }
  } catch (error) {
    if (!hasCode(error, 'NOT_FOUND')) throw error
    throw new IntegrationError(
      'NOT_FOUND',
      `image "${name}": not found in containerd's namespace; pull it first, or name the namespace with -n`,
      { cause: error },
    )
  }
}

function hasCode(error: unknown, code: ContainerdError['code']): boolean {
  return error instanceof ContainerdError && error.code === code
}
