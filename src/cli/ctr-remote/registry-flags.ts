import { readFileSync } from 'node:fs'
import type { Command } from 'commander'
import type { RegistryAccess } from '../../integrations/index.ts'
import { type CredentialSource, fromDockerConfig, fromIdentityToken, fromPassword } from '../../registry/index.ts'
import { onOff, value } from '../nydusify/command.ts'
import { ExitError } from '../output.ts'
import { askSecret } from './ask-secret.ts'

/** Flags of ctr that say how registries are reached. */
export interface RegistryFlags {
  readonly skipVerify?: boolean
  readonly plainHttp?: boolean
  readonly user?: string
  readonly refresh?: string
  readonly hostsDir?: string
  readonly tlscacert?: string
  readonly tlscert?: string
  readonly tlskey?: string
  readonly httpDump?: boolean
  readonly httpTrace?: boolean
}

export function addRegistryFlags(command: Command): Command {
  return command
    .addOption(onOff('-k, --skip-verify', 'skip SSL certificate validation'))
    .addOption(onOff('--plain-http', 'allow connections using plain HTTP'))
    .addOption(value('-u, --user <user[:password]>', 'registry user and password; without, "docker login" counts'))
    .addOption(value('--refresh <token>', 'refresh token for authorization server'))
    .addOption(value('--hosts-dir <folder>', 'custom hosts configuration directory'))
    .addOption(value('--tlscacert <file>', 'path to TLS root CA'))
    .addOption(value('--tlscert <file>', 'path to TLS client certificate'))
    .addOption(value('--tlskey <file>', 'path to TLS client key'))
    .addOption(onOff('--http-dump', 'show heads of all HTTP requests and responses, without secrets'))
    .addOption(onOff('--http-trace', 'show DNS and connections to registries'))
}

/** Throws ExitError for flags that cannot be used. */
export async function registryAccess(flags: RegistryFlags): Promise<RegistryAccess> {
  const { tlscacert, tlscert, tlskey } = flags
  if ((tlscert === undefined) !== (tlskey === undefined))
    throw new ExitError(1, 'flags --tlscert and --tlskey must be set together')
  return {
    credentials: await credentialsOf(flags),
    plainHttp: flags.plainHttp === true,
    skipVerify: flags.skipVerify === true,
    ca: tlscacert === undefined ? undefined : pem(tlscacert),
    clientCertificate:
      tlscert === undefined || tlskey === undefined ? undefined : { cert: pem(tlscert), key: pem(tlskey) },
    hostsDirectory: flags.hostsDir === '' ? undefined : flags.hostsDir,
  }
}

async function credentialsOf({ user = '', refresh = '' }: RegistryFlags): Promise<CredentialSource> {
  const colon = user.indexOf(':')
  const name = colon > 0 ? user.slice(0, colon) : user
  if (name !== '') return fromPassword(name, colon > 0 ? user.slice(colon + 1) : await askSecret('Password: '))
  return refresh === '' ? fromDockerConfig() : fromIdentityToken('', refresh)
}

function pem(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (cause) {
    throw new ExitError(1, `failed to read ${JSON.stringify(path)}: ${(cause as Error).message}`, { cause })
  }
}
