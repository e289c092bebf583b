import type { ChunkFacts } from './chunk-facts.ts'
import { type Cluster, ImageClusters } from './clusters.ts'
import { smoothed } from './smoothing.ts'
import { byImage, divide, type ImageRows } from './training.ts'

/** Rounds of clustering, each over what the ones before have left. */
const MAX_ROUNDS = 7
const RADIUS = { from: 0.5, to: 0.9, step: 0.05 } as const
const THRESHOLD = { from: 0.5, to: 0.8, step: 0.05 } as const
/** With a smaller share of images in clusters, clustering ends. */
const MIN_CLUSTERED_SHARE = 0.2

/** Chunks to have in a dictionary. */
export interface Selection {
  /** Rows; of equal digests more than one, and not yet all of a blob. */
  readonly rows: readonly number[]
  /** Images that no cluster has. */
  readonly unclustered: readonly number[]
  /** Stored bytes of all rows, of those that were learned from, of those that judged, and of the last ones what the dictionary does not have. */
  readonly bytes: {
    readonly all: number
    readonly train: number
    readonly test: number
    readonly missed: number
    readonly selected: number
  }
}

/**
 * Chooses chunks that many images or versions have, by the original's algorithm ("exponential smoothing"): what most images of a cluster share, and what an
 * image's later versions are likely to keep. Source: docs/formats/rafs-v6.md, "Chunk dictionaries". Throws the signal's reason.
 */
export async function selectChunks(facts: ChunkFacts, signal: AbortSignal): Promise<Selection> {
  const { train, test } = divide(facts, facts.rows)
  const clusters = await clusterRounds(facts, { train, test }, signal)
  const versions = versionDictionaries(facts, { train, test }, clusters)
  const rows = [...clusters.flatMap((cluster) => cluster.rows), ...versions.rows]
  const inClusters = new Set(clusters.flatMap(({ images }) => images))
  const unclustered = new Set(facts.rows.map((row) => facts.imageOf(row)).filter((image) => !inClusters.has(image)))
  const bytes = {
    all: bytesOf(facts, facts.rows),
    train: bytesOf(facts, train),
    test: bytesOf(facts, test),
    missed: versions.missed,
    selected: bytesOf(facts, rows),
  }
  return { rows, unclustered: [...unclustered], bytes }
}

interface Rows {
  readonly train: readonly number[]
  readonly test: readonly number[]
}

/** Clusters of images round by round: each round takes the radius that serves the newer versions best, and its chunks are left out of the next one. */
async function clusterRounds(facts: ChunkFacts, rows: Rows, signal: AbortSignal): Promise<Cluster[]> {
  let { train, test } = rows
  const found: Cluster[] = []
  for (let round = 0; round < MAX_ROUNDS && train.length > 0; round += 1) {
    const images = new ImageClusters(facts, byImage(facts, train), signal)
    let best: Cluster[] = []
    let least = Number.POSITIVE_INFINITY
    for (let radius: number = RADIUS.from; radius <= RADIUS.to; radius += RADIUS.step) {
      const clusters = await images.at(radius)
      const dictionary = new Set(clusters.flatMap((cluster) => cluster.rows))
      const missed = bytesOf(
        facts,
        test.filter((row) => !dictionary.has(row)),
      )
      if (missed <= least) [least, best] = [missed, clusters]
    }
    const trained = new Set(train)
    const digests = new Set<number>()
    for (const { rows: chosen } of best)
      for (const row of chosen) if (trained.has(row)) digests.add(facts.digestOf(row))
    train = train.filter((row) => !digests.has(facts.digestOf(row)))
    test = test.filter((row) => !digests.has(facts.digestOf(row)))
    if (images.clusteredCount / images.imageCount < MIN_CLUSTERED_SHARE) break
    found.push(...best)
  }
  return found
}

/** What each image's later versions are likely to have, by the threshold that serves the newer versions best. */
function versionDictionaries(
  facts: ChunkFacts,
  { train, test }: Rows,
  clusters: readonly Cluster[],
): { readonly rows: readonly number[]; readonly missed: number } {
  const images = byImage(facts, train).map((image) => withoutClusters(image, clusters))
  const tests = byImage(facts, test)
  let best: number[] = []
  let least = Number.POSITIVE_INFINITY
  for (let threshold: number = THRESHOLD.from; threshold <= THRESHOLD.to; threshold += THRESHOLD.step) {
    const dictionaries = new Map(images.map(({ image, rows }) => [image, smoothed(facts, rows, threshold)]))
    let missed = 0
    for (const { image, rows } of tests) {
      const digests = new Set((dictionaries.get(image) ?? []).map((row) => facts.digestOf(row)))
      missed += bytesOf(
        facts,
        rows.filter((row) => !digests.has(facts.digestOf(row))),
      )
    }
    if (missed <= least) [least, best] = [missed, [...dictionaries.values()].flat()]
  }
  return { rows: best, missed: least }
}

function withoutClusters({ image, rows }: ImageRows, clusters: readonly Cluster[]): ImageRows {
  const known = new Set(clusters.filter(({ images }) => images.includes(image)).flatMap((cluster) => cluster.rows))
  return { image, rows: rows.filter((row) => !known.has(row)) }
}

function bytesOf(facts: ChunkFacts, rows: readonly number[]): number {
  return rows.reduce((sum, row) => sum + facts.sizeOf(row), 0)
}
