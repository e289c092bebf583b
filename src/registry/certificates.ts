import { X509Certificate } from 'node:crypto'
import { RegistryError } from './errors.ts'

/** Throws 'BAD_CONFIG' unless the text holds one PEM certificate or more: TLS itself takes anything and then trusts nothing. */
export function checkCertificates(pem: string): void {
  const blocks =
    pem.match(/-----BEGIN (?:TRUSTED )?CERTIFICATE-----[\s\S]*?-----END (?:TRUSTED )?CERTIFICATE-----/g) ?? []
  if (blocks.length === 0)
    throw new RegistryError(
      'BAD_CONFIG',
      'cannot use CA: there is no "BEGIN CERTIFICATE" in it; give the PEM text of the certificate',
    )
  for (const [index, block] of blocks.entries()) {
    try {
      void new X509Certificate(block)
    } catch (error) {
      throw new RegistryError('BAD_CONFIG', `cannot use CA: certificate ${index + 1} of ${blocks.length} is damaged`, {
        cause: error,
      })
    }
  }
}
