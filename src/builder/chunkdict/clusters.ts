import { setImmediate as turn } from 'node:timers/promises'
import { BuilderError } from '../errors.ts'
import type { ChunkFacts } from './chunk-facts.ts'
import type { ImageRows } from './training.ts'

/** Images that must be near one, itself included, for it to be the core of a cluster. */
const MIN_POINTS = 10
/** A chunk belongs to a cluster's dictionary when this share of its images has it. */
const CLUSTER_SHARE = 0.9
/** Distances are counted for each pair of images. */
const MAX_IMAGES = 2048

/** Images that have much in common, and the chunks that nearly all of them have. */
export interface Cluster {
  readonly images: readonly number[]
  readonly rows: readonly number[]
}

/** What of an image decides its distance to others. */
interface Point {
  readonly image: number
  readonly rows: readonly number[]
  readonly size: number
  /** With each digest once. */
  readonly distinctSize: number
  /** Digest → stored size of its first chunk. */
  readonly sizes: ReadonlyMap<number, number>
  visited: boolean
  clustered: boolean
  cluster: number
}

/**
 * Clusters of images by DBSCAN: the original's, whose marks stay from one radius to the next. Throws BuilderError 'TOO_LARGE', or the signal's reason.
 */
export class ImageClusters {
  readonly #facts: ChunkFacts
  readonly #points: readonly Point[]
  /** Of each ordered pair; NaN: not known yet. */
  readonly #distances: Float64Array
  readonly #signal: AbortSignal

  constructor(facts: ChunkFacts, images: readonly ImageRows[], signal: AbortSignal) {
    if (images.length > MAX_IMAGES)
      throw new BuilderError(
        'TOO_LARGE',
        `the database has ${images.length} images; up to ${MAX_IMAGES} can be compared with each other`,
      )
    this.#facts = facts
    this.#signal = signal
    this.#points = images.map(({ image, rows }) => pointOf(facts, image, rows))
    this.#distances = new Float64Array(images.length < MIN_POINTS ? 0 : images.length ** 2).fill(Number.NaN)
  }

  get imageCount(): number {
    return this.#points.length
  }

  get clusteredCount(): number {
    return this.#points.filter(({ clustered }) => clustered).length
  }

  /** Clusters at this radius, which is not to be less than that of the call before. */
  async at(radius: number): Promise<Cluster[]> {
    // Too few images to be near any: nothing to compare.
    if (this.#points.length >= MIN_POINTS) await this.#mark(radius)
    const members = new Map<number, Point[]>()
    for (const point of this.#points) {
      if (!point.clustered) continue
      const known = members.get(point.cluster)
      if (known === undefined) members.set(point.cluster, [point])
      else known.push(point)
    }
    return [...members.values()].map((points) => ({
      images: points.map(({ image }) => image),
      rows: this.#common(points),
    }))
  }

  async #mark(radius: number): Promise<void> {
    let cluster = 1
    for (const [at, point] of this.#points.entries()) {
      await this.#breathe()
      if (point.visited || point.clustered) continue
      if (this.#near(at, radius).length < MIN_POINTS) continue
      await this.#expand(at, cluster, radius)
      cluster += 1
    }
  }

  async #expand(core: number, cluster: number, radius: number): Promise<void> {
    const open = [core]
    this.#join(core, cluster)
    for (let at = open.pop(); at !== undefined; at = open.pop()) {
      const point = this.#points[at]
      if (point === undefined || point.visited) continue
      await this.#breathe()
      point.visited = true
      const near = this.#near(at, radius)
      if (near.length < MIN_POINTS) continue
      for (const other of near) {
        open.push(other)
        if (this.#points[other]?.clustered === false) this.#join(other, cluster)
      }
    }
  }

  #join(at: number, cluster: number): void {
    const point = this.#points[at]
    if (point === undefined) return
    point.clustered = true
    point.cluster = cluster
  }

  /** Points that were not visited yet and are no further away than the radius. */
  #near(from: number, radius: number): number[] {
    const near: number[] = []
    for (const [at, { visited }] of this.#points.entries())
      if (!visited && this.#distance(from, at) <= radius) near.push(at)
    return near
  }

  /** 1 − the share of bytes that repeat what was there before, within an image or between the two. */
  #distance(from: number, to: number): number {
    const pair = from * this.#points.length + to
    const known = this.#distances[pair] ?? Number.NaN
    if (!Number.isNaN(known)) return known
    const [a, b] = [this.#points[from], this.#points[to]]
    if (a === undefined || b === undefined) return Number.NaN
    let distinct = a.distinctSize
    for (const [digest, size] of b.sizes) if (!a.sizes.has(digest)) distinct += size
    const distance = 1 - (a.size + b.size - distinct) / (a.size + b.size)
    this.#distances[pair] = distance
    return distance
  }

  /** The first row of each digest that enough of the images have. */
  #common(points: readonly Point[]): number[] {
    const counts = new Map<number, number>()
    for (const { sizes } of points) for (const digest of sizes.keys()) counts.set(digest, (counts.get(digest) ?? 0) + 1)
    const found = new Map<number, number>()
    for (const { rows } of points) {
      for (const row of rows) {
        const digest = this.#facts.digestOf(row)
        if (!found.has(digest) && (counts.get(digest) ?? 0) / points.length >= CLUSTER_SHARE) found.set(digest, row)
      }
    }
    return [...found.values()]
  }

  /** Lets a signal through. */
  async #breathe(): Promise<void> {
    await turn()
    this.#signal.throwIfAborted()
  }
}

function pointOf(facts: ChunkFacts, image: number, rows: readonly number[]): Point {
  let size = 0
  let distinctSize = 0
  const sizes = new Map<number, number>()
  for (const row of rows) {
    const own = facts.sizeOf(row)
    const digest = facts.digestOf(row)
    size += own
    if (sizes.has(digest)) continue
    distinctSize += own
    sizes.set(digest, own)
  }
  return { image, rows, size, distinctSize, sizes, visited: false, clustered: false, cluster: 0 }
}
