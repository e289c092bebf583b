import { spawn } from 'node:child_process'
import { arch } from 'node:os'
import { ContainerdClient, Version } from '../../containerd/index.ts'
import { type ContainerdConfig, containerdAddress, type WantedOptions } from '../containerd-config/index.ts'
import type { Settings } from '../settings/index.ts'
import { deadlineSignal } from '../../kernel/index.ts'

/** What all checks know. */
export interface NodeFacts {
  readonly settings: Settings
  /** undefined when there is none, and the defaults are looked at. */
  readonly configFile: string | undefined
  /** undefined when it cannot be read. */
  readonly containerd: ContainerdConfig | undefined
  /** Of containerd, as it or its program says; undefined when neither is there. */
  readonly version: { readonly text: string; readonly major: number; readonly minor: number } | undefined
  /** To ask a registry for. */
  readonly image: string | undefined
  readonly signal: AbortSignal
}

/** As containerd knows the snapshotter when its configuration does not say. */
const NAME = 'nydus'
const ASK_MS = 3000
const RUN_MS = 20_000
const ARCHITECTURES: Readonly<Record<string, string>> = { x64: 'amd64' }

/** The name under which containerd has our socket. */
export function nameIn(config: ContainerdConfig | undefined, address: string): string {
  const plugins = config?.merged['proxy_plugins']
  if (typeof plugins !== 'object' || plugins === null) return NAME
  const [found] = Object.entries(plugins).find(([, of]) => hasAddress(of, address)) ?? []
  return found ?? NAME
}

function hasAddress(of: unknown, address: string): boolean {
  return typeof of === 'object' && of !== null && 'address' in of && of.address === address
}

export function wantedOptions({ settings, containerd, version }: NodeFacts): WantedOptions {
  return {
    containerd: version ?? { major: (containerd?.version ?? 0) >= 3 ? 2 : 1, minor: 7 },
    address: settings.address,
    root: settings.root,
    name: nameIn(containerd, settings.address),
    architecture: ARCHITECTURES[arch()] ?? arch(),
  }
}

/** Asks containerd, else its program. */
export async function versionOfContainerd(
  config: ContainerdConfig | undefined,
  signal: AbortSignal,
): Promise<NodeFacts['version']> {
  const asked = config === undefined ? undefined : await askVersion(containerdAddress(config), signal)
  const text = asked ?? (await outputOf('containerd', ['--version'], signal))
  const numbers = /v?(\d+)\.(\d+)\.\d+\S*/.exec(text ?? '')
  return numbers === null ? undefined : { text: numbers[0], major: Number(numbers[1]), minor: Number(numbers[2]) }
}

/** undefined: nobody answers. */
export async function askVersion(address: string, signal: AbortSignal): Promise<string | undefined> {
  const client = new ContainerdClient(address, { namespace: '', timeoutMs: ASK_MS })
  try {
    return (await client.service(Version).version({}, { signal })).version
  } catch {
    return undefined // the caller says what that means
  } finally {
    client.close()
  }
}

/** What a program prints, both outputs; undefined when it cannot be run, fails or takes too long. */
export async function outputOf(
  program: string,
  args: readonly string[],
  signal: AbortSignal,
): Promise<string | undefined> {
  return await new Promise((resolve) => {
    const child = spawn(program, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      signal: AbortSignal.any([signal, deadlineSignal(RUN_MS)]),
    })
    let text = ''
    const take = (part: Buffer): void => {
      if (text.length < 1 << 16) text += part.toString()
    }
    child.stdout.on('data', take)
    child.stderr.on('data', take)
    child.on('error', () => resolve(undefined))
    child.on('close', (code) => resolve(code === 0 ? text : undefined))
  })
}
