/** `nydus-registry`: the embedded registry as a program. */
import { readFileSync } from 'node:fs'
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander'
import manifest from '../../package.json' with { type: 'json' }
import type { RegistryServerOptions, ServerAuth } from '../registry/index.ts'
import { RegistryError, startRegistry } from '../registry/index.ts'
import { addCompletion } from './completion.ts'

interface ServeFlags {
  readonly root: string
  readonly listen: { readonly host: string; readonly port: number }
  readonly htpasswd?: Readonly<Record<string, string>>
  readonly tokenAuth?: boolean
  readonly anonymousPull?: boolean
  readonly tlsCert?: string
  readonly tlsKey?: string
  readonly latency?: number
  readonly bandwidth?: number
}

const HELP = `
Examples:
  nydus-registry serve --root ./registry                       on http://127.0.0.1:5000
  nydus-registry serve --root ./registry --listen 0.0.0.0:5000 --tls-cert cert.pem --tls-key key.pem --htpasswd me:secret
  nydus-registry serve --root ./registry --latency 20 --bandwidth 100   as slow as a far registry

Then push and pull under HOST:PORT/NAME:TAG, for example 127.0.0.1:5000/library/node:24.
The store is a plain folder; stop with Ctrl-C or SIGTERM. One server at a time may use a folder.`

function parseListen(text: string): { host: string; port: number } {
  const match = /^(?:(?<host>[^:[\]]*)|\[(?<v6>[0-9a-fA-F:.]+)\]):(?<port>\d{1,5})$/.exec(text)
  const port = Number(match?.groups?.['port'])
  if (match === null || port > 65_535) throw new InvalidArgumentError('write it as HOST:PORT, :PORT or [IPV6]:PORT.')
  return { host: match.groups?.['v6'] ?? (match.groups?.['host'] || '0.0.0.0'), port }
}

function parseUser(text: string, before: Readonly<Record<string, string>> = {}): Record<string, string> {
  const colon = text.indexOf(':')
  if (colon < 1) throw new InvalidArgumentError('write it as USER:PASSWORD.')
  return { ...before, [text.slice(0, colon)]: text.slice(colon + 1) }
}

function parsePositive(text: string): number {
  const value = Number(text)
  if (!Number.isFinite(value) || value <= 0) throw new InvalidArgumentError('write a number above 0.')
  return value
}

function authOf(flags: ServeFlags): ServerAuth | undefined {
  const { htpasswd: users } = flags
  if (users === undefined) {
    if (flags.tokenAuth === true || flags.anonymousPull === true)
      throw new RegistryError(
        'BAD_CONFIG',
        '--token-auth and --anonymous-pull need users: give --htpasswd USER:PASSWORD',
      )
    return undefined
  }
  if (flags.tokenAuth !== true) {
    if (flags.anonymousPull === true)
      throw new RegistryError('BAD_CONFIG', '--anonymous-pull works with tokens: add --token-auth')
    return { kind: 'basic', users }
  }
  return { kind: 'bearer', users, tokenLifeMs: 300_000, anonymousPull: flags.anonymousPull ?? false }
}

function readPem(path: string, flag: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    throw new RegistryError('BAD_CONFIG', `cannot read ${flag} ${path}: ${(error as NodeJS.ErrnoException).code}`, {
      cause: error,
    })
  }
}

function tlsOf(flags: ServeFlags): { key: string; cert: string } | undefined {
  if (flags.tlsCert === undefined && flags.tlsKey === undefined) return undefined
  if (flags.tlsCert === undefined || flags.tlsKey === undefined)
    throw new RegistryError('BAD_CONFIG', 'HTTPS needs both --tls-cert and --tls-key')
  return { cert: readPem(flags.tlsCert, '--tls-cert'), key: readPem(flags.tlsKey, '--tls-key') }
}

async function serve(flags: ServeFlags): Promise<void> {
  const auth = authOf(flags)
  const tls = tlsOf(flags)
  const options: RegistryServerOptions = {
    root: flags.root,
    ...flags.listen,
    ...(auth === undefined ? {} : { auth }),
    ...(tls === undefined ? {} : { tls }),
    ...(flags.latency === undefined ? {} : { latencyMs: flags.latency }),
    // Mbit/s on the command line, bytes a second inside.
    ...(flags.bandwidth === undefined ? {} : { bytesPerSecond: (flags.bandwidth * 1_000_000) / 8 }),
    onError: (line) => process.stderr.write(`nydus-registry: ${line}\n`),
  }
  const server = await startRegistry(options)
  process.stdout.write(`serving ${flags.root} on ${server.url}\n`)
  await new Promise<void>((resolve) => {
    process.once('SIGINT', resolve)
    process.once('SIGTERM', resolve)
  })
  await server.close()
}

function program(): Command {
  const root = new Command('nydus-registry')
    .description('A small OCI registry: for demos, tests and small sites.')
    .version(`v${manifest.version}`, '-V, --version', 'print the version')
    .exitOverride()
    .addHelpText('after', HELP)
  root
    .command('serve')
    .description('Serves a folder as an OCI registry (pull, push, delete, mounts, referrers).')
    .requiredOption('--root <dir>', 'folder of the store; made if absent')
    .addOption(
      new Option('--listen <address>', 'HOST:PORT, :PORT for all addresses')
        .argParser(parseListen)
        .default({ host: '127.0.0.1', port: 5000 }, '127.0.0.1:5000'),
    )
    .option('--htpasswd <user:password>', 'asks for this login; may be given more than once', parseUser)
    .option('--token-auth', 'logins by bearer tokens of 5 minutes instead of Basic')
    .option('--anonymous-pull', 'everybody may pull; with --token-auth')
    .option('--tls-cert <file>', 'PEM certificate (chain): HTTPS')
    .option('--tls-key <file>', 'PEM key of the certificate')
    .option('--latency <ms>', 'waits so long before each answer', parsePositive)
    .option('--bandwidth <mbit>', 'all bodies together run at so many Mbit/s', parsePositive)
    .addHelpText('after', HELP)
    .action(serve)
  addCompletion(root)
  return root
}

async function main(): Promise<void> {
  try {
    await program().parseAsync()
  } catch (error) {
    if (error instanceof CommanderError) {
      process.exitCode = error.exitCode === 0 ? 0 : 2
      return
    }
    if (!(error instanceof RegistryError)) throw error
    process.stderr.write(`nydus-registry: ${error.message}\n`)
    process.exitCode = 1
  }
}

void main()
