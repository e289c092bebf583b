import { RegistryError } from './errors.ts'
import type { Descriptor, ImageIndex, Platform } from './manifest.ts'

const ARCHITECTURES: Readonly<Record<string, { architecture: string; variant?: string }>> = {
  i386: { architecture: '386' },
  x86_64: { architecture: 'amd64' },
  'x86-64': { architecture: 'amd64' },
  aarch64: { architecture: 'arm64' },
  armhf: { architecture: 'arm', variant: 'v7' },
  armel: { architecture: 'arm', variant: 'v6' },
}
/** What Node calls this machine, where it differs from the specification (GOARCH). */
const NODE_ARCHITECTURES: Readonly<Record<string, string>> = {
  x64: 'amd64',
  ia32: '386',
  ppc64: 'ppc64le',
  mipsel: 'mipsle',
  loong64: 'loong64',
}

/** Parses `os/arch[/variant]` (also `arch` alone), normalised as containerd does: `x86_64` is `amd64`, `arm64/v8` is `arm64`. Throws 'BAD_REFERENCE'. */
export function parsePlatform(text: string): Platform {
  const parts = text.split('/')
  const [first = '', second, third] = parts
  if (parts.length > 3 || parts.some((part) => !/^[A-Za-z0-9_.-]+$/.test(part))) {
    throw new RegistryError(
      'BAD_REFERENCE',
      `cannot use platform ${JSON.stringify(text.slice(0, 100))}: write OS/ARCH or OS/ARCH/VARIANT, as in linux/arm/v7`,
    )
  }
  if (second === undefined) return normalPlatform({ os: 'linux', architecture: first })
  return normalPlatform({ os: first, architecture: second, ...(third === undefined ? {} : { variant: third }) })
}

/** As `parsePlatform` takes it back. */
export function formatPlatform(platform: Platform): string {
  return [
    platform.os,
    platform.architecture,
    ...(platform.variant === undefined || platform.variant === '' ? [] : [platform.variant]),
  ].join('/')
}

/** The platform of this machine. */
export function hostPlatform(): Platform {
  return normalPlatform({ os: process.platform, architecture: NODE_ARCHITECTURES[process.arch] ?? process.arch })
}

/** True when both mean the same after normalisation: os, architecture and variant. */
export function samePlatform(offered: Platform, wanted: Platform): boolean {
  return formatPlatform(normalPlatform(offered)) === formatPlatform(normalPlatform(wanted))
}

/**
 * The entry of an index to run on `wanted`, by containerd's rules (`platforms.Only`): exact first, then what such a machine runs too, best
 * first: older variants of arm and amd64, 32-bit arm on arm64, 386 on amd64. Among equals, one without `os.features` that were not asked for
 * (a Nydus image beside the OCI one) comes first, then the order of the index. An entry without platform is taken when it is the only entry.
 * Undefined when nothing fits.
 */
export function selectPlatform(index: ImageIndex, wanted: Platform): Descriptor | undefined {
  const features = new Set(wanted['os.features'])
  const foreign = (entry: Descriptor): number =>
    (entry.platform?.['os.features'] ?? []).filter((feature) => !features.has(feature)).length
  for (const candidate of runnable(normalPlatform(wanted))) {
    const fitting = index.manifests.filter(
      (entry) => entry.platform !== undefined && samePlatform(entry.platform, candidate),
    )
    const best = fitting.toSorted((a, b) => foreign(a) - foreign(b))[0] // toSorted keeps the order of equals
    if (best !== undefined) return best
  }
  const [only] = index.manifests
  return index.manifests.length === 1 && only?.platform === undefined ? only : undefined
}

/** What runs on this platform, best first. */
function runnable(platform: Platform): Platform[] {
  const { os, architecture, variant } = platform
  const version = Number(/^v(\d)$/.exec(variant ?? '')?.[1] ?? Number.NaN)
  if (architecture === 'amd64') {
    const older = Number.isNaN(version)
      ? []
      : count(version - 1, 1).map((n) => normalPlatform({ os, architecture, variant: `v${n}` }))
    return [platform, ...older, { os, architecture: '386' }]
  }
  if (architecture === 'arm') {
    const older = Number.isNaN(version)
      ? []
      : count(version - 1, 5).map((n) => ({ os, architecture, variant: `v${n}` }))
    return [platform, ...older]
  }
  if (architecture === 'arm64') {
    const older =
      Number.isNaN(version) || version <= 8
        ? []
        : count(version - 1, 8).map((n) => normalPlatform({ os, architecture, variant: `v${n}` }))
    return [platform, ...older, ...runnable({ os, architecture: 'arm', variant: 'v8' })]
  }
  return [platform]
}

/** `from`, `from - 1`, … `to`. */
function count(from: number, to: number): number[] {
  return Array.from({ length: Math.max(0, from - to + 1) }, (_, index) => from - index)
}

function normalPlatform(platform: Platform): Platform {
  const os = platform.os.toLowerCase() === 'macos' ? 'darwin' : platform.os.toLowerCase()
  const named = platform.architecture.toLowerCase()
  const known = Object.hasOwn(ARCHITECTURES, named) ? ARCHITECTURES[named] : undefined
  const architecture = known?.architecture ?? named
  const variant = normalVariant(architecture, known?.variant ?? platform.variant?.toLowerCase() ?? '')
  const { variant: _, ...rest } = platform
  return { ...rest, os, architecture, ...(variant === '' ? {} : { variant }) }
}

/** The variant that is understood when none is written is left out (arm64 v8, amd64 v1), but arm always has one (v7). */
function normalVariant(architecture: string, variant: string): string {
  const withV = /^\d+$/.test(variant) ? `v${variant}` : variant
  if (architecture === 'arm64' && withV === 'v8') return ''
  if (architecture === 'amd64' && withV === 'v1') return ''
  if (architecture === 'arm' && withV === '') return 'v7'
  return withV
}
