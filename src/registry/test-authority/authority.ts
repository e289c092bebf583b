import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'

const OPENSSL = 'openssl'

/** For the `skip` of tests that need certificates. */
export const skipWithoutOpenssl =
  spawnSync(OPENSSL, ['version']).error === undefined ? false : 'openssl is not installed'

/** Into the folder: `ca.pem`, and of it `server.{pem,key}` for 127.0.0.1 and server.test, and `client.{pem,key}` for the user `node`. Each call makes another CA. */
export function makeAuthority(folder: string): void {
  const at = (name: string): string => join(folder, name)
  const openssl = (...args: string[]): void => {
    const { status, stderr } = spawnSync(OPENSSL, args, { encoding: 'utf8' })
    assert.equal(status, 0, stderr)
  }
  const request = 'req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'.split(' ')
  openssl(...request, '-x509', '-keyout', at('ca.key'), '-out', at('ca.pem'), '-subj', '/CN=test CA', '-days', '2')
  writeFileSync(at('ext'), 'subjectAltName=IP:127.0.0.1,DNS:server.test\n')
  for (const [name, subject, more] of [
    ['server', '/CN=server.test', ['-extfile', at('ext')]],
    ['client', '/CN=node', []],
  ] as const) {
    openssl(...request, '-keyout', at(`${name}.key`), '-out', at(`${name}.csr`), '-subj', subject)
    const signed = ['-CA', at('ca.pem'), '-CAkey', at('ca.key'), '-CAcreateserial', '-days', '2']
    openssl('x509', '-req', '-in', at(`${name}.csr`), ...signed, ...more, '-out', at(`${name}.pem`))
  }
}
