import { writeFileSync } from 'node:fs'
import type { Command } from 'commander'
import { recordReads, type Session } from '../../integrations/index.ts'
import { createCommand, onOff, value } from '../nydusify/command.ts'
import { ExitError } from '../output.ts'
import { addImageFlags, type ImageFlags, prefetchPaths, readPrefetchList } from './convert-flags.ts'
import { convertInStore } from './convert-in-store.ts'
import type { Context } from './program.ts'

interface OptimizeFlags extends ImageFlags {
  readonly period: string
  readonly waitOnLine?: string
  readonly optimize?: boolean
  readonly recordOut?: string
  readonly snapshotter: string
  readonly args?: string
  readonly entrypoint?: string
  readonly env?: readonly string[]
  readonly cwd?: string
  readonly user?: string
  readonly netHost?: boolean
}

const MANY = (given: string, before: readonly string[] = []): readonly string[] => [...before, given]
const MAX_PERIOD_S = 24 * 3600

export function optimizeCommand(context: Context): Command {
  const command = createCommand('optimize', 'run an image, and convert it so that nodes fetch first what was read')
    .usage('[flags] <source_ref> <target_ref>')
    .argument('[source_ref]', 'image in the store, unpacked')
    .argument('[target_ref]', 'name of the new one; it replaces an image of that name')
    .addOption(value('--period <seconds>', 'time to run it', { fallback: '10' }))
    .addOption(value('--wait-on-line <text>', 'end earlier, at a line of its output that has this text'))
    .addOption(onOff('--no-optimize', 'convert without a run'))
    .addOption(value('--record-out <file>', 'write what was read here, a path a line; --prefetch-list takes it'))
    .addOption(
      value('--snapshotter <name>', 'snapshotter that has the layers', {
        env: 'CONTAINERD_SNAPSHOTTER',
        fallback: 'overlayfs',
      }),
    )
    .addOption(value('--args <json>', 'command arguments to override (in JSON array)'))
    .addOption(value('--entrypoint <json>', 'entrypoint to override (in JSON array)'))
    .addOption(value('--env <key=value>', 'environment variables to add or override').argParser(MANY))
    .addOption(value('--cwd <path>', 'working directory'))
    .addOption(value('--user <uid[:gid]>', 'user to run it as'))
    .addOption(onOff('--net-host', "use the host's network; without, it has none"))
  addImageFlags(command)
  return command.action(async (source: string | undefined, target: string | undefined, flags: OptimizeFlags) => {
    if (source === undefined || source === '' || target === undefined || target === '')
      throw new ExitError(1, 'src and target image need to be specified')
    if (flags.optimize === false && flags.prefetchList !== undefined)
      throw new ExitError(1, '--no-optimize and --prefetch-list cannot be used together')
    const warn = (line: string): void => void process.stderr.write(`${line}\n`)
    const given = flags.prefetchList === undefined ? undefined : readPrefetchList(flags.prefetchList)
    const run = processOf(flags)
    await using session = await context.open()
    const list = given ?? (flags.optimize === false ? undefined : await record(session, source, run, flags, warn))
    const paths = prefetchPaths(list, warn)
    const digest = await convertInStore(session, { source, target, flags, prefetchPaths: paths, warn })
    process.stdout.write(`${digest}\n`)
  })
}

function processOf(flags: OptimizeFlags) {
  const seconds = Number(flags.period)
  if (!(seconds > 0 && seconds <= MAX_PERIOD_S))
    throw new ExitError(1, `invalid value ${JSON.stringify(flags.period)} for flag -period: write seconds, up to a day`)
  return {
    periodMs: seconds * 1000,
    waitLine: flags.waitOnLine,
    args: listOf('args', flags.args),
    entrypoint: listOf('entrypoint', flags.entrypoint),
    env: flags.env ?? [],
    cwd: flags.cwd,
    user: flags.user,
    usesHostNetwork: flags.netHost === true,
  }
}

async function record(
  session: Session,
  image: string,
  run: ReturnType<typeof processOf>,
  { snapshotter, recordOut }: OptimizeFlags,
  warn: (line: string) => void,
): Promise<Buffer> {
  const onOutput = (text: string): void => void process.stderr.write(text)
  const paths = await recordReads(session, { image, snapshotter, onOutput, ...run })
  warn(`${paths.length} files were read`)
  // A list has a line for each path.
  const lines = paths.filter((path) => !path.includes('\n')).map((path) => `${path}\n`)
  const list = Buffer.from(lines.join(''))
  try {
    if (recordOut !== undefined) writeFileSync(recordOut, list)
  } catch (cause) {
    throw new ExitError(1, `failed output record file: ${(cause as Error).message}`, { cause })
  }
  if (lines.length === 0)
    throw new ExitError(1, 'nothing was read, so that there is nothing to fetch first; try --period')
  return list
}

function listOf(flag: string, text: string | undefined): readonly string[] | undefined {
  if (text === undefined) return undefined
  try {
    const list: unknown = JSON.parse(text)
    if (Array.isArray(list) && list.every((one) => typeof one === 'string')) return list
  } catch {
    // told below
  }
  throw new ExitError(1, `invalid value for flag -${flag}: write a JSON array, as ["sh", "-c", "true"]`)
}
