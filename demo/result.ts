/** What the demo found out, as `--json` prints it; the member names are an interface. */
import { formatBytes } from '../src/cli/output.ts'

/** Seconds, bytes as they crossed the network (HTTP headers included). */
export interface StartResult {
  readonly mounted_s: number
  readonly ready_s: number
  readonly bytes: number
  readonly requests: number
  readonly connections: number
  /** Of the plain image's compressed layers. */
  readonly share: number
  /** Where the time went; seconds, one after the other. */
  readonly phases: Readonly<Record<string, number>>
}

export interface DemoResult {
  readonly image: {
    readonly reference: string
    readonly layers: number
    readonly compressed_bytes: number
    /** Known for the image that the demo makes. */
    readonly files?: number
    readonly uncompressed_bytes?: number
    readonly nydus_reference: string
  }
  readonly network: { readonly bandwidth_mbit: number; readonly round_trip_ms: number }
  readonly prepare: { readonly image_s: number; readonly convert_s: number; readonly check_s: number }
  readonly eager?: StartResult
  readonly lazy?: StartResult & { readonly prefetch: boolean }
  /** Seconds that the program itself takes when all of it lies in this machine's memory. */
  readonly program_s?: number
  /** Times sooner ready. */
  readonly speedup?: number
  readonly caches_dropped?: boolean
  /** Why nothing was started. */
  readonly skipped?: string
}

/** The table for people. */
export function renderTable(result: DemoResult): string {
  const { image, network, prepare, eager, lazy } = result
  const size = [`${image.layers} layers`, formatBytes(image.compressed_bytes)]
  if (image.files !== undefined) size.push(`${image.files.toLocaleString('en')} files`)
  if (image.uncompressed_bytes !== undefined) size.push(`${formatBytes(image.uncompressed_bytes)} unpacked`)
  const lines = [
    `Image     ${image.reference}: ${size.join(', ')}`,
    `Network   ${network.bandwidth_mbit} Mbit/s, ${network.round_trip_ms} ms round trip`,
    `Prepared  image in ${seconds(prepare.image_s)}, converted in ${seconds(prepare.convert_s)}, checked against the original in ${seconds(prepare.check_s)}: equal`,
  ]
  if (eager === undefined || lazy === undefined) return [...lines, '', `Not started: ${result.skipped}`].join('\n')
  const row = (what: string, plain: string, nydus: string, note = ''): string =>
    `${what.padEnd(20)}${plain.padStart(14)}${nydus.padStart(14)}   ${note}`.trimEnd()
  return [
    ...lines,
    '',
    row('', 'plain pull', 'lazy'),
    row('files usable', seconds(eager.mounted_s), seconds(lazy.mounted_s), times(eager.mounted_s, lazy.mounted_s)),
    row('program ready', seconds(eager.ready_s), seconds(lazy.ready_s), times(eager.ready_s, lazy.ready_s)),
    row('fetched', formatBytes(eager.bytes), formatBytes(lazy.bytes)),
    row('share of the image', percent(eager.share), percent(lazy.share)),
    row('requests', String(eager.requests), String(lazy.requests)),
    '',
    'Where the time went',
    `  plain pull  ${phases(eager)}`,
    `  lazy        ${phases(lazy)}`,
    ...(result.program_s === undefined
      ? []
      : [`  The program alone, all of it in memory: ${seconds(result.program_s)}`]),
    ...(result.caches_dropped === false ? ['  The kernel let nobody drop its caches: the figures are too good.'] : []),
  ].join('\n')
}

function phases(start: StartResult): string {
  return Object.entries(start.phases)
    .map(([name, value]) => `${name} ${seconds(value)}`)
    .join(', ')
}

function seconds(value: number): string {
  return `${value.toFixed(value < 10 ? 2 : 1)} s`
}

function percent(share: number): string {
  return `${(share * 100).toFixed(share < 0.1 ? 1 : 0)} %`
}

function times(plain: number, lazy: number): string {
  return plain >= lazy ? `${(plain / lazy).toFixed(1)} times sooner` : `${(lazy / plain).toFixed(1)} times later`
}
