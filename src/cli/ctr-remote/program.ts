import type { Command } from 'commander'
import { Session } from '../../integrations/index.ts'
import manifest from '../../../package.json' with { type: 'json' }
import { addCompletion } from '../completion.ts'
import { goDurationMs } from '../go-duration.ts'
import { createCommand, onOff, value } from '../nydusify/command.ts'
import { ExitError } from '../output.ts'
import { convertCommand } from './convert.ts'
import { optimizeCommand } from './optimize.ts'
import { rpullCommand } from './rpull.ts'

/** What all commands get. */
export interface Context {
  /** Tells what `--debug` wants to know. */
  debug(text: string): void
  /** A connection as the global flags say. */
  open(): Promise<Session>
}

interface GlobalFlags {
  readonly debug?: boolean
  readonly address: string
  readonly timeout?: string
  readonly connectTimeout?: string
  readonly namespace: string
}

const DESCRIPTION = `ctr with pulls for remote snapshotters, conversions to Nydus and recordings of what containers read.
All other commands are those of containerd's ctr, which is run for them.`

const EXAMPLES = `
Examples:
  ctr-remote images rpull docker.io/library/node:24-nydus           then: ctr run --snapshotter nydus …
  ctr-remote -n k8s.io images rpull --plain-http localhost:5000/app:1-nydus
  ctr-remote images ls                                              ctr does this

Global flags come before the command.`

const DEFAULT_CONNECT_MS = 10_000

/** The whole command line. */
export function createProgram(signal: AbortSignal): Command {
  const root = createCommand('ctr-remote', DESCRIPTION)
  root
    .enablePositionalOptions()
    .version(`ctr-remote ${manifest.version}`, '-v, --version', 'print the version')
    .addHelpText('after', EXAMPLES)
    .addOption(onOff('--debug', 'enable debug output in logs'))
    .addOption(
      value('-a, --address <socket>', "address for containerd's GRPC server", {
        env: 'CONTAINERD_ADDRESS',
        fallback: '/run/containerd/containerd.sock',
      }),
    )
    .addOption(value('--timeout <duration>', 'total timeout for the command (30s, 5m)'))
    .addOption(value('--connect-timeout <duration>', 'timeout for connecting to containerd; default 10s'))
    .addOption(
      value('-n, --namespace <name>', 'namespace to use with commands', {
        env: 'CONTAINERD_NAMESPACE',
        fallback: 'default',
      }),
    )
  const images = createCommand('images', 'manage images').aliases(['image', 'i']).enablePositionalOptions()
  images.addHelpText('after', '\nAll other commands of images are those of ctr: see "ctr images --help".')
  const context = contextOf(root, signal)
  for (const command of [rpullCommand(context), convertCommand(context), optimizeCommand(context)])
    images.addCommand(command)
  images.action(() => images.help())
  root.addCommand(images.passThroughOptions())
  addCompletion(root)
  return root.action(() => root.help())
}

/** Long names of all flags without a value. */
export function switchesOf(root: Command): ReadonlySet<string> {
  const commands = [root, ...root.commands, ...root.commands.flatMap((command) => command.commands)]
  const options = commands.flatMap((command) => command.options).filter((option) => option.isBoolean())
  return new Set(options.flatMap(({ long }) => (long == null ? [] : [long.slice(2)])))
}

function contextOf(root: Command, signal: AbortSignal): Context {
  return {
    debug: (text) => {
      if (root.opts<GlobalFlags>().debug === true) process.stderr.write(`${text}\n`)
    },
    open: async () => {
      const flags = root.opts<GlobalFlags>()
      const timeoutMs = flags.timeout === undefined ? undefined : durationOf('timeout', flags.timeout)
      const under = timeoutMs === undefined ? signal : AbortSignal.any([signal, deadline(timeoutMs)])
      return await Session.open(
        {
          address: flags.address.replace(/^unix:\/\//, ''),
          namespace: flags.namespace,
          connectTimeoutMs:
            flags.connectTimeout === undefined
              ? DEFAULT_CONNECT_MS
              : durationOf('connect-timeout', flags.connectTimeout),
        },
        under,
      )
    },
  }
}

function deadline(timeoutMs: number): AbortSignal {
  const over = new AbortController()
  setTimeout(() => over.abort(new ExitError(1, `it took longer than --timeout (${timeoutMs} ms)`)), timeoutMs).unref()
  return over.signal
}

function durationOf(flag: string, text: string): number {
  const ms = goDurationMs(text)
  if (ms === undefined)
    throw new ExitError(1, `invalid value ${JSON.stringify(text)} for flag -${flag}: write it as 30s, 5m or 1h`)
  return ms
}
