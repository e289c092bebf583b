import { referenceTarget, RegistryError, type Repository } from '../registry/index.ts'

/** How to connect: to whatever the registry speaks, or with one try of HTTPS. */
export type ConnectMode = 'either' | 'https-once'

/**
 * Opens a repository and finds out whether its registry speaks HTTPS or plain HTTP, for a configuration that has to say it. The image's name is resolved on the way. Throws RegistryError.
 */
export async function openWithScheme(
  connect: (mode: ConnectMode) => Repository,
  signal: AbortSignal,
): Promise<{ readonly repository: Repository; readonly scheme: 'https' | 'http' }> {
  const repository = connect('either')
  const name = referenceTarget(repository.reference)
  await repository.resolve(name, { signal })
  try {
    await connect('https-once').resolve(name, { signal })
    return { repository, scheme: 'https' }
  } catch (error) {
    // Somebody answered a moment ago, and it was not by HTTPS.
    if (error instanceof RegistryError && error.code === 'UNREACHABLE') return { repository, scheme: 'http' }
    throw error
  }
}
