import { referenceTarget, RegistryError, type Repository } from '../registry/index.ts'

/**
 * Finds out how a registry is spoken to, for a configuration that has to say it: HTTPS, or HTTP where that gets no answer. The image's name is resolved on the way. Throws the error of HTTPS
 * when HTTP gets none either.
 */
export async function openWithScheme(
  connect: (scheme: 'https' | 'http') => Repository,
  signal: AbortSignal,
): Promise<{ readonly repository: Repository; readonly scheme: 'https' | 'http' }> {
  const secure = connect('https')
  try {
    await secure.resolve(referenceTarget(secure.reference), { signal })
    return { repository: secure, scheme: 'https' }
  } catch (error) {
    if (!(error instanceof RegistryError) || (error.code !== 'UNREACHABLE' && error.code !== 'TIMEOUT')) throw error
    const plain = connect('http')
    try {
      await plain.resolve(referenceTarget(plain.reference), { signal })
    } catch (second) {
      // What HTTP says is news only when somebody answered.
      throw second instanceof RegistryError && (second.code === 'UNREACHABLE' || second.code === 'TIMEOUT') ? error : second
    }
    return { repository: plain, scheme: 'http' }
  }
}
