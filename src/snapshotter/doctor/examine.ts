import { existsSync } from 'node:fs'
import { type ContainerdConfig, CONTAINERD_CONFIG, readContainerdConfig } from '../containerd-config/index.ts'
import { SnapshotterError } from '../errors.ts'
import { readSettings, type Settings } from '../settings/index.ts'
import { checkContainerdConfig, checkImageFileSystem } from './containerd.ts'
import { checkMounts, checkOwner, checkRoot, checkSpace } from './disk.ts'
import { type Finding, Findings } from './finding.ts'
import { checkKernel, checkMountHelper } from './kernel.ts'
import { type NodeFacts, versionOfContainerd } from './node.ts'
import { checkPrograms, checkTemplate } from './programs.ts'
import { checkRegistry } from './registry.ts'
import { checkContainerdSocket, checkDaemons, checkOwnSocket } from './sockets.ts'

export interface ExamineOptions {
  /** Default: {@link SNAPSHOTTER_CONFIG} if it is there, else the defaults. */
  readonly configFile: string | undefined
  readonly containerdConfigFile: string | undefined
  readonly image: string | undefined
}

export const SNAPSHOTTER_CONFIG = '/etc/nydus/snapshotter.toml'
const UNREADABLE = 'Repair the file; docs/containerd-nydus-grpc.md tells every key'

/** Looks at everything that a lazy start needs on this machine; changes nothing. One thing that cannot be looked at hinders no other. */
export async function examineNode(options: ExamineOptions, signal: AbortSignal): Promise<Finding[]> {
  const configuration = new Findings('configuration')
  const settings = settingsOf(options, configuration)
  if (settings === undefined) return configuration.all
  const containerd = containerdOf(options, configuration)
  const facts: NodeFacts = {
    settings,
    configFile: options.configFile,
    containerd,
    version: await versionOfContainerd(containerd, signal),
    image: options.image,
    signal,
  }
  const own = await looked('snapshotter-socket', async () => await checkOwnSocket(facts))
  const isAnswered = own.some(({ status }) => status === 'ok')
  const checks: ReadonlyArray<readonly [string, () => Promise<Findings | Findings[]> | Findings | Findings[]]> = [
    ['root', () => checkRoot(facts)],
    ['root-owner', () => checkOwner(facts, isAnswered)],
    ['disk-space', () => checkSpace(facts)],
    ['containerd-socket', () => checkContainerdSocket(facts)],
    ['containerd-plugin', () => checkContainerdConfig(facts)],
    ['image-file-system', () => checkImageFileSystem(facts)],
    ['kernel-fuse', () => checkKernel(facts)],
    ['mount-helper', () => checkMountHelper(facts)],
    ['nydusd', () => checkPrograms(facts)],
    ['nydusd-config', () => checkTemplate(facts)],
    ['daemons', () => checkDaemons(facts)],
    ['leftover-mounts', () => checkMounts(facts)],
    ['registry', () => checkRegistry(facts)],
  ]
  const all = [...configuration.all, ...own]
  for (const [name, check] of checks) all.push(...(await looked(name, check)))
  return all
}

async function looked(
  name: string,
  check: () => Promise<Findings | Findings[]> | Findings | Findings[],
): Promise<Finding[]> {
  try {
    return [await check()].flat().flatMap(({ all }) => all)
  } catch (error) {
    const found = new Findings(name)
    found.skip(`cannot be looked at: ${error instanceof Error ? error.message : String(error)}`)
    return found.all
  }
}

function settingsOf({ configFile }: ExamineOptions, found: Findings): Settings | undefined {
  const file = configFile ?? (existsSync(SNAPSHOTTER_CONFIG) ? SNAPSHOTTER_CONFIG : undefined)
  try {
    const settings = readSettings(file, {})
    for (const warning of settings.warnings)
      found.warn({ what: `${file ?? ''}: ${warning}`, fix: 'Remove the key, or correct it' })
    found.ok(
      file === undefined ? 'the snapshotter has no configuration file: defaults are looked at' : `${file} can be used`,
    )
    return settings
  } catch (error) {
    if (!(error instanceof SnapshotterError)) throw error
    found.fail({ what: error.message, fix: UNREADABLE })
    return undefined
  }
}

function containerdOf({ containerdConfigFile }: ExamineOptions, found: Findings): ContainerdConfig | undefined {
  const path = containerdConfigFile ?? CONTAINERD_CONFIG
  try {
    const config = readContainerdConfig(path)
    if (config.text === undefined)
      found.warn({
        what: `there is no ${path}: containerd takes its defaults`,
        fix: 'nydus-setup     # writes one; or give --containerd-config FILE',
      })
    else found.ok(`${path} can be used${config.imported.length > 0 ? `, with ${config.imported.join(', ')}` : ''}`)
    return config
  } catch (error) {
    if (!(error instanceof SnapshotterError)) throw error
    found.fail({ what: error.message, fix: 'Repair the file: containerd does not start with it' })
    return undefined
  }
}
