import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { CommanderError } from 'commander'
import manifest from '../../../package.json' with { type: 'json' }
import { GraphDriverPlugin } from '../../integrations/graph-driver/index.ts'
import { addCompletion } from '../completion.ts'
import { createCommand, value } from '../nydusify/command.ts'
import { createOutput, ExitError, runTool } from '../output.ts'

interface Flags {
  readonly socket: string
  readonly config?: string
  readonly state: string
  readonly nydusd?: string
}

const HELP = `
Examples:
  nydus-docker-graphdriver &
  dockerd --experimental --storage-driver nydus

It runs until SIGTERM or Ctrl-C. Mounts of containers stay; start it again and they are found.`

/** Runs one command line; the exit code is the process's. */
export async function main(argv: readonly string[]): Promise<void> {
  await runTool(createOutput('none'), async (signal) => {
    const program = createCommand(
      'nydus-docker-graphdriver',
      'Storage driver plugin of Docker up to 23: ordinary and Nydus images',
    )
      .version(`nydus-docker-graphdriver ${manifest.version}`, '-v, --version', 'print the version')
      .addHelpText('after', HELP)
      .addOption(
        value('--socket <path>', 'where dockerd looks for the plugin; its name is that of the storage driver', {
          fallback: '/run/docker/plugins/nydus.sock',
        }),
      )
      .addOption(value('--config <file>', "nydusd's configuration for Nydus images, JSON"))
      .addOption(
        value('--state <file>', 'what dockerd said at its start is kept here', {
          fallback: '/var/lib/nydus/graphdriver.json',
        }),
      )
      .addOption(value('--nydusd <path>', "nydusd to run; default: this package's"))
    addCompletion(program)
    program.allowExcessArguments(false).action(async (flags: Flags) => await serve(flags, signal))
    try {
      await program.parseAsync(argv, { from: 'user' })
    } catch (error) {
      if (!(error instanceof CommanderError)) throw error
      if (error.exitCode !== 0) throw new ExitError(2, error.message.replace(/^error: /, ''))
    }
  })
}

async function serve(flags: Flags, signal: AbortSignal): Promise<void> {
  const log = (line: string): void => void process.stderr.write(`${new Date().toISOString()} ${line}\n`)
  const home = packageHome()
  const plugin = await GraphDriverPlugin.start({
    socket: flags.socket,
    stateFile: flags.state,
    nydusd: flags.nydusd ?? join(home, 'bin/nydusd'),
    overlayHelper: join(home, 'bin/nydus-overlayfs'),
    config: flags.config,
    log,
  })
  log(`listens on ${flags.socket}`)
  await new Promise<void>((resolve) => {
    signal.addEventListener('abort', () => resolve(), { once: true })
    if (signal.aborted) resolve()
  })
  await plugin.close()
}

/** The folder of this package: above the bundle, or above the sources. */
function packageHome(): string {
  for (let at = import.meta.dirname; ; at = dirname(at)) {
    if (existsSync(join(at, 'bin/nydus-overlayfs'))) return at
    if (at === '/') throw new ExitError(1, 'bin/nydus-overlayfs of this package is missing; install it again')
  }
}
