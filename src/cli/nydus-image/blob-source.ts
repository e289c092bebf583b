import type { Backend } from '../../backend/index.ts'

/** Where the flags say that blobs are; undefined when they do not say. What reads configurations is loaded only then. */
export async function openBackend(flags: {
  readonly blobDir?: string
  readonly config?: string
}): Promise<Backend | undefined> {
  const { blobDir, config } = flags
  if (config !== undefined) return await (await import('./config.ts')).configuredBackend(config)
  return blobDir === undefined ? undefined : (await import('../../backend/index.ts')).localfsBackend({ dir: blobDir })
}

/** For commands that take a configuration and have no need of blobs: a mistake in it is told all the same. */
export async function checkConfig(path: string | undefined): Promise<void> {
  if (path !== undefined) await (await import('./config.ts')).readSource(path)
}
