/** A process that the tests start: stores the chunks `first`, `first + step`, … of a cache after a message came, then ends. */
import { openChunkCache } from '../index.ts'
import { chunk, CHUNK, content } from '../testing.ts'

const [directory = '', blobId = '', count = '0', first = '0', step = '1'] = process.argv.slice(2)

async function run(): Promise<void> {
  const chunkCount = Number(count)
  const cache = await openChunkCache({ directory, blobId, chunkCount, uncompressedSize: chunkCount * CHUNK })
  process.send?.('ready')
  await new Promise((resolve) => process.once('message', resolve))
  for (let index = Number(first); index < chunkCount; index += Number(step))
    await cache.store(chunk(index), content(index))
  await cache.close()
  process.disconnect()
}

void run()
