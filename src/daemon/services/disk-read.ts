import { ByteBudget } from './byte-budget.ts'
import type { ImageDisk } from './image-disk.ts'
import type { DiskRange } from './page-map.ts'

type Readable = Pick<ImageDisk, 'readNow' | 'read'>

/** Memory of all clients for what is on its way. */
const budget = new ByteBudget(64 << 20)

/** Bytes of a disk. What is at hand comes at once; what must be fetched waits its turn, and so holds up nothing else. Throws as `ImageDisk.read`. */
export async function readDisk(
  disk: Readable,
  range: DiskRange,
  signal: AbortSignal,
  allocate: (length: number) => Buffer = (length) => Buffer.allocUnsafeSlow(length),
): Promise<Buffer> {
  return atHand(disk, range, allocate) ?? (await fetched(disk, range, signal, allocate))
}

function atHand(
  disk: Readable,
  { offset, length }: DiskRange,
  allocate: (length: number) => Buffer,
): Buffer | undefined {
  const bytes = allocate(length)
  return disk.readNow(offset, bytes) ? bytes : undefined
}

async function fetched(
  disk: Readable,
  { offset, length }: DiskRange,
  signal: AbortSignal,
  allocate: (length: number) => Buffer,
): Promise<Buffer> {
  const release = await budget.take(length)
  try {
    const bytes = allocate(length)
    await disk.read(offset, bytes, signal)
    return bytes
  } finally {
    release()
  }
}
