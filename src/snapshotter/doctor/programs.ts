import { readFileSync } from 'node:fs'
import { SnapshotterError } from '../errors.ts'
import { NYDUSD_CONFIG } from '../node-setup/index.ts'
import { findProgram } from '../settings/index.ts'
import { Findings } from './finding.ts'
import { type NodeFacts, outputOf } from './node.ts'

/** Before this one nydusd has not all that we ask of it. */
const OLDEST = { major: 2, minor: 2 }

export async function checkPrograms({ settings, signal }: NodeFacts): Promise<Findings[]> {
  const { daemon, daemonMode, tarfs } = settings
  const nydusd = new Findings('nydusd')
  if (daemonMode === 'none') nydusd.ok('no nydusd is wanted')
  else await checkProgram(nydusd, { given: daemon.nydusdPath, name: 'nydusd', key: 'daemon.nydusd_path', signal })
  const image = new Findings('nydus-image')
  if (!tarfs.enable) image.ok('nydus-image is not needed')
  else
    await checkProgram(image, {
      given: daemon.nydusImagePath,
      name: 'nydus-image',
      key: 'daemon.nydusimage_path',
      signal,
    })
  return [nydusd, image]
}

async function checkProgram(
  found: Findings,
  of: { given: string; name: string; key: string; signal: AbortSignal },
): Promise<void> {
  const { given, name, key, signal } = of
  let path: string
  try {
    path = findProgram(given, name, key)
  } catch (error) {
    if (!(error instanceof SnapshotterError)) throw error
    return found.fail({
      what: error.message,
      fix: `command -v ${name}\nthen in the configuration: ${key.slice(key.lastIndexOf('.') + 1)} = "/the/path"`,
    })
  }
  const text = await outputOf(path, ['--version'], signal)
  const version = /v?(\d+)\.(\d+)\.\d+\S*/.exec(text ?? '')
  if (text === undefined)
    return found.fail({
      what: `${path} --version fails`,
      fix: `${path} --version     # what does it say?\nldd ${path}`,
    })
  if (version === null) return found.warn({ what: `${path} does not tell its version`, fix: `${path} --version` })
  const [major, minor] = [Number(version[1]), Number(version[2])]
  const isOurs = /nydus-node/.test(text)
  if (!isOurs && (major < OLDEST.major || (major === OLDEST.major && minor < OLDEST.minor)))
    return found.fail({
      what: `${path} is version ${version[0]}, older than ${OLDEST.major}.${OLDEST.minor}`,
      fix: `Install a newer ${name}, and restart containerd-nydus-grpc`,
    })
  found.ok(`${path} is version ${version[0]}`)
}

/** The template of what nydusd is configured with. */
export function checkTemplate({ settings }: NodeFacts): Findings {
  const found = new Findings('nydusd-config')
  const { configPath } = settings.daemon
  if (settings.daemonMode === 'none') {
    found.ok('no nydusd is wanted')
    return found
  }
  const fix = `Write ${configPath}, for example:\n${NYDUSD_CONFIG}`
  let text: string
  try {
    text = readFileSync(configPath, 'utf8')
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    found.fail({ what: `the template of nydusd's configuration ${configPath} cannot be read (${code})`, fix })
    return found
  }
  const problem = templateProblem(text)
  if (problem === undefined) found.ok(`${configPath} can be used`)
  else found.fail({ what: `${configPath} ${problem}`, fix })
  return found
}

function templateProblem(text: string): string | undefined {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    return `is no JSON: ${(error as Error).message}`
  }
  const at = (of: unknown, key: string): unknown =>
    typeof of === 'object' && of !== null ? (of as Record<string, unknown>)[key] : undefined
  const device = at(value, 'device')
  const type = at(at(device, 'backend'), 'type') ?? at(at(value, 'backend'), 'type')
  if (typeof type !== 'string') return 'has no "device.backend.type"; write "registry"'
  const cache = at(at(device, 'cache'), 'type') ?? at(at(value, 'cache'), 'type')
  return cache === undefined || cache === ''
    ? 'has no "device.cache.type": nothing would be kept; write "blobcache"'
    : undefined
}
