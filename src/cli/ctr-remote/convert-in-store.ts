import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { convertImage, PushRetry } from '../../convert/index.ts'
import { type Session, StoreRepository } from '../../integrations/index.ts'
import { parseReference } from '../../registry/index.ts'
import { toolVersion } from '../nydus-image/version.ts'
import { ExitError } from '../output.ts'
import { type ImageFlags, imageSettings } from './convert-flags.ts'

/** An image of the store that becomes another one. */
export interface StoreConversion {
  readonly source: string
  readonly target: string
  readonly flags: ImageFlags
  readonly prefetchPaths: readonly string[]
  /** Told of what an image cannot hold. */
  readonly warn: (line: string) => void
}

/** Converts an image of containerd's store to a Nydus image beside it; gives the digest that the new record points to. */
export async function convertInStore(session: Session, conversion: StoreConversion): Promise<string> {
  const { source, flags, prefetchPaths, warn } = conversion
  const target = targetReference(conversion.target)
  const folder = flags.nydusWorkDir ?? (await mkdtemp(join(tmpdir(), 'ctr-remote-')))
  try {
    const { digest } = await convertImage(
      {
        source: new StoreRepository(session, parseReference(source), source),
        target: new StoreRepository(session, target, conversion.target),
        ...imageSettings(flags),
        prefetchPaths,
        dictionary: undefined,
        withReferrer: false,
        isMerged: false,
        graphDriverTag: undefined,
        builderVersion: toolVersion(),
        workDirectory: join(folder, 'blobs'),
        retry: new PushRetry({ count: 0, delayMs: 0, onRetry: () => undefined }),
      },
      {
        onSource: () => undefined,
        onRead: () => undefined,
        onLayer: (_, { warnings }) => warnings.forEach((warning) => warn(warning)),
      },
      session.signal,
    )
    return digest
  } finally {
    if (flags.nydusWorkDir === undefined) await rm(folder, { recursive: true, force: true })
  }
}

function targetReference(name: string): ReturnType<typeof parseReference> {
  const reference = parseReference(name)
  if (reference.tag !== undefined && reference.digest === undefined) return reference
  throw new ExitError(1, `the target ${JSON.stringify(name)} must be a name with a tag, without a digest`)
}
