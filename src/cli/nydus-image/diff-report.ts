import type { ChunkFigures, DiffPart, DiffSummary, NamedImage, PathDifference } from '../../builder/index.ts'
import type { DumpEntry } from '../../rafs/index.ts'
import { formatBytes } from '../output.ts'

/** How differences are told, piece by piece. */
export interface Report {
  head(a: NamedImage, b: NamedImage, hasPaths: boolean): string
  /** `count`: how many paths were told before. */
  path(difference: PathDifference, count: number): string
  end(summary: DiffSummary, hasPaths: boolean): string
}

/** For people. */
export const textReport: Report = {
  head: (a, b) => `A: ${imageWords(a)}\nB: ${imageWords(b)}\n\n`,
  path: textLine,
  end: (summary, hasPaths) => (hasPaths && differing(summary) > 0 ? '\n' : '') + textSummary(summary),
}

/** For programs; docs/nydus-image.md, "diff", has its members. */
export const jsonReport: Report = {
  head: (a, b, hasPaths) => {
    const head = JSON.stringify({ a: imageFacts(a), b: imageFacts(b) }).slice(0, -1)
    return hasPaths ? `${head},"changes":[` : head
  },
  path: ({ path, change, parts, a, b }, count) =>
    `${count > 0 ? ',' : ''}\n${JSON.stringify({ path, change, parts, a, b })}`,
  end: (summary, hasPaths) => `${hasPaths ? '\n]' : ''},"summary":${JSON.stringify(summaryFacts(summary))}}\n`,
}

function imageWords({ name, image }: NamedImage): string {
  return `${name} (RAFS v${image.version}, blobs: ${image.blobs.length})`
}

function imageFacts({ name, image }: NamedImage): Record<string, string | number> {
  return { bootstrap: name, fs_version: String(image.version), chunk_size: image.chunkSize, blobs: image.blobs.length }
}

const SIGNS = { added: '+', removed: '-', changed: '~' } as const

function textLine({ path, change, parts, a, b }: PathDifference): string {
  const entry = b ?? a
  const what = parts.map((part) => partWords(part, a, b)).join(', ')
  const size = entry?.type === 'file' ? ` (${formatBytes(entry.size ?? 0)})` : ''
  const words = change === 'changed' ? `: ${what}` : size
  return `${SIGNS[change]} ${(entry?.type ?? '').padEnd(7)} ${path}${words}\n`
}

function partWords(part: DiffPart, a: DumpEntry | undefined, b: DumpEntry | undefined): string {
  const change = (of: (entry: DumpEntry) => string | number | undefined): string => {
    const [before, after] = [a, b].map((entry) => entry && of(entry))
    return before === after ? '' : ` ${before} -> ${after}`
  }
  switch (part) {
    case 'type':
      return `type${change(({ type }) => type)}`
    case 'content':
      return `content${change(({ size }) => formatBytes(size ?? 0))}`
    case 'content_unknown':
      return 'content?'
    case 'target':
      return `target${change(({ target }) => target)}`
    case 'device':
      return `device${change(({ rdev }) => rdev)}`
    case 'mode':
      return `mode${change(({ mode }) => mode)}`
    case 'owner':
      return `owner${change(({ uid, gid }) => `${uid}:${gid}`)}`
    case 'mtime':
    case 'xattrs':
    case 'links':
      return part
    default:
      return part satisfies never
  }
}

function differing({ paths }: DiffSummary): number {
  return paths.added + paths.removed + paths.changed
}

function textSummary(summary: DiffSummary): string {
  const { paths, parts, blobs, fetch } = summary
  const counted = Object.entries(parts).filter(([, count]) => count > 0)
  const what = counted.map(([part, count]) => `${part === 'content_unknown' ? 'content?' : part} ${count}`).join(', ')
  return [
    `Paths: ${paths.added} added, ${paths.removed} removed, ${paths.changed} changed${what === '' ? '' : ` (${what})`}, ${paths.same} the same`,
    `Blobs: ${blobs.shared.length} shared, ${blobs.onlyA.length} only in A, ${blobs.onlyB.length} only in B`,
    '',
    `${''.padEnd(40)}${'chunks'.padStart(10)}${'stored'.padStart(14)}${'plain'.padStart(14)}`,
    figuresLine('All of B', fetch.total),
    figuresLine('To fetch for B when A is there', fetch.missing),
    figuresLine('  of that: in another blob of A', fetch.elsewhere),
    '',
  ].join('\n')
}

function figuresLine(name: string, { chunks, storedBytes, plainBytes }: ChunkFigures): string {
  const sizes = [storedBytes, plainBytes].map((bytes) => formatBytes(bytes).padStart(14)).join('')
  return `${name.padEnd(40)}${String(chunks).padStart(10)}${sizes}`
}

function summaryFacts({ paths, parts, fetch, blobs }: DiffSummary): unknown {
  const figures = ({ chunks, storedBytes, plainBytes }: ChunkFigures): unknown => ({
    chunks,
    stored_bytes: storedBytes,
    plain_bytes: plainBytes,
  })
  return {
    paths,
    parts,
    fetch: { total: figures(fetch.total), missing: figures(fetch.missing), elsewhere: figures(fetch.elsewhere) },
    blobs: { shared: blobs.shared, only_a: blobs.onlyA, only_b: blobs.onlyB },
  }
}
