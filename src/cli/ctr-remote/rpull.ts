import type { Command } from 'commander'
import { type LabelStyle, OpenedSource, pullImage } from '../../integrations/index.ts'
import { parseReference } from '../../registry/index.ts'
import { createCommand, onOff, value } from '../nydusify/command.ts'
import { ExitError } from '../output.ts'
import { dumpHttp, traceHttp } from './http-trace.ts'
import { labelsOf } from './labels.ts'
import type { Context } from './program.ts'
import { addRegistryFlags, registryAccess, type RegistryFlags } from './registry-flags.ts'

interface RpullFlags extends RegistryFlags {
  readonly label?: readonly string[]
  readonly snapshotter: string
  readonly useContainerdLabels?: boolean
  readonly skipContentVerify?: boolean
  readonly ipfs?: boolean
}

const MANY = (given: string, before: readonly string[] = []): readonly string[] => [...before, given]

export function rpullCommand(context: Context): Command {
  const command = createCommand('rpull', 'pull an image from a registry leveraging a remote snapshotter')
    .usage('[flags] <ref>')
    .argument('[ref]', 'image, as docker.io/library/node:24-nydus')
  addRegistryFlags(command)
    .addOption(value('--label <key=value>', 'labels to attach to the image').argParser(MANY))
    .addOption(
      value('--snapshotter <name>', 'snapshotter that gets the layers', {
        env: 'CONTAINERD_SNAPSHOTTER',
        fallback: 'nydus',
      }),
    )
    .addOption(onOff('--use-containerd-labels', 'containerd\'s own labels also for the snapshotter "stargz"'))
    .addOption(onOff('--skip-content-verify', "stargz-snapshotter is not to verify this image's layers"))
    .addOption(onOff('--ipfs', 'not supported').hideHelp())
  return command.action(async (reference: string | undefined, flags: RpullFlags) => {
    if (reference === undefined || reference === '') throw new ExitError(1, 'please provide an image reference to pull')
    if (flags.ipfs === true)
      throw new ExitError(1, '--ipfs is not supported: name an image of a registry and leave it out')
    await run(parseReference(reference), flags, context)
  })
}

async function run(reference: ReturnType<typeof parseReference>, flags: RpullFlags, context: Context): Promise<void> {
  const note = (line: string): void => void process.stderr.write(`${line}\n`)
  if (flags.httpDump === true) dumpHttp(note)
  if (flags.httpTrace === true) traceHttp(note)
  if (flags.skipContentVerify === true) note('content verification disabled')
  const snapshotter = flags.snapshotter === '' ? 'nydus' : flags.snapshotter
  // stargz-snapshotter's own client gives it its own labels, unless it is asked for containerd's.
  const style: LabelStyle = snapshotter === 'stargz' && flags.useContainerdLabels !== true ? 'stargz' : 'containerd'
  await using source = new OpenedSource(reference, await registryAccess(flags))
  await using session = await context.open()
  context.debug(`fetching ${reference.host}/${reference.repository}`)
  await pullImage(session, {
    source,
    snapshotter,
    style,
    skipsVerification: flags.skipContentVerify === true,
    labels: labelsOf(flags.label ?? []),
    onFetch: ({ digest, mediaType }) => void process.stdout.write(`fetching ${digest.slice(0, 15)}... ${mediaType}\n`),
  })
}
