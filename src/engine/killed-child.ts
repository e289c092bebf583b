/** For tests: reads a whole image through a cache directory, and kills itself so many turns after the request that it was told. */
import { readFileSync } from 'node:fs'
import { openBootstrap } from '../rafs/index.ts'
import { DecodePool, openImage } from './index.ts'
import { LIMITS, readFile, ToldBackend } from './testing.ts'

const [bootstrapPath, blobPath, cacheDirectory, request, turns] = process.argv.slice(2)
const bootstrap = openBootstrap(readFileSync(bootstrapPath))
const backend = new ToldBackend(readFileSync(blobPath))
backend.damage = (_into, attempt) => {
  if (attempt === Number(request)) die(Number(turns))
}

function die(turnsLeft: number): void {
  if (turnsLeft === 0) process.kill(process.pid, 'SIGKILL')
  setImmediate(() => die(turnsLeft - 1))
}

const decoders = new DecodePool(1)
const reader = await openImage({ bootstrap, backend, cacheDirectory, decoders, limits: LIMITS })
for (const name of ['a.bin', 'b.bin', 'c.bin', 'd.bin']) await readFile(bootstrap, reader, name)
await reader.close()
await decoders.close()
