import { fileURLToPath } from 'node:url'
import { existsSync } from 'node:fs'
import type { Command } from 'commander'
import { mountImage, type MountRequest, openWithScheme } from '../../convert/index.ts'
import { formatPlatform, fromDockerConfig, hostPlatform, type Reference } from '../../registry/index.ts'
import { exitCodeOf } from '../output.ts'
import { parseConfig, storageFlags } from './backend-flags.ts'
import { checkedPlatform, pick } from './check.ts'
import { type CommandContext, createCommand, onOff, requireFlags, value } from './command.ts'
import { Connections, imageName } from './connections.ts'
import type { Log } from './log.ts'

interface MountFlags {
  readonly target: string
  readonly targetInsecure?: boolean
  readonly backendType?: string
  readonly backendConfig?: string
  readonly backendConfigFile?: string
  readonly prefetch?: boolean
  readonly mountPath: string
  readonly platform: string
  readonly workDir: string
  readonly nydusd?: string
}

const EXAMPLES = `
Examples:
  nydusify mount --target localhost:5000/app:1-nydus --mount-path ./image-fs     until Ctrl-C
  nydusify mount --target IMAGE --prefetch                                       and fetches all of it meanwhile

Needs root and /dev/fuse. --work-dir is EMPTIED first and removed at the end.`

export function mountCommand(context: CommandContext): Command {
  const command = createCommand('mount', 'Mount the nydus image as a filesystem')
    .alias('view')
    .addHelpText('after', EXAMPLES)
  command
    .addOption(value('--target <reference>', 'Target (Nydus) image reference', { env: 'TARGET' }))
    .addOption(onOff('--target-insecure', 'Skip verifying server certs for HTTPS target registry', 'TARGET_INSECURE'))
    .addOption(
      value('--backend-type <type>', "Where the image's blobs are when not in its registry: localfs, oss or s3", {
        env: 'BACKEND_TYPE',
      }),
    )
    .addOption(
      value('--backend-config <json>', 'Its configuration, such as {"dir": "FOLDER"}', { env: 'BACKEND_CONFIG' }),
    )
    .addOption(value('--backend-config-file <file>', 'The same in a file', { env: 'BACKEND_CONFIG_FILE' }))
    .addOption(onOff('--prefetch', 'Enable full image data prefetch', 'PREFETCH'))
    .addOption(value('--mount-path <folder>', 'Path to mount the image', { env: 'MOUNT_PATH', fallback: './image-fs' }))
    .addOption(value('--platform <os/arch>', 'Which image of an index', { fallback: formatPlatform(hostPlatform()) }))
    .addOption(
      value('--work-dir <folder>', 'Working directory; EMPTIED first, removed at the end', {
        env: 'WORK_DIR',
        fallback: './tmp',
      }),
    )
    .addOption(value('--nydusd <path>', 'The nydusd program; by default the one of this package', { env: 'NYDUSD' }))
  return command.action(async (flags: MountFlags) => {
    requireFlags(command, ['target'])
    const log = context.openLog()
    try {
      await run(flags, log, context.signal)
    } finally {
      log.close()
    }
  })
}

async function run(flags: MountFlags, log: Log, signal: AbortSignal): Promise<void> {
  const storage = storageFlags('', pick(flags.backendType, flags.backendConfig, flags.backendConfigFile))
  const platform = checkedPlatform(flags.platform)
  const reference = imageName(flags.target, 'target')
  const insecure = flags.targetInsecure === true
  await using connections = new Connections()
  const { repository, scheme } = await openWithScheme(
    (mode) =>
      mode === 'either'
        ? connections.open(reference, { insecure, plainHttp: 'fallback' })
        : connections.openOnce(reference, insecure),
    signal,
  )
  const request: MountRequest = {
    target: repository,
    platform,
    mountPath: flags.mountPath,
    workDirectory: flags.workDir,
    nydusd: flags.nydusd ?? ownNydusd(),
    storage:
      storage === undefined
        ? { type: 'registry', config: await registryConfig(reference, scheme, insecure) }
        : { type: storage.type, config: parseConfig(storage.config, '--backend-type') },
    prefetch: flags.prefetch === true,
  }
  log.info(`Mounting Nydus image to ${flags.mountPath}`)
  try {
    await mountImage(
      request,
      { onMounted: () => log.info('Please send signal SIGINT/SIGTERM to umount the file system') },
      signal,
    )
  } catch (error) {
    if (!signal.aborted) throw error
  }
  // Ctrl-C is how a mount ends: no failure.
  if (signal.aborted && exitCodeOf(signal.reason) >= 128) log.info('umounted')
}

/** What nydusd needs to read from the registry; the login stays in a file that only we can read. */
async function registryConfig(reference: Reference, scheme: string, insecure: boolean): Promise<object> {
  const login = await fromDockerConfig()(reference.host)
  const auth =
    login.kind === 'basic' ? Buffer.from(`${login.username}:${login.password.reveal()}`).toString('base64') : undefined
  const host = reference.host === 'docker.io' ? 'registry-1.docker.io' : reference.host
  return {
    scheme,
    host,
    repo: reference.repository,
    ...(auth === undefined ? {} : { auth }),
    ...(insecure ? { skip_verify: true } : {}),
  }
}

/** The launcher of this package: the bundle lies one folder below the package, the source three. */
function ownNydusd(): string {
  const places = ['../bin/nydusd', '../../../bin/nydusd'].map((path) => fileURLToPath(new URL(path, import.meta.url)))
  return places.find((path) => existsSync(path)) ?? 'nydusd'
}
