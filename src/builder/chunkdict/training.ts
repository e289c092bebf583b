import type { ChunkFacts } from './chunk-facts.ts'

/** How much of an image's versions the dictionary learns from; the others judge it. */
const TRAIN_SHARE = 0.7

/** Rows of all images: those of the older versions of each, and those of the newer ones. */
export interface Division {
  readonly train: readonly number[]
  readonly test: readonly number[]
}

/** The chunks of one image. */
export interface ImageRows {
  readonly image: number
  readonly rows: readonly number[]
}

/** Divides rows image by image, versions in the order of the numbers in their names. Names without different numbers count as one version, as in the original. */
export function divide(facts: ChunkFacts, rows: readonly number[]): Division {
  const train: number[] = []
  const test: number[] = []
  for (const { rows: own } of byImage(facts, rows)) {
    const versions = byVersion(facts, own)
    const trained = Math.floor(versions.length * TRAIN_SHARE)
    for (const [at, version] of versions.entries()) for (const row of version) (at < trained ? train : test).push(row)
  }
  return { train, test }
}

/** Rows by image, images in bytewise order of their names. */
export function byImage(facts: ChunkFacts, rows: readonly number[]): ImageRows[] {
  const images = new Map<number, number[]>()
  for (const row of rows) {
    const image = facts.imageOf(row)
    const own = images.get(image)
    if (own === undefined) images.set(image, [row])
    else own.push(row)
  }
  return [...images]
    .map(([image, own]) => ({ image, rows: own }))
    .sort((a, b) => Buffer.compare(Buffer.from(facts.imageName(a.image)), Buffer.from(facts.imageName(b.image))))
}

function byVersion(facts: ChunkFacts, rows: readonly number[]): number[][] {
  const versions = new Map<string, { readonly numbers: readonly number[]; readonly rows: number[] }>()
  for (const row of rows) {
    const numbers = numbersIn(facts.versionName(facts.releaseOf(row)))
    const key = numbers.join('.')
    const version = versions.get(key) ?? { numbers, rows: [] }
    versions.set(key, version)
    version.rows.push(row)
  }
  return [...versions.values()].sort((a, b) => compareNumbers(a.numbers, b.numbers)).map((version) => version.rows)
}

/** The numbers in a version's name. Those beyond 31 bits are no numbers to the original. */
function numbersIn(version: string): number[] {
  return [...version.matchAll(/[0-9]+/g)].map(([digits]) => Number(digits)).filter((number) => number <= 0x7fff_ffff)
}

export function compareNumbers(a: readonly number[], b: readonly number[]): number {
  for (let at = 0; at < Math.min(a.length, b.length); at += 1) {
    const difference = (a[at] ?? 0) - (b[at] ?? 0)
    if (difference !== 0) return difference
  }
  return a.length - b.length
}
