import { readFileSync } from 'node:fs'
import type { ClientOptions } from '../../registry/index.ts'
import { SnapshotterError } from '../errors.ts'
import { registryConfig } from '../registry-config.ts'

/** How registries are spoken to when images are looked for: as nydusd will read them. */
export type RegistryAccess = Pick<ClientOptions, 'plainHttp' | 'skipVerify'> & { readonly ca?: string }

/**
 * From the template of nydusd's configuration, a JSON document of any of its shapes: `skip_verify` also lets plain HTTP be tried where no TLS is spoken, `scheme: "http"` means plain HTTP, `ca_cert_files`
 * are trusted too. With other drivers than `fusedev` and `fscache` it is `remote.skip_ssl_verify` that counts. Throws SnapshotterError 'BAD_CONFIG' for certificates that cannot be read.
 */
export function registryAccess(
  template: unknown,
  of: { readonly fsDriver: string; readonly skipSslVerify: boolean },
): RegistryAccess {
  const backend = registryConfig(template)
  const isOfTemplate = of.fsDriver === 'fusedev' || of.fsDriver === 'fscache'
  const skipVerify = isOfTemplate ? backend['skip_verify'] === true : of.skipSslVerify
  const files = Array.isArray(backend['ca_cert_files']) ? backend['ca_cert_files'] : []
  const ca = files.filter((file) => typeof file === 'string').map(readCertificates)
  return {
    skipVerify,
    plainHttp: backend['scheme'] === 'http' ? 'always' : skipVerify ? 'fallback' : 'localhost',
    ...(ca.length === 0 ? {} : { ca: ca.join('\n') }),
  }
}

function readCertificates(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    throw new SnapshotterError('BAD_CONFIG', `cannot read ${path} of ca_cert_files in daemon.nydusd_config: ${code}`, {
      cause: error,
    })
  }
}
