/** A process that the tests start: stores the chunks `first`, `first + step`, … of a cache after a message came, then ends. */
import { ChunkInfo, type VerifiedChunk } from '../../blob/index.ts'
import { openChunkCache } from '../index.ts'

const [directory = '', blobId = '', count = '0', first = '0', step = '1'] = process.argv.slice(2)
const SIZE = 4096

async function run(): Promise<void> {
  const chunkCount = Number(count)
  const cache = await openChunkCache({ directory, blobId, chunkCount, uncompressedSize: chunkCount * SIZE })
  process.send?.('ready')
  await new Promise((resolve) => process.once('message', resolve))
  for (let index = Number(first); index < chunkCount; index += Number(step)) {
    const info = new ChunkInfo()
    Object.assign(info, { index, uncompressedOffset: index * SIZE, uncompressedSize: SIZE })
    // Nothing is hashed here: the test is about files.
    await cache.store(info, Buffer.alloc(SIZE, `chunk ${index}, `) as Uint8Array as VerifiedChunk)
  }
  await cache.close()
  process.disconnect()
}

void run()
