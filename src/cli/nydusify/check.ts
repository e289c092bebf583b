import type { Command } from 'commander'
import { checkImage, type CheckRequest, ConvertError, type ImageFinding } from '../../convert/index.ts'
import { formatPlatform, formatReference, hostPlatform, type Platform } from '../../registry/index.ts'
import { toolVersion } from '../nydus-image/version.ts'
import { createOutput, ExitError } from '../output.ts'
import { openStorage, storageFlags } from './backend-flags.ts'
import {
  type CommandContext,
  createCommand,
  onOff,
  type ProgressFlags,
  progressOption,
  requireFlags,
  value,
} from './command.ts'
import { Connections, imageName } from './connections.ts'
import type { Log } from './log.ts'

interface CheckFlags extends ProgressFlags {
  readonly source?: string
  readonly target: string
  readonly sourceInsecure?: boolean
  readonly targetInsecure?: boolean
  readonly sourceBackendType?: string
  readonly sourceBackendConfig?: string
  readonly sourceBackendConfigFile?: string
  readonly targetBackendType?: string
  readonly targetBackendConfig?: string
  readonly targetBackendConfigFile?: string
  readonly multiPlatform?: boolean
  readonly platform: string
  readonly workDir: string
  readonly json?: boolean
}

const EXAMPLES = `
Examples:
  nydusify check --target localhost:5000/app:1-nydus                                     manifest and bootstrap
  nydusify check --source localhost:5000/app:1 --target localhost:5000/app:1-nydus       and every file of both
  nydusify check --source IMAGE --target IMAGE --json | jq .findings

Nothing is mounted and no root is needed. All that is wrong is shown; the exit code is 1 then.
--work-dir is EMPTIED first; afterwards it holds the manifests, configs and bootstraps of both images.`

export function checkCommand(context: CommandContext): Command {
  const command = createCommand('check', 'Verify nydus image format and content').addHelpText('after', EXAMPLES)
  addCheckOptions(command)
  return command.action(async (flags: CheckFlags) => {
    requireFlags(command, ['target'])
    const log = context.openLog()
    try {
      await run(flags, log, context.signal)
    } finally {
      log.close()
    }
  })
}

function addCheckOptions(command: Command): void {
  command
    .addOption(value('--source <reference>', 'Source OCI image reference', { env: 'SOURCE' }))
    .addOption(value('--target <reference>', 'Target (Nydus) image reference', { env: 'TARGET' }))
    .addOption(onOff('--source-insecure', 'Skip verifying server certs for HTTPS source registry', 'SOURCE_INSECURE'))
    .addOption(onOff('--target-insecure', 'Skip verifying server certs for HTTPS target registry', 'TARGET_INSECURE'))
    .addOption(
      value(
        '--target-backend-type <type>',
        "Where the target's blobs are when not in its registry: localfs, oss or s3",
        {
          env: 'BACKEND_TYPE',
        },
      ),
    )
    .addOption(
      value('--target-backend-config <json>', 'Its configuration, such as {"dir": "FOLDER"}', {
        env: 'BACKEND_CONFIG',
      }),
    )
    .addOption(value('--target-backend-config-file <file>', 'The same in a file', { env: 'BACKEND_CONFIG_FILE' }))
    .addOption(
      onOff(
        '--multi-platform',
        'Verify that the image contains an image index with both OCI and Nydus manifests',
        'MULTI_PLATFORM',
      ),
    )
    .addOption(value('--platform <os/arch>', 'Which image of an index', { fallback: formatPlatform(hostPlatform()) }))
    .addOption(
      value('--work-dir <folder>', 'Folder for the results; EMPTIED first', { env: 'WORK_DIR', fallback: './output' }),
    )
    .addOption(onOff('--json', 'Print the findings as one JSON object on stdout'))
    .addOption(progressOption())
    .addOption(value('--nydus-image <path>', 'Accepted and not needed', { env: 'NYDUS_IMAGE' }))
    .addOption(value('--nydusd <path>', 'Accepted and not needed', { env: 'NYDUSD' }))
  for (const flags of [
    '--source-backend-type <type>',
    '--source-backend-config <json>',
    '--source-backend-config-file <file>',
  ])
    command.addOption(value(flags, 'Not needed: plain images are in the registry').hideHelp())
}

async function run(flags: CheckFlags, log: Log, signal: AbortSignal): Promise<void> {
  storageFlags('source-', pick(flags.sourceBackendType, flags.sourceBackendConfig, flags.sourceBackendConfigFile))
  const storage = storageFlags(
    'target-',
    pick(flags.targetBackendType, flags.targetBackendConfig, flags.targetBackendConfigFile),
  )
  const platform = checkedPlatform(flags.platform)
  await using connections = new Connections()
  const open = (name: string, what: string, insecure = false): ReturnType<Connections['open']> =>
    connections.open(imageName(name, what), { insecure, plainHttp: 'fallback' })
  const target = open(flags.target, 'target', flags.targetInsecure)
  const source = flags.source ? open(flags.source, 'source', flags.sourceInsecure) : undefined
  const request: CheckRequest = {
    source,
    target,
    targetBlobs: storage && (await openStorage(storage, '--target-backend-type')),
    platform,
    wantsBoth: flags.multiPlatform === true,
    outputFolder: flags.workDir,
    version: toolVersion(),
  }
  const findings = await checkWatched(request, flags, log, signal)
  if (flags.json === true) createOutput('none').json({ ok: findings.length === 0, findings })
  if (findings.length === 0) log.info('verified image', { image: formatReference(target.reference) })
  else throw new ConvertError('CHECK_FAILED', summaryOf(findings))
}

async function checkWatched(
  request: CheckRequest,
  flags: CheckFlags,
  log: Log,
  signal: AbortSignal,
): Promise<readonly ImageFinding[]> {
  const findings: ImageFinding[] = []
  const image = formatReference(request.target.reference)
  const output = createOutput(log.shows('info') ? flags.progress : 'none')
  const progress = output.progress('checking', { total: 0, unit: 'bytes' })
  const onFinding = (finding: ImageFinding): void => {
    findings.push(finding)
    log.error(`${finding.object}: ${finding.message}`, { image: finding.image, rule: finding.rule })
  }
  try {
    await checkImage(
      request,
      {
        onRule: (rule) => log.info(`checking ${rule}`, { image }),
        onTotal: (bytes) => progress.setTotal(bytes),
        onRead: (bytes) => progress.advance(bytes),
        onFinding,
      },
      signal,
    )
  } finally {
    progress.done()
    await request.targetBlobs?.close()
  }
  return findings
}

/** `validate RULE failed`, as the original has it, for the first rule that found something. */
function summaryOf(findings: readonly ImageFinding[]): string {
  const [first] = findings
  const count = findings.length === 1 ? '1 difference' : `${findings.length} differences`
  return `validate ${first?.rule} failed: ${count}, the first: ${first?.object}: ${first?.message}`
}

export function pick(
  type: string | undefined,
  config: string | undefined,
  configFile: string | undefined,
): { type?: string; config?: string; configFile?: string } {
  return {
    ...(type === undefined ? {} : { type }),
    ...(config === undefined ? {} : { config }),
    ...(configFile === undefined ? {} : { configFile }),
  }
}

/** `os/arch`, in the original's words when it is not. */
export function checkedPlatform(text: string): Platform {
  const [os, architecture, ...rest] = text.split('/')
  if (os === undefined || os === '' || architecture === undefined || architecture === '' || rest.length > 1)
    throw new ExitError(1, `invalid platform format, ${text}`)
  return { os, architecture, ...(rest[0] === undefined ? {} : { variant: rest[0] }) }
}
