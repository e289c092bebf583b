/**
 * The four forms of GNU sparse files. Each ends as a list of data runs, checked: in order, without overlap, inside the file, and as long as what is stored.
 * Source: docs/formats/tar.md, "Sparse files".
 */
import type { ByteInput } from './byte-source.ts'
import type { SparseRun, TarLimits } from './entry.ts'
import { TarError } from './errors.ts'
import { BLOCK, HEADER, numberField, parseNumber } from './header.ts'
import { type PaxRecords, paxNumber } from './pax.ts'

/** A sparse file's map: its real size, its data runs, and how many bytes of map stood before the data. */
export interface SparseMap {
  readonly realSize: number
  readonly runs: readonly SparseRun[]
  readonly mapBytes: number
}

const RUN_SIZE = 24
const RUNS_PER_EXTENSION = 21
const EXTENSION_IS_EXTENDED = RUNS_PER_EXTENSION * RUN_SIZE

/** Type `S` of old GNU tar: four runs in the header, more in blocks that follow it at once. */
export async function readOldGnuSparse(
  header: Uint8Array,
  source: ByteInput,
  storedSize: number,
  limits: TarLimits,
  archiveOffset: number,
): Promise<SparseMap> {
  const realSize = numberField(header, 'gnuRealSize', archiveOffset)
  const runs: SparseRun[] = []
  addRuns(header, HEADER.gnuSparse[0], 4, runs, archiveOffset)
  let more = header[HEADER.gnuIsExtended[0]] !== 0
  while (more) {
    const block = await source.take(BLOCK)
    if (block.length < BLOCK) throw new TarError('TRUNCATED', archiveOffset, 'it ends within a sparse map')
    addRuns(block, 0, RUNS_PER_EXTENSION, runs, archiveOffset)
    if (runs.length > limits.sparseRuns) throw tooMany(limits, archiveOffset)
    more = block[EXTENSION_IS_EXTENDED] !== 0
  }
  return checked({ realSize, runs, mapBytes: 0 }, storedSize, archiveOffset)
}

function addRuns(block: Uint8Array, at: number, count: number, into: SparseRun[], archiveOffset: number): void {
  for (let index = 0; index < count; index++) {
    const start = at + index * RUN_SIZE
    if (block[start] === 0) return
    into.push({
      offset: parseNumber(block, start, 12, 'sparse offset', archiveOffset),
      length: parseNumber(block, start + 12, 12, 'sparse length', archiveOffset),
    })
  }
}

/** The PAX forms: 0.0 (pairs of records), 0.1 (one record), 1.0 (a text in front of the data). Undefined when the records say nothing of sparseness. */
export async function readPaxSparse(
  pax: PaxRecords,
  source: ByteInput,
  storedSize: number,
  limits: TarLimits,
  archiveOffset: number,
): Promise<SparseMap | undefined> {
  const major = pax.values.get('GNU.sparse.major')
  const size = pax.values.get('GNU.sparse.realsize') ?? pax.values.get('GNU.sparse.size')
  if (size === undefined) return undefined
  const realSize = paxNumber(size, 'GNU.sparse.size', archiveOffset)
  if (major !== undefined && paxNumber(major, 'GNU.sparse.major', archiveOffset) === 1) {
    return await readSparse10(realSize, source, storedSize, limits, archiveOffset)
  }
  const map = pax.values.get('GNU.sparse.map')
  const numbers = map === undefined ? pax.sparsePairs : numbersOf(map, archiveOffset)
  if (numbers.length % 2 !== 0)
    throw new TarError('BAD_SPARSE', archiveOffset, 'its sparse map has an odd number of numbers')
  if (numbers.length / 2 > limits.sparseRuns) throw tooMany(limits, archiveOffset)
  return checked({ realSize, runs: pairs(numbers), mapBytes: 0 }, storedSize, archiveOffset)
}

/** 1.0: decimal lines (count, then offset and length each) padded to a block, then the data. */
async function readSparse10(
  realSize: number,
  source: ByteInput,
  storedSize: number,
  limits: TarLimits,
  archiveOffset: number,
): Promise<SparseMap> {
  let text = ''
  let mapBytes = 0
  let wanted = 1
  let numbers: number[] = []
  while (numbers.length < wanted) {
    if (mapBytes + BLOCK > storedSize)
      throw new TarError('BAD_SPARSE', archiveOffset, 'its sparse map is longer than what is stored')
    const block = await source.take(BLOCK)
    if (block.length < BLOCK) throw new TarError('TRUNCATED', archiveOffset, 'it ends within a sparse map')
    mapBytes += BLOCK
    text += Buffer.from(block).toString('latin1')
    const end = text.lastIndexOf('\n')
    const lines = end < 0 ? [] : text.slice(0, end).split('\n')
    text = end < 0 ? text : text.slice(end + 1)
    if (text.length > 2 * BLOCK)
      throw new TarError('BAD_SPARSE', archiveOffset, 'its sparse map is not made of numbers')
    numbers = numbers.concat(
      lines.slice(0, wanted === 1 ? lines.length : wanted - numbers.length).map((line) => decimal(line, archiveOffset)),
    )
    const count = numbers[0]
    if (count !== undefined) {
      if (count > limits.sparseRuns) throw tooMany(limits, archiveOffset)
      wanted = 1 + 2 * count
    }
  }
  return checked({ realSize, runs: pairs(numbers.slice(1, wanted)), mapBytes }, storedSize - mapBytes, archiveOffset)
}

function numbersOf(map: Uint8Array, archiveOffset: number): number[] {
  const text = Buffer.from(map).toString('latin1')
  return text === '' ? [] : text.split(',').map((part) => decimal(part, archiveOffset))
}

function decimal(text: string, archiveOffset: number): number {
  const value = Number(text)
  if (!/^\d{1,16}$/.test(text) || !Number.isSafeInteger(value))
    throw new TarError('BAD_SPARSE', archiveOffset, `its sparse map has "${text.slice(0, 40)}" where a number belongs`)
  return value
}

function pairs(numbers: readonly number[]): SparseRun[] {
  const runs: SparseRun[] = []
  for (let index = 0; index + 1 < numbers.length; index += 2)
    runs.push({ offset: numbers[index], length: numbers[index + 1] })
  return runs
}

function checked(map: SparseMap, storedSize: number, archiveOffset: number): SparseMap {
  let end = 0
  let total = 0
  for (const { offset, length } of map.runs) {
    if (offset < end || length < 0) throw new TarError('BAD_SPARSE', archiveOffset, 'its sparse map goes backwards')
    end = offset + length
    total += length
    if (end > map.realSize)
      throw new TarError('BAD_SPARSE', archiveOffset, `its sparse map reaches byte ${end} of a file of ${map.realSize}`)
  }
  if (map.realSize < 0 || total !== storedSize) {
    throw new TarError(
      'BAD_SPARSE',
      archiveOffset,
      `its sparse map has ${total} bytes of data, ${storedSize} are stored`,
    )
  }
  return { ...map, runs: map.runs.filter(({ length }) => length > 0) }
}

function tooMany(limits: TarLimits, archiveOffset: number): TarError {
  return new TarError('LIMIT', archiveOffset, `its sparse map has more than ${limits.sparseRuns} runs`)
}
