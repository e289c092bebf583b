/** What the tests of this folder share. */
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Settings } from '../settings/index.ts'
import { type Credential, PasswordCredential } from './credential.ts'
import type { CredentialLog, CredentialRequest } from './provider.ts'
import { parseReference } from '../../registry/index.ts'
import { imageName } from './image-name.ts'

/** Must not be seen in logs, messages or dumps. */
export const SECRET = 'very:secret:99'

export interface TemporaryFolder {
  readonly path: string
  [Symbol.asyncDispose](): Promise<void>
}

export async function temporaryFolder(): Promise<TemporaryFolder> {
  const path = await mkdtemp(join(tmpdir(), 'credentials-'))
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) }
}

/** Lines in the order in which they were logged. */
export function recordedLog(): CredentialLog & { readonly lines: string[] } {
  const lines: string[] = []
  const log = (line: string): void => void lines.push(line)
  return { lines, debug: log, info: log, warn: log }
}

/** Nothing but labels and Docker is asked. */
export function settings(change: Partial<Settings['remote']['auth']> = {}): Settings['remote']['auth'] {
  return {
    kubeconfig: { enable: false, path: '' },
    cri: { enable: false, imageServiceAddress: '' },
    kubelet: { enable: false, config: '', binDir: '' },
    renewalIntervalMs: 0,
    ...change,
  }
}

/** `user password`, or `token …`. */
export function shown(credential: Credential | undefined): string {
  if (credential === undefined) return 'none'
  return credential instanceof PasswordCredential
    ? `${credential.username} ${credential.password}`
    : `token ${credential.token}`
}

export function request(image: string, validUntilMs = 0): CredentialRequest {
  const reference = parseReference(image)
  return { reference, image: imageName(reference), labels: new Map(), validUntilMs }
}

/** An executable script. */
export async function script(folder: string, name: string, text: string): Promise<void> {
  await mkdir(folder, { recursive: true })
  await writeFile(join(folder, name), `#!/bin/sh\n${text}\n`)
  await chmod(join(folder, name), 0o755)
}
